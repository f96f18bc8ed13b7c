"""Expressions that somebody typed, read by sqlglot: one expression over columns, with nothing in it that reads elsewhere."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from dbops.errors import UsageError

if TYPE_CHECKING:
    from sqlglot import exp

# what may end an expression early for PostgreSQL and not for the parser: no expression over columns needs it
_REFUSED = re.compile(r";|--|/\*|\*/|\$\$|\$\w+\$|\\|\0|%\(|\$\d")


def check_expression(text: str, option: str) -> frozenset[str]:
    """The columns that an expression reads. Raises UsageError where it is not one, or holds a subquery."""
    return _columns(_parsed("select (\n", text, "\n)", option), option, text)


def check_order(text: str, option: str) -> frozenset[str]:
    """The columns of an ORDER BY list. Raises UsageError where it is none."""
    return _columns(_parsed("select 1 order by ", text, "\n", option), option, text)


def is_literal(text: str) -> bool:
    """Whether an expression is a constant: true, 3, 'x'."""
    from sqlglot import exp

    return isinstance(_bare(text), (exp.Literal, exp.Boolean))


def is_null(text: str) -> bool:
    """Whether an expression is NULL, of whatever type."""
    from sqlglot import exp

    return isinstance(_bare(text), exp.Null)


def _bare(text: str) -> exp.Expression:
    from sqlglot import exp

    tree: exp.Expression = _parsed("select (\n", text, "\n)", "--action").expressions[0]
    while isinstance(tree, (exp.Paren, exp.Cast, exp.Neg)):
        tree = tree.this
    return tree


@cache
def _parsed(before: str, text: str, after: str, option: str) -> exp.Select:
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        statements = (
            [] if _REFUSED.search(text) or not text.strip() else sqlglot.parse(before + text + after, read="postgres")
        )
    except (SqlglotError, RecursionError):
        statements = []
    if len(statements) != 1 or not isinstance(statements[0], exp.Select):
        raise _refused(option, text, "is no expression")
    parts = {name for name, value in statements[0].args.items() if value}
    expected = {"expressions"} | ({"order"} if "order by" in before else set())
    values = statements[0].expressions
    if not parts <= expected | {"kind"} or len(values) != 1 or isinstance(values[0], exp.Alias):
        raise _refused(option, text, "is no expression")
    if before.startswith("select (") and not isinstance(values[0], exp.Paren):
        raise _refused(option, text, "is no single expression")
    return statements[0]


def _columns(tree: exp.Select, option: str, text: str) -> frozenset[str]:
    from sqlglot import exp

    foreign = (exp.Subquery, exp.Table, exp.Window, exp.Placeholder, exp.Parameter, exp.AggFunc, exp.Star, exp.Alias)
    if any(tree.find(kind) for kind in foreign) or len(list(tree.find_all(exp.Select))) > 1:
        raise _refused(option, text, "reads more than the columns of one row")
    names = set[str]()
    for column in tree.find_all(exp.Column):
        if column.table:
            raise _refused(option, text, "names a table")
        names.add(column.name if column.this.args.get("quoted") else column.name.lower())
    return frozenset(names)


def _refused(option: str, text: str, what: str) -> UsageError:
    hint = "write one expression over the table's columns, e.g. lower(title), score desc; nothing was done"
    return UsageError(f"{option} {text!r} {what}", hint=hint)
