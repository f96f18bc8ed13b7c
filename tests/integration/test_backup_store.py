"""The stores: a folder and a bucket, by one contract; what is special to each; verify, prune and sweep in both."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from dbops.backup.local import LocalStore
from dbops.backup.manifest import drill_key, dump, dump_drill, read, read_all, read_drills
from dbops.backup.model import SCHEMA, Drill
from dbops.backup.objects import absent, chunk_key, compress, manifest_key, object_key, read_chunk, store_clock
from dbops.backup.places import open_store
from dbops.backup.prune import Keep, plan_prune, prune
from dbops.backup.store import Store
from dbops.backup.sweep import sweep
from dbops.backup.verify import verify
from dbops.errors import BackupDamaged, ConfigError, LockHeld, LockLost, NotProven, ObjectMissing, StoreError
from tests.backup_store import (
    START,
    Proxy,
    StoreContract,
    lock_text,
    manifest_of,
    proxied,
    put_backup,
    s3_server,
)  # fmt: skip

SECRET = "s3cr3t/Acc3ss+Key"
ROWS = [b"first" * 100, b"second" * 100, b"third" * 100]
NOW = datetime.now(UTC)
_buckets = count()


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, s3_server() as url:
        for name in [each for each in os.environ if each.startswith(("AWS_", "S3_"))]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        yield url


@pytest.fixture
def bucket(s3_url: str) -> str:
    name = f"bucket-{next(_buckets)}"
    open_store(f"s3://{name}?endpoint={s3_url}", Path()).client.create_bucket(Bucket=name)  # type: ignore[attr-defined]
    return name


@pytest.fixture
def s3(s3_url: str, bucket: str) -> Any:
    store: Any = open_store(f"s3://{bucket}/some/prefix?endpoint={s3_url}", Path())
    store.lease_seconds = 3.0
    return store


@pytest.fixture
def proxy(s3_url: str) -> Iterator[Proxy]:
    with proxied(s3_url) as proxy:
        yield proxy


@pytest.fixture
def spoiled(proxy: Proxy, bucket: str) -> Any:
    """The bucket behind the proxy; it is tried three times, an answer takes half a second at most."""
    from dbops.backup.s3 import S3Store

    return S3Store(bucket, "", proxy.url, attempts=3, timeout=0.5, lease_seconds=1.5)


class TestFolder(StoreContract):
    tick = 0.02

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return open_store("some/store", tmp_path)


class TestBucket(StoreContract):
    @pytest.fixture
    def store(self, s3: Store) -> Store:
        return s3


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return LocalStore(tmp_path / "store")
    bucket: Store = request.getfixturevalue("s3")
    return bucket


# -- a folder


def test_places(tmp_path: Path) -> None:
    assert open_store("", tmp_path).place == str(tmp_path / "backups")
    assert open_store("/elsewhere", tmp_path).place == "/elsewhere"
    assert open_store("s3://b/c/d/", tmp_path).place == "s3://b/c/d"
    assert list(open_store("nothing", tmp_path).list()) == []
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    "text",
    [
        "gs://bucket", f"s3://key:{SECRET}@bucket/x", f"s3://bucket?endpoint=http://key:{SECRET}@host", "s3://",
        "s3://bucket?secret=x", "s3://bucket#x",
    ],
)  # fmt: skip
def test_no_place(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(text, tmp_path)
    assert SECRET not in caught.value.message + caught.value.hint


def test_for_the_owner_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        store = LocalStore(tmp_path / "new" / "store")
        store.put("chunks/ab/x.gz", b"x")
        with store.lease("create", 0):
            modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").rglob("*")}
    finally:
        os.umask(old)
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert len(modes) == 6


@pytest.mark.parametrize("name", ["backups", "chunks/ab", "chunks/ab/x.gz"])
def test_a_link_that_leads_out(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.gz").write_bytes(b"theirs")
    link = tmp_path / "store" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(outside / "x.gz" if name.endswith("gz") else outside)
    store = LocalStore(tmp_path / "store")
    key = name if name.endswith("gz") else f"{name}/x.gz"
    for act in (lambda: store.put(key, b"ours"), lambda: store.get(key), lambda: store.delete([key])):
        with pytest.raises(StoreError, match="leads out"):
            act()
    assert list(store.list()) == []
    assert (outside / "x.gz").read_bytes() == b"theirs"


def test_a_folder_without_rights(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="cannot be written: ") as caught:
        LocalStore(tmp_path / "store").put("a/b", b"x")
    assert "untouched" in caught.value.hint


def test_half_written_files_are_tidied(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("chunks/ab/x.gz", b"x")
    for name, age in (("old", 48), ("new", 1)):
        path = tmp_path / "chunks" / "ab" / f".{name}.tmp"
        path.write_bytes(b"half")
        os.utime(path, (NOW.timestamp() - age * 3600,) * 2)
    assert [item.key for item in store.list()] == ["chunks/ab/x.gz"]
    assert sweep(store).freed_bytes == 4
    assert [path.name for path in tmp_path.rglob(".*.tmp")] == [".new.tmp"]


# -- a bucket


def test_more_objects_than_a_page_lists(spoiled: Any, proxy: Proxy) -> None:
    keys = {f"chunks/{n}" for n in range(10)}
    for key in keys:
        spoiled.put(key, b"x")
    proxy.spoil = lambda method, path: "small pages"
    proxy.seen.clear()
    assert {item.key for item in spoiled.list("chunks/")} == keys
    assert len(proxy.seen) == 4
    spoiled.delete(keys)
    assert list(spoiled.list()) == []


def test_the_endpoint_from_the_environment(s3_url: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", s3_url)
    store = open_store(f"s3://{bucket}", Path())
    store.put("a", b"x")
    assert store.get("a") == b"x"


@pytest.mark.parametrize("fault", ["500 InternalError", "503 SlowDown", "silent", "400 BadDigest"])
def test_tried_again(spoiled: Any, proxy: Proxy, fault: str) -> None:
    proxy.first(2, fault)
    spoiled.put("a", b"x" * 1000)
    assert [method for method, _ in proxy.seen] == ["PUT"] * 3
    if fault != "400 BadDigest":  # which no one says of a download
        proxy.first(2, fault)
        assert spoiled.get("a") == b"x" * 1000


def test_a_download_that_is_cut_off_is_tried_again(spoiled: Any, proxy: Proxy) -> None:
    spoiled.put("a", b"x" * 1000)
    proxy.first(2, "short answer")
    assert spoiled.get("a") == b"x" * 1000
    proxy.first(100, "short answer")
    with pytest.raises(StoreError, match=r"get a in s3://.*no answer") as caught:
        spoiled.get("a")
    assert not isinstance(caught.value, ObjectMissing)


def test_an_upload_that_is_cut_off_is_no_success(spoiled: Any, proxy: Proxy) -> None:
    proxy.first(1, "cut upload", "PUT")
    spoiled.put("a", b"x" * 1000)
    assert spoiled.get("a") == b"x" * 1000
    proxy.first(100, "cut upload", "PUT")
    with pytest.raises(StoreError):
        spoiled.put("b", b"x" * 1000)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("403 SignatureDoesNotMatch", "check the credentials"), ("403 InvalidAccessKeyId", "check the credentials"),
        ("403 UserSuspended", "check the credentials"), ("403 AccessDenied", "check the credentials"),
        ("403 QuotaExceeded", "raise the quota"), ("404 NoSuchBucket", "create the bucket"),
        ("403 RequestTimeTooSkewed", "clock"), ("503 SlowDown", "in trouble"), ("silent", "check the endpoint"),
    ],
)  # fmt: skip
def test_refused_in_words(spoiled: Any, proxy: Proxy, fault: str, words: str) -> None:
    proxy.first(1000, fault)
    acts = {
        "put a": lambda: spoiled.put("a", b"x"), "get a": lambda: spoiled.get("a"), "delete a": lambda: spoiled.delete(["a"]),
        "list": lambda: list(spoiled.list()), "copy a": lambda: spoiled.touch("a"),
    }  # fmt: skip
    for what, act in acts.items() if fault[0] == "4" else [("put a", acts["put a"])]:
        with pytest.raises(StoreError, match=what) as caught:
            act()
        assert words in caught.value.hint
        assert "untouched" in caught.value.hint
        assert fault.rpartition(" ")[2] in caught.value.message or fault == "silent"
        assert SECRET not in caught.value.message + caught.value.hint
        assert not isinstance(caught.value, ObjectMissing)


def test_without_credentials(s3_url: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StoreError, match="no credentials"):
        open_store(f"s3://{bucket}?endpoint={s3_url}", Path()).put("a", b"")


def test_a_bucket_that_is_not_there(s3_url: str) -> None:
    store = open_store(f"s3://no-such-bucket?endpoint={s3_url}", Path())
    for act in (lambda: store.put("a", b""), lambda: list(store.list()), lambda: store.get("a")):
        with pytest.raises(StoreError, match="NoSuchBucket"):
            act()


def test_a_lease_that_is_taken_away_is_told(s3: Any) -> None:
    s3.lease_seconds = 0.6

    def taken_away() -> None:
        with s3.lease("create", 0):
            s3.request("put_object", ".locks/create", Body=lock_text())
            time.sleep(1)

    with pytest.raises(LockLost, match="create"):
        taken_away()
    # the other's lock is not ours to remove
    s3.lease_seconds = 60.0
    with pytest.raises(LockHeld, match="process 7 on elsewhere"), s3.lease("create", 0):
        pass


def test_a_lease_is_renewed(s3: Any) -> None:
    s3.lease_seconds = 3.0
    with s3.lease("create", 0):
        time.sleep(5)
        with pytest.raises(LockHeld), s3.lease("create", 0):
            pass


def test_a_server_that_ignores_conditions(spoiled: Any, proxy: Proxy) -> None:
    told: list[str] = []
    spoiled.tell = told.append
    proxy.spoil = lambda method, path: "deaf"
    with spoiled.lease("create", 0), pytest.raises(LockHeld), spoiled.lease("create", 0):
        pass
    assert len(told) == 1
    assert "ignores If-None-Match" in told[0]


def test_a_lease_whose_answer_was_lost(spoiled: Any, proxy: Proxy) -> None:
    """The server took the lock, its answer was an error: the next try finds it taken, by us."""
    proxy.first(1, "lost answer", "PUT")
    with spoiled.lease("create", 0), pytest.raises(LockHeld), spoiled.lease("create", 0):
        pass
    with spoiled.lease("create", 0):
        pass


# -- manifests, verify, prune and sweep


def days(number: float) -> datetime:
    return START + timedelta(days=number)


def test_read_all(store: Store) -> None:
    assert read_all(store) == ((), ())
    late, early = (put_backup(store, manifest_of(days(n), rows=ROWS), ROWS) for n in (1, 0))
    damaged = manifest_key(manifest_of(days(2)).id)
    store.put(damaged, dump(late)[:-10])
    store.put("backups/notes.txt", b"not ours")
    good, broken = read_all(store)
    assert good == (early, late)
    assert [key for key, _ in broken] == [damaged]
    assert read(store, early.id) == early
    assert read_chunk(store, early.chunks[0]) == ROWS[0]
    with pytest.raises(ObjectMissing, match=r"no backup 'x/\.\./y'"):
        read(store, "x/../y")
    with pytest.raises(ObjectMissing, match="no backup 'backup_20250109_120000_daily'"):
        read(store, "backup_20250109_120000_daily")


def test_drills_lie_beside_their_backups(store: Store) -> None:
    drill = Drill("backup_20250101_120000_daily", NOW.replace(microsecond=0), True, 12.5, 180004, ())
    store.put(drill_key(drill), dump_drill(drill))
    store.put(f"backups/{drill.id}/drill_20250101_000000.json", b"{}")
    good, broken = read_drills(store)
    assert good == (drill,)
    assert len(broken) == 1


def test_verify(store: Store) -> None:
    with pytest.raises(NotProven):
        verify(store)
    first = put_backup(store, manifest_of(days(0), rows=ROWS[:2]), ROWS[:2])
    second = put_backup(store, manifest_of(days(1), rows=ROWS), ROWS)
    told: list[tuple[int, int]] = []
    found = verify(store, tell=lambda done, total: told.append((done, total)))
    assert (found.ok, found.objects, found.damaged, found.backups) == (True, 5, (), (first.id, second.id))
    assert told[-1] == (found.checked_bytes, found.checked_bytes)
    with pytest.raises(ObjectMissing, match="no backup 'other'"):
        verify(store, ["other"])

    gone, changed, foreign = (chunk_key(each.sha256) for each in second.chunks)
    store.delete([gone])
    data = bytearray(store.get(changed))
    data[4] ^= 1  # a bit of the time in gzip's header: the content stays the same
    store.put(changed, bytes(data))
    store.put(foreign, compress(b"valid, but another's"))
    store.put(object_key(first.id, SCHEMA), b"")
    found = verify(store)
    assert not found.ok
    assert {(each.object, each.backups, each.tables) for each in found.damaged} == {
        (gone, (first.id, second.id), ("public.order",)),
        (changed, (first.id, second.id), ("public.order",)),
        (foreign, (second.id,), ("public.order",)),
        (object_key(first.id, SCHEMA), (first.id,), ()),
    }
    assert {each.object for each in verify(store, [first.id]).damaged} == {gone, changed, object_key(first.id, SCHEMA)}
    with pytest.raises(BackupDamaged, match=foreign):
        read_chunk(store, second.chunks[2])

    store.put(manifest_key(second.id), b"{")
    [damage] = verify(store, [second.id]).damaged
    assert (damage.object, damage.backups) == (manifest_key(second.id), (second.id,))


def test_verify_a_sample(store: Store) -> None:
    rows = [b"%d" % n * 50 for n in range(40)]
    manifest = put_backup(store, manifest_of(rows=rows), rows)
    assert verify(store, sample=0.25, seed=1).objects == 10
    assert verify(store, sample=0.0).objects == 1
    # a missing one and one of another size are found by every sample
    store.delete([chunk_key(manifest.chunks[0].sha256)])
    store.put(chunk_key(manifest.chunks[1].sha256), b"cut")
    assert {each.what for each in verify(store, sample=0.0).damaged} >= {"it is missing"}
    assert len(verify(store, sample=0.0).damaged) == 2


def test_a_chunk_written_anew_by_another_version_is_no_damage(store: Store) -> None:
    manifest = put_backup(store, manifest_of(rows=ROWS), ROWS)
    chunks = manifest.tables[0].chunks
    other = replace(manifest.tables[0], chunks=(replace(chunks[0], stored_bytes=7), *chunks[1:]))
    store.put(manifest_key(manifest.id), dump(replace(manifest, tables=(other,))))
    assert verify(store).ok


def test_prune(store: Store) -> None:
    old = put_backup(store, manifest_of(days(0), rows=ROWS[:2]), ROWS[:2])
    manual = put_backup(store, manifest_of(days(1), "manual", ROWS[:1]), ROWS[:1])
    new = put_backup(store, manifest_of(NOW.replace(microsecond=0), rows=ROWS[1:]), ROWS[1:])
    store.put(object_key(old.id, "drill_20250102_000000.json"), b"{}")
    store.put("chunks/notes.txt", b"not ours")
    plan = plan_prune(read_all(store)[0], (), NOW, Keep())
    assert [each.id for each in plan.removed] == [old.id]

    pruned = prune(store, plan, grace=timedelta(days=1))  # no chunk is a day old
    assert pruned.removed == (old.id,)
    assert {each.id for each in read_all(store)[0]} == {manual.id, new.id}
    assert len([*store.list("chunks/")]) == 4
    assert verify(store).ok

    put_backup(store, manifest_of(days(2)), [b"of nobody"])
    store.delete([manifest_key(manifest_of(days(2)).id)])  # killed in the middle
    before = {item.key: item.size for item in store.list()}
    swept = sweep(store, grace=timedelta(seconds=-5))
    left = {item.key: item.size for item in store.list()}
    gone = {chunk_key(hashlib.sha256(b"of nobody").hexdigest()), object_key(manifest_of(days(2)).id, SCHEMA)}
    assert before.keys() - left.keys() == gone
    assert (swept.freed_bytes, swept.objects) == (sum(before[key] for key in gone), 2)
    assert verify(store).ok


def test_nothing_is_swept_where_a_manifest_is_damaged(store: Store) -> None:
    manifest = put_backup(store, manifest_of(rows=ROWS), ROWS)
    store.put(manifest_key(manifest.id), dump(manifest)[:-2])
    swept = sweep(store, grace=timedelta(seconds=-5))
    assert (swept.objects, len(swept.notes)) == (0, 1)
    assert manifest_key(manifest.id) in swept.notes[0]
    assert not absent(store, [each.sha256 for each in manifest.chunks])


def test_one_prune_at_a_time(store: Store) -> None:
    put_backup(store, manifest_of(rows=ROWS), ROWS)
    plan = plan_prune(read_all(store)[0], (), NOW, Keep())
    with store.lease("prune", 0), pytest.raises(LockHeld):
        prune(store, plan)


def test_what_a_create_touches_stays(store: Store) -> None:
    """A chunk that nobody names, but that a create counts on, is as good as new; by the store's clock."""
    key = chunk_key(hashlib.sha256(ROWS[0]).hexdigest())
    store.put(key, compress(ROWS[0]))
    assert abs(store_clock(store) - datetime.now(UTC)) < timedelta(minutes=1)
    assert store.touch(key)
    assert sweep(store).objects == 0
    assert store.size(key) is not None
