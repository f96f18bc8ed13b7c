"""A batch of another table taken back, row by row, from the images in the ledger."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from psycopg.sql import SQL, Composed, Identifier

from dbops.errors import UsageError
from dbops.hygiene import record
from dbops.hygiene.model import Refused, Undone, UndoPlan
from dbops.hygiene.session import Session
from dbops.hygiene.table.model import NOTHING, Target
from dbops.hygiene.table.source import COMMA, ROOM, Source, hinted, read_table
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
        source, _ = read_table(session, target)
    own = record.begin(session, "undo", table, {}, undoes=batch)
    with session.transaction():
        # first: a run that is killed leaves no acceptance that was undone
        session.act("reopen", {"batch": batch, "user": None})
    undo = _Undo(session, source, target.deletes, batch, own)
    restored, altered = 0, list[Refused]()
    while True:
        done, changed, refused = undo.once(f"{plan.table} (undo of {batch})")
        restored += done
        altered += changed
        # a row that failed may have waited for one that is back now
        if not done or not undo.failed:
            break
    record.end(session, own)
    return Undone(batch, restored, tuple(refused), tuple(altered))


# errors of a row's values or of the triggers on it, by the first letters of their SQLSTATE; the others are everybody's
_OF_A_ROW = ("09", "21", "22", "23", "27", "38", "39", "42", "44", "P0")
_NOT_ALLOWED = "42501"
_KEPT = "a trigger kept it from being written as it was"


class _Kept(Exception):
    """Rows were not written, or not under their keys."""


@dataclass
class _Part:
    """By number in the ledger: the rows that are back, with the columns that differ, and why others are not."""

    back: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    refused: dict[int, str] = field(default_factory=dict[int, str])

    def add(self, other: _Part) -> None:
        self.back |= other.back
        self.refused |= other.refused


class _Undo:
    def __init__(self, session: Session, source: Source, deleted: bool, batch: str, own: str) -> None:
        self.session, self.source, self.deleted, self.batch, self.own = session, source, deleted, batch, own
        self.failed = False

    def once(self, what: str) -> tuple[int, list[Refused], list[Refused]]:
        """(how many rows are back, those of them that differ, those refused) of all that are not undone."""
        done, altered, refused, after = 0, list[Refused](), list[Refused](), 0
        self.failed = False
        hint = (
            "this portion was left as it is, what was restored before stays; mend the cause and run the command again"
        )
        while True:
            with hinted(what, hint):
                keys, part = self.session.patiently(what, partial(self._portion, after))
            if not keys:
                return done, altered, refused
            done, after = done + len(part.back), max(keys)
            altered += [
                Refused(keys[seq], f"restored, but a trigger or a new type changed {', '.join(names)}")
                for seq, names in part.back.items()
                if names
            ]
            refused += [Refused(keys[seq], reason) for seq, reason in part.refused.items()]

    def _portion(self, after: int) -> tuple[dict[int, str], _Part]:
        """(the key of each row, what became of it)"""
        with self.session.transaction():
            values: dict[str, Any] = {"batch": self.batch, "after": after, "limit": _AT_ONCE}
            found = self.session.conn.execute(queries(ROOM)["saved_part"], values).fetchall()
            # what is checked at the end of a transaction would take its other rows along
            self.session.run("SET CONSTRAINTS ALL IMMEDIATE")
            alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
            for seq, _, names in found:
                alike[tuple(names)].append(seq)
            part = _Part()
            for names, seqs in alike.items():
                part.add(self._with_columns(names, seqs))
            back = list(part.back)
            self.session.conn.execute(queries(ROOM)["restored"], {"batch": self.batch, "seqs": back})
            record.add(self.session, self.own, marked=len(back))
        return {seq: key for seq, key, _ in found}, part

    def _with_columns(self, names: tuple[str, ...], seqs: list[int]) -> _Part:
        """Restore rows that had these columns; those that the table has got since keep their values, or get their defaults."""
        if gone := sorted(set(names) - {column.name for column in self.source.written}):
            return _Part(refused=dict.fromkeys(seqs, f"the table has no column {', '.join(gone)} any more"))
        had = {*names, *(column.name for column in self.source.columns if column.generated)}
        if added := sorted(set(self.source.key) - had):
            return _Part(refused=dict.fromkeys(seqs, f"the column {', '.join(added)} of the key was not there then"))
        return self._restore(self.source.only(had), seqs)

    def _restore(self, source: Source, seqs: list[int]) -> _Part:
        """Restore the rows; where that fails, each half by itself, until the rows are found that cannot come back."""
        import psycopg

        try:
            with self.session.conn.transaction():
                return self._write(source, seqs)
        except _Kept:
            reason = _KEPT
        except psycopg.Error as error:
            state = error.sqlstate or ""
            if not state.startswith(_OF_A_ROW) or state == _NOT_ALLOWED:
                raise
            reason = error.diag.message_primary or str(error)
        if len(seqs) == 1:
            self.failed = True
            return _Part(refused={seqs[0]: reason})
        middle = len(seqs) // 2
        part = self._restore(source, seqs[:middle])
        part.add(self._restore(source, seqs[middle:]))
        return part

    def _write(self, source: Source, seqs: list[int]) -> _Part:
        those = {"batch": self.batch, "seqs": seqs}
        if not self.deleted:
            self.session.run(_locking(source), those)
        statement = _inserting(source) if self.deleted else _updating(source)
        reasons: dict[int, str | None] = dict(self.session.conn.execute(statement, those | {"kept": _KEPT}).fetchall())
        if _KEPT in reasons.values():
            raise _Kept
        written = [seq for seq in seqs if reasons[seq] is None]
        now = self.session.conn.execute(_comparing(source), those | {"seqs": written}).fetchall()
        if len(now) < len(written):
            raise _Kept
        return _Part(dict(now), {seq: reason for seq, reason in reasons.items() if reason is not None})


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
      UPDATE {table} t SET {sets} FROM now n WHERE {same} AND n.hash = n.after_hash RETURNING n.seq
    )
    SELECT n.seq, CASE WHEN w.seq IS NOT NULL THEN NULL WHEN n.found IS NULL THEN 'it was deleted since'
      WHEN n.hash <> n.after_hash THEN 'it was changed since' ELSE %(kept)s::pg_catalog.text END
    FROM now n LEFT JOIN written w ON w.seq = n.seq
""")
# (ON CONFLICT would not take a key that is checked late)
_INSERTING = SQL("""
    WITH free AS MATERIALIZED (
      SELECT v.seq, v.key, v.before FROM {ledger} WHERE NOT EXISTS (SELECT FROM {table} t WHERE {saved})
    ), written AS (
      INSERT INTO {table} AS t ({names}) OVERRIDING SYSTEM VALUE SELECT {values} FROM free v RETURNING {key} AS key
    )
    SELECT v.seq, CASE WHEN f.seq IS NULL THEN 'its key is in use' WHEN w.key IS NULL THEN %(kept)s::pg_catalog.text END
    FROM {ledger} LEFT JOIN free f ON f.seq = v.seq LEFT JOIN written w ON w.key = v.key::pg_catalog.text
""")
# read again, for what AFTER triggers do
_COMPARING = SQL("""
    SELECT v.seq, ARRAY(
      SELECT b.key FROM pg_catalog.jsonb_each_text(v.before) b
      WHERE b.value IS DISTINCT FROM {image} OPERATOR(pg_catalog.->>) b.key ORDER BY b.key)
    FROM {ledger} JOIN {table} t ON {saved}
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
    return _INSERTING.format(
        ledger=_SAVED, table=source.relation, names=names, values=values, key=source.key_of(),
        saved=source.same(SQL("v.key")),
    )  # fmt: skip


def _comparing(source: Source) -> Composed:
    """The rows that are there now, and the columns in which they differ from the ledger."""
    return _COMPARING.format(
        ledger=_SAVED, table=source.relation, image=source.image(), saved=source.same(SQL("v.key"))
    )
