"""JSON lines into existing tables: columns by name, all files or nothing, a fault told with its line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from dbops.backup.exchange.export import Exchanged
from dbops.backup.exchange.tables import Target, choose, columns_of, sequence_behind, tables_of
from dbops.database import connect, endless, local_settings, primary_of, redact, require_bypass, translate, translated
from dbops.errors import DbopsError, UsageError, shown
from dbops.wording import count

if TYPE_CHECKING:
    from psycopg import sql

    from dbops.database import Connection

_SETTINGS = {"row_security": "off", "search_path": "pg_catalog", "datestyle": "ISO, YMD", "timezone": "UTC"}
_NOTHING = "nothing was imported"
_GZIP = b"\x1f\x8b"
Keys = tuple[str, ...]


class _Bad(Exception):
    """A line that cannot be read."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line, self.what = line, what


class _Undo(Exception):
    """Ends a trial's transaction."""


def load(
    url: str,
    files: Sequence[Path],
    table: str | None = None,
    *,
    dry_run: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Exchanged:
    """Insert the rows of files (`.json.gz` or plain, one JSON object a line) into tables that are there.

    A file's name is its table's (`public.notes.json.gz`), or `table` is for all. A column that a line lacks gets its
    default. One transaction for all files; `dry_run` does everything and takes it back. Sequences of serial and
    identity columns end up at or above the numbers that came in.
    Raises UsageError with file and line for what is no JSON object, an unknown or generated column or a value that the
    table refuses; UnfitServer for a standby, NotAllowed, CannotConnect.
    """
    counts: dict[str, int] = {}
    with connect(url, "import") as conn:
        server = primary_of(conn)
        with translated():
            require_bypass(conn, server)
            try:
                with conn.transaction():
                    conn.execute(local_settings(endless(server.major) | _SETTINGS).encode())
                    for path, target in _in_order(conn, files, table):
                        rows = _File(conn, path, target).load()
                        counts[str(target.name)] = counts.get(str(target.name), 0) + rows
                        tell(f"{target.name}: {count(rows, 'row')} from {shown(path)}")
                    if dry_run:
                        raise _Undo
            except _Undo:
                pass
    return Exchanged(tuple(files), counts)


def table_of(path: Path) -> str:
    """The table that a file's name stands for: `public.notes.json.gz`, `notes.json`, `public.notes.jsonl`."""
    name = path.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")
    return ".".join(unquote(part) for part in name.split("."))


def _in_order(conn: Connection, files: Sequence[Path], table: str | None) -> list[tuple[Path, Target]]:
    """Each file with its table, the tables first to which others refer."""
    tables = tables_of(conn)
    pairs = [(path, choose(tables, [table or table_of(path)])[0]) for path in files]
    return sorted(pairs, key=lambda pair: tables.index(pair[1]))


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """What is wrong with a file as a file, told with its name."""
    try:
        yield
    except _Bad as bad:
        raise UsageError(f"{shown(path)}:{bad.line}: {bad.what}", hint=f"mend the file; {_NOTHING}") from None
    except (EOFError, UnicodeDecodeError) as error:
        what = "it is cut off" if isinstance(error, EOFError) else "it is not UTF-8"
        raise UsageError(f"{shown(path)}: {what}", hint=f"get the file anew; {_NOTHING}") from None
    except OSError as error:  # also gzip's BadGzipFile
        raise UsageError(f"{shown(path)} cannot be read: {error.strerror or error}", hint=_NOTHING) from None


class _File:
    """One file on its way into its table, by way of a temporary table of its lines."""

    def __init__(self, conn: Connection, path: Path, table: Target) -> None:
        self.conn, self.path, self.table = conn, path, table
        self.columns = {column.name: column for column in columns_of(conn, table)}

    def load(self) -> int:
        import psycopg

        self.conn.execute("CREATE TEMPORARY TABLE imported (kind int, line int8, row json) ON COMMIT DROP")
        try:
            with _faults(self.path):
                kinds = self._stage()
        except psycopg.DataError as error:
            raise self._refused(error, None) from error
        rows = sum(self._insert(number, keys) for keys, number in kinds.items())
        self._set_sequences({name for keys in kinds for name in keys})
        self.conn.execute("DROP TABLE pg_temp.imported")
        return rows

    def _stage(self) -> dict[Keys, int]:
        """The lines as they are; those with the same columns get the same number."""
        kinds: dict[Keys, int] = {}
        known: dict[Keys, int] = {}  # by the keys in the order of the line
        with self.conn.cursor() as cursor, cursor.copy("COPY pg_temp.imported (kind, line, row) FROM STDIN") as copy:
            for line, text in _lines(self.path):
                keys = _keys(line, text)
                if keys not in known:
                    self._check(line, keys)
                    known[keys] = kinds.setdefault(tuple(sorted(keys)), len(kinds))
                copy.write_row((known[keys], line, text))
        return kinds

    def _check(self, line: int, keys: Keys) -> None:
        for key in keys:
            column = self.columns.get(key)
            if column is None:
                known = ", ".join(self.columns)
                raise _Bad(line, f"{self.table.name} has no column {key!r}; it has {known}")
            if column.generated:
                raise _Bad(line, f"column {key!r} of {self.table.name} is generated: leave it out")
        if not keys:
            raise _Bad(line, "the object has no columns")

    def _insert(self, kind: int, keys: Keys) -> int:
        """Insert the rows with these columns, together: a row may refer to one that comes after it."""
        last = self._last(kind)
        return self._insert_range(self._statement(kind, keys), 0, last)

    def _last(self, kind: int) -> int:
        row = self.conn.execute("SELECT pg_catalog.max(line) FROM pg_temp.imported WHERE kind = %s", (kind,)).fetchone()
        assert row is not None
        return int(row[0])

    def _statement(self, kind: int, keys: Keys) -> sql.Composed:
        from psycopg import sql

        columns = [sql.Identifier(key) for key in keys]
        return sql.SQL(
            "INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {values} FROM pg_temp.imported i, "
            "pg_catalog.json_populate_record(NULL::{table}, i.row) r "
            "WHERE i.kind = {kind} AND i.line > %(after)s AND i.line <= %(last)s ORDER BY i.line"
        ).format(
            table=self.table.identifier,
            columns=sql.SQL(", ").join(columns),
            values=sql.SQL(", ").join(sql.SQL("(r).{}").format(column) for column in columns),
            kind=sql.Literal(kind),
        )

    def _insert_range(self, statement: sql.Composed, after: int, last: int) -> int:
        """Insert the lines up to `last`; where that fails, raise for the first line that does it."""
        import psycopg

        try:
            with self.conn.transaction():
                return self.conn.execute(statement, {"after": after, "last": last}).rowcount
        except psycopg.errors.ForeignKeyViolation as error:
            raise self._refused(error, None) from error  # its detail names the row; another line may bring the other
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            if last - after <= 1:
                raise self._refused(error, last) from error
            first = error
        middle = (after + last) // 2
        self._insert_range(statement, after, middle)
        self._insert_range(statement, middle, last)
        raise self._refused(first, None)

    def _refused(self, error: Any, line: int | None) -> DbopsError:
        told = translate(error)
        if type(told) is not DbopsError:
            return told
        detail = redact(error.diag.message_detail or "")
        what = f"{told.message.splitlines()[0]}{f' ({detail})' if detail else ''}"
        where = f"{shown(self.path)}{f':{line}' if line else ''}"
        return UsageError(f"{where}: {self.table.name}: {what}", hint=f"mend the file or the table; {_NOTHING}")

    def _set_sequences(self, keys: set[str]) -> None:
        for column in self.columns.values():
            if column.sequence and column.name in keys:
                self.conn.execute(sequence_behind(self.table, column))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers, without empty ones; gzip is told by its first bytes."""
    from isal import igzip, igzip_lib

    with path.open("rb") as file:
        packed = file.read(len(_GZIP)) == _GZIP
    try:
        with igzip.open(path, "rb") if packed else path.open("rb") as content:  # type: ignore[no-untyped-call]
            for number, line in enumerate(content, 1):
                if line.strip():
                    yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
    except igzip_lib.IsalError as error:  # type: ignore[misc]
        raise OSError(str(error)) from None


def _no_json(word: str) -> None:
    raise ValueError(f"{word} is no number")


def _keys(line: int, text: str) -> Keys:
    """The names in an object. Raises _Bad for what is none, or names one twice."""
    try:
        # numbers stay texts: the server reads them, with all their digits
        pairs = json.loads(text, object_pairs_hook=tuple, parse_int=str, parse_float=str, parse_constant=_no_json)
    except (ValueError, RecursionError) as error:
        raise _Bad(line, f"it is no JSON: {error}") from None
    if not text.startswith("{"):
        raise _Bad(line, "it is no JSON object: one object a line, a row each")
    keys = tuple(key for key, _ in pairs)
    if len(set(keys)) != len(keys):
        raise _Bad(line, "a column stands twice in it")
    return keys
