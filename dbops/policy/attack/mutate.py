"""The attack's own proof: each policy weakened in turn, and each time something must get through."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import psycopg

from dbops.policy.attack.assault import Found
from dbops.policy.attack.keys import Question, answers, questions
from dbops.policy.attack.privileges import privilege_leaks
from dbops.policy.attack.result import Equivalent, Mutants
from dbops.policy.attack.run import Field, field_of, reach_of
from dbops.policy.attack.views import views
from dbops.policy.attack.weaken import Companion, Mutant, Statements, mutants
from dbops.policy.model import Definitions, Name
from dbops.policy.state import Catalog

if TYPE_CHECKING:
    from dbops.database import Connection


def attack_mutants(
    conn: Connection,
    definitions: Definitions,
    catalog: Catalog,
    *,
    seed: int = 0,
    tables: Collection[Name] | None = None,
) -> Mutants:
    """See `dbops.policy.attack.attack_mutants`."""
    tally = _Tally()
    with field_of(conn, definitions, catalog, seed, None, tables) as ground:
        defined = [plan.place for plan in ground.plans.values() if plan.place.rules is not None]
        for place in defined:
            assert place.rules is not None
            trial = _Trial(conn, definitions, catalog, ground, place.name)
            for mutant in mutants(definitions, catalog, place.rules):
                trial.try_out(mutant, tally)
    return Mutants(tally.tried, tuple(tally.caught), tuple(tally.survived), tuple(tally.equivalent))


_REFUSED, _NOTHING = ("42501", None), ("", None)


@dataclass
class _Tally:
    tried: int = 0
    caught: list[str] = field(default_factory=list)
    survived: list[str] = field(default_factory=list)
    equivalent: list[Equivalent] = field(default_factory=list)


@dataclass
class _Trial:
    """One table's attacks, run again under changes that are rolled back."""

    conn: Connection
    definitions: Definitions
    catalog: Catalog
    ground: Field
    table: Name
    _sound: dict[Statements, Found | None] = field(default_factory=dict)

    def try_out(self, mutant: Mutant, tally: _Tally) -> None:
        weak = self._under(mutant.statements)
        if weak is None:  # PostgreSQL does not take it: such a policy cannot be
            return
        tally.tried += 1
        if self._noticed((), weak):
            tally.caught.append(mutant.name)
            return
        companion = next((each for each in mutant.companions if self._noticed_beside(mutant, each)), None)
        if companion is not None:
            tally.caught.append(f"{mutant.name} ({companion.what})")
        elif self._equal(mutant, weak):
            tally.equivalent.append(Equivalent(mutant.name, _reason(mutant.companions)))
        else:
            tally.survived.append(mutant.name)

    def _noticed(self, beside: Statements, weak: Found) -> bool:
        """A leak, or a right that no longer works, that was not there without the mutant."""
        sound = self._baseline(beside)
        return sound is not None and bool(_findings(weak) - _findings(sound))

    def _noticed_beside(self, mutant: Mutant, companion: Companion) -> bool:
        if not companion.statements:
            return False
        weak = self._under((*companion.statements, *mutant.statements))
        return weak is not None and self._noticed(companion.statements, weak)

    def _equal(self, mutant: Mutant, weak: Found) -> bool:
        sound = self._baseline(())
        if sound is None or len(weak.outcomes) != len(sound.outcomes):
            return False
        # one who got nothing and is refused by the mutant has lost nothing: the mutant is only stricter
        ends = zip(weak.outcomes, sound.outcomes, strict=True)
        return all(ours == before or (ours == _REFUSED and before == _NOTHING) for ours, before in ends)

    def _baseline(self, statements: Statements) -> Found | None:
        if statements not in self._sound:
            self._sound[statements] = self._under(statements)
        return self._sound[statements]

    def _under(self, statements: Statements) -> Found | None:
        """What the attack finds with these changes; None where PostgreSQL refuses them."""
        with self.conn.transaction(force_rollback=True):
            try:
                for statement in statements:
                    self.conn.execute(statement.encode())
            except psycopg.Error:
                return None
            plan, attacker = self.ground.plans[self.table], self.ground.attacker
            reach = reach_of(self.conn, self.definitions, self.catalog, [self.table])
            found = attacker.assault(plan) + privilege_leaks([plan], reach, self.definitions, None)
            through, _ = views(attacker, self.ground.plans, self.ground.seeded.places, self.table)
            return found + answers(attacker, self._questions) + through

    @cached_property
    def _questions(self) -> list[Question]:
        # composed once: they hang on no policy
        return list(questions(self.ground.attacker, self.ground.plans[self.table], self.ground.plans, {}))


def _findings(found: Found) -> set[tuple[str, ...]]:
    leaks = {("leak", leak.actor, leak.verb, leak.via) for leak in found.leaks}
    return leaks | {("vacuous", one.actor, one.reason.partition(":")[0]) for one in found.vacuous}


def _reason(companions: Sequence[Companion]) -> str:
    told = "every attempt of every actor ended as before, or was refused where it had got nothing"
    also = ", ".join(companion.what for companion in companions if companion.statements)
    return f"{told}, and so it did {also}" if also else told
