"""How backups and the progress of work on them look, for people and for scripts."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from dbops.cli.output import Output, duration, utc
from dbops.cli.xray import size
from dbops.wording import count

if TYPE_CHECKING:
    from dbops.backup import Checked, Drill, Listed, Manifest, Verified
    from dbops.backup.create import Progress
    from dbops.backup.prune import PrunePlan

_EVERY_S = 10.0  # where there is no terminal
_WIDTH = 30


class Bar:
    """Progress on stderr: a bar on a terminal, elsewhere a line now and then. Notes are lines of their own."""

    def __init__(self, out: Output, what: str) -> None:
        self._out, self._what = out, what
        self._terminal = not out.quiet and sys.stderr.isatty()
        self._told = time.monotonic()
        self._drawn = False

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def __call__(self, now: Progress) -> None:
        # the stages of a merge are of one word: of interest to who looks for a fault
        if now.note and (" " in now.note or self._out.verbose):
            self._clear()
            self._out.say(f"  {now.note}")
        if now.bytes_total and not self._out.quiet:
            self._show(now)

    def _show(self, now: Progress) -> None:
        pause = 0.1 if self._terminal else _EVERY_S
        if time.monotonic() - self._told < pause:
            return
        self._told = time.monotonic()
        if self._terminal:
            click.echo(f"\r\x1b[K{bar(now)}{self._what}: {progress_text(now)}", err=True, nl=False)
            self._drawn = True
        else:
            self._out.say(f"  {self._what}: {progress_text(now)}")

    def _clear(self) -> None:
        if self._drawn:
            click.echo("\r\x1b[K", err=True, nl=False)
        self._drawn = False


def _share(now: Progress) -> float:
    return min(1.0, now.bytes_done / now.bytes_total)


def bar(now: Progress) -> str:
    """A bar as wide as what is done."""
    full = round(_share(now) * _WIDTH)
    return f"[{'#' * full}{'.' * (_WIDTH - full)}] "


def progress_text(now: Progress) -> str:
    """`40 %, 12 MB of 30 MB, 4.1 MB/s, about 5 s left`."""
    parts = [f"{_share(now) * 100:.0f} %", f"{size(now.bytes_done)} of {size(now.bytes_total)}"]
    if now.elapsed_s:
        parts.append(f"{size(now.rate)}/s")
        left = now.left_s or 0.0
        parts.append(f"about {left:.0f} s left" if left < 120 else f"about {left / 60:.0f} min left")
    return ", ".join(parts)


# --- backups -------------------------------------------------------------------------------------


def created_document(manifest: Manifest) -> dict[str, Any]:
    return {
        "id": manifest.id,
        "tier": manifest.tier,
        "tables": len(manifest.tables),
        "rows": manifest.rows,
        "raw_bytes": manifest.raw_bytes,
        "stored_bytes": manifest.stored_bytes,
        "new_bytes": manifest.new_bytes,
        "duration_ms": round(manifest.duration_ms, 3),
        "omitted": omitted_document(manifest.omitted),
    }


def created_text(manifest: Manifest, place: str) -> str:
    what = f"{count(len(manifest.tables), 'table')}, {count(manifest.rows, 'row')}, {size(manifest.raw_bytes)} as"
    return (
        f"{manifest.id} in {place}: {what} {size(manifest.stored_bytes)}, of which {size(manifest.new_bytes)} are new, "
        f"in {duration(manifest.duration_ms)}"
    )


def omitted_document(items: Sequence[Any]) -> list[dict[str, str]]:
    return [{"object": item.name, "reason": item.reason} for item in items]


def listed_document(listed: Listed) -> dict[str, Any]:
    manifest, proven = listed.manifest, listed.proven
    return {
        "id": manifest.id,
        "tier": manifest.tier,
        "created_at": manifest.created_at,
        "database": manifest.database,
        "stored_bytes": manifest.stored_bytes,
        "proven_at": proven.at if proven else None,
        "restore_ms": round(proven.restore_ms, 3) if proven else None,
        "failed_at": listed.failed.at if listed.failed else None,
        "migration": manifest.migration or None,
    }


def list_text(listed: Sequence[Listed], place: str) -> str:
    if not listed:
        return f"no backups in {place}"
    several = len({each.manifest.database for each in listed}) > 1
    rows = [_list_row(each, several) for each in listed]
    return table_text(
        [["backup", *(["database"] if several else []), "size", "migration", "last proven restore"], *rows]
    )


def _list_row(listed: Listed, several: bool) -> list[str]:
    manifest = listed.manifest
    row = [manifest.id, *([manifest.database] if several else []), size(manifest.stored_bytes)]
    return [*row, manifest.migration or "-", proven_text(listed)]


def proven_text(listed: Listed) -> str:
    """When a drill last restored a backup, and how long that took: what a restore is expected to take."""
    if listed.failed:
        return f"FAILED {utc(listed.failed.at):%Y-%m-%d %H:%M}"
    proven = listed.proven
    return f"{utc(proven.at):%Y-%m-%d %H:%M}, in {duration(proven.restore_ms)}" if proven else "never"


def table_text(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns that are as wide as they must be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def show_document(listed: Listed) -> dict[str, Any]:
    manifest = listed.manifest
    tables = [
        {"table": str(t.name), "rows": t.rows, "bytes": sum({c.sha256: c.stored_bytes for c in t.chunks}.values())}
        for t in manifest.tables
    ]
    return {
        "backups": [listed_document(listed)],
        "tables": tables,
        "sequences": len(manifest.sequences),
        "extensions": manifest.extensions,
        "roles": list(manifest.roles),
        "server_version": str(manifest.server_version // 10000),
        "omitted": omitted_document(manifest.omitted),
    }


def show_text(listed: Listed) -> str:
    manifest, document = listed.manifest, show_document(listed)
    head = [
        f"{manifest.id}: {manifest.database}, PostgreSQL {manifest.server_version // 10000}, "
        f"{utc(manifest.created_at):%Y-%m-%d %H:%M:%S} UTC, {size(manifest.stored_bytes)}",
        f"migration {manifest.migration or 'none'}, last proven restore: {proven_text(listed)}",
        f"roles {', '.join(manifest.roles) or 'none'}; extensions {', '.join(manifest.extensions) or 'none'}",
    ]
    rows = [[t["table"], count(t["rows"], "row"), size(t["bytes"])] for t in document["tables"]]
    return "\n".join([*head, *([table_text(rows)] if rows else []), *omitted_lines(manifest.omitted)])


def omitted_lines(items: Sequence[Any]) -> Iterator[str]:
    for item in items:
        yield f"not in it: {item.name}: {item.reason}"


def check_document(checked: Checked) -> dict[str, Any]:
    newest = checked.newest
    return {
        "newest": {"id": newest.id, "age_s": round(newest.age_s), "proven_at": newest.proven_at} if newest else None,
        "ok": checked.ok,
        "proven_at": checked.proven_at,
        "problems": list(checked.problems),
        "damaged": damaged_document(checked.damaged),
    }


def check_text(checked: Checked, place: str) -> str:
    newest = checked.newest
    lines = [f"newest good backup in {place}: {newest.id}, {newest.age_s / 3600:.1f} h old"] if newest else []
    lines += [f"last proven restore: {utc(checked.proven_at):%Y-%m-%d %H:%M} UTC"] if checked.proven_at else []
    lines += damaged_lines(checked.damaged)
    lines += [f"PROBLEM  {each}{'' if newest else f' in {place}'}" for each in checked.problems]
    return "\n".join([*lines, *(["ok"] if checked.ok else [])])


def damaged_document(damaged: Sequence[Any]) -> list[dict[str, Any]]:
    return [asdict(each) for each in damaged]


def damaged_lines(damaged: Sequence[Any]) -> Iterator[str]:
    for each in damaged:
        yield f"DAMAGED  {each.object}: {each.what}"
        yield f"         touches {', '.join(each.tables) or 'the whole'} of {', '.join(each.backups)}"


def verified_text(found: Verified) -> str:
    what = f"{count(found.objects, 'object')} of {count(len(found.backups), 'backup')}, {size(found.checked_bytes)}"
    lines = [*damaged_lines(found.damaged)]
    return "\n".join([*lines, f"{what} read: " + (f"{len(found.damaged)} damaged" if found.damaged else "all whole")])


def prune_document(plan: PrunePlan) -> dict[str, Any]:
    return {
        "kept": [asdict(each) for each in plan.kept],
        "removed": [asdict(each) for each in plan.removed],
        "freed_bytes": plan.freed_bytes,
    }


def drill_document(drill: Drill) -> dict[str, Any]:
    return {
        "id": drill.id,
        "ok": drill.ok,
        "tables": [asdict(each) for each in drill.tables],
        "restore_ms": round(drill.restore_ms, 3),
        "problems": list(drill.problems),
        "not_proven": omitted_document(drill.not_proven),
        "server_version": str(drill.server_version // 10000),
        "at": drill.at,
    }


def drill_text(drill: Drill, *, whole: bool = False) -> str:
    lines = [f"{t.table}: {count(t.rows, 'row')}, the same" for t in drill.tables if t.matches and whole]
    lines += [f"DIFFERS  {t.table}: {t.reason}" for t in drill.tables if not t.matches]
    lines += [f"PROBLEM  {each}" for each in drill.problems]
    lines += [f"not proven  {each.name}: {each.reason}" for each in drill.not_proven]
    rows = sum(t.rows for t in drill.tables if t.matches)
    end = click.style("proven" if drill.ok else "NOT PROVEN", fg="green" if drill.ok else "red")
    lines.append(
        f"{end}: {drill.id}, {count(sum(t.matches for t in drill.tables), 'table')}, {count(rows, 'row')} the same, "
        f"restored on PostgreSQL {drill.server_version // 10000} in {duration(drill.restore_ms)}"
    )
    return "\n".join(lines)


def moment(text: str) -> datetime:
    """A time that somebody wrote: ISO 8601, in UTC where it says no zone. Raises ValueError."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
