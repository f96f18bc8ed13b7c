-- severity: warning
-- summary: A sequence that runs out, or outgrows the column that it fills
-- why: At its end every INSERT fails. A bigint sequence of an integer column ends at 2,147,483,647. An error from 90 % on.
-- limit: percent 75 used, from here on it is reported
with
-- include: mine
, filled as (
  select d.objid as sequence, d.refobjid as relation, d.refobjsubid as attnum from pg_catalog.pg_depend d
  where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    and d.deptype in ('a', 'i') and d.refobjsubid > 0
  union
  select d.refobjid, f.adrelid, f.adnum from pg_catalog.pg_depend d join pg_catalog.pg_attrdef f on f.oid = d.objid
  where d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
), sequence as (
  select m.name, s.seqstart, s.seqincrement, c.relation, c.attname, c.typname, c.narrow,
    pg_catalog.has_sequence_privilege(m.oid, 'USAGE, SELECT') as readable,
    case when pg_catalog.has_sequence_privilege(m.oid, 'USAGE, SELECT') then pg_catalog.pg_sequence_last_value(m.oid) end as last,
    case when s.seqincrement > 0 then least(s.seqmax, coalesce(c.ceiling, s.seqmax)) else greatest(s.seqmin, coalesce(-c.ceiling - 1, s.seqmin)) end as bound
  from mine m join pg_catalog.pg_sequence s on s.seqrelid = m.oid
  left join lateral (
    select f.relation::pg_catalog.regclass as relation, a.attname, t.typname, t.typname <> 'int8' as narrow,
      case t.typname when 'int2' then 32767 when 'int4' then 2147483647 else 9223372036854775807 end as ceiling
    from filled f join pg_catalog.pg_attribute a on a.attrelid = f.relation and a.attnum = f.attnum
      join pg_catalog.pg_type t on t.oid = a.atttypid
    where f.sequence = m.oid and t.typname in ('int2', 'int4', 'int8') order by t.typlen limit 1
  ) c on true
  where m.relkind = 'S' and not s.seqcycle
), used as (
  -- of the way from 0, or from where it starts, to its end
  select *, 100.0 * (last - start.point) / nullif(bound - start.point, 0) as percent
  from sequence cross join lateral (
    select case when seqincrement > 0 then greatest(seqstart, 0)::numeric else least(seqstart, 0)::numeric end as point) start
)
select name as object,
  pg_catalog.format('%s %% used: %s of %s%s', pg_catalog.round(percent, 1), last, bound,
                    case when relation is not null then pg_catalog.format(' (it fills %s.%I, %s)', relation, attname, typname) end) as message,
  case when narrow then pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I TYPE bigint; ALTER SEQUENCE %s AS bigint; -- rewrites the table while '
                                          'nobody else can use it; on a large one: a new column, filled in batches', relation, attname, name)
       else pg_catalog.format('ALTER SEQUENCE %s AS bigint MAXVALUE 9223372036854775807;', name) end as fix,
  case when percent >= 90 then 'error' else 'warning' end as severity
from used where percent >= {percent}
union all
select '', pg_catalog.format('the role may not read %s sequences, %s for one', pg_catalog.count(*), pg_catalog.min(name)), null, 'unchecked'
from sequence where not readable having pg_catalog.count(*) > 0
