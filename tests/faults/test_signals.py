"""Ctrl-C and SIGTERM: exit 130, and a clean state."""

from __future__ import annotations

import signal
import subprocess

import pytest
from tools import FIRST, JOURNAL, MIGRATIONS, Target, finish, wait_for

from dbops.config import Settings
from dbops.lock import RunnerLock

SIGNALS = [signal.SIGINT, signal.SIGTERM]
pytestmark = [pytest.mark.fault, pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)]
INDEX = "create unique index concurrently person_name on person (name)"


def interrupted(process: subprocess.Popen[str], number: int) -> None:
    process.send_signal(number)
    assert finish(process, 130)["error"]["code"] == "interrupted"


def test_in_a_statement(target: Target, number: int) -> None:
    script = "-- migrate:up\ncreate table made (id int);\nselect pg_sleep(600);"
    target.write({"20250101_000001_sleeps.sql": script})
    process = target.cli("up", "--json")
    wait_for(lambda: target.running("pg_sleep(600)"))
    interrupted(process, number)
    target.left_clean()
    assert target.one("select to_regclass('made') is null")
    assert target.state()["versions"] == []


@pytest.mark.parametrize(
    ("begin", "waits_for"),
    [
        ("begin isolation level repeatable read; select 1", "an old snapshot"),
        ("begin; lock table person in row exclusive mode", "a lock on the table"),
    ],
    ids=["snapshot", "lock"],
)
def test_in_an_index_build(target: Target, number: int, begin: str, waits_for: str) -> None:
    target.write({FIRST: MIGRATIONS[FIRST], "20250101_000002_index.sql": f"-- migrate:up\n{INDEX};"})
    target.manager().migrate_up(count=1)
    with target.transaction(begin=begin):
        process = target.cli("up", "--json")
        wait_for(lambda: target.waiting(INDEX))
        interrupted(process, number)
        target.left_clean()
        if waits_for == "an old snapshot":
            assert ("person_name", False) not in target.state()["indexes"]
            assert target.state()["steps"] == []
        else:  # nobody can drop the index while the table is locked: the next run does
            assert target.state()["steps"] == [("20250101_000002", 1, "started")]
    target.manager().migrate_up()
    assert ("person_name", True) in target.state()["indexes"]


def test_while_waiting_for_another_runner(target: Target, number: int) -> None:
    with RunnerLock(target.url, Settings().table, wait=0):
        process = target.cli("up", "--json")
        waits = "select count(distinct pid) > 1 from pg_stat_activity where application_name = 'dbops lock'"
        wait_for(lambda: target.one(f"{waits} and datname = current_database()"))
        interrupted(process, number)
    target.left_clean()
    assert target.journal() == []
    target.manager().migrate_up()
    assert target.journal() == JOURNAL
