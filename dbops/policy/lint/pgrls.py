"""pgrls's findings: its own process, its JSON read with care.

It is never a dependency and never imported: it pulls a library under the GPL. Installed apart (`pipx install pgrls`)
it is found on PATH. https://pypi.org/project/pgrls/
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from dbops.database import redact
from dbops.policy.lint.model import RULES, Finding, Rule, Severity, Subject, notice
from dbops.policy.model import Name

# rules of pgrls that dbops makes moot, and why; docs/policy-lint.md shows this table
DROPPED = {
    "SEC005": "a predicate that names no column is judged by what it lets through: policy-always-true, the attack",
    "SEC007": "a restrictive policy is a floor where there are tenants; an owner's policy needs none",
    "SEC009": "row level security without a policy is closed, and `closed = true` asks for it",
    "SEC013": "a trigger's function runs as its caller unless it is SECURITY DEFINER, and the attack fires every trigger",
    "SEC022": "a table that users only read is an ordinary thing",
    "VIEW002": "with security_invoker the table's own policies are the barrier",
}
_SEVERITIES: dict[str, Severity] = {"error": "error", "warning": "warning", "info": "info"}
_TIMEOUT_S = 120

MISSING = notice(
    "pgrls-missing",
    "info",
    "pgrls is not installed, so only dbops's own rules were looked at.",
    "install it apart from dbops, so that it is on PATH: pipx install pgrls",
)
FAILED = notice(
    "pgrls-failed",
    "info",
    "pgrls ran and gave nothing that could be read.",
    "only dbops's own rules were looked at; the form of pgrls 0.57 is known",
)


class _OutputError(Exception):
    """pgrls's word on why there is no report."""


def binary() -> str | None:
    """The pgrls on PATH, else the one beside this Python."""
    beside = Path(sys.executable).parent / "pgrls"
    return shutil.which("pgrls") or (str(beside) if beside.is_file() else None)


def look(subject: Subject, url: str) -> list[Finding]:
    """What pgrls finds in the schemas of the catalog, without what our rules say already."""
    program = binary()
    if program is None:
        return [_remark(MISSING, "pgrls is not installed")]
    schemas = sorted({name.schema for name in subject.catalog.tables})
    if not schemas:
        return []
    try:
        entries = _entries(program, url, schemas)
    except _OutputError as error:
        return [_remark(FAILED, f"pgrls: {redact(str(error))}")]
    ours = {theirs for rule in RULES.values() for theirs in rule.replaces}
    return [_finding(subject, entry) for entry in entries if entry["rule_id"] not in ours | set(DROPPED)]


def _remark(of: Rule, message: str) -> Finding:
    return Finding(of.name, of.severity, None, 0, "", message, of.hint)


def _entries(program: str, url: str, schemas: list[str]) -> list[dict[str, Any]]:
    """pgrls's report. It exits 0 or 1 where it has one."""
    # the URL through the environment: a password in the arguments could be read by every user of the machine
    environment = os.environ | {"DATABASE_URL": url}
    arguments = [program, "lint", "--format", "json", "--fail-on", "error", "--schemas", ",".join(schemas)]
    try:
        with tempfile.TemporaryDirectory(prefix="dbops-lint-") as empty:
            # a folder of its own: no pgrls.toml of somebody's changes what is looked at
            done = subprocess.run(
                arguments, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, env=environment, cwd=empty
            )
        report = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _OutputError(str(error)) from error
    except ValueError:
        raise _OutputError((done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]) from None
    entries = report.get("violations") if isinstance(report, dict) else None
    if not isinstance(entries, list) or not all(map(_complete, entries)):
        raise _OutputError("its JSON has another form than the known version's")
    return entries


def _complete(entry: object) -> bool:
    keys = ("rule_id", "severity", "message", "location")
    return isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in keys)


def _finding(subject: Subject, entry: dict[str, Any]) -> Finding:
    name = _place(subject, entry["location"])
    rules = subject.rules_of(name) if name else None
    severity = _SEVERITIES.get(entry["severity"], "info")
    hint = f"pgrls explain {entry['rule_id']}"
    path, line = (rules.path, rules.line) if rules else (None, 0)
    return Finding(f"pgrls/{entry['rule_id']}", severity, path, line, str(name or ""), entry["message"], hint)


def _place(subject: Subject, location: str) -> Name | None:
    """The table or view of `schema.table` or `schema.table.policy`."""
    known = {str(name): name for name in (*subject.catalog.tables, *subject.catalog.views)}
    parts = location.split(".")
    found = (known.get(".".join(parts[:end])) for end in range(len(parts), 1, -1))
    return next((name for name in found if name), None)
