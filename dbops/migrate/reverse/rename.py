"""ALTER … RENAME, SET SCHEMA and OWNER TO, and their reverse."""

from __future__ import annotations

from dbops.migrate.parse import Node, deparse, unwrap
from dbops.migrate.reverse.nodes import as_type, copy, enum, names, relation_names
from dbops.migrate.reverse.state import File, Handler, Key, Part, cannot

_CHILD_RENAMES = {
    "OBJECT_COLUMN": "column", "OBJECT_ATTRIBUTE": "column", "OBJECT_TABCONSTRAINT": "constraint",
    "OBJECT_POLICY": "policy", "OBJECT_TRIGGER": "trigger", "OBJECT_RULE": "rule",
}  # fmt: skip


def renamed(node: Node, file: File) -> Part:
    """ALTER … RENAME: the two names change places."""
    kind = enum(node, "rename_type")
    if kind in _CHILD_RENAMES:
        key = file.child(_CHILD_RENAMES[kind], node.relation, node.subname)
        if enum(node, "relation_type") == "OBJECT_TYPE" or kind == "OBJECT_ATTRIBUTE":
            key = Key(key.kind, (*file.qualified(relation_names(node.relation)), node.subname))
        return _renamed(node, file, key, copy(node, subname=node.newname, newname=node.subname))
    if kind == "OBJECT_DOMCONSTRAINT":
        key = Key("constraint", (*file.qualified(names(unwrap(node.object).items)), node.subname))
        return _renamed(node, file, key, copy(node, subname=node.newname, newname=node.subname))
    if node.HasField("relation"):
        back = copy(node, newname=node.relation.relname)
        back.relation.relname = node.newname
        return _renamed(node, file, file.relation(node.relation), back)
    if not node.HasField("object"):
        back = copy(node, subname=node.newname, newname=node.subname)
        return _renamed(node, file, Key(kind, (node.subname,)), back)
    return _renamed(node, file, file.key(kind, as_type(kind, unwrap(node.object))), _object_renamed_back(node))


def _renamed(node: Node, file: File, key: Key, back: Node) -> Part:
    own = file.find(key)
    place = 1 if key.kind == "routine" or len(key.names) == 2 else len(key.names) - 1
    file.rename(key, Key(key.kind, (*key.names[:place], node.newname, *key.names[place + 1 :])))
    return Part(deparse("rename_stmt", back), of=own)


def _object_renamed_back(node: Node) -> Node:
    back = copy(node)
    last = unwrap(back.object)
    shape = last.DESCRIPTOR.name
    if shape != "String":
        last = unwrap((last.objname if shape == "ObjectWithArgs" else last.items)[-1])
    back.newname, last.sval = last.sval, node.newname
    return back


def schema_changed(node: Node, file: File) -> Part:
    """ALTER … SET SCHEMA: back to the schema that is written in its name."""
    kind, back = enum(node, "object_type"), copy(node)
    target = back.relation if node.HasField("relation") else unwrap(back.object)
    key = file.key(kind, as_type(kind, target))
    old = _schema_replaced(target, node.newschema)
    own = file.find(key)
    if not old:
        return cannot(
            f"{deparse('alter_object_schema_stmt', node)}: its earlier schema is not in this file (write the name with it)"
        )
    file.rename(key, Key(key.kind, (node.newschema, *key.names[1:])))
    back.newschema = old
    return Part(deparse("alter_object_schema_stmt", back), of=own)


def _schema_replaced(target: Node, schema: str) -> str:
    """Put another schema into a name, and return the one that was there."""
    shape = target.DESCRIPTOR.name
    if shape == "RangeVar":
        old, target.schemaname = target.schemaname, schema if target.schemaname else ""
        return str(old)
    parts = {"ObjectWithArgs": "objname", "List": "items"}.get(shape)
    qualified = getattr(target, parts)[-2:] if parts else []
    if len(qualified) < 2 or any(unwrap(part).DESCRIPTOR.name != "String" for part in qualified):
        return ""
    holder = unwrap(qualified[0])
    old, holder.sval = holder.sval, schema
    return str(old)


def owner_changed(node: Node, file: File) -> Part:
    """ALTER … OWNER TO."""
    kind = enum(node, "object_type")
    target = node.relation if node.HasField("relation") else unwrap(node.object)
    lost = cannot(f"{deparse('alter_owner_stmt', node)}: the earlier owner is not in this file")
    return file.about(file.key(kind, as_type(kind, target)), node, lost)


RENAMERS: dict[str, Handler] = {
    "rename_stmt": renamed,
    "alter_object_schema_stmt": schema_changed,
    "alter_owner_stmt": owner_changed,
}
