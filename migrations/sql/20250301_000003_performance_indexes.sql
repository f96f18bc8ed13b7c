-- Each index serves a statement of dbops/memory/queries.sql, and each foreign key that deletes or empties has its index.

-- migrate:up
-- squawk-ignore-file require-concurrent-index-creation, require-concurrent-index-deletion
-- the tables are as new as their indexes: while they are empty nobody waits

-- the newest; how many
create index idx_memories_active on public.user_memories (user_id, created_at desc) where is_active;
-- the most important
create index idx_memories_importance on public.user_memories (user_id, importance_score desc, created_at desc) where is_active;
-- of a type and a category, the most important first
create index idx_memories_type_category on public.user_memories
  (user_id, memory_type, category, importance_score desc, created_at desc) where is_active;
-- full text
create index idx_memories_fact_search on public.user_memories using gin (fact_words) where is_active;
-- counts by type, answered from the index alone
create index idx_memories_covering on public.user_memories (user_id, memory_type) include (is_active, duplicate_of);
-- the losers of a survivor, its heir first
create index idx_memories_duplicates on public.user_memories
  (user_id, duplicate_of, importance_score desc, confidence_score desc, created_at, id) where duplicate_of is not null;
-- what a conversation taught
create index idx_memories_source_conversation on public.user_memories (user_id, source_conversation_id)
  where source_conversation_id is not null;
-- what was forgotten long ago
create index idx_memories_inactive on public.user_memories (updated_at) where not is_active;

create index idx_conversations_recent on public.conversations (user_id, updated_at desc);
create index idx_chats_recent on public.chats (user_id, updated_at desc);
create index idx_chats_conversation on public.chats (user_id, conversation_id) where conversation_id is not null;
create index idx_messages_chat on public.messages (user_id, chat_id, created_at desc);
create index idx_blobs_expired on public.memory_blobs (expires_at) where expires_at is not null;

-- migrate:down
drop index public.idx_blobs_expired;
drop index public.idx_messages_chat;
drop index public.idx_chats_conversation;
drop index public.idx_chats_recent;
drop index public.idx_conversations_recent;
drop index public.idx_memories_inactive;
drop index public.idx_memories_source_conversation;
drop index public.idx_memories_duplicates;
drop index public.idx_memories_covering;
drop index public.idx_memories_fact_search;
drop index public.idx_memories_type_category;
drop index public.idx_memories_importance;
drop index public.idx_memories_active;
