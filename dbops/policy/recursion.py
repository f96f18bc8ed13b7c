"""Policies that read each other's tables in a circle: PostgreSQL says so (42P17) only when a row is asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from dbops.errors import DefinitionError
from dbops.policy.model import Name
from dbops.policy.printed import Printed
from dbops.policy.state import Catalog, Policy, Wanted


def refuse_recursion(wanted: Wanted, catalog: Catalog, printed: Printed) -> None:
    """Raise DefinitionError, with the circle, where a policy's subqueries come back to its own table.

    What they read is what PostgreSQL recorded as dependencies: no text is guessed at. The membership helper is no part
    of a circle: it runs with its owner's rights. https://www.postgresql.org/docs/current/ddl-rowsecurity.html
    """
    policies = [policy for table in wanted.tables.values() for policy in table.policies]
    if not any(printed.reads.values()):
        return
    for role in sorted({role for policy in policies for role in policy.roles}):
        own = [p for p in policies if {role, "public"} & set(p.roles)]
        reads: dict[Name, set[Name]] = defaultdict(set)
        for policy in own:
            if policy.verb in ("all", "select"):
                reads[policy.table] |= _tables_read(policy, wanted, catalog, printed)
        # to come back is harmless as long as the policies for reading the table hold no subquery
        goals = _with_subquery(own, printed)
        for policy in (policy for policy in own if policy.table in goals):
            if circle := _way(policy.table, _tables_read(policy, wanted, catalog, printed), reads):
                way = " -> ".join(str(name) for name in (policy.table, *circle))
                raise DefinitionError(
                    f"{wanted.tables[policy.table].source}: {policy.table}: policy {policy.name}: its subquery comes "
                    f"back to the table for role {role}: {way} (PostgreSQL: infinite recursion, 42P17)",
                    hint="read the other table in a SECURITY DEFINER function, as the rule tenant does; nothing was applied",
                )


def _tables_read(policy: Policy, wanted: Wanted, catalog: Catalog, printed: Printed) -> set[Name]:
    """Those that are read with the user's rights: through a view with its owner's, other policies hold."""
    found: set[Name] = set()
    for name in printed.reads.get((policy.table, policy.name), ()):
        view = catalog.views.get(name)
        if view is None:
            found.add(name)
        elif view.security_invoker or name in wanted.invoker_views:
            found |= set(view.reads)
    return found


def _way(start: Name, first: set[Name], reads: Mapping[Name, set[Name]]) -> tuple[Name, ...]:
    """The shortest way from `first` back to `start`; empty where there is none."""
    ways: list[tuple[Name, ...]] = [(name,) for name in sorted(first)]
    seen: set[Name] = set()
    for way in ways:  # grows while it is read
        if way[-1] == start:
            return way
        if way[-1] not in seen:
            seen.add(way[-1])
            ways += [(*way, name) for name in sorted(reads.get(way[-1], ()))]
    return ()


def _with_subquery(policies: Sequence[Policy], printed: Printed) -> set[Name]:
    return {p.table for p in policies if p.verb in ("all", "select") and (p.table, p.name) in printed.subqueries}
