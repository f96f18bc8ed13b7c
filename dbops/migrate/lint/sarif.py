"""SARIF 2.1.0, which code hosts show beside the lines of a change.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dbops import __version__
from dbops.migrate.lint.model import RULES, Finding

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {"error": "error", "warning": "warning", "info": "note"}


def to_sarif(findings: Sequence[Finding], root: Path | None = None) -> dict[str, Any]:
    """The findings as a SARIF document, with URIs relative to `root` (the current folder by default)."""
    base = (root or Path.cwd()).resolve()
    names = sorted({each.rule for each in findings} | set(RULES))
    place = {name: number for number, name in enumerate(names)}
    hints = {each.rule: each.hint for each in findings}
    seen: Counter[str] = Counter()
    driver = {
        "name": "dbops",
        "semanticVersion": __version__,
        "rules": [_rule(name, hints) for name in names],
    }
    results = [_result(each, place[each.rule], base, seen) for each in findings]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(name: str, hints: dict[str, str]) -> dict[str, Any]:
    own = RULES.get(name)
    summary, hint = (
        (own.summary, own.hint) if own else (f"squawk's rule {name.removeprefix('squawk/')}", hints.get(name, ""))
    )
    level = _LEVELS[own.severity] if own else "warning"
    return {
        "id": name,
        "shortDescription": {"text": summary},
        "help": {"text": hint or summary},
        "defaultConfiguration": {"level": level},
    }


def _result(found: Finding, rule_index: int, base: Path, seen: Counter[str]) -> dict[str, Any]:
    text = f"{found.message}\n{found.hint}" if found.hint else found.message
    result: dict[str, Any] = {
        "ruleId": found.rule,
        "ruleIndex": rule_index,
        "level": _LEVELS[found.severity],
        "message": {"text": text},
        "partialFingerprints": {"dbops/v1": _fingerprint(found, base, seen)},
    }
    if found.line:
        artifact = _artifact(found.path, base)
        result["locations"] = [
            {"physicalLocation": {"artifactLocation": artifact, "region": {"startLine": found.line}}}
        ]
    return result


def _artifact(path: Path, base: Path) -> dict[str, str]:
    whole = base / path
    if whole.is_relative_to(base):
        return {"uri": quote(whole.relative_to(base).as_posix()), "uriBaseId": "%SRCROOT%"}
    return {"uri": whole.as_uri()}


def _fingerprint(found: Finding, base: Path, seen: Counter[str]) -> str:
    """The same while lines above it come and go: rule, file and message, numbered where they repeat."""
    key = "\0".join((found.rule, _artifact(found.path, base)["uri"], found.message))
    seen[key] += 1
    return f"{hashlib.sha256(key.encode()).hexdigest()[:32]}:{seen[key]}"
