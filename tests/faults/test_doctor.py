"""The doctor beside DDL, long index builds and other clients, directly and behind a pooler in transaction mode."""

from __future__ import annotations

import threading

import psycopg
import pytest
from tools import Target, wait_for

from dbops.hygiene.doctor import examine, mend

pytestmark = pytest.mark.fault
SETTINGS = (
    "search_path",
    "statement_timeout",
    "lock_timeout",
    "row_security",
    "jit",
    "transaction_isolation",
    "default_transaction_read_only",
)


def settings(url: str) -> list[str]:
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as conn:
        return [conn.execute(f"show {name}".encode()).fetchone()[0] for name in SETTINGS]  # type: ignore[index]


def test_the_next_client_finds_nothing_of_it(target: Target) -> None:
    """A pooler hands the session on: what was set in it would be set there too."""
    target.sql("create table t (a int); insert into t values (1)")
    target.sql("alter table t add constraint c check (a > 0) not valid")
    before = settings(target.url)
    report = examine(target.url, only=["not-valid-constraint", "orphans", "table-bloat"])
    assert [each.object for each in report.findings] == ["public.t.c"]
    assert settings(target.url) == before
    assert [each.problem for each in mend(target.url, report)] == [""]
    assert settings(target.url) == before
    assert examine(target.url, only=["not-valid-constraint"]).findings == ()


def test_an_index_under_construction_is_no_fault(direct: Target) -> None:
    """CREATE INDEX CONCURRENTLY waits for a transaction: meanwhile its index is not valid."""
    direct.sql("create table t (a int primary key, b int)")
    with direct.transaction("insert into t values (1, 1)"):
        builder = threading.Thread(target=direct.sql, args=("create index concurrently slow on t (b)",))
        builder.start()
        wait_for(lambda: direct.sql("select 1 from pg_index where not indisvalid"))
        assert examine(direct.direct, only=["invalid-index"]).findings == ()
    builder.join(60)
    assert direct.one("select indisvalid from pg_index where indexrelid = 'slow'::regclass")
    assert examine(direct.direct, only=["invalid-index"]).findings == ()


def test_tables_come_and_go_meanwhile(direct: Target) -> None:
    """What is dropped between two looks is neither a finding nor a failure of the others."""
    direct.sql("create table stays (id int primary key, r int references stays)")
    done = threading.Event()

    def churn() -> None:
        with psycopg.connect(direct.direct, autocommit=True) as conn:
            number = 0
            while not done.is_set():
                number += 1
                conn.execute(
                    f"create table goes_{number} (id int primary key, r int references stays, t text unique)".encode()
                )
                conn.execute(f"drop table goes_{number}".encode())

    worker = threading.Thread(target=churn)
    worker.start()
    try:
        reports = [examine(direct.direct, skip=["unsafe-settings", "backup-age", "primary-key"]) for _ in range(5)]
    finally:
        done.set()
        worker.join(60)
    for report in reports:
        assert [each.object for each in report.findings if "goes_" not in each.object] == ["public.stays.stays_r_fkey"]
        assert all(
            "goes_" in each.object or "goes_" in each.reason or "OID" in each.reason for each in report.not_checked
        )


def test_it_holds_nobody_up(direct: Target) -> None:
    """A lock that is wanted while the doctor looks is had: none of its transactions outlives a check."""
    direct.sql("create table t (id int primary key, r int references t)")
    seen: list[int] = []

    def look(name: str) -> None:
        idle = "select count(*)::int from pg_stat_activity where application_name = 'dbops doctor' and state like 'idle in%'"
        seen.append(direct.one(f"{idle} and datname = current_database()"))

    examine(direct.direct, skip=["unsafe-settings"], tell=look)
    assert seen
    assert set(seen) == {0}
