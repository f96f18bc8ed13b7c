-- Clean-up, and the way back from it and from marks. Each row that is deleted stays in the ledger until the ledger is purged.

-- migrate:up

create function public.cleanup_old_memories(
  p_user uuid, p_days integer, p_batch uuid default gen_random_uuid(), p_limit integer default null
) returns integer
  language plpgsql set search_path = '' set timezone = 'UTC' set extra_float_digits = 1 as $$
declare
  oldest constant timestamptz := now() - make_interval(days => p_days);
  ids uuid[];
begin
  if p_user is null or p_batch is null or p_days is null or p_days < 0 or p_limit < 1 then
    raise exception 'no clean-up of user % after % days in steps of %: a user, a batch, days from 0 and a limit from 1 are needed',
      p_user, p_days, p_limit using errcode = 'invalid_parameter_value', hint = 'nothing was deleted';
  end if;
  -- Losers first. A survivor goes with the last of its losers, never before: else the best of them would come back.
  -- A loser whose survivor is gone stays: it may be the last of its kind.
  ids := array(
    select m.id from public.user_memories m
    where m.user_id = p_user and not m.is_active and m.updated_at < oldest
      and (m.duplicate_of is null
           or exists (select from public.user_memories s where s.user_id = m.user_id and s.id = m.duplicate_of))
      and not exists (select from public.user_memories l
                      where l.user_id = m.user_id and l.duplicate_of = m.id and l.updated_at >= oldest)
    order by m.duplicate_of is null, m.updated_at, m.id
    limit p_limit
    for update of m skip locked
  );
  -- again, with what was locked: a loser in other hands keeps its survivor
  ids := array(
    select x.id from unnest(ids) x(id)
    where not exists (select from public.user_memories l
                      where l.user_id = p_user and l.duplicate_of = x.id and l.id <> all (ids))
  );
  if cardinality(ids) = 0 then
    return 0;
  end if;
  insert into public.hygiene_batches (user_id, id, command, settings)
  values (p_user, p_batch, 'cleanup', jsonb_build_object('days', p_days)) on conflict do nothing;
  insert into public.hygiene_changes (user_id, batch, table_name, row_id, before)
  select p_user, p_batch, 'user_memories', m.id, to_jsonb(m) - 'fact_words'
  from public.user_memories m where m.user_id = p_user and m.id = any (ids)
  union all
  select p_user, p_batch, 'memory_usage', u.memory_id, to_jsonb(u)
  from public.memory_usage u where u.user_id = p_user and u.memory_id = any (ids);
  if to_regclass('public.memory_embeddings') is not null then
    insert into public.hygiene_changes (user_id, batch, table_name, row_id, before)
    select p_user, p_batch, 'memory_embeddings', e.memory_id, to_jsonb(e)
    from public.memory_embeddings e where e.user_id = p_user and e.memory_id = any (ids);
  end if;
  delete from public.user_memories m where m.user_id = p_user and m.id = any (ids);
  return cardinality(ids);
end
$$;
comment on function public.cleanup_old_memories(uuid, integer, uuid, integer) is
  'Deletes memories that have been inactive for so many days, at most so many in one call; returns how many, 0 when none is left';

create function public.cleanup_old_memories(p_days integer) returns integer
  language sql set search_path = '' as $$ select public.cleanup_old_memories(public.acting_user(), p_days) $$;
comment on function public.cleanup_old_memories(integer) is 'The same for the user who is signed in';

create function public.cleanup_expired_blobs(
  p_user uuid, p_batch uuid default gen_random_uuid(), p_limit integer default null
) returns integer
  language plpgsql set search_path = '' set timezone = 'UTC' set extra_float_digits = 1 as $$
declare
  ids uuid[];
begin
  if p_user is null or p_batch is null or p_limit < 1 then
    raise exception 'no clean-up of user % in steps of %: a user, a batch and a limit from 1 are needed', p_user, p_limit
      using errcode = 'invalid_parameter_value', hint = 'nothing was deleted';
  end if;
  ids := array(
    select b.id from public.memory_blobs b
    where b.user_id = p_user and b.expires_at <= now() order by b.expires_at, b.id limit p_limit for update skip locked
  );
  if cardinality(ids) = 0 then
    return 0;
  end if;
  insert into public.hygiene_batches (user_id, id, command) values (p_user, p_batch, 'cleanup') on conflict do nothing;
  -- the bytes apart: text in a jsonb ends at 256 MB
  insert into public.hygiene_changes (user_id, batch, table_name, row_id, before, content)
  select p_user, p_batch, 'memory_blobs', b.id,
         to_jsonb(row_without_content), b.content
  from public.memory_blobs b
  cross join lateral (select b.user_id, b.id, b.term, b.key, b.compression, b.sha256, b.size_bytes, b.stored_bytes, b.expires_at,
                             b.metadata, b.created_at, b.updated_at) row_without_content
  where b.user_id = p_user and b.id = any (ids);
  delete from public.memory_blobs b where b.user_id = p_user and b.id = any (ids);
  return cardinality(ids);
end
$$;
comment on function public.cleanup_expired_blobs(uuid, uuid, integer) is
  'Deletes blobs that have expired, at most so many in one call; returns how many, 0 when none is left';

create function public.ledger_columns(p_table regclass, p_row text default null) returns text
  language sql stable set search_path = '' as $$
  select string_agg(coalesce(p_row || '.', '') || quote_ident(a.attname), ', ' order by a.attnum)
  from pg_catalog.pg_attribute a
  where a.attrelid = p_table and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
$$;
comment on function public.ledger_columns(regclass, text) is 'The columns of a table that an INSERT may name, of a row in a query where it is named';

create function public.undo_hygiene_batch(p_user uuid, p_batch uuid)
  returns table (table_name text, id uuid, refused text)
  language plpgsql set search_path = '' set timezone = 'UTC' set extra_float_digits = 1 set bytea_output = 'hex' as $$
#variable_conflict use_column
declare
  undo constant uuid := gen_random_uuid();
begin
  if not exists (select from public.hygiene_batches b where b.user_id = p_user and b.id = p_batch) then
    raise exception 'user % has no batch %', p_user, p_batch
      using errcode = 'no_data_found', hint = 'hygiene_batches lists them; nothing was changed';
  end if;
  insert into public.hygiene_batches (user_id, id, command, undoes) values (p_user, undo, 'undo', p_batch);
  perform from public.user_memories m
  where m.user_id = p_user
    and m.id in (select c.row_id from public.hygiene_changes c where c.user_id = p_user and c.batch = p_batch)
  order by m.id for no key update;

  -- what was deleted: memories first, for the others refer to them
  return query execute format($sql$
    with image as (
      select c.row_id, c.before from public.hygiene_changes c
      where c.user_id = $1 and c.batch = $2 and c.table_name = 'user_memories' and c.after is null
    ), judged as materialized (
      select i.row_id, i.before, case
          when exists (select from public.user_memories m where m.user_id = $1 and m.id = i.row_id) then 'it is there again'
          when i.before ->> 'duplicate_of' is not null
               and not exists (select from public.user_memories m where m.user_id = $1 and m.id = (i.before ->> 'duplicate_of')::uuid)
               and not exists (select from image o where o.row_id = (i.before ->> 'duplicate_of')::uuid) then 'its original is gone'
          when i.before ->> 'source_conversation_id' is not null
               and not exists (select from public.conversations v where v.user_id = $1 and v.id = (i.before ->> 'source_conversation_id')::uuid)
            then 'its conversation is gone'
        end as refused
      from image i
    ), written as (
      insert into public.user_memories (%1$s)
      select %2$s from judged j
      cross join lateral jsonb_populate_record(null::public.user_memories, j.before || jsonb_build_object('user_id', $1, 'id', j.row_id)) r
      where j.refused is null
    )
    select 'user_memories', j.row_id, j.refused from judged j
  $sql$, public.ledger_columns('public.user_memories'), public.ledger_columns('public.user_memories', 'r')) using p_user, p_batch;

  execute format($sql$
    insert into public.memory_usage (%1$s)
    select %2$s from public.hygiene_changes c
    cross join lateral jsonb_populate_record(null::public.memory_usage, c.before || jsonb_build_object('user_id', $1, 'memory_id', c.row_id)) r
    where c.user_id = $1 and c.batch = $2 and c.table_name = 'memory_usage' and c.after is null
      and exists (select from public.user_memories m where m.user_id = $1 and m.id = c.row_id)
    on conflict do nothing
  $sql$, public.ledger_columns('public.memory_usage'), public.ledger_columns('public.memory_usage', 'r')) using p_user, p_batch;

  if to_regclass('public.memory_embeddings') is not null then
    execute format($sql$
      insert into public.memory_embeddings (%1$s)
      select %2$s from public.hygiene_changes c
      cross join lateral jsonb_populate_record(null::public.memory_embeddings, c.before || jsonb_build_object('user_id', $1, 'memory_id', c.row_id)) r
      where c.user_id = $1 and c.batch = $2 and c.table_name = 'memory_embeddings'
        and exists (select from public.user_memories m where m.user_id = $1 and m.id = c.row_id)
        and exists (select from public.embedding_models e where e.model = c.before ->> 'model' and e.dimensions = (c.before ->> 'dimensions')::integer)
      on conflict do nothing
    $sql$, public.ledger_columns('public.memory_embeddings'), public.ledger_columns('public.memory_embeddings', 'r')) using p_user, p_batch;
  end if;

  return query execute format($sql$
    with written as (
      insert into public.memory_blobs (%1$s)
      select %2$s from public.hygiene_changes c
      cross join lateral jsonb_populate_record(null::public.memory_blobs,
        c.before || jsonb_build_object('user_id', $1, 'id', c.row_id, 'content', c.content)) r
      where c.user_id = $1 and c.batch = $2 and c.table_name = 'memory_blobs'
      on conflict do nothing
      returning id
    )
    select 'memory_blobs', c.row_id, case when w.id is null then 'its key is in use' end
    from public.hygiene_changes c left join written w on w.id = c.row_id
    where c.user_id = $1 and c.batch = $2 and c.table_name = 'memory_blobs'
  $sql$, public.ledger_columns('public.memory_blobs'), public.ledger_columns('public.memory_blobs', 'r')) using p_user, p_batch;

  -- what was marked: as it was before the batch's first change, where it still is as the batch's last one left it
  return query
  with image as materialized (
    select c.row_id, (array_agg(c.before order by c.seq))[1] as before, (array_agg(c.after order by c.seq desc))[1] as after
    from public.hygiene_changes c
    where c.user_id = p_user and c.batch = p_batch and c.table_name = 'user_memories' and c.after is not null
    group by c.row_id
  ), written as (
    update public.user_memories m
    set is_active = (i.before ->> 'is_active')::boolean, duplicate_of = (i.before ->> 'duplicate_of')::uuid,
        tags = array(select jsonb_array_elements_text(i.before -> 'tags')), updated_at = (i.before ->> 'updated_at')::timestamptz
    from image i
    where m.user_id = p_user and m.id = i.row_id and public.row_digest(m) = i.after
      and (i.before ->> 'duplicate_of' is null
           or exists (select from public.user_memories s where s.user_id = p_user and s.id = (i.before ->> 'duplicate_of')::uuid))
    returning m.id
  )
  select 'user_memories', i.row_id, case
      when w.id is not null then null
      when not exists (select from public.user_memories m where m.user_id = p_user and m.id = i.row_id) then 'it was deleted since'
      else 'it was changed since'
    end
  from image i left join written w on w.id = i.row_id;

  -- counts go on: what was merged is taken out again, and a row as the batch left it is as it was before
  with image as materialized (
    select c.row_id, (array_agg(c.before order by c.seq))[1] as before, (array_agg(c.after order by c.seq desc))[1] as after,
           sum((c.before ->> 'merged')::bigint) as merged
    from public.hygiene_changes c
    where c.user_id = p_user and c.batch = p_batch and c.table_name = 'memory_usage' and c.after is not null
    group by c.row_id
  ), gone as (
    delete from public.memory_usage u using image i
    where u.user_id = p_user and u.memory_id = i.row_id and not i.before ? 'access_count' and u.access_count <= i.merged
  )
  update public.memory_usage u
  set access_count = greatest(u.access_count - i.merged, 0),
      last_accessed_at = case when public.row_digest(u) = i.after then (i.before ->> 'last_accessed_at')::timestamptz else u.last_accessed_at end
  from image i
  where u.user_id = p_user and u.memory_id = i.row_id and (i.before ? 'access_count' or u.access_count > i.merged);
end
$$;
comment on function public.undo_hygiene_batch(uuid, uuid) is
  'Takes a batch back, row by row: refused is NULL where a row is as it was before, else why it was left as it is';

create function public.undo_hygiene_batch(p_batch uuid) returns table (table_name text, id uuid, refused text)
  language sql set search_path = '' as $$ select * from public.undo_hygiene_batch(public.acting_user(), p_batch) $$;
comment on function public.undo_hygiene_batch(uuid) is 'The same for the user who is signed in';

revoke all on function public.cleanup_old_memories(uuid, integer, uuid, integer), public.cleanup_old_memories(integer),
  public.cleanup_expired_blobs(uuid, uuid, integer), public.ledger_columns(regclass, text), public.undo_hygiene_batch(uuid, uuid),
  public.undo_hygiene_batch(uuid) from public, anon, authenticated;
grant execute on function public.cleanup_old_memories(uuid, integer, uuid, integer), public.cleanup_old_memories(integer),
  public.cleanup_expired_blobs(uuid, uuid, integer), public.ledger_columns(regclass, text), public.undo_hygiene_batch(uuid, uuid),
  public.undo_hygiene_batch(uuid) to authenticated, service_role;

-- migrate:down
drop function public.undo_hygiene_batch(uuid);
drop function public.undo_hygiene_batch(uuid, uuid);
drop function public.ledger_columns(regclass, text);
drop function public.cleanup_expired_blobs(uuid, uuid, integer);
drop function public.cleanup_old_memories(integer);
drop function public.cleanup_old_memories(uuid, integer, uuid, integer);
