"""Hygiene that is killed, raced, blocked or timed out: nothing is half-marked, what is told is so, the next run has the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dbops.errors import Blocked, DbopsError
from dbops.hygiene import Search, scan
from dbops.hygiene.table.model import Target
from tests.hygiene import ANN, BOB, Connection, image, manager, marked, one, remember, uid

pytestmark = pytest.mark.fault

FACT = "The user likes green tea in the morning"
USERS, COPIES = 6, 5
# a dedupe that kills itself at its n-th transaction: before it ends (all is sent, nothing committed) or after
RUNNER = """
import os, signal, sys
from contextlib import contextmanager
from dbops.config import Settings
from dbops.hygiene import session
from dbops.hygiene.manager import HygieneManager

url, last, when, work, batch = sys.argv[1:]
seen, inner = 0, session.Session.transaction

@contextmanager
def transaction(self, **options):
    global seen
    with inner(self, **options):
        yield
        seen += 1
        if seen == int(last) and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
    if seen == int(last):
        os.kill(os.getpid(), signal.SIGKILL)

session.Session.transaction = transaction
library = HygieneManager(settings=Settings(url=url))
library.dedupe() if work == "dedupe" else library.cleanup_old_memories() if work == "cleanup" else library.undo(batch)
"""


def crowd(conn: Connection) -> list[str]:
    """Users with copies of one fact each."""
    users = [f"00000000-0000-4000-8000-{n:012}" for n in range(USERS)]
    for n, user in enumerate(users):
        remember(conn, [FACT] * COPIES, user, first=100 * (n + 1))
    return users


def killed(url: str, last: int, when: str, work: str, batch: str = "") -> bool:
    """Run until the n-th transaction; whether there were so many."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, url, str(last), when, work, batch],
        env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def losers(conn: Connection) -> dict[str, int]:
    rows = conn.execute(
        "select user_id::text, count(duplicate_of) from user_memories group by 1 having count(duplicate_of) > 0"
    )
    return dict(rows.fetchall())


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("last", [3, 4, 5, 8])
def test_killed_in_a_batch_no_user_is_half_done_and_the_next_run_has_the_rest(
    last: int, when: str, db: Connection, memory_url: str
) -> None:
    users = crowd(db)
    before = image(db)
    assert killed(memory_url, last, when, "dedupe")
    half = losers(db)
    assert set(half.values()) <= {COPIES - 1}
    library = manager(memory_url)
    history = library.history()
    assert [(batch.marked, batch.finished) for batch in history] in ([], [(sum(half.values()), False)])
    done = library.dedupe()
    assert done.users == USERS - len(half)
    assert losers(db) == dict.fromkeys(users, COPIES - 1)
    for batch in library.history():
        if batch.marked:
            assert library.undo(batch.batch).refused == ()
    assert image(db) == before


@pytest.mark.parametrize("last", [3, 4, 6])
def test_a_killed_undo_goes_on(last: int, db: Connection, memory_url: str) -> None:
    crowd(db)
    before, library = image(db), manager(memory_url)
    batch = library.dedupe().batch
    assert batch
    assert killed(memory_url, last, "after", "undo", batch)
    assert set(losers(db).values()) <= {COPIES - 1}
    library.undo(batch)
    assert image(db) == before
    assert library.history()[0].undone == USERS * (COPIES - 1)


def test_a_killed_cleanup_can_be_undone(db: Connection, memory_url: str) -> None:
    crowd(db)
    library = manager(memory_url)
    library.dedupe()
    db.execute("update user_memories set updated_at = now() - interval '1 year' where not is_active")
    before = image(db)
    assert killed(memory_url, 5, "after", "cleanup")
    gone = len(before) - len(image(db))
    assert gone > 0
    batch = library.history()[0]
    assert not batch.finished
    assert batch.marked == gone
    assert library.undo(batch.batch).restored == gone
    assert image(db) == before


def together(*acts: Callable[[], Any]) -> list[Any]:
    """Run at one time; what each returned."""
    barrier = threading.Barrier(len(acts))

    def act(one: Callable[[], Any]) -> Any:
        barrier.wait()
        return one()

    with ThreadPoolExecutor(len(acts)) as pool:
        return [each.result() for each in [pool.submit(act, one) for one in acts]]


def test_two_runs_over_one_user_mark_each_loser_once(db: Connection, memory_url: str) -> None:
    ids = remember(db, [FACT] * 200)
    before = image(db)
    first, second = manager(memory_url), manager(memory_url)
    plans = first.scan(), second.scan()
    done = together(lambda: first.dedupe(plans[0]), lambda: second.dedupe(plans[1]))
    assert sum(each.marked for each in done) == 199
    assert sum(len(each.skipped) for each in done) == 199
    assert marked(db) == dict.fromkeys(ids[1:], ids[0])
    for each in done:
        if each.marked:
            assert each.batch
            assert manager(memory_url).undo(each.batch).refused == ()
    assert image(db) == before


def test_inserts_meanwhile_are_neither_lost_nor_touched(db: Connection, memory_url: str) -> None:
    remember(db, [FACT] * 100)
    library = manager(memory_url)

    def insert() -> None:
        with psycopg.connect(memory_url, autocommit=True) as conn:
            for n in range(100):
                conn.execute(
                    "insert into user_memories (user_id, id, fact, memory_type, importance_score) values (%s, %s, %s, 'fact', 0)",
                    [ANN, uid(1000 + n), FACT],
                )

    together(insert, library.dedupe)
    library.dedupe()
    assert one(db, "select count(*) from user_memories") == 200
    assert set(marked(db).values()) == {uid(1)}
    assert len(marked(db)) == 199


def test_a_survivor_that_goes_between_plan_and_act_saves_its_losers(db: Connection, memory_url: str) -> None:
    ids = remember(db, [FACT] * 3)
    library = manager(memory_url)
    plan = library.scan()
    db.execute("delete from user_memories where id = %s", [ids[0]])
    done = library.dedupe(plan)
    assert (done.marked, set(done.skipped)) == (0, set(ids[1:]))
    assert marked(db) == {}


def test_a_survivor_deleted_later_has_an_heir_and_undo_names_what_it_left(db: Connection, memory_url: str) -> None:
    ids = remember(db, [FACT] * 4)
    library = manager(memory_url)
    batch = library.dedupe().batch
    db.execute("delete from user_memories where id = %s", [ids[0]])
    assert one(db, "select count(*) from user_memories where is_active") == 1
    rest = image(db, "user_memories")
    assert batch
    undone = library.undo(batch)
    assert {each.id for each in undone.refused} == set(ids[1:])
    assert {each.reason for each in undone.refused} == {"it was changed since"}
    assert image(db, "user_memories") == rest


def test_an_undo_beside_new_writes_loses_none(db: Connection, memory_url: str) -> None:
    ids = remember(db, [FACT] * 150)
    library = manager(memory_url)
    batch = library.dedupe().batch
    assert batch

    def write() -> None:
        with psycopg.connect(memory_url, autocommit=True) as conn:
            for id_ in ids[50:100]:
                conn.execute("update user_memories set tags = array_append(tags, 'new') where id = %s", [id_])

    _, undone = together(write, lambda: library.undo(batch))
    assert one(db, "select count(*) from user_memories where 'new' = any (tags)") == 50
    refused = {each.id for each in undone.refused}
    assert refused <= set(ids[50:100])
    assert set(marked(db)) == refused
    assert undone.restored == 149 - len(refused)


class TestBlocked:
    def test_a_lock_that_stays_is_told_and_the_others_are_done(self, db: Connection, memory_url: str) -> None:
        remember(db, [FACT] * 3)
        remember(db, [FACT] * 3, BOB, first=11)
        library = manager(memory_url, lock_timeout=0.1, lock_tries=2)
        with psycopg.connect(memory_url) as other:
            other.execute("select from user_memories where user_id = %s for update", [BOB])
            done = library.dedupe()
            assert [each.user for each in done.failed] == [BOB]
            with pytest.raises(Blocked, match=rf"user {BOB} \(batch .*tried 2 times") as caught:
                library.dedupe()
        assert "what was committed is recorded" in caught.value.hint
        assert set(marked(db)) == {uid(2), uid(3)}
        assert library.dedupe().marked == 2

    def test_a_table_that_stays_locked_ends_the_run(self, db: Connection, memory_url: str) -> None:
        crowd(db)
        library = manager(memory_url, lock_timeout=0.05, lock_tries=1)
        with psycopg.connect(memory_url) as other:
            other.execute("lock table user_memories in share mode")
            with pytest.raises(Blocked, match=r"user .*0002 "):
                library.dedupe()
        assert marked(db) == {}

    def test_a_statement_that_may_not_take_so_long(self, db: Connection, memory_url: str) -> None:
        remember(db, [FACT] * 3)
        db.execute(
            "create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(30); return new; end';"
            "create trigger slow before update on user_memories for each row execute function slow()"
        )
        with pytest.raises(DbopsError, match="statement timeout") as caught:
            manager(memory_url, statement_timeout=0.3).dedupe()
        assert "rolled back" in caught.value.hint
        assert marked(db) == {}
        db.execute("drop trigger slow on user_memories")
        assert manager(memory_url).dedupe().marked == 2

    def test_the_roles_own_settings_do_not_count(self, db: Connection, memory_url: str) -> None:
        remember(db, [FACT] * 3)
        db.execute(
            "create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(0.4); return new; end';"
            "create trigger slow before update on user_memories for each row execute function slow()"
        )
        name = one(db, "select current_database()")
        own = "set statement_timeout = 500; alter database {0} set search_path = nowhere; alter database {0} set row_security = on"
        db.execute(f"alter database {name} {own.format(name)}".encode())
        assert manager(memory_url).dedupe().marked == 2


def forbid(conn: Connection, user: str) -> None:
    """Each change of this user's memories is an error."""
    conn.execute(
        "create function forbid() returns trigger language plpgsql as "
        "$$ begin raise exception 'not of % today', old.user_id; end $$;"
        "create trigger forbid before update or delete on user_memories for each row "
        f"when (old.user_id = '{user}') execute function forbid()".encode()
    )


class TestOneUsersError:
    def test_the_others_are_marked_and_he_is_named(self, db: Connection, memory_url: str) -> None:
        users = crowd(db)
        forbid(db, users[2])
        library = manager(memory_url)
        done = library.dedupe()
        assert [(each.user, each.reason.splitlines()[0]) for each in done.failed] == [
            (users[2], f"not of {users[2]} today")
        ]
        assert losers(db) == {user: COPIES - 1 for user in users if user != users[2]}
        assert (done.users, done.marked, done.skipped) == (USERS - 1, (USERS - 1) * (COPIES - 1), ())
        with pytest.raises(DbopsError, match=f"not of {users[2]} today"):
            library.deduplicate_memories(users[2])

    def test_the_others_are_undone_and_he_is_later(self, db: Connection, memory_url: str) -> None:
        users = crowd(db)
        before, library = image(db), manager(memory_url)
        batch = library.dedupe().batch
        assert batch
        forbid(db, users[0])
        undone = library.undo(batch)
        assert [each.user for each in undone.failed] == [users[0]]
        assert losers(db) == {users[0]: COPIES - 1}
        db.execute("drop trigger forbid on user_memories")
        assert library.undo(batch).failed == ()
        assert image(db) == before

    def test_the_others_are_cleaned_up(self, db: Connection, memory_url: str) -> None:
        users = crowd(db)
        library = manager(memory_url)
        library.dedupe()
        db.execute("update user_memories set updated_at = now() - interval '1 year' where not is_active")
        forbid(db, users[1])
        done = library.cleanup_old_memories()
        assert [each.user for each in done.failed] == [users[1]]
        assert losers(db) == {users[1]: COPIES - 1}
        assert (done.users, done.marked) == (USERS - 1, (USERS - 1) * (COPIES - 1))

    @pytest.mark.parametrize("end", ["pg_cancel_backend", "pg_terminate_backend"])
    def test_a_cancel_and_a_lost_connection_end_the_run(self, end: str, db: Connection, memory_url: str) -> None:
        crowd(db)
        db.execute(
            "create function killing() returns trigger language plpgsql as "
            f"$$ begin perform {end}(pg_backend_pid()); perform pg_sleep(1); return new; end $$;"
            "create trigger killing before update on user_memories for each row execute function killing()".encode()
        )
        with pytest.raises(DbopsError, match=r"user request|connection was lost"):
            manager(memory_url, statement_timeout=30.0).dedupe()
        assert marked(db) == {}


@pytest.mark.parametrize("last", [4, 5, 6, 7])
def test_a_pair_whose_acceptance_was_undone_is_open_again_though_the_undo_was_killed(
    last: int, db: Connection, memory_url: str
) -> None:
    remember(db, ["User has 2 cats and a very old dog", "User has 3 cats and a very old dog"])
    library, search = manager(memory_url), Search(threshold=0.7)
    library.dedupe(search=search)
    batch = library.accept([library.review()[0].id]).batch
    assert batch
    if killed(memory_url, last, "after", "undo", batch) and marked(db):
        library.undo(batch)
    assert marked(db) == {}
    assert len(library.review()) == 1
    assert library.dedupe(search=search).marked == 0


class TestAhead:
    """The next portion is asked for while this one is planned."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(scan, "_AT_ONCE", COPIES)

    def slow(self, conn: Connection, user: str) -> None:
        """The search takes a minute for this user."""
        conn.execute(
            "alter function find_duplicate_sets(uuid, double precision) rename to found_sets;"
            "create function find_duplicate_sets(u uuid, t double precision) returns table (a uuid, b uuid, similarity double precision) "
            f"language plpgsql set search_path = public as $$ begin if u = '{user}' then perform pg_sleep(60); end if; "
            "return query select * from found_sets(u, t); end $$".encode()
        )

    def test_all_portions_come_in_their_order(self, db: Connection, memory_url: str) -> None:
        users = crowd(db)
        assert [scope.scope for scope in manager(memory_url).scan().scopes] == users

    @pytest.mark.parametrize("slow", [0, 3])
    def test_ctrl_c_ends_it_and_the_server_stops(self, slow: int, db: Connection, memory_url: str) -> None:
        users = crowd(db)
        self.slow(db, users[slow])
        code = "from dbops.hygiene import HygieneManager, scan; import sys; scan._AT_ONCE = 5; HygieneManager(sys.argv[1]).scan()"
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        process = subprocess.Popen([sys.executable, "-c", code, memory_url], env=environment, stderr=subprocess.PIPE)
        asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()"
        try:
            until(lambda: one(db, asleep) == 1)
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=10)
        finally:
            process.kill()
        assert b"KeyboardInterrupt" in stderr
        assert one(db, asleep) == 0

    def test_an_error_of_the_plan_stops_the_server(
        self, db: Connection, memory_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        users = crowd(db)
        self.slow(db, users[1])
        monkeypatch.setattr(scan, "_plan", lambda *_: 1 / 0)
        started = time.monotonic()
        with pytest.raises(ZeroDivisionError):
            manager(memory_url).scan()
        assert time.monotonic() - started < 20

    def test_an_error_of_the_server_is_told(self, db: Connection, memory_url: str) -> None:
        users = crowd(db)
        self.slow(db, users[2])
        with pytest.raises(DbopsError, match=r"the search: .*statement timeout"):
            manager(memory_url, statement_timeout=0.5).scan()


def until(true: Callable[[], bool]) -> None:
    for _ in range(300):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come true in 30 s")


def plain(conn: Connection) -> str:
    name = f"hygiene_plain_{os.getpid()}"
    conn.execute(
        f"create role {name} login nosuperuser nobypassrls; grant all on all tables in schema public to {name}".encode()
    )
    return name


def test_a_role_that_sees_fewer_rows_is_refused(db: Connection, memory_url: str) -> None:
    remember(db, [FACT] * 3)
    name = plain(db)
    try:
        with pytest.raises(DbopsError, match="subject to row level security") as caught:
            manager(make_conninfo(memory_url, user=name)).dedupe()
        assert caught.value.exit_code == 10
    finally:
        db.execute(f"drop owned by {name}; drop role {name}".encode())
    assert marked(db) == {}


def test_copies_in_any_table_under_two_runs(empty_db: Connection, empty_url: str) -> None:
    empty_db.execute("create table notes (id int primary key, body text, is_copy boolean)")
    empty_db.execute("insert into notes select n, 'one two three' from generate_series(1, 200) n")
    before = image(empty_db, "notes")
    target = Target("notes", "body", "mark:is_copy=true")
    first, second = manager(empty_url), manager(empty_url)
    plans = first.scan(target=target), second.scan(target=target)
    done = together(lambda: first.dedupe(plans[0], target=target), lambda: second.dedupe(plans[1], target=target))
    assert sum(each.marked for each in done) == 199
    for each in done:
        if each.marked:
            assert each.batch
            first.undo(each.batch)
    assert image(empty_db, "notes") == before
