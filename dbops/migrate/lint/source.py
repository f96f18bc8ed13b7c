"""The text of an up part on the lines where it stands in its file."""

from __future__ import annotations

import re
from pathlib import Path

from dbops.migrate.files import Migration

_MARKER = re.compile(r"^--[ \t]*migrate:[ \t]*(?:up|down)\b")
_UP_KEY = re.compile(r'"up"\s*:')


def placed(migration: Migration) -> str:
    """The up part with the comments above the first marker, on the lines that they have in the file."""
    header = _header(migration) if migration.up.line > 1 else []
    blank = [""] * (migration.up.line - 1 - len(header))
    return "\n".join((*header, *blank, migration.up.sql))


def _header(migration: Migration) -> list[str]:
    lines = _lines(migration.up.path)[: migration.up.line - 1]
    end = next((place for place, line in enumerate(lines) if _MARKER.match(line)), 0)
    return lines[:end]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace").split("\n")
    except OSError:
        return []  # its text was given, or it has gone since it was read


def line_in_file(migration: Migration, line: int) -> int:
    """A line of the up part as a line of its file; in JSON all of it stands at the key `up`."""
    if migration.path.suffix.lower() != ".json":
        return line
    return next((n for n, text in enumerate(_lines(migration.path), 1) if _UP_KEY.search(text)), 1)
