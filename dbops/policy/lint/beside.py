"""Lint's verdicts and the attack's, laid side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dbops.policy.attack.result import Report
from dbops.policy.lint.model import RULES, Finding


@dataclass(frozen=True, order=True)
class Disagreement:
    """`unseen`: the attack leaks where lint sees nothing. `unproven`: lint has an error where the attack held."""

    table: str
    kind: Literal["unseen", "unproven"]
    message: str


def beside(findings: Sequence[Finding], report: Report) -> tuple[Disagreement, ...]:
    """Where lint and the attack disagree, by attacked table; of a vacuous table nothing is said.

    Findings that only cost time do not count; those of a view or function count for it where a leak names it.
    """
    access = [each for each in findings if _speaks_of_access(each)]
    vacuous = {each.table for each in report.vacuous}
    found = []
    for table in report.tables:
        leaks = [leak for leak in report.leaks if leak.table == table]
        places = {table} | {leak.via.partition(" ")[2].partition("(")[0] for leak in leaks}
        seen = [each for each in access if each.severity != "info" and each.table in places | {""}]
        errors = sorted({each.rule for each in access if each.severity == "error" and each.table == table})
        if leaks and not seen:
            ways = ", ".join(dict.fromkeys(f"{leak.verb} as {leak.actor} via {leak.via}" for leak in leaks))
            found.append(Disagreement(table, "unseen", f"the attack got through ({ways}), and lint sees nothing"))
        elif errors and not leaks and table not in vacuous:
            found.append(Disagreement(table, "unproven", f"lint has {', '.join(errors)}, and the attack got nothing"))
    return tuple(sorted(found))


def _speaks_of_access(each: Finding) -> bool:
    program, _, theirs = each.rule.partition("/")
    return theirs.startswith(("SEC", "VIEW")) if theirs else RULES[program].about == "access"
