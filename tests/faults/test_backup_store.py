"""A store under bad luck: bits that flip, a full disk, SIGKILL at any moment, creates beside sweeps."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from tools import WHOLE, sample

from dbops.backup.create import Gone, publish
from dbops.backup.local import LocalStore
from dbops.backup.manifest import read_all
from dbops.backup.model import SCHEMA, Manifest
from dbops.backup.objects import chunk_key, compress, manifest_key, object_key
from dbops.backup.prune import Keep, plan_prune, prune
from dbops.backup.store import Store
from dbops.backup.sweep import sweep
from dbops.backup.verify import verify
from dbops.errors import StoreError
from tests.backup_store import START, manifest_of, put_backup

pytestmark = pytest.mark.fault

ROOT = Path(__file__).parents[2]
AT_ONCE = timedelta(seconds=-5)  # a grace that lets everything be old


def rows_of(seed: int, count: int = 6, size: int = 20_000) -> list[bytes]:
    """Chunks' contents, half of which compress."""
    chance = random.Random(seed)
    return [chance.randbytes(size // 2) + b"%d" % n * (size // 2) for n in range(count)]


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path: Path) -> None:
    """At every 1,000th byte of every object, the manifest too, and in the first and last bytes."""
    store = LocalStore(tmp_path)
    rows = rows_of(1)
    manifest = put_backup(store, manifest_of(rows=rows), rows)
    places = [
        (item.key, at)
        for item in sorted(store.list(), key=lambda each: each.key)
        for at in sorted({*range(0, item.size, 1000), *range(min(item.size, 24)), item.size - 1, item.size - 5})
        if not (item.key == manifest_key(manifest.id) and at == item.size - 1)  # a line end, which says nothing
    ]
    assert len(places) > 200
    for number in sample(len(places), 60, "bits"):
        key, at = places[number]
        data = store.get(key)
        store.put(key, data[:at] + bytes([data[at] ^ 1 << number % 8]) + data[at + 1 :])
        assert [each.object for each in verify(store).damaged] == [key], f"byte {at} of {key}"
        store.put(key, data)
    assert verify(store).ok


FULL = """
import sys
from datetime import timedelta
from pathlib import Path
from dbops.backup.local import LocalStore
from dbops.errors import StoreError
from tests.backup_store import START, manifest_of, put_backup
rows = [bytes([n]) + b"x" * 50 for n in range(5)] + [__import__("random").Random(1).randbytes(500_000)]
try:
    put_backup(LocalStore(Path(sys.argv[1])), manifest_of(START + timedelta(days=1), rows=rows), rows)
except StoreError as error:
    print(error.message)
    print(error.hint)
    sys.exit(7)
"""


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """A file system of 300 kB on the folder, where we may mount one."""
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "dbops-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system could not be mounted: a full one was tested by a limit on files only")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("how", ["disk", "limit"])
def test_a_full_disk(tmp_path: Path, how: str) -> None:
    """What was there stays whole, the backup that did not fit is not there, the words say what to do."""

    def limit() -> None:
        if how == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    def check() -> None:
        store = LocalStore(tmp_path)
        rows = rows_of(1, 2)
        first = put_backup(store, manifest_of(rows=rows), rows)
        command = [sys.executable, "-c", FULL, str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, preexec_fn=limit, check=False)
        assert done.returncode == 7, done.stderr
        assert "cannot be written: " in done.stdout
        assert "the store is full; what was there before is untouched" in done.stdout
        assert read_all(store) == ((first,), ())
        assert verify(store).ok
        assert not list(tmp_path.rglob(".*.tmp"))
        assert sweep(store, grace=AT_ONCE).objects == 5  # the chunks that still fitted
        assert verify(store).ok

    if how == "limit":
        check()
    else:
        with full_disk(tmp_path):
            check()


KILLED = """
import random, sys
from datetime import timedelta
from pathlib import Path
from dbops.backup.local import LocalStore
from dbops.backup.manifest import read_all
from dbops.backup.prune import Keep, plan_prune, prune
from tests.backup_store import START, manifest_of, put_backup
store, first = LocalStore(Path(sys.argv[1])), int(sys.argv[2])
for day in range(first, first + 1000):
    at = START + timedelta(days=day)
    chance = random.Random(day // 3)
    rows = [chance.randbytes(3_000) for _ in range(8)]
    put_backup(store, manifest_of(at, rows=rows), rows)
    plan = plan_prune(read_all(store)[0], (), at, Keep(daily=4))
    prune(store, plan, grace=timedelta(seconds=-5))
    print(day, flush=True)
"""


def test_killed_while_it_writes_and_prunes(tmp_path: Path) -> None:
    """No listed backup is ever damaged, and the next run goes on."""
    store, chance, day = LocalStore(tmp_path), random.Random(7), 0
    for _ in range(50 if WHOLE else 8):
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(day)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout
            lines = [child.stdout.readline() for _ in range(6)]
            assert lines[-1], "it did not run"
            time.sleep(chance.uniform(0, 0.1))
            child.send_signal(signal.SIGKILL)
            lines += child.stdout.readlines()
        day = int(lines[-1]) + 2  # the one after it may be there or not
        good, broken = read_all(store)
        assert (len(good) >= 4, broken) == (True, ())
        assert verify(store).damaged == ()
    sweep(store, grace=AT_ONCE)
    assert verify(store).ok
    # nothing is left of what was killed
    kept = {chunk_key(chunk.sha256) for each in read_all(store)[0] for chunk in each.chunks}
    beside = {object_key(each.id, name) for each in read_all(store)[0] for name in (SCHEMA, "manifest.json")}
    assert {item.key for item in store.list()} == kept | beside | {"clock"}
    assert not list(tmp_path.rglob(".*.tmp"))


def create(store: Store, manifest: Manifest, rows: Sequence[bytes]) -> None:
    """What create does with a store: use what is there, publish, begin anew where something was swept meanwhile."""
    contents = {hashlib.sha256(data).hexdigest(): data for data in rows}
    while True:
        for sha256, data in contents.items():
            if not store.touch(chunk_key(sha256)):
                store.put(chunk_key(sha256), compress(data))
            time.sleep(0.001)
        try:
            publish(store, manifest, {SCHEMA: f"create table {manifest.database}".encode()}, time.monotonic())
            return
        except Gone:
            continue


def test_creates_beside_sweeps(tmp_path: Path) -> None:
    """Chunks that are reused again and again while sweeps delete all that is not named at that moment.

    The grace is none: only the last look under the lease saves what a create counts on.
    """
    store = LocalStore(tmp_path)
    nights = 60 if WHOLE else 20

    def creates(lane: int) -> None:
        for night in range(nights):
            rows = rows_of(night % 3, 4, 600)
            create(store, manifest_of(START + timedelta(days=night, seconds=lane), rows=rows), rows)

    def sweeps() -> int:
        swept = 0
        while not all(each.done() for each in lanes):
            now = START + timedelta(days=400)
            prune(store, plan_prune(read_all(store)[0], (), now, Keep(daily=300)), grace=AT_ONCE)
            store.delete([manifest_key(each.id) for each in read_all(store)[0][:-1]])  # their chunks lose their names
            swept += sweep(store, grace=AT_ONCE).objects
            if read_all(store)[0]:
                assert verify(store).damaged == ()
        return swept

    with ThreadPoolExecutor(3) as pool:
        lanes = [pool.submit(creates, lane) for lane in range(2)]
        assert pool.submit(sweeps).result() > 0
        for each in lanes:
            each.result()
    assert verify(store).ok


def test_a_create_counts_on_the_grace_alone(tmp_path: Path) -> None:
    """What a create has touched or put is not swept, whatever happens in between; what it has not, is."""
    store = LocalStore(tmp_path)
    rows = rows_of(3, 6, 600)
    keys = [chunk_key(hashlib.sha256(data).hexdigest()) for data in rows]
    for key, data in zip(keys, rows, strict=True):
        store.put(key, compress(data))
        os.utime(tmp_path / key, (time.time() - 25 * 3600,) * 2)
    assert all(store.touch(key) for key in keys[:3])
    assert sweep(store).objects == 3
    assert [store.size(key) is not None for key in keys] == [True] * 3 + [False] * 3
    create(store, manifest_of(rows=rows), rows)
    assert sweep(store, grace=AT_ONCE).objects == 0
    assert verify(store).ok


def test_a_server_that_stays_away(tmp_path: Path) -> None:
    """A store that fails in the middle of a verification is no damage, but an error."""

    class Failing(LocalStore):
        def get(self, key: str) -> bytes:
            if key.startswith("chunks/"):
                raise StoreError("no answer")
            return super().get(key)

    rows = rows_of(1, 2)
    put_backup(LocalStore(tmp_path), manifest_of(rows=rows), rows)
    with pytest.raises(StoreError, match="no answer"):
        verify(Failing(tmp_path))
