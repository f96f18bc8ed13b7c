"""A restore that is killed, or whose server dies or fills up: the database says so, and the next try is whole."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import NO_POOLER, PGBOUNCER, Mortal, pooler, through
from tools import sample

from dbops.backup.create import Progress, create
from dbops.backup.local import LocalStore
from dbops.backup.model import Manifest
from dbops.backup.restore import restore_whole
from dbops.backup.restoring.compare import compare_tables
from dbops.backup.restoring.target import MARK
from dbops.config import Settings
from dbops.embedded import Scratch, with_database
from dbops.errors import CannotConnect, ConfirmationRequired, DbopsError, LockHeld, UnfitServer

pytestmark = pytest.mark.fault

ROWS = """
    create table large (id int primary key, t text);
    create table small (id int primary key, large int references large);
    insert into large select n, repeat(md5(n::text), 30) from generate_series(1, 8000) n;
    insert into small select n, n from generate_series(1, 2000) n;
    create index on large (t);
    create view seen as select count(*) from large;
    create function f() returns int language sql as 'select 1';
"""
# a restore that writes a line for each step and kills itself at one
RUNNER = """
import os, signal, sys
from pathlib import Path
from dbops.backup import restore
from dbops.backup.local import LocalStore
from dbops.backup.manifest import read
from dbops.config import Settings

url, folder, backup, last = sys.argv[1:]
seen = 0

def step(*_):
    global seen
    print(seen, flush=True)
    if seen == int(last):
        os.kill(os.getpid(), signal.SIGKILL)
    seen += 1

def around(function):
    def stepping(*arguments, **options):
        step()
        result = function(*arguments, **options)
        step()
        return result
    return stepping

for name in ("run", "set_mark", "remove_mark"):
    setattr(restore, name, around(getattr(restore, name)))
store = LocalStore(Path(folder))
restore.restore_whole(read(store, backup), store, url, Settings(url=url, wait=30.0), clean=True, tell=step)
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "backups")


def take(url: str, store: LocalStore, more: str = "") -> Manifest:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(f"{ROWS};{more}".encode())
    return create(url, store, Settings(url=url), "manual")


def restore(manifest: Manifest, store: LocalStore, url: str, **options: Any) -> None:
    restore_whole(manifest, store, url, Settings(url=url, wait=30.0), **options)


def whole(url: str, manifest: Manifest) -> bool:
    with psycopg.connect(url, autocommit=True) as conn:
        built = conn.execute(
            "select count(*) from pg_index i join pg_class c on c.oid = indrelid and relname in ('large', 'small')"
        )
        assert built.fetchall() == [(3,)]
        assert conn.execute("select count(*) from pg_constraint where contype = 'f'").fetchall() == [(1,)]
    return all(each.matches for each in compare_tables(url, manifest, manifest.tables, 1))


def marked(url: str) -> bool:
    with psycopg.connect(url, autocommit=True) as conn:
        return bool(conn.execute("select from pg_namespace where nspname = %s", [MARK]).fetchall())


def tables(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as conn:
        return len(conn.execute("select from pg_class where relnamespace = 'public'::regnamespace").fetchall())


def runner(url: str, store: LocalStore, manifest: Manifest, last: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUNNER, url, str(store.folder), manifest.id, str(last)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_killed_at_any_step(make_database: Callable[..., str], store: LocalStore, major: str) -> None:
    manifest = take(make_database(), store)
    unhurt = runner(make_database(), store, manifest, -1)
    assert unhurt.returncode == 0, unhurt.stderr
    steps = len(unhurt.stdout.splitlines())
    assert steps > 20
    url = make_database()
    for last in sample(steps, 4, f"restore {major}"):
        killed = runner(url, store, manifest, last)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        if marked(url):
            with pytest.raises(ConfirmationRequired, match="unfinished restore"):
                restore(manifest, store, url)
        elif tables(url):
            assert whole(url, manifest), f"killed at {last} of {steps}: half a restore looks like a whole one"
            url = make_database()
    if tables(url) or marked(url):
        restore(manifest, store, url, clean=True)
    else:
        restore(manifest, store, url)
    assert whole(url, manifest)
    assert not marked(url)


def test_a_worker_that_is_killed(make_database: Callable[..., str], store: LocalStore) -> None:
    manifest, url = take(make_database(), store), make_database()

    def kill(_: Progress) -> None:
        for process in multiprocessing.active_children():
            if process.pid and process.is_alive():
                os.kill(process.pid, signal.SIGKILL)

    with pytest.raises(DbopsError, match="a worker process of the restore ended by itself"):
        restore(manifest, store, url, tell=kill)
    assert marked(url)
    restore(manifest, store, url, clean=True)
    assert whole(url, manifest)
    assert multiprocessing.active_children() == []


def test_two_at_once(make_database: Callable[..., str], store: LocalStore) -> None:
    manifest, url = take(make_database(), store), make_database()
    refused: list[DbopsError] = []

    def second(_: Progress) -> None:
        if not refused:
            with pytest.raises(LockHeld) as caught:
                restore_whole(manifest, store, url, Settings(url=url, wait=0.1), clean=True)
            refused.append(caught.value)

    restore(manifest, store, url, tell=second)
    assert "another runner holds the lock" in refused[0].message
    assert whole(url, manifest)


def database_of(server: Scratch, name: str) -> str:
    with psycopg.connect(server.url, autocommit=True) as conn:
        conn.execute(f"create database {name}".encode())
    return with_database(server.url, name)


def test_the_server_is_killed_in_the_middle(mortal: Mortal, store: LocalStore) -> None:
    manifest, url = take(database_of(mortal.server, "source"), store), database_of(mortal.server, "target")
    killed: list[int] = []

    def kill(_: Progress) -> None:
        if not killed:
            killed.append(mortal.pid)
            mortal.kill()

    with pytest.raises(CannotConnect):
        restore(manifest, store, url, tell=kill)
    assert killed
    mortal.start()
    assert marked(url)
    restore(manifest, store, url, clean=True)
    assert whole(url, manifest)


def test_the_disk_of_the_target_is_full(mortal: Mortal, store: LocalStore) -> None:
    """As far as a server can tell: no file may grow beyond 16 MB (a segment of WAL), and the rows want 24."""
    source, url = database_of(mortal.server, "source"), database_of(mortal.server, "target")
    manifest = take(source, store, "insert into large select n, repeat('x', 900) from generate_series(8001, 24000) n")
    with psycopg.connect(mortal.server.url, autocommit=True) as conn:
        conn.execute("checkpoint")
    mortal.stop()
    mortal.start(file_size=16 << 20)
    with pytest.raises(DbopsError, match=r"rows of public\.large") as caught:
        restore(manifest, store, url)
    assert "could not extend file" in caught.value.message or "could not write" in caught.value.message
    mortal.stop()
    mortal.start()
    assert marked(url)
    restore(manifest, store, url, clean=True)
    assert whole(url, manifest)


@pytest.mark.skipif(not PGBOUNCER, reason=NO_POOLER)
def test_a_pooler_is_refused(server: Scratch, make_database: Callable[..., str], store: LocalStore) -> None:
    manifest, url = take(make_database(), store), make_database()
    with pooler(server) as place, pytest.raises(UnfitServer, match="a pooler would hand"):
        restore(manifest, store, through(place, url))
    assert tables(url) == 0
    assert not marked(url)
