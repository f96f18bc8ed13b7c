-- Which tables there are to write or read, and their columns.

-- name: tables
-- with the tables that they refer to; a partitioned table stands for its partitions
select c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text,
       coalesce((select pg_catalog.array_agg(distinct k.confrelid::int8) from pg_catalog.pg_constraint k
                 where k.conrelid = c.oid and k.contype = 'f' and k.confrelid <> c.oid), '{}')
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and c.relpersistence <> 't' and not c.relispartition
  and n.nspname <> 'information_schema' and n.nspname !~ '^(pg|dbops_restore)_'
  and not exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                  and d.objid = c.oid and d.deptype = 'e')
order by 2, 3;

-- name: columns
select a.attname::text, a.attgenerated <> '',
       pg_catalog.pg_get_serial_sequence(pg_catalog.format('%%I.%%I', n.nspname, c.relname), a.attname)
from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where a.attrelid = %(table)s::pg_catalog.oid and a.attnum > 0 and not a.attisdropped
order by a.attnum;
