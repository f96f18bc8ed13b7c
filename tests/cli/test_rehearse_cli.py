"""`dbops migrate rehearse`: the last backup restored in a scratch server, and what is pending run there on the real rows."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.cli.backups import create, rows, shop
from tests.cli.conftest import Command, sql, write

__all__ = ["shop"]

ADD = "alter table notes add column at timestamptz default clock_timestamp();\ncreate index notes_user on notes (user_id);"


@pytest.fixture
def rehearse(dbops: Command, server: Any) -> Command:
    """rehearse("--to", "…"): on this run's server."""
    return lambda *arguments: dbops("migrate", "rehearse", "--scratch-url", server.url, *arguments)


def databases() -> set[str]:
    with psycopg.connect(os.environ["DATABASE_URL"]) as conn:
        return {row[0] for row in conn.execute("select datname from pg_database")}


class TestWhatIsTold:
    def test_on_the_real_rows(self, shop: Path, dbops: Command, rehearse: Command) -> None:
        name = create(dbops)
        write(shop, "20250201_000001_at", ADD)
        before = rows(os.environ["DATABASE_URL"])
        done = rehearse("--json")
        assert done.code == 0, done
        (step,) = done.json["steps"]
        first, second = step["statements"]
        assert (step["version"], step["transactional"]) == ("20250201_000001", True)
        assert first["rewrites"] == ["public.notes"]
        assert {"mode": "ACCESS EXCLUSIVE", "relation": "public.notes", "created": False} in first["locks"]
        (block,) = first["blocks"]
        assert (block["relation"], block["what"], block["rows"]) == ("public.notes", "reads and writes", 100)
        assert second["scans"] == ["public.notes"]
        assert (first["rows"], second["rows"]) == (100, 100)
        assert first["duration_ms"] > 0
        assert (done.json["id"], done.json["failed"], done.json["not_restored"]) == (name, [], [])
        assert done.json["rows"] >= 102
        assert done.json["restore_ms"] > 0
        assert rows(os.environ["DATABASE_URL"]) == before

    def test_people_read_it_line_by_line(self, shop: Path, dbops: Command, rehearse: Command) -> None:
        name = create(dbops)
        write(shop, "20250201_000001_at", ADD)
        done = rehearse()
        assert done.code == 0
        assert "ACCESS EXCLUSIVE on public.notes: blocks reads and writes; table rewritten" in done.out
        assert done.out.count("took  20250201_000001:") == 2
        assert ", 100 rows\n" in done.out
        assert f"rows of {name} restored in " in done.out.splitlines()[-1]

    def test_an_index_that_is_built_concurrently(self, shop: Path, dbops: Command, rehearse: Command) -> None:
        create(dbops)
        write(shop, "20250201_000001_index", "create index concurrently notes_user on notes (user_id);")
        done = rehearse("--json")
        assert done.code == 0
        (step,) = done.json["steps"]
        assert step["transactional"] is False
        assert [each["index"] for each in step["statements"][0]["indexes"]] == ["public.notes_user"]
        assert step["statements"][0]["blocks"] == []

    def test_nothing_pending(self, shop: Path, dbops: Command, rehearse: Command) -> None:
        create(dbops)
        done = rehearse()
        assert done.code == 0
        assert "nothing to do" in done.out
        assert rehearse("--json").json["steps"] == []


class TestFailures:
    def test_what_only_the_rows_make_fail(self, shop: Path, dbops: Command, rehearse: Command, server: Any) -> None:
        create(dbops)
        write(shop, "20250201_000001_unique", "create unique index one_note on notes (user_id);")
        write(shop, "20250201_000002_after", "create table after_it (id int);")
        assert dbops("migrate", "plan", "--xray", "--scratch-url", server.url, "--json").json["failed"] == []
        done = rehearse("--json")
        assert done.code == 1
        assert [failed.split()[0] for failed in done.json["failed"]] == ["20250201_000001"]
        (failed,) = done.json["steps"][0]["statements"]
        assert failed["state"] == "failed"
        assert "could not create unique index" in failed["error"]
        assert "is duplicated" in rehearse().out
        assert rows(os.environ["DATABASE_URL"], "select to_regclass('one_note'), to_regclass('after_it')") == [
            (None,) * 2
        ]

    def test_rows_that_a_constraint_does_not_allow(self, shop: Path, dbops: Command, rehearse: Command) -> None:
        sql(os.environ["DATABASE_URL"], "update notes set note = '' where id = 7")
        create(dbops)
        write(shop, "20250201_000001_check", "alter table notes add check (note <> '');")
        done = rehearse("--json")
        assert done.code == 1
        assert "is violated by some row" in done.json["steps"][0]["statements"][0]["error"]
        # the rows have been mended since: it is the backup that is rehearsed on
        sql(os.environ["DATABASE_URL"], "update notes set note = 'n' where id = 7")
        assert rehearse().code == 1
        create(dbops)
        assert rehearse().code == 0

    def test_the_scratch_database_is_gone_afterwards(self, shop: Path, dbops: Command, rehearse: Command) -> None:
        create(dbops)
        write(shop, "20250201_000001_wrong", "select nonsense;")
        before = databases()
        assert rehearse().code == 1
        assert databases() == before

    def test_a_damaged_backup(self, shop: Path, dbops: Command, rehearse: Command) -> None:
        create(dbops)
        for chunk in (shop / "backups" / "chunks").glob("*/*.gz"):
            chunk.write_bytes(chunk.read_bytes()[:-1])
        done = rehearse("--json")
        assert (done.code, done.error["code"]) == (13, "backup_damaged")


class TestWhich:
    def test_what_is_pending_is_asked_of_the_backup(self, shop: Path, dbops: Command, rehearse: Command) -> None:
        """Also where the database has it by now: how long did that take again?"""
        first = create(dbops)
        write(shop, "20250201_000001_at", ADD)
        assert dbops("migrate", "up", "-q").code == 0
        second = create(dbops)
        assert len(rehearse(first, "--json").json["steps"]) == 1
        assert rehearse(second, "--json").json["steps"] == []
        assert rehearse("--json").json["id"] == second

    def test_by_time(self, shop: Path, dbops: Command, rehearse: Command) -> None:
        name = create(dbops)
        assert rehearse("--before", datetime.now(UTC).isoformat(), "--json").json["id"] == name
        done = rehearse("--before", "2020-01-01", "--json")
        assert (done.code, done.error["code"]) == (1, "object_missing")
        assert rehearse(name, "--before", "2030-01-01").code == 2

    def test_up_to_a_version(self, shop: Path, dbops: Command, rehearse: Command) -> None:
        create(dbops)
        write(shop, "20250201_000001_at", ADD)
        write(shop, "20250201_000002_wrong", "select nonsense;")
        done = rehearse("--to", "20250201_000001", "--json")
        assert done.code == 0
        assert [step["version"] for step in done.json["steps"]] == ["20250201_000001"]

    def test_the_database_itself_may_be_gone(
        self, shop: Path, dbops: Command, rehearse: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create(dbops)
        write(shop, "20250201_000001_at", ADD)
        monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/gone")
        assert rehearse().code == 0


class TestRefused:
    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (["--to", "20990101_000001"], "usage"),
            (["backup_20250101_000000_daily"], "object_missing"),
            (["../../etc"], "object_missing"),
        ],
    )
    def test_before_anything_is_restored(
        self, shop: Path, dbops: Command, rehearse: Command, arguments: list[str], code: str
    ) -> None:
        create(dbops)
        done = rehearse(*arguments, "--json")
        assert done.error["code"] == code
        assert "restoring" not in done.err

    def test_a_file_that_cannot_be_read(self, shop: Path, dbops: Command, rehearse: Command) -> None:
        create(dbops)
        write(shop, "20250201_000001_wrong", "\\connect other")
        done = rehearse("--json")
        assert (done.code, done.error["code"]) == (2, "migration_file")
        assert "restoring" not in done.err

    def test_an_empty_store(self, shop: Path, rehearse: Command) -> None:
        done = rehearse("--json")
        assert (done.code, done.error["code"]) == (1, "object_missing")

    def test_several_databases_in_the_store(
        self, shop: Path, dbops: Command, rehearse: Command, make_database: Callable[..., str]
    ) -> None:
        name = create(dbops)
        other = make_database("empty")
        sql(other, "create table others (id int)")
        create(dbops, "--url", other)
        assert rehearse("--json").json["id"] == name
        stranger = make_database("empty")
        assert rehearse("--url", stranger).code == 2
