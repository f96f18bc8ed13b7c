"""squawk's findings: its own process, its JSON read with care (its authors do not promise that it stays)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbops.migrate.lint.model import File, Finding, Severity, finding, notice
from dbops.migrate.lint.source import placed

# rules of squawk that dbops makes moot or has itself, and why; docs/lint.md shows this table
DROPPED = {
    "require-concurrent-index-creation": "index-blocks-writes says it, and knows which tables are new",
    "require-timeout-settings": "dbops sets lock_timeout and statement_timeout around each migration",
    "require-lock-timeout": "dbops sets it; on CREATE INDEX CONCURRENTLY it would leave an invalid index",
    "require-statement-timeout": "dbops sets statement_timeout (see dbops.toml)",
    "prefer-robust-stmts": "the record is part of the transaction or of the step: nothing runs twice",
    "transaction-nesting": "dbops strips an enclosing BEGIN and COMMIT and refuses every other",
    "ban-uncommitted-transaction": "dbops strips an enclosing BEGIN and COMMIT and refuses every other",
    "ban-concurrent-index-creation-in-transaction": "dbops runs such a file step by step",
}
_LEVELS: dict[str, Severity] = {"error": "error", "warning": "warning"}
_TIMEOUT_S = 120

MISSING = notice(
    "squawk-missing",
    "info",
    "squawk is not installed, so only dbops's own rules were looked at.",
    "pip install 'pg-dbops[lint]'",
)
FAILED = notice(
    "squawk-failed",
    "info",
    "squawk ran and gave nothing that could be read.",
    "pip install 'pg-dbops[lint]' has the version that is tested; only dbops's own rules were looked at",
)
UNREADABLE = notice(
    "squawk-unreadable",
    "info",
    "squawk's own parser does not understand the file (PostgreSQL's does).",
    "what else squawk would find in this file is not known; dbops's own rules were looked at",
)


@dataclass(frozen=True)
class Result:
    """What squawk found, by the place of the file in the list, and what there is to say of squawk itself."""

    ran: bool
    found: dict[int, list[Finding]]
    remarks: tuple[Finding, ...] = ()


class _OutputError(Exception):
    """squawk's output, or its word on why there is none."""


def binary() -> str | None:
    """The squawk of this environment, else the one on PATH."""
    beside = Path(sys.executable).parent / "squawk"
    return str(beside) if beside.is_file() else shutil.which("squawk")


def look(files: Sequence[File], pg_version: str) -> Result:
    """Run squawk on the up parts: one process for the transactional files, one for the others."""
    program = binary()
    if not files:
        return Result(False, {})
    folder = files[0].migration.path.parent
    if program is None:
        return Result(False, {}, (_remark(MISSING, folder, "squawk is not installed: pip install 'pg-dbops[lint]'"),))
    try:
        found: dict[int, list[Finding]] = {}
        for transactional in (True, False):
            chosen = [n for n, file in enumerate(files) if file.program.transactional is transactional]
            for number, each in _run(program, files, chosen, pg_version, transactional):
                found.setdefault(number, []).append(each)
    except _OutputError as error:
        return Result(False, {}, (_remark(FAILED, folder, f"squawk: {error}"),))
    return Result(True, found)


def _remark(of: Any, folder: Path, message: str) -> Finding:
    # line 0: of no line
    return Finding(of.name, of.severity, folder, 0, message, of.hint)


def _run(
    program: str, files: Sequence[File], chosen: Sequence[int], pg_version: str, transactional: bool
) -> Iterator[tuple[int, Finding]]:
    if not chosen:
        return
    with tempfile.TemporaryDirectory(prefix="dbops-lint-") as folder:
        for number in chosen:
            Path(folder, f"{number}.sql").write_text(placed(files[number].migration), encoding="utf-8")
        assume = "--assume-in-transaction" if transactional else "--no-assume-in-transaction"
        arguments = [program, "--reporter", "json", "--pg-version", pg_version, assume, f"{folder}/*.sql"]
        entries = _entries(arguments)
    unreadable: set[int] = set()
    for entry in entries:
        number = int(Path(entry["file"]).stem)
        if entry["rule_name"] != "syntax-error":
            if entry["rule_name"] not in DROPPED:
                yield number, _finding(files[number], entry)
        elif number not in unreadable:
            unreadable.add(number)
            message = f"squawk's parser: {entry['message']}"
            yield number, finding(UNREADABLE, files[number].migration.up, entry["line"] + 1, message)


def _entries(arguments: list[str]) -> list[dict[str, Any]]:
    """squawk's report. It exits 0 or 1 where it has one."""
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        entries = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _OutputError(str(error)) from error
    except ValueError:
        raise _OutputError((done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[0]) from None
    if not isinstance(entries, list) or not all(map(_complete, entries)):
        raise _OutputError("its JSON has another form than the tested version's")
    return entries


def _complete(entry: object) -> bool:
    if not isinstance(entry, dict) or not all(
        isinstance(entry.get(key), str) for key in ("file", "rule_name", "message")
    ):
        return False
    return isinstance(entry.get("line"), int) and Path(entry["file"]).stem.isdigit()


def _finding(file: File, entry: dict[str, Any]) -> Finding:
    # squawk counts lines from 0
    line = entry["line"] + 1
    severity = _LEVELS.get(str(entry.get("level", "warning")).lower(), "info")
    hint = str(entry.get("help") or f"https://squawkhq.com/docs/{entry['rule_name']}")
    return Finding(f"squawk/{entry['rule_name']}", severity, file.migration.up.path, line, entry["message"], hint)
