"""Small tools on parse trees: reading names out of nodes, and building nodes from names."""

from __future__ import annotations

from collections.abc import Iterable

from dbops.migrate.parse import Node, deparse, new, unwrap


def names(nodes: Iterable[Node]) -> tuple[str, ...]:
    """The strings of a list of nodes: a qualified name."""
    return tuple(unwrap(node).sval for node in nodes)


def relation_names(relation: Node) -> tuple[str, ...]:
    """The name of a RangeVar, with its schema where one is written."""
    return tuple(name for name in (relation.catalogname, relation.schemaname, relation.relname) if name)


def strings(parts: Iterable[str]) -> list[Node]:
    """A qualified name as nodes."""
    return [new("Node", string=new("String", sval=part)) for part in parts]


def listed(parts: Iterable[str]) -> Node:
    """A qualified name as a list node."""
    return new("List", items=strings(parts))


def wrap(kind: str, node: Node) -> Node:
    """A node in the wrapper that lists and unions take, `kind` being the wrapper's field."""
    return new("Node", **{kind: node})


def enum(node: Node, name: str) -> str:
    """The name of an enum field's value."""
    return str(node.DESCRIPTOR.fields_by_name[name].enum_type.values_by_number[getattr(node, name)].name)


def copy(node: Node, **values: object) -> Node:
    """A copy with some scalar fields set; None clears a field."""
    twin = type(node)()
    twin.CopyFrom(node)
    for name, value in values.items():
        if value is None:
            twin.ClearField(name)
        elif isinstance(value, str) and (of := node.DESCRIPTOR.fields_by_name[name].enum_type):
            setattr(twin, name, of.values_by_name[value].number)
        else:
            setattr(twin, name, value)
    return twin


def quote_ident(name: str) -> str:
    """A name as PostgreSQL writes it: quoted where it must be (upper case, odd characters, reserved words)."""
    return deparse("drop_stmt", new("DropStmt", remove_type="OBJECT_SCHEMA", objects=strings([name]))).removeprefix(
        "DROP SCHEMA "
    )


def clipped(sql: str) -> str:
    """A statement for a message: as much as one reads."""
    return sql if len(sql) <= 120 else sql[:119] + "…"


def said(kind: str, node: Node) -> str:
    """A statement node for a message."""
    return clipped(deparse(kind, node))


def shown(parts: Iterable[str]) -> str:
    """A qualified name, quoted where it must be."""
    return ".".join(map(quote_ident, parts))


def type_name(parts: Iterable[str]) -> Node:
    """A type by its name."""
    return new("TypeName", names=strings(parts), typemod=-1)


def with_args(name: Iterable[Node], types: Iterable[Node]) -> Node:
    """A function, aggregate or operator with the types of its arguments."""
    return new("ObjectWithArgs", objname=name, objargs=[wrap("type_name", t) if t else new("Node") for t in types])


def as_type(kind: str, target: Node) -> Node:
    """Types and domains come as lists here and as types elsewhere."""
    return (
        type_name(names(target.items))
        if kind in ("OBJECT_TYPE", "OBJECT_DOMAIN") and hasattr(target, "items")
        else target
    )
