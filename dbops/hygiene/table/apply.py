"""A plan for any table carried out: each scope in a short transaction, every row's image in the ledger before it changes."""

from __future__ import annotations

import time
from functools import partial

from psycopg.sql import SQL, Composed, Identifier

from dbops.hygiene import record
from dbops.hygiene.model import Done, Plan, ScopePlan
from dbops.hygiene.session import Apart, Session, since
from dbops.hygiene.table.model import Target
from dbops.hygiene.table.scan import unmarked
from dbops.hygiene.table.source import KEY, KEYS, Source, hinted, raw, read_source


def carry_out_table(session: Session, target: Target, plan: Plan) -> Done:
    """Mark or delete what the plan says; what has changed since is left as it is, and told."""
    started = time.monotonic()
    with session.transaction(read_only=True):
        source = read_source(session, target)
    todo = [scope for scope in plan.scopes if scope.merges or scope.doubts]
    if not todo:
        return Done(None, "dedupe", 0, plan.pairs, 0, 0, plan.rows)
    settings = record.search_settings(plan.search) | {"target": target.settings()}
    batch = record.begin(session, "dedupe", source.shown, settings, rows=plan.rows, pairs=plan.pairs)
    changed, review, skipped, scopes = 0, 0, list[str](), 0
    apart = Apart(session, len(todo))
    for scope in todo:
        what = f"{source.shown}, scope {scope.scope} (batch {batch})"
        with hinted(what, left_as_it_is(batch)):
            found = apart.run(scope.scope, what, partial(_apply, session, source, target, batch, scope))
        if found is None:
            continue
        changed, review, scopes = changed + found[0], review + len(scope.doubts), scopes + bool(found[0])
        skipped += found[1]
    record.end(session, batch)
    return Done(
        batch,
        "dedupe",
        scopes,
        plan.pairs,
        changed,
        review,
        plan.rows,
        tuple(skipped),
        since(started),
        tuple(apart.failed),
    )


def left_as_it_is(batch: str) -> str:
    """The hint of an error in the middle of a batch."""
    return f"this was left as it is, what was done before stays: run the command again, or dbops hygiene undo {batch}"


def _apply(session: Session, source: Source, target: Target, batch: str, scope: ScopePlan) -> tuple[int, list[str]]:
    with session.transaction():
        return apply(session, source, target, batch, scope)


def apply(session: Session, source: Source, target: Target, batch: str, scope: ScopePlan) -> tuple[int, list[str]]:
    """(how many rows were changed, the losers that were left), in the transaction under way."""
    keys, skipped = _still_so(session, source, target, scope)
    changed = _act(session, source, target, batch, keys) if keys else 0
    record.add_reviews(session, batch, source.shown, scope.scope, scope.doubts)
    record.add(session, batch, marked=changed, review=len(scope.doubts), size=scope.bytes)
    return changed, skipped


def _act(session: Session, source: Source, target: Target, batch: str, keys: list[str]) -> int:
    seqs = [seq for (seq,) in session.conn.execute(_acting(source, target), {"keys": keys, "batch": batch})]
    if not target.deletes:
        # AFTER triggers may have changed the rows once more
        hashing = _HASHING.format(image=source.image(), table=source.relation, same=source.same(SQL("v.key")))
        session.run(hashing, {"batch": batch, "seqs": seqs})
    return len(seqs)


def _still_so(session: Session, source: Source, target: Target, scope: ScopePlan) -> tuple[list[str], list[str]]:
    """The losers that are as they were, beside a survivor that is too; locked until the transaction ends."""
    ids = [ref.id for merge in scope.merges for ref in (merge.survivor, *merge.losers)]
    now: dict[str, str] = dict(session.conn.execute(_locking(source, target), {"keys": ids}).fetchall()) if ids else {}
    keys, skipped = list[str](), list[str]()
    for merge in scope.merges:
        stays = now.get(merge.survivor.id) == merge.survivor.hash
        for loser in merge.losers:
            (keys if stays and now.get(loser.id) == loser.hash else skipped).append(loser.id)
    return keys, skipped


_LOCKING = SQL("""
    SELECT {key}, pg_catalog.md5({text}::pg_catalog.text) FROM {keys} JOIN {table} t ON {same}
    WHERE {unmarked} ORDER BY 1 FOR UPDATE OF t
""")
# the images before and after are taken by the statement that changes the rows
_DELETING = SQL("""
    WITH gone AS (DELETE FROM {table} t USING {keys} WHERE {same} RETURNING {key} AS key, {image} AS image)
    INSERT INTO dbops.hygiene_saved (batch, key, before)
    SELECT %(batch)s::pg_catalog.uuid, key::pg_catalog.jsonb, image FROM gone RETURNING seq
""")
_MARKING = SQL("""
    WITH was AS MATERIALIZED (SELECT {key} AS key, {image} AS image FROM {keys} JOIN {table} t ON {same}),
      changed AS (UPDATE {table} t SET {column} = {value} FROM {keys} WHERE {same}
        RETURNING {key} AS key, pg_catalog.md5({image}::pg_catalog.text) AS after)
    INSERT INTO dbops.hygiene_saved (batch, key, before, after_hash)
    SELECT %(batch)s::pg_catalog.uuid, w.key::pg_catalog.jsonb, w.image, c.after FROM was w JOIN changed c ON c.key = w.key
    RETURNING seq
""")
_HASHING = SQL("""
    UPDATE dbops.hygiene_saved v SET after_hash = pg_catalog.md5({image}::pg_catalog.text) FROM {table} t
    WHERE v.batch = %(batch)s::pg_catalog.uuid AND v.seq = ANY (%(seqs)s::pg_catalog.int8[]) AND {same}
      AND v.after_hash <> pg_catalog.md5({image}::pg_catalog.text)
""")


def _locking(source: Source, target: Target) -> Composed:
    return _LOCKING.format(
        key=source.key_of(), text=raw(target.text), keys=KEYS, table=source.relation, same=source.same(KEY),
        unmarked=unmarked(source, target),
    )  # fmt: skip


def _acting(source: Source, target: Target) -> Composed:
    parts = {"key": source.key_of(), "image": source.image(), "table": source.relation, "same": source.same(KEY)}
    if target.deletes:
        return _DELETING.format(keys=KEYS, **parts)
    column, value = target.assignment
    return _MARKING.format(keys=KEYS, column=Identifier(column), value=raw(value), **parts)
