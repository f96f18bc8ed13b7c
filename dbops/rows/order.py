"""In which order to fill tables, and what holds between rows that can only come together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dbops.rows.catalog import Table
from dbops.rows.plan import Row


def in_order(tables: Sequence[Table]) -> list[list[Table]]:
    """The tables, those referred to first. Those that can only begin together are in one list.

    That is a cycle of foreign keys without a nullable column, a table that must refer to itself too.
    """
    left = {table.oid: table for table in tables}
    must = {table.oid: {key.needs for key in table.keys if table.mandatory(key)} for table in tables}
    may = {table.oid: {key.needs for key in table.keys} - {table.oid} for table in tables}
    order: list[list[Table]] = []
    while left:
        group = (
            next(({oid} for oid in left if not (may[oid] | must[oid]) & left.keys()), None)
            or next(({oid} for oid in left if not must[oid] & left.keys()), None)
            or _knot(left.keys(), must)
        )
        order.append([left.pop(oid) for oid in sorted(group)])
    return order


def _knot(left: Iterable[int], must: Mapping[int, set[int]]) -> set[int]:
    """The smallest set of tables which must refer to each other and to no other table that is left."""
    oids = set(left)
    return min((_reach(oid, oids, must) for oid in oids), key=lambda group: (len(group), sorted(group)))


def _reach(start: int, oids: set[int], must: Mapping[int, set[int]]) -> set[int]:
    reached, new = {start}, [start]
    while new:
        more = (must[new.pop()] & oids) - reached
        reached |= more
        new += more
    return reached


def unify(rows: Mapping[int, Row], tables: Sequence[Table]) -> None:
    """Make rows, one a table, refer to each other by the mandatory keys among the tables.

    Columns that must be equal take one value: that of a column which also refers to another table,
    else that of a column which is referred to.
    """
    by_oid = {table.oid: table for table in tables}
    parent: dict[tuple[int, str], tuple[int, str]] = {}

    def root(slot: tuple[int, str]) -> tuple[int, str]:
        while parent.setdefault(slot, slot) != slot:
            slot = parent[slot]
        return slot

    outer: set[tuple[int, str]] = set()
    for table in tables:
        for key in table.keys:
            if key.needs in by_oid and table.mandatory(key):
                for name, target in zip(key.columns, key.target_columns, strict=True):
                    parent[root((table.oid, name))] = root((key.needs, target))
            elif table.mandatory(key):
                outer |= {(table.oid, name) for name in key.columns}
    source = {root(slot): slot for slot in sorted(outer)}
    for oid, name in list(parent):
        top = root((oid, name))
        from_oid, from_name = source.get(top, top)
        rows[oid][name] = rows[from_oid][from_name]
