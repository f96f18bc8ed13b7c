"""The classification of statements, held against what real servers refuse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.transaction_corpus import INSIDE, OUTSIDE

REFUSED = "25001"

SETUP = """
create type mood as enum ('bad');
create table t (id int, a int);
create index t_a on t (a);
create table parted (id int) partition by range (id);
create table part partition of parted for values from (1) to (2);
create subscription sub connection 'dbname=x' publication p with (connect = false, slot_name = 'sub');
"""


@pytest.fixture
def prepared(empty_db: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    """A database in which every statement of the corpus finds what it names."""
    empty_db.execute("set client_min_messages = error")
    empty_db.execute(SETUP)
    yield empty_db
    # a subscription would keep the database from being dropped
    empty_db.execute(
        "alter subscription sub disable; alter subscription sub set (slot_name = none); drop subscription sub"
    )


def refused(conn: psycopg.Connection[Any], sql: str) -> bool:
    """Whether the server refuses the statement because it stands in a transaction; nothing of it remains."""
    conn.execute("begin")
    if sql.startswith("alter subscription") and "publication" in sql:
        # a refresh wants it enabled; its worker would start at the commit that never comes
        conn.execute("alter subscription sub enable")
    try:
        conn.execute(sql.encode())
    except psycopg.Error as error:
        return error.sqlstate == REFUSED
    finally:
        conn.execute("rollback")
    return False


def test_what_is_said_to_be_refused_is_refused(prepared: psycopg.Connection[Any]) -> None:
    major = prepared.info.server_version // 10000
    expected = {sql: major >= since for sql, since in OUTSIDE.items()}
    assert {sql: refused(prepared, sql) for sql in OUTSIDE} == expected


def test_what_is_said_to_be_taken_is_taken(prepared: psycopg.Connection[Any]) -> None:
    assert [sql for sql in INSIDE if refused(prepared, sql)] == []
