-- severity: warning
-- summary: A foreign key whose column is narrower than the key it refers to
-- why: The referring column is full (smallint, integer) while the other goes on to bigint: from then on no row can refer to new ones.
with
-- include: mine
select pg_catalog.format('%s.%I', m.name, a.attname) as object,
  pg_catalog.format('%s refers to a %s: new keys will not fit in', pg_catalog.format_type(a.atttypid, null),
                    pg_catalog.format_type(r.atttypid, null)) as message,
  pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I TYPE %s; -- rewrites the table while nobody else can use it', m.name, a.attname,
                    pg_catalog.format_type(r.atttypid, null)) as fix
from pg_catalog.pg_constraint k join mine m on m.oid = k.conrelid
  cross join lateral rows from (pg_catalog.unnest(k.conkey), pg_catalog.unnest(k.confkey)) as c (own, other)
  join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = c.own
  join pg_catalog.pg_attribute r on r.attrelid = k.confrelid and r.attnum = c.other
  join pg_catalog.pg_type s on s.oid = a.atttypid join pg_catalog.pg_type t on t.oid = r.atttypid
where k.contype = 'f' and k.conparentid = 0
  and s.typname in ('int2', 'int4') and t.typname in ('int4', 'int8') and s.typlen < t.typlen
