-- The ground floor's statements. Everything is qualified: no search_path is relied on.

-- name: server
select pg_catalog.current_setting('server_version_num')::int, pg_catalog.current_database()::text, session_user::text,
       pg_catalog.pg_is_in_recovery(), r.rolsuper, r.rolsuper or r.rolbypassrls, pg_catalog.pg_backend_pid()
from pg_catalog.pg_roles r where r.rolname = current_user;

-- name: forced_tables
select c.oid::pg_catalog.regclass::text from pg_catalog.pg_class c
where c.relforcerowsecurity and c.relrowsecurity order by 1;

-- name: lock_try
select pg_catalog.pg_try_advisory_xact_lock(%(namespace)s, %(key)s), pg_catalog.pg_backend_pid(),
  (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database());

-- name: lock_holder
select a.pid, coalesce(a.application_name, ''), coalesce(a.usename::text, ''),
       coalesce(pg_catalog.host(a.client_addr), 'this host'), pg_catalog.to_char(coalesce(a.xact_start, a.backend_start) at time zone 'UTC', 'HH24:MI:SS')
from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a on a.pid = l.pid
where l.locktype = 'advisory' and l.granted and l.objsubid = 2
  and l.classid = %(namespace)s::pg_catalog.oid and l.objid = %(key)s::pg_catalog.oid
  and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database());

-- name: lock_guard
-- (the function under the view pg_locks, at two thirds of its price: this stands in front of every statement)
select case when exists (
  select from pg_catalog.pg_lock_status() l
  where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.pid = {pid}
    and l.classid = {namespace} and l.objid = {key} and l.database = {database}
) then 1 else pg_catalog.concat('dbops: the runner lock was lost')::pg_catalog.int4 end;

-- name: look_again
select pg_catalog.pg_stat_clear_snapshot();

-- name: blockers
select b.pid, coalesce(a.usename::text, ''), coalesce(a.application_name, ''), coalesce(a.state, ''),
       pg_catalog.left(coalesce(a.query, ''), 200), pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - coalesce(a.xact_start, a.query_start, a.backend_start))
from pg_catalog.unnest(pg_catalog.pg_blocking_pids(%(pid)s)) as b(pid)
  left join pg_catalog.pg_stat_activity a on a.pid = b.pid;

-- name: fingerprint_path
select pg_catalog.set_config('search_path', '', true);

-- name: fingerprint_schemas
select n.nspname from pg_catalog.pg_namespace n where n.nspname = any (%(schemas)s) order by 1;

-- name: fingerprint_excluded
-- with the sequences that they own; the second column is a pattern as pg_dump reads it
with excluded as (
  select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where n.nspname || '.' || c.relname = any (%(exclude)s)
     or pg_catalog.format('%%I.%%I', n.nspname, c.relname) = any (%(exclude)s))
select c.oid, '"' || pg_catalog.replace(n.nspname, '"', '""') || '"."' || pg_catalog.replace(c.relname, '"', '""') || '"'
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid in (select e.oid from excluded e) or c.relkind = 'S' and c.oid in (
  select d.objid from pg_catalog.pg_depend d
  where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refclassid = d.classid
    and d.deptype in ('a', 'i') and d.refobjid in (select e.oid from excluded e))
order by 2;

-- name: fingerprint_catalog
-- what pg_dump does not show of a few schemas: place in the order, object, line
with place as (
  select n.oid, n.nspname from pg_catalog.pg_namespace n where n.nspname = any (%(schemas)s)
), object as (
  select 'pg_catalog.pg_class'::pg_catalog.regclass as class, c.oid from pg_catalog.pg_class c join place on place.oid = c.relnamespace
  union all select 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid from pg_catalog.pg_proc p join place on place.oid = p.pronamespace
  union all select 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid from pg_catalog.pg_type t join place on place.oid = t.typnamespace
  union all select 'pg_catalog.pg_default_acl'::pg_catalog.regclass, a.oid from pg_catalog.pg_default_acl a join place on place.oid = a.defaclnamespace
  union all select 'pg_catalog.pg_namespace'::pg_catalog.regclass, place.oid from place
), own as (
  select o.class, o.oid from object o
  where not o.oid = any (%(excluded)s) and not exists (
    select from pg_catalog.pg_depend d where d.classid = o.class and d.objid = o.oid and d.deptype = 'e')
), involved as (
  select distinct r.* from own
  join pg_catalog.pg_shdepend s on s.classid = own.class and s.objid = own.oid
    and s.dbid = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
  join pg_catalog.pg_roles r on r.oid = s.refobjid
  where s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass and s.deptype in ('o', 'a')
)
select '', 'extension ' || e.extname, 'version ' || e.extversion || ', schema ' || n.nspname
from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace
union all
select '', 'role ' || r.rolname, pg_catalog.concat_ws(' ',
  case when r.rolsuper then 'superuser' end, case when r.rolbypassrls then 'bypassrls' end,
  case when r.rolcanlogin then 'login' end, case when not r.rolinherit then 'noinherit' end,
  case when r.rolcreaterole then 'createrole' end, case when r.rolcreatedb then 'createdb' end,
  case when r.rolreplication then 'replication' end,
  case when r.rolconnlimit >= 0 then 'connection limit ' || r.rolconnlimit end,
  case when r.rolvaliduntil is not null then 'valid until ' || (r.rolvaliduntil at time zone 'UTC') end,
  (select 'member of ' || pg_catalog.string_agg(g.rolname, ', ' order by g.rolname)
   from (select distinct g.rolname from pg_catalog.pg_auth_members m join pg_catalog.pg_roles g on g.oid = m.roleid
         where m.member = r.oid) g))
from involved r
union all
select '', case when s.setrole = 0 then 'settings of the database' else 'settings of role ' || s.setrole::pg_catalog.regrole end,
       case when s.setdatabase = 0 then 'everywhere: ' when s.setrole <> 0 then 'in this database: ' else '' end || setting
from pg_catalog.pg_db_role_setting s cross join unnest(s.setconfig) setting
where s.setdatabase = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
   or s.setdatabase = 0 and s.setrole in (select r.oid from involved r)
union all
select place.nspname || '.' || t.relname, 'invalid index ' || place.nspname || '.' || x.relname, pg_catalog.pg_get_indexdef(x.oid)
from pg_catalog.pg_index i join pg_catalog.pg_class x on x.oid = i.indexrelid
  join pg_catalog.pg_class t on t.oid = i.indrelid join place on place.oid = x.relnamespace
where not i.indisvalid and not i.indrelid = any (%(excluded)s)
union all
-- a trigger on someone else's table that calls a function of these schemas: auth.users, say
select place.nspname || '.' || p.proname, 'trigger elsewhere ' || t.tgname, pg_catalog.pg_get_triggerdef(t.oid)
from pg_catalog.pg_trigger t join pg_catalog.pg_proc p on p.oid = t.tgfoid join place on place.oid = p.pronamespace
  join pg_catalog.pg_class c on c.oid = t.tgrelid
where not t.tgisinternal and not c.relnamespace in (select place.oid from place)
union all
select place.nspname || '.' || p.proname, 'event trigger ' || e.evtname,
       'on ' || e.evtevent || ', enabled ' || e.evtenabled::text
         || coalesce(', for ' || pg_catalog.array_to_string(e.evttags, ', '), '')
from pg_catalog.pg_event_trigger e join pg_catalog.pg_proc p on p.oid = e.evtfoid join place on place.oid = p.pronamespace
union all
select '', 'publication ' || p.pubname, 'for all tables' from pg_catalog.pg_publication p where p.puballtables
union all
select '', 'publication ' || p.pubname, 'table ' || pg_catalog.format('%%I.%%I', place.nspname, c.relname)
from pg_catalog.pg_publication p join pg_catalog.pg_publication_rel r on r.prpubid = p.oid
  join pg_catalog.pg_class c on c.oid = r.prrelid join place on place.oid = c.relnamespace
order by 1, 2, 3;

-- The copy of a schema (schema_copy.py).

-- name: copy_used
select pg_catalog.min(c.oid::pg_catalog.regclass::text) from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname <> 'information_schema' and n.nspname !~ '^pg_';

-- name: copy_roles
select r.rolname::text, r.rolsuper, r.rolbypassrls, r.rolinherit, r.rolcreaterole, r.rolcreatedb
from pg_catalog.pg_roles r where r.rolname !~ '^pg_' order by 1;

-- name: copy_memberships
-- by to_jsonb, since the options inherit and set are new in 16
select g.rolname::text, m.rolname::text, pg_catalog.bool_or(a.admin_option),
  pg_catalog.bool_or(coalesce((pg_catalog.to_jsonb(a) ->> 'inherit_option')::bool, m.rolinherit)),
  pg_catalog.bool_or(coalesce((pg_catalog.to_jsonb(a) ->> 'set_option')::bool, true))
from pg_catalog.pg_auth_members a join pg_catalog.pg_roles g on g.oid = a.roleid join pg_catalog.pg_roles m on m.oid = a.member
where m.rolname !~ '^pg_' group by 1, 2 order by 1, 2;

-- name: copy_settings
select s.name, s.setting from pg_catalog.pg_settings s
where s.source in ('database', 'user', 'database user') or s.name = 'search_path' and s.source <> 'default'
order by 1;

-- name: copy_unpopulated
select n.nspname::text, c.relname::text from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'm' and not c.relispopulated order by c.oid;

-- name: relation_sizes
select pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname),
  coalesce(pg_catalog.pg_total_relation_size(c.oid), 0), coalesce(pg_catalog.pg_relation_size(c.oid), 0),
  coalesce(pg_catalog.pg_indexes_size(c.oid), 0),
  -- what autovacuum counts since the last ANALYZE is nearer than nothing
  case when c.reltuples >= 0 and c.relpages > 0 then c.reltuples::int8
       else nullif(pg_catalog.pg_stat_get_live_tuples(c.oid), 0) end
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'm', 'i') and n.nspname <> 'information_schema' and n.nspname !~ '^pg_';
