"""Plan, then act: the rows are staged and compared, the plan is shown, and one transaction writes all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from psycopg.sql import SQL, Identifier

from dbops.backup.merge import record
from dbops.backup.merge.catalog import ForeignKey, LiveTable, sequences_of
from dbops.backup.merge.compare import (
    OLD,
    Counted,
    Targets,
    difference,
    fill_delta,
    unforeseen,
    unmet,
)
from dbops.backup.merge.gather import Gathering, gather_backups
from dbops.backup.merge.locking import locked, may_be_replica, quiet, runner_lock
from dbops.backup.merge.model import ACTS, Difference, Merged, MergedTable, Mode, Selection, TableDifference, Tell, What
from dbops.backup.merge.plan import Plan, check_mode, table_problems
from dbops.backup.merge.record import Entry, SavedTable
from dbops.backup.merge.session import Session, opened
from dbops.backup.merge.target import Target
from dbops.backup.merge.writing import (
    ROLLED_BACK,
    advance_sequence,
    check_references,
    in_words,
    keep_before,
    save,
    write_as_owner,
    write_as_replica,
)
from dbops.backup.model import Manifest, Name
from dbops.backup.source import identity
from dbops.backup.store import Store
from dbops.config import Settings
from dbops.database import parameters, place_of
from dbops.errors import DbopsError, DifferenceFound, UsageError

AGAIN = "nothing was written; look at the plan again"


@dataclass
class Prepared:
    """A plan and the staged rows that it was made of; good as long as its session is open, for one `merge`."""

    plan: Plan
    session: Session = field(repr=False)
    manifest: Manifest = field(repr=False)
    store: str = field(repr=False)
    targets: tuple[Target, ...] = field(repr=False)
    tell: Tell = field(repr=False)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    side: Callable[[], Merged] | None = field(default=None, repr=False)


def diff(
    manifest: Manifest, store: Store, url: str, settings: Settings, *, tables: Sequence[str] | None = None,
    user: str | None = None, where: str | None = None, against: Manifest | None = None,
    tell: Tell = lambda _: None,
) -> Difference:  # fmt: skip
    """What the backup and the live database (or the backup `against`) have that the other has not; changes nothing.

    `tables` are names (`notes`, `app.notes`), `user` a value of the tenancy column, `where` an expression on one table.
    Raises UsageError for what is not there, BackupDamaged, NotAllowed, UnfitServer.
    """
    selection = Selection(tuple(tables or ()), user, where)

    def by_name(table: TableDifference) -> str:
        return table.table

    with opened(url, settings, "backup diff") as session:
        if against is not None:
            targets, same, notes = gather_backups(session, manifest, against, store, selection, tell)
            found = _compare(session, targets, tuple(targets.values()), "replace", moving=True)
            return Difference(manifest.id, against.id, tuple(sorted((*same, *found.tables), key=by_name)), tuple(notes))
        gathering = Gathering(session, manifest, store, selection, tell)
        gathering.gather(only_new=False)
        found = _compare(session, gathering.targets, gathering.ordered, "replace", moving=True)
        return Difference(manifest.id, _place(url), found.tables, (*_of_another(manifest, url), *gathering.notes))


def _of_another(manifest: Manifest, url: str) -> tuple[str, ...]:
    """A word where the backup is of another database: a clone of it, or the wrong one altogether."""
    if (manifest.database, manifest.system_identifier) == identity(url):
        return ()
    return (
        f"{manifest.id} is of database {manifest.database} of cluster {manifest.system_identifier}, not of this one",
    )


@contextmanager
def plan_merge(
    manifest: Manifest, store: Store, url: str, settings: Settings, *, mode: Mode, tables: Sequence[str] | None = None,
    user: str | None = None, where: str | None = None, cascade: bool = False, tell: Tell = lambda _: None,
) -> Iterator[Prepared]:  # fmt: skip
    """The plan of a merge, to be shown before `merge` acts on it while this is open. Writes no live row.

    `cascade` takes in the tables whose rows refer to the selected ones. `plan.problems` tell why it cannot be merged.
    Raises as `diff` does.
    """
    check_mode(mode)
    selection = Selection(tuple(tables or ()), user, where, cascade)
    with opened(url, settings, f"restore {mode}") as session:
        if mode == "side":
            from dbops.backup.merge.side import prepare_side

            yield prepare_side(session, manifest, store, selection, _place(url), tell)
            return
        gathering = Gathering(session, manifest, store, selection, tell)
        gathering.gather(only_new=mode == "missing")
        ordered = gathering.ordered
        found = _compare(session, gathering.targets, ordered, mode)
        problems = [
            problem
            for target, table in zip(ordered, found.tables, strict=True)
            for problem in table_problems(target, table, mode)
        ]
        if mode == "replace":
            problems += [
                f"{name} was left out of this backup: its rows would be deleted" for name in gathering.not_there
            ]
        plan = Plan(
            manifest.id, _place(url), mode, str(selection), found.tables, found.digest,
            tuple(dict.fromkeys(problems + found.unmet)), (*_of_another(manifest, url), *gathering.notes),
        )  # fmt: skip
        yield Prepared(plan, session, manifest, store.place, ordered, tell)


def merge(prepared: Prepared) -> Merged:
    """Do what the plan says, in one transaction. The rows that it overwrites or deletes are saved for `undo`.

    Raises DifferenceFound where the live rows have changed since the plan, Blocked where they cannot be locked,
    UsageError with the plan's problems; then nothing was written.
    """
    plan, session = prepared.plan, prepared.session
    if plan.problems:
        raise UsageError("; ".join(plan.problems), hint="nothing was written")
    if prepared.side:
        return prepared.side()
    if not plan.writes:
        return Merged("", plan.mode, tuple(_merged(table, 0) for table in plan.tables))
    targets = {target.name: target for target in prepared.targets}

    def found() -> dict[Name, Counted]:
        now = _compare(session, targets, prepared.targets, plan.mode, samples=False)
        if now.digest != plan.digest or now.unmet:
            raise DifferenceFound("the live rows have changed since the plan was made", hint=AGAIN)
        return now.counted

    entry = Entry(
        record.new_run(), "merge", plan.backup, prepared.store, plan.mode, plan.selection, prepared.started_at
    )
    saved = write(
        session,
        targets,
        plan.acts,
        found,
        entry,
        prepared.tell,
        lambda: prove(session, targets, plan.acts),
        prepared.manifest,
    )
    return Merged(entry.run, plan.mode, tuple(table.merged for table in saved))


def write(
    session: Session, targets: Targets, acts: Collection[What], found: Callable[[], dict[Name, Counted]], entry: Entry,
    tell: Tell, proven: Callable[[], None], manifest: Manifest | None = None,
) -> tuple[SavedTable, ...]:  # fmt: skip
    """The one transaction that writes, of a merge and of an undo. `found` fills the delta under the lock or refuses,
    `proven` looks at the result before the commit."""
    replica = may_be_replica(session) and not any(target.live.deferrable for target in targets.values())
    replica = replica and not any(key.period for key in _touching(session, targets))
    with runner_lock(session, tell) as lock, locked(session, _to_lock(session, targets, acts, replica), lock, tell):
        conn = session.conn
        if session.altered(list(targets)):
            raise DifferenceFound("the tables have been altered since the plan was made", hint=AGAIN)
        counted = found()
        with quiet(session, list(targets.values()), replica=replica):
            keep_before(conn, targets, acts)
            tell("writing")
            with in_words():
                (write_as_replica if replica else write_as_owner)(conn, targets, acts)
        tell("written")
        if replica:
            check_references(conn, session.catalog, targets, acts)
        record.ensure(conn)
        saved = tuple(_saved_table(target, counted[target.name], acts) for target in targets.values())
        record.write(conn, entry, saved)
        for target in targets.values():
            save(conn, target, entry.run, acts)
        tell("saved")
        proven()
        _advance(session, targets, manifest)
    return saved


def _touching(session: Session, targets: Targets) -> list[ForeignKey]:
    return [key for key in session.catalog.foreign_keys if key.child in targets or key.parent in targets]


def _to_lock(session: Session, targets: Targets, acts: Collection[What], replica: bool) -> list[LiveTable]:
    """The tables that are written, and those into which foreign keys could cascade from them."""
    tables = {name: target.live for name, target in targets.items()}
    if not replica and OLD & set(acts):
        keys = session.catalog.foreign_keys
        tables |= {key.child: session.catalog.tables[key.child] for key in keys if key.parent in targets}
    return list(tables.values())


def _saved_table(target: Target, counted: Counted, acts: Collection[What]) -> SavedTable:
    counts = {"missing": counted.missing, "changed": counted.changed, "extra": counted.extra}
    written = sum(count for what, count in counts.items() if what in acts)
    return SavedTable(
        target.name.schema, target.name.name, target.written, target.columns, target.keyed, **counts, written=written
    )


def prove(session: Session, targets: Targets, acts: Collection[What]) -> None:
    """Compare once more before the commit: what was to be done away with is gone."""
    conn = session.conn
    for target in targets.values():
        conn.execute(SQL("DELETE FROM {}").format(target.temporary("delta")))
    with conn.transaction():
        conn.execute("SET TRANSACTION READ ONLY")
        for target in targets.values():
            left = fill_delta(conn, target, targets, acts)
            counts = {what: getattr(left, what) for what in acts if getattr(left, what)}
            if counts:
                told = ", ".join(f"{count:,} {what}" for what, count in counts.items())
                raise DbopsError(
                    f"{target.name}: after writing there were still rows that differ ({told})",
                    hint=f"{ROLLED_BACK}; a cascade or an identity column that this role cannot write stands in the way: "
                    "restore as a superuser",
                )


def _advance(session: Session, targets: Targets, manifest: Manifest | None) -> None:
    if manifest is None:
        return
    steps = sequences_of(session.conn, [target.live for target in targets.values()])
    for sequence in manifest.sequences:
        if sequence.name in steps:
            name = Identifier(sequence.name.schema, sequence.name.name)
            advance_sequence(session.conn, name, steps[sequence.name], (sequence.last_value, sequence.is_called))


@dataclass(frozen=True)
class _Found:
    tables: tuple[TableDifference, ...]
    counted: dict[Name, Counted]
    unmet: list[str]
    digest: str


def _compare(
    session: Session, targets: Targets, ordered: Sequence[Target], mode: Mode, *, samples: bool = True,
    moving: bool = False,
) -> _Found:  # fmt: skip
    """Fill the deltas in a read-only transaction (or a part of one), and count what they say.

    `moving`: nothing will be deleted, and rows that came while the backup's were loaded are extra ones like others.
    """
    conn = session.conn
    with session.transaction(read_only=True):
        counted = {target.name: fill_delta(conn, target, targets, ACTS[mode]) for target in ordered}
        if not moving and "extra" in ACTS[mode] and any(unforeseen(conn, target) for target in ordered):
            raise DifferenceFound("live rows have changed while the backup's were loaded", hint="run it again")
        tables = tuple(difference(conn, target, targets, counted[target.name]) for target in ordered if samples)
        problems = unmet(conn, session.catalog, targets, ACTS[mode])
    digest = "\n".join(f"{name}: {counts.digest}" for name, counts in counted.items())
    return _Found(tables, counted, problems, digest)


def _merged(table: TableDifference, written: int) -> MergedTable:
    return MergedTable(table.table, table.missing, table.changed, table.extra, written)


def _place(url: str) -> str:
    return place_of(parameters(url))
