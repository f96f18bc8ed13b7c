"""Lint on a real catalog: each rule's example on docs/policy-lint.md has the finding, its twin has none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlglot import exp

from dbops.policy.catalog import load_catalog, read_catalog
from dbops.policy.lint import RULES, Finding, lint, pgrls
from dbops.policy.lint.logic import reduced
from dbops.policy.lint.predicate import parsed
from dbops.policy.model import Auth, Definitions, Name, Raw, Shared, TableRules, Tenant

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "policy-lint.md").read_text(encoding="utf-8")
COMPATIBLE = (ROOT / "migrations" / "sql" / "20250101_000000_supabase_compatibility.sql").read_text(encoding="utf-8")
PRELUDE = re.search(r"^```sql prelude\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)[1]  # type: ignore[index]
SECTIONS = dict(re.findall(r"^### (\S+)\n(.*?)(?=^#|\Z)", DOCS, re.MULTILINE | re.DOTALL))
EXAMPLES = {name: re.findall(r"^```sql\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for name, text in SECTIONS.items()}
# one that no database gives: what sqlglot can't read, and pgrls itself
WITHOUT_EXAMPLE = {"predicate-unreadable", "pgrls-missing", "pgrls-failed"}
NOTES = Name("public", "notes")
NOTHING = Definitions(Auth(), {})
Connection = psycopg.Connection[Any]


@pytest.fixture
def conn(empty_url: str) -> Iterator[Connection]:
    """A database with the roles and auth.uid(), and the prelude of the page."""
    with psycopg.connect(empty_url) as conn:
        conn.execute(COMPATIBLE.split("-- migrate:down")[0].encode())
        conn.execute(PRELUDE.encode())
        yield conn


def found(conn: Connection, sql: str, definitions: Definitions = NOTHING) -> tuple[Finding, ...]:
    """What lint finds after this SQL, which is undone."""
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(sql.encode())
            return lint(definitions, read_catalog(conn))
    finally:
        assert conn.info.transaction_status.name != "INERROR"


def rules(findings: tuple[Finding, ...]) -> set[str]:
    return {each.rule for each in findings}


@pytest.mark.quick
def test_every_rule_has_a_section_and_every_section_a_rule() -> None:
    assert set(SECTIONS) == set(RULES)
    assert {name for name, pair in EXAMPLES.items() if len(pair) != 2} == WITHOUT_EXAMPLE


def test_each_example_has_its_finding_and_its_twin_has_none(conn: Connection) -> None:
    wrong = []
    for name, pair in EXAMPLES.items():
        if pair:
            bad, clean = (found(conn, sql) for sql in pair)
            if name not in rules(bad):
                wrong.append(f"{name}: not found, but {rules(bad)}")
            wrong += [f"{name}: the twin has {each.rule}: {each.message}" for each in clean]
    assert wrong == []


OWN = "create policy p on public.notes for all to authenticated using (user_id = (select auth.uid()));"


@pytest.mark.parametrize(
    ("rule", "sql", "severity"),
    [
        ("rls-not-forced", "alter table public.notes no force row level security", "warning"),
        ("rls-not-forced", "alter table public.notes no force row level security, owner to anon", "error"),
        ("privilege-past-rls", "grant truncate on public.notes to public", "error"),
        ("privilege-past-rls", "grant references on public.notes to anon", "warning"),
        ("privilege-past-rls", "grant all on public.notes to service_role", None),
        ("policy-always-true", "create policy p on public.notes for select to authenticated using (true)", "warning"),
        ("policy-always-true", "create policy p on public.notes for all to anon using (true)", "error"),
        ("policy-always-true", "create policy p on public.notes to service_role using (true)", None),
        ("policy-always-true", "create policy p on public.notes as restrictive to anon using (true)", None),
        ("policy-always-true", OWN + "create policy q on public.notes for select to anon using (true)", "error"),
        ("policy-always-true", "create policy p on public.notes for all to anon using (true or note = 'a')", "error"),
        ("unique-oracle", OWN + "create unique index on public.notes (note)", "warning"),
        ("unique-oracle", OWN + "create unique index on public.notes (id)", "info"),
        ("unique-oracle", OWN + "create unique index on public.notes (id);"
         "revoke insert, update on public.notes from authenticated", None),
        ("unique-oracle",
         OWN + "alter table public.notes add n bigint generated always as identity unique", None),
        ("role-bypasses-rls", "alter role anon bypassrls", "error"),
        ("rls-missing", "create table public.t (a int, b int); grant select (a) on public.t to anon", "error"),
        ("rls-missing", "create table public.t (a int); grant truncate on public.t to anon", None),
        ("view-bypasses-rls", "create view public.v as select 1 from public.notes;"
         "create view public.w as select * from public.v; grant select on public.w to anon", "error"),
        ("view-bypasses-rls", "create view public.v as select 1 from public.notes", None),
        ("security-definer-search-path",
         "create function public.f() returns int language sql security definer return 1;", "error"),
        ("security-definer-search-path",
         "create function public.f() returns int language sql security definer set work_mem = '1MB' return 1;", "error"),
        ("policy-open-without-identity", "alter table public.notes alter user_id drop not null",  None),
        ("policy-beside-stricter", OWN + "create policy q on public.notes for insert to anon with check (note = 'a')", None),
        ("policy-beside-stricter", OWN + "create policy q on public.notes for insert to authenticated "
         "with check (note = 'a')", "warning"),
    ],
)  # fmt: skip
def test_verdicts(conn: Connection, rule: str, sql: str, severity: str | None) -> None:
    if rule in ("policy-open-without-identity", "unique-oracle"):
        sql = f"alter table public.notes drop constraint notes_pkey;{sql}"
    assert {each.severity for each in found(conn, sql) if each.rule == rule} == ({severity} if severity else set())


def test_a_null_owner_is_open_to_nobody_in_particular(conn: Connection) -> None:
    """`is not distinct from` opens rows whose owner is NULL; of a NOT NULL column there are none."""
    policy = (
        "create policy p on public.notes for select to authenticated "
        "using (user_id is not distinct from (select auth.uid()));"
    )
    nullable = (
        "alter table public.notes drop constraint notes_pkey; alter table public.notes alter user_id drop not null;"
    )
    assert "policy-open-without-identity" not in rules(found(conn, policy))
    assert "policy-open-without-identity" in rules(found(conn, nullable + policy))


class TestWithDefinitions:
    """What the definitions say is known, and is where a finding stands."""

    def definitions(self, **keys: Any) -> Definitions:
        table = TableRules(NOTES, Path("policies/a.toml"), 7, **keys)
        return Definitions(Auth(), {NOTES: table})

    def test_a_finding_stands_in_the_file(self, conn: Connection) -> None:
        [each] = found(conn, "grant truncate on public.notes to anon", self.definitions(owner="user_id"))
        assert (each.path, each.line, each.table) == (Path("policies/a.toml"), 7, "public.notes")
        [each] = found(conn, "grant truncate on public.notes to anon")
        assert (each.path, each.line) == (None, 0)

    def test_a_partition_stands_with_its_parent(self, conn: Connection) -> None:
        rule = TableRules(Name("public", "logs"), Path("p.toml"), 3, owner="user_id")
        sql = EXAMPLES["partition-without-rls"][0]
        [each] = found(conn, sql, Definitions(Auth(), {rule.name: rule}))
        assert (each.rule, each.table, each.line) == ("partition-without-rls", "public.logs_2025", 3)

    def test_open_on_purpose(self, conn: Connection) -> None:
        sql = "create policy dbops_shared on public.notes for select to authenticated using (true);"
        shared = self.definitions(owner="user_id", shared=(Shared("true", ("select",), ("authenticated",)),))
        assert found(conn, OWN + sql, shared) == ()
        assert rules(found(conn, OWN + sql, self.definitions(owner="user_id"))) == {
            "policy-always-true",
            "policy-beside-stricter",
        }

    def test_a_raw_policy_is_judged_before_it_is_applied(self, conn: Connection) -> None:
        raw = Raw("open", verb="delete", using="true")
        assert rules(found(conn, OWN, self.definitions(owner="user_id", raw=(raw,)))) >= {"policy-always-true"}

    def test_the_owners_column_is_told(self, conn: Connection) -> None:
        """Without a policy nobody knows whose the rows are, except from the definitions."""
        sql = "create unique index k on public.notes (visibility)"
        assert found(conn, sql) == ()
        assert rules(found(conn, sql, self.definitions(owner="user_id"))) == {"unique-oracle"}
        tenant = self.definitions(tenant=Tenant("visibility", Name("public", "members")))
        assert not [each for each in found(conn, sql, tenant) if "k on" in each.message]

    def test_a_view_that_is_meant_so(self, conn: Connection) -> None:
        sql = EXAMPLES["view-bypasses-rls"][0]
        meant = replace(self.definitions(owner="user_id"), definer_views={Name("public", "shown"): "public notes"})
        assert found(conn, sql, meant) == ()

    def test_other_roles(self, conn: Connection) -> None:
        sql = "create role app_user nologin; grant truncate on public.notes to app_user"
        assert found(conn, sql) == ()
        own = replace(NOTHING, auth=Auth("app.user_id", "app_user", "app_user"))
        assert rules(found(conn, sql, own)) == {"privilege-past-rls"}


# predicates of an identity, a NOT NULL uuid, a NOT NULL boolean and constants
VALUES = st.sampled_from(["auth.uid()", "(select auth.uid())", "n.user_id", "null::uuid", f"'{'0' * 32}'::uuid"])
ATOMS = st.one_of(
    st.sampled_from(["true", "false", "null::boolean", "n.shown"]),
    st.builds(
        "({} {} {})".format, VALUES, st.sampled_from(["=", "<>", "is distinct from", "is not distinct from"]), VALUES
    ),
    st.builds("({} is {}null)".format, VALUES, st.sampled_from(["", "not "])),
    st.builds("(coalesce({}, {}) = {})".format, VALUES, VALUES, VALUES),
)
PREDICATES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner),
        st.builds("(not {})".format, inner),
        st.builds(
            "({} is {})".format, inner, st.sampled_from(["true", "false", "null", "not true", "not false", "not null"])
        ),
        st.builds("(coalesce({}, {}))".format, inner, inner),
        st.builds("(case when {} then {} else {} end)".format, inner, inner, inner),
        st.builds("({} in (select m.user_id from public.notes m where {}))".format, VALUES, inner),
        st.builds("({} = any (array(select m.user_id from public.notes m where {})))".format, VALUES, inner),
        st.builds("({} in ({}, {}))".format, VALUES, VALUES, VALUES),
        st.builds("(exists (select from public.notes m where {}))".format, inner),
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def oracle(server18: Any) -> Iterator[Connection]:
    """A server that works predicates out."""
    with server18.server.database() as url, psycopg.connect(url, autocommit=True) as conn:
        conn.execute(COMPATIBLE.split("-- migrate:down")[0].encode())
        conn.execute("create table public.notes (user_id uuid not null, shown boolean not null)")
        conn.execute("insert into public.notes select gen_random_uuid(), b from (values (true), (false)) v(b)")
        yield conn


def in_parentheses(tree: exp.Expression) -> exp.Expression:
    """The tree with what AND and OR join in parentheses: sqlglot prints a tree as if none were needed."""
    inner = [node for node in tree.find_all(exp.And, exp.Or) if node.parent is not None]
    for node in reversed(inner):
        node.replace(exp.Paren(this=node.copy()))
    return tree


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=PREDICATES)
@example(text="(not (null::boolean or (null::boolean and n.shown)))")
def test_a_predicate_is_worked_out_as_postgresql_does(oracle: Connection, text: str) -> None:
    tree = parsed(text)
    assert tree is not None
    ours = in_parentheses(reduced(tree, Auth(), frozenset({"user_id", "shown"}))).sql(dialect="postgres")
    query = f"select count(*) from public.notes n where ({text}) is distinct from ({ours})::boolean"
    assert oracle.execute(query.encode()).fetchone() == (0,), ours


def test_pgrls_is_read(conn: Connection, empty_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program that answers as pgrls 0.57 does: told apart, placed, and never twice what we say."""
    conn.commit()
    report = (
        '{"violations": [{"rule_id": "SEC030", "severity": "info", "title": "t", "message": "nullable", '
        '"location": "public.notes"}, {"rule_id": "SEC002", "severity": "error", "title": "t", "message": "m", '
        '"location": "public.notes"}, {"rule_id": "SEC007", "severity": "info", "title": "t", "message": "m", '
        '"location": "public.notes.p"}]}'
    )
    program = tmp_path / "pgrls"
    program.write_text(f"#!/bin/sh\necho \"$*\" > {tmp_path}/arguments\ncat <<'END'\n{report}\nEND\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(pgrls, "binary", lambda: str(program))
    findings = lint(NOTHING, load_catalog(conn), url=empty_url)
    assert [(each.rule, each.severity, each.table) for each in findings] == [("pgrls/SEC030", "info", "public.notes")]
    arguments = (tmp_path / "arguments").read_text()
    assert "--format json" in arguments
    assert empty_url not in arguments


@pytest.mark.parametrize("body", ["echo no server >&2; exit 2", "echo '[]'", "echo '{\"violations\": [{}]}'", "exit 1"])
def test_a_pgrls_that_cannot_be_read_is_told(
    conn: Connection, empty_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str
) -> None:
    program = tmp_path / "pgrls"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setattr(pgrls, "binary", lambda: str(program))
    assert rules(lint(NOTHING, read_catalog(conn), url=empty_url)) == {"pgrls-failed"}


def test_without_pgrls(conn: Connection, empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgrls, "binary", lambda: None)
    catalog = read_catalog(conn)
    assert rules(lint(NOTHING, catalog, url=empty_url)) == {"pgrls-missing"}
    assert lint(NOTHING, catalog, url=empty_url, pgrls=False) == ()


def test_the_memory_schema(make_database: Callable[..., str]) -> None:
    """As its migrations leave it, before any policy: closed, forced, every key with its owner."""
    with psycopg.connect(make_database("memory")) as conn:
        errors = [each for each in lint(NOTHING, load_catalog(conn)) if each.severity == "error"]
    assert errors == []
