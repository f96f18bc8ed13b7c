"""An accident and the way back, as a person or a script meets it: diff, restore, undo; the library's own names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dbops.backup import BackupManager
from dbops.cli.backup_output import Bar
from dbops.cli.output import Output
from dbops.database import parameters
from dbops.errors import ObjectMissing, UsageError
from tests.cli.backups import ANN, BOB, create, rows, shop, stop_at_the_first_rows
from tests.cli.conftest import Command, Terminal, sql

__all__ = ["shop"]


class TestRowsBack:
    """An accident, and the way back."""

    @pytest.fixture
    def accident(self, shop: Path, dbops: Command) -> str:
        url = os.environ["DATABASE_URL"]
        create(dbops)
        sql(url, f"delete from notes where id <= 10; update notes set note = 'x' where id = 50; "
            f"insert into notes (user_id, note) values ('{BOB}', 'new')")  # fmt: skip
        return url

    def test_diff(self, accident: str, dbops: Command) -> None:
        before = rows(accident)
        done = dbops("backup", "diff", "--table", "notes", "--json")
        assert done.code == 0
        (table,) = done.json["tables"]
        assert {k: table[k] for k in ("table", "missing", "changed", "extra", "written")} == {
            "table": "public.notes", "missing": 10, "changed": 1, "extra": 1, "written": 0,
        }  # fmt: skip
        assert table["samples"]
        assert dbops("backup", "diff", "--exit-code").code == 3
        done = dbops("backup", "diff")
        assert "~ public.notes id 50: note 'x' (backup: 'note 50')" in done.out
        assert "- gone since the backup, ~ changed since, + new since" in done.out
        assert "next: `dbops backup restore`" in done.err
        assert rows(accident) == before

    def test_no_difference(self, shop: Path, dbops: Command) -> None:
        create(dbops)
        done = dbops("backup", "diff", "--exit-code")
        assert (done.code, done.out.splitlines()[-1]) == (0, "0 tables differ, 2 the same")
        assert "gone since" not in done.out
        assert "next:" not in done.err

    def test_against_another_backup(self, accident: str, dbops: Command) -> None:
        (first,) = dbops("backup", "list", "--json").json["backups"]
        second = create(dbops)
        done = dbops("backup", "diff", first["id"], "--against", second, "--table", "notes", "--json")
        assert [done.json["tables"][0][key] for key in ("missing", "changed", "extra")] == [10, 1, 1]

    @pytest.mark.parametrize(
        ("mode", "written", "left"), [("missing", 10, (0, 1, 1)), ("upsert", 11, (0, 0, 1)), ("replace", 12, (0, 0, 0))]
    )
    def test_each_mode_and_its_undo(
        self, accident: str, dbops: Command, mode: str, written: int, left: tuple[int, ...]
    ) -> None:
        before = rows(accident)
        dry = dbops("backup", "restore", "--table", "notes", "--mode", mode, "--dry-run", "--json")
        assert dry.code == 0
        assert dry.json["run"] is None
        assert rows(accident) == before
        done = dbops("backup", "restore", "--table", "notes", "--mode", mode, "--yes", "--json")
        assert done.code == 0, done
        assert done.json["tables"][0]["written"] == written
        (table,) = dbops("backup", "diff", "--table", "notes", "--json").json["tables"]
        assert (table["missing"], table["changed"], table["extra"]) == left
        run = done.json["run"]
        assert dbops("backup", "restore", "--undo", run).code == 2
        assert dbops("backup", "restore", "--undo", run, "--dry-run", "--json").json["tables"][0]["written"] == 0
        undone = dbops("backup", "restore", "--undo", run, "--yes", "--json")
        assert undone.code == 0, undone
        assert rows(accident) == before
        assert dbops("backup", "restore", "--undo", run, "--yes").code == 2

    def test_one_user(self, accident: str, dbops: Command) -> None:
        done = dbops("backup", "restore", "--user", ANN, "--mode", "missing", "--yes", "--json")
        assert done.code == 0, done
        assert sum(table["written"] for table in done.json["tables"]) == 5
        assert {row[1] for row in rows(accident, "select id, user_id::text from notes where id <= 10")} == {ANN}

    def test_where(self, accident: str, dbops: Command) -> None:
        arguments = ["--table", "notes", "--where", "id < 4", "--mode", "missing", "--yes"]
        assert dbops("backup", "restore", *arguments).code == 0
        assert rows(accident, "select count(*) from notes where id <= 10") == [(3,)]

    def test_beside(self, accident: str, dbops: Command) -> None:
        before = rows(accident)
        done = dbops("backup", "restore", "--table", "notes", "--mode", "side", "--yes", "--json")
        assert done.code == 0, done
        assert rows(accident) == before
        assert rows(accident, f'select count(*) from "{done.json["schema"]}".notes') == [(100,)]
        # what was loaded to be looked at is no part of the next backup
        shown = dbops("backup", "show", create(dbops), "--json").json
        assert not [each for each in shown["tables"] if each["table"].startswith("dbops_restore_")]
        assert done.json["schema"] in [each["object"] for each in shown["omitted"]]

    def test_it_asks_and_names_host_and_database(
        self, accident: str, dbops: Command, types: Callable[[str], None]
    ) -> None:
        before = rows(accident)
        restore = ["backup", "restore", "--table", "notes", "--mode", "replace"]
        done = dbops(*restore, "--json")
        assert (done.code, done.error["code"]) == (2, "confirmation_required")
        assert "insert 10; turn back 1; delete 1" in done.err
        types("n")
        assert dbops(*restore).code == 2
        assert rows(accident) == before
        types("y")
        done = dbops(*restore)
        assert done.code == 0
        parts = parameters(accident)
        assert f"{parts['dbname']} on {parts['host']}" in done.err
        assert "dbops backup restore --undo " in done.out

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--table", "notes"],
            ["--user", ANN],
            ["--mode", "nonsense"],
            ["--table", "notes", "--mode", "missing", "--cascade"],
            ["--table", "notes", "--mode", "missing", "--create-roles"],
            ["--undo", "x", "--table", "notes"],
            ["--undo", "20250101_000000_deadbeef", "--yes"],
            ["--table", "nothing", "--mode", "missing", "--yes"],
            ["--table", "notes", "--where", "id = 1; drop table notes", "--mode", "missing", "--yes"],
            ["--into", "", "--yes"],
        ],
    )
    def test_what_makes_no_sense_is_refused(self, accident: str, dbops: Command, arguments: list[str]) -> None:
        before = rows(accident)
        done = dbops("backup", "restore", *arguments, "--json")
        assert done.code == 2, done
        assert done.error["hint"]
        assert rows(accident) == before

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--user", "ann"], "--user 'ann': invalid input syntax for type uuid: \"ann\""),
            (["--table", "notes", "--where", "idd < 4"], "--where 'idd < 4': column \"idd\" does not exist"),
            (
                ["--table", "notes", "--where", "note < 4"],
                "--where 'note < 4': operator does not exist: text < integer",
            ),
        ],
    )
    def test_what_cannot_be_read_is_told_in_one_line(
        self, accident: str, dbops: Command, arguments: list[str], message: str
    ) -> None:
        before = rows(accident)
        for verb in (["diff"], ["restore", "--mode", "missing", "--yes"]):
            done = dbops("backup", *verb, *arguments, "--json")
            assert (done.code, done.error["message"]) == (2, message)
            assert done.error["hint"] == "no live row was touched"
        assert rows(accident) == before

    def test_ctrl_c_at_the_question(self, accident: str, dbops: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        before = rows(accident)
        monkeypatch.setattr("sys.stdin", Terminal())  # the end of the input is to click what Ctrl-C is
        done = dbops("backup", "restore", "--table", "notes", "--mode", "upsert", "--json")
        assert (done.code, done.error["code"]) == (130, "interrupted")
        assert "all or none" in done.error["hint"]
        assert rows(accident) == before

    def test_a_profile_wants_its_word(self, accident: str, dbops: Command, folder: Path) -> None:
        (folder / "dbops.toml").write_text('[env.prod]\nconfirm = "prod"\n')
        restore = ["backup", "restore", "--table", "notes", "--mode", "missing", "--env", "prod"]
        assert dbops(*restore, "--yes").code == 2
        assert dbops(*restore, "--confirm", "prod").code == 0

    def test_undo_is_where_into_says(self, accident: str, dbops: Command, make_database: Callable[..., str]) -> None:
        """A clone has the record of runs as well: what is undone there must not be undone here."""
        done = dbops("backup", "restore", "--table", "notes", "--mode", "missing", "--yes", "--json")
        here, clone = rows(accident), make_database("empty")
        assert dbops("backup", "restore", create(dbops), "--into", clone, "--yes").code == 0
        assert dbops("backup", "restore", "--undo", done.json["run"], "--into", clone, "--yes").code == 0
        assert rows(accident) == here
        assert rows(clone) != here


class TestWhole:
    def test_into_an_empty_database(self, shop: Path, dbops: Command, make_database: Callable[..., str]) -> None:
        name, target = create(dbops), make_database("empty")
        dry = dbops("backup", "restore", name, "--into", target, "--dry-run", "--json")
        assert dry.code == 0
        assert dbops("backup", "restore", name, "--into", target, "--json").code == 2
        assert rows(target, "select count(*) from pg_class where relname = 'notes'") == [(0,)]
        done = dbops("backup", "restore", name, "--into", target, "--yes", "--json")
        assert done.code == 0, done
        assert {t["table"]: t["written"] for t in done.json["tables"]}["public.notes"] == 100
        assert rows(target) == rows(os.environ["DATABASE_URL"])
        again = dbops("backup", "restore", name, "--into", target, "--yes", "--json")
        assert again.code == 2
        assert "not empty" in again.error["message"]
        asked = dbops("backup", "restore", name, "--into", target, "--dry-run", "--json")
        assert (asked.code, asked.error["message"]) == (2, again.error["message"])

    def test_stopped_in_the_middle_and_begun_anew(
        self, shop: Path, dbops: Command, make_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create(dbops)
        target = make_database("empty")
        restore = ["backup", "restore", "--into", target]
        with monkeypatch.context() as patch:
            stop_at_the_first_rows(patch)
            done = dbops(*restore, "--yes", "--json")
        assert (done.code, done.error["code"]) == (130, "interrupted")
        assert "--yes begins anew" in done.error["hint"]
        assert dbops(*restore).code == 2
        assert "after dropping an unfinished restore" in dbops(*restore, "--dry-run").out
        assert dbops(*restore, "--yes").code == 0
        assert rows(target) == rows(os.environ["DATABASE_URL"])

    def test_the_result_stands_below_the_bar(
        self, shop: Path, dbops: Command, make_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create(dbops)
        seen: list[str] = []
        monkeypatch.setattr(Bar, "_clear", lambda _: seen.append("bar cleared"))
        monkeypatch.setattr(Output, "result", lambda *_: seen.append("result"))
        assert dbops("backup", "restore", "--into", make_database("empty"), "--yes").code == 0
        assert seen[-2:] == ["bar cleared", "result"]

    def test_latest_is_that_of_the_database_that_the_url_names(
        self, shop: Path, dbops: Command, make_database: Callable[..., str]
    ) -> None:
        create(dbops)
        other, target = make_database("empty"), make_database("empty")
        sql(other, "create table others (id int)")
        create(dbops, "--url", other)
        assert dbops("backup", "restore", "--into", target, "--yes").code == 0
        assert len(rows(target)) == 100
        lost = dbops("backup", "show", "--url", target, "--json")
        assert lost.code == 2
        assert "several databases" in lost.error["message"]


class TestManager:
    """The public API, by the names that interfaces promise."""

    def test_the_seeds_calls(self, shop: Path, make_database: Callable[..., str], tmp_path: Path) -> None:
        url = os.environ["DATABASE_URL"]
        library = BackupManager(url, tmp_path / "store")
        daily = library.schedule_daily_backup()
        weekly = library.create_full_backup("weekly")
        assert [each.manifest.id for each in library.get_backup_list()] == [weekly.id, daily]
        assert library.verify_backup_integrity(daily).ok
        sql(url, "delete from notes where id = 1")
        with pytest.raises(UsageError, match="mode"):
            library.restore_from_backup(daily, ["notes"])
        merged = library.restore_from_backup(daily, ["notes"], mode="missing")
        assert merged.run  # type: ignore[union-attr]
        assert len(rows(url)) == 100
        target = make_database("empty")
        BackupManager(target, tmp_path / "store").restore_from_backup(daily)
        assert rows(target) == rows(url)
        assert library.cleanup_old_backups().removed == ()
        with pytest.raises(ObjectMissing):
            library.restore_from_backup("backup_20250101_120000_daily")
