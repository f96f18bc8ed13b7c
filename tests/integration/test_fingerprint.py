"""The canonical text of a schema: what is in it, what is not, and how two are compared."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo

from dbops import fingerprint
from dbops.errors import Blocked, CannotConnect, MissingToolError
from dbops.fingerprint import Difference, SchemaText, canonical, compare, find_pg_dump, schema_text

Connection = psycopg.Connection[Any]


def text(db: Connection, *schemas: str, exclude: tuple[str, ...] = ()) -> SchemaText:
    return schema_text(db.info.dsn, schemas or ("public",), exclude_tables=exclude)


def changed(db: Connection, statements: str, *schemas: str, exclude: tuple[str, ...] = ()) -> Difference:
    before = text(db, *schemas, exclude=exclude)
    db.execute(statements)
    return compare(before, text(db, *schemas, exclude=exclude))


@pytest.fixture
def role(empty_db: Connection) -> Iterator[str]:
    name = f"fingerprint_{os.getpid()}"
    empty_db.execute(f"create role {name} nologin")
    yield name
    empty_db.execute(f"drop owned by {name} cascade; drop role {name}")


# what is in the text ----------------------------------------------------------------------------------------------


def test_a_text_is_stable_and_free_of_noise(empty_db: Connection) -> None:
    empty_db.execute("create table a (id int primary key); create table b (a int references a)")
    first, second = text(empty_db), text(empty_db)
    assert first == second
    assert first.hash == second.hash
    assert len(first.hash) == 64
    assert compare(first, second) == Difference("", order_only=False, equal=True)
    for noise in ("\\restrict", "Dumped by", "Dumped from", "SET ", "set_config", "database dump"):
        assert noise not in first.text


def test_equal_schemas_made_in_another_order_are_equal(make_database: Callable[..., str]) -> None:
    statements = [
        "create table a (id int primary key, b int, check (b > 0))",
        "create table c (id int primary key)",
        "create function f(int) returns int language sql as 'select 1'",
        "create function f(text) returns int language sql as 'select 1'",
        "create type mood as enum ('sad', 'ok')",
    ]
    texts = []
    for ordered in (statements, statements[::-1]):
        url = make_database()
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(";".join(ordered))
        texts.append(schema_text(url, ["public"]))
    assert compare(*texts).equal


def test_changes_that_are_undone_leave_no_trace(empty_db: Connection) -> None:
    empty_db.execute("create table a (id int primary key, b text not null default 'x')")
    difference = changed(
        empty_db,
        "alter table a add c int; create index on a (c); alter table a drop c; create table t (); drop table t;"
        "grant select on a to public; revoke select on a from public; create view v as select 1; drop view v",
    )
    assert difference.text == ""


SEEN = {
    "table": ("create table t (a int)", "+ table public.t"),
    "column": ("alter table a add b int", "column b integer"),
    "type of a column": ("alter table a alter id type bigint", "+ column id bigint"),
    "not null": ("alter table a alter id set not null", "+ column id integer NOT NULL"),
    "default": ("alter table a alter id set default 1", "+ column id integer DEFAULT 1"),
    "check": ("alter table a add check (id > 0)", "+ CONSTRAINT a_id_check CHECK ((id > 0))"),
    "index": ("create index i on a (id)", "+ index public.i"),
    "unique": ("alter table a add unique (id)", "+ constraint public.a a_id_key"),
    "view": ("create view v as select 1 as x", "+ view public.v"),
    "function": ("create function f() returns int language sql as 'select 1'", "+ function public.f()"),
    "enum": ("create type mood as enum ('sad', 'ok')", "+ type public.mood"),
    "domain": ("create domain d as int check (value > 0)", "+ domain public.d"),
    "sequence": ("create sequence s", "+ sequence public.s"),
    "trigger": (
        "create function f() returns trigger language plpgsql as 'begin return new; end';"
        "create trigger g before insert on a for each row execute function f()",
        "+ trigger public.a g",
    ),
    "row level security": ("alter table a enable row level security", "+ row security public.a"),
    "forced": ("alter table a force row level security", "FORCE ROW LEVEL SECURITY"),
    "grant": ("grant select on a to public", "GRANT SELECT ON TABLE public.a TO PUBLIC"),
    "comment": ("comment on column a.id is 'the key'", "IS 'the key'"),
    "default privileges": (
        "alter default privileges in schema public grant select on tables to public",
        "+ default acl public.DEFAULT PRIVILEGES FOR TABLES",
    ),
    "extension": ("create extension vector", "+ extension vector"),
    "setting of the database": (
        "do $$ begin execute format('alter database %I set work_mem = ''5MB''', current_database()); end $$",
        "+ work_mem=5MB",
    ),
    "publication": ("create publication p for table a", "+ table public.a"),
    "trigger on another schema's table": (
        "create schema auth; create table auth.users (id int);"
        "create function f() returns trigger language plpgsql as 'begin return new; end';"
        "create trigger g before insert on auth.users for each row execute function f()",
        "+ trigger elsewhere g",
    ),
    "event trigger": (
        "create function f() returns event_trigger language plpgsql as 'begin null; end';"
        "create event trigger e on ddl_command_end execute function f()",
        "+ event trigger e",
    ),
}


@pytest.mark.parametrize("case", SEEN)
def test_what_is_seen(empty_db: Connection, case: str) -> None:
    statements, expected = SEEN[case]
    empty_db.execute("create table a (id int)")
    difference = changed(empty_db, statements)
    assert not difference.equal
    assert not difference.order_only
    assert expected in difference.text


UNSEEN = {
    "policy": "create policy p on a using (true); comment on policy p on a is 'mine'",
    "rows": "insert into a values (1)",
    "sequence values": "create schema other; create sequence other.s; select nextval('other.s')",
    "another schema": "create schema other; create table other.t (a int)",
    "dbops's schema": "create schema dbops; create table dbops.runs (id int)",
    "the record": "create table schema_migrations (id serial primary key, version text, g int generated"
    " always as identity);"
    "create index on schema_migrations (version); alter table schema_migrations enable row level security;"
    "comment on table schema_migrations is 'mine'; grant select on schema_migrations to public",
}


@pytest.mark.parametrize("case", UNSEEN)
def test_what_is_not_seen(empty_db: Connection, case: str) -> None:
    empty_db.execute("create table a (id int)")
    difference = changed(empty_db, UNSEEN[case], "public", "dbops", "missing", exclude=("public.schema_migrations",))
    assert difference.text == ""


def test_an_extension_is_one_line(empty_db: Connection) -> None:
    difference = changed(empty_db, "create extension vector; create table t (v vector(3))")
    assert "extension vector" in difference.text
    assert "schema public" in difference.text
    assert "CREATE FUNCTION" not in difference.text
    assert "operator" not in difference.text.lower()


def test_an_invalid_index_is_seen(empty_db: Connection) -> None:
    empty_db.execute("create table a (id int); insert into a values (1), (1)")

    def build() -> None:
        with pytest.raises(psycopg.errors.UniqueViolation):
            empty_db.execute("create unique index concurrently i on a (id)")

    before = text(empty_db)
    build()
    difference = compare(before, text(empty_db))
    assert "+ invalid index public.i" in difference.text
    empty_db.execute("drop index i")
    assert compare(before, text(empty_db)).equal


def test_attributes_and_settings_of_roles_that_own_or_are_granted(empty_db: Connection, role: str) -> None:
    empty_db.execute("create table a (id int)")
    assert changed(empty_db, f"alter role {role} login").equal  # not involved yet
    assert f"+ role {role}" in changed(empty_db, f"grant select on a to {role}").text
    assert "+ bypassrls login" in changed(empty_db, f"alter role {role} bypassrls").text
    assert "+ everywhere: work_mem=7MB" in changed(empty_db, f"alter role {role} set work_mem = '7MB'").text
    assert "member of pg_monitor" in changed(empty_db, f"grant pg_monitor to {role}").text
    assert changed(empty_db, f"alter table a owner to {role}").text.count("OWNER TO") == 2


def test_the_order_of_grants_does_not_count(make_database: Callable[..., str]) -> None:
    texts = []
    grants = [
        "grant select on a to pg_monitor",
        "grant insert on a to public",
        "grant update on a to pg_monitor",
    ]
    for ordered in (grants, grants[::-1]):
        url = make_database()
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("create table a (id int);" + ";".join(ordered))
        texts.append(schema_text(url, ["public"]))
    assert compare(*texts).text == ""


def test_functions_keep_every_line(empty_db: Connection) -> None:
    body = "\n--\n-- Not a header; Type: x\n--\n\n  select 'a\x0b\x85b';\n\tselect 2;\n\n"
    empty_db.execute(f"create function f() returns void language sql as $q${body}$q$")
    lines = text(empty_db).objects["function public.f()"]
    assert body in "\n".join(lines)


@pytest.mark.parametrize("name", ['"Mixed Case"', '"quo""te"', '"dot.ted"', '"*"', '"ünï 😀"', '"sel;ect"'])
def test_names_are_taken_literally(empty_db: Connection, name: str) -> None:
    plain = name[1:-1].replace('""', '"')
    empty_db.execute(f"create schema {name}; create table {name}.{name} (a int); create table {name}.other (a int)")
    whole = text(empty_db, plain)
    assert whole.text.count("CREATE TABLE") == 2
    assert text(empty_db, plain, exclude=(f"{plain}.{plain}",)).text.count("CREATE TABLE") == 1


def test_no_schema_at_all(empty_db: Connection) -> None:
    assert "extension plpgsql" in text(empty_db, "missing").text


def test_the_sessions_zone_does_not_show(empty_db: Connection) -> None:
    empty_db.execute("create table a (t timestamptz check (t > '2020-01-01 00:00+00'))")
    difference = changed(
        empty_db,
        "do $$ begin execute format('alter database %I set timezone = ''Asia/Tokyo''', current_database()); end $$",
    )
    assert difference.text == "+ settings of the database\n    + TimeZone=Asia/Tokyo"


# comparing --------------------------------------------------------------------------------------------------------


def test_a_column_that_moved_is_no_failure(empty_db: Connection) -> None:
    empty_db.execute("create table a (id int, b text not null, c int, check (c > 0)); create index on a (b)")
    difference = changed(
        empty_db,
        "alter table a drop b; alter table a add b text not null default '';"
        "alter table a alter b drop default; create index a_b_idx on a (b)",
    )
    assert difference == Difference("table public.a: order differs", order_only=True, equal=False)


def test_a_column_that_moved_does_not_hide_another_that_is_gone(empty_db: Connection) -> None:
    empty_db.execute("create table a (id int, b text, c int)")
    difference = changed(empty_db, "alter table a drop b, drop c; alter table a add b text")
    assert difference == Difference("table public.a:\n    - column c integer", order_only=False, equal=False)


def test_a_rename_is_told(empty_db: Connection) -> None:
    empty_db.execute("create table a (id int, b text)")
    difference = changed(empty_db, "alter table a rename b to b2")
    assert difference.text == "table public.a:\n    - column b text\n    + column b2 text"


def test_the_order_of_labels_and_lines_counts(empty_db: Connection) -> None:
    empty_db.execute("create type mood as enum ('sad', 'ok')")
    difference = changed(empty_db, "drop type mood; create type mood as enum ('ok', 'sad')")
    assert not difference.order_only
    assert "type public.mood:" in difference.text


def test_texts_are_stored_and_compared_by_version() -> None:
    one = SchemaText(canonical([("public.a", "table public.a", ["x", "", "  y"])]), "18.4")
    assert one.text == "table public.a\n  x\n  \n    y\n"
    assert one.objects == {"table public.a": ["x", "", "  y"]}
    assert SchemaText.decompress(one.compress(), "18.4") == one
    assert one.comparable_with(SchemaText("", "18.4"))
    assert not one.comparable_with(SchemaText(one.text, "18.5"))


# pg_dump ----------------------------------------------------------------------------------------------------------


def program(folder: Path, body: str) -> Path:
    path = folder / "pg_dump"
    path.write_text(f"#!{sys.executable}\n{body}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_password_is_never_an_argument(empty_db: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "service.conf"))
    monkeypatch.setenv("PGSERVICE", "elsewhere")
    (tmp_path / "service.conf").write_text("[elsewhere]\npassword=wrong\n")
    spy = program(
        tmp_path,
        "import json, os, sys\n"
        "if '--version' in sys.argv: print('pg_dump (PostgreSQL) 99.1'); sys.exit()\n"
        f"open({str(tmp_path / 'seen')!r}, 'w').write(json.dumps([sys.argv, dict(os.environ)]))\n",
    )
    url = conninfo.make_conninfo(empty_db.info.dsn, password="s3cret p'w")
    found = schema_text(url, ["public"], pg_dump=spy)
    assert found.pg_dump_version == "99.1"
    arguments, environment = json.loads((tmp_path / "seen").read_text())
    assert "s3cret" not in str(arguments)
    assert environment.get("PGPASSWORD") == "s3cret p'w"
    assert "PGSERVICE" not in environment
    assert any(argument.startswith("--lock-wait-timeout=") for argument in arguments)
    dbname = next(a.removeprefix("--dbname=") for a in arguments if a.startswith("--dbname="))
    assert conninfo.conninfo_to_dict(dbname)["dbname"] == empty_db.info.dbname


def test_an_older_pg_dump_is_refused(empty_url: str, tmp_path: Path) -> None:
    with pytest.raises(MissingToolError, match=r"is version 9\.6\.3, the server is PostgreSQL"):
        schema_text(empty_url, ["public"], pg_dump=program(tmp_path, "print('pg_dump (PostgreSQL) 9.6.3')"))


def test_a_program_that_does_not_run(empty_url: str, tmp_path: Path) -> None:
    with pytest.raises(MissingToolError, match="does not run"):
        schema_text(empty_url, ["public"], pg_dump=tmp_path / "nothing")


def test_the_newest_fitting_pg_dump_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def says(version: str, *folders: str) -> Path:
        folder = tmp_path.joinpath(*folders)
        folder.mkdir(parents=True)
        return program(folder, f"print('pg_dump (PostgreSQL) {version}')")

    on_path = says("55.1", "path")
    installed = says("never asked", "installed", "60", "bin")
    says("never asked", "installed", "14", "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "path"), prepend=os.pathsep)
    monkeypatch.setattr(fingerprint, "_INSTALLED", tmp_path / "none")
    assert find_pg_dump(18) == on_path
    monkeypatch.setattr(fingerprint, "_INSTALLED", tmp_path / "installed")
    assert find_pg_dump(18) == installed
    with pytest.raises(MissingToolError, match="no pg_dump for PostgreSQL 61 or newer"):
        find_pg_dump(61)


def test_found_for_this_server(server: Any) -> None:
    done = subprocess.run([find_pg_dump(server.major), "--version"], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1].split(".")[0]) >= server.major


def test_a_lock_that_is_held_is_an_error_in_time(empty_db: Connection) -> None:
    empty_db.execute("create table a (id int)")
    with psycopg.connect(empty_db.info.dsn) as other:
        other.execute("lock table a in access exclusive mode")
        start = time.monotonic()
        with pytest.raises(Blocked, match="pg_dump waited too long"):
            schema_text(empty_db.info.dsn, ["public"], lock_wait_ms=100)
        assert time.monotonic() - start < 5


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(CannotConnect):
        schema_text(f"host={tmp_path} user=nobody password=s3cret", ["public"])


def test_it_is_quick(empty_db: Connection) -> None:
    empty_db.execute("create table a (id int primary key, b text)")
    text(empty_db)
    start = time.monotonic()
    text(empty_db)
    assert time.monotonic() - start < 1  # 0.05 s on a quiet machine


def test_two_at_once(empty_db: Connection) -> None:
    empty_db.execute("create table a (id int)")
    found: list[SchemaText] = []
    threads = [threading.Thread(target=lambda: found.append(text(empty_db))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
