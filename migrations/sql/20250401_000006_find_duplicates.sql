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

create function public.find_duplicate_sets(p_user uuid, p_threshold double precision default 0.85)
  returns table (a uuid, b uuid, similarity double precision)
  language plpgsql stable parallel safe rows 1000
  -- what the planner thinks of intermediate results is far too little: a nested loop over them would take for ever
  set search_path = '' set work_mem = '64MB' set jit = off set enable_nestloop = off as $$
#variable_conflict use_column
declare
  t constant double precision := public.duplicate_threshold(p_threshold);
  rare constant integer := case when t > 0.5 then 2 else 1 end;
begin
  return query
  with sets as materialized (
    select row_number() over () as s, g.members[1] as memory_id, g.members, g.tokens, g.words
    from (
      select array_agg(k.memory_id order by k.memory_id) as members, k.tokens, length(k.tokens) as words
      from public.memory_tokens k where k.user_id = p_user and k.words > 0
      group by k.tokens
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

-- Apart, for its plan is kept: pg_stats is a view of four tables, and planning it took half of a lookup.
create function public.rarest_words(p_words text[], p_number integer) returns tsquery
  language plpgsql stable parallel safe set search_path = '' set plan_cache_mode = force_generic_plan as $$
begin
  return (
    select string_agg(quote_literal(r.word), '|')::tsquery
    from (
      select w.word
      from unnest(p_words) w(word)
      left join (
        select c.word, c.frequency
        from pg_catalog.pg_stats s, unnest(s.most_common_elems::text::text[], s.most_common_elem_freqs) c(word, frequency)
        where s.schemaname = 'public' and s.tablename = 'memory_tokens' and s.attname = 'tokens'
      ) c on c.word = w.word
      order by c.frequency nulls first, length(w.word) desc
      limit p_number
    ) r);
end
$$;
comment on function public.rarest_words(text[], integer) is 'A query for any of so many words, the rarest by the planner''s statistics';

create function public.find_duplicate_memories(p_user uuid, p_text text, p_threshold double precision default 0.85)
  returns table (id uuid, similarity double precision, kind text)
  language plpgsql stable parallel safe rows 10 set search_path = '' set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
declare
  t constant double precision := public.duplicate_threshold(p_threshold);
  wanted constant tsvector := array_to_tsvector(public.word_set(p_text));
  n constant integer := length(wanted);
  probe tsquery;
begin
  if p_text is not null and wanted is null then
    raise exception 'a text of % bytes is not compared: it has more than 50000', octet_length(p_text)
      using errcode = 'program_limit_exceeded', hint = 'texts so large have no word set; nothing was looked for';
  end if;
  -- The rarest words that can't all be missing. However stale the statistics are, nothing is lost: any n - ceil(t n) + 1 words would do.
  probe := public.rarest_words(tsvector_to_array(wanted), n - ceil(t * n - 1e-9)::integer + 1);
  return query
  select k.memory_id, (k.words + n - u.words)::float8 / u.words, 'text'
  from public.memory_tokens k
  cross join lateral (select length(k.tokens || wanted) as words offset 0) u
  where k.user_id = p_user and k.tokens @@ probe
    -- no text has so many words that the 1e-9 is felt, nor 50000
    and k.words between ceil(t * n - 1e-9)::integer and least(floor(n / greatest(t, 1e-9) + 1e-9), 50000)::integer
    and (k.words + n - u.words)::float8 / u.words >= t
  order by 2 desc, 1;
end
$$;
comment on function public.find_duplicate_memories(uuid, text, double precision) is
  'The active memories of a user that say nearly the same as a text, the most similar first';

revoke all on function public.duplicate_threshold(double precision), public.find_duplicate_sets(uuid, double precision),
  public.find_duplicate_pairs(uuid, double precision), public.rarest_words(text[], integer),
  public.find_duplicate_memories(uuid, text, double precision) from public, anon, authenticated;
grant execute on function public.duplicate_threshold(double precision), public.find_duplicate_sets(uuid, double precision),
  public.find_duplicate_pairs(uuid, double precision), public.rarest_words(text[], integer),
  public.find_duplicate_memories(uuid, text, double precision) to authenticated, service_role;

-- migrate:down
drop function public.find_duplicate_memories(uuid, text, double precision);
drop function public.rarest_words(text[], integer);
drop function public.find_duplicate_pairs(uuid, double precision);
drop function public.find_duplicate_sets(uuid, double precision);
drop function public.duplicate_threshold(double precision);
