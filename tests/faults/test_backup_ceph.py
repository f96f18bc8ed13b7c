"""A real S3 server (Ceph RGW) under bad luck: keys that are wrong, a full or frozen store, bytes rotted under it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from dbops.backup.manifest import read_all
from dbops.backup.objects import chunk_key
from dbops.backup.s3 import S3Store
from dbops.backup.store import Store
from dbops.backup.verify import verify
from dbops.errors import ObjectMissing, StoreError
from tests.backup_store import StoreContract, manifest_of, proxied, put_backup
from tests.ceph import ACCESS, MISSING, SECRET, USER, Ceph, ceph

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(
        bool(MISSING), reason=f"Ceph is not installed ({', '.join(MISSING)}): no real S3 server was tested"
    ),
]
ROWS = [b"first" * 100, b"second" * 100]
_buckets = count()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Ceph]:
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(prefix="dbops-ceph-") as folder,
        ceph(Path(folder)) as cluster,
    ):
        for name in [each for each in os.environ if each.startswith(("AWS_", "S3_"))]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        yield cluster


@pytest.fixture
def store(cluster: Ceph) -> S3Store:
    told: list[str] = []
    bucket = f"bucket-{next(_buckets)}"
    store = S3Store(bucket, "some/prefix/", cluster.url, tell=told.append, attempts=2, timeout=2.0, lease_seconds=4.0)
    store.client.create_bucket(Bucket=bucket)
    store.told = told  # type: ignore[attr-defined]
    return store


class TestCeph(StoreContract):
    pass


def again(store: S3Store, timeout: float = 2.0) -> S3Store:
    """The same place, with the credentials of the environment as they are now."""
    return S3Store(store.bucket, store.prefix, store.endpoint, attempts=2, timeout=timeout)


def refused(store: Store, words: str) -> None:
    """Every act is refused in these words, and none of them is a secret."""
    acts: list[Callable[[], object]] = [
        lambda: store.put("a", b"new"), lambda: store.get("a"), lambda: store.size("a"), lambda: list(store.list()),
        lambda: store.touch("a"), lambda: store.delete(["a"]), lambda: read_all(store),
    ]  # fmt: skip
    for act in acts:
        with pytest.raises(StoreError) as caught:
            act()
        assert not isinstance(caught.value, ObjectMissing)
        assert words in caught.value.hint
        assert SECRET not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials(store: S3Store, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    store.put("a", b"old")
    monkeypatch.setenv(name, "wrong")
    refused(again(store), "check the credentials")
    assert store.get("a") == b"old"


def test_a_suspended_user(store: S3Store, cluster: Ceph) -> None:
    store.put("a", b"old")
    cluster.admin("user", "suspend", "--uid", USER)
    try:
        refused(again(store), "check the credentials")
    finally:
        cluster.admin("user", "enable", "--uid", USER)
    assert store.get("a") == b"old"


def fill(store: Store) -> None:
    for n in range(100):  # the server looks at the quota now and then
        store.put(f"chunks/{n}", b"x")
        time.sleep(0.05)


def test_a_quota(store: S3Store, cluster: Ceph) -> None:
    manifest = put_backup(store, manifest_of(rows=ROWS), ROWS)
    cluster.admin("quota", "set", "--quota-scope", "bucket", "--uid", USER, "--max-objects", "4")
    cluster.admin("quota", "enable", "--quota-scope", "bucket", "--uid", USER)
    try:
        with pytest.raises(StoreError, match="the store is full") as caught:
            fill(store)
        assert "raise the quota" in caught.value.hint
        assert verify(store).ok
        assert read_all(store) == ((manifest,), ())
    finally:
        cluster.admin("quota", "disable", "--quota-scope", "bucket", "--uid", USER)


def test_a_server_that_does_not_answer(store: S3Store, cluster: Ceph) -> None:
    store.put("a", b"old")
    hasty = again(store, timeout=0.5)
    with cluster.frozen():
        for act in (lambda: hasty.put("a", b"new"), lambda: hasty.get("a")):
            with pytest.raises(StoreError, match="no answer"):
                act()
    assert store.get("a") in (b"old", b"new")
    store.put("a", b"newer")
    assert store.get("a") == b"newer"


def test_bytes_that_rot_in_the_storage(store: S3Store, cluster: Ceph) -> None:
    manifest = put_backup(store, manifest_of(rows=ROWS), ROWS)
    assert verify(store).ok
    key = chunk_key(manifest.chunks[0].sha256)
    cluster.rot(key)
    [damage] = verify(store).damaged
    assert (damage.object, damage.backups, damage.tables) == (key, (manifest.id,), ("public.order",))


def test_an_upload_that_is_cut_off(store: S3Store, cluster: Ceph) -> None:
    with proxied(cluster.url) as proxy:
        store.endpoint, store._client = proxy.url, (0, None)
        store.put("a", b"old")
        proxy.first(1, "cut upload", "PUT")
        store.put("a", b"x" * 1000)
        assert store.get("a") == b"x" * 1000
        proxy.first(100, "cut upload", "PUT")
        with pytest.raises(StoreError, match="lost on their way"):
            store.put("a", b"y" * 1000)
        assert store.get("a") == b"x" * 1000


def test_it_honours_conditions(store: S3Store, tmp_path: Path) -> None:
    with store.lease("create", 0):
        pass
    assert store.told == []  # type: ignore[attr-defined]
