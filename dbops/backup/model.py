"""What a backup is: the manifest and its parts. Frozen values; docs/backup-format.md describes them as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Tier = Literal["daily", "weekly", "monthly", "manual"]
TIERS: tuple[Tier, ...] = ("daily", "weekly", "monthly", "manual")
FORMAT = 1
BESIDE = "dbops_restore_"  # with the run behind it: the schema of `restore --mode side`
NOT_INCLUDED = "not included"
MANIFEST, SCHEMA, POST = "manifest.json", "schema.sql.gz", "post.sql.gz"


@dataclass(frozen=True, order=True)
class Name:
    """A qualified name, unquoted."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class Chunk:
    """One whole COPY stream of the pages from `first_page` up to, without, `end_page` (None: to the end).

    `sha256` is that of the stream, uncompressed: it is also the object's name, `chunks/ab/<sha256>.gz`.
    """

    sha256: str
    rows: int
    raw_bytes: int
    stored_bytes: int
    first_page: int = 0
    end_page: int | None = None


@dataclass(frozen=True)
class Column:
    name: str
    type: str  # format_type with its modifier, qualified
    not_null: bool = False
    generated: bool = False  # left out of the stream
    identity: str = ""  # "", a (always), d (by default)


@dataclass(frozen=True)
class Table:
    """A table's rows. `content_hash` is order-independent (hash.py); `columns` are all, also the generated ones."""

    name: Name
    kind: Literal["table", "partition", "foreign", "large objects"]
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    format: Literal["binary", "text"]
    pages_per_chunk: int
    rows: int
    content_hash: str
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class Sequence:
    name: Name
    last_value: int
    is_called: bool


@dataclass(frozen=True)
class Omitted:
    """What is not in the backup, and why: a foreign table, an unlogged one on a standby, a managed schema."""

    name: str
    reason: str


@dataclass(frozen=True)
class Object:
    """A file beside the manifest (schema.sql.gz, post.sql.gz), by its name, with the hash of its uncompressed text."""

    name: str
    sha256: str
    raw_bytes: int
    stored_bytes: int


@dataclass(frozen=True)
class Manifest:
    """A backup exists when its manifest does: it is written last. `database` identifies where it came from."""

    id: str  # backup_20250101_120000_daily
    tier: Tier
    created_at: datetime
    database: str  # its name
    system_identifier: str  # of the cluster: with the name it tells databases in one store apart
    server_version: int  # server_version_num
    pg_dump_version: str
    dbops_version: str
    encoding: str
    extensions: dict[str, str]
    roles: tuple[str, ...]  # owners, grantees and those whom policies name
    tables: tuple[Table, ...]
    sequences: tuple[Sequence, ...]
    objects: tuple[Object, ...]
    omitted: tuple[Omitted, ...] = ()
    migration: str = ""  # the newest applied version, where there is a record
    fingerprint: str = ""  # hash of the schema's canonical text (dbops.fingerprint)
    duration_ms: float = 0.0
    new_bytes: int = 0  # what this backup added to the store
    format: int = FORMAT

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        return tuple(chunk for table in self.tables for chunk in table.chunks)

    @property
    def raw_bytes(self) -> int:
        return sum(chunk.raw_bytes for chunk in self.chunks) + sum(each.raw_bytes for each in self.objects)

    @property
    def partial(self) -> bool:
        """Whether only some tables were asked for (`--include`)."""
        return any(each.reason.startswith(NOT_INCLUDED) for each in self.omitted)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all its objects, each counted once, whoever stored them first."""
        chunks = {chunk.sha256: chunk.stored_bytes for chunk in self.chunks}
        return sum(chunks.values()) + sum(each.stored_bytes for each in self.objects)


@dataclass(frozen=True)
class DrillTable:
    table: str
    rows: int
    matches: bool
    reason: str = ""


@dataclass(frozen=True)
class Drill:
    """A proof by restoring, kept as drill_<time>.json beside the manifest."""

    id: str
    at: datetime
    ok: bool
    restore_ms: float
    server_version: int
    tables: tuple[DrillTable, ...]
    problems: tuple[str, ...] = ()  # sequences, migrations' check
    not_proven: tuple[Omitted, ...] = ()


@dataclass(frozen=True)
class Damage:
    """An object that is missing or does not match its hash, and what it touches."""

    object: str
    what: str
    backups: tuple[str, ...]
    tables: tuple[str, ...] = field(default=())
