"""Marks, clean-up and undo in SQL: exact restoration, refusals, forged rows, the triggers of the word sets."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg.sql import SQL

from dbops.config import Settings
from dbops.policy import PolicyManager
from dbops.sql import shipped

Connection = psycopg.Connection[Any]
TABLES = ("user_memories", "memory_usage", "memory_embeddings", "memory_blobs", "memory_tokens")


def one(db: Connection, query: str, params: Sequence[Any] = ()) -> Any:
    row = db.execute(query.encode(), params).fetchone()
    return row[0] if row else None


def new_user(db: Connection) -> uuid.UUID:
    return one(db, "insert into auth.users default values returning id")


def memory(db: Connection, user: uuid.UUID, fact: str = "likes tea", tags: Sequence[str] = ()) -> uuid.UUID:
    query = (
        "insert into public.user_memories (user_id, fact, memory_type, tags) values (%s, %s, 'fact', %s) returning id"
    )
    return one(db, query, (user, fact, list(tags)))


def state(db: Connection) -> dict[str, list[str]]:
    """All rows of all tables, as text."""
    return {t: [r[0] for r in db.execute(f"select x::text from public.{t} x order by 1".encode())] for t in TABLES}


def use(db: Connection, user: uuid.UUID, of: uuid.UUID, times: int) -> None:
    db.execute(
        "insert into public.memory_usage as u values (%s, %s, %s, now())"
        " on conflict (user_id, memory_id) do update set access_count = u.access_count + excluded.access_count",
        (user, of, times),
    )


def mark(db: Connection, user: uuid.UUID, losers: Sequence[uuid.UUID], original: uuid.UUID) -> tuple[int, uuid.UUID]:
    batch = uuid.uuid4()
    query = "select public.mark_memory_duplicates(%s, %s, %s, %s)"
    return one(db, query, (user, list(losers), [original] * len(losers), batch)), batch


def undo(db: Connection, user: uuid.UUID, batch: uuid.UUID) -> dict[uuid.UUID, str | None]:
    rows = db.execute("select id, refused from public.undo_hygiene_batch(%s, %s)", (user, batch)).fetchall()
    assert len(rows) == len({row[0] for row in rows})
    return dict(rows)


# marks and their undo ---------------------------------------------------------------------------------------------


def test_a_mark_merges_into_the_original_and_its_undo_restores_every_byte(db: Connection) -> None:
    user = new_user(db)
    original = memory(db, user, tags=["b"])
    losers = [memory(db, user, tags=["c", "a"]), memory(db, user, tags=["b"]), memory(db, user, tags=["d"])]
    older = memory(db, user)
    db.execute("select public.mark_memory_duplicate(%s, %s, %s)", (user, older, losers[0]))
    for it, times in zip(losers, (3, 4, 0), strict=True):
        use(db, user, it, times)
    before = state(db)

    count, batch = mark(db, user, losers, original)
    assert count == 3
    rows = db.execute("select id, is_active, duplicate_of, tags, version from public.user_memories").fetchall()
    marked = {row[0]: row[1:] for row in rows}
    assert marked[original] == (True, None, ["b", "a", "c", "d"], 1)
    assert {marked[it][:2] for it in (*losers, older)} == {(False, original)}, "a loser's loser points to the original"
    assert one(db, "select access_count from public.memory_usage where memory_id = %s", (original,)) == 7
    assert one(db, "select array_agg(memory_id) from public.memory_tokens") == [original]

    db.execute("set timezone = 'Asia/Tokyo'")
    db.execute("set extra_float_digits = 0")
    db.execute("set datestyle = 'German'")
    assert set(undo(db, user, batch).values()) == {None}
    for setting in ("timezone", "extra_float_digits", "datestyle"):
        db.execute(f"reset {setting}".encode())
    assert state(db) == before


def test_an_undo_refuses_what_was_changed_since_and_says_which(db: Connection) -> None:
    user = new_user(db)
    original, changed, deleted, kept = (memory(db, user) for _ in range(4))
    _, batch = mark(db, user, [changed, deleted, kept], original)
    db.execute("update public.user_memories set importance = 5 where id = %s", (changed,))
    db.execute("delete from public.user_memories where id = %s", (deleted,))
    assert undo(db, user, batch) == {changed: "it was changed since", deleted: "it was deleted since", kept: None}
    active = one(db, "select array_agg(id) from public.user_memories where is_active")
    assert set(active) == {original, kept}
    assert set(undo(db, user, batch)) == {changed, deleted}, "what came back is not undone again"
    assert one(db, "select count(*) from public.hygiene_batches where undoes = %s", (batch,)) == 2


def test_counts_that_went_on_are_kept(db: Connection) -> None:
    user = new_user(db)
    original, loser = memory(db, user), memory(db, user)
    use(db, user, loser, 5)
    _, batch = mark(db, user, [loser], original)
    use(db, user, original, 2)
    undo(db, user, batch)
    counts = "select memory_id, access_count from public.memory_usage"
    assert dict(db.execute(counts.encode()).fetchall()) == {original: 2, loser: 5}


def test_two_marks_in_one_batch_are_undone_together(db: Connection) -> None:
    user = new_user(db)
    original, first, second = (memory(db, user, tags=[tag]) for tag in "abc")
    before, batch = state(db), uuid.uuid4()
    for loser in (first, second):
        db.execute("select public.mark_memory_duplicates(%s, %s, %s, %s)", (user, [loser], [original], batch))
    assert set(undo(db, user, batch).values()) == {None}
    assert state(db) == before


def test_an_undo_is_done_once(db: Connection) -> None:
    user = new_user(db)
    original, loser = memory(db, user), memory(db, user)
    use(db, user, original, 90)
    use(db, user, loser, 10)
    _, batch = mark(db, user, [loser], original)
    undo(db, user, batch)
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="has been undone already"):
        undo(db, user, batch)
    assert one(db, "select access_count from public.memory_usage where memory_id = %s", (original,)) == 90
    (itself,) = db.execute("select id from public.hygiene_batches where undoes = %s", (batch,)).fetchone() or ()
    with pytest.raises(errors.InvalidParameterValue, match="is itself the undo of"):
        undo(db, user, itself)


def test_two_undos_at_one_time(db: Connection, memory_url: str) -> None:
    user = new_user(db)
    original, loser = memory(db, user), memory(db, user)
    use(db, user, loser, 10)
    before = state(db)
    _, batch = mark(db, user, [loser], original)
    found: list[Exception] = []

    def second() -> None:
        try:
            undo(db, user, batch)
        except errors.ObjectNotInPrerequisiteState as error:
            found.append(error)

    with psycopg.connect(memory_url) as other:
        undo(other, user, batch)
        late = threading.Thread(target=second)
        late.start()
        late.join(0.3)
        assert late.is_alive(), "it waits"
        other.commit()
        late.join()
    assert len(found) == 1
    assert state(db) == before


def test_a_partial_undo_takes_back_what_came_back_and_the_rest_can_follow(db: Connection) -> None:
    user = new_user(db)
    original, stays, comes = memory(db, user, tags=["o"]), memory(db, user, tags=["s", "x"]), memory(db, user, tags=["c", "x"])  # fmt: skip
    use(db, user, original, 100)
    use(db, user, stays, 10)
    use(db, user, comes, 1)
    before = state(db)
    _, batch = mark(db, user, [stays, comes], original)
    was = one(db, "select updated_at from public.user_memories where id = %s", (stays,))
    change = "update public.user_memories set importance = %s, updated_at = %s where id = %s"
    db.execute(change.encode(), (5, was, stays))
    kept = "it keeps the tags of duplicates that stay"
    for _ in range(2):
        found = undo(db, user, batch)
        assert found | {comes: None} == {stays: "it was changed since", original: kept, comes: None}
        assert one(db, "select tags from public.user_memories where id = %s", (original,)) == ["o", "s", "x"]
        assert one(db, "select access_count from public.memory_usage where memory_id = %s", (original,)) == 110
    db.execute(change.encode(), (3, was, stays))
    assert undo(db, user, batch) == {stays: None, original: None}
    assert state(db) == before
    with pytest.raises(errors.ObjectNotInPrerequisiteState):
        undo(db, user, batch)


def test_columns_that_came_since_do_not_hinder_an_undo(db: Connection) -> None:
    user = new_user(db)
    original, loser, forgotten = (memory(db, user, tags=[tag]) for tag in "abc")
    use(db, user, loser, 1)
    old(db, forgotten)
    before = state(db)
    _, marks = mark(db, user, [loser], original)
    _, cleaned = clean(db, user, 90)
    with db.transaction(force_rollback=True):
        db.execute("alter table public.user_memories add mood text not null default 'calm', add twice text generated always as (fact || fact) stored")  # fmt: skip
        db.execute("alter table public.memory_usage add place text not null default 'here'")
        assert set(undo(db, user, marks).values()) == {None}
        assert undo(db, user, cleaned) == {forgotten: None}
        assert one(db, "select array_agg(distinct mood) from public.user_memories") == ["calm"]
        for column in ("user_memories drop mood, drop twice", "memory_usage drop place"):
            table, drops = column.split(" ", 1)
            db.execute(f"alter table public.{table} {drops}".encode())
        assert state(db) == before


def test_what_is_gone_or_inactive_is_skipped(db: Connection) -> None:
    mine, theirs = new_user(db), new_user(db)
    original, loser, forgotten, other = memory(db, mine), memory(db, mine), memory(db, mine), memory(db, theirs)
    db.execute("update public.user_memories set is_active = false where id = %s", (forgotten,))
    assert mark(db, mine, [loser, forgotten, other, uuid.uuid4()], original)[0] == 1
    assert mark(db, mine, [original], forgotten)[0] == 0
    assert one(db, "select count(*) from public.hygiene_batches") == 1
    with pytest.raises(errors.NoDataFound, match="both must be active"):
        db.execute("select public.mark_memory_duplicate(%s, %s, %s)", (mine, other, original))


def test_lists_that_make_no_sense_are_refused(db: Connection) -> None:
    user = new_user(db)
    a, b = memory(db, user), memory(db, user)
    call = "select public.mark_memory_duplicates(%s, %s::uuid[], %s::uuid[], %s)"
    for owner, ids, originals in (
        (None, [a], [b]), (user, [a], [a]), (user, [a, b], [b, a]), (user, [a], []), (user, [a, a], [b, b]), (user, [None], [b]),
    ):  # fmt: skip
        with pytest.raises(errors.InvalidParameterValue):
            db.execute(call.encode(), (owner, ids, originals, uuid.uuid4()))


def test_two_sessions_that_mark_the_same_memory(db: Connection, memory_url: str) -> None:
    user = new_user(db)
    original, other, loser = memory(db, user), memory(db, user), memory(db, user)
    found: list[int] = []
    with psycopg.connect(memory_url) as first, psycopg.connect(memory_url) as second:
        assert mark(first, user, [loser], original)[0] == 1
        late = threading.Thread(target=lambda: found.append(mark(second, user, [loser], other)[0]))
        late.start()
        late.join(0.3)
        assert late.is_alive(), "it waits for the row"
        first.commit()
        late.join()
    assert found == [0]
    assert one(db, "select duplicate_of from public.user_memories where id = %s", (loser,)) == original


@pytest.mark.parametrize("originals", [1, 2500])
def test_marks_of_a_user_whom_statistics_do_not_know(db: Connection, originals: int) -> None:
    """Each plan that joins in a nested loop takes a minute and more."""
    make = (
        "insert into public.user_memories (user_id, fact, memory_type, tags) select %s, 'likes tea', 'fact', array[n::text]"
        " from generate_series(1, %s) n returning id"
    )
    db.execute(make.encode(), (new_user(db), 50))
    db.execute("analyze")
    user = new_user(db)
    ids = [row[0] for row in db.execute(make.encode(), (user, 5000))]
    db.execute("insert into public.memory_usage select user_id, id, 2, now() from public.user_memories where user_id = %s", (user,))  # fmt: skip
    before, batch = state(db), uuid.uuid4()
    losers = ids[originals:]
    db.execute("set statement_timeout = '20s'")
    query = "select public.mark_memory_duplicates(%s, %s, %s, %s)"
    survivors = [ids[n % originals] for n in range(len(losers))]
    assert one(db, query, (user, losers, survivors, batch)) == len(losers)
    assert set(undo(db, user, batch).values()) == {None}
    assert state(db) == before


def test_a_mark_waits_for_who_changes_a_losers_loser(db: Connection, memory_url: str) -> None:
    user = new_user(db)
    original, loser, older = memory(db, user), memory(db, user), memory(db, user)
    mark(db, user, [older], loser)
    batches: list[uuid.UUID] = []
    with psycopg.connect(memory_url) as writer:
        writer.execute("update public.user_memories set importance = 5 where id = %s", (older,))
        late = threading.Thread(target=lambda: batches.append(mark(db, user, [loser], original)[1]))
        late.start()
        late.join(0.3)
        assert late.is_alive(), "it waits for the row"
        writer.commit()
        late.join()
    assert undo(db, user, batches[0]) == {loser: None, older: None}
    assert db.execute("select importance, duplicate_of from public.user_memories where id = %s", (older,)).fetchone() == (5, loser)  # fmt: skip


def test_a_mark_beside_an_undo_of_a_losers_loser(db: Connection, memory_url: str) -> None:
    user = new_user(db)
    original, loser, older = memory(db, user), memory(db, user), memory(db, user)
    _, first = mark(db, user, [older], loser)
    with psycopg.connect(memory_url) as other:
        assert undo(other, user, first) == {older: None}
        late = threading.Thread(target=lambda: mark(db, user, [loser], original))
        late.start()
        late.join(0.3)
        assert late.is_alive(), "it waits for the row"
        other.commit()
        late.join()
    rows = db.execute("select id from public.user_memories where is_active").fetchall()
    assert {row[0] for row in rows} == {original, older}


@pytest.mark.parametrize(
    ("kept", "brought", "merged"),
    [
        ("{{a,b},{c,d}}", "{d,e}", ["a", "b", "c", "d", "e"]),
        ("{a}", "{{a,b},{c,d}}", ["a", "b", "c", "d"]),
        ("{NULL,a}", "{a,b,NULL}", [None, "a", "b"]),
        ("{}", "{NULL}", []),
    ],
)
def test_tags_of_any_shape_are_merged_and_come_back(db: Connection, kept: str, brought: str, merged: list[str]) -> None:
    user = new_user(db)
    original, loser = memory(db, user), memory(db, user)
    for it, tags in ((original, kept), (loser, brought)):
        db.execute("update public.user_memories set tags = %s where id = %s", (tags, it))
    before = state(db)
    _, batch = mark(db, user, [loser], original)
    assert one(db, "select tags from public.user_memories where id = %s", (original,)) == merged
    assert set(undo(db, user, batch).values()) == {None}
    assert state(db) == before


# clean-up ---------------------------------------------------------------------------------------------------------


def old(db: Connection, it: uuid.UUID) -> None:
    query = "update public.user_memories set is_active = false, updated_at = now() - interval '100 days' where id = %s"
    db.execute(query, (it,))


def clean(db: Connection, user: uuid.UUID, days: int, limit: int | None = None) -> tuple[int, uuid.UUID]:
    batch, total = uuid.uuid4(), 0
    while count := one(db, "select public.cleanup_old_memories(%s, %s, %s, %s)", (user, days, batch, limit)):
        total += count
        if limit is None:
            break
    return total, batch


@pytest.mark.parametrize("limit", [None, 1, 2])
def test_a_clean_up_and_its_undo_restore_every_byte(db: Connection, limit: int | None) -> None:
    user = new_user(db)
    original, losers, forgotten = memory(db, user), [memory(db, user) for _ in range(3)], memory(db, user, "x", ["t"])
    mark(db, user, losers, original)
    for it in (original, *losers, forgotten):
        old(db, it)
    use(db, user, forgotten, 9)
    db.execute("insert into public.embedding_models (model, dimensions) values ('small', 2)")
    db.execute("insert into public.memory_embeddings values (%s, %s, 'small', 2, '[0.1,3e-20]')", (user, forgotten))
    kept = memory(db, user)
    before = state(db)

    count, batch = clean(db, user, 90, limit)
    assert count == 5
    assert one(db, "select array_agg(id) from public.user_memories") == [kept]
    assert set(undo(db, user, batch).values()) == {None}
    assert state(db) == before


def test_a_survivor_is_not_taken_before_its_losers(db: Connection) -> None:
    user = new_user(db)
    original, young = memory(db, user), memory(db, user)
    mark(db, user, [young], original)
    old(db, original)
    assert clean(db, user, 90)[0] == 0
    assert clean(db, user, 0)[0] == 2


def test_a_loser_whose_survivor_is_gone_is_never_taken(db: Connection) -> None:
    user = new_user(db)
    survivor, loser = memory(db, user), memory(db, user)
    mark(db, user, [loser], survivor)
    old(db, loser)
    db.execute("set session_replication_role = replica")
    db.execute("delete from public.user_memories where id = %s", (survivor,))
    db.execute("reset session_replication_role")
    assert clean(db, user, 90)[0] == 0


def test_an_undo_of_a_clean_up_refuses_what_can_not_come_back(db: Connection) -> None:
    user = new_user(db)
    conversation = one(db, "insert into public.conversations (user_id) values (%s) returning id", (user,))
    again, homeless, fine = memory(db, user), memory(db, user), memory(db, user)
    db.execute("update public.user_memories set source_conversation_id = %s where id = %s", (conversation, homeless))
    for it in (again, homeless, fine):
        old(db, it)
    _, batch = clean(db, user, 90)
    db.execute("delete from public.conversations")
    db.execute(
        "insert into public.user_memories (user_id, id, fact, memory_type) values (%s, %s, 'new', 'fact')",
        (user, again),
    )
    expected = {again: "it is there again", homeless: "its conversation is gone", fine: None}
    assert undo(db, user, batch) == expected
    assert one(db, "select fact from public.user_memories where id = %s", (again,)) == "new"


def test_losers_of_an_original_that_can_not_come_back_are_refused(db: Connection) -> None:
    user = new_user(db)
    conversation = one(db, "insert into public.conversations (user_id) values (%s) returning id", (user,))
    original, loser = memory(db, user), memory(db, user)
    db.execute("update public.user_memories set source_conversation_id = %s where id = %s", (conversation, original))
    mark(db, user, [loser], original)
    for it in (original, loser):
        old(db, it)
    use(db, user, original, 3)
    _, batch = clean(db, user, 90)
    db.execute("delete from public.conversations")
    expected = {original: "its conversation is gone", loser: "its original is gone"}
    assert undo(db, user, batch) == expected
    db.execute("insert into public.conversations (user_id, id) values (%s, %s)", (user, conversation))
    assert undo(db, user, batch) == {original: None, loser: None}
    assert one(db, "select access_count from public.memory_usage") == 3


def test_embeddings_whose_model_is_gone_are_named_and_can_follow(db: Connection) -> None:
    user = new_user(db)
    it = memory(db, user)
    old(db, it)
    for model in ("small", "gone"):
        db.execute("insert into public.embedding_models (model, dimensions) values (%s, 2)", (model,))
        db.execute("insert into public.memory_embeddings values (%s, %s, %s, 2, '[0.1,3e-20]')", (user, it, model))
    before = state(db)
    _, batch = clean(db, user, 90)
    db.execute("delete from public.embedding_models where model = 'gone'")
    query = "select * from public.undo_hygiene_batch(%s, %s)"
    refused = ("memory_embeddings", it, "its model is gone")
    assert db.execute(query, (user, batch)).fetchall() == [("user_memories", it, None), refused]
    assert db.execute(query, (user, batch)).fetchall() == [refused]
    db.execute("insert into public.embedding_models (model, dimensions) values ('gone', 2)")
    assert db.execute(query, (user, batch)).fetchall() == []
    assert state(db) == before


def test_expired_blobs_go_and_come_back(db: Connection) -> None:
    user = new_user(db)
    for key, expires in (("gone", "2020-01-01"), ("taken", "2020-01-02"), ("stays", None)):
        db.execute(
            "insert into public.memory_blobs (user_id, key, sha256, size_bytes, stored_bytes, content, expires_at)"
            " values (%s, %s, sha256('x'), 1, 1, '\\x00ff', %s)",
            (user, key, expires),
        )
    before, batch = state(db), uuid.uuid4()
    call = "select public.cleanup_expired_blobs(%s, %s, 1)"
    assert [one(db, call, (user, batch)) for _ in range(3)] == [1, 1, 0]
    with db.transaction(force_rollback=True):
        assert set(undo(db, user, batch).values()) == {None}
        assert state(db) == before
    db.execute("insert into public.memory_blobs (user_id, key, sha256, size_bytes, stored_bytes) values (%s, 'taken', sha256('y'), 1, 1)", (user,))  # fmt: skip
    assert sorted(undo(db, user, batch).values(), key=str) == [None, "its key is in use"]


@pytest.mark.parametrize(("days", "limit"), [(None, None), (-1, None), (90, 0)])
def test_a_clean_up_out_of_range_is_refused(db: Connection, days: int | None, limit: int | None) -> None:
    with pytest.raises(errors.InvalidParameterValue):
        db.execute("select public.cleanup_old_memories(%s, %s, gen_random_uuid(), %s)", (new_user(db), days, limit))


# users ------------------------------------------------------------------------------------------------------------


def become(db: Connection, user: uuid.UUID | None) -> None:
    db.execute("set local role authenticated")
    db.execute("select set_config('request.jwt.claim.sub', %s, true)", (str(user or ""),))


@pytest.fixture
def guarded(db: Connection, memory_url: str) -> Connection:
    PolicyManager(settings=Settings(url=memory_url, policies=shipped("policies"))).apply()
    return db


def test_a_user_does_it_all_himself(guarded: Connection) -> None:
    db = guarded
    user = new_user(db)
    with db.transaction():
        become(db, user)
        original, loser = memory(db, user), memory(db, user, tags=["x"])
        use(db, user, loser, 1)
        batch = one(db, "select public.mark_memory_duplicate(%s, %s)", (loser, original))
        assert set(db.execute("select refused from public.undo_hygiene_batch(%s)", (batch,)).fetchall()) == {(None,)}
        db.execute("select public.mark_memory_duplicate(%s, %s)", (loser, original))
        assert one(db, "select public.cleanup_old_memories(90)") == 0
        assert one(db, "select count(*) from public.find_duplicate_memories(%s, 'likes tea')", (user,)) == 1
        for statement in (
            "update public.hygiene_changes set before = '{}'",
            "delete from public.hygiene_batches",
            "update public.memory_tokens set tokens = null",
            "delete from public.memory_tokens",
            "insert into public.memory_tokens (user_id, memory_id) values (auth.uid(), gen_random_uuid())",
        ):
            with pytest.raises(errors.InsufficientPrivilege), db.transaction():
                db.execute(statement.encode())


def test_nobody_is_told_so(guarded: Connection) -> None:
    for call in (
        "mark_memory_duplicate(gen_random_uuid(), gen_random_uuid())",
        "cleanup_old_memories(90)",
        "undo_hygiene_batch(gen_random_uuid())",
    ):
        with guarded.transaction(force_rollback=True):
            become(guarded, None)
            with pytest.raises(errors.InsufficientPrivilege, match="nobody is signed in"):
                guarded.execute(f"select public.{call}".encode())


def test_forged_arguments_and_forged_ledgers_reach_nobody_else(guarded: Connection) -> None:
    db = guarded
    victim, attacker = new_user(db), new_user(db)
    a, b = memory(db, victim), memory(db, victim)
    _, theirs = mark(db, victim, [b], a)
    own = memory(db, attacker)
    before = [row for row in state(db)["user_memories"] if str(victim) in row]
    with db.transaction():
        become(db, attacker)
        assert one(db, "select count(*) from public.find_duplicate_pairs(%s, 0.1)", (victim,)) == 0
        assert mark(db, victim, [a], own)[0] == 0
        assert one(db, "select public.cleanup_old_memories(%s, 0)", (victim,)) == 0
        with pytest.raises(errors.NoDataFound), db.transaction():
            undo(db, victim, theirs)
        forged = one(
            db, "insert into public.hygiene_batches (user_id, command) values (auth.uid(), 'dedupe') returning id"
        )
        db.execute(
            "insert into public.hygiene_changes (user_id, batch, table_name, row_id, before)"
            " select auth.uid(), %s, 'user_memories', %s, to_jsonb(m) || jsonb_build_object('user_id', %s::uuid, 'fact', 'forged')"
            " from public.user_memories m where m.id = %s",
            (forged, a, victim, own),
        )
    undo(db, attacker, forged)  # an operator's undo of what a user forged
    assert [row for row in state(db)["user_memories"] if str(victim) in row] == before
    assert one(db, "select user_id from public.user_memories where fact = 'forged'") == attacker


BAD = "its record cannot be read"
AGAINST = "a constraint is against it"


@pytest.mark.parametrize(
    ("table", "before", "after", "refused"),
    [
        ("user_memories", '{"tags": 5}', None, BAD),
        ("user_memories", "{}", None, AGAINST),
        ("user_memories", '{"fact": "", "memory_type": "fact"}', None, AGAINST),
        ("user_memories", '{"duplicate_of": "x"}', None, BAD),
        ("user_memories", '{"version": 99999999999999999999999}', None, BAD),
        ("memory_usage", '{"access_count": "many"}', None, BAD),
        ("memory_embeddings", '{"model": "all-MiniLM-L6-v2", "dimensions": 384, "embedding": "x"}', None, BAD),
        ("memory_blobs", '{"sha256": []}', None, AGAINST),
        ("user_memories", '{"tags": 5}', "digest", BAD),
        ("user_memories", '{"tags": {"a": 1}}', "digest", BAD),
        ("memory_usage", '{"last_accessed_at": "never", "access_count": 1}', "digest", BAD),
    ],
)
def test_a_record_that_can_not_be_read_hinders_no_other(
    guarded: Connection, table: str, before: str, after: str | None, refused: str
) -> None:
    """A user adds records of his own to his batch; an operator undoes it."""
    db = guarded
    user = new_user(db)
    original, bad, *losers = (memory(db, user, tags=[str(n)]) for n in range(9))
    use(db, user, bad, 1)
    use(db, user, losers[0], 1)
    _, batch = mark(db, user, losers, original)
    with db.transaction():
        become(db, user)
        db.execute(
            "insert into public.hygiene_changes (user_id, batch, table_name, row_id, before, after, original, merged)"
            " values (auth.uid(), %s, %s, %s, %s, sha256('x'), %s, 1)"
            if after
            else "insert into public.hygiene_changes (user_id, batch, table_name, row_id, before)"
            " values (auth.uid(), %s, %s, %s, %s)",
            (batch, table, bad, before, *([None] if after else [])),
        )
    if after and table == "user_memories":  # as it is now
        db.execute(
            SQL(
                "update public.hygiene_changes c set after = {} from public.user_memories m"
                " where m.id = c.row_id and c.row_id = %s"
            ).format(SQL(one(db, "select public.ledger_digest('public.user_memories', 'm', 'c.before')"))),
            (bad,),
        )
    if after and table == "memory_usage":
        db.execute("update public.hygiene_changes set original = %s where row_id = %s", (bad, losers[0]))
    if not after and table == "user_memories":
        db.execute("delete from public.user_memories where id = %s", (bad,))
    found = undo(db, user, batch)
    assert found.pop(bad) == refused
    assert {it: found[it] for it in losers} == dict.fromkeys(losers)


def test_a_user_can_not_write_history(guarded: Connection) -> None:
    db = guarded
    user = new_user(db)
    insert = "insert into public.hygiene_batches (user_id, command{}) values (%s, %s{})"
    with db.transaction():
        become(db, user)
        db.execute(insert.format("", "").encode(), (user, "dedupe"))
        for column, value in (("at", "now()"), ("by", "'postgres'")):
            with pytest.raises(errors.InsufficientPrivilege), db.transaction():
                db.execute(insert.format(f", {column}", f", {value}").encode(), (user, "dedupe"))
    for command in ("a\nb", "\x1b[2J", "x\x9b", "a\u202eb"):
        with pytest.raises(errors.CheckViolation):
            db.execute(insert.format("", "").encode(), (user, command))


# operators --------------------------------------------------------------------------------------------------------


@pytest.fixture
def operator(guarded: Connection) -> Iterator[str]:
    """A role that is no superuser, owns nothing and has service_role's rights; no row level security binds it."""
    role = f"operator_{uuid.uuid4().hex[:8]}"
    guarded.execute(f"create role {role} nosuperuser bypassrls in role service_role".encode())
    yield role
    guarded.execute("reset role")
    guarded.execute(f"drop role {role}".encode())


def test_an_operator_marks_cleans_up_and_takes_it_back(guarded: Connection, operator: str) -> None:
    db = guarded
    user, other = new_user(db), new_user(db)
    db.execute("insert into public.embedding_models (model, dimensions) values ('small', 2)")
    db.execute(f"set role {operator}".encode())
    assert one(db, "select current_setting('is_superuser')") == "off"
    original, loser, older = (memory(db, user, tags=[tag]) for tag in "abc")
    forgotten, theirs = memory(db, user, "drinks coffee", ["d"]), memory(db, other)
    use(db, user, original, 2)
    use(db, user, loser, 3)
    use(db, user, forgotten, 4)
    db.execute("insert into public.memory_embeddings values (%s, %s, 'small', 2, '[0.1,3e-20]')", (user, forgotten))
    old(db, forgotten)
    db.execute(
        "insert into public.memory_blobs (user_id, key, sha256, size_bytes, stored_bytes, content, expires_at)"
        " values (%s, 'gone', sha256('x'), 1, 1, '\\x00ff', '2020-01-01')",
        (user,),
    )
    before = state(db)

    first = one(db, "select public.mark_memory_duplicate(%s, %s, %s)", (user, older, loser))
    marked = state(db)
    assert mark(db, user, [original], theirs)[0] == 0, "of two users"
    count, second = mark(db, user, [loser], original)
    assert count == 1
    facts = "select id from public.user_memories where user_id = %s and is_active"
    assert db.execute(facts.encode(), (user,)).fetchall() == [(original,)]
    both = state(db)
    count, cleaned = clean(db, user, 90)
    assert count == 1
    assert one(db, "select public.cleanup_expired_blobs(%s, %s)", (user, cleaned)) == 1
    assert one(db, "select array_agg(memory_id) from public.memory_embeddings") is None
    assert one(db, "select array_agg(distinct by) from public.hygiene_batches") == [operator]

    for batch, was in ((cleaned, both), (second, marked), (first, before)):
        assert set(undo(db, user, batch).values()) == {None}
        assert state(db) == was
    db.execute("reset role")
    assert state(db) == before


# the word sets ----------------------------------------------------------------------------------------------------


def token_sets(db: Connection) -> dict[uuid.UUID, str]:
    return dict(db.execute("select memory_id, tokens::text from public.memory_tokens").fetchall())


def test_the_triggers_follow_each_change(db: Connection) -> None:
    user = new_user(db)
    it = memory(db, user)
    assert token_sets(db) == {it: "'likes' 'tea'"}
    db.execute("update public.user_memories set fact = 'drinks coffee'")
    assert token_sets(db) == {it: "'coffee' 'drinks'"}
    db.execute("update public.user_memories set is_active = false")
    assert token_sets(db) == {}
    db.execute("update public.user_memories set is_active = true, fact = 'tea'")
    assert token_sets(db) == {it: "'tea'"}
    other = uuid.uuid4()
    db.execute("update public.user_memories set id = %s", (other,))
    assert token_sets(db) == {other: "'tea'"}
    db.execute(
        "insert into public.user_memories (user_id, id, fact, memory_type) values (%s, %s, 'x', 'fact')"
        " on conflict (user_id, id) do update set fact = 'water'",
        (user, other),
    )
    assert token_sets(db) == {other: "'water'"}
    db.execute("delete from public.user_memories")
    assert token_sets(db) == {}


def test_what_is_deleted_and_stored_anew_in_one_transaction_has_its_word_set(db: Connection) -> None:
    user = new_user(db)
    memory(db, user)
    with db.transaction():
        db.execute("delete from public.user_memories")
        memory(db, user, fact="coffee")
    assert list(token_sets(db).values()) == ["'coffee'"]


def test_a_truncate_leaves_no_word_set(db: Connection) -> None:
    user = new_user(db)
    for tables in ("public.user_memories", "public.user_memories, public.memory_tokens"):
        memory(db, user)
        db.execute(f"truncate {tables} cascade".encode())
        assert token_sets(db) == {}


@pytest.mark.parametrize("level", ["row", "statement"])
def test_an_insert_of_which_another_trigger_deletes_a_part(db: Connection, level: str) -> None:
    user = new_user(db)
    db.execute(
        "create function public.prune() returns trigger language plpgsql as"
        " $$ begin delete from public.user_memories where fact like '%secret%'; return null; end $$"
    )
    db.execute(f"create trigger a_prune after insert on public.user_memories for each {level} execute function public.prune()".encode())  # fmt: skip
    db.execute(
        "insert into public.user_memories (user_id, fact, memory_type)"
        " select %s, fact, 'fact' from unnest(array['secret tea', 'tea', 'a secret', 'coffee']) x(fact)",
        (user,),
    )
    assert sorted(token_sets(db).values()) == ["'coffee'", "'tea'"]


def test_an_insert_of_which_another_trigger_changes_a_part(db: Connection) -> None:
    user = new_user(db)
    db.execute(
        "create function public.shorten() returns trigger language plpgsql as"
        " $$ begin update public.user_memories set fact = 'green tea' where fact = 'tea';"
        " update public.user_memories set is_active = false where fact like '%secret%'; return null; end $$"
    )
    db.execute("create trigger a_shorten after insert on public.user_memories execute function public.shorten()")
    db.execute(
        "insert into public.user_memories (user_id, fact, memory_type)"
        " select %s, fact, 'fact' from unnest(array['secret tea', 'tea', 'coffee']) x(fact)",
        (user,),
    )
    assert sorted(token_sets(db).values()) == ["'coffee'", "'green' 'tea'"]


@pytest.mark.parametrize(("then", "left"), [
    ("update public.user_memories set fact = fact || ' green' where id = new.id and fact not like '%green'", ["'coffee' 'green'"]),
    ("delete from public.user_memories where id = new.id", []),
])  # fmt: skip
def test_an_update_that_another_trigger_takes_further(db: Connection, then: str, left: list[str]) -> None:
    memory(db, new_user(db))
    db.execute(f"create function public.further() returns trigger language plpgsql as $$ begin {then}; return null; end $$".encode())  # fmt: skip
    db.execute("create trigger a_further after update on public.user_memories for each row execute function public.further()")  # fmt: skip
    db.execute("update public.user_memories set fact = 'coffee'")
    assert sorted(token_sets(db).values()) == left


READ = """select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))
          from pg_stat_xact_user_tables where relname in ('user_memories', 'memory_tokens')"""


def test_what_a_sessions_first_rows_were_makes_no_plan_for_thousands(db: Connection) -> None:
    user = new_user(db)
    many = "insert into public.user_memories (user_id, fact, memory_type) select %s, 'fact ' || n, 'fact' from generate_series(1, 3000) n"
    memory(db, user)
    db.execute("delete from public.user_memories")
    with db.transaction():
        memory(db, user)
        db.execute("delete from public.user_memories")
        db.execute(many, (user,))
        # a few rows are read for each that is written
        assert one(db, READ) < 3000 * 10
    with db.transaction():
        db.execute("delete from public.user_memories")
        assert one(db, READ) < 3000 * 20
    assert token_sets(db) == {}


def test_an_insert_of_few_rows_takes_no_subtransaction(db: Connection) -> None:
    user = new_user(db)
    with db.transaction():
        began = one(db, "select pg_current_xact_id()::text::bigint")
        for _ in range(20):
            memory(db, user)
    assert one(db, "select pg_current_xact_id()::text::bigint") == began + 1


def test_a_word_set_that_was_left_behind_keeps_no_insert_away(db: Connection) -> None:
    user, it = new_user(db), uuid.uuid4()
    insert = "insert into public.user_memories (user_id, id, fact, memory_type) values (%s, %s, %s, 'fact')"
    db.execute(insert, (user, it, "tea"))
    db.execute("set session_replication_role = replica")
    db.execute("delete from public.user_memories")
    db.execute("reset session_replication_role")
    assert token_sets(db) == {it: "'tea'"}
    db.execute(insert, (user, it, "coffee"))
    assert token_sets(db) == {it: "'coffee'"}


def test_what_came_while_the_triggers_were_off_is_filled_in_batches(db: Connection) -> None:
    user = new_user(db)
    kept = memory(db, user)
    db.execute("set session_replication_role = replica")
    db.execute(
        "insert into public.user_memories (user_id, fact, memory_type, is_active)"
        " select %s, 'fact ' || n, 'fact', n > 3 from generate_series(1, 28) n",
        (user,),
    )
    db.execute("reset session_replication_role")
    assert list(token_sets(db)) == [kept]
    assert [one(db, "select public.fill_memory_tokens(10)") for _ in range(4)] == [10, 10, 5, 0]
    assert len(token_sets(db)) == 26
    for size in (0, None):
        with pytest.raises(errors.InvalidParameterValue):
            db.execute("select public.fill_memory_tokens(%s)", (size,))


def unfilled(db: Connection, user: uuid.UUID, number: int) -> None:
    with db.transaction():
        db.execute("set local session_replication_role = replica")
        db.execute(
            "insert into public.user_memories (user_id, fact, memory_type) select %s, 'fact ' || n, 'fact' from generate_series(1, %s) n",
            (user, number),
        )


def test_a_fill_goes_on_where_it_was_and_comes_back_for_what_came_before(db: Connection) -> None:
    users = sorted(new_user(db) for _ in range(4))
    for user in users:
        unfilled(db, user, 7)
    assert one(db, "select public.fill_memory_tokens(10)") == 10
    unfilled(db, users[0], 3)
    assert [one(db, "select public.fill_memory_tokens(10)") for _ in range(4)] == [10, 8, 3, 0]
    unfilled(db, users[0], 1)
    db.execute("set dbops.tokens_filled_to = 'anything'")
    assert [one(db, "select public.fill_memory_tokens(10)") for _ in range(2)] == [1, 0]
    assert len(token_sets(db)) == 32


def test_two_fills_at_once_leave_nothing(db: Connection, memory_url: str) -> None:
    user = new_user(db)
    unfilled(db, user, 25)
    with psycopg.connect(memory_url) as first, psycopg.connect(memory_url, autocommit=True) as second:
        assert one(first, "select public.fill_memory_tokens(10)") == 10
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(one, second, "select public.fill_memory_tokens(10)")
            while not one(db, "select count(*) from pg_locks where not granted"):
                pass
            first.commit()
            assert waiting.result() == 10
        assert [one(second, "select public.fill_memory_tokens(10)") for _ in range(2)] == [5, 0]


def test_who_does_not_see_the_memories_can_not_fill(db: Connection) -> None:
    with db.transaction(force_rollback=True):
        db.execute("grant execute on function public.fill_memory_tokens to authenticated")
        become(db, new_user(db))
        with pytest.raises(errors.InsufficientPrivilege, match="hides memories"):
            db.execute("select public.fill_memory_tokens()")
