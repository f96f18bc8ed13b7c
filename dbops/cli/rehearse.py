"""`dbops migrate rehearse`: the last backup restored, and what is pending run there, on the real rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from dbops.cli.backup import BEFORE, STORE, chosen, manager
from dbops.cli.backup_output import omitted_document
from dbops.cli.main import common
from dbops.cli.migrate import SCRATCH, show
from dbops.cli.output import Output, duration
from dbops.cli.xray import xray_document, xray_text
from dbops.migrate import MigrationManager
from dbops.wording import count

if TYPE_CHECKING:
    from dbops.backup.manager import Copy
    from dbops.migrate.xray import Xray
    from dbops.schema_copy import Size


@click.command()
@click.argument("backup", metavar="[ID]", default="latest")
@BEFORE
@click.option("--to", metavar="VERSION", help="Up to and with this version.")
@STORE
@SCRATCH
@common
def rehearse(out: Output, backup: str, before: datetime | None, to: str | None) -> int:
    """Restore a backup (default: the newest) into a scratch server and apply there what is pending, on the real rows.

    Time, locks, rewrites and failures of each statement, before anyone deploys. Exit 1 where a migration failed.

    \b
    dbops migrate rehearse
    dbops migrate rehearse backup_20250101_120000_daily --to 20250201_000002
    """
    with manager(out, "rows", stopped="the scratch server is gone; the database was not touched") as library:
        manifest = library.get_backup(chosen(backup, before), before=before)
        _check_files(out, manifest.migration, to)
        out.say(f"restoring {manifest.id} into a scratch server")
        with library.scratch_copy(manifest) as copy:
            if copy.note:
                out.say(copy.note)
            found, sizes = _on(out, copy, to)
    document = _document(found, sizes) | {
        "id": manifest.id,
        "rows": copy.restored.rows,
        "restore_ms": round(copy.restored.duration_ms, 3),
        "not_restored": omitted_document(copy.restored.left_out),
    }
    lines = [xray_text(found), *_took(found, sizes)]
    lines += [
        f"not in the copy (what failed may have failed for that): {e.name}: {e.reason}" for e in copy.restored.left_out
    ]
    restored = f"{count(copy.restored.rows, 'row')} of {manifest.id} restored in {duration(copy.restored.duration_ms)}"
    out.result(document, "\n".join([*lines, restored]))
    return 1 if found.failed else 0


def _check_files(out: Output, applied: str, to: str | None) -> None:
    """Read the migrations after `applied` before a restore that may take an hour. Raises MigrationFileError, UsageError."""
    from dbops.migrate.files import version_order
    from dbops.migrate.kinds import program
    from dbops.migrate.plan import require_known

    files = MigrationManager(settings=out.settings).files()
    if to is not None:
        require_known(to, [file.version for file in files])
    for file in files:
        if not applied or version_order(file.version) > version_order(applied):
            program(file.up)


def _on(out: Output, copy: Copy, to: str | None) -> tuple[Xray, Mapping[str, Size]]:
    """Run what is pending in the copy: its own record says what that is."""
    from dbops.migrate.xray import rehearse

    settings = replace(out.settings, url=copy.url, url_source="argument")
    library = MigrationManager(settings=settings, observer=lambda event: show(out, event))
    plan = library.plan_up(to=to, allow_out_of_order=True)
    found, sizes = rehearse(plan, copy.url, settings, library.tell)
    return replace(found, server_version=copy.server_version, server_kind=copy.server_kind), sizes


def _took(found: Xray, sizes: Mapping[str, Size]) -> Iterator[str]:
    """What each statement took in truth, and of how many rows."""
    from dbops.migrate.xray.estimate import rows_worked

    for step in found.steps:
        for seen in step.statements:
            if seen.state == "ran":
                rows = rows_worked(seen, sizes)
                of = f", {count(rows, 'row')}" if rows else ""
                yield f"took  {step.version}:{seen.line}  {duration(seen.duration_ms)}{of}"


def _document(found: Xray, sizes: Mapping[str, Size]) -> dict[str, Any]:
    """The document of `migrate plan --xray`, with the rows that each statement had to do with."""
    from dbops.migrate.xray.estimate import rows_worked

    document = xray_document(found)
    for step, told in zip(found.steps, document["steps"], strict=True):
        for seen, statement in zip(step.statements, told["statements"], strict=True):
            statement["rows"] = rows_worked(seen, sizes)
    return document
