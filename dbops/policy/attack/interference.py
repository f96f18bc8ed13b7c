"""Noninterference: what an actor gets of a view or function must not change when the rows that he may not see are taken away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psycopg import sql

from dbops.policy.attack.actors import Actor
from dbops.policy.attack.assault import Attacker, Found
from dbops.policy.attack.oracle import relation
from dbops.policy.attack.result import Leak
from dbops.policy.attack.runner import TOLD, run, script
from dbops.policy.attack.statements import as_replica, text, there
from dbops.policy.attack.target import Attempt, Outcome, Place, Row, Shot
from dbops.policy.model import Name

_TRIED = 60  # rows, until one shows by itself


@dataclass(frozen=True)
class Reading:
    """A statement by an actor, with all rows and without those that he may not see in `hidden`."""

    actor: Actor
    via: str
    verb: str
    statement: str
    hidden: tuple[Place, ...]
    after: tuple[str, ...] = ()  # refreshes what was computed from the rows


def removal(attacker: Attacker, actor: Actor, places: Iterable[Place]) -> tuple[str, ...]:
    """Take away all rows that the definitions hide from the actor."""
    gone = [
        sql.SQL("DELETE FROM {} AS {} WHERE NOT {}").format(
            relation(place.name), sql.Identifier(place.name.name), attacker.allows(place, actor)("select")
        )
        for place in places
    ]
    return as_replica(*map(text, gone))


def compare(attacker: Attacker, readings: Sequence[Reading]) -> tuple[Found, list[Outcome]]:
    """Leaks where the rows that are hidden show; and what each reading gave with all rows there."""
    plain = [_shot(reading, ()) for reading in readings]
    taken: dict[tuple[Actor, tuple[Name, ...]], tuple[str, ...]] = {}  # one actor reads many times
    without_them = []
    for reading in readings:
        key = reading.actor, tuple(place.name for place in reading.hidden)
        if key not in taken:
            taken[key] = removal(attacker, reading.actor, reading.hidden)
        without_them.append(_shot(reading, (*taken[key], *reading.after)))
    outcomes = run(attacker.conn, [*plain, *without_them])
    first, gone = outcomes[: len(plain)], outcomes[len(plain) :]
    differ = [n for n in range(len(plain)) if first[n].end != gone[n].end]
    # once more: what differs from call to call by itself says nothing
    again = [*first]
    for n, outcome in zip(differ, run(attacker.conn, [plain[n] for n in differ]), strict=True):
        again[n] = outcome
    leaks = []
    for reading, shot, one, other, same in zip(readings, plain, first, gone, again, strict=True):
        steady = one.end == same.end
        if steady and one.worked and one.end != other.end:
            place = _culprit(attacker, reading, one)
            what = "what it shows changes when the rows of others are taken away"
            leaks.append(_leak(reading, place, shot, what, _row(attacker, reading, place, other)))
        elif not steady and one.worked and (told := _names(reading, one.found or "")):
            leaks.append(_leak(reading, told[0], shot, f"it shows {told[1]}, of a row of others"))
    ends = tuple(outcome.end for outcome in outcomes)
    tried = frozenset((str(r.hidden[0].name), r.verb, r.actor.name) for r in readings if r.hidden)
    return Found(len(plain) + len(without_them), tuple(leaks), (), tried, frozenset(), ends), list(first)


def _leak(reading: Reading, place: Place, shot: Shot, what: str, row: Row | None = None) -> Leak:
    made = (*there(place, row), *reading.after) if row else ()
    # where it takes rows of several tables, the script says so
    needed = "" if row else f"-- it needs rows of others in {place.name} that show through {reading.via}\n"
    sql_ = needed + script(shot, made)
    return Leak(str(place.name), reading.actor.name, reading.verb, reading.via, what, sql_)


def _row(attacker: Attacker, reading: Reading, place: Place, gone: Outcome) -> Row | None:
    """A row of others that shows by itself: with it the script stands alone. The last ones were made for a purpose."""
    rows = list(reversed(place.rows))[:_TRIED]
    removed = removal(attacker, reading.actor, reading.hidden)
    shots = [_shot(reading, (*removed, *there(place, row), *reading.after)) for row in rows]
    outcomes = run(attacker.conn, shots)
    told = (row for row, one in zip(rows, outcomes, strict=True) if one.worked and one.found != gone.found)
    return next(told, None)


def _shot(reading: Reading, prepare: tuple[str, ...]) -> Shot:
    # `rows` only says that the statement returns something to be read
    return Shot(reading.actor, Attempt(reading.verb, reading.via, reading.statement, "rows", prepare), TOLD)


def _culprit(attacker: Attacker, reading: Reading, one: Outcome) -> Place:
    """The table whose rows show."""
    prepared = [
        _shot(reading, (*removal(attacker, reading.actor, [place]), *reading.after)) for place in reading.hidden
    ]
    outcomes = run(attacker.conn, prepared)
    changed = (p for p, o in zip(reading.hidden, outcomes, strict=True) if o.end != one.end)
    return next(changed, reading.hidden[0])


def _names(reading: Reading, told: str) -> tuple[Place, str] | None:
    """A long value of a row that is not the actor's, in what was read."""
    for place in reading.hidden:
        for row in place.rows:
            if reading.actor.identity in row.values.values():
                continue
            found = next((v for v in row.values.values() if v and len(v) >= 16 and v in told), None)
            if found is not None:
                return place, found
    return None
