-- severity: info
-- summary: An index that no query has used since the counters began
-- why: Every write keeps it up, VACUUM walks through it, and it takes memory from others. Not reported: what is unique, backs a
--   constraint or serves a foreign key. Look at the replicas first: each server counts for itself, and an index that was
--   built yesterday was not needed yet.
-- limit: days 14 how long the counters must have run
-- limit: mib 1 smaller ones are not reported
with
-- include: mine
, since as (
  select coalesce(pg_catalog.pg_stat_get_db_stat_reset_time(d.oid), pg_catalog.pg_postmaster_start_time()) as moment
  from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()
)
select m.name as object,
  pg_catalog.format('not used once since %s; it has %s', pg_catalog.date_trunc('minute', since.moment),
                    pg_catalog.pg_size_pretty(pg_catalog.pg_relation_size(m.oid))) as message,
  pg_catalog.format('DROP INDEX CONCURRENTLY %s;', m.name) as fix
from since cross join mine m join pg_catalog.pg_index i on i.indexrelid = m.oid
where m.relkind = 'i' and not m.relispartition and i.indisvalid and not i.indisunique and not i.indisreplident
  and since.moment < pg_catalog.now() - {days} * interval '1 day'
  and pg_catalog.pg_stat_get_numscans(m.oid) = 0
  and m.relpages >= {mib} * 1048576 / pg_catalog.current_setting('block_size')::int
  and pg_catalog.pg_relation_size(m.oid) >= {mib} * 1048576
  and not exists (select from pg_catalog.pg_constraint k where k.conindid = m.oid and k.contype <> 'f')
  and not exists (
    select from pg_catalog.pg_constraint k
    where k.contype = 'f' and k.conrelid = i.indrelid
      and (pg_catalog.string_to_array(i.indkey::text, ' ')::int2[])[1:pg_catalog.cardinality(k.conkey)] @> k.conkey)
