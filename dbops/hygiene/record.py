"""What the room keeps in a database, in the schema `dbops`: runs, rows of other tables before a change, pairs to review."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from psycopg.sql import SQL, Identifier

from dbops import __version__
from dbops.hygiene.model import Batch, Doubt, Search
from dbops.hygiene.plan import Verdict
from dbops.hygiene.session import ROOM, Session
from dbops.sql import queries

KEPT = 30  # days that a batch can be undone
TABLES = ("hygiene_runs", "hygiene_saved", "hygiene_reviews")


def exists(session: Session) -> bool:
    return bool(session.value("record_exists"))


def ensure(session: Session) -> None:
    """Make the tables where they are missing, in the transaction under way, closed to all but their owner.

    Default privileges (Supabase has them) give new tables to API roles.
    """
    if exists(session):
        return
    # two first runs at one time: IF NOT EXISTS alone does not keep them apart
    session.rows("lock_record")
    if exists(session):
        return
    session.conn.execute(queries(ROOM)["create_record"])
    tables = SQL(", ").join(Identifier("dbops", name) for name in TABLES)
    roles = session.rows("record_grantees", {"schema": "dbops"})
    for role in [SQL("public"), *(Identifier(row[0]) for row in roles)]:
        session.run(SQL("REVOKE ALL ON {} FROM {}").format(tables, role))
    session.run(SQL("REVOKE ALL ON SCHEMA dbops FROM public"))
    for name in TABLES:
        session.run(SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(Identifier("dbops", name)))


def begin(
    session: Session, command: str, table: str, settings: Mapping[str, Any], *, rows: int = 0, pairs: int = 0,
    undoes: str | None = None, purge_after: int = KEPT,
) -> str:  # fmt: skip
    """Record a run; its batch. Committed before the first change, so that a run that is killed is on record."""
    values = {"command": command, "table": table, "settings": json.dumps(settings), "undoes": undoes, "rows": rows}
    values |= {
        "pairs": pairs,
        "purge_after": purge_after,
        "run_from": socket.gethostname(),
        "dbops_version": __version__,
    }
    with session.transaction():
        ensure(session)
        return str(session.value("begin_run", values))


def add(session: Session, batch: str, *, marked: int = 0, review: int = 0, size: int = 0) -> None:
    """Count what the transaction under way does for one more user."""
    session.act("add_to_run", {"batch": batch, "marked": marked, "review": review, "bytes": size})


def end(session: Session, batch: str) -> None:
    with session.transaction():
        session.act("end_run", {"batch": batch})


def search_settings(search: Search) -> dict[str, Any]:
    """A search as the record has it."""
    return {key: value for key, value in asdict(search).items() if value is not None}


def decided(
    session: Session, table: str, scopes: Sequence[str] | None
) -> dict[str | None, dict[frozenset[str], Verdict]]:
    """What people have decided of pairs of texts, by scope."""
    found: dict[str | None, dict[frozenset[str], Verdict]] = {}
    if not exists(session):
        return found
    for scope, a, b, state in session.rows("decided", {"table": table, "scopes": scopes and list(scopes)}):
        found.setdefault(scope, {})[frozenset((a, b))] = state
    return found


def add_reviews(session: Session, batch: str, table: str, scope: str | None, doubts: Iterable[Doubt]) -> None:
    """Put pairs on the list; one that is there already is brought up to date, one that was decided stays so."""
    unique = {frozenset((doubt.a.hash, doubt.b.hash)): doubt for doubt in doubts}.values()
    if not unique:
        return
    values: dict[str, Any] = {"table": table, "scope": scope, "batch": batch}
    values |= {"a": [d.a.id for d in unique], "b": [d.b.id for d in unique]}
    values |= {"a_hash": [d.a.hash for d in unique], "b_hash": [d.b.hash for d in unique]}
    values |= {name: [getattr(d, name) for d in unique] for name in ("similarity", "kind", "reason")}
    session.act("add_reviews", values)


def runs(session: Session, limit: int) -> list[Batch]:
    """The newest runs first, without those that undid another."""
    if not exists(session):
        return []
    return [Batch(str(row[0]), *row[1:]) for row in session.rows("runs", {"limit": limit})]
