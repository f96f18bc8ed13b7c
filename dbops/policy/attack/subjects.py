"""Views and functions that read tables with their owner's rights: the ways in which a row gets through each of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psycopg import sql

from dbops.policy.attack.actors import Actor, Setting
from dbops.policy.attack.oracle import fixed
from dbops.policy.attack.runner import SQL, TOLD, run
from dbops.policy.attack.selects import Path, Select, Step, paths_of, selects_of, statements_of, words
from dbops.policy.attack.statements import text
from dbops.policy.attack.target import Attempt, Shot
from dbops.policy.attack.ways import TooMany, joined
from dbops.policy.model import HELPERS, Auth, Name

if TYPE_CHECKING:
    from dbops.database import Connection

_ALL = sql.SQL(
    "(SELECT pg_catalog.hashtextextended(coalesce(pg_catalog.string_agg(dbops_x::text, ' ' ORDER BY dbops_x::text), ''),"
    " 0)::text FROM ({}) dbops_x)"
)


@dataclass(frozen=True)
class Subject:
    """A view or function. `whole` is a view's query, `body` a function's text; `unread`: why its ways cannot be told."""

    title: str
    name: Name
    paths: tuple[Path, ...] = ()
    whole: str = ""
    body: str = ""
    settings: tuple[Setting, ...] = ()  # under which its text is run by itself
    unread: str = ""

    def probes(self, path: Path) -> tuple[str, ...]:
        """What must change with a row that gets through: what each step of the path reads, then all that is shown."""
        steps = [_probe(step) for step in path]
        return tuple(dict.fromkeys([*steps, *([_whole(self.whole)] if self.whole else [])]))

    def parts(self, path: Path) -> tuple[str, ...]:
        """The same, with each part by itself: so that a search knows when it comes nearer."""
        single = [_probe(Step(step.select, (part,))) for step in path for part in step.parts]
        return tuple(dict.fromkeys([*single, *self.probes(path)]))


def told(probes: Iterable[str]) -> str:
    """One statement that evaluates them all: what each gives, with a blank between them."""
    return text(sql.SQL("SELECT pg_catalog.concat_ws(' ', {})").format(sql.SQL(", ").join(map(fixed, probes))))


def _probe(step: Step) -> str:
    query = sql.SQL("{}SELECT * FROM {} WHERE {}")
    return _whole(text(query.format(fixed(step.select.before), fixed(step.select.source), fixed(joined(step.parts)))))


def _whole(query: str) -> str:
    return text(_ALL.format(fixed(query)))


def subjects(conn: Connection, auth: Auth, tables: Iterable[str], settings: Sequence[Setting]) -> list[Subject]:
    """All of them that users or visitors reach; `tables` are names without schemas.

    `settings` sign a user in: under them each part is run once, and what does not run by itself is left out.
    """
    roles = [auth.user_role, auth.anon_role]
    known = [(Name(*row[:2]), *row[2:]) for row in conn.execute(SQL["view_texts"], {"roles": roles})]
    views = {name.name: query for name, query, _, _ in known}
    held_back = {name.name for name, _, invoker, _ in known if invoker}
    names = set(tables)
    made = [
        _view(name, query, names, views)
        for name, query, _, reached in known
        if reached and not _named(name.name, views) <= held_back
    ]
    for schema, name, body, path in conn.execute(SQL["definers"], {"roles": roles, "helpers": HELPERS}):
        made.append(_function(Name(schema, name), body, path, names, views))
    return [_runnable(conn, subject, settings) for subject in made]


def _named(name: str, views: Mapping[str, str]) -> set[str]:
    """The view, and those that it reads through one another."""
    found = {name: None}
    for each in list(found):
        found |= dict.fromkeys(sorted(words(views[each]) & set(views)))
    seen: set[str] = set()
    while left := set(found) - seen:
        seen |= left
        for each in sorted(left):
            found |= dict.fromkeys(words(views[each]) & set(views))
    return seen


def _view(name: Name, query: str, tables: set[str], views: Mapping[str, str]) -> Subject:
    whole = query.strip().rstrip(";")
    others = {each: body for each, body in views.items() if each != name.name}
    subject = Subject(f"view {name}", name, whole=whole)
    return _with_paths(subject, lambda: selects_of(whole, tables, others))
