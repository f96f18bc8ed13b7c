"""History kept honest: drift, edited files, databases that exist already."""

from __future__ import annotations

import difflib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dbops.errors import UsageError
from dbops.fingerprint import SchemaText, compare
from dbops.migrate.files import Migration
from dbops.migrate.history import History, Record, content_of
from dbops.migrate.kinds import program
from dbops.migrate.parse import tree_checksum
from dbops.migrate.plan import Status, require_known
from dbops.migrate.worker import Worker


@dataclass(frozen=True)
class Drift:
    """How the schema differs from what the last run left. `comparable` is False where nothing can be said, and `reason` why."""

    text: str
    comparable: bool
    since: datetime | None
    reason: str = ""


def drift(recorded: tuple[datetime, SchemaText] | None, now: SchemaText) -> Drift:
    """Compare the recorded schema with today's."""
    if recorded is None:
        return Drift(
            "", False, None, "no run has recorded the schema's text (no run yet, no pg_dump, or a pooler stood between)"
        )
    since, text = recorded
    if not text.comparable_with(now):
        reason = f"cannot compare: recorded by pg_dump {text.pg_dump_version}, now it is {now.pg_dump_version}"
        return Drift("", False, since, reason)
    difference = compare(text, now)
    return Drift("" if difference.equal else difference.text, True, since)


def edit_diff(migration: Migration, applied_up: str) -> str:
    """What was edited in an applied file, as a unified diff."""
    lines = difflib.unified_diff(
        applied_up.strip().splitlines(),
        migration.up.sql.strip().splitlines(),
        f"{migration.version} as applied",
        str(migration.path.name),
        lineterm="",
    )
    return "\n".join(lines)


def edited(now: Status, files: Sequence[Migration], versions: Sequence[str]) -> tuple[Migration, ...]:
    """The edited files that `repair` would accept: all of them, or those named. Raises UsageError for one that was not edited."""
    candidates = {*now.changed, *now.reformatted}
    for version in versions:
        require_known(version, {record.version for record in now.applied})
        if version not in candidates:
            raise UsageError(f"{version} was not edited since it was applied", hint="nothing was changed")
    wanted = set(versions) or candidates
    return tuple(migration for migration in files if migration.version in wanted)


def accept(worker: Worker, history: History, migrations: Sequence[Migration]) -> None:
    """Record the files as they are now; one transaction."""
    with worker.conn.transaction():
        worker.guarded("")
        for migration in migrations:
            down = migration.down
            values = content_of(migration, tree_checksum(program(migration.up).statements))
            values["down_transaction"] = down.transaction if down else True
            worker.conn.execute(history.query("update_record", **values))


def settle_step(worker: Worker, history: History, version: str, *, done: bool) -> int:
    """Say of the step of `version` that a killed run began whether it was done; its number.

    Raises UsageError where there is none.
    """
    begun = next((s for s in history.steps() if s.version == version and s.state == "started"), None)
    if begun is None:
        raise UsageError(
            f"no step of {version} stands as begun", hint="see `dbops migrate status`; nothing was changed"
        )
    name = "step_done" if done else "step_forgotten"
    values = {"record_table": history.table, "version": version, "direction": begun.direction, "step": begun.step}
    worker.guarded(history.query(name, **values).as_string())
    return begun.step


def forget_steps(worker: Worker, history: History, version: str) -> int:
    """Forget the steps of a migration that stopped half-way; their number. Raises UsageError where there are none."""
    steps = [step for step in history.steps() if step.version == version]
    if not steps:
        raise UsageError(f"no steps of {version} are recorded", hint="see `dbops migrate status`; nothing was changed")
    values = {"record_table": history.table, "version": version}
    for direction in sorted({step.direction for step in steps}):
        worker.guarded(history.query("steps_forgotten", direction=direction, **values).as_string())
    return len(steps)


def plan_baseline(files: Sequence[Migration], records: Sequence[Record], version: str) -> tuple[Migration, ...]:
    """The migrations that a baseline at `version` records without running them. Raises UsageError where a history exists."""
    require_known(version, [migration.version for migration in files])
    if records:
        raise UsageError(
            f"{len(records)} migrations are recorded already: a baseline is for a database without a history",
            hint="`dbops migrate status` shows them; nothing was changed",
        )
    newest = next(migration for migration in files if migration.version == version)
    return tuple(migration for migration in files if migration.order <= newest.order)


def record_without_running(
    worker: Worker, history: History, migrations: Sequence[Migration], kind: str, run: uuid.UUID
) -> None:
    """Write records of a kind for migrations that the database has already; one transaction."""
    with worker.conn.transaction():
        worker.guarded("")
        for migration in migrations:
            if not migration.up.sql.strip():
                worker.conn.execute(history.query("insert_record", **unknown(migration, kind, run)))
                continue
            worker.conn.execute(history.insertion(migration, program(migration.up), run, 0.0, kind))


def unknown(migration: Migration, kind: str, run: uuid.UUID) -> dict[str, object]:
    """The columns of a record whose SQL nobody has: no checksum, so that no edit is claimed later."""
    from dbops import __version__
    from dbops.migrate.history import host

    values = content_of(migration, "") | {"checksum": "", "down_transaction": True}
    return values | {
        "duration_ms": 0.0,
        "applied_from": host(),
        "dbops_version": __version__,
        "kind": kind,
        "run": str(run),
    }
