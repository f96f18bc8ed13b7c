"""The reverse of a migration's up part, as far as it follows from it: pure functions on the parse tree.

Each statement gets a step: its reverse; or nothing where none is needed (an index on a table which the same file
made goes with the table); or the reason why there is no way back without losing data. A reverse may assume something
that the file cannot show, such as that there was no comment before: the step's reason says so, and `migrate prove`
finds out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from dbops.migrate.parse import Statement
from dbops.migrate.reverse.change import CHANGERS
from dbops.migrate.reverse.cluster import OF_CLUSTER
from dbops.migrate.reverse.command import altered_back
from dbops.migrate.reverse.data import DATA
from dbops.migrate.reverse.drop import DROPPERS
from dbops.migrate.reverse.make import MAKERS
from dbops.migrate.reverse.nodes import quote_ident
from dbops.migrate.reverse.rename import RENAMERS
from dbops.migrate.reverse.rights import RIGHTS
from dbops.migrate.reverse.state import SESSION, File, Handler, Part, cannot
from dbops.migrate.reverse.table import alter_table

__all__ = ["Reversal", "Step", "quote_ident", "reverse"]

_HANDLERS: dict[str, Handler] = {
    **MAKERS, **OF_CLUSTER, **DROPPERS, **RENAMERS, **RIGHTS, **CHANGERS, **DATA, "alter_table_stmt": alter_table,
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """The way back of one statement.

    `down` is None where there is none and empty where none is needed; `reason` says why, or what a reverse assumes.
    """

    line: int
    up: str
    down: str | None
    reason: str = ""


@dataclass(frozen=True)
class Reversal:
    """The steps of a down part in its order: the last statement first."""

    steps: tuple[Step, ...]

    @property
    def irreversible(self) -> tuple[Step, ...]:
        """The steps that have no way back."""
        return tuple(step for step in self.steps if step.down is None)

    @property
    def sql(self) -> str:
        """The text of the down part; a comment stands where there is no way back."""
        lines = (_written(step) for step in self.steps if step.down != "")
        return "".join(f"{line}\n" for line in lines)


def _written(step: Step) -> str:
    if step.down is None:
        # a name with a line break must not end the comment
        return f"-- cannot be reversed: line {step.line}: {' '.join(step.reason.split())}"
    return f"{step.down};"


def reverse(statements: Sequence[Statement]) -> Reversal:
    """The way back of the statements of one file."""
    file = File()
    done = [(statement, _parts(statement, file, order)) for order, statement in enumerate(statements, 1)]
    steps = [step for statement, parts in reversed(done) for step in _steps(statement, parts)]
    return Reversal(tuple(_with_settings(steps, statements, file)))


def _parts(statement: Statement, file: File, order: int) -> list[Part]:
    file.line, file.order = statement.line, order
    handler = _HANDLERS.get(statement.kind)
    if handler is None:
        return [cannot(f"{_first_words(statement)}: no reverse is known")]
    try:
        found = handler(statement.node, file)
    except ValueError as error:
        return [cannot(f"{_first_words(statement)}: its reverse cannot be written ({error})")]
    return found if isinstance(found, list) else [found]


def _steps(statement: Statement, parts: Iterable[Part]) -> Iterator[Step]:
    settled = [part.settled for part in reversed(list(parts))]
    for part in altered_back(statement.node, settled) if statement.kind == "alter_table_stmt" else settled:
        yield Step(statement.line, statement.sql, part.down, part.reason)


def _with_settings(steps: Iterable[Step], statements: Sequence[Statement], file: File) -> Iterator[Step]:
    """First the search_path and role that are in force at the end; no settings where nothing else is to be run."""
    steps = list(steps)
    needed = any(step.down and step.reason != SESSION for step in steps)
    if needed:
        last = statements[-1]
        yield from (
            Step(last.line, last.sql, sql, SESSION) for sql in file.settings.values() if not sql.startswith("RESET")
        )
    for step in steps:
        yield step if needed or step.reason != SESSION else replace(step, down="")


def _first_words(statement: Statement) -> str:
    return " ".join(statement.sql.split()[:4])
