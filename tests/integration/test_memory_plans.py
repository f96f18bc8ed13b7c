"""Each named query of the memory runtime is served by an index, and each index serves one: plans at 100,000 memories."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from dbops.sql import queries

USER = "00000000-0000-0000-0000-000000000001"

# 1,001 users: the first has 5,000 memories, the others 95 each; chats and the rest in proportion
ROWS = """
set session_replication_role = replica; -- the rows are right: no key need be looked up

insert into auth.users (id) select ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid from generate_series(1, 1001) n;

create temporary table owner as
select n, ('00000000-0000-0000-0000-' || lpad(case when n <= 5000 then 1 else 2 + n % 1000 end::text, 12, '0'))::uuid as user_id
from generate_series(1, 100000) n;

insert into public.conversations (user_id, id, updated_at)
select user_id, gen_random_uuid(), now() - n * interval '1 minute' from owner where n % 10 = 0;

insert into public.user_memories
  (user_id, fact, memory_type, category, importance_score, is_active, source_conversation_id, created_at, updated_at)
select o.user_id, 'the user said that word' || o.n % 997 || ' goes with word' || o.n % 5003,
       (array['person', 'preference', 'event', 'topic', 'fact', 'emotion'])[1 + o.n % 6], 'category' || o.n % 40,
       o.n % 1000 / 1000.0, o.n % 5 > 0, c.id,
       now() - o.n * interval '1 minute', now() - o.n * interval '5 minutes'
from owner o
left join lateral (select id from public.conversations c where c.user_id = o.user_id and o.n % 2 = 0 limit 1) c on true;

with survivor as (
  select user_id, id, row_number() over (partition by user_id order by id) as n from public.user_memories where is_active
), loser as (
  select user_id, id, row_number() over (partition by user_id order by id) as n from public.user_memories where not is_active
)
update public.user_memories m set duplicate_of = s.id
from loser l join survivor s using (user_id, n)
where m.user_id = l.user_id and m.id = l.id and l.n % 2 = 0;

insert into public.memory_usage (user_id, memory_id, access_count) select user_id, id, 1 from public.user_memories;

insert into public.chats (user_id, conversation_id, updated_at)
select user_id, case when n = 1 then id end, updated_at from public.conversations, generate_series(1, 3) n;

insert into public.messages (user_id, chat_id, user_message, assistant_message, created_at)
select user_id, id, 'question', 'answer', now() - n * interval '1 minute' from public.chats, generate_series(1, 4) n;

insert into public.chat_summaries (user_id, chat_id, summary) select user_id, id, 'a summary' from public.chats;
insert into public.user_profiles (user_id) select id from auth.users;
insert into public.user_quotas (user_id) select id from auth.users;
insert into public.user_statistics (user_id) select id from auth.users;

insert into public.memory_blobs (user_id, key, sha256, size_bytes, stored_bytes, content, expires_at)
select user_id, 'note/' || n, sha256('x'), 1, 1, 'x', now() + (n - 1000) * interval '1 minute' from owner where n % 5 = 0;

insert into public.embedding_models (model, dimensions) values ('plan', 3);
insert into public.memory_embeddings (user_id, memory_id, model, dimensions, embedding)
select user_id, id, 'plan', 3, array[random(), random(), 1]::real[] from public.user_memories;
insert into public.summary_embeddings (user_id, chat_id, model, dimensions, embedding)
select user_id, chat_id, 'plan', 3, array[random(), random(), 1]::real[] from public.chat_summaries;

set session_replication_role = origin;
vacuum analyze;
"""

SERVED_BY = {
    "retrieve_memories": "idx_memories_importance",
    "recent_memories": "idx_memories_active",
    "filter_memories": "idx_memories_type_category",
    "search_memories": "idx_memories_fact_search",
    "similar_memories": "memory_embeddings_pkey",
    "count_memories": "idx_memories_active",
    "memory_counts": "idx_memories_covering",
    "memory": "user_memories_pkey",
    "duplicates_of_memory": "idx_memories_duplicates",
    "memories_of_conversation": "idx_memories_source_conversation",
    "old_inactive_memories": "idx_memories_inactive",
    "memories_without_embedding": "memory_embeddings_pkey",
    "note_access": "memory_usage_pkey",
    "conversations_of_user": "idx_conversations_recent",
    "chats_of_user": "idx_chats_recent",
    "chats_of_conversation": "idx_chats_conversation",
    "last_messages": "idx_messages_chat",
    "chat_summary": "chat_summaries_pkey",
    "similar_summaries": "summary_embeddings_pkey",
    "profile": "user_profiles_pkey",
    "quota": "user_quotas_pkey",
    "statistics": "user_statistics_pkey",
    "blob": "memory_blobs_key",
    "blobs_by_prefix": "memory_blobs_key",
    "expired_blobs": "idx_blobs_expired",
}
OPERATORS = {"old_inactive_memories", "expired_blobs"}
FROM_THE_INDEX_ALONE = {"count_memories", "memory_counts"}
IN_THE_INDEXS_ORDER = {
    "retrieve_memories", "recent_memories", "filter_memories", "duplicates_of_memory", "old_inactive_memories",
    "conversations_of_user", "chats_of_user", "last_messages", "expired_blobs",
}  # fmt: skip

Filled = tuple[psycopg.Connection[Any], dict[str, Any]]


def fill(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in ROWS.split(";\n"):
            conn.execute(statement)


@pytest.fixture
def db(make_database: Callable[..., str]) -> Iterator[psycopg.Connection[Any]]:
    """A connection (autocommit, superuser) to a fresh database with the memory schema and its rows."""
    with psycopg.connect(make_database("plans", fill, of="memory"), autocommit=True) as conn:
        yield conn


@pytest.fixture
def filled(db: psycopg.Connection[Any]) -> Filled:
    """The database with its rows, and parameters that fit every named query: they ask for the user with the most."""
    survivor = db.execute(
        "select duplicate_of from public.user_memories where user_id = %s and duplicate_of is not null limit 1", (USER,)
    ).fetchone()
    chat = db.execute(
        "select c.id, c.conversation_id from public.chats c"
        " join public.user_memories m on (m.user_id, m.source_conversation_id) = (c.user_id, c.conversation_id)"
        " where c.user_id = %s limit 1", (USER,)
    ).fetchone()  # fmt: skip
    assert survivor
    assert chat
    return db, {
        "user_id": USER,
        "id": survivor[0],
        "ids": [survivor[0]],
        "chat_id": chat[0],
        "conversation_id": chat[1],
        "memory_type": "event",
        "category": "category2",
        "query": "word17",
        "model": "plan",
        "embedding": "[1,0,1]",
        "threshold": 0.7,
        "limit": 10,
        "days_old": 30,
        "term": "long",
        "key": "note/4995",
        "pattern": "note/1%",
    }


def explain(conn: psycopg.Connection[Any], name: str, params: dict[str, Any]) -> list[dict[str, Any]]:
    """The nodes of a named query's plan."""
    row = psycopg.ClientCursor(conn).execute("explain (format json) " + queries("memory")[name], params).fetchone()
    assert row
    return list(nodes(row[0][0]["Plan"]))


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def indexes(plan: list[dict[str, Any]]) -> set[str]:
    arbiters = {name for node in plan for name in node.get("Conflict Arbiter Indexes", ())}
    return arbiters | {node["Index Name"] for node in plan if "Index Name" in node}


def test_as_operator_each_query_is_served_by_its_index_and_each_index_serves_a_query(filled: Filled) -> None:
    db, params = filled
    db.execute("set row_security = off")
    plans = {name: explain(db, name, params) for name in queries("memory")}
    kinds = {name: {node["Node Type"] for node in plan} for name, plan in plans.items()}

    unserved = {name: indexes(plan) for name, plan in plans.items() if SERVED_BY.get(name) not in indexes(plan)}
    assert not unserved
    assert not [name for name in FROM_THE_INDEX_ALONE if "Index Only Scan" not in kinds[name]]
    assert not [name for name in IN_THE_INDEXS_ORDER if "Sort" in kinds[name]]

    made = db.execute(
        "select indexname from pg_indexes where schemaname = 'public' and indexname like 'idx%'"
    ).fetchall()
    assert {name for (name,) in made} == {index for index in SERVED_BY.values() if index.startswith("idx")}


def test_as_user_no_query_reads_a_whole_table_and_each_finds_its_rows(filled: Filled) -> None:
    db, params = filled
    tables = db.execute(
        "select a.attrelid::regclass::text from pg_attribute a join pg_class c on c.oid = a.attrelid"
        " where a.attname = 'user_id' and c.relkind = 'r' and c.relnamespace = 'public'::regnamespace"
    ).fetchall()
    for (table,) in tables:
        db.execute(f"create policy own on {table} to authenticated using (user_id = (select auth.uid()))")
    whole, found = {}, {}
    with db.transaction():
        db.execute("set local role authenticated")
        db.execute("select set_config('request.jwt.claim.sub', %s, true)", (USER,))
        for name in queries("memory").keys() - OPERATORS:
            plan = explain(db, name, params)
            whole[name] = [node["Relation Name"] for node in plan if node["Node Type"] == "Seq Scan"]
            found[name] = db.execute(queries("memory")[name], params).rowcount
    assert not {name: tables for name, tables in whole.items() if tables}
    assert found.pop("memories_without_embedding") == 0
    assert not [name for name, rows in found.items() if not rows]
