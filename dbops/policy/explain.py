"""In plain words: who may do what on a table, and by which way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dbops.policy.model import VERBS, Definitions, Name, Verb
from dbops.policy.plan import held
from dbops.policy.state import Catalog, Function, Policy, Role, Table, View

_UNHELD = ("TRUNCATE", "REFERENCES", "TRIGGER")


@dataclass(frozen=True)
class Explanation:
    """Sentences about one table; `str()` is all of them, a line each."""

    table: str
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        return "".join(f"{sentence}\n" for sentence in self.sentences)


def explain(name: Name, definitions: Definitions | None, catalog: Catalog) -> Explanation:
    """Who may do what on a table of the catalog, by grants, policies, bypassing roles, views and functions."""
    table = catalog.tables[name]
    policies = [policy for policy in catalog.policies if policy.table == name]
    sentences = [*_flags(table, policies), *_definition(name, definitions)]
    for role in _roles_of_interest(table, policies, catalog):
        sentences += _role(role, table, policies, catalog)
    sentences += [*_views(table, catalog), *_functions(table, catalog)]
    return Explanation(str(name), tuple(sentences))


def _flags(table: Table, policies: list[Policy]) -> Iterator[str]:
    if not table.rls:
        unused = f"; its {len(policies)} policies do nothing" if policies else ""
        yield f"Row level security is disabled on {table.name}: whoever has a privilege has it for all rows{unused}."
    elif table.forced:
        yield f"Row level security is enabled and forced on {table.name}: it holds for the owner {table.owner} too."
    else:
        yield (
            f"Row level security is enabled on {table.name} and not forced: the owner {table.owner}, "
            "and whoever can act as the owner, passes by it."
        )
    if table.partition_of:
        yield f"It is a partition of {table.partition_of}: through the parent, the parent's policies hold."


def _definition(name: Name, definitions: Definitions | None) -> Iterator[str]:
    if definitions is None:
        return
    rules = definitions.tables.get(name)
    yield f"Its definition is {rules.path.name}:{rules.line}." if rules else "No definition speaks of it."


def _roles_of_interest(table: Table, policies: list[Policy], catalog: Catalog) -> list[str]:
    """Who is named by a grant or a policy, the owner, and whoever can become one who passes by."""
    columns = [role for grants in table.column_grants.values() for role in grants]
    named = {table.owner, *table.grants, *columns, *(role for policy in policies for role in policy.roles)}
    return ["public"] * ("public" in named) + sorted(name for name in named if name in catalog.roles)


def _role(name: str, table: Table, policies: list[Policy], catalog: Catalog) -> Iterator[str]:
    role = catalog.roles.get(name, Role("public", False, False, frozenset()))
    shown = "Everybody (PUBLIC)" if name == "public" else name
    if role.superuser:
        yield f"{shown} is a superuser: it may do everything, and no policy holds for it."
        return
    rights = rights_of(role, table, catalog)
    passes = _passes_by(role, table)
    for verb in VERBS:
        yield f"{shown} {_may(verb, role, rights, passes, table, policies)}"
    unheld = sorted(rights.intersection(_UNHELD))
    if unheld:
        yield f"{shown} may {', '.join(unheld)}: no policy holds that back."
    becomes = sorted(above for above in role.member_of if (r := catalog.roles[above]).bypasses or r.superuser)
    if becomes:
        yield f"{shown} can become {', '.join(becomes)}, for whom no policy holds."


def rights_of(role: Role, table: Table, catalog: Catalog) -> frozenset[str]:
    """What a role may do on a table or on columns of it: directly, by PUBLIC, or as a member of others."""
    if role.superuser:
        return held(table, table.owner) | {verb.upper() for verb in VERBS} | set(_UNHELD)
    return held(table, role.name).union(held(table, "public"), *(held(table, above) for above in role.member_of))


def _passes_by(role: Role, table: Table) -> str:
    """Why no policy holds for a role; empty where they do."""
    if not table.rls:
        return "row level security is disabled"
    if role.bypasses:
        return f"{role.name} has BYPASSRLS"
    if not table.forced and table.owner in (role.name, *role.member_of):
        return "the owner is not forced"
    return ""


def _may(
    verb: Verb, role: Role, rights: frozenset[str], passes: str, table: Table, policies: list[Policy]
) -> str:  # fmt: skip
    word = verb.upper()
    if word not in rights:
        return f"may not {word}: it has no privilege."
    columns = "" if _whole(word, role, table) else " (some columns)"
    if passes:
        return f"may {word}{columns} all rows: {passes}."
    there = [p for p in policies if p.verb in (verb, "all") and {role.name, "public", *role.member_of} & set(p.roles)]
    permissive = [policy for policy in there if policy.permissive]
    if not permissive:
        return f"may {word} no row: it has the privilege, and no policy opens one."
    condition = " or ".join(dict.fromkeys(_condition(policy, verb) for policy in permissive))
    strict = dict.fromkeys(_condition(policy, verb) for policy in there if not policy.permissive)
    only = f", and only where {' and '.join(strict)}" if strict else ""
    by = ", ".join(policy.name for policy in there)
    return f"may {word}{columns} rows where {condition}{only} (by {by})."


def _whole(privilege: str, role: Role, table: Table) -> bool:
    return privilege == "DELETE" or any(
        privilege in table.grants.get(name, ()) for name in (role.name, "public", *role.member_of)
    )


def _condition(policy: Policy, verb: Verb) -> str:
    """What a row must fulfil before; for INSERT and UPDATE what it must fulfil afterwards."""
    before = "" if verb == "insert" else policy.using or "true"
    after = "" if verb in ("select", "delete") else policy.check or policy.using or "true"
    if before and after and before != after:
        return f"{before} [afterwards {after}]"
    return before or after


def _views(table: Table, catalog: Catalog) -> Iterator[str]:
    for view in sorted(catalog.views.values(), key=lambda view: view.name):
        if table.name in view.reads:
            readers = sorted(role for role, may in view.grants.items() if "SELECT" in may and role != view.owner)
            yield f"{_how(view, catalog)}; SELECT on it: {', '.join(readers) or 'its owner only'}."


def _how(view: View, catalog: Catalog) -> str:
    if view.materialized:
        return f"The materialized view {view.name} holds a copy of rows, for which no policy holds"
    if view.security_invoker:
        return f"The view {view.name} reads it with the rights of whoever asks"
    owner = catalog.roles[view.owner]
    passes = ", for whom no policy holds" if owner.superuser or owner.bypasses else ""
    return f"The view {view.name} reads it with the rights of its owner {view.owner}{passes}"


def _functions(table: Table, catalog: Catalog) -> Iterator[str]:
    """A function's body is not read: what it may reach is what its owner may."""
    for function in catalog.functions:
        if function.definer and _reaches(function, table, catalog):
            callers = sorted(function.executable_by - {function.owner})
            if callers:
                yield (
                    f"The SECURITY DEFINER function {function.name}({function.arguments}) runs as {function.owner}, who may "
                    f"SELECT from it; it may be called by {', '.join(callers)} (what it does is not looked into)."
                )


def _reaches(function: Function, table: Table, catalog: Catalog) -> bool:
    return "SELECT" in rights_of(catalog.roles[function.owner], table, catalog)
