"""SIGKILL at every step of a run, up and down: the next run finishes the job, and nothing is applied twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tools import FIRST, JOURNAL, MIGRATIONS, Target, events_of, finish, named, needs_the_server_here, sample, wait_for

pytestmark = pytest.mark.fault


@pytest.mark.parametrize("command", ["up", "down"])
def test_killed_at_every_step(make_target: Callable[[], Target], command: str, tmp_path: Path) -> None:
    clean = make_target()
    ready(clean, command)
    events = events_of(clean, command)
    moments = {"locked", "transaction", "statement", "ran", "record", "committed", "step", "step_done"}
    assert moments <= {event.what for event in events}
    for number in sample(len(events), 4, f"{command} {clean.pooled}"):
        target = make_target()
        ready(target, command)
        killed = target.runner(command, tmp_path / "events", number)
        finish(killed, -signal.SIGKILL)
        events_of(target, command)
        assert target.state() == clean.state(), f"killed at {number}: {named(events[number])}"
        target.left_clean()


def ready(target: Target, command: str) -> None:
    if command == "down":
        target.manager().migrate_up()


# each waits for whoever uses the table, half done
HELD_UP = {
    "named": "create unique index concurrently person_name on person (name)",
    "unnamed": "create index concurrently on person (lower(mail))",
    "dropped": "drop index concurrently person_old",
    "reindex": "reindex index concurrently person_old",
}


@pytest.mark.parametrize("statement", HELD_UP.values(), ids=HELD_UP.keys())
def test_killed_in_the_middle_of_a_statement(make_target: Callable[[], Target], statement: str, tmp_path: Path) -> None:
    clean, target = make_target(), make_target()
    steps = f"insert into journal values ('before');\n{statement};\ninsert into journal values ('after');"
    clean.write({FIRST: MIGRATIONS[FIRST], "20250101_000002_held_up.sql": f"-- migrate:up\n{steps}"})
    clean.manager().migrate_up()
    target.manager().migrate_up(count=1)
    log = tmp_path / "events"
    with target.transaction("lock table person in row exclusive mode") as somebody:
        killed = target.runner("up", tmp_path / "killed")
        orphan = wait_for(lambda: target.waiting(statement))
        killed.kill()
        finish(killed, -signal.SIGKILL)
        successor = target.runner("up", log)
        wait_for(lambda: log.exists() and "locked" in log.read_text())
        if target.pooled:  # the server does not see there that the client has gone
            wait_for(lambda: "abandoned" in log.read_text())
            assert target.waiting(statement) == orphan
        somebody.execute("rollback")
        finish(successor)
    assert target.state() == clean.state()
    target.left_clean()


@needs_the_server_here
def test_the_successor_waits_for_a_backend_that_goes_on(direct: Target, tmp_path: Path) -> None:
    direct.manager().migrate_up(count=1)
    log = tmp_path / "events"
    with direct.transaction("lock table person in row exclusive mode"):
        killed = direct.runner("up", tmp_path / "killed")
        orphan = wait_for(lambda: direct.waiting("create unique index concurrently"))
        with stopped(orphan):  # so that it does not notice that its client has gone
            killed.kill()
            finish(killed, -signal.SIGKILL)
            successor = direct.runner("up", log)
            wait_for(lambda: log.exists() and "abandoned" in log.read_text())
            assert direct.alive(orphan)
            assert successor.poll() is None
    finish(successor)
    assert not direct.alive(orphan)
    assert direct.journal() == JOURNAL
    direct.left_clean()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
