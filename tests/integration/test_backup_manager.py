"""BackupManager as a program uses it: backups taken, listed, verified, healed, drilled, brought back, pruned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dbops.backup import BackupManager, Difference, Merged, Restored
from dbops.backup.create import Progress
from dbops.backup.manifest import dump
from dbops.backup.model import Manifest
from dbops.backup.objects import chunk_key, manifest_key
from dbops.config import Settings
from dbops.embedded import Scratch
from dbops.errors import BackupDamaged, ObjectMissing, UsageError

SCHEMA = """
    create table notes (user_id int, id serial primary key, body text);
    create table tags (note int references notes on delete cascade, tag text, primary key (note, tag));
    insert into notes (user_id, body) select 1 + n % 3, 'note ' || n from generate_series(1, 30) n;
    insert into tags select id, 't' from notes where id % 2 = 0;
"""


@dataclass
class Program:
    """A database with its manager, and what that told."""

    url: str
    manager: BackupManager
    told: list[str] = field(default_factory=list)

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as conn:
            cursor = conn.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def rows(self) -> list[tuple[Any, ...]]:
        return self.run("select n::text, t::text from notes n full join tags t on note = id order by 1, 2")


@pytest.fixture
def make(make_database: Callable[..., str], server: Scratch, tmp_path: Path) -> Callable[..., Program]:
    """make(schema): a database with its manager; all share one store."""

    def program(schema: str = SCHEMA) -> Program:
        url, told = make_database(), list[str]()

        def tell(progress: Progress) -> None:
            told.append(progress.note)

        settings = Settings(scratch_url=server.url, root=tmp_path, wait=30.0)
        made = Program(url, BackupManager(url, tmp_path / "store", settings=settings, tell=tell), told)
        if schema:
            made.run(schema)
        return made

    return program


@pytest.fixture
def shop(make: Callable[..., Program]) -> Program:
    return make()


def put_back(shop: Program, manifest: Manifest, age: timedelta) -> Manifest:
    """The same backup as if it had been taken then."""
    at = manifest.created_at - age
    older = replace(manifest, id=f"backup_{at:%Y%m%d_%H%M%S}_daily", tier="daily", created_at=at, objects=())
    shop.manager.store.put(manifest_key(older.id), dump(older))
    return older


def test_taken_listed_verified(shop: Program) -> None:
    assert shop.manager.get_backup_list() == ()
    plan = shop.manager.plan_create("weekly")
    assert [name for name, _ in plan.tables] == ["public.notes", "public.tags"]
    assert shop.manager.get_backup_list() == ()
    first = shop.manager.create_full_backup("weekly", exclude=["tags"])
    assert (first.tier, first.rows, [str(each.name) for each in first.tables]) == ("weekly", 30, ["public.notes"])
    second = shop.manager.schedule_daily_backup()
    assert second.endswith("_daily")
    listed = shop.manager.get_backup_list()
    assert [each.manifest.id for each in listed] == [second, first.id]
    assert {(each.proven, each.failed) for each in listed} == {(None, None)}
    for backup, count in ((second, 1), ("latest", 1), (None, 2)):
        found = shop.manager.verify_backup_integrity(backup)
        assert (found.ok, len(found.backups)) == (True, count)
        assert found.checked_bytes > 0
    assert shop.manager.get_backup().id == second
    assert shop.manager.get_backup(before=first.created_at).id == first.id
    with pytest.raises(ObjectMissing, match="there is no backup before"):
        shop.manager.get_backup(before=first.created_at - timedelta(seconds=1))
    with pytest.raises(ObjectMissing, match="backup_20200101_000000_daily"):
        shop.manager.verify_backup_integrity("backup_20200101_000000_daily")


def test_tables_and_one_users_rows_come_back(shop: Program) -> None:
    backup, before = shop.manager.create_full_backup().id, shop.rows()
    shop.run("delete from notes where user_id = 2; update notes set body = 'bad' where user_id = 1")
    harmed = shop.rows()
    found = shop.manager.diff(backup)
    assert isinstance(found, Difference)
    assert {each.table: (each.missing, each.changed, each.extra) for each in found.tables} == {
        "public.notes": (10, 10, 0),
        "public.tags": (5, 0, 0),
    }
    with pytest.raises(UsageError, match="is not one of missing, upsert, replace, side"):
        shop.manager.restore_from_backup(backup, ["notes"])
    assert shop.rows() == harmed
    one = shop.manager.restore_from_backup(backup, user="2", mode="missing")
    assert isinstance(one, Merged)
    assert {each.table: each.written for each in one.tables} == {"public.notes": 10, "public.tags": 5}
    rest = shop.manager.restore_from_backup("latest", ["notes"], mode="upsert")
    assert isinstance(rest, Merged)
    assert rest.written == 10
    assert shop.rows() == before
    assert not shop.manager.diff().differs
    for run in (rest.run, one.run):
        assert shop.manager.plan_undo(run).run == run
        shop.manager.undo(run)
    assert shop.rows() == harmed
    with pytest.raises(UsageError, match="there is no run 'none' on record"):
        shop.manager.plan_undo("none")


def test_a_plan_is_shown_before_it_is_merged(shop: Program) -> None:
    from dbops.backup.merge import merge

    manifest, before = shop.manager.create_full_backup(), shop.rows()
    shop.run("delete from notes where id = 4")
    with shop.manager.plan_merge(manifest, mode="replace", where="id < 9", tables=["notes"], cascade=True) as prepared:
        assert "public.notes  insert 1; 7 equal" in str(prepared.plan)
        assert len(shop.rows()) == len(before) - 1
        merge(prepared)
    assert shop.rows() == before


def test_the_whole_into_an_empty_database(shop: Program, make: Callable[..., Program]) -> None:
    backup = shop.manager.create_full_backup().id
    empty = make("")
    restored = empty.manager.restore_from_backup(backup)
    assert isinstance(restored, Restored)
    assert (restored.tables, restored.rows) == (2, 45)
    assert empty.rows() == shop.rows()
    empty.run("insert into notes (user_id, body) values (1, 'next')")  # the sequence goes on
    with pytest.raises(UsageError, match="empty"):
        empty.manager.restore_from_backup(backup)


def test_drilled(shop: Program) -> None:
    backup = shop.manager.create_full_backup().id
    assert shop.manager.drill(check=lambda url: ["something is wrong"]).problems == ("something is wrong",)
    [listed] = shop.manager.get_backup_list()
    assert listed.failed
    assert listed.proven is None
    assert not shop.manager.check(max_age=timedelta(hours=1)).ok
    drill = shop.manager.drill(backup)
    assert drill.ok
    assert {(each.table, each.rows, each.matches) for each in drill.tables} == {
        ("public.notes", 30, True),
        ("public.tags", 15, True),
    }
    assert shop.manager.describe().proven == drill
    checked = shop.manager.check(max_age=timedelta(hours=1), proven=timedelta(days=8))
    assert checked.newest
    assert (checked.ok, checked.newest.id, checked.proven_at) == (True, backup, drill.at)


def test_a_damaged_chunk_is_healed_by_the_next_create(shop: Program) -> None:
    manifest, store = shop.manager.create_full_backup(), shop.manager.store
    key = chunk_key(manifest.tables[0].chunks[0].sha256)
    good = store.get(key)
    store.put(key, good[:40] + bytes([good[40] ^ 8]) + good[41:])
    found = shop.manager.verify_backup_integrity()
    assert [(each.object, each.backups, each.tables) for each in found.damaged] == [
        (key, (manifest.id,), ("public.notes",))
    ]
    assert not shop.manager.check(max_age=timedelta(hours=1)).ok
    with pytest.raises(BackupDamaged, match=r"chunks/"):
        shop.manager.restore_from_backup(manifest.id, ["notes"], mode="missing")
    assert len(shop.rows()) == 30
    second = shop.manager.create_full_backup()
    assert f"{key} was damaged: written anew" in shop.told
    assert store.get(key) == good
    assert shop.manager.verify_backup_integrity().ok  # the older one is whole again too
    assert shop.manager.check(max_age=timedelta(hours=1)).ok
    shop.told.clear()
    assert shop.manager.create_full_backup().tables == second.tables
    assert not any("damaged" in text for text in shop.told)


def test_two_databases_in_one_store(make: Callable[..., Program]) -> None:
    shop, other = make(), make("create table animals (id int primary key); insert into animals values (1), (2)")
    mine, theirs = shop.manager.create_full_backup("daily"), other.manager.create_full_backup("daily")
    assert mine.id != theirs.id
    assert {each.manifest.id for each in shop.manager.get_backup_list()} == {mine.id, theirs.id}
    assert (shop.manager.get_backup().id, other.manager.get_backup().id) == (mine.id, theirs.id)
    assert shop.manager.tier("auto") == "monthly"
    # of different days: both may have been taken within one second
    ages = [put_back(shop, each, timedelta(days=days)) for each, days in ((mine, 60), (theirs, 61))]
    removed = shop.manager.cleanup_old_backups().removed
    assert removed == (ages[0].id,)
    assert {each.manifest.id for each in other.manager.get_backup_list()} == {mine.id, theirs.id, ages[1].id}
    stranger = make("")
    with pytest.raises(UsageError, match="has backups of several databases"):
        stranger.manager.get_backup()
    newest = other.manager.check(max_age=timedelta(hours=1)).newest
    assert newest
    assert newest.id == theirs.id
    found = stranger.manager.check(max_age=timedelta(hours=1))
    assert found.problems == ("there is no good backup of this database",)


def test_pruned_as_planned(shop: Program) -> None:
    newest = shop.manager.create_full_backup("daily")
    young, old = (put_back(shop, newest, timedelta(days=days)) for days in (20, 40))
    plan = shop.manager.plan_cleanup()
    assert ([each.id for each in plan.kept], [each.id for each in plan.removed]) == ([newest.id, young.id], [old.id])
    later = shop.manager.plan_cleanup(datetime.now(UTC) + timedelta(days=400))
    assert [each.id for each in later.kept] == [newest.id]
    assert shop.manager.cleanup_old_backups(plan).removed == (old.id,)
    assert [each.manifest.id for each in shop.manager.get_backup_list()] == [newest.id, young.id]
    assert shop.manager.verify_backup_integrity(newest.id).ok


def test_the_newest_manifest_is_damaged(shop: Program) -> None:
    older, newer = shop.manager.create_full_backup("daily"), shop.manager.create_full_backup("daily")
    store, key = shop.manager.store, manifest_key(newer.id)
    store.put(key, store.get(key)[:-40])
    assert [each.manifest.id for each in shop.manager.get_backup_list()] == [older.id]
    assert any(text.startswith(f"{key}: ") for text in shop.told)
    shop.told.clear()
    assert shop.manager.get_backup().id == older.id
    assert any(text.startswith(f"passed over: {key}: ") for text in shop.told), (
        "nobody was told that it is an older one"
    )
    with pytest.raises(BackupDamaged, match=newer.id):
        shop.manager.get_backup(newer.id)
    found = shop.manager.verify_backup_integrity(newer.id)
    assert [each.object for each in found.damaged] == [key]
    checked = shop.manager.check(max_age=timedelta(hours=1))
    assert [each.object for each in checked.damaged] == [key]
    store.delete([manifest_key(older.id)])
    with pytest.raises(BackupDamaged, match="manifest"):
        shop.manager.get_backup()


def test_exported_and_loaded(shop: Program, tmp_path: Path) -> None:
    backup, before = shop.manager.create_full_backup().id, shop.rows()
    shop.run("delete from notes")
    written = shop.manager.export(tmp_path / "rows", backup=backup)
    assert written.tables == {"public.notes": 30, "public.tags": 15}
    assert shop.manager.load(written.files, dry_run=True).rows == 45
    assert shop.rows() == []
    assert shop.manager.load(written.files).rows == 45
    assert shop.rows() == before
    live = shop.manager.export(tmp_path / "live", ["notes"])
    assert live.tables == {"public.notes": 30}


def test_an_empty_url_is_no_default(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the URL is empty"):
        BackupManager(" ", tmp_path)
