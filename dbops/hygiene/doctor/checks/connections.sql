-- severity: warning
-- summary: Connections near a limit
-- why: At the limit nobody gets in: not the application, and at last not you. A pooler needs few connections for many clients. An error from
--   95 % on. The limits of the server, of each database and of each role are looked at.
-- limit: percent 80 used, from here on it is reported
with used as (
  select 'server' as object, (select pg_catalog.sum(pg_catalog.pg_stat_get_db_numbackends(d.oid)) from pg_catalog.pg_database d) as n,
    pg_catalog.current_setting('max_connections')::int - pg_catalog.current_setting('superuser_reserved_connections')::int as most,
    '-- fewer connections through a pooler; or ALTER SYSTEM SET max_connections = ...; and a restart' as fix
  union all
  select pg_catalog.format('database %s', d.datname), pg_catalog.pg_stat_get_db_numbackends(d.oid), d.datconnlimit,
    pg_catalog.format('ALTER DATABASE %I CONNECTION LIMIT %s;', d.datname, 2 * d.datconnlimit)
  from pg_catalog.pg_database d where d.datconnlimit > 0
  union all
  select pg_catalog.format('role %s', r.rolname), pg_catalog.count(a.pid), r.rolconnlimit,
    pg_catalog.format('ALTER ROLE %I CONNECTION LIMIT %s;', r.rolname, 2 * r.rolconnlimit)
  from pg_catalog.pg_roles r left join pg_catalog.pg_stat_activity a on a.usesysid = r.oid
  where r.rolconnlimit > 0 group by r.rolname, r.rolconnlimit
)
select object, pg_catalog.format('%s of %s connections are taken', n, most) as message, fix,
  case when n >= 0.95 * most then 'error' else 'warning' end as severity
from used where n >= most * {percent} / 100.0
