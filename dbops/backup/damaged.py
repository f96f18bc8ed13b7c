"""What verify found damaged, kept in the store: the next create writes anew what the rows still give."""

from __future__ import annotations

import json
from collections.abc import Iterable

from dbops.backup.manifest import read_all
from dbops.backup.model import Damage, Manifest
from dbops.backup.objects import chunk_key, is_sha256
from dbops.backup.store import Store
from dbops.errors import ObjectMissing

_KEY = "damaged.json"


def known(store: Store) -> frozenset[str]:
    """The hashes of chunks that the last verifications found damaged. A file that cannot be read lists none."""
    try:
        found = json.loads(store.get(_KEY))
    except (ObjectMissing, ValueError):
        return frozenset()
    return (
        frozenset(each for each in found if isinstance(each, str) and is_sha256(each))
        if isinstance(found, list)
        else frozenset()
    )


def remember(store: Store, damaged: Iterable[Damage], *, whole: bool) -> None:
    """Add what a verification found; one of the `whole` store is all that is known from then on."""
    names = (each.object.rsplit("/", 1)[-1].removesuffix(".gz") for each in damaged)
    found = frozenset(each for each in names if is_sha256(each))
    before = known(store)
    after = found if whole else before | found
    if after != before:
        _write(store, after)


def forget(store: Store, manifest: Manifest) -> tuple[str, ...]:
    """Strike out what a new backup has written anew; the keys of those chunks."""
    before = known(store)
    healed = before & {chunk.sha256 for chunk in manifest.chunks}
    if healed:
        # what no backup names any more need not be healed either
        named = {chunk.sha256 for each in read_all(store)[0] for chunk in each.chunks}
        _write(store, (before - healed) & named)
    return tuple(sorted(map(chunk_key, healed)))


def _write(store: Store, hashes: Iterable[str]) -> None:
    store.put(_KEY, json.dumps(sorted(hashes)).encode() + b"\n")
