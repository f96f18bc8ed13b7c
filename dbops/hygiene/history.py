"""What was done, newest first, and what it won."""

from __future__ import annotations

from dbops.hygiene import record
from dbops.hygiene.model import MEMORIES, Batch, UserStats
from dbops.hygiene.session import Session


def history(session: Session, limit: int) -> tuple[Batch, ...]:
    """The newest batches: the runs on record and what functions called from SQL did."""
    with session.transaction(read_only=True):
        runs = record.runs(session, limit)
        found = [*runs, *_from_sql(session, [run.batch for run in runs], limit)]
    return tuple(sorted(found, key=lambda batch: batch.at, reverse=True)[:limit])


def _from_sql(session: Session, known: list[str], limit: int) -> list[Batch]:
    if not session.rows("memory_schema")[0][0]:
        return []
    every = [str(row[0]) for row in session.rows("run_names")] if record.exists(session) else known
    return [
        Batch(str(id_), command, MEMORIES, at, by, users, 0, 0, marked, 0, marked if undone == users else 0, 0, True)
        for id_, command, at, by, users, marked, undone in session.rows("batches", {"known": every, "limit": limit})
    ]


def user_stats(session: Session, user: str | None, limit: int) -> tuple[UserStats, ...]:
    """The users with the most duplicates first; without the memory schema there are none."""
    with session.transaction(read_only=True):
        if not session.rows("memory_schema")[0][0]:
            return ()
        rows = session.rows("user_stats", {"user": session.user(user), "limit": limit})
    return tuple(UserStats(str(name), memories, duplicates, size) for name, memories, duplicates, size in rows)
