-- severity: warning
-- summary: Sets of words that are not those of an active memory
-- why: A duplicate may be taken for what it no longer says, a lookup may find what is not there. Triggers keep the sets: they were off during a
--   deletion or while older texts were restored. Whether a set is that of its memory's text is looked at in a sample of large tables.
-- limit: rows 100000 compared with their texts
-- requires: relation public.memory_tokens
-- requires: relation public.user_memories
with
-- include: mine
select m.name as object, true as readable, least(100, 100 * {rows} / greatest(m.reltuples, 1)) as percent
from mine m where m.nspname = 'public' and m.relname = 'memory_tokens'

-- each
select {object}::text as object,
  pg_catalog.format('sets of words without an active memory: %s, of another text than their memory''s: %s%s', lost, other,
    case when {percent} < 100 then ' in a sample' end) as message,
  'DELETE FROM public.memory_tokens t WHERE NOT EXISTS (SELECT FROM public.user_memories m, public.token_set(m.fact) k WHERE m.user_id = t.user_id AND m.id = t.memory_id AND m.is_active AND k.tokens IS NOT DISTINCT FROM t.tokens); SELECT public.fill_memory_tokens(); -- again until it returns 0' as fix,
  'warning' as severity
from (select pg_catalog.count(*) as lost from public.memory_tokens t
      where not exists (select from public.user_memories m where m.user_id = t.user_id and m.id = t.memory_id and m.is_active)) as gone
cross join (select pg_catalog.count(*) as other from public.memory_tokens t tablesample system ({percent})
      join public.user_memories m on m.user_id = t.user_id and m.id = t.memory_id and m.is_active
      cross join lateral public.token_set(m.fact) k where k.tokens is distinct from t.tokens) as wrong
where lost > 0 or other > 0
