"""Rules on what a migration keeps others from doing while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dbops.migrate.kinds import outside_reason
from dbops.migrate.lint.model import File, Found, rule
from dbops.migrate.lint.pgvector import is_vector_index
from dbops.migrate.lint.tree import commands, dropped, enum, held, relation
from dbops.migrate.parse import Node, Statement, unwrap

# https://www.postgresql.org/docs/current/sql-altertable.html: what takes a weaker lock than ACCESS EXCLUSIVE
_WEAKER = frozenset(
    (
        "AT_SetStatistics", "AT_ClusterOn", "AT_DropCluster", "AT_SetOptions", "AT_ResetOptions",
        "AT_SetRelOptions", "AT_ResetRelOptions", "AT_ValidateConstraint", "AT_AttachPartition",
        "AT_DetachPartitionFinalize", "AT_EnableTrig", "AT_EnableTrigAll", "AT_EnableTrigUser",
        "AT_EnableAlwaysTrig", "AT_EnableReplicaTrig",
        "AT_DisableTrig", "AT_DisableTrigAll", "AT_DisableTrigUser",
    )
)  # fmt: skip
_ACCESS_EXCLUSIVE = 8
_RENAMED = ("OBJECT_TABLE", "OBJECT_COLUMN", "OBJECT_TABCONSTRAINT", "OBJECT_POLICY")
# what does not mind that its file is run step by step
_HARMLESS = ("comment_stmt", "variable_set_stmt", "vacuum_stmt")


@rule(
    "index-blocks-writes",
    "warning",
    "create index concurrently, in a file of its own",
    replaces=("require-concurrent-index-creation",),
)
def index_blocks_writes(file: File) -> Iterable[Found]:
    """CREATE INDEX without CONCURRENTLY on a table that was there before: it takes no writes meanwhile."""
    for statement in file.of("index_stmt"):
        table = relation(statement.node.relation)
        # ON ONLY builds nothing
        if not statement.node.concurrent and table not in file.created and statement.node.relation.inh:
            method = statement.node.access_method
            long = f"; {method} takes minutes on a filled table" if is_vector_index(statement) else ""
            yield (
                statement.line,
                f"CREATE INDEX without CONCURRENTLY: {table} takes no writes until it is built{long}",
            )


@rule("concurrent-index-unnamed", "warning", "name it")
def concurrent_index_unnamed(file: File) -> Iterable[Found]:
    """CREATE INDEX CONCURRENTLY without a name: the down part cannot name it either."""
    for statement in file.of("index_stmt"):
        if statement.node.concurrent and not statement.node.idxname:
            yield (
                statement.line,
                f"CREATE INDEX CONCURRENTLY on {relation(statement.node.relation)} without a name",
            )


@rule(
    "file-not-atomic",
    "warning",
    "put it in a file of its own; where the steps may stand alone, say so: -- migrate:up transaction:false",
)
def file_not_atomic(file: File) -> Iterable[Found]:
    """One statement that PostgreSQL refuses in a transaction makes the whole file run step by step."""
    if file.program.transactional or not file.migration.up.transaction:
        return
    outside = [s for s in file.up if outside_reason(s)] or list(file.of("alter_enum_stmt"))
    rest = [s for s in file.up if s not in outside and s.kind not in _HARMLESS and not _takes_index(s)]
    if outside and rest:
        count = f"{len(rest)} other statement{'s' * (len(rest) != 1)}"
        yield (
            outside[0].line,
            f"{file.program.reason}: {count} here run step by step because of it",
        )


def _takes_index(statement: Statement) -> bool:
    """ADD CONSTRAINT … USING INDEX, the step that belongs behind a concurrent build."""
    if statement.kind != "alter_table_stmt":
        return False
    definitions = [held(command, "def") for command in commands(statement.node)]
    return all(getattr(definition, "indexname", "") for definition in definitions)


@rule("many-exclusive-locks", "info", "change one table a file: short locks, and none waits for the other")
def many_exclusive_locks(file: File) -> Iterable[Found]:
    """One transaction holds ACCESS EXCLUSIVE on several tables: readers wait for all, and may deadlock."""
    if not file.program.transactional:
        return
    first: dict[str, int] = {}
    for statement in file.up:
        for table in _locked(statement):
            if table not in file.created:
                first.setdefault(table, statement.line)
    if len(first) > 1:
        yield (
            list(first.values())[1],
            f"ACCESS EXCLUSIVE on {', '.join(first)}, all held until the file is done",
        )


def _locked(statement: Statement) -> Iterator[str]:
    """The tables on which a statement certainly takes ACCESS EXCLUSIVE."""
    node, kind = statement.node, statement.kind
    if kind == "alter_table_stmt" and enum(node, "objtype") == "OBJECT_TABLE":
        if not all(_weaker(command) for command in commands(node)):
            yield relation(node.relation)
    elif kind == "rename_stmt" and enum(node, "rename_type") in _RENAMED:
        yield relation(node.relation)
    elif kind in ("create_policy_stmt", "alter_policy_stmt"):
        yield relation(node.table)
    elif kind == "truncate_stmt" or (kind == "lock_stmt" and node.mode == _ACCESS_EXCLUSIVE):
        yield from map(relation, map(unwrap, node.relations))
    else:
        yield from dropped(statement, "OBJECT_TABLE")


def _weaker(command: Node) -> bool:
    if enum(command, "subtype") == "AT_AddConstraint":
        return enum(held(command, "def"), "contype") == "CONSTR_FOREIGN"
    return enum(command, "subtype") in _WEAKER
