"""The reverse of an up part, from its text alone."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.migrate.parse import parse, unwrap
from dbops.migrate.reverse import Reversal, Step, quote_ident, reverse
from dbops.migrate.reverse.names import object_name

pytestmark = pytest.mark.quick

CORPUS: dict[str, list[dict[str, Any]]] = tomllib.loads(Path(__file__).with_name("reverse_corpus.toml").read_text())
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


def reversed_text(text: str) -> Reversal:
    return reverse(parse(text))


def by_name(kind: str) -> list[Any]:
    return [pytest.param(entry, id=entry["name"]) for entry in CORPUS[kind]]


@pytest.mark.parametrize("entry", by_name("reversed"))
def test_down_of_the_corpus(entry: dict[str, Any]) -> None:
    reversal = reversed_text(entry["up"])
    assert reversal.sql.strip() == entry["down"].strip()
    assert not reversal.irreversible


@pytest.mark.parametrize("entry", by_name("irreversible"))
def test_reasons_of_the_corpus(entry: dict[str, Any]) -> None:
    assert [step.reason for step in reversed_text(entry["up"]).irreversible] == entry["reasons"]


def test_the_corpus_is_large_enough() -> None:
    texts = [entry["up"] for entry in CORPUS["reversed"]]
    steps = [step for text in texts for step in reversed_text(text).steps]
    assert len(steps) >= 200
    assert len([step for step in steps if step.down]) >= 150
    assert sum(len(entry["reasons"]) for entry in CORPUS["irreversible"]) >= 80


def test_each_statement_has_its_step_and_line() -> None:
    reversal = reversed_text("\n\nCREATE TABLE a (id int);\n-- a comment\nDROP TABLE b;\nANALYZE a;")
    assert reversal.steps == (
        Step(6, "ANALYZE a", "", "changes no schema and no data"),
        Step(5, "DROP TABLE b", None, "DROP TABLE b: its rows are gone"),
        Step(3, "CREATE TABLE a (id int)", "DROP TABLE a"),
    )
    assert reversal.irreversible == reversal.steps[1:2]
    assert reversal.sql == "-- cannot be reversed: line 5: DROP TABLE b: its rows are gone\nDROP TABLE a;\n"


def test_one_alter_table_may_have_several_steps() -> None:
    steps = reversed_text("ALTER TABLE t ADD a int, DROP COLUMN secret, ADD b int").steps
    assert [(step.line, step.down) for step in steps] == [
        (1, "ALTER TABLE t DROP COLUMN b"),
        (1, None),
        (1, "ALTER TABLE t DROP COLUMN a"),
    ]


@pytest.mark.parametrize(
    ("text", "assumed"),
    [
        ("COMMENT ON TABLE t IS 'a'", "assumes that there was none before"),
        ("ALTER TABLE t ALTER a SET NOT NULL", "assumes that it was not so before"),
        ("ALTER TABLE t ADD UNIQUE (a)", "assumes that PostgreSQL's name for it was free"),
        ("ALTER TABLE t ADD CONSTRAINT pk PRIMARY KEY (a)", "assumes that its columns were NOT NULL before"),
        (
            "ALTER TABLE t ADD PRIMARY KEY (a)",
            "assumes that PostgreSQL's name for it was free and that its columns were NOT NULL before",
        ),
        ("ALTER TABLE t SET (fillfactor = 70)", "assumes that it was at its default before"),
        ("GRANT SELECT ON t TO a", "assumes that it was not so before"),
        ("REVOKE a FROM b", "assumes that it was granted without options"),
    ],
)
def test_what_a_reverse_assumes_is_said(text: str, assumed: str) -> None:
    (step,) = reversed_text(text).steps
    assert step.down
    assert step.reason == assumed


@pytest.mark.parametrize(
    ("text", "down"),
    [
        ("CREATE DATABASE app", "DROP DATABASE app;\n"),
        ("CREATE TABLESPACE fast LOCATION '/fast'", "DROP TABLESPACE fast;\n"),
        ("CREATE SUBSCRIPTION s CONNECTION 'password=x' PUBLICATION p", "DROP SUBSCRIPTION s;\n"),
        ("CREATE LANGUAGE l HANDLER h", "DROP LANGUAGE l;\n"),
        (
            "CREATE TRANSFORM FOR int LANGUAGE l (FROM SQL WITH FUNCTION f(internal))",
            "DROP TRANSFORM FOR int LANGUAGE l;\n",
        ),
        ("IMPORT FOREIGN SCHEMA r LIMIT TO (a, b) FROM SERVER s INTO l", "DROP FOREIGN TABLE l.a, l.b;\n"),
        ("SECURITY LABEL FOR p ON TABLE t IS 'secret'", "SECURITY LABEL FOR p ON TABLE t IS NULL;\n"),
        ("ALTER DATABASE app SET work_mem = '1GB'", "ALTER DATABASE app RESET work_mem;\n"),
        ("ALTER SYSTEM SET work_mem = '1GB'", "ALTER SYSTEM RESET work_mem;\n"),
        ("ALTER EXTENSION e ADD TABLE t", "ALTER EXTENSION e DROP TABLE t;\n"),
        ("ALTER FUNCTION f() DEPENDS ON EXTENSION e", "ALTER FUNCTION f() NO DEPENDS ON EXTENSION e;\n"),
        ("ALTER TABLE t ADD NOT NULL a", "ALTER TABLE t ALTER COLUMN a DROP NOT NULL;\n"),
        ("ALTER TABLE IF EXISTS t ADD a int", "ALTER TABLE IF EXISTS t DROP COLUMN a;\n"),
        ("LOCK TABLE t; VACUUM t; CHECKPOINT", ""),
        ("", ""),
    ],
)
def test_what_the_proof_cannot_hold(text: str, down: str) -> None:
    """Things outside a database, or that need what the embedded server has not."""
    assert reversed_text(text).sql == down


def test_settings_are_left_out_where_nothing_is_to_be_run() -> None:
    reversal = reversed_text("SET search_path = app; ANALYZE a;")
    assert reversal.sql == ""
    assert [step.down for step in reversal.steps] == ["", ""]


def test_each_reverse_runs_under_its_own_search_path() -> None:
    text = "CREATE TABLE a (); SET search_path = x; CREATE TABLE a (); SET search_path = y; CREATE TABLE b ();"
    assert reversed_text(text).sql.splitlines() == [
        "SET search_path TO y;", "DROP TABLE b;", "SET search_path TO x;", "DROP TABLE a;", "RESET search_path;",
        "DROP TABLE a;",
    ]  # fmt: skip
    empty = "SELECT pg_catalog.set_config('search_path', '', false); CREATE TABLE public.a ();"
    assert reversed_text(empty).sql.splitlines() == [
        "SELECT pg_catalog.set_config('search_path', '', false);", "DROP TABLE public.a;", "RESET search_path;",
    ]  # fmt: skip


def test_a_table_under_another_search_path_is_another_table() -> None:
    text = "CREATE TABLE a (id int); SET search_path = x; INSERT INTO a VALUES (1); DROP TABLE a;"
    assert [step.up for step in reversed_text(text).irreversible] == ["DROP TABLE a", "INSERT INTO a VALUES (1)"]


def test_passwords_are_in_no_reason() -> None:
    text = (
        "ALTER USER MAPPING FOR a SERVER s OPTIONS (SET password 'geheim');"
        "ALTER FOREIGN TABLE t OPTIONS (SET password 'geheim'); ALTER ROLE a PASSWORD 'geheim';"
        "ALTER SERVER s OPTIONS (SET password 'geheim', DROP host); ALTER FOREIGN DATA WRAPPER f OPTIONS (SET p 'geheim')"
    )
    reversal = reversed_text(text)
    assert len(reversal.irreversible) == 5
    assert "geheim" not in reversal.sql


def test_nonsense_is_left_to_postgresql() -> None:
    text = "CREATE TABLE a () PARTITION BY LIST (x); ALTER TABLE a ATTACH PARTITION a DEFAULT; ALTER TABLE a INHERIT a;"
    assert reversed_text(text).sql.endswith("DROP TABLE a;\n")
    assert reversed_text("CREATE TABLE b PARTITION OF b DEFAULT; DROP TABLE b").sql == ""


@given(NAMES)
def test_a_quoted_name_is_read_as_itself(name: str) -> None:
    (statement,) = parse(f"DROP SCHEMA {quote_ident(name)}")
    assert unwrap(statement.node.objects[0]).sval == name.encode()[:63].decode("utf-8", "ignore")


@pytest.mark.parametrize("word", ["select", "user", "table", "all", "authorization", "between", "order", "end", "none"])
def test_reserved_words_are_quoted(word: str) -> None:
    assert quote_ident(word) == f'"{word}"'
    assert quote_ident(word + "s") == word + "s"


@given(NAMES, NAMES)
def test_no_name_escapes_from_a_comment(table: str, column: str) -> None:
    dropped = f"DROP TABLE {quote_ident(table)}; ALTER TABLE {quote_ident(table)} DROP COLUMN {quote_ident(column)}"
    reversal = reversed_text(dropped)
    assert len(reversal.irreversible) == 2
    assert parse(reversal.sql) == ()


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=8), st.data())
def test_what_is_added_goes_in_the_opposite_order(names: list[str], data: st.DataObject) -> None:
    """Columns of an old table, each once, in any number of statements."""
    columns = [f"{name}{place}" for place, name in enumerate(names)]
    clauses = ", ".join(f"ADD COLUMN {quote_ident(column)} int" for column in columns)
    split = data.draw(st.booleans())
    text = f"ALTER TABLE t {clauses}" if not split else clauses.replace("ADD", "ALTER TABLE t ADD").replace(", ", ";")
    down = reversed_text(text).sql
    assert [word.rstrip(";,") for word in down.split() if word[0] in "abc"] == columns[::-1]


@given(st.text("aé日", max_size=70), st.text("bö本", max_size=70), st.sampled_from(["idx", "key", "excl"]))
def test_a_chosen_name_fits(first: str, second: str, label: str) -> None:
    name = object_name(first, second, label)
    assert len(name.encode()) <= 63
    assert name.endswith(label)
