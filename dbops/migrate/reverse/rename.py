"""ALTER … RENAME, SET SCHEMA and OWNER TO, and their reverse."""

from __future__ import annotations

from dbops.migrate.parse import Node, deparse, unwrap
from dbops.migrate.reverse.nodes import as_type, copy, enum, names, relation_names, said
from dbops.migrate.reverse.state import CHILDREN, File, Handler, Key, Part, cannot


def renamed(node: Node, file: File) -> Part:
    """ALTER … RENAME: the two names change places."""
    kind = enum(node, "rename_type")
    if kind in CHILDREN:
        holder = relation_names(node.relation) if node.HasField("relation") else names(unwrap(node.object).items)
        key = Key(CHILDREN[kind], (*file.qualified(holder), node.subname))
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
    file.rename(key, key.called(node.newname))
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
        moved = said("alter_object_schema_stmt", node)
        return cannot(f"{moved}: its earlier schema is not in this file (write the name with it)")
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
    lost = cannot(f"{said('alter_owner_stmt', node)}: the earlier owner is not in this file")
    return file.about(file.key(kind, as_type(kind, target)), node, lost)


RENAMERS: dict[str, Handler] = {
    "rename_stmt": renamed,
    "alter_object_schema_stmt": schema_changed,
    "alter_owner_stmt": owner_changed,
}
