"""PostgreSQL's own parser: a text as statements with their places, and a checksum of their meaning.

The only module that imports the parser (libpg_query through postgast). Splitting is done by the parser, not the scanner:
BEGIN ATOMIC bodies and CREATE RULE hold semicolons of their own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbops.errors import MigrationFileError

# protobuf's messages have no static types here
Node = Any

_BLANK = re.compile(rb"(?:\s+|--[^\n]*(?:\n|$)|;)+")
_PLACES = frozenset(
    (
        "location",
        "stmt_location",
        "stmt_len",
        "name_location",
        "list_start",
        "list_end",
        "rexpr_list_start",
        "rexpr_list_end",
    )
)


@dataclass(frozen=True)
class Statement:
    """One statement. `line` counts from 1 in its file; `kind` is libpg_query's name of `node`, such as `index_stmt`."""

    sql: str
    line: int
    kind: str
    node: Node


def parse(text: str, path: Path | str = "<text>", first_line: int = 1) -> tuple[Statement, ...]:
    """The statements of a text that begins on `first_line` of its file.

    Raises MigrationFileError with file, line, column and the line itself for a syntax error or a psql meta-command.
    """
    from postgast import PgQueryError
    from postgast import parse as parse_text

    raw = text.encode("utf-8")
    if b"\0" in raw:
        raise MigrationFileError(
            f"{path}: a NUL byte in the text", hint="PostgreSQL's texts hold none; save the file as UTF-8"
        )
    try:
        tree = parse_text(text)
    except PgQueryError as error:
        # the parser counts its place in characters
        at = len(text[: max(error.cursorpos - 1, 0)].encode("utf-8"))
        raise _syntax_error(error.message, at, raw, path, first_line) from None
    return tuple(_statements(tree.stmts, raw, first_line))


def _statements(stmts: Iterable[Node], raw: bytes, first_line: int) -> Iterator[Statement]:
    line, seen = first_line, 0
    for stmt in stmts:
        end = stmt.stmt_location + stmt.stmt_len if stmt.stmt_len else len(raw)
        start = _skip_blank(raw, stmt.stmt_location)
        line += raw.count(b"\n", seen, start)
        seen = start
        kind = stmt.stmt.WhichOneof("node")
        yield Statement(raw[start:end].decode("utf-8").rstrip(), line, kind, getattr(stmt.stmt, kind))


def _skip_blank(raw: bytes, at: int) -> int:
    """The place of the first token at or after `at`: white space and comments (nested ones too) are passed over."""
    while True:
        blank = _BLANK.match(raw, at)
        if blank:
            at = blank.end()
        elif raw.startswith(b"/*", at):
            depth, at = 1, at + 2
            while depth and at < len(raw):
                if raw.startswith(b"/*", at):
                    depth, at = depth + 1, at + 2
                elif raw.startswith(b"*/", at):
                    depth, at = depth - 1, at + 2
                else:
                    at += 1
        else:
            return at


def place(raw: bytes, at: int, first_line: int) -> tuple[int, int, str]:
    """Line, column (in characters, from 1) and text of the line at a byte offset."""
    begin = raw.rfind(b"\n", 0, at) + 1
    end = raw.find(b"\n", at)
    whole = raw[begin : end if end >= 0 else len(raw)].decode("utf-8", "replace").rstrip("\r")
    return first_line + raw.count(b"\n", 0, at), len(raw[begin:at].decode("utf-8", "replace")) + 1, whole


def _syntax_error(message: str, at: int, raw: bytes, path: Path | str, first_line: int) -> MigrationFileError:
    line, column, whole = place(raw, min(at, len(raw)), first_line)
    if whole.lstrip().startswith("\\"):
        return MigrationFileError(
            f"{path}:{line}: psql meta-command {whole.split()[0]}: only psql understands it",
            hint="remove the line (a dump of pg_dump: its \\restrict lines too); nothing was applied",
        )
    marker = " " * (column - 1) + "^"
    return MigrationFileError(
        f"{path}:{line}:{column}: {message}\n  {whole[:200]}\n  {marker[:200]}", hint="nothing was applied"
    )


def tree_checksum(statements: Iterable[Statement]) -> str:
    """SHA-256 (hex) of the parse trees with their literals, without places: comments and white space do not count."""
    digest = hashlib.sha256()
    for statement in statements:
        node = type(statement.node)()
        node.CopyFrom(statement.node)
        _clear_places(node)
        digest.update(statement.kind.encode())
        digest.update(node.SerializeToString(deterministic=True))
        digest.update(b"\0")
    return digest.hexdigest()


def _clear_places(node: Node) -> None:
    for field, value in node.ListFields():
        if field.name in _PLACES:
            node.ClearField(field.name)
        elif field.message_type is not None:
            for child in value if field.is_repeated else (value,):
                _clear_places(child)


def walk(node: Node) -> Iterator[Node]:
    """The message and all messages in it, depth first; the wrappers (`Node`) are left out."""
    if node.DESCRIPTOR.name != "Node":
        yield node
    for field, value in node.ListFields():
        if field.message_type is not None:
            for child in value if field.is_repeated else (value,):
                yield from walk(child)


def unwrap(node: Node) -> Node:
    """What a wrapper (`Node`) holds; None where it is empty."""
    kind = node.WhichOneof("node")
    return getattr(node, kind) if kind else None


def new(kind: str, **values: Any) -> Node:
    """A message of libpg_query by its name (`DropStmt`), for building statements. Raises AttributeError for others."""
    from postgast import pg_query_pb2

    return getattr(pg_query_pb2, kind)(**values)


def deparse(kind: str, node: Node) -> str:
    """The SQL of a statement node. Raises ValueError where libpg_query cannot write it."""
    from postgast import PgQueryError, pg_query_pb2
    from postgast import deparse as write

    result = pg_query_pb2.ParseResult()
    getattr(result.stmts.add().stmt, kind).CopyFrom(node)
    try:
        return str(write(result))
    except PgQueryError as error:
        raise ValueError(error.message) from None
