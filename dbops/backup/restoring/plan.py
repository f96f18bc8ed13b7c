"""What is known of a restore before anything is written: its entries, roles, extensions, and how rows are dealt out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbops.backup.loading import Load
from dbops.backup.model import POST, SCHEMA, Chunk, Manifest, Omitted, Table
from dbops.backup.roles import missing_roles, refuse_missing, without_owners
from dbops.backup.schema import Entry, read_entries
from dbops.backup.store import Store
from dbops.errors import UnfitServer
from dbops.sql import queries

if TYPE_CHECKING:
    from dbops.database import Connection

_STATEMENTS = queries("backup/restoring")
_PARTS = 3  # for each worker, of a table that is more than one worker's share


@dataclass(frozen=True)
class Choices:
    """What whoever restores has chosen (restore.py says what each means)."""

    create_roles: bool = False
    no_owner: bool = False
    partial: bool = False


@dataclass(frozen=True)
class Plan:
    """What is going to be made. `partial`: an extension is missing, and what needs it is left out by name."""

    pre: tuple[Entry, ...]
    post: tuple[Entry, ...]
    roles: tuple[str, ...]  # to be made
    notes: tuple[str, ...]
    left_out: tuple[Omitted, ...]
    partial: bool


def make_plan(conn: Connection, manifest: Manifest, store: Store, choices: Choices) -> Plan:
    """The plan of a restore. Raises UnfitServer for a missing extension, UsageError for roles, BackupDamaged."""
    lacking, notes = _extensions(conn, manifest.extensions)
    if lacking and not choices.partial:
        raise UnfitServer(
            f"the backup needs extensions that this server does not have: {', '.join(lacking)}",
            hint="install them on the server first; nothing was done",
        )
    pre, post = read_entries(store, manifest, SCHEMA), read_entries(store, manifest, POST)
    missing = missing_roles(conn, manifest.roles)
    left_out = tuple(Omitted(f"extension {each}", "the server does not have it") for each in lacking)
    if choices.no_owner:
        unknown = () if choices.create_roles else missing
        (pre, rights), (post, more) = without_owners(pre, unknown), without_owners(post, unknown)
        left_out += rights + more
    elif not choices.create_roles:
        refuse_missing(missing)
    return Plan(pre, post, missing if choices.create_roles else (), notes, left_out, bool(lacking))


def _extensions(conn: Connection, wanted: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Extensions that cannot be had, and notes on those that come in another version."""
    there: dict[str, str] = dict(conn.execute(_STATEMENTS["available_extensions"]).fetchall())
    there |= dict(conn.execute(_STATEMENTS["extensions"]).fetchall())
    notes = tuple(
        f"extension {name} is {there[name]} here, {version} in the backup"
        for name, version in sorted(wanted.items())
        if there.get(name, version) != version
    )
    return tuple(sorted(set(wanted) - set(there))), notes


def loads(tables: Iterable[Table], own: Iterable[Table], workers: int, encoding: str) -> list[Load]:
    """The tables' chunks as tasks, the largest first. A table that is more than one worker's share is divided.

    `own` are tables that this restore made: nobody else has rows in them. `encoding` is that of the database backed up.
    """
    filled = [table for table in tables if table.chunks]
    share = sum(_bytes(table.chunks) for table in filled) / workers
    mine = set(own)
    encoding = "SQL_ASCII" if encoding == "SQL_ASCII" else "UTF8"  # as create reads rows
    tasks = [
        _load(table, part, encoding, fresh=table in mine and len(part) == len(table.chunks))
        for table in filled
        for part in _parts(table.chunks, share, _PARTS * workers if workers > 1 else 1)
    ]
    return sorted(tasks, key=lambda task: -task.raw_bytes)


def _parts(chunks: tuple[Chunk, ...], share: float, parts: int) -> Iterator[tuple[Chunk, ...]]:
    if _bytes(chunks) <= share or len(chunks) < parts:
        parts = 1
    size = -(-len(chunks) // parts)
    for start in range(0, len(chunks), size):
        yield chunks[start : start + size]


def _bytes(chunks: Iterable[Chunk]) -> int:
    return sum(chunk.raw_bytes for chunk in chunks)


def _load(table: Table, chunks: tuple[Chunk, ...], encoding: str, *, fresh: bool) -> Load:
    columns = tuple(column.name for column in table.columns if not column.generated)
    return Load(table.name, columns, table.format, chunks, fresh, table.kind == "large objects", encoding)
