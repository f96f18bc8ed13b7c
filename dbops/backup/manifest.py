"""Manifests and drills as JSON (docs/backup-format.md): written in one way, read with suspicion."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeVar

from dbops.backup.decode import decoder, time_text
from dbops.backup.model import FORMAT, MANIFEST, Chunk, Drill, Manifest
from dbops.backup.objects import BACKUPS, HINT, id_parts, is_sha256, object_key
from dbops.backup.store import Store
from dbops.errors import BackupDamaged, ObjectMissing

T = TypeVar("T", Manifest, Drill)
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", re.ASCII)
_DRILL = re.compile(rf"{BACKUPS}([^/]+)/drill_\d{{8}}_\d{{6}}\.json", re.ASCII)
_MANIFEST = re.compile(rf"{BACKUPS}([^/]+)/{re.escape(MANIFEST)}")


def dump(manifest: Manifest) -> bytes:
    """The manifest as JSON: sorted keys, times in UTC, its own `sha256`. The same value gives the same bytes.

    Raises ValueError for a manifest that `load` would refuse: what cannot be read back must not be written.
    """
    _check(manifest)
    return _dump(asdict(manifest))


def load(data: bytes, key: str) -> Manifest:
    """The manifest that lies at `key` (backups/<id>/manifest.json). Raises BackupDamaged naming it.

    Refused: another format, a wrong `sha256` of its own, an id that is none or not its folder's, object names that are
    paths, hashes that are none, negative or missing values. Keys that are not known are passed over.
    """
    return _load(data, key, Manifest, _check)


def dump_drill(drill: Drill) -> bytes:
    """A drill's result as JSON, in the manner of a manifest."""
    return _dump(asdict(drill))


def load_drill(data: bytes, key: str) -> Drill:
    """The drill that lies at `key` (backups/<id>/drill_<time>.json). Raises BackupDamaged naming it."""
    return _load(data, key, Drill, lambda drill: None)


def drill_key(drill: Drill) -> str:
    """Where a drill lies: beside the manifest of its backup, backups/<id>/drill_20250101_120000.json."""
    return object_key(drill.id, f"drill_{drill.at:%Y%m%d_%H%M%S}.json")


def read(store: Store, backup: str) -> Manifest:
    """One backup's manifest. Raises ObjectMissing, BackupDamaged or StoreError."""
    try:
        id_parts(backup)
        key = object_key(backup, MANIFEST)
        return load(store.get(key), key)
    except (ValueError, ObjectMissing):
        hint = "nothing was done; `dbops backup list` shows those that are there"
        raise ObjectMissing(f"there is no backup {backup!r} in {store.place}", hint=hint) from None


def read_all(store: Store) -> tuple[tuple[Manifest, ...], tuple[tuple[str, str], ...]]:
    """All backups of a store, oldest first, and (key, what is wrong) of each manifest that cannot be read."""
    good, broken = _read_each(store, _MANIFEST, load)
    return tuple(sorted(good, key=lambda each: (each.created_at, each.id))), broken


def read_drills(store: Store) -> tuple[tuple[Drill, ...], tuple[tuple[str, str], ...]]:
    """All drills of a store, oldest first, and (key, what is wrong) of those that cannot be read: they prove nothing."""
    good, broken = _read_each(store, _DRILL, load_drill)
    return tuple(sorted(good, key=lambda each: (each.at, each.id))), broken


def _read_each(
    store: Store, pattern: re.Pattern[str], parse: Callable[[bytes, str], T]
) -> tuple[list[T], tuple[tuple[str, str], ...]]:
    keys = [item.key for item in store.list(BACKUPS) if pattern.fullmatch(item.key)]
    with ThreadPoolExecutor(8) as pool:  # a bucket's answers take time, not work
        found = list(pool.map(lambda key: _read_one(store, key, parse), sorted(keys)))
    good = [each for each in found if each is not None and not isinstance(each, tuple)]
    return good, tuple(each for each in found if isinstance(each, tuple))


def _read_one(store: Store, key: str, parse: Callable[[bytes, str], T]) -> T | tuple[str, str] | None:
    try:
        return parse(store.get(key), key)
    except ObjectMissing:  # pruned since it was listed
        return None
    except BackupDamaged as error:
        return key, error.message


def _dump(document: dict[str, Any]) -> bytes:
    return _canonical(document | {"sha256": _own_hash(document)}) + b"\n"


def _canonical(document: Any) -> bytes:
    text = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_other
    )
    return text.encode()


def _other(value: Any) -> str:
    if isinstance(value, datetime):
        return time_text(value)
    raise TypeError(f"{value!r} in a manifest")


def _own_hash(document: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical({key: each for key, each in document.items() if key != "sha256"})).hexdigest()


def _load(data: bytes, key: str, kind: type[T], check: Callable[[T], None]) -> T:
    try:
        document = json.loads(data)
        if not isinstance(document, dict):
            raise ValueError("it is no JSON object")
        if kind is Manifest and document.get("format") != FORMAT:
            raise ValueError(f"its format is {str(document.get('format'))[:20]}, this dbops reads {FORMAT}")
        if document.get("sha256") != _own_hash(document):
            raise ValueError("its own sha256 does not match: it was changed or cut off")
        value: T = decoder(kind)(document)
        if value.id != key.split("/")[-2]:
            raise ValueError(f"it is that of {value.id[:80]!r}")
        id_parts(value.id)
        check(value)
    # RecursionError: brackets nested by the thousand; UnicodeError and JSONDecodeError are ValueErrors
    except (ValueError, RecursionError) as error:
        raise BackupDamaged(f"{key} cannot be trusted: {error}", hint=HINT) from None
    return value


def _check(manifest: Manifest) -> None:
    """What the types alone do not say. Raises ValueError."""
    if id_parts(manifest.id)[1] != manifest.tier:
        raise ValueError(f"its tier {manifest.tier} is not that of its id")
    if manifest.created_at.tzinfo is None:
        raise ValueError("created_at: a time without a zone")
    _check_hashes([*manifest.chunks, *manifest.objects])
    for each in manifest.objects:
        if not _FILE_NAME.fullmatch(each.name) or each.name == MANIFEST:
            raise ValueError(f"objects: {each.name[:80]!r} is no name of a file beside the manifest")


def _check_hashes(parts: Iterable[Any]) -> None:
    for part in parts:
        if not is_sha256(part.sha256):
            raise ValueError(f"sha256: {part.sha256[:80]!r} is no SHA-256 in lower-case hex")
        if isinstance(part, Chunk) and part.end_page is not None and part.end_page <= part.first_page:
            raise ValueError(f"chunk {part.sha256}: its pages end before they begin")
