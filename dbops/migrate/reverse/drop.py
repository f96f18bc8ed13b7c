"""DROP, and its reverse: there is one for what the file made itself only."""

from __future__ import annotations

from collections.abc import Callable

from dbops.migrate.parse import Node, deparse, new, unwrap
from dbops.migrate.reverse.nodes import enum, said, shown, wrap
from dbops.migrate.reverse.state import File, Handler, Key, Part, cannot, nothing

_GONE = {
    "OBJECT_TABLE": "its rows are gone",
    "OBJECT_SEQUENCE": "its value is gone",
    "OBJECT_SCHEMA": "its content is gone",
}


def drop_sql(kind: str, target: Node, **options: bool) -> str:
    """DROP of one object."""
    objects = [wrap(_WRAPPERS[target.DESCRIPTOR.name], target)]
    return deparse("drop_stmt", new("DropStmt", remove_type=kind, objects=objects, **options))


_WRAPPERS = {
    "List": "list",
    "String": "string",
    "TypeName": "type_name",
    "ObjectWithArgs": "object_with_args",
}


def dropped(node: Node, file: File) -> Part:
    """DROP of things: nothing to do for what the file made, no way back for the rest."""
    kind, cascade = enum(node, "remove_type"), enum(node, "behavior") == "DROP_CASCADE"
    gone = [_dropped(kind, unwrap(target), file) for target in node.objects]
    if cascade:
        return cannot(f"{said('drop_stmt', node)}: what went with it is not known")
    lost = [part.reason for part in gone if part.down is None]
    return cannot("; ".join(lost)) if lost else nothing("what the file made itself")


def _dropped(kind: str, target: Node, file: File) -> Part:
    key, label = file.key(kind, target), drop_sql(kind, target)
    own = file.drop(key)
    if own and own.reaches_out:
        return cannot(f"{label}: a table that was there before is tied to it, and may have gone with it")
    if own or file.find(key):
        return nothing("")
    return cannot(f"{label}: {_GONE.get(kind, 'its definition is not in this file')}")


def dropped_by_name(kind: str, what: str, name: Callable[[Node], list[str]]) -> Handler:
    """DROP ROLE and the like."""

    def handle(node: Node, file: File) -> Part:
        own = [file.drop(Key(kind, (one,))) for one in name(node)]
        lost = [one for one, known in zip(name(node), own, strict=True) if known is None]
        return (
            cannot(f"DROP {what} {', '.join(map(shown, zip(lost)))}: its definition is not in this file")
            if lost
            else nothing("")
        )

    return handle


DROPPERS: dict[str, Handler] = {
    "drop_stmt": dropped,
    "drop_role_stmt": dropped_by_name("OBJECT_ROLE", "ROLE", lambda n: [unwrap(role).rolename for role in n.roles]),
    "drop_subscription_stmt": dropped_by_name("OBJECT_SUBSCRIPTION", "SUBSCRIPTION", lambda n: [n.subname]),
    "dropdb_stmt": dropped_by_name("OBJECT_DATABASE", "DATABASE", lambda n: [n.dbname]),
    "drop_table_space_stmt": dropped_by_name("OBJECT_TABLESPACE", "TABLESPACE", lambda n: [n.tablespacename]),
}
