"""The x-ray of a plan: locks really taken, rewrites, scans, indexes, and what that means at the target's sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dbops.config import Settings
from dbops.embedded import Scratch
from dbops.errors import Blocked
from dbops.fingerprint import schema_text
from dbops.migrate.files import Migration, Script
from dbops.migrate.history import History
from dbops.migrate.kinds import program
from dbops.migrate.plan import Act, Plan
from dbops.migrate.xray import Xray, XrayStep, xray
from dbops.migrate.xray.estimate import Seen

SCHEMA = """
create table users (id bigint primary key, n int, name text);
create index users_n on users (n);
create table orders (id bigint, user_id bigint);
create table events (id int, at date) partition by range (at);
create table events_25 partition of events for values from ('2025-01-01') to ('2026-01-01');
create view ids as select id from users;
insert into users select g, g, repeat('x', 500) from generate_series(1, 20000) g;
"""
VERSIONS = [f"20250101_{n:06}" for n in range(1, 31)]
Look = Callable[..., Xray]


def act(text: str, version: str = VERSIONS[0]) -> Act:
    path = Path(f"{version}_try.sql")
    migration = Migration(version, "try", path, Script(text, path))
    return Act(migration, "up", program(migration.up))


@pytest.fixture
def target(empty_url: str, empty_db: psycopg.Connection[Any]) -> str:
    empty_db.execute(SCHEMA.encode())
    empty_db.execute(b"vacuum analyze users")
    return empty_url


@pytest.fixture
def look(target: str, server: Scratch) -> Look:
    """look(*texts): the x-ray of migrations with these texts. The target refuses to be written."""

    def run(*texts: str) -> Xray:
        acts = tuple(act(text, version) for text, version in zip(texts, VERSIONS, strict=False))
        reading = psycopg.conninfo.make_conninfo(target, options="-c default_transaction_read_only=on")
        return xray(Plan("up", acts), reading, Settings(scratch_url=server.url), server.major)

    return run


def only(found: Xray) -> Seen:
    (step,) = found.steps
    (seen,) = step.statements
    assert seen.state == "ran", seen.error
    return seen


def locks(seen: Seen, *, created: bool = False) -> dict[str, str]:
    return {lock.relation: lock.mode for lock in seen.locks if lock.created is created}


def blocks(seen: Seen) -> dict[str, str]:
    return {block.relation: block.what for block in seen.blocks}


# a statement, the strongest lock on users, whether users is rewritten, whether it is scanned
STATEMENTS = [
    ("alter table users alter n type bigint", "ACCESS EXCLUSIVE", True, True),
    ("alter table users alter name type varchar", "ACCESS EXCLUSIVE", False, False),
    ("alter table users add c float default random()", "ACCESS EXCLUSIVE", True, True),
    ("alter table users add c int default 5", "ACCESS EXCLUSIVE", False, False),
    ("alter table users add c int", "ACCESS EXCLUSIVE", False, False),
    ("alter table users alter n set not null", "ACCESS EXCLUSIVE", False, True),
    ("alter table users add constraint c check (n > 0)", "ACCESS EXCLUSIVE", False, True),
    ("alter table users add constraint c check (n > 0) not valid", "ACCESS EXCLUSIVE", False, False),
    ("alter table users set (fillfactor = 70)", "SHARE UPDATE EXCLUSIVE", False, False),
    ("alter table users alter n set statistics 500", "SHARE UPDATE EXCLUSIVE", False, False),
    ("create index on users (name)", "SHARE", False, True),
    ("create trigger t before insert on users for each row execute function suppress_redundant_updates_trigger()",
     "SHARE ROW EXCLUSIVE", False, False),
    ("alter table users enable row level security", "ACCESS EXCLUSIVE", False, False),
    ("drop table users cascade", "ACCESS EXCLUSIVE", False, False),
    ("truncate users", "ACCESS EXCLUSIVE", False, False),
    ("drop index users_n", "ACCESS EXCLUSIVE", False, False),
    ("comment on table users is 'x'", "SHARE UPDATE EXCLUSIVE", False, False),
    ("update users set n = n + 1", "ROW EXCLUSIVE", False, True),
    ("update users set n = n + 1 where id = 5", "ROW EXCLUSIVE", False, False),
    ("do $$ begin alter table users alter n type bigint; end $$", "ACCESS EXCLUSIVE", True, True),
    ("lock table users in exclusive mode", "EXCLUSIVE", False, False),
]  # fmt: skip


def test_what_a_statement_does_to_a_table(look: Look) -> None:
    texts = [text for text, *_ in STATEMENTS]
    found = look(*(f"{text}; select 1 / 0" for text in texts))  # rolled back: each finds the table as it was
    seen = [step.statements[0] for step in found.steps]
    assert [
        (text, locks(s)["public.users"], "public.users" in s.rewrites, "public.users" in s.scans)
        for text, s in zip(texts, seen, strict=True)
    ] == STATEMENTS


def test_a_rewrite_builds_the_indexes_anew(look: Look) -> None:
    seen = only(look("alter table users alter n type bigint"))
    assert {built.index for built in seen.indexes} == {"public.users_pkey", "public.users_n"}


def test_an_index_that_is_only_taken_over_is_not_built(look: Look) -> None:
    found = look("create unique index u on users (name); alter table users add constraint u unique using index u")
    first, second = found.steps[0].statements
    assert [(built.index, built.relation, built.method) for built in first.indexes] == [
        ("public.u", "public.users", "btree")
    ]
    assert second.indexes == ()


def test_a_big_table_of_the_target_is_named_with_its_size(look: Look) -> None:
    seen = only(look("alter table users alter n type bigint"))
    (block,) = seen.blocks
    assert (block.relation, block.what) == ("public.users", "reads and writes")
    assert block.bytes > 10_000_000
    assert block.rows == 20_000
    assert seen.about_ms > seen.duration_ms + 50  # 10 MB rewritten, two indexes of 20,000 rows
    assert block.about_ms == pytest.approx(seen.about_ms)


def test_a_foreign_key_locks_both_tables_and_looks_up_each_row(look: Look) -> None:
    seen = only(look("alter table orders add foreign key (user_id) references users"))
    assert locks(seen)["public.orders"] == locks(seen)["public.users"] == "SHARE ROW EXCLUSIVE"
    assert blocks(seen) == {"public.orders": "writes", "public.users": "writes"}
    assert seen.keys == ("public.orders",)
    assert "public.orders" in seen.scans

    seen = only(look("create table more (id bigint references users)"))
    assert locks(seen) == {"public.users": "SHARE ROW EXCLUSIVE"}
    assert locks(seen, created=True)["public.more"] == "ACCESS EXCLUSIVE"
    assert (seen.keys, seen.scans) == ((), ())


def test_validating_later_blocks_nobody(look: Look) -> None:
    key = "alter table orders add constraint k foreign key (user_id) references users not valid"
    check = "alter table orders add constraint c check (id > 0) not valid"
    found = look(
        f"{key}; {check}", "alter table orders validate constraint k", "alter table orders validate constraint c"
    )
    of_key, of_check = found.steps[1].statements[0], found.steps[2].statements[0]

    assert found.steps[0].statements[0].keys == ()
    assert locks(of_key)["public.orders"] == "SHARE UPDATE EXCLUSIVE"
    assert locks(of_key)["public.users"] == "ROW SHARE"
    assert (of_key.keys, of_key.blocks) == (("public.orders",), ())
    assert locks(of_check)["public.orders"] == "SHARE UPDATE EXCLUSIVE"
    assert (of_check.scans, of_check.blocks) == (("public.orders",), ())


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("create index concurrently i on users (name)", {"public.users": "SHARE UPDATE EXCLUSIVE"}),
        ("drop index concurrently users_n", {"public.users": "SHARE UPDATE EXCLUSIVE"}),
        ("reindex table concurrently users", {"public.users": "SHARE UPDATE EXCLUSIVE"}),
        ("reindex index concurrently users_n", {"public.users": "SHARE UPDATE EXCLUSIVE"}),
        ("vacuum users", {"public.users": "SHARE UPDATE EXCLUSIVE"}),
        ("vacuum full users", {"public.users": "ACCESS EXCLUSIVE"}),
        (
            "alter table events detach partition events_25 concurrently",
            {"public.events": "SHARE UPDATE EXCLUSIVE", "public.events_25": "ACCESS EXCLUSIVE"},
        ),
    ],
)
def test_statements_outside_a_transaction_are_stopped_and_seen(look: Look, text: str, wanted: dict[str, str]) -> None:
    found = look(text)
    assert not found.steps[0].transactional
    seen = only(found)
    assert {name: mode for name, mode in locks(seen).items() if name in wanted} == wanted
    assert set(blocks(seen)) == {name for name, mode in wanted.items() if mode == "ACCESS EXCLUSIVE"}
    assert ("public.users" in seen.rewrites) is ("full" in text)
    assert bool(seen.indexes) is text.startswith(("create", "reindex", "vacuum full"))


def test_a_lock_counts_until_the_migration_ends(look: Look) -> None:
    found = look("alter table orders add c int; update users set n = n + 1")
    first, second = found.steps[0].statements
    assert blocks(first) == {"public.orders": "reads and writes"}
    assert blocks(second) == {"public.users": "writes to the rows it changes"}
    assert first.blocks[0].about_ms > second.about_ms > first.about_ms


def test_names_are_those_of_the_target(look: Look) -> None:
    found = look("alter table users rename to people", "alter table people alter n type bigint")
    seen = found.steps[1].statements[0]
    assert seen.rewrites == ("public.users",)
    assert seen.blocks[0].bytes > 10_000_000


def test_each_migration_stands_on_those_before(look: Look) -> None:
    found = look("create table fresh (id int)", "alter table fresh add n int", "create index on fresh (n)")
    assert found.failed == ()
    assert [step.statements[0].blocks for step in found.steps] == [(), (), ()]
    assert locks(found.steps[1].statements[0], created=True) == {"public.fresh": "ACCESS EXCLUSIVE"}


def states(step: XrayStep) -> list[str]:
    return [seen.state for seen in step.statements]


def test_a_statement_that_fails_ends_its_migration_and_not_the_others(look: Look) -> None:
    found = look(
        "create table fresh (id int); alter table nowhere add c int; drop table users",
        "alter table fresh add c int",
        "create index concurrently i on users (name); alter table nowhere add c int; drop table users",
        "alter table orders add c int",
    )
    assert [states(step) for step in found.steps] == [
        ["ran", "failed", "not looked at"],
        ["failed"],
        ["ran", "failed", "not looked at"],
        ["ran"],
    ]
    assert 'relation "nowhere" does not exist' in found.steps[0].statements[1].error
    assert 'relation "fresh" does not exist' in found.steps[1].statements[0].error
    assert found.failed == tuple(VERSIONS[:3])


def test_a_deferred_failure_is_told_at_the_last_statement(look: Look) -> None:
    found = look(
        "create table a (id int primary key); create table b (id int references a deferrable initially deferred); "
        "insert into b values (1)"
    )
    assert states(found.steps[0]) == ["ran", "ran", "failed"]


def test_steps_of_an_interrupted_run_are_not_run_again(
    look: Look, target: str, empty_db: psycopg.Connection[Any]
) -> None:
    from dbops.migrate.parse import tree_checksum

    text = "create index concurrently i on users (name); set search_path = public; alter table users add c int"
    empty_db.execute(b"create index i on users (name)")
    history = History(empty_db, "public.schema_migrations")
    history.ensure()
    values = {"record_table": history.table, "version": VERSIONS[0], "direction": "up", "step": 1, "steps": 3}
    checksum = tree_checksum(act(text).program.statements[:1])
    rest = {"state": "done", "marker": "", "backend_pid": None, "backend_start": None, "before": []}
    empty_db.execute(history.query("step_started", **values, checksum=checksum, **rest))

    assert states(look(text).steps[0]) == ["done before", "ran", "ran"]


def test_what_reaches_beyond_the_database_is_left_out(look: Look, server: Scratch) -> None:
    found = look(
        "create database xray_beyond; create index concurrently i on users (name); alter system set work_mem = '9MB'",
        "copy users to program 'touch /tmp/xray_beyond'; alter table users add c int",
    )
    first, second = found.steps
    assert states(first) == ["left out", "ran", "left out"]
    assert "beyond the database" in first.statements[0].error
    assert states(second) == ["left out", "not looked at"]
    assert found.failed == ()
    with psycopg.connect(server.url) as conn:
        assert conn.execute("select from pg_database where datname = 'xray_beyond'").fetchall() == []


def test_a_migration_may_set_its_role_and_path(look: Look) -> None:
    found = look("create schema app; set local search_path = app; create table t (id int); alter table t add c int")
    assert states(found.steps[0]) == ["ran"] * 4
    assert locks(found.steps[0].statements[3], created=True) == {}  # held since the table was made


def test_the_target_is_unchanged(look: Look, target: str, empty_db: psycopg.Connection[Any]) -> None:
    files = (
        "select oid::regclass::text, relfilenode from pg_class where relnamespace = 'public'::regnamespace order by 1"
    )
    before = schema_text(target, ("public",)).text, empty_db.execute(files.encode()).fetchall()
    look("drop table orders; truncate users; alter table users alter n type bigint", "create table fresh (id int)")
    assert (schema_text(target, ("public",)).text, empty_db.execute(files.encode()).fetchall()) == before
    assert empty_db.execute(b"select count(*) from users").fetchone() == (20_000,)


def test_nothing_is_left_on_the_scratch_server(look: Look, server: Scratch) -> None:
    def left() -> list[tuple[Any, ...]]:
        with psycopg.connect(server.url) as conn:
            databases = conn.execute("select datname from pg_database").fetchall()
            return sorted(databases + conn.execute("select rolname from pg_roles").fetchall())

    before = left()
    look(
        "create role xray_role; create table t (id int); grant select on t to xray_role",
        "create index concurrently i on users (name)",
    )
    assert left() == before


def test_a_locked_target_is_not_waited_for_long(look: Look, target: str) -> None:
    with psycopg.connect(target) as other:
        other.execute("lock table users in access exclusive mode")
        with pytest.raises(Blocked, match="is locked"):
            look("select 1")


def test_on_a_server_of_its_own_with_the_memory_schema(memory_url: str, server: Scratch) -> None:
    text = "alter table user_memories add column mood text; grant select on user_memories to authenticated"
    found = xray(Plan("up", (act(text),)), memory_url, Settings(), server.major)

    assert found.not_copied == ()
    assert states(found.steps[0]) == ["ran", "ran"]
    assert (found.server_version, found.server_kind) == (str(server.major), "embedded")
    assert blocks(found.steps[0].statements[0]) == {"public.user_memories": "reads and writes"}


def test_an_extension_that_the_scratch_server_lacks_is_named(
    look: Look, empty_db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dbops import schema_copy

    empty_db.execute(b"create extension vector; create table docs (id int, e vector(3))")
    objects = schema_copy._objects
    monkeypatch.setattr(
        schema_copy, "_objects", lambda dump: objects(dump.replace("NOT EXISTS vector", "NOT EXISTS nowhere"))
    )
    found = look("alter table docs add n int", "alter table users add c int")
    assert [item.object for item in found.not_copied] == ["extension vector", "table public.docs"]
    assert [states(step) for step in found.steps] == [["failed"], ["ran"]]
