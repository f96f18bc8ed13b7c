"""Every reverse of the corpus, proven on real servers: up, down, up, with the schema compared each time.

All entries of a server share one database, each in a schema of its own: pg_dump is what costs time here.
"""

from __future__ import annotations

import difflib
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from dbops.fingerprint import connection_of, find_pg_dump
from dbops.migrate.parse import parse
from dbops.migrate.reverse import reverse

CORPUS = Path(__file__).parents[1] / "unit" / "reverse_corpus.toml"
ENTRIES: list[dict[str, Any]] = tomllib.loads(CORPUS.read_text())["reversed"]
_HEADER = re.compile(r"^--\n-- Name: (.*?); Owner: .*\n--\n", re.MULTILINE)
_NOT_IN_A_DUMP = """
    SELECT 'role ' || rolname || ' ' || rolinherit || rolcanlogin || rolconnlimit FROM pg_roles
    UNION ALL SELECT format('member %s %s %s', roleid::regrole, member::regrole, admin_option) FROM pg_auth_members
    UNION ALL SELECT format('setting %s %s', setrole::regrole, setconfig) FROM pg_db_role_setting
    UNION ALL SELECT 'invalid ' || indexrelid::regclass FROM pg_index WHERE NOT indisvalid
"""

Connection = psycopg.Connection[Any]


def schema_of(conn: Connection) -> list[str]:
    """All objects in the database, policies and what has no schema too; in a stable order."""
    parameters, environment = connection_of(conn)
    program = find_pg_dump(conn.info.server_version // 10000)
    command = [program, "--schema-only", f"--dbname={parameters}"]
    dump = subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout
    _, *parts = _HEADER.split(dump.split("-- PostgreSQL database dump complete")[0])
    objects = [
        # grants mean the same in any order
        f"{name}\n" + "\n".join(sorted(body.splitlines()) if "ACL" in name else body.splitlines())
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    ]
    return sorted(objects) + sorted(row[0] for row in conn.execute(_NOT_IN_A_DUMP))


def of_entry(number: int, objects: list[str]) -> list[str]:
    """Those of one entry: in its schema, or named as things without a schema are named in the corpus."""
    globals_ = re.findall(r"\breverse_\w+|EXTENSION \w+", ENTRIES[number]["up"])
    named = "|".join(rf"\b{name}\b" for name in (f"entry_{number}", *globals_))
    return [one for one in objects if re.search(named, one)]


def run(conn: Connection, entry: dict[str, Any], text: str) -> None:
    """Each statement by itself, in the entry's schema: some of them refuse a transaction."""
    schema = f"entry_{ENTRIES.index(entry)}"
    conn.execute(sql.SQL("SET search_path = {}, public").format(sql.Identifier(schema)))
    for statement in parse(text):
        try:
            conn.execute(statement.sql.encode())
        except psycopg.Error as error:
            pytest.fail(f"{entry['name']}: {statement.sql}\n{error}")
    conn.execute("RESET ALL")


def down_of(entry: dict[str, Any]) -> str:
    reversal = reverse(parse(entry["up"]))
    assert not reversal.irreversible, entry["name"]
    return reversal.sql


def same(expected: list[str], found: list[str]) -> None:
    old, new = ("\n".join(objects).splitlines() for objects in (expected, found))
    difference = "\n".join(difflib.unified_diff(old, new, lineterm="", n=4))
    assert not difference, difference


@pytest.fixture
def prepared(empty_db: Connection) -> Iterator[Connection]:
    """A database with the setup of every entry."""
    empty_db.add_notice_handler(lambda _: None)
    known = {row[0] for row in empty_db.execute("SELECT rolname FROM pg_roles")}
    for number, entry in enumerate(ENTRIES):
        empty_db.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(f"entry_{number}")))
        run(empty_db, entry, entry.get("setup", ""))
    yield empty_db
    made = [row[0] for row in empty_db.execute("SELECT rolname FROM pg_roles") if row[0] not in known]
    for role in map(sql.Identifier, made):
        empty_db.execute(sql.SQL("DROP OWNED BY {}").format(role))
        empty_db.execute(sql.SQL("DROP ROLE {}").format(role))


def test_every_reverse_is_proven(prepared: Connection) -> None:
    before = schema_of(prepared)
    for entry in ENTRIES:
        run(prepared, entry, entry["up"])
    up = schema_of(prepared)
    for entry in reversed(ENTRIES):
        run(prepared, entry, down_of(entry))
    same(before, schema_of(prepared))
    for entry in ENTRIES:
        run(prepared, entry, entry["up"])
    same(up, schema_of(prepared))
    # an entry that changes nothing that is compared would prove nothing
    unseen = [e["name"] for n, e in enumerate(ENTRIES) if of_entry(n, before) == of_entry(n, up)]
    assert unseen == [e["name"] for e in ENTRIES if e.get("hidden")]
