"""SARIF 2.1.0, which code hosts show beside the lines of a change.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from dbops import __version__

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {"error": "error", "warning": "warning", "info": "note"}


class Item(Protocol):
    """What is reported: `path` None or `line` 0 is no place in a file."""

    @property
    def rule(self) -> str: ...
    @property
    def severity(self) -> str: ...
    @property
    def path(self) -> Path | None: ...
    @property
    def line(self) -> int: ...
    @property
    def message(self) -> str: ...
    @property
    def hint(self) -> str: ...


class RuleText(Protocol):
    """What is said of a rule."""

    @property
    def severity(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def hint(self) -> str: ...


def to_sarif(findings: Sequence[Item], rules: Mapping[str, RuleText], root: Path | None = None) -> dict[str, Any]:
    """The findings as a SARIF document, with URIs relative to `root` (the current folder by default).

    A rule that is not in `rules` is another program's, `squawk/NAME`.
    """
    base = (root or Path.cwd()).resolve()
    names = sorted({each.rule for each in findings} | set(rules))
    place = {name: number for number, name in enumerate(names)}
    hints = {each.rule: each.hint for each in findings}
    seen: Counter[str] = Counter()
    driver = {
        "name": "dbops",
        "semanticVersion": __version__,
        "rules": [_rule(name, rules.get(name), hints) for name in names],
    }
    results = [_result(each, place[each.rule], base, seen) for each in findings]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(name: str, own: RuleText | None, hints: Mapping[str, str]) -> dict[str, Any]:
    program, _, theirs = name.partition("/")
    summary, hint = (own.summary, own.hint) if own else (f"{program}'s rule {theirs}", hints.get(name, ""))
    level = _LEVELS[own.severity] if own else "warning"
    return {
        "id": name,
        "shortDescription": {"text": summary},
        "help": {"text": hint or summary},
        "defaultConfiguration": {"level": level},
    }


def _result(found: Item, rule_index: int, base: Path, seen: Counter[str]) -> dict[str, Any]:
    text = f"{found.message}\n{found.hint}" if found.hint else found.message
    result: dict[str, Any] = {
        "ruleId": found.rule,
        "ruleIndex": rule_index,
        "level": _LEVELS[found.severity],
        "message": {"text": text},
        "partialFingerprints": {"dbops/v1": _fingerprint(found, base, seen)},
    }
    if found.path and found.line:
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


def _fingerprint(found: Item, base: Path, seen: Counter[str]) -> str:
    """The same while lines above it come and go: rule, file and message (or what the item calls its identity), numbered."""
    place = _artifact(found.path, base)["uri"] if found.path else ""
    key = "\0".join((found.rule, place, getattr(found, "identity", found.message)))
    seen[key] += 1
    return f"{hashlib.sha256(key.encode()).hexdigest()[:32]}:{seen[key]}"
