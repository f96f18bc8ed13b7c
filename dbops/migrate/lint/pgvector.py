"""Rules on pgvector's columns and indexes. What the server does was tried with pgvector 0.8.5."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dbops.errors import MigrationFileError
from dbops.migrate.kinds import names
from dbops.migrate.lint.model import File, Found, rule
from dbops.migrate.lint.tree import Type, held, relation, type_of
from dbops.migrate.parse import Node, Statement, parse, unwrap, walk

METHODS = ("hnsw", "ivfflat")
# https://github.com/pgvector/pgvector: the most dimensions that an index takes
MOST = {"vector": 2000, "halfvec": 4000}
# the operator that each class serves, by the end of its name
_SERVES = {"l2_ops": "<->", "ip_ops": "<#>", "cosine_ops": "<=>", "l1_ops": "<+>"}
_OPERATORS = frozenset(_SERVES.values())


@dataclass(frozen=True)
class Key:
    """One key of an hnsw or ivfflat index. `type` is None where it is not certain."""

    line: int
    method: str
    column: str
    opclass: str
    type: Type | None


def is_vector_index(statement: Statement) -> bool:
    return statement.kind == "index_stmt" and statement.node.access_method in METHODS


def _keys(file: File) -> Iterator[Key]:
    for statement in filter(is_vector_index, file.up):
        node = statement.node
        for element in map(unwrap, node.index_params):
            column, kind = _indexed(element, relation(node.relation), file)
            opclass = names(element.opclass)
            yield Key(statement.line, node.access_method, column, opclass[-1] if opclass else "", kind)


def _indexed(element: Node, table: str, file: File) -> tuple[str, Type | None]:
    """The column under an index key, and the type that is indexed: the column's or that of a cast."""
    if element.name:
        return element.name, file.tables.type(table, element.name)
    cast = held(element, "expr")
    if cast is None or cast.DESCRIPTOR.name != "TypeCast":
        return "", None
    inner = held(cast, "arg")
    parts = [unwrap(f) for f in inner.fields] if inner.DESCRIPTOR.name == "ColumnRef" else []
    return (parts[-1].sval if parts else ""), type_of(cast.type_name)


@rule(
    "vector-index-without-operator-class",
    "warning",
    "name the one that queries use: vector_cosine_ops for <=>, vector_l2_ops for <->, vector_ip_ops for <#>",
)
def without_operator_class(file: File) -> Iterable[Found]:
    """A vector index without an operator class: hnsw refuses it, ivfflat takes Euclidean distance."""
    for key in _keys(file):
        # other types than pgvector's have defaults that are right for them
        if not key.opclass and key.type is not None and key.type.name in MOST:
            what = "fails: hnsw has no default" if key.method == "hnsw" else "serves Euclidean distance (<->) only"
            yield (
                key.line,
                f"{key.method} index on {key.column or 'an expression'} without an operator class {what}",
            )


@rule(
    "vector-index-without-dimensions",
    "error",
    "index a cast to the dimensions: ((embedding::vector(384)) vector_cosine_ops)",
)
def without_dimensions(file: File) -> Iterable[Found]:
    """A vector index on a type without dimensions: the server refuses it."""
    for key in _keys(file):
        if key.type is not None and key.type.name in MOST and key.type.modifier is None:
            what = f"{key.method} index on {key.column}, {key.type.name} without dimensions"
            yield key.line, f"{what}: the server refuses it"


@rule(
    "vector-index-too-wide",
    "error",
    "index a cast, ((embedding::halfvec(3072)) halfvec_cosine_ops), or store fewer dimensions",
)
def too_wide(file: File) -> Iterable[Found]:
    """A vector index on more dimensions than it takes: 2000 of vector, 4000 of halfvec."""
    for key in _keys(file):
        most = MOST.get(key.type.name) if key.type else None
        if key.type and key.type.modifier and most and key.type.modifier > most:
            what = f"{key.method} index on {key.type.name}({key.type.modifier})"
            yield key.line, f"{what}: it takes at most {most} dimensions"


@rule(
    "ivfflat-on-empty-table",
    "warning",
    "create the index once the table has rows, in a later migration; hnsw needs no rows to begin with",
)
def ivfflat_on_empty(file: File) -> Iterable[Found]:
    """An ivfflat index on a table that this file creates and leaves empty: it learns from no rows."""
    for place, statement in enumerate(file.up):
        if not is_vector_index(statement) or statement.node.access_method != "ivfflat":
            continue
        table = relation(statement.node.relation)
        if table in file.created and not any(_may_fill(earlier, table) for earlier in file.up[:place]):
            learns = "it learns its lists from no rows, so recall stays low"
            yield statement.line, f"ivfflat index on {table}, which is empty here: {learns}"


def _may_fill(statement: Statement, table: str) -> bool:
    if statement.kind in ("do_stmt", "call_stmt", "select_stmt", "create_table_as_stmt"):
        return True
    return statement.kind in ("insert_stmt", "copy_stmt", "merge_stmt") and relation(statement.node.relation) == table


@rule(
    "vector-index-wrong-distance",
    "warning",
    "let them agree: vector_cosine_ops serves <=>, vector_l2_ops <->, vector_ip_ops <#>",
)
def wrong_distance(file: File) -> Iterable[Found]:
    """A vector index whose operator class serves none of the operators that this file uses on its column."""
    keys = [key for key in _keys(file) if key.opclass and _one_table_has(key.column, file)]
    used = _used_operators(file) if keys else {}
    for key in keys:
        serves = _SERVES.get("_".join(key.opclass.split("_")[-2:]))
        operators = used.get(key.column, set())
        if serves and operators and serves not in operators:
            others = ", ".join(sorted(operators))
            yield key.line, f"{key.opclass} serves {serves}, but {key.column} is used with {others} here"


def _one_table_has(column: str, file: File) -> bool:
    """Whether a name in a query is certain to mean this column."""
    return sum(name == column for _, name in file.tables.types) == 1


def _used_operators(file: File) -> dict[str, set[str]]:
    """The distance operators that views, functions in SQL and queries of the file use, by column."""
    used: dict[str, set[str]] = {}
    for statement in (*file.up, *_bodies(file)):
        for node in walk(statement.node):
            operator = names(node.name)[-1] if node.DESCRIPTOR.name == "A_Expr" and node.name else ""
            if operator in _OPERATORS:
                for reference in walk(node):
                    if reference.DESCRIPTOR.name == "ColumnRef":
                        used.setdefault((_strings(reference.fields) or [""])[-1], set()).add(operator)
    return used


def _strings(fields: Iterable[Node]) -> list[str]:
    return [part.sval for part in map(unwrap, fields) if part.DESCRIPTOR.name == "String"]


def _bodies(file: File) -> Iterator[Statement]:
    """The statements in bodies of functions in SQL that are given as text."""
    for statement in file.of("create_function_stmt"):
        options = {each.defname: held(each, "arg") for each in map(unwrap, statement.node.options)}
        language, body = options.get("language"), options.get("as")
        if body is not None and language is not None and language.sval.lower() == "sql":
            try:
                yield from parse(unwrap(body.items[0]).sval)
            except MigrationFileError:
                continue  # PostgreSQL will say so; nothing is known of it here
