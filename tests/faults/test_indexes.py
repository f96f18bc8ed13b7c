"""Invalid indexes, whoever left them: never taken for good."""

from __future__ import annotations

import psycopg
import pytest
from tools import FIRST, MIGRATIONS, Target

from dbops.errors import StatementFailed

pytestmark = pytest.mark.fault


def prepare(target: Target, statement: str) -> None:
    """Two persons of one name, and a migration with the statement as its second step."""
    script = f"-- migrate:up\ninsert into journal values ('first');\n{statement};\n"
    target.write({FIRST: MIGRATIONS[FIRST], "20250101_000002_names.sql": script})
    target.manager().migrate_up(count=1)
    target.sql("insert into person values (1000, 'name 1', '')")


def invalid(target: Target) -> list[str]:
    return [name for name, valid in target.state()["indexes"] if not valid]


def test_left_by_somebody_else(target: Target) -> None:
    prepare(target, "create unique index concurrently if not exists person_name on person (name)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        target.sql("create unique index concurrently person_name on person (name)")
    assert invalid(target) == ["person_name"]
    target.sql("delete from person where id = 1000")
    told: list[str] = []
    target.manager(lambda event: told.append(event.what)).migrate_up()
    assert "rebuilt" in told
    assert ("person_name", True) in target.state()["indexes"]
    assert invalid(target) == []


@pytest.mark.parametrize("name", ["person_name", ""], ids=["named", "unnamed"])
def test_a_build_that_fails(target: Target, name: str) -> None:
    prepare(target, f"create unique index concurrently {name} on person (name)")
    with pytest.raises(StatementFailed) as caught:
        target.manager().migrate_up()
    assert "20250101_000002_names.sql:3: could not create unique index" in caught.value.message
    assert "(name)=(name 1) is duplicated" in caught.value.message
    assert "`up` resumes there" in caught.value.hint
    assert invalid(target) == []
    assert target.state()["versions"] == [("20250101_000001",)]
    target.sql("delete from person where id = 1000")
    target.manager().migrate_up()
    assert target.journal() == ["1 up", "first"]
    assert any(name.startswith("person_name") for name, valid in target.state()["indexes"] if valid)
    assert target.state()["steps"] == []


def test_reindex_of_every_kind(target: Target) -> None:
    kinds = {"index": "person_old", "table": "person", "schema": "public"}
    steps = "".join(f"reindex {kind} concurrently {name};\n" for kind, name in kinds.items())
    target.write({FIRST: MIGRATIONS[FIRST], "20250101_000002_again.sql": f"-- migrate:up\n{steps}"})
    target.manager().migrate_up()
    assert invalid(target) == []
    assert len(target.state()["versions"]) == 2
