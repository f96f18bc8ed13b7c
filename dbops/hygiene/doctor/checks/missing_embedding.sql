-- severity: info
-- summary: Active memories without an embedding of the model that most of the others have
-- why: A search by meaning does not find them: their embedding failed, or a change of model is half done.
-- requires: relation public.memory_embeddings
with model as (
  select e.model, pg_catalog.count(*) as n from public.memory_embeddings e group by e.model order by n desc, e.model limit 1
)
select 'public.memory_embeddings' as object,
  pg_catalog.format('%s active memories have no embedding of %s, which %s memories have', missing.n, model.model, model.n) as message,
  '-- embed what is missing' as fix
from model cross join lateral (
  select pg_catalog.count(*) as n from public.user_memories m
  where m.is_active and not exists (select from public.memory_embeddings e
                                    where e.user_id = m.user_id and e.memory_id = m.id and e.model = model.model)
) missing
where missing.n > 0
