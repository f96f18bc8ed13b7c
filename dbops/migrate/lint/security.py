"""Rules on row level security, rights and functions that run with their owner's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dbops.migrate.kinds import names
from dbops.migrate.lint.model import File, Found, rule
from dbops.migrate.lint.tree import (
    altered,
    columns,
    commands,
    enum,
    held,
    is_true,
    made_relation,
    option,
    qualified,
    relation,
    relations_in,
    roles,
    walk_outside,
)
from dbops.migrate.parse import Node, Statement, unwrap, walk

# columns that say whose a row is
OWNERS = ("user_id", "tenant_id", "owner_id")
# whom a request from outside may run as; public is everybody
API_ROLES = ("public", "anon", "authenticated")
# functions of the session that PostgreSQL calls once a row unless they stand in a subselect
_SESSION = (
    ("auth", "uid"),
    ("auth", "jwt"),
    ("auth", "role"),
    ("current_setting",),
    ("pg_catalog", "current_setting"),
)
_USER_METADATA = ("user_metadata", "raw_user_meta_data")


def _owned(file: File) -> Iterator[tuple[Statement, str, str]]:
    """The tables that the file creates and keeps, that say whose a row is: statement, table, column."""
    for statement in file.of("create_stmt"):
        node = statement.node
        owner = next((column.colname for column in columns(node) if column.colname in OWNERS), "")
        if owner and made_relation(statement).relpersistence != "t":
            yield statement, relation(node.relation), owner


def _set_elsewhere(file: File) -> bool:
    """Whether a DO block may switch row level security on: its text is no parse tree."""
    return any("row level security" in " ".join(s.sql.lower().split()) for s in file.of("do_stmt"))


@rule(
    "rls-missing",
    "warning",
    "in the same file: alter table … enable row level security; alter table … force row level security",
)
def rls_missing(file: File) -> Iterable[Found]:
    """A table of users' rows without row level security."""
    enabled = {table for _, table in altered(file.up, "AT_EnableRowSecurity")}
    for statement, table, owner in _owned(file):
        if table not in enabled and not _set_elsewhere(file):
            yield (
                statement.line,
                f"{table} has {owner}, but no row level security: every role with a grant sees all rows",
            )


@rule("rls-not-forced", "info", "alter table … force row level security, and let operators have BYPASSRLS")
def rls_not_forced(file: File) -> Iterable[Found]:
    """Row level security that does not bind the table's owner."""
    enabled = {table for _, table in altered(file.up, "AT_EnableRowSecurity")}
    forced = {table for _, table in altered(file.up, "AT_ForceRowSecurity")}
    for statement, table, _ in _owned(file):
        if table in enabled - forced and not _set_elsewhere(file):
            yield (
                statement.line,
                f"{table}: its owner and his SECURITY DEFINER functions pass row level security by",
            )


@rule(
    "rls-disabled",
    "error",
    "write a policy that allows what is needed; where it is meant, say why with -- dbops:ignore",
)
def rls_disabled(file: File) -> Iterable[Found]:
    """Row level security is switched off in an up part."""
    for statement, table in altered(file.up, "AT_DisableRowSecurity", "AT_NoForceRowSecurity"):
        off = {enum(command, "subtype") for command in commands(statement.node)}
        what = "is disabled" if "AT_DisableRowSecurity" in off else "no longer binds the owner"
        yield statement.line, f"row level security of {table} {what}"


@rule("policy-without-check", "info", "say WITH CHECK, so that a reader sees what may be written")
def policy_without_check(file: File) -> Iterable[Found]:
    """A policy FOR UPDATE or ALL without WITH CHECK: its USING decides on written rows as well."""
    for statement in file.of("create_policy_stmt"):
        node = statement.node
        if node.cmd_name in ("update", "all") and not node.HasField("with_check"):
            yield (
                statement.line,
                f"policy {node.policy_name} without WITH CHECK: USING is what new rows are held against",
            )


@rule("policy-insert-without-check", "error", "policies FOR INSERT say which rows with WITH CHECK (…)")
def policy_insert_without_check(file: File) -> Iterable[Found]:
    """A policy FOR INSERT without WITH CHECK allows no row at all."""
    for statement in file.of("create_policy_stmt"):
        if statement.node.cmd_name == "insert" and not statement.node.HasField("with_check"):
            yield (
                statement.line,
                f"policy {statement.node.policy_name} is FOR INSERT without WITH CHECK: it allows no row",
            )


@rule(
    "policy-without-role",
    "warning",
    "say whom it is for: TO authenticated (or TO public, where everybody is meant)",
)
def policy_without_role(file: File) -> Iterable[Found]:
    """A policy without TO is for everybody, anon too, and is evaluated for everybody."""
    for statement in file.of("create_policy_stmt"):
        # PUBLIC that was written has a place in the text
        if all(role.location < 0 for role in map(unwrap, statement.node.roles)):
            yield (
                statement.line,
                f"policy {statement.node.policy_name} without TO is for every role, anon too",
            )


@rule(
    "policy-always-true",
    "warning",
    "compare the row's owner with (select auth.uid()); or give the policy to service_role",
)
def policy_always_true(file: File) -> Iterable[Found]:
    """A policy that lets users write any row."""
    for statement in file.of("create_policy_stmt"):
        node = statement.node
        if node.cmd_name != "select" and node.permissive and set(roles(node.roles)) & set(API_ROLES):
            using, check = held(node, "qual"), held(node, "with_check")
            if is_true(check) or (is_true(using) and (check is None or node.cmd_name in ("all", "delete"))):
                yield (
                    statement.line,
                    f"policy {node.policy_name} (FOR {node.cmd_name.upper()}) is always true: any row goes",
                )


def _expressions(statement: Statement) -> Iterator[Node]:
    yield from filter(None, (held(statement.node, "qual"), held(statement.node, "with_check")))


@rule(
    "policy-call-per-row",
    "warning",
    "wrap it in a subselect, (select auth.uid()): then it is called once a query",
)
def policy_call_per_row(file: File) -> Iterable[Found]:
    """A policy calls a function of the session for each row."""
    for statement in file.of("create_policy_stmt", "alter_policy_stmt"):
        called = {
            ".".join(names(node.funcname))
            for expression in _expressions(statement)
            for node in walk_outside(expression, "SubLink")
            if node.DESCRIPTOR.name == "FuncCall" and names(node.funcname) in _SESSION
        }
        if called:
            calls = ", ".join(f"{name}()" for name in sorted(called))
            yield statement.line, f"policy {statement.node.policy_name} calls {calls} for each row"


@rule(
    "policy-trusts-user-metadata",
    "error",
    "keep roles and tenants in app_metadata or a table: users write their own user_metadata",
)
def policy_trusts_user_metadata(file: File) -> Iterable[Found]:
    """A policy believes what a user may write about himself."""
    for statement in file.of("create_policy_stmt", "alter_policy_stmt"):
        texts = {
            node.sval
            for expression in _expressions(statement)
            for node in walk(expression)
            if node.DESCRIPTOR.name == "String"
        }
        if any(word in text for text in texts for word in _USER_METADATA):
            yield (
                statement.line,
                f"policy {statement.node.policy_name} reads user_metadata, which the user himself can change",
            )


@rule("view-bypasses-rls", "warning", "create view … with (security_invoker = true) as …")
def view_bypasses_rls(file: File) -> Iterable[Found]:
    """A view without security_invoker over a table with row level security."""
    if file.pg_major < 15:  # there is no such option yet
        return
    mended = {table for statement, table in altered(file.up, "AT_SetRelOptions") if _sets_invoker(statement)}
    for statement in file.of("view_stmt"):
        node = statement.node
        over = sorted(set(relations_in(node.query)) & file.tables.protected)
        if over and not option(node.options, "security_invoker") and relation(node.view) not in mended:
            yield (
                statement.line,
                f"view {relation(node.view)} reads {', '.join(over)} as its owner, past row level security",
            )


def _sets_invoker(statement: Statement) -> bool:
    definitions = (held(command, "def") for command in commands(statement.node))
    return any(
        option(d.items, "security_invoker") for d in definitions if d is not None and d.DESCRIPTOR.name == "List"
    )


@rule("security-definer-search-path", "error", "set search_path = '' and qualify every name in the body")
def definer_search_path(file: File) -> Iterable[Found]:
    """A SECURITY DEFINER function without a fixed search_path: its caller chooses what its owner runs."""
    for statement in file.of("create_function_stmt"):
        node = statement.node
        # a body after RETURN or BEGIN ATOMIC was bound when it was created
        if option(node.options, "security") and not node.HasField("sql_body") and not _fixes_path(node.options):
            name = qualified(names(node.funcname))
            if name not in _fixed_later(file):
                yield statement.line, f"function {name} is SECURITY DEFINER without a fixed search_path"


def _fixes_path(options: Iterable[Node]) -> bool:
    sets = (held(each, "arg") for each in map(unwrap, options) if each.defname == "set")
    return any(
        each.name == "search_path" and enum(each, "kind") in ("VAR_SET_VALUE", "VAR_SET_CURRENT") for each in sets
    )


def _fixed_later(file: File) -> set[str]:
    return {
        qualified(names(s.node.func.objname)) for s in file.of("alter_function_stmt") if _fixes_path(s.node.actions)
    }


@rule("grant-truncate", "warning", "grant select, insert, update, delete: what a policy can hold back")
def grant_truncate(file: File) -> Iterable[Found]:
    """TRUNCATE granted to a role that requests run as (GRANT ALL holds it): no policy holds it back."""
    for statement in file.of("grant_stmt", "alter_default_privileges_stmt"):
        node = statement.node if statement.kind == "grant_stmt" else statement.node.action
        to = [role for role in roles(node.grantees) if role in API_ROLES]
        if node.is_grant and enum(node, "objtype") == "OBJECT_TABLE" and to and _holds_truncate(node):
            yield statement.line, f"{', '.join(to)} may TRUNCATE: row level security does not hold that back"


def _holds_truncate(grant: Node) -> bool:
    privileges = [unwrap(p) for p in grant.privileges]
    return not privileges or any(p.priv_name == "truncate" or (not p.priv_name and not p.cols) for p in privileges)
