-- The statements of the room `migrate`. {table} and the like are identifiers, filled in by psycopg.sql.

-- name: record_columns
select coalesce((select array_agg(a.attname::text order by a.attnum) from pg_catalog.pg_attribute a
  where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '{}'::text[])
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = %(schema)s and c.relname = %(table)s;

-- name: create_record
create table if not exists {table} (
  version text primary key,
  name text not null,
  checksum text not null,
  tree_checksum text not null,
  applied_at timestamptz not null default pg_catalog.clock_timestamp(),
  duration_ms double precision not null,
  applied_by text not null default session_user,
  applied_from text not null,
  dbops_version text not null,
  kind text not null default 'applied' check (kind in ('applied', 'baseline', 'adopted')),
  run uuid not null,
  up_sql text not null,
  down_sql text,
  down_transaction boolean not null default true,
  loses text not null default ''
);

-- name: create_ledger
create schema if not exists dbops;
create table if not exists dbops.migration_runs (
  run uuid primary key,
  record_table text not null,
  command text not null,
  versions text[] not null,
  started_at timestamptz not null,
  finished_at timestamptz not null default pg_catalog.clock_timestamp(),
  run_by text not null default session_user,
  run_from text not null,
  dbops_version text not null,
  note text not null default '',
  pg_dump_version text,
  schema_hash text,
  schema_text bytea
);
create table if not exists dbops.migration_steps (
  record_table text not null,
  version text not null,
  direction text not null check (direction in ('up', 'down')),
  step integer not null,
  steps integer not null,
  checksum text not null,
  state text not null check (state in ('started', 'done')),
  marker text not null,
  backend_pid integer,
  backend_start timestamptz,
  before text[] not null default '{{}}',
  started_at timestamptz not null default pg_catalog.clock_timestamp(),
  primary key (record_table, version, direction, step)
);

-- name: grantees
select distinct pg_catalog.pg_get_userbyid(x.grantee)::text from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace, pg_catalog.aclexplode(c.relacl) x
where x.grantee <> c.relowner and x.grantee <> 0
  and ((n.nspname = %(schema)s and c.relname = %(table)s) or n.nspname = 'dbops');

-- name: applied_migrations
select version, name, checksum, tree_checksum, applied_at, duration_ms, applied_by, applied_from, dbops_version, kind,
  down_sql is not null
from {table};

-- name: applied_scripts
select up_sql, down_sql, down_transaction, loses from {table} where version = {version};

-- name: insert_record
insert into {table} (version, name, checksum, tree_checksum, duration_ms, applied_from, dbops_version, kind, run, up_sql, down_sql, down_transaction, loses)
values ({version}, {name}, {checksum}, {tree_checksum}, {duration_ms}, {applied_from}, {dbops_version}, {kind}, {run}::pg_catalog.uuid, {up_sql}, {down_sql}, {down_transaction}, {loses});

-- name: since_message
select pg_catalog.round((pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - pg_catalog.statement_timestamp()) * 1000)::pg_catalog.numeric, 3);

-- name: delete_record
delete from {table} where version = {version} returning 1;

-- name: update_record
update {table} set name = {name}, checksum = {checksum}, tree_checksum = {tree_checksum}, up_sql = {up_sql},
  down_sql = {down_sql}, down_transaction = {down_transaction}, loses = {loses}
where version = {version};

-- name: insert_run
insert into dbops.migration_runs (run, record_table, command, versions, started_at, run_from, dbops_version, note, pg_dump_version, schema_hash, schema_text)
values (%(run)s, %(record_table)s, %(command)s, %(versions)s, %(started_at)s, %(run_from)s, %(dbops_version)s, %(note)s, %(pg_dump_version)s, %(schema_hash)s, %(schema_text)s);

-- name: ledger_exists
select pg_catalog.to_regclass('dbops.migration_runs') is not null and pg_catalog.to_regclass('dbops.migration_steps') is not null;

-- name: runs
select run, command, versions, started_at, finished_at, run_by, run_from, dbops_version, note, pg_dump_version, schema_hash
from dbops.migration_runs where record_table = %(record_table)s order by started_at desc, finished_at desc limit %(limit)s;

-- name: last_schema
select run, finished_at, pg_dump_version, schema_text from dbops.migration_runs
where record_table = %(record_table)s order by finished_at desc limit 1;

-- name: steps
select version, direction, step, steps, checksum, state, marker, backend_pid, backend_start, before from dbops.migration_steps
where record_table = %(record_table)s order by version, direction, step;

-- name: step_started
insert into dbops.migration_steps (record_table, version, direction, step, steps, checksum, state, marker, backend_pid, backend_start, before)
values ({record_table}, {version}, {direction}, {step}, {steps}, {checksum}, {state}, {marker}, {backend_pid}, {backend_start}, {before});

-- name: step_done
update dbops.migration_steps set state = 'done'
where record_table = {record_table} and version = {version} and direction = {direction} and step = {step};

-- name: step_forgotten
delete from dbops.migration_steps
where record_table = {record_table} and version = {version} and direction = {direction} and step = {step};

-- name: steps_forgotten
delete from dbops.migration_steps
where record_table = {record_table} and version = {version} and direction = {direction};

-- name: begin
begin isolation level read committed read write; set local session authorization default; set local role to default;

-- name: notices_gone_client
select pg_catalog.version() ~ 'linux' and pg_catalog.current_setting('client_connection_check_interval', true) is not null;

-- name: roll_back
rollback; deallocate all; select pg_catalog.pg_advisory_unlock_all();

-- name: inner_lock
select pg_catalog.pg_try_advisory_xact_lock({namespace}, {key}), pg_catalog.pg_backend_pid();

-- name: inner_lock_or_error
select case when pg_catalog.pg_try_advisory_xact_lock({namespace}, {key}) then 1
  else pg_catalog.concat('dbops: an earlier transaction is open')::pg_catalog.int4 end;

-- name: restore_session
reset all; reset session authorization; reset role; close all; deallocate all; unlisten *; discard temp;
select pg_catalog.pg_advisory_unlock_all();

-- name: backend
select pg_catalog.pg_backend_pid(), (select a.backend_start from pg_catalog.pg_stat_activity a where a.pid = pg_catalog.pg_backend_pid());

-- name: abandoned_backends
-- an idle one belongs to a runner that lost its lock and lives: ended, so that it cannot begin the step after all
select a.pid, case when a.state = 'idle' and pg_catalog.pg_has_role(a.usesysid, 'USAGE') then pg_catalog.pg_terminate_backend(a.pid) end
from pg_catalog.pg_stat_activity a
where a.datname = pg_catalog.current_database() and a.pid <> pg_catalog.pg_backend_pid()
  and ((a.state = 'active' and pg_catalog.starts_with(a.query, %(marker)s))
    or (a.pid = %(pid)s and a.backend_start = %(backend_start)s));

-- name: indexes_of
select i.indexrelid::pg_catalog.regclass::text, c.relname::text, i.indisvalid and i.indisready
from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
where i.indrelid = pg_catalog.to_regclass(%(table)s);

-- name: reindex_leftovers
-- what REINDEX CONCURRENTLY leaves when it is interrupted
select i.indexrelid::pg_catalog.regclass::text, c.relname::text, false
from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
where not i.indisvalid and c.relname ~ '_cc(new|old)[0-9]*$';

-- name: index_state
select i.indexrelid::pg_catalog.regclass::text, i.indisvalid and i.indisready, i.indrelid::pg_catalog.regclass::text
from pg_catalog.pg_index i where i.indexrelid = pg_catalog.to_regclass(%(index)s);

-- name: partition_state
select i.inhdetachpending from pg_catalog.pg_inherits i
where i.inhrelid = pg_catalog.to_regclass(%(partition)s) and i.inhparent = pg_catalog.to_regclass(%(table)s);

-- name: object_exists
select case %(what)s
  when 'database' then exists (select from pg_catalog.pg_database where datname = %(name)s)
  when 'tablespace' then exists (select from pg_catalog.pg_tablespace where spcname = %(name)s)
  else exists (select from pg_catalog.pg_subscription s where s.subname = %(name)s
    and s.subdbid = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()))
end;

-- name: extensions
select e.name::text, x.extname is not null from pg_catalog.pg_available_extensions e
  left join pg_catalog.pg_extension x on x.extname = e.name
where e.name = any(%(names)s::text[]);

-- name: candidates
select n.nspname::text, c.relname::text,
  (select array_agg(a.attname::text) from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and c.relname = any(%(names)s::text[]) and n.nspname <> 'dbops' order by 1, 2;

-- name: dbmate_versions
select version::text, null::text, true from {table};

-- name: golang_versions
select version::text, null::text, not dirty from {table};

-- name: supabase_versions
select version::text, pg_catalog.array_to_string(statements, E'\n;\n'), true from {table};

-- name: flyway_versions
select version::text, null::text, success from {table} where version is not null and type <> 'SCHEMA' order by installed_rank;

-- name: index_names
select c.relname::text from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
where i.indrelid = (select t.oid from pg_catalog.pg_class t join pg_catalog.pg_namespace n on n.oid = t.relnamespace
  where n.nspname = %(schema)s and t.relname = %(table)s);

-- The x-ray of a plan (xray/probe.py, xray/pause.py).

-- name: xray_relations
select c.oid, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), c.relkind::text,
  c.relfilenode, i.indrelid, coalesce(am.amname::text, ''), pg_catalog.pg_stat_get_xact_numscans(c.oid)
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join pg_catalog.pg_index i on i.indexrelid = c.oid left join pg_catalog.pg_am am on am.oid = c.relam
where n.nspname not in ('information_schema', 'dbops') and n.nspname !~ '^pg_';

-- name: xray_keys
select c.oid, c.conrelid from pg_catalog.pg_constraint c where c.contype = 'f' and c.convalidated;

-- name: xray_locks
select l.relation, l.mode from pg_catalog.pg_locks l
where l.pid = %(pid)s and l.locktype = 'relation'
  and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database());

-- name: xray_table
-- the table of that name, or of the index of that name
select n.nspname::text, t.relname::text from pg_catalog.pg_class c
  left join pg_catalog.pg_index i on i.indexrelid = c.oid
  join pg_catalog.pg_class t on t.oid = coalesce(i.indrelid, c.oid) join pg_catalog.pg_namespace n on n.oid = t.relnamespace
where c.oid = pg_catalog.to_regclass(%(name)s) and t.relkind in ('r', 'p', 'm');

-- name: xray_blockers
select pg_catalog.pg_blocking_pids(%(pid)s);

-- name: flush
begin; set local synchronous_commit = on; select pg_catalog.pg_current_xact_id(); commit;

-- name: unrecorded_runs
select run, pg_catalog.array_agg(version order by applied_at) from {table}
where kind = 'applied' and run not in (select r.run from dbops.migration_runs r) group by run;
