-- What the catalog says of tables and their rules. Run with an empty search_path, so that
-- expressions and types are printed with their schemas and mean the same under any path.

-- name: tables
select c.oid, n.nspname, c.relname, pg_catalog.format('%%I.%%I', n.nspname, c.relname)
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and c.relpersistence <> 't'
  and n.nspname = any (%(schemas)s) and n.nspname <> 'dbops'
  and not n.nspname || '.' || c.relname = any (%(exclude)s)
  and not pg_catalog.format('%%I.%%I', n.nspname, c.relname) = any (%(exclude)s)
  and not exists (
    select from pg_catalog.pg_depend d
    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.deptype = 'e')
  -- a partition's rows are its root's, unless the root is not among these tables
  and not (c.relispartition and exists (
    select from pg_catalog.pg_class r
    where r.oid = pg_catalog.pg_partition_root(c.oid)
      and r.relnamespace in (select s.oid from pg_catalog.pg_namespace s where s.nspname = any (%(schemas)s))))
order by 2, 3;

-- name: tables_by_oid
select c.oid, n.nspname, c.relname, pg_catalog.format('%%I.%%I', n.nspname, c.relname)
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid = any (%(tables)s) and c.relkind in ('r', 'p')
  and not n.nspname || '.' || c.relname = any (%(exclude)s)
  and not pg_catalog.format('%%I.%%I', n.nspname, c.relname) = any (%(exclude)s)
order by 2, 3;

-- name: columns
select a.attrelid, a.attname, a.atttypid, a.atttypmod, a.attnotnull, a.attgenerated <> '',
       pg_catalog.pg_get_expr(d.adbin, d.adrelid),
       case when a.attidentity <> ''
         then pg_catalog.pg_get_serial_sequence(a.attrelid::pg_catalog.regclass::text, a.attname) end
from pg_catalog.pg_attribute a
left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where a.attrelid = any (%(tables)s) and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum;

-- name: types
select t.oid, t.typname, t.typtype, t.typcategory, t.typnotnull, t.typtypmod,
       case when t.typtype = 'd' then t.typbasetype
            when t.typcategory = 'A' and t.typlen = -1 and t.typname not in ('int2vector', 'oidvector')
              then t.typelem
            when t.typtype = 'r' then (select r.rngsubtype from pg_catalog.pg_range r where r.rngtypid = t.oid)
            when t.typtype = 'm' then (select r.rngtypid from pg_catalog.pg_range r where r.rngmultitypid = t.oid)
            else 0 end as inner_type,
       array(select e.enumlabel::text from pg_catalog.pg_enum e
             where e.enumtypid = t.oid order by e.enumsortorder),
       array(select pg_catalog.pg_get_expr(k.conbin, 0) from pg_catalog.pg_constraint k
             where k.contypid = t.oid and k.contype = 'c' order by k.conname),
       array(select array[a.atttypid::int8, a.atttypmod] from pg_catalog.pg_attribute a
             where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
             order by a.attnum)
from pg_catalog.pg_type t
where t.oid = any (%(types)s);

-- name: type_names
select pg_catalog.format_type(t.oid, t.modifier)
from unnest(%(types)s::pg_catalog.oid[], %(modifiers)s::int[]) with ordinality t(oid, modifier, n)
order by t.n;

-- name: checks
select k.conrelid, k.conname, pg_catalog.pg_get_expr(k.conbin, k.conrelid),
       array(select a.attname::text from pg_catalog.pg_attribute a
             where a.attrelid = k.conrelid and a.attnum = any (k.conkey) order by a.attnum)
from pg_catalog.pg_constraint k
where k.conrelid = any (%(tables)s) and k.contype = 'c'
union all
-- a row must find a partition that takes it: as much a rule for the row as a check
select r.oid, '(partition)', pg_catalog.string_agg(
         pg_catalog.pg_get_partition_constraintdef(l.relid), ' OR ' order by l.relid::text),
       array(select a.attname::text from pg_catalog.pg_partitioned_table p
             join pg_catalog.pg_attribute a on a.attrelid = p.partrelid
             where p.partrelid in (select t.relid from pg_catalog.pg_partition_tree(r.oid) t
                                   union all select u.relid from pg_catalog.pg_partition_ancestors(r.oid) u)
               and (a.attnum = any (p.partattrs::int2[]) or 0 = any (p.partattrs::int2[]) and a.attnum > 0)
             group by 1 order by 1)
from pg_catalog.pg_class r
cross join lateral pg_catalog.pg_partition_tree(r.oid) l
where r.oid = any (%(tables)s) and (r.relkind = 'p' or r.relispartition) and l.isleaf
group by r.oid
order by 1, 2;

-- name: uniques
select i.indrelid, x.relname,
       array(select a.attname::text from pg_catalog.pg_attribute a
             where a.attrelid = i.indrelid and a.attnum = any (i.indkey::int2[]) order by a.attnum),
       i.indexprs is null and i.indpred is null and not i.indisexclusion,
       coalesce(pg_catalog.pg_get_expr(i.indexprs, i.indrelid), '') || ' '
         || coalesce(pg_catalog.pg_get_expr(i.indpred, i.indrelid), '')
from pg_catalog.pg_index i
join pg_catalog.pg_class x on x.oid = i.indexrelid
where i.indrelid = any (%(tables)s) and (i.indisunique or i.indisexclusion)
order by 1, 2;

-- name: foreign_keys
select k.conrelid, k.conname, k.confrelid,
       coalesce(pg_catalog.pg_partition_root(k.confrelid)::pg_catalog.oid, k.confrelid),
       n.nspname, c.relname, k.confmatchtype = 'f',
       array(select a.attname::text from pg_catalog.unnest(k.conkey) with ordinality u(num, n)
             join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.num order by u.n),
       array(select a.attname::text from pg_catalog.unnest(k.confkey) with ordinality u(num, n)
             join pg_catalog.pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.num order by u.n)
from pg_catalog.pg_constraint k
join pg_catalog.pg_class c on c.oid = k.confrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where k.conrelid = any (%(tables)s) and k.contype = 'f' and k.conparentid = 0
order by 1, 2;

-- name: valid_inputs
select pg_catalog.pg_input_is_valid(v.text, %(type)s)
from pg_catalog.unnest(%(values)s::text[]) with ordinality v(text, n) order by v.n;

-- name: serials
select pg_catalog.nextval(%(sequence)s::pg_catalog.regclass)::text
from pg_catalog.generate_series(1, %(count)s);

-- name: setting
-- the value before is read first: a select list is evaluated from left to right
select pg_catalog.current_setting(u.name), pg_catalog.set_config(u.name, u.value, true)
from unnest(%(names)s::text[], %(values)s::text[]) u(name, value);
