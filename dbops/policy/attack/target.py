"""What is attacked: a table, its rows, and the one who attacks. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from dbops.policy.attack.actors import Actor
from dbops.policy.attack.openings import scope_of
from dbops.policy.model import Name, TableRules, Verb
from dbops.policy.state import Table

Values = Mapping[str, str | None]


@dataclass(frozen=True)
class Row:
    """A row as text. `mark` is its tableoid and ctid: what tells it from all others in the snapshot."""

    mark: str
    values: Values


@dataclass(frozen=True)
class Place:
    """A table whose rows are judged. `children`: (table, its columns, ours) of the foreign keys that refer to it."""

    table: Table
    rules: TableRules | None
    writable: tuple[str, ...]  # not generated
    identity_always: bool = False
    numbered: frozenset[str] = frozenset()
    key: tuple[str, ...] = ()  # the columns that tell rows apart; none: no unique key does
    children: tuple[tuple[Name, tuple[str, ...], tuple[str, ...]], ...] = ()
    guarded: bool = False  # a foreign key or a trigger stands in front of a DELETE
    rows: tuple[Row, ...] = ()
    open: tuple[frozenset[str], ...] = ()  # for each shared rule the marks of the rows for which it holds
    # the columns that users may insert or update, where they may not all
    granted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def name(self) -> Name:
        return self.table.name

    @cached_property
    def scope(self) -> tuple[str, ...]:
        """The columns that say whose a row is."""
        return scope_of(self.rules)


@dataclass(frozen=True)
class Pair:
    """A row of the attacker's own, if he has one, and a victim's; `relation` is the table itself or a partition."""

    place: Place
    relation: Name
    own: Row | None
    victim: Row
    # values that the policies ask of a row which an UPDATE has made
    turns: tuple[Values, ...] = ()


@dataclass(frozen=True)
class Bout:
    """An actor against a pair. `before` is run first: it makes him the table's owner, say."""

    actor: Actor
    pair: Pair
    before: tuple[str, ...] = ()


@dataclass(frozen=True)
class Control:
    """What the actor must be able to do with the pair's own row: else the attack proves nothing."""

    actor: Actor
    pair: Pair
    verbs: tuple[Verb, ...]


@dataclass(frozen=True)
class Attempt:
    """One statement and how it is judged. Of those with the same verb and label the first that works is tried.

    `prepare` is run before by a superuser. `label` names what is tried.
    """

    verb: str
    label: str
    statement: str
    judge: Literal["rows", "count", "found", "write", "immutable"] = "write"
    prepare: tuple[str, ...] = ()
    telling: bool = False  # tried by every actor, not only by the thorough
    writes: tuple[Verb, ...] = ()  # what the definitions must allow for what it changes
    mark: str = ""  # the row that it looks for
    own: bool = False  # about a row of the actor's own: one who is nobody has none

    @property
    def reads(self) -> bool:
        return self.judge in ("rows", "count", "found")


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: `found` says what got through; `state` is the SQLSTATE of a refusal."""

    phase: Literal["prepare", "attempt", "judge", "done"]
    state: str
    told: str
    hit: str
    found: str | None

    @property
    def worked(self) -> bool:
        return self.phase == "done"

    @property
    def end(self) -> tuple[str, str | None]:
        """What is compared of two outcomes."""
        return self.state, self.found


@dataclass(frozen=True)
class Shot:
    """An attempt by an actor, ready to be sent. Without an actor it is a superuser's, to see that it works."""

    actor: Actor | None
    attempt: Attempt
    judge: str
    kept: str | None = None  # reads which rows are left after `prepare`
    before: tuple[str, ...] = ()
