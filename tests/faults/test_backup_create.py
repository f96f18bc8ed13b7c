"""Killed, cut off, out of disk: a backup that is listed is whole, and the next run works and uses what was stored."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import NO_POOLER, PGBOUNCER, Mortal, pooler, through
from tools import WHOLE, needs_the_server_here, wait_for

import dbops.backup.create
from dbops.backup.copying import Setup, Stored, Task
from dbops.backup.create import Progress, create
from dbops.backup.local import LocalStore
from dbops.backup.manifest import read_all
from dbops.backup.model import Manifest
from dbops.backup.objects import chunk_key
from dbops.backup.verify import verify
from dbops.backup.workers import Worker, stored
from dbops.config import Settings
from dbops.database import parameters
from dbops.embedded import Scratch
from dbops.errors import CannotConnect, DbopsError, NotProven, StoreError, UnfitServer

pytestmark = pytest.mark.fault
ROWS = 20_000
SETUP = (
    f"create table t (id int primary key, body text); "
    f"insert into t select n, repeat(md5(n::text), 40) from generate_series(1, {ROWS}) n"
)
PROGRAM = """
import sys
from pathlib import Path
from dbops.backup.create import create
from dbops.backup.local import LocalStore
from dbops.config import Settings
from dbops.errors import DbopsError
url, folder = sys.argv[1:]
try:
    print(create(url, LocalStore(Path(folder)), Settings(url=url, wait=60.0), "manual").id)
except DbopsError as error:
    sys.exit(f"{type(error).__name__}: {error.message} ({error.hint})")
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def url(empty_url: str) -> str:
    fill(empty_url)
    return empty_url


def fill(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(SETUP)


def take(url: str, store: LocalStore, tell: Callable[[Progress], None] = lambda _: None) -> Manifest:
    return create(url, store, Settings(url=url), "manual", tell=tell)


def begin(url: str, store: LocalStore, **more: Any) -> subprocess.Popen[str]:
    """A create in a process of its own."""
    command = [sys.executable, "-c", PROGRAM, url, str(store.folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def sessions(url: str) -> list[Any]:
    """Of a backup, in this database."""
    with psycopg.connect(url) as conn:
        return conn.execute(
            "select pid from pg_stat_activity where datname = current_database() and application_name like 'dbops backup%'"
        ).fetchall()


def sound(store: LocalStore) -> None:
    """All backups that are listed are whole."""
    try:
        assert verify(store).damaged == ()
    except NotProven:
        assert read_all(store) == ((), ())


@pytest.mark.parametrize("group", [False, True], ids=["it alone", "with its workers"])
def test_killed_at_random_moments(url: str, store: LocalStore, group: bool, tmp_path: Path) -> None:
    began = time.monotonic()
    assert end(begin(url, LocalStore(tmp_path / "timed")))[0] == 0
    took = time.monotonic() - began
    chance = random.Random(f"{group}")
    killed = 0
    for _ in range(25 if WHOLE else 4):
        process = begin(url, store, start_new_session=group)
        time.sleep(took * chance.random())
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        killed += end(process)[0] == -signal.SIGKILL
        sound(store)
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("insert into t select max(id) + 1, 'more' from t")
    assert killed
    # an orphan ends when its standard input does
    wait_for(lambda: not sessions(url))
    manifest = take(url, store)
    sound(store)
    with psycopg.connect(url) as conn:
        assert manifest.rows == conn.execute("select count(*) from t").fetchall()[0][0]


def test_what_a_killed_run_stored_is_used_by_the_next(url: str, store: LocalStore) -> None:
    process = begin(url, store)
    wait_for(lambda: len(list(store.list("chunks/"))) > 5 or process.poll() is not None)
    process.kill()
    assert end(process)[0] == -signal.SIGKILL
    wait_for(lambda: not sessions(url))
    there = {item.key for item in store.list("chunks/")}
    before = sum(item.size for item in store.list("chunks/"))
    manifest = take(url, store)
    after = sum(item.size for item in store.list("chunks/"))
    beside = sum(each.stored_bytes for each in manifest.objects)
    assert len(there) > 5
    assert manifest.new_bytes - beside == after - before < after
    sound(store)


def test_a_worker_that_is_killed_is_no_success(url: str, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def bereft(setup: Setup, tasks: Iterable[Task], workers: list[Worker]) -> Iterator[Stored]:
        os.kill(workers[0].process.pid, signal.SIGKILL)
        return stored(setup, tasks, workers)

    with monkeypatch.context() as patch:
        patch.setattr("dbops.backup.create.stored", bereft)
        with pytest.raises(DbopsError, match="worker process of the backup ended by itself"):
            take(url, store)
    assert read_all(store) == ((), ())
    assert take(url, store).rows == ROWS


def test_a_lost_leader_is_no_success(url: str, store: LocalStore) -> None:
    """With its session go the locks under which all was read."""
    ended: list[bool] = []

    def end_leader(_: Progress) -> None:
        if not ended:
            with psycopg.connect(url) as conn:
                query = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'dbops backup'"
                ended.extend(row[0] for row in conn.execute(query + " and datname = current_database()"))

    with pytest.raises(CannotConnect):
        take(url, store, end_leader)
    assert ended == [True]
    assert read_all(store) == ((), ())
    assert take(url, store).rows == ROWS


@needs_the_server_here
def test_the_server_killed_in_the_middle(mortal: Mortal, store: LocalStore) -> None:
    fill(mortal.server.url)
    killed: list[int] = []

    def kill(_: Progress) -> None:
        if not killed:
            killed.append(mortal.pid)
            mortal.kill()

    with pytest.raises(CannotConnect, match="connection"):
        take(mortal.server.url, store, kill)
    assert read_all(store) == ((), ())
    mortal.start()
    assert take(mortal.server.url, store).rows == ROWS
    sound(store)


def test_a_full_disk_is_told_and_leaves_no_backup(url: str, store: LocalStore) -> None:
    def limit() -> None:
        # past this size a write fails as on a full disk: every chunk is larger
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))

    code, _, told = end(begin(url, store, preexec_fn=limit))
    assert code == 1
    assert told.startswith("StoreError: chunks/")
    assert "the store is full" in told
    assert read_all(store) == ((), ())
    store.tidy(
        datetime.now(UTC) + timedelta(minutes=1)
    )  # a worker that was ended with the other may leave what it was writing
    assert list(store.folder.rglob("*.tmp")) == []
    assert take(url, store).rows == ROWS
    sound(store)


@pytest.mark.parametrize("times", [1, 5])
def test_what_is_swept_meanwhile_is_copied_anew(
    url: str, store: LocalStore, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """A sweep that had looked at a chunk's age before create made it count as new."""
    rounds: list[Manifest] = []

    def swept(wanted: Any) -> tuple[Manifest, dict[str, bytes]]:
        manifest, texts = tries(wanted)
        if len(rounds) < times:
            store.delete([chunk_key(manifest.chunks[0].sha256)])
        rounds.append(manifest)
        return manifest, texts

    tries = dbops.backup.create._tries
    monkeypatch.setattr("dbops.backup.create._tries", swept)
    if times == 1:
        assert take(url, store).rows == ROWS
        sound(store)
    else:
        with pytest.raises(StoreError, match="vanish"):
            take(url, store)
        assert read_all(store) == ((), ())


def test_two_creates_at_once_both_succeed(url: str, store: LocalStore) -> None:
    both = [begin(url, store) for _ in range(2)]
    ended = [end(each) for each in both]
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert len({out for _, out, _ in ended}) == 2
    first, second = read_all(store)[0]
    assert first.chunks == second.chunks
    assert second.new_bytes == sum(each.stored_bytes for each in second.objects)
    sound(store)


def test_the_disk_of_a_store_that_cannot_be_written_is_named(url: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DbopsError, match="file"):
        take(url, LocalStore(tmp_path / "file"))


@pytest.fixture
def standby(mortal: Mortal) -> Mortal:
    """A server that recovers for ever, with a table, an unlogged one and a sequence."""
    with psycopg.connect(mortal.server.url, autocommit=True) as conn:
        conn.execute("alter system set wal_level = replica")
    for _ in range(2):  # what was written before the change no standby takes
        mortal.stop()
        mortal.start()
    with psycopg.connect(mortal.server.url, autocommit=True) as conn:
        conn.execute(SETUP)
        conn.execute("create unlogged table fleeting (a int); insert into fleeting values (1)")
        conn.execute("create sequence counter; select setval('counter', 7); checkpoint")
    mortal.stop()
    (mortal.data / "standby.signal").touch()
    mortal.start()
    return mortal


@needs_the_server_here
def test_a_standby_is_backed_up_without_its_unlogged_tables(standby: Mortal, store: LocalStore) -> None:
    manifest = take(standby.server.url, store)
    assert {each.name.name: each.rows for each in manifest.tables} == {"t": ROWS}
    assert [(each.name, each.reason.split(":")[0]) for each in manifest.omitted] == [("public.fleeting", "unlogged")]
    assert [(each.name.name, each.last_value) for each in manifest.sequences] == [("counter", 7)]
    sound(store)


def test_a_pooler_is_refused_by_name(server: Scratch, url: str, store: LocalStore) -> None:
    if not PGBOUNCER or not parameters(server.url).get("host", "").startswith("/"):
        pytest.skip(NO_POOLER)
    with pooler(server, server_idle_timeout=1) as place, pytest.raises(UnfitServer, match="pooler"):
        take(through(place, url), store)
    assert read_all(store) == ((), ())
