"""The operator's connection: too few rights are an error, a wait for a lock ends, nothing is set for the session."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, LiteralString, TypeVar

from dbops.config import Settings
from dbops.database import connect, endless, local_settings, primary_of, require_bypass, translated
from dbops.errors import Blocked, CannotConnect, DbopsError, UsageError
from dbops.hygiene.model import Failed
from dbops.sql import queries

if TYPE_CHECKING:
    from psycopg.sql import SQL, Composed

    from dbops.database import Connection, Server

ROOM = "hygiene"
T = TypeVar("T")
_LOCK_TIMEOUT, _DEADLOCK, _CANCELED = "55P03", "40P01", "57014"
# SQLSTATE classes: no resources, intervention (a cancel), system, internal error
_EVERYBODYS = ("53", "57", "58", "XX")
_WAITS = 3  # users in a row: then it is not one user's rows that are locked


class TooLong(DbopsError):
    """A statement took longer than statement_timeout lets it."""


class Session:
    """A direct connection to a primary as a role that sees all rows."""

    def __init__(self, conn: Connection, server: Server, settings: Settings) -> None:
        self.conn, self.server, self.settings = conn, server, settings

    @contextmanager
    def transaction(self, *, read_only: bool = False) -> Iterator[None]:
        """A transaction in which values read the same everywhere and waits end (settings lock_timeout, statement_timeout)."""
        values = endless(self.server.major) | {"row_security": "off", "search_path": "", "extra_float_digits": "1"}
        values |= {"TimeZone": "UTC", "DateStyle": "ISO, MDY", "IntervalStyle": "postgres", "bytea_output": "hex"}
        values |= {"lock_timeout": _milliseconds(self.settings.lock_timeout)}
        values |= {"statement_timeout": _milliseconds(self.settings.statement_timeout)}
        with translated(), self.conn.transaction():
            self.conn.execute(local_settings(values).encode())
            if read_only:
                self.conn.execute("SET TRANSACTION READ ONLY")
            yield

    def rows(self, name: str, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a named statement."""
        return self.conn.execute(queries(ROOM)[name], values or {}).fetchall()

    def value(self, name: str, values: Mapping[str, Any] | None = None) -> Any:
        """The first value of a named statement's one row."""
        row = self.conn.execute(queries(ROOM)[name], values or {}).fetchone()
        assert row is not None
        return row[0]

    def run(self, statement: LiteralString | SQL | Composed, values: Mapping[str, Any] | None = None) -> int:
        """Run a statement; how many rows it changed."""
        return self.conn.execute(statement, values).rowcount

    def act(self, name: str, values: Mapping[str, Any]) -> int:
        """Run a named statement; how many rows it changed."""
        return self.run(queries(ROOM)[name], values)

    def patiently(self, what: str, act: Callable[[], T]) -> T:
        """`act`, which is one transaction, again while it waits too long for a lock, up to `lock_tries` times.

        Raises Blocked, and DbopsError for a statement that took longer than it may, both naming `what`.
        """
        for number in range(1, self.settings.lock_tries + 1):
            started, longest = time.monotonic(), self.settings.statement_timeout
            try:
                return act()
            except DbopsError as error:
                state = getattr(error.__cause__, "sqlstate", None)
                # both have one SQLSTATE, and the message may be in any language
                if state == _CANCELED and longest and time.monotonic() - started >= longest:
                    raise TooLong(
                        f"{what}: {error.message}",
                        hint="what was under way was rolled back, what was committed is recorded; give a longer "
                        "statement_timeout and run the command again",
                    ) from error
                if state not in (_LOCK_TIMEOUT, _DEADLOCK):
                    raise
                if number == self.settings.lock_tries:
                    raise Blocked(
                        f"{what}: rows stayed locked by others for {self.settings.lock_timeout:g} s, tried {number} times",
                        hint="what was under way was rolled back, what was committed is recorded; run the command again",
                    ) from error
            # let those go first that queued behind
            time.sleep(random.uniform(0.1, 0.5) * min(self.settings.lock_timeout, 1.0))
        raise AssertionError("lock_tries is at least 1")

    def require_memories(self, *, embeddings: bool = False) -> None:
        """Raise UsageError where the memory schema, or what `embeddings` needs of it, is not there."""
        memories, vectors = self.rows("memory_schema")[0]
        if not memories:
            raise UsageError(
                "this database has no memory schema with word sets (find_duplicate_sets, hygiene_changes)",
                hint="dbops migrate up, or --table for another table; nothing was done",
            )
        if embeddings and not vectors:
            raise UsageError(
                "there are no embeddings: the table memory_embeddings waits for pgvector",
                hint="leave out --semantic, or see dbops migrate status; nothing was done",
            )

    def user(self, name: str | None) -> str | None:
        """The UUID of a user, whose name elsewhere may be any text; None stays None."""
        if name is None:
            return None
        return str(self.value("user_uuid", {"user": without_nul(name, "the user")}))


class Apart:
    """Users one after another, each by himself: the error of one is kept in `failed`, and the others go on.

    An error that is everybody's (a connection lost, a cancel, a full disk) is raised, and so is that of an only user.
    """

    def __init__(self, session: Session, users: int) -> None:
        self.session, self.alone = session, users == 1
        self.failed: list[Failed] = []
        self._waits = 0

    def run(self, user: str | None, what: str, act: Callable[[], T]) -> T | None:
        """`act` as `patiently` runs it; None where it failed, and nothing of it is left."""
        try:
            done = self.session.patiently(what, act)
        except DbopsError as error:
            self._waits = self._waits + 1 if isinstance(error, (Blocked, TooLong)) else 0
            if self.alone or self._waits == _WAITS or _is_everybodys(error):
                raise
            self.failed.append(Failed(user, error.message))
            return None
        self._waits = 0
        return done


def _is_everybodys(error: DbopsError) -> bool:
    state = getattr(error.__cause__, "sqlstate", None) or ""
    return isinstance(error, CannotConnect) or state.startswith(_EVERYBODYS)


def uuids(values: Iterable[str]) -> str:
    """UUIDs as one value for `::uuid[]`: as a list, 20,000 took psycopg 20 ms."""
    return f"{{{','.join(values)}}}"


def since(started: float) -> float:
    """Milliseconds since that moment of time.monotonic()."""
    return (time.monotonic() - started) * 1000


def _milliseconds(seconds: float) -> str:
    return str(max(1, int(seconds * 1000))) if seconds else "0"


def without_nul(text: str, what: str) -> str:
    """The text. Raises UsageError where PostgreSQL cannot take it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{what} is not valid Unicode", hint="nothing was done") from None
    if "\0" in text:
        raise UsageError(f"{what} holds a NUL character, which PostgreSQL's texts cannot", hint="nothing was done")
    return text


@contextmanager
def opened(url: str, settings: Settings, purpose: str) -> Iterator[Session]:
    """A session for `purpose`. Raises NotAllowed where rows would be hidden, UnfitServer for a standby."""
    import psycopg

    with closing(connect(url, f"hygiene {purpose}")) as conn:
        # whatever the role's defaults are
        conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        conn.read_only = False
        server = primary_of(conn)
        with translated():
            require_bypass(conn, server)
        yield Session(conn, server, settings)
