"""Roles of a backup: pg_dump knows none, so those that are missing are made, or what names them is left out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from psycopg import sql

from dbops.backup.model import Omitted
from dbops.backup.schema import Entry, identifiers
from dbops.database import translated
from dbops.errors import UsageError

if TYPE_CHECKING:
    from dbops.database import Connection

_OWNER = re.compile(r'ALTER .* OWNER TO (?:"(?:[^"]|"")+"|[^\s";]+)', re.DOTALL)
_RIGHTS = ("ACL", "DEFAULT ACL", "USER MAPPING")


def missing_roles(conn: Connection, roles: Iterable[str]) -> tuple[str, ...]:
    """Those of the roles that the server does not have, sorted."""
    there = {row[0] for row in conn.execute("select r.rolname::text from pg_catalog.pg_roles r")}
    return tuple(sorted(set(roles) - there - {"public"}))


def make_roles(conn: Connection, roles: Iterable[str]) -> None:
    """Make roles that cannot log in. Raises NotAllowed."""
    for role in roles:
        with translated():
            conn.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))


def refuse_missing(missing: Iterable[str]) -> None:
    """Raise UsageError that lists missing roles and the two ways out."""
    names = ", ".join(missing)
    if names:
        raise UsageError(
            f"the backup's owners and rights name roles that this server does not have: {names}",
            hint="--create-roles makes them (without login), --no-owner leaves ownership and their rights out; "
            "nothing was done",
        )


def without_owners(entries: Iterable[Entry], missing: Iterable[str]) -> tuple[tuple[Entry, ...], tuple[Omitted, ...]]:
    """The entries without ownership and without the rights of missing roles, and what was left out for these.

    Raises UsageError for a policy of a missing role: without it the rows would be open to others, or closed.
    """
    gone = frozenset(missing)
    kept: list[Entry] = []
    omitted: list[Omitted] = []
    for entry in entries:
        named = sorted(gone & frozenset().union(*map(identifiers, entry.statements))) if gone else []
        if entry.kind == "POLICY" and named:
            raise UsageError(
                f"{entry} is for {', '.join(named)}, whom this server does not have: --no-owner cannot leave it out",
                hint="who sees which rows would change; use --create-roles. Nothing was done",
            )
        statements = tuple(each for each in entry.statements if not _left_out(entry.kind, each, gone))
        if entry.kind in _RIGHTS and statements != entry.statements:
            omitted.append(Omitted(str(entry), f"rights of {', '.join(named)}, whom this server does not have"))
        if statements:
            kept.append(Entry(entry.kind, entry.name, entry.schema, statements, entry.settings))
    return tuple(kept), tuple(omitted)


def _left_out(kind: str, statement: str, gone: frozenset[str]) -> bool:
    if kind in _RIGHTS:
        return bool(gone & identifiers(statement))
    return _OWNER.fullmatch(statement) is not None
