"""A merge or its undoing that is killed, blocked, overtaken, cut off: the live rows are those before or those after."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Mortal
from tools import WHOLE, wait_for

from dbops.backup.manifest import dump
from dbops.backup.merge import merge, plan_merge, undo
from dbops.backup.model import Manifest
from dbops.backup.objects import manifest_key
from dbops.embedded import with_database
from dbops.errors import Blocked, CannotConnect, DbopsError, DifferenceFound, LockHeld
from tests.backup_snapshot import Shop, open_shop

pytestmark = pytest.mark.fault
TABLES = ("person", "note", "event", "remark")
SCHEMA = """
    create table person (user_id int primary key, name text unique);
    create table note (user_id int references person on delete cascade, id int generated always as identity, body text,
      primary key (user_id, id));
    create table event (user_id int, id serial, what text, primary key (user_id, id)) partition by list (user_id);
    create table event_1 partition of event for values in (1);
    create table event_2 partition of event default;
    create table remark (id int primary key, person int references person, said text);
    insert into person select n, 'name ' || n from generate_series(1, 50) n;
    insert into note (user_id, body) select 1 + n % 50, repeat(md5(n::text), 9) from generate_series(1, 6000) n;
    insert into event (user_id, what) select 1 + n % 50, 'e' || n from generate_series(1, 1000) n;
    insert into remark values (1, 1, 'one'), (2, 2, 'two');
"""
HARM = """
    delete from person where user_id between 10 and 30; update note set body = 'bad' where user_id > 40;
    insert into note (user_id, body) select 5, 'new' from generate_series(1, 500); delete from event where id % 3 = 0;
    update person set name = 'x' where user_id = 7; update person set name = 'name 7' where user_id = 8
"""
# what is planned and written in a process of its own, killed at its step `last`
PROGRAM = """
import os, signal, sys
from pathlib import Path
from dbops.backup.local import LocalStore
from dbops.backup.manifest import read
from dbops.backup.merge import merge, plan_merge, undo
from dbops.config import Settings
from dbops.errors import DbopsError

url, folder, backup, run, last = sys.argv[1:]
store, settings, seen = LocalStore(Path(folder)), Settings(url=url, wait=60.0), 0

def step(text):
    global seen
    if seen == int(last):
        os.kill(os.getpid(), signal.SIGKILL)
    seen += 1

print("go", flush=True)
try:
    if run:
        undo(run, url, settings, tell=step)
    else:
        with plan_merge(read(store, backup), store, url, settings, mode="replace", tell=step) as prepared:
            merge(prepared)
except DbopsError as error:
    sys.exit(f"{type(error).__name__}: {error.message}")
print(seen)
"""


@dataclass(frozen=True)
class Harmed:
    """A database that was harmed since its backup: the rows before a merge and those after it."""

    shop: Shop
    manifest: Manifest
    before: dict[str, list[tuple[Any, ...]]]
    after: dict[str, list[tuple[Any, ...]]]

    def merge(self, **settings: Any) -> str:
        return self.shop.merge(self.manifest, "replace", settings=settings).run

    def rows(self) -> str:
        """Which rows are there."""
        now = self.shop.all()
        return "before" if now == self.before else "after" if now == self.after else "neither"

    def runs(self) -> list[str]:
        if not self.shop.rows("select from pg_namespace where nspname = 'dbops'"):
            return []
        return [run for (run,) in self.shop.rows("select run from dbops.restore_runs order by finished_at")]

    def begin(self, run: str = "", last: int = -1) -> subprocess.Popen[str]:
        """A merge, or the undoing of `run`, in a process that is about to begin."""
        command = [sys.executable, "-c", PROGRAM, self.shop.url, str(self.shop.store.folder), self.manifest.id]
        pipe = subprocess.PIPE
        process = subprocess.Popen([*command, run, str(last)], stdout=pipe, stderr=pipe, text=True)
        assert process.stdout
        assert process.stdout.readline() == "go\n", process.communicate()[1]
        return process

    def left_clean(self) -> None:
        """No session of dbops, none of its locks, no temporary table, no schema beside."""
        names = "select from pg_stat_activity where datname = current_database() and application_name like 'dbops %'"
        wait_for(lambda: not self.shop.rows(names))
        wait_for(lambda: not self.shop.rows("select relname from pg_class where relpersistence = 't'"))
        assert not self.shop.rows("select nspname from pg_namespace where nspname like 'dbops_restore%'")
        assert not self.shop.rows("select tgname from pg_trigger where not tgisinternal and tgenabled <> 'O'")


def harmed(shop: Shop) -> Harmed:
    shop.run(SCHEMA)
    manifest, after = shop.backup(), shop.all()
    shop.store.put(manifest_key(manifest.id), dump(manifest))
    shop.run(HARM)
    shop.run("create function forbid() returns trigger language plpgsql as $$ begin raise 'a trigger fired'; end $$")
    found = Harmed(shop, manifest, shop.all(), after)
    for table in TABLES:
        shop.run(
            f"create trigger never before insert or update or delete on {table} for each row execute function forbid()"
        )
    return found


@pytest.fixture
def shop(make_database: Callable[..., str], tmp_path: Path) -> Iterator[Shop]:
    with open_shop(make_database("empty"), tmp_path, TABLES) as shop:
        yield shop


@pytest.fixture
def target(shop: Shop) -> Harmed:
    return harmed(shop)


def test_killed_at_random_moments(target: Harmed) -> None:
    """At its steps and between them, the merge and its undoing in turns; each time the next run does the whole."""
    took, steps = unhurt(target, "")
    undone = unhurt(target, target.runs()[-1])
    assert target.rows() == "before"
    chance, killed = random.Random(7), 0
    for number in range(25 if WHOLE else 2):
        for merged in (False, True):
            seconds, count = undone if merged else (took, steps)
            run = target.runs()[-1] if merged else ""
            recorded, was = len(target.runs()), target.rows()
            assert was == ("after" if merged else "before")
            process = target.begin(run, chance.randrange(count) if number % 2 else -1)
            if not number % 2:
                time.sleep(seconds * chance.random())
                process.kill()
            process.communicate()
            killed += process.returncode == -signal.SIGKILL
            target.left_clean()
            now = target.rows()
            assert now in ("before", "after"), "rows are half merged"
            assert (len(target.runs()) - recorded) == (now != was), "the record does not say what happened"
            if now == was:
                assert undo(run, target.shop.url, target.shop.settings).run if merged else target.merge()
            assert target.rows() == ("before" if merged else "after")
    assert killed


def unhurt(target: Harmed, run: str) -> tuple[float, int]:
    """The seconds and the steps of a run that nothing disturbs."""
    process = target.begin(run)
    began = time.monotonic()
    out, err = process.communicate()
    assert process.returncode == 0, err
    return time.monotonic() - began, int(out)


@contextmanager
def somebody(shop: Shop, statement: str) -> Iterator[psycopg.Connection[Any]]:
    """Another session, in the middle of a transaction."""
    with psycopg.connect(shop.url, autocommit=True, application_name="somebody") as conn:
        conn.execute("begin")
        conn.execute(statement.encode())
        yield conn


@pytest.mark.parametrize(
    ("statement", "held"),
    [
        ("lock table note in row exclusive mode", "holds note"),
        ("lock table person in share update exclusive mode", "holds person"),
        ("lock table event_1 in row exclusive mode", "holds event_1"),
        ("select from note where user_id = 45 for update", "holds note"),
        ("select nextval('event_id_seq')", "holds event_id_seq"),
    ],
)
def test_a_lock_that_somebody_holds(target: Harmed, statement: str, held: str) -> None:
    target.shop.run("alter table event disable trigger never; select setval('event_id_seq', 1)")
    with somebody(target.shop, statement) as other:
        pid, told = other.info.backend_pid, list[str]()
        settings = replace(target.shop.settings, lock_timeout=0.3, lock_tries=2)
        shop = target.shop
        with plan_merge(target.manifest, shop.store, shop.url, settings, mode="replace", tell=told.append) as prepared:
            with pytest.raises(Blocked, match=f"process {pid} .*somebody, idle in transaction.* {held}") as caught:
                merge(prepared)
            assert "nothing was written" in caught.value.hint
            waits = [text for text in told if text.startswith("waiting for a lock")]
            assert len(waits) <= settings.lock_tries
            assert target.rows() == "before"
            other.execute("rollback")
            assert merge(prepared).run  # the plan still holds
    assert target.rows() == "after"


def test_a_parent_that_somebody_deletes(target: Harmed) -> None:
    """Outside the selection: the reference is held as PostgreSQL's own check does."""
    shop = target.shop
    for table in ("remark", "person", "note"):
        shop.run(f"drop trigger never on {table}")
    shop.run("delete from remark")
    with somebody(shop, "delete from person where user_id = 2") as other:
        settings = {"lock_timeout": 0.3, "lock_tries": 2}
        with pytest.raises(Blocked, match=f"process {other.info.backend_pid} .*somebody"):
            shop.merge(target.manifest, "missing", tables=["remark"], settings=settings)
        assert shop.all("remark") == {"remark": []}
        other.execute("commit")
    with pytest.raises(DbopsError, match="1 row of the backup would refer to rows that are not there"):
        shop.merge(target.manifest, "missing", tables=["remark"])
    assert shop.all("remark") == {"remark": []}


def test_two_at_once(target: Harmed) -> None:
    both = [target.begin(), target.begin()]
    ended = [(*process.communicate(), process.returncode) for process in both]
    codes = sorted(code for *_, code in ended)
    assert codes in ([0, 0], [0, 1]), ended
    if codes == [0, 1]:
        assert any(err.startswith("DifferenceFound: the live rows have changed") for _, err, _ in ended), ended
    assert len(target.runs()) == 1
    assert target.rows() == "after"
    target.left_clean()


def test_one_within_another(target: Harmed) -> None:
    """The second has its plan already; it waits for the first, and then its plan holds no more."""
    shop = target.shop
    impatient, refused = replace(shop.settings, wait=0.1), list[str]()

    def second(text: str) -> None:
        if text == "written":
            with pytest.raises(LockHeld, match="another runner holds the lock") as caught:
                merge(later)
            refused.append(caught.value.message)

    with plan_merge(target.manifest, shop.store, shop.url, impatient, mode="replace") as later:
        with plan_merge(target.manifest, shop.store, shop.url, shop.settings, mode="replace", tell=second) as first:
            merge(first)
        assert len(refused) == 1
        with pytest.raises(DifferenceFound, match="since the plan was made"):
            merge(later)
    assert target.rows() == "after"
    assert len(target.runs()) == 1


def test_somebody_who_goes_on_writing(target: Harmed) -> None:
    """Users whom the merge does not concern lose nothing that they write meanwhile."""
    shop, stop, written = target.shop, threading.Event(), list[int]()
    shop.run("alter table note disable trigger never")

    def write() -> None:
        with psycopg.connect(shop.url, autocommit=True) as conn:
            while not stop.is_set():
                conn.execute("insert into note (user_id, body) values (3, %s)", [f"mine {len(written)}"])
                conn.execute("update note set body = %s where user_id = 4", [f"count {len(written)}"])
                written.append(1)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        wait_for(lambda: written)
        for user in range(10, 16):
            assert shop.merge(target.manifest, "missing", user=str(user), settings={"lock_tries": 50}).written
    finally:
        stop.set()
        thread.join()
    assert shop.rows("select count(*) from note where body like 'mine %'") == [(len(written),)]
    assert shop.rows("select distinct body from note where user_id = 4") == [(f"count {len(written) - 1}",)]
    assert shop.rows("select count(*) from note where user_id between 10 and 15") == [(720,)]


# a server of our own


def on(mortal: Mortal, folder: Path) -> Shop:
    """A database there, with a connection that ends with the server."""
    with psycopg.connect(mortal.server.url, autocommit=True) as conn:
        conn.execute("create database shop")
    return reopened(with_database(mortal.server.url, "shop"), folder)


def reopened(url: str, folder: Path) -> Shop:
    with open_shop(url, folder, TABLES) as shop:
        return replace(shop, conn=psycopg.connect(url, autocommit=True))


@pytest.mark.parametrize("step", ["loaded public.note", "locked", "written", "saved", "committing"])
def test_the_server_is_killed_in_the_middle(mortal: Mortal, tmp_path: Path, step: str) -> None:
    target, killed = harmed(on(mortal, tmp_path)), list[str]()
    shop = target.shop

    def kill(text: str) -> None:
        if text.startswith(step) and not killed:
            killed.append(text)
            shop.conn.close()
            mortal.kill()

    with (
        pytest.raises(CannotConnect) as caught,
        plan_merge(target.manifest, shop.store, shop.url, shop.settings, mode="replace", tell=kill) as prepared,
    ):
        merge(prepared)
    assert "run the command again" in caught.value.hint
    assert killed
    mortal.start()
    target = replace(target, shop=reopened(shop.url, tmp_path))
    assert target.rows() == "before"
    assert target.runs() == []
    run = target.merge()
    assert target.rows() == "after"
    undo(run, target.shop.url, target.shop.settings)
    assert target.rows() == "before"
    target.shop.conn.close()


def test_the_disk_is_full(mortal: Mortal, tmp_path: Path) -> None:
    """As far as a server can tell: no file may grow beyond 16 MB (a segment of WAL), and the staged rows want 24."""
    target = harmed(on(mortal, tmp_path))
    shop = target.shop
    shop.run("create table large (id int primary key, body text)")
    shop.run("insert into large select n, repeat(md5(n::text), 28) from generate_series(1, 26000) n")
    target = replace(target, manifest=shop.backup(per_chunk=2000))
    shop.run("truncate large; checkpoint")
    shop.conn.close()
    mortal.stop()
    mortal.start(file_size=16 << 20)
    shop = reopened(shop.url, tmp_path)
    with pytest.raises(DbopsError, match=r"could not extend file|could not write|File too large"):
        shop.merge(target.manifest, "missing", tables=["large"])
    assert shop.rows("select count(*) from large") == [(0,)]
    target = replace(target, shop=shop)
    target.left_clean()
    assert target.rows() == "before"
    shop.conn.close()
    mortal.stop()
    mortal.start()
    shop = reopened(shop.url, tmp_path)
    assert shop.merge(target.manifest, "missing", tables=["large"]).written == 26000
    shop.conn.close()


def test_a_prepared_transaction_is_named(mortal: Mortal, tmp_path: Path) -> None:
    """It has no process that could be ended, and outlives the server."""
    target = harmed(on(mortal, tmp_path))
    target.shop.run("alter system set max_prepared_transactions = 2")
    target.shop.conn.close()
    mortal.stop()
    mortal.start()
    target = replace(target, shop=reopened(target.shop.url, tmp_path))
    with somebody(target.shop, "lock table note in row exclusive mode") as other:
        other.execute("prepare transaction 'forgotten'")
    with pytest.raises(
        Blocked, match=r"a prepared transaction \(of postgres, for \d+ s\) holds note: forgotten"
    ) as caught:
        target.merge(lock_timeout=0.3, lock_tries=1)
    assert "ROLLBACK PREPARED" in caught.value.hint
    assert target.rows() == "before"
    target.shop.run("rollback prepared 'forgotten'")
    target.merge()
    assert target.rows() == "after"
    target.shop.conn.close()
