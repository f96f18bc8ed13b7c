"""Named statements from .sql files, and where the shipped schema and policies lie."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import LiteralString, cast

PACKAGE = Path(__file__).parent
_NAME = re.compile(r"^-- name: (\w+)[^\n]*\n", re.MULTILINE)


@cache
def queries(room: str = "") -> dict[str, LiteralString]:
    """The statements of a room's `queries.sql` by name; room `""` is the ground floor's file.

    A statement begins at a line `-- name: applied_migrations` and ends at the next such line.
    Raises FileNotFoundError where the room has no file.
    """
    text = (PACKAGE / room / "queries.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    # the files ship with the package: as fixed as a literal in the code
    return {
        name: cast(LiteralString, body.strip().rstrip(";")) for name, body in zip(parts[::2], parts[1::2], strict=True)
    }


def shipped(folder: str) -> Path:
    """The folder (`migrations/sql`, `policies`) that ships with dbops: inside the package, else beside it."""
    inside = PACKAGE / "shipped" / folder
    return inside if inside.is_dir() else PACKAGE.parent / folder
