-- severity: warning
-- summary: A table whose statistics are old or were never taken
-- why: The planner guesses, and takes the wrong plan. Autovacuum analyzes when a share of the rows has changed: a table that is far beyond it was
--   switched off, is held up, or was restored a moment ago. It never analyzes a partitioned table as a whole.
-- limit: rows 10000 changed, fewer are not reported
-- limit: times 2 what autovacuum would have waited for
-- applies: ANALYZE
with
-- include: mine
, relation as (
  select m.name, m.relkind, m.oid, m.reltuples, m.relpages,
    pg_catalog.pg_stat_get_mod_since_analyze(m.oid) as changed, pg_catalog.pg_stat_get_live_tuples(m.oid) as live,
    greatest(pg_catalog.pg_stat_get_last_analyze_time(m.oid), pg_catalog.pg_stat_get_last_autoanalyze_time(m.oid)) as moment,
    coalesce((select o.option_value::float8 from pg_catalog.pg_options_to_table(m.reloptions) o where o.option_name = 'autovacuum_analyze_threshold'),
             pg_catalog.current_setting('autovacuum_analyze_threshold')::float8)
    + coalesce((select o.option_value::float8 from pg_catalog.pg_options_to_table(m.reloptions) o where o.option_name = 'autovacuum_analyze_scale_factor'),
               pg_catalog.current_setting('autovacuum_analyze_scale_factor')::float8) * greatest(m.reltuples, 0) as threshold
  from mine m where m.relkind in ('r', 'm', 'p')
)
select name as object,
  case when relkind = 'p' then 'partitioned, and never analyzed as a whole: autovacuum does not'
       when moment is null and reltuples < 0 then pg_catalog.format('never analyzed; it has about %s rows', live)
       else pg_catalog.format('%s rows changed since the last ANALYZE%s, of about %s', changed, ' (' || pg_catalog.date_trunc('minute', moment) || ')', live) end as message,
  pg_catalog.format('ANALYZE %s;', name) as fix
from relation
where case when relkind = 'p' then moment is null and {rows} <= (
               select pg_catalog.sum(greatest(c.reltuples, pg_catalog.pg_stat_get_live_tuples(c.oid)))
               from pg_catalog.pg_partition_tree(relation.oid) t join pg_catalog.pg_class c on c.oid = t.relid where t.isleaf)
           when moment is null and reltuples < 0 then live >= {rows}
           else changed >= {rows} and changed > {times} * threshold end
