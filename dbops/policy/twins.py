"""Policies and triggers made on temporary twins of their tables, so that PostgreSQL prints them, and rolled back.

A twin has its table's name and columns; the table itself is only read (ACCESS SHARE). What can be said of the table
itself only, a function of its rows or its name with its schema, is compared as a tree instead (`_on_table`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from dbops.errors import Blocked, DbopsError, DefinitionError, NotAllowed
from dbops.policy.catalog import rows
from dbops.policy.model import Name
from dbops.policy.pipeline import send
from dbops.policy.state import Catalog, Policy, Table, Trigger
from dbops.policy.texts import TABLE, clauses, identifier, raw, template, without_twin

if TYPE_CHECKING:
    from dbops.database import Connection

Item = Policy | Trigger
# tables at once: each twin takes entries of the server's lock table, which holds a few thousand
_BATCH = 100
_PROBE = "dbops_probe"


@dataclass(frozen=True)
class Text:
    """What PostgreSQL makes of an item: (USING, WITH CHECK), or (definition, None) of a trigger.

    `reads`: what its subqueries read. `subquery`: whether USING holds one.
    """

    texts: tuple[str | None, str | None]
    reads: frozenset[Name] = frozenset()
    itself: bool = False  # a subquery reads the very twin
    subquery: bool = False
    names_a_twin: bool = False  # of a table or type that no schema of the search_path has


def print_items(
    conn: Connection, items: Iterable[Item], catalog: Catalog, where: Callable[[Item], str]
) -> dict[Item, Text]:
    """Each item as PostgreSQL prints it. `pg_temp` must be last in the search_path; `where` names an item in errors.

    Raises DefinitionError for what PostgreSQL refuses, NotAllowed, Blocked.
    """
    texts: dict[Item, Text] = {}
    for batch in _batches(items):
        try:
            together = _on_twins(conn, batch, catalog.tables)
        except psycopg.Error:
            together = {}  # one by one, to find which of them
        for item in batch:
            text = together.get(item)
            fine = text is not None and _is_whole(item, text) and not text.itself and not text.names_a_twin
            texts[item] = text if text and fine else _alone(conn, item, catalog, where(item))
    return texts


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Items of at most _BATCH tables, no two of which are named alike: their twins share a schema."""
    by_table: dict[Name, list[Item]] = defaultdict(list)
    for item in items:
        by_table[item.table].append(item)
    batch: dict[str, list[Item]] = {}
    for name, group in by_table.items():
        if name.name in batch or len(batch) == _BATCH:
            yield [item for each in batch.values() for item in each]
            batch = {}
        batch[name.name] = group
    yield [item for each in batch.values() for item in each]


def _on_twins(conn: Connection, items: Sequence[Item], tables: Mapping[Name, Table]) -> dict[Item, Text]:
    """Make the twins and the items in one message, and read what was made."""
    if not items:
        return {}
    with conn.transaction(force_rollback=True):  # the locks go with the twins
        twins = [_twin(tables[name]).as_string() for name in dict.fromkeys(item.table for item in items)]
        _, error = send(conn, [*twins, *map(_statement, items)])
        if error is not None:
            raise error
        rows(conn, "policy_set_path", path="")
        made = {(row[0], row[1]): row[2:] for row in rows(conn, "policy_twins")}
        triggers = {(row[0], row[1]): row[2] for row in rows(conn, "policy_twin_triggers")}
    texts: dict[Item, Text] = {}
    for item in items:
        if isinstance(item, Trigger):
            texts[item] = Text((without_twin(triggers[item.table.name, item.name]), None))
        else:
            using, check, itself, subquery, of_twins, reads = made[item.table.name, item.name]
            read = {Name(*name) for name in reads} | ({item.table} if itself else set())
            texts[item] = Text((using, check), frozenset(read), itself, subquery, of_twins)
    return texts


def _twin(table: Table) -> sql.Composed:
    """Partitioned where it has a column: without storage it is made in an eighth of the time."""
    twin = sql.SQL("create temporary table {} (like {})").format(
        sql.Identifier("pg_temp", table.name.name), identifier(table.name)
    )
    if not table.columns:
        return twin
    return twin + sql.SQL(" partition by list (({} is null))").format(sql.Identifier(table.columns[0].name))


def _statement(item: Item) -> str:
    twin = sql.Identifier("pg_temp", item.table.name)
    if isinstance(item, Policy):
        # for ALL: it takes both expressions
        return sql.SQL("create policy {} on {}{}").format(sql.Identifier(item.name), twin, clauses(item)).as_string()
    text = template(item)
    if TABLE not in text:
        raise DbopsError(f"trigger {item.name}: its statement does not name {identifier(item.table).as_string()}")
    return text.replace(TABLE, twin.as_string())


def _is_whole(item: Item, text: Text) -> bool:
    """Whether each text is the expression that it stands for: `true) with check (true` is two."""
    return isinstance(item, Trigger) or [t is None for t in text.texts] == [item.using is None, item.check is None]


def _alone(conn: Connection, item: Item, catalog: Catalog, where: str) -> Text:
    try:
        text = _on_twins(conn, [item], catalog.tables)[item]
    except psycopg.Error as error:
        # a function of the table's row type, or the table's name with its schema: only on the table itself
        if error.sqlstate not in ("42883", "42P01", "42703") or isinstance(item, Trigger) or not _mentions(item):
            raise refused(error, where) from error
        return _on_table(conn, item, catalog, where)
    if not _is_whole(item, text):
        raise DefinitionError(
            f"{where}: a predicate is not one expression", hint="nothing was applied; mend the predicate"
        )
    if text.itself:
        raise DefinitionError(
            f"{where}: a subquery reads {item.table.name}, which the search_path does not find",
            hint="write its schema too; nothing was applied",
        )
    return _on_table(conn, item, catalog, where) if text.names_a_twin and isinstance(item, Policy) else text


def _mentions(policy: Policy) -> bool:
    return any(policy.table.name.casefold() in (text or "").casefold() for text in (policy.using, policy.check))


# --- on the table itself -------------------------------------------------------------------------


def _on_table(conn: Connection, policy: Policy, catalog: Catalog, where: str) -> Text:
    """Compare the trees that PostgreSQL stores: equal ones have the text of the catalog's policy, others their own.

    A function whose body reads the table `where` the predicate holds takes ACCESS SHARE; a policy or a view's rule on
    the table would take ACCESS EXCLUSIVE. Its condition is stored as a policy's.
    """
    there = next((p for p in catalog.policies if (p.table, p.name) == (policy.table, policy.name)), None)
    texts: list[str | None] = []
    reads: set[Name] = set()
    subquery = False
    for number, text in enumerate((policy.using, policy.check)):
        if text is None:
            texts.append(None)
            continue
        try:
            same, itself, has_subquery, read = _compared(conn, text, policy, number)
        except psycopg.Error as error:
            raise refused(error, where) from error
        now = (there.using, there.check)[number] if there else None
        texts.append(now if same else f"{text} " if text == now else text)
        reads |= {Name(*name) for name in read} | ({policy.table} if itself else set())
        subquery |= has_subquery and number == 0
    return Text((texts[0], texts[1]), frozenset(reads), subquery=subquery)


def _compared(conn: Connection, text: str, policy: Policy, number: int) -> tuple[bool, bool, bool, list[list[str]]]:
    """Whether the predicate is the policy's in the catalog (`number` 0: USING, 1: WITH CHECK), and what it reads."""
    statement = sql.SQL(
        "create function {}() returns setof int language sql begin atomic select 1 from only {} where ({}); end"
    ).format(sql.Identifier("pg_temp", _PROBE), identifier(policy.table), raw(text))
    with conn.transaction(force_rollback=True):
        conn.execute(statement.as_string().encode(), binary=True)
        found = rows(
            conn, "policy_probe", function=_PROBE, number=number,
            schema=policy.table.schema, table=policy.table.name, policy=policy.name,
        )  # fmt: skip
    same, itself, subquery, reads = found[0]
    return same, itself, subquery, reads


def refused(error: psycopg.Error, where: str) -> DbopsError:
    """Why PostgreSQL does not take a definition; the error itself where that is not what it says."""
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
