"""What a statement means for the one who runs it: transactions, steps, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbops.errors import MigrationFileError
from dbops.migrate.files import Script
from dbops.migrate.kinds import Mode, Program, outside_reason, program
from dbops.migrate.parse import parse
from tests.transaction_corpus import INSIDE, OUTSIDE

pytestmark = pytest.mark.quick

ADD = "alter type mood add value 'ok';"


def read(sql: str, *, transaction: bool = True) -> Program:
    return program(Script(sql, Path("1_a.sql"), 1, transaction))


def refusal(sql: str) -> MigrationFileError:
    with pytest.raises(MigrationFileError) as caught:
        read(sql)
    return caught.value


@pytest.mark.parametrize("sql", OUTSIDE)
def test_what_postgresql_refuses_in_a_transaction_runs_outside_one(sql: str) -> None:
    found = read(sql)
    assert not found.transactional
    assert found.reason
    assert [step.mode for step in found.steps] == [Mode.OUTSIDE]


@pytest.mark.parametrize("sql", INSIDE)
def test_its_near_relatives_run_inside_one(sql: str) -> None:
    found = read(sql)
    assert found.transactional
    assert found.reason == ""


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("create index concurrently i on t (id)", "CREATE INDEX CONCURRENTLY"),
        ("drop index concurrently i", "DROP INDEX CONCURRENTLY"),
        ("reindex schema s", "REINDEX SCHEMA"),
        ("alter table t detach partition p concurrently", "DETACH PARTITION CONCURRENTLY"),
        ("alter subscription s add publication p", "ALTER SUBSCRIPTION REFRESH"),
        ("discard all", "DISCARD ALL"),
    ],
)
def test_the_reason_names_the_command(sql: str, reason: str) -> None:
    assert outside_reason(parse(sql)[0]) == reason


def test_one_such_statement_makes_the_file_run_step_by_step() -> None:
    found = read("create table a (id int);\nset work_mem = '1GB';\ncreate index concurrently i on a (id);\nselect 1;")
    assert not found.transactional
    assert found.reason == "CREATE INDEX CONCURRENTLY"
    assert [step.number for step in found.steps] == [1, 2, 3, 4]
    assert [step.mode for step in found.steps] == [
        Mode.TRANSACTION,
        Mode.SESSION,
        Mode.OUTSIDE,
        Mode.TRANSACTION,
    ]


def test_transaction_false_runs_step_by_step_whatever_is_in_it() -> None:
    found = read("update t set a = 1; call fill(); do $$ begin commit; end $$; reset role;", transaction=False)
    assert (found.transactional, found.reason) == (False, "transaction:false")
    assert [step.mode for step in found.steps] == [Mode.TRANSACTION, Mode.OUTSIDE, Mode.OUTSIDE, Mode.SESSION]


def test_a_procedure_runs_inside_where_nobody_said_otherwise() -> None:
    found = read("call fill(); vacuum t;")
    assert [step.mode for step in found.steps] == [Mode.TRANSACTION, Mode.OUTSIDE]


class TestEnumValues:
    @pytest.mark.parametrize(
        "use",
        [
            "insert into t values ('ok');",
            "update t set m = 'ok' where m = 'bad';",
            "alter table t alter m set default 'ok';",
            "create index i on t (id) where m = 'ok';",
            "do $$ begin insert into t values ('ok'); end $$;",
            "create function f() returns mood language sql begin atomic select 'ok'::mood; end;",
            "select 1; create view v as select * from t where m = any ('{ok,bad}');",
        ],
    )
    def test_a_value_used_at_once_must_be_committed_first(self, use: str) -> None:
        found = read(ADD + use)
        assert not found.transactional
        assert found.reason == "ALTER TYPE … ADD VALUE 'ok', used in the same file"
        assert {step.mode for step in found.steps} == {Mode.TRANSACTION}

    @pytest.mark.parametrize(
        "sql",
        [
            ADD,
            ADD + "alter type mood add value 'fine' after 'ok';",
            ADD + "insert into t values ('bad');",
            "insert into t values ('ok');" + ADD,
            "create type mood as enum ('bad');" + ADD + "insert into t values ('ok');",
            "alter type mood rename value 'bad' to 'ok'; insert into t values ('ok');",
        ],
    )
    def test_else_one_transaction_is_enough(self, sql: str) -> None:
        assert read(sql).transactional


class TestTransactionStatements:
    @pytest.mark.parametrize(
        "begin", ["begin", "begin work", "begin isolation level serializable", "start transaction"]
    )
    @pytest.mark.parametrize("end", ["commit", "commit work", "end"])
    def test_an_enclosing_transaction_is_ignored(self, begin: str, end: str) -> None:
        found = read(f"{begin};\ncreate table a ();\ncreate table b ();\n{end};")
        assert found.transactional
        assert [(s.sql, s.line) for s in found.statements] == [
            ("create table a ()", 2),
            ("create table b ()", 3),
        ]

    def test_an_enclosing_transaction_hides_nothing(self) -> None:
        assert read("begin; create index concurrently i on t (a); commit;").reason == "CREATE INDEX CONCURRENTLY"

    @pytest.mark.parametrize(
        ("sql", "line", "what"),
        [
            ("create table a ();\ncommit;", 2, "COMMIT"),
            ("begin;\ncreate table a ();", 1, "BEGIN"),
            ("begin;\nselect 1;\nrollback;", 1, "BEGIN"),
            ("begin;\nselect 1;\ncommit;\nbegin;\nselect 2;\ncommit;", 1, "BEGIN"),
            ("select 1;\nsavepoint s;", 2, "SAVEPOINT"),
            ("select 1;\nrelease savepoint s;", 2, "RELEASE"),
            ("select 1;\nrollback to savepoint s;", 2, "ROLLBACK TO"),
            ("select 1;\nabort;", 2, "ROLLBACK"),
            ("select 1;\nstart transaction;", 2, "START"),
            ("select 1;\ncommit and chain;", 2, "COMMIT"),
            ("begin;", 1, "BEGIN"),
        ],
    )
    def test_others_are_refused_with_their_line(self, sql: str, line: int, what: str) -> None:
        error = refusal(sql)
        assert error.message.startswith(
            f"1_a.sql:{line}: {what} in a migration: dbops runs each migration in a transaction"
        )
        assert "nothing was applied" in error.hint

    @pytest.mark.parametrize(
        ("sql", "what"),
        [
            ("prepare transaction 'x'", "prepare"),
            ("commit prepared 'x'", "commit prepared"),
            ("rollback prepared 'x'", "rollback prepared"),
        ],
    )
    def test_two_phase_commit_is_refused_by_name(self, sql: str, what: str) -> None:
        assert refusal(f"select 1;\n{sql};").message.startswith(f"1_a.sql:2: two-phase commit ({what}) in a migration")

    def test_a_function_may_speak_of_them(self) -> None:
        assert read("create procedure p() language plpgsql as $$ begin commit; end $$;").transactional
        assert read("create function f() returns int language sql begin atomic select 1; end;").transactional


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("copy t from stdin", "COPY … FROM STDIN"),
        ("copy t to stdout", "COPY … TO STDOUT"),
        ("copy (select 1) to stdout", "TO STDOUT"),
    ],
)
def test_copy_through_the_client_is_refused(sql: str, what: str) -> None:
    assert what in refusal(f"{sql};").message


@pytest.mark.parametrize("sql", ["copy t from '/srv/t.csv'", "copy t from program 'cat t'", "copy t to '/srv/t.csv'"])
def test_copy_on_the_server_is_not(sql: str) -> None:
    assert read(sql).transactional


def test_a_refusal_tells_the_line_of_the_part() -> None:
    with pytest.raises(MigrationFileError, match=r"^1_a\.sql:12: COMMIT"):
        program(Script("select 1;\n\ncommit;", Path("1_a.sql"), 10))
