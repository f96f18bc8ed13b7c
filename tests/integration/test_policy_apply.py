"""Plan, apply, check on a real server: predicates as PostgreSQL prints them, rights, files, drift."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from dbops.config import Settings
from dbops.database import connect, parameters
from dbops.errors import Blocked, DbopsError, DefinitionError, HistoryMismatch, NotAllowed, StatementFailed
from dbops.policy import Plan, PolicyManager
from dbops.policy.apply import Applier
from dbops.policy.catalog import load_catalog
from dbops.policy.model import Auth, Definitions, Name
from dbops.policy.plan import create
from dbops.policy.state import Policy, Trigger, Wanted, WantedTable

Db = psycopg.Connection[Any]
TAG = uuid.uuid4().hex[:8]
USER, ANON, OWNER = f"user_{TAG}", f"anon_{TAG}", f'Own"er_{TAG}'


def named(value: object) -> str | None:
    """A parameter's id: every process that collects these tests must find the same ones."""
    return value.replace(f"_{TAG}", "") if isinstance(value, str) else None


LONG = 'Ünï "x" ' + "y" * 53
DOCUMENTS = Name("public", "documents")
ODD = Name("S.ch", LONG)
SCHEMA = f"""
create schema "S.ch";
create schema auth;
create function auth.uid() returns uuid language sql stable
  as $$ select nullif(current_setting('app.sub', true), '')::uuid $$;
create type mood as enum ('low', 'high');
create table members (user_id uuid, tenant_id int, role text);
create table documents (id int primary key, tenant_id int, owner_id uuid, title text, tags text[], mood mood,
  at timestamptz, "Mixed Case" text, "ünï" int, d numeric(8, 2), doc jsonb);
create table "S.ch".{sql.Identifier(LONG).as_string()} (id int, "Ow ner" uuid, "user" text);
create function of_row(documents) returns boolean language sql stable as 'select ($1).id > 1';
"""


@pytest.fixture
def there(empty_db: Db) -> Iterator[Db]:
    for role in (USER, ANON, OWNER):
        empty_db.execute(sql.SQL("create role {}").format(sql.Identifier(role)))
    empty_db.execute(SCHEMA.encode())
    yield empty_db
    roles = sql.SQL(", ").join(map(sql.Identifier, (USER, ANON, OWNER)))
    empty_db.execute(
        sql.SQL("reassign owned by {} to current_user; drop owned by {}; drop role {}").format(roles, roles, roles)
    )


def applier(conn: Db, wanted: Wanted, **changes: Any) -> Applier:
    settings = Settings(url=conn.info.dsn, **({"lock_timeout": 0.5, "lock_tries": 2, "wait": 20.0} | changes))
    return Applier(conn.info.dsn, settings, Definitions(Auth(), {}), compiled=lambda _: wanted)


def wanted(*policies: Policy, triggers: Sequence[Trigger] = (), **facts: Any) -> Wanted:
    names = sorted({policy.table for policy in policies})
    return Wanted(
        {
            name: WantedTable(
                name, tuple(p for p in policies if p.table == name), tuple(t for t in triggers if t.table == name),
                {}, {}, "policies/a.toml:7",
            )
            for name in names
        },
        **facts,
    )  # fmt: skip


def select(using: str, name: str = "p", table: Name = DOCUMENTS, **facts: Any) -> Policy:
    values = {"permissive": True, "verb": "select", "roles": (USER,), "using": using, "check": None}
    return Policy(table, name, **(values | facts))


PREDICATES = [
    "true",
    "owner_id = (select auth.uid())",
    "auth.uid()=owner_id AND NOT title LIKE 'it''s %\\%'",
    "tenant_id in (select m.tenant_id from members m where m.user_id = owner_id)",
    "exists (select 1 from members where members.tenant_id = documents.tenant_id and user_id = documents.owner_id)",
    "exists (select from members m join public.members n using (tenant_id) where m.role = any (tags))",
    "exists (with recursive r as (select 1 as n union all select n + 1 from r where n < id) select from r where n = tenant_id)",
    "title = any (array['a', 'b']) or tags && '{x,\"y z\"}' or 'q' <> all (tags)",
    "case when mood = 'low' then true when tags[1] is null then id between 1 and 3 else mood is distinct from 'high' end",
    "owner_id = nullif(current_setting('app.user_id', true), '')::uuid",
    "at > now() - interval '1 day' and at at time zone 'UTC' < '2020-01-01'::timestamp",
    '"Mixed Case" is null or "ünï" > 0 or "ünï"::text = \'ß "quoted" \\ back\'',
    "d > 1.50 and d::int % 2 = 0 and coalesce(title, E'tab\\t') ~* '^a.b$'",
    "(doc ->> 'k')::int in (1, 2, 3) and doc @> '{\"a\": [1]}'",
    "(id, tenant_id) in ((1, 2), (3, 4)) and (title collate \"C\") < 'z'",
    "of_row(documents)",
    "public.documents.id > 0",
    "(select id) = 1",
    "title = $$a;b--c$$ -- a comment at the end",
    "lower(title) similar to 'a|b' and id::float8 > 1e-7 and not (id = 1 and (id = 2 or id = 3))",
]


# a function of the row, the table's name with its schema: no twin can stand for the table
ON_THE_TABLE = ["of_row(documents)", "public.documents.id > 0"]


@pytest.mark.parametrize("predicate", PREDICATES)
def test_a_predicate_printed_on_a_twin_is_that_of_the_table(there: Db, predicate: str) -> None:
    subject = applier(there, wanted(select(predicate), select(predicate, "q", verb="update", check=predicate)))
    before = subject.plan().printed.policies
    for policy in subject.plan().wanted.tables[DOCUMENTS].policies:
        there.execute(create(policy).encode())
    with connect(there.info.dsn, "test") as conn:
        now = {(DOCUMENTS, p.name): (p.using, p.check) for p in load_catalog(conn).policies}
    assert subject.plan().printed.policies == now
    assert (before == now) == (predicate not in ON_THE_TABLE)


CHANGED = {
    "of_row(documents)": ["not of_row(documents)", "true", "other.of_row(documents)", "of_row(documents) and id = 1"],
    "public.documents.id = 1": ["public.documents.id = 2", "public.documents.tenant_id = 1"],
    # its own condition is found within what was there before, and the other way round
    "exists (select from public.members documents where public.documents.id = 1)": ["id = 1", "tenant_id = 1"],
    "public.documents.id = 1 and of_row(documents)": ["id = 1"],
}


@pytest.mark.parametrize(("predicate", "found"), [(wanted, found) for wanted in CHANGED for found in CHANGED[wanted]])
def test_what_only_the_table_can_say_is_compared_as_a_tree(there: Db, predicate: str, found: str) -> None:
    there.execute(
        "create schema other; create function other.of_row(documents) returns boolean language sql stable as 'select true'"
    )
    policy = select(predicate, verb="update", check="true")
    subject = applier(there, wanted(policy))
    there.execute(create(replace(policy, using=found)).encode())
    assert [s.sql for s in subject.plan().plan.statements][1:] == [
        f'ALTER POLICY "p" ON "public"."documents" USING ({predicate})'
    ]
    subject.apply()
    assert subject.plan().plan.statements == ()


def test_every_predicate_at_once_is_applied_and_then_nothing_is_left(there: Db) -> None:
    policies = [select(text, f"p{number}") for number, text in enumerate(PREDICATES)]
    policies += [select('"Ow ner" = auth.uid() or "user" = \'a\'', LONG, ODD, verb="delete", roles=("public",))]
    subject = applier(there, wanted(*policies))
    before = subject.plan().plan
    applied = subject.apply(before)
    assert [s.sql for s in applied.statements] == list(before.sql)
    assert subject.plan().plan.statements == ()
    assert subject.apply().statements == ()
    flags = there.execute(
        "select relrowsecurity, relforcerowsecurity from pg_class where relname = %s", [LONG]
    ).fetchone()
    assert flags == (True, True)


def test_planning_leaves_nothing_behind(there: Db) -> None:
    before = there.execute("select count(*) from pg_class").fetchone()
    with there.transaction():
        there.execute("lock table documents in row exclusive mode")  # a writer does not hold a plan up
        policies = [select(text, f"p{number}") for number, text in enumerate(("true", *ON_THE_TABLE))]
        assert len(applier(there, wanted(*policies)).plan().plan.statements) == 4
    assert there.execute("select count(*) from pg_class").fetchone() == before
    assert there.execute("select count(*) from pg_policy").fetchone() == (0,)


def test_one_who_alters_the_table_is_not_waited_for(there: Db) -> None:
    with there.transaction():
        there.execute("lock table documents in access exclusive mode")
        with pytest.raises(Blocked, match=r"public\.documents"):
            applier(there, wanted(select("true"))).plan()


REFUSED = [
    ("no_such_column = 1", "no_such_column"),
    ("id", "boolean"),
    ("id = 'x'", "invalid input syntax"),
    ("nothing(id)", "nothing"),
    ("true); drop table members; --", "PostgreSQL refuses it"),
    ("true) or (true", "syntax error"),
    ("true) with check (true", "not one expression|only WITH CHECK|WITH CHECK"),
    ("count(*) > 1", "aggregate"),
    ("id = (select 1 from documents where true) or exists (select from other)", "other"),
    ("exists (select from members where user_id = documents.nothing)", "nothing"),
]


@pytest.mark.parametrize(("predicate", "reason"), REFUSED)
def test_a_predicate_that_postgresql_refuses_is_told_before_anything(there: Db, predicate: str, reason: str) -> None:
    with pytest.raises(DefinitionError, match=reason) as caught:
        applier(there, wanted(select(predicate))).plan()
    assert caught.value.message.startswith("policies/a.toml:7: public.documents: policy p: ")
    assert there.execute("select to_regclass('members') is not null").fetchone() == (True,)
    assert there.execute("select count(*) from pg_policy").fetchone() == (0,)


@pytest.mark.parametrize("predicate", ON_THE_TABLE)
def test_recursion_is_what_postgresql_says_too(there: Db, predicate: str) -> None:
    """What names the table itself is no subquery on it; what reads it is, here and there."""
    subject = applier(there, wanted(select(predicate)))
    subject.apply()
    there.execute(sql.SQL("grant select on documents to {}").format(sql.Identifier(USER)))
    with there.transaction(force_rollback=True):
        there.execute(sql.SQL("set local role {}").format(sql.Identifier(USER)))
        there.execute("explain select from documents")
    recursive = "exists (select from documents d where d.id = 1)"
    with pytest.raises(DefinitionError, match="42P17"):
        applier(there, wanted(select(recursive))).plan()
    there.execute(sql.SQL("alter policy p on documents using ({})").format(sql.SQL(recursive)))  # type: ignore[arg-type]
    with there.transaction(force_rollback=True):
        there.execute(sql.SQL("set local role {}").format(sql.Identifier(USER)))
        with pytest.raises(psycopg.errors.InvalidObjectDefinition), there.transaction():
            there.execute("explain select from documents")


def test_a_table_that_the_path_does_not_find_is_not_its_twin(there: Db) -> None:
    there.execute("create schema hidden; create table hidden.things (id int)")
    name = Name("hidden", "things")
    with pytest.raises(DefinitionError, match="search_path"):
        applier(there, wanted(select("exists (select from things t where t.id = 1)", table=name))).plan()


def test_what_one_table_lacks_is_not_found_among_the_twins_of_others(there: Db) -> None:
    there.execute("create schema hidden; create table hidden.things (id int)")
    things = select("true", "q", Name("hidden", "things"))
    for text in ("exists (select from things t where t.id = 1)", "null::things is null"):
        with pytest.raises(DefinitionError, match=r"policies/a.toml:7: public.documents: policy p: .*things"):
            applier(there, wanted(select(text), things)).plan()


def test_one_bad_predicate_among_many_is_named(there: Db, caplog: pytest.LogCaptureFixture) -> None:
    policies = [select(f"documents.id = {number}", f"p{number}") for number in range(150)]
    policies[20] = select("documents.none = 1", "p20")
    with pytest.raises(DefinitionError, match=r"policy p20: .*none"):
        applier(there, wanted(*policies)).plan()
    assert caplog.records == []  # nothing but the error is told


def test_tables_of_one_name_in_two_schemas(there: Db) -> None:
    there.execute("create schema two; create table two.documents (id text); create table two.bare ()")
    names = (DOCUMENTS, Name("two", "documents"), Name("two", "bare"))
    policies = [select("documents.id is null", "p", name) for name in names[:2]]
    subject = applier(there, wanted(*policies, select("bare is null", "p", names[2])))
    assert len(subject.apply().statements) == 6
    assert subject.plan().plan.statements == ()


@pytest.mark.parametrize("number", [0, 17, 600])
def test_a_statement_that_fails_is_named_among_many(there: Db, number: int, caplog: pytest.LogCaptureFixture) -> None:
    policies = [select("true", f"p{number}") for number in range(700)]
    subject = applier(there, wanted(*policies))
    there.execute(
        sql.SQL("""
        create function refuse() returns event_trigger language plpgsql as $$ begin
          if current_query() like {} then raise exception 'not this one'; end if; end $$;
        create event trigger refuse on ddl_command_start when tag in ('CREATE POLICY') execute function refuse()
        """).format(f'CREATE POLICY "p{number}" ON "public"%')
    )
    try:
        with pytest.raises(StatementFailed, match=rf'(?s)public.documents: not this one.*CREATE POLICY "p{number}"'):
            subject.apply()
    finally:
        there.execute("drop event trigger refuse")
    assert caplog.records == []
    assert there.execute("select count(*) from pg_policy").fetchone() == (0,)


def test_a_table_of_another_role_is_named_with_its_owner(there: Db) -> None:
    login = sql.Identifier(USER)
    there.execute(sql.SQL("alter role {} login; grant select on documents to {}").format(login, login))
    url = psycopg.conninfo.make_conninfo(there.info.dsn, user=USER)
    subject = applier(there, wanted(select("true")))
    subject.url = url
    with pytest.raises(NotAllowed, match=r"public\.documents is owned by postgres"):
        subject.apply()
    assert there.execute("select count(*) from pg_policy").fetchone() == (0,)
    database = sql.Identifier(parameters(url)["dbname"])
    there.execute(sql.SQL("revoke temporary on database {} from public").format(database))
    with pytest.raises(NotAllowed, match="temporary") as caught:
        subject.plan()
    assert "GRANT TEMPORARY" in caught.value.hint


# --- definitions from files ----------------------------------------------------------------------

TOML = f"""
version = 1
auth = "supabase"
user_role = "{USER}"
anon_role = "{ANON}"
[table."public.documents"]
owner = "owner_id"
immutable = ["owner_id"]
tenant = {{ column = "tenant_id", members = "public.members" }}
roles = {{ select = ["viewer"] }}
"""


@pytest.fixture
def manager(there: Db, tmp_path: Path) -> Callable[..., PolicyManager]:
    def make(text: str = TOML, **files: str) -> PolicyManager:
        (tmp_path / "a.toml").write_text(text)
        for name, content in files.items():
            (tmp_path / f"{name}.sql").write_text(content)
        return PolicyManager(settings=Settings(url=there.info.dsn, policies=tmp_path, wait=20.0))

    return make


def test_a_second_apply_does_nothing_and_check_is_empty(manager: Callable[..., PolicyManager], there: Db) -> None:
    subject = manager()
    assert subject.check().text
    applied = subject.apply(expected=subject.plan())
    assert applied.statements
    assert subject.apply().statements == ()
    drift = subject.check()
    assert (drift.text, drift.plan.statements) == ("", ())
    assert {listed.made_by for listed in subject.list()} == {"dbops"}


CHANGES = {
    "alter policy dbops_owner_select on documents using (true)": "policy dbops_owner_select on public.documents",
    "drop policy dbops_owner_delete on documents": "policy dbops_owner_delete on public.documents",
    "alter table documents no force row level security": "table public.documents",
    "alter table documents disable row level security": "table public.documents",
    f"grant truncate on documents to {USER}": "table public.documents",
    f"revoke select on documents from {USER}": "table public.documents",
    "drop trigger dbops_immutable on documents": "trigger dbops_immutable on public.documents",
    "create or replace function dbops_policy.refuse_change() returns trigger language plpgsql as 'begin return new; end'":
        "function dbops_policy.refuse_change()",
    "grant execute on function dbops_policy.refuse_change() to public": "function dbops_policy.refuse_change()",
    "create policy theirs on documents using (true)": "policy theirs on public.documents",
    "create policy theirs on members using (true)": "policy theirs on public.members",
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=named)
def test_every_drift_is_seen_and_mended(manager: Callable[..., PolicyManager], there: Db, change: str) -> None:
    subject = manager()
    subject.apply()
    there.execute(change.encode())
    drift = subject.check()
    assert CHANGES[change] in drift.text
    assert subject.apply(prune="theirs" in change).statements
    assert subject.check().text == ""


def test_others_are_reported_and_stay(manager: Callable[..., PolicyManager], there: Db) -> None:
    there.execute('create policy theirs on members using (true); create policy "Th,""eirs" on documents using (id = 1)')
    subject = manager()
    applied = subject.apply()
    assert {(u.table, u.policy) for u in applied.unmanaged} == {
        ("public.members", "theirs"),
        ("public.documents", 'Th,"eirs'),
    }
    assert there.execute(
        "select count(*) from pg_policy where polname like 'Th%' or polname = 'theirs'"
    ).fetchone() == (2,)
    assert "other" in {listed.made_by for listed in subject.list()}
    subject.apply(prune=True)
    assert subject.plan().unmanaged == ()


def test_a_plan_that_was_overtaken_is_not_applied(manager: Callable[..., PolicyManager], there: Db) -> None:
    subject = manager()
    plan = subject.plan()
    there.execute("alter table documents enable row level security")
    with pytest.raises(HistoryMismatch, match="since the plan was confirmed"):
        subject.apply(expected=plan)
    assert there.execute("select count(*) from pg_policy").fetchone() == (0,)


FILE = "drop policy if exists of_file on members;\ncreate policy of_file on members using (role = 'x'); set search_path = auth;"


def test_a_file_is_applied_when_it_changed_or_its_policies_did(
    manager: Callable[..., PolicyManager], there: Db
) -> None:
    there.execute("create policy of_file on members using (role = 'x')")
    there.execute(sql.SQL("alter default privileges grant all on tables to {}").format(sql.Identifier(USER)))
    subject = manager(more=FILE)
    applied = subject.apply()
    assert applied.statements[-1].file == "more.sql"
    assert applied.unmanaged == ()
    assert {str(listed.policy.name): listed.made_by for listed in subject.list()}["of_file"] == "file more.sql"
    assert subject.apply().statements == ()
    assert subject.check().text == ""
    there.execute("alter policy of_file on members using (true)")
    assert "+CREATE POLICY" in subject.check().text
    assert [s.file for s in subject.apply().statements] == ["more.sql"]
    assert subject.check().text == ""
    assert [s.file for s in manager(more=FILE + "--").apply().statements] == ["more.sql"]
    found = there.execute(
        sql.SQL("select relrowsecurity, has_table_privilege({}, oid, 'select'), has_schema_privilege({}, 'dbops', 'usage') "
        "from pg_class where relname = 'policy_files'").format(USER, USER)
    )  # fmt: skip
    assert found.fetchone() == (True, False, False)


@pytest.mark.parametrize(
    ("text", "error", "reason"),
    [
        ("create policy of_file on members using (true); commit;", StatementFailed, "transaction"),
        ("create policy of_file on members; select 1/0", StatementFailed, "division by zero"),
        (f"set role {USER}", StatementFailed, "role"),
        ("alter policy dbops_owner_select on documents using (true)", DbopsError, "left to do"),
    ],
    ids=named,
)
def test_a_file_that_fails_takes_everything_back(
    manager: Callable[..., PolicyManager], there: Db, text: str, error: type[DbopsError], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        manager(more=text).apply()
    assert there.execute("select count(*) from pg_policy").fetchone() == (0,)
    assert there.execute(
        "select to_regnamespace('dbops_policy') is null, to_regnamespace('dbops') is null"
    ).fetchone() == (True, True)


def test_a_helper_owner_that_sees_no_member_is_refused(manager: Callable[..., PolicyManager], there: Db) -> None:
    owner = sql.Identifier(OWNER)
    there.execute(
        sql.SQL("alter role {0} login; alter table documents owner to {0}; alter table members owner to {0};"
        "grant create on database {1} to {0}; grant usage on schema auth to {0}").format(
            owner, sql.Identifier(there.info.dbname))
    )  # fmt: skip
    subject = manager()
    subject._url = psycopg.conninfo.make_conninfo(there.info.dsn, user=OWNER)
    with pytest.raises(NotAllowed, match="its members would not be found") as caught:
        subject.apply()
    assert "BYPASSRLS" in caught.value.hint
    there.execute(sql.SQL("alter role {} bypassrls").format(owner))
    subject.apply()
    assert subject.plan().statements == ()


def test_proposed_indexes_become_a_migration(manager: Callable[..., PolicyManager], there: Db, tmp_path: Path) -> None:
    from dbops.migrate import MigrationManager

    subject, folder = manager(), tmp_path / "migrations"
    folder.mkdir()
    (folder / "99990101_000000_late.sql").write_text("-- migrate:up\nselect 1;\n-- migrate:down\nselect 1;\n")
    plan = subject.plan()
    path = subject.write_migration(plan, folder)
    assert path is not None
    assert path.name == "99990101_000001_policy_indexes.sql"
    migrations = MigrationManager(settings=Settings(url=there.info.dsn, migrations=folder, wait=20.0))
    migrations.migrate_up()
    assert subject.plan().proposals == ()
    migrations.rollback_migration("99990101_000001")
    assert subject.plan().proposals == plan.proposals
    assert subject.write_migration(replace(plan, proposals=()), folder) is None


def test_what_is_explained(manager: Callable[..., PolicyManager], there: Db) -> None:
    subject = manager()
    there.execute("create view v as select * from documents; create materialized view m as select * from documents")
    there.execute(sql.SQL("grant select on v, m to {0}; grant truncate on members to {0}").format(sql.Identifier(ANON)))
    subject.apply()
    text = str(subject.explain("documents"))
    assert "enabled and forced on public.documents" in text
    assert "a.toml:6" in text
    assert f"{USER} may UPDATE rows where (owner_id = ( SELECT auth.uid() AS uid)), and only where" in text
    assert f"The view public.v reads it with the rights of whoever asks; SELECT on it: {ANON}." in text
    assert "The materialized view public.m holds a copy" in text
    other = str(subject.explain("public.members"))
    assert "Row level security is disabled on public.members" in other
    assert f"{ANON} may TRUNCATE: no policy holds that back." in other
    assert f"{ANON} may not SELECT: it has no privilege." in other
    assert isinstance(subject.plan(), Plan)
