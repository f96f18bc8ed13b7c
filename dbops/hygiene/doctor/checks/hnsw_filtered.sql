-- severity: warning
-- summary: An HNSW index on a table whose rows are always filtered, without iterative scan
-- why: The index returns its nearest ef_search rows, and the filter (row level security here) throws most of them away: far fewer than LIMIT come
--   back, with no error. hnsw.iterative_scan (pgvector 0.8) goes on until there are enough. What an application sets by itself in its
--   transactions is not seen here.
-- requires: extension vector
with
-- include: mine
, setting as (
  select pg_catalog.split_part(s.one, '=', 2) as value
  from pg_catalog.pg_db_role_setting d cross join lateral pg_catalog.unnest(d.setconfig) as s (one)
  where s.one like 'hnsw.iterative\_scan=%'
    and d.setdatabase in (0, (select b.oid from pg_catalog.pg_database b where b.datname = pg_catalog.current_database()))
  union all
  select pg_catalog.current_setting('hnsw.iterative_scan', true)
)
select x.name as object,
  case when pg_catalog.string_to_array(v.extversion, '.')::int[] < array[0, 8]
       then pg_catalog.format('row level security filters what it returns, and pgvector %s has no iterative scan', v.extversion)
       else 'row level security filters what it returns, and hnsw.iterative_scan is off: queries may get too few rows' end as message,
  case when pg_catalog.string_to_array(v.extversion, '.')::int[] < array[0, 8] then '-- pgvector 0.8 or newer; then ALTER EXTENSION vector UPDATE;'
       else pg_catalog.format('ALTER DATABASE %I SET hnsw.iterative_scan = ''relaxed_order'';', pg_catalog.current_database()) end as fix
from pg_catalog.pg_index i join mine x on x.oid = i.indexrelid join mine m on m.oid = i.indrelid join pg_catalog.pg_am am on am.oid = x.relam
  join pg_catalog.pg_extension v on v.extname = 'vector'
where am.amname = 'hnsw' and i.indisvalid and m.relrowsecurity
  and not exists (select from setting where value in ('relaxed_order', 'strict_order'))
