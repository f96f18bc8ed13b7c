"""Lint: what is wrong with policies, seen from the catalog and the definitions; what only an attack proves is not here.

pgrls's rules and our own; each of ours has a section in docs/policy-lint.md.
"""

from __future__ import annotations

from collections.abc import Iterator

from dbops.policy.lint import keys, policies, reach
from dbops.policy.lint.beside import Disagreement, beside
from dbops.policy.lint.model import RULES, SEVERITIES, Finding, Found, Rule, Severity, Subject
from dbops.policy.lint.pgrls import look
from dbops.policy.model import Definitions
from dbops.policy.state import Catalog

__all__ = ["RULES", "SEVERITIES", "Disagreement", "Finding", "Rule", "Severity", "beside", "lint"]

# importing a module of rules registers them
_MODULES = (policies, reach, keys)


def lint(
    definitions: Definitions, catalog: Catalog, *, pgrls: bool = True, url: str | None = None
) -> tuple[Finding, ...]:
    """What is wrong with a database's policies, grants, views, functions and keys, by table.

    pgrls looks at the database at `url` in its own process; without a URL it is left out. Changes nothing.
    """
    subject = Subject(definitions, catalog)
    found = [*_ours(subject), *(look(subject, url) if pgrls and url else ())]
    return tuple(sorted(found, key=lambda each: (each.table, SEVERITIES.index(each.severity), each.rule, each.message)))


def _ours(subject: Subject) -> Iterator[Finding]:
    for rule in RULES.values():
        for found in rule.check(subject) if rule.check else ():
            yield _finding(rule, subject, found)


def _finding(rule: Rule, subject: Subject, found: Found) -> Finding:
    rules = subject.rules_of(found.name) if found.name else None
    return Finding(
        rule.name,
        found.severity or rule.severity,
        rules.path if rules else None,
        rules.line if rules else 0,
        str(found.name or ""),
        found.message,
        rule.hint,
    )
