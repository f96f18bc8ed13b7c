-- severity: info
-- summary: Many pages are read from outside PostgreSQL's cache
-- why: shared_buffers is small beside what is used, or scans read what an index would spare. The operating system's cache may still have had the
--   pages: look at the times before you buy memory.
-- limit: percent 95 found in the cache, less is reported
-- limit: pages 1000000 read, fewer tell nothing
select pg_catalog.format('database %s', s.datname) as object,
  pg_catalog.format('%s %% of %s pages were found in the cache', pg_catalog.round(100.0 * s.blks_hit / (s.blks_hit + s.blks_read), 1),
                    s.blks_hit + s.blks_read) as message,
  '-- ALTER SYSTEM SET shared_buffers = ...; a quarter of the memory is usual' as fix
from pg_catalog.pg_stat_database s
where s.datname = pg_catalog.current_database() and s.blks_hit + s.blks_read >= {pages}
  and 100.0 * s.blks_hit / nullif(s.blks_hit + s.blks_read, 0) < {percent}
