-- severity: warning
-- summary: Two indexes of a table with the same definition
-- why: The second one costs every write and serves no query that the first does not. The one that a constraint needs stays,
--   else the older one.
with
-- include: mine
, index as (
  select m.name, i.indrelid, k.conname, pg_catalog.concat_ws('|', m.relam, i.indnkeyatts, i.indkey, i.indclass, i.indcollation, i.indoption,
      i.indisunique, i.indisexclusion, coalesce(k.condeferrable, false), pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct', k.conexclop::text,
      coalesce(pg_catalog.pg_get_expr(i.indexprs, i.indrelid), '-'), coalesce(pg_catalog.pg_get_expr(i.indpred, i.indrelid), '-')) as definition,
    (k.contype = 'p' or i.indisprimary) is true as primary_key, k.oid is not null as constrained, i.indisreplident, m.oid
  from pg_catalog.pg_index i join mine m on m.oid = i.indexrelid
    left join pg_catalog.pg_constraint k on k.conindid = i.indexrelid and k.contype in ('p', 'u', 'x')
  where i.indisvalid and not m.relispartition
), ranked as (
  select *, pg_catalog.first_value(name) over same as keeper, pg_catalog.row_number() over same as place
  from index window same as (partition by indrelid, definition
                             order by primary_key desc, constrained desc, indisreplident desc, oid)
)
select name as object, pg_catalog.format('the same as %s', keeper) as message,
  case when conname is null then pg_catalog.format('DROP INDEX CONCURRENTLY %s;', name)
       else pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I;', indrelid::pg_catalog.regclass, conname) end as fix
from ranked where place > 1
