"""What a rule is, what it is given, what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from dbops.errors import shown
from dbops.migrate.files import Migration, Script
from dbops.migrate.kinds import Program, program
from dbops.migrate.lint.tree import Tables, created_tables
from dbops.migrate.parse import Statement, parse

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
# where it is, and what is wrong there
Found = tuple[int, str]


@dataclass(frozen=True)
class Finding:
    """Something that a rule found. `line` counts from 1, 0 is no line; squawk's rules are `squawk/NAME`."""

    rule: str
    severity: Severity
    path: Path
    line: int
    message: str
    hint: str


@dataclass(frozen=True)
class File:
    """A migration, parsed, and what all files that are linted together say of the tables."""

    migration: Migration
    program: Program
    down: tuple[Statement, ...]
    pg_major: int
    tables: Tables

    @property
    def up(self) -> tuple[Statement, ...]:
        return self.program.statements

    @cached_property
    def created(self) -> frozenset[str]:
        """The tables that this file creates: empty, and nobody waits for them."""
        return created_tables(self.up)

    def of(self, *kinds: str) -> Iterator[Statement]:
        """The statements of these kinds in the up part."""
        return (statement for statement in self.up if statement.kind in kinds)


Check = Callable[[File], Iterable[Found]]


@dataclass(frozen=True)
class Rule:
    """A rule. It stands in for the rules of squawk in `replaces`: a comment that has squawk ignore them counts."""

    name: str
    severity: Severity
    summary: str
    hint: str
    replaces: tuple[str, ...] = ()
    check: Check | None = None


RULES: dict[str, Rule] = {}


def rule(name: str, severity: Severity, hint: str, *, replaces: tuple[str, ...] = ()) -> Callable[[Check], Check]:
    """Register a check under its name; the docstring's first line is its summary."""

    def register(check: Check) -> Check:
        summary = (check.__doc__ or "").strip().splitlines()[0]
        RULES[name] = Rule(name, severity, summary, hint, replaces, check)
        return check

    return register


def notice(name: str, severity: Severity, summary: str, hint: str) -> Rule:
    """Register what lint itself has to say, with no check on the statements."""
    RULES[name] = Rule(name, severity, summary, hint)
    return RULES[name]


def finding(of: Rule, script: Script, line: int, message: str) -> Finding:
    """A finding of one of our rules."""
    return Finding(of.name, of.severity, script.path, line, message, of.hint)


def read(migrations: Sequence[Migration], pg_version: str) -> tuple[File, ...]:
    """Parse the migrations. Raises MigrationFileError for a syntax error."""
    major = int(pg_version.split(".")[0])
    files = [File(m, program(m.up), _down(m), major, Tables()) for m in migrations]
    tables = Tables.of(statement for file in files for statement in file.up)
    return tuple(replace(file, tables=tables) for file in files)


def _down(migration: Migration) -> tuple[Statement, ...]:
    script = migration.down
    return parse(script.sql, shown(script.path), script.line) if script else ()
