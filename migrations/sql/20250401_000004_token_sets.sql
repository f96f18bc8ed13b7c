-- The set of words of each active memory, in a table of its own that triggers keep: what duplicates are found by.
-- docs/duplicates.md says what a word is.

-- migrate:up
-- squawk-ignore-file prefer-bigint-over-int
-- a text of 50,000 bytes has no 2 billion words

-- The collation is chosen once, so that a word is the same whatever locale a database has. Only texts beyond ASCII come here.
do $make$
declare
  fold text;
  lower_case text;
begin
  if getdatabaseencoding() <> 'UTF8' then
    raise exception 'the database is encoded in %, and words are defined in UTF8 only', getdatabaseencoding()
      using errcode = 'feature_not_supported', hint = 'create the database with encoding UTF8; nothing was changed';
  end if;
  foreach fold in array array['pg_c_utf8', 'unicode', 'und-x-icu', 'C.utf8', 'default'] loop
    begin
      execute format('select lower(%L collate pg_catalog.%I)', U&'\00c9', fold) into lower_case;
      exit when lower_case = U&'\00e9';
    exception when undefined_object or feature_not_supported then
      null; -- not in this version, or without ICU in this build
    end;
  end loop;
  execute replace($sql$
    create function public.word_fold(p_text text) returns text
      language plpgsql immutable strict parallel safe set search_path = '' as $body$
    declare
      -- written without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han
      unspaced constant text := '\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3021-\u3029\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\ua4cf\uf900-\ufaff\U00020000-\U0003ffff';
      marks constant text := '\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f';
      t text := translate(p_text, U&'\0130\2019\02bc', 'i''''');
    begin
      if t collate "C" ~ ('[' || marks || ']{31}') then
        -- normalize takes the square of such a run: Unicode's stream-safe format (UAX #15) parts it after 30
        t := regexp_replace(t, ('([' || marks || ']{30})(?=[' || marks || '])') collate "C", U&'\\1\034f', 'g');
      end if;
      t := lower(normalize(t, nfkc) collate FOLD);
      t := translate(t, U&'\03c2', U&'\03c3'); -- the sigma that ends a word
      -- what can't be seen
      t := regexp_replace(t, '[\u00ad\u034f\u200c\u200d\u2060\ufe00-\ufe0f\ufeff\U0001f3fb-\U0001f3ff\U000e0000-\U000e01ef]' collate "C", '', 'g');
      -- punctuation, spaces, symbols
      t := regexp_replace(t, '[\u0080-\u00a9\u00ab\u00ac\u00ae-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf\u00d7\u00f7\u02c2-\u02c5\u037e\u0387\u055a-\u055f\u0589\u058a\u05be\u05c0\u05c3\u05c6\u05f3\u05f4\u0600-\u060f\u061b-\u061f\u066a-\u066d\u06d4\u0964\u0965\u0970\u0df4\u0e3f\u0e4f\u0e5a\u0e5b\u0f04-\u0f14\u104a-\u104f\u1360-\u1368\u1680\u17d4-\u17db\u2000-\u200b\u200e-\u205f\u2061-\u206f\u20a0-\u20cf\u2190-\u2319\u2400-\u25ff\u27c0-\u2b4f\u2b56-\u2bff\u2e00-\u2e7f\u3000-\u3004\u3008-\u3020\u3030\u303d-\u303f\u30a0\u30fb\ufe10-\ufe6f\uffe0-\uffff]+' collate "C", ' ', 'g');
      -- each emoji is a word
      t := regexp_replace(t, '([\u231a-\u23ff\u2600-\u27bf\u2b50-\u2b55\U0001f000-\U0001faff])' collate "C", ' \1 ', 'g');
      if t collate "C" ~ ('[' || unspaced || ']') then
        t := regexp_replace(t, ('([' || unspaced || ']+)') collate "C", ' \1 ', 'g');
        -- a run becomes its pairs of neighbours and its last character: the pairs from the first character on, those from the second on
        t := regexp_replace(t, ('([' || unspaced || ']{2})') collate "C", '\1 ', 'g') || ' '
          || regexp_replace(regexp_replace(t, (' [' || unspaced || '](?=[' || unspaced || '])') collate "C", ' ', 'g'),
                            ('([' || unspaced || ']{2})') collate "C", '\1 ', 'g');
      end if;
      return t;
    end
    $body$
  $sql$, 'FOLD', format('pg_catalog.%I', fold));
end
$make$;
comment on function public.word_fold(text) is 'A text beyond ASCII in lower case and normal form, with spaces between its words';

-- What is more than letters, digits and spaces with punctuation that ends words.
create function public.word_cut(p_text text) returns text[]
  language plpgsql immutable strict parallel safe set search_path = '' as $$
declare
  t text := p_text;
begin
  if octet_length(t) > 50000 then
    return null;
  elsif octet_length(t) = length(t) then
    t := lower(t collate "C");
  else
    t := public.word_fold(t);
  end if;
  -- kept: ' between word characters, . and , between digits, + and # that end a word
  t := regexp_replace(t, '(?:[\x01-\x22\x24-\x26\x28-\x2a\x2d\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f]'
    '|''(?![^\x01-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f])|(?<![^\x01-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f])'''
    '|[.,](?![0-9])|(?<![0-9])[.,]'
    '|(?<![^\x01-\x22\x24-\x2a\x2c-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f])[+#]+|[+#]+(?=[^\x01-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f]))+'
    collate "C", ' ', 'g');
  if length(t) > 255 then
    t := regexp_replace(t, '([^ ]{255})' collate "C", '\1 ', 'g'); -- tsvector takes no word of more than 2 kB
  end if;
  return array_remove(string_to_array(t, ' '), '');
end
$$;
comment on function public.word_cut(text) is 'The words of any text as they come; NULL where it has more than 50,000 bytes';

-- Written so that the planner puts it in place (a body that is bound when it is made needs no search_path of its own): half of what
-- a word set costs would be calls. The short way is for ASCII without ' . , before a word and + # after one, and short of 255.
create function public.word_list(p_text text) returns text[]
  language sql immutable parallel safe
  return case
    when octet_length(p_text) < 255
      and p_text collate "C" !~ '[^\x01-\x7f]|[''.,][0-9A-Z_a-z]|[0-9A-Z_a-z][+#]'
    then array_remove(string_to_array(lower(regexp_replace(p_text, '[^ 0-9A-Z_a-z]+' collate "C", ' ', 'g') collate "C"), ' '), '')
    else public.word_cut(p_text)
  end;
comment on function public.word_list(text) is 'The words of a text as they come; NULL where it has more than 50,000 bytes';

create function public.word_set(p_text text) returns text[]
  language sql immutable parallel safe
  return tsvector_to_array(array_to_tsvector(public.word_list(p_text)));
comment on function public.word_set(text) is 'The distinct words of a text, sorted: what its duplicates are judged by; NULL where it has more than 50,000 bytes';

-- The sketch has a bit for each word, of 64: a set that lacks few of another's words lacks few of its bits.
create function public.token_set(p_text text) returns table (tokens tsvector, words integer, sketch bigint)
  language sql immutable parallel safe
begin atomic
  select s.tokens, length(s.tokens),
    (select bit_or(1::bigint << (hashtext(w.word) & 63)) from (select unnest(s.list) collate "C" as word) w)
  from (
    select l.list, array_to_tsvector(l.list) as tokens
    from (select public.word_list(p_text) as list offset 0) l
    offset 0 -- each once, not once for each of its uses
  ) s;
end;
comment on function public.token_set(text) is 'A text as memory_tokens keeps it';

create table public.memory_tokens (
  user_id uuid not null,
  memory_id uuid not null,
  words integer,
  sketch bigint,
  tokens tsvector,
  constraint memory_tokens_pkey primary key (user_id, memory_id)
);
alter table public.memory_tokens enable row level security;
alter table public.memory_tokens force row level security;
comment on table public.memory_tokens is 'The word set of each active memory; without one where the text is too large. Triggers write it, users read theirs';

-- The triggers' functions run as the owner of the tables, whom FORCE binds as well. policies/memory_tokens.sql says the same.
do $$
begin
  execute format('create policy keeper on public.memory_tokens to %I using (true) with check (true)', current_user);
  execute format('create policy keeper on public.user_memories for select to %I using (pg_trigger_depth() > 0)', current_user);
end
$$;

-- Triggers keep what a foreign key would: its check costs an INSERT of many rows as much as all else here together.
-- EXECUTE, where tables are joined: a plan that is kept from a session's first statement, on one row, is a bad one for 10,000.
create function public.memory_tokens_insert() returns trigger
  language plpgsql security definer set search_path = '' as $$
begin
  if not current_setting('track_counts')::boolean
     or pg_stat_get_xact_tuples_updated(tg_relid) + pg_stat_get_xact_tuples_deleted(tg_relid) > 0 then
    null; -- another trigger may have changed or deleted new rows by now
  elsif (select count(*) from (select from made limit 100) m) < 100 then
    insert into public.memory_tokens (user_id, memory_id, words, sketch, tokens)
    select m.user_id, m.id, k.words, k.sketch, k.tokens
    from made m cross join lateral public.token_set(m.fact) k
    where m.is_active
    on conflict (user_id, memory_id) do update set words = excluded.words, sketch = excluded.sketch, tokens = excluded.tokens;
    return null;
  else
    begin -- a subtransaction costs many rows less than ON CONFLICT
      insert into public.memory_tokens (user_id, memory_id, words, sketch, tokens)
      select m.user_id, m.id, k.words, k.sketch, k.tokens
      from made m cross join lateral public.token_set(m.fact) k
      where m.is_active;
      return null;
    exception when unique_violation then
      null; -- a word set was left behind by a memory that was deleted while the triggers were off
    end;
  end if;
  execute $sql$
    insert into public.memory_tokens (user_id, memory_id, words, sketch, tokens)
    select m.user_id, m.id, k.words, k.sketch, k.tokens
    from made n
    join public.user_memories m on m.user_id = n.user_id and m.id = n.id
    cross join lateral public.token_set(m.fact) k
    where m.is_active
    on conflict (user_id, memory_id) do update set words = excluded.words, sketch = excluded.sketch, tokens = excluded.tokens
  $sql$;
  return null;
end
$$;
comment on function public.memory_tokens_insert() is 'Writes the word sets of new memories, all of a statement at once';

create function public.memory_tokens_update() returns trigger
  language plpgsql security definer set search_path = '' as $$
begin
  if not new.is_active or (new.user_id, new.id) <> (old.user_id, old.id) then
    delete from public.memory_tokens k where k.user_id = old.user_id and k.memory_id = old.id;
  end if;
  if new.is_active then
    insert into public.memory_tokens (user_id, memory_id, words, sketch, tokens)
    select new.user_id, new.id, k.words, k.sketch, k.tokens from public.token_set(new.fact) k
    on conflict (user_id, memory_id) do update set words = excluded.words, sketch = excluded.sketch, tokens = excluded.tokens;
  end if;
  return null;
end
$$;
comment on function public.memory_tokens_update() is 'Keeps the word set of a memory that says something else, is forgotten, comes back, or has another key';

create function public.memory_tokens_delete() returns trigger
  language plpgsql security definer set search_path = '' as $$
begin
  execute 'delete from public.memory_tokens k using gone g where k.user_id = g.user_id and k.memory_id = g.id';
  return null;
end
$$;
comment on function public.memory_tokens_delete() is 'Deletes the word sets of deleted memories, all of a statement at once';

create function public.memory_tokens_truncate() returns trigger
  language plpgsql security definer set search_path = '' as $$
begin
  truncate public.memory_tokens;
  return null;
exception when object_in_use then
  delete from public.memory_tokens; -- the same statement truncates it
  return null;
end
$$;
comment on function public.memory_tokens_truncate() is 'Without memories there are no word sets';

create trigger user_memories_tokens_insert after insert on public.user_memories
  referencing new table as made for each statement execute function public.memory_tokens_insert();
-- Its name comes first: what another trigger changes in turn, or deletes, comes after it.
create trigger _user_memories_tokens_update after update on public.user_memories for each row
  when (old.fact <> new.fact or old.is_active <> new.is_active or old.id <> new.id or old.user_id <> new.user_id)
  execute function public.memory_tokens_update();
create trigger user_memories_tokens_delete after delete on public.user_memories
  referencing old table as gone for each statement execute function public.memory_tokens_delete();
create trigger user_memories_tokens_truncate after truncate on public.user_memories
  for each statement execute function public.memory_tokens_truncate();

-- For rows that were there before the triggers, or came while they were off. The operator's.
-- Merged in the order of both keys, from the user on whom the session's last call reached: no call walks over what was filled before it.
create function public.fill_memory_tokens(p_batch integer default 10000) returns integer
  language plpgsql set search_path = '' set enable_hashjoin = off set enable_sort = off as $$
declare
  first constant uuid := '00000000-0000-0000-0000-000000000000';
  place uuid := coalesce(substring(current_setting('dbops.tokens_filled_to', true) from '^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$')::uuid, first);
  filled integer;
  reached uuid;
begin
  if p_batch is null or p_batch < 1 then
    raise exception 'a batch of % rows: at least 1 is needed', coalesce(p_batch::text, 'NULL')
      using errcode = 'invalid_parameter_value', hint = 'nothing was changed';
  elsif row_security_active('public.user_memories') then
    raise exception 'row level security hides memories from %', current_user
      using errcode = 'insufficient_privilege', hint = 'a role with BYPASSRLS fills the word sets (service_role has it); nothing was changed';
  end if;
  loop
    with missing as materialized (
      select m.user_id, m.id, m.fact
      from public.user_memories m
      where m.is_active and m.user_id >= place
        and not exists (select from public.memory_tokens k where k.user_id >= place and k.user_id = m.user_id and k.memory_id = m.id)
      order by m.user_id, m.id
      limit p_batch
      for share of m -- whoever changes one of them waits: its trigger must find this row
    ), written as (
      insert into public.memory_tokens (user_id, memory_id, words, sketch, tokens)
      select m.user_id, m.id, k.words, k.sketch, k.tokens from missing m cross join lateral public.token_set(m.fact) k
      on conflict (user_id, memory_id) do nothing
      returning user_id
    )
    select (select count(*) from written), (select (array_agg(m.user_id order by m.user_id desc))[1] from missing m) into filled, reached;
    perform set_config('dbops.tokens_filled_to', coalesce(reached, first)::text, false);
    -- again where another call beside this one wrote them all; and at the end once more from the start: for what came there meanwhile
    exit when filled > 0 or (reached is null and place = first);
    place := coalesce(reached, first);
  end loop;
  return filled;
end
$$;
comment on function public.fill_memory_tokens(integer) is 'Writes word sets that are missing, a batch a call; 0 when none is left';

revoke all on table public.memory_tokens from public, anon, authenticated;
grant select on table public.memory_tokens to authenticated;
grant select, insert, update, delete on table public.memory_tokens to service_role;
revoke all on function public.word_fold(text), public.word_cut(text), public.word_list(text), public.word_set(text), public.token_set(text),
  public.memory_tokens_insert(), public.memory_tokens_update(), public.memory_tokens_delete(), public.memory_tokens_truncate(),
  public.fill_memory_tokens(integer) from public, anon, authenticated;
grant execute on function public.word_fold(text), public.word_cut(text), public.word_list(text), public.word_set(text),
  public.token_set(text) to authenticated, service_role;
grant execute on function public.fill_memory_tokens(integer) to service_role;

-- migrate:down
drop trigger user_memories_tokens_truncate on public.user_memories;
drop trigger user_memories_tokens_delete on public.user_memories;
drop trigger _user_memories_tokens_update on public.user_memories;
drop trigger user_memories_tokens_insert on public.user_memories;
drop policy keeper on public.user_memories;
drop function public.fill_memory_tokens(integer);
drop table public.memory_tokens;
drop function public.memory_tokens_truncate();
drop function public.memory_tokens_delete();
drop function public.memory_tokens_update();
drop function public.memory_tokens_insert();
drop function public.token_set(text);
drop function public.word_set(text);
drop function public.word_list(text);
drop function public.word_cut(text);
drop function public.word_fold(text);
