"""`dbops policy attack` as it is typed: exit codes, documents, what it shows, what it leaves alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest

from dbops.cli.policy_output import attack_text
from dbops.database import connect
from dbops.policy import PolicyManager
from dbops.policy.attack.result import Cell, Equivalent, Leak, Mutants, Report, Vacuous
from tests.cli.conftest import COMPATIBLE, DEFINITIONS, Command, sql, write
from tests.unit.test_sarif import SCHEMA

OPEN = '[[table."public.notes".raw]]\nname = "open"\nfor = "select"\nto = ["authenticated"]\nusing = "true"\n'


@pytest.fixture(autouse=True)
def scratch_url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The scratch server of those who attack is the run's own."""
    if "server" not in request.fixturenames:
        return ""
    url = str(request.getfixturevalue("server").url)
    monkeypatch.setenv("DBOPS_SCRATCH_URL", url)
    return url


# --- what is shown -------------------------------------------------------------------------------


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


@pytest.mark.quick
def test_one_hole_for_many_actors_is_shown_once() -> None:
    """And a table of which nothing is found only to those who ask."""
    other = replace(LEAK, actor="no sub")
    report = replace(REPORT, leaks=(LEAK, other, replace(LEAK, verb="copy")), vacuous=(), cells=CELLS[:4])
    report = replace(report, cells=(*report.cells, Cell("public.long_name", "select", "owner", "allowed")))
    short, whole = (click.unstyle(attack_text(report, whole=whole)) for whole in (False, True))
    assert (short.count("LEAK  "), whole.count("LEAK  ")) == (2, 3)
    assert "  and so: no sub (-v shows each)" in short.splitlines()
    assert ("public.long_name" in short, "public.long_name" in whole) == (False, True)


def test_attack(shop: Path, server: Any, dbops: Command) -> None:
    """The table stands: it is attacked on a scratch server, and no row of another is got."""
    done = dbops("policy", "attack", "--json")
    document = done.json
    assert (done.code, document["verdict"], document["leaks"], document["vacuous"]) == (0, "isolated", [], [])
    assert "public.notes" in document["tables"]
    assert document["attacks"] > 50
    assert document["mutants"] is None
    assert {cell["state"] for cell in document["cells"]} == {"held", "allowed"}


def test_an_attack_that_leaks(shop: Path, server: Any, dbops: Command) -> None:
    (shop / "policies" / "notes.toml").write_text(DEFINITIONS + OPEN)
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
    jsonschema.validate(sarif, SCHEMA, cls=jsonschema.Draft7Validator)
    results = sarif["runs"][0]["results"]
    assert {result["ruleId"] for result in results} == {"attack-leak"}
    place = results[0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "policies/notes.toml"


def test_lint_beside_the_attack(shop: Path, shop_url: str, server: Any, dbops: Command) -> None:
    """A weak WITH CHECK, and a trigger that lets nobody use it: lint alone says error, and that is told."""
    (shop / "policies" / "notes.toml").write_text(DEFINITIONS + 'immutable = ["user_id"]\n')
    assert dbops("policy", "apply", "--yes").code == 0
    agreed = dbops("policy", "lint", "--no-pgrls", "--attack", "--json")
    assert (agreed.code, agreed.json["disagreements"], agreed.json["attack"]["verdict"]) == (0, [], "isolated")
    sql(
        shop_url,
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


# --- from nothing --------------------------------------------------------------------------------

DOCUMENT = {"verdict", "tables", "attacks", "leaks", "vacuous", "mutants"}
MUTANTS = {"tried", "caught", "survived", "equivalent"}


def test_the_document_has_the_keys_that_others_read(shop: Path, dbops: Command, server: Any) -> None:
    (shop / "policies" / "notes.toml").write_text(DEFINITIONS + 'immutable = ["user_id"]\n')
    found = dbops("policy", "attack", "--mutate", "--json").json
    assert set(found) >= DOCUMENT
    assert set(found["mutants"]) == MUTANTS
    assert found["mutants"]["tried"] == sum(len(found["mutants"][how]) for how in MUTANTS - {"tried"})
    assert all(set(each) == {"mutant", "reason"} for each in found["mutants"]["equivalent"])
    (shop / "policies" / "notes.toml").write_text(DEFINITIONS + OPEN)
    write(shop, "20250101_000002_never", "create table public.never (user_id uuid check (user_id is null) not null);")
    (shop / "policies" / "never.toml").write_text('[table."public.never"]\nowner = "user_id"\n')
    found = dbops("policy", "attack", "--json").json
    assert all(set(each) >= {"table", "actor", "verb", "via", "sql"} for each in found["leaks"])
    assert {each["table"] for each in found["vacuous"]} == {"public.never"}
    assert all(set(each) == {"table", "actor", "reason"} for each in found["vacuous"])


def test_a_table_that_cannot_have_rows_is_exit_4(shop: Path, dbops: Command, server: Any) -> None:
    write(shop, "20250101_000002_never", "create table public.never (user_id uuid not null check (user_id is null));")
    (shop / "policies" / "never.toml").write_text('[table."public.never"]\nowner = "user_id"\n')
    done = dbops("policy", "attack")
    assert done.code == 4
    assert "vacuous  public.never" in done.out
    assert done.out.splitlines()[-1].startswith("vacuous: 2 tables, ")
    matrix = done.out.split("LEAK")[0]
    assert "public.notes" not in matrix
    assert dbops("policy", "attack", "--table", "public.notes").code == 0


def test_the_matrix_is_for_those_who_ask_or_have_something_to_look_at(shop: Path, dbops: Command, server: Any) -> None:
    short, whole = dbops("policy", "attack"), dbops("policy", "attack", "-v")
    assert (short.code, whole.code) == (0, 0)
    assert "public.notes" not in short.out
    assert "another user" in short.out
    assert len(short.out.splitlines()) < 6
    assert re.search(r"^public\.notes +\w", whole.out, re.MULTILINE)


def test_the_examples_of_a_new_project_stand(folder: Path, empty_url: str, dbops: Command, server: Any) -> None:
    """Without their comment signs, with a table for each."""
    assert dbops("init", "--no-memory").code == 0
    example = folder / "policies" / "app.toml"
    example.write_text(re.sub(r"^# (\[|[a-z_]+ = )", r"\1", example.read_text(), flags=re.MULTILINE))
    up = COMPATIBLE.read_text(encoding="utf-8").split("-- migrate:up\n")[1].split("-- migrate:down")[0]
    write(folder, "20250101_000000_auth", up)
    write(
        folder,
        "20250101_000001_tables",
        """create table notes (user_id uuid, id int generated always as identity, primary key (user_id, id));
        create table articles (author_id uuid, id int, published boolean not null, primary key (author_id, id));
        create table members (user_id uuid, team_id int, role text not null, primary key (user_id, team_id));
        create table documents (team_id int, id int, body text, primary key (team_id, id));
        create table audit (id int primary key);""",
    )
    for arguments in (("migrate", "up"), ("policy", "apply", "--yes"), ("policy", "check")):
        assert dbops(*arguments, "--url", empty_url).code == 0
    found = dbops("policy", "attack", "--url", empty_url, "--json")
    assert (found.code, found.json["verdict"], found.json["not_proven"]) == (0, "isolated", [])
    assert len(found.json["tables"]) == 5


@pytest.mark.parametrize("how", ["no file", "no table", "no folder"])
def test_nothing_defined(shop: Path, dbops: Command, how: str) -> None:
    file = shop / "policies" / "notes.toml"
    file.write_text("version = 1\n")
    if how != "no table":
        file.unlink()
    if how == "no folder":
        file.parent.rmdir()
    error = dbops("policy", "attack", "--json").error
    assert error["code"] == ("definition" if how == "no folder" else "usage")
    assert ("there is no such folder" if how == "no folder" else "there are no definitions") in error["message"]
    planned = dbops("policy", "plan")
    assert planned.code == (2 if how == "no folder" else 0)
    assert "no table is defined in policies" in planned.err or how == "no folder"


def test_an_unknown_table(shop: Path, dbops: Command, server: Any) -> None:
    error = dbops("policy", "attack", "--table", "public.note", "--json").error
    assert (error["code"], "public.note" in error["message"]) == ("usage", True)


# --- the scratch server --------------------------------------------------------------------------


def databases(url: str) -> list[Any]:
    with connect(url, "test") as conn:
        return conn.execute("select datname from pg_database where datname like 'dbops_scratch%'").fetchall()


def test_another_scratch_server(
    shop: Path, dbops: Command, server: Any, scratch_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DBOPS_SCRATCH_URL")
    before = databases(scratch_url)
    found = dbops("policy", "attack", "--scratch-url", scratch_url, "--json").json
    assert (found["verdict"], found["server"]) == ("isolated", "scratch-url")
    assert databases(scratch_url) == before
    away = dbops("policy", "attack", "--scratch-url", "postgresql://app@127.0.0.1:1/app", "--json").error
    assert away["code"] == "cannot_connect"


def process(arguments: str, folder: Path, temp: Path, limit: str = "unlimited") -> subprocess.Popen[str]:
    """`dbops policy attack` with the embedded scratch server in `temp`, where no file is larger than `limit` kB."""
    temp.mkdir()
    command = f'ulimit -f {limit}; exec "{sys.executable}" -m dbops policy attack --json {arguments}'
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("DBOPS_", "DATABASE_URL"))}
    return subprocess.Popen(
        ["bash", "-c", command], cwd=folder, env=environ | {"TMPDIR": str(temp)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for_the_end_of(pid: int) -> None:
    end = time.monotonic() + 60
    with suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.kill(pid, 0)
            time.sleep(0.05)
        pytest.fail(f"process {pid} goes on")


@pytest.mark.fault
@pytest.mark.parametrize("moment", ["attacking", "weakening"])
def test_ctrl_c_leaves_no_server(folder: Path, tmp_path: Path, dbops: Command, moment: str) -> None:
    assert dbops("init", "--memory").code == 0
    temp = tmp_path / "temp"
    with process("--mutate", folder, temp) as attack:
        assert attack.stderr is not None
        assert any(line.startswith(moment) for line in attack.stderr)
        [data] = temp.glob("dbops-scratch-*/data")
        postmaster = int((data / "postmaster.pid").read_text().split()[0])
        attack.send_signal(signal.SIGINT)
        out, _ = attack.communicate()
    assert (attack.returncode, json.loads(out)["error"]["code"]) == (130, "interrupted")
    assert list(temp.glob("dbops-scratch-*")) == []
    wait_for_the_end_of(postmaster)
    assert not (folder / ".dbops").exists()


@pytest.mark.fault
def test_a_full_disk_leaves_no_server(shop: Path, tmp_path: Path) -> None:
    temp = tmp_path / "temp"
    with process("", shop, temp, limit="4096") as attack:  # initdb needs a segment of WAL
        out, _ = attack.communicate()
    error = json.loads(out)["error"]
    assert (attack.returncode, error["code"], "full disk" in error["hint"]) == (1, "embedded_server", True)
    assert list(temp.glob("dbops-scratch-*")) == []


# --- live ----------------------------------------------------------------------------------------

# a sequence outlives a rollback: whoever tries to write, and be it in vain, leaves a trace
TRACE = """
insert into public.notes (user_id, note) select gen_random_uuid(), 'n' || n from generate_series(1, 3) as n;
create sequence public.writes;
create function public.trace() returns trigger language plpgsql security definer set search_path = ''
  as $$ begin perform nextval('public.writes'); return null; end $$;
revoke execute on function public.trace() from public;
create trigger trace before insert or update or delete or truncate on public.notes execute function public.trace();
"""


def traces(url: str) -> list[Any]:
    with connect(url, "test") as conn:
        return [
            conn.execute("select is_called, last_value from public.writes").fetchall(),
            conn.execute("select ctid::text, xmin::text, n::text from public.notes as n order by 1").fetchall(),
            conn.execute("select oid, relname from pg_class where oid >= 16384 order by 1").fetchall(),
            conn.execute("select oid, polname from pg_policy order by 1").fetchall(),
        ]


def test_live_reads_the_target_and_writes_nothing(shop: Path, shop_url: str, dbops: Command, server: Any) -> None:
    assert dbops("policy", "apply", "--yes").code == 0
    sql(shop_url, TRACE)
    before = traces(shop_url)
    clean = dbops("policy", "attack", "--live", "--json")
    assert (clean.code, clean.json["verdict"], clean.json["leaks"]) == (0, "isolated", [])
    assert traces(shop_url) == before
    sql(shop_url, "insert into public.notes (user_id, note) values (gen_random_uuid(), 'more')")
    assert traces(shop_url)[0] != before[0], "a write leaves its trace"


def test_live_finds_what_the_target_has(shop: Path, shop_url: str, dbops: Command, server: Any) -> None:
    """The definitions are as good as ever: the database is not."""
    assert dbops("policy", "apply", "--yes").code == 0
    sql(shop_url, TRACE + "alter policy dbops_owner_select on public.notes using (true)")
    before = traces(shop_url)
    assert dbops("policy", "attack").code == 0
    found = dbops("policy", "attack", "--live", "--json")
    assert (found.code, found.json["verdict"]) == (4, "leaks")
    vias = {leak["via"] for leak in found.json["leaks"] if (leak["actor"], leak["verb"]) == ("another user", "select")}
    assert vias == {"table", "table, on the target"}
    assert traces(shop_url) == before
    target = next(leak for leak in found.json["leaks"] if leak["via"] == "table, on the target")
    with connect(shop_url, "test") as conn:
        results = [conn.execute(line.encode()) for line in target["sql"].splitlines()]
        assert [result.fetchone() for result in results if result.description][-1] == (True,), "its SQL shows it"


def test_live_elsewhere(
    shop: Path, shop_url: str, dbops: Command, server: Any, standby_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dbops("policy", "attack", "--live", "--url", "postgresql://app@127.0.0.1:1/app", "--json").code == 10
    for verb in (["plan"], ["apply", "--yes"]):
        error = dbops("policy", *verb, "--url", standby_url, "--json").error
        assert error["exit"] == 10, error
    monkeypatch.chdir("/")
    (shop / "dbops.toml").write_text("")
    assert dbops("policy", "plan", "--config", str(shop / "dbops.toml"), "--json").json["statements"]
