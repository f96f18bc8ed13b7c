-- severity: warning
-- summary: A constraint that was never validated
-- why: New rows keep to it, old ones perhaps not, and the planner cannot rely on it. VALIDATE CONSTRAINT reads the table beside its users.
-- applies: VALIDATE CONSTRAINT
with
-- include: mine
select pg_catalog.format('%s.%I', m.name, k.conname) as object, 'not validated: rows from before it may break it' as message,
  pg_catalog.format('ALTER TABLE %s VALIDATE CONSTRAINT %I;', m.name, k.conname) as fix
from pg_catalog.pg_constraint k join mine m on m.oid = k.conrelid
where not k.convalidated and k.conparentid = 0 and coalesce((pg_catalog.to_jsonb(k) ->> 'conenforced')::bool, true)
union all
select pg_catalog.format('domain %s, %I', k.contypid::pg_catalog.regtype, k.conname), 'not validated: values from before it may break it',
  pg_catalog.format('ALTER DOMAIN %s VALIDATE CONSTRAINT %I;', k.contypid::pg_catalog.regtype, k.conname)
from pg_catalog.pg_constraint k where not k.convalidated and k.contypid <> 0
