"""Where backups lie: a folder or a bucket. Keys are relative paths with `/`; an object appears whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True)
class Item:
    key: str
    size: int
    modified: datetime  # UTC


class Store(Protocol):
    """What every store can do; one suite of tests holds for all (tests/backup_store.py).

    Raises StoreError (with the key and the place, never a credential) after its retries, ObjectMissing for `get`.
    """

    place: str  # for messages: a path, or s3://bucket/prefix

    def put(self, key: str, data: bytes) -> None:
        """Write an object, whole or not at all, replacing what was there."""
        ...

    def get(self, key: str) -> bytes: ...

    def size(self, key: str) -> int | None:
        """The object's size in bytes; None where there is none."""
        ...

    def list(self, prefix: str = "") -> Iterator[Item]:
        """The objects whose keys begin with `prefix`, in no order."""
        ...

    def touch(self, key: str) -> bool:
        """Make an object count as new for prune's grace period; False where there is none."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are missing are passed over."""
        ...

    def lease(self, name: str, wait: float) -> AbstractContextManager[None]:
        """Hold `name` in this store as the only one, renewed while held; a dead holder's lapses. Raises LockHeld."""
        ...
