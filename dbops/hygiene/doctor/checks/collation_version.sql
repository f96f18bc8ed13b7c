-- severity: error
-- summary: Indexes sorted by another version of a collation than the server's now
-- why: After an update of the operating system or of ICU texts may sort in another order: lookups miss rows that are there, and unique indexes let
--   duplicates in. Rebuild the indexes, then tell the catalog.
select pg_catalog.format('collation %s', c.oid::pg_catalog.regcollation) as object,
  pg_catalog.format('made with version %s, the server has %s; %s indexes depend on it', c.collversion, v.actual, used.n) as message,
  pg_catalog.format('%s ALTER COLLATION %s REFRESH VERSION;', used.rebuild, c.oid::pg_catalog.regcollation) as fix
from pg_catalog.pg_collation c
cross join lateral (select pg_catalog.pg_collation_actual_version(c.oid) as actual) v
cross join lateral (
  select pg_catalog.count(*) as n,
    pg_catalog.string_agg(pg_catalog.format('REINDEX INDEX CONCURRENTLY %s;', i.indexrelid::pg_catalog.regclass), ' ') as rebuild
  from pg_catalog.pg_index i where c.oid = any (i.indcollation)
) used
where c.collversion <> v.actual and used.n > 0
