-- severity: error
-- summary: Memories that are each other's duplicate, so that none is active
-- why: A fact is lost to every search although it is stored. It comes from writes past `mark_memory_duplicate`.
-- requires: relation public.user_memories
with recursive link as (
  select m.user_id, m.id, m.duplicate_of
  from public.user_memories m join public.user_memories s on s.user_id = m.user_id and s.id = m.duplicate_of
  where s.duplicate_of is not null
), walk as (
  select l.user_id, l.id as start, l.duplicate_of as at from link l
  union
  select w.user_id, w.start, l.duplicate_of from walk w join link l on l.user_id = w.user_id and l.id = w.at where w.at <> w.start
), cycle as (
  -- each member starts a walk that comes back to it; the first of them stands for all
  select w.user_id, w.start, (select pg_catalog.min(o.at::text) from walk o where o.user_id = w.user_id and o.start = w.start) as first
  from walk w where w.at = w.start
)
select pg_catalog.format('memory %s of user %s', first, user_id) as object,
  pg_catalog.format('%s memories are each other''s duplicate: none is active', pg_catalog.count(*)) as message,
  pg_catalog.format('UPDATE public.user_memories SET duplicate_of = NULL, is_active = true WHERE user_id = %L AND id = %L;', user_id, first) as fix
from cycle group by user_id, first
