-- What an attack asks of a scratch database. Everything is qualified: no search_path is relied on.

-- name: runner
-- Each attempt in a subtransaction of its own, always rolled back: what it leaves is read by its judge before that.
-- `phase` tells a refusal of the statement from a fault of what stands around it.
create or replace function pg_temp.dbops_attack(batch pg_catalog.jsonb)
  returns table (phase text, state text, told text, hit text, got_through text) language plpgsql as $$
declare
  attempt pg_catalog.jsonb;
  step text;
  setting text[];
  kept text[];
  got text;
begin
  for attempt in select e.value from pg_catalog.jsonb_array_elements(batch) with ordinality e(value, n) order by e.n loop
    begin
      phase := 'prepare'; state := ''; told := ''; hit := ''; got_through := null; kept := null; got := null;
      for step in select e.value from pg_catalog.jsonb_array_elements_text(attempt -> 'prepare') e loop
        execute step;
      end loop;
      if attempt ->> 'kept' is not null then
        execute attempt ->> 'kept' into kept;
      end if;
      for setting in select array[e.value ->> 0, e.value ->> 1, e.value ->> 2]
                     from pg_catalog.jsonb_array_elements(attempt -> 'settings') e loop
        perform pg_catalog.set_config(setting[1], setting[2], setting[3] = 'local');
      end loop;
      perform pg_catalog.set_config('role', attempt ->> 'role', true);
      phase := 'attempt';
      if (attempt ->> 'reads')::bool then
        execute attempt ->> 'statement' into got;
      else
        execute attempt ->> 'statement';
      end if;
      phase := 'judge';
      perform pg_catalog.set_config('role', 'none', true);
      execute attempt ->> 'judge' into got_through using kept, got;
      phase := 'done';
      raise exception using errcode = 'DBA00', message = 'rolled back';
    exception when others then
      if phase <> 'done' then
        get stacked diagnostics state = returned_sqlstate, told = message_text, hit = constraint_name;
      end if;
    end;
    return next;
  end loop;
end
$$;

-- name: columns
select c.oid, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attgenerated <> '', a.attidentity::text,
       a.attidentity <> '' or coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid) ~ 'nextval\(', false) as numbered
from pg_catalog.pg_class c
join pg_catalog.pg_attribute a on a.attrelid = c.oid
left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where c.oid = any (%(relations)s) and a.attnum > 0 and not a.attisdropped
order by c.oid, a.attnum;

-- name: delete_guards
-- tables whose rows cannot just be deleted: a foreign key refers to them, or a trigger of the user's stands in front
select c.oid from pg_catalog.pg_class c
where c.oid = any (%(relations)s)
  and (exists (select from pg_catalog.pg_constraint k where k.confrelid = c.oid and k.contype = 'f')
       or exists (select from pg_catalog.pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal and t.tgtype & 8 > 0));

-- name: privileges
-- what each role may do with each relation, by membership too; column privileges count as the verb
select r.rolname::text, c.oid, p.privilege
from pg_catalog.pg_class c
cross join pg_catalog.pg_roles r
cross join pg_catalog.unnest(%(privileges)s::text[]) p(privilege)
where c.oid = any (%(relations)s) and r.rolname = any (%(roles)s)
  and (pg_catalog.has_table_privilege(r.oid, c.oid, p.privilege)
       or p.privilege in ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES') and pg_catalog.has_any_column_privilege(r.oid, c.oid, p.privilege))
order by 1, 2, 3;

-- name: writable_columns
-- columns that the role may write where it may not write them all
select c.oid, p.privilege, a.attname::text
from pg_catalog.pg_class c
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
join pg_catalog.pg_roles r on r.rolname = %(role)s
cross join pg_catalog.unnest(array['INSERT', 'UPDATE']) p(privilege)
where c.oid = any (%(relations)s) and a.attgenerated = ''
  and not pg_catalog.has_table_privilege(r.oid, c.oid, p.privilege)
  and pg_catalog.has_column_privilege(r.oid, c.oid, a.attnum, p.privilege)
order by c.oid, 2, a.attnum;

-- name: functions
-- what the roles may call and what could read or write rows: no extension's, no trigger's, and of what is said to be
-- immutable only what runs with its owner's rights
select n.nspname::text, p.proname::text, p.prokind::text, p.prosecdef, p.provolatile::text,
       array(select pg_catalog.format_type(t.oid, null) from pg_catalog.unnest(p.proargtypes::pg_catalog.oid[]) with ordinality t(oid, n) order by t.n),
       array(select r.rolname::text from pg_catalog.pg_roles r
             where r.rolname = any (%(roles)s) and pg_catalog.has_function_privilege(r.oid, p.oid, 'EXECUTE')
               and pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE') order by 1),
       array(select a.name from rows from (pg_catalog.unnest(p.proargnames), pg_catalog.unnest(p.proargmodes))
               with ordinality a(name, mode, n)
             where coalesce(a.mode, 'i') in ('i', 'b', 'v') order by a.n)
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'dbops')
  and p.prokind in ('f', 'p') and (p.provolatile <> 'i' or p.prosecdef)
  and p.prorettype not in ('pg_catalog.trigger'::pg_catalog.regtype, 'pg_catalog.event_trigger'::pg_catalog.regtype)
  and not exists (select from pg_catalog.pg_depend d
                  where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = p.oid and d.deptype = 'e')
order by 2, 3, 1;

-- name: bodies
-- what functions of users' schemas look for in a session's claims
select coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc)
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and p.prokind = 'f'
  and (p.prosrc ~ '->' or p.prosqlbody is not null)
  and not exists (select from pg_catalog.pg_depend d
                  where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = p.oid and d.deptype = 'e')
order by p.oid;

-- name: texts
-- what functions of users' schemas are made of
select n.nspname::text, p.proname::text, coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc)
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and p.prokind in ('f', 'p')
  and not exists (select from pg_catalog.pg_depend d
                  where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = p.oid and d.deptype = 'e')
order by p.oid;

-- name: moments
-- the times beside those that the intervals in these texts lead to, from now on and back
select (pg_catalog.now() + i.length * f.part)::text
from pg_catalog.unnest(%(intervals)s::pg_catalog.interval[]) i(length)
cross join pg_catalog.unnest(array[-0.9, -1.1, 0.9, 1.1]::pg_catalog.float8[]) f(part);

-- name: view_texts
-- the queries of all views of users' schemas, older ones first: whether rows are read in the reader's name, whether users
-- may read or write them, whether they are materialized
select n.nspname::text, c.relname::text, pg_catalog.pg_get_viewdef(c.oid),
       c.relkind = 'v' and coalesce((select u.option_value::bool from pg_catalog.pg_options_to_table(c.reloptions) u
                                     where u.option_name = 'security_invoker'), false),
       exists (select from pg_catalog.pg_roles r
               where r.rolname = any (%(roles)s)
                 and (pg_catalog.has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE')
                      or pg_catalog.has_table_privilege(r.oid, c.oid, 'DELETE'))),
       c.relkind = 'm'
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('v', 'm') and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'dbops')
  and not exists (select from pg_catalog.pg_depend d
                  where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.deptype = 'e')
order by c.oid;

-- name: definers
-- what the roles may call and what runs with its owner's rights, with the search_path that it sets
select n.nspname::text, p.proname::text, coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc),
       (select pg_catalog.substr(s.setting, 13) from pg_catalog.unnest(p.proconfig) s(setting)
        where s.setting like 'search\_path=%%')
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'dbops', %(helpers)s)
  and p.prokind in ('f', 'p') and p.prosecdef
  and p.prorettype not in ('pg_catalog.trigger'::pg_catalog.regtype, 'pg_catalog.event_trigger'::pg_catalog.regtype)
  and exists (select from pg_catalog.pg_roles r
              where r.rolname = any (%(roles)s) and pg_catalog.has_function_privilege(r.oid, p.oid, 'EXECUTE')
                and pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE'))
  and not exists (select from pg_catalog.pg_depend d
                  where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = p.oid and d.deptype = 'e')
order by 1, 2, p.oid;
