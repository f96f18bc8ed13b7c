"""The room's values: rows that may be duplicates, what is to be done with them, what was done."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple

from dbops.errors import UsageError
from dbops.hygiene.guard import Reason
from dbops.wording import count

Tell = Callable[[str], None]
ClusterBy = Literal["stars", "components"]
Kind = Literal["text", "semantic"]
MEMORIES = "public.user_memories"


@dataclass(frozen=True)
class Search:
    """What counts as a duplicate. `semantic` is a cosine similarity; with `both` a pair must reach both."""

    threshold: float = 0.85
    semantic: float | None = None
    both: bool = False
    cluster: ClusterBy = "stars"
    model: str | None = None  # of the embeddings; None: each model of the user

    def __post_init__(self) -> None:
        for name, value in (("threshold", self.threshold), ("semantic", self.semantic)):
            if value is not None and not 0 < value <= 1:
                shown = "NaN" if math.isnan(value) else f"{value:g}"
                raise UsageError(
                    f"--{name} {shown}: a similarity lies above 0 and up to 1", hint="0.85 is usual; nothing was done"
                )
        if self.both and self.semantic is None:
            raise UsageError("--both needs --semantic", hint="--semantic 0.95 --both; nothing was done")


class Row(NamedTuple):
    """A row that may be a duplicate. Rows of one number in `words` have the same word set; None: they have none."""

    id: str
    text: str
    hash: str  # the text's MD5, as the database computes it
    words: int | None

    @property
    def ref(self) -> Ref:
        return Ref(self.id, self.hash)


class Ref(NamedTuple):
    """A row as it was when the plan was made."""

    id: str
    hash: str


@dataclass(frozen=True, slots=True)
class Merge:
    """A cluster: the losers are marked as duplicates of the survivor."""

    survivor: Ref
    losers: tuple[Ref, ...]


@dataclass(frozen=True, slots=True)
class Doubt:
    """A pair for a person to judge: near-duplicates that may say different things."""

    a: Ref
    b: Ref
    similarity: float
    kind: Kind
    reason: Reason


@dataclass(frozen=True, slots=True)
class ScopePlan:
    """What is to be done within one user (or one scope of a table)."""

    scope: str | None
    pairs: int
    merges: tuple[Merge, ...]
    doubts: tuple[Doubt, ...]
    bytes: int = 0  # of the losers' texts

    @property
    def losers(self) -> int:
        return sum(len(merge.losers) for merge in self.merges)


@dataclass(frozen=True)
class Plan:
    """What dedupe would do: it prints itself, and acting takes nothing else."""

    table: str
    search: Search
    rows: int  # that were compared
    scopes: tuple[ScopePlan, ...]
    oversized: tuple[tuple[str, str], ...] = ()  # (user, id) whose text is too large to have a word set
    duration_ms: float = 0.0
    notes: tuple[str, ...] = ()
    deletes: bool = False  # the duplicates, else they are marked

    @property
    def pairs(self) -> int:
        return sum(scope.pairs for scope in self.scopes)

    @property
    def marked(self) -> int:
        return sum(scope.losers for scope in self.scopes)

    @property
    def review(self) -> int:
        return sum(len(scope.doubts) for scope in self.scopes)

    @property
    def reduction(self) -> float:
        """The part of the compared rows that would go, between 0 and 1."""
        return self.marked / self.rows if self.rows else 0.0

    def __str__(self) -> str:
        search = self.search
        how = f"text at {search.threshold:g}"
        if search.semantic is not None:
            how += f"{' and' if search.both else ', or'} meaning at {search.semantic:g}"
        changed = [scope for scope in self.scopes if scope.merges or scope.doubts]
        of = count(sum(bool(scope.merges) for scope in changed), "user" if self.table == MEMORIES else "scope")
        head = (
            f"{self.table}: {count(self.pairs, 'pair')} ({how}) among {count(self.rows, 'row')}; "
            f"{count(self.marked, 'duplicate')} ({self.reduction:.1%}) of {of}, {count(self.review, 'pair')} to review"
        )
        lines = [line for scope in changed[:_SHOWN] for line in _lines(scope, "deleted" if self.deletes else "marked")]
        more = [f"  … and {len(changed) - _SHOWN} more"] if len(changed) > _SHOWN else []
        large = [f"  too large to be compared: {count(len(self.oversized), 'text')}"] if self.oversized else []
        return "\n".join([head, *lines, *more, *large, *(f"  {note}" for note in self.notes)])


_SHOWN = 10


def _lines(scope: ScopePlan, done: str) -> list[str]:
    name = scope.scope if scope.scope is not None else "all rows"
    found = [f"  {name}: {count(scope.losers, 'duplicate')}, {count(scope.pairs, 'pair')}"]
    found += [
        f"    {merge.survivor.id} stays, {', '.join(ref.id for ref in merge.losers[:3])}"
        f"{f' and {len(merge.losers) - 3} more' if len(merge.losers) > 3 else ''} {done}"
        for merge in scope.merges[:3]
    ]
    if len(scope.merges) > 3:
        found.append(f"    … and {len(scope.merges) - 3} more clusters")
    return found + ([f"    {len(scope.doubts)} to review"] if scope.doubts else [])


@dataclass(frozen=True)
class CleanupPlan:
    """What cleanup would delete: by user how many memories and how many expired blobs, and what dbops kept of old batches."""

    days: int
    users: tuple[tuple[str, int, int], ...]
    rows: int  # memories that there are
    ledgers: int = 0  # batches that can no more be undone afterwards: their time is over
    reviews: int = 0  # open pairs of which a memory is gone or was marked
    word_sets: int = 0  # those without an active memory

    @property
    def empty(self) -> bool:
        return not (self.users or self.kept)

    @property
    def memories(self) -> int:
        return sum(memories for _, memories, _ in self.users)

    @property
    def blobs(self) -> int:
        return sum(blobs for *_, blobs in self.users)

    def __str__(self) -> str:
        head = (
            f"{self.memories:,} of {count(self.rows, 'memory')}, inactive and unchanged for {count(self.days, 'day')}, "
            f"and {count(self.blobs, 'expired blob')}, of {count(len(self.users), 'user')}"
        )
        lines = [
            f"  {user}: {count(memories, 'memory')}, {count(blobs, 'blob')}"
            for user, memories, blobs in self.users[:_SHOWN]
        ]
        more = [f"  … and {len(self.users) - _SHOWN} more"] if len(self.users) > _SHOWN else []
        kept = [f"  for good: {self.kept}"] if self.kept else []
        return "\n".join([head, *lines, *more, *kept])

    @property
    def kept(self) -> str:
        """What goes for good of what dbops keeps itself; empty where nothing does."""
        parts = (
            (self.ledgers, "ledger", "of batches whose time to be undone is over"),
            (self.reviews, "open review", "of memories that are gone"),
            (self.word_sets, "word set", "without an active memory"),
        )
        return ", ".join(f"{count(number, noun)} {what}" for number, noun, what in parts if number)


@dataclass(frozen=True)
class Failed:
    """A user for whom a batch failed, and why: his rows are as they were, and the others were done."""

    user: str | None
    reason: str


@dataclass(frozen=True)
class Done:
    """What a batch did. `skipped` are losers that had changed since the plan was made: they stay as they are."""

    batch: str | None
    command: str
    users: int
    pairs: int
    marked: int
    review: int
    rows: int
    skipped: tuple[str, ...] = ()
    duration_ms: float = 0.0
    failed: tuple[Failed, ...] = ()
    purged: int = 0  # batches whose ledger cleanup removed, for their time was over

    @property
    def reduction(self) -> float:
        return self.marked / self.rows if self.rows else 0.0


@dataclass(frozen=True)
class Refused:
    """A row that undo left as it is (or that is not exactly as it was), and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class UndoPlan:
    """What undo would take back, as far as it has not changed since."""

    batch: str
    command: str
    table: str
    users: int
    rows: int


@dataclass(frozen=True)
class Undone:
    """What an undo did. `altered` are rows among the restored that a trigger changed while they were written."""

    batch: str
    restored: int
    refused: tuple[Refused, ...]
    altered: tuple[Refused, ...] = ()
    failed: tuple[Failed, ...] = ()


@dataclass(frozen=True)
class Review:
    """A pair that waits for a person, with both texts as they are now."""

    id: int
    table: str
    scope: str | None
    a: str
    b: str
    texts: tuple[str, str]
    similarity: float
    kind: Kind
    reason: Reason
    state: Literal["open", "accepted", "rejected"]
    deletes: bool = False  # what acceptance does to the second, else it is marked


@dataclass(frozen=True)
class Batch:
    """A line of the history. `marked` rows were changed; `undone` of them are as they were before."""

    batch: str
    command: str
    table: str
    at: datetime
    by: str
    users: int
    rows: int
    pairs: int
    marked: int
    review: int
    undone: int
    bytes: int
    finished: bool
    purge_after: datetime | None = None


@dataclass(frozen=True)
class Stats:
    """The history in numbers: over time by batch, and by user the most won first."""

    batches: tuple[Batch, ...]
    users: tuple[UserStats, ...] = field(default=())

    @property
    def marked(self) -> int:
        return sum(batch.marked - batch.undone for batch in self.batches)


@dataclass(frozen=True)
class UserStats:
    user: str
    memories: int
    duplicates: int
    bytes: int

    @property
    def reduction(self) -> float:
        return self.duplicates / self.memories if self.memories else 0.0
