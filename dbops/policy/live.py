"""The target itself, read as those who may not: SELECT only, READ ONLY, under short time-outs, rolled back.

Whatever writes is tried on a copy alone: an UPDATE that is rolled back bloats the table and blocks the application.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from dbops.database import connect, endless, local_settings, server_of, translated
from dbops.policy.attack.actors import Actor, intruders, marks_of, user
from dbops.policy.attack.oracle import allowed, relation
from dbops.policy.attack.result import Leak, Vacuous
from dbops.policy.attack.runner import script
from dbops.policy.attack.target import Attempt, Shot
from dbops.policy.catalog import load_catalog
from dbops.policy.model import Definitions, Name, TableRules
from dbops.sql import queries

if TYPE_CHECKING:
    from dbops.database import Connection

_TIMEOUTS = {"statement_timeout": "5s", "lock_timeout": "1s"}
# refusals: no right, no such function for the role, a sub that is no uuid
_REFUSED = ("42501", "22P02")
_FOREIGN = sql.SQL("SELECT EXISTS (SELECT FROM {table} WHERE NOT {allowed})")


@dataclass(frozen=True)
class Seen:
    """What was got from the target. `not_proven` says where nothing could be told, and why."""

    attacks: int
    leaks: tuple[Leak, ...]
    not_proven: tuple[Vacuous, ...]


def look(url: str, definitions: Definitions, tables: Collection[str] | None = None) -> Seen:
    """Ask as each actor whether a row shows that the definitions do not allow him. Nothing is written.

    Raises CannotConnect, NotAllowed, Blocked where not even the policies can be read.
    """
    leaks: list[Leak] = []
    missed: list[Vacuous] = []
    attacks = 0
    with connect(url, "policy attack") as conn:
        with translated():
            major, catalog = server_of(conn).major, load_catalog(conn)
        marks = marks_of([text for policy in catalog.policies for text in (policy.using, policy.check)])
        lacking = {definitions.auth.user_role, definitions.auth.anon_role} - set(catalog.roles)
        missed += [Vacuous("", "", f"on the target itself: there is no role {role}") for role in sorted(lacking)]
        for name, rules in sorted(definitions.tables.items()):
            if name not in catalog.tables or (tables is not None and str(name) not in tables):
                continue
            for actor in _actors(conn, major, definitions, rules, marks):
                if actor.role in lacking:
                    continue
                attacks += 1
                found = _ask(conn, major, definitions, rules, actor)
                if isinstance(found, Leak):
                    leaks.append(found)
                elif found is not None:
                    missed.append(found)
    return Seen(attacks, tuple(leaks), tuple(missed))


def _actors(
    conn: Connection, major: int, definitions: Definitions, rules: TableRules, marks: dict[str, object]
) -> Iterator[Actor]:
    """A user of the table, if rows have an owner alone, and those who are nobody there."""
    auth, owner = definitions.auth, _owner(conn, major, rules)
    # nobody's id: it owns no row and is a member nowhere
    nobody = str(uuid.uuid4())
    if owner and rules.tenant is None:
        yield user(auth, "another user", owner)
    for actor in intruders(auth, nobody, owner or str(uuid.uuid4()), marks):
        # nothing is ever set for a session of the target: a pooler would hand it on
        if all(setting.local for setting in actor.settings):
            yield actor


def _owner(conn: Connection, major: int, rules: TableRules) -> str:
    """Somebody who owns a row, as text; empty where nobody does or the table has no owners."""
    if rules.owner is None:
        return ""
    column = sql.Identifier(rules.owner)
    one = sql.SQL("SELECT {}::text FROM {} WHERE {} IS NOT NULL LIMIT 1").format(column, relation(rules.name), column)
    try:
        with conn.transaction(force_rollback=True):
            _begin(conn, major)
            conn.execute("SET LOCAL row_security = off")
            row = conn.execute(one).fetchone()
    except psycopg.Error:
        return ""  # the table is locked, say: the actors that need no owner are tried, and tell of it
    return str(row[0]) if row else ""


def _ask(
    conn: Connection, major: int, definitions: Definitions, rules: TableRules, actor: Actor
) -> Leak | Vacuous | None:
    may = allowed(rules, definitions.auth, actor, "select", None)
    question = _FOREIGN.format(table=relation(rules.name), allowed=may)
    try:
        with conn.transaction(force_rollback=True):
            _begin(conn, major)
            conn.execute(
                queries("policy")["live_settings"],
                {"settings": json.dumps([(s.name, s.value) for s in actor.settings])},
            )
            conn.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(actor.role)))
            row = conn.execute(question).fetchone()
    except psycopg.Error as error:
        if error.sqlstate in _REFUSED and "set role" not in str(error):
            return None
        with translated():
            if conn.closed or conn.broken:
                raise
        return Vacuous(str(rules.name), actor.name, f"on the target itself: {error.diag.message_primary or error}")
    return _leak(rules.name, actor, question) if row == (True,) else None


def _begin(conn: Connection, major: int) -> None:
    conn.execute("SET TRANSACTION READ ONLY")
    conn.execute(local_settings(endless(major) | _TIMEOUTS).encode())


def _leak(name: Name, actor: Actor, question: sql.Composed) -> Leak:
    told = script(Shot(actor, Attempt("select", "", question.as_string()), ""))
    what = "rows of the target itself that nothing allows him"
    return Leak(str(name), actor.name, "select", "table, on the target", what, told)
