"""`dbops policy` as it is typed: documents, exit codes, what asks, what an apply leaves behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbops.cli.policy import narrows
from dbops.database import connect
from dbops.policy.model import Name
from dbops.policy.plan import Statement
from tests.cli.conftest import Command, sql


def snapshot(url: str) -> list[Any]:
    with connect(url, "test") as conn:
        return conn.execute("select polname, polrelid from pg_policy order by 1").fetchall()


def test_plan(shop: Path, shop_url: str, dbops: Command) -> None:
    done = dbops("policy", "plan", "--json")
    assert done.code == 0
    assert done.json["unmanaged"] == []
    assert done.json["migration"] is None
    assert any(text.startswith('CREATE POLICY "dbops_') for text in done.json["statements"])
    assert [each["sql"] for each in done.json["details"]] == done.json["statements"]
    assert snapshot(shop_url) == []
    text = dbops("policy", "plan").out
    assert text.startswith("-- test_")
    assert "ENABLE ROW LEVEL SECURITY" in text


def test_apply_asks_for_what_narrows(shop: Path, shop_url: str, dbops: Command, types: Callable[[str], None]) -> None:
    """Enabling RLS takes rows away from whoever read them."""
    refused = dbops("policy", "apply", "--json")
    assert (refused.code, refused.error["code"]) == (2, "confirmation_required")
    assert "nothing was done" in refused.error["hint"]
    assert "ENABLE ROW LEVEL SECURITY" in refused.err
    assert "test_" in refused.error["message"]
    types("n")
    assert dbops("policy", "apply").code == 2
    assert snapshot(shop_url) == []
    types("y")
    assert dbops("policy", "apply").code == 0
    assert snapshot(shop_url)


def test_apply_that_only_adds_asks_nobody(shop: Path, shop_url: str, dbops: Command) -> None:
    assert dbops("policy", "apply", "--yes").code == 0
    sql(shop_url, "drop policy dbops_owner_select on public.notes")
    done = dbops("policy", "apply", "--json")
    assert (done.code, done.json["applied"], len(done.json["statements"])) == (0, True, 1)


def test_dry_run_is_the_plan(shop: Path, shop_url: str, dbops: Command) -> None:
    planned, dry = dbops("policy", "plan", "--json").json, dbops("policy", "apply", "--dry-run", "--json")
    assert (dry.code, dry.json["applied"]) == (0, False)
    assert dry.json["statements"] == planned["statements"]
    assert snapshot(shop_url) == []


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


def test_apply_hides_no_older_drift(shop: Path, shop_url: str, dbops: Command) -> None:
    sql(shop_url, "alter table public.notes add column mood text")
    done = dbops("policy", "apply", "--yes")
    assert done.code == 0
    assert "had drifted before" in done.err
    checked = dbops("migrate", "check")
    assert checked.code == 3
    assert "mood" in checked.out


def test_apply_without_a_history(shop: Path, shop_url: str, dbops: Command) -> None:
    sql(shop_url, "drop table public.schema_migrations; drop schema dbops cascade")
    assert dbops("policy", "apply", "--yes").code == 0
    with connect(shop_url, "test") as conn:
        assert conn.execute("select to_regclass('public.schema_migrations')").fetchone() == (None,)


def test_check(shop: Path, shop_url: str, dbops: Command) -> None:
    before = dbops("policy", "check", "--json")
    assert before.code == 3
    assert before.json["comparable"] is True
    assert "dbops_owner_select" in before.json["drift"]
    assert dbops("policy", "apply", "--yes").code == 0
    after = dbops("policy", "check")
    assert (after.code, after.out) == (0, "no drift\n")
    sql(shop_url, "create policy other on public.notes for select to anon using (true)")
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


def test_the_index_becomes_a_migration(shop: Path, shop_url: str, dbops: Command) -> None:
    sql(shop_url, "alter table public.notes drop constraint notes_pkey")
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


def test_lint(shop: Path, shop_url: str, dbops: Command) -> None:
    assert dbops("policy", "apply", "--yes").code == 0
    assert dbops("policy", "lint", "--no-pgrls").out == "nothing found\n"
    sql(shop_url, "grant truncate on public.notes to anon")
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


def test_lint_as_sarif(shop: Path, shop_url: str, dbops: Command) -> None:
    sql(
        shop_url,
        "grant select on public.notes to anon; create table public.t (a int); grant select on public.t to anon",
    )
    document = json.loads(dbops("policy", "lint", "--no-pgrls", "--format", "sarif", "--fail-on", "never").out)
    places = {
        result["message"]["text"].split()[0]: result.get("locations") for result in document["runs"][0]["results"]
    }
    notes = places["public.notes"][0]["physicalLocation"]
    assert (notes["artifactLocation"]["uri"], notes["region"]) == ("policies/notes.toml", {"startLine": 4})
    assert places["public.t"] is None


def test_lint_before_there_are_definitions(shop: Path, shop_url: str, dbops: Command) -> None:
    (shop / "policies" / "notes.toml").unlink()
    (shop / "policies").rmdir()
    sql(shop_url, "grant select on public.notes to anon")
    done = dbops("policy", "lint", "--no-pgrls", "--json")
    assert [(each["rule"], each["path"]) for each in done.json["findings"]] == [("rls-missing", None)]
    assert "there is no folder policies" in done.err


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
