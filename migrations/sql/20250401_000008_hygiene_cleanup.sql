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
                      where l.user_id = p_user and l.duplicate_of = x.id and l.id not in (select unnest(ids)))
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

create function public.ledger_defaults(p_table regclass) returns text
  language sql stable set search_path = '' as $$
  select format('row(%s)::%s', string_agg(
    case a.attgenerated when '' then coalesce(pg_get_expr(d.adbin, d.adrelid), 'null') else 'null' end, ', ' order by a.attnum), p_table)
  from pg_catalog.pg_attribute a left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where a.attrelid = p_table and a.attnum > 0 and not a.attisdropped
$$;
comment on function public.ledger_defaults(regclass) is 'A row of a table''s defaults: for columns that are younger than an image';

-- (row_digest with the names takes ten times as long: for images that are older than a column)
create function public.ledger_digest(p_table regclass, p_row text, p_image text) returns text
  language sql stable set search_path = '' as $$
  select format('case when %1$s ?& %3$L::text[] then public.row_digest(%2$s) else public.row_digest(%2$s, %3$L, %1$s) end',
    p_image, format('row_to_json(row(%s))', public.ledger_columns(p_table, p_row)), public.ledger_names(p_table))
$$;
comment on function public.ledger_digest(regclass, text, text) is 'What a query compares with the ledger: the digest of a row, of the columns that an image has';

-- (no settings of its own: so it is part of the queries that ask it)
create function public.ledger_left(p_user uuid, p_batch uuid) returns setof public.hygiene_changes
  language sql stable
  begin atomic
    select c.* from public.hygiene_changes c
    where c.user_id = p_user and c.batch = p_batch
      and c.seq not in (
        select n.settles from public.hygiene_changes n
        where n.user_id = p_user and n.settles is not null
          and n.batch = any (array(select b.id from public.hygiene_batches b where b.user_id = p_user and b.undoes = p_batch)));
  end;
comment on function public.ledger_left(uuid, uuid) is 'The changes of a batch that no undo has taken back yet';

create function public.ledger_images(p_user uuid, p_batch uuid, p_table text, p_rows uuid[])
  returns table (row_id uuid, seqs bigint[], before jsonb, after bytea, marked boolean)
  language sql stable
  begin atomic
    select c.row_id, array_agg(c.seq), (array_agg(c.before order by c.seq))[1], (array_agg(c.after order by c.seq desc))[1],
      bool_or(c.original is not null)
    from public.ledger_left(p_user, p_batch) c
    where c.table_name = p_table and c.after is not null and c.row_id in (select unnest(p_rows))
    group by c.row_id;
  end;
comment on function public.ledger_images(uuid, uuid, text, uuid[]) is
  'Of some rows that a batch changed: as they were before its first change and after its last, and whether they were marked';

create function public.undo_hygiene_rows(p_user uuid, p_batch uuid, p_undo uuid, p_rows uuid[])
  returns table (table_name text, id uuid, refused text)
  language plpgsql set search_path = '' set timezone = 'UTC' set extra_float_digits = 1 set bytea_output = 'hex' set work_mem = '64MB' as $$
#variable_conflict use_column
begin
  -- what was deleted: memories first, for the others refer to them
  return query execute format($sql$
    with recursive image as materialized (
      select distinct on (c.row_id) c.row_id, c.seq, c.before, (c.before ->> 'duplicate_of')::uuid as original,
             (c.before ->> 'source_conversation_id')::uuid as conversation
      from public.ledger_left($1, $2) c
      where c.table_name = 'user_memories' and c.after is null and c.row_id in (select unnest($4))
      order by c.row_id, c.seq
    ), judged as materialized (
      select i.*, case
          when m.id is not null then 'it is there again'
          when i.original is not null and s.id is null and o.row_id is null then 'its original is gone'
          when i.conversation is not null and v.id is null then 'its conversation is gone'
        end as refused
      from image i
      left join public.user_memories m on m.user_id = $1 and m.id = i.row_id
      left join public.user_memories s on s.user_id = $1 and s.id = i.original
      left join public.conversations v on v.user_id = $1 and v.id = i.conversation
      left join image o on o.row_id = i.original
    ), gone as (
      select j.row_id from judged j where j.refused is not null and j.refused <> 'it is there again'
      union
      select j.row_id from gone g join judged j on j.original = g.row_id
    ), found as materialized (
      select j.row_id, j.seq, j.before, coalesce(j.refused, case when g.row_id is not null then 'its original is gone' end) as refused
      from judged j left join gone g on g.row_id = j.row_id
    ), written as (
      insert into public.user_memories (%1$s)
      select %2$s from found f
      cross join lateral jsonb_populate_record(%3$s, f.before || jsonb_build_object('user_id', $1, 'id', f.row_id)) r
      where f.refused is null
    ), noted as (
      insert into public.hygiene_changes (user_id, batch, table_name, row_id, before, settles)
      select $1, $3, 'user_memories', f.row_id, '{}', f.seq from found f where f.refused is null
    )
    select 'user_memories', f.row_id, f.refused from found f
  $sql$, public.ledger_columns('public.user_memories'), public.ledger_columns('public.user_memories', 'r'),
    public.ledger_defaults('public.user_memories')) using p_user, p_batch, p_undo, p_rows;

  execute format($sql$
    with image as materialized (
      select c.row_id, c.seq, c.before from public.ledger_left($1, $2) c
      join public.user_memories m on m.user_id = $1 and m.id = c.row_id
      where c.table_name = 'memory_usage' and c.after is null and c.row_id in (select unnest($4))
        and c.row_id not in (select l.row_id from public.ledger_left($1, $2) l where l.table_name = 'user_memories' and l.after is null)
    ), written as (
      insert into public.memory_usage (%1$s)
      select %2$s from image i
      cross join lateral jsonb_populate_record(%3$s, i.before || jsonb_build_object('user_id', $1, 'memory_id', i.row_id)) r
      on conflict do nothing
    )
    insert into public.hygiene_changes (user_id, batch, table_name, row_id, before, settles)
    select $1, $3, 'memory_usage', i.row_id, '{}', i.seq from image i
  $sql$, public.ledger_columns('public.memory_usage'), public.ledger_columns('public.memory_usage', 'r'),
    public.ledger_defaults('public.memory_usage')) using p_user, p_batch, p_undo, p_rows;

  if to_regclass('public.memory_embeddings') is not null then
    return query execute format($sql$
      with image as materialized (
        select c.row_id, c.seq, c.before, e.model is null as homeless from public.ledger_left($1, $2) c
        join public.user_memories m on m.user_id = $1 and m.id = c.row_id
        left join public.embedding_models e on e.model = c.before ->> 'model' and e.dimensions::text = c.before ->> 'dimensions'
        where c.table_name = 'memory_embeddings' and c.row_id in (select unnest($4))
          and c.row_id not in (select l.row_id from public.ledger_left($1, $2) l where l.table_name = 'user_memories' and l.after is null)
      ), written as (
        insert into public.memory_embeddings (%1$s)
        select %2$s from image i
        cross join lateral jsonb_populate_record(%3$s, i.before || jsonb_build_object('user_id', $1, 'memory_id', i.row_id)) r
        where not i.homeless
        on conflict do nothing
      ), noted as (
        insert into public.hygiene_changes (user_id, batch, table_name, row_id, before, settles)
        select $1, $3, 'memory_embeddings', i.row_id, '{}', i.seq from image i where not i.homeless
      )
      select 'memory_embeddings', i.row_id, 'its model is gone' from image i where i.homeless
    $sql$, public.ledger_columns('public.memory_embeddings'), public.ledger_columns('public.memory_embeddings', 'r'),
      public.ledger_defaults('public.memory_embeddings')) using p_user, p_batch, p_undo, p_rows;
  end if;

  return query execute format($sql$
    with image as materialized (
      select distinct on (c.row_id) c.row_id, c.seq, c.before, c.content from public.ledger_left($1, $2) c
      where c.table_name = 'memory_blobs' and c.row_id in (select unnest($4)) order by c.row_id, c.seq
    ), written as (
      insert into public.memory_blobs (%1$s)
      select %2$s from image i
      cross join lateral jsonb_populate_record(%3$s, i.before || jsonb_build_object('user_id', $1, 'id', i.row_id, 'content', i.content)) r
      on conflict do nothing
      returning id
    ), noted as (
      insert into public.hygiene_changes (user_id, batch, table_name, row_id, before, settles)
      select $1, $3, 'memory_blobs', i.row_id, '{}', i.seq from image i join written w on w.id = i.row_id
    )
    select 'memory_blobs', i.row_id, case when w.id is null then 'its key is in use' end
    from image i left join written w on w.id = i.row_id
  $sql$, public.ledger_columns('public.memory_blobs'), public.ledger_columns('public.memory_blobs', 'r'),
    public.ledger_defaults('public.memory_blobs')) using p_user, p_batch, p_undo, p_rows;

  -- what was marked: as it was before the batch's first change, where it still is as the batch's last one left it
  return query execute format($sql$
    with image as materialized (
      select i.row_id, i.seqs, i.before, i.after from public.ledger_images($1, $2, 'user_memories', $4) i where i.marked
    ), judged as materialized (
      select i.row_id, i.seqs, i.before, case
          when m.id is null then 'it was deleted since'
          -- columns that are younger than the image do not count
          when %s <> i.after then 'it was changed since'
          when i.before ->> 'duplicate_of' is not null and s.id is null then 'its original is gone'
        end as refused
      from image i
      left join public.user_memories m on m.user_id = $1 and m.id = i.row_id
      left join public.user_memories s on s.user_id = $1 and s.id = (i.before ->> 'duplicate_of')::uuid
    ), written as (
      update public.user_memories m
      set is_active = r.is_active, duplicate_of = r.duplicate_of, tags = r.tags, updated_at = r.updated_at
      from judged j cross join lateral jsonb_populate_record(null::public.user_memories, j.before) r
      where m.user_id = $1 and m.id = j.row_id and j.refused is null
    ), noted as (
      insert into public.hygiene_changes (user_id, batch, table_name, row_id, before, settles)
      select $1, $3, 'user_memories', j.row_id, '{}', q.seq from judged j cross join lateral unnest(j.seqs) q(seq) where j.refused is null
    )
    select 'user_memories', j.row_id, j.refused from judged j
  $sql$, public.ledger_digest('public.user_memories', 'm', 'i.before')) using p_user, p_batch, p_undo, p_rows;
end
$$;
comment on function public.undo_hygiene_rows(uuid, uuid, uuid, uuid[]) is
  'A step of undo_hygiene_batch: some rows of a batch that were deleted or marked';

create function public.undo_hygiene_merges(p_user uuid, p_batch uuid, p_undo uuid, p_rows uuid[])
  returns table (table_name text, id uuid, refused text)
  language plpgsql set search_path = '' set timezone = 'UTC' set extra_float_digits = 1 set bytea_output = 'hex' set work_mem = '64MB' as $$
#variable_conflict use_column
begin
  -- tags, but for those of duplicates that stay
  return query execute format($sql$
    with image as materialized (
      select i.row_id, i.seqs, i.before, i.after from public.ledger_images($1, $2, 'user_memories', $4) i where not i.marked
    ), partly as materialized ( -- as an undo before this one left it
      select n.row_id, (array_agg(n.after order by n.seq desc))[1] as after
      from public.hygiene_changes n
      where n.user_id = $1 and n.table_name = 'user_memories' and n.after is not null
        and n.batch = any (array(select b.id from public.hygiene_batches b where b.user_id = $1 and b.undoes = $2))
      group by n.row_id
    ), stay as materialized (
      select c.original, array_agg(t.tag #>> '{}') as tags
      from public.ledger_left($1, $2) c
      cross join lateral jsonb_path_query(c.before, '$.tags.** ? (@.type() == "string")') t(tag)
      where c.original is not null and c.before -> 'is_active' = 'true'
      group by c.original
    ), judged as materialized (
      select i.row_id, i.seqs, i.before, k.more,
        case
          when m.id is null then 'it was deleted since'
          when %1$s <> coalesce(p.after, i.after) then 'it was changed since'
          when cardinality(k.more) > 0 then 'it keeps the tags of duplicates that stay'
        end as refused
      from image i
      left join public.user_memories m on m.user_id = $1 and m.id = i.row_id
      left join partly p on p.row_id = i.row_id
      left join stay s on s.original = i.row_id
      cross join lateral jsonb_populate_record(null::public.user_memories, i.before) r
      cross join lateral (
        select array(select t.tag from unnest(m.tags) with ordinality t(tag, n)
                     where t.tag = any (s.tags) and not coalesce(t.tag = any (r.tags), false) order by t.n) as more
      ) k
    ), written as (
      update public.user_memories m
      set tags = case when j.refused is null then r.tags else array(select t.tag from unnest(r.tags) t(tag)) || j.more end,
          updated_at = case when j.refused is null then r.updated_at else clock_timestamp() end
      from judged j cross join lateral jsonb_populate_record(null::public.user_memories, j.before) r
      where m.user_id = $1 and m.id = j.row_id and (j.refused is null or j.refused like 'it keeps %%')
      returning m.id, %2$s as after
    ), noted as (
      insert into public.hygiene_changes (user_id, batch, table_name, row_id, before, after, settles)
      select $1, $3, 'user_memories', j.row_id, '{}', case when j.refused is not null then w.after end, q.seq
      from judged j join written w on w.id = j.row_id
      cross join lateral unnest(case when j.refused is null then j.seqs else array[null::bigint] end) q(seq)
    )
    select 'user_memories', j.row_id, j.refused from judged j
  $sql$, public.ledger_digest('public.user_memories', 'm', 'i.before'), public.ledger_digest('public.user_memories', 'm', 'j.before'))
  using p_user, p_batch, p_undo, p_rows;

  -- counts go on: what was merged is taken out again, of those that this undo brought back
  execute format($sql$
    with merged as materialized (
      select c.original, sum(c.merged) filter (where n.settles is not null) as back, count(l.seq) as stay
      from public.hygiene_changes c
      left join public.hygiene_changes n on n.user_id = $1 and n.batch = $3 and n.settles = c.seq
      left join public.ledger_left($1, $2) l on l.seq = c.seq
      where c.user_id = $1 and c.batch = $2 and c.merged is not null and c.original in (select unnest($4))
      group by c.original
    ), partly as materialized (
      select n.row_id, (array_agg(n.after order by n.seq desc))[1] as after
      from public.hygiene_changes n
      where n.user_id = $1 and n.table_name = 'memory_usage' and n.after is not null
        and n.batch = any (array(select b.id from public.hygiene_batches b where b.user_id = $1 and b.undoes = $2))
      group by n.row_id
    ), image as materialized (
      select i.row_id, i.seqs, i.before, i.after from public.ledger_images($1, $2, 'memory_usage', $4) i
    ), judged as materialized (
      select i.row_id, i.seqs, m.back, m.stay, i.before,
             not i.before ? 'access_count' as made, coalesce(p.after, i.after) as after, (i.before ->> 'last_accessed_at')::timestamptz as last_accessed_at
      from image i join merged m on m.original = i.row_id left join partly p on p.row_id = i.row_id
      where m.back > 0
    ), gone as (
      delete from public.memory_usage u using judged j
      where u.user_id = $1 and u.memory_id = j.row_id and j.made and j.stay = 0 and u.access_count <= j.back
    ), written as (
      update public.memory_usage u
      set access_count = greatest(u.access_count - j.back, 0),
          last_accessed_at = case when not j.made and j.stay = 0 and %1$s = j.after
                                  then j.last_accessed_at else u.last_accessed_at end
      from judged j
      where u.user_id = $1 and u.memory_id = j.row_id and not (j.made and j.stay = 0 and u.access_count <= j.back)
      returning u.memory_id, %1$s as after
    )
    insert into public.hygiene_changes (user_id, batch, table_name, row_id, before, after, settles)
    select $1, $3, 'memory_usage', j.row_id, '{}', case when j.stay > 0 then w.after end, q.seq
    from judged j left join written w on w.memory_id = j.row_id
    cross join lateral unnest(case when j.stay = 0 then j.seqs else array[null::bigint] end) q(seq)
  $sql$, public.ledger_digest('public.memory_usage', 'u', 'j.before')) using p_user, p_batch, p_undo, p_rows;
end
$$;
comment on function public.undo_hygiene_merges(uuid, uuid, uuid, uuid[]) is
  'A step of undo_hygiene_batch: the tags and counts that some memories got from those that came back';

create function public.undo_hygiene_batch(p_user uuid, p_batch uuid)
  returns table (table_name text, id uuid, refused text)
  language plpgsql set search_path = '' set enable_nestloop = on as $$ -- as in mark_memory_duplicates
#variable_conflict use_column
declare
  undo constant uuid := gen_random_uuid();
  other uuid;
  rows uuid[];
  step text;
  first integer;
  size integer;
begin
  perform pg_advisory_xact_lock(hashtextextended(p_user::text || p_batch::text, 0)); -- users may not lock rows of the ledger
  select b.undoes into other from public.hygiene_batches b where b.user_id = p_user and b.id = p_batch;
  if not found then
    raise exception 'user % has no batch %', p_user, p_batch
      using errcode = 'no_data_found', hint = 'hygiene_batches lists them; nothing was changed';
  elsif other is not null then
    raise exception 'batch % is itself the undo of %', p_batch, other
      using errcode = 'invalid_parameter_value', hint = 'what an undo restored can be marked or cleaned up again; nothing was changed';
  end if;
  -- originals before what refers to them
  rows := array(select c.row_id from public.ledger_left(p_user, p_batch) c
                group by c.row_id order by bool_or(c.before ->> 'duplicate_of' is not null), c.row_id);
  if cardinality(rows) = 0 and exists (select from public.hygiene_batches b where b.user_id = p_user and b.undoes = p_batch) then
    raise exception 'batch % of user % has been undone already', p_batch, p_user
      using errcode = 'object_not_in_prerequisite_state', hint = 'nothing was changed';
  end if;
  perform set_config('enable_nestloop', (cardinality(rows) <= 100)::text, true);
  insert into public.hygiene_batches (user_id, id, command, undoes) values (p_user, undo, 'undo', p_batch);
  execute $sql$
    select from public.user_memories m
    where m.user_id = $1 and m.id in (select unnest($2)) order by m.id for no key update
  $sql$ using p_user, rows;

  -- all rows at once; where a record is bad (users may write records of their own), half as many, until it stands alone
  foreach step in array array['undo_hygiene_rows', 'undo_hygiene_merges'] loop
    first := 1;
    size := cardinality(rows);
    while first <= cardinality(rows) loop
      begin
        return query execute format('select * from public.%I($1, $2, $3, $4)', step) using p_user, p_batch, undo, rows[first:first + size - 1];
        first := first + size;
        size := least(size * 2, cardinality(rows));
      exception when data_exception or integrity_constraint_violation or program_limit_exceeded or datatype_mismatch then
        if size > 1 then
          size := size / 2;
        else
          return query
          select max(c.table_name), c.row_id, case when sqlstate like '23%' then 'a constraint is against it' else 'its record cannot be read' end
          from public.ledger_left(p_user, p_batch) c where c.row_id = rows[first] group by c.row_id;
          first := first + 1;
        end if;
      end;
    end loop;
  end loop;
end
$$;
comment on function public.undo_hygiene_batch(uuid, uuid) is
  'Takes a batch back, row by row: refused is NULL where a row is as it was before, else why it was left as it is';

create function public.undo_hygiene_batch(p_batch uuid) returns table (table_name text, id uuid, refused text)
  language sql set search_path = '' as $$ select * from public.undo_hygiene_batch(public.acting_user(), p_batch) $$;
comment on function public.undo_hygiene_batch(uuid) is 'The same for the user who is signed in';

revoke all on function public.cleanup_old_memories(uuid, integer, uuid, integer), public.cleanup_old_memories(integer),
  public.cleanup_expired_blobs(uuid, uuid, integer), public.ledger_defaults(regclass), public.ledger_digest(regclass, text, text), public.ledger_left(uuid, uuid), public.ledger_images(uuid, uuid, text, uuid[]),
  public.undo_hygiene_rows(uuid, uuid, uuid, uuid[]), public.undo_hygiene_merges(uuid, uuid, uuid, uuid[]), public.undo_hygiene_batch(uuid, uuid),
  public.undo_hygiene_batch(uuid) from public, anon, authenticated;
grant execute on function public.cleanup_old_memories(uuid, integer, uuid, integer), public.cleanup_old_memories(integer),
  public.cleanup_expired_blobs(uuid, uuid, integer), public.ledger_defaults(regclass), public.ledger_digest(regclass, text, text), public.ledger_left(uuid, uuid), public.ledger_images(uuid, uuid, text, uuid[]),
  public.undo_hygiene_rows(uuid, uuid, uuid, uuid[]), public.undo_hygiene_merges(uuid, uuid, uuid, uuid[]), public.undo_hygiene_batch(uuid, uuid),
  public.undo_hygiene_batch(uuid) to authenticated, service_role;

-- migrate:down
drop function public.undo_hygiene_batch(uuid);
drop function public.undo_hygiene_batch(uuid, uuid);
drop function public.undo_hygiene_merges(uuid, uuid, uuid, uuid[]);
drop function public.undo_hygiene_rows(uuid, uuid, uuid, uuid[]);
drop function public.ledger_images(uuid, uuid, text, uuid[]);
drop function public.ledger_left(uuid, uuid);
drop function public.ledger_digest(regclass, text, text);
drop function public.ledger_defaults(regclass);
drop function public.cleanup_expired_blobs(uuid, uuid, integer);
drop function public.cleanup_old_memories(integer);
drop function public.cleanup_old_memories(uuid, integer, uuid, integer);
