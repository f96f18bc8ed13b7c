-- severity: error
-- summary: A table that API roles reach without row level security, or whose policies are not in force
-- why: Whoever has the role's key reads all of it. Policies do nothing until row level security is enabled.
-- limit: roles anon,authenticated the roles that the world speaks to the database as
with
-- include: mine
select m.name as object,
  case when policies.n > 0 then pg_catalog.format('row level security is off: %s', case policies.n when 1 then 'its policy does nothing' else policies.n || ' policies do nothing' end)
       else pg_catalog.format('%s can reach it, and row level security is off', reached.by) end as message,
  pg_catalog.format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY;', m.name) as fix
from mine m
cross join lateral (select pg_catalog.count(*) as n from pg_catalog.pg_policy p where p.polrelid = m.oid) policies
cross join lateral (
  select pg_catalog.string_agg(r.rolname, ', ' order by r.rolname) as by
  from pg_catalog.pg_roles r
  where r.rolname = any (pg_catalog.string_to_array({roles}, ',')) and not r.rolsuper and not r.rolbypassrls
    and pg_catalog.has_schema_privilege(r.oid, m.relnamespace, 'USAGE')
    and (pg_catalog.has_table_privilege(r.oid, m.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
         or pg_catalog.has_any_column_privilege(r.oid, m.oid, 'SELECT, INSERT, UPDATE'))
) reached
where m.relkind in ('r', 'p') and not m.relrowsecurity and (policies.n > 0 or reached.by is not null)
