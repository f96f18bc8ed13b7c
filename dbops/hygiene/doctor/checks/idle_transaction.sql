-- severity: warning
-- summary: A transaction that is open and does nothing
-- why: The application forgot it, or works on something else meanwhile. It holds its locks, and dead rows stay where they are.
--   idle_in_transaction_session_timeout ends such sessions.
-- limit: minutes 10
-- needs: role pg_read_all_stats
select pg_catalog.format('process %s', a.pid) as object,
  pg_catalog.format('%s has left a transaction open for %s minutes in %s (%s)', a.usename,
    pg_catalog.round(extract(epoch from pg_catalog.clock_timestamp() - a.state_change) / 60), a.datname, a.application_name) as message,
  pg_catalog.format('SELECT pg_terminate_backend(%s);', a.pid) as fix
from pg_catalog.pg_stat_activity a
where a.backend_type = 'client backend' and a.pid <> pg_catalog.pg_backend_pid() and a.state like 'idle in transaction%'
  and a.state_change <= pg_catalog.clock_timestamp() - {minutes} * interval '1 minute'
