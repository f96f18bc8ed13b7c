"""Policies that read each other's tables in a circle: PostgreSQL says so (42P17) only when a row is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dbops.policy.model import Auth, Definitions, Name, TableRules
from dbops.policy.place import unfit
from dbops.policy.predicate import check_predicate
from dbops.policy.tokens import tokens

Views = Mapping[Name, tuple[Name, ...]]


@dataclass(frozen=True)
class Written:
    """A predicate of a definition, and for whom and what it holds."""

    key: str
    text: str
    roles: tuple[str, ...]
    selects: bool  # also when rows are read

    def holds_for(self, role: str) -> bool:
        return role in self.roles or "public" in self.roles


def written(rules: TableRules) -> Iterator[Written]:
    """All predicates of a table's rules."""
    for number, shared in enumerate(rules.shared, 1):
        yield Written(f"shared {number}, when", shared.when, shared.to, "select" in shared.verbs)
    for raw in rules.raw:
        for key, text in (("using", raw.using), ("check", raw.check)):
            if text is not None:
                selects = key == "using" and raw.verb in ("all", "select")
                yield Written(f'raw "{raw.name}", {key}', text, raw.to, selects)


def refuse_recursion(definitions: Definitions, views: Views) -> None:
    """Raise DefinitionError, with the circle, where a policy's subqueries come back to its own table.

    `views` are those that read with their caller's rights, each with the tables that it reads. The membership helper
    is no part of a circle: it runs with its owner's rights.
    https://www.postgresql.org/docs/current/ddl-rowsecurity.html
    """
    roles = {role for rules in definitions.tables.values() for each in written(rules) for role in each.roles}
    for role in sorted(roles):
        reads = {name: _reads(rules, role, definitions, views) for name, rules in definitions.tables.items()}
        for name, rules in definitions.tables.items():
            # what is reached again is harmless as long as its own policies hold no subselect
            if not _has_subselect(rules, role, definitions.auth):
                continue
            for each, found in _direct(rules, role, definitions, views):
                if circle := _way(found, name, reads):
                    raise _circle(rules, each, (name, *circle))


def _circle(rules: TableRules, each: Written, circle: tuple[Name, ...]) -> Exception:
    return unfit(
        rules,
        each.key,
        f"its subquery comes back to the table: {' -> '.join(map(str, circle))} (PostgreSQL: infinite recursion, 42P17)",
        "read it in a SECURITY DEFINER function, as the rule tenant does",
    )


def _direct(
    rules: TableRules, role: str, definitions: Definitions, views: Views
) -> Iterator[tuple[Written, set[Name]]]:
    for each in filter(lambda each: each.holds_for(role), written(rules)):
        paths = check_predicate(each.text).tables
        named = {name for path in paths for name in _resolved(path, rules.name, definitions, views)}
        yield each, {table for name in named for table in (*views.get(name, ()), name)} & set(definitions.tables)


def _reads(rules: TableRules, role: str, definitions: Definitions, views: Views) -> set[Name]:
    """The defined tables that are read whenever this one is."""
    return {name for each, found in _direct(rules, role, definitions, views) if each.selects for name in found}


def _resolved(path: tuple[str, ...], table: Name, definitions: Definitions, views: Views) -> Iterator[Name]:
    """A bare name may be in the schema of the table, or in public: the search_path of whoever applies is not known."""
    if len(path) > 1:
        yield Name(path[-2], path[-1])
        return
    places = (Name(schema, path[0]) for schema in (table.schema, "public"))
    yield from (name for name in places if name in definitions.tables or name in views)


def _has_subselect(rules: TableRules, role: str, auth: Auth) -> bool:
    generated = role == auth.user_role and bool(rules.tenant or (rules.owner and "select" in rules.verbs))
    return generated or any(
        token.kind == "word" and token.text == "select"
        for each in written(rules)
        if each.selects and each.holds_for(role)
        for token in tokens(each.text)
    )


def _way(first: set[Name], goal: Name, reads: Mapping[Name, set[Name]]) -> tuple[Name, ...]:
    """The shortest way from one of `first` to `goal`; () where there is none."""
    ways: list[tuple[Name, ...]] = [(name,) for name in sorted(first)]
    seen = set(first)
    for way in ways:
        if way[-1] == goal:
            return way
        fresh = sorted(reads[way[-1]] - seen)
        seen.update(fresh)
        ways += [(*way, name) for name in fresh]
    return ()
