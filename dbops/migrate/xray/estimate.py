"""What a lock blocks, and about how long a statement works on the target's tables: pure functions.

The rates are what PostgreSQL 18.4 did on a 2-core machine with the data in memory, the slower of what was measured
with narrow rows (2M rows, 44 bytes each), wide ones (400k rows, 900 bytes) and vectors:

===========================  ==========================================================
scan (SET NOT NULL, CHECK)   1.2-4.0 GB/s of heap
rewrite (ALTER TYPE, ...)    0.18-0.5 GB/s of heap and TOAST, without its indexes
btree                        3.5M integers/s, 0.7M texts/s
hash, brin, gist             1.2M, 20M, 0.4M rows/s
gin                          0.4M small jsonb/s, 0.13M texts of 10 words/s
ivfflat, hnsw                20k and 4k vectors/s of 384 dimensions; hnsw 1.2k of 1536
foreign key                  0.6M rows/s
UPDATE of every row          0.28-0.34M rows/s
===========================  ==========================================================

A table that has to come from a disk takes its bytes divided by the disk's rate on top.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dbops.schema_copy import Size

SCAN_BYTES_S = 1_000_000_000
REWRITE_BYTES_S = 180_000_000
UPDATE_ROWS_S = 280_000
KEY_ROWS_S = 600_000
INDEX_ROWS_S = {
    "btree": 700_000, "hash": 1_200_000, "brin": 20_000_000, "gist": 370_000, "spgist": 370_000,
    "gin": 130_000, "ivfflat": 20_000, "hnsw": 1_200,
}  # fmt: skip
OTHER_INDEX_ROWS_S = 130_000
ROW_BYTES = 100  # of a table that was never analysed

MODES = (
    "ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE", "ACCESS EXCLUSIVE",
)  # fmt: skip
"""The lock modes of tables, the weakest first: https://www.postgresql.org/docs/current/explicit-locking.html"""

_CHANGED_ROWS = "writes to the rows it changes"
_NO_SIZE = Size(0, 0, 0, 0)


@dataclass(frozen=True)
class Lock:
    """A lock that a statement took. `table` is an index's table; `created`: the target has no such relation."""

    mode: str
    relation: str
    created: bool = False
    table: str = ""


@dataclass(frozen=True)
class Built:
    """An index that was built, on a table that the target has."""

    index: str
    relation: str
    method: str


@dataclass(frozen=True)
class Block:
    """What waits for a statement: who uses `relation` for `what`, from the statement until its transaction ends."""

    relation: str
    mode: str
    what: str
    bytes: int
    rows: int | None
    about_ms: float


@dataclass(frozen=True)
class Seen:
    """A statement as it ran on the copy. The names of relations are the target's, where the target has them.

    `rewrites`, `scans` (whole), `changes` (rows, by a statement that scans) and `keys` (foreign keys checked) name
    tables that the target has. `state` is ran, failed (`error` says why), done before, left out (`error` says why),
    or not looked at. `about_ms` is the work on the target's sizes.
    """

    sql: str
    line: int
    state: str = "not looked at"
    locks: tuple[Lock, ...] = ()
    rewrites: tuple[str, ...] = ()
    scans: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    indexes: tuple[Built, ...] = ()
    duration_ms: float = 0.0
    error: str = ""
    about_ms: float = 0.0
    blocks: tuple[Block, ...] = field(default=())


def mode_of(name: str) -> str:
    """The mode as SQL writes it, from its name in pg_locks (`ShareRowExclusiveLock`)."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.removesuffix("Lock")).upper()


def blocked_by(mode: str) -> str:
    """Which statements of an application wait for a lock in this mode; nothing where none does."""
    strength = MODES.index(mode)
    if strength == len(MODES) - 1:
        return "reads and writes"
    if mode == "EXCLUSIVE":
        return "writes and SELECT … FOR UPDATE"
    return "writes" if strength >= MODES.index("SHARE") else ""


def strongest(locks: Iterable[Lock]) -> tuple[Lock, ...]:
    """The strongest lock on each relation, in the order in which relations first appear."""
    found: dict[str, Lock] = {}
    for lock in locks:
        known = found.get(lock.relation)
        if known is None or MODES.index(lock.mode) > MODES.index(known.mode):
            found[lock.relation] = lock
    return tuple(found.values())


def rows_of(size: Size) -> float:
    """The rows of a table, guessed from its bytes where nobody has counted them."""
    return size.heap_bytes / ROW_BYTES if size.rows is None else size.rows


def work_ms(seen: Seen, sizes: Mapping[str, Size]) -> float:
    """About how long the statement works on tables of these sizes: what it took on empty ones, and their content."""
    seconds = 0.0
    for name in seen.rewrites:
        size = sizes.get(name, _NO_SIZE)
        seconds += (size.total_bytes - size.index_bytes) / REWRITE_BYTES_S
    for name in set(seen.scans) - set(seen.rewrites):
        size = sizes.get(name, _NO_SIZE)
        changed = rows_of(size) / UPDATE_ROWS_S if name in seen.changes else 0.0
        seconds += max(size.heap_bytes / SCAN_BYTES_S, changed)
    for name in seen.keys:
        seconds += rows_of(sizes.get(name, _NO_SIZE)) / KEY_ROWS_S
    for built in seen.indexes:
        rate = INDEX_ROWS_S.get(built.method, OTHER_INDEX_ROWS_S)
        seconds += rows_of(sizes.get(built.relation, _NO_SIZE)) / rate
    return seen.duration_ms + seconds * 1000


def estimated(statements: Sequence[Seen], sizes: Mapping[str, Size], *, transactional: bool) -> tuple[Seen, ...]:
    """The statements of one migration with their work and what they block.

    A lock is held until its transaction ends: in one transaction, until the last statement has worked.
    """
    works = [work_ms(seen, sizes) for seen in statements]
    return tuple(
        replace(seen, about_ms=works[i], blocks=_blocks(seen, sizes, sum(works[i:]) if transactional else works[i]))
        for i, seen in enumerate(statements)
    )


def measured(statements: Sequence[Seen], sizes: Mapping[str, Size], *, transactional: bool) -> tuple[Seen, ...]:
    """The statements of one migration that ran on a copy with the target's rows: their work is what they took."""
    works = [seen.duration_ms for seen in statements]
    return tuple(
        replace(seen, about_ms=works[i], blocks=_blocks(seen, sizes, sum(works[i:]) if transactional else works[i]))
        for i, seen in enumerate(statements)
    )


def rows_worked(seen: Seen, sizes: Mapping[str, Size]) -> int:
    """How many rows the tables have that a statement rewrote, scanned, checked or built indexes on."""
    tables = {*seen.rewrites, *seen.scans, *seen.keys, *(built.relation for built in seen.indexes)}
    return sum(sizes.get(name, _NO_SIZE).rows or 0 for name in tables)


def _blocks(seen: Seen, sizes: Mapping[str, Size], held_ms: float) -> tuple[Block, ...]:
    # who reads a table locks its indexes too, in the same mode
    of_tables = strongest(Lock(lock.mode, lock.table or lock.relation) for lock in seen.locks if not lock.created)
    return tuple(
        Block(lock.relation, lock.mode, what, size.total_bytes, size.rows, held_ms)
        for lock in of_tables
        for size in [sizes.get(lock.relation, _NO_SIZE)]
        for what in [blocked_by(lock.mode) or (_CHANGED_ROWS if lock.relation in seen.changes else "")]
        if what
    )


def assumptions(lock_timeout: float, lock_tries: int) -> tuple[str, ...]:
    """What the estimates rest on, for people."""
    return (
        "the copy has no rows: duration_ms is what the statement took there, about_ms adds the target's sizes",
        f"rates of a 2-core machine with the data in memory: scan {_mb(SCAN_BYTES_S)}, rewrite {_mb(REWRITE_BYTES_S)}, "
        f"btree {_k(INDEX_ROWS_S['btree'])}, gin {_k(INDEX_ROWS_S['gin'])}, hnsw {_k(INDEX_ROWS_S['hnsw'])}, "
        f"foreign key {_k(KEY_ROWS_S)}, UPDATE {_k(UPDATE_ROWS_S)}; a disk or a busy server is slower",
        "an UPDATE or DELETE that scans a table is taken to change every row; the work of INSERT and COPY is not seen",
        f"waiting for a lock comes on top, up to {lock_timeout:g} s a try, {lock_tries} tries: others queue meanwhile",
        "run with the scratch server's rights: a right that is missing on the target is not seen",
    )


def _mb(rate: int) -> str:
    return f"{rate // 1_000_000} MB/s"


def _k(rate: int) -> str:
    return f"{rate / 1000:g}k rows/s"
