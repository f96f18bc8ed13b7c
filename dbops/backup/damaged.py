"""What verify found damaged, kept in the store: the next create writes anew what the rows still give."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable

from dbops.backup.manifest import read_all
from dbops.backup.model import Damage, Manifest
from dbops.backup.objects import CHUNKS, chunk_key, hash_of, object_key
from dbops.backup.store import Store
from dbops.errors import ObjectMissing

_KEY, _LEASE, _WAIT = "damaged.json", "damaged", 60.0


def known(store: Store) -> frozenset[str]:
    """The keys of what the last verifications found damaged. A file that cannot be read lists none."""
    try:
        found = json.loads(store.get(_KEY))
    except (ObjectMissing, ValueError):
        return frozenset()
    return frozenset(each for each in found if isinstance(each, str)) if isinstance(found, list) else frozenset()


def to_heal(store: Store) -> frozenset[str]:
    """The hashes of the chunks among them."""
    return frozenset(hash_of(key) for key in known(store) if key.startswith(CHUNKS))


def remember(store: Store, damaged: Iterable[Damage], *, whole: bool) -> None:
    """Add what a verification found; one of the `whole` store is all that is known from then on."""
    found = frozenset(each.object for each in damaged)
    with store.lease(_LEASE, _WAIT):
        before = known(store)
        after = found if whole else before | found
        if after != before:
            _write(store, after)


def forget(store: Store, manifest: Manifest, heal: Collection[str]) -> tuple[str, ...]:
    """Strike out which of the hashes `heal` a new backup has written anew; the keys of those chunks."""
    with store.lease(_LEASE, _WAIT):
        before = known(store)
        healed = before & {chunk_key(chunk.sha256) for chunk in manifest.chunks if chunk.sha256 in heal}
        if healed:
            # what no backup names any more need not be healed either
            _write(store, (before - healed) & _named(read_all(store)[0]))
    return tuple(sorted(healed))


def _named(manifests: Iterable[Manifest]) -> frozenset[str]:
    """The keys of all objects that backups name."""
    chunks = {chunk_key(chunk.sha256) for each in manifests for chunk in each.chunks}
    return frozenset(chunks | {object_key(each.id, part.name) for each in manifests for part in each.objects})


def _write(store: Store, keys: Iterable[str]) -> None:
    store.put(_KEY, json.dumps(sorted(keys)).encode() + b"\n")
