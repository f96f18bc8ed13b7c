"""Rows for other programs and from them: what was written comes back the same, and a fault is told with its line."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from dbops.backup.exchange.export import export
from dbops.backup.exchange.load import load, table_of
from dbops.database import parameters
from dbops.embedded import binaries
from dbops.errors import NotAllowed, StoreError, UsageError

SCHEMA = """
create schema "odd.one";
create type mood as enum ('glad', 'sad "one"');
create domain small as int check (value < 100);
create type pair as (a int, b text);
create table parents (id int generated always as identity primary key, name text not null);
create table notes (
  id bigserial primary key, parent int references parents, earlier bigint references notes,
  mood mood, small small, pair pair, tags text[], grid int[][], span tstzrange, many int4multirange, j json, jb jsonb,
  raw bytea, amount numeric, ratio float8, at timestamptz, during interval, day date, bits bit(3), addr inet,
  doubled bigint generated always as (id * 2) stored, made text default 'made here');
create table "odd.one"."ta/ble ""x"" é" ("Odd ""column"" x" int, "select" text);
create table parted (id int, v text) partition by range (id);
create table parted_low partition of parted for values from (0) to (10);
create table parted_high partition of parted for values from (10) to (20);
create table base (id int);
create table derived (more text) inherits (base);
create table empty_one (id int);
"""
ROWS = r"""
insert into parents (name) select 'p' || n from generate_series(1, 3) n;
insert into notes (id, parent, earlier, mood, small, pair, tags, grid, span, many, j, jb, raw, amount, ratio, at, during,
  day, bits, addr) values
  (1, 1, null, 'sad "one"', 7, '(1,"a ""b"" , c")', '{"a b",null,"\\"}', '{{1,2},{3,4}}', '[2025-01-01,2025-02-01)', '{[1,5)}',
   E'{"a":\n 1, "a": 2}', '{"k": [1.50, "\\n\u00e9\ud83d\ude00"]}', '\x00ff0a',
   123456789012345678901234567890.123456789, 'NaN',
   '2025-03-04 05:06:07.123456+02', '1 year -2 days 03:04:05.5', 'infinity', '101', '10.0.0.1/8'),
  (2, null, 3, null, null, null, '{}', null, 'empty', '{}', 'null', '{"x": null}', '', 'NaN', '-Infinity', '-infinity',
   '-1 mon', '0044-03-15 BC', null, '::1'),
  (3, 3, 1, 'glad', null, '(,)', null, null, null, null, '"line\nbreak"', '"tab\t"', null, 1e-20, 0.1,
   null, null, null, null, null);
insert into "odd.one"."ta/ble ""x"" é" values (1, E'back\\slash \\N \t tab\r\n line \u2028 end'), (null, ''),
  (2, null), (3, '\.');
insert into parted select n, 'v' || n from generate_series(0, 19) n;
insert into base values (1); insert into derived values (2, 'two');
"""


@pytest.fixture
def filled(make_database: Callable[..., str]) -> tuple[str, str]:
    """A database with every kind of value, and one with the same tables without rows."""
    source, target = make_database("empty"), make_database("empty")
    for url, text in ((source, SCHEMA + ROWS), (target, SCHEMA)):
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(text.encode())
    return source, target


def rows(url: str, *tables: str) -> dict[str, list[str]]:
    """The rows of tables, each as text, in one order."""
    found = {}
    with psycopg.connect(url, autocommit=True) as conn:
        names = conn.execute(
            "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = relnamespace "
            "where relkind in ('r', 'p') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' order by 1"
        ).fetchall()
        for (name,) in names:
            if not tables or name in tables:
                found[name] = [r[0] for r in conn.execute(f"select t::text from only {name} t order by 1".encode())]
    return found


TABLES = {
    "odd.one.ta/ble \"x\" é": 4, "public.base": 1, "public.derived": 1, "public.empty_one": 0, "public.notes": 3,
    "public.parents": 3, "public.parted": 20,
}  # fmt: skip


class TestJson:
    def test_everything_comes_back_as_it_was(self, filled: tuple[str, str], tmp_path: Path) -> None:
        source, target = filled
        done = export(source, tmp_path / "out")
        assert done.tables == TABLES
        assert done.rows == 32
        assert {path.name for path in done.files} == {path.name for path in (tmp_path / "out").iterdir()}
        assert load(target, done.files).tables == TABLES
        # JSON has one null, and a line has no line breaks between the parts of a value
        with psycopg.connect(source, autocommit=True) as conn:
            conn.execute("update notes set j = null where j::text = 'null'")
            conn.execute(r"update notes set j = replace(j::text, E'\n', ' ')::json where j is not null")
        assert rows(target) == rows(source)

    def test_a_row_is_an_object_with_its_columns(self, filled: tuple[str, str], tmp_path: Path) -> None:
        (path,) = export(filled[0], tmp_path, ["public.parted"]).files
        assert path.name == "public.parted.json.gz"
        lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        assert sorted(lines, key=lambda line: line["id"]) == [{"id": n, "v": f"v{n}"} for n in range(20)]

    def test_generated_columns_are_left_out(self, filled: tuple[str, str], tmp_path: Path) -> None:
        (path,) = export(filled[0], tmp_path, ["notes"]).files
        first = json.loads(gzip.decompress(path.read_bytes()).splitlines()[0])
        assert "doubled" not in first
        assert first["made"] == "made here"

    def test_the_same_rows_give_the_same_file_for_its_owner_only(self, filled: tuple[str, str], tmp_path: Path) -> None:
        first = {path: path.read_bytes() for path in export(filled[0], tmp_path).files}
        assert {path: path.read_bytes() for path in export(filled[0], tmp_path).files} == first
        assert {path.stat().st_mode & 0o777 for path in first} == {0o600}

    def test_the_next_insert_takes_the_next_number(self, filled: tuple[str, str], tmp_path: Path) -> None:
        load(filled[1], export(filled[0], tmp_path, ["parents", "notes"]).files)
        with psycopg.connect(filled[1]) as conn:
            assert conn.execute("insert into parents (name) values ('new') returning id").fetchone() == (4,)
            assert conn.execute("insert into notes default values returning id").fetchone() == (4,)

    def test_a_sequence_that_is_ahead_stays(self, filled: tuple[str, str], tmp_path: Path) -> None:
        files = export(filled[0], tmp_path, ["parents"]).files
        with psycopg.connect(filled[1], autocommit=True) as conn:
            conn.execute("select setval('parents_id_seq', 50)")
            load(filled[1], files)
            assert conn.execute("select nextval('parents_id_seq')").fetchone() == (51,)

    def test_as_of_one_moment(self, filled: tuple[str, str], tmp_path: Path) -> None:
        """What is committed while the tables are written is in none of the files."""

        def interfere(told: str) -> None:
            with psycopg.connect(filled[0], autocommit=True) as conn:
                conn.execute("insert into parted values (5, 'late'); insert into parents (name) values ('late')")

        assert export(filled[0], tmp_path, tell=interfere).tables == TABLES


class TestSql:
    def test_psql_makes_the_rows_as_they_were(
        self, filled: tuple[str, str], tmp_path: Path, major: str, server: Any
    ) -> None:
        source, target = filled
        (path,) = export(source, tmp_path, form="sql").files
        programs = binaries(18)
        assert programs
        done = subprocess.run(
            [programs / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", target, "-f", str(path)],
            capture_output=True, text=True, check=False, env=os.environ | {"PGCLIENTENCODING": "LATIN1"},
        )  # fmt: skip
        if "violates foreign key constraint" in done.stderr:
            pytest.fail(done.stderr)
        assert (done.returncode, done.stderr) == (0, "")
        assert rows(target) == rows(source)
        with psycopg.connect(target) as conn:
            assert conn.execute("insert into parents (name) values ('new') returning id").fetchone() == (4,)


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def things(empty_db: psycopg.Connection[Any], empty_url: str) -> str:
    empty_db.execute(
        """create table things (id int primary key, name varchar(5) not null default 'none', parent int references things,
        twice int generated always as (id * 2) stored)"""
    )
    return empty_url


class TestLoad:
    def test_plain_lines_empty_ones_and_defaults(self, things: str, tmp_path: Path) -> None:
        path = write(
            tmp_path / "things.jsonl", '\ufeff{"id": 1}', "", '{"name": "b", "id": 2}', ' {"id": 3, "name": "c"} '
        )
        assert load(things, [path]).tables == {"public.things": 3}
        assert rows(things)["public.things"] == ["(1,none,,2)", "(2,b,,4)", "(3,c,,6)"]

    def test_a_row_may_refer_to_a_later_one(self, things: str, tmp_path: Path) -> None:
        path = write(tmp_path / "x", *(f'{{"id": {n}, "parent": {min(n + 1, 50)}}}' for n in range(1, 51)))
        assert load(things, [path], "things").rows == 50

    @pytest.mark.parametrize(
        ("line", "told"),
        [
            ('{"id": 9, "nane": "x"}', r"has no column 'nane'; it has id, name, parent, twice"),
            ('{"id": 9, "twice": 1}', "'twice' of public.things is generated"),
            ('{"id": 9, "id": 8}', "stands twice"),
            ("{}", "no columns"),
            ('{"id": 9', "no JSON"),
            ('[{"id": 9}]', "no JSON object"),
            ('"id"', "no JSON object"),
            ('{"id": NaN}', "NaN is no number"),
            ('{"id": "nine"}', 'invalid input syntax for type integer: "nine"'),
            ('{"id": 9, "name": "too long"}', "value too long"),
            ('{"id": 9, "name": null}', "null value in column"),
            ('{"id": 3}', r"duplicate key .*Key \(id\)=\(3\)"),
            ('{"id": 9, "name": "\\u0000"}', "u0000"),
            (f'{{"id": {"9" * 5000}}}', "out of range"),
            ("[" * 5000 + "]" * 5000, "no JSON"),
        ],
    )
    def test_a_fault_is_told_with_its_line_and_nothing_stays(
        self, things: str, tmp_path: Path, line: str, told: str
    ) -> None:
        lines = [f'{{"id": {n}, "name": "n{n}"}}' for n in [*range(1, 9), *range(10, 40)]]
        path = write(tmp_path / "things.json", *lines[:20], line, *lines[20:])
        with pytest.raises(UsageError, match=told) as caught:
            load(things, [path])
        assert "things.json:21: " in caught.value.message
        assert "nothing was imported" in caught.value.hint
        assert rows(things)["public.things"] == []

    def test_a_missing_parent_is_named(self, things: str, tmp_path: Path) -> None:
        path = write(tmp_path / "things.json", '{"id": 1}', '{"id": 2, "parent": 77}')
        with pytest.raises(UsageError, match=r"things.json: .*\(parent\)=\(77\) is not present"):
            load(things, [path])

    def test_one_bad_file_of_two_leaves_nothing(self, things: str, tmp_path: Path) -> None:
        good, bad = write(tmp_path / "a", '{"id": 1}'), write(tmp_path / "b", '{"id": "x"}')
        with pytest.raises(UsageError, match="b:1: "):
            load(things, [good, bad], "things")
        assert rows(things)["public.things"] == []

    def test_a_dry_run_checks_all_and_writes_nothing(self, things: str, tmp_path: Path) -> None:
        path = write(tmp_path / "things.json", '{"id": 1}')
        assert load(things, [path], dry_run=True).rows == 1
        assert rows(things)["public.things"] == []
        with pytest.raises(UsageError, match=r"things\.json:1"):
            load(things, [write(path, '{"id": "x"}')], dry_run=True)

    @pytest.mark.parametrize("cut", [1, 9, 30, -1])
    def test_a_file_that_is_cut_off(self, things: str, tmp_path: Path, cut: int) -> None:
        path = tmp_path / "things.json.gz"
        path.write_bytes(gzip.compress(b'{"id": 1}\n' * 9 + os.urandom(99))[:cut])
        with pytest.raises(UsageError, match=r"things\.json\.gz"):
            load(things, [path])

    def test_a_bit_that_changed_is_found(self, things: str, tmp_path: Path) -> None:
        whole = bytearray(gzip.compress(b"".join(b'{"id": %d}\n' % n for n in range(2000)), mtime=0))
        path = tmp_path / "things.json.gz"
        for at in (10, 100, len(whole) // 2, len(whole) - 8, len(whole) - 3):
            damaged = whole.copy()
            damaged[at] ^= 4
            path.write_bytes(damaged)
            with pytest.raises(UsageError, match=r"things\.json\.gz"):
                load(things, [path])
        assert rows(things)["public.things"] == []

    def test_what_is_no_text_or_not_there(self, things: str, tmp_path: Path) -> None:
        path = tmp_path / "things.json"
        with pytest.raises(UsageError, match="cannot be read"):
            load(things, [path])
        path.write_bytes(b'{"name": "\xff"}\n')
        with pytest.raises(UsageError, match="not UTF-8"):
            load(things, [path])

    @pytest.mark.parametrize("name", ["thing", "other.things", "things; drop table things", "pg_class"])
    def test_an_unknown_table(self, things: str, tmp_path: Path, name: str) -> None:
        with pytest.raises(UsageError, match="no table"):
            load(things, [write(tmp_path / "x.json", "{}")], name)
        with pytest.raises(UsageError, match="no table"):
            export(things, tmp_path / "out", [name])

    def test_names_are_no_sql(self, empty_db: psycopg.Connection[Any], empty_url: str, tmp_path: Path) -> None:
        name = '"); drop table victim; --'
        empty_db.execute("create table victim (id int)")
        empty_db.execute(sql.SQL("create table {} ({} int)").format(sql.Identifier(name), sql.Identifier(name)))
        done = load(empty_url, [write(tmp_path / "x", json.dumps({name: 1}))], f"public.{name}")
        assert export(empty_url, tmp_path / "out").tables == {"public.victim": 0, **done.tables}

    def test_a_name_of_two_tables(self, empty_db: psycopg.Connection[Any], empty_url: str, tmp_path: Path) -> None:
        empty_db.execute("create schema other; create table things (id int); create table other.things (id int)")
        path = write(tmp_path / "x", '{"id": 1}')
        with pytest.raises(UsageError, match="2 tables"):
            load(empty_url, [path], "things")
        assert load(empty_url, [path], "other.things").tables == {"other.things": 1}


def test_a_plain_owner_under_force_is_refused_and_not_told_of_no_rows(
    empty_db: psycopg.Connection[Any], empty_url: str, tmp_path: Path
) -> None:
    role = f"exporter_{os.getpid()}"
    empty_db.execute(
        f"create role {role} login; grant create on schema public to {role}; set role {role}; "
        "create table mine (id int); insert into mine values (1); alter table mine enable row level security; "
        "alter table mine force row level security; reset role".encode()
    )
    parts = parameters(empty_url) | {"user": role}
    url = psycopg.conninfo.make_conninfo("", **parts)
    try:
        with pytest.raises(NotAllowed):
            export(url, tmp_path / "out")
        with pytest.raises(NotAllowed):
            load(url, [write(tmp_path / "x", '{"id": 2}')], "mine")
        assert not list((tmp_path / "out").iterdir())
    finally:
        empty_db.execute(f"drop owned by {role}; drop role {role}".encode())


def test_a_folder_that_cannot_be_written(things: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        export(things, tmp_path / "file" / "out")


def test_an_empty_database(empty_url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no tables"):
        export(empty_url, tmp_path)


@pytest.mark.parametrize(
    ("name", "table"),
    [("public.notes.json.gz", "public.notes"), ("notes.jsonl", "notes"), ("odd%2Eone.ta%2Fble.json", "odd.one.ta/ble")],
)
def test_the_table_of_a_files_name(name: str, table: str) -> None:
    assert table_of(Path(name)) == table


VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.tuples(VALUES | st.none(), st.floats(allow_nan=True) | st.none()), max_size=6))
def test_any_text_and_number_comes_back(
    values: list[tuple[str | None, float | None]], empty_db: psycopg.Connection[Any], empty_url: str, tmp_path: Path
) -> None:
    empty_db.execute("drop table if exists t; create table t (n int primary key, a text, f float8)")
    with empty_db.cursor() as cursor:
        cursor.executemany("insert into t values (%s, %s, %s)", [(n, *row) for n, row in enumerate(values)])
    files = export(empty_url, tmp_path).files
    before = empty_db.execute("select n, a, f::text from t order by n").fetchall()
    empty_db.execute("truncate t")
    if values:
        load(empty_url, files)
    assert empty_db.execute("select n, a, f::text from t order by n").fetchall() == before
