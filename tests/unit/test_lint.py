"""Our own rules: each finds its bad example on the right line, and nothing in the clean twin."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dbops.errors import MigrationFileError
from dbops.migrate.files import parse_sql, read_folder
from dbops.migrate.lint import RULES, Finding, lint
from dbops.migrate.lint.squawk import DROPPED

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "lint.md").read_text(encoding="utf-8")
# section by section: the rule's name and its text
SECTIONS = dict(re.findall(r"^### (\S+)\n(.*?)(?=^#|\Z)", DOCS, re.MULTILINE | re.DOTALL))
CHECKS = sorted(name for name, rule in RULES.items() if rule.check)

NOTES = "create table notes (id int, embedding vector(3), wide vector(2001), any_size vector);\n"
# rule, up part, the line it is found on (0: it is not found)
CASES = [
    ("vector-index-without-operator-class", NOTES + "\ncreate index i on notes using ivfflat (embedding);", 3),
    ("vector-index-without-operator-class", "create index i on notes using hnsw (unknown);", 0),
    ("vector-index-without-operator-class", NOTES + "create index i on notes using gin (embedding);", 0),
    ("vector-index-without-dimensions",
     NOTES + "create index i on notes using hnsw ((any_size::halfvec) halfvec_l2_ops);", 2),
    ("vector-index-without-dimensions", NOTES + "alter table notes alter any_size type vector(3);\n"
     "create index i on notes using hnsw (any_size vector_l2_ops);", 0),
    ("vector-index-too-wide", NOTES + "create index i on public.notes using ivfflat (wide vector_l2_ops);", 2),
    ("vector-index-too-wide",
     NOTES + "create index i on notes using hnsw ((wide::halfvec(4001)) halfvec_l2_ops);", 2),
    ("vector-index-too-wide",
     NOTES + "create index i on notes using hnsw ((wide::halfvec(4000)) halfvec_l2_ops);", 0),
    ("vector-index-too-wide",
     "alter table n add column e vector(9000);\ncreate index i on n using hnsw (e vector_l2_ops);", 2),
    ("ivfflat-on-empty-table", NOTES + "create index i on notes using ivfflat (embedding vector_l2_ops);", 2),
    ("ivfflat-on-empty-table",
     NOTES + "insert into notes select 1;create index i on notes using ivfflat (embedding vector_l2_ops);", 0),
    ("ivfflat-on-empty-table", "create index concurrently i on notes using ivfflat (embedding vector_l2_ops);", 0),
    ("vector-index-wrong-distance", NOTES + "create index i on notes using hnsw (embedding vector_cosine_ops);\n"
     "create view v as select id from notes order by embedding <-> '[1,2,3]';", 2),
    ("vector-index-wrong-distance", NOTES + "create index i on notes using hnsw (embedding vector_cosine_ops);\n"
     "create view v as select embedding <-> '[1,2,3]', embedding <=> '[1,2,3]' from notes;", 0),
    ("vector-index-wrong-distance", NOTES + "create table other (embedding vector(3));\n"
     "create index i on notes using hnsw (embedding vector_cosine_ops);\n"
     "create view v as select embedding <-> '[1,2,3]' from other;", 0),
    ("rls-missing", "\n\ncreate table t (tenant_id int);", 3),
    ("rls-missing", "create temp table t (tenant_id int);", 0),
    ("rls-missing",
     "create table t (owner_id int);do $$ begin execute 'alter table t enable row level\n security'; end $$;", 0),
    ("rls-missing", "create table app.t (owner_id int);alter table t enable row level security;", 1),
    ("rls-not-forced", "create table t (owner_id int);alter table t enable row level security;", 1),
    ("rls-not-forced", "create table t (id int);alter table t enable row level security;", 0),
    ("rls-disabled", "select 1;\nalter table t add c int, no force row level security;", 2),
    ("rls-disabled", "alter table t enable row level security;", 0),
    ("policy-without-check", "create policy p on t for update to a using (c = 1);", 1),
    ("policy-without-check", "create policy p on t for delete to a using (c = 1);", 0),
    ("policy-without-role", "create policy p on t for select to public using (c = 1);", 0),
    ("policy-always-true", "create policy p on t for all to authenticated using (true) with check (c = 1);", 1),
    ("policy-always-true", "create policy p on t for insert to anon with check (true);", 1),
    ("policy-always-true", "create policy p on t for select to anon using (true);", 0),
    ("policy-always-true", "create policy p on t for all to service_role using (true);", 0),
    ("policy-always-true", "create policy p on t as restrictive for all to anon using (true);", 0),
    ("policy-call-per-row", "\nalter policy p on t using (c = current_setting('app.user')::int);", 2),
    ("policy-call-per-row",
     "create policy p on t using (exists (select from m where m.u = (select auth.uid())));", 0),
    ("policy-call-per-row", "create policy p on t using (lower(c) = 'x');", 0),
    ("policy-trusts-user-metadata",
     "create policy p on t using ((select raw_user_meta_data ->> 'r' from auth.users limit 1) = 'x');", 1),
    ("view-bypasses-rls",
     "alter table t enable row level security;\ncreate view v as with w as (select * from t) select * from w;", 2),
    ("view-bypasses-rls",
     "alter table w enable row level security;create view v as with w as (select 1) select * from w;", 0),
    ("view-bypasses-rls", "alter table t enable row level security;create view v as select * from t;\n"
     "alter view v set (security_invoker = on);", 0),
    ("view-bypasses-rls",
     "alter table t enable row level security;create view v with (security_invoker = off) as select * from t;", 1),
    ("security-definer-search-path", "create function f() returns int language sql security definer return 1;", 0),
    ("security-definer-search-path", "create function f() returns int language sql as 'select 1';", 0),
    ("security-definer-search-path", "create function f() returns int language sql security definer as 'select 1';\n"
     "alter function f() set search_path = '';", 0),
    ("security-definer-search-path",
     "create function f() returns int language sql security definer set work_mem = '1MB' as 'select 1';", 1),
    ("grant-truncate", "grant select, truncate on t to public;", 1),
    ("grant-truncate", "alter default privileges grant all on tables to anon;", 1),
    ("grant-truncate", "grant all on all tables in schema public to service_role, anon;", 1),
    ("grant-truncate", "grant all (c) on t to anon;", 0),
    ("grant-truncate", "grant all on schema app to anon;revoke all on t from anon;grant all on t to app;", 0),
    ("index-blocks-writes", "\ncreate index i on t using hnsw (e vector_l2_ops);", 2),
    ("index-blocks-writes", "create table t as select 1 as c;create index i on t (c);", 0),
    ("index-blocks-writes", "create index i on only t (c);", 0),
    ("file-not-atomic", "alter type e add value 'x';\ninsert into t values ('x');", 1),
    ("file-not-atomic", "-- migrate:up transaction:false\ncreate index concurrently i on t (c);select 1;", 0),
    ("file-not-atomic",
     "set work_mem = '1GB';create index concurrently i on t (c);create index concurrently j on t (d);", 0),
    ("file-not-atomic",
     "create unique index concurrently i on t (c);alter table t add constraint u unique using index i;", 0),
    ("many-exclusive-locks", "alter table a add c int;\nselect 1;\ntruncate b;alter table a add d int;", 3),
    ("many-exclusive-locks", "create policy p on a using (true);\ndrop table b;", 2),
    ("many-exclusive-locks", "alter table a validate constraint c;alter table b alter c set statistics 9;"
     "alter table d add foreign key (c) references a (c) not valid;alter view v set (security_invoker);"
     "alter table e add c int;", 0),
    ("data-lost", "\ndrop table a, b;", 2),
    ("data-lost", "\ndelete from a where c = 1;", 2),
    ("data-lost", "drop schema app cascade;", 1),
    ("data-lost", "drop schema app;", 0),
    ("data-lost",
     "create table a (c int);alter table a rename to b;drop table b;alter table d add c int;alter table d drop c;", 0),
    ("data-lost",
     "create table a (c int);insert into a values (1);truncate a;alter table a drop c;delete from a;drop table a;", 0),
    ("write-without-where", "\n\ndelete from a;", 3),
    ("write-without-where", "create table a (c int);update a set c = 1;", 0),
    ("no-way-back", "create table a (c int);\ndelete from b where c = 1;", 2),
    ("down-missing", "\ncreate table a (c int);", 2),
    ("down-missing", "delete from b where c = 1;", 0),
    ("down-incomplete", "-- migrate:up\ncreate type e as enum ();\n-- migrate:down\nselect 1;", 0),
    ("down-incomplete", "-- migrate:up\ncreate type e as enum ();\n-- migrate:down\ndrop table x;", 2),
    ("down-incomplete",
     "-- migrate:up\ncreate function f() returns int return 1;\n-- migrate:down\ndrop table x;", 2),
    ("down-incomplete", "-- migrate:up\ncreate view v as select 1;\n-- migrate:down\ndrop table x cascade;", 0),
    ("down-incomplete",
     "-- migrate:up\ncreate table a (c int);alter table a rename to b;\n-- migrate:down\ndrop table b;", 0),
    ("down-incomplete", "-- migrate:up\ncreate table if not exists a (c int);create table p partition of x default;\n"
     "-- migrate:down\ndrop table x;", 0),
]  # fmt: skip


def found(sql: str, *, squawk: bool = False, pg_version: str = "18") -> tuple[Finding, ...]:
    migration = parse_sql(sql, Path("sql/20250101_000001_example.sql"), "20250101_000001", "example")
    return lint([migration], squawk=squawk, pg_version=pg_version)


def lines(rule: str, sql: str) -> list[int]:
    return [each.line for each in found(sql) if each.rule == rule]


@pytest.mark.parametrize(("rule", "sql", "line"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)])
def test_case(rule: str, sql: str, line: int) -> None:
    where = lines(rule, sql)
    assert where[:1] == ([line] if line else [])


def test_every_rule_has_a_section_and_every_section_a_rule() -> None:
    assert sorted(SECTIONS) == sorted(RULES)


@pytest.mark.parametrize("rule", CHECKS)
def test_the_examples_of_the_docs(rule: str) -> None:
    bad, good = re.findall(r"```sql\n(.*?)```", SECTIONS[rule], re.DOTALL)
    [each] = [each for each in found(bad) if each.rule == rule]
    assert (each.severity, each.hint) == (RULES[rule].severity, RULES[rule].hint)
    assert not lines(rule, good)


def test_the_docs_show_the_dropped_rules_of_squawk() -> None:
    assert re.findall(r"^\| `(\S+)` \| (.*) \|$", DOCS, re.MULTILINE) == list(DROPPED.items())


def test_a_view_before_postgresql_15_has_no_other_way() -> None:
    sql = "alter table t enable row level security;create view v as select * from t;"
    assert "view-bypasses-rls" in {each.rule for each in found(sql, pg_version="15.4")}
    assert "view-bypasses-rls" not in {each.rule for each in found(sql, pg_version="14")}


def test_other_files_tell_of_the_tables() -> None:
    def migration(number: int, sql: str):  # type: ignore[no-untyped-def]
        return parse_sql(sql, Path(f"{number}_x.sql"), str(number), "x")

    table = migration(1, "create table n (e vector(3000));alter table n enable row level security;")
    index = migration(2, "create index concurrently i on n using hnsw (e vector_l2_ops);")
    view = migration(3, "create view v as select * from n;")
    rules = {(each.path.name, each.rule) for each in lint([table, index, view], squawk=False)}
    assert ("2_x.sql", "vector-index-too-wide") in rules
    assert ("3_x.sql", "view-bypasses-rls") in rules


def test_the_memory_schema_is_clean() -> None:
    migrations = read_folder(ROOT / "migrations" / "sql")
    assert len(migrations) >= 4
    every = lint(migrations)
    assert [each for each in every if each.severity != "info"] == []


def test_a_syntax_error_is_raised_with_its_place() -> None:
    with pytest.raises(MigrationFileError, match=r"example\.sql:2:8: syntax error"):
        found("select 1;\ncreate tabel x ();")


@pytest.mark.parametrize(
    "sql",
    [
        "-- dbops:ignore write-without-where,squawk/x ten rows\nupdate t set c = 1;",
        "-- dbops:ignore write-without-where ten rows\n-- and another word\nupdate t set c = 1;",
        "update t set c = 1; -- dbops:ignore write-without-where ten rows",
        "update t\nset c = 1 -- dbops:ignore write-without-where ten rows\n;",
        "update t set c = 1;\nselect 1;\n-- dbops:ignore-file write-without-where ten rows",
        "-- migrate:up\nupdate t set c = 1;\n-- migrate:down\nselect 1; -- dbops:ignore-file write-without-where why",
    ],
)
def test_suppressed(sql: str) -> None:
    rules = {each.rule for each in found(sql)}
    assert not rules & {"write-without-where", "suppression-unused", "suppression-without-reason"}


@pytest.mark.parametrize(
    "sql",
    [
        "-- dbops:ignore write-without-where ten rows\n\nupdate t set c = 1;",
        "-- dbops:ignore write-without-where ten rows\nselect 1;\nupdate t set c = 1;",
        "-- dbops:ignore data-lost ten rows\nupdate t set c = 1;",
        "-- dbops:ignore write-without-were ten rows\nupdate t set c = 1;",
    ],
)
def test_a_suppression_that_suppresses_nothing(sql: str) -> None:
    every = found(sql)
    assert [each.line for each in every if each.rule == "suppression-unused"] == [1]
    assert "write-without-where" in {each.rule for each in every}


def test_an_unknown_rule_is_named() -> None:
    [unused] = [each for each in found("-- dbops:ignore no-such why\nselect 1;") if each.rule == "suppression-unused"]
    assert unused.message == "there is no rule no-such"
    assert unused.severity == "info"


@pytest.mark.parametrize(
    "comment", ["dbops:ignore write-without-where", "dbops:ignore-file write-without-where  ", "dbops:ignore"]
)
def test_a_suppression_without_a_reason_is_an_error(comment: str) -> None:
    every = found(f"select 1;\n-- {comment}\nupdate t set c = 1;")
    assert [(each.line, each.severity) for each in every if each.rule == "suppression-without-reason"] == [(2, "error")]
    assert "write-without-where" in {each.rule for each in every}


def test_a_comment_above_the_marker_counts(tmp_path: Path) -> None:
    path = tmp_path / "20250101_000001_x.sql"
    path.write_text(
        "-- dbops:ignore-file write-without-where ten rows\n\n-- migrate:up\nupdate t set c = 1;\n", encoding="utf-8"
    )
    rules = {each.rule for each in lint(read_folder(tmp_path), squawk=False)}
    assert not rules & {"write-without-where", "suppression-unused"}


def test_a_down_part_in_front_changes_no_line(tmp_path: Path) -> None:
    path = tmp_path / "20250101_000001_x.sql"
    path.write_text(
        "-- migrate:down\nselect 1; -- dbops:ignore-file data-lost why\n-- migrate:up\n\ndelete from t;\n",
        encoding="utf-8",
    )
    every = lint(read_folder(tmp_path), squawk=False)
    assert [(each.rule, each.line) for each in every] == [("write-without-where", 5)]


def test_pairs_and_json_have_their_own_places(tmp_path: Path) -> None:
    (tmp_path / "1_a.up.sql").write_text("select 1;\nupdate t set c = 1;\n", encoding="utf-8")
    (tmp_path / "1_a.down.sql").write_text("select 1;\n-- dbops:ignore data-lost why\n", encoding="utf-8")
    (tmp_path / "2_b.json").write_text(
        '{"version": "2",\n "name": "b",\n "up": ["select 1", "update t set c = 1"]}', encoding="utf-8"
    )
    every = {(each.rule, each.path.name, each.line) for each in lint(read_folder(tmp_path), squawk=False)}
    assert {
        ("write-without-where", "1_a.up.sql", 2),
        ("suppression-unused", "1_a.down.sql", 2),
        ("write-without-where", "2_b.json", 3),
    } <= every
