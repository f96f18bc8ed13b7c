"""Every byte of a backup, or of a whole store, against its hashes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from dbops.backup.manifest import read_all
from dbops.backup.model import Damage, Manifest
from dbops.backup.objects import BACKUPS, CHUNKS, chunk_key, fault, manifest_key, object_key
from dbops.backup.store import Store
from dbops.errors import BackupDamaged, NotProven, ObjectMissing

Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Verified:
    """What a verification found. `checked_bytes` are bytes as stored; objects left out by the sample do not count."""

    ok: bool
    backups: tuple[str, ...]
    objects: int
    checked_bytes: int
    damaged: tuple[Damage, ...]


@dataclass
class _Part:
    """An object, what its manifests say of it and whom it concerns."""

    key: str
    sha256: str
    raw_bytes: int
    sizes: set[int] = field(default_factory=set)
    backups: set[str] = field(default_factory=set)
    tables: set[str] = field(default_factory=set)

    def damage(self, what: str) -> Damage:
        return Damage(self.key, what, tuple(sorted(self.backups)), tuple(sorted(self.tables)))


def verify(
    store: Store,
    ids: Iterable[str] | None = None,
    *,
    sample: float = 1.0,
    workers: int = 2,
    tell: Tell = lambda done, total: None,
    seed: int | None = None,
) -> Verified:
    """Check the backups `ids` (None: all) of a store.

    All manifests are read and each object must be there; `sample` is the share of the objects, chosen anew each time
    (or by `seed`), that are read and hashed, at least one. One of an unexpected size is read in any case. Damage names
    all backups that it touches, also those that were not asked for. `tell` gets bytes done and in all; `workers`
    threads hold one stored object each.
    Raises ObjectMissing for an id that is not there, NotProven where there is nothing to check, StoreError.
    """
    manifests, broken = read_all(store)
    wanted = _wanted(store, ids, manifests, broken)
    damaged = [Damage(key, what, (key.split("/")[1],)) for key, what in broken if key.split("/")[1] in wanted]
    parts = [each for each in _parts(manifests) if each.backups & wanted]
    sizes = {item.key: item.size for prefix in (BACKUPS, CHUNKS) for item in store.list(prefix)}
    damaged += [each.damage("it is missing") for each in parts if each.key not in sizes]
    read = _sampled([each for each in parts if each.key in sizes], sizes, sample, random.Random(seed))
    total, done = sum(sizes[each.key] for each in read), 0
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        for part, (size, what) in zip(read, pool.map(lambda each: _check(store, each), read), strict=True):
            damaged += [part.damage(what)] if what else []
            done += size
            tell(done, max(done, total))
    finally:  # Ctrl-C must not wait for what is still in the queue
        pool.shutdown(cancel_futures=True)
    # what a prune has removed since is not damaged
    left = {name for each in damaged for name in each.backups if store.size(manifest_key(name)) is not None}
    found = tuple(sorted((each for each in damaged if left & {*each.backups}), key=lambda each: each.object))
    return Verified(not found, tuple(sorted(wanted)), len(read), done, found)


def _wanted(
    store: Store, ids: Iterable[str] | None, manifests: Sequence[Manifest], broken: Sequence[tuple[str, str]]
) -> set[str]:
    there = {each.id for each in manifests} | {key.split("/")[1] for key, _ in broken}
    wanted = there if ids is None else set(ids)
    if unknown := wanted - there:
        raise ObjectMissing(
            f"there is no backup {min(unknown)!r} in {store.place}",
            hint="nothing was verified; `dbops backup list` shows those that are there",
        )
    if not wanted:
        raise NotProven(f"there is no backup in {store.place}", hint="nothing was verified; check --store")
    return wanted


def _parts(manifests: Sequence[Manifest]) -> list[_Part]:
    """All objects that manifests name, each once, but twice where two manifests disagree on what it holds."""
    parts: dict[tuple[str, str, int], _Part] = {}

    def add(key: str, sha256: str, raw_bytes: int, stored_bytes: int, backup: str) -> _Part:
        part = parts.setdefault((key, sha256, raw_bytes), _Part(key, sha256, raw_bytes))
        part.sizes.add(stored_bytes)
        part.backups.add(backup)
        return part

    for manifest in manifests:
        for each in manifest.objects:
            key = object_key(manifest.id, each.name)
            add(key, each.sha256, each.raw_bytes, each.stored_bytes, manifest.id)
        for table in manifest.tables:
            for chunk in table.chunks:
                key = chunk_key(chunk.sha256)
                part = add(key, chunk.sha256, chunk.raw_bytes, chunk.stored_bytes, manifest.id)
                part.tables.add(str(table.name))
    return list(parts.values())


def _sampled(parts: list[_Part], sizes: dict[str, int], share: float, chance: random.Random) -> list[_Part]:
    if share >= 1:
        return parts
    chosen = {id(each) for each in chance.sample(parts, min(len(parts), max(1, round(len(parts) * share))))}
    # a chunk written anew by another version may well have another size: it is read, not blamed
    return [each for each in parts if id(each) in chosen or sizes[each.key] not in each.sizes]


def _check(store: Store, part: _Part) -> tuple[int, str]:
    """The size of an object and what is wrong with it."""
    try:
        data = store.get(part.key)
    except ObjectMissing:
        return 0, "it is missing"
    except BackupDamaged as error:  # a disk that cannot read it
        return 0, error.message
    return len(data), fault(data, part.sha256, part.raw_bytes)
