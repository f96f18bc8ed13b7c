"""The attack is not fooled by its own rows: a policy that opens others' rows by a column's value is always found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg import sql

from dbops.config import Settings
from dbops.policy import PolicyManager
from dbops.policy.attack import attack, attack_mutants
from dbops.policy.attack.result import Report
from dbops.policy.catalog import load_catalog
from dbops.policy.model import Auth, Definitions, Name, Shared, TableRules
from dbops.policy.read import read_definitions
from dbops.policy.state import Policy
from tests.faults.tools import WHOLE
from tests.policy_faults import ANY, DOCUMENTS, MEMBERS, MINE, PRELUDE, TENANT, guarded, owned, policy

Connection = psycopg.Connection[Any]
# no row that is made by chance has these values: a default, a check, or a world of texts stands against it
POSTS = """
create type mood as enum ('sad', 'calm', 'open');
create table public.posts (
  user_id uuid not null references auth.users,
  id uuid not null default gen_random_uuid(),
  visibility text not null default 'private',
  published boolean not null default false,
  archived boolean not null default true,
  level int not null default 0 check (level between 0 and 1000),
  embargo timestamptz,
  day date not null default '2024-06-01',
  meta jsonb not null default '{}',
  tags text[] not null default '{}',
  feeling mood not null default 'sad',
  readers uuid[] not null default '{}',
  editor uuid not null default gen_random_uuid(),
  primary key (user_id, id)
);
"""
# what a predicate says, and who finds others' rows by it
BY_VALUE = {
    "equal": "visibility = 'public'",
    "unequal": "visibility <> all (array['private', 'draft', 'public']) and visibility <> ''",
    "in": "visibility in ('public', 'unlisted')",
    "like": "visibility like 'pub%'",
    "regex": "visibility ~ '^pub[0-9]{3}$'",
    "lower": "lower(visibility) = 'publik'",
    "length": "length(visibility) > 120",
    "quoted": "visibility = 'it''s \"open\" (really)'",
    "boolean": "published",
    "not": "not archived",
    "both": "published and not archived",
    "number": "level >= 777",
    "range": "level between 501 and 503",
    "null": "embargo is null and visibility = 'public'",
    "time": "embargo < now() and embargo > now() - interval '3 days'",
    "date": "day > current_date",
    "json": "meta ->> 'audience' = 'everyone'",
    "json path": "meta -> 'share' ->> 'with' = 'all' and (meta ->> 'rank')::int > 41",
    "json contains": """meta @> '{"public": true}'""",
    "json key": "meta ? 'shared_with_everyone'",
    "array": "'public' = any (tags)",
    "array contains": "tags @> array['a', 'b']",
    "enum": "feeling = 'open'",
    "either": "visibility = 'public' or meta ->> 'k' = 'v'",
    "nested": "published and (level = 901 or (visibility = 'world' and not archived))",
    "case": "case when visibility = 'public' then true else false end",
    "coalesce": "coalesce(visibility = 'public', false)",
    "reader": "auth.uid() = any (readers)",
    "function": "public.open_to_all(visibility)",
}
FUNCTION = """
create function public.open_to_all(v text) returns boolean language sql stable as $$ select v = 'public domain' $$;
create function public.may_see(v text, owner uuid) returns boolean language sql stable as
  $$ select v = 'public domain' or owner = auth.uid() $$;
"""
POST = Name("public", "posts")
OWNED = owned("posts")


def attacked(conn: Connection, schema: str, declared: dict[Name, TableRules] | None = None, **how: Any) -> Report:
    conn.execute((PRELUDE + schema).encode())
    return again(conn, declared, **how)


def again(conn: Connection, declared: dict[Name, TableRules] | None = None, **how: Any) -> Report:
    definitions = Definitions(Auth(), declared or OWNED)
    return attack(conn, definitions, load_catalog(conn), server_version="v", server_kind="k", **how)


def beside(using: str, verb: str = "select", kind: str = "permissive") -> str:
    return f"create policy beside on public.posts as {kind} for {verb} to authenticated using ({using});\n"


def verbs(report: Report) -> set[str]:
    return {leak.verb for leak in report.leaks}


@pytest.mark.parametrize("name", BY_VALUE)
def test_what_opens_rows_by_a_value_is_found(name: str, empty_db: Connection) -> None:
    base = POSTS + FUNCTION + guarded("posts")
    report = attacked(empty_db, base + beside(BY_VALUE[name]))
    assert "select" in verbs(report), report.vacuous
    assert report.vacuous == ()
    # its twin only narrows what the strict policies open
    empty_db.execute("drop policy beside on public.posts")
    empty_db.execute(beside(BY_VALUE[name], kind="restrictive").encode())
    twin = again(empty_db)
    assert twin.leaks == ()
    # the rightful reader is held back too by a column that is somebody else's
    assert {one.reason for one in twin.vacuous if one.actor == ""} == set()


WRITES = {
    "insert": (policy("insert", None, "visibility = 'public'", "posts"), "insert"),
    "update using": (policy("update", "visibility = 'public'", "true", "posts"), "update"),
    "give away": (policy("update", MINE, f"{MINE} or visibility = 'public'", "posts"), "update"),
    "turn": (policy("update", "visibility = 'draft'", "visibility = 'public'", "posts"), "update"),
    "delete": (policy("delete", "level = 909", table="posts"), "delete"),
}


@pytest.mark.parametrize("name", WRITES)
def test_what_lets_rows_be_written_by_a_value_is_found(name: str, empty_db: Connection) -> None:
    text, verb = WRITES[name]
    changed = text.replace("posts_", "more_", 1)
    report = attacked(empty_db, POSTS + guarded("posts") + changed)
    assert verb in verbs(report), report
    empty_db.execute(
        "drop policy if exists more_insert on public.posts; drop policy if exists more_update on public.posts"
    )
    empty_db.execute("drop policy if exists more_delete on public.posts")
    assert again(empty_db).verdict == "isolated"


def test_the_restrictive_ones_beside_it_are_met_too(empty_db: Connection) -> None:
    schema = POSTS + guarded("posts") + beside("visibility = 'public'")
    schema += beside(f"{MINE} or level = 700", kind="restrictive").replace("beside", "floor", 1)
    report = attacked(empty_db, schema)
    assert ("another user", "select") in {(leak.actor, leak.verb) for leak in report.leaks}
    empty_db.execute(f"alter policy floor on public.posts using ({MINE})".encode())
    assert again(empty_db).leaks == ()


def test_ways_that_shut_each_other_out_open_nothing(empty_db: Connection) -> None:
    floor = beside(f"visibility = 'public' or {MINE}", kind="restrictive").replace("beside", "floor", 1)
    report = attacked(empty_db, POSTS + guarded("posts") + beside(f"{MINE} and visibility = 'draft'") + floor)
    assert (report.verdict, report.vacuous) == ("isolated", ())


def test_visitors_are_tried_as_well(empty_db: Connection) -> None:
    open_ = (
        "create policy open on public.posts for select to anon using (published); grant select on public.posts to anon;"
    )
    report = attacked(empty_db, POSTS + guarded("posts") + open_)
    assert ("anon", "select") in {(leak.actor, leak.verb) for leak in report.leaks}


def test_a_viewer_is_let_through_by_a_value(empty_db: Connection) -> None:
    draft = policy("update", f"{ANY} and body = 'draft'", ANY, "documents").replace("documents_", "drafts_", 1)
    report = attacked(empty_db, MEMBERS + guarded("documents", ANY, **DOCUMENTS) + draft, dict(TENANT))
    assert ("member (viewer)", "update") in {(leak.actor, leak.verb) for leak in report.leaks}


def test_one_row_a_user_is_changed_where_it_cannot_be_copied(empty_db: Connection) -> None:
    schema = "create table public.posts (user_id uuid primary key references auth.users, visibility text not null);"
    report = attacked(empty_db, schema + guarded("posts") + beside("visibility = 'public'"))
    assert "select" in verbs(report)
    assert report.vacuous == ()


def test_a_partitions_own_policy_is_exercised(empty_db: Connection) -> None:
    parts = POSTS.replace("default '{}',\n  editor", "default '{}',\n  editor").replace(
        "primary key (user_id, id)\n);", "primary key (user_id, id, level)\n) partition by range (level);"
    )
    parts += "create table public.low partition of public.posts for values from (0) to (500);"
    parts += "create table public.high partition of public.posts for values from (500) to (2000);"
    low = "alter table public.low enable row level security; grant select on public.low to authenticated;"
    low += "create policy open on public.low for select to authenticated using (visibility = 'public');"
    report = attacked(empty_db, parts + guarded("posts") + low)
    assert ("select", "partition public.low") in {(leak.verb, leak.via) for leak in report.leaks}


# --- what cannot be made true is never safe ---

IMPOSSIBLE = {
    "a hash": "md5(visibility) = '00000000000000000000000000000000'",
    "a check": "level = 5000",
    "a claim of the server's": "coalesce(auth.jwt() -> 'app_metadata' ->> 'staff', '') = 'yes'",
    "another table": "exists (select from public.shares s where s.post = posts.id and s.reader = auth.uid())",
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_no_made_row_satisfies_is_vacuous(name: str, empty_db: Connection) -> None:
    shares = "create table public.shares (post uuid, reader uuid check (reader is null)); grant select on public.shares"
    schema = POSTS + shares + " to authenticated;" + guarded("posts") + beside(f"{MINE} or {IMPOSSIBLE[name]}")
    report = attacked(empty_db, schema, tables={POST})
    assert report.verdict == "vacuous"
    assert [one.table for one in report.vacuous] == ["public.posts"]
    assert "satisfies policy beside" in report.vacuous[0].reason


def test_a_predicate_of_too_many_ways_is_vacuous(empty_db: Connection) -> None:
    ways = " and ".join(f"(level = {n} or level > {n + 500} or visibility = 'v{n}')" for n in range(6))
    report = attacked(empty_db, POSTS + guarded("posts") + beside(ways))
    assert any("more than 200 ways" in one.reason for one in report.vacuous)


def test_a_function_of_values_and_session_is_told_as_not_proven(empty_db: Connection) -> None:
    clean = FUNCTION.replace("v = 'public domain' or owner", "v is not null and owner")
    report = attacked(empty_db, POSTS + clean + guarded("posts", "public.may_see(visibility, user_id)"))
    assert (report.leaks, report.vacuous) == ((), ())
    assert [one.table for one in report.not_proven] == ["public.posts"] * len(report.not_proven)
    assert "may_see" in report.not_proven[0].reason
    # what its body compares with is tried
    empty_db.execute(FUNCTION.replace("create function", "create or replace function").encode())
    assert "select" in verbs(again(empty_db))


def test_shared_rows_of_every_kind_are_made(empty_db: Connection) -> None:
    for number, name in enumerate(("json path", "regex", "nested", "time")):
        empty_db.execute("drop schema public cascade; drop schema if exists auth cascade; create schema public")
        empty_db.execute("grant usage on schema public to public")
        when = BY_VALUE[name]
        shared = {POST: replace(OWNED[POST], shared=(Shared(when, to=("authenticated",)),))}
        report = attacked(empty_db, POSTS + guarded("posts") + beside(when), shared)
        assert (number, report.leaks, report.vacuous) == (number, (), ())
        assert "allowed" in {cell.state for cell in report.cells if cell.verb == "select"}


# --- the same rows in every run ---

RUN = """
import json, sys
import psycopg
from pathlib import Path
from dbops.policy.attack import attack
from dbops.policy.catalog import load_catalog
from dbops.policy.model import Auth, Definitions, Name, TableRules
with psycopg.connect(sys.argv[1], autocommit=True) as conn:
    names = [Name("public", name) for name in ("posts", "notes")]
    tables = {name: TableRules(name, Path("f"), owner="user_id") for name in names}
    report = attack(conn, Definitions(Auth(), tables), load_catalog(conn), server_version="v", server_kind="k")
    told = [report.attacks, sorted((l.table, l.actor, l.verb, l.via, l.what) for l in report.leaks)]
    again = attack(conn, Definitions(Auth(), tables), load_catalog(conn), server_version="v", server_kind="k")
    assert told == [again.attacks, sorted((l.table, l.actor, l.verb, l.via, l.what) for l in again.leaks)], again
    print(json.dumps(told))
"""


def test_equal_seeds_find_equal_things(make_database: Callable[..., str]) -> None:
    notes = "create table public.notes (user_id uuid references auth.users, id serial primary key, body text);"
    schema = PRELUDE + POSTS + notes + guarded("notes", "true") + guarded("posts", f"{MINE} or visibility = 'public'")

    def run(hash_seed: str) -> Any:
        url = make_database()
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(schema.encode())
        command = [sys.executable, "-c", RUN, url]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        return json.loads(
            subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
        )

    first = run("1")
    assert first[1]
    assert [run("2"), run("3")] == [first, first]


# --- functions that give nothing ---

SECRET = """
create function public.{} security definer set search_path = '' as $$ {} $$;
"""


@pytest.mark.parametrize(
    ("signature", "body", "vacuous"),
    [
        ("by_code(code text) returns setof public.posts language sql stable",
         "select * from public.posts where md5(visibility) = code", True),
        ("hidden(a text) returns int language sql immutable",
         "select count(*)::int from public.posts where visibility = a || 'x'", True),
        ("inner_one(a text) returns boolean language plpgsql stable", "begin return public.by_text(a); end", True),
        ("clock(a int) returns text language sql stable", "select null::text where a = 4711", False),
    ],
)  # fmt: skip
def test_a_function_that_gave_nothing_is_not_proven(
    signature: str, body: str, vacuous: bool, empty_db: Connection
) -> None:
    deeper = "by_text(a text) returns boolean language sql stable"
    schema = POSTS + guarded("posts")
    schema += SECRET.format(deeper, "select exists (select from public.posts where md5(visibility) = a)")
    schema += "revoke execute on function public.by_text from public;" + SECRET.format(signature, body)
    report = attacked(empty_db, schema)
    name = signature.partition("(")[0]
    told = report.vacuous if vacuous else report.not_proven
    assert [one.table for one in told] == (["public.posts"] if vacuous else [f"function public.{name}"])
    assert f"function public.{name}(" in told[0].reason
    assert report.verdict == ("vacuous" if vacuous else "isolated")


def test_a_function_is_called_with_values_by_their_names(empty_db: Connection) -> None:
    by_name = SECRET.format(
        "look(p_level int, p_visibility text) returns setof uuid language sql stable",
        "select id from public.posts where level = p_level and visibility = p_visibility",
    )
    report = attacked(empty_db, POSTS + guarded("posts") + by_name)
    assert {leak.via for leak in report.leaks} == {"function public.look"}


# --- definitions at random ---

GROUND = (
    PRELUDE
    + """
create table public.teams (id uuid primary key default gen_random_uuid());
create table public.members (
  user_id uuid not null references auth.users, team_id uuid not null references public.teams, role text not null,
  primary key (user_id, team_id)
);
create table public.first (
  user_id uuid not null references auth.users, team_id uuid not null references public.teams,
  id uuid not null default gen_random_uuid(), visibility text not null default 'private', level int not null default 0,
  primary key (user_id, team_id, id)
);
create table public.second (like public.first including all);
alter table public.second add foreign key (user_id) references auth.users, add foreign key (team_id) references public.teams;
"""
)
SERVICE = """
do $$ begin create role service_role nologin bypassrls; exception when duplicate_object or unique_violation then null; end $$;
"""
SHARED = ("visibility = 'public'", "level > 500", "visibility in ('a', 'b') and level = 7")


@st.composite
def definitions(draw: st.DrawFn) -> str:
    lines = ["version = 1", 'auth = "supabase"']
    for table in draw(st.sampled_from([("first",), ("first", "second")])):
        lines.append(f'[table."public.{table}"]')
        kind = draw(st.sampled_from(["owner", "tenant", "both"]))
        if kind != "tenant":
            lines.append('owner = "user_id"')
            if draw(st.booleans()):
                lines.append('immutable = ["user_id"]')
        if kind != "owner":
            lines.append('tenant = { column = "team_id", members = "public.members" }')
            if draw(st.booleans()):
                lines.append('roles = { select = ["viewer", "editor"], update = ["editor"], delete = ["editor"] }')
        if draw(st.booleans()):
            when = draw(st.sampled_from(SHARED))
            to = draw(st.sampled_from(['"anon"', '"authenticated"', '"anon", "authenticated"']))
            lines.append(f'shared = {{ when = "{when}", verbs = ["select"], to = [{to}] }}')
        if draw(st.booleans()):
            lines.append('service = ["service_role"]')
    return "\n".join(lines) + "\n"


def weakened(made: Policy, how: str) -> str | None:
    """The policy weakened; None where it does not take this."""
    table = sql.Identifier(made.table.schema, made.table.name).as_string()
    name = sql.Identifier(made.name).as_string()
    if how == "dropped":
        return None if made.permissive else f"drop policy {name} on {table}"
    if made.using == "true" or (made.using if how == "using" else made.check) is None:
        return None
    return f"alter policy {name} on {table} {'using' if how == 'using' else 'with check'} (true)"


@contextmanager
def applied(text: str, url: str, folder: Path) -> Iterator[tuple[Connection, Definitions]]:
    """The definitions on the ground that they are for."""
    (folder / "app.toml").write_text(text)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute((GROUND + SERVICE).encode())
        PolicyManager(settings=Settings(url=url, policies=folder)).apply()
        yield conn, read_definitions(folder)


MUTANT = {"using": "USING true", "check": "WITH CHECK true", "dropped": "dropped"}


@settings(
    max_examples=3 if WHOLE else 2,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(text=definitions(), choice=st.integers(0, 10_000))
def test_definitions_at_random_isolate_and_a_weaker_policy_is_seen(
    text: str, choice: int, make_database: Callable[..., str], tmp_path: Path
) -> None:
    with applied(text, make_database(), tmp_path) as (conn, declared):
        report = attack(conn, declared, load_catalog(conn), server_version="v", server_kind="k")
        told = (report.verdict, report.leaks, report.vacuous, report.not_proven)
        assert told == ("isolated", (), (), ()), text
        found = [
            (each, how, statement)
            for each in load_catalog(conn).policies
            if each.roles != ("service_role",)
            for how in ("using", "check", "dropped")
            if (statement := weakened(each, how))
        ]
        each, how, statement = found[choice % len(found)]
        mutants = attack_mutants(conn, declared, load_catalog(conn), tables=[each.table])
        assert mutants.survived == (), text
        conn.execute(statement.encode())
        weak = attack(conn, declared, load_catalog(conn), server_version="v", server_kind="k")
        # what another policy holds as well is no leak: the mutants' proof says so, by the one that it took away too
        name = f"{each.table}: {each.name}: {MUTANT[how]}"
        held = {one.mutant for one in mutants.equivalent} | {
            one for one in mutants.caught if one.startswith(f"{name} (")
        }
        assert (weak.verdict == "isolated") == (name not in mutants.caught), (text, statement)
        assert name in mutants.caught or held, (text, statement)


# a right by a role beside that of an owner, and beside a rule that shares: who has lost it is seen on a row that he gets in no other way
BY_ROLE = """version = 1
auth = "supabase"
[table."public.first"]
owner = "user_id"
immutable = ["user_id"]
tenant = { column = "team_id", members = "public.members" }
roles = { select = ["viewer", "editor"], update = ["editor"], delete = ["editor"] }
shared = { when = "visibility = 'public'", verbs = ["select"], to = ["anon", "authenticated"] }
service = ["service_role"]
"""
BESIDE_SHARED = """version = 1
auth = "supabase"
[table."public.first"]
tenant = { column = "team_id", members = "public.members" }
shared = { when = "level > 500", verbs = ["select"], to = ["authenticated"] }
"""


@pytest.mark.parametrize(("text", "lost"), [(BY_ROLE, "update"), (BESIDE_SHARED, "select")], ids=["role", "shared"])
def test_a_members_right_that_is_lost_is_seen(
    text: str, lost: str, make_database: Callable[..., str], tmp_path: Path
) -> None:
    with applied(text, make_database(), tmp_path) as (conn, declared):
        whole = attack(conn, declared, load_catalog(conn), server_version="v", server_kind="k")
        assert (whole.verdict, whole.leaks, whole.vacuous) == ("isolated", (), ())
        name = "dbops_tenant_" + lost
        conn.execute(sql.SQL("drop policy {} on public.first").format(sql.Identifier(name)))
        less = attack(conn, declared, load_catalog(conn), server_version="v", server_kind="k")
        assert less.verdict == "vacuous"
        assert {one.reason.partition(":")[0] for one in less.vacuous} == {f"{lost} is allowed here and does not work"}
