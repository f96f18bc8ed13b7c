-- severity: warning
-- summary: A transaction that has run for long
-- why: Rows that died since it began cannot be removed, anywhere in the cluster, and what needs a strong lock on its tables waits, with everybody
--   behind it. A backup may take its time.
-- limit: minutes 60
-- needs: role pg_read_all_stats
select pg_catalog.format('process %s', a.pid) as object,
  pg_catalog.format('%s has run a transaction for %s minutes in %s (%s)', a.usename,
    pg_catalog.round(extract(epoch from pg_catalog.clock_timestamp() - a.xact_start) / 60), a.datname, a.application_name) as message,
  pg_catalog.format('SELECT pg_cancel_backend(%s);', a.pid) as fix
from pg_catalog.pg_stat_activity a
where a.backend_type = 'client backend' and a.pid <> pg_catalog.pg_backend_pid() and a.state not like 'idle%'
  and a.xact_start <= pg_catalog.clock_timestamp() - {minutes} * interval '1 minute'
