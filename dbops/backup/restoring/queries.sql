-- The statements of a whole restore. Everything is qualified.

-- name: content
-- what somebody made in this database: (type, identity), as DROP takes it. Extensions' own does not count, nor what lies
-- in the schemas that Supabase manages
with managed as (
  select n.nspname from pg_catalog.pg_namespace n join pg_catalog.pg_roles r on r.oid = n.nspowner
  where r.rolname ~ '^(supabase_.+|pgbouncer)$'
), made(class, oid) as (
  select 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid from pg_catalog.pg_class c where c.relkind in ('r', 'p', 'v', 'm', 'S', 'f')
  union all select 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid from pg_catalog.pg_proc p
  union all select 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid from pg_catalog.pg_type t where t.typtype in ('d', 'e', 'r')
  union all select 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid from pg_catalog.pg_type t where t.typtype = 'b' and t.typelem = 0
  union all select 'pg_catalog.pg_type'::pg_catalog.regclass, c.reltype from pg_catalog.pg_class c where c.relkind = 'c'
  union all select 'pg_catalog.pg_operator'::pg_catalog.regclass, o.oid from pg_catalog.pg_operator o
  union all select 'pg_catalog.pg_opclass'::pg_catalog.regclass, o.oid from pg_catalog.pg_opclass o
  union all select 'pg_catalog.pg_opfamily'::pg_catalog.regclass, o.oid from pg_catalog.pg_opfamily o
  union all select 'pg_catalog.pg_collation'::pg_catalog.regclass, c.oid from pg_catalog.pg_collation c
  union all select 'pg_catalog.pg_conversion'::pg_catalog.regclass, c.oid from pg_catalog.pg_conversion c
  union all select 'pg_catalog.pg_ts_config'::pg_catalog.regclass, c.oid from pg_catalog.pg_ts_config c
  union all select 'pg_catalog.pg_ts_dict'::pg_catalog.regclass, d.oid from pg_catalog.pg_ts_dict d
  union all select 'pg_catalog.pg_largeobject'::pg_catalog.regclass, m.oid from pg_catalog.pg_largeobject_metadata m
  union all select 'pg_catalog.pg_event_trigger'::pg_catalog.regclass, e.oid from pg_catalog.pg_event_trigger e
  union all select 'pg_catalog.pg_publication'::pg_catalog.regclass, p.oid from pg_catalog.pg_publication p
  union all select 'pg_catalog.pg_foreign_server'::pg_catalog.regclass, s.oid from pg_catalog.pg_foreign_server s
  union all select 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass, f.oid from pg_catalog.pg_foreign_data_wrapper f
  union all select 'pg_catalog.pg_cast'::pg_catalog.regclass, c.oid from pg_catalog.pg_cast c
  union all select 'pg_catalog.pg_language'::pg_catalog.regclass, l.oid from pg_catalog.pg_language l
  union all select 'pg_catalog.pg_am'::pg_catalog.regclass, a.oid from pg_catalog.pg_am a
)
select i.type, i.identity
from made cross join lateral pg_catalog.pg_identify_object(made.class, made.oid, 0) i
where (made.oid >= 16384 or made.class = 'pg_catalog.pg_largeobject'::pg_catalog.regclass)
  and coalesce(i.schema, '') !~ '^pg_' and coalesce(i.schema, '') not in ('information_schema', 'dbops_unfinished_restore')
  and not coalesce(i.schema, '') in (select managed.nspname from managed)
  and not exists (
    select from pg_catalog.pg_depend d where d.classid = made.class and d.objid = made.oid and d.objsubid = 0 and d.deptype in ('e', 'i'))
order by made.class, made.oid;

-- name: schemas
select n.nspname::text from pg_catalog.pg_namespace n
where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'dbops_unfinished_restore') order by 1;

-- name: extensions
select e.extname::text, e.extversion from pg_catalog.pg_extension e order by 1;

-- name: available_extensions
select a.name::text, a.default_version from pg_catalog.pg_available_extensions a order by 1;

-- name: mark
select coalesce(pg_catalog.obj_description(n.oid, 'pg_namespace'), '') from pg_catalog.pg_namespace n
where n.nspname = 'dbops_unfinished_restore';

-- name: restored_columns
-- the columns of these tables (null for a table without any), and whether an extension or Supabase made the table
select n.nspname::text, c.relname::text, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod),
  a.attgenerated <> '',
  exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
          and d.objid = c.oid and d.deptype = 'e')
    or pg_catalog.pg_get_userbyid(n.nspowner) ~ '^(supabase_.+|pgbouncer)$'
from rows from (pg_catalog.unnest(%(schemas)s::text[]), pg_catalog.unnest(%(names)s::text[])) as wanted(schema, name)
  join pg_catalog.pg_namespace n on n.nspname = wanted.schema
  join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = wanted.name and c.relkind in ('r', 'p')
  left join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
order by 1, 2, a.attnum;

-- name: set_sequence
select pg_catalog.setval(pg_catalog.format('%%I.%%I', %(schema)s::text, %(name)s::text)::pg_catalog.regclass,
  %(last_value)s::int8, %(is_called)s::bool);

-- name: analysed
-- partitions come with their parents
select n.nspname::text, c.relname::text from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'm') and not c.relispartition and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and pg_catalog.pg_has_role(c.relowner, 'USAGE')
order by pg_catalog.pg_table_size(c.oid) desc;

-- name: numbered_columns
-- the sequences behind columns: sequence, table, column, increment
select sn.nspname::text, s.relname::text, tn.nspname::text, t.relname::text, a.attname::text, q.seqincrement
from pg_catalog.pg_sequence q
  join pg_catalog.pg_class s on s.oid = q.seqrelid join pg_catalog.pg_namespace sn on sn.oid = s.relnamespace
  join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = s.oid
    and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjsubid > 0 and d.deptype in ('a', 'i')
  join pg_catalog.pg_class t on t.oid = d.refobjid join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
  join pg_catalog.pg_attribute a on a.attrelid = t.oid and a.attnum = d.refobjsubid
-- only where the same number twice is refused
where exists (
  select from pg_catalog.pg_index i where i.indrelid = t.oid and i.indisunique and i.indpred is null
    and i.indnkeyatts = 1 and i.indkey[0] = a.attnum)
order by 1, 2, 3;
