"""Views and functions that read tables with their owner's rights: the ways in which a row gets through each of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from psycopg import sql

from dbops.policy.attack.actors import Actor, Setting
from dbops.policy.attack.oracle import fixed, relation
from dbops.policy.attack.runner import SQL, TOLD, run
from dbops.policy.attack.selects import Path, Select, Step, bound, bound_source, paths_of, statements_of, words
from dbops.policy.attack.statements import text
from dbops.policy.attack.target import Attempt, Shot
from dbops.policy.attack.ways import TooMany, asks_session, joined
from dbops.policy.model import HELPERS, Auth, Name

if TYPE_CHECKING:
    from dbops.database import Connection

_ALL = sql.SQL(
    "(SELECT pg_catalog.hashtextextended(coalesce(pg_catalog.string_agg(dbops_x::text, ' ' ORDER BY dbops_x::text), ''),"
    " 0)::text FROM ({}) dbops_x)"
)


@dataclass(frozen=True)
class Subject:
    """A view or function: the ways in which a row gets through it, and why what is left of its text cannot be told.

    `settings`: under which its text is run by itself. `after`: refreshes the materialized views that it reads.
    `marks`: rows that get through, by their tables.
    """

    title: str
    name: Name
    paths: tuple[Path, ...] = ()
    settings: tuple[Setting, ...] = ()
    unread: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    marks: Mapping[Name, tuple[str, ...]] = field(default_factory=dict)

    def tables(self, path: Path, known: Iterable[Name]) -> list[Name]:
        """Those whose rows the way begins with."""
        read = words(" ".join((path[0].select.source, path[0].select.where)))
        return [name for name in known if name.name in read]


def values(path: Path) -> Path:
    """The way as far as rows alone decide it: of one in which the session has a say only the innermost SELECT."""
    steps = path[:1] if bound(path) else path
    if bound_source(steps[0].select):
        return ()
    return tuple(Step(step.select, tuple(p for p in step.parts if not asks_session(p))) for step in steps)


def probes(path: Path) -> tuple[str, ...]:
    """What each step gives, and each of its parts by itself, in a few digits: they change with a row that gets through."""
    single = [Step(step.select, (part,)) for step in path for part in step.parts]
    return tuple(dict.fromkeys(text(_ALL.format(fixed(query_of(step)))) for step in (*single, *path)))


def told(asked: Iterable[str]) -> str:
    """One statement that evaluates the probes: what each gives, with a blank between them."""
    return text(sql.SQL("SELECT pg_catalog.concat_ws(' ', {})").format(sql.SQL(", ").join(map(fixed, asked))))


def query_of(step: Step) -> str:
    query = sql.SQL("{}SELECT * FROM {} WHERE {}")
    return text(query.format(*map(fixed, (step.select.before, step.select.source, joined(step.parts)))))


def subjects(conn: Connection, auth: Auth, tables: Collection[str], settings: Sequence[Setting]) -> list[Subject]:
    """All of them that users or visitors reach and that read one of the tables, which are named without schemas.

    `settings` sign a user in: under them each query is run once, and what does not run by itself is told as unread.
    """
    roles = [auth.user_role, auth.anon_role]
    known = [_View(Name(*row[:2]), *row[2:]) for row in conn.execute(SQL["view_texts"], {"roles": roles})]
    views = {view.name.name: view.query for view in known}
    invokers = {view.name.name for view in known if view.invoker}
    made = []
    for view in known:
        named = _named(view.query, views) | {view.name.name}
        if view.reached and not named <= invokers:
            subject = Subject(f"view {view.name}", view.name, after=_refreshed(known, named))
            others = {name: query for name, query in views.items() if name != view.name.name}
            made.append(_cut(subject, view.query, tables, others))
    for schema, name, body, path in conn.execute(SQL["definers"], {"roles": roles, "helpers": HELPERS}):
        own = (Setting("search_path", path.replace('""', "")),) if path is not None else ()
        after = _refreshed(known, _named(body, views))
        subject = Subject(f"function {Name(schema, name)}", Name(schema, name), settings=own, after=after)
        made.append(_cut(subject, body, tables, views))
    return _runnable(conn, made, settings)


@dataclass(frozen=True)
class _View:
    name: Name
    query: str
    invoker: bool
    reached: bool
    materialized: bool


def _named(query: str, views: Mapping[str, str]) -> set[str]:
    """The views that a text names, and those that these read through one another."""
    found = sorted(words(query) & set(views))
    for each in found:  # grows while it is read
        found += sorted(words(views[each]) & set(views) - set(found))
    return set(found)


def _refreshed(known: Iterable[_View], names: Collection[str]) -> tuple[str, ...]:
    refresh = sql.SQL("REFRESH MATERIALIZED VIEW {}")
    read = [view.name for view in known if view.materialized and view.name.name in names]
    return tuple(text(refresh.format(relation(name))) for name in read)


def _cut(subject: Subject, body: str, tables: Collection[str], views: Mapping[str, str]) -> Subject:
    """The subject with the paths of each query in its text."""
    paths: dict[Path, None] = {}
    unread: list[str] = []
    for select in statements_of(body, tables, views):
        try:
            paths |= dict.fromkeys(path for path in paths_of([select]) if _reads(path, tables))
        except TooMany as error:
            unread.append(str(error))
    return replace(subject, paths=tuple(paths), unread=tuple(dict.fromkeys(unread)))


def _reads(path: Path, tables: Collection[str]) -> bool:
    return bool(words(" ".join((path[0].select.source, path[0].select.where))) & set(tables))


# --- what runs by itself ---


def _runnable(conn: Connection, made: Iterable[Subject], settings: Sequence[Setting]) -> list[Subject]:
    """The subjects without the conditions that hang on an argument or a variable."""
    found: list[Subject] = []
    for subject in made:
        actor = Actor("", "none", (*settings, *subject.settings))
        steps = {step for path in subject.paths for step in path}
        single = {Step(step.select, parts) for step in steps for parts in ((), *((part,) for part in step.parts))}
        asked = sorted(single, key=query_of)
        shots = [Shot(actor, Attempt("select", "", told(probes((step,))), "rows"), TOLD) for step in asked]
        runs = {step for step, outcome in zip(asked, run(conn, shots), strict=True) if outcome.worked}
        found.append(_without(subject, {step.select for step in runs if not step.parts}, runs))
    return found


def _without(subject: Subject, selects: Collection[Select], runs: Collection[Step]) -> Subject:
    paths: dict[Path, None] = {}
    unread = list(subject.unread)
    for path in subject.paths:
        if all(step.select in selects for step in path):
            kept = [tuple(p for p in step.parts if Step(step.select, (p,)) in runs) for step in path]
            paths[tuple(Step(step.select, parts) for step, parts in zip(path, kept, strict=True))] = None
        elif not any(step.select in selects for step in path):
            unread.append(f"what it reads from {' '.join(path[0].select.source.split())} cannot be run by itself")
    return replace(subject, paths=tuple(paths), unread=tuple(dict.fromkeys(unread)))
