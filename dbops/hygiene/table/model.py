"""What the search in any table is told: the table, the text, who is compared with whom, who survives, what happens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dbops.errors import UsageError
from dbops.hygiene.table.expression import check_expression, check_order, is_literal, is_null

_NAME = r'(?:"(?:[^"]|"")+"|[A-Za-z_]\w*)'
_TABLE = re.compile(rf"(?:({_NAME})\.)?({_NAME})")
_MARK = re.compile(rf"mark:({_NAME})=(.+)", re.DOTALL)
NOTHING = "nothing was done"


def unquoted(name: str) -> str:
    """An identifier as PostgreSQL takes it."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


@dataclass(frozen=True)
class Target:
    """A table and what is to be done with its duplicates.

    `action` is `delete` or `mark:COLUMN=VALUE`; `text`, `scope`, VALUE and `keep` (an ORDER BY list) are expressions over
    the table's columns, without subqueries. Raises UsageError for what is none.
    """

    table: str
    text: str
    action: str
    scope: str | None = None
    keep: str | None = None

    def __post_init__(self) -> None:
        if not _TABLE.fullmatch(self.table):
            raise UsageError(
                f"--table {self.table!r} is no table's name", hint=f"write documents or app.documents; {NOTHING}"
            )
        if not self.deletes and not _MARK.fullmatch(self.action):
            raise UsageError(
                f"--action {self.action!r} is unknown", hint=f"write delete, or mark:is_copy=true; {NOTHING}"
            )
        _ = self.columns
        if not self.deletes and is_null(self.assignment[1]):
            raise UsageError(
                f"--action {self.action!r}: NULL is no mark, rows without one have it too",
                hint=f"name a value that only copies get, e.g. mark:is_copy=true; {NOTHING}",
            )

    @property
    def place(self) -> tuple[str, str]:
        """(schema, name)"""
        match = _TABLE.fullmatch(self.table)
        assert match
        return unquoted(match[1] or "public"), unquoted(match[2])

    @property
    def deletes(self) -> bool:
        return self.action == "delete"

    @property
    def assignment(self) -> tuple[str, str]:
        """(column, value) of a mark."""
        match = _MARK.fullmatch(self.action)
        assert match
        return unquoted(match[1]), match[2]

    @property
    def constant(self) -> bool:
        """Whether a row that has the mark can be told by its value."""
        return is_literal(self.assignment[1])

    @property
    def columns(self) -> Mapping[str, frozenset[str]]:
        """By option the columns that it reads."""
        found = {"text": check_expression(self.text, "--text")}
        if self.scope is not None:
            found["scope"] = check_expression(self.scope, "--scope")
        if self.keep is not None:
            found["keep"] = check_order(self.keep, "--keep")
        if not self.deletes:
            column, value = self.assignment
            found["action"] = check_expression(value, "--action") | {column}
        return found

    def settings(self) -> dict[str, Any]:
        """As the record has it."""
        return asdict(self)
