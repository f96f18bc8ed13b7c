"""Mode `side`: the backup's rows in a schema beside, in the backup's own types; no live row is touched or asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from psycopg.sql import SQL, Identifier

from dbops.backup.merge import record
from dbops.backup.merge.apply import Prepared
from dbops.backup.merge.catalog import ROOM, LiveColumn, LiveTable
from dbops.backup.merge.locking import runner_lock
from dbops.backup.merge.model import Merged, MergedTable, Selection, TableDifference, Tell
from dbops.backup.merge.plan import Plan
from dbops.backup.merge.record import Entry, SavedTable
from dbops.backup.merge.select import Scope, scopes, sources_by_name
from dbops.backup.merge.session import Session
from dbops.backup.merge.staging import Staging, streamed
from dbops.backup.merge.target import COMMA, Target, listed
from dbops.backup.model import BESIDE, Manifest, Name, Table
from dbops.backup.store import Store
from dbops.sql import queries


def prepare_side(
    session: Session, manifest: Manifest, store: Store, selection: Selection, place: str, tell: Tell
) -> Prepared:
    """The plan of loading beside: the tables and how many rows they have in the backup at most."""
    sources = sources_by_name(manifest)
    found = scopes(selection, sources, session.catalog, session.settings, live=False)
    tables = tuple(TableDifference(str(scope.table), sources[scope.table][0].rows, 0, 0, 0) for scope in found)
    run = record.new_run()
    note = f"they go into a new schema, {BESIDE}{run}; no live row is touched"
    plan = Plan(manifest.id, place, "side", str(selection), tables, notes=(note,))
    prepared = Prepared(plan, session, manifest, store.place, (), tell)
    prepared.side = lambda: _load(
        prepared, store, run, found, {name: each[0] for name, each in sources.items()}, selection
    )
    return prepared


def _load(
    prepared: Prepared, store: Store, run: str, found: tuple[Scope, ...], sources: Mapping[Name, Table],
    selection: Selection,
) -> Merged:  # fmt: skip
    """All of it in one transaction: a schema is there whole or not at all."""
    session, schema = prepared.session, f"{BESIDE}{run}"
    staging, conn = Staging(session, store, prepared.tell), session.conn
    targets = {
        scope.table: _target(session, number, scope, sources[scope.table], selection)
        for number, scope in enumerate(found, 1)
    }
    names = _names([scope.table for scope in found])
    merged: list[MergedTable] = []
    with runner_lock(session, prepared.tell):
        for target in targets.values():
            staging.make_beside(target, sources[target.name])
        for target in targets.values():
            staging.load(target, target.predicate(lambda parent: parent.staged(), targets))
        with session.transaction():
            conn.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
            for target in targets.values():
                place = Identifier(schema, names[target.name])
                conn.execute(SQL("CREATE TABLE {} ({})").format(place, staging.definitions(sources[target.name])))
                rows = SQL("INSERT INTO {} SELECT {} FROM {}").format(
                    place, listed(target.columns), target.temporary("staged")
                )
                count = conn.execute(rows).rowcount
                merged.append(MergedTable(str(target.name), count, 0, 0, count))
            _close(session, schema, list(names.values()))
            record.ensure(conn)
            plan = prepared.plan
            entry = Entry(run, "side", plan.backup, prepared.store, "side", plan.selection, prepared.started_at)
            saved = [
                SavedTable(name.schema, name.name, (), (), True, each.missing, 0, 0, each.written)
                for name, each in zip(targets, merged, strict=True)
            ]
            record.write(conn, entry, saved)
    return Merged(run, "side", tuple(merged), schema)


def _target(session: Session, number: int, scope: Scope, source: Table, selection: Selection) -> Target:
    columns = tuple(LiveColumn(column.name, column.type) for column in streamed(source))
    live = LiveTable(source.name, columns)
    return Target(
        number, live, scope, tuple(column.name for column in columns), (source,), selection.user or "",
        session.settings.tenancy, selection.where or "",
    )  # fmt: skip


def _names(tables: list[Name]) -> dict[Name, str]:
    """A table's own name, with its schema's before it where two have the same."""
    counts = Counter(name.name for name in tables)
    return {name: name.name if counts[name.name] == 1 else f"{name.schema}.{name.name}" for name in tables}


def _close(session: Session, schema: str, tables: list[str]) -> None:
    """No role but the owner reads what lies there: it has no policies."""
    conn = session.conn
    rows = conn.execute(queries(ROOM)["record_grantees"], {"schema": schema}).fetchall()
    for role in [SQL("public"), *(Identifier(row[0]) for row in rows)]:
        conn.execute(SQL("REVOKE ALL ON SCHEMA {} FROM {}").format(Identifier(schema), role))
        if tables:
            names = COMMA.join(Identifier(schema, name) for name in tables)
            conn.execute(SQL("REVOKE ALL ON {} FROM {}").format(names, role))
