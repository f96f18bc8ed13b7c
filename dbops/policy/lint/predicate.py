"""What a policy's predicate does, read from its tree: sqlglot parses, nothing is ever rewritten for use.

Function names are compared as PostgreSQL prints them under an empty search_path: its own bare, others qualified.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from dbops.policy.model import Auth

_SESSION = {"auth.uid", "auth.jwt", "auth.role", "auth.email", "current_setting", "pg_catalog.current_setting"}
_USER_METADATA = ("user_metadata", "raw_user_meta_data")
_ROLE_SETTINGS = ("request.jwt.claim.role",)


@lru_cache(maxsize=4096)
def parsed(text: str) -> exp.Expression | None:
    """The tree of a predicate; None where sqlglot cannot read it."""
    try:
        return sqlglot.parse_one(text, read="postgres")  # type: ignore[return-value]
    except SqlglotError:
        return None


def calls(tree: exp.Expression) -> Iterator[tuple[str, exp.Expression]]:
    """The function calls of a tree, with their names as written: `auth.uid`, `current_setting`."""
    for node in tree.find_all(exp.Anonymous):
        name, outer = str(node.this), node.parent
        if isinstance(outer, exp.Dot) and outer.expression is node:
            yield f"{outer.this.sql(dialect='postgres', identify=False)}.{name}".replace('"', ""), outer
        else:
            yield name, node


def _setting(node: exp.Expression) -> str:
    """The setting that a call of current_setting names; empty for another call."""
    call = node.expression if isinstance(node, exp.Dot) else node
    first = call.expressions[0] if call.expressions else None
    return first.this if first is not None and (first := bare(first)) and isinstance(first, exp.Literal) else ""


def bare(node: exp.Expression) -> exp.Expression:
    """Without parentheses, casts, and a subselect of nothing but this expression."""
    while True:
        if isinstance(node, (exp.Paren, exp.Cast, exp.Alias)):
            node = node.this
        elif isinstance(node, exp.Subquery) and (inner := wrapped(node)) is not None:
            node = inner
        else:
            return node


def wrapped(node: exp.Expression) -> exp.Expression | None:
    """The expression e of `(select e)`."""
    select = node.this if isinstance(node, exp.Subquery) else node
    plain = isinstance(select, exp.Select) and not select.args.get("from_") and not select.args.get("from")
    if plain and len(select.expressions) == 1 and not select.args.get("where"):
        return select.expressions[0]  # type: ignore[no-any-return]
    return None


def session_calls(tree: exp.Expression) -> Iterator[tuple[str, exp.Expression]]:
    """The calls that say who is asking."""
    return ((name, node) for name, node in calls(tree) if name.lower() in _SESSION)


def per_row(tree: exp.Expression) -> set[str]:
    """The session's functions that stand in no subselect: they are called for each row."""
    return {name for name, node in session_calls(tree) if node.find_ancestor(exp.Select) is None}


def identities(tree: exp.Expression, auth: Auth) -> Iterator[exp.Expression]:
    """The calls that give the user's id: auth.uid(), auth.jwt() ->> 'sub', or the setting of `auth`."""
    return (node for name, node in session_calls(tree) if _is_identity(name.lower(), node, auth))


def _is_identity(name: str, node: exp.Expression, auth: Auth) -> bool:
    if name == "auth.uid":
        return True
    if name == "auth.jwt":
        return _key_of(node) == "sub"
    setting = _setting(node) if name.endswith("current_setting") else ""
    if not setting or setting == auth.setting:
        return bool(setting)
    return setting == "request.jwt.claim.sub" or (setting == "request.jwt.claims" and _key_of(node) == "sub")


def _key_of(node: exp.Expression) -> str:
    """The key that is taken out of a JSON value: `sub` of `auth.jwt() ->> 'sub'`."""
    above = node.parent
    while isinstance(above, (exp.Paren, exp.Cast, exp.Subquery, exp.Select, exp.Alias)):
        above = above.parent
    if not isinstance(above, (exp.JSONExtract, exp.JSONExtractScalar)):
        return ""
    key = bare(above.expression)
    if isinstance(key, exp.JSONPath):
        parts = [str(part.this) for part in key.expressions if isinstance(part, exp.JSONPathKey)]
        return parts[-1] if parts else ""
    return str(key.this) if isinstance(key, exp.Literal) else ""


def asks_who(text: str, auth: Auth) -> bool:
    """Whether the predicate depends on who asks: the identity, or a function of somebody's own, which may know it."""
    tree = parsed(text)
    if tree is None:
        return True
    return any(identities(tree, auth)) or any(_own(name) for name, _ in calls(tree))


def compared_with_identity(text: str, auth: Auth) -> set[str]:
    """The table's own columns that the predicate holds against the identity or against a set of the user's."""
    tree = parsed(text)
    found = set()
    for node in tree.find_all(exp.EQ, exp.In) if tree else ():
        if node.find_ancestor(exp.Select) is not None:
            continue
        sides = [node.this, node.expression] if isinstance(node, exp.EQ) else [node.this, node.args.get("query")]
        for own, other in (sides, sides[::-1]):
            column = bare(own) if own is not None else None
            if isinstance(column, exp.Column) and other is not None and _of_user(other, auth):
                found.add(column.name)
    return found


def _of_user(node: exp.Expression, auth: Auth) -> bool:
    return any(identities(node, auth)) or any(_own(name) or name == "auth.jwt" for name, _ in calls(node))


def _own(name: str) -> bool:
    """Whether a function is somebody's own: neither PostgreSQL's nor of those that say who asks."""
    return "." in name and not name.startswith("pg_catalog.") and name.lower() not in _SESSION


def trusts_user_metadata(tree: exp.Expression) -> bool:
    """Whether a claim or column counts that users write themselves."""
    texts = {str(node.this) for node in tree.find_all(exp.Literal) if node.is_string}
    texts |= {node.name for node in tree.find_all(exp.Column)}
    texts |= {str(part.this) for part in tree.find_all(exp.JSONPathKey)}
    return any(word in text for text in texts for word in _USER_METADATA)


def trusts_role_claim(tree: exp.Expression) -> bool:
    """Whether the claim `role` counts: auth.role(), auth.jwt() ->> 'role', request.jwt.claim.role."""
    for name, node in session_calls(tree):
        if name.lower() == "auth.role" or _setting(node) in _ROLE_SETTINGS:
            return True
        if _key_of(node) == "role":
            return True
    return False


def functions_of_columns(tree: exp.Expression) -> set[str]:
    """Functions of somebody's own that get a column of the row: they can't be taken out of the loop over the rows."""
    return {
        name
        for name, node in calls(tree)
        if _own(name) and node.find_ancestor(exp.Select) is None
        and any(True for _ in node.find_all(exp.Column))
    }  # fmt: skip
