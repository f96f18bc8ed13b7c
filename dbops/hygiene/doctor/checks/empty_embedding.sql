-- severity: warning
-- summary: Embeddings that are NULL or the zero vector
-- why: Cosine distance to a zero vector is NaN: such a row is never found, or stands before all others. It comes from failed calls whose answer was
--   stored all the same. NULL alone is info: perhaps it is still to be filled in. Large tables are sampled.
-- limit: rows 20000 looked at in each table
-- requires: extension vector
with
-- include: mine
select pg_catalog.format('%s.%I', m.name, a.attname) as object, pg_catalog.has_column_privilege(m.oid, a.attnum, 'SELECT') as readable,
  array[m.nspname, m.relname]::text[] as "table", array[a.attname]::text[] as "column",
  array[e.nspname, case t.typname when 'vector' then 'vector_norm' else 'l2_norm' end]::text[] as norm,
  m.name as named, a.attname::text as attname,
  least(100, 100 * {rows} / greatest(m.reltuples, pg_catalog.pg_stat_get_live_tuples(m.oid), 1)) as percent
from mine m join pg_catalog.pg_attribute a on a.attrelid = m.oid and a.attnum > 0 and not a.attisdropped
  join pg_catalog.pg_type t on t.oid = a.atttypid join pg_catalog.pg_namespace e on e.oid = t.typnamespace
  join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass and d.objid = t.oid and d.deptype = 'e'
where m.relkind in ('r', 'm') and t.typname in ('vector', 'halfvec', 'sparsevec')

-- each
select {object}::text as object,
  pg_catalog.format('%s zero vectors and %s NULLs among %s rows%s', zeros, nulls, n, case when {percent} < 100 then ' of a sample' end) as message,
  case when zeros > 0 then '-- embed these rows anew; find them by the norm of the column' else '-- embed what is missing' end as fix,
  case when zeros > 0 then 'warning' else 'info' end as severity
from (select pg_catalog.count(*) as n, pg_catalog.count(*) filter (where x.{column} is null) as nulls,
        pg_catalog.count(*) filter (where {norm}(x.{column}) = 0) as zeros
      from {table} x tablesample system ({percent})) as looked
where zeros > 0 or nulls > 0
