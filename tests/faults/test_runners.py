"""Many runners at once, and runners whose lock is cut: each migration is applied once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tools import FIRST, JOURNAL, MIGRATIONS, WAIT_AT_GATE, Target, events_of, finish, named, sample, wait_for

from dbops.errors import CannotConnect, DbopsError, LockLost
from dbops.migrate import Event

pytestmark = pytest.mark.fault


def test_twenty_at_once(target: Target) -> None:
    processes = [target.cli("up", "--json") for _ in range(20)]
    applied = [version for process in processes for version in finish(process)["applied"]]
    assert sorted(applied) == [name[:15] for name in sorted(MIGRATIONS)]
    assert target.journal() == JOURNAL
    target.left_clean()


def test_the_lock_is_cut(make_target: Callable[[], Target]) -> None:
    clean = make_target()
    events = events_of(clean, "up")
    last = max(number for number, event in enumerate(events) if event.what == "committed")
    for number in sample(len(events), 4, f"cut {clean.pooled}"):
        target = make_target()
        seen: list[Event] = []

        def cut(event: Event, target: Target = target, seen: list[Event] = seen, number: int = number) -> None:
            if len(seen) == number:
                target.cut_lock()
            seen.append(event)

        error = failure_of(target, cut)
        place = f"cut at {number}: {named(events[number])}"
        if number >= last:  # all was done already
            assert error is None, place
        else:
            assert isinstance(error, LockLost), place
            assert not {"committed", "step_done"} & {event.what for event in seen[number + 1 :]}, place
        target.manager().migrate_up()
        assert target.state() == clean.state(), place


def failure_of(target: Target, observer: Callable[[Event], None] = lambda _: None) -> DbopsError | None:
    try:
        target.manager(observer).migrate_up()
    except DbopsError as error:
        return error
    return None


LONG = {
    "one transaction": f"insert into journal values ('once');\n{WAIT_AT_GATE}",
    "step by step": f"insert into journal values ('once');\n{WAIT_AT_GATE}\nvacuum journal;",
}


@pytest.mark.parametrize("script", LONG.values(), ids=LONG.keys())
def test_a_successor_during_a_long_statement(target: Target, script: str) -> None:
    target.write({"20250101_000001_long.sql": f"-- migrate:up\n{script}"})
    with ThreadPoolExecutor() as pool:
        first = pool.submit(failure_of, target)
        wait_for(lambda: target.running("from gate"))
        target.cut_lock()
        second = pool.submit(failure_of, target)
        wait_for(target.locks)
        target.sql("insert into gate values (true)")
        assert isinstance(first.result(60), LockLost)
        assert second.result(60) is None
    assert target.journal() == ["once"]
    target.left_clean()


def test_a_successor_during_an_index_build(direct: Target) -> None:
    direct.manager().migrate_up(count=1)
    with ThreadPoolExecutor() as pool, direct.transaction("lock table person in row exclusive mode") as somebody:
        first = pool.submit(failure_of, direct)
        wait_for(lambda: direct.waiting("create unique index concurrently"))
        direct.cut_lock()
        waiting = threading.Event()
        second = pool.submit(failure_of, direct, lambda e: waiting.set() if e.what == "abandoned" else None)
        assert waiting.wait(60)
        somebody.execute("rollback")
        assert isinstance(first.result(60), LockLost)
        assert second.result(60) is None
    assert direct.journal() == JOURNAL
    direct.left_clean()


def test_a_runner_that_lost_its_lock_does_not_begin_the_step_after_all(direct: Target) -> None:
    """It stands between the record of a step and its statement; the successor does both."""
    index = "create index concurrently on person (name)"
    direct.manager().migrate_up(count=1)
    direct.write({FIRST: MIGRATIONS[FIRST], "20250101_000002_index.sql": f"-- migrate:up\n{index};"})
    paused, go_on = threading.Event(), threading.Event()

    def pause(event: Event) -> None:
        if event.what == "step":
            paused.set()
            assert go_on.wait(60)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(failure_of, direct, pause)
        assert paused.wait(60)
        direct.cut_lock()
        assert failure_of(direct) is None
        go_on.set()
        assert isinstance(first.result(60), (LockLost, CannotConnect))
    built = direct.sql("select indexrelid::regclass::text from pg_index where indrelid = 'person'::regclass")
    assert sorted(built) == [("person_name_idx",), ("person_old",), ("person_pkey",)]
