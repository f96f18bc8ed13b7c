"""How `dbops hygiene` shows what the library returns: the JSON keys of interfaces, and lines for people."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dbops.cli.output import duration
from dbops.wording import count

if TYPE_CHECKING:
    from dbops.hygiene import Batch, CleanupPlan, Done, Plan, Review, Stats, Undone
    from dbops.hygiene.model import UndoPlan


def plan_document(plan: Plan) -> dict[str, Any]:
    clusters = [
        {"user": scope.scope, "survivor": merge.survivor.id, "losers": [ref.id for ref in merge.losers]}
        for scope in plan.scopes
        for merge in scope.merges
    ]
    return {
        "batch": None, "users": sum(bool(scope.merges) for scope in plan.scopes), "pairs": plan.pairs,
        "marked": plan.marked, "review": plan.review, "reduction": round(plan.reduction, 6),
        "duration_ms": round(plan.duration_ms, 3), "rows": plan.rows, "clusters": clusters,
        "oversized": [{"user": user, "id": id_} for user, id_ in plan.oversized], "notes": list(plan.notes),
    }  # fmt: skip


def done_document(done: Done) -> dict[str, Any]:
    return asdict(done) | {"reduction": round(done.reduction, 6), "duration_ms": round(done.duration_ms, 3)}


def done_text(done: Done, what: str) -> str:
    purged = [f"{count(done.purged, 'ledger')} removed for good"] if done.purged else []
    if done.batch is None:
        return "\n".join(purged) or f"nothing to do among {count(done.rows, 'row')}"
    lines = [
        *purged,
        f"{what} {count(done.marked, 'row')} of {done.rows} ({done.reduction:.1%}) in {duration(done.duration_ms)}; "
        f"batch {done.batch}",
    ]
    if done.review:
        lines.append(f"{count(done.review, 'pair')} to review: dbops hygiene review")
    if done.skipped:
        more = f" and {len(done.skipped) - 5} more" if len(done.skipped) > 5 else ""
        lines.append(f"changed since the plan and left as they are: {', '.join(done.skipped[:5])}{more}")
    return "\n".join(lines + failed_lines(done))


def failed_lines(done: Done | Undone) -> list[str]:
    """Who has an error of his own, the first line of each."""
    lines = [f"failed for {each.user}: {first_line(each.reason)}" for each in done.failed]
    return [*lines, "their rows are as they were, the others are done; mend that and run it again"] if lines else []


def first_line(text: str) -> str:
    return plain(text.partition("\n")[0])


def cleanup_document(plan: CleanupPlan) -> dict[str, Any]:
    return {
        "batch": None, "users": len(plan.users), "pairs": 0, "marked": plan.memories + plan.blobs, "review": 0,
        "reduction": round(plan.memories / plan.rows, 6) if plan.rows else 0.0, "duration_ms": 0, "rows": plan.rows,
        "ledgers": plan.ledgers, "reviews": plan.reviews, "word_sets": plan.word_sets,
    }  # fmt: skip


def review_document(items: tuple[Review, ...]) -> dict[str, Any]:
    return {
        "items": [
            {
                "id": item.id, "pair": [item.a, item.b], "texts": list(item.texts), "reason": item.reason,
                "similarity": item.similarity, "kind": item.kind, "user": item.scope, "table": item.table,
            }
            for item in items
        ]
    }  # fmt: skip


def review_text(items: tuple[Review, ...]) -> str:
    lines: list[str] = []
    for item in items:
        lines.append(f"{item.id}  {item.reason}, {item.kind} {item.similarity:.2f}, user {item.scope}")
        lines += [f"    {id_}  {_short(text)}" for id_, text in zip((item.a, item.b), item.texts, strict=True)]
    return "\n".join(lines) or "nothing to review"


def plain(text: str) -> str:
    """The text without what moves a terminal's cursor or colours it, or turns its direction: that is shown as \\x1b."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _short(text: str) -> str:
    line = plain(" ".join(text.split()))
    return line if len(line) <= 100 else f"{line[:99]}…"


def undo_document(undone: Undone) -> dict[str, Any]:
    return asdict(undone)


def undo_text(undone: Undone) -> str:
    lines = [f"{count(undone.restored, 'row')} as before batch {undone.batch}"]
    lines += [f"{each.id}: {each.reason}" for each in undone.altered]
    left = [f"left as it is: {each.id}: {each.reason}" for each in undone.refused]
    return "\n".join(lines + left + failed_lines(undone))


def undo_plan_text(plan: UndoPlan) -> str:
    return (
        f"batch {plan.batch} ({plan.command}, {plan.table}): {count(plan.rows, 'row')} of {count(plan.users, 'user')}"
    )


def batches_document(batches: tuple[Batch, ...]) -> dict[str, Any]:
    return {"batches": [asdict(batch) for batch in batches]}


def batches_text(batches: tuple[Batch, ...]) -> str:
    lines = [
        f"{batch.batch}  {batch.at:%Y-%m-%d %H:%M}  {plain(batch.command):<8} {batch.marked:>8} marked  "
        f"{batch.undone:>8} undone  by {plain(batch.by)}{'' if batch.finished else '  (not finished)'}"
        for batch in batches
    ]
    return "\n".join(lines) or "no batches yet"


def stats_document(stats: Stats) -> dict[str, Any]:
    users = [asdict(user) | {"reduction": round(user.reduction, 6)} for user in stats.users]
    return batches_document(stats.batches) | {"users": users, "marked": stats.marked}


def stats_text(stats: Stats) -> str:
    lines = [
        f"{user.user}  {user.duplicates} of {count(user.memories, 'memory')} are duplicates ({user.reduction:.1%}), "
        f"{user.bytes} bytes"
        for user in stats.users
    ]
    return "\n".join([batches_text(stats.batches), *lines])
