"""A batch of another table taken back, row by row, from the images in the ledger."""

from __future__ import annotations

from functools import partial
from typing import Any

from psycopg.sql import SQL, Composed, Identifier

from dbops.errors import UsageError
from dbops.hygiene import record
from dbops.hygiene.model import Refused, Undone, UndoPlan
from dbops.hygiene.session import Session
from dbops.hygiene.table.model import NOTHING, Target
from dbops.hygiene.table.source import COMMA, ROOM, Source, read_source
from dbops.sql import queries

_AT_ONCE = 1000


def plan_undo_table(session: Session, batch: str) -> UndoPlan:
    """What undo would take back. Raises UsageError where nothing is left to."""
    with session.transaction(read_only=True):
        [(command, table, _)] = session.rows("run", {"batch": batch})
        [(every, left)] = session.conn.execute(queries(ROOM)["saved"], {"batch": batch}).fetchall()
    if not left:
        what = "has been undone already" if every else "changed nothing, or its ledger was purged"
        raise UsageError(f"batch {batch} {what}", hint=NOTHING)
    return UndoPlan(batch, command, table, 1, left)


def undo_table(session: Session, batch: str) -> Undone:
    """Take the batch back, a thousand rows a transaction; what was restored by then stays so if it is interrupted."""
    plan = plan_undo_table(session, batch)
    with session.transaction(read_only=True):
        [(_, table, settings)] = session.rows("run", {"batch": batch})
        target = Target(**settings["target"])
        source = read_source(session, target)
    own = record.begin(session, "undo", table, {}, undoes=batch)
    restored, refused, after = 0, list[Refused](), 0
    while True:
        part = session.patiently(
            f"{plan.table} (undo of {batch})", partial(_undo_part, session, source, target, batch, own, after)
        )
        if part is None:
            break
        after, done, left = part
        restored += done
        refused += left
    with session.transaction():
        session.act("reopen", {"batch": batch})
        session.act("end_run", {"batch": own})
    return Undone(batch, restored, tuple(refused))


def _undo_part(
    session: Session, source: Source, target: Target, batch: str, own: str, after: int
) -> tuple[int, int, list[Refused]] | None:
    """(last number, restored, refused) of the next portion; None where there is none."""
    with session.transaction():
        values: dict[str, Any] = {"batch": batch, "after": after, "limit": _AT_ONCE}
        part = session.conn.execute(queries(ROOM)["saved_part"], values).fetchall()
        if not part:
            return None
        seqs = [seq for seq, *_ in part]
        those = {"batch": batch, "seqs": seqs}
        if not target.deletes:
            session.run(_locking(source), those)
        statement = _inserting(source) if target.deletes else _updating(source)
        reasons: dict[int, str | None] = dict(session.conn.execute(statement, those).fetchall())
        refused = [Refused(key, reason) for seq, key, _ in part if (reason := reasons.get(seq))]
        done = [seq for seq in seqs if not reasons.get(seq)]
        session.conn.execute(queries(ROOM)["restored"], {"batch": batch, "seqs": done})
        record.add(session, own, marked=len(done))
    return seqs[-1], len(done), refused


_SAVED = SQL(
    "(SELECT * FROM dbops.hygiene_saved v "
    "WHERE v.batch = %(batch)s::pg_catalog.uuid AND v.seq = ANY (%(seqs)s::pg_catalog.int8[])) v"
)
_UPDATING = SQL("""
    WITH now AS MATERIALIZED (
      SELECT v.seq, v.key, v.before, v.after_hash, x.found, x.hash
      FROM {ledger} LEFT JOIN LATERAL (
        SELECT true AS found, pg_catalog.md5({image}::pg_catalog.text) AS hash FROM {table} t WHERE {saved}
      ) x ON true
    ), written AS (
      UPDATE {table} t SET {sets} FROM now n WHERE {same} AND n.hash = n.after_hash
      RETURNING n.seq, {image} = n.before AS exact
    )
    SELECT n.seq, CASE WHEN w.exact THEN NULL WHEN w.exact IS NOT NULL THEN 'a trigger changed it while it was written'
      WHEN n.found IS NULL THEN 'it was deleted since' ELSE 'it was changed since' END
    FROM now n LEFT JOIN written w ON w.seq = n.seq
""")
_INSERTING = SQL("""
    WITH written AS (
      INSERT INTO {table} AS t ({names}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {ledger}
      ON CONFLICT DO NOTHING RETURNING {key} AS key
    )
    SELECT v.seq, CASE WHEN w.key IS NULL THEN 'its key, or another unique value of it, is in use' END
    FROM {ledger} LEFT JOIN written w ON w.key = v.key::pg_catalog.text
""")
_LOCKING = SQL("SELECT FROM {ledger} JOIN {table} t ON {saved} ORDER BY {key} FOR UPDATE OF t")


def _locking(source: Source) -> Composed:
    """What others changed meanwhile must be seen by the statement that judges it."""
    return _LOCKING.format(ledger=_SAVED, table=source.relation, saved=source.same(SQL("v.key")), key=source.key_of())


def _updating(source: Source) -> Composed:
    """Rows as they were, where they still are as the batch left them."""
    columns = [column for column in source.written if column.name not in source.key and not column.always]
    sets = COMMA.join(SQL("{} = {}").format(Identifier(c.name), source.value(c, SQL("n.before"))) for c in columns)
    return _UPDATING.format(
        ledger=_SAVED, image=source.image(), table=source.relation, sets=sets, saved=source.same(SQL("v.key")),
        same=source.same(SQL("n.key")),
    )  # fmt: skip


def _inserting(source: Source) -> Composed:
    """Rows that were deleted, where their key is free."""
    names = COMMA.join(Identifier(column.name) for column in source.written)
    values = COMMA.join(source.value(column, SQL("v.before")) for column in source.written)
    return _INSERTING.format(ledger=_SAVED, table=source.relation, names=names, values=values, key=source.key_of())
