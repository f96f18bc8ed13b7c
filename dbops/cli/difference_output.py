"""How a difference between rows, and a merge of them, look for people and for scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dbops.cli.backup_output import table_text
from dbops.wording import count

if TYPE_CHECKING:
    from dbops.backup import Difference, Merged
    from dbops.backup.merge import Sample, TableDifference


def difference_document(found: Difference) -> dict[str, Any]:
    return {
        "tables": [_table_document(table) for table in found.tables],
        "run": None,
        "backup": found.backup,
        "against": found.against,
        "notes": list(found.notes),
    }


def _table_document(table: TableDifference) -> dict[str, Any]:
    counts = {"missing": table.missing, "changed": table.changed, "extra": table.extra}
    samples = [asdict(each) for each in table.samples]
    return {"table": table.table, **counts, "written": 0, "equal": table.equal, "samples": samples}


def plan_document(tables: Sequence[TableDifference]) -> dict[str, Any]:
    return {"tables": [_table_document(table) for table in tables], "run": None}


def merged_document(merged: Merged) -> dict[str, Any]:
    return {
        "tables": [asdict(table) for table in merged.tables],
        "run": merged.run or None,
        "mode": merged.mode,
        "schema": merged.schema or None,
    }


def difference_text(found: Difference) -> str:
    lines = [f"{found.backup} beside {found.against}:"]
    differing = [table for table in found.tables if table.differs]
    if differing:
        head = ["table", "missing", "changed", "extra", "equal"]
        rows = [[t.table, *(f"{n:,}" for n in (t.missing, t.changed, t.extra, t.equal))] for t in differing]
        lines.append(table_text([head, *rows]))
    same = len(found.tables) - len(differing)
    samples = [line for table in differing for line in samples_text(table)]
    lines += [*samples, *([LEGEND] if samples else [])]
    lines += [f"note: {note}" for note in found.notes]
    lines.append(f"{count(len(differing), 'table')} differ{'s' * (len(differing) == 1)}, {same} the same")
    return "\n".join(lines)


def samples_text(table: TableDifference) -> Iterator[str]:
    """A few of the rows that differ, as LEGEND says."""
    for each in table.samples:
        yield f"  {_SIGNS[each.what]} {table.table} {each.key}{_columns_text(each)}"


_SIGNS = {"missing": "-", "extra": "+", "changed": "~"}
LEGEND = "  (a few of them: - gone since the backup, ~ changed since, + new since)"


def _columns_text(sample: Sample) -> str:
    if sample.what != "changed" or not sample.columns:
        return ""
    return ": " + ", ".join(
        f"{name} {_value(live)} (backup: {_value(backup)})" for name, live, backup in sample.columns
    )


def _value(text: str | None) -> str:
    return "null" if text is None else repr(text)


def merged_text(merged: Merged) -> str:
    lines = [f"{table.table}: {count(table.written, 'row')} written" for table in merged.tables if table.written]
    if merged.schema:
        lines.append(f"beside, in the schema {merged.schema}: drop it when it is no longer needed")
    elif merged.run:
        lines.append(f"run {merged.run}; to take it back: dbops backup restore --undo {merged.run}")
    return "\n".join(lines) or "nothing to do: the rows are the same"
