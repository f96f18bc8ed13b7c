"""How the tables of a backup are cut into chunks: a pure plan from the catalog and the backup before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from dbops.backup.allow import format_of
from dbops.backup.choose import Relation
from dbops.backup.copying import LARGE_OBJECTS, Pages, Source, Stored, Task
from dbops.backup.hash import hash_text
from dbops.backup.model import Column, Manifest, Table
from dbops.backup.source import Details, Facts

CHUNK = 1 << 20  # bytes of rows: larger chunks save less from night to night, smaller ones cost more requests
_LONGEST = 8 << 20  # a page range that holds more is cut
_RANGES = 16  # page ranges in a task
_TID_RANGE_SCAN = 14  # before this version a page range is found by reading the whole table
_LOID = Column("loid", "oid", not_null=True)
_DATA = Column("data", "bytea", not_null=True)


@dataclass(frozen=True)
class Planned:
    """A table without its chunks yet, how it is read, and its page ranges (None: the whole in one stream)."""

    table: Table
    source: Source
    ranges: tuple[Pages | None, ...]


def planned(
    relations: Iterable[Relation], known: Facts, found: Details, major: int, before: Manifest | None
) -> list[Planned]:
    """The tables in the order of their names; large objects last. `before` is the backup whose page ranges are kept."""
    kept = {table.name: table.pages_per_chunk for table in before.tables} if before else {}
    plan = [_planned(each, known, found, major, kept.get(each.name, 0)) for each in relations]
    if known.large_objects:
        plan.append(_large_objects())
    return plan


def tasks(plan: list[Planned]) -> list[Task]:
    """What workers do, the tables with the most page ranges first: no long one is left for the end."""
    order = sorted(range(len(plan)), key=lambda n: -len(plan[n].ranges))
    return [Task(n, ranges) for n in order for ranges in _batches(plan[n].ranges)]


def filled(table: Table, stored: Iterable[Stored]) -> Table:
    """The table with its chunks in the order of its pages, the number of its rows and their hash."""
    parts = sorted(stored, key=lambda each: each.chunk.first_page)  # stable: a range that was cut stays in order
    return replace(
        table,
        rows=sum(each.chunk.rows for each in parts),
        content_hash=hash_text(sum(each.hash_sum for each in parts)),
        chunks=tuple(each.chunk for each in parts),
    )


def pages_per_chunk(heap: int, toast: int, block: int, before: int = 0) -> int:
    """So many pages that their rows, with their TOAST, are about a chunk; as `before` while that is not far off."""
    pages = max(1, heap // block)
    right = max(1, round(CHUNK * pages / max(block, heap + toast)))
    return before if right / 2 <= before <= right * 2 else right


def _planned(each: Relation, known: Facts, found: Details, major: int, before: int) -> Planned:
    heap, toast = found.sizes.get(each.oid, (0, 0))
    pages = pages_per_chunk(heap, toast, known.block_size, before)
    columns = tuple(found.columns.get(each.oid, ()))
    form = format_of(found.column_types.get(each.oid, ()), found.types)
    whole = major < _TID_RANGE_SCAN or bool(each.condition)
    ranges: tuple[Pages | None, ...] = (None,) if whole else tuple(_ranges(heap // known.block_size, pages))
    copied = tuple(column.name for column in columns if not column.generated)
    return Planned(
        Table(
            each.name, "partition" if each.partition else "table", columns, found.keys.get(each.oid, ()), form, pages,
            rows=0, content_hash="", chunks=(),
        ),
        Source(each.name, copied, form, CHUNK if whole else _LONGEST, each.condition or ""),
        ranges if heap else (),
    )  # fmt: skip


def _ranges(pages: int, step: int) -> Iterator[Pages]:
    """Ranges whose borders are multiples of `step`; the last one is open: what was added since is invisible to us."""
    starts = range(0, pages, step)
    return ((start, start + step if start + step < pages else None) for start in starts)


def _large_objects() -> Planned:
    table = Table(LARGE_OBJECTS, "large objects", (_LOID, _DATA), ("loid",), "binary", 1, 0, "", ())
    return Planned(table, Source(LARGE_OBJECTS, ("loid", "data"), "binary", CHUNK), (None,))


def _batches(ranges: Iterable[Pages | None]) -> Iterator[tuple[Pages | None, ...]]:
    rest = iter(ranges)
    while batch := tuple(islice(rest, _RANGES)):
        yield batch
