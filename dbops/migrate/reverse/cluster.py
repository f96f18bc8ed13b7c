"""What belongs to the whole cluster, or has a DROP statement of its own: roles, databases, user mappings …"""

from __future__ import annotations

from collections.abc import Callable

from dbops.migrate.parse import Node, deparse, new
from dbops.migrate.reverse.make import UNKNOWN_BEFORE
from dbops.migrate.reverse.nodes import wrap
from dbops.migrate.reverse.state import File, Handler, Key, Part, cannot


def _by_statement(kind: str, statement: str, name: str, message: str, **fields: Callable[[Node], object]) -> Handler:
    """For objects that have a DROP statement of their own kind."""

    def handle(node: Node, file: File) -> Part:
        down = deparse(statement, new(message, **{field: value(node) for field, value in fields.items()}))
        label = down.removeprefix("DROP ")
        part = cannot(f"CREATE {label}: {UNKNOWN_BEFORE}") if getattr(node, "if_not_exists", False) else Part(down)
        return file.make(Key(kind, (getattr(node, name),)), label, node, part)

    return handle


OF_CLUSTER: dict[str, Handler] = {
    "create_user_mapping_stmt": _by_statement(
        "mapping",
        "drop_user_mapping_stmt",
        "servername",
        "DropUserMappingStmt",
        user=lambda n: n.user,
        servername=lambda n: n.servername,
    ),
    "create_role_stmt": _by_statement(
        "OBJECT_ROLE",
        "drop_role_stmt",
        "role",
        "DropRoleStmt",
        roles=lambda n: [wrap("role_spec", new("RoleSpec", roletype="ROLESPEC_CSTRING", rolename=n.role))],
    ),
    "create_subscription_stmt": _by_statement(
        "OBJECT_SUBSCRIPTION",
        "drop_subscription_stmt",
        "subname",
        "DropSubscriptionStmt",
        subname=lambda n: n.subname,
    ),
    "createdb_stmt": _by_statement("OBJECT_DATABASE", "dropdb_stmt", "dbname", "DropdbStmt", dbname=lambda n: n.dbname),
    "create_table_space_stmt": _by_statement(
        "OBJECT_TABLESPACE",
        "drop_table_space_stmt",
        "tablespacename",
        "DropTableSpaceStmt",
        tablespacename=lambda n: n.tablespacename,
    ),
}
