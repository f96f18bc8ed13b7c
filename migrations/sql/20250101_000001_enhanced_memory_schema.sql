-- The memory schema. The first column of every key is user_id, and references carry it: a row can't refer to another user's,
-- a user's rows lie together, and the tables can be sharded by user. ids are globally unique by their default.

-- migrate:up
-- squawk-ignore-file prefer-bigint-over-smallint
-- importance is 1 to 5

create function public.memory_touch() returns trigger language plpgsql set search_path = '' as $$
begin
  new.updated_at := now();
  return new;
end
$$;
comment on function public.memory_touch() is 'Keeps updated_at, unless the statement sets it itself';

create table public.conversations (
  user_id uuid not null,
  id uuid not null default gen_random_uuid(),
  title text,
  source text,
  metadata jsonb not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint conversations_pkey primary key (user_id, id),
  constraint conversations_user foreign key (user_id) references auth.users (id) on delete cascade,
  constraint conversations_metadata_is_object check (jsonb_typeof(metadata) = 'object')
);
alter table public.conversations enable row level security;
alter table public.conversations force row level security;
comment on table public.conversations is 'Where memories come from: an imported log, a mail thread, a run of chats';

create table public.user_memories (
  user_id uuid not null,
  id uuid not null default gen_random_uuid(),
  fact text not null,
  memory_type text not null,
  category text,
  importance smallint not null default 3,
  importance_score double precision not null default 0.5,
  confidence_score double precision not null default 1.0,
  is_active boolean not null default true,
  duplicate_of uuid,
  version bigint not null default 1,
  source_conversation_id uuid,
  source text,
  tags text[] not null default '{}',
  metadata jsonb not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  -- stored: under row level security @@ can't use an index, and parsing 50,000 facts takes 250 ms, comparing their words 18
  fact_words tsvector generated always as (to_tsvector('english', fact)) stored,
  constraint user_memories_pkey primary key (user_id, id),
  constraint user_memories_user foreign key (user_id) references auth.users (id) on delete cascade,
  constraint user_memories_source_conversation foreign key (user_id, source_conversation_id)
    references public.conversations (user_id, id) on delete set null (source_conversation_id),
  constraint user_memories_duplicate_of foreign key (user_id, duplicate_of)
    references public.user_memories (user_id, id) on delete set null (duplicate_of),
  constraint user_memories_memory_type_known
    check (memory_type in ('person', 'preference', 'event', 'topic', 'fact', 'emotion')),
  constraint user_memories_fact_not_empty check (length(fact) > 0),
  -- text search takes no more than 1 MB of words
  constraint user_memories_fact_not_too_long check (length(fact) <= 100000),
  constraint user_memories_importance_range check (importance between 1 and 5),
  constraint user_memories_importance_score_range check (importance_score between 0.0 and 1.0),
  constraint user_memories_confidence_score_range check (confidence_score between 0.0 and 1.0),
  constraint user_memories_version_positive check (version > 0),
  constraint user_memories_metadata_is_object check (jsonb_typeof(metadata) = 'object'),
  constraint user_memories_duplicate_is_inactive check (duplicate_of is null or not is_active),
  constraint user_memories_duplicate_of_another check (duplicate_of <> id)
);
alter table public.user_memories enable row level security;
alter table public.user_memories force row level security;
comment on table public.user_memories is 'What is remembered of a user, one fact a row';

create function public.memory_version() returns trigger language plpgsql set search_path = '' as $$
begin
  if new.version < old.version then
    raise exception 'memory % has version %, which can''t become %', old.id, old.version, new.version
      using errcode = 'check_violation', schema = 'public', table = 'user_memories',
            constraint = 'user_memories_version_increments';
  elsif new.version = old.version then
    new.version := old.version + 1;
  end if;
  return new;
end
$$;
comment on function public.memory_version() is 'A version never decreases, and another fact is another version';

-- A loser that loses its mark is active again. When its survivor was deleted, the best loser takes the survivor's place
-- and the others point to it. STABLE, so that all losers of one statement see the same rows and agree on the heir.
-- It changes its own row only, within the foreign key's own update, where FORCE ROW LEVEL SECURITY does not bind the owner:
-- so it works for every role, with the invoker's rights.
create function public.memory_heir() returns trigger language plpgsql stable set search_path = '' as $$
declare
  heir uuid;
begin
  select m.id into heir
  from public.user_memories m
  where m.user_id = old.user_id and m.duplicate_of = old.duplicate_of
    and not exists (select from public.user_memories s where s.user_id = old.user_id and s.id = old.duplicate_of)
  order by m.importance_score desc, m.confidence_score desc, m.created_at, m.id
  limit 1;
  if heir <> new.id then
    new.duplicate_of := heir;
  else
    new.is_active := true;
  end if;
  return new;
end
$$;
comment on function public.memory_heir() is 'A loser is never left inactive and unmarked';

create trigger user_memories_heir before update on public.user_memories for each row
  when (old.duplicate_of is not null and new.duplicate_of is null and not new.is_active)
  execute function public.memory_heir();
create trigger user_memories_touch before update on public.user_memories for each row
  when (new.updated_at = old.updated_at) execute function public.memory_touch();
create trigger user_memories_version before update on public.user_memories for each row
  when (new.version < old.version or new.fact <> old.fact) execute function public.memory_version();

create table public.memory_usage (
  user_id uuid not null,
  memory_id uuid not null,
  access_count bigint not null default 0,
  last_accessed_at timestamptz,
  constraint memory_usage_pkey primary key (user_id, memory_id),
  constraint memory_usage_memory foreign key (user_id, memory_id)
    references public.user_memories (user_id, id) on delete cascade,
  constraint memory_usage_access_count_positive check (access_count >= 0)
);
alter table public.memory_usage enable row level security;
alter table public.memory_usage force row level security;
comment on table public.memory_usage is 'Counts of use, which change often, apart from the memories, which do not';

create table public.chats (
  user_id uuid not null,
  id uuid not null default gen_random_uuid(),
  conversation_id uuid,
  title text,
  metadata jsonb not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint chats_pkey primary key (user_id, id),
  constraint chats_user foreign key (user_id) references auth.users (id) on delete cascade,
  constraint chats_conversation foreign key (user_id, conversation_id)
    references public.conversations (user_id, id) on delete set null (conversation_id),
  constraint chats_metadata_is_object check (jsonb_typeof(metadata) = 'object')
);
alter table public.chats enable row level security;
alter table public.chats force row level security;
comment on table public.chats is 'A chat of a user with the assistant';

create table public.messages (
  user_id uuid not null,
  id uuid not null default gen_random_uuid(),
  chat_id uuid not null,
  user_message text not null,
  assistant_message text not null,
  metadata jsonb not null default '{}',
  -- the clock, not the transaction's start: messages of one transaction keep their order
  created_at timestamptz not null default clock_timestamp(),
  constraint messages_pkey primary key (user_id, id),
  constraint messages_chat foreign key (user_id, chat_id) references public.chats (user_id, id) on delete cascade,
  constraint messages_user_message_not_empty check (length(user_message) > 0),
  constraint messages_metadata_is_object check (jsonb_typeof(metadata) = 'object')
);
alter table public.messages enable row level security;
alter table public.messages force row level security;
comment on table public.messages is 'What a user said and what the assistant answered, a pair a row';

create table public.chat_summaries (
  user_id uuid not null,
  chat_id uuid not null,
  summary text not null,
  content jsonb not null default '{}',
  metadata jsonb not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint chat_summaries_pkey primary key (user_id, chat_id),
  constraint chat_summaries_chat foreign key (user_id, chat_id) references public.chats (user_id, id) on delete cascade,
  constraint chat_summaries_summary_not_empty check (length(summary) > 0),
  constraint chat_summaries_content_is_object check (jsonb_typeof(content) = 'object'),
  constraint chat_summaries_metadata_is_object check (jsonb_typeof(metadata) = 'object')
);
alter table public.chat_summaries enable row level security;
alter table public.chat_summaries force row level security;
comment on table public.chat_summaries is 'One summary a chat, found again by its embedding';

create table public.user_profiles (
  user_id uuid not null,
  preferences jsonb not null default '{}',
  important_facts jsonb not null default '[]',
  topics_of_interest jsonb not null default '[]',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint user_profiles_pkey primary key (user_id),
  constraint user_profiles_user foreign key (user_id) references auth.users (id) on delete cascade,
  constraint user_profiles_preferences_is_object check (jsonb_typeof(preferences) = 'object'),
  constraint user_profiles_important_facts_is_array check (jsonb_typeof(important_facts) = 'array'),
  constraint user_profiles_topics_of_interest_is_array check (jsonb_typeof(topics_of_interest) = 'array')
);
alter table public.user_profiles enable row level security;
alter table public.user_profiles force row level security;
comment on table public.user_profiles is 'What is known of a user at all times, merged from his chats';

create table public.memory_blobs (
  user_id uuid not null,
  id uuid not null default gen_random_uuid(),
  term text not null default 'long',
  key text collate "C" not null, -- "C": a scan by prefix can use the key's index
  content bytea,
  compression text not null default 'none',
  sha256 bytea not null,
  size_bytes bigint not null,
  stored_bytes bigint not null,
  expires_at timestamptz,
  metadata jsonb not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint memory_blobs_pkey primary key (user_id, id),
  constraint memory_blobs_key unique (user_id, term, key),
  constraint memory_blobs_user foreign key (user_id) references auth.users (id) on delete cascade,
  constraint memory_blobs_term_known check (term in ('short', 'working', 'long')),
  constraint memory_blobs_key_not_empty check (length(key) > 0),
  constraint memory_blobs_key_not_too_long check (length(key) <= 500),
  constraint memory_blobs_compression_known check (compression in ('none', 'gzip', 'zstd')),
  constraint memory_blobs_sha256_length check (octet_length(sha256) = 32),
  constraint memory_blobs_size_bytes_positive check (size_bytes >= 0),
  constraint memory_blobs_stored_bytes_positive check (stored_bytes >= 0),
  constraint memory_blobs_metadata_is_object check (jsonb_typeof(metadata) = 'object')
);
alter table public.memory_blobs enable row level security;
alter table public.memory_blobs force row level security;
comment on table public.memory_blobs is 'Values by key, until they expire; without content the bytes lie in the object store';

create table public.user_quotas (
  user_id uuid not null,
  max_memories bigint not null default 10000,
  max_blob_bytes bigint not null default 1073741824,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint user_quotas_pkey primary key (user_id),
  constraint user_quotas_user foreign key (user_id) references auth.users (id) on delete cascade,
  constraint user_quotas_max_memories_positive check (max_memories >= 0),
  constraint user_quotas_max_blob_bytes_positive check (max_blob_bytes >= 0)
);
alter table public.user_quotas enable row level security;
alter table public.user_quotas force row level security;
comment on table public.user_quotas is 'What a user may store, where it is not the default';

create table public.user_statistics (
  user_id uuid not null,
  memories_stored bigint not null default 0,
  duplicates_refused bigint not null default 0,
  searches bigint not null default 0,
  context_tokens bigint not null default 0,
  tokens_saved bigint not null default 0,
  last_stored_at timestamptz,
  last_searched_at timestamptz,
  constraint user_statistics_pkey primary key (user_id),
  constraint user_statistics_user foreign key (user_id) references auth.users (id) on delete cascade,
  constraint user_statistics_memories_stored_positive check (memories_stored >= 0),
  constraint user_statistics_duplicates_refused_positive check (duplicates_refused >= 0),
  constraint user_statistics_searches_positive check (searches >= 0),
  constraint user_statistics_context_tokens_positive check (context_tokens >= 0),
  constraint user_statistics_tokens_saved_positive check (tokens_saved >= 0)
);
alter table public.user_statistics enable row level security;
alter table public.user_statistics force row level security;
comment on table public.user_statistics is 'What was done for a user, counted as it happens: the rows themselves can''t tell it';

create trigger conversations_touch before update on public.conversations for each row
  when (new.updated_at = old.updated_at) execute function public.memory_touch();
create trigger chats_touch before update on public.chats for each row
  when (new.updated_at = old.updated_at) execute function public.memory_touch();
create trigger chat_summaries_touch before update on public.chat_summaries for each row
  when (new.updated_at = old.updated_at) execute function public.memory_touch();
create trigger user_profiles_touch before update on public.user_profiles for each row
  when (new.updated_at = old.updated_at) execute function public.memory_touch();
create trigger memory_blobs_touch before update on public.memory_blobs for each row
  when (new.updated_at = old.updated_at) execute function public.memory_touch();
create trigger user_quotas_touch before update on public.user_quotas for each row
  when (new.updated_at = old.updated_at) execute function public.memory_touch();

-- UUIDv5 needs SHA-1, which PostgreSQL has in extensions only: so it is spelled out here.
-- The namespace is uuid5(NAMESPACE_URL, 'dbops:user').
create function public.user_uuid(external_id text) returns uuid
  language plpgsql immutable strict parallel safe set search_path = '' as $$
declare
  word constant bigint := 4294967295; -- keeps 32 bits
  body bytea := uuid_send('4ed7d862-67e2-5e4a-88b5-33b6a6658bec') || convert_to(external_id, 'UTF8');
  padded bytea;
  w bigint[];
  sum0 bigint := 1732584193; sum1 bigint := 4023233417; sum2 bigint := 2562383102; sum3 bigint := 271733878; sum4 bigint := 3285377520;
  a bigint; b bigint; c bigint; d bigint; e bigint; mix bigint; turned bigint;
  digest bytea;
begin
  if external_id ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' then
    return external_id::uuid;
  end if;
  padded := body || '\x80' || decode(repeat('00', (119 - length(body) % 64) % 64), 'hex') || int8send(length(body) * 8::bigint);
  for block in 0 .. length(padded) / 64 - 1 loop
    a := sum0; b := sum1; c := sum2; d := sum3; e := sum4;
    for t in 0 .. 79 loop
      if t < 16 then
        w[t] := 0;
        for i in 0 .. 3 loop
          w[t] := w[t] * 256 + get_byte(padded, block * 64 + t * 4 + i);
        end loop;
      else
        turned := w[t - 3] # w[t - 8] # w[t - 14] # w[t - 16];
        w[t] := ((turned << 1) | (turned >> 31)) & word;
      end if;
      mix := case t / 20
               when 0 then ((b & c) | ((b # word) & d)) + 1518500249
               when 1 then (b # c # d) + 1859775393
               when 2 then ((b & c) | (b & d) | (c & d)) + 2400959708
               else (b # c # d) + 3395469782
             end;
      turned := ((a << 5) | (a >> 27)) & word;
      mix := (turned + mix + e + w[t]) & word;
      e := d; d := c; c := ((b << 30) | (b >> 2)) & word; b := a; a := mix;
    end loop;
    sum0 := (sum0 + a) & word; sum1 := (sum1 + b) & word; sum2 := (sum2 + c) & word;
    sum3 := (sum3 + d) & word; sum4 := (sum4 + e) & word;
  end loop;
  digest := substr(int8send(sum0), 5) || substr(int8send(sum1), 5) || substr(int8send(sum2), 5) || substr(int8send(sum3), 5);
  digest := set_byte(digest, 6, (get_byte(digest, 6) & 15) | 80);  -- version 5
  digest := set_byte(digest, 8, (get_byte(digest, 8) & 63) | 128); -- RFC 9562's variant
  return encode(digest, 'hex')::uuid;
end
$$;
comment on function public.user_uuid(text) is 'The uuid of a user whose id elsewhere is any text: a uuid is itself, all else its UUIDv5';

-- What policies then allow, row by row. Nothing for anon; no TRUNCATE for users, which no policy holds back.
revoke all on table
  public.user_memories, public.memory_usage, public.conversations, public.chats, public.messages, public.chat_summaries,
  public.user_profiles, public.memory_blobs, public.user_quotas, public.user_statistics
  from public, anon, authenticated;
grant select, insert, update, delete on table
  public.user_memories, public.memory_usage, public.conversations, public.chats, public.messages, public.chat_summaries,
  public.user_profiles, public.memory_blobs, public.user_statistics
  to authenticated;
-- a user may read his quota and never raise it
grant select on table public.user_quotas to authenticated;
grant select, insert, update, delete on table
  public.user_memories, public.memory_usage, public.conversations, public.chats, public.messages, public.chat_summaries,
  public.user_profiles, public.memory_blobs, public.user_quotas, public.user_statistics
  to service_role;
revoke all on function public.memory_touch(), public.memory_version(), public.memory_heir(), public.user_uuid(text)
  from public, anon, authenticated;
grant execute on function public.user_uuid(text) to authenticated, service_role;

-- migrate:down
drop function public.user_uuid(text);
drop table public.user_statistics;
drop table public.user_quotas;
drop table public.memory_blobs;
drop table public.user_profiles;
drop table public.chat_summaries;
drop table public.messages;
drop table public.chats;
drop table public.memory_usage;
drop table public.user_memories;
drop table public.conversations;
drop function public.memory_heir();
drop function public.memory_version();
drop function public.memory_touch();
