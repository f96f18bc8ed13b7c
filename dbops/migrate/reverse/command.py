"""Commands of ALTER TABLE as nodes: made into others, and written as statements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from dbops.migrate.parse import Node, deparse, new, unwrap
from dbops.migrate.reverse.nodes import copy, enum, names, strings, type_name, wrap
from dbops.migrate.reverse.state import Part


def dropped_options(items: Iterable[Node]) -> list[Node] | None:
    """The OPTIONS that take added ones away again; None where one was changed or dropped."""
    added = [unwrap(item) for item in items]
    if any(enum(option, "defaction") not in ("DEFELEM_ADD", "DEFELEM_UNSPEC") for option in added):
        return None
    return [wrap("def_elem", copy(option, arg=None, defaction="DEFELEM_DROP")) for option in added]


def hidden_options(items: Iterable[Node]) -> list[Node]:
    """Options without their values, for a message: a password may be among them."""
    hidden = [copy(unwrap(item)) for item in items]
    for option in hidden:
        if option.HasField("arg"):
            option.arg.CopyFrom(*strings(["…"]))
    return [wrap("def_elem", option) for option in hidden]


def with_definition(command: Node, definition: Node) -> Node:
    """The command with another definition."""
    twin = copy(command, **{"def": None})
    getattr(twin, "def").CopyFrom(definition)
    return twin


def only_names(command: Node) -> Node:
    """The options of a command without their values, as RESET takes them."""
    items = [wrap("def_elem", copy(unwrap(item), arg=None)) for item in unwrap(getattr(command, "def")).items]
    return wrap("list", new("List", items=items))


def type_restored(command: Node) -> Node:
    """A change of type back, by way of text: between any two types, which need not have a cast."""
    if enum(command, "subtype") != "AT_AlterColumnType":
        return command
    column = unwrap(getattr(command, "def"))
    value = new("ColumnRef", fields=[wrap("string", new("String", sval=command.name))])
    text = new("TypeCast", arg=wrap("column_ref", value), type_name=type_name(["text"]))
    cast = new("TypeCast", arg=wrap("type_cast", text), type_name=column.type_name)
    if names(column.type_name.names) == ("text",) and not column.type_name.array_bounds:
        cast = text
    back = new("ColumnDef", type_name=column.type_name, raw_default=wrap("type_cast", cast))
    return with_definition(command, wrap("column_def", back))


def altered_back(node: Node, parts: Iterable[Part]) -> Iterator[Part]:
    """The parts of one ALTER TABLE, in down order: neighbours that have a way back are joined in one statement."""
    parts = list(parts)
    kept = [part for part in parts if part.down != ""] or parts[:1]
    for has_command, group in groupby(kept, lambda part: part.command is not None):
        if not has_command:
            yield from group
            continue
        some = list(group)
        notes = dict.fromkeys(part.reason for part in some if part.reason)
        yield Part(alter_sql(node, [part.command for part in some]), "; ".join(notes))


def alter_sql(node: Node, commands: Iterable[Node]) -> str:
    """One ALTER statement on the same table. A constraint goes before a column that would take it along."""
    ordered = sorted(commands, key=lambda command: enum(command, "subtype") != "AT_DropConstraint")
    head = _deparsed(node, new("AlterTableCmd", subtype="AT_SetLogged")).removesuffix("SET LOGGED")
    return head + ", ".join(_clause(node, command, head) for command in ordered)


def _clause(node: Node, command: Node, head: str) -> str:
    clause = _deparsed(node, command).removeprefix(head).strip()
    if enum(command, "subtype") == "AT_DropColumn" and enum(node, "objtype") != "OBJECT_TYPE":
        return "DROP COLUMN " + clause.removeprefix("DROP ")
    return clause


def _deparsed(node: Node, command: Node) -> str:
    one = copy(node, cmds=None)
    one.cmds.add().alter_table_cmd.CopyFrom(command)
    return deparse("alter_table_stmt", one)
