"""Proves that each way in which a policy opens rows was tried: on rows for which it is true, by those who find it so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from psycopg import sql

from dbops.policy.attack.actors import Actor, user
from dbops.policy.attack.assault import Attacker
from dbops.policy.attack.bouts import Plan
from dbops.policy.attack.openings import Opening
from dbops.policy.attack.oracle import fixed, snapshot
from dbops.policy.attack.result import Vacuous
from dbops.policy.attack.runner import TOLD, run
from dbops.policy.attack.seed import Seeded
from dbops.policy.attack.statements import text
from dbops.policy.attack.target import Attempt, Bout, Pair, Place, Row, Shot, Values
from dbops.policy.attack.ways import joined
from dbops.policy.model import Name

_SUPERUSER = Actor("", "none", ())
_MOST_TURNS = 8


@dataclass
class _Seen:
    """An opening, and what was seen of it: for whom it holds on which rows, and where its values are as it asks."""

    plan: Plan
    opening: Opening
    fitting: frozenset[str] = frozenset()
    held: Mapping[Actor, frozenset[str]] | None = None

    @property
    def open_to(self) -> dict[Actor, frozenset[str]]:
        return dict(self.held or {})


def exercised(attacker: Attacker, seeded: Seeded, plans: Mapping[Name, Plan]) -> tuple[dict[Name, Plan], list[Vacuous]]:
    """The plans with bouts about the rows that each way opens, and with what is vacuous; what stays unproven.

    Ways are evaluated on the snapshots as the users' own roles: row security holds for what their subqueries read.
    """
    seen = [_Seen(plan, opening) for plan in plans.values() for opening in _reached(attacker, seeded, plan)]
    _share(attacker, plans)
    _evaluate(attacker, seen, seeded)
    unproven = [entry for each in seen for entry in _unproven(each)]
    return {name: _with(plan, [each for each in seen if each.plan is plan], seeded) for name, plan in plans.items()}, unproven


def _reached(attacker: Attacker, seeded: Seeded, plan: Plan) -> list[Opening]:
    """The ways on which somebody can go: there are rows, and users have privileges."""
    if not plan.bouts:
        return []
    found = seeded.openings[plan.place.name].found
    return [opening for opening in found if any(attacker.reach.get(opening.table, {}).values())]


def _share(attacker: Attacker, plans: Mapping[Name, Plan]) -> None:
    for plan in plans.values():
        if plan.place.rows:
            attacker.conn.execute(sql.SQL("GRANT SELECT ON {} TO PUBLIC").format(snapshot(plan.place.table.oid)))


# --- evaluating ---


def _evaluate(attacker: Attacker, seen: Sequence[_Seen], seeded: Seeded) -> None:
    """First by those whose rows they are and the attackers; where nobody finds it true, by everybody there is."""
    fitting = _marks(attacker, [(each, _SUPERUSER, each.opening.way.values) for each in seen])
    for each, marks in zip(seen, fitting, strict=True):
        each.fitting = marks
    auth = attacker.auth
    _ask(attacker, [(each, _likely(each.plan)) for each in seen])
    everybody = [user(auth, f"user {who}", who) for who in seeded.users]
    left = [each for each in seen if not each.open_to]
    _ask(attacker, [(each, [*(bout.actor for bout in each.plan.bouts if not bout.before), *everybody]) for each in left])


def _likely(plan: Plan) -> list[Actor]:
    hunters = [bout.actor for bout in plan.bouts if bout.actor.thorough and not bout.before]
    visitors = [bout.actor for bout in plan.bouts if not bout.actor.identity][:1]
    return [*(control.actor for control in plan.controls), *hunters, *visitors]


def _ask(attacker: Attacker, asked: Iterable[tuple[_Seen, Iterable[Actor]]]) -> None:
    each_by = [
        (each, actor)
        for each, actors in asked
        for actor in {(actor.role, actor.settings): actor for actor in actors}.values()
    ]
    found = _marks(attacker, [(each, actor, each.opening.way.parts) for each, actor in each_by])
    for (each, actor), marks in zip(each_by, found, strict=True):
        if marks:
            each.held = {**(each.held or {}), actor: marks}


def _marks(attacker: Attacker, asked: Sequence[tuple[_Seen, Actor, Sequence[str]]]) -> list[frozenset[str]]:
    """The marks of the rows for which the parts hold, in the actor's session."""
    shots = []
    for each, actor, parts in asked:
        place = each.plan.place
        statement = sql.SQL("SELECT pg_catalog.array_to_string(pg_catalog.array_agg(dbops_mark), ' ') FROM {} AS {} WHERE {}")
        made = statement.format(
            snapshot(place.table.oid), sql.Identifier(each.opening.table.name), fixed(joined(parts))
        )
        shots.append(Shot(actor, Attempt("select", "", text(made), "rows"), TOLD))
    outcomes = run(attacker.conn, shots)
    return [frozenset((outcome.found or "").split()) if outcome.worked else frozenset() for outcome in outcomes]


# --- what follows ---


def _with(plan: Plan, seen: Sequence[_Seen], seeded: Seeded) -> Plan:
    if not seen and not seeded.openings[plan.place.name].unread:
        return plan
    turns = tuple(_turns(plan.place, seen))
    bouts = [replace(bout, pair=replace(bout.pair, turns=turns)) for bout in plan.bouts]
    more = [bout for each in seen if each.opening.way.loose for bout in _bouts(each, bouts)]
    unique = {(bout.actor, bout.pair.own and bout.pair.own.mark, bout.pair.victim.mark, bout.before): bout for bout in more}
    return replace(plan, bouts=(*bouts, *unique.values()), vacuous=(*plan.vacuous, *_vacuous(plan, seen, seeded)))


def _vacuous(plan: Plan, seen: Sequence[_Seen], seeded: Seeded) -> Iterator[Vacuous]:
    table = str(plan.place.name)
    for unread in seeded.openings[plan.place.name].unread:
        yield Vacuous(table, "", f"{_policy(plan, unread)} was not exercised: {unread.reason}")
    for each in seen:
        way = each.opening.way
        if way.values and not _others(each, each.fitting):
            yield Vacuous(table, "", f"no made row satisfies {_policy(plan, each.opening)}: {joined(way.values)}")
        elif not each.open_to:
            yield Vacuous(table, "", f"nobody who attacks satisfies {_policy(plan, each.opening)}: {way.text}")


def _policy(plan: Plan, of: object) -> str:
    table, policy = getattr(of, "table"), getattr(of, "policy")
    return f"policy {policy}" + (f" of {table}" if table != plan.place.name else "")
