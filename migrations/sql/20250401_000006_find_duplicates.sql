-- Duplicates by words, exactly: Jaccard similarity = words in both / words in either. docs/duplicates.md has the proof.
-- A threshold is compared with the quotient as float8, both correctly rounded: 17 of 20 words are 0.85.

-- migrate:up

create function public.duplicate_threshold(p_threshold double precision) returns double precision
  language plpgsql immutable parallel safe set search_path = '' as $$
begin
  if p_threshold > 0 and p_threshold <= 1 then -- NaN is greater than 1
    return p_threshold;
  end if;
  raise exception 'a threshold of %: it must be greater than 0 and at most 1', coalesce(p_threshold::text, 'NULL')
    using errcode = 'invalid_parameter_value', hint = 'at 0 all memories are duplicates of each other; nothing was looked for';
end
$$;
comment on function public.duplicate_threshold(double precision) is 'The threshold itself, or an error that says what is wrong with it';

-- What a set lacks of another's words it lacks of its sketch's bits, at most: fewer than these in common can't be similar.
create function public.common_words(p_words integer, p_others integer, p_threshold double precision) returns integer
  language sql immutable parallel safe
  return ceil(p_threshold * (p_words + p_others) / (1 + p_threshold) - 1e-9)::integer;
comment on function public.common_words(integer, integer, double precision) is
  'How many words two sets of so many words have in common at least, where they are so similar';

-- Of a user with few memories: all of a fitting size are compared by their sketches.
create function public.find_few_duplicate_sets(p_user uuid, p_threshold double precision)
  returns table (a uuid, b uuid, similarity double precision)
  language plpgsql stable parallel safe rows 1000
  set search_path = '' set jit = off set enable_nestloop = off set enable_mergejoin = off as $$
#variable_conflict use_column
begin
  return query
  with sets as materialized (
    select row_number() over () as s, array_agg(k.memory_id order by k.memory_id) as members, k.tokens, k.words, k.sketch
    from public.memory_tokens k where k.user_id = p_user and k.words > 0
    group by k.words, k.sketch, k.tokens
  ), size as materialized (
    select distinct s.words from sets s where p_threshold < 1
  ), fitting as materialized (
    select s.s, s.members[1] as memory_id, s.tokens, s.words, s.sketch, z.fits, s.words - z.common as lacks, z.fits - z.common as more
    from (
      select n.words, m.words as fits, public.common_words(n.words, m.words, p_threshold) as common
      from size n join size m on m.words between n.words and n.words / greatest(p_threshold, 1e-9) + 1e-9
    ) z
    join sets s on s.words = z.words
  ), candidate as (
    select x.memory_id as one, y.members[1] as other, x.words + y.words as words, length(x.tokens || y.tokens) as either
    from fitting x join sets y on y.words = x.fits
    where (x.words < y.words or x.s < y.s)
      and bit_count((x.sketch & ~y.sketch)::bit(64)) <= x.lacks and bit_count((y.sketch & ~x.sketch)::bit(64)) <= x.more
    offset 0
  )
  select least(c.one, c.other), greatest(c.one, c.other), (c.words - c.either)::float8 / c.either
  from candidate c
  where (c.words - c.either)::float8 / c.either >= p_threshold
  union all
  select s.members[1], m.memory_id, 1.0::float8
  from sets s cross join lateral unnest(s.members[2:]) m(memory_id)
  where cardinality(s.members) > 1;
end
$$;
comment on function public.find_few_duplicate_sets(uuid, double precision) is 'find_duplicate_sets, of a user with few memories';

-- Of a user with many: by pairs of rare words.
create function public.find_many_duplicate_sets(p_user uuid, p_threshold double precision)
  returns table (a uuid, b uuid, similarity double precision)
  language plpgsql stable parallel safe rows 1000
  -- what the planner thinks of intermediate results is far too little: a nested loop over them would take for ever
  set search_path = '' set work_mem = '64MB' set jit = off set enable_nestloop = off as $$
#variable_conflict use_column
declare
  t constant double precision := p_threshold;
  rare constant integer := case when t > 0.5 then 2 else 1 end;
begin
  return query
  with sets as materialized (
    select row_number() over () as s, g.members[1] as memory_id, g.members, g.tokens, g.words
    from (
      select array_agg(k.memory_id order by k.memory_id) as members, k.tokens, k.words
      from public.memory_tokens k where k.user_id = p_user and k.words > 0
      group by k.words, k.sketch, k.tokens
    ) g
  ), word as materialized ( -- by hashes: two words with one hash only add candidates
    select w.s, w.words, hashtextextended(w.word, 0) as word
    from (select s.s, s.words, unnest(tsvector_to_array(s.tokens)) collate "C" as word from sets s where s.words >= rare and t < 1) w
  ), prefix as materialized (
    select p.s, p.words, p.word, p.place
    from (
      select w.s, w.words, w.word, row_number() over (partition by w.s order by f.sets, w.word) as place
      from word w join (select w.word, count(*) as sets from word w group by w.word) f on f.word = w.word
    ) p
    where p.place <= p.words - ceil(t * p.words - 1e-9)::integer + rare
  ), key as materialized (
    select p.s, p.words, p.word as key from prefix p where rare = 1
    union all
    select p.s, p.words, hashint8extended(q.word, p.word)
    from prefix p join prefix q on q.s = p.s and q.place > p.place
    where rare = 2
  ), candidate as (
    select distinct x.s as one, y.s as other
    from key x
    join key y on y.key = x.key
    where (y.words, y.s) > (x.words, x.s) and x.words >= t * y.words - 1e-9
  )
  select least(x.memory_id, y.memory_id), greatest(x.memory_id, y.memory_id), (x.words + y.words - u.words)::float8 / u.words
  from candidate c
  join sets x on x.s = c.one
  join sets y on y.s = c.other
  cross join lateral (select length(x.tokens || y.tokens) as words offset 0) u
  where (x.words + y.words - u.words)::float8 / u.words >= t
  union all
  select s.memory_id, m.memory_id, 1.0::float8
  from sets s cross join lateral unnest(s.members[2:]) m(memory_id)
  where cardinality(s.members) > 1;
end
$$;
comment on function public.find_many_duplicate_sets(uuid, double precision) is 'find_duplicate_sets, of a user with many memories';

create function public.find_duplicate_sets(p_user uuid, p_threshold double precision default 0.85)
  returns table (a uuid, b uuid, similarity double precision)
  language plpgsql stable parallel safe rows 1000 set search_path = '' as $$
declare
  t constant double precision := public.duplicate_threshold(p_threshold);
begin
  -- where both take as long
  if (select count(*) from (select from public.memory_tokens k where k.user_id = p_user and k.words > 0 limit 700) k) < 700 then
    return query select * from public.find_few_duplicate_sets(p_user, t);
  else
    return query select * from public.find_many_duplicate_sets(p_user, t);
  end if;
end
$$;
comment on function public.find_duplicate_sets(uuid, double precision) is
  'Similar memories of a user: with similarity 1 a memory (b) and the first one with the same words (a), below 1 a pair of such first ones';

create function public.find_duplicate_pairs(p_user uuid, p_threshold double precision default 0.85)
  returns table (a uuid, b uuid, similarity double precision)
  language sql stable parallel safe rows 1000 set search_path = '' as $$
  with found as materialized (
    select f.a, f.b, f.similarity from public.find_duplicate_sets(p_user, p_threshold) f
  ), member as materialized (
    select f.a as first, f.b as id from found f where f.similarity = 1
    union
    select f.a, f.a from found f
    union
    select f.b, f.b from found f where f.similarity < 1
  )
  select least(x.id, y.id), greatest(x.id, y.id), f.similarity
  from found f join member x on x.first = f.a join member y on y.first = f.b
  where f.similarity < 1
  union all
  select x.id, y.id, 1.0::float8
  from member x join member y on y.first = x.first and x.id < y.id
$$;
comment on function public.find_duplicate_pairs(uuid, double precision) is
  'Every pair of a user''s active memories that is at least so similar, each once, a < b';

create function public.find_duplicate_memories(p_user uuid, p_text text, p_threshold double precision default 0.85)
  returns table (id uuid, similarity double precision, kind text)
  language plpgsql stable parallel safe rows 10 set search_path = '' set plan_cache_mode = force_custom_plan
  -- by the index on sizes and sketches alone, but for the few rows whose sketch fits
  set enable_bitmapscan = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
#variable_conflict use_column
declare
  t constant double precision := public.duplicate_threshold(p_threshold);
  wanted tsvector;
  n integer;
  seen bigint;
begin
  select k.tokens, k.words, k.sketch into wanted, n, seen from public.token_set(p_text) k;
  if p_text is not null and wanted is null then
    raise exception 'a text of % bytes is not compared: it has more than 50000', octet_length(p_text)
      using errcode = 'program_limit_exceeded', hint = 'texts so large have no word set; nothing was looked for';
  end if;
  return query
  with size as materialized (
    select m.words, public.common_words(n, m.words, t) as common
    from generate_series(ceil(t * n - 1e-9)::integer, least(floor(n / greatest(t, 1e-9) + 1e-9), 50000)::integer) m(words)
  ), fitting as materialized (
    select distinct k.words, k.sketch
    from size z join public.memory_tokens k on k.user_id = p_user and k.words = z.words
    where bit_count((seen & ~k.sketch)::bit(64)) <= n - z.common and bit_count((k.sketch & ~seen)::bit(64)) <= z.words - z.common
  )
  select k.memory_id, (k.words + n - u.words)::float8 / u.words, 'text'
  from fitting f
  join public.memory_tokens k on k.user_id = p_user and k.words = f.words and k.sketch = f.sketch
  cross join lateral (select length(k.tokens || wanted) as words offset 0) u
  where (k.words + n - u.words)::float8 / u.words >= t
  order by 2 desc, 1;
end
$$;
comment on function public.find_duplicate_memories(uuid, text, double precision) is
  'The active memories of a user that say nearly the same as a text, the most similar first';

revoke all on function public.duplicate_threshold(double precision), public.common_words(integer, integer, double precision),
  public.find_few_duplicate_sets(uuid, double precision), public.find_many_duplicate_sets(uuid, double precision),
  public.find_duplicate_sets(uuid, double precision), public.find_duplicate_pairs(uuid, double precision),
  public.find_duplicate_memories(uuid, text, double precision) from public, anon, authenticated;
grant execute on function public.duplicate_threshold(double precision), public.common_words(integer, integer, double precision),
  public.find_few_duplicate_sets(uuid, double precision), public.find_many_duplicate_sets(uuid, double precision),
  public.find_duplicate_sets(uuid, double precision), public.find_duplicate_pairs(uuid, double precision),
  public.find_duplicate_memories(uuid, text, double precision) to authenticated, service_role;

-- migrate:down
drop function public.find_duplicate_memories(uuid, text, double precision);
drop function public.find_duplicate_pairs(uuid, double precision);
drop function public.find_duplicate_sets(uuid, double precision);
drop function public.find_many_duplicate_sets(uuid, double precision);
drop function public.find_few_duplicate_sets(uuid, double precision);
drop function public.common_words(integer, integer, double precision);
drop function public.duplicate_threshold(double precision);
