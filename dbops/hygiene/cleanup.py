"""What was inactive for long, what has expired, and what refers to nothing: deleted in small batches, by way of the ledger."""

from __future__ import annotations

import time
from functools import partial

from dbops.errors import UsageError
from dbops.hygiene import record
from dbops.hygiene.model import MEMORIES, CleanupPlan, Done, Tell
from dbops.hygiene.session import Session
from dbops.wording import count

_AT_ONCE = 1000  # rows of one transaction
_LONGEST = 36_500


def plan_cleanup(session: Session, days: int, user: str | None = None) -> CleanupPlan:
    """What would be deleted. Raises UsageError for days below 0 or no memory schema."""
    if not 0 <= days <= _LONGEST:
        raise UsageError(f"--days {days}: between 0 and {_LONGEST}", hint="90 is usual; nothing was done")
    with session.transaction(read_only=True):
        session.require_memories()
        owner = session.user(user)
        found = session.rows("cleanup_users", {"days": days, "user": owner})
        rows = int(session.value("memory_count", {"user": owner}))
    return CleanupPlan(days, tuple((str(name), memories, blobs) for name, memories, blobs in found), rows)


def carry_out(session: Session, plan: CleanupPlan, *, purge_after: int = 30, tell: Tell = lambda _: None) -> Done:
    """Delete what the plan names, and the ledgers whose time is over. `purge_after` days the deleted rows can come back."""
    if not 0 <= purge_after <= _LONGEST:
        raise UsageError(f"--purge-after {purge_after}: between 0 and {_LONGEST}", hint="nothing was done")
    started = time.monotonic()
    _purge(session)
    if not plan.users:
        return Done(None, "cleanup", 0, 0, 0, 0, plan.rows)
    batch = record.begin(session, "cleanup", MEMORIES, {"days": plan.days}, rows=plan.rows, purge_after=purge_after)
    deleted = 0
    for user, *_ in plan.users:
        deleted += _clean(session, batch, user, plan.days)
        tell(f"{count(deleted, 'row')} deleted")
    record.end(session, batch)
    return Done(
        batch, "cleanup", len(plan.users), 0, deleted, 0, plan.rows, duration_ms=(time.monotonic() - started) * 1000
    )


def _purge(session: Session) -> None:
    with session.transaction():
        if record.exists(session):
            for name in ("purge", "purge_saved", "orphan_reviews"):
                session.act(name, {})


def _clean(session: Session, batch: str, user: str, days: int) -> int:
    deleted, counted = 0, False
    values = {"user": user, "days": days, "batch": batch, "limit": _AT_ONCE}
    for name in ("cleanup_memories", "cleanup_blobs"):
        while done := session.patiently(
            f"user {user} (batch {batch})", partial(_step, session, name, values, first=not counted)
        ):
            deleted, counted = deleted + done, True
    return deleted


def _step(session: Session, name: str, values: dict[str, object], *, first: bool) -> int:
    with session.transaction():
        done = int(session.value(name, values))
        if done:
            session.act("count_in_run", {"batch": values["batch"], "marked": done, "users": int(first)})
    return done
