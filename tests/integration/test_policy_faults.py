"""Each planted fault is found by name, its script shows it, and its clean twin is isolated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from dbops.policy.attack import attack
from dbops.policy.attack.result import Report
from dbops.policy.catalog import load_catalog
from tests.policy_faults import FAULTS, PRELUDE, Fault

Connection = psycopg.Connection[Any]


def attacked(conn: Connection, schema: str, fault: Fault) -> Report:
    conn.execute(PRELUDE.encode())
    conn.execute(schema.encode())
    return attack(conn, fault.definitions, load_catalog(conn), server_version="test", server_kind="test")


@pytest.fixture
def conn(empty_db: Connection) -> Iterator[Connection]:
    yield empty_db
    made = {role for fault in FAULTS for role in fault.roles}
    for (role,) in empty_db.execute("select rolname from pg_roles where rolname = any (%s)", [sorted(made)]).fetchall():
        name = sql.Identifier(role)
        empty_db.execute(sql.SQL("reassign owned by {} to current_user").format(name))
        empty_db.execute(sql.SQL("drop owned by {}").format(name))
        empty_db.execute(sql.SQL("drop role {}").format(name))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found_by_name(fault: Fault, conn: Connection) -> None:
    report = attacked(conn, fault.faulty, fault)
    assert report.verdict == "leaks"
    found = [leak for leak in report.leaks if (leak.verb, leak.via, leak.actor) == (fault.verb, fault.via, fault.actor)]
    assert found, report.leaks
    assert found[0].sql.startswith("BEGIN;\n")
    assert found[0].sql.endswith(";\nROLLBACK;\n")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_its_clean_twin_is_isolated(fault: Fault, conn: Connection) -> None:
    report = attacked(conn, fault.clean, fault)
    assert report.leaks == ()
    assert report.vacuous == ()
    assert report.verdict == "isolated"
    assert report.attacks > 20
