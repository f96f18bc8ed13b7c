"""`dbops policy` as it is typed: documents, exit codes, what asks, what an apply leaves behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dbops.cli.policy import narrows
from dbops.cli.policy_output import attack_text
from dbops.database import connect
from dbops.policy import PolicyManager
from dbops.policy.attack.result import Cell, Equivalent, Leak, Mutants, Report, Vacuous
from dbops.policy.model import Name
from dbops.policy.plan import Statement
from tests.cli.conftest import Command, write

COMPATIBLE = Path(__file__).parents[2] / "migrations" / "sql" / "20250101_000000_supabase_compatibility.sql"
TABLE = """create table public.notes (user_id uuid not null, id int generated always as identity, note text,
  primary key (user_id, id));"""
DEFINITIONS = 'version = 1\nauth = "supabase"\n\n[table."public.notes"]\nowner = "user_id"\n'


@pytest.fixture
def shop(folder: Path, empty_url: str, monkeypatch: pytest.MonkeyPatch, dbops: Command) -> Path:
    """A project with one table of users' rows, migrated, and its definition, not applied."""
    monkeypatch.setenv("DATABASE_URL", empty_url)
    up = COMPATIBLE.read_text(encoding="utf-8").split("-- migrate:up\n")[1].split("-- migrate:down")[0]
    write(folder, "20250101_000000_auth", up)
    write(folder, "20250101_000001_notes", TABLE)
    (folder / "policies").mkdir()
    (folder / "policies" / "notes.toml").write_text(DEFINITIONS)
    assert dbops("migrate", "up", "-q").code == 0
    return folder


def sql(url: str, text: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(text.encode())


def snapshot(url: str) -> list[Any]:
    with connect(url, "test") as conn:
        return conn.execute("select polname, polrelid from pg_policy order by 1").fetchall()


def test_plan(shop: Path, empty_url: str, dbops: Command) -> None:
    done = dbops("policy", "plan", "--json")
    assert done.code == 0
    assert done.json["unmanaged"] == []
    assert done.json["migration"] is None
    assert any(text.startswith('CREATE POLICY "dbops_') for text in done.json["statements"])
    assert [each["sql"] for each in done.json["details"]] == done.json["statements"]
    assert snapshot(empty_url) == []
    text = dbops("policy", "plan").out
    assert text.startswith("-- test_")
    assert "ENABLE ROW LEVEL SECURITY" in text


def test_apply_asks_for_what_narrows(shop: Path, empty_url: str, dbops: Command, types: Callable[[str], None]) -> None:
    """Enabling RLS takes rows away from whoever read them."""
    refused = dbops("policy", "apply", "--json")
    assert (refused.code, refused.error["code"]) == (2, "confirmation_required")
    assert "nothing was done" in refused.error["hint"]
    assert "ENABLE ROW LEVEL SECURITY" in refused.err
    assert "test_" in refused.error["message"]
    types("n")
    assert dbops("policy", "apply").code == 2
    assert snapshot(empty_url) == []
    types("y")
    assert dbops("policy", "apply").code == 0
    assert snapshot(empty_url)


def test_apply_that_only_adds_asks_nobody(shop: Path, empty_url: str, dbops: Command) -> None:
    assert dbops("policy", "apply", "--yes").code == 0
    sql(empty_url, "drop policy dbops_owner_select on public.notes")
    done = dbops("policy", "apply", "--json")
    assert (done.code, done.json["applied"], len(done.json["statements"])) == (0, True, 1)


def test_dry_run_is_the_plan(shop: Path, empty_url: str, dbops: Command) -> None:
    planned, dry = dbops("policy", "plan", "--json").json, dbops("policy", "apply", "--dry-run", "--json")
    assert (dry.code, dry.json["applied"]) == (0, False)
    assert dry.json["statements"] == planned["statements"]
    assert snapshot(empty_url) == []


def test_a_second_apply_does_nothing(shop: Path, dbops: Command) -> None:
    assert dbops("policy", "apply", "--yes").code == 0
    done = dbops("policy", "apply", "--json")
    assert (done.code, done.json["statements"], done.json["applied"]) == (0, [], False)


def test_a_profile_that_wants_a_word(shop: Path, dbops: Command) -> None:
    (shop / "dbops.toml").write_text('[env.prod]\nconfirm = "prod"\n')
    assert dbops("policy", "apply", "--env", "prod", "--yes").code == 2
    assert dbops("policy", "apply", "--env", "prod", "--confirm", "prod").code == 0


def test_apply_is_no_drift_of_the_migrations(shop: Path, dbops: Command) -> None:
    assert dbops("migrate", "check").code == 0
    assert dbops("policy", "apply", "--yes").code == 0
    assert dbops("migrate", "check").code == 0
    assert [run["command"] for run in dbops("migrate", "history", "--json").json["runs"]] == ["policy apply", "up"]


def test_apply_hides_no_older_drift(shop: Path, empty_url: str, dbops: Command) -> None:
    sql(empty_url, "alter table public.notes add column mood text")
    done = dbops("policy", "apply", "--yes")
    assert done.code == 0
    assert "had drifted before" in done.err
    checked = dbops("migrate", "check")
    assert checked.code == 3
    assert "mood" in checked.out


def test_apply_without_a_history(shop: Path, empty_url: str, dbops: Command) -> None:
    sql(empty_url, "drop table public.schema_migrations; drop schema dbops cascade")
    assert dbops("policy", "apply", "--yes").code == 0
    with connect(empty_url, "test") as conn:
        assert conn.execute("select to_regclass('public.schema_migrations')").fetchone() == (None,)


def test_check(shop: Path, empty_url: str, dbops: Command) -> None:
    before = dbops("policy", "check", "--json")
    assert before.code == 3
    assert before.json["comparable"] is True
    assert "dbops_owner_select" in before.json["drift"]
    assert dbops("policy", "apply", "--yes").code == 0
    after = dbops("policy", "check")
    assert (after.code, after.out) == (0, "no drift\n")
    sql(empty_url, "create policy other on public.notes for select to anon using (true)")
    assert dbops("policy", "check").code == 3
    assert dbops("policy", "plan", "--json").json["unmanaged"] == [{"table": "public.notes", "policy": "other"}]
    assert dbops("policy", "apply", "--prune", "--yes").code == 0
    assert dbops("policy", "check").code == 0


def test_list_and_explain(shop: Path, dbops: Command) -> None:
    assert dbops("policy", "list").out == "no policies\n"
    assert dbops("policy", "apply", "--yes").code == 0
    listed = dbops("policy", "list", "--json").json["policies"]
    assert {each["made_by"] for each in listed} == {"dbops"}
    assert "dbops_owner_select  to authenticated  by dbops" in dbops("policy", "list").out
    told = dbops("policy", "explain", "public.notes", "--json").json
    assert told["table"] == "public.notes"
    assert any("authenticated may SELECT" in sentence for sentence in told["sentences"])
    assert dbops("policy", "explain", "public.none", "--json").error["exit"] == 2


def test_export(shop: Path, dbops: Command) -> None:
    assert dbops("policy", "apply", "--yes").code == 0
    dry = dbops("policy", "export", "public.notes", "--to", "out", "--dry-run", "--json").json
    assert dry["files"] == ["out/public.toml"]
    assert not (shop / "out").exists()
    done = dbops("policy", "export", "public.notes", "--to", "out", "--json")
    assert (done.code, done.json["files"]) == (0, ["out/public.toml"])
    assert (shop / "out" / "public.toml").read_text() == dry["contents"]["out/public.toml"]


def test_the_index_becomes_a_migration(shop: Path, empty_url: str, dbops: Command) -> None:
    sql(empty_url, "alter table public.notes drop constraint notes_pkey")
    dry = dbops("policy", "plan", "--write-migration", "--dry-run", "--json").json
    assert len(dry["proposals"]) == 1
    assert dry["migration"] is None
    written = dbops("policy", "plan", "--write-migration", "--json").json["migration"]
    assert "CREATE INDEX CONCURRENTLY" in (shop / written).read_text()
    assert dbops("migrate", "up", "-q").code == 0
    assert dbops("policy", "plan", "--json").json["proposals"] == []


def test_bad_definitions(shop: Path, dbops: Command) -> None:
    (shop / "policies" / "notes.toml").write_text("version = 1\n[table\n")
    error = dbops("policy", "plan", "--json").error
    assert error["exit"] == 2
    assert "notes.toml" in error["message"]


# --- lint ----------------------------------------------------------------------------------------


def test_lint(shop: Path, empty_url: str, dbops: Command) -> None:
    assert dbops("policy", "apply", "--yes").code == 0
    assert dbops("policy", "lint", "--no-pgrls").out == "nothing found\n"
    sql(empty_url, "grant truncate on public.notes to anon")
    found = dbops("policy", "lint", "--no-pgrls", "--json")
    [finding] = found.json["findings"]
    assert found.code == 3
    assert finding == finding | {
        "rule": "privilege-past-rls",
        "severity": "error",
        "path": "policies/notes.toml",
        "line": 4,
        "table": "public.notes",
    }
    text = dbops("policy", "lint", "--no-pgrls").out.splitlines()
    assert text[0].startswith("policies/notes.toml:4: error privilege-past-rls: anon has TRUNCATE on public.notes")
    assert text[-1] == "1 error"
    for name, code in (("privilege-past-rls", 0), ("privilege-past-rls:public.notes", 0), ("rls-missing", 3)):
        assert dbops("policy", "lint", "--no-pgrls", "--ignore", name).code == code
    assert dbops("policy", "lint", "--no-pgrls", "--fail-on", "never").code == 0
    assert dbops("policy", "lint", "--ignore", "no-such-rule").code == 2


def test_lint_as_sarif(shop: Path, empty_url: str, dbops: Command) -> None:
    sql(
        empty_url,
        "grant select on public.notes to anon; create table public.t (a int); grant select on public.t to anon",
    )
    document = json.loads(dbops("policy", "lint", "--no-pgrls", "--format", "sarif", "--fail-on", "never").out)
    places = {
        result["message"]["text"].split()[0]: result.get("locations") for result in document["runs"][0]["results"]
    }
    notes = places["public.notes"][0]["physicalLocation"]
    assert (notes["artifactLocation"]["uri"], notes["region"]) == ("policies/notes.toml", {"startLine": 4})
    assert places["public.t"] is None


def test_lint_before_there_are_definitions(shop: Path, empty_url: str, dbops: Command) -> None:
    (shop / "policies" / "notes.toml").unlink()
    (shop / "policies").rmdir()
    sql(empty_url, "grant select on public.notes to anon")
    done = dbops("policy", "lint", "--no-pgrls", "--json")
    assert [(each["rule"], each["path"]) for each in done.json["findings"]] == [("rls-missing", None)]
    assert "there is no folder policies" in done.err


# --- attack --------------------------------------------------------------------------------------


@pytest.mark.quick
def test_what_asks() -> None:
    def one(text: str, was: str = "", file: str = "") -> bool:
        return narrows(Statement(text, (Name("public", "t"),), "why", was, file))

    assert not one('GRANT SELECT ON "public"."t" TO "authenticated"')
    assert not one('CREATE POLICY "p" ON "public"."t" AS PERMISSIVE FOR ALL TO "anon" USING (true)')
    assert not one('CREATE SCHEMA IF NOT EXISTS "dbops_policy"')
    assert one('CREATE POLICY "p" ON "public"."t" AS RESTRICTIVE FOR ALL TO "anon" USING (true)')
    assert one('ALTER TABLE "public"."t" FORCE ROW LEVEL SECURITY', "enabled, not forced")
    assert one('REVOKE SELECT ON "public"."t" FROM "anon"')
    assert one('DROP POLICY "p" ON "public"."t"')
    assert one('CREATE POLICY "p" ON "public"."t" AS PERMISSIVE', 'CREATE POLICY "p" …')
    assert one("grant all on t to anon", file="own.sql")


LEAK = Leak("public.a", "other user", "select", "table", "saw 1 row of the victim", "begin;\nselect 1;")
CELLS = (
    Cell("public.a", "delete", "owner", "allowed"),
    Cell("public.a", "delete", "other user", "held"),
    Cell("public.a", "select", "owner", "allowed"),
    Cell("public.a", "select", "other user", "leak"),
    Cell("public.long_name", "select", "owner", "vacuous"),
)
REPORT = Report(
    ("public.a", "public.long_name"), 1234, (LEAK,), (Vacuous("public.long_name", "owner", "no row"),), CELLS,
    "18", "embedded", 1500.0, (Vacuous("public.geo", "", "postgis is missing"),), ("a note",),
    Mutants(3, ("a", "b"), ("c",), (Equivalent("d", "the same rows"),)),
)  # fmt: skip


@pytest.mark.quick
def test_the_matrix() -> None:
    import click

    assert click.unstyle(attack_text(REPORT)).splitlines() == [
        "                        A B",
        "public.a         delete + .",
        "                 select + !",
        "public.long_name select ?",
        "",
        "A owner   B other user",
        ". held   + allowed by a definition   ! leak   ? nothing proven",
        "",
        "LEAK  public.a, other user, select via table: saw 1 row of the victim",
        "    begin;",
        "    select 1;",
        "vacuous  public.long_name, owner: no row",
        "not proven  public.geo: postgis is missing",
        "note  a note",
        "SURVIVED  c: the attack did not notice",
        "equivalent  d: the same rows",
        "3 mutants: 2 caught, 1 survived, 1 equivalent",
        "leaks: 2 tables, 1,234 attacks, 1 leak, 1 vacuous, on PostgreSQL 18 (embedded) in 1500 ms",
    ]


def test_attack(shop: Path, server: Any, dbops: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table stands: it is attacked on a scratch server, and no row of another is got."""
    monkeypatch.setenv("DBOPS_SCRATCH_URL", server.url)
    done = dbops("policy", "attack", "--json")
    document = done.json
    assert (done.code, document["verdict"], document["leaks"], document["vacuous"]) == (0, "isolated", [], [])
    assert "public.notes" in document["tables"]
    assert document["attacks"] > 50
    assert document["mutants"] is None
    assert {cell["state"] for cell in document["cells"]} == {"held", "allowed"}


def test_an_attack_that_leaks(shop: Path, server: Any, dbops: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBOPS_SCRATCH_URL", server.url)
    raw = '[[table."public.notes".raw]]\nname = "open"\nfor = "select"\nto = ["authenticated"]\nusing = "true"\n'
    (shop / "policies" / "notes.toml").write_text(DEFINITIONS + raw)
    done = dbops("policy", "attack", "--json")
    assert (done.code, done.json["verdict"]) == (4, "leaks")
    leak = next(leak for leak in done.json["leaks"] if (leak["via"], leak["verb"]) == ("table", "select"))
    assert {"table", "actor", "verb", "via", "sql"} <= set(leak)
    assert leak["table"] == "public.notes"
    assert "select" in leak["sql"].lower()
    text = dbops("policy", "attack", "--table", "public.notes")
    assert text.code == 4
    assert "LEAK  public.notes" in text.out
    sarif = json.loads(dbops("policy", "attack", "--format", "sarif").out)
    results = sarif["runs"][0]["results"]
    assert {result["ruleId"] for result in results} == {"attack-leak"}
    place = results[0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "policies/notes.toml"


def test_lint_beside_the_attack(
    shop: Path, empty_url: str, server: Any, dbops: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weak WITH CHECK, and a trigger that lets nobody use it: lint alone says error, and that is told."""
    monkeypatch.setenv("DBOPS_SCRATCH_URL", server.url)
    (shop / "policies" / "notes.toml").write_text(DEFINITIONS + 'immutable = ["user_id"]\n')
    assert dbops("policy", "apply", "--yes").code == 0
    agreed = dbops("policy", "lint", "--no-pgrls", "--attack", "--json")
    assert (agreed.code, agreed.json["disagreements"], agreed.json["attack"]["verdict"]) == (0, [], "isolated")
    sql(
        empty_url,
        "create policy weak on public.notes for update to authenticated "
        "using (user_id = (select auth.uid())) with check (note is not null)",
    )
    differ = dbops("policy", "lint", "--no-pgrls", "--attack", "--json").json["disagreements"]
    assert [(each["table"], each["kind"]) for each in differ] == [("public.notes", "unproven")]
    assert (
        "lint alone  public.notes: lint has policy-check-weaker"
        in dbops("policy", "lint", "--no-pgrls", "--attack").out
    )


def test_survivors_and_leaks_are_exit_4(shop: Path, dbops: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the library finds, the exit code tells it."""
    isolated = Report(("public.notes",), 9, (), (), (), "18", "embedded", 1.0)
    survived = Report(("public.notes",), 9, (), (), (), "18", "embedded", 1.0, mutants=Mutants(1, (), ("weak",), ()))
    for report, code in ((isolated, 0), (survived, 4), (REPORT, 4), (Report((), 0, (), (), (), "", "", 0.0), 4)):
        monkeypatch.setattr(PolicyManager, "attack", lambda self, report=report, **_: report)
        assert dbops("policy", "attack", "--mutate").code == code
