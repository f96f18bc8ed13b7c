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

-- In the order of their names, so that a column that was dropped and made again is where it was. What is generated follows.
create function public.ledger_columns(p_table regclass, p_row text default null) returns text
  language sql stable set search_path = '' as $$
  select string_agg(coalesce(p_row || '.', '') || quote_ident(a.attname), ', ' order by a.attname)
  from pg_catalog.pg_attribute a
  where a.attrelid = p_table and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
$$;
comment on function public.ledger_columns(regclass, text) is 'The columns of a table that an INSERT may name, of a row in a query where it is named';

create function public.ledger_names(p_table regclass) returns text[]
  language sql stable set search_path = '' as $$
  select array_agg(a.attname::text order by a.attname)
  from pg_catalog.pg_attribute a
  where a.attrelid = p_table and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
$$;
comment on function public.ledger_names(regclass) is 'The same as an array';

-- What a ledger compares: row_to_json(row(...)) of ledger_columns. As jsonb, with the columns' names, it took three times as long.
-- Its callers pin the time zone and formats: with settings of its own it could not be inlined.
create function public.row_digest(p_row json) returns bytea
  language sql stable parallel safe return sha256(convert_to(p_row::text, 'UTF8'));
comment on function public.row_digest(json) is 'The SHA-256 of a row''s values';

create function public.row_digest(p_row json, p_names text[], p_image jsonb) returns bytea
  language sql stable parallel safe set search_path = '' as $$
  select sha256(convert_to('{' || coalesce(string_agg(format('"f%s":%s', v.place, v.value), ',' order by v.place), '') || '}', 'UTF8'))
  from (
    select row_number() over (order by e.n) as place, e.value
    from json_each(p_row) with ordinality e(key, value, n) where p_image ? p_names[e.n::integer]
  ) v
$$;
comment on function public.row_digest(json, text[], jsonb) is 'The same of those columns that an image has: what it was before the others came';

create function public.mark_memory_duplicates(
  p_user uuid, p_ids uuid[], p_originals uuid[], p_batch uuid, p_settings jsonb default '{}', p_command text default 'dedupe'
) returns integer
  language plpgsql set search_path = '' set timezone = 'UTC' set extra_float_digits = 1 set bytea_output = 'hex' set work_mem = '64MB' set jit = off
  -- statistics know nothing of a user who has just come, nor of what a statement makes: nested loops over 10,000 rows took a minute,
  -- and hashes of all that a user has 80 ms where one row is marked. So the number of rows decides, and EXECUTE plans anew.
  set enable_nestloop = on as $$
declare
  losers uuid[];
  survivors uuid[];
  uses bigint[];
  kept bigint;
  locked bigint;
  active bigint;
  columns constant text := public.ledger_columns('public.user_memories', 'm');
begin
  kept := (select count(distinct x.id) from unnest(p_originals) x(id));
  if p_user is null or p_batch is null or cardinality(p_ids) is distinct from cardinality(p_originals)
     or array_position(p_ids, null) is not null or array_position(p_originals, null) is not null
     or cardinality(p_ids) + kept > (select count(distinct x.id) from unnest(p_ids || p_originals) x(id)) then
    raise exception 'no list of duplicates: a user, a batch, as many ids as originals, no id twice, and no id that is also an original'
      using errcode = 'invalid_parameter_value', hint = 'nothing was changed';
  end if;
  -- with the losers' losers, which are marked anew. Few rows are found by index, many in one pass over the user's.
  execute $sql$
    select count(*), count(*) filter (where l.is_active)
    from (
      select m.is_active from public.user_memories m
      where m.user_id = $1
        and (cardinality($2) > 100 or m.id = any ($2 || $3) or m.duplicate_of = any ($2))
        and (m.id in (select unnest($2 || $3)) or m.duplicate_of in (select unnest($2)))
      order by m.id for no key update
    ) l
  $sql$ into locked, active using p_user, p_ids, p_originals;
  perform set_config('enable_nestloop', (locked <= 100)::text, true);

  if active = cardinality(p_ids) + kept then
    losers := p_ids;
    survivors := p_originals;
  else -- locked again, for what came since is not
    execute $sql$
      select coalesce(array_agg(l.id), '{}'), coalesce(array_agg(l.original), '{}')
      from (
        select x.id, x.original
        from unnest($2, $3) x(id, original)
        join public.user_memories m on m.user_id = $1 and m.id = x.id and m.is_active
        join public.user_memories s on s.user_id = $1 and s.id = x.original and s.is_active
        for no key update of m, s
      ) l
    $sql$ into losers, survivors using p_user, p_ids, p_originals;
  end if;
  if cardinality(losers) = 0 then
    return 0;
  end if;
  if exists (select from public.memory_usage u where u.user_id = p_user) then
    execute $sql$
      select array_agg(nullif(u.access_count, 0) order by x.n)
      from unnest($2) with ordinality x(id, n) left join public.memory_usage u on u.user_id = $1 and u.memory_id = x.id
    $sql$ into uses using p_user, losers;
  end if;

  insert into public.hygiene_batches (user_id, id, command, settings)
  values (p_user, p_batch, p_command, p_settings) on conflict do nothing;

  -- The losers, and the losers' losers: no mark points to a memory that is marked itself. Only the inactive have a duplicate_of.
  -- These are locked again, in case another session has made one since: the image is the newest.
  execute format($sql$
    with marked as materialized (
      select m.id as row_id, x.original, x.times as merged, to_jsonb(r) as before
      from unnest($3, $4, $5) x(id, original, times)
      join public.user_memories m on m.user_id = $1 and m.id = x.id
      cross join lateral (select %1$s) r
      where ($6 > 100 or m.id = any ($3))
      union all
      select * from (
        select m.id, x.original, null::bigint, to_jsonb(r)
        from unnest($3, $4) x(id, original)
        join public.user_memories m on m.user_id = $1 and m.duplicate_of = x.id
        cross join lateral (select %1$s) r
        where ($6 > 100 or m.duplicate_of = any ($3))
        for no key update of m
      ) again
    ), changed as (
      update public.user_memories m
      set is_active = false, duplicate_of = k.original, updated_at = clock_timestamp()
      from marked k
      where m.user_id = $1 and m.id = k.row_id
      returning k.row_id, k.before, public.row_digest(row_to_json(row(%1$s))) as after, k.original, k.merged
    )
    insert into public.hygiene_changes (user_id, batch, table_name, row_id, before, after, original, merged)
    select $1, $2, 'user_memories', c.row_id, c.before, c.after, c.original, c.merged from changed c
  $sql$, columns) using p_user, p_batch, losers, survivors, uses, locked;

  -- tags may have several dimensions, which || does not join, and NULLs
  execute format($sql$
    with brought as materialized (
      select x.original, array_agg(distinct t.tag) as tags
      from unnest($3, $4) x(id, original)
      join public.user_memories l on l.user_id = $1 and l.id = x.id and l.tags <> '{}'
      cross join lateral unnest(l.tags) t(tag)
      group by x.original
    ), tags as materialized (
      select m.id as row_id, to_jsonb(r) as before,
             array(select b.tag from unnest(k.tags) b(tag) where b.tag is not null and not coalesce(b.tag = any (m.tags), false) order by 1) as more
      from brought k join public.user_memories m on m.user_id = $1 and m.id = k.original
      cross join lateral (select %1$s) r
    ), changed as (
      update public.user_memories m
      set tags = array(select t.tag from unnest(m.tags) t(tag)) || k.more, updated_at = clock_timestamp()
      from tags k
      where m.user_id = $1 and m.id = k.row_id and cardinality(k.more) > 0
      returning k.row_id, k.before, public.row_digest(row_to_json(row(%1$s))) as after
    )
    insert into public.hygiene_changes (user_id, batch, table_name, row_id, before, after)
    select $1, $2, 'user_memories', c.row_id, c.before, c.after from changed c
  $sql$, columns) using p_user, p_batch, losers, survivors;

  if cardinality(array_remove(uses, null)) > 0 then
    execute format($sql$
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
        returning u.memory_id, public.row_digest(row_to_json(row(%s))) as after
      )
      insert into public.hygiene_changes (user_id, batch, table_name, row_id, before, after)
      select $1, $2, 'memory_usage', c.memory_id, coalesce(w.before, '{}'), c.after
      from changed c left join was w on w.memory_id = c.memory_id
    $sql$, public.ledger_columns('public.memory_usage', 'u')) using p_user, p_batch, losers, survivors, uses;
  end if;
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
revoke all on function public.acting_user(), public.ledger_columns(regclass, text), public.ledger_names(regclass),
  public.row_digest(json), public.row_digest(json, text[], jsonb),
  public.mark_memory_duplicates(uuid, uuid[], uuid[], uuid, jsonb, text), public.mark_memory_duplicate(uuid, uuid, uuid),
  public.mark_memory_duplicate(uuid, uuid) from public, anon, authenticated;
grant execute on function public.acting_user(), public.ledger_columns(regclass, text), public.ledger_names(regclass),
  public.row_digest(json), public.row_digest(json, text[], jsonb),
  public.mark_memory_duplicates(uuid, uuid[], uuid[], uuid, jsonb, text), public.mark_memory_duplicate(uuid, uuid, uuid),
  public.mark_memory_duplicate(uuid, uuid) to authenticated, service_role;

-- migrate:down
drop function public.mark_memory_duplicate(uuid, uuid);
drop function public.mark_memory_duplicate(uuid, uuid, uuid);
drop function public.mark_memory_duplicates(uuid, uuid[], uuid[], uuid, jsonb, text);
drop function public.row_digest(json, text[], jsonb);
drop function public.row_digest(json);
drop function public.ledger_names(regclass);
drop function public.ledger_columns(regclass, text);
drop function public.acting_user();
drop table public.hygiene_changes;
drop table public.hygiene_batches;
