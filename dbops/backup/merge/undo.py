"""A merge taken back: what it overwrote or deleted is written again, what it inserted is deleted; or nothing at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from psycopg import sql
from psycopg.sql import SQL, Composable, Composed, Identifier

from dbops.backup.merge import record
from dbops.backup.merge.apply import prove, write
from dbops.backup.merge.compare import Counted, count_delta, unmet
from dbops.backup.merge.model import ACTS, Merged, Tell
from dbops.backup.merge.record import Entry, Run, SavedTable
from dbops.backup.merge.select import Scope
from dbops.backup.merge.session import Session, opened
from dbops.backup.merge.staging import Staging
from dbops.backup.merge.target import COMMA, Target, listed, row_hash, trusted
from dbops.backup.model import BESIDE, Name
from dbops.config import Settings
from dbops.errors import DifferenceFound, UsageError

_ALL = ACTS["replace"]
_LISTED = 10
NOTHING = "nothing was written"


def undo(run: str, url: str, settings: Settings, *, tell: Tell = lambda _: None) -> Merged:
    """Take the merge `run` back. It is a run of its own and can be undone likewise; sequences stay where they are.

    Raises UsageError where there is no such run or it was undone before, DifferenceFound with the list where rows that
    it wrote have changed since; then nothing is written.
    """
    with opened(url, settings, "restore undo") as session:
        with session.transaction(read_only=True):
            known = _undoable(record.read(session.conn, run), run)
        tables = {Name(saved.schema, saved.name): saved for saved in known.tables}
        targets = {name: _target(session, number, saved) for number, (name, saved) in enumerate(tables.items(), 1)}
        for target in targets.values():
            _stage(session, target, run)

        def found() -> dict[Name, Counted]:
            _undoable(record.read(session.conn, run), run)
            return _fill(session, targets, tables)

        def proven() -> None:
            prove(session, {name: target for name, target in targets.items() if target.keyed}, _ALL)

        entry = Entry(
            record.new_run(), "undo", known.backup, known.store, known.mode, f"undo {run}", datetime.now(UTC), run
        )
        saved = write(session, targets, _ALL, found, entry, tell, proven)
        return Merged(entry.run, known.mode, tuple(table.merged for table in saved))


def _undoable(known: Run | None, run: str) -> Run:
    if known is None:
        raise UsageError(
            f"there is no run {run!r} on record in this database", hint=f"dbops.restore_runs has all; {NOTHING}"
        )
    if known.undone_by:
        raise UsageError(f"run {run} has been undone already, by {known.undone_by}", hint=NOTHING)
    if known.command == "side":
        raise UsageError(
            f"run {run} only loaded rows beside: no live row was written", hint=f"drop its schema {BESIDE}{run}"
        )
    return known


def _target(session: Session, number: int, saved: SavedTable) -> Target:
    """The live table of a saved one. Raises DifferenceFound where it has been altered since."""
    live = session.catalog.tables.get(Name(saved.schema, saved.name))
    lost = sorted(set(saved.columns) - {column.name for column in live.written}) if live else []
    if live is None or lost or bool(live.key) != saved.keyed:
        what = "is gone" if live is None else f"has lost the column {', '.join(lost)}" if lost else "has another key"
        raise DifferenceFound(
            f"{saved.table} {what} since that run", hint=f"{NOTHING}; its rows are in dbops.restore_saved"
        )
    if not saved.keyed and saved.missing and set(saved.brought) != {column.name for column in live.written}:
        raise DifferenceFound(
            f"{saved.table} has no primary key and columns that the backup did not have: the inserted rows cannot be told",
            hint=f"{NOTHING}; dbops.restore_saved has what was inserted",
        )
    return Target(number, live, Scope(live.name, "needed" if saved.keyed else "whole"), saved.columns)


def _stage(session: Session, target: Target, run: str) -> None:
    """The rows as they were before, and the keys of what was written, out of the record."""
    staging = Staging(session, None, lambda _: None)
    staging.make(target)
    with session.transaction():
        session.conn.execute(_staging(target, run))
        session.conn.execute(_remembering(target, run))
    staging.index(target)


def _values(columns: Iterable[str], types: Mapping[str, str], source: str) -> Composed:
    """A jsonb object's texts as values again."""
    text = SQL("CAST({} OPERATOR(pg_catalog.->>) {} AS {}) AS {}")
    return COMMA.join(
        text.format(Identifier("v", source), sql.Literal(name), trusted(types[name]), Identifier(name))
        for name in columns
    )


def _types(target: Target) -> dict[str, str]:
    return {column.name: column.type for column in target.live.columns}


def _staging(target: Target, run: str) -> Composed:
    text = (
        "INSERT INTO {} ({}) SELECT {} FROM dbops.restore_saved v "
        "WHERE v.run = {} AND v.\"table\" = {} AND v.what <> 'missing'"
    )
    return SQL(text).format(
        target.temporary("staged"), listed(target.columns), _values(target.columns, _types(target), "before"),
        run, str(target.name),
    )  # fmt: skip


def _remembering(target: Target, run: str) -> Composed:
    """What undoing has to do with each key, beside the hash of the row that the run left."""
    whats = "CASE v.what WHEN 'missing' THEN 'extra' WHEN 'extra' THEN 'missing' ELSE 'changed' END AS dbops_what"
    if target.keyed:
        keys: Composable = _values(target.key, _types(target), "key")
    else:
        values = SQL("ROW({})::pg_catalog.text").format(_values_only(target))
        number = SQL("pg_catalog.row_number() OVER (PARTITION BY v.what, {})").format(values)
        keys = SQL("{} AS dbops_row, {} AS dbops_n").format(values, number)
    text = (
        "CREATE TEMPORARY TABLE {} AS SELECT {}, {}, coalesce(v.after_hash, '') AS dbops_live "
        'FROM dbops.restore_saved v WHERE v.run = {} AND v."table" = {}'
    )
    return SQL(text).format(target.temporary("saved"), SQL(whats), keys, run, str(target.name))


def _values_only(target: Target) -> Composed:
    types = _types(target)
    text = SQL("CAST(v.key OPERATOR(pg_catalog.->>) {} AS {})")
    return COMMA.join(text.format(sql.Literal(name), trusted(types[name])) for name in target.columns)


def _fill(session: Session, targets: Mapping[Name, Target], tables: Mapping[Name, SavedTable]) -> dict[Name, Counted]:
    """The deltas from the record, under the lock. Raises DifferenceFound for rows that have changed since."""
    conn, changed = session.conn, list[str]()
    with session.transaction(read_only=True):
        for name, target in targets.items():
            conn.execute(
                SQL("INSERT INTO {} SELECT * FROM {}").format(target.temporary("delta"), target.temporary("saved"))
            )
            conn.execute(SQL("ANALYZE {}").format(target.temporary("delta")))
            changed += [f"{name} {key}" for (key,) in conn.execute(_changed(target, tables[name], targets))]
        problems = unmet(conn, session.catalog, targets, _ALL)
        counted = {name: count_delta(conn, target, _ALL) for name, target in targets.items()}
    if changed:
        more = f" and more than {_LISTED} others" if len(changed) > _LISTED else ""
        raise DifferenceFound(
            f"rows that the run wrote have changed since: {'; '.join(changed[:_LISTED])}{more}",
            hint=f"{NOTHING}; the rows as they were before are in dbops.restore_saved",
        )
    if problems:
        raise DifferenceFound(f"rows that came since stand in the way: {'; '.join(problems)}", hint=NOTHING)
    return counted


def _changed(target: Target, saved: SavedTable, targets: Mapping[Name, Target]) -> Composed:
    """The keys whose live row is not as the run left it."""
    gone: Composable = SQL("d.dbops_what = 'extra' AND l.dbops_there IS NULL")
    rows: Composable = target.selected(targets)
    if target.keyed:
        rows = SQL("(SELECT true AS dbops_there, {} FROM {} t)").format(listed(target.written, "t"), target.relation)
        gone = SQL(
            "CASE WHEN d.dbops_what = 'missing' THEN l.dbops_there IS NOT NULL "
            "ELSE l.dbops_there IS NULL OR {} <> d.dbops_live END"
        ).format(row_hash(saved.columns, "l"))
    key = SQL("pg_catalog.left(ROW({})::pg_catalog.text, 80)").format(
        listed(target.key if target.keyed else ("dbops_row",), "d")
    )
    text = "SELECT {} FROM {} d LEFT JOIN {} l ON {} WHERE {} ORDER BY 1 LIMIT {}"
    return SQL(text).format(
        key, target.temporary("delta"), rows, target.same_key("d", "l"), gone, sql.Literal(_LISTED + 1)
    )
