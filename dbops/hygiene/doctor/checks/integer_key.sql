-- severity: warning
-- summary: A key of type integer or smallint, not filled by a sequence, that nears its end
-- why: The application numbers the rows itself, or another table's sequence does: no sequence tells how far it is. The largest value is
--   read from the key's index. An error from 90 % on.
-- limit: percent 75 used, from here on it is reported
with
-- include: mine
select pg_catalog.format('%s.%I', m.name, a.attname) as object, pg_catalog.has_column_privilege(m.oid, a.attnum, 'SELECT') as readable,
  array[m.nspname, m.relname]::text[] as "table", array[a.attname]::text[] as "column", m.name, a.attname::text,
  case t.typname when 'int2' then 32767 else 2147483647 end as ceiling
from mine m join pg_catalog.pg_attribute a on a.attrelid = m.oid and a.attnum > 0 and not a.attisdropped and a.attidentity = ''
  join pg_catalog.pg_type t on t.oid = a.atttypid
where m.relkind in ('r', 'p') and not m.relispartition and t.typname in ('int2', 'int4')
  and exists (
    select from pg_catalog.pg_index i join pg_catalog.pg_class x on x.oid = i.indexrelid join pg_catalog.pg_am am on am.oid = x.relam
    where i.indrelid = m.oid and i.indkey[0] = a.attnum and i.indisunique and i.indnkeyatts = 1 and i.indisvalid
      and i.indpred is null and am.amname = 'btree')
  and not exists (
    select from pg_catalog.pg_attrdef f where f.adrelid = m.oid and f.adnum = a.attnum
      and pg_catalog.pg_get_expr(f.adbin, f.adrelid) ~ 'nextval\(')

-- each
select {object}::text as object,
  pg_catalog.format('%s %% used: the largest value is %s of %s', pg_catalog.round(100.0 * top / {ceiling}, 1), top, {ceiling}) as message,
  pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I TYPE bigint; -- rewrites the table while nobody else can use it; on a large one: a new '
                    'column, filled in batches', {name}, {attname}) as fix,
  case when 100.0 * top / {ceiling} >= 90 then 'error' else 'warning' end as severity
from (select pg_catalog.max({column})::int8 as top from {table}) as key
where 100.0 * top / {ceiling} >= {percent}
