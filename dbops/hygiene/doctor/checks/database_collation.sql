-- severity: error
-- summary: A database whose texts were sorted by another version of its collation than the server's now
-- why: After an update of the operating system texts may sort in another order: lookups miss rows that are there, and unique indexes let duplicates
--   in. Rebuild the indexes on texts, then tell the catalog.
-- since: 15
select pg_catalog.format('database %s', d.datname) as object,
  pg_catalog.format('made with version %s of its collation, the server has %s', d.datcollversion, v.actual) as message,
  pg_catalog.format('REINDEX (CONCURRENTLY) DATABASE %I; ALTER DATABASE %I REFRESH COLLATION VERSION;', d.datname, d.datname) as fix
from pg_catalog.pg_database d
cross join lateral (select pg_catalog.pg_database_collation_actual_version(d.oid) as actual) v
where d.datallowconn and d.datcollversion <> v.actual
