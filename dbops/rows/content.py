"""What tables hold, as text that shows no order of rows and columns, and how two states differ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import sql

from dbops.rows.catalog import PLAIN_TEXT, Connection, settings, table_names
from dbops.rows.statements import name, run

Content = dict[str, list[str]]
Values = dict[str, Any]
_SHOWN = 3  # rows of each kind in one table
_WIDTH = 160  # characters of one row
_PAIRED = 200  # rows that are looked through for the one that a row became


def read_rows(conn: Connection, schemas: Sequence[str], exclude: Sequence[str] = ()) -> Content:
    """Every table's rows as sorted JSON texts, by quoted, qualified table name.

    `exclude` holds names like `public.schema_migrations`. A partitioned table stands for its partitions. The
    whole content is read into memory: it is meant for scratch databases.
    """
    with conn.transaction(), settings(conn, {**PLAIN_TEXT, "search_path": "", "row_security": "off"}):
        tables = table_names(conn, schemas, exclude)
        return {label: _rows(conn, oid, schema, table) for oid, schema, table, label in tables}


def _rows(conn: Connection, oid: int, schema: str, table: str) -> list[str]:
    # rows of tables that inherit from this one are read with those tables, a partition's with the root
    statement = sql.SQL("SELECT to_jsonb(r)::text FROM {} r WHERE r.tableoid = {} OR {}").format(
        name(schema, table), sql.Literal(oid), _is_partitioned(oid)
    )
    return sorted(row[0] for row in run(conn, statement))


def _is_partitioned(oid: int) -> sql.Composable:
    return sql.SQL("EXISTS (SELECT FROM pg_catalog.pg_partitioned_table p WHERE p.partrelid = {})").format(
        sql.Literal(oid)
    )


def compare_rows(before: Mapping[str, list[str]], after: Mapping[str, list[str]], *, limit: int = 4000) -> str:
    """How two contents differ, for people: per table the rows lost, added and changed; empty when equal.

    At most `limit` characters.
    """
    lines: list[str] = []
    for table in sorted(before.keys() | after.keys()):
        if table not in after:
            lines.append(f"table {table}: gone, with {len(before[table])} rows")
        elif table not in before:
            lines.append(f"table {table}: new, with {len(after[table])} rows")
        else:
            lines += _table_difference(table, before[table], after[table])
    text = "\n".join(lines)
    return text if len(text) <= limit else text[: limit - 20].rsplit("\n", 1)[0] + "\n… and more"


def _table_difference(table: str, before: Sequence[str], after: Sequence[str]) -> list[str]:
    lost, added = (
        list((Counter(before) - Counter(after)).elements()),
        list((Counter(after) - Counter(before)).elements()),
    )
    if not lost and not added:
        return []
    old, new = [json.loads(row) for row in lost], [json.loads(row) for row in added]
    lines = _column_difference(old, new)
    changed = _pairs(old, new)
    lines += _listed("changed", [_change(a, b) for a, b in changed])
    lines += _listed("lost", [_short(row) for row in old])
    lines += _listed("added", [_short(row) for row in new])
    return [f"table {table}: {len(before)} rows before, {len(after)} after", *lines]


def _column_difference(old: Sequence[Values], new: Sequence[Values]) -> list[str]:
    if not old or not new:
        return []
    before, after = set().union(*old), set().union(*new)
    held = {column: sum(row.get(column) is not None for row in old) for column in before - after}
    lines = [f"  column {column} is gone: it had values in {held[column]} rows" for column in sorted(held)]
    return lines + [f"  column {column} is new" for column in sorted(after - before)]


def _pairs(old: list[Values], new: list[Values]) -> list[tuple[Values, Values]]:
    """Rows that became others, taken out of both lists: most of their values are the same."""
    pairs = []
    for row in old[:_PAIRED]:
        best = max(new[:_PAIRED], key=lambda other: _shared(row, other), default=None)
        if best is not None and _shared(row, best) * 2 >= len(row):
            pairs.append((row, best))
            new.remove(best)
            old.remove(row)
    return pairs


def _shared(row: Values, other: Values) -> int:
    return sum(key in other and other[key] == value for key, value in row.items())


def _change(row: Values, other: Values) -> str:
    columns = [key for key in row.keys() & other.keys() if row[key] != other[key]]
    marks = [key for key in row if key == "id" and key not in columns]
    parts = [f"{key} {_json(row[key])}" for key in marks]
    parts += [f"{key}: {_json(row[key])} → {_json(other[key])}" for key in sorted(columns)]
    return ", ".join(parts) or "columns only"


def _listed(kind: str, texts: Sequence[str]) -> list[str]:
    if not texts:
        return []
    more = [f"    … and {len(texts) - _SHOWN} more"] if len(texts) > _SHOWN else []
    return [f"  {len(texts)} {kind}", *(f"    {text[:_WIDTH]}" for text in texts[:_SHOWN]), *more]


def _short(row: Values) -> str:
    return _json(row)


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
