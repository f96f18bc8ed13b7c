-- Duplicates by meaning, beside those by words. Exact: all of the user's vectors of one model are compared.

-- migrate:requires extension vector
-- migrate:up
do $$
begin
  -- wherever the type lives, this transaction finds it; all other names are qualified
  perform set_config('search_path', quote_ident(n.nspname), true)
  from pg_catalog.pg_extension x join pg_catalog.pg_namespace n on n.oid = x.extnamespace
  where x.extname = 'vector';
end
$$;

create function public.find_duplicate_memories(
  p_user uuid, p_text text, p_embedding vector, p_model text,
  p_threshold double precision default 0.85, p_similarity double precision default 0.95
) returns table (id uuid, similarity double precision, kind text)
  language sql stable parallel safe rows 10 set search_path = '' as $$
  select f.id, f.similarity, f.kind from public.find_duplicate_memories(p_user, p_text, p_threshold) f
  union all
  (
    select d.memory_id, 1 - d.distance, 'semantic'
    from (
      select e.memory_id, public.embedding_distance(e.embedding, p_embedding) as distance
      from public.memory_embeddings e where e.user_id = p_user and e.model = p_model
    ) d
    join public.user_memories m on m.user_id = p_user and m.id = d.memory_id
    where m.is_active and 1 - d.distance >= public.duplicate_threshold(p_similarity) and d.distance <> 'NaN'
    order by d.distance, d.memory_id
  )
$$;
comment on function public.find_duplicate_memories(uuid, text, vector, text, double precision, double precision) is
  'The active memories of a user that say nearly the same as a text (kind text) or mean nearly the same as its embedding (kind semantic)';

revoke all on function public.find_duplicate_memories(uuid, text, vector, text, double precision, double precision) from public, anon, authenticated;
grant execute on function public.find_duplicate_memories(uuid, text, vector, text, double precision, double precision) to authenticated, service_role;

-- migrate:down
do $$
declare
  made regprocedure;
begin
  -- the only one with six arguments; its type lies where the extension does
  select p.oid into made from pg_catalog.pg_proc p
  where p.pronamespace = 'public'::regnamespace and p.proname = 'find_duplicate_memories' and p.pronargs = 6;
  execute format('drop function %s', made);
end
$$;
