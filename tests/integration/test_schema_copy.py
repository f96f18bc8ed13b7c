"""The copy of a schema in a scratch database: equal to its source, and what is missing is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dbops.embedded import Scratch, scratch
from dbops.errors import Blocked, UsageError
from dbops.fingerprint import schema_text
from dbops.schema_copy import _DUMP, _objects, copy_schema, relation_sizes

SCHEMA = """
create schema app;
create type app.mood as enum ('ok', 'sad');
create domain app.score as int check (value between 1 and 5);
create type app.pair as (a int, b text);
create function app.double(x int) returns int language sql immutable as 'select x * 2';
create table app.users (
  id bigint generated always as identity primary key, name text not null, mood app.mood default 'ok', score app.score,
  twice int generated always as (app.double(1)) stored
);
create table app.parts (id int, user_id bigint references app.users, at date not null) partition by range (at);
create table app.parts_1 partition of app.parts for values from ('2025-01-01') to ('2026-01-01');
create index on app.parts (user_id);
create view app.names as select name from app.users;
create materialized view app.counts as select count(*) from app.users;
create unique index counts_count on app.counts (count);
create function app.touch() returns trigger language plpgsql as $$
begin
  -- a comment; with a semicolon
  return new;
end $$;
create trigger touch before insert on app.users for each row execute function app.touch();
alter table app.users enable row level security;
alter table app.users force row level security;
create policy own on app.users using (name = current_user) with check (name = current_user);
create table "Odd ""name; Type: x" ("a b" int);
comment on table app.users is 'who';
create publication changes for table app.users;
insert into app.users (name) select 'u' || g from generate_series(1, 100) g;
"""


@pytest.fixture
def source(empty_url: str, empty_db: psycopg.Connection[Any]) -> str:
    empty_db.execute(SCHEMA.encode())
    return empty_url


@pytest.fixture
def copy_url(server: Scratch) -> Iterator[str]:
    with server.database() as url:
        yield url


def query(url: str, text: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as conn:
        cursor = conn.execute(text.encode())
        return cursor.fetchall() if cursor.description else []


def test_the_copy_has_the_sources_schema_and_no_rows(source: str, copy_url: str) -> None:
    copied = copy_schema(source, copy_url)

    assert copied.not_copied == ()
    assert schema_text(copy_url, ("app", "public")).text == schema_text(source, ("app", "public")).text
    assert query(copy_url, "select count(*) from app.users") == [(0,)]
    assert query(copy_url, "select count(*) from pg_policies") == [(1,)]
    assert query(copy_url, "select * from app.counts") == [(0,)]  # it was populated, with no rows to count


def test_the_memory_schema_is_copied(memory_url: str, copy_url: str) -> None:
    copied = copy_schema(memory_url, copy_url)

    assert copied.not_copied == ()
    assert schema_text(copy_url, ("public", "auth")).text == schema_text(memory_url, ("public", "auth")).text


def test_tables_can_be_left_out_and_what_needs_them_is_named(source: str, copy_url: str) -> None:
    copied = copy_schema(source, copy_url, exclude_tables=["app.users"])

    failed = {item.object: item.message for item in copied.failed}
    assert failed["view app.names"] == 'relation "app.users" does not exist'
    assert query(copy_url, "select to_regclass('app.users'), to_regclass('app.parts_1') is null") == [(None, False)]


def test_a_missing_extension_and_what_depends_on_it_are_named(
    empty_url: str, empty_db: psycopg.Connection[Any], copy_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty_db.execute(b"create schema extensions; create extension vector schema extensions")
    empty_db.execute(b"create table docs (id int, e extensions.vector(3)); create table plain (id int)")
    # as on a server without it
    monkeypatch.setattr("dbops.schema_copy._objects", _renaming_vector)

    copied = copy_schema(empty_url, copy_url)

    assert copied.missing_extensions == ("vector",)
    assert [item.object for item in copied.failed] == ["extension vector", "table public.docs"]
    assert "nowhere" in copied.failed[0].message
    assert query(copy_url, "select to_regclass('plain') is not null") == [(True,)]


def _renaming_vector(dump: str) -> Any:
    return _objects(dump.replace("EXTENSION IF NOT EXISTS vector", "EXTENSION IF NOT EXISTS nowhere"))


def test_an_extension_lies_in_the_same_schema(empty_url: str, empty_db: psycopg.Connection[Any], copy_url: str) -> None:
    empty_db.execute(b"create schema extensions; create extension vector schema extensions")
    empty_db.execute(b"create table docs (id int, e extensions.vector(3))")

    assert copy_schema(empty_url, copy_url).not_copied == ()
    assert query(copy_url, "select extnamespace::regnamespace::text from pg_extension where extname = 'vector'") == [
        ("extensions",)
    ]


def test_roles_are_made_with_attributes_and_memberships(make_database: Callable[..., str], server: Scratch) -> None:
    url = make_database()
    roles = ("copy_app", "copy_admin", "copy_reader", 'copy "odd"')
    names = [psycopg.sql.Identifier(name).as_string() for name in roles]
    try:
        query(url, f"create role {names[0]} login password 'secret'; create role {names[1]} bypassrls noinherit")
        query(url, f"create role {names[2]}; create role {names[3]} superuser; grant {names[1]} to {names[0]}")
        query(url, f"grant {names[2]} to {names[0]} with admin option; grant pg_monitor to {names[2]}")
        query(url, f"create table t (id int); alter table t owner to {names[1]}; grant select on t to {names[2]}")
        query(url, f"create policy p on t to {names[0]} using (true)")
        query(url, f"alter default privileges for role {names[1]} grant select on tables to {names[2]}")
        with scratch(server.major) as other, other.database() as copy_url:
            copied = copy_schema(url, copy_url)

            assert set(roles) <= set(copied.roles_made)
            assert copied.not_copied == ()
            assert schema_text(copy_url, ("public",)).text.replace(" login", "") == schema_text(
                url, ("public",)
            ).text.replace(" login", "")
            attributes = "select rolcanlogin, rolbypassrls, rolinherit, rolsuper from pg_roles where rolname = "
            assert query(copy_url, attributes + "'copy_app'") == [(False, False, True, False)]
            assert query(copy_url, attributes + "'copy_admin'") == [(False, True, False, False)]
            assert query(copy_url, attributes + "'copy \"odd\"'") == [(False, False, True, True)]
            members = (
                "select pg_has_role('copy_app', 'copy_admin', 'member'), "
                "pg_has_role('copy_reader', 'pg_monitor', 'usage')"
            )
            assert query(copy_url, members) == [(True, True)]
            admin = "select admin_option from pg_auth_members where roleid = 'copy_reader'::regrole"
            assert query(copy_url, admin) == [(True,)]
    finally:
        query(url, "drop table if exists t")
        for name in names:
            with suppress(psycopg.errors.UndefinedObject):
                query(url, f"drop owned by {name}; drop role {name}")


def test_a_role_that_differs_is_named_and_left_as_it_is(make_database: Callable[..., str], server: Scratch) -> None:
    url = make_database()
    try:
        query(url, "create role copy_one bypassrls; create role copy_two; grant copy_one to copy_two")
        with scratch(server.major) as other, other.database() as copy_url:
            query(copy_url, "create role copy_one; create role copy_two")
            copied = copy_schema(url, copy_url)

            assert {item.object for item in copied.failed} == {"role copy_one", "membership of copy_two in copy_one"}
            assert "NOBYPASSRLS" in copied.failed[0].message
            assert query(copy_url, "select rolbypassrls from pg_roles where rolname = 'copy_one'") == [(False,)]
    finally:
        query(url, "drop role if exists copy_two; drop role if exists copy_one")


def test_the_settings_of_the_database_come_along(source: str, copy_url: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(source)["dbname"]
    query(
        source,
        f"alter database {name} set search_path = app, \"$user\", public; alter database {name} set work_mem = '7MB'",
    )

    assert copy_schema(source, copy_url).not_copied == ()
    assert query(copy_url, "select current_setting('search_path'), current_setting('work_mem')") == [
        ('app, "$user", public', "7MB")
    ]


def test_what_holds_credentials_is_left_out(empty_url: str, empty_db: psycopg.Connection[Any], copy_url: str) -> None:
    empty_db.execute(b"create foreign data wrapper w; create server s foreign data wrapper w")
    empty_db.execute(b"create user mapping for current_user server s options (password 'hunter2')")

    copied = copy_schema(empty_url, copy_url)

    assert [item.object for item in copied.left_out] == ["user mapping USER MAPPING postgres SERVER s"]
    assert query(copy_url, "select count(*) from pg_user_mappings") == [(0,)]
    assert "--no-subscriptions" in _DUMP


def test_a_target_that_is_not_empty_is_refused(source: str) -> None:
    before = schema_text(source, ("app", "public")).text
    with pytest.raises(UsageError, match="is not empty"):
        copy_schema(source, source)
    assert schema_text(source, ("app", "public")).text == before


def test_a_locked_table_is_not_waited_for_long(source: str, copy_url: str) -> None:
    with psycopg.connect(source) as other:
        other.execute("lock table app.users in access exclusive mode")
        with pytest.raises(Blocked, match=r"(?s)locked.*users"):
            copy_schema(source, copy_url, lock_wait_ms=200)
        with pytest.raises(Blocked):
            relation_sizes(source, lock_wait_ms=200)


def test_the_password_is_in_no_argument(source: str, copy_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    calls: list[tuple[list[object], dict[str, str]]] = []
    real = subprocess.run

    def spy(arguments: list[object], **options: Any) -> Any:
        calls.append((arguments, options.get("env") or {}))
        return real(arguments, **options)

    monkeypatch.setattr(subprocess, "run", spy)
    copy_schema(psycopg.conninfo.make_conninfo(source, password="hunter2"), copy_url)

    dumps = [
        (arguments, env) for arguments, env in calls if Path(str(arguments[0])).name == "pg_dump" and len(arguments) > 2
    ]
    assert [env["PGPASSWORD"] for _, env in dumps] == ["hunter2"]
    assert "hunter2" not in str([arguments for arguments, _ in calls])


def test_the_source_is_only_read(source: str, copy_url: str) -> None:
    reading = psycopg.conninfo.make_conninfo(source, options="-c default_transaction_read_only=on")
    assert copy_schema(reading, copy_url).not_copied == ()
    assert relation_sizes(reading)


def test_sizes_are_the_sources(source: str, empty_db: psycopg.Connection[Any]) -> None:
    empty_db.execute("analyze app.users")
    sizes = relation_sizes(source)

    assert sizes["app.users"].rows == 100
    assert sizes["app.users"].heap_bytes == 8192
    assert sizes["app.users"].index_bytes == 16384
    assert sizes["app.users"].total_bytes >= 8192 + 16384
    assert sizes["app.users_pkey"].total_bytes == 16384
    assert sizes['public."Odd ""name; Type: x"'].rows in (None, 0)
    assert "app.names" not in sizes
