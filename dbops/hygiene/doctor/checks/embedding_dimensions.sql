-- severity: warning
-- summary: Embeddings of one model that differ in their dimensions
-- why: They cannot be compared: a query over both fails. A column without dimensions takes anything; a CHECK on vector_dims() or vector(N) holds it.
--   Rows are told apart by a column `model` where the table has one. Large tables are sampled.
-- limit: rows 20000 looked at in each table
-- requires: extension vector
with
-- include: mine
select pg_catalog.format('%s.%I', m.name, a.attname) as object, pg_catalog.has_table_privilege(m.oid, 'SELECT') as readable,
  array[m.nspname, m.relname]::text[] as "table", array[a.attname]::text[] as "column", array[e.nspname, 'vector_dims']::text[] as dims,
  array[coalesce(k.attname, 'tableoid')]::text[] as model, k.attname is not null as by_model, m.name as named, a.attname::text as attname,
  least(100, 100 * {rows} / greatest(m.reltuples, pg_catalog.pg_stat_get_live_tuples(m.oid), 1)) as percent
from mine m join pg_catalog.pg_attribute a on a.attrelid = m.oid and a.attnum > 0 and not a.attisdropped
  join pg_catalog.pg_type t on t.oid = a.atttypid join pg_catalog.pg_namespace e on e.oid = t.typnamespace
  join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass and d.objid = t.oid and d.deptype = 'e'
  left join pg_catalog.pg_attribute k on k.attrelid = m.oid and k.attnum > 0 and not k.attisdropped and k.attname in ('model', 'embedding_model', 'model_name')
where m.relkind in ('r', 'm') and t.typname in ('vector', 'halfvec') and a.atttypmod = -1

-- each
select {object}::text as object,
  pg_catalog.format('%s of %s dimensions%s', pg_catalog.string_agg(rows::text, ', ' order by rows desc), pg_catalog.string_agg(dimensions::text, ', ' order by rows desc),
                    case when {by_model} then pg_catalog.format(' beside each other, all of the model %s', model) else ' beside each other' end) as message,
  pg_catalog.format('-- embed one kind anew; then ALTER TABLE %s ADD CHECK (vector_dims(%I) = ...) NOT VALID;', {named}, {attname}) as fix, 'warning' as severity
from (select x.{model}::text as model, {dims}(x.{column}) as dimensions, pg_catalog.count(*) as rows
      from {table} x tablesample system ({percent}) where x.{column} is not null group by 1, 2) as looked
group by model having pg_catalog.count(*) > 1
