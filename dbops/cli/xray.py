"""An x-ray of a plan as a document and as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dbops.migrate.xray import Xray, XrayStep
from dbops.migrate.xray.estimate import Block, Seen


def xray_document(x: Xray) -> dict[str, Any]:
    """The document of `migrate plan --xray`."""
    return {
        "steps": [_step_document(step) for step in x.steps],
        "failed": list(x.failed),
        "assumptions": list(x.assumptions),
        "server_version": x.server_version,
        "server": x.server_kind,
        "not_copied": [{"object": item.object, "reason": item.message} for item in x.not_copied],
    }


def _step_document(step: XrayStep) -> dict[str, Any]:
    return {
        "version": step.version,
        "name": step.name,
        "direction": step.direction,
        "transactional": step.transactional,
        "statements": [_statement_document(seen) for seen in step.statements],
    }


def _statement_document(seen: Seen) -> dict[str, Any]:
    return {
        "sql": seen.sql,
        "line": seen.line,
        "state": seen.state,
        "locks": [{"mode": k.mode, "relation": k.relation, "created": k.created} for k in seen.locks],
        "rewrites": list(seen.rewrites),
        "scans": list(seen.scans),
        "indexes": [{"index": b.index, "relation": b.relation, "method": b.method} for b in seen.indexes],
        "duration_ms": seen.duration_ms,
        "about_ms": round(seen.about_ms),
        "blocks": [_block_document(block) for block in seen.blocks],
        **({"error": seen.error} if seen.error else {}),
    }


def _block_document(block: Block) -> dict[str, Any]:
    return {
        "relation": block.relation,
        "mode": block.mode,
        "what": block.what,
        "bytes": block.bytes,
        "rows": block.rows,
        "about_ms": round(block.about_ms),
    }


def xray_text(x: Xray) -> str:
    """The x-ray for people: a line per statement, and below it what it does to others."""
    lines = [line for step in x.steps for line in _step_lines(step)] or ["nothing to do"]
    if x.steps:
        lines.append(f"seen on PostgreSQL {x.server_version} ({x.server_kind}). Assumed:")
        lines += [f"  - {text}" for text in x.assumptions]
    if x.not_copied:
        lines.append("not in the copy of the schema (what failed may have failed for that):")
        lines += [f"  - {item.object}: {item.message}" for item in x.not_copied]
    return "\n".join(lines)


def _step_lines(step: XrayStep) -> Iterator[str]:
    how = "in one transaction" if step.transactional else "step by step"
    yield f"{step.direction} {step.version} {step.name}: {how}"
    for seen in step.statements:
        first, *rest = seen.sql.splitlines()
        yield f"  {seen.line:>4}  {first.rstrip()[:100]}{' …' if rest or len(first) > 100 else ''}"
        yield from (f"          {line}" for line in _below(seen, step.transactional))


def _below(seen: Seen, transactional: bool) -> Iterator[str]:
    if seen.state == "failed":
        yield from f"FAILED on the copy: {seen.error}".splitlines()
    elif seen.state != "ran":
        yield seen.state + (f": {seen.error}" if seen.error else "")
    for block in seen.blocks:
        yield f"{block.mode} on {block.relation}: {'; '.join(_block_parts(seen, block, transactional))}"
    told = {block.relation for block in seen.blocks}
    for lock in seen.locks:
        if not lock.created and not {lock.relation, lock.table} & told:
            told.add(lock.relation)
            work = _work(seen, lock.relation)
            yield f"{lock.mode} on {lock.relation}: blocks neither reads nor writes{f'; {work}' if work else ''}"
    for relation in dict.fromkeys((*seen.rewrites, *seen.scans)):
        if relation not in told:
            yield f"{relation}, locked since before: {_work(seen, relation)}; {_about(seen.about_ms)}"
    for built in seen.indexes:
        yield f"builds index {built.index} ({built.method})"


def _block_parts(seen: Seen, block: Block, transactional: bool) -> Iterator[str]:
    yield f"blocks {block.what}"
    if work := _work(seen, block.relation):
        yield work
    yield f"{size(block.bytes)}, {_about(seen.about_ms)}"
    if transactional and _about(block.about_ms) != _about(seen.about_ms):
        yield f"held for {_about(block.about_ms)}, to the end of the migration"


def _work(seen: Seen, relation: str) -> str:
    if relation in seen.rewrites:
        return "table rewritten"
    return "table scanned" if relation in seen.scans else ""


def _about(ms: float) -> str:
    seconds = ms / 1000
    if seconds < 0.1:
        return "under 0.1 s"
    if seconds < 120:
        return f"about {seconds:.{0 if seconds >= 10 else 1}f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 7200 else f"about {seconds / 3600:.1f} h"


def size(count: float) -> str:
    """A size for people, in powers of 1000 as storage is sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
