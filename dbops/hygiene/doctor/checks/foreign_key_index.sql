-- severity: info
-- summary: A foreign key whose columns have no index
-- why: Each DELETE of a row that is referred to, and each change of its key, reads the whole referring table. It is a warning where
--   that table is large and rows of the other one have been deleted.
-- limit: rows 10000 from here on a table is large
with
-- include: mine
select pg_catalog.format('%s.%I', m.name, k.conname) as object,
  pg_catalog.format('no index begins with %s: a DELETE in %s reads all of %s (about %s rows)', columns.list,
                    k.confrelid::pg_catalog.regclass, m.name, greatest(m.reltuples, 0)::int8) as message,
  pg_catalog.format('CREATE INDEX %sON %s (%s);', case when m.relkind = 'p' then '' else 'CONCURRENTLY ' end, m.name, columns.list) as fix,
  case when m.reltuples >= {rows} and pg_catalog.pg_stat_get_tuples_deleted(k.confrelid) > 0 then 'warning' else 'info' end as severity
from pg_catalog.pg_constraint k join mine m on m.oid = k.conrelid
cross join lateral (
  select pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' order by c.place) as list
  from pg_catalog.unnest(k.conkey) with ordinality c (attnum, place)
    join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = c.attnum
) columns
where k.contype = 'f' and k.conparentid = 0 and not exists (
  select from pg_catalog.pg_index i join pg_catalog.pg_class x on x.oid = i.indexrelid join pg_catalog.pg_am am on am.oid = x.relam
  where i.indrelid = k.conrelid and i.indisvalid and am.amname in ('btree', 'hash')
    and (pg_catalog.string_to_array(i.indkey::text, ' ')::int2[])[1:pg_catalog.cardinality(k.conkey)] @> k.conkey
    and i.indnkeyatts >= pg_catalog.cardinality(k.conkey)
    -- a lookup by a value is never one of NULL
    and (i.indpred is null or pg_catalog.pg_get_expr(i.indpred, i.indrelid) in (
      select pg_catalog.format('(%I IS NOT NULL)', a.attname) from pg_catalog.pg_attribute a
      where a.attrelid = k.conrelid and a.attnum = any (k.conkey))))
