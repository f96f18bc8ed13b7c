-- severity: warning
-- summary: A table full of dead rows, or one that autovacuum may not touch
-- why: Dead rows are read by every scan and make table and indexes grow. Autovacuum comes at a share of the rows: a table far beyond it was
--   switched off, or something old (a transaction, a slot) keeps the rows from being removed.
-- limit: rows 10000 dead, fewer are not reported
-- limit: times 3 what autovacuum would have waited for
-- applies: VACUUM
with
-- include: mine
, relation as (
  select m.name, m.reltuples, pg_catalog.pg_stat_get_dead_tuples(m.oid) as dead, pg_catalog.pg_stat_get_live_tuples(m.oid) as live,
    not coalesce((select o.option_value::bool from pg_catalog.pg_options_to_table(m.reloptions) o where o.option_name = 'autovacuum_enabled'), true) as off,
    coalesce((select o.option_value::float8 from pg_catalog.pg_options_to_table(m.reloptions) o where o.option_name = 'autovacuum_vacuum_threshold'),
             pg_catalog.current_setting('autovacuum_vacuum_threshold')::float8)
    + coalesce((select o.option_value::float8 from pg_catalog.pg_options_to_table(m.reloptions) o where o.option_name = 'autovacuum_vacuum_scale_factor'),
               pg_catalog.current_setting('autovacuum_vacuum_scale_factor')::float8) * greatest(m.reltuples, 0) as threshold
  from mine m where m.relkind in ('r', 'm')
)
select name as object,
  case when off and dead < {rows} then 'autovacuum is switched off for it'
       else pg_catalog.format('%s dead rows beside %s live ones%s', dead, live, case when off then '; autovacuum is switched off for it' end) end as message,
  case when off and dead < {rows} then pg_catalog.format('ALTER TABLE %s RESET (autovacuum_enabled);', name)
       else pg_catalog.format('VACUUM %s;', name) end as fix
from relation
where (dead >= {rows} and dead > {times} * threshold) or (off and greatest(live, reltuples) >= {rows})
