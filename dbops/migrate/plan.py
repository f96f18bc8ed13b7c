"""Plans: pure functions from (files, history) to what stands, what would be applied, what would be reversed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from dbops.errors import HistoryMismatch, Irreversible, MigrationFileError, UsageError
from dbops.migrate.files import Migration, Script, version_order
from dbops.migrate.history import Record, Scripts, StepRecord
from dbops.migrate.kinds import Program, program


@dataclass(frozen=True)
class Waiting:
    """A migration that needs an extension which cannot be had."""

    version: str
    reason: str


@dataclass(frozen=True)
class Partial:
    """A migration of which some steps have been run."""

    version: str
    direction: str
    done: int
    steps: int


@dataclass(frozen=True)
class Status:
    """How files and history stand to each other. `reformatted`: edited without another meaning (a warning)."""

    applied: tuple[Record, ...] = ()
    pending: tuple[Migration, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    changed: tuple[str, ...] = ()
    reformatted: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    out_of_order: tuple[str, ...] = ()
    partial: tuple[Partial, ...] = ()


@dataclass(frozen=True)
class Act:
    """One migration in one direction, with its script parsed."""

    migration: Migration
    direction: str
    program: Program

    @property
    def version(self) -> str:
        return self.migration.version


@dataclass(frozen=True)
class Plan:
    """What a run would do, in order. Acting takes nothing else."""

    command: str
    acts: tuple[Act, ...]
    waiting: tuple[Waiting, ...] = ()

    @property
    def versions(self) -> tuple[str, ...]:
        return tuple(act.version for act in self.acts)

    def __str__(self) -> str:
        lines = [line for act in self.acts for line in _describe(act)]
        lines += [f"{waiting.version} waits: {waiting.reason}" for waiting in self.waiting]
        return "\n".join(lines) or "nothing to do"


def _describe(act: Act) -> Iterable[str]:
    how = "in one transaction" if act.program.transactional else f"step by step ({act.program.reason})"
    count = len(act.program.statements)
    yield f"{act.direction} {act.version} {act.migration.name}: {count} statement{'s' * (count != 1)}, {how}"
    for statement in act.program.statements:
        first, *rest = statement.sql.splitlines()
        yield f"  {statement.line:>4}  {first.rstrip()[:100]}{' …' if rest or len(first) > 100 else ''}"


def status(
    migrations: Sequence[Migration],
    records: Sequence[Record],
    *,
    extensions: Callable[[Collection[str]], Collection[str]] = lambda _: (),
    tree: Callable[[Migration], str] | None = None,
    steps: Sequence[StepRecord] = (),
) -> Status:
    """Compare files with history.

    `extensions` is given the names that files require and answers with those that are installed or can be created.
    `tree` gives a migration's tree checksum; it is asked only where the text differs.
    """
    files = {migration.version: migration for migration in migrations}
    by_version = {record.version: record for record in records}
    order = {record.version: version_order(record.version) for record in records}
    pending = [migration for migration in migrations if migration.version not in by_version]
    edited = [v for v, r in by_version.items() if v in files and r.checksum and files[v].checksum != r.checksum]
    changed = [v for v in edited if (tree or _tree)(files[v]) != by_version[v].tree_checksum]
    waiting = _waiting(pending, extensions)
    newest = max((order[r.version] for r in records), default=())
    return Status(
        applied=tuple(sorted(records, key=lambda record: order[record.version])),
        pending=tuple(m for m in pending if m.version not in {w.version for w in waiting}),
        waiting=waiting,
        changed=_sorted(changed),
        reformatted=_sorted(set(edited) - set(changed)),
        missing=_sorted(v for v in by_version if v not in files),
        # one that waited for its extension may come late
        out_of_order=_sorted(m.version for m in pending if m.order < newest and not m.requires),
        partial=_partial(steps),
    )


def _tree(migration: Migration) -> str:
    from dbops.migrate.parse import tree_checksum

    try:
        return tree_checksum(program(migration.up).statements)
    except MigrationFileError:
        return ""  # no SQL any more: edited, whatever was meant


def _sorted(versions: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(versions, key=version_order))


def _waiting(
    pending: Sequence[Migration], extensions: Callable[[Collection[str]], Collection[str]]
) -> tuple[Waiting, ...]:
    needed = {name for migration in pending for name in migration.requires}
    known = set(extensions(needed)) if needed else set()
    return tuple(
        Waiting(migration.version, f"extension {name} is not on this server, or this role may not create it")
        for migration in pending
        for name in [next((n for n in migration.requires if n not in known), "")]
        if name
    )


def _partial(steps: Sequence[StepRecord]) -> tuple[Partial, ...]:
    found: dict[tuple[str, str], Partial] = {}
    for step in steps:
        key = (step.version, step.direction)
        before = found.get(key, Partial(*key, 0, step.steps))
        found[key] = replace(before, done=before.done + (step.state == "done"))
    return tuple(found.values())


def plan_up(now: Status, *, to: str | None = None, count: int | None = None, allow_out_of_order: bool = False) -> Plan:
    """What `up` would apply. Raises HistoryMismatch (exit 12) where files and history disagree, UsageError for a bad `to`.

    Every pending file is parsed before anything runs: a syntax error in the last one stops the first.
    """
    refuse_mismatch(now, allow_out_of_order)
    pending = list(now.pending)
    if to is not None:
        require_known(
            to, [m.version for m in pending] + [r.version for r in now.applied] + [w.version for w in now.waiting]
        )
        pending = [migration for migration in pending if migration.order <= version_order(to)]
    if count is not None:
        pending = pending[:count]
    plan = Plan("up", tuple(Act(m, "up", program(m.up)) for m in pending), now.waiting)
    _refuse_rerun(plan, now)
    return plan


def _refuse_rerun(plan: Plan, now: Status) -> None:
    """Steps that an earlier run did would be done again, were the file run in one transaction now."""
    begun = {part.version for part in now.partial}
    for act in plan.acts:
        if act.version in begun and act.program.transactional:
            raise HistoryMismatch(
                f"{act.version} was begun step by step and would now run in one transaction: its file was edited",
                hint="put it back; or take back by hand what its steps did and `dbops migrate repair "
                f"--forget-steps {act.version}`. Nothing was applied",
            )


def refuse_mismatch(now: Status, allow_out_of_order: bool = False) -> None:
    """Raise HistoryMismatch where an applied file was edited in meaning or a pending one comes before an applied one."""
    half = [part for part in now.partial if part.direction == "down"]
    if half:
        raise HistoryMismatch(
            f"reversed half-way: {', '.join(part.version for part in half)}",
            hint="`dbops migrate down VERSION` finishes it, `dbops migrate repair --forget-steps VERSION` gives it up. "
            "Nothing was applied",
        )
    if now.changed:
        raise HistoryMismatch(
            f"edited after it was applied: {', '.join(now.changed)}",
            hint="see `dbops migrate status --diff`; put the file back and write a new migration, or accept the edit with "
            "`dbops migrate repair`. Nothing was applied",
        )
    if now.out_of_order and not allow_out_of_order:
        raise HistoryMismatch(
            f"out of order: {', '.join(now.out_of_order)}, older than {now.applied[-1].version}, "
            "which is applied (a merged branch?)",
            hint="--allow-out-of-order applies them as they are; or rename the files. Nothing was applied",
        )


def require_known(version: str, versions: Collection[str]) -> None:
    """Raise UsageError for a version that is not among these."""
    if version not in versions:
        raise UsageError(
            f"there is no migration {version}", hint=f"versions: {', '.join(_sorted(versions)[-5:]) or 'none'}"
        )


def choose_down(
    now: Status, *, version: str | None = None, to: str | None = None, count: int | None = None
) -> tuple[Record, ...]:
    """The applied migrations that `down` would reverse, newest first: one by default.

    Raises UsageError for a version that is not applied.
    """
    newest_first = tuple(reversed(now.applied))
    if version is not None:
        require_known(version, [record.version for record in now.applied])
        return tuple(record for record in newest_first if record.version == version)
    if to is not None:
        if to != "0":
            require_known(to, [record.version for record in now.applied])
        return tuple(record for record in newest_first if record.order > version_order(to))
    return newest_first[: 1 if count is None else count]


def require_redoable(now: Status, migrations: Sequence[Migration], count: int) -> None:
    """Raise before anything is reversed what would stop the newest `count` migrations from being applied again.

    HistoryMismatch for a file that is missing and for another one that was edited, MigrationFileError for a bad one.
    """
    chosen = {record.version for record in choose_down(now, count=count)}
    lost = [version for version in now.missing if version in chosen]
    if lost:
        raise HistoryMismatch(
            f"the file is missing, so it could not be applied again: {', '.join(lost)}",
            hint="put the file back, or reverse it for good with `dbops migrate down`; nothing was reversed",
        )
    # an edit of one of them is what redo is for
    refuse_mismatch(replace(now, changed=tuple(v for v in now.changed if v not in chosen)), allow_out_of_order=True)
    for migration in migrations:
        if migration.version in chosen:
            program(migration.up)


def require_expected(plan: Plan, expected: Sequence[str] | None) -> None:
    """Raise HistoryMismatch where a plan made under the lock is not the one that was confirmed."""
    if expected is not None and tuple(expected) != plan.versions:
        raise HistoryMismatch(
            f"the history has changed since it was shown: now this would reverse {', '.join(plan.versions) or 'nothing'}",
            hint="another runner was at work; look at `dbops migrate status` and run the command again. Nothing was done",
        )


def plan_down(
    records: Sequence[Record], files: Mapping[str, Migration], scripts: Callable[[str], Scripts | None]
) -> Plan:
    """What `down` would run for these records. Raises Irreversible, naming each migration that has no way back.

    The down part of the file counts while its up part is what was applied; else the one that was recorded.
    """
    acts, stuck = [], []
    for record in records:
        migration = _as_applied(record, files.get(record.version), scripts)
        if migration.down is None:
            reason = "a baseline" if record.kind == "baseline" else "it has no down part"
            stuck.append(f"{record.version} {record.name}: {reason}")
        else:
            acts.append(Act(migration, "down", program(migration.down)))
    if stuck:
        raise Irreversible(
            "irreversible: " + "; ".join(stuck),
            hint="`dbops migrate reverse VERSION` writes a down part from the up part; nothing was reversed",
        )
    return Plan("down", tuple(acts))


def _as_applied(record: Record, file: Migration | None, scripts: Callable[[str], Scripts | None]) -> Migration:
    from pathlib import Path

    if file is not None and file.checksum == record.checksum and file.down is not None:
        return file
    stored = scripts(record.version)
    path = file.path if file else Path(f"{record.version}_{record.name} (as recorded)")
    if stored is None or (stored.down is None and file is None):
        return Migration(record.version, record.name, path, Script("", path))
    down = Script(stored.down, path, 1, stored.down_transaction) if stored.down else (file.down if file else None)
    return Migration(record.version, record.name, path, Script(stored.up, path), down, (), stored.loses)
