"""COPY TO, which the server runs for a client only: what it sends is compared with what is allowed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from dbops.policy.attack.actors import Actor
from dbops.policy.attack.assault import Attacker, Found
from dbops.policy.attack.bouts import Plan
from dbops.policy.attack.oracle import relation
from dbops.policy.attack.result import Leak
from dbops.policy.attack.runner import script
from dbops.policy.attack.statements import names, text
from dbops.policy.attack.target import Attempt, Bout, Place, Shot

if TYPE_CHECKING:
    from dbops.database import Connection


def copies(attacker: Attacker, plans: Iterable[Plan]) -> Found:
    """COPY TO of each table by its thorough actors and by visitors. COPY FROM is refused under RLS by PostgreSQL."""
    found = Found()
    if attacker.verbs is not None and "copy" not in attacker.verbs:
        return found
    for plan in plans:
        for bout in plan.bouts:
            whole = bout.pair.relation == plan.place.name
            if whole and not bout.before and (bout.actor.thorough or not bout.actor.identity):
                found += _copied(attacker, bout)
    return found


def _copied(attacker: Attacker, bout: Bout) -> Found:
    place, actor = bout.pair.place, bout.actor
    tried = Found(1, tried=frozenset({(str(place.name), "copy", actor.name)}))
    if "SELECT" not in attacker.reach.get(place.name, {}).get(actor.role, ()):
        return tried  # refused for want of the privilege, as a SELECT is
    statement = text(sql.SQL("COPY {} ({}) TO STDOUT").format(relation(place.name), names(place.writable)))
    got = _lines(attacker.conn, statement, actor)
    beyond = Counter(got) - Counter(_lines(attacker.conn, _allowed(attacker, place, actor), None)) if got else None
    if not beyond:
        return tried
    shot = Shot(actor, Attempt("copy", "COPY TO", statement, "rows"), "")
    leak = Leak(str(place.name), actor.name, "copy", "table", f"{beyond.total()} rows read", script(shot))
    return tried + Found(leaks=(leak,))


def _allowed(attacker: Attacker, place: Place, actor: Actor) -> str:
    query = sql.SQL("COPY (SELECT {} FROM {} AS {} WHERE {}) TO STDOUT").format(
        names(place.writable),
        relation(place.name),
        sql.Identifier(place.name.name),
        attacker.allows(place, actor)("select"),
    )
    return text(query)


def _lines(conn: Connection, statement: str, actor: Actor | None) -> list[bytes]:
    """The lines that the actor is sent; none where he is refused."""
    try:
        with conn.transaction(force_rollback=True):
            for setting in actor.settings if actor else ():
                conn.execute("SELECT pg_catalog.set_config(%s, %s, %s)", (setting.name, setting.value, setting.local))
            if actor is not None:
                conn.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(actor.role)))
            with conn.cursor() as cursor, cursor.copy(statement.encode()) as copy:
                return b"".join(bytes(part) for part in copy).splitlines()
    except psycopg.Error:
        return []
