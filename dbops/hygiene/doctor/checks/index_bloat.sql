-- severity: warning
-- summary: A btree index that is mostly empty space (an estimate)
-- why: It takes memory that rows could have. Estimated from the planner's statistics: the pages that the entries would need, a tenth of each left
--   free, beside the pages that there are. Entries that share a key take less: then the emptiness is larger than told. Measure with pgstattuple.
-- limit: mib 64 empty, less is not reported
-- limit: percent 60 empty, less is not reported
with
-- include: mine
, width as (
  select m.oid, m.name, m.relpages, m.reltuples, pg_catalog.count(s.attname) as known, pg_catalog.count(*) as columns,
    pg_catalog.sum((1 - s.null_frac) * s.avg_width) as bytes
  from mine m join pg_catalog.pg_index i on i.indexrelid = m.oid join pg_catalog.pg_am am on am.oid = m.relam and am.amname = 'btree'
    join pg_catalog.pg_class t on t.oid = i.indrelid
    cross join lateral pg_catalog.unnest(i.indkey) with ordinality k (attnum, place)
    -- an expression's statistics are kept under the index's own name
    join pg_catalog.pg_attribute a on (a.attrelid = t.oid and a.attnum = k.attnum and k.attnum > 0)
                                   or (a.attrelid = m.oid and a.attnum = k.place and k.attnum = 0)
    left join pg_catalog.pg_stats s on s.schemaname = m.nspname and s.attname = a.attname and not s.inherited
      and s.tablename = case when k.attnum > 0 then t.relname else m.relname end
  where i.indisvalid and m.relkind = 'i' and m.reltuples > 0
    and m.relpages * pg_catalog.current_setting('block_size')::float8 >= {mib} * 1048576
  group by m.oid, m.name, m.relpages, m.reltuples
), need as (
  select *, pg_catalog.current_setting('block_size')::float8 as block,
    1 + pg_catalog.ceil(reltuples * (12 + pg_catalog.ceil(bytes / 8.0) * 8) / ((pg_catalog.current_setting('block_size')::float8 - 40) * 0.9)) as pages
  from width
), empty as (select *, greatest(0, relpages - pages) as spare from need where known = columns)
select name as object,
  pg_catalog.format('by estimate %s of %s are empty (%s %%)', pg_catalog.pg_size_pretty((spare * block)::int8),
                    pg_catalog.pg_size_pretty((relpages * block)::int8), pg_catalog.round((100 * spare / relpages)::numeric)) as message,
  pg_catalog.format('REINDEX INDEX CONCURRENTLY %s;', name) as fix, 'warning' as severity
from empty where spare * block >= {mib} * 1048576 and 100 * spare / relpages >= {percent}
union all
select '', pg_catalog.format('the statistics for %s large indexes are not there or may not be read, %s for one', pg_catalog.count(*), pg_catalog.min(name)), null, 'unchecked'
from need where known < columns having pg_catalog.count(*) > 0
