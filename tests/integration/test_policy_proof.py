"""The attack from nothing, and live: what is copied, what is read of the target, and what it leaves there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from dbops.config import Settings
from dbops.embedded import Scratch
from dbops.errors import Blocked, StatementFailed, UsageError
from dbops.policy import PolicyManager
from dbops.policy.attack.result import Report
from dbops.policy.live import _TIMEOUTS, look

ANNA, BERT = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"
NOTES = """
create table public.notes (user_id uuid not null, id int not null, body text not null default '', primary key (user_id, id));
"""
DEFINED = 'version = 1\n[table."public.notes"]\nowner = "user_id"\n'


@pytest.fixture
def target(make_database: Callable[..., str]) -> str:
    """The memory schema's database (auth and its roles) with two users' notes beside it."""
    url = make_database("memory")
    with psycopg.connect(url) as conn:
        conn.execute(NOTES.encode())
        conn.execute("insert into public.notes values (%s, 1, 'hers'), (%s, 2, 'his')", [ANNA, BERT])
    return url


@pytest.fixture
def make(target: str, server: Scratch, tmp_path: Path) -> Callable[..., PolicyManager]:
    def manager(text: str = DEFINED, url: str | None = target) -> PolicyManager:
        (tmp_path / "policies").mkdir(exist_ok=True)
        (tmp_path / "policies" / "notes.toml").write_text(text)
        settings = Settings(
            url=url, policies=tmp_path / "policies", scratch_url=server.url, postgres_version=server.major, wait=30.0
        )
        return PolicyManager(settings=settings)

    return manager


def live(manager: PolicyManager) -> Report:
    return manager.attack(live=True, tables=["public.notes"])


def on_target(report: Report) -> set[str]:
    return {leak.actor for leak in report.leaks if leak.via == "table, on the target"}


def roles(server: Scratch) -> set[str]:
    with psycopg.connect(server.url) as conn:
        return {row[0] for row in conn.execute("select rolname from pg_roles")}


class TestLive:
    def test_what_was_applied_stands(self, make: Callable[..., PolicyManager]) -> None:
        make().apply()
        report = live(make())
        assert (report.verdict, report.leaks, report.vacuous) == ("isolated", (), ())
        assert report.tables == ("public.notes",)

    def test_a_table_without_policies_is_read_on_the_target_itself(
        self, make: Callable[..., PolicyManager], target: str
    ) -> None:
        with psycopg.connect(target) as conn:
            conn.execute("grant select on public.notes to anon, authenticated")
        report = live(make())
        assert report.verdict == "leaks"
        assert on_target(report) >= {"anon", "another user", "no sub", "forged user_metadata"}
        [leak] = [each for each in report.leaks if (each.actor, each.via) == ("anon", "table, on the target")]
        with psycopg.connect(target, autocommit=True) as conn:
            rows = run_script(conn, leak.sql)
        assert rows == [(True,)]

    def test_a_policy_that_trusts_what_users_write_is_seen_on_the_target(
        self, make: Callable[..., PolicyManager], target: str
    ) -> None:
        make().apply()
        with psycopg.connect(target) as conn:
            conn.execute(
                "create policy trusting on public.notes for select to authenticated "
                "using ((auth.jwt() -> 'user_metadata' ->> 'role') = 'admin')"
            )
        assert on_target(live(make())) == {"forged user_metadata"}

    def test_nothing_is_written_there(self, make: Callable[..., PolicyManager], target: str) -> None:
        make().apply()
        before = footprint(target)
        live(make())
        assert footprint(target) == before

    def test_nobody_waits_for_ever_for_a_locked_table(self, make: Callable[..., PolicyManager], target: str) -> None:
        make().apply()
        with psycopg.connect(target) as somebody:
            somebody.execute("lock table public.notes in access exclusive mode")
            with pytest.raises(Blocked, match="is locked by another session"):
                look(target, make().definitions())

    def test_a_query_that_takes_too_long_is_not_proven(
        self, make: Callable[..., PolicyManager], target: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make().apply()
        with psycopg.connect(target) as conn:
            conn.execute(
                "create policy slow on public.notes as restrictive for select to authenticated "
                "using ((select pg_sleep(1)) is not null)"
            )
        monkeypatch.setitem(_TIMEOUTS, "statement_timeout", "200ms")
        seen = look(target, make().definitions())
        assert seen.leaks == ()
        assert {each.table for each in seen.not_proven} == {"public.notes"}
        assert all("statement timeout" in each.reason for each in seen.not_proven)


class TestBuilt:
    def test_the_definitions_are_applied_to_what_is_built(
        self, make: Callable[..., PolicyManager], server: Scratch
    ) -> None:
        before = roles(server)
        report = make(url=None).attack(build=build)
        assert report.verdict == "isolated"
        assert report.tables == ("public.notes",)
        assert (report.server_version, report.server_kind) == (str(server.major), "scratch-url")
        assert roles(server) == before
        with psycopg.connect(server.url) as conn:
            left = conn.execute("select datname from pg_database where datname ~ '^dbops_scratch'").fetchall()
        assert left == []

    def test_a_table_that_was_not_built_is_vacuous(self, make: Callable[..., PolicyManager]) -> None:
        report = make(DEFINED + '[table."public.missing"]\nowner = "user_id"\n', url=None).attack(build=build)
        assert report.verdict == "vacuous"
        assert [(each.table, each.reason) for each in report.vacuous] == [
            ("public.missing", "there is no such table in the database")
        ]

    def test_mutants(self, make: Callable[..., PolicyManager]) -> None:
        report = make(url=None).attack(build=build, mutate=True)
        assert report.mutants is not None
        assert report.mutants.survived == ()
        assert report.mutants.tried >= 10
        assert len(report.mutants.caught) + len(report.mutants.equivalent) == report.mutants.tried

    def test_what_building_raises_is_passed_on(self, make: Callable[..., PolicyManager]) -> None:
        def fails(_: str) -> None:
            raise StatementFailed("no such thing")

        with pytest.raises(StatementFailed, match="no such thing"):
            make(url=None).attack(build=fails)

    def test_an_unknown_table(self, make: Callable[..., PolicyManager]) -> None:
        with pytest.raises(UsageError, match=r"there is no table public\.nothing"):
            make(url=None).attack(build=build, tables=["public.nothing"])

    def test_nothing_to_hold_it_to(self, make: Callable[..., PolicyManager]) -> None:
        with pytest.raises(UsageError, match="there are no definitions"):
            make("version = 1\n", url=None).attack(build=build)

    def test_nothing_to_build(self, make: Callable[..., PolicyManager]) -> None:
        with pytest.raises(UsageError, match="nothing says how the schema is built"):
            make(url=None).attack()


def build(url: str) -> None:
    from dbops.migrate import MigrationManager

    folder = Path(__file__).parents[2] / "migrations" / "sql"
    MigrationManager(settings=Settings(url=url, migrations=folder)).migrate_up(count=1)
    with psycopg.connect(url) as conn:
        conn.execute(NOTES.encode())


def run_script(conn: psycopg.Connection[tuple[object, ...]], text: str) -> list[tuple[object, ...]]:
    """The rows of the last result of a script that has some."""
    found: list[tuple[object, ...]] = []
    cursor = conn.execute(text.encode())
    while True:
        if cursor.description:
            found = cursor.fetchall()
        if not cursor.nextset():
            return found


def footprint(url: str) -> list[tuple[object, ...]]:
    """What writing would change: rows with their transaction, sizes, and the objects of the database."""
    with psycopg.connect(url) as conn:
        rows = conn.execute(
            "select xmin::text, xmax::text, ctid::text, n::text from public.notes n order by 4"
        ).fetchall()
        sizes = conn.execute(
            "select oid::text, relname::text, relfilenode::text, pg_relation_size(oid)::text from pg_class "
            "where relnamespace = 'public'::regnamespace order by 1"
        ).fetchall()
    return [*rows, *sizes]
