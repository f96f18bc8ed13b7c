"""A batch taken back: rows are exactly as they were before, except those that changed since, which are named."""

from __future__ import annotations

import uuid
from functools import partial

from dbops.errors import UsageError
from dbops.hygiene import record
from dbops.hygiene.model import MEMORIES, Refused, Tell, Undone, UndoPlan
from dbops.hygiene.session import Apart, Session
from dbops.wording import count

NOTHING = "nothing was changed"


def batch_id(text: str) -> str:
    """The batch's name. Raises UsageError where it is none."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise UsageError(f"{text!r} is no batch", hint=f"dbops hygiene history lists them; {NOTHING}") from None


def plan_undo(session: Session, batch: str) -> UndoPlan:
    """What undo would take back. Raises UsageError where there is no such batch, or it was undone before."""
    batch = batch_id(batch)
    table = _table(session, batch)
    if table != MEMORIES:
        from dbops.hygiene.table.undo import plan_undo_table

        return plan_undo_table(session, batch)
    with session.transaction(read_only=True):
        users = _users(session, batch)
        [(command, rows)] = session.rows("batch_rows", {"batch": batch, "users": users})
    return UndoPlan(batch, command, table, len(users), rows)


def undo(session: Session, batch: str, *, tell: Tell = lambda _: None) -> Undone:
    """Take a batch back, each user in a transaction of his own; one that was interrupted goes on.

    A user for whom it fails is named in `failed`: his rows are as the batch left them, and undo can be run again.

    Raises UsageError where there is no such batch, or it was undone before.
    """
    batch = batch_id(batch)
    if _table(session, batch) != MEMORIES:
        from dbops.hygiene.table.undo import undo_table

        return undo_table(session, batch)
    with session.transaction(read_only=True):
        users = _users(session, batch)
    return _undo_memories(session, batch, users, tell)


def _table(session: Session, batch: str) -> str:
    """The table of a batch; what is not on record may be a function's, called from SQL."""
    with session.transaction(read_only=True):
        run = session.rows("run", {"batch": batch}) if record.exists(session) else []
    return str(run[0][1]) if run else MEMORIES


def _users(session: Session, batch: str) -> list[str]:
    """The users of a batch who have not been undone."""
    session.require_memories()
    known = session.rows("batch_users", {"batch": batch})
    recorded = record.exists(session) and bool(session.rows("run", {"batch": batch}))
    if not known and not recorded:
        raise UsageError(
            f"there is no batch {batch} in this database", hint=f"dbops hygiene history lists them; {NOTHING}"
        )
    left = [str(user) for user, undone in known if not undone]
    if not left:
        what = "has been undone already" if known else "changed nothing, or its ledger was purged"
        raise UsageError(f"batch {batch} {what}", hint=NOTHING)
    return left


def _undo_memories(session: Session, batch: str, users: list[str], tell: Tell) -> Undone:
    own = record.begin(session, "undo", MEMORIES, {}, undoes=batch)
    with session.transaction():
        # a ledger that has just been written has no statistics: 20,000 rows took ten times as long
        session.act("analyze_ledger", {})
    restored, refused = 0, list[Refused]()
    apart = Apart(session, len(users))
    for number, user in enumerate(users, 1):
        act = partial(_undo_user, session, batch, own, user)
        rows = apart.run(user, f"user {user} (undo of {batch})", act) or []
        restored += sum(reason is None for *_, reason in rows)
        refused += [Refused(str(id_), reason) for _, id_, reason in rows if reason is not None]
        if number % 100 == 0 or number == len(users):
            tell(f"{number:,} of {count(len(users), 'user')}, {count(restored, 'row')} as they were")
    record.end(session, own)
    return Undone(batch, restored, tuple(refused), failed=tuple(apart.failed))


def _undo_user(session: Session, batch: str, own: str, user: str) -> list[tuple[str, object, str | None]]:
    with session.transaction():
        rows: list[tuple[str, object, str | None]] = [
            (table, id_, reason) for table, id_, reason in session.rows("undo", {"user": user, "batch": batch})
        ]
        # with the rows: a run that is killed after its last user leaves no acceptance that was undone
        session.act("reopen", {"batch": batch, "user": user})
        record.add(session, own, marked=sum(reason is None for *_, reason in rows))
    return rows
