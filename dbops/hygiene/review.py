"""Pairs that the guard put aside: shown with both texts as they are now, accepted as duplicates, or rejected for good."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from dbops.errors import UsageError
from dbops.hygiene import record
from dbops.hygiene.model import MEMORIES, Done, Merge, Ref, Review
from dbops.hygiene.session import Apart, Session

_AT_ONCE = 500


def listed(session: Session, user: str | None = None, *, limit: int = 100) -> tuple[Review, ...]:
    """The open pairs of which both rows are there and say what they said, the oldest first; of one user or of all."""
    reviews = list[Review]()
    with session.transaction(read_only=True):
        memories = session.rows("memory_schema")[0][0]
        if not record.exists(session):
            session.require_memories()
            return ()
        values = {"ids": None, "state": "open", "scope": session.user(user) if memories else user, "limit": _AT_ONCE}
        after = 0
        # a portion may be of pairs that are out of date: the next one then
        while len(reviews) < limit and (found := session.rows("reviews", values | {"after": after})):
            reviews += _as_they_are(session, found, memories=memories)
            after = found[-1][0]
    return tuple(reviews[:limit])


def these(session: Session, ids: Sequence[int]) -> tuple[Review, ...]:
    """The same of these pairs. Raises UsageError for an id that is not on the list or was decided."""
    with session.transaction(read_only=True):
        found = _open(session, ids)
        return tuple(_as_they_are(session, found, memories=session.rows("memory_schema")[0][0]))


def _as_they_are(session: Session, found: Sequence[tuple[Any, ...]], *, memories: bool) -> list[Review]:
    texts = _texts(session, [row for row in found if row[1] == MEMORIES]) if memories else {}
    for table in sorted({row[1] for row in found} - {MEMORIES}):
        from dbops.hygiene.table.review import review_texts

        texts |= review_texts(session, [row for row in found if row[1] == table])
    return [review for row in found if (review := _review(row, texts))]


Texts = dict[tuple[str | None, str], tuple[str, str]]  # (text, hash) by scope and id


def _texts(session: Session, found: Sequence[tuple[Any, ...]]) -> Texts:
    wanted = [(row[2], id_) for row in found for id_ in (row[3], row[4])]
    values = {"scopes": [scope for scope, _ in wanted], "ids": [id_ for _, id_ in wanted]}
    rows = session.rows("review_texts", values) if wanted else []
    return {(scope, id_): (text, hashed) for scope, id_, text, hashed in rows}


def _review(row: tuple[Any, ...], texts: Texts) -> Review | None:
    id_, table, scope, a, b, a_hash, b_hash, similarity, kind, reason, state, _, deletes = row
    one, other = texts.get((scope, a), ("", "")), texts.get((scope, b), ("", ""))
    if (one[1], other[1]) != (a_hash, b_hash):
        return None
    return Review(id_, table, scope, a, b, (one[0], other[0]), similarity, kind, reason, state, deletes)


def accept(session: Session, ids: Sequence[int]) -> Done:
    """Each pair is a duplicate: the worse one is marked (deleted, where that is its table's action), in one batch.

    Raises UsageError, before anything is changed, for an id that is not on the list or was decided.
    """
    with session.transaction(read_only=True):
        found = _open(session, ids)
    tables = sorted({row[1] for row in found})
    if len(tables) > 1:
        raise UsageError(
            f"review: these pairs are of {', '.join(tables)}", hint="one table at a time; nothing was done"
        )
    if tables != [MEMORIES]:
        from dbops.hygiene.table.review import accept_table

        return accept_table(session, found)
    batch = record.begin(session, "review", MEMORIES, {"accepted": list(ids)})
    marked, skipped, users = 0, list[str](), set[str]()
    apart = Apart(session, len(found))
    for row in found:
        done = apart.run(row[2], f"pair {row[0]} (batch {batch})", partial(_accept, session, batch, row))
        marked += done or 0
        users |= {row[2]} if done else set()
        skipped += [row[4]] if done == 0 else []
    record.end(session, batch)
    return Done(
        batch, "review", len(users), len(found), marked, 0, len(found), tuple(skipped), failed=tuple(apart.failed)
    )


def _accept(session: Session, batch: str, row: tuple[Any, ...]) -> int:
    from dbops.hygiene.dedupe import mark, still_so

    id_, _, user, a, b, a_hash, b_hash, *_ = row
    with session.transaction():
        if session.rows("lock_reviews", {"ids": [id_]}) != [(id_, "open")]:
            return 0
        pairs, _ = still_so(session, user, [Merge(Ref(a, a_hash), (Ref(b, b_hash),))])
        marked = mark(session, batch, user, pairs, json.dumps({"review": id_}), "review")
        if marked:
            session.act("decide", {"ids": [id_], "state": "accepted", "batch": batch})
        record.add(session, batch, marked=marked)
    return marked


def reject(session: Session, ids: Sequence[int]) -> int:
    """Each pair says two things: it is never merged and not listed again, until one of its texts changes; how many.

    Raises UsageError, before anything is changed, for an id that is not on the list or was decided.
    """
    with session.transaction():
        session.rows("lock_reviews", {"ids": list(ids)}) if record.exists(session) else None
        _open(session, ids)
        return session.act("decide", {"ids": list(ids), "state": "rejected", "batch": None})


def _open(session: Session, ids: Sequence[int]) -> list[tuple[Any, ...]]:
    known = record.exists(session)
    values = {"ids": list(ids), "state": None, "scope": None, "after": 0, "limit": None}
    found = {row[0]: row for row in session.rows("reviews", values)} if known else {}
    missing = [id_ for id_ in ids if id_ not in found]
    decided = [row for row in found.values() if row[10] != "open"]
    if missing or decided:
        what = [f"{id_} is not on the list" for id_ in missing] + [f"{row[0]} was {row[10]}" for row in decided]
        raise UsageError(f"review: {', '.join(what)}", hint="dbops hygiene review lists what is open; nothing was done")
    return [found[id_] for id_ in dict.fromkeys(ids)]
