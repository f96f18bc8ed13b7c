"""The backup's rows in temporary tables of the live types: chunks proven, loaded, filtered and cast, nothing lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier

from dbops.backup.merge.catalog import ROOM
from dbops.backup.merge.model import Tell
from dbops.backup.merge.session import Session
from dbops.backup.merge.target import COMMA, Target, listed, trusted
from dbops.backup.model import Chunk, Column, Name, Table
from dbops.backup.objects import read_chunk
from dbops.backup.store import Store
from dbops.database import redact
from dbops.errors import DbopsError
from dbops.sql import queries

UNTOUCHED = "no live row was touched"
# rows of this many bytes are loaded before they are filtered: temporary tables stay small, statements few
_BATCH = 32 << 20
_AHEAD = 4


class Staging:
    """Loads the rows of a backup's tables into a session's temporary tables."""

    def __init__(self, session: Session, store: Store | None, tell: Tell) -> None:
        self.session, self.store, self.tell = session, store, tell
        self.conn = session.conn
        self._incoming: dict[tuple[int, tuple[Column, ...]], Identifier] = {}

    def make(self, target: Target) -> None:
        """The target's temporary tables, empty, with the live columns' types and collations."""
        relation, key = target.relation, COMMA.join(_key_columns(target))
        with self.session.transaction():
            self._table(target, "staged", relation, listed(target.columns))
            what = SQL("''::pg_catalog.text AS dbops_what, {}, ''::pg_catalog.text AS dbops_live").format(key)
            self._table(target, "delta", relation, what, "ON COMMIT DELETE ROWS")
            self._table(target, "before", relation, listed(target.written), "ON COMMIT DELETE ROWS")
            self._table(target, "keys", relation, key)
            self._index(target, "delta")

    def index(self, target: Target) -> None:
        """Once all is staged: rows are looked for by their keys one by one where the planner expects few."""
        with self.session.transaction():
            self._index(target, "staged")

    def _index(self, target: Target, what: str) -> None:
        if target.keyed:
            # a key of a type without an order of its own does without
            with suppress(psycopg.errors.UndefinedObject), self.conn.transaction():
                statement = SQL("CREATE INDEX ON {} ({})").format(target.temporary(what), listed(target.key))
                self.conn.execute(statement)

    def make_beside(self, target: Target, source: Table) -> None:
        """A staged table in the backup's own types, of no live table."""
        with self.session.transaction():
            statement = SQL("CREATE TEMPORARY TABLE {} ({})")
            self.conn.execute(statement.format(target.temporary("staged"), self.definitions(source)))

    def _table(self, target: Target, what: str, relation: Composable, columns: Composable, option: str = "") -> None:
        text = "CREATE TEMPORARY TABLE {} {} AS SELECT {} FROM {} WITH NO DATA"
        name = target.temporary(what)
        self.conn.execute(SQL(text).format(name, trusted(option), columns, relation))

    def load(self, target: Target, condition: Composable) -> int:
        """Stage the rows of the target's chunks of which `condition` is true. Returns how many.

        `condition` reads a row under the table's bare name. Raises BackupDamaged, ObjectMissing, or DbopsError where
        the rows do not fit this database.
        """
        assert self.store is not None
        count = 0
        for source in target.sources:
            incoming = self.incoming(target.number, source)
            statement = _insertion(target, source, incoming, condition)
            for batch in _batches(_read(self.store, source.chunks)):
                with self.session.transaction(read_only=True):
                    self.copy(incoming, source, batch)
                    self._lossless(target, source, incoming, condition)
                    count += self.conn.execute(statement).rowcount
                self.tell(f"loaded {target.name}: {count:,} rows")
        self._analyze(target, "staged")
        return count

    def _analyze(self, target: Target, what: str) -> None:
        with self.session.transaction():
            self.conn.execute(SQL("ANALYZE {}").format(target.temporary(what)))

    def incoming(self, number: int, source: Table) -> Identifier:
        """A temporary table of the backup's own types, empty again after each transaction."""
        columns = streamed(source)
        known = self._incoming.get((number, columns))
        if known:
            return known
        name = Identifier("pg_temp", f"dbops_incoming_{number}_{len(self._incoming)}")
        with self.session.transaction():
            self.conn.execute(
                SQL("CREATE TEMPORARY TABLE {} ({}) ON COMMIT DELETE ROWS").format(name, self.definitions(source))
            )
        self._incoming[number, columns] = name
        return name

    def definitions(self, source: Table) -> Composed:
        """The columns of a COPY stream as CREATE TABLE wants them. Raises DbopsError for a type that is not there."""
        for column in streamed(source):
            self._check_type(source.name, column)
        # a new line each: whatever a type's text is, it ends there
        return SQL(",\n").join(SQL("{} {}").format(Identifier(c.name), trusted(c.type)) for c in streamed(source))

    def _check_type(self, table: Name, column: Column) -> None:
        """A manifest is input: its text must be one type's name and nothing else, before it goes into a statement."""
        try:
            with self.conn.transaction():
                row = self.conn.execute(queries(ROOM)["type_exists"], {"type": column.type}).fetchone()
        except (psycopg.errors.SyntaxError, psycopg.errors.UndefinedObject, psycopg.errors.InvalidSchemaName):
            row = None
        if row != (True,) or any(mark in column.type for mark in ("--", "/*", ";", "\n")):
            raise DbopsError(
                f"{table}: column {column.name} is of the type {column.type!r}, which this database does not have",
                hint=f"create the type (or its extension) first; {UNTOUCHED}",
            )

    def copy(self, relation: Composable, source: Table, streams: Iterable[bytes]) -> None:
        """COPY whole streams into a table of the backup's types (https://www.postgresql.org/docs/current/sql-copy.html)."""
        columns = listed(column.name for column in streamed(source))
        how = SQL("COPY {} ({}) FROM STDIN (FORMAT {}, ENCODING 'UTF8')")
        statement = how.format(relation, columns, Identifier(source.format))
        for stream in streams:
            try:
                with self.conn.cursor().copy(statement) as copy:
                    copy.write(stream)
            except psycopg.DataError as error:
                raise _unfit(source.name, error) from error

    def _lossless(self, target: Target, source: Table, incoming: Composable, condition: Composable) -> None:
        """Raise DbopsError where a value is not the same after a cast to the live type and back, or has no place."""
        live = {column.name: column.type for column in target.live.columns}
        for column in streamed(source):
            to = live.get(column.name) if column.name in target.columns else None
            if to == column.type:
                continue
            try:
                with self.conn.transaction():
                    lost = self._lost(column, to, target, source, incoming, condition)
            except psycopg.Error as error:
                raise _uncastable(target.name, column, to, redact(str(error)).splitlines()[0]) from error
            if lost is not None:
                raise _uncastable(target.name, column, to, f"the value {lost!r} would be lost or changed")

    def _lost(
        self, column: Column, to: str | None, target: Target, source: Table, incoming: Composable, condition: Composable
    ) -> str | None:
        """The first value that does not survive; None where all do."""
        name = Identifier(column.name)
        back = SQL("CAST(CAST({} AS {}) AS {})").format(name, trusted(to or "text"), trusted(column.type))
        gone = SQL("{}::pg_catalog.text IS DISTINCT FROM {}::pg_catalog.text").format(back, name)
        if to is None:
            gone = SQL("{} IS NOT NULL").format(name)
        # only of the rows that are meant: another user's row may not stop this one's
        inner = SQL("SELECT {}, {} FROM {}").format(
            _casts(target, source), SQL("{} AS dbops_value, {} AS dbops_gone").format(name, gone), incoming
        )
        text = "SELECT pg_catalog.left(dbops_value::pg_catalog.text, 60) FROM ({}) {} WHERE dbops_gone AND ({}) LIMIT 1"
        row = self.conn.execute(SQL(text).format(inner, Identifier(target.name.name), condition)).fetchone()
        return row[0] if row else None

    def keep_keys(self, target: Target, mine: Composable) -> None:
        """The keys of live rows that are meant: their backup rows are staged too, whatever they say there."""
        if not target.keyed:
            return
        alias = target.name.name
        with self.session.transaction(read_only=True):
            self.conn.execute(
                SQL("INSERT INTO {} SELECT {} FROM {} AS {} WHERE {}").format(
                    target.temporary("keys"), listed(target.key, alias), target.relation, Identifier(alias), mine
                )
            )
        self._analyze(target, "keys")

    def in_keys(self, target: Target) -> Composed:
        if not target.keyed:
            return SQL("{}").format(SQL("false"))
        return SQL("EXISTS (SELECT FROM {} dbops_k WHERE {})").format(
            target.temporary("keys"), target.same_key("dbops_k", target.name.name)
        )


def _key_columns(target: Target) -> list[Composable]:
    if target.keyed:
        return [Identifier(name) for name in target.key]
    return [SQL("''::pg_catalog.text AS dbops_row"), SQL("0::pg_catalog.int8 AS dbops_n")]


def streamed(table: Table) -> tuple[Column, ...]:
    """The columns of a table's COPY streams."""
    return tuple(column for column in table.columns if not column.generated)


def shared_columns(live: Iterable[str], sources: Sequence[Table]) -> tuple[str, ...]:
    """The live columns that every source has, in the live order."""
    having = [{column.name for column in streamed(source)} for source in sources]
    return tuple(name for name in live if all(name in names for names in having))


def _casts(target: Target, source: Table) -> Composed:
    backup = {column.name: column.type for column in source.columns}
    live = {column.name: column.type for column in target.live.columns}
    same = SQL("{0}")
    return COMMA.join(
        (same if live[name] == backup[name] else SQL("CAST({0} AS {1}) AS {0}")).format(
            Identifier(name), trusted(live[name])
        )
        for name in target.columns
    )


def _insertion(target: Target, source: Table, incoming: Composable, condition: Composable) -> Composed:
    text = "INSERT INTO {staged} ({columns}) SELECT {columns} FROM (SELECT {casts} FROM {incoming}) AS {alias} WHERE {condition}"
    return SQL(text).format(
        staged=target.temporary("staged"), columns=listed(target.columns), casts=_casts(target, source),
        incoming=incoming, alias=Identifier(target.name.name), condition=condition,
    )  # fmt: skip


def _read(store: Store, chunks: Sequence[Chunk]) -> Iterator[bytes]:
    """The chunks' proven streams in order, a few read ahead: a store far away is not waited for one by one."""
    waiting: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(_AHEAD, "dbops-chunks") as pool:
        try:
            for chunk in chunks:
                waiting.append(pool.submit(read_chunk, store, chunk))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _batches(streams: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Streams by batches of about _BATCH bytes."""
    batch: list[bytes] = []
    size = 0
    for stream in streams:
        batch.append(stream)
        size += len(stream)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _unfit(table: Name, error: psycopg.Error) -> DbopsError:
    reason = redact(str(error)).splitlines()[0]
    return DbopsError(f"{table}: its rows do not fit the types of this database: {reason}", hint=UNTOUCHED)


def _uncastable(table: Name, column: Column, to: str | None, reason: str) -> DbopsError:
    what = f"is {to} here" if to else "is not there any more"
    return DbopsError(
        f"{table}: column {column.name} was {column.type} in the backup and {what}: {reason}",
        hint=f"--mode side loads the rows beside, in the backup's own types; {UNTOUCHED}",
    )
