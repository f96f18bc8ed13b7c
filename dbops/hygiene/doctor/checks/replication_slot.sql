-- severity: warning
-- summary: A replication slot that nobody reads, and that holds WAL back
-- why: Its WAL is kept until the disk is full. An error where the WAL is lost already, or is about to be: the reader has to start anew.
-- limit: mib 1024 of WAL, less is not reported
select pg_catalog.format('slot %s', s.slot_name) as object,
  case when s.wal_status in ('unreserved', 'lost') then pg_catalog.format('its WAL is %s: the reader cannot go on', s.wal_status)
       else pg_catalog.format('nobody reads it; it keeps %s of WAL', pg_catalog.pg_size_pretty(kept.bytes)) end as message,
  pg_catalog.format('SELECT pg_drop_replication_slot(%L);', s.slot_name) as fix,
  case when s.wal_status in ('unreserved', 'lost') then 'error' else 'warning' end as severity
from pg_catalog.pg_replication_slots s
cross join lateral (
  select pg_catalog.pg_wal_lsn_diff(case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
                                         else pg_catalog.pg_current_wal_lsn() end, s.restart_lsn) as bytes
) kept
where s.wal_status in ('unreserved', 'lost') or (not s.active and kept.bytes >= {mib} * 1048576)
