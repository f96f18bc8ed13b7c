"""What the lints of the rooms found: for people, for scripts, for code hosts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import click

from dbops.cli.output import Output
from dbops.cli.sarif import Item, RuleText, to_sarif
from dbops.errors import shown

T = TypeVar("T", bound=Item)
SEVERITIES = ("error", "warning", "info")
_COLOURS = {"error": "red", "warning": "yellow", "info": "blue"}

FAIL_ON = click.option(
    "--fail-on",
    type=click.Choice([*SEVERITIES, "never"]),
    default="warning",
    help="Exit 3 where something this grave is found (default warning).",
)
FORMAT = click.option(
    "--format", "form", type=click.Choice(["text", "json", "sarif"]), default="text", help="Default text."
)


def report(
    out: Output, found: Sequence[Item], rules: Mapping[str, RuleText], form: str, document: dict[str, Any], text: str
) -> None:
    """The result of a command with `--format`: as SARIF the findings alone; `--json` goes before it."""
    out.as_json = out.as_json or form == "json"
    if form == "sarif" and not out.as_json:
        click.echo(json.dumps(to_sarif(found, rules), indent=2, ensure_ascii=False))
    else:
        out.result(document, text)


def failing(found: Iterable[Item], fail_on: str) -> bool:
    """Whether one of them is as grave as that."""
    ranks = {severity: rank for rank, severity in enumerate((*SEVERITIES, "never"))}
    return fail_on != "never" and any(ranks[each.severity] <= ranks[fail_on] for each in found)


def document_of(each: Item) -> dict[str, Any]:
    return {
        "rule": each.rule,
        "severity": each.severity,
        "path": shown(each.path) if each.path else None,
        "line": each.line,
        "message": each.message,
        "hint": each.hint,
    }


def text_of(found: Sequence[T], place: Callable[[T], str] | None = None) -> str:
    """A line a finding, its hint below, and how many there are. `place`: where it is (default `path:line`)."""
    lines = [line for each in found for line in _lines(each, (place or file_place)(each))]
    counts = [(severity, sum(each.severity == severity for each in found)) for severity in SEVERITIES]
    summary = ", ".join(f"{count} {severity}{'s' * (count != 1)}" for severity, count in counts if count)
    return "\n".join([*lines, summary.replace("infos", "info") or "nothing found"])


def file_place(each: Item) -> str:
    return f"{shown(each.path)}:{each.line}" if each.path and each.line else ""


def _lines(each: Item, place: str) -> list[str]:
    severity = click.style(each.severity, fg=_COLOURS[each.severity])
    hint = [f"  {each.hint}"] if each.hint else []
    return [f"{f'{place}: ' if place else ''}{severity} {each.rule}: {each.message}", *hint]
