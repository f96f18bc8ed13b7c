-- severity: warning
-- summary: An index that is not valid: every write pays for it, no query uses it
-- why: CREATE INDEX CONCURRENTLY and REINDEX CONCURRENTLY leave one behind where they fail or are cancelled. A unique one
--   guards only the rows that were written since, hence an error. A concurrent rebuild mends it; one that has a valid
--   twin, or that a rebuild left over, is dropped. An index that is being built at this moment is not reported.
-- applies: REINDEX INDEX CONCURRENTLY
with
-- include: mine
, index as (
  select m.name, m.relkind, m.relname, i.*, pg_catalog.concat_ws('|', m.relam, i.indnkeyatts, i.indkey, i.indclass, i.indcollation,
      i.indoption, i.indisunique, coalesce(i.indexprs::text, '-'), coalesce(i.indpred::text, '-')) as definition
  from pg_catalog.pg_index i join mine m on m.oid = i.indexrelid
)
select x.name as object,
  case when x.indisexclusion then 'the index of an exclusion constraint is not valid'
       when x.relkind = 'I' then 'not valid: a partition has no index attached to it'
       when left_over.it then 'left over by a concurrent build that failed; a valid one is in use'
       when x.indisunique then 'a unique index that is not valid: duplicates that were there before stand beside each other'
       else 'not valid: no query uses it, every write pays for it' end as message,
  case when x.indisexclusion then pg_catalog.format('REINDEX INDEX %s; -- locks out writes', x.name)
       when x.relkind = 'I' then pg_catalog.format('-- for each partition: ALTER INDEX %s ATTACH PARTITION ...;', x.name)
       when left_over.it then pg_catalog.format('DROP INDEX CONCURRENTLY %s;', x.name)
       else pg_catalog.format('REINDEX INDEX CONCURRENTLY %s;', x.name) end as fix,
  case when x.indisunique and not left_over.it then 'error' else 'warning' end as severity
from index x
cross join lateral (
  select x.relname ~ '_cc(new|old)[0-9]*$'
    or exists (select from index o where o.indrelid = x.indrelid and o.indisvalid and o.definition = x.definition) as it
) left_over
where not x.indisvalid
  and not exists (
    select from pg_catalog.pg_stat_progress_create_index p
      join pg_catalog.pg_locks l on l.pid = p.pid and l.relation = x.indrelid and l.locktype = 'relation'
    where l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()))
