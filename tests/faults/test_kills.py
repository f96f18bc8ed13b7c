"""SIGKILL at every step of a run, up and down: the next run finishes the job, and nothing is applied twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tools import Target, events_of, finish, named, needs_the_server_here, sample, wait_for

from dbops.migrate import Event

pytestmark = pytest.mark.fault


@pytest.mark.parametrize("command", ["up", "down"])
def test_killed_at_every_step(make_target: Callable[[], Target], command: str, tmp_path: Path) -> None:
    clean = make_target()
    ready(clean, command)
    events = events_of(clean, command)
    assert {"locked", "transaction", "statement", "ran", "record", "committed", "step", "step_done"} <= {e.what for e in events}
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


@pytest.mark.parametrize("statement", ["create unique index concurrently", "create index concurrently on person", "drop index"])
def test_killed_in_the_middle_of_an_index(make_target: Callable[[], Target], statement: str, tmp_path: Path) -> None:
    clean, target = make_target(), make_target()
    clean.manager().migrate_up()
    target.manager().migrate_up(count=1)
    log = tmp_path / "events"
    with target.transaction("lock table person in row exclusive mode") as somebody:
        killed = target.runner("up", tmp_path / "killed")
        # it goes on to the statement only when nothing else holds it up
        step_towards(target, somebody, statement)
        orphan = target.waiting(statement)
        killed.kill()
        finish(killed, -signal.SIGKILL)
        successor = target.runner("up", log)
        wait_for(lambda: "locked" in log.read_text() if log.exists() else "")
        if target.pooled:  # the server does not see there that the client has gone
            wait_for(lambda: "abandoned" in log.read_text())
            assert target.waiting(statement) == orphan
        somebody.execute("rollback")
        finish(successor)
    assert target.state() == clean.state()
    target.left_clean()


def step_towards(target: Target, somebody: object, statement: str) -> None:
    wait_for(lambda: target.waiting(statement))


@needs_the_server_here
def test_the_successor_waits_for_a_backend_that_goes_on(direct: Target, tmp_path: Path) -> None:
    direct.manager().migrate_up(count=1)
    log = tmp_path / "events"
    with direct.transaction("lock table person in row exclusive mode"):
        killed = direct.runner("up", tmp_path / "killed")
        orphan = wait_for(lambda: direct.waiting("create unique index concurrently"))
        os.kill(orphan, signal.SIGSTOP)  # so that it does not notice that its client has gone
        killed.kill()
        finish(killed, -signal.SIGKILL)
        successor = direct.runner("up", log)
        wait_for(lambda: "abandoned" in log.read_text() if log.exists() else "")
    assert direct.sql("select from pg_stat_activity where pid = %(pid)s", pid=orphan)
    os.kill(orphan, signal.SIGCONT)
    finish(successor)
    assert direct.sql("select what from journal order by 1") == [
        ("1 up",), ("2 up, first",), ("2 up, high",), ("2 up, last",), ("3 up",),
    ]  # fmt: skip
    direct.left_clean()
