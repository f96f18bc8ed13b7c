-- severity: warning
-- summary: A table that is mostly empty space (an estimate)
-- why: Scans read the empty pages too, and VACUUM gives back only those at the end. Estimated from the planner's statistics: the pages that the
--   rows would need beside the pages that there are. Measure with pgstattuple before you act.
-- limit: mib 64 empty, less is not reported
-- limit: percent 50 empty, less is not reported
with
-- include: mine
, width as (
  select m.oid, m.name, m.relpages, m.reltuples, m.relnatts,
    pg_catalog.count(s.attname) as known, pg_catalog.count(a.attname) as columns,
    pg_catalog.sum((1 - s.null_frac) * s.avg_width) as bytes, coalesce(pg_catalog.bool_or(s.null_frac > 0), false) as nulls,
    coalesce((select o.option_value::int from pg_catalog.pg_options_to_table(m.reloptions) o where o.option_name = 'fillfactor'), 100) as fillfactor
  from mine m
    join pg_catalog.pg_attribute a on a.attrelid = m.oid and a.attnum > 0 and not a.attisdropped
    left join pg_catalog.pg_stats s on s.schemaname = m.nspname and s.tablename = m.relname and s.attname = a.attname and not s.inherited
  where m.relkind in ('r', 'm') and m.reltuples > 0 and m.relpages * pg_catalog.current_setting('block_size')::float8 >= {mib} * 1048576
  group by m.oid, m.name, m.relpages, m.reltuples, m.relnatts, m.reloptions
), need as (
  select *, pg_catalog.current_setting('block_size')::float8 as block,
    -- header, null bitmap and data, each rounded up to 8 bytes, and the line pointer
    4 + pg_catalog.ceil((23 + case when nulls then pg_catalog.ceil(relnatts / 8.0) else 0 end) / 8.0) * 8 + pg_catalog.ceil(bytes / 8.0) * 8 as row
  from width
), empty as (
  select *, greatest(0, relpages - pg_catalog.ceil(reltuples / greatest(1, pg_catalog.floor((block - 24) * fillfactor / 100 / row)))) as pages
  from need where known = columns
)
select name as object,
  pg_catalog.format('by estimate %s of %s are empty (%s %%)', pg_catalog.pg_size_pretty((pages * block)::int8),
                    pg_catalog.pg_size_pretty((relpages * block)::int8), pg_catalog.round((100 * pages / relpages)::numeric)) as message,
  pg_catalog.format('VACUUM (FULL) %s; -- nobody else can use it meanwhile; pg_repack does it beside them', name) as fix, 'warning' as severity
from empty where pages * block >= {mib} * 1048576 and 100 * pages / relpages >= {percent}
union all
select '', pg_catalog.format('the statistics of %s large tables are not there or may not be read, %s for one', pg_catalog.count(*), pg_catalog.min(name)), null, 'unchecked'
from need where known < columns having pg_catalog.count(*) > 0
