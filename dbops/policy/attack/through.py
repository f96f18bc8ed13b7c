"""Proves that each way through a view or a function was tried: rows of others get through it, or its rightful user's do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from psycopg import sql

from dbops.policy.attack.actors import Actor
from dbops.policy.attack.assault import Attacker, Found
from dbops.policy.attack.interference import removal
from dbops.policy.attack.oracle import fixed, relation
from dbops.policy.attack.result import Vacuous
from dbops.policy.attack.runner import TOLD, run
from dbops.policy.attack.selects import Path
from dbops.policy.attack.statements import as_replica, text
from dbops.policy.attack.subjects import Subject, probes, query_of, told, values
from dbops.policy.attack.target import Attempt, Place, Shot
from dbops.policy.attack.ways import joined
from dbops.policy.model import Name


def not_exercised(
    attacker: Attacker, subject: Subject, places: Mapping[Name, Place], actors: Sequence[Actor], users: Iterable[Actor]
) -> Found:
    """What is vacuous of a subject: ways that show no row of others, or that are true for nobody; and what is unread."""
    known = [(path, [places[name] for name in subject.tables(path, places)]) for path in subject.paths]
    paths = [(path, read) for path, read in known if read]
    hunters = [actor for actor in actors if actor.thorough] or list(actors[:1])
    blind = [not found for found in _changed(attacker, subject, paths, hunters)]
    dead = [not found for found in _true(attacker, subject, [path for path, _ in paths], [*actors, *users])]
    found = Found()
    for (path, read), unseen, untrue in zip(paths, blind, dead, strict=True):
        if unseen or untrue:
            who = "no made row shows through" if unseen else "nobody who attacks gets a row through"
            shown = " AND ".join(joined(step.parts) for step in (values(path) if unseen else path))
            found += Found(vacuous=(Vacuous(str(read[0].name), "", f"{who} {subject.title}: {shown}"),))
    return found + Found(unproven=tuple(Vacuous(subject.title, "", why) for why in subject.unread))


def _changed(
    attacker: Attacker, subject: Subject, paths: Sequence[tuple[Path, Sequence[Place]]], hunters: Sequence[Actor]
) -> list[bool]:
    """Whether what the rows alone decide of each path changes when the rows of others are taken away."""
    shots = []
    for path, read in paths:
        asked = told(probes(values(path)))
        for hunter in hunters:
            gone = removal(attacker, hunter, (_private(place) for place in read))
            shots += [_shot(subject, hunter, asked, prepare) for prepare in ((), (*gone, *subject.after))]
    outcomes = iter(run(attacker.conn, shots))
    found = []
    for path, _ in paths:
        pairs = [(next(outcomes), next(outcomes)) for _ in hunters]
        differ = [
            _all_differ(one.found or "", other.found or "") for one, other in pairs if one.worked and other.worked
        ]
        found.append(not values(path) or any(differ))
    return found


def _all_differ(one: str, other: str) -> bool:
    return all(a != b for a, b in zip(one.split(), other.split(), strict=True))


def _private(place: Place) -> Place:
    """Whose rows these are, without what is shared with others."""
    return replace(place, rules=replace(place.rules, shared=()) if place.rules else None)


def _true(attacker: Attacker, subject: Subject, paths: Sequence[Path], actors: Iterable[Actor]) -> list[bool]:
    """Whether somebody finds each path true for a row."""
    everybody = list({actor.settings: actor for actor in actors}.values())
    shots = []
    for path in paths:
        there = sql.SQL(" AND ").join(sql.SQL("EXISTS ({})").format(fixed(query_of(step))) for step in path)
        asked = text(sql.SQL("SELECT ({})::text").format(there))
        shots += [_shot(subject, actor, asked, ()) for actor in everybody]
    held = [outcome.found == "true" for outcome in run(attacker.conn, shots)]
    size = len(everybody)
    return [any(held[at * size : (at + 1) * size]) for at in range(len(paths))]


def shows(
    attacker: Attacker,
    readings: Iterable[tuple[Actor, str]],
    places: Iterable[Place],
    after: tuple[str, ...],
    *,
    own: bool = False,
) -> bool:
    """Whether one of the statements gives another thing when there are no rows at all: `own`, in the actor's own role."""
    gone = [text(sql.SQL("DELETE FROM {}").format(relation(place.name))) for place in places]
    prepare = (*as_replica(*gone), *after)
    shots = []
    for actor, statement in readings:
        who = actor if own else replace(actor, role="none")
        shots += [Shot(who, Attempt("select", "", statement, "rows", before), TOLD) for before in ((), prepare)]
    outcomes = run(attacker.conn, shots)
    return any(one.worked and one.end != other.end for one, other in zip(outcomes[::2], outcomes[1::2], strict=True))


def _shot(subject: Subject, actor: Actor, statement: str, prepare: tuple[str, ...]) -> Shot:
    signed = replace(actor, role="none", settings=(*actor.settings, *subject.settings))
    return Shot(signed, Attempt("select", subject.title, statement, "rows", prepare), TOLD)
