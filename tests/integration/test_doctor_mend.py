"""What `mend` applies, what it leaves alone, and what it leaves behind: nothing."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from dbops.config import Settings
from dbops.hygiene.doctor import Finding, Report, examine, mend, mendable
from tests.integration.test_doctor import SCRATCH, run, told

FLUSH = "; select pg_stat_force_next_flush()"


def report_of(*fixes: tuple[str, str]) -> Report:
    return Report(tuple(Finding(check, "warning", fix, "", fix) for check, fix in fixes), (), (), (), "", "", 0.0)


def test_all_that_can_be_mended_is_and_the_rest_stays(empty_url: str) -> None:
    run(
        empty_url,
        """create table "T" (a int primary key, b int, c int); insert into "T" select n, n, n from generate_series(1, 20000) n;
        create index on "T" (b); create index bad on "T" (c); update pg_index set indisvalid = false where indexrelid = 'bad'::regclass;
        alter table "T" add constraint "positive!" check (b > 0) not valid; create table keyless (a int);
        create table dead (a int primary key) with (fillfactor = 50); insert into dead select generate_series(1, 20000);
        select pg_stat_force_next_flush(); analyze "T"; analyze dead; update dead set a = -a; select pg_stat_force_next_flush()""",
    )
    run(empty_url, "update dead set a = a - 30000" + FLUSH)
    before = examine(empty_url, skip=SCRATCH)
    fixes = {each.fix for each in mendable(before)}
    assert fixes == {
        "REINDEX INDEX CONCURRENTLY public.bad;", 'ALTER TABLE public."T" VALIDATE CONSTRAINT "positive!";',
        "VACUUM public.dead;", "ANALYZE public.dead;",
    }  # fmt: skip
    assert [each.problem for each in mend(empty_url, before)] == [""] * 4
    assert told(examine(empty_url, skip=SCRATCH)) == [("warning", "public.keyless")]


def test_a_rebuild_that_fails_leaves_nothing_behind(empty_url: str) -> None:
    run(empty_url, "create table t (a int primary key, b int); insert into t values (1, 1), (2, 1)")
    with psycopg.connect(empty_url, autocommit=True) as conn, pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute("create unique index concurrently once on t (b)")
    report = examine(empty_url, only=["invalid-index"])
    assert told(report) == [("error", "public.once")]
    [done] = mend(empty_url, report)
    assert "could not create unique index" in done.problem
    assert told(examine(empty_url, only=["invalid-index"])) == [("error", "public.once")]
    run(empty_url, "delete from t where a = 2")
    assert [each.problem for each in mend(empty_url, report)] == [""]
    assert told(examine(empty_url, only=["invalid-index"])) == []


def test_what_is_locked_is_skipped_and_said(empty_url: str) -> None:
    run(empty_url, "create table t (a int primary key); alter table t add constraint c check (a > 0) not valid")
    todo = report_of(("vacuum-overdue", "VACUUM public.t;"), ("stale-statistics", "ANALYZE public.t;"),
                     ("not-valid-constraint", "ALTER TABLE public.t VALIDATE CONSTRAINT c;"))  # fmt: skip
    with psycopg.connect(empty_url) as holder:
        holder.execute("lock t")
        done = mend(empty_url, todo, Settings(lock_timeout=0.1))
    assert [each.problem for each in done] == [
        "skipped: somebody else holds a lock on it; try again later",
        "skipped: somebody else holds a lock on it; try again later",
        "canceling statement due to lock timeout",
    ]
    assert [each.problem for each in mend(empty_url, todo)] == ["", "", ""]


def test_rows_that_break_a_constraint(empty_url: str) -> None:
    run(
        empty_url,
        "create table t (a int primary key); insert into t values (-1); alter table t add constraint c check (a > 0) not valid",
    )
    report = examine(empty_url, only=["not-valid-constraint"])
    assert ["violated by some row" in each.problem for each in mend(empty_url, report)] == [True]
    assert told(examine(empty_url, only=["not-valid-constraint"])) == [("warning", "public.t.c")]


def test_a_role_that_may_not(db: psycopg.Connection[Any]) -> None:
    db.execute("drop role if exists doctor_guest")
    db.execute("create role doctor_guest login")
    url = psycopg.conninfo.make_conninfo(db.info.dsn, user="doctor_guest")
    try:
        done = mend(
            url,
            report_of(
                ("vacuum-overdue", "VACUUM public.chats;"),
                ("invalid-index", "REINDEX INDEX CONCURRENTLY public.chats_pkey;"),
            ),
        )
    finally:
        db.execute("drop role doctor_guest")
    assert [
        "permission denied" in done[0].problem,
        "must be owner" in done[1].problem or "permission denied" in done[1].problem,
    ] == [True, True]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("check", "fix"),
    [
        ("vacuum-overdue", "VACUUM public.t; DROP TABLE public.t;"),
        ("vacuum-overdue", "VACUUM (FULL) public.t;"),
        ("vacuum-overdue", "VACUUM;"),
        ("stale-statistics", "ANALYZE public.t, public.u;"),
        ("invalid-index", "DROP INDEX CONCURRENTLY public.i;"),
        ("invalid-index", "REINDEX INDEX public.i;"),
        ("invalid-index", "REINDEX INDEX CONCURRENTLY public.i; -- or not"),
        ("not-valid-constraint", "ALTER TABLE public.t VALIDATE CONSTRAINT c, DROP COLUMN d;"),
        ("not-valid-constraint", 'ALTER TABLE public."t; DROP TABLE public.t; VALIDATE CONSTRAINT c;'),
        # the statement of a check that is there to be read
        ("ivfflat-empty", "REINDEX INDEX CONCURRENTLY public.i;"),
        ("index-bloat", "REINDEX INDEX CONCURRENTLY public.i;"),
        ("duplicate-index", "DROP INDEX CONCURRENTLY public.i;"),
    ],
)
def test_nothing_else_is_ever_applied(check: str, fix: str) -> None:
    assert mendable(report_of((check, fix))) == ()


@pytest.mark.quick
def test_a_statement_is_applied_once() -> None:
    twice = report_of(("vacuum-overdue", "VACUUM public.t;"), ("vacuum-overdue", "VACUUM public.t;"))
    assert [each.fix for each in mendable(twice)] == ["VACUUM public.t;"]
