-- severity: warning
-- summary: A memory that is the duplicate of a duplicate
-- why: Its survivor is inactive itself: when the last one of the chain is deleted, the wrong memory becomes active. It comes from writes past
--   `mark_memory_duplicate`, which points losers to the last survivor.
-- requires: relation public.user_memories
with recursive link as (
  select m.user_id, m.id, m.duplicate_of
  from public.user_memories m join public.user_memories s on s.user_id = m.user_id and s.id = m.duplicate_of
  where s.duplicate_of is not null
), walk as (
  select l.user_id, l.id, l.duplicate_of as at from link l
  union
  select w.user_id, w.id, m.duplicate_of from walk w join public.user_memories m on m.user_id = w.user_id and m.id = w.at
  where m.duplicate_of is not null
)
select pg_catalog.format('memory %s of user %s', w.id, w.user_id) as object,
  pg_catalog.format('it leads to %s over other duplicates', w.at) as message,
  pg_catalog.format('UPDATE public.user_memories SET duplicate_of = %L WHERE user_id = %L AND id = %L;', w.at, w.user_id, w.id) as fix
from walk w join public.user_memories root on root.user_id = w.user_id and root.id = w.at and root.duplicate_of is null
