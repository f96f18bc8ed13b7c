"""What a check is, what it finds, and what it could not tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, LiteralString, cast

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
Limit = float | str

_FOLDER = Path(__file__).parent / "checks"
_HEADER = re.compile(r"^-- (\w+): (.*(?:\n--   .*)*)\n", re.MULTILINE)


@dataclass(frozen=True)
class Check:
    """One check, read from `checks/NAME.sql`.

    `query` gives the findings (object, message, fix, and severity where it is not the check's own). With `each` it
    gives the targets, and `each`, composed with a target's columns, the findings. Without `query` the caller answers.
    `limits` can be set by the caller. `requires` (extension NAME, relation NAME) says what there must be for the check
    to apply, `needs` what is needed to tell, `since` the major version from which on. `applies`: `mend` may run its fixes.
    """

    name: str
    severity: Severity
    summary: str
    why: str
    query: LiteralString
    each: LiteralString
    limits: Mapping[str, Limit]
    requires: tuple[str, ...]
    needs: tuple[str, ...]
    since: int
    applies: bool

    @property
    def hint(self) -> str:
        return self.why


@dataclass(frozen=True)
class Finding:
    """Something that a check found. `fix` is SQL that mends it, or says in a comment what to do; may be empty."""

    check: str
    severity: Severity
    object: str
    message: str
    fix: str = ""


@dataclass(frozen=True)
class NotChecked:
    """A check that could not be made, wholly or (`object`) of one thing, and why."""

    check: str
    reason: str
    object: str = ""


@dataclass(frozen=True)
class Report:
    """What an examination came to. Each check is in one of `checked`, `not_applicable` or, at least once, `not_checked`."""

    findings: tuple[Finding, ...]
    checked: tuple[str, ...]
    not_checked: tuple[NotChecked, ...]
    not_applicable: tuple[NotChecked, ...]
    database: str
    server_version: str
    duration_ms: float

    def worst(self) -> Severity | None:
        """The gravest severity found."""
        return next((each for each in SEVERITIES if any(found.severity == each for found in self.findings)), None)


@cache
def checks() -> dict[str, Check]:
    """Every check by its name, in the order of the names."""
    shared = (_FOLDER / "shared" / "mine.sql").read_text(encoding="utf-8").strip()
    found = [_read(path, shared) for path in _FOLDER.glob("*.sql")]
    return {check.name: check for check in sorted(found, key=lambda check: check.name)}


def _read(path: Path, shared: str) -> Check:
    text = path.read_text(encoding="utf-8")
    head, body = _split(text)
    fields: dict[str, list[str]] = {}
    for key, value in _HEADER.findall(head):
        fields.setdefault(key, []).append(re.sub(r"\n--   ", " ", value))
    query, _, each = body.replace("-- include: mine", shared).partition("\n-- each\n")
    # as fixed as a literal in the code: the files ship with the package
    return Check(
        name=path.stem.replace("_", "-"),
        severity=cast(Severity, fields["severity"][0]),
        summary=fields["summary"][0],
        why=fields["why"][0],
        query=query.strip().rstrip(";"),
        each=each.strip().rstrip(";"),
        limits=dict(_limit(value) for value in fields.get("limit", [])),
        requires=tuple(fields.get("requires", [])),
        needs=tuple(fields.get("needs", [])),
        since=int(fields.get("since", ["0"])[0]),
        applies="applies" in fields,
    )


def _split(text: str) -> tuple[str, str]:
    head = re.match(r"(?:-- .*\n)*", text)
    end = head.end() if head else 0
    return text[:end], text[end:]


def _limit(text: str) -> tuple[str, Limit]:
    """`days 14 observed at least that long`: the name, the value; the rest is for readers."""
    name, value, *_ = text.split()
    return name, number(value)


def number(text: str) -> Limit:
    """The text as a number where it is one."""
    try:
        return float(text)
    except ValueError:
        return text
