"""What an attack found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["isolated", "leaks", "vacuous"]


@dataclass(frozen=True, order=True)
class Leak:
    """Something that an actor got or did and that no definition allows. `sql` reproduces it on a copy."""

    table: str
    actor: str
    verb: str
    via: str  # table, view NAME, function NAME, unique NAME, foreign key NAME, privilege
    what: str  # in a sentence
    sql: str


@dataclass(frozen=True, order=True)
class Vacuous:
    """A cell of which nothing is proven: no row to attack, or a positive control that failed. `actor` may be empty."""

    table: str
    actor: str
    reason: str


@dataclass(frozen=True)
class Cell:
    """One field of the matrix: `state` is held (tried, nothing got through), allowed (by a rule), leak or vacuous."""

    table: str
    verb: str
    actor: str
    state: Literal["held", "allowed", "leak", "vacuous"]


@dataclass(frozen=True)
class Equivalent:
    """A mutant that changes nothing that any actor can see, and why."""

    mutant: str
    reason: str


@dataclass(frozen=True)
class Mutants:
    tried: int
    caught: tuple[str, ...]
    survived: tuple[str, ...]
    equivalent: tuple[Equivalent, ...]


@dataclass(frozen=True)
class Report:
    """The outcome of an attack. A leak goes before a vacuous cell in the verdict."""

    tables: tuple[str, ...]
    attacks: int
    leaks: tuple[Leak, ...]
    vacuous: tuple[Vacuous, ...]
    cells: tuple[Cell, ...]
    server_version: str
    server_kind: str
    duration_ms: float
    not_proven: tuple[Vacuous, ...] = ()  # what could not be copied or built: an extension that is missing
    notes: tuple[str, ...] = ()
    mutants: Mutants | None = None

    @property
    def verdict(self) -> Verdict:
        if self.leaks:
            return "leaks"
        return "vacuous" if self.vacuous or not self.tables else "isolated"
