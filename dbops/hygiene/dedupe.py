"""A plan carried out: each user in a short transaction of his own, with the ledger in it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from dbops.hygiene import record
from dbops.hygiene.model import MEMORIES, Done, Merge, Plan, ScopePlan, Tell
from dbops.hygiene.session import Apart, Session, since, uuids
from dbops.wording import count


def carry_out(session: Session, plan: Plan, *, tell: Tell = lambda _: None) -> Done:
    """Mark what the plan says. A loser or survivor that has changed since is left as it is, and told.

    A run that is killed leaves whole users done and none half; the next plan has what is left. A user for whom it fails
    is named in `failed`, and the others are done.
    """
    started = time.monotonic()
    todo = [scope for scope in plan.scopes if scope.merges or scope.doubts]
    if not todo:
        return Done(None, "dedupe", 0, plan.pairs, 0, 0, plan.rows, duration_ms=since(started))
    settings = record.search_settings(plan.search)
    batch = record.begin(session, "dedupe", MEMORIES, settings, rows=plan.rows, pairs=plan.pairs)
    marked, users, review, skipped = 0, 0, 0, list[str]()
    apart = Apart(session, len(todo))
    for number, scope in enumerate(todo, 1):
        act = partial(_apply, session, batch, scope, json.dumps(settings))
        if applied := apart.run(scope.scope, f"user {scope.scope} (batch {batch})", act):
            done, left = applied
            marked, users, review = marked + done, users + bool(done), review + len(scope.doubts)
            skipped += left
        if number % 100 == 0 or number == len(todo):
            tell(f"{number:,} of {count(len(todo), 'user')}, {count(marked, 'memory')} marked")
    record.end(session, batch)
    return Done(
        batch,
        "dedupe",
        users,
        plan.pairs,
        marked,
        review,
        plan.rows,
        tuple(skipped),
        since(started),
        tuple(apart.failed),
    )


def _apply(session: Session, batch: str, scope: ScopePlan, settings: str) -> tuple[int, list[str]]:
    with session.transaction():
        pairs, skipped = still_so(session, scope.scope, scope.merges)
        marked = mark(session, batch, scope.scope, pairs, settings, "dedupe")
        record.add_reviews(session, batch, MEMORIES, scope.scope, scope.doubts)
        size = scope.bytes if marked == scope.losers else round(scope.bytes * marked / max(scope.losers, 1))
        record.add(session, batch, marked=marked, review=len(scope.doubts), size=size)
    return marked, skipped


def still_so(session: Session, user: str | None, merges: Iterable[Merge]) -> tuple[list[tuple[str, str]], list[str]]:
    """(loser, survivor) of which both are active and say what they said, locked until the transaction ends; the others."""
    merges = list(merges)
    ids = uuids(ref.id for merge in merges for ref in (merge.survivor, *merge.losers))
    now = dict[str, str]()
    for hashed, found in session.rows("lock_memories", {"user": user, "ids": ids}):
        now |= dict.fromkeys(found.split(","), hashed)
    pairs, skipped = list[tuple[str, str]](), list[str]()
    for merge in merges:
        stays = now.get(merge.survivor.id) == merge.survivor.hash
        for loser in merge.losers:
            if stays and now.get(loser.id) == loser.hash:
                pairs.append((loser.id, merge.survivor.id))
            else:
                skipped.append(loser.id)
    return pairs, skipped


def mark(
    session: Session, batch: str, user: str | None, pairs: list[tuple[str, str]], settings: str, command: str
) -> int:
    """Mark losers as duplicates, in the transaction under way; how many were."""
    if not pairs:
        return 0
    values: dict[str, Any] = {"user": user, "batch": batch, "settings": settings, "command": command}
    values |= {"ids": uuids(loser for loser, _ in pairs), "originals": uuids(survivor for _, survivor in pairs)}
    return int(session.value("mark", values))
