-- The statements of the room `backup` that read a database (source.py). Everything is qualified: no search_path is relied on.

-- name: relations
-- with the extension that owns each, and which rows of it pg_extension_config_dump asked to keep
select c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text, c.relispartition,
       pg_catalog.pg_get_userbyid(n.nspowner)::text, coalesce(e.extname::text, ''),
       e.extcondition[pg_catalog.array_position(e.extconfig, c.oid)]
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.deptype = 'e'
  left join pg_catalog.pg_extension e on e.oid = d.refobjid
where c.relkind in ('r', 'p', 'f', 'm', 'S') and c.relpersistence <> 't' and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
order by 2, 3;

-- name: columns
select a.attrelid::int8, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated <> '',
       a.attidentity::text, a.atttypid::int8
from pg_catalog.pg_attribute a
where a.attrelid = any (%(tables)s::pg_catalog.oid[]) and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum;

-- name: primary_keys
select i.indrelid::int8, pg_catalog.array_agg(a.attname::text order by k.place)
from pg_catalog.pg_index i cross join lateral pg_catalog.unnest(i.indkey::int2[]) with ordinality as k(attnum, place)
  join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
where i.indisprimary and k.place <= i.indnkeyatts and i.indrelid = any (%(tables)s::pg_catalog.oid[])
group by 1;

-- name: types
-- the types of the tables' columns, and what these are made of
with recursive used as (
  select a.atttypid as oid from pg_catalog.pg_attribute a
  where a.attrelid = any (%(tables)s::pg_catalog.oid[]) and a.attnum > 0 and not a.attisdropped
  union
  select part.oid from used join pg_catalog.pg_type t on t.oid = used.oid cross join lateral (
    select t.typbasetype as oid union all select t.typelem
    union all select a.atttypid from pg_catalog.pg_attribute a
      where a.attrelid = t.typrelid and t.typtype = 'c' and a.attnum > 0 and not a.attisdropped) part
  where part.oid <> 0
)
select t.oid::int8, t.typname::text, t.typtype::text, t.typbasetype::int8, t.typelem::int8, coalesce(e.extname::text, ''),
  (select coalesce(pg_catalog.array_agg(a.atttypid::int8 order by a.attnum), '{}') from pg_catalog.pg_attribute a
   where a.attrelid = t.typrelid and t.typtype = 'c' and a.attnum > 0 and not a.attisdropped)
from used join pg_catalog.pg_type t on t.oid = used.oid
  left join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass and d.objid = t.oid and d.deptype = 'e'
  left join pg_catalog.pg_extension e on e.oid = d.refobjid;

-- name: sizes
-- in bytes, of the table itself and of its TOAST table
select c.oid::int8, pg_catalog.pg_relation_size(c.oid::pg_catalog.regclass),
       coalesce(pg_catalog.pg_relation_size(nullif(c.reltoastrelid, 0)::pg_catalog.regclass), 0)
from pg_catalog.pg_class c where c.oid = any (%(tables)s::pg_catalog.oid[]);

-- name: export_snapshot
select pg_catalog.pg_export_snapshot();

-- name: identity
select pg_catalog.current_database()::text, d.oid::int8, pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'execute')
from pg_catalog.pg_database d where d.datname = pg_catalog.current_database();

-- name: database_facts
select pg_catalog.current_setting('server_encoding'), pg_catalog.current_setting('block_size')::int, pg_catalog.statement_timestamp(),
       (select coalesce(pg_catalog.jsonb_object_agg(e.extname, e.extversion), '{}') from pg_catalog.pg_extension e),
       (select pg_catalog.count(*) from pg_catalog.pg_largeobject_metadata);

-- name: system_identifier
select s.system_identifier::text from pg_catalog.pg_control_system() s;

-- name: roles
-- owners, grantees, and whom policies and default privileges name; pg_shdepend leaves out the bootstrap superuser
with own as (
  select n.oid, n.nspowner from pg_catalog.pg_namespace n where n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
), involved as (
  select s.refobjid as oid from pg_catalog.pg_shdepend s
  where s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass and s.deptype in ('o', 'a', 'r')
    and s.dbid = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
  union select own.nspowner from own
  union select c.relowner from pg_catalog.pg_class c join own on own.oid = c.relnamespace
  union select p.proowner from pg_catalog.pg_proc p join own on own.oid = p.pronamespace
  union select t.typowner from pg_catalog.pg_type t join own on own.oid = t.typnamespace
)
select r.rolname::text from pg_catalog.pg_roles r join involved i on i.oid = r.oid where r.rolname !~ '^pg_' order by 1;

-- name: versions
select version::text from {table};

-- name: table_blockers
-- who holds one of these tables exclusively or waits to
select distinct a.pid, coalesce(a.usename::text, ''), coalesce(a.application_name, ''), l.granted, pg_catalog.left(coalesce(a.query, ''), 120)
from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a on a.pid = l.pid
where l.locktype = 'relation' and l.mode = 'AccessExclusiveLock' and l.relation = any (%(tables)s::pg_catalog.oid[])
  and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
order by 1;
