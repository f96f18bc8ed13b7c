"""A migration of one statement goes to the server whole, as one message: the same rules hold for it."""

from __future__ import annotations

import threading

import pytest
from tools import Target

from dbops.errors import LockLost, StatementFailed
from dbops.lock import INNER_NAMESPACE, lock_key
from dbops.migrate import Event

pytestmark = pytest.mark.fault
PLAIN = "create table plain (id int primary key)"


def one(target: Target, statement: str) -> None:
    target.write({"20250101_000001_one.sql": f"-- migrate:up\n{statement}\n"})


def test_waits_for_an_earlier_runners_transaction(target: Target) -> None:
    one(target, PLAIN)
    key = lock_key("public.schema_migrations")
    with target.transaction(f"select pg_advisory_xact_lock({INNER_NAMESPACE}, {key})") as earlier:
        ending = threading.Timer(0.7, lambda: earlier.execute("rollback"))
        ending.start()
        target.manager().migrate_up()
        assert ending.finished.is_set()
    assert target.one("select count(*) from plain") == 0
    target.left_clean()


@pytest.mark.parametrize("statement", [PLAIN, "insert into journal values ('x')"], ids=["plain", "guarded twice"])
def test_a_lost_lock_undoes_it(target: Target, statement: str) -> None:
    one(target, statement)

    def observe(event: Event) -> None:
        if event.what == "statement":
            target.cut_lock()

    with pytest.raises(LockLost):
        target.manager(observe).migrate_up()
    assert target.one("select to_regclass('plain') is null and not exists (select from journal where what = 'x')")
    assert not target.sql("select version from schema_migrations")
    target.manager().migrate_up()
    assert target.sql("select version from schema_migrations") == [("20250101_000001",)]
    target.left_clean()


def test_the_place_of_an_error(target: Target) -> None:
    one(target, "create table wrong (\n  id int,\n  other nosuchtype\n)")
    with pytest.raises(StatementFailed) as caught:
        target.manager().migrate_up()
    assert 'one.sql:4:9: type "nosuchtype" does not exist' in caught.value.message
    assert "\n    other nosuchtype\n          ^" in caught.value.message


def test_what_a_statement_leaves_in_the_session_ends_with_it(target: Target) -> None:
    target.write({
        "20250101_000001_path.sql": "-- migrate:up\nselect set_config('search_path', 'nowhere', false), pg_advisory_lock(7)",
        "20250101_000002_temp.sql": "-- migrate:up\ncreate temp table left_over (id int) -- no semicolon",
        "20250101_000003_plain.sql": "-- migrate:up\ncreate table public.seen as select current_setting('search_path') as path,"
        " to_regclass('pg_temp.left_over') is null as gone",
    })  # fmt: skip
    target.manager().migrate_up()
    [(path, gone)] = target.sql("select path, gone from seen")
    assert path != "nowhere"
    assert gone
    target.left_clean()


def test_the_duration_is_the_servers(target: Target) -> None:
    one(target, "select pg_sleep(0.3)")
    target.manager().migrate_up()
    assert 300 <= target.one("select duration_ms from schema_migrations") < 60_000
