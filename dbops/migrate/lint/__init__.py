"""Lint: what is wrong with migrations, seen from their parse trees.

Squawk's rules and our own; each of ours has a section in docs/lint.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from dbops.migrate.files import Migration
from dbops.migrate.lint import concurrency, pgvector, reversibility, security
from dbops.migrate.lint.model import RULES, SEVERITIES, File, Finding, Rule, Severity, finding, read
from dbops.migrate.lint.source import line_in_file
from dbops.migrate.lint.squawk import Result, look
from dbops.migrate.lint.suppress import suppressed

__all__ = ["RULES", "SEVERITIES", "Finding", "Rule", "Severity", "lint"]

# importing a module of rules registers them
_MODULES = (pgvector, security, concurrency, reversibility)


def lint(migrations: Sequence[Migration], *, pg_version: str = "18", squawk: bool = True) -> tuple[Finding, ...]:
    """What is wrong with the migrations, by file and line.

    Give all migrations of a folder, the applied ones too: a file is judged by the tables of the others.
    Raises MigrationFileError for a syntax error.
    """
    files = read(migrations, pg_version)
    theirs = look(files, pg_version) if squawk else Result(False, {})
    found = list(theirs.remarks)
    for number, file in enumerate(files):
        both = [*_ours(file), *theirs.found.get(number, [])]
        kept = suppressed(file, both, squawk_ran=theirs.ran)
        found += [replace(each, line=line_in_file(file.migration, each.line)) for each in kept]
    return tuple(
        sorted(found, key=lambda each: (str(each.path), each.line, SEVERITIES.index(each.severity), each.rule))
    )


def _ours(file: File) -> Iterator[Finding]:
    for rule in RULES.values():
        if rule.check is not None:
            for line, message in rule.check(file):
                yield finding(rule, file.migration.up, line, message)
