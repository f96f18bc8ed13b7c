-- severity: warning
-- summary: A view that API roles read past the row level security of its tables
-- why: A view reads with its owner's rights unless it says security_invoker (PostgreSQL 15). An owner who is not bound by a table's row
--   level security hands out every user's rows. A materialized view keeps none of it.
-- limit: roles anon,authenticated the roles that the world speaks to the database as
with
-- include: mine
select m.name as object,
  pg_catalog.format('%s reads %s through it with the rights of %I, whom row level security does not bind', reached.by, past.tables,
                    pg_catalog.pg_get_userbyid(m.relowner)) as message,
  case when m.relkind = 'v' and pg_catalog.current_setting('server_version_num')::int >= 150000
       then pg_catalog.format('ALTER VIEW %s SET (security_invoker = on);', m.name)
       else pg_catalog.format('REVOKE ALL ON %s FROM %s;', m.name, reached.by) end as fix
from mine m
cross join lateral (
  select pg_catalog.string_agg(pg_catalog.quote_ident(r.rolname), ', ' order by r.rolname) as by
  from pg_catalog.pg_roles r
  where r.rolname = any (pg_catalog.string_to_array({roles}, ',')) and not r.rolsuper and not r.rolbypassrls
    and pg_catalog.has_schema_privilege(r.oid, m.relnamespace, 'USAGE') and pg_catalog.has_table_privilege(r.oid, m.oid, 'SELECT')
) reached
cross join lateral (
  select pg_catalog.string_agg(distinct t.oid::pg_catalog.regclass::text, ', ') as tables
  from pg_catalog.pg_rewrite w
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = w.oid
      and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    join pg_catalog.pg_class t on t.oid = d.refobjid and t.relrowsecurity
    join pg_catalog.pg_roles o on o.oid = m.relowner
  where w.ev_class = m.oid
    and (m.relkind = 'm' or o.rolsuper or o.rolbypassrls or (t.relowner = m.relowner and not t.relforcerowsecurity))
) past
where m.relkind in ('v', 'm') and reached.by is not null and past.tables is not null
  and not coalesce((select o.option_value::bool from pg_catalog.pg_options_to_table(m.reloptions) o
                    where o.option_name = 'security_invoker'), false)
