"""What belongs together by foreign keys. Pure functions over names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from dbops.backup.merge.catalog import ForeignKey
from dbops.backup.model import Name


def parts(
    chosen: Collection[Name], available: Collection[Name], keys: Iterable[ForeignKey], *, all_keys: bool = False
) -> dict[Name, tuple[ForeignKey, ...]]:
    """The tables whose rows are parts of the chosen tables' rows, with the keys that make them so, parents first.

    A part is what the database itself deletes with its whole: ON DELETE CASCADE. With `all_keys` every reference counts.
    """
    counting = [key for key in keys if key.child != key.parent and (all_keys or key.on_delete == "c")]
    within, found = set(chosen), dict[Name, tuple[ForeignKey, ...]]()
    while True:
        new = {key.child for key in counting if key.parent in within} & set(available) - within
        if not new:
            return found
        # one level at a time: a table's keys to others of its level would select by rows that are not there yet
        for name in sorted(new):
            found[name] = tuple(key for key in counting if key.child == name and key.parent in within)
        within |= new


def parents_first(names: Iterable[Name], keys: Iterable[ForeignKey]) -> tuple[Name, ...]:
    """The names with parents before their children; where keys go in a circle, one of them is passed over."""
    waiting: dict[Name, set[Name]] = {name: set() for name in sorted(names)}
    for key in keys:
        if key.child in waiting and key.parent in waiting and key.child != key.parent:
            waiting[key.child].add(key.parent)
    while True:
        try:
            return _stable(waiting)
        except CycleError as error:
            circle: list[Name] = error.args[1]  # each is a predecessor of the next
            waiting[circle[1]].discard(circle[0])


def _stable(waiting: Mapping[Name, set[Name]]) -> tuple[Name, ...]:
    """A topological order, by name where there is a choice."""
    sorter = TopologicalSorter(waiting)
    sorter.prepare()
    order: list[Name] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order += ready
        sorter.done(*ready)
    return tuple(order)
