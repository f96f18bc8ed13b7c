-- severity: warning
-- summary: Active memories without their set of words
-- why: No duplicate of theirs is found. Triggers keep the sets: they were off during a load, or a restore brought the memories alone.
-- requires: relation public.memory_tokens
-- requires: relation public.user_memories
select 'public.memory_tokens' as object, pg_catalog.format('%s active memories have no set of words', pg_catalog.count(*)) as message,
  'SELECT public.fill_memory_tokens(); -- again until it returns 0' as fix
from public.user_memories m
where m.is_active and not exists (select from public.memory_tokens t where t.user_id = m.user_id and t.memory_id = m.id)
having pg_catalog.count(*) > 0
