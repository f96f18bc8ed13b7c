"""ALTER of a property (comment, setting, option, value of an enum …), and its reverse."""

from __future__ import annotations

from collections.abc import Callable

from dbops.migrate.parse import Node, deparse, new, unwrap
from dbops.migrate.reverse.command import dropped_options, hidden_options
from dbops.migrate.reverse.make import own_sequence
from dbops.migrate.reverse.nodes import as_type, copy, enum, listed, names, quote_ident, said, shown, wrap
from dbops.migrate.reverse.state import File, Handler, Key, Part, cannot, nothing

_ASSUMED_NONE = "assumes that there was none before"
_ASSUMED_DEFAULT = "assumes that it was at its default before"
_ASSUMED = "assumes that it was not so before"


def _text_removed(kind: str, name: str) -> Handler:
    """COMMENT ON and SECURITY LABEL: back to none."""

    def handle(node: Node, file: File) -> Part:
        part = Part(deparse(kind, copy(node, **{name: None})), _ASSUMED_NONE)
        if not getattr(node, name):
            part = cannot(f"{said(kind, node)}: the earlier text is not in this file")
        what, target = enum(node, "objtype"), unwrap(node.object)
        own = file.find(file.key(what, as_type(what, target)))
        return Part("", f"goes with {own.label}", own) if own else part

    return handle


def _reset(statement: str, kind: str, name: Callable[[Node], str]) -> Handler:
    """ALTER ROLE, DATABASE or SYSTEM … SET: back to the default."""

    def handle(node: Node, file: File) -> Part:
        back = copy(node)
        if not _setting_reset(back.setstmt):
            return cannot(f"{said(statement, node)}: the earlier value is not in this file")
        return file.about(Key(kind, (name(node),)), node, Part(deparse(statement, back), _ASSUMED_DEFAULT), leaf=True)

    return handle


def _setting_reset(setting: Node) -> bool:
    """Make SET name = value a RESET; False where it is one already."""
    if enum(setting, "kind") in ("VAR_RESET", "VAR_RESET_ALL", "VAR_SET_DEFAULT"):
        return False
    setting.CopyFrom(copy(new("VariableSetStmt", name=setting.name), kind="VAR_RESET"))
    return True


def function_altered(node: Node, file: File) -> Part:
    """ALTER FUNCTION: what has two states is switched back, a setting is reset."""
    back = copy(node)
    part = Part("", _ASSUMED)
    for action in map(unwrap, back.actions):
        if action.defname in ("security", "strict", "leakproof"):
            value = unwrap(action.arg)
            value.boolval = not value.boolval
        elif action.defname != "set" or not _setting_reset(unwrap(action.arg)):
            part = cannot(f"{said('alter_function_stmt', node)}: the earlier {action.defname} is not in this file")
    if part.down is not None:
        part = Part(deparse("alter_function_stmt", back), _ASSUMED)
    return file.about(file.key("OBJECT_FUNCTION", node.func), node, part)


def enum_altered(node: Node, file: File) -> Part:
    """ALTER TYPE … ADD VALUE, RENAME VALUE."""
    key = Key("type", file.qualified(names(node.type_name)))
    if node.old_val:
        back = copy(node, old_val=node.new_val, new_val=node.old_val)
        return Part(deparse("alter_enum_stmt", back), of=file.find(key))
    lost = cannot(f"{said('alter_enum_stmt', node)}: PostgreSQL cannot take a value out of an enum")
    return file.about(key, node, lost)


def domain_altered(node: Node, file: File) -> Part:
    """ALTER DOMAIN: a constraint or NOT NULL added goes; what was dropped or replaced is not known."""
    domain = Key("type", file.qualified(names(node.type_name)))
    definition = unwrap(getattr(node, "def")) if node.HasField("def") else None
    if node.subtype == "C":
        return _domain_constraint(node, file, domain, definition)
    if node.subtype in "NO":
        back = copy(node, subtype="O" if node.subtype == "N" else "N")
        return file.about(domain, node, Part(deparse("alter_domain_stmt", back), _ASSUMED))
    if node.subtype == "X" and file.drop(Key("constraint", (*domain.names, node.name))):
        return nothing("what the file made itself")
    why = (
        "PostgreSQL cannot make it unvalidated again" if node.subtype == "V" else "what was before is not in this file"
    )
    return file.about(domain, node, cannot(f"{said('alter_domain_stmt', node)}: {why}"))


def _domain_constraint(node: Node, file: File, domain: Key, definition: Node) -> Part:
    if enum(definition, "contype") == "CONSTR_NOTNULL" and not definition.conname:
        back = new("AlterDomainStmt", subtype="N", type_name=node.type_name)
        return file.about(domain, node, Part(deparse("alter_domain_stmt", back), _ASSUMED))
    name = definition.conname or f"{domain.names[-1]}_check"
    back = new("AlterDomainStmt", subtype="X", type_name=node.type_name, name=name, behavior="DROP_RESTRICT")
    note = "" if definition.conname else "assumes that PostgreSQL's name for it was free"
    key = Key("constraint", (*domain.names, name))
    return file.make(key, f"CONSTRAINT {quote_ident(name)}", node, Part(deparse("alter_domain_stmt", back), note))


def sequence_altered(node: Node, file: File) -> Part:
    """ALTER SEQUENCE: only OWNED BY has a known way back."""
    key = file.relation(node.sequence)
    part = cannot(f"{said('alter_seq_stmt', node)}: its earlier settings are not in this file")
    if [unwrap(option).defname for option in node.options] == ["owned_by"]:
        back = copy(node)
        del back.options[:]
        back.options.append(wrap("def_elem", new("DefElem", defname="owned_by", arg=wrap("list", listed(["none"])))))
        part = Part(deparse("alter_seq_stmt", back), _ASSUMED_NONE)
    result = file.about(key, node, part)
    if own := file.things.get(key):
        own_sequence(own, node, file)
    return result


def text_search_altered(node: Node, file: File) -> Part:
    """ALTER TEXT SEARCH CONFIGURATION … ADD MAPPING."""
    sql = "alter_tsconfiguration_stmt"
    part = cannot(f"{said(sql, node)}: the earlier mapping is not in this file")
    if enum(node, "kind") == "ALTER_TSCONFIG_ADD_MAPPING":
        part = Part(deparse(sql, copy(node, kind="ALTER_TSCONFIG_DROP_MAPPING", dicts=None)))
    return file.about(file.key("OBJECT_TSCONFIGURATION", listed(names(node.cfgname))), node, part)


def publication_altered(node: Node, file: File) -> Part:
    """ALTER PUBLICATION: what is added goes; what was taken out may have had a filter or a list of columns."""
    sql, action = "alter_publication_stmt", enum(node, "action")
    part = cannot(f"{said(sql, node)}: what was published before is not in this file")
    if action == "AP_AddObjects":
        back = copy(node, action="AP_DropObjects")
        for table in (unwrap(one).pubtable for one in back.pubobjects if unwrap(one).HasField("pubtable")):
            table.ClearField("where_clause")
            table.ClearField("columns")
        part = Part(deparse(sql, back))
    return file.about(Key("OBJECT_PUBLICATION", (node.pubname,)), node, part)


def _options_altered(statement: str, kind: str, name: str) -> Handler:
    """ALTER SERVER, USER MAPPING, FOREIGN DATA WRAPPER … OPTIONS."""

    def handle(node: Node, file: File) -> Part:
        items = dropped_options(node.options)
        bare = copy(node, options=None)
        bare.options.extend(hidden_options(node.options))
        part = cannot(f"{said(statement, bare)}: what was before is not in this file")
        if items and not getattr(node, "has_version", False) and not getattr(node, "func_options", ()):
            back = copy(node)
            del back.options[:]
            back.options.extend(items)
            part = Part(deparse(statement, back))
        return file.about(Key(kind, (getattr(node, name),)), node, part)

    return handle


def event_trigger_altered(node: Node, file: File) -> Part:
    """ALTER EVENT TRIGGER ENABLE and DISABLE."""
    back = copy(node, tgenabled="D" if node.tgenabled == "O" else "O")
    part = Part(deparse("alter_event_trig_stmt", back), _ASSUMED)
    return file.about(Key("OBJECT_EVENT_TRIGGER", (node.trigname,)), node, part)


def statistics_altered(node: Node, file: File) -> Part:
    """ALTER STATISTICS … SET STATISTICS: back to the default."""
    back = copy(node)
    back.stxstattarget.CopyFrom(wrap("integer", new("Integer", ival=-1)))
    part = Part(deparse("alter_stats_stmt", back), _ASSUMED_DEFAULT)
    return file.about(file.key("OBJECT_STATISTIC_EXT", listed(names(node.defnames))), node, part)


def extension_content(node: Node, file: File) -> Part:
    """ALTER EXTENSION ADD and DROP."""
    return Part(deparse("alter_extension_contents_stmt", copy(node, action=-node.action)))


def depends(node: Node, file: File) -> Part:
    """ALTER … DEPENDS ON EXTENSION."""
    return Part(deparse("alter_object_depends_stmt", copy(node, remove=not node.remove)), _ASSUMED)


def clustered(node: Node, file: File) -> Part:
    """CLUSTER … USING marks the index, as ALTER TABLE CLUSTER ON does."""
    if not node.indexname:
        return nothing("changes no schema and no data")
    command = wrap("alter_table_cmd", new("AlterTableCmd", subtype="AT_DropCluster"))
    back = new("AlterTableStmt", relation=node.relation, cmds=[command], objtype="OBJECT_TABLE")
    return file.about(file.relation(node.relation), node, Part(deparse("alter_table_stmt", back), _ASSUMED))


def policy_altered(node: Node, file: File) -> Part:
    """ALTER POLICY."""
    lost = cannot(f"{said('alter_policy_stmt', node)}: the earlier definition is not in this file")
    return file.about(file.child("policy", node.table, node.policy_name), node, lost, leaf=True)


def _lost(what: Callable[[Node], str], why: str, key: Callable[[Node, File], Key] | None = None) -> Handler:
    """No way back, except where the file made the thing itself."""

    def handle(node: Node, file: File) -> Part:
        part = cannot(f"{what(node)}: {why}")
        return file.about(key(node, file), node, part) if key else part

    return handle


CHANGERS: dict[str, Handler] = {
    "comment_stmt": _text_removed("comment_stmt", "comment"),
    "sec_label_stmt": _text_removed("sec_label_stmt", "label"),
    "alter_role_set_stmt": _reset("alter_role_set_stmt", "OBJECT_ROLE", lambda n: n.role.rolename),
    "alter_database_set_stmt": _reset("alter_database_set_stmt", "OBJECT_DATABASE", lambda n: n.dbname),
    "alter_system_stmt": _reset("alter_system_stmt", "system", lambda n: ""),
    "alter_function_stmt": function_altered,
    "alter_enum_stmt": enum_altered,
    "alter_domain_stmt": domain_altered,
    "alter_seq_stmt": sequence_altered,
    "alter_tsconfiguration_stmt": text_search_altered,
    "alter_publication_stmt": publication_altered,
    "alter_foreign_server_stmt": _options_altered("alter_foreign_server_stmt", "OBJECT_FOREIGN_SERVER", "servername"),
    "alter_user_mapping_stmt": _options_altered("alter_user_mapping_stmt", "mapping", "servername"),
    "alter_fdw_stmt": _options_altered("alter_fdw_stmt", "OBJECT_FDW", "fdwname"),
    "alter_event_trig_stmt": event_trigger_altered,
    "alter_stats_stmt": statistics_altered,
    "alter_extension_contents_stmt": extension_content,
    "alter_object_depends_stmt": depends,
    "alter_policy_stmt": policy_altered,
    "cluster_stmt": clustered,
    "alter_role_stmt": _lost(
        lambda n: f"ALTER ROLE {quote_ident(n.role.rolename)}",
        "its earlier attributes are not in this file",
        lambda n, f: Key("OBJECT_ROLE", (n.role.rolename,)),
    ),
    "alter_extension_stmt": _lost(
        lambda n: f"ALTER EXTENSION {quote_ident(n.extname)} UPDATE",
        "an extension has no way back to an earlier version",
    ),
    "alter_type_stmt": _lost(
        lambda n: f"ALTER TYPE {shown(names(n.type_name))} SET",
        "its earlier properties are not in this file",
        lambda n, f: Key("type", f.qualified(names(n.type_name))),
    ),
    "drop_owned_stmt": _lost(lambda n: deparse("drop_owned_stmt", n), "what it dropped is not in this file"),
    "reassign_owned_stmt": _lost(
        lambda n: deparse("reassign_owned_stmt", n), "whose each thing was is not in this file"
    ),
}
