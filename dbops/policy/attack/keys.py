"""Constraints as oracles: PostgreSQL checks keys and references against all rows, whatever a policy hides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from psycopg import sql

from dbops.policy.attack.assault import Attacker, Found
from dbops.policy.attack.bouts import Plan
from dbops.policy.attack.judge import judge
from dbops.policy.attack.result import Leak
from dbops.policy.attack.runner import run, script
from dbops.policy.attack.statements import insert, is_row, updatable, update, without
from dbops.policy.attack.target import Attempt, Bout, Place, Row, Shot
from dbops.policy.model import Name
from dbops.policy.state import Key

UNIQUE_VIOLATION, FOREIGN_KEY_VIOLATION = "23505", "23503"


@dataclass(frozen=True)
class Question:
    """The same statement with the victim's row there and with it gone: an answer that differs tells of it."""

    bout: Bout
    key: Key
    asked: Shot
    gone: Shot

    @property
    def unique(self) -> bool:
        return self.key.refers_to is None


def key_oracles(attacker: Attacker, plans: Mapping[Name, Plan]) -> tuple[Found, list[str]]:
    """What the keys and references of the tables tell, and notes on those that were passed over."""
    notes: dict[str, None] = {}
    asked = [question for plan in plans.values() for question in questions(attacker, plan, plans, notes)]
    return answers(attacker, asked), list(notes)


def answers(attacker: Attacker, asked: Sequence[Question]) -> Found:
    """Ask, and see which answers tell of a row of others."""
    shots = [shot for question in asked for shot in (question.asked, question.gone)]
    outcomes = run(attacker.conn, shots)
    leaks: dict[tuple[str, str, str], Leak] = {}
    for question, there, gone in zip(asked, outcomes[::2], outcomes[1::2], strict=True):
        refused, free = (there, gone) if question.unique else (gone, there)
        state = UNIQUE_VIOLATION if question.unique else FOREIGN_KEY_VIOLATION
        if refused.state == state and refused.hit == question.key.name and free.worked:
            leak = _leak(question)
            leaks.setdefault((leak.table, leak.actor, leak.via), leak)
    ends = tuple(outcome.end for outcome in outcomes)
    return Found(len(shots), tuple(leaks.values()), outcomes=ends)


def _leak(question: Question) -> Leak:
    key, verb = question.key, question.asked.attempt.verb
    if question.unique:
        what = f"a row of one's own is refused where a row of others has the same {', '.join(key.columns) or 'key'}"
        fix = "add the owner's or tenant's column to the key"
    else:
        what = f"a row of one's own may refer to a row of others in {key.refers_to}"
        fix = "let the key carry the owner's or tenant's column"
    via = f"{'unique' if question.unique else 'foreign key'} {key.name}"
    table = str(question.bout.pair.place.name)
    return Leak(table, question.bout.actor.name, verb, via, f"{what}: {fix}", script(question.asked))


def questions(attacker: Attacker, plan: Plan, plans: Mapping[Name, Plan], notes: dict[str, None]) -> Iterator[Question]:
    """All that may be asked of the table's keys. `notes` takes those that tell nothing."""
    place = plan.place
    bouts = [bout for bout in plan.bouts if bout.actor.thorough and bout.pair.own and bout.pair.relation == place.name]
    for bout in bouts:
        own = bout.pair.own
        assert own is not None
        for key in place.table.unique:
            if set(key.columns) & set(place.scope):
                continue
            if _unguessable(place, key):
                notes[f"{place.name}: {key.name} is over a made-up id: that one is taken tells nothing of its row"] = (
                    None
                )
                continue
            columns = key.columns or tuple(c for c in place.writable if c not in (*place.scope, *place.key))
            forged = replace(own, values={**own.values, **{c: bout.pair.victim.values[c] for c in columns}})
            yield from _asked(attacker, bout, key, forged, columns, without(place, bout.pair.victim))
        for key in place.table.foreign:
            yield from _references(attacker, bout, key, plans)


def _unguessable(place: Place, key: Key) -> bool:
    types = {column.name: column.type for column in place.table.columns}
    return any(types[column] == "uuid" or column in place.numbered for column in key.columns)


def _references(attacker: Attacker, bout: Bout, key: Key, plans: Mapping[Name, Plan]) -> Iterator[Question]:
    place, own = bout.pair.place, bout.pair.own
    free = [column for column in key.columns if column not in place.scope]
    other = plans.get(key.refers_to) if key.refers_to else None
    if own is None or other is None or other.place.rules is None or not free:
        return
    hidden = _hidden(bout, other)
    if hidden is None:
        return
    theirs = {c: hidden.values[f] for c, f in zip(key.columns, key.foreign_columns, strict=True) if c in free}
    forged = replace(own, values={**own.values, **theirs})
    yield from _asked(attacker, bout, key, forged, tuple(free), without(other.place, hidden))


def _hidden(bout: Bout, other: Plan) -> Row | None:
    """A row of the other table that this actor may not see."""
    pairs = [each.pair for each in other.bouts if each.actor.thorough and each.actor.identity == bout.actor.identity]
    shared = frozenset[str]().union(*other.place.open)
    if pairs:
        return pairs[0].victim if pairs[0].victim.mark not in shared else None
    owner = other.place.rules.owner if other.place.rules else None
    others = [
        row
        for row in other.place.rows
        if row.mark not in shared and (not owner or row.values[owner] != bout.actor.identity)
    ]
    return others[0] if others and (owner or not other.place.scope) else None


def _asked(
    attacker: Attacker, bout: Bout, key: Key, forged: Row, columns: tuple[str, ...], removal: tuple[str, ...]
) -> Iterator[Question]:
    """By an INSERT of one's own row in place of the one there is, and by an UPDATE of it."""
    place, own = bout.pair.place, bout.pair.own
    assert own is not None
    where = sql.SQL(" WHERE {}").format(is_row(place, own))
    statements: list[tuple[Literal["insert", "update"], str, tuple[str, ...]]] = [
        ("insert", insert(place, place.name, forged), without(place, own))
    ]
    if set(columns) <= set(updatable(place)):
        statements.append(("update", update(place.name, columns, forged, where), ()))
    for verb, statement, prepare in statements:
        if attacker.verbs is None or verb in attacker.verbs:
            attempt = Attempt(verb, f"key {key.name}", statement, prepare=prepare, writes=(verb,))
            text = judge(place, place.name, attempt, attacker.allows(place, bout.actor))
            gone = replace(attempt, prepare=(*prepare, *removal))
            yield Question(bout, key, Shot(bout.actor, attempt, text), Shot(bout.actor, gone, text))
