"""Whether a monitor is told: no backup, an old one, a damaged one, a failed drill, a proof long ago, wrong clocks."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dbops.backup.check import Checked, check
from dbops.backup.damaged import remember
from dbops.backup.local import LocalStore
from dbops.backup.manifest import drill_key, dump_drill
from dbops.backup.model import Drill, DrillTable, Manifest
from dbops.backup.objects import chunk_key, manifest_key
from dbops.backup.prune import database_of
from dbops.backup.verify import verify
from tests.backup_store import START, manifest_of, put_backup

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOW = START + 30 * DAY
MINE = database_of(manifest_of())


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def put(store: LocalStore, age: timedelta, database: str = "shop", *rows: bytes) -> Manifest:
    rows = rows or (f"{database} {age}".encode(),)
    return put_backup(store, manifest_of(NOW - age, "daily", rows, database), rows)


def drilled(store: LocalStore, manifest: Manifest, age: timedelta, **more: Any) -> datetime:
    values = {"ok": True, "restore_ms": 100.0, "server_version": 180004, "tables": ()} | more
    drill = Drill(manifest.id, NOW - age, **values)
    store.put(drill_key(drill), dump_drill(drill))
    return drill.at


def checked(store: LocalStore, proven: timedelta | None = None, max_age: timedelta = 26 * HOUR) -> Checked:
    return check(store, MINE, NOW, max_age=max_age, proven=proven)


def test_none(store: LocalStore) -> None:
    found = checked(store)
    assert (found.newest, found.ok) == (None, False)
    assert found.problems == ("there is no good backup of this database",)
    put(store, HOUR, "another")
    assert not checked(store).ok


def test_young_enough_and_too_old(store: LocalStore) -> None:
    put(store, 40 * DAY)
    manifest = put(store, 26 * HOUR)
    put(store, HOUR, "another")
    found = checked(store)
    assert found.ok
    assert found.newest
    assert (found.newest.id, found.newest.age_s) == (manifest.id, 26 * 3600)
    found = checked(store, max_age=26 * HOUR - timedelta(seconds=1))
    assert found.problems == ("the newest good backup is 26.0 h old, the limit is 26.0 h",)
    found = check(store, MINE, NOW + 3 * DAY, max_age=26 * HOUR)
    assert found.problems == ("the newest good backup is 4.1 days old, the limit is 26.0 h",)


def test_an_object_that_is_missing_makes_it_no_good_one(store: LocalStore) -> None:
    older, newer = put(store, 25 * HOUR), put(store, HOUR)
    lost = chunk_key(newer.chunks[0].sha256)
    store.delete([lost])
    found = checked(store)
    assert found.newest
    assert found.newest.id == older.id
    assert [(each.object, each.what, each.backups) for each in found.damaged] == [(lost, "it is missing", (newer.id,))]
    assert not found.ok
    assert not found.problems  # the older one is young enough
    assert len(checked(store, max_age=24 * HOUR).problems) == 1


def test_what_a_verification_found_counts_until_it_is_written_anew(store: LocalStore) -> None:
    manifest = put(store, HOUR, "shop", *(f"row {n}".encode() for n in range(40)))
    key = chunk_key(manifest.chunks[17].sha256)
    good = store.get(key)
    store.put(key, good[:-5] + bytes([good[-5] ^ 1]) + good[-4:])  # of the right size: a quick look may well miss it
    remember(store, verify(store).damaged, whole=True)
    found = checked(store)
    assert found.newest is None
    assert [(each.object, each.tables) for each in found.damaged] == [(key, ("public.order",))]
    store.put(key, good)
    remember(store, verify(store).damaged, whole=True)
    assert checked(store).ok


def test_a_manifest_that_cannot_be_read(store: LocalStore) -> None:
    older, newer = put(store, 25 * HOUR), put(store, HOUR)
    store.put(manifest_key(newer.id), b'{"half": ')
    found = checked(store)
    assert found.newest
    assert found.newest.id == older.id
    assert [(each.object, each.backups) for each in found.damaged] == [(manifest_key(newer.id), (newer.id,))]
    put(store, timedelta(0))  # a good one since: that one is of no interest any more
    assert checked(store).ok


def test_the_last_drill_failed(store: LocalStore) -> None:
    older, newer = put(store, 30 * HOUR), put(store, HOUR)
    proven_at = drilled(store, older, 29 * HOUR)
    assert checked(store, DAY * 2).ok
    drilled(store, newer, timedelta(0), ok=False, tables=(DrillTable("public.order", 3, False, "3 rows, not 4"),))
    for proven in (None, DAY * 2):
        found = checked(store, proven)
        assert found.problems == (
            f"the last drill failed, of {newer.id}: public.order: 3 rows, not 4; dbops backup drill tries again",
        )
        assert found.proven_at == proven_at
    drilled(store, newer, timedelta(minutes=-1))  # once more, and it went well
    found = checked(store, DAY)
    assert found.ok
    assert found.newest
    assert found.newest.proven_at == NOW + timedelta(minutes=1)


def test_proven_too_long_ago_or_never(store: LocalStore) -> None:
    older = put(store, 9 * DAY)
    put(store, HOUR)
    assert checked(store).ok
    assert checked(store, 8 * DAY).problems == (
        "no backup of this database was ever proven: dbops backup drill latest",
    )
    other = put(store, 2 * HOUR, "another")
    drilled(store, other, timedelta(0))
    assert len(checked(store, 8 * DAY).problems) == 1  # that was another database's
    drilled(store, older, 8 * DAY + HOUR)
    assert checked(store, 8 * DAY).problems == (
        "the last backup that was proven was so 8.0 days ago, the limit is 8.0 days",
    )
    assert checked(store, 9 * DAY).ok


def test_clocks_that_differ(store: LocalStore) -> None:
    put(store, 40 * HOUR)
    put(store, -HOUR)  # in an hour
    found = checked(store)
    assert found.problems == (
        "the newest good backup is 40.0 h old, the limit is 26.0 h; a newer one has a time in the future, which does not "
        "count: a clock is wrong",
    )
    near = put(store, -timedelta(minutes=4))
    found = checked(store)
    assert found.ok
    assert found.newest
    assert (found.newest.id, found.newest.age_s) == (near.id, 0.0)
