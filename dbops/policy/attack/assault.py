"""One table attacked: which statements work at all, what each actor got by them, what the rightful ones could do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dbops.policy.attack import attempts
from dbops.policy.attack.actors import Actor
from dbops.policy.attack.bouts import Plan
from dbops.policy.attack.judge import Allowed, judge, never
from dbops.policy.attack.oracle import allowed, snapshot
from dbops.policy.attack.result import Leak, Vacuous
from dbops.policy.attack.runner import kept, run, script
from dbops.policy.attack.statements import there
from dbops.policy.attack.target import Attempt, Bout, Control, Outcome, Pair, Place, Shot
from dbops.policy.model import VERBS, Auth, Definitions, Name
from dbops.policy.state import Catalog

if TYPE_CHECKING:
    from dbops.database import Connection

PairKey = tuple[Name, Name, str, str]
HINT = "no definition allows anything here: declare the table (`shared`, `closed`) or revoke the privilege"


@dataclass(frozen=True)
class Found:
    """What an assault found. `tried` holds (table, verb, actor), `can` those whose right was seen to work."""

    attacks: int = 0
    leaks: tuple[Leak, ...] = ()
    vacuous: tuple[Vacuous, ...] = ()
    tried: frozenset[tuple[str, str, str]] = frozenset()
    can: frozenset[tuple[str, str, str]] = frozenset()
    outcomes: tuple[tuple[str, str | None], ...] = ()  # state and find of every attempt: equal runs are equal here
    unproven: tuple[Vacuous, ...] = ()  # of which nothing is known, beside the matrix

    def __add__(self, other: Found) -> Found:
        return Found(
            self.attacks + other.attacks,
            self.leaks + other.leaks,
            self.vacuous + other.vacuous,
            self.tried | other.tried,
            self.can | other.can,
            self.outcomes + other.outcomes,
            self.unproven + other.unproven,
        )


@dataclass
class Attacker:
    """Holds what all assaults share. `verbs` None: all."""

    conn: Connection
    definitions: Definitions
    catalog: Catalog
    reach: Mapping[Name, Mapping[str, frozenset[str]]]  # table -> role -> privileges
    verbs: Collection[str] | None = None
    _prepared: dict[Name, tuple[list[tuple[Bout, Shot]], list[Shot]]] = field(default_factory=dict)
    _working: dict[PairKey, tuple[list[Attempt], list[Vacuous]]] = field(default_factory=dict)

    @property
    def auth(self) -> Auth:
        return self.definitions.auth

    def assault(self, plan: Plan) -> Found:
        """Run the table's attacks as the policies are now."""
        shots, right = self._ready(plan)
        outcomes = run(self.conn, [shot for _, shot in shots] + right)
        found = self._leaks(plan, shots, outcomes[: len(shots)])
        return found + self._judged_rights(plan, right, outcomes[len(shots) :]) + self._vacuous(plan)

    def _ready(self, plan: Plan) -> tuple[list[tuple[Bout, Shot]], list[Shot]]:
        """The table's attempts, and those that must work: they depend on no policy, so mutants share them."""
        name = plan.place.name
        if name not in self._prepared:
            self.find_working([plan])
            shots = [(bout, shot) for bout in plan.bouts for shot in self._shots(bout)]
            self._prepared[name] = shots, [shot for control in plan.controls for shot in self._rights(control)]
        return self._prepared[name]

    # --- what works at all ---

    def find_working(self, plans: Iterable[Plan]) -> None:
        """Try each statement as a superuser: what fails there proves nothing about a policy."""
        pairs = {_key(pair): pair for plan in plans for pair in _pairs(plan) if _key(pair) not in self._working}
        left = {key: _alternatives(filter(self._wanted, attempts.plan(pair))) for key, pair in pairs.items()}
        results: dict[PairKey, list[tuple[Attempt, Outcome]]] = {key: [] for key in pairs}
        while any(left.values()):
            turn = [(key, label, choices.pop(0)) for key, labels in left.items() for label, choices in labels.items()]
            outcomes = run(self.conn, [self._shot(None, pairs[key], attempt, never) for key, _, attempt in turn])
            for (key, label, attempt), outcome in zip(turn, outcomes, strict=True):
                results[key].append((attempt, outcome))
                if not left[key][label] or _works(outcome):
                    del left[key][label]
        for key, pair in pairs.items():
            self._working[key] = _sorted_out(str(pair.place.name), results[key])

    def _wanted(self, attempt: Attempt) -> bool:
        return self.verbs is None or attempt.verb in self.verbs

    def _shot(self, actor: Actor | None, pair: Pair, attempt: Attempt, judged: Allowed) -> Shot:
        text = judge(pair.place, pair.relation, attempt, judged)
        return Shot(actor, attempt, text, kept(pair.place) if attempt.prepare else None)

    def allows(self, place: Place, actor: Actor) -> Allowed:
        """What the definitions allow the actor, by verb."""
        tenant = place.rules.tenant if place.rules else None
        table = self.catalog.tables.get(tenant.members) if tenant else None
        members = snapshot(table.oid) if table else None
        return lambda verb: allowed(place.rules, self.auth, actor, verb, members)

    def _shots(self, bout: Bout) -> list[Shot]:
        working, _ = self._working[_key(bout.pair)]
        direct = bout.pair.relation != bout.pair.place.name
        chosen = [attempt for attempt in working if attempt.telling or (bout.actor.thorough and not direct)]
        chosen = [attempt for attempt in chosen if bout.actor.identity or not attempt.own]
        judged, texts = self.allows(bout.pair.place, bout.actor), dict[object, str]()
        shots = []
        for attempt in chosen:
            same = (attempt.judge, attempt.writes, attempt.mark)
            if same not in texts:  # composing is half of the attack's own time
                texts[same] = judge(bout.pair.place, bout.pair.relation, attempt, judged)
            left = kept(bout.pair.place) if attempt.prepare else None
            shots.append(Shot(bout.actor, attempt, texts[same], left, bout.before))
        return shots

    def _vacuous(self, plan: Plan) -> Found:
        """Verbs of which no statement works, where somebody has the privilege to try it."""
        found = list(plan.vacuous)
        for pair in {_key(pair): pair for pair in _pairs(plan)}.values():
            held = {privilege for privileges in self.reach.get(pair.relation, {}).values() for privilege in privileges}
            if pair.own is None or pair.own.mark != pair.victim.mark:
                found += [one for verb, one in _by_verb(self._working[_key(pair)][1]) if verb.upper() in held]
        return Found(vacuous=tuple(dict.fromkeys(found)))

    # --- what came of it ---

    def _leaks(self, plan: Plan, shots: Sequence[tuple[Bout, Shot]], outcomes: Sequence[Outcome]) -> Found:
        table = str(plan.place.name)
        leaks: dict[tuple[str, str, str], Leak] = {}
        for (bout, shot), outcome in zip(shots, outcomes, strict=True):
            if outcome.found is not None:
                direct = bout.pair.relation != plan.place.name
                via = f"partition {bout.pair.relation}" if direct else "table"
                what = f"{shot.attempt.label}: {outcome.found}" + (f"; {HINT}" if plan.place.rules is None else "")
                made = there(bout.pair.place, bout.pair.victim)
                leak = Leak(table, bout.actor.name, shot.attempt.verb, via, what, script(shot, made))
                leaks.setdefault((leak.actor, leak.verb, via), leak)
        tried = frozenset((table, shot.attempt.verb, bout.actor.name) for bout, shot in shots)
        ends = tuple(outcome.end for outcome in outcomes)
        return Found(len(shots), tuple(leaks.values()), (), tried, frozenset(), ends)

    # --- controls ---

    def _rights(self, control: Control) -> list[Shot]:
        chosen = [attempt for attempt in attempts.controls(control.pair, control.verbs) if self._wanted(attempt)]
        return [self._shot(control.actor, control.pair, attempt, never) for attempt in chosen]

    def _judged_rights(self, plan: Plan, shots: Sequence[Shot], outcomes: Sequence[Outcome]) -> Found:
        table = str(plan.place.name)
        vacuous, can = [], set()
        for shot, outcome in zip(shots, outcomes, strict=True):
            assert shot.actor is not None
            if _works(outcome):
                can.add((table, shot.attempt.verb, shot.actor.name))
                continue
            why = outcome.told or "it found nothing and changed nothing"
            vacuous.append(
                Vacuous(table, shot.actor.name, f"{shot.attempt.verb} is allowed here and does not work: {why}")
            )
        ends = tuple(outcome.end for outcome in outcomes)
        return Found(0, (), tuple(vacuous), frozenset(can), frozenset(can), ends)


def _key(pair: Pair) -> PairKey:
    return (pair.place.name, pair.relation, pair.own.mark if pair.own else "", pair.victim.mark)


def _pairs(plan: Plan) -> list[Pair]:
    return [bout.pair for bout in plan.bouts]


def _alternatives(planned: Iterable[Attempt]) -> dict[tuple[str, str], list[Attempt]]:
    """The attempts by verb and label: those after the first are tried where it does not work."""
    grouped: dict[tuple[str, str], list[Attempt]] = {}
    for attempt in planned:
        grouped.setdefault((attempt.verb, attempt.label), []).append(attempt)
    return grouped


def _works(outcome: Outcome) -> bool:
    return outcome.worked and outcome.found is not None


def _sorted_out(table: str, results: Sequence[tuple[Attempt, Outcome]]) -> tuple[list[Attempt], list[Vacuous]]:
    """The first of each alternative that works, and the verbs of which none does."""
    works: dict[tuple[str, str], Attempt] = {}
    reasons: dict[str, str] = {}
    for attempt, outcome in results:
        if _works(outcome):
            works.setdefault((attempt.verb, attempt.label), attempt)
        else:
            reasons.setdefault(attempt.verb, outcome.told or "it changes nothing")
    working = {verb for verb, _ in works}
    tried = {attempt.verb for attempt, _ in results}
    vacuous = [
        Vacuous(table, "", f"{verb}: no statement works, even for a superuser: {reasons[verb]}")
        for verb in VERBS
        if verb in tried and verb not in working
    ]
    return list(works.values()), vacuous


def _by_verb(found: Sequence[Vacuous]) -> list[tuple[str, Vacuous]]:
    return [(one.reason.partition(":")[0], one) for one in found]
