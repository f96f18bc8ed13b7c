"""What a comparison finds and a merge does. Frozen values that the command line prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Mode = Literal["missing", "upsert", "replace", "side"]
What = Literal["missing", "changed", "extra"]
Tell = Callable[[str], None]

# which differences each mode does away with
ACTS: dict[str, tuple[What, ...]] = {
    "missing": ("missing",),
    "upsert": ("missing", "changed"),
    "replace": ("missing", "changed", "extra"),
    "side": (),
}


@dataclass(frozen=True)
class Selection:
    """Which rows: of `tables` (empty: all of the backup), of one `user`, or of one table those `where` is true of."""

    tables: tuple[str, ...] = ()
    user: str | None = None
    where: str | None = None
    cascade: bool = False

    def __str__(self) -> str:
        what = ", ".join(self.tables) or "all tables"
        what += f", user {self.user}" if self.user is not None else ""
        what += f", where {self.where}" if self.where is not None else ""
        return what + (", cascade" if self.cascade else "")


@dataclass(frozen=True)
class Sample:
    """A row that differs: its key and the columns that do, as (column, live, backup); long values are cut."""

    what: What
    key: str
    columns: tuple[tuple[str, str | None, str | None], ...] = ()


@dataclass(frozen=True)
class TableDifference:
    """Rows of the backup that the live table lacks, that differ, that only the live table has, that are equal."""

    table: str
    missing: int
    changed: int
    extra: int
    equal: int
    samples: tuple[Sample, ...] = ()

    @property
    def differs(self) -> bool:
        return bool(self.missing or self.changed or self.extra)


@dataclass(frozen=True)
class Difference:
    """What a backup and a live database (or another backup) have that the other has not. `notes` are worth reading."""

    backup: str
    against: str
    tables: tuple[TableDifference, ...]
    notes: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        return any(table.differs for table in self.tables)


@dataclass(frozen=True)
class MergedTable:
    table: str
    missing: int
    changed: int
    extra: int
    written: int


@dataclass(frozen=True)
class Merged:
    """What was written, and the run by which `undo` takes it back. `schema` is where mode `side` put the rows."""

    run: str
    mode: str
    tables: tuple[MergedTable, ...]
    schema: str = ""

    @property
    def written(self) -> int:
        return sum(table.written for table in self.tables)
