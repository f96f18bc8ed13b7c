"""What PostgreSQL makes of the texts of definitions: it prints them itself, so that its text is compared with its text.

All happens in a transaction that is rolled back. A policy or trigger is made on a temporary twin of its table, of the
same name and columns: the table itself is only read (ACCESS SHARE).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from dbops.errors import Blocked, DbopsError, DefinitionError, NotAllowed
from dbops.lock import INNER_NAMESPACE, lock_key
from dbops.policy.catalog import rows
from dbops.policy.model import HELPERS, Name
from dbops.policy.state import Catalog, Helper, Policy, Table, Trigger, Wanted

if TYPE_CHECKING:
    from dbops.database import Connection

Item = Policy | Trigger
Key = tuple[Name, str]
# stands for the table's name in a trigger's text
_TABLE = "\0"
_PROBE = "dbops_probe"
_ON_TWIN = re.compile(r' ON pg_temp(?:_\d+)?\.(?:"(?:[^"]|"")+"|[^\s"]+) ')


@dataclass(frozen=True)
class Printed:
    """Texts as PostgreSQL prints them: (USING, WITH CHECK) of a policy, a trigger's and a helper's definition.

    `reads`: the tables and views that a policy's subqueries read.
    """

    policies: Mapping[Key, tuple[str | None, str | None]] = field(default_factory=dict)
    triggers: Mapping[Key, str] = field(default_factory=dict)
    helpers: Mapping[tuple[str, str], str] = field(default_factory=dict)  # by name and arguments
    reads: Mapping[Key, frozenset[Name]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Text:
    texts: tuple[str | None, str | None]
    reads: frozenset[Name] = frozenset()


def identifier(name: Name) -> sql.Identifier:
    return sql.Identifier(name.schema, name.name)


def print_wanted(conn: Connection, wanted: Wanted, catalog: Catalog) -> Printed:
    """Have PostgreSQL print what is wanted. Needs an open transaction, of which all of this is rolled back.

    Raises DefinitionError (file, table, policy) for a predicate that PostgreSQL refuses or that would recurse,
    NotAllowed without the right to make temporary tables, Blocked behind somebody's ACCESS EXCLUSIVE lock.
    """
    path = str(rows(conn, "policy_search_path")[0][0])
    with conn.transaction(force_rollback=True):
        _require_temporary(conn, catalog)
        helpers = _helpers(conn, wanted.helpers)
        # last, so that names in a predicate are the real tables'
        rows(conn, "policy_set_path", path=", ".join(filter(None, (path, "pg_temp"))))
        items: list[Item] = []
        for table in wanted.tables.values():
            items += [*table.policies, *table.triggers]
        texts = _print_all(conn, items, wanted, catalog)
    printed = Printed(
        {(i.table, i.name): texts[i].texts for i in items if isinstance(i, Policy)},
        {(i.table, i.name): str(texts[i].texts[0]) for i in items if isinstance(i, Trigger)},
        helpers,
        {(i.table, i.name): texts[i].reads for i in items if isinstance(i, Policy)},
    )
    refuse_recursion(wanted, catalog, printed)
    return printed


def _require_temporary(conn: Connection, catalog: Catalog) -> None:
    if not rows(conn, "policy_may_temp")[0][0]:
        raise NotAllowed(
            f"role {catalog.user} may not make temporary tables in {catalog.database}: predicates cannot be compared",
            hint=f'as its owner: GRANT TEMPORARY ON DATABASE "{catalog.database}" TO "{catalog.user}"; nothing was done',
        )


def _helpers(conn: Connection, helpers: Sequence[Helper]) -> dict[tuple[str, str], str]:
    if not helpers:
        return {}
    try:
        rows(conn, "policy_lock", namespace=INNER_NAMESPACE, key=lock_key(HELPERS))
    except psycopg.errors.LockNotAvailable as error:
        hint = "wait for the other plan or apply and try again; nothing was applied"
        raise Blocked(f"the helpers in schema {HELPERS} are being made by another session", hint=hint) from error
    conn.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(HELPERS)))
    for helper in helpers:
        try:
            with conn.transaction():
                conn.execute(helper.statement.encode())
        except psycopg.Error as error:
            raise _refused(error, f"function {HELPERS}.{helper.name}") from error
    found = rows(conn, "policy_functions", schemas=[], helpers=HELPERS)
    definitions = {(row[1], row[3]): row[11] for row in found}
    return {(h.name, h.arguments): definitions[h.name, h.arguments] for h in helpers}


def _print_all(conn: Connection, items: Sequence[Item], wanted: Wanted, catalog: Catalog) -> dict[Item, _Text]:
    """Equal texts over equal columns are printed once, unless what is printed names the table."""
    groups: dict[object, list[Item]] = defaultdict(list)
    for item in items:
        groups[_likeness(item, catalog.tables[item.table])].append(item)
    texts = _print(conn, [group[0] for group in groups.values()], wanted, catalog)
    alone = [item for first, *others in groups.values() if _names_table(texts[first], first.table) for item in others]
    texts |= _print(conn, alone, wanted, catalog)
    for first, *others in groups.values():
        texts |= {item: texts[first] for item in others if item not in texts}
    return texts


def _source(item: Item) -> str:
    if isinstance(item, Trigger):
        return _template(item)
    return "\0".join(text for text in (item.using, item.check) if text is not None)


def _template(trigger: Trigger) -> str:
    return trigger.definition.replace(identifier(trigger.table).as_string(), _TABLE, 1)


def _likeness(item: Item, table: Table) -> object:
    """Two items of the same likeness mean the same: the same text over columns of the same names and types."""
    text = _source(item).casefold()
    words = set(re.findall(r"\w+", text))
    # a name with blanks, or one written by escapes, is not found among the words
    if 'u&"' in text or words.issuperset(re.findall(r"\w+", table.name.name.casefold())):
        return item
    mentioned = tuple(
        (c.name, c.type) for c in table.columns if words.issuperset(re.findall(r"\w+", c.name.casefold()))
    )
    return (type(item), _source(item), getattr(item, "using", None) is None, mentioned)


def _names_table(text: _Text, table: Name) -> bool:
    return any(table.name in part for part in text.texts if part)


def _print(conn: Connection, items: Iterable[Item], wanted: Wanted, catalog: Catalog) -> dict[Item, _Text]:
    by_table: dict[Name, list[Item]] = defaultdict(list)
    for item in items:
        by_table[item.table].append(item)
    texts: dict[Item, _Text] = {}
    for name, group in by_table.items():
        # its locks go with each twin
        with conn.transaction(force_rollback=True):
            _make_twin(conn, name)
            for item in group:
                kind = "policy" if isinstance(item, Policy) else "trigger"
                where = f"{wanted.tables[name].source}: {name}: {kind} {item.name}"
                texts[item] = _one(conn, item, catalog.tables[name], where)
    return texts


def _make_twin(conn: Connection, name: Name) -> None:
    twin = sql.SQL("create temporary table {} (like {})")
    try:
        conn.execute(twin.format(sql.Identifier("pg_temp", name.name), identifier(name)))
    except psycopg.Error as error:
        raise _refused(error, f"table {name}") from error


def _one(conn: Connection, item: Item, table: Table, where: str) -> _Text:
    try:
        with conn.transaction(force_rollback=True):
            if isinstance(item, Trigger):
                return _trigger(conn, item)
            return _policy(conn, item, sql.Identifier("pg_temp", item.table.name), None, where)
    except psycopg.Error as error:
        # a function of the table's row type, or the table's name with its schema: only on the table itself
        if error.sqlstate not in ("42883", "42P01", "42703") or isinstance(item, Trigger) or not _mentions(item):
            raise _refused(error, where) from error
    try:
        with conn.transaction(force_rollback=True):
            # an exclusive lock, for the moment until the rollback
            conn.execute("set local lock_timeout = '200ms'")
            return _policy(conn, item, identifier(item.table), table.oid, where)
    except psycopg.Error as error:
        raise _refused(error, where) from error


def _mentions(policy: Policy) -> bool:
    return policy.table.name.casefold() in _source(policy).casefold()


def _policy(conn: Connection, policy: Policy, on: sql.Identifier, oid: int | None, where: str) -> _Text:
    """Make the policy on its twin, or under another name on the table `oid`, and read it."""
    name = policy.name if oid is None else _PROBE
    statement = sql.SQL("create policy {} on {}{}").format(sql.Identifier(name), on, clauses(policy))
    # by the extended protocol (binary), which takes one statement and no more
    conn.execute(statement.as_string().encode(), binary=True)
    rows(conn, "policy_set_path", path="")
    relation = oid or rows(conn, "policy_twin_oid", table=policy.table.name)[0][0]
    using, check, itself, reads = rows(conn, "policy_twin", table=relation, policy=name)[0]
    if (using is None) != (policy.using is None) or (check is None) != (policy.check is None):
        raise DefinitionError(
            f"{where}: a predicate is not one expression", hint="nothing was applied; mend the predicate"
        )
    if itself and oid is None:
        raise DefinitionError(
            f"{where}: a subquery reads {policy.table.name}, which the search_path does not find",
            hint="write its schema too; nothing was applied",
        )
    read = {Name(*name) for name in reads} | ({policy.table} if itself else set())
    return _Text((using, check), frozenset(read))


def clauses(policy: Policy) -> sql.Composed:
    """USING and WITH CHECK as they stand in CREATE and ALTER POLICY."""
    # the line's end closes a comment at the end of a predicate
    texts = (("USING", policy.using), ("WITH CHECK", policy.check))
    return sql.SQL("").join(
        sql.SQL(" {} ({})").format(sql.SQL(word), raw(text)) for word, text in texts if text is not None
    )


def raw(text: str) -> sql.SQL:
    """A text of a definition as it stands; printing it on a twin proves that it is one expression."""
    return sql.SQL(text + "\n" * ("--" in text))


def _trigger(conn: Connection, trigger: Trigger) -> _Text:
    template = _template(trigger)
    if _TABLE not in template:
        raise DbopsError(f"trigger {trigger.name}: its statement does not name {identifier(trigger.table).as_string()}")
    twin = sql.Identifier("pg_temp", trigger.table.name).as_string()
    conn.execute(template.replace(_TABLE, twin).encode(), binary=True)
    rows(conn, "policy_set_path", path="")
    relation = rows(conn, "policy_twin_oid", table=trigger.table.name)[0][0]
    text = rows(conn, "policy_twin_trigger", table=relation, trigger=trigger.name)[0][0]
    return _Text((_ON_TWIN.sub(f" ON {_TABLE} ", text, count=1), None))


def without_table(definition: str, table: Name) -> str:
    """A trigger's definition in the form of `Printed.triggers`: with a mark in the place of the table's name."""
    schemas, names = ((part, sql.Identifier(part).as_string()) for part in (table.schema, table.name))
    for label in (f" ON {schema}.{name} " for schema in schemas for name in names):
        if label in definition:
            return definition.replace(label, f" ON {_TABLE} ", 1)
    return definition


def refuse_recursion(wanted: Wanted, catalog: Catalog, printed: Printed) -> None:
    """Raise DefinitionError for policies whose subqueries come back to their own table: 42P17 for every user."""
    policies = [policy for table in wanted.tables.values() for policy in table.policies]
    for role in sorted({role for policy in policies for role in policy.roles}):
        own = [p for p in policies if {role, "public"} & set(p.roles)]
        reads: dict[Name, set[Name]] = defaultdict(set)
        for policy in own:
            if policy.verb in ("all", "select"):
                reads[policy.table] |= _tables_read(policy, wanted, catalog, printed)
        for policy in own:
            circle = _way(policy.table, _tables_read(policy, wanted, catalog, printed), reads)
            if circle and _has_subquery(policy.table, own, printed):
                way = " -> ".join(str(name) for name in (policy.table, *circle))
                raise DefinitionError(
                    f"{wanted.tables[policy.table].source}: {policy.table}: policy {policy.name}: infinite recursion "
                    f"for role {role} (42P17): {way}",
                    hint="read the other table in a SECURITY DEFINER function; nothing was applied",
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


def _has_subquery(table: Name, policies: Sequence[Policy], printed: Printed) -> bool:
    """PostgreSQL refuses to come back to a table only where the policies for reading it hold a subquery."""
    reading = [p for p in policies if p.table == table and p.verb in ("all", "select")]
    return any(re.search(r"\bSELECT\b", printed.policies[p.table, p.name][0] or "") for p in reading)


def _refused(error: psycopg.Error, where: str) -> DbopsError:
    if error.sqlstate == "55P03":
        return Blocked(
            f"{where}: another session holds it exclusively", hint="wait for its end and try again; nothing was applied"
        )
    if error.sqlstate == "42501":
        return NotAllowed(f"{where}: {error.diag.message_primary}", hint="connect as the owner; nothing was applied")
    if not error.sqlstate or error.sqlstate[:2] not in ("42", "22", "0A", "2F"):
        raise error
    detail = f" ({error.diag.message_hint})" if error.diag.message_hint else ""
    return DefinitionError(
        f"{where}: PostgreSQL refuses it: {error.diag.message_primary}{detail} [{error.sqlstate}]",
        hint="nothing was applied; mend the definition",
    )
