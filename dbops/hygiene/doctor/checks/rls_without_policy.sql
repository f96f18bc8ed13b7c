-- severity: info
-- summary: A table that API roles reach, under row level security without a policy
-- why: They see no row and write none, without an error. That is safe, and seldom what was meant: a policy is missing, or a grant is
--   too much (`dbops policy apply` writes policies from definitions).
-- limit: roles anon,authenticated the roles that the world speaks to the database as
with
-- include: mine
select m.name as object, pg_catalog.format('no policy: %s sees no row of it', reached.by) as message,
  pg_catalog.format('-- CREATE POLICY ... ON %s; or REVOKE ALL ON %s FROM %s;', m.name, m.name, reached.by) as fix
from mine m
cross join lateral (
  select pg_catalog.string_agg(pg_catalog.quote_ident(r.rolname), ', ' order by r.rolname) as by
  from pg_catalog.pg_roles r
  where r.rolname = any (pg_catalog.string_to_array({roles}, ',')) and not r.rolsuper and not r.rolbypassrls
    and pg_catalog.has_schema_privilege(r.oid, m.relnamespace, 'USAGE')
    and (pg_catalog.has_table_privilege(r.oid, m.oid, 'SELECT, INSERT, UPDATE, DELETE')
         or pg_catalog.has_any_column_privilege(r.oid, m.oid, 'SELECT, INSERT, UPDATE'))
) reached
where m.relkind in ('r', 'p') and m.relrowsecurity and reached.by is not null
  and not exists (select from pg_catalog.pg_policy p where p.polrelid = m.oid)
