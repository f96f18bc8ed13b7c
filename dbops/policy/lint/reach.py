"""Rules on what users reach past the policies: tables without RLS, views, functions, privileges, roles."""

from __future__ import annotations

from collections.abc import Iterable

from dbops.policy.lint.model import READS, WRITES, Found, Severity, Subject, rule
from dbops.policy.model import HELPERS
from dbops.policy.state import Table, View

_NO_FORCE = "alter table … force row level security, and let operators have BYPASSRLS"


def _parent_with_rls(subject: Subject, table: Table) -> Table | None:
    """The table above a partition that has row level security."""
    parent = subject.catalog.tables.get(table.partition_of) if table.partition_of else None
    if parent is None or parent.rls:
        return parent
    return _parent_with_rls(subject, parent)


@rule(
    "rls-missing",
    "error",
    "alter table … enable row level security, and a definition in policies/; or take the grant away",
    replaces=("SEC001", "SEC049"),
)
def rls_missing(subject: Subject) -> Iterable[Found]:
    """A table that users reach has no row level security."""
    dormant = {policy.table for policy in subject.catalog.policies}
    for name, table in subject.catalog.tables.items():
        # another rule speaks of those that have policies, and of partitions
        if table.rls or name in dormant or _parent_with_rls(subject, table):
            continue
        if roles := subject.reachable(table, READS | WRITES):
            yield Found(name, f"{name} has no row level security, and {', '.join(roles)} reaches all its rows")


@rule("rls-off-with-policies", "error", "alter table … enable row level security", replaces=("SEC032",))
def rls_off_with_policies(subject: Subject) -> Iterable[Found]:
    """A table has policies and its row level security is off: they do nothing."""
    for name in sorted({policy.table for policy in subject.catalog.policies}):
        table = subject.catalog.tables.get(name)
        if table is not None and not table.rls:
            yield Found(name, f"{name} has policies, but row level security is off: they do nothing")


@rule("rls-not-forced", "warning", _NO_FORCE, replaces=("SEC002", "SEC048"))
def rls_not_forced(subject: Subject) -> Iterable[Found]:
    """Row level security does not bind the table's owner; an error where users can act as the owner."""
    for name, table in subject.catalog.tables.items():
        if not table.rls or table.forced:
            continue
        if table.owner in subject.users:
            yield Found(name, f"{name} is owned by {table.owner}, whom its policies do not bind: not forced", "error")
        elif subject.reachable(table, READS | WRITES):
            yield Found(name, f"{name}: row level security does not bind its owner {table.owner}: not forced")


@rule(
    "partition-without-rls",
    "error",
    "enable and force it on the partition, or take the grant away: users need only the parent",
    replaces=("SEC041",),
)
def partition_without_rls(subject: Subject) -> Iterable[Found]:
    """A partition that users reach past the policies of its parent."""
    for name, table in subject.catalog.tables.items():
        parent = None if table.rls else _parent_with_rls(subject, table)
        if parent is not None and (roles := subject.reachable(table, READS | WRITES)):
            yield Found(name, f"{name}: {', '.join(roles)} reaches it past the policies of {parent.name}")


def _hidden(subject: Subject, view: View) -> list[str]:
    """The tables under row level security that a view reads."""
    tables = subject.catalog.tables
    return [str(name) for name in view.reads if name in tables and tables[name].rls]


@rule(
    "view-bypasses-rls",
    "error",
    "alter view … set (security_invoker = on); one that is meant so is named in the definitions with a reason",
    replaces=("VIEW001",),
)
def view_bypasses_rls(subject: Subject) -> Iterable[Found]:
    """A view that users reach reads a table under RLS with its owner's rights."""
    for name, view in subject.catalog.views.items():
        if view.materialized or view.security_invoker or name in subject.definitions.definer_views:
            continue
        if (tables := _hidden(subject, view)) and subject.reachable(view, READS | WRITES):
            yield Found(name, f"view {name} reads {', '.join(tables)} with the rights of {view.owner}")


@rule(
    "materialized-view-bypasses-rls",
    "error",
    "take the grant away: a materialised view keeps rows without their policies",
    replaces=("SEC054", "VIEW003"),
)
def materialized_view_bypasses_rls(subject: Subject) -> Iterable[Found]:
    """A materialised view that users read holds rows of a table under RLS."""
    for name, view in subject.catalog.views.items():
        if not view.materialized or name in subject.definitions.definer_views:
            continue
        if (tables := _hidden(subject, view)) and (roles := subject.reachable(view, READS)):
            yield Found(
                name, f"materialised view {name} holds rows of {', '.join(tables)}, and {', '.join(roles)} reads it"
            )


@rule(
    "security-definer-search-path",
    "error",
    "alter function … set search_path = '', and qualify what it names",
)
def security_definer_search_path(subject: Subject) -> Iterable[Found]:
    """A SECURITY DEFINER function that users may call, with a search_path that they choose."""
    for function in subject.catalog.functions:
        fixed = any(setting.startswith("search_path=") for setting in function.settings)
        if function.definer and not fixed and (roles := sorted(function.executable_by & subject.users)):
            what = f"{function.name}({function.arguments})"
            yield Found(
                function.name,
                f"{what} runs as {function.owner} with its caller's search_path, for {', '.join(roles)}",
            )


@rule(
    "security-definer-callable",
    "warning",
    "revoke execute from public and the users' roles, or make it SECURITY INVOKER; the attack calls it",
    replaces=("SEC014", "SEC042"),
)
def security_definer_callable(subject: Subject) -> Iterable[Found]:
    """A SECURITY DEFINER function of somebody whom RLS does not bind, that users may call."""
    tables = subject.catalog.tables.values()
    for function in subject.catalog.functions:
        # a trigger's function can't be called; helpers of policies tell a user of himself only
        if not function.definer or function.returns == "trigger" or function.name.schema == HELPERS:
            continue
        owner = subject.catalog.roles.get(function.owner)
        free = owner is None or owner.superuser or owner.bypasses
        free = free or any(table.rls and not table.forced and table.owner == function.owner for table in tables)
        if free and (roles := sorted(function.executable_by & subject.users)):
            what = f"{function.name}({function.arguments})"
            yield Found(
                function.name,
                f"{what} runs as {function.owner}, whom policies do not bind, for {', '.join(roles)}",
            )


@rule("privilege-past-rls", "error", "revoke truncate, references, trigger on … from public and the users' roles")
def privilege_past_rls(subject: Subject) -> Iterable[Found]:
    """TRUNCATE, REFERENCES or TRIGGER for users: no policy holds them back."""
    for name, table in subject.catalog.tables.items():
        if not table.rls:
            continue
        for role, held in subject.held(table.grants, ("TRUNCATE", "REFERENCES", "TRIGGER")).items():
            severity: Severity | None = None if "TRUNCATE" in held else "warning"
            yield Found(name, f"{role} has {', '.join(held)} on {name}, which no policy holds back", severity)


@rule(
    "role-bypasses-rls",
    "error",
    "alter role … nobypassrls, or revoke the membership",
    replaces=("SEC016", "SEC023", "SEC029"),
)
def role_bypasses_rls(subject: Subject) -> Iterable[Found]:
    """A role that users act as passes every policy by, itself or through a membership."""
    roles = subject.catalog.roles
    auth = subject.definitions.auth
    for name in sorted({auth.user_role, auth.anon_role} & set(roles)):
        for each in (name, *sorted(roles[name].member_of)):
            role = roles.get(each)
            if role is not None and (role.superuser or role.bypasses):
                how = "" if each == name else f" through {each}"
                yield Found(None, f"role {name} passes every policy by{how}")
