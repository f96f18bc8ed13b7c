"""Rules on policies: what their predicates trust, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqlglot import exp

from dbops.policy.lint.logic import always_true, open_without_identity
from dbops.policy.lint.model import Found, Severity, Subject, called, predicates, rule
from dbops.policy.lint.predicate import (
    asks_who,
    functions_of_columns,
    parsed,
    per_row,
    trusts_role_claim,
    trusts_user_metadata,
)
from dbops.policy.state import Policy


def _trees(subject: Subject) -> Iterator[tuple[Policy, exp.Expression]]:
    for policy in subject.for_users:
        for text in predicates(policy):
            if (tree := parsed(text)) is not None:
                yield policy, tree


@rule("predicate-unreadable", "info", "read it yourself, and let `dbops policy attack` prove it")
def predicate_unreadable(subject: Subject) -> Iterable[Found]:
    """A predicate that sqlglot cannot read: the rules on predicates have not judged it."""
    for policy in subject.for_users:
        if any(parsed(text) is None for text in predicates(policy)):
            yield Found(policy.table, f"{called(policy)}: its predicate could not be read and was not judged")


@rule(
    "policy-call-per-row",
    "warning",
    "write (select auth.uid()): PostgreSQL then calls it once a statement (711 ms became 38 ms at 1M rows)",
    replaces=("PERF001",),
    about="speed",
)
def policy_call_per_row(subject: Subject) -> Iterable[Found]:
    """The identity is asked for once a row, for it stands in no subselect."""
    for policy in subject.for_users:
        trees = [tree for text in predicates(policy) if (tree := parsed(text)) is not None]
        names = sorted({name for tree in trees for name in per_row(tree)})
        if names:
            yield Found(policy.table, f"{called(policy)} calls {', '.join(f'{name}()' for name in names)} for each row")


@rule(
    "policy-function-of-column",
    "warning",
    "turn it round: column in (select a_function()), which runs once (3.9 s became 43 ms)",
    about="speed",
)
def policy_function_of_column(subject: Subject) -> Iterable[Found]:
    """A function that gets a column of the row: no subselect helps, it runs for each row."""
    for policy in subject.for_users:
        trees = [tree for text in predicates(policy) if (tree := parsed(text)) is not None]
        for name in sorted({name for tree in trees for name in functions_of_columns(tree)}):
            yield Found(policy.table, f"{called(policy)} calls {name}() with a column of each row")


@rule(
    "policy-trusts-user-metadata",
    "error",
    "users write that claim themselves: keep rights in a table, or in app_metadata",
    replaces=("SEC033",),
)
def policy_trusts_user_metadata(subject: Subject) -> Iterable[Found]:
    """A predicate that trusts user_metadata, which every user can change."""
    for policy in dict.fromkeys(policy for policy, tree in _trees(subject) if trusts_user_metadata(tree)):
        yield Found(policy.table, f"{called(policy)} trusts user_metadata, which users write themselves")


@rule(
    "policy-trusts-role-claim",
    "warning",
    "name the role in TO: PostgreSQL checks that one; a claim is worth what its signature's check is worth",
)
def policy_trusts_role_claim(subject: Subject) -> Iterable[Found]:
    """A predicate that trusts the claim `role` instead of the role that runs the query."""
    for policy in dict.fromkeys(policy for policy, tree in _trees(subject) if trusts_role_claim(tree)):
        yield Found(policy.table, f"{called(policy)} trusts the claim `role`")


@rule(
    "policy-check-always-true",
    "error",
    "say in WITH CHECK which rows may be written: the owner's",
    replaces=("SEC020", "SEC028"),
)
def policy_check_always_true(subject: Subject) -> Iterable[Found]:
    """WITH CHECK (true): rows can be written for, or handed to, anybody."""
    for policy in subject.for_users:
        if not policy.permissive or policy.check is None or not always_true(policy.check):
            continue
        yield Found(policy.table, f"{called(policy)} lets users write any row: WITH CHECK (true)")


@rule(
    "policy-always-true",
    "error",
    "say whose rows; rows that are open on purpose belong under `shared` in the definition",
    replaces=("SEC008", "SEC011"),
)
def policy_always_true(subject: Subject) -> Iterable[Found]:
    """USING (true) for a role of users: every row is theirs."""
    for policy in subject.for_users:
        if not policy.permissive or policy.using is None or not always_true(policy.using):
            continue
        if not subject.open_by_rule(policy):
            # a table of nobody's rows is open to read on purpose often enough
            nobodys = policy.verb == "select" and not subject.owner_columns(policy.table)
            severity: Severity | None = "warning" if nobodys else None
            yield Found(policy.table, f"{called(policy)} covers every row for {policy.verb}: USING (true)", severity)


@rule("policy-check-weaker", "error", "hold new rows against the identity too", replaces=("SEC040",))
def policy_check_weaker(subject: Subject) -> Iterable[Found]:
    """USING asks who it is and WITH CHECK does not: a row can be handed to another user."""
    auth = subject.definitions.auth
    for policy in subject.for_users:
        using, check = policy.using, policy.check
        if not policy.permissive or using is None or check is None or always_true(check):
            continue
        if asks_who(using, auth) and not asks_who(check, auth):
            yield Found(policy.table, f"{called(policy)}: USING asks for the identity, WITH CHECK does not")


@rule(
    "policy-beside-stricter",
    "warning",
    "permissive policies are joined with OR: make the general one restrictive, or join the two",
)
def policy_beside_stricter(subject: Subject) -> Iterable[Found]:
    """A permissive policy that asks for no identity beside one for the same verb that does."""
    auth = subject.definitions.auth
    permissive = [p for p in subject.for_users if p.permissive]
    asking = {id(p): any(asks_who(text, auth) for text in predicates(p)) for p in permissive}
    for loose in permissive:
        if asking[id(loose)] or subject.open_by_rule(loose):
            continue
        strict = next((p for p in permissive if asking[id(p)] and _meet(p, loose)), None)
        if strict is not None:
            yield Found(loose.table, f"{called(loose)} opens rows that {strict.name} keeps to their owner")


def _meet(one: Policy, other: Policy) -> bool:
    """Whether two policies stand side by side for somebody."""
    verbs = one.verb == other.verb or "all" in (one.verb, other.verb)
    roles = "public" in (*one.roles, *other.roles) or bool(set(one.roles) & set(other.roles))
    return one.table == other.table and verbs and roles


@rule(
    "policy-open-without-identity",
    "error",
    "compare the identity with =, which NULL never passes, and drop the test for NULL",
    replaces=("SEC004", "SEC038"),
)
def policy_open_without_identity(subject: Subject) -> Iterable[Found]:
    """A predicate that is true when nobody is signed in: `is null`, coalesce, `is not distinct from`."""
    for policy in subject.for_users:
        table = subject.catalog.tables.get(policy.table)
        never_null = frozenset(c.name for c in table.columns if c.not_null) if table else frozenset()
        for text in predicates(policy):
            if policy.permissive and open_without_identity(text, subject.definitions.auth, never_null):
                yield Found(policy.table, f"{called(policy)} lets in who has no identity: {text}")
                break


@rule("policy-to-public", "warning", "name the roles: TO authenticated", replaces=("SEC003",))
def policy_to_public(subject: Subject) -> Iterable[Found]:
    """A permissive policy TO PUBLIC: it speaks of roles that nobody thought of."""
    for policy in subject.for_users:
        if policy.permissive and "public" in policy.roles:
            yield Found(policy.table, f"{called(policy)} is for PUBLIC, every role there is and will be")
