-- severity: warning
-- summary: A prepared transaction that nobody ended
-- why: It outlives its session and even the server: locks and dead rows stay until somebody commits it or rolls it back.
-- limit: minutes 60
select pg_catalog.format('prepared transaction %s', p.gid) as object,
  pg_catalog.format('prepared by %s in %s %s minutes ago', p.owner, p.database,
    pg_catalog.round(extract(epoch from pg_catalog.clock_timestamp() - p.prepared) / 60)) as message,
  pg_catalog.format('ROLLBACK PREPARED %L; -- or COMMIT PREPARED: its coordinator knows', p.gid) as fix
from pg_catalog.pg_prepared_xacts p
where p.prepared <= pg_catalog.clock_timestamp() - {minutes} * interval '1 minute'
