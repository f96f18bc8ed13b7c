"""The proof catches what other tools let pass, and says so when it could not look."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from dbops.config import Settings
from dbops.errors import Irreversible, UsageError
from dbops.migrate import MigrationManager

from .conftest import Project

USERS = (
    "create table users (id bigint generated always as identity primary key, name text, age int not null, note text);"
)


@pytest.fixture
def users(project: Project) -> Project:
    project.write(1, USERS, "drop table users;")
    return project


def test_a_clean_migration_is_proven(users: Project) -> None:
    users.write(
        2,
        "alter table users add email text; create index on users (name);",
        "drop index users_name_idx; alter table users drop email;",
    )
    proof = users.manager.prove()
    assert proof.proven == ("20250101_000001", "20250101_000002")
    assert (proof.failed, proof.not_proven, proof.irreversible) == ((), (), ())


def test_a_rename_whose_down_drops_and_adds_fails_though_the_schema_is_equal(users: Project) -> None:
    users.write(
        2, "alter table users rename note to remark;", "alter table users drop remark; alter table users add note text;"
    )
    (failure,) = users.manager.prove().failed
    assert (failure.version, failure.step) == ("20250101_000002", "rows after down")
    assert "users" in failure.diff


def test_declared_loss_is_allowed(users: Project) -> None:
    users.write(
        2, "-- migrate:loses the notes are of no use\nalter table users drop note;", "alter table users add note text;"
    )
    proof = users.manager.prove()
    assert "20250101_000002" in proof.proven
    assert any("the notes are of no use" in note.reason for note in proof.notes)


def test_undeclared_loss_fails(users: Project) -> None:
    users.write(2, "alter table users drop note;", "alter table users add note text;")
    assert [f.step for f in users.manager.prove().failed] == ["rows after down"]


def test_a_migration_that_works_on_empty_tables_only_fails(users: Project) -> None:
    users.write(2, "alter table users add country text not null;", "alter table users drop country;")
    (failure,) = users.manager.prove().failed
    assert failure.step == "up"
    assert "null values" in failure.diff


def test_a_down_that_forgets_something_fails_with_a_diff(users: Project) -> None:
    users.write(2, "create table a (id int primary key); create index on users (age);", "drop table a;")
    (failure,) = users.manager.prove().failed
    assert failure.step == "schema after down"
    assert "users_age_idx" in failure.diff


def test_a_down_that_fails_on_rows_made_after_up(users: Project) -> None:
    users.write(
        2,
        "create table tags (id int primary key, label text); alter table users add tag int references tags;",
        "do $$ begin if exists (select from tags) then raise 'tags are in use'; end if; end $$; "
        "alter table users drop tag; drop table tags;",
    )
    (failure,) = users.manager.prove().failed
    assert failure.step == "down with new rows"


def test_columns_that_move_are_noted_not_failed(project: Project) -> None:
    project.write(1, "create table t (a int primary key, b int default 1, c int);", "drop table t;")
    project.write(2, "-- migrate:loses b is derived\nalter table t drop b;", "alter table t add b int default 1;")
    proof = project.manager.prove()
    assert "20250101_000002" in proof.proven
    assert any("order of columns" in note.reason for note in proof.notes)


def test_no_down_part_is_irreversible_not_ok(users: Project) -> None:
    users.write(2, "alter table users add x int;")
    proof = users.manager.prove(["20250101_000002"])
    assert proof.proven == ()
    assert [r.version for r in proof.irreversible] == ["20250101_000002"]


def test_an_extension_that_is_not_there_is_named(project: Project) -> None:
    project.write(
        1, "-- migrate:requires extension no_such_extension\ncreate extension no_such_extension;", "select 1;"
    )
    project.write(2, "create table t (id int primary key);", "drop table t;")
    proof = project.manager.prove()
    assert proof.proven == ("20250101_000002",)
    assert "no_such_extension" in proof.not_proven[0].reason


def test_what_depends_on_a_skipped_migration_is_not_proven_rather_than_failed(project: Project) -> None:
    project.write(
        1, "-- migrate:requires extension no_such_extension\ncreate table t (id int primary key);", "drop table t;"
    )
    project.write(2, "alter table t add x int;", "alter table t drop x;")
    proof = project.manager.prove()
    assert (proof.proven, proof.failed) == ((), ())
    assert {r.version for r in proof.not_proven} == {"20250101_000001", "20250101_000002"}


def test_a_table_that_cannot_be_filled_is_not_proven(project: Project) -> None:
    project.write(
        1,
        "create table t (id int primary key, check (id is null)); create table u (id int primary key);",
        "drop table t, u;",
    )
    project.write(2, "alter table t add x int;", "alter table t drop x;")
    project.write(3, "alter table u add x int;", "alter table u drop x;")
    proof = project.manager.prove()
    assert proof.proven == ("20250101_000003",)
    assert any("could not be filled" in r.reason for r in proof.not_proven)


def test_another_server_version_is_said_aloud(users: Project) -> None:
    users.settings = replace(users.settings, url=None, scratch_url=users.settings.scratch_url, postgres_version=12)
    proof = MigrationManager(settings=users.settings).prove()
    assert any(r.version == "*" and "the target is 12" in r.reason for r in proof.not_proven)


def test_step_by_step_migrations_are_proven_too(users: Project) -> None:
    users.write(2, "create index concurrently users_name on users (name);", "drop index concurrently users_name;")
    users.write(3, "create type mood as enum ('sad'); create table m (x mood);", "drop table m; drop type mood;")
    users.write(4, "alter type mood add value 'ok'; alter table m alter x set default 'ok';")
    proof = users.manager.prove()
    assert proof.failed == ()
    assert proof.proven == ("20250101_000001", "20250101_000002", "20250101_000003")


def test_roles_that_migrations_make_are_gone_afterwards(project: Project) -> None:
    project.write(
        1,
        "create role dbops_test_role; create table t (id int primary key);",
        "drop table t; drop role dbops_test_role;",
    )
    assert project.manager.prove().proven == ("20250101_000001",)
    with psycopg.connect(str(project.settings.scratch_url)) as conn:
        assert conn.execute("select 1 from pg_roles where rolname = 'dbops_test_role'").fetchone() is None


def test_pending_and_named_ones(users: Project) -> None:
    users.manager.migrate_up()
    users.write(2, "alter table users add x int;", "alter table users drop x;")
    assert users.manager.prove(pending=True).proven == ("20250101_000002",)
    assert users.manager.prove(["20250101_000001"]).proven == ("20250101_000001",)
    with pytest.raises(UsageError, match="there is no migration 7"):
        users.manager.prove(["7"])


def test_the_memory_schema_is_proven(empty_url: str, server: object) -> None:
    folder = Path(__file__).parents[2] / "migrations" / "sql"
    settings = Settings(url=empty_url, migrations=folder, scratch_url=server.url)  # type: ignore[attr-defined]
    proof = MigrationManager(settings=settings).prove()
    assert len(proof.proven) == 10
    assert (proof.failed, proof.not_proven, proof.irreversible) == ((), (), ())


def test_down_of_one_in_the_middle_only_when_the_newer_do_not_depend_on_it(users: Project) -> None:
    users.write(2, "create table a (id int primary key);", "drop table a;")
    users.write(3, "create table b (id int primary key);", "drop table b;")
    users.write(4, "alter table b add y int;", "alter table b drop y;")
    users.manager.migrate_up()
    assert users.manager.rollback_migration("20250101_000002").versions == ("20250101_000002",)
    with pytest.raises(Irreversible, match="newer migrations depend on it"):
        users.manager.rollback_migration("20250101_000003")
    assert len(users.manager.get_migration_status().applied) == 3
