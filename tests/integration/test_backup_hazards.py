"""What others do to a database while it is backed up: no row is lost without a word, whatever the moment."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dbops.backup import create as create_module
from dbops.backup import source as source_module
from dbops.backup.create import Progress, create
from dbops.backup.local import LocalStore
from dbops.backup.manifest import read_all
from dbops.backup.model import Manifest, Name
from dbops.config import Settings
from dbops.errors import Blocked, LockHeld, NotAllowed

ROWS = 50_000
SETUP = f"create table t (id int primary key, body text); insert into t select n, 'row ' || n from generate_series(1, {ROWS}) n"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def url(empty_url: str) -> str:
    with psycopg.connect(empty_url, autocommit=True) as conn:
        conn.execute(SETUP)
    return empty_url


def take(url: str, store: LocalStore, notes: list[str] | None = None, **more: Any) -> Manifest:
    def tell(progress: Progress) -> None:
        if progress.note and notes is not None:
            notes.append(progress.note)

    return create(url, store, Settings(url=url, lock_timeout=0.3, **more), "manual", tell=tell)


def rows(manifest: Manifest) -> dict[str, int]:
    return {each.name.name: each.rows for each in manifest.tables}


@contextmanager
def beside(url: str, statement: str) -> Iterator[int]:
    """The statement running in another session, which waits for its lock at the latest when this begins."""
    with psycopg.connect(url, autocommit=True) as conn, psycopg.connect(url, autocommit=True) as watch:
        pid = conn.info.backend_pid
        thread = threading.Thread(target=conn.execute, args=(statement.encode(),))
        thread.start()
        try:
            waiting = "select count(*) from pg_locks where pid = %s and not granted"
            while thread.is_alive() and not watch.execute(waiting, [pid]).fetchall()[0][0]:
                time.sleep(0.01)
            yield pid
        finally:
            thread.join()


def once(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, act: Callable[[], None], *, after: bool = False
) -> None:
    """Have `act` happen before (or after) the first call of a function, and at no other."""
    real, calls = getattr(module, name), []

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if len(calls) == 1 and not after:
            act()
        result = real(*args, **kwargs)
        if len(calls) == 1 and after:
            act()
        return result

    monkeypatch.setattr(module, name, wrapped)


# --- a change of form between the steps ----------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("vacuum full t", {"t": ROWS}),
        ("truncate t", {"t": 0}),
        ("alter table t alter column id type bigint", {"t": ROWS}),
        ("cluster t using t_pkey", {"t": ROWS}),
        ("drop table t", {}),
        ("alter table t rename to u", {"u": ROWS}),
    ],
)
def test_a_change_that_queues_behind_our_locks_is_let_through_and_the_backup_begun_anew(
    url: str, store: LocalStore, monkeypatch: pytest.MonkeyPatch, statement: str, expected: dict[str, int]
) -> None:
    """Snapshot first and locks later read 35,500 of 50,000 rows after VACUUM FULL, and none after TRUNCATE."""
    started: list[Any] = []

    def queue() -> None:
        context = beside(url, statement)
        started.append((context, context.__enter__()))

    notes: list[str] = []
    # the snapshot is taken and the leader holds its locks; the workers have none yet
    once(monkeypatch, create_module, "details", queue, after=True)
    manifest = take(url, store, notes)
    started[0][0].__exit__(None, None, None)
    assert any("begun anew" in note and f"process {started[0][1]} " in note and statement in note for note in notes), (
        notes
    )
    assert rows(manifest) == expected
    assert sum(chunk.rows for chunk in manifest.chunks) == sum(expected.values())


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("vacuum full t", {"t": ROWS}),
        ("truncate t", {"t": 0}),
        ("drop table t", {}),
        ("alter table t rename to u", {"u": ROWS}),
        ("create table u as table t", {"t": ROWS, "u": ROWS}),
        ("insert into t select n, 'late' from generate_series(-9, 0) n", {"t": ROWS + 10}),
        ("drop table t; create table t as select 1 as other", {"t": 1}),
    ],
)
@pytest.mark.parametrize("after", [False, True], ids=["before the locks", "after the locks"])
def test_what_is_committed_between_the_list_and_the_snapshot_is_seen(
    url: str, store: LocalStore, monkeypatch: pytest.MonkeyPatch, statement: str, expected: dict[str, int], after: bool
) -> None:
    if after and not statement.startswith(("create", "insert")):
        pytest.skip("our lock keeps it out")

    def change() -> None:
        with psycopg.connect(url, autocommit=True) as conn:
            for each in statement.split("; "):
                conn.execute(each.encode())

    once(monkeypatch, source_module, "lock", change, after=after)
    manifest = take(url, store)
    assert rows(manifest) == expected


def test_rows_after_the_snapshot_are_not_in_the_backup_and_rows_before_it_are(
    url: str, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change() -> None:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("delete from t where id % 2 = 0")
            conn.execute("update t set body = 'later'")
            conn.execute("insert into t select n, 'later' from generate_series(100001, 200000) n")

    once(monkeypatch, create_module, "details", change)
    assert rows(take(url, store)) == {"t": ROWS}


def test_a_table_that_is_held_exclusively_is_named_with_who_holds_it(url: str, store: LocalStore) -> None:
    with psycopg.connect(url, application_name="somebody") as conn:
        conn.execute("lock table t in access exclusive mode")
        holder = f"process {conn.info.backend_pid} "
        with pytest.raises(Blocked, match="somebody") as raised:
            take(url, store, lock_tries=2)
    assert holder in raised.value.message
    assert read_all(store) == ((), ())
    assert rows(take(url, store)) == {"t": ROWS}


def test_a_sequence_is_never_behind_its_rows(url: str, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "create table s (id serial, what text); insert into s (what) select 'x' from generate_series(1, 10)"
        )

        def insert() -> None:
            conn.execute("insert into s (what) select 'later' from generate_series(1, 5)")

        once(monkeypatch, create_module, "sequences", insert)
        manifest = take(url, store)
    assert rows(manifest)["s"] == 10
    value = next(each.last_value for each in manifest.sequences if each.name == Name("public", "s_id_seq"))
    assert value == 15


def test_a_sequence_that_is_dropped_meanwhile_begins_the_backup_anew(
    url: str, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create sequence gone; create sequence stays")
        once(monkeypatch, create_module, "sequences", lambda: conn.execute("drop sequence gone") and None)
        manifest = take(url, store)
    assert [each.name.name for each in manifest.sequences] == ["stays"]


# --- rights --------------------------------------------------------------------------------------


@pytest.fixture
def secured(url: str, request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    """secured(attributes): the URL of a new role with these that owns a table under FORCE ROW LEVEL SECURITY."""
    made: list[str] = []

    def make(attributes: str) -> str:
        name = f"owner_{time.monotonic_ns()}"
        made.append(name)
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(f"create role {name} login {attributes}".encode())
            conn.execute(f"alter table t owner to {name}".encode())
            conn.execute("alter table t enable row level security; alter table t force row level security")
            conn.execute("create policy p on t using (id = 1)")
        return make_conninfo(url, user=name)

    yield make
    with psycopg.connect(url, autocommit=True) as conn:
        for name in made:
            conn.execute(f"drop owned by {name} cascade; drop role {name}".encode())


def test_a_plain_owner_under_forced_row_security_is_refused_in_words(
    secured: Callable[[str], str], store: LocalStore
) -> None:
    with pytest.raises(NotAllowed, match="row level security") as raised:
        take(secured("nobypassrls"), store)
    assert "BYPASSRLS" in raised.value.hint
    assert list(store.list("backups/")) == []


def test_a_role_with_bypassrls_backs_up_all_rows(secured: Callable[[str], str], store: LocalStore) -> None:
    manifest = take(secured("bypassrls"), store)
    assert rows(manifest) == {"t": ROWS}


def test_a_role_that_may_not_read_a_table_is_told_which(url: str, store: LocalStore) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create role nobody_much login")
        try:
            with pytest.raises(NotAllowed, match="table t"):
                take(make_conninfo(url, user="nobody_much"), store)
        finally:
            conn.execute("drop role nobody_much")


def test_others_rows_are_an_error_and_not_fewer_rows(url: str, store: LocalStore) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create role reader login; grant select on t to reader; alter table t enable row level security")
        conn.execute("create policy p on t using (id = 1)")
        try:
            with pytest.raises(NotAllowed, match="row-level security"):
                take(make_conninfo(url, user="reader"), store)
        finally:
            conn.execute("drop owned by reader; drop role reader")
    assert read_all(store) == ((), ())


# --- what is left out ----------------------------------------------------------------------------


def test_foreign_and_excluded_tables_are_named(url: str, store: LocalStore) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "create foreign data wrapper w; create server s foreign data wrapper w; create foreign table f (a int) server s"
        )
        conn.execute("create table log_1 (a int); insert into log_1 values (1)")
        conn.execute("create materialized view m as select 1 as a")
        conn.execute("create temp table passing (a int)")
    manifest = create(url, store, Settings(url=url), "manual", exclude=("log_*",))
    assert rows(manifest) == {"t": ROWS}
    assert [each.name for each in manifest.omitted] == ["public.f", "public.log_1", "public.m"]


def test_an_extensions_configuration_rows_are_kept_and_its_other_tables_are_not(url: str, store: LocalStore) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create extension vector")
        for name in ("ours", "theirs"):
            conn.execute(f"create table {name} (a int, own boolean); alter extension vector add table {name}".encode())
            conn.execute(f"insert into {name} values (1, true), (2, false), (3, true)".encode())
        # as pg_extension_config_dump does in an extension's script
        conn.execute(
            "update pg_extension set extconfig = array['ours'::regclass::oid], extcondition = array['WHERE own'] "
            "where extname = 'vector'"
        )
    manifest = take(url, store)
    assert rows(manifest) == {"ours": 2, "t": ROWS}


def test_schemas_that_supabase_manages_are_rows_only_or_left_out_and_ones_own_are_whole(
    url: str, store: LocalStore
) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create role supabase_admin")
        try:
            for schema in ("auth", "vault"):
                conn.execute(
                    f"create schema {schema} authorization supabase_admin; create table {schema}.kept (a int)".encode()
                )
                conn.execute(f"insert into {schema}.kept values (1)".encode())
            conn.execute("create schema storage; create table storage.mine (a int)")
            manifest = take(url, store)
        finally:
            conn.execute("drop schema auth, vault cascade; drop role supabase_admin")
    assert [str(each.name) for each in manifest.tables] == ["auth.kept", "public.t", "storage.mine"]
    assert [each.name for each in manifest.omitted] == ["auth", "vault"]
    text = gzip.decompress(store.get(f"backups/{manifest.id}/schema.sql.gz"))
    assert b"storage.mine" in text
    assert b"kept" not in text


# --- two at once ---------------------------------------------------------------------------------


def test_a_second_create_waits_and_says_so(url: str, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    second: list[Manifest] = []
    thread = threading.Thread(target=lambda: second.append(take(url, store, notes)))

    def begin_another() -> None:
        thread.start()
        while not notes:
            time.sleep(0.01)

    once(monkeypatch, create_module, "details", begin_another)
    first = take(url, store)
    thread.join()
    assert notes[0].startswith("waiting: ")
    assert rows(first) == rows(second[0]) == {"t": ROWS}
    assert first.id != second[0].id
    assert second[0].new_bytes == sum(each.stored_bytes for each in second[0].objects)


def test_a_second_create_that_waits_too_long_is_refused(
    url: str, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[LockHeld] = []

    def another() -> None:
        with pytest.raises(LockHeld) as raised:
            take(url, store, wait=0.1)
        refused.append(raised.value)

    once(monkeypatch, create_module, "details", another)
    take(url, store)
    assert len(refused) == 1
    assert len(read_all(store)[0]) == 1
