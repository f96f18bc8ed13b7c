"""Views and materialized views: read by interference, written through like tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from psycopg import sql

from dbops.policy.attack.actors import Actor, user
from dbops.policy.attack.assault import Attacker, Found
from dbops.policy.attack.bouts import Plan
from dbops.policy.attack.interference import Reading, compare
from dbops.policy.attack.judge import judge, never
from dbops.policy.attack.oracle import relation
from dbops.policy.attack.result import Leak, Vacuous
from dbops.policy.attack.runner import SQL, kept, run, script
from dbops.policy.attack.statements import text, without
from dbops.policy.attack.subjects import Subject
from dbops.policy.attack.target import Attempt, Place, Row, Shot
from dbops.policy.attack.through import not_exercised, shows
from dbops.policy.model import Name
from dbops.policy.state import View


def views(
    attacker: Attacker,
    plans: Mapping[Name, Plan],
    places: Mapping[Name, Place],
    over: Name | None = None,
    through: Sequence[Subject] = (),
    users: Sequence[str] = (),
) -> tuple[Found, list[str]]:
    """Every view that users or visitors may read or write, over tables that are attacked or that no rule opens.

    `over` narrows it to those that read this table. `through`: the ways through those with their owner's rights, for
    each of which somebody's row must be seen; `users` are asked where no attacker finds a way true.
    """
    found = Found()
    notes: list[str] = []
    subjects = {subject.title: subject for subject in through}
    others = [user(attacker.auth, "another user", one) for one in users]
    for name, view in sorted(attacker.catalog.views.items()):
        if any(attacker.reach.get(name, {}).values()) and (over is None or over in view.reads):
            part, told = _attacked(attacker, plans, places, view, subjects.get(f"view {name}"), others)
            found += part
            notes += told
    return found, notes


def _attacked(
    attacker: Attacker,
    plans: Mapping[Name, Plan],
    places: Mapping[Name, Place],
    view: View,
    subject: Subject | None,
    users: Sequence[Actor],
) -> tuple[Found, list[str]]:
    name, privileges = view.name, attacker.reach[view.name]
    hidden = tuple(places[table] for table in view.reads if table in places)
    if not hidden:
        return Found(), []
    after = subject.after if subject else _refresh(view)
    actors = _actors(attacker, plans, view.reads)
    readings = [
        Reading(actor, f"view {name}", "select", statement, hidden, after)
        for actor in actors
        if "SELECT" in privileges.get(actor.role, ())
        for statement in _whole(name)
    ]
    found, _ = compare(attacker, readings)
    found += _written(attacker, plans, view, hidden)
    if name in attacker.definitions.definer_views:
        why = attacker.definitions.definer_views[name]
        notes = [f"view {name} keeps its owner's rights ({why}): {leak.what}" for leak in found.leaks[:1]]
        return replace(found, leaks=()), notes
    if readings and not found.leaks:
        statements = [(actor, statement) for actor in (*actors, *users) for statement in _whole(name)[:1]]
        if not shows(attacker, statements, hidden, after):
            reason = f"view {name} shows no row of anyone: nothing is proven"
            found += Found(vacuous=(Vacuous(str(hidden[0].name), "", reason),))
        if subject is not None:
            found += not_exercised(attacker, subject, {place.name: place for place in hidden}, actors, users)
    return found, []


def _refresh(view: View) -> tuple[str, ...]:
    return (text(sql.SQL("REFRESH MATERIALIZED VIEW {}").format(relation(view.name))),) if view.materialized else ()


def _whole(name: Name) -> tuple[str, str]:
    rows = sql.SQL("SELECT coalesce(pg_catalog.string_agg(x::text, E'\\n' ORDER BY x::text), '') FROM {} AS x")
    count = sql.SQL("SELECT pg_catalog.count(*) FROM {}")
    return text(rows.format(relation(name))), text(count.format(relation(name)))


def _actors(attacker: Attacker, plans: Mapping[Name, Plan], tables: Iterable[Name]) -> list[Actor]:
    """One user and the intruders of each table's bouts, each once."""
    bouts = [bout for table in tables if table in plans for bout in plans[table].bouts if not bout.before]
    if not bouts:
        bouts = [bout for plan in list(plans.values())[:1] for bout in plan.bouts if not bout.before]
    return list({(bout.actor.name, bout.actor.settings): bout.actor for bout in bouts}.values())


def _written(attacker: Attacker, plans: Mapping[Name, Plan], view: View, hidden: Sequence[Place]) -> Found:
    """INSERT, UPDATE and DELETE through the view, judged by the tables' rows."""
    columns = [row[1] for row in attacker.conn.execute(SQL["columns"], {"relations": [view.oid]})]
    shots: list[tuple[Place, Shot, Shot]] = []
    for place in hidden:
        for bout in plans[place.name].bouts if place.name in plans else ():
            if bout.before or bout.pair.relation != place.name:
                continue
            for attempt in _writes(view.name, place, columns, bout.pair.victim):
                if attempt.verb.upper() not in attacker.reach.get(view.name, {}).get(bout.actor.role, ()):
                    continue
                left = kept(place) if attempt.prepare else None
                probe = Shot(
                    bout.actor, attempt, judge(place, place.name, attempt, attacker.allows(place, bout.actor)), left
                )
                control = Shot(None, attempt, judge(place, place.name, attempt, never), left)
                shots.append((place, probe, control))
    outcomes = run(attacker.conn, [shot for _, probe, control in shots for shot in (probe, control)])
    leaks: dict[tuple[str, str, str], Leak] = {}
    for (place, probe, _), got, could in zip(shots, outcomes[::2], outcomes[1::2], strict=True):
        if got.found is not None and could.found is not None:
            assert probe.actor is not None
            leak = Leak(
                str(place.name), probe.actor.name, probe.attempt.verb, f"view {view.name}", got.found, script(probe)
            )
            leaks.setdefault((leak.table, leak.actor, leak.verb), leak)
    return Found(len(shots), tuple(leaks.values()))


def _writes(view: Name, place: Place, columns: Sequence[str], victim: Row) -> Iterator[Attempt]:
    common = [column for column in columns if column in place.writable]
    plain = [column for column in common if column not in (*place.scope, *place.key)]
    if not common:
        return
    values = sql.SQL(", ").join(sql.Literal(victim.values[column]) for column in common)
    insert = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        relation(view), sql.SQL(", ").join(map(sql.Identifier, common)), values
    )
    yield Attempt("insert", "as the victim", text(insert), prepare=without(place, victim), writes=("insert",))
    for column in plain[:1]:
        update = sql.SQL("UPDATE {} SET {} = {}").format(
            relation(view), sql.Identifier(column), sql.Literal(victim.values[column])
        )
        yield Attempt("update", "every row", text(update), writes=("update",))
    yield Attempt("delete", "every row", text(sql.SQL("DELETE FROM {}").format(relation(view))), writes=("delete",))
