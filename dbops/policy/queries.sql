-- The statements of the room `policy`. Everything is qualified: they run with an empty search_path, so that
-- expressions and types are printed with their schemas.

-- name: policy_search_path
select pg_catalog.current_setting('search_path');

-- name: policy_set_path
select pg_catalog.set_config('search_path', %(path)s, true);

-- name: policy_database
select pg_catalog.current_setting('server_version_num')::int, pg_catalog.current_database()::text, current_user::text;

-- name: policy_schemas
-- no schemas named: all but PostgreSQL's own and those of dbops
select n.oid, n.nspname::text from pg_catalog.pg_namespace n
where case when %(schemas)s::text[] is null then n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
           else n.nspname = any (%(schemas)s::text[]) end
  and not n.nspname = any (%(ours)s::text[])
order by 2;

-- name: policy_tables
select c.oid, n.nspname::text, c.relname::text, c.relkind::text, o.rolname::text, c.relrowsecurity, c.relforcerowsecurity,
       pn.nspname::text, p.relname::text
from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_roles o on o.oid = c.relowner
  left join pg_catalog.pg_inherits i on i.inhrelid = c.oid and c.relispartition
  left join pg_catalog.pg_class p on p.oid = i.inhparent
  left join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace
where c.relkind in ('r', 'p', 'f') and c.relpersistence <> 't' and c.relnamespace = any (%(schemas)s::pg_catalog.oid[])
  and not exists (
    select from pg_catalog.pg_depend d
    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.deptype = 'e')
order by 2, 3;

-- name: policy_columns
select a.attrelid, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
       a.attgenerated = '' and a.attidentity <> 'a'
from pg_catalog.pg_attribute a
where a.attrelid = any (%(tables)s::pg_catalog.oid[]) and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum;

-- name: policy_indexes
-- an expression among the columns has the number 0 and ends what a search by columns can use
select i.indrelid, x.relname::text, i.indisunique, i.indisvalid and i.indpred is null,
       array(select a.attname::text from pg_catalog.unnest(i.indkey::int2[]) with ordinality u(num, n)
             join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = u.num
             where u.n <= i.indnkeyatts and u.n < coalesce(
               (select pg_catalog.min(z.n) from pg_catalog.unnest(i.indkey::int2[]) with ordinality z(num, n) where z.num = 0),
               i.indnkeyatts + 1)
             order by u.n)
from pg_catalog.pg_index i
  join pg_catalog.pg_class x on x.oid = i.indexrelid
where i.indrelid = any (%(tables)s::pg_catalog.oid[])
order by 1, 2;

-- name: policy_foreign_keys
select k.conrelid, k.conname::text, n.nspname::text, c.relname::text,
       array(select a.attname::text from pg_catalog.unnest(k.conkey) with ordinality u(num, n)
             join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.num order by u.n),
       array(select a.attname::text from pg_catalog.unnest(k.confkey) with ordinality u(num, n)
             join pg_catalog.pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.num order by u.n)
from pg_catalog.pg_constraint k
  join pg_catalog.pg_class c on c.oid = k.confrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where k.conrelid = any (%(tables)s::pg_catalog.oid[]) and k.contype = 'f'
order by 1, 2;

-- name: policy_grants
-- without an ACL the owner has everything and nobody else anything: acldefault says so
select c.oid, case when g.grantee = 0 then 'public' else pg_catalog.pg_get_userbyid(g.grantee)::text end, g.privilege_type
from pg_catalog.pg_class c
  cross join pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner))) g
where c.oid = any (%(relations)s::pg_catalog.oid[])
order by 1, 2, 3;

-- name: policy_column_grants
select a.attrelid, a.attname::text,
       case when g.grantee = 0 then 'public' else pg_catalog.pg_get_userbyid(g.grantee)::text end, g.privilege_type
from pg_catalog.pg_attribute a
  cross join pg_catalog.aclexplode(a.attacl) g
where a.attrelid = any (%(tables)s::pg_catalog.oid[]) and a.attnum > 0 and not a.attisdropped
order by 1, a.attnum, 3, 4;

-- name: policy_views
select c.oid, n.nspname::text, c.relname::text, c.relkind = 'm', o.rolname::text,
       coalesce((select u.option_value::bool from pg_catalog.pg_options_to_table(c.reloptions) u
                 where u.option_name = 'security_invoker'), false)
from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_roles o on o.oid = c.relowner
where c.relkind in ('v', 'm') and c.relnamespace = any (%(schemas)s::pg_catalog.oid[])
  and not exists (
    select from pg_catalog.pg_depend d
    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.deptype = 'e')
order by 2, 3;

-- name: policy_view_reads
-- what each view reads, through other views too; those elsewhere are followed as well
with recursive direct as (
  select distinct w.ev_class as view, d.refobjid as relation
  from pg_catalog.pg_rewrite w
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = w.oid
      and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid <> w.ev_class
  where w.rulename = '_RETURN'
), reads as (
  select direct.view, direct.relation from direct where direct.view = any (%(views)s::pg_catalog.oid[])
  union
  select reads.view, direct.relation from reads join direct on direct.view = reads.relation
)
select reads.view, n.nspname::text, c.relname::text
from reads join pg_catalog.pg_class c on c.oid = reads.relation
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'f')
order by 1, 2, 3;

-- name: policy_functions
select n.nspname::text, p.proname::text, p.oid, pg_catalog.pg_get_function_identity_arguments(p.oid),
       coalesce(pg_catalog.pg_get_function_result(p.oid), ''), p.prokind::text, p.prosecdef, o.rolname::text,
       coalesce(p.proconfig, '{}'), p.provolatile::text,
       array(select distinct case when g.grantee = 0 then 'public' else pg_catalog.pg_get_userbyid(g.grantee)::text end
             from pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) g
             where g.privilege_type = 'EXECUTE'),
       case when n.nspname = %(helpers)s then pg_catalog.pg_get_functiondef(p.oid) else '' end
from pg_catalog.pg_proc p
  join pg_catalog.pg_namespace n on n.oid = p.pronamespace
  join pg_catalog.pg_roles o on o.oid = p.proowner
where (p.pronamespace = any (%(schemas)s::pg_catalog.oid[]) or n.nspname = %(helpers)s and p.prokind = 'f')
  and not exists (
    select from pg_catalog.pg_depend d
    where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = p.oid and d.deptype = 'e')
order by 1, 2, 4;

-- name: policy_policies
select l.polrelid, l.polname::text, l.polpermissive,
       case l.polcmd when '*' then 'all' when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' else 'delete' end,
       array(select case when r.role = 0 then 'public' else pg_catalog.pg_get_userbyid(r.role)::text end
             from pg_catalog.unnest(l.polroles) r(role) order by 1),
       pg_catalog.pg_get_expr(l.polqual, l.polrelid), pg_catalog.pg_get_expr(l.polwithcheck, l.polrelid)
from pg_catalog.pg_policy l
where l.polrelid = any (%(tables)s::pg_catalog.oid[])
order by 1, 2;

-- name: policy_triggers
-- those that dbops made; a partition's are clones of its parent's
select t.tgrelid, t.tgname::text, pg_catalog.pg_get_triggerdef(t.oid)
from pg_catalog.pg_trigger t
where t.tgrelid = any (%(tables)s::pg_catalog.oid[]) and not t.tgisinternal and t.tgparentid = 0
  and pg_catalog.starts_with(t.tgname::text, %(prefix)s)
order by 1, 2;

-- name: policy_roles
select r.rolname::text, r.rolsuper, r.rolbypassrls,
       array(with recursive above as (
               select m.roleid from pg_catalog.pg_auth_members m where m.member = r.oid
               union
               select m.roleid from above join pg_catalog.pg_auth_members m on m.member = above.roleid)
             select distinct g.rolname::text from above join pg_catalog.pg_roles g on g.oid = above.roleid
             where g.oid <> r.oid order by 1)
from pg_catalog.pg_roles r order by 1;

-- name: policy_has_files
select exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
               where n.nspname = 'dbops' and c.relname = 'policy_files');

-- name: policy_create_files
create table if not exists {table} (
  path text primary key,
  checksum text not null,
  applied_at timestamptz not null,
  applied_by text not null,
  policies jsonb not null
);

-- name: policy_files
select pg_catalog.to_jsonb(f) from {table} f;

-- name: policy_may_temp
select pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMP');

-- name: policy_lock
-- two that make the helpers at once would end in `tuple concurrently updated`
select pg_catalog.pg_advisory_xact_lock(%(namespace)s, %(key)s);

-- name: policy_helper_schema
select pg_catalog.pg_get_userbyid(n.nspowner)::text, pg_catalog.has_schema_privilege(n.oid, 'CREATE')
from pg_catalog.pg_namespace n where n.nspname = %(schema)s;

-- name: policy_twins
-- whether a subquery reads the table itself (as a range table entry it stands in the stored tree), whether USING holds
-- a subquery, whether a name was found among the twins only: on the tables it means nothing, or something else
select c.relname::text, l.polname::text,
       pg_catalog.pg_get_expr(l.polqual, l.polrelid), pg_catalog.pg_get_expr(l.polwithcheck, l.polrelid),
       pg_catalog.concat(l.polqual::text, l.polwithcheck::text) ~ pg_catalog.concat(':relid ', l.polrelid, '\y'),
       coalesce(l.polqual::text ~ '\{SUBLINK ', false),
       exists (select from pg_catalog.pg_depend d
               left join pg_catalog.pg_type y on d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass and y.oid = d.refobjid
               left join pg_catalog.pg_class r on d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                 and r.oid = d.refobjid and r.oid <> l.polrelid
               where d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass and d.objid = l.oid
                 and pg_catalog.pg_my_temp_schema() in (y.typnamespace, r.relnamespace)),
       array(select distinct array[n.nspname::text, r.relname::text] from pg_catalog.pg_depend d
             join pg_catalog.pg_class r on r.oid = d.refobjid join pg_catalog.pg_namespace n on n.oid = r.relnamespace
             where d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass and d.objid = l.oid
               and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and r.oid <> l.polrelid)
from pg_catalog.pg_policy l join pg_catalog.pg_class c on c.oid = l.polrelid
where c.relnamespace = pg_catalog.pg_my_temp_schema();

-- name: policy_twin_triggers
select c.relname::text, t.tgname::text, pg_catalog.pg_get_triggerdef(t.oid)
from pg_catalog.pg_trigger t join pg_catalog.pg_class c on c.oid = t.tgrelid
where c.relnamespace = pg_catalog.pg_my_temp_schema() and not t.tgisinternal;

-- name: policy_probe
-- the condition stands in the tree of the function's body behind the first jointree: within a name, a blank has a
-- backslash. Where in a text something stood is no part of it (since PostgreSQL 17 it is -1)
with probe as (
  select p.oid, pg_catalog.split_part(p.prosqlbody::text, ':jointree ', 1) || ':jointree ' as before,
         p.prosqlbody::text as body
  from pg_catalog.pg_proc p where p.proname = %(function)s and p.pronamespace = pg_catalog.pg_my_temp_schema()
), found as (
  select l.polrelid, case when %(number)s::int = 0 then l.polqual::text else l.polwithcheck::text end as tree
  from pg_catalog.pg_policy l join pg_catalog.pg_class c on c.oid = l.polrelid
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where n.nspname = %(schema)s and c.relname = %(table)s and l.polname = %(policy)s
), trees as (
  select probe.oid, pg_catalog.regexp_replace(pg_catalog.substr(probe.body, pg_catalog.length(probe.before) + 1),
           ':(location|stmt_location|stmt_len) -?\d+', ':\1', 'g') as wanted,
         pg_catalog.regexp_replace(
           '{FROMEXPR :fromlist ({RANGETBLREF :rtindex 1}) :quals ' || (select found.tree from found) || '}',
           ':(location|stmt_location|stmt_len) -?\d+', ':\1', 'g') as there
  from probe
), relation as (
  select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where n.nspname = %(schema)s and c.relname = %(table)s
)
select coalesce(pg_catalog.starts_with(t.wanted, t.there), false), t.wanted ~ pg_catalog.concat(':relid ', r.oid, '\y'),
       t.wanted ~ '\{SUBLINK ',
       array(select distinct array[n.nspname::text, c.relname::text] from pg_catalog.pg_depend d
             join pg_catalog.pg_class c on c.oid = d.refobjid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
             where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = t.oid
               and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid <> r.oid)
from trees t, relation r;

-- name: policy_session
select current_user::text || ' ' || session_user::text, pg_catalog.current_setting('search_path');

-- name: policy_holders
select a.pid, a.usename::text, a.application_name, coalesce(a.state, 'state hidden'),
       coalesce(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - coalesce(a.xact_start, a.backend_start)), 0),
       pg_catalog.left(coalesce(a.query, ''), 120)
from pg_catalog.pg_stat_activity a
where a.pid <> pg_catalog.pg_backend_pid() and a.pid in (
  select l.pid from pg_catalog.pg_locks l join pg_catalog.pg_class c on c.oid = l.relation
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    join unnest(%(schemas)s::text[], %(names)s::text[]) u(schema, name) on u.schema = n.nspname and u.name = c.relname
  where l.granted and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()))
order by 5 desc;

-- name: policy_record_grantees
select distinct case when g.grantee = 0 then 'public' else pg_catalog.pg_get_userbyid(g.grantee)::text end
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  cross join pg_catalog.aclexplode(c.relacl) g
where n.nspname = 'dbops' and c.relname = %(table)s and g.grantee <> c.relowner;

-- name: policy_forget_file
delete from {table} f where pg_catalog.to_jsonb(f) ->> 'path' = %(path)s;

-- name: policy_add_file
insert into {table} select r.* from pg_catalog.jsonb_populate_record(null::{table},
  pg_catalog.jsonb_build_object('applied_at', pg_catalog.clock_timestamp(), 'applied_by', session_user::text) || %(row)s) r;

-- name: policy_versions
-- a policy that was made or altered has a row of its own
select n.nspname::text, c.relname::text, l.polname::text, l.oid, l.ctid::text
from pg_catalog.pg_policy l join pg_catalog.pg_class c on c.oid = l.polrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace;

-- name: live_settings
select pg_catalog.set_config(s.value ->> 0, s.value ->> 1, true) from pg_catalog.jsonb_array_elements(%(settings)s::pg_catalog.jsonb) s;
