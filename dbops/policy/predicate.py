"""Reads the predicates of definitions with sqlglot, and never writes one: what is applied is the text as it stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from dbops.policy.tokens import Token, folded, tokens

if TYPE_CHECKING:
    from sqlglot import exp

Path = tuple[str, ...]  # a name's parts: ("public", "members") or ("members",)
IDENTITY = {"auth.uid", "auth.jwt", "auth.role", "auth.email", "current_setting", "pg_catalog.current_setting"}
# these look like columns to sqlglot and are none
_VALUES = {"user", "current_user", "current_role", "session_user", "system_user", "current_catalog", "current_schema"}
# words that may stand in front of a parenthesis without being a function
_WORDS = {
    "all", "and", "any", "array", "as", "between", "by", "case", "cast", "collate", "distinct", "else", "except", "exists",
    "filter", "from", "group", "having", "ilike", "in", "intersect", "is", "join", "lateral", "like", "limit", "materialized",
    "not", "offset", "on", "operator", "or", "order", "over", "row", "select", "similar", "some", "then", "to", "union",
    "using", "values", "when", "where", "within", "escape", "symmetric",
}  # fmt: skip


@dataclass(frozen=True)
class Predicate:
    """What a predicate reads. Names as PostgreSQL takes them, unquoted."""

    columns: frozenset[str] | None  # of the table itself, outside of subqueries; None: sqlglot can't read the text
    functions: frozenset[str]  # as written: "auth.uid", "lower"
    tables: frozenset[Path]  # in subqueries
    unwrapped: tuple[str, ...]  # calls that say who the user is, evaluated for each row: "auth.uid"


@cache
def check_predicate(text: str) -> Predicate:
    """What the predicate reads. Raises ValueError with the reason where it is not one boolean expression.

    A text that sqlglot cannot parse (an operator of an extension) is refused only where its tokens are no expression;
    PostgreSQL itself judges it later, on a copy of the table.
    """
    found = tokens(text)
    functions = frozenset(name for _, name in _calls(found))
    unwrapped = tuple(dict.fromkeys(name for at, name in _calls(found) if name in IDENTITY and not _wrapped(found, at)))
    tree = _parsed(text)
    if tree is None:
        return Predicate(None, functions, frozenset(_read_tables(found)), unwrapped)
    _refuse(tree)
    return Predicate(frozenset(_columns(tree)), functions, frozenset(_tables(tree)), unwrapped)


def _parsed(text: str) -> exp.Expression | None:
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        statements = sqlglot.parse("\n".join(("select (", text, ")")), read="postgres")
    except (SqlglotError, RecursionError):
        return None
    select = statements[0]
    if (
        len(statements) != 1
        or not isinstance(select, exp.Select)
        or not isinstance(select.expressions[0], exp.Expression)
    ):
        return None
    inner = select.expressions[0].this if isinstance(select.expressions[0], exp.Paren) else select.expressions[0]
    inner.pop()
    return inner if isinstance(inner, exp.Expression) else None


def _refuse(tree: exp.Expression) -> None:
    from sqlglot import exp

    values = (exp.Array, exp.Tuple, exp.Interval, exp.Star, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.DPipe)
    if isinstance(tree, exp.Alias):
        raise ValueError(f'"{tree.alias}" follows a complete expression: one expression is wanted')
    number = isinstance(tree, exp.Literal) and not tree.is_string
    cast = isinstance(tree, exp.Cast) and not tree.is_type("boolean") and tree.to.this != exp.DataType.Type.USERDEFINED
    if number or cast or isinstance(tree, (*values, exp.Null)):
        raise ValueError("it is no boolean expression")
    aggregates = (
        exp.Count,
        exp.Sum,
        exp.Avg,
        exp.Min,
        exp.Max,
        exp.ArrayAgg,
        exp.GroupConcat,
        exp.LogicalAnd,
        exp.LogicalOr,
    )
    for node in tree.find_all(exp.Window, *aggregates):
        if not _in_subquery(node):
            kind = "a window function" if isinstance(node, exp.Window) else "an aggregate"
            raise ValueError(f"{kind} ({node.key}) stands outside of a subquery: a predicate is about one row")


def _in_subquery(node: exp.Expression) -> bool:
    from sqlglot import exp

    return node.find_ancestor(exp.Query) is not None


def _columns(tree: exp.Expression) -> Iterator[str]:
    from sqlglot import exp

    for column in tree.find_all(exp.Column):
        name = column.this
        if not isinstance(name, exp.Identifier) or _in_subquery(column):
            continue
        if name.args.get("quoted"):
            yield name.this
        elif column.args.get("table") or folded(name.this) not in _VALUES:
            yield folded(name.this)


def _tables(tree: exp.Expression) -> Iterator[Path]:
    from sqlglot import exp

    local = {(_plain(cte.args["alias"].this),) for cte in tree.find_all(exp.CTE)}
    for table in tree.find_all(exp.Table):
        path = tuple(_plain(part) for part in table.parts if isinstance(part, exp.Identifier))
        if path and len(path) == len(table.parts) and path not in local:
            yield path


def _plain(identifier: exp.Identifier) -> str:
    return str(identifier.this) if identifier.args.get("quoted") else folded(str(identifier.this))


# --- what tokens alone tell ----------------------------------------------------------------------


def _calls(found: Sequence[Token]) -> Iterator[tuple[int, str]]:
    """The index of the last part of each name that a parenthesis follows, and the whole name."""
    for at in range(len(found) - 1):
        token = found[at]
        if not token.name or found[at + 1].text != "(" or found[at + 1].kind != "symbol":
            continue
        parts, first = [token.text], at
        while first >= 2 and _is(found[first - 1], ".") and found[first - 2].name:
            first -= 2
            parts.insert(0, found[first].text)
        if len(parts) > 1 or token.kind == "quoted" or token.text not in _WORDS:
            yield at, ".".join(parts)


def _wrapped(found: Sequence[Token], at: int) -> bool:
    """Whether the innermost SELECT around a token has no FROM: it is then evaluated once, and not for each row."""
    depth = found[at].depth
    begin = at
    while depth > 0:
        begin = next(i for i in range(begin, -1, -1) if found[i].depth < depth)
        if found[begin + 1].kind == "word" and found[begin + 1].text in ("select", "with"):
            end = next(i for i in range(at, len(found)) if found[i].depth < depth)
            return not any(_is(t, "from", "word") and t.depth == depth for t in found[begin:end])
        depth -= 1
    return False


def _read_tables(found: Sequence[Token]) -> Iterator[Path]:
    """What stands behind FROM and JOIN, for texts that sqlglot can't read."""
    for at, token in enumerate(found[:-1]):
        behind = at > 0 and _is(found[at - 1], "distinct", "word")
        if token.kind == "word" and token.text in ("from", "join") and not behind and found[at + 1].name:
            path = [found[at + 1].text]
            for dot, part in zip(found[at + 2 :: 2], found[at + 3 :: 2], strict=False):
                if not _is(dot, ".") or not part.name:
                    break
                path.append(part.text)
            yield tuple(path)


def _is(token: Token, text: str, kind: str = "symbol") -> bool:
    return token.kind == kind and token.text == text
