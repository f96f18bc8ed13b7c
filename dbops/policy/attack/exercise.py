"""Proves that each way in which a policy opens rows was tried: on rows for which it is true, by those who find it so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from psycopg import sql

from dbops.policy.attack.actors import Actor, user
from dbops.policy.attack.assault import Attacker
from dbops.policy.attack.bouts import Plan
from dbops.policy.attack.openings import Opening
from dbops.policy.attack.oracle import fixed, relation, snapshot
from dbops.policy.attack.result import Vacuous
from dbops.policy.attack.runner import TOLD, run
from dbops.policy.attack.seed import Seeded
from dbops.policy.attack.statements import text, updatable
from dbops.policy.attack.target import Attempt, Bout, Pair, Place, Row, Shot, Values
from dbops.policy.attack.ways import calls, joined, reads
from dbops.policy.model import Name

_SUPERUSER = Actor("", "none", ())
_MOST_TURNS = 8
STRANGER = "another user"


@dataclass
class _Seen:
    """An opening, and what was seen of it: for whom it holds on which rows, and where its values are as it asks."""

    plan: Plan
    opening: Opening
    fitting: frozenset[str] = frozenset()
    open_to: dict[Actor, frozenset[str]] = field(default_factory=dict)


def exercised(attacker: Attacker, seeded: Seeded, plans: Mapping[Name, Plan]) -> tuple[dict[Name, Plan], list[Vacuous]]:
    """The plans with bouts about the rows that each way opens, and with what is vacuous; what stays unproven.

    Ways are evaluated on the snapshots as the users' own roles: row security holds for what their subqueries read.
    """
    seen = [_Seen(plan, opening) for plan in plans.values() for opening in _reached(attacker, seeded, plan)]
    with attacker.conn.transaction(force_rollback=True):
        _share(attacker, seen)
        _evaluate(attacker, seen, seeded)
    made = {name: _with(plan, [each for each in seen if each.plan is plan], seeded) for name, plan in plans.items()}
    return made, [entry for each in seen for entry in _unproven(each, seeded)]


def _reached(attacker: Attacker, seeded: Seeded, plan: Plan) -> list[Opening]:
    """The ways on which somebody can go: there are rows, and users have privileges."""
    if not plan.bouts:
        return []
    found = seeded.openings[plan.place.name].found
    return [opening for opening in found if any(attacker.reach.get(opening.table, {}).values())]


def _share(attacker: Attacker, seen: Sequence[_Seen]) -> None:
    """Let users read the snapshots, and find by name what a policy has found already: rolled back by the caller."""
    for oid in dict.fromkeys(each.plan.place.table.oid for each in seen):
        attacker.conn.execute(sql.SQL("GRANT SELECT ON {} TO PUBLIC").format(snapshot(oid)))
    named = {schema for each in seen for part in each.opening.way.parts for schema, _ in calls(part)}
    there = {function.name.schema for function in attacker.catalog.functions}
    for schema in sorted((named & there) | {name.schema for name in attacker.catalog.tables}):
        attacker.conn.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO PUBLIC").format(sql.Identifier(schema)))


# --- evaluating ---


def _evaluate(attacker: Attacker, seen: Sequence[_Seen], seeded: Seeded) -> None:
    """First by those whose rows they are and the attackers; where nobody finds it true, by everybody there is."""
    fitting = _marks(attacker, [(each, _SUPERUSER, each.opening.way.values) for each in seen])
    for each, marks in zip(seen, fitting, strict=True):
        each.fitting = marks
    auth = attacker.auth
    _ask(attacker, [(each, _likely(each.plan)) for each in seen])
    everybody = [user(auth, STRANGER, who) for who in seeded.users]
    left = [each for each in seen if not each.open_to]
    _ask(
        attacker, [(each, [*(bout.actor for bout in each.plan.bouts if not bout.before), *everybody]) for each in left]
    )


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
            each.open_to[actor] = marks


def _marks(attacker: Attacker, asked: Sequence[tuple[_Seen, Actor, Sequence[str]]]) -> list[frozenset[str]]:
    """The marks of the rows for which the parts hold, in the actor's session."""
    shots = []
    for each, actor, parts in asked:
        place = each.plan.place
        within = sql.SQL("dbops_oid IN (SELECT relid FROM pg_catalog.pg_partition_tree({}::pg_catalog.regclass)) AND ")
        made = sql.SQL("SELECT pg_catalog.string_agg(dbops_mark, ' ') FROM {} AS {} WHERE {}{}").format(
            snapshot(place.table.oid),
            sql.Identifier(each.opening.table.name),
            within.format(sql.Literal(relation(each.opening.table).as_string(None)))
            if each.opening.table != place.name
            else sql.SQL(""),
            fixed(joined(parts)),
        )
        shots.append(Shot(actor, Attempt("select", "", text(made), "rows"), TOLD))
    outcomes = run(attacker.conn, shots)
    return [frozenset((outcome.found or "").split()) if outcome.worked else frozenset() for outcome in outcomes]


# --- what follows ---


def _with(plan: Plan, seen: Sequence[_Seen], seeded: Seeded) -> Plan:
    unread = seeded.openings[plan.place.name].unread if plan.bouts else ()
    turns = tuple(_turns(plan.place, seen))
    bouts = [replace(bout, pair=replace(bout.pair, turns=turns)) for bout in plan.bouts]
    more = {_same(bout): bout for each in seen for bout in _bouts(each, bouts)}
    table = str(plan.place.name)
    empty = [Vacuous(table, "", f"not exercised: {why}") for why in unread]
    empty += [Vacuous(table, "", reason) for each in seen for reason in _not_exercised(each)]
    return replace(plan, bouts=(*bouts, *more.values()), vacuous=(*plan.vacuous, *empty))


def _same(bout: Bout) -> object:
    own = bout.pair.own.mark if bout.pair.own else ""
    return bout.actor, bout.pair.relation, own, bout.pair.victim.mark


def _not_exercised(each: _Seen) -> Iterator[str]:
    opening, way = each.opening, each.opening.way
    if way.impossible:
        return
    if way.values and not _others(each, each.fitting):
        yield f"no made row satisfies {opening.policy}: {joined(way.values)}"
    elif not each.open_to:
        yield f"nobody who attacks satisfies {opening.policy}: {way.text}"


def _others(each: _Seen, marks: frozenset[str]) -> list[Row]:
    """The rows that are not the attacker's."""
    own = next((bout.pair.own for bout in each.plan.bouts if bout.pair.own), None)
    return [row for row in _rows(each, marks) if own is None or not _alike(each.plan.place, row, own)]


def _rows(each: _Seen, marks: frozenset[str]) -> list[Row]:
    return [row for row in each.plan.place.rows if row.mark in marks]


def _alike(place: Place, row: Row, other: Row) -> bool:
    """Whether both are the same owner's or tenant's; a row that nobody owns is like no other."""
    return bool(place.scope) and all(row.values[column] == other.values[column] for column in place.scope)


def _bouts(each: _Seen, bouts: Sequence[Bout]) -> Iterator[Bout]:
    """The plan's bouts once more, about rows of the same people for which the way holds."""
    if not each.opening.way.loose:
        return
    for bout in bouts:
        if bout.pair.relation == each.opening.table:
            open_ = _others(each, each.open_to.get(bout.actor, frozenset()))
            victim = _like(each.plan.place, open_ or _others(each, each.fitting), bout.pair.victim)
            fitting = _rows(each, each.fitting)
            own = bout.pair.own and _like(each.plan.place, fitting, bout.pair.own, strict=True)
            if victim is not None:
                yield replace(bout, pair=replace(bout.pair, own=own or bout.pair.own, victim=victim))
    actors = {bout.actor for bout in bouts}
    for actor in [actor for actor in each.open_to if actor.name == STRANGER and actor not in actors][:2]:
        row = _rows(each, each.open_to[actor])[0]
        yield Bout(actor, Pair(each.plan.place, each.opening.table, None, row, bouts[0].pair.turns))


def _like(place: Place, rows: Sequence[Row], other: Row, *, strict: bool = False) -> Row | None:
    alike = [row for row in rows if _alike(place, row, other)]
    return next(iter(alike if strict else (*alike, *rows)), None)


def _turns(place: Place, seen: Sequence[_Seen]) -> list[Values]:
    """What the checks of an UPDATE ask of a row: it may have to become so for them to let it pass."""
    free = [column for column in updatable(place) if column not in (*place.key, *place.scope)]
    found: dict[tuple[tuple[str, str | None], ...], Values] = {}
    for each in (each for each in seen if each.opening.check and each.opening.way.loose):
        for row in _rows(each, each.fitting)[:1]:
            turn = {column: row.values[column] for column in each.opening.way.columns if column in free}
            if turn:
                found[tuple(turn.items())] = turn
    return list(found.values())[:_MOST_TURNS]


def _unproven(each: _Seen, seeded: Seeded) -> Iterator[Vacuous]:
    """A part that mixes the session with values, and that held for rightful users only: for other values it may open."""
    place, way = each.plan.place, each.opening.way
    strangers = any(not _rightful(place, row, actor, seeded) for actor, marks in each.open_to.items()
                    for row in _rows(each, marks))  # fmt: skip
    if way.opaque and each.open_to and not strangers:
        columns = [
            column for column in way.columns if any(reads(p, each.opening.table.name, column) for p in way.opaque)
        ]
        reason = f"{each.opening.policy}: whether {joined(way.opaque)} lets others in for other values of "
        yield Vacuous(str(place.name), "", f"{reason}{', '.join(columns)}")


def _rightful(place: Place, row: Row, actor: Actor, seeded: Seeded) -> bool:
    rules = place.rules
    if rules is None or not actor.identity:
        return False
    if rules.owner and row.values[rules.owner] == actor.identity:
        return True
    members = seeded.members.get(rules.tenant.members, ()) if rules.tenant else ()
    tenants = {member.tenant for member in members if member.user == actor.identity}
    return bool(rules.tenant and row.values[rules.tenant.column] in tenants)
