"""A new migration file: its version follows the newest one's."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from dbops.errors import UsageError
from dbops.migrate.files import Migration, read_folder, version_order

TEMPLATE = "-- migrate:up\n\n\n-- migrate:down\n\n"


def new_file(folder: Path, name: str, now: datetime | None = None) -> tuple[Path, str]:
    """The path and text of a new migration. Its version is the time (UTC), later than every other in the folder.

    Raises UsageError for a name without a letter or digit.
    """
    slug = re.sub(r"\W+", "_", name.strip().lower()).strip("_")
    if not slug:
        raise UsageError(f"{name!r} is no name for a migration", hint="for example: dbops migrate new add_users")
    version = f"{now or datetime.now(UTC):%Y%m%d_%H%M%S}"
    newest = max((m.order for m in read_folder(folder)), default=(0,))
    if version_order(version) <= newest:
        digits = f"{newest[0] + 1:014d}"
        version = f"{digits[:8]}_{digits[8:]}"
    return folder / f"{version}_{slug}.sql", TEMPLATE


def write_new(path: Path, text: str) -> None:
    """Write it; never over another file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)


def append_down(migration: Migration, sql: str) -> None:
    """Append a down part to a migration's file. Raises UsageError where it has one, or is no .sql file with markers."""
    path = migration.path
    if migration.down is not None or path.suffix != ".sql" or path.name.endswith(".up.sql"):
        reason = "has a down part" if migration.down else "is not a .sql file of its own"
        raise UsageError(f"{path} {reason}", hint="nothing was written; without --write the down part is printed")
    text = path.read_text(encoding="utf-8")
    if "-- migrate:up" not in text:
        text = f"-- migrate:up\n{text}"
    head, _, _ = text.partition("-- migrate:down")
    path.write_text(f"{head.rstrip()}\n\n-- migrate:down\n{sql.rstrip()}\n", encoding="utf-8")
