"""Pairs of another table that wait for a person: by the options of the run that found them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from dbops.errors import UsageError
from dbops.hygiene import record
from dbops.hygiene.model import Done, Merge, Ref, ScopePlan
from dbops.hygiene.session import Apart, Session
from dbops.hygiene.table.apply import apply, left_as_it_is
from dbops.hygiene.table.model import Target
from dbops.hygiene.table.scan import texts_of
from dbops.hygiene.table.source import Source, hinted, read_source


def review_texts(session: Session, found: Sequence[tuple[Any, ...]]) -> dict[tuple[str | None, str], tuple[str, str]]:
    """(text, hash) by scope and key; of a table that is gone or altered there are none."""
    texts: dict[tuple[str | None, str], tuple[str, str]] = {}
    for run in sorted({row[11] for row in found}):
        rows = [row for row in found if row[11] == run]
        target = _target(session, run)
        try:
            source = read_source(session, target)
        except UsageError:
            continue
        now = {key: (text, hashed) for key, text, hashed in texts_of(session, source, target, _keys(rows))}
        texts |= {(row[2], key): now[key] for row in rows for key in (row[3], row[4]) if key in now}
    return texts


def _keys(rows: Sequence[tuple[Any, ...]]) -> list[str]:
    return sorted({key for row in rows for key in (row[3], row[4])})


def _target(session: Session, run: object) -> Target:
    [(_, _, settings)] = session.rows("run", {"batch": run})
    return Target(**settings["target"])


def accept_table(session: Session, found: Sequence[tuple[Any, ...]]) -> Done:
    """What the run that found the pairs was to do is done with the worse one of each. Raises as `accept` does."""
    with session.transaction(read_only=True):
        targets = {_target(session, row[11]) for row in found}
        if len(targets) > 1:
            raise UsageError(
                "review: these pairs were found with different --text or --action",
                hint="accept them apart; nothing was done",
            )
        target = targets.pop()
        source = read_source(session, target)
    settings = {"accepted": [row[0] for row in found], "target": target.settings()}
    batch = record.begin(session, "review", source.shown, settings)
    marked, skipped, apart = 0, list[str](), Apart(session, len(found))
    for row in found:
        what = f"{source.shown}, pair {row[0]} (batch {batch})"
        with hinted(what, left_as_it_is(batch)):
            done = apart.run(row[2], what, partial(_accept, session, source, target, batch, row))
        marked += done or 0
        skipped += [row[4]] if done == 0 else []
    record.end(session, batch)
    return Done(
        batch, "review", int(marked > 0), len(found), marked, 0, len(found), tuple(skipped), failed=tuple(apart.failed)
    )


def _accept(session: Session, source: Source, target: Target, batch: str, row: tuple[Any, ...]) -> int:
    id_, _, scope, a, b, a_hash, b_hash, *_ = row
    with session.transaction():
        if session.rows("lock_reviews", {"ids": [id_]}) != [(id_, "open")]:
            return 0
        pair = ScopePlan(scope, 1, (Merge(Ref(a, a_hash), (Ref(b, b_hash),)),), ())
        done, _ = apply(session, source, target, batch, pair)
        if done:
            session.act("decide", {"ids": [id_], "state": "accepted", "batch": batch})
    return done
