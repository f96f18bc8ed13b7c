"""The checks of sessions, slots, settings and limits, on a server as people run it; rights, locks and time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from dbops.config import Settings
from dbops.embedded import Scratch, resolve, scratch, stop_local, with_database
from dbops.errors import CannotConnect, DbopsError, UsageError
from dbops.hygiene.doctor import Finding, Report, checks, examine, mend, mendable
from tests.integration.test_doctor import run, told

Conn = psycopg.Connection[Any]


def only(url: str, check: str, **limits: float) -> Report:
    """One check, with limits of its own."""
    report = examine(url, only=[check], limits={f"{check}.{name}": value for name, value in limits.items()})
    assert report.not_checked == ()
    return report


@pytest.fixture(scope="module", params=[18, 16])
def local(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a server with PostgreSQL's own settings, but for prepared transactions."""
    # pytest's own folders may go while other sessions of pytest run
    with tempfile.TemporaryDirectory(prefix="dbops-doctor-") as folder:
        settings = Settings(root=Path(folder), postgres_version=request.param)
        run(resolve(settings), "alter system set max_prepared_transactions = 5")
        stop_local(settings.data_directory)
        yield resolve(settings)
        stop_local(settings.data_directory)


@contextmanager
def working(conn: Conn, statement: str) -> Iterator[None]:
    """A session that is busy with a statement, cancelled afterwards."""
    conn.pgconn.send_query(statement.encode())
    conn.pgconn.flush()
    try:
        yield
    finally:
        conn.cancel_safe()
        while conn.pgconn.get_result():
            pass


def wait_for(conn: Conn, condition: str) -> None:
    for _ in range(200):
        if conn.execute(f"select exists ({condition})".encode()).fetchone() == (True,):
            return
        time.sleep(0.05)
    pytest.fail(f"it never came to that: {condition}")


def test_settings(local: str, server: Scratch) -> None:
    assert only(local, "unsafe-settings").findings == ()
    objects = {each.object for each in only(server.url, "unsafe-settings").findings}
    assert objects == {"setting autovacuum", "setting fsync", "setting full_page_writes"}


def test_a_long_transaction(empty_url: str) -> None:
    with psycopg.connect(empty_url) as busy, psycopg.connect(empty_url, autocommit=True) as conn:
        name = f"process {busy.info.backend_pid}"
        with working(busy, "select pg_sleep(60)"):
            wait_for(conn, f"select from pg_stat_activity where pid = {busy.info.backend_pid} and state = 'active'")
            assert name not in {each.object for each in only(empty_url, "long-transaction").findings}
            [found] = [e for e in only(empty_url, "long-transaction", minutes=0).findings if e.object == name]
            assert found.severity == "warning"
            run(empty_url, found.fix)
        assert name not in {each.object for each in only(empty_url, "long-transaction", minutes=0).findings}


def test_an_idle_transaction(empty_url: str) -> None:
    idle = psycopg.connect(empty_url)  # ended by the fix
    with psycopg.connect(empty_url, autocommit=True) as conn:
        idle.execute("select 'a secret'")
        name = f"process {idle.info.backend_pid}"
        assert name not in {each.object for each in only(empty_url, "idle-transaction").findings}
        [found] = [e for e in only(empty_url, "idle-transaction", minutes=0).findings if e.object == name]
        assert "secret" not in found.message
        run(empty_url, found.fix)
        wait_for(conn, f"select where not exists (select from pg_stat_activity where pid = {idle.info.backend_pid})")
        assert name not in {each.object for each in only(empty_url, "idle-transaction", minutes=0).findings}
    idle.close()


def test_a_blocked_session(empty_url: str) -> None:
    run(empty_url, "create table t (a int)")
    with (
        psycopg.connect(empty_url) as holder,
        psycopg.connect(empty_url) as waiter,
        psycopg.connect(empty_url, autocommit=True) as conn,
    ):
        holder.execute("lock t")
        with working(waiter, "select * from t"):
            wait_for(
                conn,
                f"select from pg_locks where pid = {waiter.info.backend_pid} and not granted and waitstart is not null",
            )
            assert only(empty_url, "blocked-session").findings == ()
            [found] = only(empty_url, "blocked-session", minutes=0).findings
        assert found.object == f"process {waiter.info.backend_pid}"
        assert "AccessShareLock on public.t" in found.message
        assert f"behind process {holder.info.backend_pid}" in found.message
    assert only(empty_url, "blocked-session", minutes=0).findings == ()


def test_a_prepared_transaction(local: str) -> None:
    with psycopg.connect(local, autocommit=True) as conn:
        conn.execute("begin")
        conn.execute("create table prepared (a int)")
        conn.execute("prepare transaction 'it''s'")
    assert only(local, "prepared-transaction").findings == ()
    [found] = only(local, "prepared-transaction", minutes=0).findings
    assert found.object == "prepared transaction it's"
    run(local, found.fix)
    assert only(local, "prepared-transaction", minutes=0).findings == ()


def test_a_slot_that_nobody_reads(local: str) -> None:
    run(local, "select pg_create_physical_replication_slot('forgotten', true)")
    assert only(local, "replication-slot").findings == ()
    [found] = only(local, "replication-slot", mib=0).findings
    assert (found.severity, found.object) == ("warning", "slot forgotten")
    run(local, "alter system set max_slot_wal_keep_size = '1MB'; select pg_reload_conf()")
    for _ in range(3):
        run(local, "select pg_logical_emit_message(false, 'x', 'x'); select pg_switch_wal()")
    run(local, "checkpoint")
    [lost] = only(local, "replication-slot").findings
    assert lost.severity == "error"
    run(local, f"alter system reset max_slot_wal_keep_size; select pg_reload_conf(); {lost.fix}")
    assert only(local, "replication-slot", mib=0).findings == ()


def test_connections(local: str) -> None:
    assert only(local, "connections").findings == ()
    assert "server" in {each.object for each in only(local, "connections", percent=0).findings}
    run(local, 'create role "few %" login connection limit 4; create database "small%" connection limit 20')
    few = psycopg.conninfo.make_conninfo(local, user="few %")
    held = [psycopg.connect(few) for _ in range(3)]
    assert only(local, "connections").findings == ()
    held.append(psycopg.connect(few))
    [found] = only(local, "connections").findings
    assert (found.severity, found.object) == ("error", "role few %")
    run(local, found.fix)
    assert only(local, "connections").findings == ()
    for conn in held:
        conn.close()
    with psycopg.connect(with_database(local, "small%")):
        run(local, 'alter database "small%" connection limit 1')
        assert [each.object for each in only(local, "connections").findings] == ["database small%"]
    run(local, 'drop database "small%" with (force); drop role "few %"')


def test_cache_hits(empty_url: str) -> None:
    run(
        empty_url,
        "create table t as select n from generate_series(1, 100) n; select * from t; select pg_stat_force_next_flush()",
    )
    assert only(empty_url, "cache-hits").findings == ()
    assert told(only(empty_url, "cache-hits", pages=1, percent=101))[0][0] == "info"
    assert only(empty_url, "cache-hits", pages=1, percent=0).findings == ()


def test_wraparound(local: str) -> None:
    assert only(local, "wraparound").findings == ()
    run(local, "create table old (a int)")
    near = only(local, "wraparound", million=0)
    assert "database postgres" in {each.object for each in near.findings}
    table = Finding("wraparound", "warning", "public.old", "", "VACUUM (FREEZE) public.old;")
    assert {each.fix.split("(FREEZE)")[0] for each in mendable(near)} == {"VACUUM "}
    with psycopg.connect(local, autocommit=True) as conn:
        for _ in range(5):
            conn.execute("select pg_current_xact_id()")
        age = "select age(relfrozenxid) from pg_class where relname = 'old'"
        before = conn.execute(age).fetchone()
        [done] = mend(local, Report((table,), (), (), (), "", "", 0.0))
        assert done.problem == ""
        after = conn.execute(age).fetchone()
    assert before is not None
    assert after is not None
    assert after[0] < before[0]


@pytest.mark.parametrize("check", ["collation-version", "database-collation"])
def test_another_version_of_a_collation(check: str) -> None:
    """Of the servers that come with the install only 18 has collations with a version, the built-in ones."""
    with scratch(18) as server, server.database() as url:
        run(server.url, "create database other template template0 locale_provider builtin builtin_locale 'C.UTF-8'")
        run(url, "create table t (a text collate pg_c_utf8 primary key, b text collate ucs_basic)")
        assert only(url, check).findings == ()
        run(url, "update pg_collation set collversion = '0' where collname in ('pg_c_utf8', 'ucs_basic')")
        run(url, "update pg_database set datcollversion = '0' where datname = 'other'")
        [found] = only(url, check).findings
        assert (found.severity, found.object) == (
            ("error", "collation pg_c_utf8") if check == "collation-version" else ("error", "database other")
        )
        run(with_database(url, "other") if check == "database-collation" else url, found.fix)
        assert only(url, check).findings == ()


def test_the_operator_that_queries_use(empty_url: str) -> None:
    """With a table that stands in for pg_stat_statements: the embedded server has no contrib."""
    run(
        empty_url,
        """create extension vector; create table docs (e vector(3)); create table other (e vector(3));
        create index docs_e on docs using hnsw (e vector_l2_ops); create index other_e on other using hnsw (e vector_cosine_ops)""",
    )
    report = examine(empty_url, only=["vector-operator-class"])
    assert report.not_checked[0].reason == "the extension pg_stat_statements is not installed"
    assert report.checked == ()
    run(
        empty_url,
        """create schema stats; create table stats.pg_stat_statements as
          select oid as dbid, 'select 1 from other order by e <=> $1 limit 5'::text as query, 7::int8 as calls from pg_database where datname = current_database();
        insert into pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
          values (99999, 'pg_stat_statements', 10, 'stats'::regnamespace, false, '1.11')""",
    )
    assert only(empty_url, "vector-operator-class").findings == ()
    run(
        empty_url,
        "insert into stats.pg_stat_statements select dbid, 'select * from docs order by e <=> $1 limit 5', 40 from stats.pg_stat_statements",
    )
    [found] = only(empty_url, "vector-operator-class").findings
    assert found.message == "it serves <-> and was never used; 40 calls on docs use <=>"


class TestBackups:
    def test_without_a_way_to_look(self, empty_url: str) -> None:
        report = examine(empty_url, only=["backup-age"])
        assert report.checked == ()
        assert [each.check for each in report.not_checked] == ["backup-age"]

    def test_the_caller_answers(self, empty_url: str) -> None:
        young = examine(empty_url, only=["backup-age"], answers={"backup-age": list})
        assert young.checked == ("backup-age",)
        old = examine(
            empty_url, only=["backup-age"], answers={"backup-age": lambda: [("error", "backups", "3 days old", "")]}
        )
        assert told(old) == [("error", "backups")]

    def test_the_caller_fails(self, empty_url: str) -> None:
        def fail() -> list[Any]:
            raise DbopsError("the store at s3://key:secret@host is away")

        [barred] = examine(empty_url, only=["backup-age"], answers={"backup-age": fail}).not_checked
        assert "away" in barred.reason
        assert "secret" not in barred.reason


@pytest.fixture
def role(empty_url: str) -> Iterator[Callable[[str], str]]:
    """role("grants"): the URL of a role that may log in, with these grants ({} is the role)."""
    name = f"doctor_{time.monotonic_ns()}"
    run(empty_url, f"create role {name} login")

    def url(grants: str) -> str:
        run(empty_url, grants.format(name))
        return psycopg.conninfo.make_conninfo(empty_url, user=name)

    yield url
    run(empty_url, f"drop owned by {name}; drop role {name}")


class TestRights:
    def test_a_monitoring_role(self, empty_url: str, role: Callable[[str], str]) -> None:
        run(
            empty_url,
            "create table t (id int primary key, s serial, r int references t); create extension vector; create table e (e vector(3))",
        )
        report = examine(role("grant pg_monitor to {}"), answers={"backup-age": list})
        barred = {(each.check, each.object) for each in report.not_checked}
        assert barred == {
            ("vector-operator-class", ""), ("integer-key", "public.t.id"), ("orphans", "public.t.t_r_fkey"), ("sequence-exhaustion", ""), ("empty-embedding", "public.e.e"),
        }  # fmt: skip
        assert {check for check, _ in barred}.isdisjoint(report.checked)
        assert {"primary-key", "foreign-key-index"} <= {each.check for each in report.findings}

    def test_a_role_without_any_right(self, empty_url: str, role: Callable[[str], str]) -> None:
        report = examine(role("select 1"), answers={"backup-age": list})
        assert {each.check for each in report.not_checked} == {
            "long-transaction",
            "idle-transaction",
            "blocked-session",
        }
        assert all("pg_read_all_stats" in each.reason for each in report.not_checked)

    def test_rows_that_policies_hide_are_no_clean_bill(self, empty_url: str, role: Callable[[str], str]) -> None:
        run(
            empty_url,
            """create table t (id int primary key); insert into t values (2000000000); alter table t enable row level security;
            create policy p on t using (false)""",
        )
        report = examine(role("grant select on t to {}"), only=["integer-key"])
        assert report.findings == ()
        assert [(each.object, "row-level security" in each.reason) for each in report.not_checked] == [
            ("public.t.id", True)
        ]

    def test_nothing_is_written(self, empty_url: str, server: Scratch) -> None:
        with psycopg.connect(empty_url, autocommit=True) as conn:
            conn.execute("create table t (id int)")
            before = conn.execute("select pg_current_xact_id()::text::int").fetchone()
            examine(empty_url)
            after = conn.execute("select pg_current_xact_id()::text::int").fetchone()
        assert before is not None
        assert after == (before[0] + 1,)


class TestTrouble:
    def test_a_locked_table_is_told_and_the_rest_is_looked_at(self, empty_url: str) -> None:
        run(
            empty_url,
            "create table a (id int primary key, r int references a); create table b (id int primary key); insert into b values (2000000000)",
        )
        with psycopg.connect(empty_url) as holder:
            holder.execute("lock a")
            report = examine(empty_url, only=["integer-key", "primary-key"])
        assert told(report) == [("error", "public.b.id")]
        [barred] = report.not_checked
        assert (barred.check, barred.object) == ("integer-key", "public.a.id")
        assert "lock timeout" in barred.reason

    def test_time_is_up(self, empty_url: str) -> None:
        run(empty_url, "create table t (id int)")
        for _ in range(20):  # it may hit any statement, the end of a transaction too
            report = examine(empty_url, Settings(statement_timeout=0.001), answers={"backup-age": list})
            assert report.not_checked
            assert {each.reason for each in report.not_checked} <= {
                "canceling statement due to statement timeout",
                "canceling statement due to user request",  # the time-out found the next statement begun
                "time was up",
            }
            assert {each.check for each in report.not_checked}.isdisjoint(report.checked)

    def test_many_targets(self, empty_url: str) -> None:
        """More than one statement looks at; one of them cannot be read, and one is wrong."""
        run(
            empty_url,
            """do $$ begin for i in 1 .. 120 loop execute format('create table t%s (id int primary key)', i); end loop; end $$;
            insert into t77 values (2000000000); insert into t119 values (1700000000)""",
        )
        with psycopg.connect(empty_url) as holder:
            holder.execute("lock t78")
            report = examine(empty_url, only=["integer-key"])
        assert told(report) == [("error", "public.t77.id"), ("warning", "public.t119.id")]
        assert [each.object for each in report.not_checked] == ["public.t78.id"]

    def test_a_table_with_operators_of_its_own(self, empty_url: str) -> None:
        """Somebody's function of a name that checks use is never called."""
        run(
            empty_url,
            """create function public.format(text, text, text) returns text language sql as $$ select 'hijacked' $$;
            create function public.max(int) returns int language sql as $$ select 1 / 0 $$; create table t (a int)""",
        )
        assert [each.message for each in examine(empty_url, only=["primary-key"]).findings] == ["no primary key"]

    def test_unknown_names(self, empty_url: str) -> None:
        for arguments in (
            {"only": ["nonsense"]},
            {"skip": ["nonsense"]},
            {"limits": {"unused-index.hours": 1}},
            {"limits": {"nonsense": 1}},
        ):
            with pytest.raises(UsageError):
                examine(empty_url, **arguments)
        with pytest.raises(UsageError, match="is a number"):
            examine(empty_url, limits={"unused-index.days": "many"})

    def test_the_connection_is_lost_in_the_middle(self, empty_url: str) -> None:
        def cut(name: str) -> None:
            if name == "orphans":
                run(
                    empty_url,
                    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'dbops doctor' and datname = current_database()",
                )

        with pytest.raises(CannotConnect):
            examine(empty_url, tell=cut)

    def test_no_server(self) -> None:
        with pytest.raises(CannotConnect):
            examine("postgresql://nobody@127.0.0.1:1/none")


def test_the_checks_are_well_formed() -> None:
    for name, check in checks().items():
        assert check.summary
        assert check.why.endswith(".")
        assert check.severity in ("error", "warning", "info"), name
        assert sql.SQL(check.query)
        for limit in check.limits:
            assert f"{{{limit}}}" in check.query + check.each, f"{name}.{limit}"
