"""A worker process of `create`: rows out by COPY under the exported snapshot, cut into chunks, into the store.

It is a process of its own, which reads pickled work on its standard input and answers on its standard output: no
secret is in its arguments, and it ends when the one that started it is gone.
"""

from __future__ import annotations

import hashlib
import pickle
import signal
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from dbops.backup.hash import HEADER, MODULUS, TRAILER, Format, row_hash
from dbops.backup.model import Chunk, Name
from dbops.backup.objects import chunk_key, compress
from dbops.backup.source import PINNED, Moved, lock
from dbops.backup.store import Store
from dbops.database import connect, endless, local_settings, translated
from dbops.errors import DbopsError

if TYPE_CHECKING:
    from psycopg import sql
    from psycopg.pq.abc import PGresult

    from dbops.database import Connection

LARGE_OBJECTS = Name("pg_catalog", "pg_largeobject")
_THREADS = 4  # hash, compress and wait for the store, all of them outside Python's lock
_AHEAD = 24 << 20  # bytes of rows that wait for these threads


@dataclass(frozen=True)
class Source:
    """How a table is read. `condition` is a WHERE clause; a stream is cut into chunks after `cut` bytes."""

    name: Name
    columns: tuple[str, ...]
    format: Format
    cut: int
    condition: str = ""


@dataclass(frozen=True)
class Setup:
    """What a worker must know before its first task. `known`: size in the store of chunks by hash; `heal`: write anew."""

    url: str
    snapshot: str
    store: Store
    sources: tuple[Source, ...]
    locked: tuple[Name, ...]
    known: Mapping[str, int]
    heal: frozenset[str]
    encoding: str


Pages = tuple[int, int | None]


@dataclass(frozen=True)
class Task:
    """Page ranges of one table (its number in Setup.sources); None as the range: the whole table in one stream."""

    source: int
    ranges: tuple[Pages | None, ...]


@dataclass(frozen=True)
class Stored:
    """A chunk that is in the store, the sum of its rows' hashes, and how many bytes it added."""

    source: int
    chunk: Chunk
    hash_sum: int
    new_bytes: int


def main() -> None:
    """Serve tasks until the standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the one that started us ends us
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    try:
        serve(pickle.load(requests), requests, answers)
    except (EOFError, BrokenPipeError):
        return
    except (DbopsError, Moved) as error:
        _answer(answers, error)


def serve(setup: Setup, requests: BinaryIO, answers: BinaryIO) -> None:
    with connect(setup.url, "backup worker", client_encoding=setup.encoding) as conn, translated():
        enter(conn, setup)
        _answer(answers, None)
        with ThreadPoolExecutor(_THREADS) as pool:
            while True:
                task: Task = pickle.load(requests)
                _answer(answers, list(run(conn, setup, task, pool)))


def enter(conn: Connection, setup: Setup) -> None:
    """Begin under the snapshot, with locks of our own: a DDL that queues later must not come between two chunks.

    Raises Moved where one is queued already: waiting would be for ever, since it waits for us.
    """
    import psycopg
    from psycopg import sql

    conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    conn.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(setup.snapshot)))
    conn.execute(local_settings(endless(conn.info.server_version // 10000) | PINNED).encode())
    try:
        lock(conn, setup.locked, wait=False)
    except psycopg.errors.LockNotAvailable as error:
        raise Moved(str(error).splitlines()[0]) from error


def run(conn: Connection, setup: Setup, task: Task, pool: ThreadPoolExecutor) -> Iterator[Stored]:
    """The chunks of a task, in order. While threads store one, the next is read."""
    waiting: deque[tuple[int, Future[Stored]]] = deque()
    source = setup.sources[task.source]
    for pages in task.ranges:
        for data, rows, hash_sum in chunks(conn, source, pages):
            while waiting and sum(size for size, _ in waiting) + len(data) > _AHEAD:
                yield waiting.popleft()[1].result()
            store = pool.submit(_store, setup, task.source, pages or (0, None), data, rows, hash_sum)
            waiting.append((len(data), store))
    yield from (each.result() for _, each in waiting)


def chunks(conn: Connection, source: Source, pages: Pages | None) -> Iterator[tuple[bytes, int, int]]:
    """Whole COPY streams of the rows of a page range: the bytes, the rows, the sum of their hashes.

    There is more than one where they pass `source.cut`: a page of pointers to TOAST may hold any number of bytes.
    """
    head, tail = (HEADER, TRAILER) if source.format == "binary" else (b"", b"")
    parts, size, hash_sum = [head], 0, 0
    for row in copied(conn, statement(source, pages), source.format):
        parts.append(row)
        size += len(row)
        hash_sum += row_hash(row if tail else row[:-1])
        if size >= source.cut:
            parts.append(tail)
            yield b"".join(parts), len(parts) - 2, hash_sum % MODULUS
            parts, size, hash_sum = [head], 0, 0
    if len(parts) > 1:
        parts.append(tail)
        yield b"".join(parts), len(parts) - 2, hash_sum % MODULUS


def statement(source: Source, pages: Pages | None) -> sql.Composed:
    """The COPY of a page range, by TID range scan (https://www.postgresql.org/docs/current/sql-copy.html)."""
    from psycopg import sql

    if source.name == LARGE_OBJECTS:
        rows: sql.Composable = sql.SQL("SELECT oid, lo_get(oid) FROM pg_catalog.pg_largeobject_metadata ORDER BY oid")
    else:
        columns = sql.SQL(", ").join(map(sql.Identifier, source.columns))
        table = sql.Identifier(source.name.schema, source.name.name)
        rows = sql.SQL("SELECT {} FROM ONLY {}{}").format(columns, table, _where(source, pages))
    return sql.SQL("COPY ({}) TO STDOUT (FORMAT {})").format(rows, sql.SQL(source.format))


def _where(source: Source, pages: Pages | None) -> sql.Composable:
    from psycopg import sql

    if source.condition:
        # the extension's own words, from its pg_extension_config_dump: a WHERE clause
        return sql.Composed([sql.SQL(" "), sql.SQL(source.condition)])
    if pages is None:
        return sql.SQL("")
    first, end = pages
    begin = sql.SQL(" WHERE ctid >= {}::tid").format(sql.Literal(f"({first},0)"))
    return begin if end is None else begin + sql.SQL(" AND ctid < {}::tid").format(sql.Literal(f"({end},0)"))


def copied(conn: Connection, query: sql.Composed, form: Format) -> Iterator[bytes]:
    """The rows of a COPY TO STDOUT, each as the server sends it: one message a row.

    By libpq's own calls: a Copy object of the driver takes twice as long, and this is the innermost loop.
    """
    from psycopg.pq import ExecStatus

    pg = conn.pgconn
    result = pg.exec_(query.as_bytes(conn))
    if result.status != ExecStatus.COPY_OUT:
        raise _error(result)
    receive = pg.get_copy_data
    size, message = receive(0)
    if form == "binary":
        # the header comes with the first row, or with the trailer where there is no row
        yield from filter(lambda row: row != TRAILER, [bytes(message)[len(HEADER) :]])
        size, message = receive(0)
        while size > 0:
            row = bytes(message)
            if row != TRAILER:
                yield row
            size, message = receive(0)
    else:
        while size > 0:
            yield bytes(message)
            size, message = receive(0)
    while ended := pg.get_result():
        if ended.status != ExecStatus.COMMAND_OK:
            raise _error(ended)


def _error(result: PGresult) -> Exception:
    from psycopg import errors

    return errors.error_from_result(result)


def _store(setup: Setup, source: int, pages: Pages, data: bytes, rows: int, hash_sum: int) -> Stored:
    """Put a chunk into the store, or make the one that is there count as new. Raises StoreError."""
    sha256 = hashlib.sha256(data).hexdigest()
    key, store = chunk_key(sha256), setup.store
    there = None if sha256 in setup.heal else store.size(key)
    size, new = setup.known.get(sha256), 0
    packed = b""
    if size is None or there != size:
        packed = compress(data)
        size = len(packed)
    # touch before anything else counts on it: prune leaves what is new
    if there != size or not store.touch(key):
        packed = packed or compress(data)
        store.put(key, packed)
        size = new = len(packed)
    return Stored(source, Chunk(sha256, rows, len(data), size, *pages), hash_sum, new)


def _answer(answers: BinaryIO, value: object) -> None:
    pickle.dump(value, answers)
    answers.flush()
