-- severity: warning
-- summary: Sets of words without an active memory
-- why: A lookup may find a memory that is not there, and a duplicate may be taken for its copy. Triggers keep the sets: they were off during
--   a deletion, or fill_memory_tokens ran beside one in a transaction that repeats its reads.
-- requires: relation public.memory_tokens
-- requires: relation public.user_memories
select 'public.memory_tokens' as object, pg_catalog.format('%s sets of words have no active memory', pg_catalog.count(*)) as message,
  'DELETE FROM public.memory_tokens t WHERE NOT EXISTS (SELECT FROM public.user_memories m WHERE m.user_id = t.user_id AND m.id = t.memory_id AND m.is_active);' as fix
from public.memory_tokens t
where not exists (select from public.user_memories m where m.user_id = t.user_id and m.id = t.memory_id and m.is_active)
having pg_catalog.count(*) > 0
