"""Worker processes of a restore: rows in by COPY, each chunk proven before it is sent, and indexes built meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Literal

import psycopg
from psycopg import sql

from dbops.backup.model import Chunk, Name
from dbops.backup.objects import chunk_key, read_chunk
from dbops.backup.schema import Entry
from dbops.backup.source import PINNED
from dbops.backup.store import Store
from dbops.database import connect, endless, redact, translate, translated
from dbops.errors import BackupDamaged, DbopsError, ObjectMissing

if TYPE_CHECKING:
    from dbops.database import Connection

_AHEAD = 3  # chunks that are fetched while one is loaded: a bucket answers slowly
# what the role or the database may have set otherwise; the limits are off for as long as the work takes
_SESSION = {
    "check_function_bodies": "off", "client_min_messages": "warning", "default_tablespace": "",
    "default_table_access_method": "heap", "standard_conforming_strings": "on",
}  # fmt: skip
_READERS = ("synchronize_seqscans", "max_parallel_workers_per_gather")  # of what is pinned: these concern who reads


@dataclass(frozen=True)
class Load:
    """Chunks of one table. `fresh`: the whole of a table that this restore made, so that its rows can go in frozen."""

    table: Name
    columns: tuple[str, ...]
    format: Literal["binary", "text"]
    chunks: tuple[Chunk, ...]
    fresh: bool = False
    large_objects: bool = False
    encoding: str = "UTF8"  # of the streams: that of the database they come from

    @property
    def raw_bytes(self) -> int:
        return sum(chunk.raw_bytes for chunk in self.chunks)


@dataclass(frozen=True)
class Run:
    """Statements that run whole or not at all, and what they make, for messages."""

    what: str
    text: str
    entry: Entry | None = None


Task = Load | Run


def prepare_session(conn: Connection) -> None:
    """Set a connection of a restore up: a text stream means in it what it meant when it was written."""
    pinned = {name: value for name, value in PINNED.items() if name not in _READERS}
    with translated():
        for name, value in (pinned | endless(conn.info.server_version // 10000) | _SESSION).items():
            conn.execute("SELECT pg_catalog.set_config(%s, %s, false)", [name, value])


def run(conn: Connection, task: Run) -> None:
    """Run statements. Raises DbopsError that names what they make."""
    try:
        conn.execute(task.text.encode("utf-8", "surrogateescape"))
    except psycopg.Error as error:
        raise failed(task.what, error) from error


def failed(what: str, error: psycopg.Error) -> DbopsError:
    """An error of PostgreSQL's with the object at which it came."""
    told = translate(error)
    detail = redact(error.diag.message_detail or "")
    told.message = f"{what}: {told.message.splitlines()[0]}{f' ({detail})' if detail else ''}"
    told.args = (told.message,)
    return told


# --- in a worker ---------------------------------------------------------------------------------


def work(pipe: Pipe, url: str, store: Store, parent: int) -> None:
    """A worker's life: tasks come by the pipe; bytes as they are loaded and an error or None at the end go back."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all: the parent ends its workers

    def loaded(size: int) -> None:
        if os.getppid() != parent:
            os._exit(1)  # killed: what it began must not be committed by its orphans
        pipe.send(size)

    with suppress(EOFError, OSError):
        try:
            with connect(url, "restore worker") as conn:
                prepare_session(conn)
                # the last step of a restore waits for the disk: nothing before it has to
                conn.execute("SET synchronous_commit = off")
                while True:
                    pipe.send(_done(conn, store, pipe.recv(), loaded))
        except DbopsError as error:  # no connection: the answer to the first task
            pipe.recv()
            pipe.send(error)


def _done(conn: Connection, store: Store, task: Task, loaded: Callable[[int], None]) -> DbopsError | None:
    try:
        load(conn, store, task, loaded) if isinstance(task, Load) else run(conn, task)
    except DbopsError as error:
        return error
    return None


def load(conn: Connection, store: Store, task: Load, loaded: Callable[[int], None]) -> None:
    """Load a table's chunks in one transaction. Raises BackupDamaged naming object and table: then none is loaded."""
    try:
        with conn.transaction():
            _load(conn, store, task, loaded)
    except psycopg.Error as error:
        raise failed(f"rows of {task.table}", error) from error


def _load(conn: Connection, store: Store, task: Load, loaded: Callable[[int], None]) -> None:
    conn.execute(sql.SQL("SET LOCAL client_encoding = {}").format(sql.Literal(task.encoding)))
    target = sql.Identifier(task.table.schema, task.table.name)
    if task.large_objects:
        target = sql.Identifier("pg_temp", "large_objects")
        conn.execute("CREATE TEMPORARY TABLE large_objects (loid oid, data bytea) ON COMMIT DROP")
    elif task.fresh:
        conn.execute(sql.SQL("TRUNCATE ONLY {}").format(target))  # FREEZE wants a file that this transaction made
    columns = sql.SQL(" ({})").format(sql.SQL(", ").join(map(sql.Identifier, task.columns)))
    copy = sql.SQL("COPY {}{} FROM STDIN (FORMAT {}{})").format(
        target,
        columns if task.columns else sql.SQL(""),
        sql.SQL(task.format),
        sql.SQL(", FREEZE" if task.fresh else ""),
    )
    for chunk, data in _ahead(store, task):
        _copy(conn, copy, task, chunk, data)
        loaded(len(data))
    if task.large_objects:
        conn.execute("SELECT pg_catalog.count(pg_catalog.lo_from_bytea(loid, data)) FROM pg_temp.large_objects")


def _copy(conn: Connection, copy: sql.Composed, task: Load, chunk: Chunk, data: bytes) -> None:
    with conn.cursor() as cursor:
        with cursor.copy(copy) as stream:
            stream.write(data)
        if cursor.rowcount != chunk.rows:
            raise BackupDamaged(
                f"{chunk_key(chunk.sha256)} of table {task.table} has {cursor.rowcount} rows, its manifest says {chunk.rows}",
                hint="nothing of this table was loaded; restore another backup: dbops backup list",
            )


def _ahead(store: Store, task: Load) -> Iterator[tuple[Chunk, bytes]]:
    """Each chunk with its stream, proven by its hash; the next ones are fetched meanwhile."""
    with ThreadPoolExecutor(1) as fetcher:
        pending: deque[tuple[Chunk, Future[bytes]]] = deque()
        try:
            for chunk in task.chunks:
                pending.append((chunk, fetcher.submit(_fetch, store, chunk, task.table)))
                if len(pending) > _AHEAD:
                    first, future = pending.popleft()
                    yield first, future.result()
            for first, future in pending:
                yield first, future.result()
        finally:
            for _, future in pending:
                future.cancel()


def _fetch(store: Store, chunk: Chunk, table: Name) -> bytes:
    try:
        return read_chunk(store, chunk)
    except (BackupDamaged, ObjectMissing) as error:
        # missing is damaged too: the manifest promises it
        raise BackupDamaged(
            f"table {table}: {error.message}",
            hint="nothing of this table was loaded; restore another backup: dbops backup list",
        ) from error


# --- in the parent -------------------------------------------------------------------------------


class Workers:
    """Processes that load and build, each on a connection of its own, for as long as the context lasts."""

    def __init__(self, url: str, store: Store, count: int, loaded: Callable[[int], None] = lambda _: None) -> None:
        self._loaded = loaded
        self._processes: dict[Pipe, BaseProcess] = {}
        context = multiprocessing.get_context("spawn")
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, url, store, os.getpid()), daemon=True)
            process.start()
            theirs.close()
            self._processes[ours] = process

    @property
    def count(self) -> int:
        return len(self._processes)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the processes at once; what they were doing is rolled back."""
        for pipe, process in self._processes.items():
            pipe.close()
            process.terminate()
        for process in self._processes.values():
            process.join()
        self._processes.clear()

    def do(self, tasks: Iterable[Task], after: Callable[[Task, DbopsError | None], Iterable[Task]]) -> None:
        """Do all tasks, and those that `after` adds when one is done; what it raises ends the work."""
        waiting = deque(tasks)
        idle = list(self._processes)
        busy: dict[Pipe, Task] = {}
        while waiting or busy:
            while waiting and idle:
                pipe = idle.pop()
                busy[pipe] = waiting.popleft()
                self._send(pipe, busy[pipe])
            for ready in wait(list(busy)):
                pipe = next(each for each in busy if each is ready)
                answer = self._answer(pipe)
                if isinstance(answer, int):
                    self._loaded(answer)
                    continue
                idle.append(pipe)
                waiting.extend(after(busy.pop(pipe), answer))

    def _send(self, pipe: Pipe, task: Task) -> None:
        try:
            pipe.send(task)
        except OSError:
            raise self._ended(pipe) from None

    def _answer(self, pipe: Pipe) -> int | DbopsError | None:
        try:
            answer: int | DbopsError | None = pipe.recv()
        except (EOFError, OSError):
            raise self._ended(pipe) from None
        return answer

    def _ended(self, pipe: Pipe) -> DbopsError:
        process = self._processes[pipe]
        process.join(5)
        return DbopsError(
            f"a worker process of the restore ended by itself (exit code {process.exitcode})",
            hint="the database is marked as unfinished; run the restore again with --yes",
        )
