"""What PostgreSQL makes of the texts of definitions: it prints them itself, so that its text is compared with its text.

All happens in a transaction that is rolled back.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from dbops.errors import Blocked, NotAllowed
from dbops.lock import INNER_NAMESPACE, lock_key
from dbops.policy.catalog import rows
from dbops.policy.model import HELPERS, Name
from dbops.policy.state import Catalog, Helper, Policy, Table, Trigger, Wanted
from dbops.policy.texts import template
from dbops.policy.twins import Item, Text, print_items, refused

if TYPE_CHECKING:
    from dbops.database import Connection

Key = tuple[Name, str]


@dataclass(frozen=True)
class Printed:
    """Texts as PostgreSQL prints them: (USING, WITH CHECK) of a policy, a trigger's and a helper's definition.

    `reads`: the tables and views that a policy's subqueries read; `subqueries`: the policies with one in USING.
    """

    policies: Mapping[Key, tuple[str | None, str | None]] = field(default_factory=dict)
    triggers: Mapping[Key, str] = field(default_factory=dict)
    helpers: Mapping[tuple[str, str], str] = field(default_factory=dict)  # by name and arguments
    reads: Mapping[Key, frozenset[Name]] = field(default_factory=dict)
    subqueries: frozenset[Key] = frozenset()


def print_wanted(conn: Connection, wanted: Wanted, catalog: Catalog) -> Printed:
    """Have PostgreSQL print what is wanted. Needs an open transaction, of which all of this is rolled back.

    Raises DefinitionError (file, table, policy) for a predicate that PostgreSQL refuses, NotAllowed without the right
    to make temporary tables or where the helpers' schema is somebody else's, Blocked behind an ACCESS EXCLUSIVE lock.
    """
    path = str(rows(conn, "policy_search_path")[0][0])
    with conn.transaction(force_rollback=True):
        _require_temporary(conn, catalog)
        helpers = _helpers(conn, wanted.helpers, catalog)
        # last, so that names in a predicate are the real tables'
        rows(conn, "policy_set_path", path=", ".join(filter(None, (path, "pg_temp"))))
        items: list[Item] = []
        for table in wanted.tables.values():
            items += [*table.policies, *table.triggers]
        texts = _print_all(conn, items, wanted, catalog)
    policies = {(i.table, i.name): texts[i] for i in items if isinstance(i, Policy)}
    return Printed(
        {key: text.texts for key, text in policies.items()},
        {(i.table, i.name): str(texts[i].texts[0]) for i in items if isinstance(i, Trigger)},
        helpers,
        {key: text.reads for key, text in policies.items()},
        frozenset(key for key, text in policies.items() if text.subquery),
    )


def _require_temporary(conn: Connection, catalog: Catalog) -> None:
    if not rows(conn, "policy_may_temp")[0][0]:
        raise NotAllowed(
            f"role {catalog.user} may not make temporary tables in {catalog.database}: predicates cannot be compared",
            hint=f'as its owner: GRANT TEMPORARY ON DATABASE "{catalog.database}" TO "{catalog.user}"; nothing was done',
        )


# --- helpers -------------------------------------------------------------------------------------


def _helpers(conn: Connection, helpers: Sequence[Helper], catalog: Catalog) -> dict[tuple[str, str], str]:
    if not helpers:
        return {}
    _require_schema(conn, catalog)
    lock_helpers(conn)
    conn.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(HELPERS)))
    for helper in helpers:
        try:
            _make_helper(conn, helper, catalog)
        except psycopg.Error as error:
            raise refused(error, f"function {HELPERS}.{helper.name}") from error
    found = rows(conn, "policy_functions", schemas=[], helpers=HELPERS)
    definitions = {(row[0], row[1], row[3]): row[11] for row in found}
    return {(h.name, h.arguments): definitions[HELPERS, h.name, h.arguments] for h in helpers}


def lock_helpers(conn: Connection) -> None:
    """Be the only one who makes helpers, to the end of the (sub)transaction. Raises Blocked."""
    try:
        rows(conn, "policy_lock", namespace=INNER_NAMESPACE, key=lock_key(HELPERS))
    except psycopg.errors.LockNotAvailable as error:
        hint = "wait for the other plan or apply and try again; nothing was applied"
        raise Blocked(f"the helpers in schema {HELPERS} are being made by another session", hint=hint) from error


def _make_helper(conn: Connection, helper: Helper, catalog: Catalog) -> None:
    """Any function of that name is moved aside first: its result may be another, and policies may need it."""
    for function in catalog.functions:
        if function.name == Name(HELPERS, helper.name):
            aside = sql.SQL("alter function {}({}) rename to {}").format(
                sql.Identifier(HELPERS, helper.name), sql.SQL(function.arguments), sql.Identifier(str(function.oid))
            )
            conn.execute(aside)
    conn.execute(helper.statement.encode(), binary=True)


def _require_schema(conn: Connection, catalog: Catalog) -> None:
    """Whoever owns the schema can put functions of his own in the helpers' place."""
    for owner, may_create in rows(conn, "policy_helper_schema", schema=HELPERS):
        me = catalog.roles[catalog.user]
        theirs = catalog.roles[owner]
        trusted = theirs.superuser or (me.superuser and theirs.bypasses)
        if owner != me.name and owner not in me.member_of and not (trusted and may_create):
            raise NotAllowed(
                f"schema {HELPERS} is owned by {owner}, not by {me.name}: its owner could replace what policies trust",
                hint=f'look at what is in it, then: ALTER SCHEMA {HELPERS} OWNER TO "{me.name}"; or connect as {owner}. '
                "Nothing was done",
            )


# --- policies and triggers -----------------------------------------------------------------------


def _print_all(conn: Connection, items: Sequence[Item], wanted: Wanted, catalog: Catalog) -> dict[Item, Text]:
    """Equal texts over equal columns are printed once, unless what is printed names the table."""

    def where(item: Item) -> str:
        kind = "policy" if isinstance(item, Policy) else "trigger"
        return f"{wanted.tables[item.table].source}: {item.table}: {kind} {item.name}"

    groups: dict[object, list[Item]] = defaultdict(list)
    for item in items:
        groups[_likeness(item, catalog.tables[item.table])].append(item)
    texts = print_items(conn, [group[0] for group in groups.values()], catalog, where)
    alone = [item for first, *others in groups.values() if _names_table(texts[first], first.table) for item in others]
    texts |= print_items(conn, alone, catalog, where)
    for first, *others in groups.values():
        texts |= {item: texts[first] for item in others if item not in texts}
    return texts


def _source(item: Item) -> str:
    if isinstance(item, Trigger):
        return template(item)
    return "\0".join(text for text in (item.using, item.check) if text is not None)


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


def _names_table(text: Text, table: Name) -> bool:
    return any(table.name in part for part in text.texts if part)
