-- Marking duplicates and clean-up, each with a ledger of what was there before, and the way back.
-- All with the invoker's rights. Users may write the ledger, and nothing is won by a forged row: an undo touches rows of the
-- ledger row's own user only, in four tables, and in them what that user may write anyway. docs/duplicates.md says more.

-- migrate:up

create table public.hygiene_batches (
  user_id uuid not null,
  id uuid not null default gen_random_uuid(),
  command text not null,
  settings jsonb not null default '{}',
  at timestamptz not null default now(),
  by text not null default current_user,
  undoes uuid,
  constraint hygiene_batches_pkey primary key (user_id, id),
  constraint hygiene_batches_user foreign key (user_id) references auth.users (id) on delete cascade,
  constraint hygiene_batches_undoes foreign key (user_id, undoes)
    references public.hygiene_batches (user_id, id) on delete cascade,
  constraint hygiene_batches_command_not_empty check (length(command) between 1 and 100),
  -- history prints it
  constraint hygiene_batches_command_printable check (command !~ '[\x01-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]'),
  constraint hygiene_batches_settings_is_object check (jsonb_typeof(settings) = 'object')
);
alter table public.hygiene_batches enable row level security;
alter table public.hygiene_batches force row level security;
comment on table public.hygiene_batches is 'What was done to a user''s memories at one time: marked as duplicates, cleaned up, undone. One batch of many users has a row for each';

create table public.hygiene_changes (
  user_id uuid not null,
  batch uuid not null,
  seq bigint not null generated always as identity,
  table_name text not null,
  row_id uuid not null,
  before jsonb not null,
  content bytea,
  after bytea,
  original uuid,
  merged bigint,
  settles bigint,
  constraint hygiene_changes_pkey primary key (user_id, batch, seq),
  constraint hygiene_changes_batch foreign key (user_id, batch)
    references public.hygiene_batches (user_id, id) on delete cascade,
  constraint hygiene_changes_table_known
    check (table_name in ('user_memories', 'memory_usage', 'memory_embeddings', 'memory_blobs')),
  constraint hygiene_changes_before_is_object check (jsonb_typeof(before) = 'object'),
  constraint hygiene_changes_merged_positive check (merged > 0)
);
alter table public.hygiene_changes enable row level security;
alter table public.hygiene_changes force row level security;
comment on table public.hygiene_changes is 'A row as it was before a batch changed it (content: a blob''s bytes), and the SHA-256 of what the batch made of it (NULL: deleted)';
comment on column public.hygiene_changes.original is 'Of a memory that was marked: what it is a duplicate of';
comment on column public.hygiene_changes.merged is 'Of a memory that was marked: how many uses its original got from it';
comment on column public.hygiene_changes.settles is 'Of an undo: the change that it took back, by seq';

create index hygiene_batches_undone on public.hygiene_batches (user_id, undoes) where undoes is not null;

create function public.acting_user() returns uuid language plpgsql stable set search_path = '' as $$
begin
  if auth.uid() is null then
    raise exception 'nobody is signed in: auth.uid() is NULL'
      using errcode = 'insufficient_privilege', hint = 'operators name the user as the first argument; nothing was changed';
  end if;
  return auth.uid();
end
$$;
comment on function public.acting_user() is 'auth.uid(), or an error where that is NULL';

-- What a ledger compares. Its callers pin the time zone and formats: with settings of its own it could not be inlined.
create function public.row_digest(p_row jsonb, p_without text[]) returns bytea
  language sql stable parallel safe return sha256(convert_to((p_row - p_without)::text, 'UTF8'));
comment on function public.row_digest(jsonb, text[]) is 'The SHA-256 of a row, of some columns not';

create function public.mark_memory_duplicates(
  p_user uuid, p_ids uuid[], p_originals uuid[], p_batch uuid, p_settings jsonb default '{}', p_command text default 'dedupe'
) returns integer
  language plpgsql set search_path = '' set timezone = 'UTC' set extra_float_digits = 1 set bytea_output = 'hex' set work_mem = '64MB'
  -- statistics know nothing of a user who has just come, nor of what a statement makes: nested loops over 10,000 rows took a minute,
  -- and hashes of all that a user has 80 ms where one row is marked. So the number of rows decides, and EXECUTE plans anew.
  set enable_nestloop = on as $$
declare
  losers uuid[];
  survivors uuid[];
  uses bigint[];
  locked bigint;
begin
  if p_user is null or p_batch is null or cardinality(p_ids) is distinct from cardinality(p_originals)
     or array_position(p_ids || p_originals, null) is not null
     or exists (select unnest(p_ids) intersect select unnest(p_originals))
     or cardinality(p_ids) > (select count(distinct x.id) from unnest(p_ids) x(id)) then
    raise exception 'no list of duplicates: a user, a batch, as many ids as originals, no id twice, and no id that is also an original'
      using errcode = 'invalid_parameter_value', hint = 'nothing was changed';
  end if;
  -- with the losers' losers, which are marked anew. Few rows are found by index, many in one pass over the user's.
  execute $sql$
    select from public.user_memories m
    where m.user_id = $1
      and (cardinality($2) > 100 or m.id = any ($2 || $3) or m.duplicate_of = any ($2))
      and (m.id in (select unnest($2 || $3)) or m.duplicate_of in (select unnest($2)))
    order by m.id for no key update
  $sql$ using p_user, p_ids, p_originals;
  get diagnostics locked = row_count;
  perform set_config('enable_nestloop', (locked <= 100)::text, true);

  execute $sql$
    select coalesce(array_agg(x.id), '{}'), coalesce(array_agg(x.original), '{}'), coalesce(array_agg(nullif(u.access_count, 0)), '{}')
    from unnest($2, $3) x(id, original)
    join public.user_memories l on l.user_id = $1 and l.id = x.id and l.is_active
    join public.user_memories s on s.user_id = $1 and s.id = x.original and s.is_active
    left join public.memory_usage u on u.user_id = $1 and u.memory_id = x.id
  $sql$ into losers, survivors, uses using p_user, p_ids, p_originals;
  if cardinality(losers) = 0 then
    return 0;
  end if;

  insert into public.hygiene_batches (user_id, id, command, settings)
  values (p_user, p_batch, p_command, p_settings) on conflict do nothing;

  -- the losers, and the losers' losers: no mark points to a memory that is marked itself. Only the inactive have a duplicate_of.
  -- Locked again, in case another session has made one of them since: the image is the newest.
  execute $sql$
    with marked as materialized (
      select m.id, to_jsonb(m) - 'fact_words' as before, x.original, case when m.id = x.id then x.times end as merged
      from public.user_memories m
      join unnest($3, $4, $5) x(id, original, times) on x.id = coalesce(m.duplicate_of, m.id)
      where m.user_id = $1 and ($6 > 100 or m.id = any ($3) or m.duplicate_of = any ($3))
      for no key update of m
    ), changed as (
      update public.user_memories m
      set is_active = false, duplicate_of = k.original, updated_at = clock_timestamp()
      from marked k
      where m.user_id = $1 and m.id = k.id
      returning m.id, public.row_digest(to_jsonb(m), '{fact_words}') as after
    )
    insert into public.hygiene_changes (user_id, batch, table_name, row_id, before, after, original, merged)
    select $1, $2, 'user_memories', c.id, k.before, c.after, k.original, k.merged
    from changed c join marked k on k.id = c.id
  $sql$ using p_user, p_batch, losers, survivors, uses, locked;

  -- tags may have several dimensions, which || does not join, and NULLs
  execute $sql$
    with brought as materialized (
      select x.original, array_agg(distinct t.tag) as tags
      from unnest($3, $4) x(id, original)
      join public.user_memories l on l.user_id = $1 and l.id = x.id
      cross join lateral unnest(l.tags) t(tag)
      group by x.original
    ), tags as materialized (
      select m.id, to_jsonb(m) - 'fact_words' as before,
             array(select b.tag from unnest(k.tags) b(tag) where b.tag is not null and not coalesce(b.tag = any (m.tags), false) order by 1) as more
      from brought k join public.user_memories m on m.user_id = $1 and m.id = k.original
    ), changed as (
      update public.user_memories m
      set tags = array(select t.tag from unnest(m.tags) t(tag)) || k.more, updated_at = clock_timestamp()
      from tags k
      where m.user_id = $1 and m.id = k.id and cardinality(k.more) > 0
      returning m.id, public.row_digest(to_jsonb(m), '{fact_words}') as after
    )
    insert into public.hygiene_changes (user_id, batch, table_name, row_id, before, after)
    select $1, $2, 'user_memories', c.id, k.before, c.after
    from changed c join tags k on k.id = c.id
  $sql$ using p_user, p_batch, losers, survivors;

  execute $sql$
    with added as materialized (
      select x.original as memory_id, sum(x.times) as merged, max(u.last_accessed_at) as last_accessed_at
      from unnest($3, $4, $5) x(id, original, times)
      join public.memory_usage u on u.user_id = $1 and u.memory_id = x.id
      group by x.original having sum(x.times) > 0
    ), was as materialized (
      select u.memory_id, to_jsonb(u) as before
      from public.memory_usage u join added n on n.memory_id = u.memory_id where u.user_id = $1
    ), changed as (
      insert into public.memory_usage as u (user_id, memory_id, access_count, last_accessed_at)
      select $1, n.memory_id, n.merged, n.last_accessed_at from added n
      on conflict (user_id, memory_id) do update
        set access_count = u.access_count + excluded.access_count, last_accessed_at = greatest(u.last_accessed_at, excluded.last_accessed_at)
      returning u.memory_id, public.row_digest(to_jsonb(u), '{}') as after
    )
    insert into public.hygiene_changes (user_id, batch, table_name, row_id, before, after)
    select $1, $2, 'memory_usage', c.memory_id, coalesce(w.before, '{}'), c.after
    from changed c left join was w on w.memory_id = c.memory_id
  $sql$ using p_user, p_batch, losers, survivors, uses;
  return cardinality(losers);
end
$$;
comment on function public.mark_memory_duplicates(uuid, uuid[], uuid[], uuid, jsonb, text) is
  'Marks memories as duplicates of others and merges their tags and counts into them; returns how many were still there and active';

create function public.mark_memory_duplicate(p_user uuid, p_id uuid, p_original uuid) returns uuid
  language plpgsql set search_path = '' as $$
declare
  batch constant uuid := gen_random_uuid();
begin
  if public.mark_memory_duplicates(p_user, array[p_id], array[p_original], batch, '{}', 'mark') = 0 then
    raise exception 'memory % is not marked as a duplicate of %: both must be active memories of user %', p_id, p_original, p_user
      using errcode = 'no_data_found', hint = 'nothing was changed';
  end if;
  return batch;
end
$$;
comment on function public.mark_memory_duplicate(uuid, uuid, uuid) is 'Marks one memory as a duplicate of another; returns the batch, for undo_hygiene_batch';

create function public.mark_memory_duplicate(p_id uuid, p_original uuid) returns uuid
  language sql set search_path = '' as $$ select public.mark_memory_duplicate(public.acting_user(), p_id, p_original) $$;
comment on function public.mark_memory_duplicate(uuid, uuid) is 'The same for the user who is signed in';

revoke all on table public.hygiene_batches, public.hygiene_changes from public, anon, authenticated;
grant select on table public.hygiene_batches, public.hygiene_changes to authenticated;
-- when and by whom is not theirs to say
grant insert (user_id, id, command, settings, undoes) on table public.hygiene_batches to authenticated;
grant insert on table public.hygiene_changes to authenticated;
grant select, insert, update, delete on table public.hygiene_batches, public.hygiene_changes to service_role;
revoke all on function public.acting_user(), public.row_digest(jsonb, text[]),
  public.mark_memory_duplicates(uuid, uuid[], uuid[], uuid, jsonb, text), public.mark_memory_duplicate(uuid, uuid, uuid),
  public.mark_memory_duplicate(uuid, uuid) from public, anon, authenticated;
grant execute on function public.acting_user(), public.row_digest(jsonb, text[]),
  public.mark_memory_duplicates(uuid, uuid[], uuid[], uuid, jsonb, text), public.mark_memory_duplicate(uuid, uuid, uuid),
  public.mark_memory_duplicate(uuid, uuid) to authenticated, service_role;

-- migrate:down
drop function public.mark_memory_duplicate(uuid, uuid);
drop function public.mark_memory_duplicate(uuid, uuid, uuid);
drop function public.mark_memory_duplicates(uuid, uuid[], uuid[], uuid, jsonb, text);
drop function public.row_digest(jsonb, text[]);
drop function public.acting_user();
drop table public.hygiene_changes;
drop table public.hygiene_batches;
