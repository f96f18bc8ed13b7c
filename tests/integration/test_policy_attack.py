"""The attack on real servers: the memory schema stands it, mutants do not, and what is not proven is said to be so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dbops.policy.attack import attack, attack_mutants
from dbops.policy.attack.result import Leak, Report
from dbops.policy.catalog import load_catalog
from dbops.policy.model import VERBS, Auth, Definitions, Name, Shared, TableRules, Tenant, Verb
from dbops.rows import make_rows
from tests.policy_faults import (
    ANY,
    DOCUMENTS,
    FAULTS,
    MEMBERS,
    MINE,
    NOTES,
    PRELUDE,
    ROLES,
    TENANT,
    guarded,
    owned,
    policy,
)  # fmt: skip

Connection = psycopg.Connection[Any]
PUBLIC_NOTES = Name("public", "notes")


def attacked(
    conn: Connection, schema: str, declared: Mapping[Name, TableRules], auth: Auth | None = None, **how: Any
) -> Report:
    conn.execute((PRELUDE + schema).encode())
    definitions = Definitions(auth or Auth(), declared)
    return attack(conn, definitions, load_catalog(conn), server_version="v", server_kind="k", **how)


def rules(name: str = "notes", **more: Any) -> dict[Name, TableRules]:
    made = TableRules(Name("public", name), Path("f.toml"), **more)
    return {made.name: made}


def found(report: Report) -> set[tuple[str, str, str]]:
    return {(leak.actor, leak.verb, leak.via) for leak in report.leaks}


# --- the memory schema ---

GUARD = """
create schema dbops_policy;
create function dbops_policy.refuse_change() returns trigger language plpgsql set search_path = '' as $$
begin
  if pg_catalog.row_security_active(tg_relid) then
    raise insufficient_privilege using message = 'this column may not change';
  end if;
  return new;
end $$;
"""


FEW: dict[str, tuple[Verb, ...]] = {
    "user_quotas": ("select",),
    "memory_tokens": ("select",),
    "hygiene_batches": ("select", "insert"),
    "hygiene_changes": ("select", "insert"),
}


def memory(conn: Connection) -> Definitions:
    """The memory schema's policies by hand, as its definitions mean them."""
    conn.execute(GUARD.encode())
    names = [row[0] for row in conn.execute(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r' order by 1"
    )]  # fmt: skip
    tables: dict[Name, TableRules] = {}
    for name in [name for name in names if name != "schema_migrations"]:
        if name == "embedding_models":
            tables |= rules(name, shared=(Shared("true", to=("authenticated",)),))
            conn.execute("alter table embedding_models enable row level security, force row level security")
            conn.execute("create policy dbops_shared on embedding_models for select to authenticated using (true)")
            continue
        verbs = FEW.get(name, VERBS)
        guarded = "update" in verbs
        tables |= rules(name, owner="user_id", verbs=verbs, immutable=("user_id",) if guarded else ())
        made = {"select": policy("select", MINE, table=name), "insert": policy("insert", None, MINE, name)}
        made |= {"update": policy("update", MINE, MINE, name), "delete": policy("delete", MINE, table=name)}
        for verb in verbs:
            conn.execute(made[verb].encode())
        if guarded:
            trigger = f"create trigger dbops_immutable before update on public.{name} for each row"
            condition = " when (old.user_id is distinct from new.user_id) execute function dbops_policy.refuse_change()"
            conn.execute((trigger + condition).encode())
    return Definitions(Auth(), tables)


def test_the_memory_schema_stands_the_attack(db: Connection) -> None:
    definitions = memory(db)
    before = (
        db.execute("select count(*) from pg_roles").fetchone(),
        db.execute("select count(*) from auth.users").fetchone(),
    )
    report = attack(db, definitions, load_catalog(db), server_version="v", server_kind="k")
    assert (report.verdict, report.leaks, report.vacuous) == ("isolated", (), ()), report.vacuous
    assert len(report.tables) == len(definitions.tables)
    assert {cell.state for cell in report.cells} == {"held", "allowed"}
    shown = {(cell.table, cell.verb) for cell in report.cells if cell.state == "allowed"}
    assert len(shown) == 11 * 4 + 1 + 1 + (1 + 2 + 2)
    # all of it was rolled back
    assert db.execute("select count(*) from pg_roles").fetchone() == before[0]
    assert db.execute("select count(*) from auth.users").fetchone() == before[1]


def test_every_mutant_of_a_memory_table_is_caught(db: Connection) -> None:
    definitions = memory(db)
    # one with children, one with a trigger of each kind, one that users only read, one that is shared
    chosen = [Name("public", name) for name in ("chats", "user_memories", "user_quotas", "embedding_models")]
    mutants = attack_mutants(db, definitions, load_catalog(db), tables=chosen)
    assert mutants.survived == ()
    assert len(mutants.caught) + len(mutants.equivalent) == mutants.tried
    assert mutants.tried > 50
    assert len(mutants.equivalent) * 10 <= mutants.tried, mutants.equivalent
    assert "public.chats: chats_update: WITH CHECK true (without its trigger)" in mutants.caught
    assert "public.chats: NO FORCE" in mutants.caught


def test_every_mutant_of_a_tenants_table_is_caught(empty_db: Connection) -> None:
    floor = f"create policy floor on public.documents as restrictive to authenticated using ({ANY}) with check ({ANY});"
    empty_db.execute((PRELUDE + MEMBERS + guarded("documents", ANY, **DOCUMENTS) + floor).encode())
    mutants = attack_mutants(empty_db, Definitions(Auth(), TENANT), load_catalog(empty_db))
    assert mutants.survived == ()
    assert len(mutants.equivalent) * 10 <= mutants.tried, mutants.equivalent
    assert any("floor: dropped" in name for name in mutants.caught)


def test_a_mutant_that_changes_nothing_is_equivalent(empty_db: Connection) -> None:
    # a second policy that says the same: without it all is as before
    twin = "create policy twin on public.notes for select to authenticated using (" + MINE + ");"
    empty_db.execute((PRELUDE + NOTES + guarded() + twin).encode())
    mutants = attack_mutants(empty_db, Definitions(Auth(), owned("notes")), load_catalog(empty_db))
    assert "public.notes: twin: dropped" in {one.mutant for one in mutants.equivalent}
    assert all("every attempt" in one.reason for one in mutants.equivalent)


# --- scripts ---


@pytest.mark.parametrize(
    "name",
    [
        "update with check (true)",
        "insert without check",
        "enabled without force",
        "a security definer function that writes",
    ],
)
def test_a_leak_comes_with_what_shows_it(name: str, empty_db: Connection) -> None:
    fault = next(fault for fault in FAULTS if fault.name == name)
    report = attacked(empty_db, fault.faulty, dict(fault.tables))
    leak = next(leak for leak in report.leaks if leak.verb in ("update", "insert", "delete", "call"))
    # the same seed makes the same rows
    make_rows(empty_db, ["auth", "public"], per_table=8, seed=0, extremes=False)
    assert changed_by(empty_db, leak)


def changed_by(conn: Connection, leak: Leak) -> bool:
    """Whether the rows of the script's last state, as a superuser sees them, show what it did."""
    body = leak.sql.removesuffix("ROLLBACK;\n")
    *prepare, last = body.rstrip(";\n").split(";\n")
    with conn.transaction(force_rollback=True):
        for statement in prepare[1:]:  # BEGIN is the block's
            if statement.startswith("SET LOCAL ROLE"):
                before = conn.execute("select ctid::text, n::text from public.notes n order by 1").fetchall()
            conn.execute(statement.encode())
        conn.execute(last.encode())
        conn.execute("reset role")
        return conn.execute("select ctid::text, n::text from public.notes n order by 1").fetchall() != before


# --- what is not proven is never safe ---


def test_a_table_without_rows_is_vacuous(empty_db: Connection) -> None:
    report = attacked(empty_db, NOTES + "alter table public.notes add check (false);" + guarded(), owned("notes"))
    assert report.verdict == "vacuous"
    assert [(one.table, one.actor) for one in report.vacuous] == [("public.notes", "")]
    assert "check" in report.vacuous[0].reason


def test_rows_of_one_owner_only_are_vacuous(empty_db: Connection) -> None:
    one = "alter table public.notes add check (user_id = '00000000-0000-0000-0000-000000000001');"
    one += "alter table public.notes drop constraint notes_user_id_fkey;"
    report = attacked(empty_db, NOTES + one + guarded(), owned("notes"))
    assert report.verdict == "vacuous"
    assert "there is no victim" in report.vacuous[0].reason


def test_a_policy_that_refuses_its_owner_is_vacuous(empty_db: Connection) -> None:
    schema = NOTES + guarded(select=policy("select", "false"))
    report = attacked(empty_db, schema, owned("notes"))
    assert report.verdict == "vacuous"
    assert ("public.notes", "owner") in {(one.table, one.actor) for one in report.vacuous}
    assert "vacuous" in {cell.state for cell in report.cells if cell.actor == "owner"}


def test_a_missing_table_and_no_table_at_all_are_vacuous(empty_db: Connection) -> None:
    report = attacked(empty_db, "", owned("nowhere"))
    assert (report.verdict, report.tables, report.vacuous[0].table) == ("vacuous", (), "public.nowhere")


def test_shared_rows_that_cannot_be_told_from_others_are_vacuous(empty_db: Connection) -> None:
    schema = NOTES + guarded(select=policy("select", f"{MINE} or length(body) >= 0"))
    report = attacked(
        empty_db, schema, rules(owner="user_id", shared=(Shared("length(body) >= 0", to=("authenticated",)),))
    )
    assert "holds for every row" in report.vacuous[0].reason


# --- kinds of rules ---


def test_a_closed_table_is_open_to_nobody(empty_db: Connection) -> None:
    report = attacked(empty_db, NOTES + guarded(), rules(closed=True))
    assert {("user in user_id", verb, "table") for verb in ("select", "update", "delete")} <= found(report)


def test_a_policy_that_goes_by_another_column_is_found(empty_db: Connection) -> None:
    editor = NOTES.replace("body text", "editor uuid not null, body text")
    report = attacked(
        empty_db, editor + guarded(select=policy("select", f"{MINE} or editor = auth.uid()")), owned("notes")
    )
    assert ("user in editor", "select", "table") in found(report)


def test_an_owner_may_do_no_more_than_his_verbs(empty_db: Connection) -> None:
    report = attacked(empty_db, NOTES + guarded(), rules(owner="user_id", verbs=("select", "insert")))
    assert {verb for actor, verb, _ in found(report) if actor == "another user"} == {"update", "delete"}


def test_shared_rows_are_open_and_the_others_are_not(empty_db: Connection) -> None:
    visible = "create policy open on public.notes for select to anon using (body = 'public');"
    visible += "grant select on public.notes to anon;"
    shared = rules(owner="user_id", shared=(Shared("body = 'public'", to=("anon",)),))
    report = attacked(empty_db, NOTES + guarded() + visible, shared)
    assert (report.verdict, report.vacuous) == ("isolated", ())
    assert "allowed" in {cell.state for cell in report.cells if (cell.actor, cell.verb) == ("anon", "select")}
    empty_db.execute("alter policy open on public.notes using (body is not null)")
    again = attack(empty_db, Definitions(Auth(), shared), load_catalog(empty_db), server_version="v", server_kind="k")
    assert ("anon", "select", "table") in found(again)


OWN_OR_EDITOR = "author = (select auth.uid())::text"


@pytest.mark.parametrize("strict", [True, False])
def test_an_owner_is_held_to_his_tenants(strict: bool, empty_db: Connection) -> None:
    both = TableRules(
        Name("public", "documents"), Path("f.toml"), owner="author", verbs=("select", "update"),
        tenant=Tenant("team_id", Name("public", "members")), roles=ROLES,
    )  # fmt: skip
    own = f"{ANY} and {OWN_OR_EDITOR}" if strict else OWN_OR_EDITOR
    beside = policy("select", own, table="documents").replace("documents_select", "own_select")
    beside += policy("update", own, own, "documents").replace("documents_update", "own_update")
    report = attacked(empty_db, MEMBERS + guarded("documents", ANY, **DOCUMENTS) + beside, {both.name: both})
    assert report.vacuous == ()
    assert bool(report.leaks) is not strict
    if not strict:
        assert "update" in {leak.verb for leak in report.leaks}


def test_a_grant_on_columns_is_attacked_by_those_columns(empty_db: Connection) -> None:
    columns = "revoke insert, update on public.notes from authenticated; grant update (body), insert (user_id, body)"
    schema = NOTES + guarded(update=policy("update", "true", "true")) + columns + " on public.notes to authenticated;"
    report = attacked(empty_db, schema, owned("notes"))
    assert {("another user", "update", "table"), ("no sub", "update", "table")} <= found(report)
    assert {verb for _, verb, _ in found(report)} == {"update"}
    empty_db.execute(f"alter policy notes_update on public.notes using ({MINE})".encode())
    empty_db.execute("alter policy notes_insert on public.notes with check (true)")
    again = attack(
        empty_db, Definitions(Auth(), owned("notes")), load_catalog(empty_db), server_version="v", server_kind="k"
    )
    assert ("another user", "insert", "table") in found(again)
    assert {verb for _, verb, _ in found(again)} == {"insert", "merge"}


def test_what_a_table_is_attacked_with_can_be_narrowed(empty_db: Connection) -> None:
    schema = NOTES + NOTES.replace("notes", "others") + guarded() + guarded("others")
    report = attacked(empty_db, schema, owned("notes", "others"), verbs={"select"}, tables={PUBLIC_NOTES})
    assert report.tables == ("public.notes",)
    assert {cell.verb for cell in report.cells} == {"select"}
    assert report.vacuous == ()


# --- tables of all shapes ---


@pytest.mark.parametrize("name", ['Ein "Name"', "a%b's", "ünïcode 表", "x" * 63, "select"])
def test_names_of_any_kind(name: str, empty_db: Connection) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    schema = (NOTES + guarded()).replace("public.notes", f"public.{quoted}").replace("user_id", quoted)
    made = TableRules(Name("public", name), Path("f.toml"), owner=name)
    assert attacked(empty_db, schema, {made.name: made}).verdict == "isolated"
    empty_db.execute(f"alter policy notes_select on public.{quoted} using (true)".encode())
    report = attack(
        empty_db, Definitions(Auth(), {made.name: made}), load_catalog(empty_db), server_version="v", server_kind="k"
    )
    assert ("another user", "select", "table") in found(report)


@pytest.mark.parametrize(
    "columns",
    [
        "user_id uuid not null, id bigint generated always as identity primary key, body text,"
        " twice text generated always as (body || body) stored",
        "user_id uuid not null, body text",  # no key at all
        "user_id uuid primary key, body jsonb not null, place point",
        "user_id uuid not null, day date not null, body text, exclude using btree (user_id with =, day with =)",
    ],
    ids=["identity and generated", "no key", "one row a user", "an exclusion"],
)
def test_tables_of_any_shape(columns: str, empty_db: Connection) -> None:
    schema = f"create table public.notes ({columns});" + guarded()
    report = attacked(empty_db, schema, owned("notes"))
    assert (report.verdict, report.leaks, report.vacuous) == ("isolated", (), ()), report.vacuous
    empty_db.execute("alter policy notes_update on public.notes with check (true)")
    again = attack(
        empty_db, Definitions(Auth(), owned("notes")), load_catalog(empty_db), server_version="v", server_kind="k"
    )
    assert ("another user", "update", "table") in found(again)


def test_a_whole_number_may_say_who_somebody_is(empty_db: Connection) -> None:
    mine = "user_id = (select nullif(current_setting('app.user_id', true), '')::bigint)"
    schema = "create table public.notes (user_id bigint not null, body text, primary key (user_id));" + guarded(
        using=mine
    )
    report = attacked(empty_db, schema, owned("notes"), Auth("app.user_id"))
    assert (report.verdict, report.leaks, report.vacuous) == ("isolated", (), ()), report.vacuous


def test_a_view_that_keeps_its_owners_rights_for_a_reason_is_noted(empty_db: Connection) -> None:
    view = "create view public.counts as select count(*) from public.notes; grant select on public.counts to authenticated;"
    empty_db.execute((PRELUDE + NOTES + guarded() + view).encode())
    named = Definitions(Auth(), owned("notes"), definer_views={Name("public", "counts"): "a figure for the front page"})
    report = attack(empty_db, named, load_catalog(empty_db), server_version="v", server_kind="k")
    assert report.leaks == ()
    assert any("a figure for the front page" in note for note in report.notes)
