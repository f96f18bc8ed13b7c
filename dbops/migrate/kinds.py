"""What a statement means for the one who runs it: pure functions on the parse tree.

Sources: PreventInTransactionBlock in PostgreSQL's documentation of each command, e.g.
https://www.postgresql.org/docs/current/sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from dbops.errors import MigrationFileError, shown
from dbops.migrate.files import Script
from dbops.migrate.parse import Node, Statement, parse, unwrap, walk

_KEEPS_SESSION = {"create_stmt", "comment_stmt", "create_enum_stmt", "create_policy_stmt", "rename_stmt"}
_REINDEX_OBJECT = {1: "INDEX", 2: "TABLE", 3: "SCHEMA", 4: "SYSTEM", 5: "DATABASE"}


class Mode(Enum):
    """How a step runs: `SESSION` steps are settings, given again to every step that follows them."""

    TRANSACTION = "transaction"
    OUTSIDE = "outside"
    SESSION = "session"


@dataclass(frozen=True)
class Step:
    number: int
    statement: Statement
    mode: Mode


@dataclass(frozen=True)
class Program:
    """A script as it will be run: in one transaction, or step by step."""

    statements: tuple[Statement, ...]
    transactional: bool
    reason: str = ""

    @property
    def keeps_session(self) -> bool:
        """Whether it is sure to leave settings, role and search_path as they are: it calls no function of anybody's."""
        return all(s.kind in _KEEPS_SESSION and not _is_temporary(s) for s in self.statements)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The statements with their modes, for a program that is run step by step."""
        return tuple(Step(n, s, _mode(s, self.reason)) for n, s in enumerate(self.statements, 1))


def _is_temporary(statement: Statement) -> bool:
    return statement.kind == "create_stmt" and statement.node.relation.relpersistence == "t"


def program(script: Script) -> Program:
    """Parse a script and decide how it runs. Raises MigrationFileError for what may not stand in a migration."""
    statements = _without_enclosing_transaction(parse(script.sql, shown(script.path), script.line))
    for statement in statements:
        _refuse(statement, script)
    if not script.transaction:
        return Program(statements, False, "transaction:false")
    reason = next((r for r in map(outside_reason, statements) if r), "") or _enum_value_used_at_once(statements)
    return Program(statements, not reason, reason)


def _mode(statement: Statement, reason: str) -> Mode:
    if statement.kind == "variable_set_stmt":
        return Mode.SESSION
    # a procedure may commit by itself, which PostgreSQL allows outside a transaction only
    alone = reason == "transaction:false" and statement.kind in ("call_stmt", "do_stmt")
    return Mode.OUTSIDE if alone or outside_reason(statement) else Mode.TRANSACTION


def _without_enclosing_transaction(statements: tuple[Statement, ...]) -> tuple[Statement, ...]:
    kinds = [_transaction_kind(statement) for statement in statements]
    inside = kinds[1:-1]
    if len(kinds) >= 2 and kinds[0] in ("BEGIN", "START") and kinds[-1] == "COMMIT" and not any(inside):
        return statements[1:-1]
    return statements


def _transaction_kind(statement: Statement) -> str:
    if statement.kind != "transaction_stmt":
        return ""
    names = statement.node.DESCRIPTOR.fields_by_name["kind"].enum_type.values_by_number
    return str(names[statement.node.kind].name).removeprefix("TRANS_STMT_").replace("_", " ")


def _refuse(statement: Statement, script: Script) -> None:
    what = _transaction_kind(statement)
    where = f"{shown(script.path)}:{statement.line}"
    if what.startswith(("PREPARE", "COMMIT PREPARED", "ROLLBACK PREPARED")):
        raise MigrationFileError(
            f"{where}: two-phase commit ({what.lower()}) in a migration: its record could not be part of it",
            hint="take the statement out; nothing was applied",
        )
    if what:
        raise MigrationFileError(
            f"{where}: {what} in a migration: dbops runs each migration in a transaction of its own",
            hint="take it out (BEGIN as the first and COMMIT as the last statement are ignored), "
            "or split the file; nothing was applied",
        )
    if statement.kind == "copy_stmt" and not statement.node.filename:
        raise MigrationFileError(
            f"{where}: COPY … {'FROM STDIN' if statement.node.is_from else 'TO STDOUT'} needs psql",
            hint="use INSERT … VALUES; nothing was applied",
        )


def _option(options: Iterable[Node], *names: str) -> bool:
    """Whether one of these options is there and not switched off."""
    for option in map(unwrap, options):
        if option.defname in names:
            value = unwrap(option.arg) if option.HasField("arg") else None
            text = str(getattr(value, "boolval", getattr(value, "sval", True))).lower()
            return text not in ("false", "off", "0", "no")
    return False


def _reindex(node: Node) -> str:
    kind = _REINDEX_OBJECT.get(node.kind, "")
    if _option(node.params, "concurrently"):
        return "REINDEX CONCURRENTLY"
    return f"REINDEX {kind}" if kind in ("SCHEMA", "SYSTEM", "DATABASE") else ""


def _subscription(node: Node) -> str:
    off = [unwrap(option) for option in node.options]
    names = {
        option.defname
        for option in off
        if not _option([o for o in node.options if unwrap(o) == option], option.defname)
    }
    return "" if names & {"create_slot", "connect"} else "CREATE SUBSCRIPTION"


def _altered_subscription(node: Node) -> str:
    kind = _enum_name(node, "kind")
    refresh = [unwrap(option) for option in node.options if unwrap(option).defname == "refresh"]
    if "REFRESH" in kind or ("PUBLICATION" in kind and (not refresh or _option(node.options, "refresh"))):
        return "ALTER SUBSCRIPTION REFRESH"
    named = any(unwrap(option).defname in ("failover", "two_phase") for option in node.options)
    return "ALTER SUBSCRIPTION SET" if named else ""


def _detach(node: Node) -> str:
    for command in map(unwrap, node.cmds):
        definition = unwrap(command.def_) if hasattr(command, "def_") else unwrap(getattr(command, "def"))
        if getattr(definition, "concurrent", False):
            return "DETACH PARTITION CONCURRENTLY"
    return ""


_OUTSIDE: dict[str, Callable[[Node], str]] = {
    "index_stmt": lambda node: "CREATE INDEX CONCURRENTLY" if node.concurrent else "",
    "drop_stmt": lambda node: "DROP INDEX CONCURRENTLY" if node.concurrent else "",
    "reindex_stmt": _reindex,
    "vacuum_stmt": lambda node: "VACUUM" if node.is_vacuumcmd else "",
    "cluster_stmt": lambda node: "" if node.HasField("relation") else "CLUSTER of the database",
    "createdb_stmt": lambda _: "CREATE DATABASE",
    "dropdb_stmt": lambda _: "DROP DATABASE",
    "create_table_space_stmt": lambda _: "CREATE TABLESPACE",
    "drop_table_space_stmt": lambda _: "DROP TABLESPACE",
    "alter_system_stmt": lambda _: "ALTER SYSTEM",
    "alter_database_stmt": lambda node: "ALTER DATABASE SET TABLESPACE" if _option(node.options, "tablespace") else "",
    "create_subscription_stmt": _subscription,
    "drop_subscription_stmt": lambda _: "DROP SUBSCRIPTION",
    "alter_subscription_stmt": _altered_subscription,
    "discard_stmt": lambda node: "DISCARD ALL" if _enum_name(node, "target") == "DISCARD_ALL" else "",
    "alter_table_stmt": _detach,
}


def _enum_name(node: Node, field: str) -> str:
    return str(node.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number[getattr(node, field)].name)


def outside_reason(statement: Statement) -> str:
    """The command that PostgreSQL refuses inside a transaction block, or an empty text."""
    check = _OUTSIDE.get(statement.kind)
    return check(statement.node) if check else ""


def _enum_value_used_at_once(statements: Sequence[Statement]) -> str:
    """ALTER TYPE … ADD VALUE whose value a later statement uses: it must be committed first.

    https://www.postgresql.org/docs/current/sql-altertype.html (Notes). A type made in the same transaction is exempt.
    """
    made = {names(s.node.type_name) for s in statements if s.kind == "create_enum_stmt"}
    for place, statement in enumerate(statements):
        if statement.kind != "alter_enum_stmt" or not statement.node.new_val or names(statement.node.type_name) in made:
            continue
        value = statement.node.new_val
        if statement.node.old_val:  # a rename
            continue
        if any(_mentions(later, value) for later in statements[place + 1 :]):
            return f"ALTER TYPE … ADD VALUE '{value}', used in the same file"
    return ""


def _mentions(statement: Statement, text: str) -> bool:
    if statement.kind == "alter_enum_stmt":
        return False
    return any(text in node.sval for node in walk(statement.node) if node.DESCRIPTOR.name == "String")


def names(nodes: Iterable[Node]) -> tuple[str, ...]:
    """The parts of a qualified name."""
    return tuple(unwrap(node).sval for node in nodes)
