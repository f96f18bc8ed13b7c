"""Connections: set-up, rights, PostgreSQL's errors as ours, secrets redacted."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbops.errors import CannotConnect, DbopsError, NotAllowed, UnfitServer, UsageError
from dbops.sql import queries

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

# to the last @: a password that somebody forgot to encode may hold one
_URL_PASSWORD = re.compile(r"(://[^:/?#\s@]*):\S*@")
# of a conninfo (password=..., with \ before a blank) and of CREATE ROLE ... PASSWORD '...'
_KEY_PASSWORD = re.compile(
    r"((?:password|passwd)\s*=\s*|password\s+(?='))('(?:[^'\\]|\\.|'')*(?:'|\Z)|(?:\\.|[^\s\\])+)", re.I | re.DOTALL
)
_QUOTED = re.compile(r'".*"', re.DOTALL)
_ENCODE = "write postgresql://user@host:5432/database; a password's special characters are %-encoded"


def redact(text: str) -> str:
    """The text without the passwords of URLs (`://user:***@`) and of key=value pairs."""
    return _KEY_PASSWORD.sub(r"\1***", _URL_PASSWORD.sub(r"\1:***@", text))


@dataclass(frozen=True)
class Server:
    """What is asked of a server once, when a connection is made."""

    version: int  # server_version_num
    database: str
    user: str
    standby: bool
    pooled: bool  # a pooler stands between: what is set for a session may reach another client
    superuser: bool
    bypasses_rls: bool

    @property
    def major(self) -> int:
        return self.version // 10000


def parameters(url: str) -> dict[str, Any]:
    """The parts of a conninfo or URL. Raises UsageError, without the text of the URL, where libpq cannot read it.

    A `/` or `@` in a password that is not encoded makes the rest of it a port or a host: refused as well, since
    messages name those.
    """
    import psycopg
    from psycopg import conninfo

    try:
        parts = dict(conninfo.conninfo_to_dict(url))
    except psycopg.ProgrammingError as error:
        raise UsageError(f"the database URL cannot be read: {_unquoted(str(error))}", hint=_ENCODE) from None
    host, port = str(parts.get("host") or ""), str(parts.get("port") or "")
    slash = re.match(r"[\w.+-]+://[^@/]*:[^@/]*/[^?]*@", url)
    several = "://" in url and url.partition("?")[0].count("@") > 1
    if slash or several or not re.fullmatch(r"[\d,]*", port) or ("@" in host[1:] and not host.startswith("/")):
        what = "a / or @ of its password is not encoded, or its port is no number"
        raise UsageError(f"the database URL cannot be read: {what}", hint=_ENCODE)
    return parts


def _unquoted(message: str) -> str:
    """libpq's message about a conninfo without what it quotes, often a piece of the password; parameters are named."""
    if re.search(r'query parameter: "[a-z_]+"', message):
        return message.strip()
    return _QUOTED.sub('"…"', message).strip()


def connect(url: str, purpose: str, **overrides: Any) -> Connection:
    """A connection in autocommit mode for an operator's work, named `dbops PURPOSE` on the server.

    Nothing is prepared and nothing is set for the session: behind a pooler in transaction mode the next client would
    get it. What a transaction needs is set in it (`local_settings`).
    Raises CannotConnect (exit 10) with the server's reason and never a password.
    """
    import psycopg

    kwargs = parameters(url) | {"application_name": f"dbops {purpose}", "prepare_threshold": None, "autocommit": True}
    # texts of migrations are UTF-8, whatever PGCLIENTENCODING or the role's default say
    kwargs["client_encoding"] = "UTF8"
    kwargs.setdefault("connect_timeout", os.environ.get("PGCONNECT_TIMEOUT", 10))
    try:
        return psycopg.connect(**(kwargs | overrides))
    except psycopg.OperationalError as error:
        raise _cannot_connect(error, kwargs) from None
    except psycopg.ProgrammingError as error:
        raise UsageError(f"the database URL cannot be used: {redact(str(error))}", hint=_ENCODE) from None


def _cannot_connect(error: psycopg.OperationalError, kwargs: Mapping[str, Any]) -> CannotConnect:
    told = redact(str(error)).partition("Multiple connection attempts failed")[0]
    lines = [line.strip() for line in told.splitlines() if line.strip() and "Is the server running" not in line]
    reason = re.sub(r"^connection (failed|is bad): ", "", lines[-1] if lines else "no reason given")
    place = place_of(kwargs)
    password = kwargs.get("password")
    if len(str(password or "")) > 3:  # a shorter one would be shown by the holes it leaves
        reason = reason.replace(str(password), "***")
    text = reason.lower()
    if "password" in text or "authentication" in text or "pg_hba" in text:
        hint = "check the user and the password (DATABASE_URL, PGPASSWORD or ~/.pgpass); nothing was done"
    elif "does not exist" in text:
        hint = "check the names in the URL, or make it first (createdb, createuser); nothing was done"
    else:
        hint = "check host, port and network, and that the server runs; nothing was done"
    return CannotConnect(f"cannot connect to {place}: {reason}", hint=hint)


def place_of(kwargs: Mapping[str, Any]) -> str:
    """`database on host:port` for messages: no user's password, no options."""
    host = kwargs.get("host") or kwargs.get("hostaddr") or os.environ.get("PGHOST") or "the local socket"
    port = kwargs.get("port") or os.environ.get("PGPORT") or 5432
    service = kwargs.get("service") or os.environ.get("PGSERVICE")
    if service:
        return f"service {service}"
    name = kwargs.get("dbname") or os.environ.get("PGDATABASE") or kwargs.get("user") or "the default database"
    return f"{name} on {host}" if str(host).startswith("/") else f"{name} on {host}:{port}"


def server_of(conn: Connection) -> Server:
    """Ask the server once who it is. Raises UnfitServer for a pooler in statement mode."""
    with translated():
        row = conn.execute(queries()["server"]).fetchone()
    assert row is not None
    version, database, user, standby, superuser, bypasses, pid = row
    # a pooler hands out a process id of its own making: that tells it from a server
    return Server(version, database, user, standby, pid != conn.info.backend_pid, superuser, bypasses)


def refuse_standby(server: Server) -> None:
    """Raise UnfitServer for a server in recovery: it takes the lock function and no write."""
    if server.standby:
        raise UnfitServer(
            f"{server.database} is a read-only standby: nothing can be changed there",
            hint="give the primary's URL (with several hosts: target_session_attrs=read-write); nothing was done",
        )


def primary_of(conn: Connection) -> Server:
    """Who the server is; the connection is closed where it is a standby or does not answer. Raises UnfitServer."""
    try:
        server = server_of(conn)
        refuse_standby(server)
    except BaseException:
        conn.close()
        raise
    return server


def require_bypass(conn: Connection, server: Server) -> None:
    """Raise NotAllowed where tables are under FORCE ROW LEVEL SECURITY and the role does not see past it.

    A plain owner sees 0 rows there without an error: his data migrations change nothing, his SECURITY DEFINER
    triggers fail (https://www.postgresql.org/docs/current/ddl-rowsecurity.html).
    """
    if server.bypasses_rls:
        return
    forced = [row[0] for row in conn.execute(queries()["forced_tables"])]
    if forced:
        names = ", ".join(forced[:3]) + (f" and {len(forced) - 3} more" if len(forced) > 3 else "")
        raise NotAllowed(
            f"role {server.user} is subject to row level security on {names}: it would see no rows there, without an error",
            hint=f'as a superuser: ALTER ROLE "{server.user}" BYPASSRLS; or connect as a role that has it '
            "(on Supabase: postgres). Nothing was done",
        )


@contextmanager
def seeing_all(conn: Connection, major: int) -> Iterator[None]:
    """A transaction in which too few rights are an error and not fewer rows."""
    with translated(), conn.transaction():
        conn.execute((local_settings(endless(major) | {"row_security": "off"})).encode())
        yield


def endless(major: int) -> dict[str, str]:
    """Settings under which a transaction may stay open for as long as the work takes.

    A client whose machine is gone is noticed within a minute: TCP's own default is two hours.
    """
    values = {"statement_timeout": "0", "idle_in_transaction_session_timeout": "0", "lock_timeout": "0"}
    values |= {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}
    return values | ({"transaction_timeout": "0"} if major >= 17 else {})


def local_settings(values: Mapping[str, str]) -> str:
    """`SET LOCAL` for each setting, as one text to be sent with the statement that begins a transaction."""
    from psycopg import sql

    return "".join(
        sql.SQL("SET LOCAL {} = {};").format(sql.Identifier(*name.split(".")), sql.Literal(value)).as_string()
        for name, value in values.items()
    )


@contextmanager
def translated() -> Iterator[None]:
    """PostgreSQL's errors as ours, the cause kept. Those of a migration's own statements are told where they ran."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise translate(error) from error


def translate(error: psycopg.Error) -> DbopsError:
    """The DbopsError for an error of the driver, by SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html)."""
    message = redact(str(error)).strip()
    state = error.sqlstate or ""
    if "statement pooling" in message:
        return UnfitServer(
            "the pooler works in statement mode: it allows no transaction, and a migration needs one",
            hint="use its transaction or session mode, or connect to the server directly; nothing was done",
        )
    if "query_wait_timeout" in message:
        return CannotConnect(
            "the pooler had no free connection to the server in time (query_wait_timeout)",
            hint="a run needs two at once, one for its lock and one for its work: a larger default_pool_size, or connect "
            "to the server directly; what was committed is recorded",
        )
    if state == "3D000" or ("does not exist" in message and state.startswith("08")):
        return CannotConnect(message, hint="the database is gone; what was committed before stays recorded")
    if state.startswith("08") or state in ("57P01", "57P02", "57P03", "57P04") or not state:
        return CannotConnect(
            f"the connection was lost: {message.splitlines()[0] if message else 'no reason given'}",
            hint="what was committed is recorded; run the command again when the server is back",
        )
    if state == "42501" and "row-level security" in message:
        hint = "connect as the table's owner or as a role with BYPASSRLS: this one would see fewer rows than there are"
        return NotAllowed(message, hint=hint)
    if state == "42501":
        return NotAllowed(message, hint="grant the right that is missing, or connect as the owner")
    if state == "25006":
        return UnfitServer(message, hint="the server or the session is read-only; give the primary's URL")
    return DbopsError(message)
