-- The ground floor's statements. Everything is qualified: no search_path is relied on.

-- name: server
select pg_catalog.current_setting('server_version_num')::int, pg_catalog.current_database()::text, session_user::text,
       pg_catalog.pg_is_in_recovery(), r.rolsuper, r.rolsuper or r.rolbypassrls, pg_catalog.pg_backend_pid()
from pg_catalog.pg_roles r where r.rolname = current_user;

-- name: forced_tables
select c.oid::pg_catalog.regclass::text from pg_catalog.pg_class c
where c.relforcerowsecurity and c.relrowsecurity order by 1;

-- name: lock_try
select pg_catalog.pg_try_advisory_xact_lock(%(namespace)s, %(key)s), pg_catalog.pg_backend_pid();

-- name: lock_holder
select a.pid, coalesce(a.application_name, ''), coalesce(a.usename::text, ''),
       coalesce(pg_catalog.host(a.client_addr), 'this host'), coalesce(a.xact_start, a.backend_start)
from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a on a.pid = l.pid
where l.locktype = 'advisory' and l.granted and l.objsubid = 2
  and l.classid = %(namespace)s::pg_catalog.oid and l.objid = %(key)s::pg_catalog.oid
  and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database());

-- name: lock_guard
select case when exists (
  select from pg_catalog.pg_locks l
  where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.pid = {pid}
    and l.classid = {namespace}::pg_catalog.oid and l.objid = {key}::pg_catalog.oid
    and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
) then 1 else pg_catalog.concat('dbops: the runner lock was lost')::pg_catalog.int4 end;

-- name: blockers
select b.pid, coalesce(a.usename::text, ''), coalesce(a.application_name, ''), coalesce(a.state, ''),
       pg_catalog.left(coalesce(a.query, ''), 200), pg_catalog.clock_timestamp() - coalesce(a.xact_start, a.query_start, a.backend_start)
from pg_catalog.unnest(pg_catalog.pg_blocking_pids(%(pid)s)) as b(pid)
  left join pg_catalog.pg_stat_activity a on a.pid = b.pid;
