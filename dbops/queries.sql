-- The ground floor's statements. Everything is qualified: no search_path is relied on.

-- name: server
select pg_catalog.current_setting('server_version_num')::int, pg_catalog.current_database()::text, session_user::text,
       pg_catalog.pg_is_in_recovery(), r.rolsuper, r.rolsuper or r.rolbypassrls, pg_catalog.pg_backend_pid()
from pg_catalog.pg_roles r where r.rolname = current_user;

-- name: forced_tables
select c.oid::pg_catalog.regclass::text from pg_catalog.pg_class c
where c.relforcerowsecurity and c.relrowsecurity order by 1;
