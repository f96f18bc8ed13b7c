"""A schema as canonical text, its hash, and a readable diff of two.

The text is pg_dump's, cut into objects and sorted, with what pg_dump leaves out added from the catalog.
Each object is a line of its own (`table public.a`) followed by its definition, indented::

    table public.a
      CREATE TABLE public.a (
          id integer NOT NULL
      );

Row level security policies are left out (they belong to `policy check`), so are objects of extensions.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import shutil
import subprocess
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dbops.database import connect, redact, translated
from dbops.errors import Blocked, DbopsError, MissingToolError
from dbops.sql import queries

if TYPE_CHECKING:
    from dbops.database import Connection

_INSTALLED = Path("/usr/lib/postgresql")
_HEADER = re.compile(
    r"^--\n-- Name: (.*); Type: (.*); Schema: (.*); Owner: .*?(?:; Tablespace: (.*))?\n--\n", re.MULTILINE
)
_ABOUT = re.compile(r"([A-Z ]+) (.*)")  # what a grant or comment is on: "TABLE a"
_DUMPED_BY = re.compile(r"^-- Dumped by pg_dump version (\S+)", re.MULTILINE)
_END = "\n--\n-- PostgreSQL database dump complete\n--\n"
_SETTING = re.compile(r"SET default_(?:tablespace|table_access_method) = (.*);")
_NEWEST_KNOWN = 30  # no major version beyond is looked for
_ANY_ORDER = ("table ", "foreign table ")


@dataclass(frozen=True)
class SchemaText:
    """A schema's canonical text, and the version of the pg_dump that wrote it."""

    text: str
    pg_dump_version: str

    @property
    def hash(self) -> str:
        """The text's SHA-256 in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def comparable_with(self, other: SchemaText) -> bool:
        """Whether a difference between the two is one of the schemas: pg_dump's own words change."""
        return self.pg_dump_version == other.pg_dump_version

    def compress(self) -> bytes:
        """The text for storing; `decompress` reads it."""
        return zlib.compress(self.text.encode(), 9)

    @classmethod
    def decompress(cls, data: bytes, pg_dump_version: str) -> SchemaText:
        """The schema text that `compress` stored. Raises zlib.error for damaged data."""
        return cls(zlib.decompress(data).decode(), pg_dump_version)

    @cached_property
    def objects(self) -> dict[str, list[str]]:
        """The lines that define each object, by its name (`table public.a`)."""
        objects: dict[str, list[str]] = {}
        for line in self.text.split("\n"):
            if line.startswith("  "):
                objects[next(reversed(objects))].append(line[2:])
            elif line:
                objects[line] = []
        return objects


@dataclass(frozen=True)
class Difference:
    """How two schemas differ. `order_only`: the same columns in another order, which is no failure."""

    text: str
    order_only: bool
    equal: bool


# --- writing the text ----------------------------------------------------------------------------


def schema_text(
    conninfo: str,
    schemas: Sequence[str],
    *,
    exclude_tables: Sequence[str] = (),
    pg_dump: Path | None = None,
    lock_wait_ms: int = 5000,
) -> SchemaText:
    """The canonical text of these schemas in the database that `conninfo` (URL or key=value) names.

    `exclude_tables` holds names like `public.schema_migrations`; schema `dbops` is always left out.
    Raises Blocked for a lock that is not granted in `lock_wait_ms`, MissingToolError where no pg_dump
    fits, CannotConnect.
    """
    with connect(conninfo, "fingerprint") as conn, translated(), conn.transaction():
        conn.execute(queries()["fingerprint_path"])
        major = conn.info.server_version // 10000
        asked = {"schemas": [s for s in schemas if s != "dbops"], "exclude": list(exclude_tables)}
        present = [row[0] for row in conn.execute(queries()["fingerprint_schemas"], asked)]
        excluded = [(row[0], row[1]) for row in conn.execute(queries()["fingerprint_excluded"], asked)]
        known = asked | {"schemas": present, "excluded": [row[0] for row in excluded]}
        rows = conn.execute(queries()["fingerprint_catalog"], known).fetchall()
        blocks = [(str(place), str(name), [str(line)]) for place, name, line in rows]
        program = _fit(pg_dump, major) if pg_dump else find_pg_dump(major)
        names = [pattern for _, pattern in excluded]
        dump, version = _dump(conn, program, present, names, lock_wait_ms) if present else ("", _version(program))
    return SchemaText(canonical([*_blocks(dump), *blocks]), version)


Block = tuple[str, str, list[str]]
"""An object of a schema: its place in the order, its name, its lines."""


def canonical(blocks: Iterable[Block]) -> str:
    """The text of objects in a stable order."""
    parts: list[str] = []
    before = ""
    for _, name, lines in sorted(blocks):
        if name != before:
            parts.append(name)
        before = name
        parts += [f"  {line}" for line in lines]
    return "".join(f"{part}\n" for part in parts)


def _dump(
    conn: Connection, program: Path, schemas: Sequence[str], exclude: Sequence[str], lock_wait_ms: int
) -> tuple[str, str]:
    """pg_dump's output and version. All that is secret goes by the environment."""
    parameters, environment = connection_of(conn)
    arguments = ["--schema-only", "--no-password", "--encoding=UTF8", f"--lock-wait-timeout={lock_wait_ms}"]
    arguments += [f"--schema={_pattern(schema)}" for schema in schemas]
    arguments += [f"--exclude-table={pattern}" for pattern in exclude]
    done = subprocess.run(
        [program, *arguments, f"--dbname={parameters}"], env=environment, capture_output=True, check=False
    )
    if done.returncode:
        raise _failed(redact(done.stderr.decode(errors="replace").strip()))
    text = done.stdout.decode("utf-8", "backslashreplace")
    version = _DUMPED_BY.search(text)
    return text, version[1] if version else _version(program)


def connection_of(conn: Connection) -> tuple[str, dict[str, str]]:
    """A conninfo without secrets for the connection's server, and an environment that holds them.

    Every parameter is given, and none is left to a service file: it would win over the environment.
    """
    from psycopg import conninfo

    given = {
        option.keyword.decode(): option.val.decode()
        for option in conn.pgconn.info
        if option.val and option.val != option.compiled and option.dispchar != b"*" and option.keyword != b"service"
    }
    # what the conninfo leaves out is meant to be libpq's default: PGHOSTADDR would win over a host
    known = {option.envvar.decode() for option in conn.pgconn.info if option.envvar} | {"PGSERVICE", "PGSERVICEFILE"}
    environment = {key: value for key, value in os.environ.items() if key not in known}
    if conn.info.password:
        environment["PGPASSWORD"] = conn.info.password
    environment["PGTZ"] = "UTC"  # constants of type timestamptz are printed in the session's zone
    return conninfo.make_conninfo("", **given), environment


def _pattern(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _failed(message: str) -> DbopsError:
    if "timeout" in message and "LOCK TABLE" in message:
        return Blocked(
            f"pg_dump waited too long for a lock: {message}",
            hint="another session holds a table exclusively; try again when it is done. Nothing was changed",
        )
    return DbopsError(f"pg_dump failed: {message}", hint="nothing was changed")


def _blocks(dump: str) -> Iterator[Block]:
    """The objects of a dump, without policies, with grants sorted."""
    head, *parts = _HEADER.split(dump.removesuffix("\n").rsplit(_END, 1)[0])
    _, method = _lines(head)
    for name, kind, schema, space, body in zip(*(parts[i::5] for i in range(5)), strict=True):
        lines, next_method = _lines(body)
        if kind in ("TABLE", "MATERIALIZED VIEW") and method != "heap":
            lines.append(f"-- access method {method}")
        if space:
            lines.append(f"-- tablespace {space}")
        if not (kind == "POLICY" or (kind == "COMMENT" and name.startswith("POLICY "))):
            yield _block(name, kind, schema, lines)
        method = next_method or method


def _block(name: str, kind: str, schema: str, lines: list[str]) -> Block:
    if kind in ("ACL", "COMMENT", "SECURITY LABEL") and (about := _ABOUT.fullmatch(name)):
        kind, name = f"{kind} {about[1]}", about[2]
    qualified = name if schema == "-" else f"{schema}.{name}"
    place = qualified.split(" ")[0].split("(")[0]
    # grants come in the order in which they were made, and mean the same in any
    return place, f"{kind.lower()} {qualified}", sorted(lines) if "ACL" in kind else lines


def _lines(body: str) -> tuple[list[str], str]:
    """An object's lines, and the access method that pg_dump sets after it for the objects that follow."""
    lines, method = body.strip("\n").split("\n"), ""
    while lines and (not lines[-1] or _SETTING.fullmatch(lines[-1])):
        setting = _SETTING.fullmatch(lines.pop())
        if setting and "access_method" in setting[0]:
            method = setting[1]
    return lines, method


# --- comparing -----------------------------------------------------------------------------------


def compare(before: SchemaText, after: SchemaText) -> Difference:
    """How `after` differs from `before`, object by object, in the form of a unified diff."""
    if before.text == after.text:
        return Difference("", order_only=False, equal=True)
    old, new = before.objects, after.objects
    parts: list[str] = []
    order_only = True
    for name in [*old, *(name for name in new if name not in old)]:
        a, b = old.get(name), new.get(name)
        if a == b:
            continue
        reordered = a is not None and b is not None and _same_in_any_order(name, a, b)
        order_only = order_only and reordered
        parts.append(f"{name}: order differs" if reordered else _object_difference(name, a, b))
    return Difference("\n".join(parts), order_only=order_only, equal=False)


def _same_in_any_order(name: str, a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether a table's columns only moved: of every other object the order of its lines matters."""
    return name.startswith(_ANY_ORDER) and Counter(_bare(a)) == Counter(_bare(b))


def _bare(lines: Sequence[str]) -> list[str]:
    return [line.removesuffix(",") for line in lines]


def _object_difference(name: str, a: Sequence[str] | None, b: Sequence[str] | None) -> str:
    if a is None or b is None:
        mark, lines = ("+", b) if a is None else ("-", a)
        return "\n".join([f"{mark} {name}", *(f"    {mark} {line}" for line in lines or ())])
    old, new = _bare(a), _bare(b)
    if name.startswith(_ANY_ORDER):  # a column that moved is no news beside one that is gone
        both = Counter(old) & Counter(new)
        old, new = _without(old, both), _without(new, both)
    changes = [
        f"    {line[0]} {_worded(name, line[1:])}"
        for line in list(difflib.unified_diff(old, new, n=0, lineterm=""))[2:]
        if not line.startswith("@@")
    ]
    return "\n".join([f"{name}:", *changes])


def _without(lines: Sequence[str], known: Mapping[str, int]) -> list[str]:
    left = dict(known)
    kept = []
    for line in lines:
        if left.get(line, 0):
            left[line] -= 1
        else:
            kept.append(line)
    return kept


def _worded(name: str, line: str) -> str:
    """A line of a table's definition that is a column says so."""
    if name.startswith(_ANY_ORDER) and re.match(r" {4}\S", line) and not line.startswith("    CONSTRAINT "):
        return f"column {line.strip()}"
    return line.strip()


# --- finding pg_dump -----------------------------------------------------------------------------


def find_pg_dump(server_major: int) -> Path:
    """The newest pg_dump of at least the server's major version: on the PATH, installed, or embedded.

    Raises MissingToolError where there is none: pg_dump refuses a server that is newer than itself.
    """
    fitting = [path for path in _candidates(server_major) if _major(path) >= server_major]
    if not fitting:
        raise MissingToolError(
            f"no pg_dump for PostgreSQL {server_major} or newer was found",
            hint=f"install postgresql-client-{server_major}, or pg-dbops[embedded]; nothing was changed",
        )
    return max(fitting, key=_major)


def _candidates(server_major: int) -> Iterator[Path]:
    found = shutil.which("pg_dump")
    # Debian's is a wrapper in Perl around those in its own folders, which come next
    if found and Path(found).resolve().name == "pg_dump":
        yield Path(found)
    yield from sorted(_INSTALLED.glob("*/bin/pg_dump"))
    from dbops.embedded import binaries

    for major in range(_NEWEST_KNOWN, server_major - 1, -1):
        folder = binaries(major)
        if folder is not None and (folder / "pg_dump").exists():
            yield folder / "pg_dump"
            return


def _fit(program: Path, server_major: int) -> Path:
    if _major(program) < server_major:
        raise MissingToolError(
            f"{program} is version {_version(program)}, the server is PostgreSQL {server_major}",
            hint="pg_dump must be at least as new as the server; nothing was changed",
        )
    return program


def _major(program: Path) -> int:
    folder = program.parent.parent.name if program.is_relative_to(_INSTALLED) else ""
    return int(folder) if folder.isdigit() else int(re.split(r"\D", _version(program))[0] or 0)


@cache
def _version(program: Path) -> str:
    """The version that the program names. Raises MissingToolError where it does not run."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise MissingToolError(f"{program} does not run: {error}", hint="name another pg_dump") from None
    numbers = re.findall(r"\d[\w.]*", done.stdout)
    return str(numbers[0]) if numbers else "0"
