-- severity: warning
-- summary: An approximate index over the embeddings of several models
-- why: Distances between vectors of different models mean nothing, yet the index mixes them: it returns neighbours of another model, which the query's
--   condition then throws away, and too few rows are left. One partial index a model holds them apart.
-- limit: rows 20000 looked at in each table
-- requires: extension vector
with
-- include: mine
select x.name as object, pg_catalog.has_column_privilege(m.oid, k.attnum, 'SELECT') as readable,
  array[m.nspname, m.relname]::text[] as "table", array[k.attname]::text[] as model, m.name as named, k.attname::text as attname,
  pg_catalog.pg_get_indexdef(x.oid) as definition,
  least(100, 100 * {rows} / greatest(m.reltuples, pg_catalog.pg_stat_get_live_tuples(m.oid), 1)) as percent
from pg_catalog.pg_index i join mine x on x.oid = i.indexrelid join mine m on m.oid = i.indrelid
  join pg_catalog.pg_am am on am.oid = x.relam
  join pg_catalog.pg_attribute k on k.attrelid = m.oid and k.attnum > 0 and not k.attisdropped and k.attname in ('model', 'embedding_model', 'model_name')
where am.amname in ('hnsw', 'ivfflat') and m.relkind in ('r', 'm')
  and coalesce(pg_catalog.pg_get_expr(i.indpred, i.indrelid), '') !~ ('\m' || k.attname || '\M')

-- each
select {object}::text as object, pg_catalog.format('it mixes the embeddings of %s models: %s', pg_catalog.count(*), pg_catalog.string_agg(model, ', ' order by model)) as message,
  pg_catalog.format('-- one index a model, CONCURRENTLY: %s WHERE %I = ...;', {definition}, {attname}) as fix, 'warning' as severity
from (select distinct x.{model}::text as model from {table} x tablesample system ({percent})) as looked
having pg_catalog.count(*) > 1
