-- severity: warning
-- summary: An IVFFlat index that was built before there were rows
-- why: Its lists were laid around random points: searches look in the wrong ones. Told by the rows' age: none of those looked at is as old as
--   the index. Rebuild it now that there are rows. Large tables are sampled.
-- limit: rows 20000 looked at in each table
-- limit: least 100 rows, fewer tell nothing
-- requires: extension vector
with
-- include: mine
select x.name as object, pg_catalog.has_table_privilege(m.oid, 'SELECT') as readable,
  array[m.nspname, m.relname]::text[] as "table", x.name as named, x.xmin::text as built,
  least(100, 100 * {rows} / greatest(m.reltuples, pg_catalog.pg_stat_get_live_tuples(m.oid), 1)) as percent
from pg_catalog.pg_index i
  join (select i.*, c.xmin from mine i join pg_catalog.pg_class c on c.oid = i.oid) x on x.oid = i.indexrelid
  join mine m on m.oid = i.indrelid join pg_catalog.pg_am am on am.oid = x.relam
where am.amname = 'ivfflat' and m.relkind in ('r', 'm') and i.indisvalid

-- each
select {object}::text as object, pg_catalog.format('each of %s rows looked at is younger than the index: it was built without them', n) as message,
  pg_catalog.format('REINDEX INDEX CONCURRENTLY %s;', {named}) as fix, 'warning' as severity
from (select pg_catalog.count(*) as n, pg_catalog.count(*) filter (where pg_catalog.age(x.xmin) >= pg_catalog.age({built}::xid)) as older
      from {table} x tablesample system ({percent})) as looked
where n >= {least} and older = 0
