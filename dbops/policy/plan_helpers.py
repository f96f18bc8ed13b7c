"""The part of a plan that is about the functions in the schema `HELPERS`. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from psycopg import sql

from dbops.policy.model import HELPERS
from dbops.policy.printed import Printed
from dbops.policy.state import Catalog, Function, Helper, Policy, Wanted
from dbops.policy.statement import Statement, composed, role_list, words
from dbops.policy.texts import identifier


def helper_statements(wanted: Wanted, catalog: Catalog, printed: Printed) -> Iterator[Statement]:
    found = {(f.name.name, f.arguments): f for f in catalog.functions if f.name.schema == HELPERS}
    if wanted.helpers and not found:
        yield Statement(
            composed("CREATE SCHEMA IF NOT EXISTS {}", sql.Identifier(HELPERS)), (), "the schema of the helpers"
        )
    for helper in wanted.helpers:
        text = printed.helpers[helper.name, helper.arguments]
        there = found.get((helper.name, helper.arguments))
        if there and f" RETURNS {there.returns}\n" not in text:
            there = None
        # CREATE OR REPLACE changes neither the result nor an argument's name
        for other in (f for (name, _), f in found.items() if name == helper.name and f != there):
            yield _drop_function(other, "it stands where a helper must be")
        yield from _helper(helper, there, text, catalog)


def _helper(helper: Helper, there: Function | None, text: str, catalog: Catalog) -> Iterator[Statement]:
    if there is None or there.definition != text:
        why = "the helper is not there" if there is None else "the helper differs"
        yield Statement(helper.statement, (), why, there.definition if there else "")
    owner, may = helper_owner(there, catalog), frozenset({"public"})  # so is a new function executable
    if there:
        may = there.executable_by - {there.owner}
        if owner != there.owner:
            change = composed("ALTER FUNCTION {} OWNER TO {}", _signature(helper), sql.Identifier(owner))
            yield Statement(change, (), "its owner could replace it", f"owner: {there.owner}")
    wanted_by = frozenset(helper.execute) - {owner}
    yield from _execute(helper, "REVOKE", "FROM", may - wanted_by - {owner})
    yield from _execute(helper, "GRANT", "TO", wanted_by - may)


def helper_owner(there: Function | None, catalog: Catalog) -> str:
    """Whose a helper is to be: its owner replaces it at will, and it sees the members with his rights."""
    if there is None:
        return catalog.user
    me, theirs = catalog.roles[catalog.user], catalog.roles[there.owner]
    trusted = there.owner in (me.name, *me.member_of) or theirs.superuser or theirs.bypasses
    return there.owner if trusted else me.name


def _signature(helper: Helper) -> sql.Composed:
    return sql.SQL("{}({})").format(sql.Identifier(HELPERS, helper.name), words(helper.arguments))


def _drop_function(function: Function, why: str) -> Statement:
    signature = sql.SQL("{}({})").format(identifier(function.name), words(function.arguments))
    return Statement(composed("DROP FUNCTION {}", signature), (), why, function.definition)


def _execute(helper: Helper, verb: str, word: str, roles: Collection[str]) -> Iterator[Statement]:
    if roles:
        text = composed(
            "{} EXECUTE ON FUNCTION {} {} {}", words(verb), _signature(helper), words(word), role_list(roles)
        )
        yield Statement(text, (), "only those whom a policy makes call it")


def stale_helpers(wanted: Wanted, catalog: Catalog, kept: Sequence[Policy]) -> Iterator[Statement]:
    """Helpers that nothing needs any more; one that somebody's policy or trigger still names stays."""
    needed = {helper.name for helper in wanted.helpers}  # what else bears the name is gone by then
    ours = {(p.table, p.name) for table in wanted.tables.values() for p in table.policies}
    texts = [text for p in kept if (p.table, p.name) not in ours for text in (p.using, p.check) if text]
    for function in catalog.functions:
        name = function.name
        named = any(name.name.replace('"', '""') in text for text in texts)
        if name.schema == HELPERS and name.name not in needed and not named:
            yield _drop_function(function, "no definition needs it")
