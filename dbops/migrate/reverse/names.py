"""The names that PostgreSQL chooses for an index, a constraint or statistics that has none in its statement.

After makeObjectName, ChooseIndexName and their kin (src/backend/commands/indexcmds.c, src/backend/catalog/
pg_constraint.c). A name that is taken already gets a number, which the statement does not show: each name here is
the one where it is free.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dbops.migrate.parse import Node, unwrap, walk
from dbops.migrate.reverse.nodes import names

_LIMIT = 63  # NAMEDATALEN - 1


def index_name(table: str, elements: Iterable[Node]) -> str:
    """The name of an index, or an empty text where it is not certain; `elements`: key columns, then included ones."""
    return _over(table, [_element_name(unwrap(element)) for element in elements], "idx")


def statistics_name(table: str, elements: Iterable[Node]) -> str:
    """The name of extended statistics without one; an expression counts as `expr`."""
    return _over(table, [unwrap(element).name or "expr" for element in elements], "stat")


def constraint_name(table: str, constraint: Node, kind: str) -> str:
    """The name of a table's constraint without one, or an empty text where it is not certain."""
    if kind == "CONSTR_PRIMARY":
        return object_name(table, "", "pkey")
    if kind == "CONSTR_UNIQUE":
        return _over(table, [*names(constraint.keys), *names(constraint.including)], "key")
    if kind == "CONSTR_FOREIGN":
        return _over(table, list(names(constraint.fk_attrs)), "fkey")
    if kind == "CONSTR_CHECK":
        return _check_name(table, constraint.raw_expr)
    if kind == "CONSTR_EXCLUSION":
        excluded = [_element_name(unwrap(unwrap(pair).items[0])) for pair in constraint.exclusions]
        return _over(table, [*excluded, *names(constraint.including)], "excl")
    return ""


def object_name(first: str, second: str, label: str) -> str:
    """`first_second_label`, the longer of the first two cut until all fits."""
    room = _LIMIT - len(label) - 1 - (1 if second else 0)
    one, two = len(first.encode()), len(second.encode())
    while one + two > room:
        if one > two:
            one -= 1
        else:
            two -= 1
    return "_".join(part for part in (_cut(first, one), _cut(second, two), label) if part)


def _over(table: str, columns: Sequence[str], label: str) -> str:
    """Over several columns; empty where one's name is not known, or where two are equal (PostgreSQL numbers them)."""
    if not all(columns) or len(set(columns)) < len(columns):
        return ""
    return object_name(table, _cut("_".join(columns), _LIMIT), label)


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode("utf-8", "ignore")


def _element_name(element: Node) -> str:
    """A column's own name, a plain function's name; other expressions are left to PostgreSQL."""
    if element.name or not element.HasField("expr"):
        return str(element.name)
    expression = unwrap(element.expr)
    return names(expression.funcname)[-1] if expression.DESCRIPTOR.name == "FuncCall" else ""


def _check_name(table: str, expression: Node) -> str:
    """A check on one column is named after it, any other after the table alone."""
    columns = [[unwrap(f) for f in node.fields] for node in walk(expression) if node.DESCRIPTOR.name == "ColumnRef"]
    if any(parts[-1].DESCRIPTOR.name != "String" for parts in columns):
        return ""
    found = {parts[-1].sval for parts in columns}
    if found == {table}:  # the whole row, or a column of that name
        return ""
    return object_name(table, found.pop() if len(found) == 1 else "", "check")
