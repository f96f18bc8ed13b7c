"""Settings of the session, and statements on data: few have a way back, and many need none."""

from __future__ import annotations

from dbops.migrate.parse import Node, deparse, new, unwrap, walk
from dbops.migrate.reverse.make import made_relation
from dbops.migrate.reverse.nodes import copy, enum, names, relation_names, said, shown
from dbops.migrate.reverse.state import SESSION, File, Handler, Key, Part, cannot, nothing

_TRACKED_SETTINGS = frozenset(("search_path", "role", "session_authorization"))
_QUIET_FUNCTIONS = frozenset((
    "set_config", "current_setting", "pg_notify", "pg_sleep", "pg_advisory_lock", "pg_advisory_xact_lock",
    "pg_advisory_unlock", "count", "sum", "avg", "min", "max", "now", "clock_timestamp", "version", "format",
))  # fmt: skip
_NONE_NEEDED = (
    "variable_show_stmt", "vacuum_stmt", "reindex_stmt", "refresh_mat_view_stmt", "check_point_stmt", "discard_stmt",
    "lock_stmt", "constraints_set_stmt", "notify_stmt", "listen_stmt", "unlisten_stmt", "load_stmt", "prepare_stmt",
    "deallocate_stmt", "transaction_stmt", "declare_cursor_stmt", "fetch_stmt", "close_portal_stmt",
    "alter_database_refresh_coll_stmt", "alter_collation_stmt",
)  # fmt: skip


def set_in_session(node: Node, file: File) -> Part:
    """SET: only what names mean (search_path) and who acts (role) matters to a reverse."""
    if node.name not in _TRACKED_SETTINGS:
        return nothing("a setting of the session")
    before = file.settings.get(node.name)
    file.settings[node.name] = deparse("variable_set_stmt", node)
    blank = new("VariableSetStmt", name=node.name, is_local=node.is_local)
    default = copy(blank, kind="VAR_SET_DEFAULT" if node.is_local else "VAR_RESET")
    return Part(before or deparse("variable_set_stmt", default), SESSION)


def _written(node: Node) -> list[Node]:
    """The statements within a statement that write data (WITH … AS (DELETE …) and itself)."""
    kinds = ("InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt")
    return [one for one in walk(node) if one.DESCRIPTOR.name in kinds]


def data_changed(node: Node, file: File) -> Part:
    """INSERT, UPDATE, DELETE, MERGE: nothing to do in what the file made."""
    foreign = [one for one in _written(node) if not _writes_own(one, file)]
    if not foreign:
        return nothing("writes only what the file made itself")
    verb = foreign[0].DESCRIPTOR.name.removesuffix("Stmt").upper()
    into = shown(relation_names(foreign[0].relation))
    why = {
        "INSERT": "which rows it added is not in this file",
        "UPDATE": "the earlier values are gone",
        "DELETE": "the rows are gone",
        "MERGE": "the earlier rows are gone",
    }[verb]
    preposition = {"INSERT": "INTO ", "DELETE": "FROM ", "MERGE": "INTO "}.get(verb, "")
    return cannot(f"{verb} {preposition}{into}: {why}")


def _writes_own(node: Node, file: File) -> bool:
    table = file.relation(node.relation)
    if _wholly_own(node.relation, file):
        return True
    columns = [Key("column", (*table.names, unwrap(one).name)) for one in getattr(node, "target_list", ())]
    return node.DESCRIPTOR.name == "UpdateStmt" and bool(columns) and all(column in file.things for column in columns)


def _wholly_own(relation: Node, file: File) -> bool:
    own = file.things.get(file.relation(relation))
    return own is not None and not own.reaches_out


def truncated(node: Node, file: File) -> Part:
    """TRUNCATE."""
    tables = [unwrap(one) for one in node.relations]
    lost = [shown(relation_names(table)) for table in tables if not _wholly_own(table, file)]
    if enum(node, "behavior") == "DROP_CASCADE":
        return cannot(f"{said('truncate_stmt', node)}: the rows are gone, in the tables that refer to it too")
    return (
        cannot(f"TRUNCATE {', '.join(lost)}: the rows are gone")
        if lost
        else nothing("empties what the file made itself")
    )


def copied(node: Node, file: File) -> Part:
    """COPY."""
    if not node.is_from or _wholly_own(node.relation, file):
        return nothing("writes only what the file made itself" if node.is_from else "changes no schema and no data")
    return cannot(f"COPY INTO {shown(relation_names(node.relation))}: which rows it added is not in this file")


def selected(node: Node, file: File) -> Part | list[Part]:
    """SELECT: INTO makes a table, a function may do anything."""
    if node.HasField("into_clause"):
        return made_relation("OBJECT_TABLE", node.into_clause.rel, node, file)
    if _written(node):
        return data_changed(node, file)
    calls = [one for one in walk(node) if one.DESCRIPTOR.name == "FuncCall"]
    if search_path := next((one for one in calls if _sets_search_path(one)), None):
        return _search_path_set(search_path, node, file)
    loud = [one for one in calls if not _quiet(one, file)]
    if not loud:
        return nothing("changes no schema and no data")
    return cannot(f"SELECT {shown(names(loud[0].funcname))}(): what the function changed is not in this file")


def _sets_search_path(call: Node) -> bool:
    return names(call.funcname)[-1] == "set_config" and _text(call) == "search_path"


def _search_path_set(call: Node, node: Node, file: File) -> Part:
    before = file.settings.get("search_path")
    file.settings["search_path"] = deparse("select_stmt", node)
    return Part(before or "RESET search_path", SESSION)


def _quiet(call: Node, file: File) -> bool:
    name = names(call.funcname)[-1]
    if name != "setval":
        return name in _QUIET_FUNCTIONS
    return Key("relation", file.qualified(tuple(_text(call).replace('"', "").split(".")))) in file.things


def _text(call: Node) -> str:
    """The first argument of a call, where it is a plain text."""
    first = unwrap(call.args[0]) if call.args else None
    while first is not None and first.DESCRIPTOR.name == "TypeCast":
        first = unwrap(first.arg)
    return (
        first.sval.sval if first is not None and first.DESCRIPTOR.name == "A_Const" and first.HasField("sval") else ""
    )


def explained(node: Node, file: File) -> Part | list[Part]:
    """EXPLAIN runs its statement where it says ANALYZE."""
    if not any(unwrap(option).defname == "analyze" for option in node.options):
        return nothing("changes no schema and no data")
    kind = node.query.WhichOneof("node")
    return DATA.get(kind, _unreadable(f"EXPLAIN ANALYZE: {kind}"))(unwrap(node.query), file)


def _unreadable(what: str) -> Handler:
    return lambda node, file: cannot(f"{what}: what it did cannot be read from it")


def _harmless(node: Node, file: File) -> Part:
    return nothing("changes no schema and no data")


DATA: dict[str, Handler] = {
    **dict.fromkeys(_NONE_NEEDED, _harmless),
    "variable_set_stmt": set_in_session,
    "insert_stmt": data_changed,
    "update_stmt": data_changed,
    "delete_stmt": data_changed,
    "merge_stmt": data_changed,
    "truncate_stmt": truncated,
    "copy_stmt": copied,
    "select_stmt": selected,
    "explain_stmt": explained,
    "do_stmt": _unreadable("DO"),
    "execute_stmt": _unreadable("EXECUTE"),
    "call_stmt": lambda n, f: cannot(
        f"CALL {shown(names(n.funccall.funcname))}(): what the procedure changed is not in this file"
    ),
}
