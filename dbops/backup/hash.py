"""The content hash of a table's rows: the same for the same rows in any physical order, on any server.

It is the sum, modulo 2^128, of the 128-bit xxh3 of each row as COPY sends it. A sum and not an exclusive or: two equal
rows would cancel each other out. It tells a change, not a forger: xxh3 is no cryptographic hash.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal

from xxhash import xxh3_128_intdigest as row_hash

from dbops.errors import BackupDamaged

__all__ = ["HEADER", "MODULUS", "TRAILER", "Format", "hash_stream", "hash_text", "row_hash", "rows_of"]

Format = Literal["binary", "text"]
MODULUS = 1 << 128
# https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-BINARY-FORMAT; no flags, no extension
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
_COUNT, _LENGTH = struct.Struct("!h").unpack_from, struct.Struct("!i").unpack_from


def hash_text(total: int) -> str:
    """A sum of row hashes as the manifest writes it: 32 hexadecimal digits."""
    return f"{total % MODULUS:032x}"


def hash_stream(form: Format, data: bytes) -> tuple[int, int]:
    """The number of rows of a whole COPY stream, and the sum of their hashes modulo 2^128.

    Raises BackupDamaged where `data` is no whole stream of that format.
    """
    rows = total = 0
    for row in rows_of(form, data):
        rows += 1
        total += row_hash(row)
    return rows, total % MODULUS


def rows_of(form: Format, data: bytes) -> Iterator[bytes]:
    """Each row of a whole COPY stream: a binary tuple with its field count, or a line without its end."""
    return _tuples(data) if form == "binary" else _lines(data)


def _lines(data: bytes) -> Iterator[bytes]:
    # a line break within a value is written \n: a real one always ends a row
    if data and not data.endswith(b"\n"):
        raise _broken(len(data))
    return iter(data.split(b"\n")[:-1])


def _tuples(data: bytes) -> Iterator[bytes]:
    if not data.startswith(HEADER):
        raise _broken(0)
    at, end = len(HEADER), len(data)
    try:
        while (fields := _COUNT(data, at)[0]) >= 0:
            start = at
            at += 2
            for _ in range(fields):
                length = _LENGTH(data, at)[0]
                # NULL is -1, with no bytes after it
                at += 4 + length if length > 0 else 4
            if at > end:
                raise _broken(start)
            yield data[start:at]
    except struct.error as error:
        raise _broken(at) from error
    if fields != -1 or at + 2 != end:
        raise _broken(at)


def _broken(at: int) -> BackupDamaged:
    return BackupDamaged(
        f"a chunk is no whole COPY stream: it breaks off or goes wrong at byte {at}",
        hint="nothing was changed; dbops backup verify lists what is damaged",
    )
