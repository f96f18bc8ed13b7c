"""The backup room as a person or a script meets it: take, look, verify, damage, heal, prune, drill, carry out and in."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dbops.backup import BackupManager
from dbops.backup.manifest import dump, read_all
from dbops.backup.objects import backup_id, manifest_key
from dbops.config import Settings
from dbops.database import parameters
from dbops.embedded import binaries
from tests.cli.backups import ANN, create, rows, shop, stop_at_the_first_rows
from tests.cli.conftest import Command, sql

__all__ = ["shop"]


class TestCreateAndLook:
    def test_the_keys_that_scripts_read(self, shop: Path, dbops: Command) -> None:
        made = dbops("backup", "create", "--json").json
        assert {"id", "tier", "tables", "rows", "raw_bytes", "stored_bytes", "new_bytes", "duration_ms"} <= set(made)
        assert re.fullmatch(r"backup_\d{8}_\d{6}_manual", made["id"])
        assert made["rows"] >= 102
        assert made["raw_bytes"] > made["stored_bytes"] >= made["new_bytes"] > 0
        (listed,) = dbops("backup", "list", "--json").json["backups"]
        assert {"id", "tier", "created_at", "stored_bytes", "proven_at", "restore_ms", "migration"} <= set(listed)
        assert listed["id"] == made["id"]
        assert listed["migration"] == "20250101_000001"
        assert listed["proven_at"] is None
        assert listed["stored_bytes"] == made["stored_bytes"]
        shown = dbops("backup", "show", "--json").json
        tables = {each["table"]: each for each in shown["tables"]}
        assert shown["backups"] == [listed]
        assert tables["public.notes"]["rows"] == 100
        assert tables["public.notes"]["bytes"] > 0

    def test_the_second_one_stores_little(self, shop: Path, dbops: Command) -> None:
        first = dbops("backup", "create", "--json").json
        second = dbops("backup", "create", "--json").json
        assert second["id"] != first["id"]
        assert second["new_bytes"] < first["new_bytes"]
        assert second["rows"] == first["rows"]

    def test_people_read_a_table(self, shop: Path, dbops: Command) -> None:
        name = create(dbops)
        text = dbops("backup", "list").out
        assert re.search(rf"^{name}  +\S+ kB  20250101_000001  never$", text, re.MULTILINE)
        text = dbops("backup", "show", name).out
        assert re.search(r"^public\.notes +100 rows", text, re.MULTILINE)

    def test_a_dry_run_stores_nothing(self, shop: Path, dbops: Command) -> None:
        done = dbops("backup", "create", "--dry-run", "--tier", "auto", "--exclude", "public.users")
        assert done.code == 0
        assert done.out.startswith("a monthly backup of ")
        assert "not in it: public.users" in done.out
        assert not (shop / "backups").exists()
        assert dbops("backup", "list").out == "no backups in backups\n"

    def test_auto_is_monthly_then_daily(self, shop: Path, dbops: Command) -> None:
        assert create(dbops, "--tier", "auto").endswith("_monthly")
        assert create(dbops, "--tier", "auto").endswith("_daily")

    def test_patterns(self, shop: Path, dbops: Command) -> None:
        create(dbops, "--include", "public.u*")
        tables = {t["table"]: t["rows"] for t in dbops("backup", "show", "--json").json["tables"]}
        assert tables == {"public.users": 2}

    def test_the_store_may_lie_elsewhere(self, shop: Path, dbops: Command, tmp_path: Path) -> None:
        name = create(dbops, "--store", str(tmp_path / "other"))
        assert (tmp_path / "other" / "backups" / name / "manifest.json").is_file()
        assert dbops("backup", "list", "--json").json == {"backups": []}
        assert dbops("backup", "list", "--json", "--store", str(tmp_path / "other")).json["backups"][0]["id"] == name

    def test_by_time(self, shop: Path, dbops: Command) -> None:
        name = create(dbops)
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        assert dbops("backup", "show", "--before", later, "--json").json["backups"][0]["id"] == name
        done = dbops("backup", "show", "--before", "2020-01-01", "--json")
        assert (done.code, done.error["code"]) == (1, "object_missing")
        assert dbops("backup", "show", name, "--before", later).code == 2
        assert dbops("backup", "show", "--before", "yesterday").code == 2

    def test_what_is_not_there(self, shop: Path, dbops: Command) -> None:
        for arguments in (["show"], ["show", "backup_20250101_000000_daily"], ["verify", "../../etc"], ["drill", "x"]):
            done = dbops("backup", *arguments, "--json")
            assert (done.code, done.error["code"]) == (1, "object_missing"), arguments

    def test_an_empty_store_is_named(self, shop: Path, dbops: Command) -> None:
        assert dbops("backup", "list", "--store", "mistyped").out == "no backups in mistyped\n"
        done = dbops("backup", "check", "--store", "mistyped")
        assert (done.code, done.out) == (3, "PROBLEM  there is no good backup of this database in mistyped\n")
        assert not (shop / "mistyped").exists()

    def test_stopped_in_the_middle(self, shop: Path, dbops: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            stop_at_the_first_rows(patch)
            done = dbops("backup", "create", "--json")
        assert (done.code, done.error["code"]) == (130, "interrupted")
        assert "no backup was written" in done.error["hint"]
        assert dbops("backup", "list", "--json").json == {"backups": []}
        assert list((shop / "backups" / "chunks").glob("*/*.gz"))
        assert dbops("backup", "verify", create(dbops)).code == 0

    def test_no_secret_is_kept_or_told(self, shop: Path, dbops: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        url = psycopg.conninfo.make_conninfo(os.environ["DATABASE_URL"], password="Kx9qsecret")
        monkeypatch.setenv("DATABASE_URL", url)
        done = dbops("backup", "create", "-v")
        assert done.code == 0
        stored = b"".join(path.read_bytes() for path in (shop / "backups").rglob("*") if path.is_file())
        assert b"Kx9qsecret" not in stored
        assert "Kx9qsecret" not in done.out + done.err


class TestVerifyAndCheck:
    def damage(self, shop: Path, name: str, table: str) -> Path:
        """Flip a byte of a table's chunk."""
        manifest = json.loads((shop / "backups" / "backups" / name / "manifest.json").read_text())
        (entry,) = [each for each in manifest["tables"] if each["name"]["name"] == table]
        digest = entry["chunks"][0]["sha256"]
        path = shop / "backups" / "chunks" / digest[:2] / f"{digest}.gz"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        return path

    def test_whole(self, shop: Path, dbops: Command) -> None:
        name = create(dbops)
        for arguments in ([], [name], ["latest"], ["--all"], ["--all", "--sample", "0.2"]):
            done = dbops("backup", "verify", *arguments, "--json")
            assert done.code == 0
            assert done.json["ok"] is True
            assert done.json["checked_bytes"] > 0
            assert done.json["damaged"] == []
        assert dbops("backup", "verify", name, "--all").code == 2
        assert dbops("backup", "verify", "--sample", "2").code == 2

    def test_damage_is_told_and_the_next_create_heals_it(self, shop: Path, dbops: Command) -> None:
        first, second = create(dbops), create(dbops)
        path = self.damage(shop, first, "notes")
        done = dbops("backup", "verify", "--all", "--json")
        assert done.code == 13
        assert "next: `dbops backup create`" in done.err
        assert done.json["ok"] is False
        (found,) = done.json["damaged"]
        assert found["object"] == path.relative_to(shop / "backups").as_posix()
        assert found["backups"] == sorted([first, second])
        assert found["tables"] == ["public.notes"]
        checked = dbops("backup", "check")
        assert checked.code == 13
        assert "next: `dbops backup create`" in checked.err
        third = create(dbops)
        assert dbops("backup", "verify", "--all").code == 0
        checked = dbops("backup", "check", "--json")
        assert (checked.code, checked.json["newest"]["id"]) == (0, third)

    def test_what_was_mended_by_hand_is_forgotten(self, shop: Path, dbops: Command) -> None:
        name = create(dbops)
        path = self.damage(shop, name, "notes")
        assert dbops("backup", "verify").code == 13
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        assert dbops("backup", "check").code == 13
        assert dbops("backup", "verify", "--all").code == 0
        assert dbops("backup", "check").code == 0

    def test_check_by_age(self, shop: Path, dbops: Command) -> None:
        none = dbops("backup", "check", "--json")
        assert (none.code, none.json["newest"], none.json["ok"]) == (3, None, False)
        name = create(dbops)
        good = dbops("backup", "check", "--json", "--max-age", "26h")
        assert (good.code, good.json["ok"], good.json["newest"]["id"]) == (0, True, name)
        assert 0 <= good.json["newest"]["age_s"] < 600
        assert good.json["newest"]["proven_at"] is None
        assert dbops("backup", "check", "--max-age", "0s").code == 3
        unproven = dbops("backup", "check", "--proven", "8d")
        assert unproven.code == 3
        assert "never" in unproven.out or "no backup of this database was ever proven" in unproven.out
        assert dbops("backup", "check", "--max-age", "soon").code == 2

    def test_a_missing_chunk_makes_the_one_before_it_count(self, shop: Path, dbops: Command) -> None:
        first = create(dbops)
        sql(os.environ["DATABASE_URL"], "update notes set note = 'other'")
        second = create(dbops)
        gone = {c.sha256 for m in self.manifests(shop) for c in m.chunks if m.id == second} - {
            c.sha256 for m in self.manifests(shop) for c in m.chunks if m.id == first
        }
        for digest in gone:
            (shop / "backups" / "chunks" / digest[:2] / f"{digest}.gz").unlink()
        done = dbops("backup", "check", "--json")
        assert done.code == 13
        assert done.json["newest"]["id"] == first
        assert {name for each in done.json["damaged"] for name in each["backups"]} == {second}

    def test_a_manifest_that_cannot_be_read(self, shop: Path, dbops: Command) -> None:
        first, second = create(dbops), create(dbops)
        path = shop / "backups" / "backups" / second / "manifest.json"
        path.write_text(path.read_text().replace('"rows":100', '"rows":101'))
        done = dbops("backup", "check", "--json")
        assert (done.code, done.json["newest"]["id"]) == (13, first)
        listed = dbops("backup", "list")
        assert listed.code == 0
        assert first in listed.out
        assert second in listed.err
        assert dbops("backup", "show", second).code == 13

    def manifests(self, shop: Path) -> Any:
        return read_all(BackupManager(settings=Settings(root=shop)).store)[0]

    def test_another_databases_backup_does_not_count(
        self, shop: Path, dbops: Command, make_database: Callable[..., str]
    ) -> None:
        create(dbops)
        other = make_database("empty")
        assert dbops("backup", "check", "--url", other).code == 3


class TestPrune:
    @pytest.fixture
    def old(self, shop: Path, dbops: Command) -> tuple[str, str]:
        """A backup whose time is over, and a new one."""
        new = create(dbops, "--tier", "daily")
        store = BackupManager(settings=Settings(root=shop)).store
        ((manifest,), _) = read_all(store)
        at = manifest.created_at - timedelta(days=40)
        old = replace(manifest, id=backup_id(at, "daily"), created_at=at, objects=())
        store.put(manifest_key(old.id), dump(old))
        return old.id, new

    def test_a_dry_run_gives_reasons_and_removes_nothing(self, old: tuple[str, str], dbops: Command) -> None:
        done = dbops("backup", "prune", "--dry-run", "--json")
        assert done.code == 0
        assert [each["id"] for each in done.json["removed"]] == [old[0]]
        assert [each["id"] for each in done.json["kept"]] == [old[1]]
        assert all(each["reason"] for each in (*done.json["removed"], *done.json["kept"]))
        assert len(dbops("backup", "list", "--json").json["backups"]) == 2

    def test_it_asks(self, old: tuple[str, str], dbops: Command, types: Callable[[str], None]) -> None:
        done = dbops("backup", "prune", "--json")
        assert (done.code, done.error["code"]) == (2, "confirmation_required")
        types("n")
        assert dbops("backup", "prune").code == 2
        assert len(dbops("backup", "list", "--json").json["backups"]) == 2
        types("y")
        done = dbops("backup", "prune")
        assert done.code == 0
        assert parameters(os.environ["DATABASE_URL"])["dbname"] in done.err
        assert [each["id"] for each in dbops("backup", "list", "--json").json["backups"]] == [old[1]]

    def test_for_scripts(self, old: tuple[str, str], dbops: Command) -> None:
        done = dbops("backup", "prune", "--yes", "--json")
        assert done.code == 0
        assert done.json["freed_bytes"] > 0
        assert dbops("backup", "verify", "--all").code == 0

    def test_nothing_to_remove_needs_no_answer(self, shop: Path, dbops: Command) -> None:
        create(dbops)
        assert dbops("backup", "prune").code == 0


class TestDrill:
    def test_a_proof_is_kept(self, shop: Path, dbops: Command, server: Any) -> None:
        name = create(dbops)
        done = dbops("backup", "drill", "--scratch-url", server.url, "--json")
        assert done.code == 0, done
        assert (done.json["id"], done.json["ok"], done.json["not_proven"]) == (name, True, [])
        assert {
            k: v for t in done.json["tables"] if t["table"] == "public.notes" for k, v in t.items() if k != "reason"
        } == {"table": "public.notes", "rows": 100, "matches": True}
        (listed,) = dbops("backup", "list", "--json").json["backups"]
        assert listed["proven_at"]
        assert listed["restore_ms"] == done.json["restore_ms"] > 0
        assert dbops("backup", "check", "--proven", "8d").code == 0

    def test_a_schema_that_is_not_what_the_migrations_left_fails_it(
        self, shop: Path, dbops: Command, server: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A fingerprint of another schema in the manifest stands for definitions that were lost."""
        sql(os.environ["DATABASE_URL"], "alter table notes add column drifted int")
        name = create(dbops)
        # the drift was there when the backup was taken: it is restored with it
        assert dbops("backup", "drill", "--scratch-url", server.url).code == 0
        store = BackupManager(settings=Settings(root=shop)).store
        ((manifest,), _) = read_all(store)
        store.put(manifest_key(name), dump(replace(manifest, fingerprint="0" * 64)))
        done = dbops("backup", "drill", "--scratch-url", server.url, "--json")
        assert done.code == 13
        assert any("drifted" in problem for problem in done.json["problems"])
        assert "FAILED" in dbops("backup", "list").out


class TestExchange:
    def test_out_and_in_again(self, shop: Path, dbops: Command) -> None:
        url = os.environ["DATABASE_URL"]
        done = dbops("backup", "export", "--table", "notes", "--to", "out", "--json")
        assert done.code == 0
        assert (done.json["files"], done.json["rows"]) == (["out/public.notes.json.gz"], 100)
        before = rows(url)
        sql(url, "truncate notes")
        dry = dbops("backup", "import", "out/public.notes.json.gz", "--dry-run", "--json")
        assert (dry.code, dry.json["rows"]) == (0, 100)
        assert rows(url) == []
        assert dbops("backup", "import", "out/public.notes.json.gz").code == 0
        assert rows(url) == before

    def test_from_a_backup(self, shop: Path, dbops: Command, server: Any) -> None:
        create(dbops)
        sql(os.environ["DATABASE_URL"], "truncate notes")
        done = dbops("backup", "export", "latest", "--table", "notes", "--scratch-url", server.url, "--json")
        assert done.code == 0, done
        assert len(gzip.decompress((shop / "export" / "public.notes.json.gz").read_bytes()).splitlines()) == 100

    def test_a_fault_is_told_with_its_line(self, shop: Path, dbops: Command) -> None:
        (shop / "notes.jsonl").write_text(f'{{"user_id": "{ANN}", "note": "a"}}\n{{"nonsense": 1}}\n')
        done = dbops("backup", "import", "notes.jsonl", "--json")
        assert done.code == 2
        assert done.error["message"].startswith("notes.jsonl:2: ")

    def test_sql(self, shop: Path, dbops: Command) -> None:
        assert dbops("backup", "export", "--format", "sql", "--to", "out").code == 0
        (path,) = (shop / "out").iterdir()
        url = os.environ["DATABASE_URL"]
        sql(url, "truncate notes, users, schema_migrations")
        programs = binaries(18)
        assert programs
        subprocess.run([programs / "psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", url, "-f", path], check=True)
        assert len(rows(url)) == 100


class TestSchedule:
    @pytest.mark.parametrize("kind", ["systemd", "cron", "kubernetes"])
    def test_printed_and_written(self, folder: Path, dbops: Command, kind: str) -> None:
        printed = dbops("backup", "schedule", kind, "--json", "--no-embedded")
        assert printed.code == 0
        done = dbops("backup", "schedule", kind, "--to", "units", "--json", "--no-embedded")
        assert done.code == 0
        assert [f"units/{name}" for name in printed.json["files"]] == done.json["files"]
        assert (folder / "units" / "backup.env").stat().st_mode & 0o777 == 0o600
        assert (folder / "units" / "backup.env").read_text() == printed.json["contents"]["backup.env"]

    def test_a_file_that_was_filled_in_stays(self, folder: Path, dbops: Command) -> None:
        (folder / "units").mkdir()
        (folder / "units" / "backup.env").write_text("DATABASE_URL=secret")
        assert dbops("backup", "schedule", "cron", "--to", "units").code == 2
        assert (folder / "units" / "backup.env").read_text() == "DATABASE_URL=secret"

    def test_every_command_in_the_units_is_understood(self, folder: Path, dbops: Command) -> None:
        from tests.cli.test_docs import problem

        text = "\n".join(dbops("backup", "schedule", "systemd", "--json").json["contents"].values())
        lines = [f"dbops {line}" for line in re.findall(r"^Exec\w+=-?\S+ (backup .*)$", text, re.MULTILINE)]
        assert len(lines) == 8
        assert [found for line in lines if (found := problem(line))] == []

    def test_a_ping_never_fails(self, folder: Path, dbops: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        assert dbops("backup", "ping", "start").code == 0
        monkeypatch.setenv("DBOPS_HEARTBEAT", "http://127.0.0.1:1/Kx9qsecret")
        monkeypatch.setenv("SERVICE_RESULT", "exit-code")
        done = dbops("backup", "ping", "--json")
        assert (done.code, done.json) == (0, {"pinged": False, "moment": "fail"})
        assert "did not get through" in done.err
        assert "Kx9qsecret" not in done.err
