-- What the merge of a backup's rows asks of the live database. The catalog is read with an empty search_path, so that
-- types are printed with their schemas, as a manifest has them.

-- name: tables
select c.oid, n.nspname::text, c.relname::text, c.relkind::text,
       coalesce(r.oid, c.oid), exists (
         select from pg_catalog.pg_rewrite w where w.ev_class = c.oid and w.rulename <> '_RETURN'), exists (
         select from pg_catalog.pg_index i where i.indrelid = c.oid and not i.indimmediate)
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join pg_catalog.pg_class r on c.relispartition and r.oid = pg_catalog.pg_partition_root(c.oid)
where c.relkind in ('r', 'p') and c.relpersistence <> 't'
  and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
order by 2, 3;

-- name: columns
select a.attrelid, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
       a.attgenerated <> '', a.attidentity::text, a.atthasdef or a.attidentity <> ''
from pg_catalog.pg_attribute a
where a.attrelid = any (%(tables)s::pg_catalog.oid[]) and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum;

-- name: keys
-- with the operator by which the index compares: another one may find no difference, or too many
select i.indrelid, pg_catalog.array_agg(a.attname::text order by k.n),
       pg_catalog.array_agg(pg_catalog.format('OPERATOR(%%I.%%s)', s.nspname, o.oprname) order by k.n)
from pg_catalog.pg_index i
cross join lateral unnest(i.indkey::int2[], i.indclass::pg_catalog.oid[]) with ordinality k(attnum, opclass, n)
join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
join pg_catalog.pg_opclass c on c.oid = k.opclass
join pg_catalog.pg_am m on m.oid = c.opcmethod and m.amname = 'btree'
join pg_catalog.pg_amop p on p.amopfamily = c.opcfamily and p.amopstrategy = 3
  and p.amoplefttype = c.opcintype and p.amoprighttype = c.opcintype
join pg_catalog.pg_operator o on o.oid = p.amopopr
join pg_catalog.pg_namespace s on s.oid = o.oprnamespace
where i.indisprimary and k.n <= i.indnkeyatts and i.indrelid = any (%(tables)s::pg_catalog.oid[])
group by i.indrelid;

-- name: foreign_keys
select k.conname::text, k.conrelid, k.confrelid, k.confdeltype::text,
       coalesce((pg_catalog.to_jsonb(k) ->> 'conperiod')::bool, false),
       pg_catalog.array_agg(a.attname::text order by u.n), pg_catalog.array_agg(b.attname::text order by u.n),
       pg_catalog.array_agg(pg_catalog.format('OPERATOR(%%I.%%s)', s.nspname, o.oprname) order by u.n)
from pg_catalog.pg_constraint k
cross join lateral unnest(k.conkey, k.confkey, k.conpfeqop) with ordinality u(child, parent, equals, n)
join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.child
join pg_catalog.pg_attribute b on b.attrelid = k.confrelid and b.attnum = u.parent
join pg_catalog.pg_operator o on o.oid = u.equals
join pg_catalog.pg_namespace s on s.oid = o.oprnamespace
where k.contype = 'f' and k.conparentid = 0
  and coalesce((pg_catalog.to_jsonb(k) ->> 'conenforced')::bool, true)
group by k.oid, k.conname, k.conrelid, k.confrelid, k.confdeltype, 5
order by k.conrelid, k.conname;

-- name: triggers
-- those that would fire: under the replica role `always` and `replica`, else `always` and the ordinary ones
select n.nspname::text, c.relname::text, t.tgname::text, t.tgenabled::text
from pg_catalog.unnest(%(tables)s::pg_catalog.oid[]) r(oid)
cross join lateral (
  select r.oid as relid union select p.relid from pg_catalog.pg_partition_tree(r.oid) p) f
join pg_catalog.pg_class c on c.oid = f.relid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_trigger t on t.tgrelid = c.oid and not t.tgisinternal
where t.tgenabled::text = any (case when %(replica)s then array['A', 'R'] else array['A', 'O'] end)
order by 1, 2, 3;

-- name: sequences
-- owned by a column of the tables, or in a default of theirs
select distinct n.nspname::text, c.relname::text, q.seqincrement, c.oid
from pg_catalog.pg_depend d
left join pg_catalog.pg_attrdef f on d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass and f.oid = d.objid
join pg_catalog.pg_class c on c.relkind = 'S' and c.oid = case when f.oid is null then d.objid else d.refobjid end
join pg_catalog.pg_sequence q on q.seqrelid = c.oid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where f.adrelid = any (%(tables)s::pg_catalog.oid[]) and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
   or d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.deptype in ('a', 'i')
      and d.refclassid = d.classid and d.refobjid = any (%(tables)s::pg_catalog.oid[])
order by 1, 2;

-- name: type_exists
select pg_catalog.to_regtype(%(type)s::text) is not null;

-- name: pin
-- values as text are the same in every session, whatever the role's or the database's defaults are
select pg_catalog.set_config(s.name, s.value, true)
from (values ('TimeZone', 'UTC'), ('DateStyle', 'ISO, MDY'), ('IntervalStyle', 'postgres'), ('extra_float_digits', '1'),
      ('bytea_output', 'hex'), ('xmlbinary', 'base64'), ('lc_monetary', 'C'), ('standard_conforming_strings', 'on')) s(name, value);

-- name: notices_gone_client
select pg_catalog.version() ~ 'linux' and pg_catalog.current_setting('client_connection_check_interval', true) is not null;

-- name: is_superuser
select r.rolsuper from pg_catalog.pg_roles r where r.rolname = current_user;

-- name: may_be_replica
-- PostgreSQL 15 and later
select pg_catalog.has_parameter_privilege('session_replication_role', 'SET');

-- name: lock_holders
-- who keeps a lock on these or on a partition of theirs, what it does, and for how many seconds; pid 0: a prepared
-- transaction, with its name for a query
select distinct coalesce(a.pid, 0), coalesce(a.usename::text, p.owner::text, ''), coalesce(a.application_name, ''),
       coalesce(a.state, ''), pg_catalog.left(coalesce(a.query, p.gid, ''), 120), l.relation::pg_catalog.regclass::text,
       pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - coalesce(a.xact_start, a.backend_start, p.prepared,
         pg_catalog.clock_timestamp()))
from pg_catalog.unnest(%(relations)s::pg_catalog.oid[]) r(oid)
cross join lateral (
  select r.oid as relid union select t.relid from pg_catalog.pg_partition_tree(r.oid) t) f
join pg_catalog.pg_locks l on l.relation = f.relid and l.locktype = 'relation' and l.granted
  and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
left join pg_catalog.pg_stat_activity a on a.pid = l.pid
left join pg_catalog.pg_locks x on l.pid is null and x.pid is null and x.locktype = 'transactionid'
  and x.virtualtransaction = l.virtualtransaction
left join pg_catalog.pg_prepared_xacts p on p.transaction = x.transactionid
where l.pid is distinct from pg_catalog.pg_backend_pid() and l.mode <> all (%(but)s::text[])
order by 1;

-- name: create_record
create schema if not exists dbops;
create table if not exists dbops.restore_runs (
  run text primary key,
  command text not null check (command in ('merge', 'side', 'undo')),
  backup text not null,
  store text not null,
  mode text not null,
  selection text not null,
  tables jsonb not null,
  undoes text references dbops.restore_runs,
  started_at timestamptz not null,
  finished_at timestamptz not null default pg_catalog.clock_timestamp(),
  run_by text not null default session_user,
  run_from text not null,
  dbops_version text not null
);
create unique index if not exists restore_runs_undone_once on dbops.restore_runs (undoes);
create table if not exists dbops.restore_saved (
  run text not null references dbops.restore_runs on delete cascade,
  "table" text not null,
  what text not null check (what in ('missing', 'changed', 'extra')),
  key jsonb not null,
  before jsonb,
  after_hash text
);
create index if not exists restore_saved_run on dbops.restore_saved (run, "table");

-- name: record_exists
select pg_catalog.to_regclass('dbops.restore_runs') is not null and pg_catalog.to_regclass('dbops.restore_saved') is not null;

-- name: record_grantees
select distinct pg_catalog.pg_get_userbyid(x.grantee)::text
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace, pg_catalog.aclexplode(c.relacl) x
where x.grantee <> c.relowner and x.grantee <> 0 and n.nspname = %(schema)s
union
select pg_catalog.pg_get_userbyid(x.grantee)::text
from pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) x
where x.grantee <> n.nspowner and x.grantee <> 0 and n.nspname = %(schema)s and n.nspname <> 'dbops';

-- name: insert_run
insert into dbops.restore_runs (run, command, backup, store, mode, selection, tables, undoes, started_at, run_from, dbops_version)
values (%(run)s, %(command)s, %(backup)s, %(store)s, %(mode)s, %(selection)s, %(tables)s::jsonb, %(undoes)s, %(started_at)s,
  %(run_from)s, %(dbops_version)s);

-- name: run
select r.command, r.backup, r.store, r.mode, r.tables, (select u.run from dbops.restore_runs u where u.undoes = r.run)
from dbops.restore_runs r where r.run = %(run)s;

-- name: runs
select r.run, r.command, r.backup, r.mode, r.selection, r.tables, r.undoes, r.started_at, r.finished_at, r.run_by, r.run_from
from dbops.restore_runs r order by r.started_at desc limit %(limit)s;
