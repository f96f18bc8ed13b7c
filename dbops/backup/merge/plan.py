"""What a merge would do, as a value that prints itself; and the refusals that are clear before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dbops.backup.merge.catalog import LiveTable
from dbops.backup.merge.model import ACTS, Mode, TableDifference, What
from dbops.backup.merge.target import Target
from dbops.errors import UsageError

VERBS: dict[str, str] = {"missing": "insert", "changed": "turn back", "extra": "delete"}


@dataclass(frozen=True)
class Plan:
    """What `merge` will do to each table: all of it or nothing. `digest` is of the differing live rows.

    `problems` stand in the way: `merge` refuses with them. `notes` are worth reading first.
    """

    backup: str
    place: str  # the target's database and host
    mode: Mode
    selection: str
    tables: tuple[TableDifference, ...]
    digest: str = ""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def acts(self) -> tuple[What, ...]:
        return ACTS[self.mode]

    @property
    def writes(self) -> int:
        """The rows that the merge will insert, turn back or delete; of mode `side`, those that it loads at most."""
        if self.mode == "side":
            return sum(table.missing for table in self.tables)
        return sum(getattr(table, what) for table in self.tables for what in self.acts)

    def __str__(self) -> str:
        lines = [f"restore {self.selection} of {self.backup} into {self.place}, mode {self.mode}"]
        width = max((len(table.table) for table in self.tables), default=0)
        for table in self.tables:
            lines.append(f"  {table.table:<{width}}  {_told(table, self.acts)}")
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  stands in the way: {problem}" for problem in self.problems]
        return "\n".join(lines)


def _told(table: TableDifference, acts: Sequence[What]) -> str:
    if not acts:
        return f"load at most {table.missing:,}"
    counts = {"missing": table.missing, "changed": table.changed, "extra": table.extra}
    done = [f"{VERBS[what]} {counts[what]:,}" for what in acts if counts[what]]
    left = [f"leave {count:,} {what}" for what, count in counts.items() if count and what not in acts]
    return "; ".join([*done, *left, f"{table.equal:,} equal"])


def table_problems(target: Target, difference: TableDifference, mode: Mode) -> list[str]:
    """Why this table cannot be merged so, in words."""
    name, live, found = target.name, target.live, []
    if not target.keyed and mode in ("missing", "upsert"):
        found.append(f"{name} has no primary key: mode {mode} cannot tell its rows apart; use --mode replace or side")
    if live.has_rules:
        found.append(f"{name} has rewrite rules, which would change what is written; use --mode side")
    unknown = [] if not difference.missing else new_columns(live, target.columns)
    if unknown:
        found.append(
            f"{name}: the column {', '.join(unknown)} is newer than the backup, NOT NULL and without a default: "
            "missing rows cannot be inserted; give it a default, or use --mode side"
        )
    return found


def new_columns(live: LiveTable, columns: Sequence[str]) -> list[str]:
    """The live columns that must have a value which neither the backup nor a default gives."""
    return [c.name for c in live.written if c.name not in columns and c.not_null and not c.has_default]


def check_mode(mode: str) -> None:
    """Raise UsageError for what is no mode: there is no default one."""
    if mode not in ACTS:
        raise UsageError(
            f"mode {mode!r} is not one of {', '.join(ACTS)}",
            hint="missing inserts rows that are gone, upsert also turns changed ones back, replace also deletes what the "
            "backup does not have, side only loads into a schema beside; nothing was done",
        )
