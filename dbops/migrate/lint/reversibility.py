"""Rules on the way back, and on rows that are gone for good."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dbops.migrate.kinds import names
from dbops.migrate.lint.model import File, Found, rule
from dbops.migrate.lint.tree import commands, dropped, enum, held, made_relation, qualified, relation
from dbops.migrate.parse import Node, Statement, unwrap, walk

_TYPES = {
    "create_enum_stmt": "type_name",
    "create_range_stmt": "type_name",
    "create_domain_stmt": "domainname",
}
# what a down part may do without naming it
_OPAQUE = ("do_stmt", "call_stmt", "select_stmt", "execute_stmt", "drop_owned_stmt")


def _stuck(file: File) -> list[tuple[int, str]]:
    """The statements whose reverse does not follow from them: line and reason."""
    from dbops.migrate.reverse import reverse

    return sorted((step.line, step.reason) for step in reverse(file.up).irreversible)


@rule(
    "down-missing",
    "info",
    "`dbops migrate reverse VERSION --write` writes it; then `dbops migrate prove VERSION`",
)
def down_missing(file: File) -> Iterable[Found]:
    """No down part, although one follows from the up part."""
    if file.migration.down is None and not _stuck(file):
        yield _first_line(file), "no down part, although one follows from the up part"


@rule("no-way-back", "warning", "write a down part; where there can be none, say why with -- dbops:ignore")
def no_way_back(file: File) -> Iterable[Found]:
    """No down part, and none that follows from the up part."""
    stuck = _stuck(file) if file.migration.down is None else []
    if stuck:
        line, reason = stuck[0]
        more = f" (and {len(stuck) - 1} more)" if len(stuck) > 1 else ""
        yield line, f"no down part, and none can be derived: {reason}{more}"


def _first_line(file: File) -> int:
    return file.up[0].line if file.up else file.migration.up.line


@rule("data-lost", "warning", "where that is meant, say so in the file: -- migrate:loses REASON")
def data_lost(file: File) -> Iterable[Found]:
    """Rows or columns are gone for good, and nothing in the file says that this is meant."""
    if file.migration.loses:
        return
    added = {column for statement in file.up for column in _columns(statement, "AT_AddColumn")}
    for statement in file.up:
        for what in _destroyed(statement, file.created, added):
            yield statement.line, f"{what}: no down part brings that back"


def _columns(statement: Statement, subtype: str) -> Iterator[tuple[str, str]]:
    """The columns that an ALTER TABLE adds or drops: table and name."""
    for command in commands(statement.node) if statement.kind == "alter_table_stmt" else ():
        if enum(command, "subtype") == subtype:
            yield relation(statement.node.relation), command.name or held(command, "def").colname


def _destroyed(statement: Statement, created: frozenset[str], added: set[tuple[str, str]]) -> Iterator[str]:
    """What a statement destroys of tables that were there before."""
    yield from (
        f"the rows of {table} are dropped" for table in dropped(statement, "OBJECT_TABLE") if table not in created
    )
    for table, column in _columns(statement, "AT_DropColumn"):
        if table not in created and (table, column) not in added:
            yield f"column {column} of {table} is dropped with its values"
    if statement.kind == "truncate_stmt":
        tables = map(relation, map(unwrap, statement.node.relations))
        yield from (f"{table} is emptied" for table in tables if table not in created)
    if statement.kind == "delete_stmt" and relation(statement.node.relation) not in created:
        yield f"rows of {relation(statement.node.relation)} are deleted"
    if statement.kind == "drop_stmt" and enum(statement.node, "behavior") == "DROP_CASCADE":
        schemas = (name.removeprefix("public.") for name in dropped(statement, "OBJECT_SCHEMA"))
        yield from (f"all of schema {name} is dropped" for name in schemas)


@rule("down-incomplete", "warning", "drop it in the down part; `dbops migrate reverse VERSION` shows how")
def down_incomplete(file: File) -> Iterable[Found]:
    """The down part leaves what the up part creates, so that a second up fails."""
    if not file.down or any(map(_opaque, file.down)):
        return
    cascade = any(s.kind == "drop_stmt" and enum(s.node, "behavior") == "DROP_CASCADE" for s in file.down)
    named = {word for s in file.down for word in _words(s.node)}
    # renamed or dropped again on the way up
    named |= {word for s in file.of("rename_stmt", "drop_stmt") for word in _words(s.node)}
    for statement in file.up:
        what, name = _made(statement)
        if name and name.split(".")[-1] not in named and (what == "table" or not cascade):
            yield statement.line, f"the down part leaves {what} {name}: a second up fails"


def _opaque(statement: Statement) -> bool:
    whole = tuple(dropped(statement, "OBJECT_SCHEMA", "OBJECT_EXTENSION"))
    return statement.kind in _OPAQUE or bool(whole)


def _words(node: Node) -> Iterator[str]:
    for each in walk(node):
        if each.DESCRIPTOR.name == "String":
            yield each.sval
        elif each.DESCRIPTOR.name == "RangeVar":
            yield each.relname


def _made(statement: Statement) -> tuple[str, str]:
    """What a statement certainly makes, and its name; empty where it may have been there, or goes so."""
    node, kind = statement.node, statement.kind
    if getattr(node, "if_not_exists", False) or getattr(node, "replace", False):
        return "", ""
    if kind in ("create_stmt", "create_table_as_stmt"):
        # a partition goes with its parent, a temporary table with the session
        part = kind == "create_stmt" and (node.HasField("partbound") or bool(node.inh_relations))
        made = made_relation(statement)
        return ("", "") if part or made.relpersistence == "t" else ("table", relation(made))
    if kind == "view_stmt":
        return ("view", relation(node.view)) if node.view.relpersistence != "t" else ("", "")
    if kind == "create_function_stmt":
        return "function", qualified(names(node.funcname))
    return ("type", qualified(names(getattr(node, _TYPES[kind])))) if kind in _TYPES else ("", "")


@rule("write-without-where", "warning", "say which rows: WHERE …; a large table in batches")
def write_without_where(file: File) -> Iterable[Found]:
    """UPDATE or DELETE of a whole table, which locks every row of it and writes it anew."""
    for statement in file.of("update_stmt", "delete_stmt"):
        table = relation(statement.node.relation)
        if table not in file.created and not statement.node.HasField("where_clause"):
            verb = "UPDATE" if statement.kind == "update_stmt" else "DELETE"
            yield statement.line, f"{verb} without WHERE: every row of {table}"
