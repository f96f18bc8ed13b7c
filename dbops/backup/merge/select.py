"""Which rows: from what was asked for to a scope for each table. Pure but for reading the catalog's values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dbops.backup.merge.catalog import Catalog, ForeignKey
from dbops.backup.merge.closure import parts
from dbops.backup.merge.model import Selection
from dbops.backup.model import BESIDE, Manifest, Name, Table
from dbops.config import Settings
from dbops.errors import UsageError

Kind = Literal["whole", "tenant", "where", "part", "needed"]
NOTHING = "nothing was done"
# strings, quoted names, what begins a comment; what is left is one character. Without backslashes and dollars, which are
# refused, all of PostgreSQL's kinds of strings end where these do.
_TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")+"|--|/\*|.""", re.DOTALL)
_FORBIDDEN = frozenset(("--", "/*", ";", "'", '"', "$"))


@dataclass(frozen=True)
class Scope:
    """The rows of one table that are meant: all, a user's, those an expression is true of, parts of other tables' rows
    by the keys `via`, or only what other rows need."""

    table: Name
    kind: Kind
    via: tuple[ForeignKey, ...] = ()


def check_expression(text: str) -> None:
    """Raise UsageError for what is not plainly one expression: it goes into statements between parentheses.

    It is run in a read-only transaction besides; this is what keeps it between its parentheses.
    """
    open_ = 0
    for token in _TOKEN.findall(text):
        hidden = next((mark for mark in ("\\", "\0") if mark in token), "")
        if hidden or token in _FORBIDDEN:
            what = hidden or token
            raise UsageError(
                f"--where {text!r}: {what!r} has no place in an expression",
                hint=f"{NOTHING}; a backslash in a value is written chr(92)",
            )
        open_ += (token in ("(", "[")) - (token in (")", "]"))
        if open_ < 0:
            break
    if open_ or not text.strip():
        raise UsageError(f"--where {text!r}: not one expression with balanced parentheses", hint=NOTHING)


def sources_by_name(manifest: Manifest) -> dict[Name, tuple[Table, ...]]:
    """The manifest's tables with rows to merge: not what dbops keeps of its own runs, which no restore may turn back."""
    tables = [table for table in manifest.tables if table.kind in ("table", "partition")]
    return {table.name: (table,) for table in tables if not is_own(table.name)}


def is_own(name: Name) -> bool:
    return name.schema == "dbops" or name.schema.startswith(BESIDE)


def sources_by_root(manifest: Manifest, catalog: Catalog) -> dict[Name, tuple[Table, ...]]:
    """The manifest's tables under their live roots: partitions go to the table that they are partitions of."""
    found: dict[Name, tuple[Table, ...]] = {}
    for name, tables in sources_by_name(manifest).items():
        root = catalog.roots.get(name, name)
        found[root] = found.get(root, ()) + tables
    return found


def scopes(
    selection: Selection,
    sources: Mapping[Name, tuple[Table, ...]],
    catalog: Catalog,
    settings: Settings,
    *,
    live: bool = True,
) -> tuple[Scope, ...]:
    """A scope for each table that is selected, parents before their parts. Raises UsageError for what is not there.

    Without `live` a table need not be in the database: its rows are only loaded beside, or compared with a backup's.
    """
    named = [_find(text, sources, catalog) for text in selection.tables]
    if selection.where is not None:
        check_expression(selection.where)
        if len(named) != 1 or selection.user is not None:
            raise UsageError("--where goes with exactly one --table and without --user", hint=NOTHING)
    # the record of migrations says what the live schema is: it goes with that, not with the rows
    chosen = named or [name for name in sources if str(name) != settings.table]
    if selection.user is not None:
        chosen = _tenants(named, sources, settings.tenancy)
    for name in chosen if live else ():
        _require_live(name, catalog)
    kind: Kind = "tenant" if selection.user is not None else "where" if selection.where is not None else "whole"
    found = [Scope(name, kind) for name in dict.fromkeys(chosen)]
    if selection.cascade or (selection.user is not None and not named):
        available = [name for name in sources if name in catalog.tables]
        more = parts(chosen, available, catalog.foreign_keys, all_keys=selection.cascade)
        found += [Scope(name, "part", via) for name, via in more.items()]
    return tuple(found)


def _tenants(named: list[Name], sources: Mapping[Name, tuple[Table, ...]], tenancy: str) -> list[Name]:
    having = [n for n, tables in sources.items() if all(tenancy in {c.name for c in t.columns} for t in tables)]
    without = [str(name) for name in named if name not in having]
    if without or not having:
        what = ", ".join(without) if without else "no table of this backup"
        raise UsageError(
            f"{what} {'do not have' if len(without) > 1 else 'does not have' if without else 'has'} the column {tenancy}, "
            "by which a user's rows are told",
            hint=f"set `tenancy`, or select with --table and --where; {NOTHING}",
        )
    return named or having


def _find(text: str, sources: Mapping[Name, tuple[Table, ...]], catalog: Catalog) -> Name:
    """The table that is named: `notes` is public.notes, or the only notes there is."""
    bare = re.sub(r'"("?)', r"\1", text)
    found = [name for name in sources if str(name) in (text, bare)]
    found = found or [name for name in sources if str(name) == f"public.{bare}"]
    found = found or [name for name in sources if name.name == bare]
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        names = ", ".join(str(name) for name in found)
        raise UsageError(f"{text} is the name of several tables: {names}", hint=f"write its schema too; {NOTHING}")
    roots = [root for name, root in catalog.roots.items() if bare in (str(name), name.name) and name != root]
    if roots:
        raise UsageError(
            f"{text} is a partition of {roots[0]}", hint=f"select {roots[0]}, with --where for a part of it; {NOTHING}"
        )
    raise UsageError(f"there is no table {text} in this backup", hint=f"`dbops backup show` lists them; {NOTHING}")


def _require_live(name: Name, catalog: Catalog) -> None:
    if name not in catalog.tables:
        raise UsageError(
            f"table {name} is in the backup and not in this database",
            hint="make the table first (`dbops migrate up`), or restore with --mode side, which loads beside; "
            f"or leave it out with --table for each of the others. {NOTHING.capitalize()}",
        )
