"""How plans, attacks and their findings look, for people and for scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dbops.cli.output import duration
from dbops.wording import count

if TYPE_CHECKING:
    from dbops.policy import Definitions, Listed, Plan
    from dbops.policy.attack.result import Cell, Leak, Mutants, Report
    from dbops.policy.lint import Disagreement

SIGNS = {"held": ".", "allowed": "+", "leak": "!", "vacuous": "?"}
LEGEND = ". held   + allowed by a definition   ! leak   ? nothing proven"
_COLOURS = {"!": "red", "?": "yellow"}


def plan_document(plan: Plan) -> dict[str, Any]:
    return {
        "statements": list(plan.sql),
        "details": [{"sql": s.sql, "table": s.table, "why": s.why, "was": s.was} for s in plan.statements],
        "unmanaged": [asdict(each) for each in plan.unmanaged],
        "proposals": [
            {"table": str(p.table), "columns": list(p.columns), "statement": p.statement, "reason": p.reason}
            for p in plan.proposals
        ],
        "notes": list(plan.notes),
        "target": plan.target,
    }


def listed_document(listed: Sequence[Listed]) -> dict[str, Any]:
    return {
        "policies": [
            {
                "table": str(each.policy.table),
                "policy": each.policy.name,
                "permissive": each.policy.permissive,
                "verb": each.policy.verb,
                "roles": list(each.policy.roles),
                "using": each.policy.using,
                "check": each.policy.check,
                "made_by": each.made_by,
            }
            for each in listed
        ]
    }


def listed_text(listed: Sequence[Listed]) -> str:
    lines: list[str] = []
    table = None
    for each in listed:
        policy = each.policy
        if policy.table != table:
            table = policy.table
            lines.append(str(table))
        kind = "" if policy.permissive else "  restrictive"
        lines.append(f"  {policy.verb:<7} {policy.name}  to {', '.join(policy.roles)}{kind}  by {each.made_by}")
    return "\n".join(lines) or "no policies"


def attack_document(report: Report) -> dict[str, Any]:
    return {
        "verdict": report.verdict,
        "tables": list(report.tables),
        "attacks": report.attacks,
        "leaks": [asdict(leak) for leak in report.leaks],
        "vacuous": [asdict(each) for each in report.vacuous],
        "not_proven": [asdict(each) for each in report.not_proven],
        "mutants": asdict(report.mutants) if report.mutants else None,
        "cells": [asdict(cell) for cell in report.cells],
        "notes": list(report.notes),
        "server_version": report.server_version,
        "server": report.server_kind,
        "duration_ms": round(report.duration_ms, 3),
    }


def attack_text(report: Report, *, whole: bool = False) -> str:
    """What is found, and the matrix of its tables; `whole`: of all tables."""
    found = {leak.table for leak in report.leaks} | {each.table for each in report.vacuous}
    found |= {cell.table for cell in report.cells if cell.state in ("leak", "vacuous")}
    shown = [cell for cell in report.cells if whole or cell.table in found]
    lines = [*(_matrix(shown, _letters(report)) if shown else _tried(report)), *_leaks(report.leaks, whole)]
    lines += [f"vacuous  {_who(each.table, each.actor)}: {each.reason}" for each in report.vacuous]
    lines += [f"not proven  {_who(each.table, each.actor)}: {each.reason}" for each in report.not_proven]
    lines += [f"note  {note}" for note in report.notes]
    lines += _mutants(report.mutants) if report.mutants else []
    colour = "green" if report.verdict == "isolated" else "red"
    lines.append(
        f"{click.style(report.verdict, fg=colour)}: {count(len(report.tables), 'table')}, "
        f"{count(report.attacks, 'attack')}, {count(len(report.leaks), 'leak')}, {len(report.vacuous)} vacuous, "
        f"on PostgreSQL {report.server_version} ({report.server_kind}) in {duration(report.duration_ms)}"
    )
    return "\n".join(lines)


def _who(table: str, actor: str) -> str:
    return f"{table}, {actor}" if actor else table


def _letters(report: Report) -> dict[str, str]:
    """A letter for each actor, the same in every matrix of a report."""
    actors = dict.fromkeys(cell.actor for cell in report.cells)
    return {actor: chr(ord("A") + n) if n < 26 else f"A{n - 25}" for n, actor in enumerate(actors)}


def _tried(report: Report) -> Iterator[str]:
    """Who tried what, where no cell of the matrix is worth a look."""
    for word, names in (("as", [*_letters(report)]), ("by", sorted({cell.verb for cell in report.cells}))):
        for line in _wrapped(names, ", "):
            yield f"{word:<3}{line}"
            word = ""


def _matrix(cells: Sequence[Cell], letters: Mapping[str, str]) -> Iterator[str]:
    """A row a table and verb, a column an actor."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for cell in cells:
        rows.setdefault((cell.table, cell.verb), {})[cell.actor] = SIGNS[cell.state]
    wide = max(len(table) for table, _ in rows)
    high = max(len(verb) for _, verb in rows)
    yield " ".join([" " * (wide + high + 1), *letters.values()])
    last = None
    for (table, verb), signs in rows.items():
        name = table if table != last else ""
        marks = (_styled(signs.get(actor, " "), len(letter)) for actor, letter in letters.items())
        yield " ".join([f"{name:<{wide}} {verb:<{high}}", *marks]).rstrip()
        last = table
    yield from ("", *_wrapped([f"{letter} {actor}" for actor, letter in letters.items()], "   "), LEGEND, "")


def _styled(sign: str, width: int) -> str:
    return click.style(f"{sign:<{width}}", fg=_COLOURS[sign]) if sign in _COLOURS else f"{sign:<{width}}"


def _wrapped(words: Sequence[str], between: str) -> Iterator[str]:
    line = ""
    for word in words:
        if line and len(line) + len(word) > 100:
            yield line + between.rstrip()
            line = ""
        line = f"{line}{between}{word}" if line else word
    if line:
        yield line


def _leaks(leaks: Sequence[Leak], whole: bool) -> Iterator[str]:
    """Each leak with its SQL; one hole lets many actors through, so that `whole` alone shows each of them."""
    holes: dict[tuple[str, ...], list[Leak]] = {}
    for leak in leaks:
        holes.setdefault((leak.table, leak.verb, leak.via, leak.actor if whole else ""), []).append(leak)
    for leak, *others in holes.values():
        yield f"{click.style('LEAK', fg='red')}  {leak.table}, {leak.actor}, {leak.verb} via {leak.via}: {leak.what}"
        yield from (f"    {line}" for line in leak.sql.splitlines())
        if others:
            yield f"  and so: {', '.join(dict.fromkeys(each.actor for each in others))} (-v shows each)"


def _mutants(mutants: Mutants) -> Iterator[str]:
    yield from (
        f"{click.style('SURVIVED', fg='red')}  {mutant}: the attack did not notice" for mutant in mutants.survived
    )
    yield from (f"equivalent  {each.mutant}: {each.reason}" for each in mutants.equivalent)
    yield (
        f"{count(mutants.tried, 'mutant')}: {len(mutants.caught)} caught, {len(mutants.survived)} survived, "
        f"{len(mutants.equivalent)} equivalent"
    )


def disagreements_text(found: Sequence[Disagreement]) -> list[str]:
    words = {"unseen": "lint is blind", "unproven": "lint alone"}
    return [f"{click.style(words[each.kind], fg='yellow')}  {each.table}: {each.message}" for each in found]


# --- SARIF: leaks and vacuous cells as findings ---------------------------------------------------


@dataclass(frozen=True)
class AttackRule:
    """What is said of a kind of result."""

    severity: str
    summary: str
    hint: str


@dataclass(frozen=True)
class AttackFinding:
    """A leak or a vacuous cell, at its table's place in the definitions."""

    rule: str
    severity: str
    path: Path | None
    line: int
    message: str
    hint: str


ATTACK_RULES: Mapping[str, AttackRule] = {
    "attack-leak": AttackRule("error", "An attack got or changed what no definition allows.", "the SQL reproduces it"),
    "attack-vacuous": AttackRule("error", "Nothing was proven of a table or an actor.", "see the reason"),
    "mutant-survived": AttackRule("error", "A weakened policy that the attack did not notice.", "report it"),
}


def attack_findings(report: Report, definitions: Definitions) -> list[AttackFinding]:
    places = {str(name): (rules.path, rules.line) for name, rules in definitions.tables.items()}

    def finding(rule: str, table: str, message: str, hint: str) -> AttackFinding:
        path, line = places.get(table, (None, 0))
        return AttackFinding(rule, "error", path, line, message, hint)

    leaks = [
        finding(
            "attack-leak", leak.table, f"{leak.table}, {leak.actor}, {leak.verb} via {leak.via}: {leak.what}", leak.sql
        )
        for leak in report.leaks
    ]
    vacuous = [
        finding("attack-vacuous", each.table, f"{_who(each.table, each.actor)}: {each.reason}", "")
        for each in report.vacuous
    ]
    survived = report.mutants.survived if report.mutants else ()
    return [*leaks, *vacuous, *(finding("mutant-survived", "", mutant, "") for mutant in survived)]
