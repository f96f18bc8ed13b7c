"""The x-ray of a plan: its statements run on a scratch copy of the target's schema, and what each one did to it.

Each migration runs as it would on the target, by the same executor. The target is only read: its schema by pg_dump,
the sizes of its tables, and how far an interrupted run came.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dbops.config import Settings
from dbops.database import connect
from dbops.embedded import scratch
from dbops.errors import DbopsError
from dbops.lock import RunnerLock
from dbops.migrate.apply import Runner
from dbops.migrate.events import Event, Observer, silent
from dbops.migrate.history import History, StepRecord
from dbops.migrate.parse import Statement, tree_checksum
from dbops.migrate.plan import Act, Plan
from dbops.migrate.trial import Trial, trial
from dbops.migrate.worker import Worker
from dbops.migrate.xray.estimate import Seen, assumptions, estimated, measured
from dbops.migrate.xray.probe import Probe
from dbops.schema_copy import Failed, Size, copy_schema, relation_sizes

_BEYOND = (
    "createdb_stmt", "dropdb_stmt", "create_table_space_stmt", "drop_table_space_stmt", "alter_system_stmt",
    "create_subscription_stmt", "alter_subscription_stmt", "drop_subscription_stmt",
)  # fmt: skip


@dataclass(frozen=True)
class XrayStep:
    """One migration as it ran on the copy. `failed` where a statement did: those after it were not looked at."""

    version: str
    name: str
    direction: str
    transactional: bool
    statements: tuple[Seen, ...]

    @property
    def failed(self) -> bool:
        return any(seen.state == "failed" for seen in self.statements)


@dataclass(frozen=True)
class Xray:
    """What a plan would do. `not_copied` names what the copy lacks: what failed may have failed for that."""

    steps: tuple[XrayStep, ...]
    assumptions: tuple[str, ...] = ()
    server_version: str = ""
    server_kind: str = ""
    not_copied: tuple[Failed, ...] = ()

    @property
    def failed(self) -> tuple[str, ...]:
        """The versions that failed on the copy."""
        return tuple(step.version for step in self.steps if step.failed)


def xray(plan: Plan, source_url: str, settings: Settings, major: int, tell: Observer = silent) -> Xray:
    """Run a plan on a copy of the schema at `source_url`, on a scratch server as near to `major` as can be had.

    Raises Blocked where the target's schema cannot be read for a lock, MissingToolError, EmbeddedServerError,
    UnfitServer behind a pooler, CannotConnect.
    """
    with scratch(major, url=settings.scratch_url) as server, trial(server, settings) as copy:
        tell(Event("xray", detail="copying the target's schema"))
        copied = copy_schema(source_url, copy.url, exclude_tables=(settings.table,))
        copy.roles_made |= {*copied.roles_made}
        sizes = relation_sizes(source_url)
        with connect(source_url, "xray") as conn:
            begun = History(conn, settings.table).steps()
        seen = examine(plan.acts, copy, begun, tell)
        steps = (replace(s, statements=estimated(s.statements, sizes, transactional=s.transactional)) for s in seen)
        notes = assumptions(settings.lock_timeout, settings.lock_tries)
        if server.note:
            notes = (server.note, *notes)
        return Xray(tuple(steps), notes, str(server.major), server.kind, copied.not_copied)


def rehearse(plan: Plan, url: str, settings: Settings, tell: Observer = silent) -> tuple[Xray, dict[str, Size]]:
    """Run a plan in the database at `url`, a copy with the target's rows that is thrown away afterwards.

    Returns what was seen, times measured instead of estimated, and the sizes that the tables had before.
    """
    sizes = relation_sizes(url)
    seen = examine(plan.acts, Trial(url, settings, set()), tell=tell)
    steps = tuple(replace(s, statements=measured(s.statements, sizes, transactional=s.transactional)) for s in seen)
    return Xray(steps, REHEARSED), sizes


REHEARSED = (
    "times are those of the scratch server with the rows of the backup: nobody else works there, and its disk is another",
    "waiting for a lock comes on top",
)


def examine(
    acts: Sequence[Act], copy: Trial, begun: Sequence[StepRecord] = (), tell: Observer = silent
) -> tuple[XrayStep, ...]:
    """Run acts on a copy of the target and look at each statement. `begun` are the steps of interrupted runs.

    What a statement of another migration fails for may be a failure before it: it is run all the same.
    """
    copy.expect(acts)
    url, table = copy.url, copy.settings.table
    with RunnerLock(url, table, wait=copy.settings.wait) as lock, Worker(url, lock, copy.settings) as worker:
        history = History(worker.conn, table)
        history.ensure()
        probe = Probe(worker, url)
        runner = Runner(worker, history, uuid.uuid4(), probe, messages=False)
        return tuple(_step(act, runner, probe, begun, tell) for act in acts)


def _step(act: Act, runner: Runner, probe: Probe, begun: Sequence[StepRecord], tell: Observer) -> XrayStep:
    tell(Event("xray", act.version, act.migration.name, detail=f"{act.direction}, on the copy"))
    left_out = {n: reason for n, s in enumerate(act.program.statements, 1) if (reason := _beyond(s))}
    probe.start(act, left_out)
    if left_out and act.program.transactional:
        statements = _left_out(probe.statements(), left_out)
    else:
        _record_steps(act, runner, left_out, begun)
        try:
            runner.perform(act)
        except DbopsError as error:
            if runner.worker.conn.broken:
                raise
            probe.failed(error)
        statements = probe.statements()
    return XrayStep(act.version, act.migration.name, act.direction, act.program.transactional, statements)


def _beyond(statement: Statement) -> str:
    """Why a statement must not run on a scratch server: it would change the server, reach another one, or files."""
    if statement.kind in _BEYOND:
        return "it reaches beyond the database: other databases, servers or files"
    if statement.kind == "copy_stmt" and statement.node.filename:
        return "it reads or writes a file or program of the server"
    return ""


def _left_out(statements: Sequence[Seen], reasons: Mapping[int, str]) -> tuple[Seen, ...]:
    return tuple(
        replace(seen, state="left out", error=reasons[n]) if n in reasons else seen
        for n, seen in enumerate(statements, 1)
    )


def _record_steps(act: Act, runner: Runner, left_out: Mapping[int, str], begun: Sequence[StepRecord]) -> None:
    """Tell the executor which steps not to run: those that an earlier run did on the target, and those left out."""
    known = {s.step: s for s in begun if (s.version, s.direction) == (act.version, act.direction)}
    for step in act.program.steps if left_out or known else ():
        earlier = known.get(step.number)
        if step.number in left_out:
            row = runner.started(act, step, tree_checksum([step.statement]), state="done")
        elif earlier:
            before, state, marker = earlier.before, earlier.state, earlier.marker
            row = runner.started(act, step, earlier.checksum, state=state, marker=marker, before=before)
        else:
            continue
        runner.worker.conn.execute(row)
