-- severity: warning
-- summary: A session that waits for a lock
-- why: Those who want the same table queue up behind it, readers too where it waits for a strong lock.
-- limit: minutes 1
-- needs: role pg_read_all_stats
select pg_catalog.format('process %s', l.pid) as object,
  pg_catalog.format('%s has waited for %s%s for %s minutes, behind process %s', pg_catalog.pg_get_userbyid(a.usesysid), l.mode,
    ' on ' || case when l.database = d.oid then l.relation::pg_catalog.regclass::text end,
    pg_catalog.round(extract(epoch from pg_catalog.clock_timestamp() - l.waitstart) / 60),
    pg_catalog.array_to_string(pg_catalog.pg_blocking_pids(l.pid), ', ')) as message,
  pg_catalog.format('SELECT pg_cancel_backend(%s); -- or end the one that it waits for', l.pid) as fix
from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a on a.pid = l.pid
  join pg_catalog.pg_database d on d.datname = pg_catalog.current_database()
where not l.granted and l.waitstart <= pg_catalog.clock_timestamp() - {minutes} * interval '1 minute'
