"""Apply a plan: under the runner lock, in one transaction that proves itself before it commits."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from dbops.config import Settings
from dbops.database import (
    connect,
    endless,
    local_settings,
    parameters,
    place_of,
    primary_of,
    redact,
    translated,
)
from dbops.errors import Blocked, DbopsError, HistoryMismatch, LockLost, NotAllowed, StatementFailed
from dbops.lock import RunnerLock
from dbops.policy.catalog import RECORD, on_record, read_catalog, rows
from dbops.policy.compile import compile_definitions
from dbops.policy.model import HELPERS, Definitions, Name, Verbatim
from dbops.policy.plan import Plan, Statement, Unmanaged, make_plan
from dbops.policy.printed import Printed, print_wanted
from dbops.policy.recursion import refuse_recursion
from dbops.policy.state import Catalog, Policy, Wanted

if TYPE_CHECKING:
    from dbops.database import Connection

# called with a sentence while it waits or tries again
Tell = Callable[[str], None]
Compile = Callable[[Catalog], Wanted]


@dataclass(frozen=True)
class Applied:
    """What was done, in order; the duration is in ms."""

    statements: tuple[Statement, ...]
    duration_ms: float
    unmanaged: tuple[Unmanaged, ...]


@dataclass(frozen=True)
class Planned:
    """A plan, and what it was made from."""

    plan: Plan
    wanted: Wanted
    catalog: Catalog
    printed: Printed
    verbatim: tuple[Verbatim, ...] = ()


def silent(_: str) -> None:
    pass


class Applier:
    """Definitions for one database. `compiled` makes the wanted state of a catalog (default: `compile_definitions`)."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        definitions: Definitions,
        *,
        prune: bool = False,
        compiled: Compile | None = None,
    ) -> None:
        self.url, self.settings, self.definitions, self.prune = url, settings, definitions, prune
        self.compiled = compiled or (lambda catalog: compile_definitions(definitions, catalog))
        self.target = place_of(parameters(url))

    def plan(self) -> Planned:
        """The plan as of now; nothing is changed. Raises DefinitionError, NotAllowed, Blocked, UnfitServer."""
        with connect(self.url, "policy plan") as conn, translated():
            conn.read_only = False  # temporary tables are made, and rolled back
            major = primary_of(conn).major
            with conn.transaction(force_rollback=True):
                self._begin(conn, major)
                return self._plan(conn)

    def _begin(self, conn: Connection, major: int) -> None:
        """Settings of the transaction, whatever the role's defaults are; none of the session, for poolers."""
        values = endless(major) | {
            "row_security": "off",
            "lock_timeout": f"{int(self.settings.lock_timeout * 1000)}ms",
            "statement_timeout": f"{int(self.settings.statement_timeout * 1000)}ms",
        }
        conn.execute(local_settings(values).encode())
        if self.settings.search_path:
            rows(conn, "policy_set_path", path=self.settings.search_path)

    def _plan(self, conn: Connection) -> Planned:
        catalog = read_catalog(conn)
        wanted = self.compiled(catalog)
        printed = print_wanted(conn, wanted, catalog)
        refuse_recursion(wanted, catalog, printed)
        plan = make_plan(
            wanted, catalog, printed, verbatim=self.definitions.verbatim, schemas=self.settings.schemas,
            prune=self.prune, target=self.target,
        )  # fmt: skip
        return Planned(plan, wanted, catalog, printed, self.definitions.verbatim)

    def apply(self, expected: Plan | None = None, tell: Tell = silent) -> Applied:
        """Make the plan again under the runner lock and carry it out in one transaction.

        `expected` is the plan that was confirmed. Raises HistoryMismatch where another one would be applied by now,
        NotAllowed, Blocked naming who blocks, StatementFailed, LockHeld, LockLost; nothing is changed then.
        """
        began = time.monotonic()
        lock = RunnerLock(
            self.url, self.settings.table, wait=self.settings.wait,
            on_wait=lambda holder: tell(f"waiting for {holder or 'another runner'}"),
        )  # fmt: skip
        with lock, connect(self.url, "policy apply") as conn, translated():
            conn.isolation_level, conn.read_only = psycopg.IsolationLevel.READ_COMMITTED, False
            primary_of(conn)
            plan = self._with_retries(lambda: self._attempt(conn, lock, expected), tell)
        return Applied(plan.statements, (time.monotonic() - began) * 1000, plan.unmanaged)

    def _with_retries(self, attempt: Callable[[], Plan], tell: Tell) -> Plan:
        """Give up after lock_tries; between tries nothing is held and nothing queues behind us."""
        for number in range(1, self.settings.lock_tries + 1):
            try:
                return attempt()
            except Blocked as error:
                if number == self.settings.lock_tries:
                    raise
                pause = random.uniform(0.5, 1.5) * min(0.1 * 2**number, 5.0)
                tell(f"{error.message}; trying again in {pause:.1f} s ({number} of {self.settings.lock_tries})")
                time.sleep(pause)
        raise AssertionError("lock_tries is at least 1")

    def _attempt(self, conn: Connection, lock: RunnerLock, expected: Plan | None) -> Plan:
        try:
            with conn.transaction():
                self._begin(conn, lock.server.major)
                _guarded(conn, lock)
                planned = self._plan(conn)
                _require_expected(planned.plan, expected)
                require_rights(planned)
                if not planned.plan.statements:
                    return planned.plan
                # a file may have made a policy its own
                return replace(planned.plan, unmanaged=self._run(conn, lock, planned).unmanaged)
        except _Waited as error:
            raise _blocked(conn, error) from error

    def _run(self, conn: Connection, lock: RunnerLock, planned: Planned) -> Plan:
        made: dict[str, frozenset[tuple[Name, str]]] = {}
        for statement in planned.plan.statements:
            if statement.file:
                made[statement.file] = self._run_file(conn, lock, statement)
            else:
                _execute(conn, lock, statement, statement.sql)
        if made:
            self._record(conn, made)
        left = self._plan(conn).plan
        if left.statements:
            raise DbopsError(
                "the plan did not bring about what is wanted; left to do:\n" + "\n".join(left.sql),
                hint="all of it was rolled back. A privilege that somebody else granted is his to revoke; "
                "a file of policies/*.sql may undo what a definition asks",
            )
        _guarded(conn, lock)
        return left

    def _run_file(self, conn: Connection, lock: RunnerLock, statement: Statement) -> frozenset[tuple[Name, str]]:
        """Run a whole file; the policies that it made or changed."""
        before = set(rows(conn, "policy_versions"))
        who, path = rows(conn, "policy_session")[0]
        # in EXECUTE a COMMIT is an error: sent as it is, it would end our transaction
        body = sql.SQL("begin execute {}; end").format(sql.Literal(statement.sql)).as_string()
        _execute(conn, lock, statement, sql.SQL("do {}").format(sql.Literal(body)).as_string())
        if rows(conn, "policy_session")[0][0] != who:
            raise StatementFailed(
                f"{statement.file}: it leaves another role set", hint="RESET ROLE at its end; rolled back"
            )
        rows(conn, "policy_set_path", path=path)
        conn.execute("set local row_security = off")
        after = set(rows(conn, "policy_versions"))
        kept = {(p.table, p.name) for p in read_catalog(conn).recorded.get(statement.file, ())}
        return frozenset({(Name(row[0], row[1]), row[2]) for row in after - before} | kept)

    def _record(self, conn: Connection, made: dict[str, frozenset[tuple[Name, str]]]) -> None:
        """What the files made, as it stands when all of them have run."""
        ensure_record(conn)
        now = {(p.table, p.name): p for p in read_catalog(conn).policies}
        checksums = {file.path.name: file.checksum for file in self.definitions.verbatim}
        for name, keys in made.items():
            policies = [_plain(now[key]) for key in sorted(keys) if key in now]
            row = {"path": name, "checksum": checksums[name], "policies": policies}
            conn.execute(on_record("policy_forget_file"), {"path": name})
            conn.execute(on_record("policy_add_file"), {"row": Jsonb(row)})


def _plain(policy: Policy) -> dict[str, object]:
    return asdict(policy) | {"schema": policy.table.schema, "table": policy.table.name}


def ensure_record(conn: Connection) -> None:
    """Make `dbops.policy_files` where it is missing, closed to everybody else: default privileges may say otherwise."""
    conn.execute("create schema if not exists dbops")
    conn.execute("revoke all on schema dbops from public")
    conn.execute(on_record("policy_create_files"))
    table = sql.Identifier(*RECORD)
    conn.execute(sql.SQL("alter table {} enable row level security").format(table))
    for (role,) in rows(conn, "policy_record_grantees", table=RECORD[1]):
        grantee = sql.SQL("public") if role == "public" else sql.Identifier(role)
        conn.execute(sql.SQL("revoke all on {} from {}").format(table, grantee))


def _require_expected(plan: Plan, expected: Plan | None) -> None:
    if expected is not None and plan.sql != expected.sql:
        raise HistoryMismatch(
            f"{plan.target} or the definitions have changed since the plan was confirmed: "
            f"{len(plan.statements)} statements instead of {len(expected.statements)}, or others",
            hint="nothing was applied; look at `dbops policy plan` again",
        )


def require_rights(planned: Planned) -> None:
    """Raise NotAllowed, naming what and its owner, where the role may not do what the plan says."""
    catalog, plan = planned.catalog, planned.plan
    me = catalog.roles[catalog.user]
    if me.superuser:
        return
    for name in dict.fromkeys(table for statement in plan.statements for table in statement.tables):
        owner = (catalog.tables.get(name) or catalog.views[name]).owner
        if owner != me.name and owner not in me.member_of:
            raise NotAllowed(
                f"{name} is owned by {owner}: role {me.name} may not change its policies",
                hint=f'connect as {owner}, or GRANT "{owner}" TO "{me.name}"; nothing was applied',
            )
    _require_bypass(planned)


def _require_bypass(planned: Planned) -> None:
    """A helper reads the members' table with its owner's rights: subject to row level security it would see nobody."""
    owners = {(f.name.name, f.arguments): f.owner for f in planned.catalog.functions if f.name.schema == HELPERS}
    for key, text in planned.printed.helpers.items():
        role = planned.catalog.roles[owners.get(key, planned.catalog.user)]
        if " SECURITY DEFINER" in text.partition("\nAS ")[0] and not (role.superuser or role.bypasses):
            raise NotAllowed(
                f"role {role.name}, the owner of {HELPERS}.{key[0]}, is subject to row level security: "
                "its members would not be found",
                hint=f'as a superuser: ALTER ROLE "{role.name}" BYPASSRLS; or connect as a role that has it '
                "(on Supabase: postgres). Nothing was applied",
            )


# --- statements ----------------------------------------------------------------------------------


class _Waited(Exception):
    """A statement waited for a lock for too long."""

    def __init__(self, statement: Statement) -> None:
        super().__init__(statement.sql)
        self.statement = statement


def _execute(conn: Connection, lock: RunnerLock, statement: Statement, text: str) -> None:
    try:
        _guarded(conn, lock, text)
    except psycopg.Error as error:
        if error.sqlstate in ("55P03", "40P01"):
            raise _Waited(statement) from error
        if not error.sqlstate or error.sqlstate[:2] in ("08", "57"):
            raise
        kind = NotAllowed if error.sqlstate == "42501" else StatementFailed
        place = statement.file or statement.table or HELPERS
        message = redact(str(error).strip())
        raise kind(
            f"{place}: {message}\n  {statement.sql[:300]}", hint="all of it was rolled back; nothing was applied"
        ) from error


def _blocked(conn: Connection, error: _Waited) -> Blocked:
    """Who still holds what the statement waited for: nothing of ours waits any more, so nobody queues behind it."""
    statement = error.statement
    names = statement.tables
    found = rows(conn, "policy_holders", schemas=[n.schema for n in names], names=[n.name for n in names])
    who = "; ".join(
        f"process {pid} ({user or 'unknown'}, {application or 'no name'}, {state}, for {age:.0f} s): {' '.join(query.split())}"
        for pid, user, application, state, age, query in found
    )
    what = statement.file or f"{statement.sql.split(' ON ')[0]} on {statement.table}"
    return Blocked(
        f"{what}: waited too long for a lock; held by {who or 'somebody who is no longer to be seen'}",
        hint="end that transaction (pg_terminate_backend) or wait for it, then run the command again; "
        "all of it was rolled back, nothing was applied",
    )


def _guarded(conn: Connection, lock: RunnerLock, text: str = "") -> None:
    """Run a text, in one message with a look whether the runner lock is still held. Raises LockLost."""
    try:
        conn.execute((lock.guard().as_string() + text).encode())
    except psycopg.errors.InvalidTextRepresentation as error:
        if "dbops: the runner lock was lost" not in str(error):
            raise
        raise LockLost(
            "the runner lock was lost in the middle of the run (its connection was cut)",
            hint="all of it was rolled back; run the command again",
        ) from error
