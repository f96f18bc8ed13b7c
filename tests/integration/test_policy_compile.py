"""The wanted state on a real PostgreSQL: it does what the definitions say, no more and no less."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from dbops.config import Settings
from dbops.errors import DefinitionError
from dbops.policy import PolicyManager
from dbops.policy.catalog import load_catalog
from dbops.policy.compile import compile_definitions
from dbops.policy.model import HELPERS
from dbops.policy.read import read_definitions
from dbops.policy.state import Policy, Wanted

Conn = psycopg.Connection[Any]
USER_ROLE, ANON_ROLE, STAFF = "dbops_test_user", "dbops_test_anon", "dbops_test_staff"
HEAD = f'auth = "guc:app.user_id"\nuser_role = "{USER_ROLE}"\nanon_role = "{ANON_ROLE}"\n'
SETTING = "app.user_id"


@pytest.fixture
def conn(empty_db: Conn) -> Conn:
    """A superuser's connection to a database in which the roles exist; they belong to the cluster and stay."""
    for role in (USER_ROLE, ANON_ROLE, STAFF):
        if not empty_db.execute("select 1 from pg_roles where rolname = %s", [role]).fetchone():
            empty_db.execute(sql.SQL("create role {}").format(sql.Identifier(role)))
        empty_db.execute(sql.SQL("grant usage on schema public to {}").format(sql.Identifier(role)))
    return empty_db


def build(conn: Conn, folder: Path, text: str) -> Wanted:
    """Compile the definitions and carry out the wanted state."""
    (folder / "app.toml").write_text(HEAD + text)
    wanted = compile_definitions(read_definitions(folder), load_catalog(conn))
    for statement in statements(wanted):
        conn.execute(statement)
    return wanted


def statements(wanted: Wanted) -> Iterator[Any]:
    name = sql.Identifier
    yield sql.SQL("create schema if not exists {}").format(name(HELPERS))
    for helper in wanted.helpers:
        yield helper.statement
        function = sql.SQL("{}({})").format(name(HELPERS, helper.name), sql.SQL(helper.arguments))
        yield sql.SQL("revoke all on function {} from public").format(function)
        yield from (sql.SQL("grant execute on function {} to {}").format(function, name(r)) for r in helper.execute)
    for table in wanted.tables.values():
        relation = name(table.name.schema, table.name.name)
        yield sql.SQL("alter table {} enable row level security").format(relation)
        yield sql.SQL("alter table {} force row level security").format(relation)
        yield from map(made, table.policies)
        yield from (trigger.definition for trigger in table.triggers)
        for words, grants in (("grant {} on {} to {}", table.grants), ("revoke {} on {} from {}", table.revokes)):
            for role, held in grants.items():
                whom = sql.SQL("public") if role == "public" else name(role)
                yield sql.SQL(words).format(sql.SQL(", ").join(map(sql.SQL, sorted(held))), relation, whom)
    for view in wanted.invoker_views:
        yield sql.SQL("alter view {} set (security_invoker = true)").format(name(view.schema, view.name))
    yield from (proposal.statement for proposal in wanted.proposals)


def made(policy: Policy) -> sql.Composed:
    roles = sql.SQL(", ").join(sql.SQL("public") if r == "public" else sql.Identifier(r) for r in policy.roles)
    parts = [
        sql.SQL("create policy {} on {}").format(
            sql.Identifier(policy.name), sql.Identifier(policy.table.schema, policy.table.name)
        ),
        sql.SQL("as permissive" if policy.permissive else "as restrictive"),
        sql.SQL("for " + policy.verb),
        sql.SQL("to {}").format(roles),
    ]
    for word, text in (("using ({})", policy.using), ("with check ({})", policy.check)):
        parts += [sql.SQL(word).format(sql.SQL(text))] if text is not None else []
    return sql.SQL(" ").join(parts)


def attempt(conn: Conn, user: int | None, statement: str, *, role: str = USER_ROLE) -> list[tuple[Any, ...]] | str:
    """What the statement gives a user, or the SQLSTATE; all of it is rolled back."""
    with conn.transaction(force_rollback=True):
        conn.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
        if user is not None:
            conn.execute("select set_config(%s, %s, true)", [SETTING, str(user)])
        try:
            with conn.transaction():
                return conn.execute(statement.encode()).fetchall()
        except psycopg.Error as error:
            return error.sqlstate or ""


VERBS = {
    "select": "select id from t where id = {id}",
    "insert": "insert into t values ({new}, {owner}, {team}, {open}) returning 1",
    "update": "update t set id = id where id = {id} returning 1",
    "delete": "delete from t where id = {id} returning 1",
}
MEMBERS = [(1, 1, "editor"), (1, 2, "viewer"), (2, 2, "editor"), (3, 1, "viewer")]
TENANT = 'tenant = { column = "team", members = "public.members" }\n'
READERS = 'roles = { select = ["viewer", "editor"], insert = ["editor"], update = ["editor"], delete = ["admin", "editor"] }\n'
RULES: dict[str, tuple[str, Callable[[int | None, str, tuple[int, int, bool]], bool]]] = {
    "owner": ('owner = "owner"\n', lambda user, verb, row: user == row[0]),
    "members": (TENANT, lambda user, verb, row: member(user, row)),
    "roles": (TENANT + READERS, lambda user, verb, row: member(user, row, "editor", *["viewer"] * (verb == "select"))),
    "owner and tenant": (
        f'owner = "owner"\nverbs = ["select", "insert", "update"]\n{TENANT}roles = {{ select = ["*"], update = ["editor"] }}\n',
        lambda user, verb, row: member(user, row)
        and (
            (user == row[0] and verb != "delete") or verb == "select" or (verb == "update" and member(user, row, "editor"))
        ),
    ),
    "tenant and shared": (
        f'{TENANT}shared = {{ when = "open", verbs = ["select"], to = ["{USER_ROLE}", "{ANON_ROLE}"] }}\n',
        lambda user, verb, row: member(user, row) or (verb == "select" and row[2]),
    ),
    "owner and shared": (
        'owner = "owner"\nshared = { when = "open", verbs = ["select", "update"] }\n',
        lambda user, verb, row: user == row[0] or (verb in ("select", "update") and row[2]),
    ),
    "closed": ("closed = true\n", lambda user, verb, row: False),
}  # fmt: skip


def member(user: int | None, row: tuple[int, int, bool], *roles: str) -> bool:
    return any(user == who and row[1] == team and (not roles or role in roles) for who, team, role in MEMBERS)


@pytest.mark.parametrize("name", RULES)
def test_users_may_what_the_rules_say_and_nothing_else(name: str, conn: Conn, tmp_path: Path) -> None:
    """Every user, with and without an identity, every verb, and a row of every owner and team."""
    conn.execute("create table t (id int primary key, owner int, team int, open bool)")
    conn.execute("create table members (user_id int, team int, role text)")
    for each in MEMBERS:
        conn.execute("insert into members values (%s, %s, %s)", each)
    rows = dict(enumerate(itertools.product((1, 2, 3), (1, 2), (False, True)), 1))
    for number, row in rows.items():
        conn.execute("insert into t values (%s, %s, %s, %s)", (number, *row))
    conn.execute("insert into t values (0, null, null, null)")
    text, allowed = RULES[name]
    build(conn, tmp_path, f'[table."public.t"]\n{text}[table."public.members"]\nclosed = true\n')
    asked = 0
    for user, (verb, statement), (number, row) in itertools.product((1, 2, 3, None), VERBS.items(), rows.items()):
        owner, team, is_open = row
        found = attempt(conn, user, statement.format(id=number, new=100, owner=owner, team=team, open=is_open))
        got = isinstance(found, list) and len(found) == 1
        assert got == allowed(user, verb, row), (user, verb, row, found)
        assert isinstance(found, list) or found == "42501", (user, verb, row, found)
        asked += got
    assert asked or name == "closed", "nobody was allowed anything: nothing is proven"
    for user, verb in itertools.product((1, None), ("select", "update", "delete")):
        found = attempt(conn, user, VERBS[verb].format(id=0))
        assert found in ([], "42501"), "a row of nobody is nobody's"
    for verb in ("truncate t", "select * from members"):
        assert attempt(conn, 1, verb) == "42501"


class TestImmutable:
    @pytest.fixture
    def table(self, conn: Conn, tmp_path: Path) -> Conn:
        conn.execute("create table t (id int, owner int, note text, primary key (id, owner)) partition by list (id)")
        conn.execute("create table t1 partition of t for values in (1, 2)")
        build(conn, tmp_path, '[table."public.t"]\nowner = "owner"\nimmutable = ["id"]\n')
        # attached later: it has no row level security of its own
        conn.execute("create table t3 partition of t for values in (3)")
        conn.execute("insert into t values (1, 1, 'a'), (3, 1, 'c')")
        return conn

    def test_a_user_is_refused_with_table_and_column(self, table: Conn) -> None:
        table.execute(sql.SQL("set role {}").format(sql.Identifier(USER_ROLE)))
        table.execute("select set_config('app.user_id', '1', false)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
            table.execute("update t set id = 2 where id = 1")
        assert caught.value.diag.message_primary == "public.t1: id cannot be changed"

    def test_a_partition_that_came_later_too(self, table: Conn) -> None:
        assert attempt(table, 1, "update t set note = 'x', id = 3 where id = 3 returning id") == [(3,)]
        table.execute("alter table t detach partition t3")
        table.execute("alter table t attach partition t3 for values in (3, 4)")
        assert attempt(table, 1, "update t set id = 4 where id = 3 returning id") == "42501"

    def test_an_upsert_of_the_same_value_passes(self, table: Conn) -> None:
        upsert = "insert into t values (1, 1, 'b') on conflict (id, owner) do update set id = excluded.id, note = 'b'"
        upsert += " returning note"
        assert attempt(table, 1, upsert) == [("b",)]

    def test_an_operator_passes(self, table: Conn) -> None:
        assert table.execute("update t set id = 2 where id = 1 returning id").fetchall() == [(2,)]

    def test_users_do_not_come_around_the_parent(self, table: Conn) -> None:
        assert attempt(table, 1, "select id from t") == [(1,), (3,)]
        assert attempt(table, 1, "select id from t1") == "42501"

    def test_users_cannot_call_the_helpers_by_name(self, table: Conn) -> None:
        assert attempt(table, 1, "select dbops_policy.refuse_change()") == "42501"


class TestNames:
    ODD = ('a"b', "it's", "ÄÖ € 日本", "x" * 63, "Upper Case", "select", "a.b", "%s {} $1")

    @pytest.mark.parametrize("odd", ODD)
    def test_any_name_can_be_a_schemas_a_tables_and_a_columns(self, odd: str, conn: Conn, tmp_path: Path) -> None:
        name = sql.Identifier
        conn.execute(sql.SQL("create schema {}").format(name(odd)))
        conn.execute(sql.SQL("grant usage on schema {} to {}").format(name(odd), name(USER_ROLE)))
        conn.execute(sql.SQL("create table {} ({} int, team int)").format(name(odd, odd), name(odd)))
        conn.execute(sql.SQL("create table {} ({} int, team int, role text)").format(name(odd, "m"), name(odd)))
        conn.execute(sql.SQL("insert into {} values (1, 1), (2, 1), (1, 2)").format(name(odd, odd)))
        conn.execute(sql.SQL("insert into {} values (1, 1, {})").format(name(odd, "m"), odd))
        quoted = '"' + odd.replace('"', '""') + '"'
        key, column = basic(f"{quoted}.{quoted}"), basic(odd)
        text = f"""[table.{key}]
owner = {column}
immutable = [{column}]
tenant = {{ column = "team", members = {basic(f'{quoted}."m"')}, user = {column} }}
roles = {{ select = [{column}] }}
shared = {{ when = {basic(f"{quoted} = 99")} }}
"""
        build(conn, tmp_path, text)
        table = sql.Identifier(odd, odd).as_string()
        assert attempt(conn, 1, f"select count(*) from {table}") == [(2,)]
        assert attempt(conn, 2, f"select count(*) from {table}") == [(0,)]
        assert attempt(conn, 1, f"update {table} set {sql.Identifier(odd).as_string()} = 99") == "42501"


def basic(text: str) -> str:
    """A TOML text."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


OWNER = '[table."public.a"]\nowner = "owner"\n'
SELF = "(select count(*) from a) < 10"
CIRCLES = {
    "insert of an owned table": f'{OWNER}[[table."public.a".raw]]\nname = "r"\nfor = "insert"\ncheck = "{SELF}"\n',
    "insert of an open table": '[table."public.a"]\nshared = { when = "true" }\n'
    f'[[table."public.a".raw]]\nname = "r"\nfor = "insert"\ncheck = "{SELF}"\n',
    "select": f'[[table."public.a".raw]]\nname = "r"\nfor = "select"\nusing = "{SELF}"\n',
    "two tables": '[table."public.a"]\nshared = { when = "exists (select from b)" }\n'
    '[table."public.b"]\nshared = { when = "exists (select from a)" }\n',
    "two tables, one way": '[table."public.a"]\nshared = { when = "exists (select from b)" }\n'
    '[table."public.b"]\nowner = "owner"\n',
    "two roles": '[table."public.a"]\nshared = { when = "exists (select from b)" }\n'
    f'[table."public.b"]\nshared = {{ when = "exists (select from a)", to = ["{STAFF}"] }}\n',
    "a view of the caller": '[table."public.a"]\nshared = { when = "exists (select from v)" }\n',
    "a view of its owner": '[table."public.a"]\nshared = { when = "exists (select from v)" }\n'
    '[view."public.v"]\ndefiner = "a test"\n',
    "members": '[table."public.a"]\ntenant = { column = "owner", members = "public.a", user = "owner", role = "" }\n',
}  # fmt: skip


@pytest.mark.parametrize("case", CIRCLES)
def test_recursion_is_told_where_postgresql_would(case: str, conn: Conn, tmp_path: Path, monkeypatch: Any) -> None:
    """PostgreSQL is the oracle: the same definitions, carried out without the check."""
    conn.execute("create table a (id int, owner int)")
    conn.execute("create table b (id int, owner int)")
    conn.execute("create view v as select * from a")
    conn.execute(sql.SQL("grant select on v to {}").format(sql.Identifier(USER_ROLE)))
    (tmp_path / "app.toml").write_text(HEAD + CIRCLES[case])
    manager = PolicyManager(settings=Settings(url=conn.info.dsn, policies=tmp_path, wait=20.0))
    try:
        manager.apply()
        told = False
    except DefinitionError as error:
        told = "42P17" in error.message
        assert conn.execute("select count(*) from pg_policy").fetchone() == (0,)
        monkeypatch.setattr("dbops.policy.apply.refuse_recursion", lambda *_: None)
        manager.apply()
    found = [attempt(conn, 1, statement) for statement in ("select from a", "insert into a values (1, 1)")]
    assert told == ("42P17" in found), found


def test_the_policies_cost_no_call_for_each_row(conn: Conn, tmp_path: Path) -> None:
    conn.execute("create table t (id int, team int, owner int)")
    conn.execute("create table members (user_id int, team int, role text)")
    build(conn, tmp_path, f'[table."public.t"]\nowner = "owner"\nroles = {{ select = ["*"] }}\n{TENANT}')
    plan = attempt(conn, 1, "explain (verbose, costs off) select * from t")
    text = "\n".join(row[0] for row in plan)
    assert "InitPlan" in text
    assert "hashed SubPlan" in text
    filters = [line for line in text.split("\n") if "Filter" in line]
    assert filters
    assert not any("current_setting" in line for line in filters if "t.owner" in line)


def test_a_view_reads_as_its_caller(conn: Conn, tmp_path: Path) -> None:
    conn.execute("create table t (id int, owner int)")
    conn.execute("create view v as select * from t")
    conn.execute("create view w as select * from v")
    conn.execute(sql.SQL("grant select on v, w to {}").format(sql.Identifier(USER_ROLE)))
    conn.execute("insert into t values (1, 1), (2, 2)")
    assert attempt(conn, 1, "select id from v") == [(1,), (2,)]
    build(conn, tmp_path, '[table."public.t"]\nowner = "owner"\n')
    assert attempt(conn, 1, "select id from v") == [(1,)]
    assert attempt(conn, 1, "select id from w") == [(1,)]
