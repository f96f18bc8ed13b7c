"""Statements that make or drop a thing, and their reverse."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from dbops.migrate.parse import Node, deparse, new, unwrap
from dbops.migrate.reverse.drop import drop_sql
from dbops.migrate.reverse.names import index_name, statistics_name
from dbops.migrate.reverse.nodes import (
    copy,
    enum,
    listed,
    names,
    relation_names,
    shown,
    strings,
    type_name,
    with_args,
    wrap,
)
from dbops.migrate.reverse.state import File, Handler, Key, Own, Part, cannot

UNKNOWN_BEFORE = "whether it was there before is not known (where it is new, leave IF NOT EXISTS out)"
_REPLACED = "what it replaced is not known (where it is new, leave OR REPLACE out)"
UNNAMED = "PostgreSQL chooses its name, which is not certain: give it one"
_NAMED_BY_DEFAULT = "assumes that PostgreSQL's name for it was free"
_IN = frozenset(("FUNC_PARAM_IN", "FUNC_PARAM_INOUT", "FUNC_PARAM_VARIADIC", "FUNC_PARAM_DEFAULT"))
_SERIAL = frozenset(("serial", "bigserial", "smallserial", "serial2", "serial4", "serial8"))
# an object (DROP's kind and node) by the statement that makes it
Target = tuple[str, Node]


def made(kind: str, target: Node, node: Node, file: File, holder: Key | None = None, **options: bool) -> Part:
    """The part of a statement that makes an object: its DROP."""
    down = drop_sql(kind, target, **options)
    label = drop_sql(kind, target).removeprefix("DROP ")
    key = file.key(kind, target)
    # on a table that the file made, everything else is the file's too: there was nothing to replace
    if getattr(node, "replace", False) and (key in file.things or not file.find(key)):
        return file.about(key, node, cannot(f"CREATE {label}: {_REPLACED}"), leaf=True)
    part = cannot(f"CREATE {label}: {UNKNOWN_BEFORE}") if getattr(node, "if_not_exists", False) else Part(down)
    return file.make(key, label, node, part, holder)


def made_relation(kind: str, relation: Node, node: Node, file: File, holder: Key | None = None) -> Part:
    """The same for a relation; a temporary one may be gone with its session."""
    if relation.relpersistence != "t":
        return made(kind, listed(relation_names(relation)), node, file, holder)
    target = listed(("pg_temp", relation.relname))
    label = drop_sql(kind, target).removeprefix("DROP ")
    return file.make(file.relation(relation), label, node, Part(drop_sql(kind, target, missing_ok=True)), holder)


def _maker(target: Callable[[Node], Target]) -> Handler:
    return lambda node, file: made(*target(node), node, file)


def _of_table(relation: Node, name: str) -> Node:
    return listed((*relation_names(relation), name))


def _string(text: str) -> Node:
    return new("String", sval=text)


def _table(node: Node, file: File) -> Part:
    part = made_relation("OBJECT_TABLE", node.relation, node, file)
    if part.of:
        part.of.parents = frozenset(unwrap(parent).relname for parent in node.inh_relations)
        if node.HasField("partbound"):
            part.of.join(file.find(file.relation(unwrap(node.inh_relations[0]))))
        for element in map(unwrap, node.table_elts):
            if element.DESCRIPTOR.name == "ColumnDef":
                remember_column(file, file.child("column", node.relation, element.colname), element)
    return part


def _foreign_table(node: Node, file: File) -> Part:
    return made_relation("OBJECT_FOREIGN_TABLE", node.base_stmt.relation, node.base_stmt, file)


def remember_column(file: File, key: Key, column: Node) -> None:
    """Keep what a column is at first, so that a later change of it can be reversed."""
    definition = {"def": wrap("column_def", new("ColumnDef", type_name=column.type_name))}
    set_type = new("AlterTableCmd", subtype="AT_AlterColumnType", name=column.colname, **definition)
    file.earlier[key, "AT_AlterColumnType"] = set_type
    if names(column.type_name.names)[-1] in _SERIAL:  # its default is a sequence that the statement does not name
        return
    default = new("AlterTableCmd", subtype="AT_ColumnDefault", name=column.colname)
    for constraint in map(unwrap, column.constraints):
        if enum(constraint, "contype") == "CONSTR_DEFAULT":
            getattr(default, "def").CopyFrom(constraint.raw_expr)
    file.earlier[key, "AT_ColumnDefault"] = default


def _index(node: Node, file: File) -> Part:
    table = file.relation(node.relation)
    name = node.idxname or index_name(node.relation.relname, [*node.index_params, *node.index_including_params])
    target = (*relation_names(node.relation)[:-1], name)
    key = file.relation(copy(node.relation, relname=name))
    if node.idxname or (name and key not in file.things):
        part = made("OBJECT_INDEX", listed(target), node, file, table, concurrent=node.concurrent)
        return part if node.idxname or not part.down else replace(part, reason=_NAMED_BY_DEFAULT)
    return file.about(table, node, cannot(f"CREATE INDEX ON {shown(relation_names(node.relation))}: {UNNAMED}"))


def _statistics(node: Node, file: File) -> Part:
    table = unwrap(node.relations[0])
    if node.defnames:
        return made("OBJECT_STATISTIC_EXT", listed(names(node.defnames)), node, file, file.relation(table))
    name = statistics_name(table.relname, node.exprs)
    target = listed((*relation_names(table)[:-1], name))
    if not name or file.key("OBJECT_STATISTIC_EXT", target) in file.things:
        return file.about(file.relation(table), node, cannot(f"CREATE STATISTICS ON {table.relname}: {UNNAMED}"))
    part = made("OBJECT_STATISTIC_EXT", target, node, file, file.relation(table))
    return replace(part, reason=_NAMED_BY_DEFAULT) if part.down else part


def _rule(node: Node, file: File) -> Part:
    """What is done to its table may be done to another instead."""
    if table := file.things.get(file.relation(node.relation)):
        table.reaches_out = True
    return made("OBJECT_RULE", _of_table(node.relation, node.rulename), node, file)


def _sequence(node: Node, file: File) -> Part:
    part = made_relation("OBJECT_SEQUENCE", node.sequence, node, file)
    if part.of:
        own_sequence(part.of, node, file)
    return part


def own_sequence(sequence: Own, node: Node, file: File) -> None:
    """Follow OWNED BY: the drop of the column, or of its table, takes the sequence along."""
    for option in map(unwrap, node.options):
        if option.defname == "owned_by" and len(column := names(unwrap(option.arg).items)) > 1:
            sequence.table = Key("relation", file.qualified(column[:-1]))
            sequence.words |= {column[-1]}
            sequence.join(file.find(Key("column", (*sequence.table.names, column[-1]))))


def _table_as(node: Node, file: File) -> Part:
    return made_relation(enum(node, "objtype"), node.into.rel, node, file)


def _routine(node: Node) -> Target:
    types = [p.arg_type for p in map(unwrap, node.parameters) if enum(p, "mode") in _IN]
    kind = "OBJECT_PROCEDURE" if node.is_procedure else "OBJECT_FUNCTION"
    return kind, with_args(node.funcname, types)


def _definition(node: Node) -> dict[str, Node]:
    return {e.defname: unwrap(e.arg) if e.HasField("arg") else None for e in map(unwrap, node.definition)}


def _aggregate_types(node: Node) -> list[Node]:
    if not node.oldstyle:
        return [unwrap(item).arg_type for item in getattr(unwrap(node.args[0]), "items", ())]
    base = _definition(node).get("basetype")
    if base is None or base.DESCRIPTOR.name != "TypeName" or names(base.names)[-1].lower() == "any":
        return []  # what is written as a star today
    return [base]


def _defined(node: Node, file: File) -> Part:
    """CREATE AGGREGATE, OPERATOR, TYPE, COLLATION, TEXT SEARCH …"""
    kind = enum(node, "kind")
    if kind == "OBJECT_AGGREGATE":
        return made(kind, with_args(node.defnames, _aggregate_types(node)), node, file)
    if kind == "OBJECT_OPERATOR":
        sides = [_definition(node).get(side) for side in ("leftarg", "rightarg")]
        return made(kind, with_args(node.defnames, sides), node, file)
    target = type_name(names(node.defnames)) if kind == "OBJECT_TYPE" else listed(names(node.defnames))
    return made(kind, target, node, file)


def _operator_class(node: Node, file: File) -> Part:
    """Without FAMILY, PostgreSQL makes a family of the same name, which DROP OPERATOR CLASS would leave behind."""
    family = listed((node.amname, *names(node.opfamilyname or node.opclassname)))
    ours = bool(node.opfamilyname) or file.key("OBJECT_OPFAMILY", family) in file.things
    if ours:
        return made("OBJECT_OPCLASS", listed((node.amname, *names(node.opclassname))), node, file)
    part = made("OBJECT_OPFAMILY", family, node, file)
    return replace(part, reason="assumes that there was no operator family of this name")


def _extension(node: Node, file: File) -> Part:
    if any(unwrap(option).defname == "cascade" for option in node.options):
        return cannot(f"CREATE EXTENSION {shown([node.extname])} CASCADE: which others it installed is not known")
    return made("OBJECT_EXTENSION", _string(node.extname), node, file)


def _schema(node: Node, file: File) -> Part:
    """With what it makes in itself: views, then tables (together: they may refer to one another), then sequences."""
    name = node.schemaname or node.authrole.rolename
    if not name:
        return cannot("CREATE SCHEMA AUTHORIZATION: the name of the role is not in this file")
    part = made("OBJECT_SCHEMA", _string(name), node, file)
    if not part.down or not node.schema_elts:
        return part
    elements = list(map(unwrap, node.schema_elts))
    views = [_inside("OBJECT_VIEW", name, [e.view]) for e in reversed(elements) if e.DESCRIPTOR.name == "ViewStmt"]
    tables = [e.relation for e in elements if e.DESCRIPTOR.name == "CreateStmt"]
    sequences = [e.sequence for e in elements if e.DESCRIPTOR.name == "CreateSeqStmt"]
    rest = [
        _inside(kind, name, some) for kind, some in (("OBJECT_TABLE", tables), ("OBJECT_SEQUENCE", sequences)) if some
    ]
    return replace(part, down=";\n".join((*views, *rest, part.down)))


def _inside(kind: str, schema: str, relations: Iterable[Node]) -> str:
    objects = [wrap("list", listed((schema, relation.relname))) for relation in relations]
    return deparse("drop_stmt", new("DropStmt", remove_type=kind, objects=objects))


def _import_schema(node: Node, file: File) -> Part:
    if enum(node, "list_type") != "FDW_IMPORT_SCHEMA_LIMIT_TO":
        imported = f"IMPORT FOREIGN SCHEMA {shown([node.remote_schema])}"
        return cannot(f"{imported}: which tables it made is not known (LIMIT TO would name them)")
    return Part(_inside("OBJECT_FOREIGN_TABLE", node.local_schema, map(unwrap, node.table_list)))


MAKERS: dict[str, Handler] = {
    "create_stmt": _table,
    "create_foreign_table_stmt": _foreign_table,
    "create_table_as_stmt": _table_as,
    "index_stmt": _index,
    "create_stats_stmt": _statistics,
    "view_stmt": lambda n, f: made_relation("OBJECT_VIEW", n.view, n, f),
    "create_seq_stmt": _sequence,
    "create_schema_stmt": _schema,
    "create_extension_stmt": _extension,
    "define_stmt": _defined,
    "create_op_class_stmt": _operator_class,
    "import_foreign_schema_stmt": _import_schema,
    "create_enum_stmt": _maker(lambda n: ("OBJECT_TYPE", type_name(names(n.type_name)))),
    "create_range_stmt": _maker(lambda n: ("OBJECT_TYPE", type_name(names(n.type_name)))),
    "composite_type_stmt": _maker(lambda n: ("OBJECT_TYPE", type_name(relation_names(n.typevar)))),
    "create_domain_stmt": _maker(lambda n: ("OBJECT_DOMAIN", type_name(names(n.domainname)))),
    "create_function_stmt": _maker(_routine),
    "create_policy_stmt": _maker(lambda n: ("OBJECT_POLICY", _of_table(n.table, n.policy_name))),
    "create_trig_stmt": _maker(lambda n: ("OBJECT_TRIGGER", _of_table(n.relation, n.trigname))),
    "rule_stmt": _rule,
    "create_event_trig_stmt": _maker(lambda n: ("OBJECT_EVENT_TRIGGER", _string(n.trigname))),
    "create_op_family_stmt": _maker(lambda n: ("OBJECT_OPFAMILY", listed((n.amname, *names(n.opfamilyname))))),
    "create_conversion_stmt": _maker(lambda n: ("OBJECT_CONVERSION", listed(names(n.conversion_name)))),
    "create_cast_stmt": _maker(
        lambda n: ("OBJECT_CAST", new("List", items=[wrap("type_name", n.sourcetype), wrap("type_name", n.targettype)]))
    ),
    "create_transform_stmt": _maker(
        lambda n: ("OBJECT_TRANSFORM", new("List", items=[wrap("type_name", n.type_name), *strings([n.lang])]))
    ),
    "create_am_stmt": _maker(lambda n: ("OBJECT_ACCESS_METHOD", _string(n.amname))),
    "create_plang_stmt": _maker(lambda n: ("OBJECT_LANGUAGE", _string(n.plname))),
    "create_publication_stmt": _maker(lambda n: ("OBJECT_PUBLICATION", _string(n.pubname))),
    "create_fdw_stmt": _maker(lambda n: ("OBJECT_FDW", _string(n.fdwname))),
    "create_foreign_server_stmt": _maker(lambda n: ("OBJECT_FOREIGN_SERVER", _string(n.servername))),
}  # fmt: skip
