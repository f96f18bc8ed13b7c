"""What was inactive for long, what has expired, and what refers to nothing: deleted in small batches, by way of the ledger.

The ledgers of batches whose time is over go for good.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial

from dbops.errors import UsageError
from dbops.hygiene import record
from dbops.hygiene.model import MEMORIES, CleanupPlan, Done, Tell
from dbops.hygiene.session import Apart, Session, since
from dbops.wording import count

_AT_ONCE = 1000  # rows of one transaction
_LONGEST = 36_500


def plan_cleanup(session: Session, days: int, user: str | None = None) -> CleanupPlan:
    """What would be deleted; of one user only, no ledgers. Raises UsageError for days below 0.

    A database without the memory schema may have ledgers of other tables; one without either is a UsageError.
    """
    if not 0 <= days <= _LONGEST:
        raise UsageError(f"--days {days}: between 0 and {_LONGEST}", hint="90 is usual; nothing was done")
    with session.transaction(read_only=True):
        memories, recorded = session.rows("memory_schema")[0][0], record.exists(session)
        if user is not None or not recorded:
            session.require_memories()
        ledgers, reviews, sets = 0, 0, 0
        if recorded and user is None:
            ledgers = sum(len(batches) for batches in _over(session, memories=memories))
            reviews = session.value("orphan_reviews") if memories else 0
        if not memories:
            return CleanupPlan(days, (), 0, ledgers, reviews)
        if user is None:
            sets = session.value("orphan_sets")
        owner = session.user(user)
        found = session.rows("cleanup_users", {"days": days, "user": owner})
        rows = int(session.value("memory_count", {"user": owner}))
    return CleanupPlan(
        days, tuple((str(name), mine, blobs) for name, mine, blobs in found), rows, ledgers, reviews, sets
    )


def carry_out(
    session: Session, plan: CleanupPlan, *, purge_after: int = record.KEPT, tell: Tell = lambda _: None
) -> Done:
    """Delete what the plan names, and the ledgers whose time is over. `purge_after` days the deleted rows can come back.

    A user for whom it fails is named in `failed`, and the others are done.
    """
    if not 0 <= purge_after <= _LONGEST:
        raise UsageError(f"--purge-after {purge_after}: between 0 and {_LONGEST}", hint="nothing was done")
    started = time.monotonic()
    purged = _purge(session, plan, tell)
    if not plan.users:
        return Done(None, "cleanup", 0, 0, 0, 0, plan.rows, duration_ms=since(started), purged=purged)
    batch = record.begin(session, "cleanup", MEMORIES, {"days": plan.days}, rows=plan.rows, purge_after=purge_after)
    deleted, users, apart = 0, 0, Apart(session, len(plan.users))
    for user, *_ in plan.users:
        done = sum(_clean(session, apart, batch, user, plan.days))
        deleted, users = deleted + done, users + bool(done)
        tell(f"{count(deleted, 'row')} deleted")
    record.end(session, batch)
    return Done(
        batch, "cleanup", users, 0, deleted, 0, plan.rows, (), since(started), tuple(apart.failed), purged
    )  # fmt: skip


def _over(session: Session, *, memories: bool) -> tuple[list[str], list[str]]:
    """The batches whose time is over: of the memories, of other tables."""
    ours = [str(row[0]) for row in session.rows("memories_over")] if memories else []
    return ours, [str(row[0]) for row in session.rows("saved_over")]


def _purge(session: Session, plan: CleanupPlan, tell: Tell) -> int:
    """Remove what is over, as far as the plan said so; of how many batches."""
    if plan.reviews:
        _all_of(session, "purge_reviews", {})
    if plan.word_sets:
        _all_of(session, "purge_sets", {})
    if not plan.ledgers:
        return 0
    with session.transaction(read_only=True):
        ours, others = _over(session, memories=session.rows("memory_schema")[0][0])
    for name, batches in (("purge_changes", ours), ("purge_batches", ours), ("purge_saved", others)):
        if batches:
            _all_of(session, name, {"batches": batches})
    purged = len({*ours, *others})
    tell(f"{count(purged, 'ledger')} removed: those batches can no more be undone")
    return purged


def _all_of(session: Session, name: str, values: dict[str, object]) -> None:
    """A statement that deletes a portion, until nothing is left."""

    def portion() -> int:
        with session.transaction():
            return session.act(name, values | {"limit": _AT_ONCE})

    while session.patiently("the ledgers whose time is over", portion):
        pass


def _clean(session: Session, apart: Apart, batch: str, user: str, days: int) -> Iterable[int]:
    """How many rows each transaction deleted."""
    first = True
    values = {"user": user, "days": days, "batch": batch, "limit": _AT_ONCE}
    for name in ("cleanup_memories", "cleanup_blobs"):
        while done := apart.run(
            user, f"user {user} (batch {batch})", partial(_step, session, name, values, first=first)
        ):
            yield done
            first = False


def _step(session: Session, name: str, values: dict[str, object], *, first: bool) -> int:
    with session.transaction():
        done = int(session.value(name, values))
        if done:
            session.act("count_in_run", {"batch": values["batch"], "marked": done, "users": int(first)})
    return done
