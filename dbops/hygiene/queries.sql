-- What hygiene asks of the memory schema, and its own record in the schema dbops. The operator's: over all users.

-- name: memory_schema
-- whether there is what duplicates are found and marked by, and whether there are embeddings
select pg_catalog.to_regprocedure('public.find_duplicate_sets(uuid, double precision)') is not null
  and pg_catalog.to_regclass('public.hygiene_changes') is not null, pg_catalog.to_regclass('public.memory_embeddings') is not null;

-- name: user_uuid
select public.user_uuid(%(user)s::text);

-- name: user_exists
select exists (select from auth.users u where u.id = %(user)s::uuid);

-- name: users
-- with how many active memories, and how many of them that have no word set yet
select m.user_id, pg_catalog.count(*), pg_catalog.count(*) - pg_catalog.count(k.memory_id)
from public.user_memories m left join public.memory_tokens k on k.user_id = m.user_id and k.memory_id = m.id
where m.is_active and (%(user)s::uuid is null or m.user_id = %(user)s)
group by m.user_id order by m.user_id;

-- name: oversized
select k.user_id, k.memory_id from public.memory_tokens k
where k.tokens is null and (%(user)s::uuid is null or k.user_id = %(user)s) order by 1, 2;

-- name: sets
-- those with the words of one in a row
select u.id::text, f.a::text, pg_catalog.string_agg(f.b::text, ','), f.similarity
from pg_catalog.unnest(%(users)s::uuid[]) u(id) cross join lateral public.find_duplicate_sets(u.id, %(threshold)s::float8) f
group by u.id, f.a, f.similarity, case when f.similarity < 1 then f.b end;

-- name: vectors
select e.user_id, e.model, e.memory_id, pg_catalog.md5(m.fact), e.embedding
from public.memory_embeddings e
join public.user_memories m on m.user_id = e.user_id and m.id = e.memory_id and m.is_active
where e.user_id = any (%(users)s::uuid[]) and (%(model)s::text is null or e.model = %(model)s)
order by e.user_id, e.model, e.memory_id;

-- name: rows
-- (unnest of several arrays is syntax and cannot be qualified)
-- copies of a text in a row, with their places in the survivors' order: the most important, the most confident, the newest,
-- the lowest id; apart those whose word set is another text's (the triggers were off)
select x.user_id::text, pg_catalog.min(x.fact collate "C"), x.hash,
  pg_catalog.string_agg(x.id::text, ',' order by x.place), pg_catalog.array_agg(x.place order by x.place), x.stale
from (
  select m.user_id, m.id, m.fact, pg_catalog.md5(m.fact) as hash, s.stale, pg_catalog.row_number() over (
    partition by m.user_id, s.stale order by m.importance_score desc, m.confidence_score desc, m.created_at desc, m.id) - 1 as place
  from unnest(%(users)s::uuid[], %(ids)s::uuid[]) w(user_id, id)
  join public.user_memories m on m.user_id = w.user_id and m.id = w.id
  left join public.memory_tokens k on k.user_id = m.user_id and k.memory_id = m.id
  cross join lateral public.token_set(m.fact) t
  cross join lateral (select k.memory_id is not null and k.tokens is distinct from t.tokens as stale offset 0) s
  where m.is_active
) x
group by x.user_id, x.hash, x.stale order by x.user_id, pg_catalog.min(x.place);

-- name: lock_memories
-- those that are active, by what they say
select m.hash, pg_catalog.string_agg(m.id::text, ',')
from (
  select m.id, pg_catalog.md5(m.fact) as hash from public.user_memories m
  where m.user_id = %(user)s and m.id = any (%(ids)s::uuid[]) and m.is_active
  order by m.id for no key update
) m
group by m.hash;

-- name: mark
select public.mark_memory_duplicates(%(user)s::uuid, %(ids)s::uuid[], %(originals)s::uuid[], %(batch)s::uuid, %(settings)s::jsonb, %(command)s);

-- name: cleanup_users
-- who has anything that cleanup may take
select user_id, pg_catalog.sum(memories)::bigint, pg_catalog.sum(blobs)::bigint
from (
  select m.user_id, pg_catalog.count(*) as memories, 0 as blobs from public.user_memories m
  where not m.is_active and m.updated_at < pg_catalog.now() - pg_catalog.make_interval(days => %(days)s::int)
    and (m.duplicate_of is null or exists (
      select from public.user_memories s where s.user_id = m.user_id and s.id = m.duplicate_of))
    and not exists (
      select from public.user_memories l where l.user_id = m.user_id and l.duplicate_of = m.id
        and l.updated_at >= pg_catalog.now() - pg_catalog.make_interval(days => %(days)s::int))
  group by m.user_id
  union all
  select b.user_id, 0, pg_catalog.count(*) from public.memory_blobs b where b.expires_at <= pg_catalog.now() group by b.user_id
) x
where %(user)s::uuid is null or user_id = %(user)s
group by user_id order by user_id;

-- name: cleanup_memories
select public.cleanup_old_memories(%(user)s::uuid, %(days)s::int, %(batch)s::uuid, %(limit)s::int);

-- name: cleanup_blobs
select public.cleanup_expired_blobs(%(user)s::uuid, %(batch)s::uuid, %(limit)s::int);

-- name: memory_count
select pg_catalog.count(*) from public.user_memories m where %(user)s::uuid is null or m.user_id = %(user)s;

-- name: memories_over
-- batches whose time is over and that still have a ledger
select distinct r.batch from dbops.hygiene_runs r join public.hygiene_batches b on b.id = r.batch where r.purge_after < pg_catalog.now();

-- name: saved_over
select r.batch from dbops.hygiene_runs r
where r.purge_after < pg_catalog.now() and exists (select from dbops.hygiene_saved s where s.batch = r.batch);

-- name: purge_changes
-- (the purges and what follows them: a portion, so that no transaction is long)
delete from public.hygiene_changes c using (
  select c.user_id, c.batch, c.seq from public.hygiene_batches b
  join public.hygiene_changes c on c.user_id = b.user_id and c.batch = b.id
  where b.id = any (%(batches)s::uuid[]) limit %(limit)s) x
where c.user_id = x.user_id and c.batch = x.batch and c.seq = x.seq;

-- name: purge_batches
-- when their changes are gone; the notes that they were undone go with them
delete from public.hygiene_batches b using (
  select b.user_id, b.id from public.hygiene_batches b where b.id = any (%(batches)s::uuid[]) limit %(limit)s) x
where b.user_id = x.user_id and b.id = x.id;

-- name: purge_saved
delete from dbops.hygiene_saved s using (
  select s.batch, s.seq from dbops.hygiene_saved s where s.batch = any (%(batches)s::uuid[]) limit %(limit)s) x
where s.batch = x.batch and s.seq = x.seq;

-- name: orphan_reviews
-- pairs that wait for a person, of which a memory is gone or was marked meanwhile
select pg_catalog.count(*) from dbops.hygiene_reviews r
where r.table_name = 'public.user_memories' and r.state = 'open'
  and (select pg_catalog.count(*) from public.user_memories m
       where m.user_id = r.scope::uuid and m.id in (r.a::uuid, r.b::uuid) and m.is_active) < 2;

-- name: purge_reviews
delete from dbops.hygiene_reviews d using (
  select r.id from dbops.hygiene_reviews r
  where r.table_name = 'public.user_memories' and r.state = 'open'
    and (select pg_catalog.count(*) from public.user_memories m
         where m.user_id = r.scope::uuid and m.id in (r.a::uuid, r.b::uuid) and m.is_active) < 2
  limit %(limit)s) x
where d.id = x.id;

-- name: orphan_sets
-- word sets without an active memory
select pg_catalog.count(*) from public.memory_tokens k
where not exists (select from public.user_memories m where m.user_id = k.user_id and m.id = k.memory_id and m.is_active);

-- name: purge_sets
delete from public.memory_tokens d using (
  select k.user_id, k.memory_id from public.memory_tokens k
  where not exists (select from public.user_memories m where m.user_id = k.user_id and m.id = k.memory_id and m.is_active)
  limit %(limit)s) x
where d.user_id = x.user_id and d.memory_id = x.memory_id;

-- name: batch_users
-- (user, undone): what an undo refused can be tried again
select b.user_id, exists (select from public.hygiene_batches u where u.user_id = b.user_id and u.undoes = b.id)
  and not exists (select from public.ledger_left(b.user_id, b.id))
from public.hygiene_batches b where b.id = %(batch)s::uuid and b.command <> 'undo' order by b.user_id;

-- name: batch_rows
select pg_catalog.min(b.command), (
  select pg_catalog.count(distinct (c.user_id, c.table_name, c.row_id))
  from public.hygiene_changes c where c.batch = %(batch)s::uuid and c.user_id = any (%(users)s::uuid[]) and c.table_name in ('user_memories', 'memory_blobs'))
from public.hygiene_batches b where b.id = %(batch)s::uuid and b.command <> 'undo';

-- name: analyze_ledger
analyze public.hygiene_changes;

-- name: undo
select table_name, id, refused from public.undo_hygiene_batch(%(user)s::uuid, %(batch)s::uuid);

-- name: batches
-- those that functions called from SQL made, beside the runs on record
select b.id, pg_catalog.min(b.command), pg_catalog.min(b.at), pg_catalog.min(b.by), pg_catalog.count(*),
  pg_catalog.sum(case when b.command = 'mark' then 1 else (
    select pg_catalog.count(distinct c.row_id) from public.hygiene_changes c
    where c.user_id = b.user_id and c.batch = b.id and c.table_name = 'user_memories') end)::bigint,
  pg_catalog.count(*) filter (where exists (
    select from public.hygiene_batches u where u.user_id = b.user_id and u.undoes = b.id))
from public.hygiene_batches b
where b.command <> 'undo' and not b.id = any (%(known)s::uuid[])
group by b.id order by 3 desc limit %(limit)s;

-- name: user_stats
select m.user_id, pg_catalog.count(*), pg_catalog.count(m.duplicate_of),
  coalesce(pg_catalog.sum(pg_catalog.octet_length(m.fact)) filter (where m.duplicate_of is not null), 0)::bigint
from public.user_memories m
where %(user)s::uuid is null or m.user_id = %(user)s
group by m.user_id having pg_catalog.count(m.duplicate_of) > 0 or %(user)s::uuid is not null
order by 3 desc, 1 limit %(limit)s;

-- name: record_exists
-- (to_regclass would answer from a cache that does not know what another session has just committed)
select exists (
  select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where n.nspname = 'dbops' and c.relname = 'hygiene_reviews');

-- name: lock_record
select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('dbops hygiene record', 0));

-- name: create_record
create schema if not exists dbops;
create table if not exists dbops.hygiene_runs (
  batch uuid primary key default pg_catalog.gen_random_uuid(),
  command text not null,
  table_name text not null,
  settings jsonb not null,
  undoes uuid,
  users int not null default 0,
  rows bigint not null default 0,
  pairs bigint not null default 0,
  marked bigint not null default 0,
  review bigint not null default 0,
  bytes bigint not null default 0,
  purge_after timestamptz,
  started_at timestamptz not null default pg_catalog.clock_timestamp(),
  finished_at timestamptz,
  run_by text not null default session_user,
  run_from text not null,
  dbops_version text not null
);
create index if not exists hygiene_runs_undoes on dbops.hygiene_runs (undoes);
create table if not exists dbops.hygiene_saved (
  batch uuid not null references dbops.hygiene_runs on delete cascade,
  seq bigint generated always as identity,
  key jsonb not null,
  before jsonb not null,
  after_hash text,
  undone_at timestamptz,
  primary key (batch, seq)
);
create table if not exists dbops.hygiene_reviews (
  id bigint generated always as identity primary key,
  table_name text not null,
  scope text,
  a text not null,
  b text not null,
  a_hash text not null,
  b_hash text not null,
  similarity float8 not null,
  kind text not null check (kind in ('text', 'semantic')),
  reason text not null,
  state text not null default 'open' check (state in ('open', 'accepted', 'rejected')),
  found_by uuid not null references dbops.hygiene_runs,
  found_at timestamptz not null default pg_catalog.clock_timestamp(),
  decided_at timestamptz,
  decided_by text,
  decided_in uuid references dbops.hygiene_runs
);
create unique index if not exists hygiene_reviews_once on dbops.hygiene_reviews
  (table_name, scope, (least(a_hash, b_hash)), (greatest(a_hash, b_hash))) nulls not distinct;
create index if not exists hygiene_reviews_found_by on dbops.hygiene_reviews (found_by);
create index if not exists hygiene_reviews_decided_in on dbops.hygiene_reviews (decided_in);

-- name: record_grantees
select distinct pg_catalog.pg_get_userbyid(x.grantee)::text
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace, pg_catalog.aclexplode(c.relacl) x
where x.grantee <> c.relowner and x.grantee <> 0 and n.nspname = %(schema)s
union
select pg_catalog.pg_get_userbyid(x.grantee)::text
from pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) x
where x.grantee <> n.nspowner and x.grantee <> 0 and n.nspname = %(schema)s;

-- name: begin_run
insert into dbops.hygiene_runs (command, table_name, settings, undoes, rows, pairs, purge_after, run_from, dbops_version)
values (%(command)s, %(table)s, %(settings)s::jsonb, %(undoes)s::uuid, %(rows)s, %(pairs)s,
  pg_catalog.now() + pg_catalog.make_interval(days => %(purge_after)s::int), %(run_from)s, %(dbops_version)s)
returning batch;

-- name: add_to_run
-- in the same transaction as what it counts: a run that is killed says what it did
update dbops.hygiene_runs
set users = users + 1, marked = marked + %(marked)s, review = review + %(review)s, bytes = bytes + %(bytes)s
where batch = %(batch)s::uuid;

-- name: count_in_run
update dbops.hygiene_runs set users = users + %(users)s, marked = marked + %(marked)s where batch = %(batch)s::uuid;

-- name: end_run
update dbops.hygiene_runs set finished_at = pg_catalog.clock_timestamp() where batch = %(batch)s::uuid;

-- name: run
select command, table_name, settings from dbops.hygiene_runs where batch = %(batch)s::uuid;

-- name: run_names
select r.batch from dbops.hygiene_runs r where r.table_name = 'public.user_memories';

-- name: runs
select r.batch, r.command, r.table_name, r.started_at, r.run_by, r.users, r.rows, r.pairs, r.marked, r.review,
  coalesce((select pg_catalog.sum(u.marked) from dbops.hygiene_runs u where u.undoes = r.batch), 0)::bigint, r.bytes,
  r.finished_at is not null, r.purge_after
from dbops.hygiene_runs r where r.undoes is null order by r.started_at desc limit %(limit)s;

-- name: decided
select r.scope, r.a_hash, r.b_hash, r.state from dbops.hygiene_reviews r
where r.table_name = %(table)s and r.state <> 'open' and (%(scopes)s::text[] is null or r.scope = any (%(scopes)s));

-- name: add_reviews
insert into dbops.hygiene_reviews as r (table_name, scope, a, b, a_hash, b_hash, similarity, kind, reason, found_by)
select %(table)s, %(scope)s, x.a, x.b, x.a_hash, x.b_hash, x.similarity, x.kind, x.reason, %(batch)s::uuid
from unnest(%(a)s::text[], %(b)s::text[], %(a_hash)s::text[], %(b_hash)s::text[], %(similarity)s::float8[], %(kind)s::text[],
  %(reason)s::text[]) x(a, b, a_hash, b_hash, similarity, kind, reason)
on conflict (table_name, scope, (least(a_hash, b_hash)), (greatest(a_hash, b_hash))) do update
set a = excluded.a, b = excluded.b, a_hash = excluded.a_hash, b_hash = excluded.b_hash, similarity = excluded.similarity,
  kind = excluded.kind, reason = excluded.reason, found_by = excluded.found_by
where r.state = 'open';

-- name: reviews
-- a portion, by id; last, whether acceptance deletes
select r.id, r.table_name, r.scope, r.a, r.b, r.a_hash, r.b_hash, r.similarity, r.kind, r.reason, r.state, r.found_by,
  coalesce(f.settings #>> '{target,action}' = 'delete', false)
from dbops.hygiene_reviews r join dbops.hygiene_runs f on f.batch = r.found_by
where (%(ids)s::bigint[] is null or r.id = any (%(ids)s)) and (%(state)s::text is null or r.state = %(state)s)
  and (%(scope)s::text is null or r.scope = %(scope)s) and r.id > %(after)s::bigint
order by r.id limit %(limit)s;

-- name: review_texts
select w.scope, w.id, m.fact, pg_catalog.md5(m.fact)
from unnest(%(scopes)s::text[], %(ids)s::text[]) w(scope, id)
join public.user_memories m on m.user_id = w.scope::uuid and m.id = w.id::uuid and m.is_active;

-- name: lock_reviews
select r.id, r.state from dbops.hygiene_reviews r where r.id = any (%(ids)s::bigint[]) order by r.id for update;

-- name: decide
update dbops.hygiene_reviews
set state = %(state)s, decided_at = pg_catalog.clock_timestamp(), decided_by = session_user, decided_in = %(batch)s::uuid
where id = any (%(ids)s::bigint[]);

-- name: reopen
-- an acceptance that was undone is to be judged again; of one user or of all
update dbops.hygiene_reviews set state = 'open', decided_at = null, decided_by = null, decided_in = null
where decided_in = %(batch)s::uuid and (%(user)s::text is null or scope = %(user)s);
