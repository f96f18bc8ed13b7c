-- severity: info
-- summary: An index whose columns another one begins with
-- why: The longer index answers what the shorter one does. The shorter one is smaller, so it may earn its place: measure before
--   you drop it. Only btree indexes of plain columns with the same condition are compared.
with
-- include: mine
, index as (
  select m.name, m.oid, i.indrelid, i.indisunique, coalesce(pg_catalog.pg_get_expr(i.indpred, i.indrelid), '') as predicate,
    exists (select from pg_catalog.pg_constraint k where k.conindid = m.oid and k.contype in ('p', 'u', 'x')) as constrained,
    key.columns, pg_catalog.string_to_array(i.indkey::text, ' ') as attributes
  from pg_catalog.pg_index i join mine m on m.oid = i.indexrelid join pg_catalog.pg_am a on a.oid = m.relam
  cross join lateral (
    select pg_catalog.array_agg(pg_catalog.concat_ws(':', c.att, c.class, c.coll, c.opt) order by c.place) as columns
    from rows from (pg_catalog.unnest(i.indkey), pg_catalog.unnest(i.indclass), pg_catalog.unnest(i.indcollation), pg_catalog.unnest(i.indoption))
      with ordinality as c (att, class, coll, opt, place)
    where c.place <= i.indnkeyatts
  ) key
  where a.amname = 'btree' and i.indexprs is null and i.indisvalid and not m.relispartition
)
select distinct on (a.name) a.name as object, pg_catalog.format('%s begins with the same columns', b.name) as message,
  pg_catalog.format('DROP INDEX CONCURRENTLY %s;', a.name) as fix
from index a join index b on b.indrelid = a.indrelid and b.predicate = a.predicate
where not a.indisunique and not a.constrained and b.oid <> a.oid
  and b.columns[1:pg_catalog.cardinality(a.columns)] = a.columns and b.attributes @> a.attributes
  and (pg_catalog.cardinality(b.columns) > pg_catalog.cardinality(a.columns) or b.indisunique)
order by a.name, pg_catalog.cardinality(b.columns), b.oid
