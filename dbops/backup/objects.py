"""What lies in a store: the keys, and gzip objects in which every bit counts.

An object is one gzip member (RFC 1952, https://www.rfc-editor.org/rfc/rfc1952) that `zcat` reads. Its header has an
extra field `DB` with the CRC-32 of all that follows: gzip's own checksum is of the content only, so that a changed
header, a changed bit of padding or an unused code would be seen by nobody.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import Any

from dbops.backup.model import MANIFEST, TIERS, Chunk, Tier
from dbops.backup.store import Store
from dbops.errors import BackupDamaged, StoreError

BACKUPS, CHUNKS, CLOCK = "backups/", "chunks/", "clock"
PUBLISH = "publish"  # the lease under which a manifest is written and under which chunks are swept
_ID = re.compile(rf"backup_(\d{{8}}_\d{{6}})_({'|'.join(TIERS)})", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
# no time, no file name, no system: the same bytes give the same object on every machine
_FIXED = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + struct.pack("<H2sH", 8, b"DB", 4)
_HEADER = len(_FIXED) + 4
_STEP = 1 << 20
HINT = "nothing was changed; `dbops backup verify --all` lists what is damaged, the next create writes it anew"


def backup_id(at: datetime, tier: Tier) -> str:
    """The id of a backup that begins at `at`: backup_20250101_120000_daily, in UTC."""
    return f"backup_{at.astimezone(UTC):%Y%m%d_%H%M%S}_{tier}"


def id_parts(text: str) -> tuple[datetime, str]:
    """The time and the tier in a backup's id. Raises ValueError where it is none."""
    match = _ID.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no backup's id")
    return datetime.strptime(match[1], "%Y%m%d_%H%M%S").replace(tzinfo=UTC), match[2]


def is_sha256(text: str) -> bool:
    return _SHA256.fullmatch(text) is not None


def chunk_key(sha256: str) -> str:
    """Where the chunk with this hash lies: chunks/ab/<sha256>.gz. Raises ValueError for what is no such hash."""
    if not is_sha256(sha256):
        raise ValueError(f"{sha256!r} is no SHA-256 in lower-case hex")
    return f"{CHUNKS}{sha256[:2]}/{sha256}.gz"


def hash_of(key: str) -> str:
    """The hash of the chunk that lies there."""
    return key.rpartition("/")[2].removesuffix(".gz")


def is_chunk_key(key: str) -> bool:
    sha256 = hash_of(key)
    return is_sha256(sha256) and key == chunk_key(sha256)


def object_key(backup: str, name: str) -> str:
    """Where a file beside the manifest lies: backups/<id>/<name>."""
    return f"{BACKUPS}{backup}/{name}"


def manifest_key(backup: str) -> str:
    return object_key(backup, MANIFEST)


def compress(data: bytes) -> bytes:
    """`data` as an object: gzip, level 2, the same for the same bytes."""
    from isal import isal_zlib

    body = isal_zlib.compress(data, 2, -15)
    tail = struct.pack("<II", isal_zlib.crc32(data), len(data) & 0xFFFFFFFF)
    seal = struct.pack("<I", isal_zlib.crc32(tail, isal_zlib.crc32(body)))
    return b"".join((_FIXED, seal, body, tail))


def decompress(data: bytes, expected_bytes: int, key: str = "an object") -> bytes:
    """The content of an object that must be `expected_bytes` long. Raises BackupDamaged naming `key`.

    Never makes more than that: what would become longer (a gzip bomb) is refused at the first byte too many.
    """
    return b"".join(_inflate(data, expected_bytes, key, expected_bytes + 1))


def _inflate(data: bytes, expected: int, key: str, step: int) -> Iterator[bytes]:
    """The content by pieces of at most `step` bytes."""
    from isal import igzip_lib

    stream = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    broken: Any = igzip_lib.IsalError  # its stub takes the class for an instance
    length, feed = 0, data
    while not stream.eof:
        try:
            piece = stream.decompress(feed, min(step, expected - length + 1))
        except broken as error:
            raise BackupDamaged(f"{key} is no whole gzip stream", hint=HINT) from error
        feed = b""
        length += len(piece)
        if length > expected:
            raise BackupDamaged(f"{key} holds more than the {expected:,} bytes that its manifest says", hint=HINT)
        if not piece and not stream.eof and stream.needs_input:
            raise BackupDamaged(f"{key} is cut off after {len(data):,} bytes", hint=HINT)
        yield piece
    if stream.unused_data:
        raise BackupDamaged(f"{key} has {len(stream.unused_data):,} bytes after its end", hint=HINT)
    if length != expected:
        raise BackupDamaged(f"{key} holds {length:,} bytes, its manifest says {expected:,}", hint=HINT)


def fault(data: bytes, sha256: str, expected_bytes: int) -> str:
    """What is wrong with an object, or an empty text: each bit of it is checked. At most 1 MB of its content is held."""
    if data[: len(_FIXED)] != _FIXED:
        return "its header is not the one that was written"
    from isal import isal_zlib

    if struct.pack("<I", isal_zlib.crc32(memoryview(data)[_HEADER:])) != data[len(_FIXED) : _HEADER]:
        return f"its {len(data):,} bytes do not match their checksum (changed or cut off)"
    digest = hashlib.sha256()
    try:
        for piece in _inflate(data, expected_bytes, "it", _STEP):
            digest.update(piece)
    except BackupDamaged as error:
        return error.message
    return "" if digest.hexdigest() == sha256 else "its content does not match its SHA-256"


def read_object(store: Store, key: str, sha256: str, raw_bytes: int) -> bytes:
    """The content of an object, proven by its hash. Raises BackupDamaged, ObjectMissing or StoreError."""
    content = decompress(store.get(key), raw_bytes, f"{key} in {store.place}")
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BackupDamaged(f"{key} in {store.place}: its content does not match its SHA-256", hint=HINT)
    return content


def read_chunk(store: Store, chunk: Chunk) -> bytes:
    """A chunk's COPY stream, proven by its hash. Raises as `read_object` does."""
    return read_object(store, chunk_key(chunk.sha256), chunk.sha256, chunk.raw_bytes)


def store_clock(store: Store) -> datetime:
    """The time by the store's own clock, by which the ages of its objects count, whatever ours says."""
    store.put(CLOCK, b"")
    times = [item.modified for item in store.list(CLOCK) if item.key == CLOCK]
    if not times:
        raise StoreError(f"{CLOCK} in {store.place} was written and is not there", hint="nothing was deleted")
    return times[0]


def absent(store: Store, hashes: Collection[str]) -> frozenset[str]:
    """Those of these chunks that are not in the store: a create looks once more before it writes its manifest."""
    there = {item.key for item in store.list(CHUNKS)}
    return frozenset(each for each in hashes if chunk_key(each) not in there)
