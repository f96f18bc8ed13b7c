"""A database's schema in an empty scratch database: all but the rows, and by name what could not be had.

pg_dump writes the definitions; each of its objects is made by itself, so that one that fails (its extension
is not on the scratch server, say) is reported with its reason and the rest goes on. pg_dump knows no roles
and no settings of a database: these are read from the catalog. The source is only read. What holds others'
passwords (user mappings, subscriptions) is never taken: a copy must not reach another server.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from dbops.database import connect, local_settings, redact, server_of, translated
from dbops.errors import Blocked, DbopsError, NotAllowed, UnfitServer, UsageError
from dbops.fingerprint import connection_of, find_pg_dump
from dbops.sql import queries

if TYPE_CHECKING:
    from dbops.database import Connection

_OBJECT = re.compile(r"^--\n-- Name: (.*); Type: (.*); Schema: (.*); Owner: .*\n--\n", re.MULTILINE)
_TAIL = re.compile(r"(?:\n+SET default_\w+ = .*;)*\s*\Z")
_DUMP = (
    "--schema-only", "--no-password", "--encoding=UTF8",
    "--no-tablespaces", "--no-security-labels", "--no-subscriptions",
)  # fmt: skip
# as pg_dump writes at the head of a dump, without what an older server does not know
_HEAD = (
    "SET search_path = ''; SET check_function_bodies = off; SET xmloption = content; "
    "SET client_min_messages = error; SET row_security = off; SET statement_timeout = 0"
)
_ATTRIBUTES = ("SUPERUSER", "BYPASSRLS", "INHERIT", "CREATEROLE", "CREATEDB")


@dataclass(frozen=True)
class Failed:
    """An object that is not in the copy, or differs there, and why."""

    object: str
    message: str


@dataclass(frozen=True)
class Copied:
    """What a copy lacks. `left_out` was not tried; `roles_made` are new on the server and outlive the database."""

    missing_extensions: tuple[str, ...] = ()
    failed: tuple[Failed, ...] = ()
    left_out: tuple[Failed, ...] = ()
    roles_made: tuple[str, ...] = ()

    @property
    def not_copied(self) -> tuple[Failed, ...]:
        """All that the copy lacks."""
        return (*self.failed, *self.left_out)


@dataclass(frozen=True)
class Size:
    """A relation of the source. `heap_bytes` without TOAST; `rows` is None where nobody has counted."""

    total_bytes: int
    heap_bytes: int
    index_bytes: int
    rows: int | None


@dataclass(frozen=True)
class _Object:
    """An entry of a dump: its statements, and the settings for those that come after it."""

    kind: str
    name: str
    schema: str
    body: str
    settings: str

    def __str__(self) -> str:
        return f"{self.kind.lower()} {self.name if self.schema == '-' else f'{self.schema}.{self.name}'}"


@dataclass(frozen=True)
class _Source:
    """What is read of the source; roles and memberships with their attributes and options."""

    dump: str
    roles: dict[str, tuple[bool, ...]]
    memberships: dict[tuple[str, str], tuple[bool, ...]]
    settings: list[tuple[str, str]]


@dataclass
class _Copy:
    """A copy in the making."""

    target: Connection
    missing: list[str] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    left_out: list[Failed] = field(default_factory=list)
    roles_made: list[str] = field(default_factory=list)

    def run(self, what: str, statement: str | sql.Composed, *more: sql.Composed) -> bool:
        """Run statements in one transaction, or report what they would have made."""
        try:
            with self.target.transaction():
                for each in (statement, *more):
                    self.target.execute(each.encode() if isinstance(each, str) else each)
        except psycopg.Error as error:
            if self.target.broken:
                raise
            self.failed.append(Failed(what, _reason(error)))
            return False
        return True


def copy_schema(
    source_url: str, target_url: str, *, exclude_tables: Sequence[str] = (), lock_wait_ms: int = 5000
) -> Copied:
    """Copy the schema of the source, without rows, into the empty database that `target_url` names.

    Types, functions, views, policies, triggers, grants, owners, extensions, roles with their memberships, and
    the settings that the source gives its sessions. `exclude_tables`: names like `public.schema_migrations`.
    Raises UsageError for a target that is not empty, Blocked for a lock that is not granted in
    `lock_wait_ms`, MissingToolError where no pg_dump fits, UnfitServer behind a pooler, CannotConnect.
    """
    with connect(target_url, "copy") as target, translated():
        _refuse_used(target)
        source = _read(source_url, exclude_tables, lock_wait_ms)
        copy = _Copy(target)
        _make_roles(source, copy)
        target.execute(_HEAD)
        for item in _objects(source.dump):
            _make(item, copy)
        for view in target.execute(queries()["copy_unpopulated"]).fetchall():
            # whoever reads it, and REFRESH CONCURRENTLY, wants one that was populated
            refresh = sql.SQL("REFRESH MATERIALIZED VIEW {}").format(sql.Identifier(*view))
            copy.run(f"content of {'.'.join(view)}", refresh)
        _give_settings(source, copy)
    return Copied(tuple(copy.missing), tuple(copy.failed), tuple(copy.left_out), tuple(copy.roles_made))


def relation_sizes(source_url: str, *, lock_wait_ms: int = 5000) -> dict[str, Size]:
    """The sizes of tables, materialised views and indexes by qualified name. Raises Blocked, CannotConnect.

    The size functions take ACCESS SHARE: a relation that another session holds exclusively is waited for.
    """
    with connect(source_url, "sizes") as conn, translated(), conn.transaction():
        limits = {"lock_timeout": f"{lock_wait_ms}ms", "transaction_read_only": "on", "search_path": ""}
        conn.execute(local_settings(limits).encode())
        try:
            rows = conn.execute(queries()["relation_sizes"]).fetchall()
        except psycopg.errors.LockNotAvailable as error:
            raise _blocked(_reason(error)) from error
    return {name: Size(total, heap, index, rows) for name, total, heap, index, rows in rows}


def _refuse_used(target: Connection) -> None:
    row = target.execute(queries()["copy_used"]).fetchone()
    if row and row[0]:
        raise UsageError(
            f"database {target.info.dbname} is not empty: it holds {row[0]}",
            hint="a schema is copied into a new database only; nothing was done",
        )


# --- reading the source --------------------------------------------------------------------------


def _read(url: str, exclude: Sequence[str], lock_wait_ms: int) -> _Source:
    with connect(url, "copy") as conn:
        if server_of(conn).pooled:
            raise UnfitServer(
                "pg_dump sets its session, which a pooler would hand to the next client",
                hint="connect to the server directly; nothing was done",
            )
        with conn.transaction():
            conn.execute("SET TRANSACTION READ ONLY")
            roles = {row[0]: row[1:] for row in conn.execute(queries()["copy_roles"])}
            memberships = _memberships(conn)
            settings = conn.execute(queries()["copy_settings"]).fetchall()
            asked = {"exclude": list(exclude)}
            patterns = [str(row[1]) for row in conn.execute(queries()["fingerprint_excluded"], asked)]
        return _Source(_dump(conn, patterns, lock_wait_ms), roles, memberships, settings)


def _memberships(conn: Connection) -> dict[tuple[str, str], tuple[bool, ...]]:
    return {(row[0], row[1]): row[2:] for row in conn.execute(queries()["copy_memberships"])}


def _dump(conn: Connection, exclude: Sequence[str], lock_wait_ms: int) -> str:
    """pg_dump's text. It reads in one READ ONLY transaction; the password goes by the environment."""
    place, environment = connection_of(conn)
    program = find_pg_dump(conn.info.server_version // 10000)
    arguments = [*_DUMP, f"--lock-wait-timeout={lock_wait_ms}", *(f"--exclude-table={p}" for p in exclude)]
    done = subprocess.run([program, *arguments, f"--dbname={place}"], env=environment, capture_output=True, check=False)
    if done.returncode:
        message = redact(done.stderr.decode(errors="replace").strip())
        # its lock-wait-timeout is a statement_timeout on LOCK TABLE
        if "LOCK TABLE" in message and "timeout" in message:
            raise _blocked(message)
        if "permission denied" in message:
            hint = "pg_dump locks each table: connect as the owner, or as a member of pg_read_all_data; nothing was changed"
            raise NotAllowed(f"the schema cannot be copied: {message}", hint=hint)
        raise DbopsError(f"pg_dump failed: {message}", hint="nothing was changed")
    return done.stdout.decode("utf-8", "backslashreplace")


def _blocked(message: str) -> Blocked:
    return Blocked(
        f"a table of the source is locked: {message}",
        hint="another session holds it exclusively; try again when it is done. Nothing was changed",
    )


def _objects(dump: str) -> Iterator[_Object]:
    """The objects of a dump, in its order. A header inside of a function's text would make both halves fail."""
    _, *parts = _OBJECT.split(dump.rsplit("\n--\n-- PostgreSQL database dump complete", 1)[0])
    for name, kind, schema, text in zip(*(parts[i::4] for i in range(4)), strict=True):
        tail = _TAIL.search(text)
        assert tail is not None
        yield _Object(kind, name, schema, text[: tail.start()], tail[0].strip())


# --- writing the copy ----------------------------------------------------------------------------


def _make(item: _Object, copy: _Copy) -> None:
    about_missing = item.kind == "COMMENT" and item.name.removeprefix("EXTENSION ").strip('"') in copy.missing
    if item.kind == "USER MAPPING":
        copy.left_out.append(Failed(str(item), "it holds credentials of another server"))
    elif not about_missing and not copy.run(str(item), item.body) and item.kind == "EXTENSION":
        copy.missing.append(item.name)
    # by themselves: the next table needs its access method even where this object failed
    if item.settings:
        copy.run(f"settings after {item}", item.settings)


def _make_roles(source: _Source, copy: _Copy) -> None:
    """All roles of the source: a pending migration may name one that nothing depends on yet."""
    there = {row[0]: row[1:] for row in copy.target.execute(queries()["copy_roles"])}
    for name, flags in source.roles.items():
        attributes = _attributes(flags)
        if name not in there:
            made = sql.SQL("CREATE ROLE {} NOLOGIN {}").format(sql.Identifier(name), attributes)
            if copy.run(f"role {name}", made):
                copy.roles_made.append(name)
        elif there[name] != flags:
            differs = f"it was there before as {_attributes(there[name]).as_string()}; in the source it is"
            copy.failed.append(Failed(f"role {name}", f"{differs} {attributes.as_string()}"))
    _grant_memberships(source, copy)


def _attributes(flags: Sequence[bool]) -> sql.Composed:
    words = (word if flag else f"NO{word}" for word, flag in zip(_ATTRIBUTES, flags, strict=True))
    return sql.SQL(" ").join(map(sql.SQL, words))


def _grant_memberships(source: _Source, copy: _Copy) -> None:
    there = _memberships(copy.target)
    for (group, member), options in source.memberships.items():
        what = f"membership of {member} in {group}"
        if there.get((group, member)) == options:
            continue
        if not {group, member} & set(copy.roles_made):
            reason = "both roles were on the scratch server before: they were left as they are"
            copy.failed.append(Failed(what, reason))
            continue
        copy.run(what, _grant(group, member, options, copy.target.info.server_version))


def _grant(group: str, member: str, options: Sequence[bool], version: int) -> sql.Composed:
    grant = sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(member))
    if version >= 160000:
        return grant + sql.SQL(" WITH ADMIN {}, INHERIT {}, SET {}").format(*map(sql.Literal, options))
    return grant + sql.SQL(" WITH ADMIN OPTION" if options[0] else "")


def _give_settings(source: _Source, copy: _Copy) -> None:
    """What the source sets for its sessions, search_path above all, as the copy's own."""
    database = sql.Identifier(copy.target.info.dbname)
    for name, value in source.settings:
        # FROM CURRENT, since a list of names is no single value to ALTER DATABASE
        here = sql.SQL("SELECT pg_catalog.set_config({}, {}, true)")
        kept = sql.SQL("ALTER DATABASE {} SET {} FROM CURRENT").format(database, sql.Identifier(*name.split(".")))
        copy.run(f"setting {name}", here.format(sql.Literal(name), sql.Literal(value)), kept)


def _reason(error: psycopg.Error) -> str:
    parts = (error.diag.message_primary or str(error).strip(), error.diag.message_detail)
    return redact(": ".join(part for part in parts if part))
