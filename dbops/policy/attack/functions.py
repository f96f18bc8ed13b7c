"""Functions that users may call, with ids of others: what they show and what they write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from psycopg import sql

from dbops.policy.attack.actors import Actor
from dbops.policy.attack.assault import Attacker, Found
from dbops.policy.attack.bouts import Plan
from dbops.policy.attack.interference import Reading, compare
from dbops.policy.attack.judge import judge
from dbops.policy.attack.oracle import fixed, relation
from dbops.policy.attack.result import Leak
from dbops.policy.attack.runner import SQL, run, script
from dbops.policy.attack.statements import text
from dbops.policy.attack.target import Attempt, Place, Shot
from dbops.policy.model import HELPERS, Name


def functions(attacker: Attacker, plans: Mapping[Name, Plan], places: Mapping[Name, Place]) -> tuple[Found, list[str]]:
    """Every function that users or visitors may call, with ids of the victim, of the actor, and NULLs."""
    auth = attacker.definitions.auth
    asked = {"roles": [auth.user_role, auth.anon_role]}
    hidden = tuple(place for place in places.values() if place.rules is not None)
    found = Found()
    notes: list[str] = []
    if not hidden:
        return found, notes
    actors = _callers(plans)
    for _, schema, name, kind, definer, volatility, types, roles in attacker.conn.execute(SQL["functions"], asked):
        function = Name(schema, name)
        calls = [
            (actor, call) for actor, ids in actors if actor.role in roles for call in _calls(function, kind, types, ids)
        ]
        if not calls:
            continue
        via = f"function {function}"
        silent = True
        if kind == "f":
            part, outcomes = compare(attacker, [Reading(actor, via, "select", call, hidden) for actor, call in calls])
            found += part
            silent = not any(outcome.worked and outcome.found for outcome in outcomes)
        if volatility == "v":
            found += _changed(attacker, via, calls, hidden, reads=kind == "f")
        if silent and definer and schema != HELPERS:
            notes.append(f"{via} was called and gave nothing: little is proven of it")
    return found, notes


def _callers(plans: Mapping[Name, Plan]) -> list[tuple[Actor, tuple[str | None, ...]]]:
    """Actors with the ids to try: each user once, and those who are nobody, with the victims of the first table."""
    callers: dict[tuple[str, str], tuple[Actor, list[str | None]]] = {}
    for plan in plans.values():
        for bout in plan.bouts:
            if bout.before or plan.place.rules is None or (bout.actor.identity and not bout.actor.thorough):
                continue
            victim = bout.pair.victim.values
            columns = (*plan.place.scope, *plan.place.key)
            ids = callers.setdefault((bout.actor.name, bout.actor.identity), (bout.actor, []))[1]
            ids += [victim[column] for column in columns if victim[column] is not None]
    return [
        (actor, tuple(dict.fromkeys([*ids[:6], actor.identity or None, None])))
        for actor, ids in list(callers.values())[:8]
    ]


def _calls(function: Name, kind: str, types: Sequence[str], ids: Sequence[str | None]) -> list[str]:
    arguments = [sql.SQL(", ").join(_argument(type_, one) for type_ in types) for one in (ids if types else [None])]
    calls = [
        text(sql.SQL("CALL {}({})" if kind == "p" else _FROM).format(relation(function), one)) for one in arguments
    ]
    return list(dict.fromkeys(calls))


_FROM = "SELECT coalesce(pg_catalog.string_agg(x::text, E'\\n' ORDER BY x::text), '') FROM {}({}) AS x"
_SAMPLES = {"boolean": "true", "json": "{}", "jsonb": "{}", "date": "2025-01-01", "text[]": "{}", "uuid[]": "{}"}
_NUMBERS = ("smallint", "integer", "bigint", "numeric", "real", "double precision")


def _argument(type_: str, one: str | None) -> sql.Composable:
    value: str | None = one
    if one is not None:
        if type_ in _SAMPLES:
            value = _SAMPLES[type_]
        elif type_ in _NUMBERS:
            value = one if one.isdigit() else "10"
        elif type_ == "uuid":
            value = one if len(one) == 36 else None
        elif not type_.startswith(("text", "character varying")):
            value = None
    return sql.SQL("{}::{}").format(sql.Literal(value), fixed(type_))


def _changed(
    attacker: Attacker, via: str, calls: Sequence[tuple[Actor, str]], hidden: Sequence[Place], *, reads: bool
) -> Found:
    """Rows that a call wrote and that the actor may not write."""
    shots = []
    for actor, call in calls:
        attempt = Attempt("call", via, call, "rows" if reads else "write", writes=("insert", "update", "delete"))
        judged = replace(attempt, judge="write")
        parts = [
            sql.SQL("SELECT {} AS t, ({}) AS f").format(
                sql.Literal(str(place.name)), fixed(judge(place, place.name, judged, attacker.allows(place, actor)))
            )
            for place in hidden
        ]
        told = sql.SQL("SELECT pg_catalog.min(q.t || ': ' || q.f) FROM ({}) q").format(
            sql.SQL(" UNION ALL ").join(parts)
        )
        shots.append(Shot(actor, attempt, text(told)))
    outcomes = run(attacker.conn, shots)
    leaks: dict[str, Leak] = {}
    for (actor, _), shot, outcome in zip(calls, shots, outcomes, strict=True):
        if outcome.found is not None:
            table, _, what = outcome.found.partition(": ")
            leaks.setdefault(actor.name, Leak(table, actor.name, "call", via, what, script(shot)))
    return Found(len(shots), tuple(leaks.values()))
