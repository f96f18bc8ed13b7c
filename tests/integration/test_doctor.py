"""Each check of the doctor finds the fault that is planted, not what stands beside it, and its fix mends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from dbops.config import Settings
from dbops.hygiene.doctor import Report, checks, examine
from dbops.hygiene.doctor.model import SEVERITIES
from dbops.policy import PolicyManager
from tests.integration.doctor_plants import CATALOG, Plant

# what is true of a scratch server, which needs no safety
SCRATCH = ["unsafe-settings"]
# tested one by one: they need sessions, slots, a server of their own (test_doctor_server.py)
ELSEWHERE = {
    "backup-age", "blocked-session", "cache-hits", "collation-version", "connections", "database-collation",
    "idle-transaction", "long-transaction", "prepared-transaction", "replication-slot", "unsafe-settings",
    "vector-operator-class",
}  # fmt: skip


def told(report: Report) -> list[tuple[str, str]]:
    return sorted((each.severity, each.object) for each in report.findings)


def run(url: str, sql: str) -> None:
    """Statement by statement: VACUUM stands in no transaction."""
    from dbops.migrate.parse import parse

    with psycopg.connect(url, autocommit=True) as conn:
        for statement in parse(sql):
            conn.execute(statement.sql.encode())


def test_every_check_has_a_fault_to_find() -> None:
    assert {plant.check for plant in CATALOG} | ELSEWHERE == set(checks())


@pytest.mark.parametrize("plant", CATALOG, ids=lambda plant: f"{plant.check} {plant.name}".strip())
def test_a_planted_fault(plant: Plant, make_database: Callable[..., str]) -> None:
    url = make_database(plant.kind)

    def look() -> Report:
        report = examine(url, only=[plant.check], limits=plant.limits)
        assert report.not_checked == ()
        return report

    if plant.beside:
        run(url, plant.beside)
    assert told(look()) == []
    if plant.sql:
        run(url, plant.sql)
    report = look()
    assert told(report) == list(plant.told)
    if plant.mends:
        for finding in report.findings:
            assert not finding.fix.startswith("--")
            run(url, finding.fix)
        assert told(look()) == []
    else:
        assert all(finding.fix for finding in report.findings)


@pytest.mark.parametrize("kind", ["empty", "memory"])
def test_a_healthy_database(kind: str, make_database: Callable[..., str]) -> None:
    url = make_database(kind)
    if kind == "memory":
        report = examine(url, skip=SCRATCH)
        assert {each.check for each in report.findings} == {"foreign-key-index", "rls-without-policy"}
        assert report.worst() == "info"
        PolicyManager(settings=Settings(url=url)).apply()
    report = examine(url, skip=SCRATCH)
    assert [each for each in report.findings if each.severity != "info"] == []
    assert {each.check for each in report.findings} <= {"foreign-key-index"}
    barred = {each.check for each in report.not_checked}
    assert barred == ({"backup-age", "vector-operator-class"} if kind == "memory" else {"backup-age"})
    assert {*report.checked, *barred, *(each.check for each in report.not_applicable)} | {*SCRATCH} == set(checks())


def test_findings_come_the_gravest_first(make_database: Callable[..., str]) -> None:
    url = make_database()
    run(url, "create table t (a int); create table u (a int); create policy p on u using (true)")
    found = examine(url, skip=SCRATCH).findings
    assert [each.severity for each in found] == ["error", "warning", "warning"]
    assert [SEVERITIES.index(each.severity) for each in found] == sorted(
        SEVERITIES.index(each.severity) for each in found
    )


def test_names_that_need_quotes(make_database: Callable[..., str]) -> None:
    url = make_database()
    run(
        url,
        """create schema "S;'--"; create table "S;'--"."T ""x""%s{0}" ("Id %" int unique, r int references "S;'--"."T ""x""%s{0}" ("Id %"))""",
    )
    run(url, """insert into "S;'--"."T ""x""%s{0}" values (2000000000, 2000000000)""")
    report = examine(url, skip=SCRATCH)
    name = '''"S;'--"."T ""x""%s{0}"'''
    assert {each.object for each in report.findings} >= {name, f'{name}."Id %"'}
    assert [each for each in report.not_checked if each.check != "backup-age"] == []
    for finding in report.findings:
        if finding.check in ("foreign-key-index", "integer-key"):
            run(url, finding.fix)
    again = examine(url, skip=SCRATCH)
    assert {each.check for each in again.findings}.isdisjoint({"foreign-key-index", "integer-key"})


def test_many_findings_of_a_check_are_cut_and_counted(make_database: Callable[..., str]) -> None:
    url = make_database()
    run(url, "do $$ begin for i in 1 .. 230 loop execute format('create table t%s (a int)', i); end loop; end $$")
    found = examine(url, only=["primary-key"]).findings
    assert len(found) == 201
    assert "30 more" in {each.object for each in found}


def test_of_another_user(db: psycopg.Connection[Any]) -> None:
    """A chain in one user's memories is no affair of another's with the same ids."""
    ids = [f"00000000-0000-0000-0000-00000000000{n}" for n in range(1, 4)]
    db.execute("insert into auth.users (id) select unnest(%s::uuid[])", (ids[:2],))
    for user in ids[:2]:
        for each in ids:
            db.execute(
                "insert into user_memories (user_id, id, fact, memory_type, is_active) values (%s, %s, 'f', 'fact', %s)",
                (user, each, each == ids[0]),
            )
    db.execute("update user_memories set duplicate_of = %s where user_id = %s and id <> %s", (ids[0], ids[0], ids[0]))
    assert examine(db.info.dsn, only=["duplicate-chain", "duplicate-cycle"]).findings == ()
