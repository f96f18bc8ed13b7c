"""A statement behind somebody's long transaction: tried again and again, nothing queues up meanwhile."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from tools import FIRST, JOURNAL, MIGRATIONS, Target, finish

from dbops.errors import Blocked
from dbops.migrate import Event

pytestmark = pytest.mark.fault
READS = "select count(*) from person where id = 17"


def names(message: str, conn: psycopg.Connection[Any]) -> bool:
    """Whether a message says who somebody is and what his transaction did last."""
    return all(part in message for part in (f"process {conn.info.backend_pid} (", conn.info.user, "somebody", READS))


def test_tried_again_until_the_blocker_ends(target: Target) -> None:
    target.manager().migrate_up(to="20250101_000002")
    retries: list[str] = []
    with ExitStack() as stack, target.transaction(READS) as first:

        def observe(event: Event) -> None:
            if event.what != "retry":
                return
            retries.append(event.detail)
            # between two tries nothing of ours waits in front of others
            with psycopg.connect(target.direct, options="-c statement_timeout=5s") as other:
                other.execute(READS)
            assert not target.sql("select 1 from pg_locks where not granted and relation = 'person'::regclass")
            if len(retries) == 2:  # another blocks now, who came after the first look
                others.append(stack.enter_context(target.transaction(READS)))
                first.execute("rollback")
            if len(retries) == 4:
                others[0].execute("rollback")

        others: list[psycopg.Connection[Any]] = []
        target.manager(observe, lock_timeout=0.8, lock_tries=30).migrate_up()
        assert len(retries) >= 4
        assert names(retries[0], first)
        assert names(retries[3], others[0])
    assert "20250101_000003_age.sql:2: waited 0.8 s for a lock" in retries[0]
    assert target.journal() == JOURNAL
    target.left_clean()


def test_the_tries_come_to_an_end(target: Target) -> None:
    target.manager().migrate_up(to="20250101_000002")
    before = target.state()
    with target.transaction(READS) as somebody:
        process = target.cli("up", "--lock-timeout", "800ms", "--json", DBOPS_LOCK_TRIES="2")
        error = finish(process, 1)["error"]
        assert error["code"] == "blocked"
        assert names(error["message"], somebody)
        assert "rolled back" in error["hint"]
    assert target.state() == before
    target.left_clean()
    target.manager().migrate_up()
    assert target.journal() == JOURNAL


def test_a_step_of_a_migration_that_runs_step_by_step(target: Target) -> None:
    steps = "insert into journal values ('once');\nalter table person add column age int;\nvacuum person;"
    target.write({FIRST: MIGRATIONS[FIRST], "20250101_000002_steps.sql": f"-- migrate:up\n{steps}"})
    target.manager().migrate_up(count=1)
    retries: list[str] = []
    with target.transaction(READS) as somebody:

        def observe(event: Event) -> None:
            if event.what == "retry":
                retries.append(event.detail)
                somebody.execute("rollback")

        target.manager(observe, lock_timeout=0.8, lock_tries=30).migrate_up()
        assert names(retries[0], somebody)
    assert target.journal() == ["1 up", "once"]


def test_the_record_waits_no_longer_than_the_rest(direct: Target) -> None:
    direct.manager().migrate_up(count=1)
    with direct.transaction("lock table schema_migrations in share mode"), pytest.raises(Blocked) as caught:
        direct.manager(lock_timeout=0.8, lock_tries=2).migrate_up()
    assert "lock table schema_migrations" in caught.value.message
    direct.manager().migrate_up()
    assert direct.journal() == JOURNAL
