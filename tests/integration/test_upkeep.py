"""Drift, edited files, baselines, other tools' histories."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from dbops.errors import HistoryMismatch, Irreversible, NotAllowed, StatementFailed, UsageError
from dbops.migrate import MigrationManager

from .conftest import Project

ONE, TWO = "20250101_000001", "20250101_000002"


@pytest.fixture
def applied(project: Project) -> Project:
    """Two migrations, applied."""
    project.write(1, "create table a (id int primary key);", "drop table a;")
    project.write(2, "create table b (id int primary key);", "drop table b;")
    project.manager.migrate_up()
    return project


def run_sql(project: Project, *statements: str) -> list[tuple[object, ...]]:
    with psycopg.connect(str(project.settings.url), autocommit=True) as conn:
        for statement in statements[:-1]:
            conn.execute(statement)
        cursor = conn.execute(statements[-1])
        return cursor.fetchall() if cursor.description else []


def test_no_drift_right_after_a_run_and_a_diff_after_a_change_by_hand(applied: Project) -> None:
    assert applied.manager.check().text == ""
    run_sql(applied, "alter table a add secret text")
    drift = applied.manager.check()
    assert drift.comparable
    assert "secret text" in drift.text


def test_policies_are_no_drift(applied: Project) -> None:
    run_sql(applied, "create policy p on a for select using (true)")
    assert applied.manager.check().text == ""


def test_another_pg_dump_cannot_compare(applied: Project) -> None:
    run_sql(applied, "update dbops.migration_runs set pg_dump_version = '9.6'")
    drift = applied.manager.check()
    assert not drift.comparable
    assert "cannot compare" in drift.reason


def test_without_a_run_there_is_nothing_to_compare_with(project: Project) -> None:
    assert not project.manager.check().comparable


def test_a_comment_edit_warns_and_a_real_one_stops_with_a_diff(applied: Project) -> None:
    applied.write(1, "-- the first\ncreate   table a (id int primary key);", "drop table a;")
    status = applied.manager.get_migration_status()
    assert (status.reformatted, status.changed) == ((ONE,), ())
    applied.write(3, "create table c (id int);")
    applied.manager.migrate_up()
    applied.write(1, "create table a (id bigint primary key);", "drop table a;")
    assert applied.manager.get_migration_status().changed == (ONE,)
    applied.write(4, "create table d (id int);")
    with pytest.raises(HistoryMismatch, match=ONE) as stopped:
        applied.manager.migrate_up()
    assert stopped.value.exit_code == 12
    assert "+create table a (id bigint primary key);" in applied.manager.edit_diff(ONE)
    assert run_sql(applied, "select to_regclass('d')") == [(None,)]


def test_repair_accepts_an_edit_on_the_record(applied: Project) -> None:
    applied.write(1, "create table a (id bigint primary key);", "drop table a;")
    assert applied.manager.repair() == (ONE,)
    assert applied.manager.get_migration_status().changed == ()
    newest = applied.manager.history(1)[0]
    assert (newest.command, newest.versions) == ("repair", [ONE])
    assert "+create table a (id bigint primary key);" in newest.note


def test_repair_of_a_file_that_was_not_edited(applied: Project) -> None:
    with pytest.raises(UsageError, match="not edited"):
        applied.manager.repair([TWO])


def test_an_edit_of_the_down_part_alone_is_no_change_and_is_used(applied: Project) -> None:
    applied.write(2, "create table b (id int primary key);", "drop table b; create table down_ran (id int);")
    assert applied.manager.get_migration_status().changed == ()
    applied.manager.migrate_down()
    assert run_sql(applied, "select to_regclass('down_ran')::text") == [("down_ran",)]


def test_rollback_from_a_checkout_that_lacks_the_file(applied: Project) -> None:
    (applied.folder / f"{TWO}_m.sql").unlink()
    assert applied.manager.get_migration_status().missing == (TWO,)
    assert applied.manager.rollback_migration(TWO).versions == (TWO,)
    assert run_sql(applied, "select to_regclass('b')") == [(None,)]


def test_baseline(project: Project) -> None:
    run_sql(project, "create table a (id int primary key)")
    project.write(1, "create table a (id int primary key);", "drop table a;")
    project.write(2, "alter table a add x int;")
    assert project.manager.baseline(ONE) == (ONE,)
    assert [r.kind for r in project.manager.get_migration_status().applied] == ["baseline"]
    assert project.manager.migrate_up().versions == (TWO,)
    with pytest.raises(UsageError, match="recorded already"):
        project.manager.baseline(TWO)


def test_the_record_is_closed_to_others(applied: Project) -> None:
    rows = run_sql(
        applied,
        "create role api_role nologin",
        "select relname::text, relrowsecurity, has_table_privilege('api_role', oid, 'select') from pg_class "
        "where relname in ('schema_migrations', 'migration_runs', 'migration_steps') and relkind = 'r' order by 1",
    )
    run_sql(applied, "drop role api_role")
    assert rows == [
        ("migration_runs", True, False),
        ("migration_steps", True, False),
        ("schema_migrations", True, False),
    ]


def test_default_privileges_do_not_open_the_record(project: Project) -> None:
    project.write(1, "select 1;")
    run_sql(
        project, "create role loose nologin", "alter default privileges in schema public grant all on tables to loose"
    )
    project.manager.migrate_up()
    rows = run_sql(project, "select has_table_privilege('loose', 'schema_migrations', 'select')")
    run_sql(project, "alter default privileges in schema public revoke all on tables from loose", "drop role loose")
    assert rows == [(False,)]


def test_a_table_of_another_name_and_schema(project: Project) -> None:
    project.settings = replace(project.settings, table='ops.applied "ones"')
    project.write(1, "create table a (id int);", "drop table a;")
    project.manager.migrate_up()
    assert run_sql(project, 'select version from ops."applied ""ones"""') == [(ONE,)]
    assert project.manager.migrate_down().versions == (ONE,)


DBMATE = """
create table schema_migrations (version varchar(128) primary key);
insert into schema_migrations values ('20250101000001')"""
GOLANG = """
create table schema_migrations (version bigint primary key, dirty boolean not null);
insert into schema_migrations values (2, false)"""
FLYWAY = """
create table flyway_schema_history (
  installed_rank int primary key, version varchar(50), description varchar(200), type varchar(20), script varchar(1000),
  checksum int, installed_by varchar(100), installed_on timestamp default now(), execution_time int, success bool);
insert into flyway_schema_history values (1, '1.1', 'a', 'SQL', 'V1.1__a.sql', 1, 'me', now(), 5, true)"""
SUPABASE = """
create schema supabase_migrations;
create table supabase_migrations.schema_migrations (version text primary key, statements text[], name text);
insert into supabase_migrations.schema_migrations values
  ('20250101000001', array['create table a (id int)'], 'm'),
  ('20240101000000', array['create table gone (id int)', 'select 1'], 'gone')"""


def adopted(project: Project, sql: str) -> list[str]:
    run_sql(project, "create table a (id int)", sql)
    project.manager.adopt()
    return [record.version for record in project.manager.get_migration_status().applied]


def test_adopt_dbmate(project: Project) -> None:
    project.write("20250101000001", "create table a (id int);")
    project.write("20250101000002", "create table b (id int);")
    run_sql(project, DBMATE)
    with pytest.raises(HistoryMismatch, match="another tool") as found:
        project.manager.migrate_up()
    assert "dbops migrate adopt" in found.value.hint
    adoption = project.manager.adopt()
    assert (adoption.source.tool.name, adoption.rename_to) == ("dbmate", "schema_migrations_dbmate")
    assert project.manager.migrate_up().versions == ("20250101000002",)
    assert run_sql(project, "select version from schema_migrations_dbmate") == [("20250101000001",)]


def test_adopt_golang_migrate_and_its_cumulative_version(project: Project) -> None:
    for number in (1, 2, 3):
        (project.folder / f"{number:06}_m.up.sql").write_text(f"create table t{number} (id int);")
        (project.folder / f"{number:06}_m.down.sql").write_text(f"drop table t{number};")
    assert adopted(project, GOLANG) == ["000001", "000002"]
    assert project.manager.migrate_up().versions == ("000003",)


def test_a_dirty_golang_history_is_refused(project: Project) -> None:
    project.write("1", "select 1;")
    run_sql(project, GOLANG, "update schema_migrations set dirty = true")
    with pytest.raises(HistoryMismatch, match="dirty"):
        project.manager.adopt()
    assert run_sql(project, "select version, dirty from schema_migrations") == [(2, True)]


def test_adopt_flyway(project: Project) -> None:
    (project.folder / "V1.1__a.sql").write_text("create table a (id int);")
    (project.folder / "V1.10__b.sql").write_text("create table b (id int);")
    assert adopted(project, FLYWAY) == ["1.1"]
    assert project.manager.migrate_up().versions == ("1.10",)


def test_adopt_supabase_keeps_what_has_no_file(project: Project) -> None:
    (project.folder / "20250101000001_m.sql").write_text("create table a (id int);")
    assert adopted(project, SUPABASE) == ["20240101000000", "20250101000001"]
    status = project.manager.get_migration_status()
    assert (status.missing, status.changed) == (("20240101000000",), ())
    assert run_sql(project, "select count(*) from supabase_migrations.schema_migrations") == [(2,)]


def test_alembic_is_recognised_and_left_alone(project: Project) -> None:
    run_sql(project, "create table alembic_version (version_num varchar(32) primary key)")
    with pytest.raises(UsageError, match="Alembic"):
        project.manager.adopt()


def test_nothing_to_adopt(project: Project) -> None:
    with pytest.raises(UsageError, match="no history of another tool"):
        project.manager.adopt()


def test_a_migration_waits_for_its_extension_and_comes_late(project: Project) -> None:
    project.write(1, "create table a (id int);")
    path = project.write(2, "-- migrate:requires extension no_such_extension\ncreate table v (id int);")
    project.write(3, "create table c (id int);")
    assert project.manager.migrate_up().versions == (ONE, "20250101_000003")
    assert project.manager.get_migration_status().waiting[0].version == TWO
    path.write_text(path.read_text().replace("no_such_extension", "vector"))
    assert project.manager.migrate_up().versions == (TWO,)


def test_out_of_order_stops_and_can_be_allowed(project: Project) -> None:
    project.write(2, "create table b (id int);")
    project.manager.migrate_up()
    project.write(1, "create table a (id int);")
    with pytest.raises(HistoryMismatch, match=ONE):
        project.manager.migrate_up()
    assert project.manager.migrate_up(allow_out_of_order=True).versions == (ONE,)


def test_irreversible_ones_are_named_and_nothing_is_reversed(applied: Project) -> None:
    applied.write(3, "create table c (id int);")
    applied.manager.migrate_up()
    with pytest.raises(Irreversible, match="20250101_000003 m: it has no down part"):
        applied.manager.migrate_down(count=2)
    assert len(applied.manager.get_migration_status().applied) == 3


def test_a_plain_owner_under_forced_row_security_is_told_what_is_missing(applied: Project) -> None:
    run_sql(applied, "alter table a enable row level security", "alter table a force row level security")
    run_sql(applied, "create role plain login", "grant all on schema public, dbops to plain")
    run_sql(applied, "grant all on all tables in schema public, dbops to plain")
    for table in ("schema_migrations", "dbops.migration_runs", "dbops.migration_steps"):
        run_sql(applied, f"alter table {table} owner to plain")
    applied.write(3, "create table c (id int);")
    url = psycopg.conninfo.make_conninfo(str(applied.settings.url), user="plain")
    try:
        with pytest.raises(NotAllowed, match="row level security on a") as refused:
            MigrationManager(settings=replace(applied.settings, url=url)).migrate_up()
        assert 'ALTER ROLE "plain" BYPASSRLS' in refused.value.hint
        assert run_sql(applied, "select to_regclass('c')") == [(None,)]
    finally:
        run_sql(applied, "reassign owned by plain to current_user", "drop owned by plain", "drop role plain")


def test_a_role_that_may_select_and_no_more_gets_an_error_and_not_an_empty_history(applied: Project) -> None:
    run_sql(applied, "create role watcher login", "grant select on schema_migrations to watcher")
    url = psycopg.conninfo.make_conninfo(str(applied.settings.url), user="watcher")
    try:
        with pytest.raises(NotAllowed, match="row-level security") as refused:
            MigrationManager(settings=replace(applied.settings, url=url)).get_migration_status()
        assert "BYPASSRLS" in refused.value.hint
    finally:
        run_sql(applied, "drop owned by watcher", "drop role watcher")


def test_redo_applies_what_it_reversed_and_nothing_else(applied: Project) -> None:
    applied.write(4, "create table d (id int);", "drop table d;")
    applied.manager.migrate_up()
    applied.write(3, "create table c (id int);")
    assert applied.manager.migrate_redo().versions == ("20250101_000004",)
    assert run_sql(applied, "select to_regclass('c'), to_regclass('d')::text") == [(None, "d")]
    assert applied.manager.history(1)[0].versions == ["20250101_000004", "20250101_000004"]


def test_a_run_that_the_ledger_lacks_is_written_by_the_next(applied: Project) -> None:
    run_sql(applied, "delete from dbops.migration_runs")
    assert not applied.manager.check().comparable
    assert applied.manager.migrate_up().versions == ()
    assert applied.manager.check().comparable
    assert "written by a later run" in applied.manager.history(1)[0].note


def test_text_is_stored_as_written_whatever_the_clients_encoding(project: Project) -> None:
    project.settings = replace(project.settings, url=f"{project.settings.url} client_encoding=LATIN1")
    project.write(
        1, "set client_encoding = 'LATIN1'; create table t (name text); insert into t values ('Müller');", "select 'ü';"
    )
    project.manager.migrate_up()
    assert run_sql(project, "select length(name) from t") == [(6,)]
    assert run_sql(project, "select down_sql from schema_migrations") == [("select 'ü';\n",)]


def test_steps_of_one_that_is_stuck_can_be_given_up(project: Project) -> None:
    path = project.write(1, "create table a (id int); insert into nowhere values (1);", options=" transaction:false")
    with pytest.raises(StatementFailed, match="nowhere"):
        project.manager.migrate_up()
    path.write_text("-- migrate:up\ncreate table a (id int);\n")
    with pytest.raises(HistoryMismatch, match="begun step by step"):
        project.manager.migrate_up()
    assert project.manager.forget_steps(ONE) == 1
    run_sql(project, "drop table a")
    assert project.manager.migrate_up().versions == (ONE,)


def test_an_index_of_the_same_name_in_another_schema_does_not_hide_the_invalid_one(project: Project) -> None:
    run_sql(project, "create schema app", "create table app.o (id int)", "create index idx on app.o (id)")
    run_sql(project, "create table t (id int)", "insert into t values (1), (1)")
    project.settings = replace(project.settings, search_path="app, public")
    project.write(1, "create unique index concurrently idx on t (id);")
    with pytest.raises(StatementFailed, match="could not create unique index"):
        project.manager.migrate_up()
    run_sql(project, "delete from t")
    assert project.manager.migrate_up().versions == (ONE,)


def test_the_memory_schema_without_pgvector_applies_the_rest_and_says_so(project: Project) -> None:
    folder = Path(__file__).parents[2] / "migrations" / "sql"
    # pgvector is no trusted extension: to a role that is no superuser it cannot be had
    run_sql(project, "create role deployer login bypassrls createrole", "grant create on schema public to deployer")
    name = run_sql(project, "select current_database()::text")[0][0]
    run_sql(project, f'grant create on database "{name}" to deployer')
    url = psycopg.conninfo.make_conninfo(str(project.settings.url), user="deployer")
    try:
        manager = MigrationManager(settings=replace(project.settings, url=url, migrations=folder))
        outcome = manager.migrate_up()
        with_vectors = ["20250201_000002", "20250401_000009"]
        versions = sorted(file.name[:15] for file in folder.glob("*.sql"))
        assert [*outcome.versions] == [version for version in versions if version not in with_vectors]
        assert [w.version for w in outcome.plan.waiting] == with_vectors
        assert "extension vector" in outcome.plan.waiting[0].reason
        assert run_sql(project, "select to_regclass('memory_embeddings'), to_regclass('user_memories')::text") == [
            (None, "user_memories")
        ]
        # a superuser comes, and it is applied, late as it is
        later = MigrationManager(settings=replace(project.settings, migrations=folder)).migrate_up()
        assert [*later.versions] == with_vectors
    finally:
        run_sql(project, "reassign owned by deployer to postgres", "drop owned by deployer", "drop role deployer")
