"""Functions that users may call, with ids of others: what they show and what they write."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from psycopg import sql

from dbops.policy.attack.actors import Actor, user
from dbops.policy.attack.assault import Attacker, Found
from dbops.policy.attack.bouts import Plan
from dbops.policy.attack.calls import Function, callers
from dbops.policy.attack.interference import Reading, compare
from dbops.policy.attack.judge import Allowed, judge, never
from dbops.policy.attack.oracle import fixed
from dbops.policy.attack.result import Leak, Vacuous
from dbops.policy.attack.runner import SQL, run, script
from dbops.policy.attack.statements import text
from dbops.policy.attack.subjects import Subject
from dbops.policy.attack.target import Attempt, Outcome, Place, Shot
from dbops.policy.attack.through import not_exercised, shows
from dbops.policy.model import HELPERS, VERBS, Name, Verb

_WRITES: tuple[Verb, ...] = ("insert", "update", "delete")
# what a function gives that found no row
_NOTHING = (None, "", "f", "false", "0", "(f)", "()", "(,)", "{}", "[]", "null")


def functions(
    attacker: Attacker,
    plans: Mapping[Name, Plan],
    places: Mapping[Name, Place],
    through: Sequence[Subject] = (),
    users: Sequence[str] = (),
) -> tuple[Found, list[str]]:
    """Every function that users or visitors may call, with ids of the victim, of the actor, and NULLs.

    One with its owner's rights through which no row shows is not proven: its tables are vacuous. `through`: the ways in
    which rows get through it, for each of which somebody's row must be seen.
    """
    auth = attacker.definitions.auth
    hidden = {place.name: place for place in places.values() if place.rules is not None}
    found = Found()
    if not hidden:
        return found, []
    bodies = {Name(schema, name): body for schema, name, body in attacker.conn.execute(SQL["texts"])}
    subjects = {subject.title: subject for subject in through}
    strangers = [user(auth, "another user", one) for one in users]
    for schema, name, *rest in attacker.conn.execute(SQL["functions"], {"roles": [auth.user_role, auth.anon_role]}):
        function = replace(Function(Name(schema, name), *rest), body=bodies.get(Name(schema, name), ""))
        subject = subjects.get(function.via, Subject(function.via, function.name))
        read = {each: hidden[each] for each in sorted(_tables_read(attacker, bodies, function.name) & set(hidden))}
        who = callers(plans, read, function, subject.marks)
        calls = [(caller.actor, call) for caller in who for call in caller.calls(function)]
        if not calls:
            continue
        part, spoke = _called(attacker, function, calls, hidden, read, subject.after)
        found += part
        if not function.definer or schema == HELPERS:
            continue
        found += Found() if spoke else _silent(function, read)
        if not part.leaks:
            found += not_exercised(attacker, subject, read, [caller.actor for caller in who], strangers)
    return found, []


def _called(
    attacker: Attacker,
    function: Function,
    calls: Sequence[tuple[Actor, str]],
    hidden: Mapping[Name, Place],
    read: Mapping[Name, Place],
    after: tuple[str, ...],
) -> tuple[Found, bool]:
    """What came of the calls, and whether any of them gave something of a row, or did anything at all."""
    found, spoke, places = Found(), False, tuple(hidden.values())
    if function.kind == "f":
        readings = [Reading(actor, function.via, "select", call, places, after) for actor, call in calls]
        found, outcomes = compare(attacker, readings)
        spoke = any(outcome.worked and outcome.found not in _NOTHING for outcome in outcomes)
        if spoke and read and function.definer:
            spoke = bool(found.leaks) or shows(attacker, calls, read.values(), after, own=True)
    if function.volatility == "v":
        shots = _writes(function, calls, places, attacker.allows)
        outcomes = run(attacker.conn, shots)
        found += _changed(function, shots, outcomes)
        if function.definer and not spoke:
            any_ = _writes(function, calls, places, lambda *_: never)
            spoke = any(outcome.found is not None for outcome in run(attacker.conn, any_))
    return found, spoke


def _silent(function: Function, tables: Collection[Name]) -> Found:
    arguments = ", ".join(function.types)
    why = f"function {function.name}({arguments}) has its owner's rights and gave nothing of any row, whatever it was called with"
    if tables:
        return Found(vacuous=tuple(Vacuous(str(table), "", f"{why}: nothing is proven of it") for table in tables))
    return Found(unproven=(Vacuous(function.via, "", f"{why}, and reads no defined table as far as its text tells"),))


def _tables_read(attacker: Attacker, bodies: Mapping[Name, str], function: Name) -> set[Name]:
    """The tables whose names stand in the function's text, or in those of the functions and views that it names."""
    catalog = attacker.catalog
    seen = {function}
    texts = [bodies.get(function, "")]
    tables: set[Name] = set()
    for text_ in texts:  # grows while it is read
        words = set(re.findall(r"[^\W\d][\w$]*", text_.lower()))
        for name in sorted({*catalog.tables, *catalog.views, *bodies} - seen):
            if words.issuperset(re.findall(r"[^\W\d][\w$]*", name.name.lower())):
                seen.add(name)
                tables |= {name} & set(catalog.tables)
                tables |= set(catalog.views[name].reads) if name in catalog.views else set()
                texts += [bodies[name]] if name in bodies else []
    return tables


# --- what a call writes ---


def _writes(
    function: Function,
    calls: Sequence[tuple[Actor, str]],
    hidden: Sequence[Place],
    allows: Callable[[Place, Actor], Allowed],
) -> list[Shot]:
    """The calls, each judged by the rows of all tables that it wrote and that `allows` does not allow."""
    judges = {actor: _judge_of(function, actor, hidden, allows) for actor in {actor for actor, _ in calls}}
    reads = "rows" if function.kind == "f" else "write"
    return [
        Shot(actor, Attempt("call", function.via, call, reads, writes=_WRITES), judges[actor])  # type: ignore[arg-type]
        for actor, call in calls
    ]


def _judge_of(
    function: Function, actor: Actor, hidden: Sequence[Place], allows: Callable[[Place, Actor], Allowed]
) -> str:
    attempt = Attempt("call", function.via, "", "write", writes=_WRITES)
    parts = [
        sql.SQL("SELECT {} AS t, ({}) AS f").format(
            sql.Literal(str(place.name)), fixed(judge(place, place.name, attempt, allows(_own(place, function), actor)))
        )
        for place in hidden
    ]
    told = sql.SQL("SELECT pg_catalog.min(q.t || ': ' || q.f) FROM ({}) q")
    return text(told.format(sql.SQL(" UNION ALL ").join(parts)))


def _own(place: Place, function: Function) -> Place:
    """The table, with all verbs on his own rows where the function has its caller's rights.

    It can do nothing there that he could not: what happens beyond is a trigger's or a foreign key's work.
    """
    if function.definer or place.rules is None:
        return place
    return replace(place, rules=replace(place.rules, verbs=VERBS))


def _changed(function: Function, shots: Sequence[Shot], outcomes: Sequence[Outcome]) -> Found:
    leaks: dict[str, Leak] = {}
    for shot, outcome in zip(shots, outcomes, strict=True):
        if outcome.found is not None and shot.actor is not None:
            table, _, what = outcome.found.partition(": ")
            leaks.setdefault(shot.actor.name, Leak(table, shot.actor.name, "call", function.via, what, script(shot)))
    return Found(len(shots), tuple(leaks.values()))
