"""Which of a database's relations a backup copies: pure, and what is left out is said by name with the reason."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dbops.backup.model import BESIDE, NOT_INCLUDED, Name, Omitted

MANAGED_OWNER = re.compile(r"supabase_\w+|pgbouncer")
ROWS_KEPT = ("auth", "storage")  # of the schemas that Supabase manages: users and files, to which others refer


@dataclass(frozen=True)
class Relation:
    """A row of pg_class. `condition` is a WHERE clause or "" for an extension's configuration table, else None."""

    oid: int
    name: Name
    kind: str
    persistence: str
    partition: bool
    schema_owner: str
    extension: str
    condition: str | None

    @property
    def managed(self) -> bool:
        return bool(MANAGED_OWNER.fullmatch(self.schema_owner))

    @property
    def beside(self) -> bool:
        """Whether it is what `restore --mode side` loaded."""
        return self.name.schema.startswith(BESIDE)


@dataclass(frozen=True)
class Chosen:
    """What is copied (`tables`), what is only locked beside (`parents`), whose values are kept, what is left out.

    `managed` are the schemas whose definitions are left out: they belong to somebody else, or to a look at a backup.
    """

    tables: tuple[Relation, ...]
    parents: tuple[Relation, ...]
    sequences: tuple[Relation, ...]
    managed: frozenset[str]
    omitted: tuple[Omitted, ...]


def choose(relations: Sequence[Relation], standby: bool, include: Sequence[str], exclude: Sequence[str]) -> Chosen:
    """Which relations are copied. A pattern is a shell's, for `schema.name`, or for the name alone where it has no dot."""
    tables: list[Relation] = []
    sequences: list[Relation] = []
    omitted: dict[str, str] = {}
    for each in relations:
        if each.extension and each.condition is None:
            continue  # CREATE EXTENSION makes it
        if each.beside:
            omitted[each.name.schema] = "loaded beside by `restore --mode side`: left out; drop it when you have looked"
            continue
        if each.managed:
            kept = each.name.schema in ROWS_KEPT
            omitted[each.name.schema] = "managed by Supabase: " + ("rows only, no definitions" if kept else "left out")
            if not kept:
                continue
        reason = _reason(each, standby) or _unwanted(each, include, exclude)
        if reason:
            omitted[str(each.name)] = reason
        elif each.kind in "rS":
            (tables if each.kind == "r" else sequences).append(each)
    parents = tuple(each for each in relations if each.kind == "p" and not each.extension)
    left_out = tuple(Omitted(name, reason) for name, reason in sorted(omitted.items()))
    managed = frozenset(each.name.schema for each in relations if each.managed or each.beside)
    return Chosen(tuple(tables), parents, tuple(sequences), managed, left_out)


def _reason(each: Relation, standby: bool) -> str:
    if each.kind == "f":
        return "foreign table: its rows lie elsewhere; its definition is kept"
    if each.kind == "m":
        return "materialised view: its definition is kept, a restore refreshes it"
    if each.persistence == "u" and standby and each.kind != "p":
        return "unlogged: a standby has no rows of it; its definition is kept"
    return ""


def _unwanted(each: Relation, include: Sequence[str], exclude: Sequence[str]) -> str:
    if each.kind != "r":
        return ""
    if any(_matches(each.name, pattern) for pattern in exclude):
        return "excluded: its definition is kept, its rows are left out"
    if include and not any(_matches(each.name, pattern) for pattern in include):
        return f"{NOT_INCLUDED}: its definition is kept, its rows are left out"
    return ""


def _matches(name: Name, pattern: str) -> bool:
    return fnmatchcase(str(name) if "." in pattern else name.name, pattern)
