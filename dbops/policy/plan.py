"""The difference between what is wanted and what is found, as the fewest statements. Pure, no I/O."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from psycopg import sql

from dbops.errors import DefinitionError
from dbops.policy.model import HELPERS, PREFIX, Name, Verbatim
from dbops.policy.plan_helpers import helper_statements, stale_helpers
from dbops.policy.printed import Printed
from dbops.policy.state import Catalog, Grants, Policy, Proposal, Table, Wanted, WantedTable
from dbops.policy.statement import Statement as Statement
from dbops.policy.statement import composed, role_list, words
from dbops.policy.texts import clauses, identifier, without_table


@dataclass(frozen=True)
class Unmanaged:
    """A policy that no definition makes: reported, never dropped without `prune`."""

    table: str
    policy: str


@dataclass(frozen=True)
class Plan:
    """What `apply` would do. `target` is the database and its host; `str()` is the plan as a text."""

    statements: tuple[Statement, ...]
    unmanaged: tuple[Unmanaged, ...] = ()
    proposals: tuple[Proposal, ...] = ()
    notes: tuple[str, ...] = ()
    target: str = ""

    @property
    def sql(self) -> tuple[str, ...]:
        return tuple(statement.sql for statement in self.statements)

    def __str__(self) -> str:
        return "".join(f"{line}\n" for line in _lines(self))


def make_plan(
    wanted: Wanted,
    catalog: Catalog,
    printed: Printed,
    *,
    verbatim: Sequence[Verbatim] = (),
    schemas: Collection[str] | None = None,
    prune: bool = False,
    target: str = "",
) -> Plan:
    """The plan from the catalog to what is wanted.

    `printed` holds the wanted texts as PostgreSQL prints them. Policies of others are looked for in `schemas` (None:
    in all) and on the tables of the definitions. Raises DefinitionError for a role or table that does not exist.
    """
    _require_known(wanted, catalog)
    managed = {(p.table, p.name) for p in _policies(wanted)} | catalog.verbatim_policies
    left = [p for p in catalog.policies if (p.table, p.name) not in managed]
    looked_at = [p for p in left if schemas is None or p.table.schema in schemas or p.table in wanted.tables]
    others = [p for p in looked_at if not p.name.startswith(PREFIX)]
    dropped = [p for p in left if p.name.startswith(PREFIX)] + (others if prune else [])
    kept = [p for p in catalog.policies if p not in dropped]
    statements = chain(
        helper_statements(wanted, catalog, printed),
        _flags(wanted, catalog),
        _rights(wanted, catalog, "revoke"),
        _changes(wanted, catalog, printed, dropped),
        _triggers(wanted, catalog, printed),
        _views(wanted, catalog),
        _rights(wanted, catalog, "grant"),
        stale_helpers(wanted, catalog, kept),
        _files(verbatim, catalog),
    )
    return Plan(
        tuple(statements),
        () if prune else tuple(Unmanaged(str(p.table), p.name) for p in others),
        wanted.proposals,
        (*wanted.notes, *_notes(verbatim, catalog, dropped, kept)),
        target,
    )


def _policies(wanted: Wanted) -> Iterator[Policy]:
    for table in wanted.tables.values():
        yield from table.policies


def _require_known(wanted: Wanted, catalog: Catalog) -> None:
    for table in wanted.tables.values():
        if table.name not in catalog.tables:
            raise DefinitionError(f"{table.source}: there is no table {table.name}", hint="nothing was applied")
        asked = chain(table.grants, *(policy.roles for policy in table.policies))
        _require_roles(asked, catalog, f"{table.source}: {table.name}")
    for helper in wanted.helpers:
        _require_roles(helper.execute, catalog, f"function {HELPERS}.{helper.name}")


def _require_roles(names: Iterable[str], catalog: Catalog, where: str) -> None:
    for name in names:
        if name != "public" and name not in catalog.roles:
            raise DefinitionError(
                f"{where}: there is no role {name!r}",
                hint=f"CREATE ROLE {sql.Identifier(name).as_string()} NOLOGIN; or mend the definition. Nothing was applied",
            )


# --- tables --------------------------------------------------------------------------------------


def _flags(wanted: Wanted, catalog: Catalog) -> Iterator[Statement]:
    for name in wanted.tables:
        table = catalog.tables[name]
        missing = [
            word
            for word, there in (("ENABLE ROW LEVEL SECURITY", table.rls), ("FORCE ROW LEVEL SECURITY", table.forced))
            if not there
        ]
        if missing:
            was = "enabled, not forced" if table.rls else "disabled"
            text = composed("ALTER TABLE {} {}", identifier(name), words(", ".join(missing)))
            yield Statement(text, (name,), "row level security holds for the owner too", was)


def _changes(wanted: Wanted, catalog: Catalog, printed: Printed, dropped: Sequence[Policy]) -> Iterator[Statement]:
    """What narrows goes first: restrictive policies are made, permissive ones dropped, before anything opens."""
    found = {(policy.table, policy.name): policy for policy in catalog.policies}
    changed = [(p, found.get((p.table, p.name))) for p in _policies(wanted)]
    for restrictive in (True, False):
        if not restrictive:
            yield from (_drop(p, "no definition makes it") for p in dropped if p.permissive)
        for policy, there in changed:
            if policy.permissive != restrictive:
                yield from _change(policy, there, printed.policies[policy.table, policy.name])
    yield from (_drop(p, "no definition makes it") for p in dropped if not p.permissive)


def _change(policy: Policy, there: Policy | None, texts: tuple[str | None, str | None]) -> Iterator[Statement]:
    if there is None:
        yield Statement(create(policy), (policy.table,), "the policy is not there")
        return
    kind = (policy.verb, policy.permissive) == (there.verb, there.permissive)
    if kind and set(policy.roles) == set(there.roles) and (there.using, there.check) == texts:
        return
    gone = (there.using is not None and policy.using is None) or (there.check is not None and policy.check is None)
    # ALTER POLICY changes neither of these, and takes no expression away
    if not kind or gone:
        yield _drop(there, "it is made anew: ALTER POLICY cannot change this")
        yield Statement(create(policy), (policy.table,), "the policy differs", create(there))
        return
    yield Statement(_alter(policy, there, texts), (policy.table,), "the policy differs", create(there))


def create(policy: Policy) -> str:
    """The CREATE POLICY statement."""
    return composed(
        "CREATE POLICY {} ON {} AS {} FOR {} TO {}{}",
        sql.Identifier(policy.name), identifier(policy.table), words("PERMISSIVE" if policy.permissive else "RESTRICTIVE"),
        words(policy.verb.upper()), role_list(policy.roles), clauses(policy),
    )  # fmt: skip


def _alter(policy: Policy, there: Policy, texts: tuple[str | None, str | None]) -> str:
    """ALTER POLICY with what differs."""
    using = policy.using if texts[0] != there.using else None
    check = policy.check if texts[1] != there.check else None
    roles = sql.SQL(" TO {}").format(role_list(policy.roles)) if set(policy.roles) != set(there.roles) else sql.SQL("")
    rest = Policy(policy.table, policy.name, policy.permissive, policy.verb, policy.roles, using, check)
    return composed(
        "ALTER POLICY {} ON {}{}{}", sql.Identifier(policy.name), identifier(policy.table), roles, clauses(rest)
    )


def _drop(policy: Policy, why: str) -> Statement:
    text = composed("DROP POLICY {} ON {}", sql.Identifier(policy.name), identifier(policy.table))
    return Statement(text, (policy.table,), why, create(policy))


def _triggers(wanted: Wanted, catalog: Catalog, printed: Printed) -> Iterator[Statement]:
    found = {(trigger.table, trigger.name): trigger for trigger in catalog.triggers}
    asked = {(t.table, t.name): t for table in wanted.tables.values() for t in table.triggers}
    for key, there in found.items():
        if key not in asked or without_table(there.definition, there.table) != printed.triggers[key]:
            text = composed("DROP TRIGGER {} ON {}", sql.Identifier(there.name), identifier(there.table))
            why = "the trigger differs" if key in asked else "no definition makes it"
            yield Statement(text, (there.table,), why, there.definition)
    for key, trigger in asked.items():
        there_now = found.get(key)
        if there_now is None or without_table(there_now.definition, trigger.table) != printed.triggers[key]:
            yield Statement(trigger.definition, (trigger.table,), "the trigger is not there")


# --- privileges ----------------------------------------------------------------------------------


def held(table: Table, role: str) -> frozenset[str]:
    """What a role holds on a table, on single columns of it too: a REVOKE on the table takes both."""
    columns = (grants.get(role, frozenset()) for grants in table.column_grants.values())
    return frozenset(table.grants.get(role, frozenset())).union(*columns)


def to_revoke(table: WantedTable, found: Table) -> Grants:
    return {role: held(found, role) & privileges for role, privileges in table.revokes.items()}


def to_grant(table: WantedTable, found: Table) -> Grants:
    return {role: privileges - found.grants.get(role, frozenset()) for role, privileges in table.grants.items()}


def _rights(wanted: Wanted, catalog: Catalog, verb: str) -> Iterator[Statement]:
    """One statement for all tables and roles for which the same privileges are given or taken."""
    differ = to_revoke if verb == "revoke" else to_grant
    tables: dict[tuple[str, frozenset[str]], list[Name]] = defaultdict(list)
    for name, table in wanted.tables.items():
        for role, privileges in differ(table, catalog.tables[name]).items():
            if privileges:
                tables[role, privileges].append(name)
    roles: dict[tuple[frozenset[str], tuple[Name, ...]], list[str]] = defaultdict(list)
    for (role, privileges), names in tables.items():
        roles[privileges, tuple(names)].append(role)
    form = "REVOKE {} ON {} FROM {}" if verb == "revoke" else "GRANT {} ON {} TO {}"
    why = "no rule allows it" if verb == "revoke" else "a rule allows it"
    for (privileges, group_tables), group in roles.items():
        on = sql.SQL(", ").join(map(identifier, group_tables))
        yield Statement(composed(form, words(", ".join(sorted(privileges))), on, role_list(group)), group_tables, why)


def _views(wanted: Wanted, catalog: Catalog) -> Iterator[Statement]:
    for name in wanted.invoker_views:
        if not catalog.views[name].security_invoker:
            text = composed("ALTER VIEW {} SET (security_invoker = true)", identifier(name))
            yield Statement(text, (name,), "it would read with its owner's rights", "security_invoker = false")


# --- files, notes --------------------------------------------------------------------------------


def _files(verbatim: Sequence[Verbatim], catalog: Catalog) -> Iterator[Statement]:
    now = {(policy.table, policy.name): policy for policy in catalog.policies}
    for file in verbatim:
        name = file.path.name
        if name not in catalog.verbatim:
            yield Statement(file.text, (), f"{name} was never applied", file=name)
        elif catalog.verbatim[name] != file.checksum:
            yield Statement(file.text, (), f"{name} has changed", file=name)
        elif any(now.get((p.table, p.name)) != p for p in catalog.recorded.get(name, ())):
            yield Statement(file.text, (), f"a policy of {name} is not as the file left it", file=name)


def _notes(
    verbatim: Sequence[Verbatim], catalog: Catalog, dropped: Sequence[Policy], kept: Sequence[Policy]
) -> Iterator[str]:
    for name in sorted(set(catalog.verbatim) - {file.path.name for file in verbatim}):
        yield f"{name} was applied once and is gone from the folder: what it made stays"
    open_tables = {policy.table for policy in kept if policy.permissive}
    for policy in dropped:
        if not policy.permissive and policy.table in open_tables:
            yield f"{policy.table}: without the restrictive policy {policy.name}, the permissive ones that stay open more"


def _lines(plan: Plan) -> Iterator[str]:
    if plan.target:
        yield f"-- {plan.target}"
    for statement in plan.statements:
        yield f"-- {statement.file or statement.table or HELPERS}: {statement.why}"
        yield from (f"-- was: {line}" for line in statement.was.splitlines())
        yield statement.sql.rstrip().rstrip(";") + ";"
    yield from (f"-- not managed here: policy {each.policy} on {each.table}" for each in plan.unmanaged)
    for proposal in plan.proposals:
        yield f"-- proposed for {proposal.table}: {proposal.reason}"
        yield from (f"--   {line}" for line in proposal.statement.splitlines())
    yield from (f"-- note: {note}" for note in plan.notes)
    if not plan.statements:
        yield "-- nothing to do"
