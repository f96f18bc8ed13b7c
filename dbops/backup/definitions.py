"""The schema of a backup: pg_dump's own words under the exported snapshot, the same bytes for the same schema."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from typing import Literal

from dbops.backup.source import Moved, Snapshot
from dbops.database import redact
from dbops.errors import DbopsError
from dbops.fingerprint import connection_of, find_pg_dump

Section = Literal["pre-data", "post-data"]
# a guard against commands of psql's in the text, with a new random word each time
_RESTRICT = re.compile(rb"^\\(?:un)?restrict \w+\n+", re.MULTILINE)
_DUMPED_BY = re.compile(rb"^-- Dumped by pg_dump version (\S+)", re.MULTILINE)
# what pg_dump says where a DDL of another session came before its own locks
_MOVED = re.compile(r"lock timeout|could not obtain lock|cache lookup failed|does not exist|could not find")


def definitions(
    snapshot: Snapshot, section: Section, exclude_schemas: Sequence[str], encoding: str, lock_wait_ms: int
) -> bytes:
    """One section of the schema as SQL. Raises Moved, MissingToolError, DbopsError with pg_dump's words.

    Large objects are left out: their ids and contents go with the rows.
    """
    conn = snapshot.conn
    program = find_pg_dump(snapshot.server.major)
    place, environment = connection_of(conn)
    arguments = [f"--section={section}", f"--snapshot={snapshot.id}", f"--lock-wait-timeout={lock_wait_ms}"]
    arguments += ["--no-password", "--no-blobs", f"--encoding={encoding}"]
    arguments += [f'--exclude-schema="{schema.replace(chr(34), chr(34) * 2)}"' for schema in exclude_schemas]
    done = subprocess.run([program, *arguments, f"--dbname={place}"], env=environment, capture_output=True, check=False)
    if done.returncode:
        message = redact(done.stderr.decode(errors="replace").strip())
        if _MOVED.search(message):
            raise Moved(message)
        raise DbopsError(f"pg_dump failed: {message}", hint="no backup was written; the database is untouched")
    return _RESTRICT.sub(b"", done.stdout)


def pg_dump_version(text: bytes) -> str:
    """The version of the pg_dump that wrote the text, or ""."""
    match = _DUMPED_BY.search(text)
    return match[1].decode() if match else ""
