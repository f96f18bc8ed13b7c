"""How a database differs from its definitions, object by object, as a unified diff. Pure, no I/O."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from dataclasses import replace

from dbops.policy.apply import Planned
from dbops.policy.model import HELPERS, PREFIX, Name
from dbops.policy.plan import create, held
from dbops.policy.plan_helpers import helper_owner
from dbops.policy.state import Policy
from dbops.policy.texts import without_table


def drift_text(planned: Planned) -> str:
    """A unified diff of what is wanted (+) and found (-), object by object; empty when they are equal."""
    wanted, found = dict(_wanted(planned)), dict(_found(planned))
    parts: list[str] = []
    for name in sorted(wanted.keys() | found.keys()):
        a, b = found.get(name, []), wanted.get(name, [])
        if a != b:
            parts += difflib.unified_diff(a, b, f"{name} (database)", f"{name} (definitions)", lineterm="", n=1)
    return "".join(f"{line}\n" for line in parts)


Block = tuple[str, list[str]]


def _wanted(planned: Planned) -> Iterator[Block]:
    wanted, printed, catalog = planned.wanted, planned.printed, planned.catalog
    for table in wanted.tables.values():
        found = catalog.tables[table.name]
        nothing: frozenset[str] = frozenset()
        rights = {
            role: (held(found, role) - table.revokes.get(role, nothing)) | table.grants.get(role, nothing)
            for role in (*table.grants, *table.revokes)
        }
        yield f"table {table.name}", _table_lines(True, True, rights)
        for policy in table.policies:
            using, check = printed.policies[policy.table, policy.name]
            yield _policy(replace(policy, using=using, check=check))
        yield from (_trigger(t.table, t.name, printed.triggers[t.table, t.name]) for t in table.triggers)
    functions = {(f.name.name, f.arguments): f for f in catalog.functions if f.name.schema == HELPERS}
    for helper in wanted.helpers:
        owner = helper_owner(functions.get((helper.name, helper.arguments)), catalog)
        text = printed.helpers[helper.name, helper.arguments]
        yield _function(helper.name, helper.arguments, text, set(helper.execute) - {owner}, owner)
    yield from ((f"view {name}", ["security_invoker = true"]) for name in wanted.invoker_views)
    yield from (_policy(policy) for made in catalog.recorded.values() for policy in made)
    yield from ((f"file {file.path.name}", [f"sha256 {file.checksum}"]) for file in planned.verbatim)


def _found(planned: Planned) -> Iterator[Block]:
    wanted, catalog = planned.wanted, planned.catalog
    for table in wanted.tables.values():
        found = catalog.tables[table.name]
        rights = {role: held(found, role) for role in (*table.grants, *table.revokes)}
        yield f"table {table.name}", _table_lines(found.rls, found.forced, rights)
    managed = {(p.table, p.name) for table in wanted.tables.values() for p in table.policies}
    managed |= catalog.verbatim_policies
    others = {(each.table, each.policy) for each in planned.plan.unmanaged}
    for policy in catalog.policies:
        ours = policy.name.startswith(PREFIX) or (policy.table, policy.name) in managed
        if ours or (str(policy.table), policy.name) in others:
            yield _policy(policy)
    yield from (_trigger(t.table, t.name, without_table(t.definition, t.table)) for t in catalog.triggers)
    known = {(helper.name, helper.arguments) for helper in wanted.helpers}
    dropped = {statement.was for statement in planned.plan.statements}
    for function in catalog.functions:
        name, arguments = function.name, function.arguments
        if name.schema == HELPERS and ((name.name, arguments) in known or function.definition in dropped):
            execute = function.executable_by - {function.owner}
            yield _function(name.name, arguments, function.definition, execute, function.owner)
    for name in wanted.invoker_views:
        yield f"view {name}", [f"security_invoker = {str(catalog.views[name].security_invoker).lower()}"]
    files = {file.path.name for file in planned.verbatim}
    yield from ((f"file {n}", [f"sha256 {checksum}"]) for n, checksum in catalog.verbatim.items() if n in files)


def _table_lines(rls: bool, forced: bool, rights: dict[str, frozenset[str]]) -> list[str]:
    flags = f"row level security: {'enabled' if rls else 'disabled'}, {'forced' if forced else 'not forced'}"
    return [flags, *(f"{role} may {', '.join(sorted(rights[role]))}" for role in sorted(rights) if rights[role])]


def _policy(policy: Policy) -> Block:
    return f"policy {policy.name} on {policy.table}", create(policy).splitlines()


def _trigger(table: Name, name: str, definition: str) -> Block:
    return f"trigger {name} on {table}", [definition.replace("\0", str(table))]


def _function(name: str, arguments: str, text: str, execute: Collection[str], owner: str) -> Block:
    lines = [*text.splitlines(), f"execute: {', '.join(sorted(execute))}", f"owner: {owner}"]
    return f"function {HELPERS}.{name}({arguments})", lines
