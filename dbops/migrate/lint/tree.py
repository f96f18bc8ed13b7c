"""Questions to the parse tree that several rules ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from dbops.migrate.kinds import names
from dbops.migrate.parse import Node, Statement, unwrap, walk

TABLE_MAKERS = ("create_stmt", "create_table_as_stmt", "create_foreign_table_stmt")
_TRUE = ("true", "on", "yes", "1")


@dataclass(frozen=True)
class Type:
    """A type's own name, and its one modifier where it has one: `vector(384)`."""

    name: str
    modifier: int | None = None


@dataclass(frozen=True)
class Tables:
    """What a set of files says of tables: every type that a column was given, and where RLS was enabled."""

    types: dict[tuple[str, str], set[Type]] = field(default_factory=dict)
    protected: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, statements: Iterable[Statement]) -> Tables:
        tables = cls()
        for statement in statements:
            if statement.kind == "create_stmt":
                table = relation(statement.node.relation)
                for column in columns(statement.node):
                    tables.types.setdefault((table, column.colname), set()).add(type_of(column.type_name))
            elif statement.kind == "alter_table_stmt":
                tables._altered(statement.node)
        return tables

    def _altered(self, node: Node) -> None:
        table = relation(node.relation)
        for command in commands(node):
            what, definition = enum(command, "subtype"), held(command, "def")
            if what == "AT_EnableRowSecurity":
                self.protected.add(table)
            elif what in ("AT_AddColumn", "AT_AlterColumnType"):
                name = command.name or definition.colname
                self.types.setdefault((table, name), set()).add(type_of(definition.type_name))

    def type(self, table: str, column: str) -> Type | None:
        """The type of a column where it is certain: known, and never changed."""
        known = self.types.get((table, column), set())
        return next(iter(known)) if len(known) == 1 else None


def relation(node: Node) -> str:
    """`schema.name` of a RangeVar; an unqualified name is taken for one in public."""
    return f"{node.schemaname or 'public'}.{node.relname}"


def qualified(parts: Iterable[str]) -> str:
    """The same of a name in parts."""
    return ".".join(("public", *parts)[-2:])


def enum(node: Node, name: str) -> str:
    """The name of an enum field's value."""
    return str(node.DESCRIPTOR.fields_by_name[name].enum_type.values_by_number[getattr(node, name)].name)


def held(node: Node, name: str) -> Node:
    """The message in a wrapped field, or None; `def` is a keyword in Python."""
    return unwrap(getattr(node, name)) if node.HasField(name) else None


def columns(create: Node) -> Iterator[Node]:
    """The column definitions of a CREATE TABLE."""
    return (element for element in map(unwrap, create.table_elts) if element.DESCRIPTOR.name == "ColumnDef")


def commands(alter: Node) -> Iterator[Node]:
    """The commands of an ALTER TABLE."""
    return map(unwrap, alter.cmds)


def altered(statements: Iterable[Statement], *subtypes: str) -> Iterator[tuple[Statement, str]]:
    """The ALTER TABLEs that hold such a command, each with its table."""
    for statement in statements:
        found = commands(statement.node) if statement.kind == "alter_table_stmt" else ()
        if any(enum(command, "subtype") in subtypes for command in found):
            yield statement, relation(statement.node.relation)


def type_of(node: Node) -> Type:
    """A TypeName without its schema."""
    found = names(node.names)
    modifiers = [unwrap(m) for m in node.typmods]
    constant = len(modifiers) == 1 and modifiers[0].DESCRIPTOR.name == "A_Const"
    return Type(found[-1] if found else "", modifiers[0].ival.ival if constant else None)


def made_relation(statement: Statement) -> Node:
    """The RangeVar of the table that a statement creates."""
    node = statement.node
    if statement.kind == "create_table_as_stmt":
        return node.into.rel
    return node.base_stmt.relation if statement.kind == "create_foreign_table_stmt" else node.relation


def created_tables(statements: Iterable[Statement]) -> frozenset[str]:
    """The tables (and materialized views) that the statements create, by their new names too."""
    created: set[str] = set()
    for statement in statements:
        if statement.kind in TABLE_MAKERS:
            created.add(relation(made_relation(statement)))
        elif statement.kind == "rename_stmt" and relation(statement.node.relation) in created:
            created.add(f"{statement.node.relation.schemaname or 'public'}.{statement.node.newname}")
    return frozenset(created)


def dropped(statement: Statement, *kinds: str) -> Iterator[str]:
    """The qualified names in a DROP of these kinds (`OBJECT_TABLE`)."""
    if statement.kind == "drop_stmt" and enum(statement.node, "remove_type") in kinds:
        for target in map(unwrap, statement.node.objects):
            yield qualified(_name_of(target))


def _name_of(target: Node) -> tuple[str, ...]:
    what = target.DESCRIPTOR.name
    if what == "List":
        return names(target.items)
    if what == "TypeName":
        return names(target.names)
    return names(target.objname) if what == "ObjectWithArgs" else (target.sval,)


def option(options: Iterable[Node], name: str) -> bool:
    """Whether a boolean option is on: `WITH (security_invoker)`, `(security_invoker = true)`."""
    for each in map(unwrap, options):
        if each.DESCRIPTOR.name == "DefElem" and each.defname == name:
            return str(_value(held(each, "arg"))).lower() in _TRUE
    return False


def _value(argument: Node) -> object:
    """The value of an option; an unquoted `off` is parsed as the name of a type."""
    if argument is None:
        return True
    if argument.DESCRIPTOR.name == "TypeName":
        return names(argument.names)[-1]
    return next((getattr(argument, key) for key in ("boolval", "sval", "ival") if hasattr(argument, key)), "")


def roles(nodes: Iterable[Node]) -> list[str]:
    """The names of roles; PUBLIC is `public`."""
    return [role.rolename or enum(role, "roletype").removeprefix("ROLESPEC_").lower() for role in map(unwrap, nodes)]


def walk_outside(node: Node, stop: str) -> Iterator[Node]:
    """The message and those in it, without what lies in messages of the name `stop`."""
    if node.DESCRIPTOR.name == stop:
        return
    if node.DESCRIPTOR.name != "Node":
        yield node
    for item, value in node.ListFields():
        if item.message_type is not None:
            for child in value if item.is_repeated else (value,):
                yield from walk_outside(child, stop)


def relations_in(node: Node) -> Iterator[str]:
    """The relations that a query reads; the names of its WITH clauses are no relations."""
    nodes = list(walk(node))
    own = {each.ctename for each in nodes if each.DESCRIPTOR.name == "CommonTableExpr"}
    for each in nodes:
        if each.DESCRIPTOR.name == "RangeVar" and not (each.relname in own and not each.schemaname):
            yield relation(each)


def is_true(node: Node) -> bool:
    """Whether an expression is the constant TRUE."""
    return bool(
        node is not None and node.DESCRIPTOR.name == "A_Const" and node.HasField("boolval") and node.boolval.boolval
    )
