"""`dbops backup drill`: a backup restored and compared, and what the migrations' check says of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from dbops.cli.backup import BEFORE, ID, STORE, chosen, manager
from dbops.cli.backup_output import drill_document, drill_text
from dbops.cli.main import common
from dbops.cli.migrate import SCRATCH
from dbops.cli.output import Output
from dbops.errors import DbopsError

if TYPE_CHECKING:
    from dbops.config import Settings


@click.command()
@ID
@BEFORE
@STORE
@SCRATCH
@common
def drill(out: Output, backup: str, before: datetime | None) -> int:
    """Restore a backup (default: the newest) into a scratch server, compare all of it, and keep the result beside it.

    Rows, content and sequences of every table, then the migrations' check. Exit 13 where something differs.

    \b
    dbops backup drill
    """
    with manager(out, "restored", stopped="nothing was proven; the scratch server is gone") as library:
        manifest = library.get_backup(chosen(backup, before), before=before)
        out.say(f"restoring {manifest.id} into a scratch server")
        done = library.drill(manifest.id, check=migrations_check(out.settings, manifest.fingerprint))
    out.result(drill_document(done), drill_text(done, whole=out.verbose))
    return 0 if done.ok else 13


def migrations_check(settings: Settings, fingerprint: str) -> Any:
    """`dbops migrate check` for a restored database: a line for each thing that differs from what the last run left.

    A database that had drifted before the backup was taken is restored with that drift: no fault of the backup.
    """

    def check(url: str) -> list[str]:
        from dbops.fingerprint import schema_text
        from dbops.migrate import MigrationManager

        try:
            drift = MigrationManager(settings=replace(settings, url=url, url_source="argument")).check()
            if not drift.comparable or not drift.text:
                return []
            now = schema_text(url, settings.schemas, exclude_tables=(settings.table,))
        except DbopsError as error:
            return [f"dbops migrate check could not be run: {error.message}"]
        if now.hash == fingerprint:
            return []
        return [f"dbops migrate check: {line}" for line in _differences(drift.text)]

    return check


def _differences(text: str) -> Iterator[str]:
    """The lines of a drift that say what is there and should not be or the other way round, each with its object."""
    name = ""
    for line in text.splitlines():
        if not line.startswith(" "):
            name = line
        # a backup has no roles: those of the scratch server are made by name, without attributes
        if line.strip()[:1] in ("+", "-") and not name.startswith(("role ", "+ role ", "- role ")):
            yield line if line == name else f"{name} {line.strip()}"
