"""Chunks that no backup names any more are swept away, safely beside running creates.

A chunk is deleted when no manifest names it and it is older, by the store's own clock, than the grace period. A create
makes each chunk that it uses count as new, and looks once more, under the lease PUBLISH, before it writes its manifest;
the last look at ages and manifests and the deletion are under that same lease.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from dbops.backup.local import LocalStore
from dbops.backup.manifest import read_all
from dbops.backup.model import MANIFEST
from dbops.backup.objects import BACKUPS, CHUNKS, PUBLISH, chunk_key, is_chunk_key, store_clock
from dbops.backup.store import Item, Store

GRACE = timedelta(hours=24)
_WAIT = 1800.0
_PAUSE = 2.0  # longer than a waiter sleeps between two looks at the lease


@dataclass(frozen=True)
class Swept:
    freed_bytes: int
    objects: int
    notes: tuple[str, ...] = ()


class _Marks:
    """The chunks that manifests name, read anew only when there is another manifest."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.keys: frozenset[str] = frozenset()
        self.chunks: frozenset[str] = frozenset()
        self.broken: tuple[tuple[str, str], ...] = ()

    def refresh(self) -> None:
        keys = frozenset(item.key for item in self.store.list(BACKUPS) if item.key.endswith(f"/{MANIFEST}"))
        if keys - self.keys or not self.keys:
            manifests, self.broken = read_all(self.store)
            self.chunks = frozenset(chunk_key(chunk.sha256) for each in manifests for chunk in each.chunks)
            self.keys = keys

    def unneeded(self, prefix: str, before: datetime) -> Iterator[Item]:
        """Old objects below a prefix of chunks/ that no manifest names."""
        for item in self.store.list(prefix):
            if item.modified < before and item.key not in self.chunks and is_chunk_key(item.key):
                yield item


def sweep(store: Store, *, grace: timedelta = GRACE) -> Swept:
    """Delete chunks that no backup needs and what killed runs left. Raises LockHeld, StoreError.

    Where a manifest cannot be read, nothing is deleted: nobody knows which chunks it names.
    """
    before = store_clock(store) - grace
    marks = _Marks(store)
    marks.refresh()
    if marks.broken:
        key, what = marks.broken[0]
        return Swept(0, 0, (f"no chunk was deleted: {what}; mend or delete {key} by hand",))
    # the hash's first digit: sixteen batches keep the lease short
    batches = {item.key[: len(CHUNKS) + 1] for item in marks.unneeded(CHUNKS, before)}
    deleted: list[Item] = []
    for number, prefix in enumerate(sorted(batches)):
        if number and not isinstance(store, LocalStore):
            time.sleep(_PAUSE)  # a create that waits to write its manifest comes first
        with store.lease(PUBLISH, _WAIT):
            marks.refresh()
            if marks.broken:
                break
            batch = list(marks.unneeded(prefix, before))
            store.delete([item.key for item in batch])
            deleted += batch
    with store.lease(PUBLISH, _WAIT):
        orphans = list(_orphans(store, before))
        store.delete([item.key for item in orphans])
    freed = sum(item.size for item in [*deleted, *orphans])
    freed += store.tidy(before) if isinstance(store, LocalStore) else 0
    return Swept(freed, len(deleted) + len(orphans))


def _orphans(store: Store, before: datetime) -> Iterator[Item]:
    """Old files of backups that have no manifest: of a create or a prune that was killed."""
    items = list(store.list(BACKUPS))
    listed = {item.key.rpartition("/")[0] for item in items if item.key.endswith(f"/{MANIFEST}")}
    for item in items:
        folder = item.key.rpartition("/")[0]
        # nothing but the files of backup folders is ours to delete
        if item.modified < before and folder not in listed and folder.startswith(f"{BACKUPS}backup_"):
            yield item
