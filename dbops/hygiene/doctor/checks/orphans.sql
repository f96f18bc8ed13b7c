-- severity: error
-- summary: Rows whose foreign key leads nowhere
-- why: session_replication_role = replica, disabled triggers and NOT VALID let them in; a dump with them cannot be restored. Foreign keys that are
--   not validated or whose triggers are off are always looked at, the others on tables up to the limit.
-- limit: rows 100000 larger tables are looked at only where there is cause
with
-- include: mine
select pg_catalog.format('%s.%I', m.name, k.conname) as object,
  pg_catalog.has_table_privilege(m.oid, 'SELECT') and pg_catalog.has_table_privilege(r.oid, 'SELECT') as readable,
  array[m.nspname, m.relname]::text[] as "table", array[n.nspname, r.relname]::text[] as target,
  pg_catalog.array_agg(array['f', a.attname]::text[] order by c.place) as columns,
  pg_catalog.array_agg(array['k', b.attname]::text[] order by c.place) as referenced,
  pg_catalog.format('%I.%I', n.nspname, r.relname) as other
from pg_catalog.pg_constraint k join mine m on m.oid = k.conrelid
  join pg_catalog.pg_class r on r.oid = k.confrelid join pg_catalog.pg_namespace n on n.oid = r.relnamespace
  cross join lateral rows from (pg_catalog.unnest(k.conkey), pg_catalog.unnest(k.confkey)) with ordinality as c (own, other, place)
  join pg_catalog.pg_attribute a on a.attrelid = m.oid and a.attnum = c.own
  join pg_catalog.pg_attribute b on b.attrelid = r.oid and b.attnum = c.other
where k.contype = 'f' and k.conparentid = 0 and coalesce((pg_catalog.to_jsonb(k) ->> 'conenforced')::bool, true)
  and (not k.convalidated or m.reltuples <= {rows}
       or exists (select from pg_catalog.pg_trigger t where t.tgconstraint = k.oid and t.tgenabled = 'D'))
group by m.oid, m.name, m.nspname, m.relname, k.oid, k.conname, r.oid, r.relname, n.nspname

-- each
select {object}::text as object,
  pg_catalog.format('rows that lead to no row of %s: %s', {other}, case when lost.n > 1000 then 'more than 1000' else lost.n::text end) as message,
  pg_catalog.format('-- DELETE these rows, or empty the column; then VALIDATE the constraint: SELECT * FROM %s f WHERE NOT EXISTS ...', {object}) as fix,
  'error' as severity
from (select pg_catalog.count(*) as n
      from (select from {table} f
            where row({columns}) is not null and not exists (select from {target} k where ({referenced}) = ({columns}))
            limit 1001) as orphan) as lost
where lost.n > 0
