-- The memory runtime's statements. Each reads one user's rows, as that user; an index serves each.

-- name: retrieve_memories
select id, fact, memory_type, category, importance, importance_score, confidence_score, tags, source, version, created_at
from public.user_memories
where user_id = %(user_id)s and is_active
order by importance_score desc, created_at desc
limit %(limit)s;

-- name: recent_memories
select id, fact, memory_type, category, importance, importance_score, confidence_score, tags, source, version, created_at
from public.user_memories
where user_id = %(user_id)s and is_active
order by created_at desc
limit %(limit)s;

-- name: filter_memories
select id, fact, memory_type, category, importance, importance_score, confidence_score, tags, source, version, created_at
from public.user_memories
where user_id = %(user_id)s and memory_type = %(memory_type)s and category = %(category)s and is_active
order by importance_score desc, created_at desc
limit %(limit)s;

-- name: search_memories
select m.id, m.fact, m.memory_type, m.category, m.importance_score, ts_rank_cd(m.fact_words, q.query) as score
from public.user_memories m, websearch_to_tsquery('english', %(query)s) q(query)
where m.user_id = %(user_id)s and m.is_active and m.fact_words @@ q.query
order by score desc, m.importance_score desc, m.id
limit %(limit)s;

-- name: similar_memories
-- exact: all of the user's vectors of one model are compared, and the threshold holds before the limit
select m.id, m.fact, m.memory_type, m.category, m.importance_score, 1 - e.distance as score
from (
  select memory_id, public.embedding_distance(embedding, %(embedding)s) as distance
  from public.memory_embeddings
  where user_id = %(user_id)s and model = %(model)s
) e
join public.user_memories m on m.user_id = %(user_id)s and m.id = e.memory_id
where m.is_active and e.distance <= 1 - %(threshold)s
order by e.distance, m.id
limit %(limit)s;

-- name: count_memories
select count(*) from public.user_memories where user_id = %(user_id)s and is_active;

-- name: memory_counts
select memory_type, count(*) as memories, count(*) filter (where is_active) as active, count(duplicate_of) as duplicates
from public.user_memories
where user_id = %(user_id)s
group by memory_type;

-- name: memory
select * from public.user_memories where user_id = %(user_id)s and id = %(id)s;

-- name: duplicates_of_memory
-- the first is the heir, should the memory be deleted
select id, fact, importance_score, confidence_score, created_at
from public.user_memories
where user_id = %(user_id)s and duplicate_of = %(id)s
order by importance_score desc, confidence_score desc, created_at, id;

-- name: memories_of_conversation
select id, fact, memory_type, category, importance_score, created_at
from public.user_memories
where user_id = %(user_id)s and source_conversation_id = %(conversation_id)s;

-- name: old_inactive_memories
-- the operator's: it looks at all users
select user_id, id
from public.user_memories
where not is_active and updated_at < now() - make_interval(days => %(days_old)s)
order by updated_at
limit %(limit)s;

-- name: memories_without_embedding
select m.id, m.fact
from public.user_memories m
where m.user_id = %(user_id)s and m.is_active
  and not exists (
    select from public.memory_embeddings e
    where e.user_id = m.user_id and e.memory_id = m.id and e.model = %(model)s
  )
order by m.created_at desc
limit %(limit)s;

-- name: note_access
insert into public.memory_usage as u (user_id, memory_id, access_count, last_accessed_at)
select %(user_id)s, accessed, 1, now() from unnest(%(ids)s::uuid[]) accessed
on conflict (user_id, memory_id) do update set access_count = u.access_count + 1, last_accessed_at = excluded.last_accessed_at;

-- name: conversations_of_user
select id, title, source, created_at, updated_at
from public.conversations
where user_id = %(user_id)s
order by updated_at desc
limit %(limit)s;

-- name: chats_of_user
select id, conversation_id, title, created_at, updated_at
from public.chats
where user_id = %(user_id)s
order by updated_at desc
limit %(limit)s;

-- name: chats_of_conversation
select id, title, created_at, updated_at
from public.chats
where user_id = %(user_id)s and conversation_id = %(conversation_id)s;

-- name: last_messages
select id, user_message, assistant_message, created_at
from public.messages
where user_id = %(user_id)s and chat_id = %(chat_id)s
order by created_at desc
limit %(limit)s;

-- name: chat_summary
select summary, content, metadata, updated_at
from public.chat_summaries
where user_id = %(user_id)s and chat_id = %(chat_id)s;

-- name: similar_summaries
select s.chat_id, s.summary, s.metadata, 1 - e.distance as score
from (
  select chat_id, public.embedding_distance(embedding, %(embedding)s) as distance
  from public.summary_embeddings
  where user_id = %(user_id)s and model = %(model)s
) e
join public.chat_summaries s on s.user_id = %(user_id)s and s.chat_id = e.chat_id
where e.distance <= 1 - %(threshold)s
order by e.distance, s.chat_id
limit %(limit)s;

-- name: profile
select preferences, important_facts, topics_of_interest, updated_at from public.user_profiles where user_id = %(user_id)s;

-- name: quota
select max_memories, max_blob_bytes from public.user_quotas where user_id = %(user_id)s;

-- name: statistics
select memories_stored, duplicates_refused, searches, context_tokens, tokens_saved, last_stored_at, last_searched_at
from public.user_statistics
where user_id = %(user_id)s;

-- name: blob
select id, content, compression, sha256, size_bytes, stored_bytes, expires_at, metadata
from public.memory_blobs
where user_id = %(user_id)s and term = %(term)s and key = %(key)s and (expires_at is null or expires_at > now());

-- name: blobs_by_prefix
-- a key's own prefix, with LIKE's own characters escaped by the caller
select key, size_bytes, expires_at
from public.memory_blobs
where user_id = %(user_id)s and term = %(term)s and key like %(pattern)s and (expires_at is null or expires_at > now())
order by key;

-- name: expired_blobs
-- the operator's: it looks at all users
select user_id, id, term, key, content is null as in_object_store
from public.memory_blobs
where expires_at <= now()
order by expires_at
limit %(limit)s;
