"""Apply a plan: under the runner lock, in one transaction that proves itself before it commits."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psycopg

from dbops.config import Settings
from dbops.database import (
    connect,
    endless,
    local_settings,
    parameters,
    place_of,
    primary_of,
    translated,
)
from dbops.errors import Blocked, DbopsError, HistoryMismatch, NotAllowed
from dbops.lock import RunnerLock
from dbops.policy.catalog import read_catalog, rows
from dbops.policy.compile import compile_definitions
from dbops.policy.execute import Waited, blocked, require_lock, run_together
from dbops.policy.files import run_files
from dbops.policy.model import HELPERS, Definitions, Verbatim
from dbops.policy.plan import Plan, Unmanaged, make_plan
from dbops.policy.printed import Printed, lock_helpers, print_wanted
from dbops.policy.recursion import refuse_recursion
from dbops.policy.state import Catalog, Wanted
from dbops.policy.statement import Statement

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
                require_lock(conn, lock)
                planned = self._plan(conn)
                _require_expected(planned.plan, expected)
                require_rights(planned)
                if not planned.plan.statements:
                    return planned.plan
                # a file may have made a policy its own
                return replace(planned.plan, unmanaged=self._run(conn, lock, planned).unmanaged)
        except Waited as error:
            raise blocked(conn, error) from error

    def _run(self, conn: Connection, lock: RunnerLock, planned: Planned) -> Plan:
        statements = planned.plan.statements
        if planned.wanted.helpers:
            # before the first of them is made, and to the end: a plan beside us would wait for us, and we for it
            lock_helpers(conn)
        run_together(conn, lock, [statement for statement in statements if not statement.file])
        run_files(conn, lock, [statement for statement in statements if statement.file], planned.verbatim)
        left = self._plan(conn).plan
        if left.statements:
            raise DbopsError(
                "the plan did not bring about what is wanted; left to do:\n" + "\n".join(left.sql),
                hint="all of it was rolled back. A privilege that somebody else granted is his to revoke; "
                "a file of policies/*.sql may undo what a definition asks",
            )
        require_lock(conn, lock)
        return left


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
