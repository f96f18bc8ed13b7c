"""The SELECTs that a view or a function's body is made of, cut out of its text. Pure; no operator is rewritten.

Each is run by itself: what it reads from, with one way in which its condition is true (`ways.py`). PostgreSQL says
which rows get through it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from dbops.policy.attack.ways import (
    MOST,
    TOKEN,
    Parts,
    TooMany,
    asks_session,
    bare,
    contradicts,
    end_of,
    split,
    true_ways,
    without_strings,
)

_SETS = {"union", "intersect", "except"}
_CLAUSES = {
    "from", "where", "group", "having", "window", "order", "limit", "offset", "fetch", "for", "into", "returning", "loop",
}  # fmt: skip
_COMMENT = re.compile(r"('(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")|--[^\r\n]*|/\*.*?\*/", re.DOTALL)
_WITH = re.compile(r"with\s+(recursive\b)?", re.IGNORECASE)
_CTE = re.compile(
    r'\s*([^\W\d][\w$]*|"(?:[^"]|"")+")\s*(\([^()]*\))?\s*as\s*(?:(?:not\s+)?materialized\s*)?(?=\()', re.IGNORECASE
)
_QUERY = re.compile(r"\(\s*(?:select|with)\b", re.IGNORECASE)
_STATEMENT = re.compile(r"\b(?:select|delete|update|with)\b", re.IGNORECASE)
_UPDATE = re.compile(r"update\s+(?:only\s+)?(.*?)\bset\b(.*)", re.IGNORECASE | re.DOTALL)
_END = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|[();]")
_DISTINCT = re.compile(r"\bis\s+(?:not\s+)?distinct\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Select:
    """What stands behind FROM and WHERE; `before`: the WITH clause whose names it reads.

    `within` are the subqueries, CTEs and views that it reads from; `direct`: whether it reads tables as well.
    """

    before: str
    source: str
    where: str
    shown: str  # what stands behind SELECT
    within: tuple[Select, ...] = ()
    direct: bool = True

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.where, self.source, self.shown)


@dataclass(frozen=True)
class Step:
    """A SELECT with one way in which its condition is true."""

    select: Select
    parts: Parts


# from the innermost SELECT, that reads the table, to the outermost
Path = tuple[Step, ...]


def paths_of(selects: Collection[Select]) -> list[Path]:
    """The ways in which a row may get through. Raises TooMany."""
    found = [path for select in selects for path in _paths(select)]
    if len(found) > MOST:
        raise TooMany(f"rows may get through it in more than {MOST} ways")
    return [path for path in dict.fromkeys(found) if not contradicts(tuple(p for step in path for p in step.parts))]


def _paths(select: Select) -> list[Path]:
    ways = list(dict.fromkeys(true_ways(select.where))) if select.where else [()]
    below: list[Path] = paths_of(select.within) if select.within else []
    if select.direct or not below:
        below = [(), *below]
    return [(*path, Step(select, parts)) for path in below for parts in ways]


def bound(path: Path) -> bool:
    """Whether something other than a row has a say: here, or in what the table is joined with."""
    return any(asks_session(part) for step in path for part in step.parts) or any(
        bound_source(step.select) for step in path
    )


def bound_source(select: Select) -> bool:
    """Whether what it reads from hangs on more than rows: a function of the user's, a subquery that asks who reads."""
    return asks_session(_outside(select.source)[0]) or any(
        asks_session(each.where) or bound_source(each) for each in select.within
    )


def conditions(path: Path) -> list[str]:
    """All that may hold a row back, and what the steps within call columns that the outer ones ask for."""
    texts = [text for step in path for text in (*step.parts, _outside(step.select.source)[0])]
    asked = words(" ".join(texts))
    for step in reversed(path[:-1]):
        items = [item for item in split(step.select.shown, ",") if _last(item) in asked]
        texts += items
        asked |= words(" ".join(items))
    return texts


def _last(item: str) -> str:
    found = TOKEN.findall(without_strings(item))
    return bare(found[-1]) if found else ""


def words(text: str) -> set[str]:
    """The names that stand in a text, without quotes."""
    return {bare(match[0]) for match in TOKEN.finditer(without_strings(text)) if match[0] not in "()[],''"}


# --- a query ---


@dataclass(frozen=True)
class _Scope:
    """What a query may name: the CTEs around it, with the WITH clause that makes them, and views."""

    tables: Collection[str]
    views: Mapping[str, str]
    with_: tuple[str, ...] = ()
    ctes: Mapping[str, tuple[Select, ...]] = field(default_factory=dict)
    recursive: bool = False

    @property
    def before(self) -> str:
        return f"WITH {'RECURSIVE ' * self.recursive}{', '.join(self.with_)} " if self.with_ else ""


def statements_of(body: str, tables: Collection[str], views: Mapping[str, str]) -> list[Select]:
    """The SELECTs of all queries in a view's or a function's text, in SQL or PL/pgSQL; DELETE and UPDATE read their table.

    One for each arm of a UNION. `views`: the texts of the views that it may read, by name.
    """
    plain = _COMMENT.sub(lambda match: match[1] or " ", body)
    quoted = [match.span() for match in TOKEN.finditer(plain) if match[0][0] in "'\""]
    found: dict[Select, None] = {}
    for match in _STATEMENT.finditer(plain):
        if any(start < match.start() < end for start, end in quoted):
            continue
        text = _one(plain[match.start() :])
        if changed := _UPDATE.match(text):
            text = f"update from {changed[1]}{''.join(changed[2].partition(' where ')[1:])}"
        found |= dict.fromkeys(_query(text, _Scope(tables, views)))
    return list(found)


def _one(text: str) -> str:
    """Up to the semicolon, or the parenthesis that closes what is open before."""
    depth = 0
    for match in _END.finditer(text):
        depth += (match[0] == "(") - (match[0] == ")")
        if depth < 0 or (depth == 0 and match[0] == ";"):
            return text[: match.start()]
    return text


def _query(text: str, scope: _Scope) -> list[Select]:
    whole = text.strip().rstrip(";").strip()
    while whole.startswith("(") and end_of(whole) == len(whole):
        whole = whole[1:-1].strip()
    scope, whole = _with(whole, scope)
    found: list[Select] = []
    for word, arm in _cut(whole, _SETS):
        plain = (re.sub(r"^\s*(?:all|distinct)\b", "", arm, flags=re.IGNORECASE) if word else arm).strip()
        found += _query(plain, scope) if plain.startswith("(") else _arm(plain, scope)
    return found


def _with(text: str, scope: _Scope) -> tuple[_Scope, str]:
    """The scope within a WITH clause, and what follows it."""
    match = _WITH.match(text)
    if match is None:
        return scope, text
    recursive, rest = scope.recursive or bool(match[1]), text[match.end() :]
    made: list[tuple[str, str, str]] = []
    while cte := _CTE.match(rest):
        end = cte.end() + end_of(rest[cte.end() :])
        made.append((bare(cte[1]), rest[:end].strip(), rest[cte.end() : end]))
        rest = rest[end:].lstrip()
        if not rest.startswith(","):
            break
        rest = rest[1:]
    if recursive:  # each may read any, and itself
        scope = replace(scope, with_=(*scope.with_, *(each for _, each, _ in made)), recursive=True)
    for name, whole, body in made:
        scope = replace(scope, ctes={**scope.ctes, name: tuple(_query(body, scope))})
        scope = scope if recursive else replace(scope, with_=(*scope.with_, whole))
    return scope, rest


def _arm(text: str, scope: _Scope) -> Iterator[Select]:
    clauses = dict(reversed(_cut(text, _CLAUSES)))
    source, where = clauses.get("from", "").strip(), clauses.get("where", "").strip()
    if not source:
        return
    plain, inner = _outside(source)
    within = [each for query in inner for each in _query(query, scope)]
    read = words(" ".join((source, *_outside(text)[1])))
    within += [each for name in scope.ctes if name in read for each in scope.ctes[name]]
    for name in sorted(read & set(scope.views) - set(scope.ctes)):
        others = {each: body for each, body in scope.views.items() if each != name}
        within += _query(scope.views[name], _Scope(scope.tables, others))
    named = words(" ".join((plain, *_outside(where)[1]))) - set(scope.ctes) - set(scope.views)
    direct = bool(named & set(scope.tables))
    yield Select(scope.before, source, where, clauses.get("", ""), tuple(dict.fromkeys(within)), direct)


def _cut(text: str, at: Collection[str]) -> list[tuple[str, str]]:
    """The text cut at these words outside of parentheses and CASE: each piece with the word before it."""
    found, word, start, depth = [], "", 0, 0
    for match in TOKEN.finditer(text):
        token = match[0].lower()
        if depth == 0 and token in at and not (token == "from" and _DISTINCT.search(text[: match.start()])):
            found.append((word, text[start : match.start()]))
            word, start = token, match.end()
        depth += (token in ("(", "[", "case")) - (token in (")", "]", "end"))
    return [*found, (word, text[start:])]


def _outside(source: str) -> tuple[str, list[str]]:
    """The text without the subqueries in it, and these."""
    plain, found, at = "", [], 0
    while match := _QUERY.search(source, at):
        end = match.start() + end_of(source[match.start() :])
        plain += source[at : match.start()]
        found.append(source[match.start() : end])
        at = end
    return plain + source[at:], found
