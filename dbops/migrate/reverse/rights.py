"""GRANT, REVOKE and default privileges, and their reverse."""

from __future__ import annotations

import re
from dataclasses import replace

from dbops.migrate.parse import Node, deparse, new, unwrap
from dbops.migrate.reverse.nodes import as_type, copy, enum, names, said, wrap
from dbops.migrate.reverse.state import File, Handler, Key, Part, cannot

# nothing quoted stands before the privileges that this finds
_PRIVILEGES = re.compile(r"^([\w, ]*?\b(?:GRANT|REVOKE)(?: GRANT OPTION FOR)?)( [a-z, ]+)(?= ON | \()")
_ASSUMED = "assumes that it was not so before"
# ALL of these is one privilege only, so REVOKE ALL says which
_ONE_PRIVILEGE = frozenset(
    f"OBJECT_{kind}" for kind in ("FUNCTION", "PROCEDURE", "ROUTINE", "LANGUAGE", "TYPE", "DOMAIN")
)


def granted(node: Node, file: File) -> Part:
    """GRANT and REVOKE on objects."""
    kind, target = enum(node, "objtype"), enum(node, "targtype")
    back = _granted_back(node)
    part = Part(_upper(deparse("grant_stmt", back)), _ASSUMED)
    if not node.is_grant and not node.privileges and kind not in _ONE_PRIVILEGE:
        part = cannot(f"{said('grant_stmt', node)}: which privileges were granted is not in this file (name them)")
    if target != "ACL_TARGET_OBJECT":
        return part
    owns = [file.find(key) for key in _objects(node, kind, file)]
    mine = [own for own in owns if own]
    if len(mine) < len(owns):
        return part
    # rights are tied to roles, and to nothing else
    roles = frozenset(unwrap(grantee).rolename for grantee in node.grantees)
    if any(file.tied(own, roles) for own in mine):
        return replace(part, of=mine[0])
    return Part("", f"goes with {mine[0].label}", mine[0])


def _objects(node: Node, kind: str, file: File) -> list[Key]:
    """What the rights are on. Those on columns only are gone with them, where the file made all of the columns."""
    tables = [unwrap(one) for one in node.objects if kind == "OBJECT_TABLE"]
    privileges = [names(privilege.cols) for privilege in map(unwrap, node.privileges)]
    columns = [file.child("column", table, name) for table in tables for some in privileges for name in some]
    if all(privileges) and columns and all(key in file.things for key in columns):
        return columns
    return [file.key(kind, as_type(kind, unwrap(one))) for one in node.objects]


def _granted_back(node: Node) -> Node:
    # REVOKE must not say GRANT OPTION FOR: the privilege itself goes
    return copy(
        node,
        is_grant=not node.is_grant,
        behavior="DROP_RESTRICT",
        grant_option=not node.is_grant and node.grant_option,
    )


def _upper(sql: str) -> str:
    """The privileges in capitals, which the parser's names of them have not."""
    return _PRIVILEGES.sub(lambda match: match[1] + match[2].upper(), sql)


def default_rights(node: Node, file: File) -> Part:
    """ALTER DEFAULT PRIVILEGES."""
    sql = "alter_default_privileges_stmt"
    if not node.action.is_grant and not node.action.privileges:
        return cannot(f"{said(sql, node)}: which privileges were granted is not in this file (name them)")
    back = copy(node)
    back.action.CopyFrom(_granted_back(node.action))
    return Part(_upper(deparse(sql, back)), _ASSUMED)


def membership(node: Node, file: File) -> Part:
    """GRANT and REVOKE of roles."""
    options = {o.defname: unwrap(o.arg).boolval for o in map(unwrap, node.opt)}
    if node.is_grant:
        return Part(deparse("grant_role_stmt", copy(node, is_grant=False, opt=None)), _ASSUMED)
    back = copy(node, is_grant=True, behavior="DROP_RESTRICT", opt=None)
    for name in options:
        back.opt.append(
            wrap("def_elem", new("DefElem", defname=name, arg=wrap("boolean", new("Boolean", boolval=True))))
        )
    return Part(deparse("grant_role_stmt", back), "" if options else "assumes that it was granted without options")


RIGHTS: dict[str, Handler] = {
    "grant_stmt": granted,
    "grant_role_stmt": membership,
    "alter_default_privileges_stmt": default_rights,
}
