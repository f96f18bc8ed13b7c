"""From a selection to staged rows: the selected tables, the parts of their rows, and the rows that these need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from psycopg.sql import SQL, Composable

from dbops.backup.merge.catalog import ForeignKey, LiveColumn, LiveTable
from dbops.backup.merge.closure import parents_first
from dbops.backup.merge.compare import doubled_keys, requirement, requiring
from dbops.backup.merge.model import Selection, TableDifference, Tell
from dbops.backup.merge.select import Scope, scopes, sources_by_name, sources_by_root
from dbops.backup.merge.session import Session
from dbops.backup.merge.staging import UNTOUCHED, Staging, shared_columns, streamed
from dbops.backup.merge.target import Target
from dbops.backup.model import Manifest, Name, Table
from dbops.backup.store import Store
from dbops.errors import DbopsError

TRUE = SQL("true")


class Gathering:
    """A backup's selected rows in temporary tables of one session; `targets` are its tables, parents first."""

    def __init__(self, session: Session, manifest: Manifest, store: Store, selection: Selection, tell: Tell) -> None:
        self.session, self.manifest, self.selection = session, manifest, selection
        self.staging = Staging(session, store, tell)
        self.sources = sources_by_root(manifest, session.catalog)
        self.targets: dict[Name, Target] = {}
        self.notes: list[str] = []
        self.not_there: list[Name] = []

    @property
    def ordered(self) -> tuple[Target, ...]:
        names = parents_first(self.targets, self.session.catalog.foreign_keys)
        return tuple(self.targets[name] for name in names)

    def gather(self, *, only_new: bool) -> None:
        """Stage all. `only_new`: rows that are live already will not be written, so that what they need is not asked."""
        found = scopes(self.selection, self.sources, self.session.catalog, self.session.settings)
        for scope in found:
            self._add(scope)
        for scope in found:
            self._fill(self.targets[scope.table])
        if self.selection.user is not None or self.selection.where is not None:
            self._add_needed(only_new)
        for target in self.targets.values():
            self._check_key(target)
            self.staging.index(target)
        self.notes += [note for scope in found for note in self._gone_partitions(self.targets[scope.table])]
        self.not_there = [name for scope in found for name in self._left_out(self.targets[scope.table])]
        self.notes += [f"{name} is not in this backup: all its rows are extra" for name in self.not_there]

    def _gone_partitions(self, target: Target) -> Iterator[str]:
        """A manifest does not say whose partition a table was: where it is gone, its columns tell."""
        names = {column.name for column in target.live.columns}
        for name, (*_, table) in self.sources.items():
            gone = table.kind == "partition" and name not in self.session.catalog.tables
            if gone and target.live.partitioned and {column.name for column in table.columns} == names:
                yield (
                    f"{name}, in the backup a partition with the columns of {target.name}, is not in this database: its "
                    f"{table.rows:,} rows are not compared; make it first, or load it beside (--mode side)"
                )

    def _left_out(self, target: Target) -> Iterator[Name]:
        """Partitions whose rows the backup left out, by choice or because it could not read them."""
        omitted = {each.name for each in self.manifest.omitted}
        for name, root in self.session.catalog.roots.items():
            if root == target.name != name and str(name) in omitted:
                yield name

    def _add(self, scope: Scope) -> Target:
        live = self.session.catalog.tables[scope.table]
        sources = self.sources.get(scope.table, ())
        columns = shared_columns((column.name for column in live.written), sources)
        lacking = [name for name in live.key if name not in columns]
        if lacking or not columns:
            raise DbopsError(
                f"{live.name}: the backup does not have the column {', '.join(lacking) or 'of any kind'} of its primary key",
                hint=f"--mode side loads the rows beside; {UNTOUCHED}",
            )
        target = Target(
            len(self.targets) + 1, live, scope, columns, sources, self.selection.user or "",
            self.session.settings.tenancy, self.selection.where or "",
        )  # fmt: skip
        self.staging.make(target)
        self.targets[scope.table] = target
        return target

    def _fill(self, target: Target) -> None:
        if target.scope.kind == "whole":
            self.staging.load(target, TRUE)
            return
        mine = target.predicate(lambda parent: parent.selected(self.targets), self.targets)
        self.staging.keep_keys(target, mine)
        theirs = target.predicate(lambda parent: parent.staged(), self.targets)
        self.staging.load(target, SQL("({}) OR {}").format(theirs, self.staging.in_keys(target)))

    def _add_needed(self, only_new: bool) -> None:
        """Stage the rows that staged ones refer to and that nobody has, until nothing is needed or the backup lacks it."""
        lacking: set[ForeignKey] = set()
        while key := self._next_need(lacking, only_new):
            parent = self.targets.get(key.parent) or self._add(Scope(key.parent, "needed"))
            condition = requirement(key, self.targets[key.child], parent, only_new=only_new)
            if self.staging.load(parent, condition):
                lacking.clear()
            if self._count(key, only_new):
                lacking.add(key)

    def _next_need(self, lacking: set[ForeignKey], only_new: bool) -> ForeignKey | None:
        for key in self.session.catalog.foreign_keys:
            child = self.targets.get(key.child)
            asked = key.parent in self.sources and key not in lacking and not key.period
            if child and asked and set(key.child_columns) <= set(child.columns) and self._count(key, only_new):
                return key
        return None

    def _count(self, key: ForeignKey, only_new: bool) -> int:
        query = requiring(key, self.targets[key.child], self.targets.get(key.parent), only_new=only_new)
        with self.session.transaction(read_only=True):
            row = self.session.conn.execute(query).fetchone()
        return int(row[0]) if row else 0

    def _check_key(self, target: Target) -> None:
        """A primary key that is another one than the backup's may not tell the backup's rows apart."""
        if not target.keyed or all(source.primary_key == target.live.key for source in target.sources):
            return
        with self.session.transaction(read_only=True):
            doubled = doubled_keys(self.session.conn, target)
        if doubled:
            raise DbopsError(
                f"{target.name}: its primary key ({', '.join(target.live.key)}) was another one when the backup was taken: "
                f"several rows of the backup have {doubled}",
                hint=f"--mode side loads the rows beside; {UNTOUCHED}",
            )


def gather_backups(
    session: Session, ours: Manifest, theirs: Manifest, store: Store, selection: Selection, tell: Tell
) -> tuple[dict[Name, Target], list[TableDifference], list[str]]:
    """Two backups of the same tables: `ours` staged, `theirs` in the place of the live rows.

    Tables with the same content are not loaded. Returns the targets to compare, the tables that are
    the same, and notes on those that only one backup has.
    """
    staging = Staging(session, store, tell)
    sources = sources_by_name(ours)
    others = {name: table for name, (table,) in sources_by_name(theirs).items()}
    notes, same, targets = list[str](), list[TableDifference](), dict[Name, Target]()
    for scope in scopes(selection, sources, session.catalog, session.settings, live=False):
        other = others.get(scope.table)
        if other is None:
            notes.append(f"{scope.table} is not in {theirs.id}")
        elif scope.kind == "whole" and _content(other) == _content(sources[scope.table][0]):
            same.append(TableDifference(str(scope.table), 0, 0, 0, other.rows))
        elif scope.kind == "part":
            notes.append(f"{scope.table} is not compared: whose its rows are is told by other tables only")
        else:
            target = _pair(session, staging, scope, sources[scope.table], other, len(targets), selection)
            targets[scope.table] = target
    if not selection.tables:
        notes += [f"{name} is not in {ours.id}" for name in sorted(set(others) - set(sources))]
    return targets, same, notes


def _content(table: Table) -> tuple[object, ...]:
    return table.content_hash, table.format, table.rows, table.columns


def _pair(
    session: Session, staging: Staging, scope: Scope, sources: Sequence[Table], other: Table, number: int,
    selection: Selection,
) -> Target:  # fmt: skip
    """One table of two backups. The other's rows lie in the staged table of a number of its own."""
    columns = tuple(LiveColumn(column.name, column.type) for column in streamed(other))
    live = LiveTable(other.name, columns, other.primary_key, ("=",) * len(other.primary_key))
    shared = shared_columns((column.name for column in columns), sources)
    second, tenancy = 2 * number + 2, session.settings.tenancy
    user, where = selection.user or "", selection.where or ""
    theirs = tuple(column.name for column in columns)
    beside = Target(second, live, scope, theirs, (other,), user, tenancy, where)
    target = Target(second - 1, live, scope, shared, tuple(sources), user, tenancy, where, against=second)
    staging.make_beside(beside, other)
    staging.make(target)
    condition: Composable = target.predicate(lambda parent: parent.staged(), {})
    staging.load(beside, condition)
    staging.load(target, condition)
    return target
