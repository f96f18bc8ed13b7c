"""`dbops doctor` as it is typed: what it prints, its exit code, what it asks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from dbops.hygiene.doctor import checks
from tests.cli.conftest import Command

DOCS = Path(__file__).parents[2] / "docs" / "doctor.md"
QUIET = ("--skip", "unsafe-settings")  # true of a scratch server, which needs no safety


@pytest.fixture
def sick(folder: Path, empty_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with one error, two warnings, one info, in a project without a backup store."""
    monkeypatch.setenv("DATABASE_URL", empty_url)
    run(
        empty_url,
        "create table keyless (a int)",
        "create table t (a int primary key, b int references t, c int check (c > 0))",
        "create policy p on t using (true)",
        "alter table t add constraint short check (b < 9) not valid",
    )
    return empty_url


def run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement.encode())


def test_text(dbops: Command, sick: str) -> None:
    done = dbops("doctor", *QUIET)
    assert done.code == 3
    assert done.out.splitlines() == [
        "public.t: error rls-disabled: row level security is off: its policy does nothing",
        "  ALTER TABLE public.t ENABLE ROW LEVEL SECURITY;",
        "public.t.short: warning not-valid-constraint: not validated: rows from before it may break it",
        "  ALTER TABLE public.t VALIDATE CONSTRAINT short;",
        "public.keyless: warning primary-key: no primary key",
        "  ALTER TABLE public.keyless ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY; -- rewrites the table",
        "public.t.t_b_fkey: info foreign-key-index: no index begins with b: a DELETE in public.t reads all of public.t (about 0 rows)",
        "  CREATE INDEX CONCURRENTLY ON public.t (b);",
        "1 error, 2 warnings, 1 info",
        "not checked: backup-age: no backup store is named (--store, setting store), and there is no folder backups/",
        "30 checks made, 1 not or not wholly, 11 do not apply",
    ]


def test_json(dbops: Command, sick: str) -> None:
    done = dbops("doctor", *QUIET, "--json")
    assert done.code == 3
    assert set(done.json) == {
        "findings", "checked", "not_checked", "not_applicable", "mended", "database", "server_version", "duration_ms",
    }  # fmt: skip
    assert {tuple(each) for each in done.json["findings"]} == {("check", "severity", "object", "message", "fix")}
    names = {each["check"] for each in (*done.json["not_checked"], *done.json["not_applicable"])} | {
        *done.json["checked"]
    }
    assert names | {"unsafe-settings"} == set(checks())


def test_sarif(dbops: Command, sick: str) -> None:
    done = dbops("doctor", *QUIET, "--sarif")
    assert done.code == 3
    results = json.loads(done.out)["runs"][0]["results"]
    assert [(each["ruleId"], each["level"]) for each in results] == [
        ("rls-disabled", "error"), ("not-valid-constraint", "warning"), ("primary-key", "warning"), ("foreign-key-index", "note"),
    ]  # fmt: skip
    assert results[2]["message"]["text"].startswith("public.keyless: no primary key\nALTER TABLE")
    assert "not checked: backup-age" in done.err


def test_a_finding_of_sarif_is_the_same_tomorrow(dbops: Command, sick: str) -> None:
    def prints() -> list[str]:
        results = json.loads(dbops("doctor", "--check", "foreign-key-index", "--sarif").out)["runs"][0]["results"]
        assert results
        return [each["partialFingerprints"]["dbops/v1"] for each in results]

    before = prints()
    run(sick, "insert into t values (1, 1, 1)", "analyze t")  # its message says how many rows there are
    assert prints() == before


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), 3),
        (("--fail-on", "error"), 3),
        (("--fail-on", "never"), 0),
        (("--check", "primary-key", "--fail-on", "error"), 0),
        (("--check", "foreign-key-index"), 0),
        (("--check", "foreign-key-index", "--fail-on", "info"), 3),
        (("--skip", "rls-disabled", "--fail-on", "error"), 0),
        (("--check", "nonsense"), 2),
        (("--skip", "nonsense"), 2),
        (("--limit", "unused-index.days"), 2),
        (("--limit", "unused-index.weeks=3"), 2),
        (("--limit", "unused-index.days=soon"), 2),
        (("--limit", "unused-index.days=30"), 3),
    ],
)
def test_exit_codes(arguments: tuple[str, ...], code: int, dbops: Command, sick: str) -> None:
    assert dbops("doctor", *QUIET, *arguments).code == code


def test_a_limit_counts(dbops: Command, sick: str) -> None:
    run(
        sick,
        "create role visitor nologin",
        "grant usage on schema public to visitor",
        "grant select on keyless to visitor",
    )
    try:
        command = ("doctor", "--check", "rls-disabled", "--json")
        assert len(dbops(*command).json["findings"]) == 1
        assert len(dbops(*command, "--limit", "rls-disabled.roles=visitor,nobody").json["findings"]) == 2
    finally:
        run(sick, "drop owned by visitor", "drop role visitor")


class TestFix:
    def test_dry_run_changes_nothing(self, dbops: Command, sick: str) -> None:
        done = dbops("doctor", *QUIET, "--fix", "--dry-run")
        assert done.code == 3
        assert done.out.splitlines()[0] == "would apply: ALTER TABLE public.t VALIDATE CONSTRAINT short;"
        assert "not-valid-constraint" in dbops("doctor").out

    def test_nobody_to_ask(self, dbops: Command, sick: str) -> None:
        done = dbops("doctor", *QUIET, "--fix", "--json")
        assert done.error["code"] == "confirmation_required"
        assert done.code == 2
        assert "not-valid-constraint" in dbops("doctor").out

    def test_yes(self, dbops: Command, sick: str) -> None:
        done = dbops("doctor", *QUIET, "--fix", "--yes", "--json")
        assert [(each["check"], each["done"], each["problem"]) for each in done.json["mended"]] == [
            ("not-valid-constraint", True, "")
        ]
        assert "not-valid-constraint" not in {each["check"] for each in done.json["findings"]}
        assert done.code == 3  # the others are still there

    @pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 2)])
    def test_somebody_is_asked(
        self, answer: str, code: int, dbops: Command, sick: str, types: Callable[[str], None]
    ) -> None:
        types(answer)
        done = dbops("doctor", "--check", "not-valid-constraint", "--fix")
        assert done.code == code
        assert "apply 1 fix on " in done.err

    def test_what_fails_is_said(self, dbops: Command, sick: str) -> None:
        run(sick, "insert into t values (1, null, 1)", "alter table t add constraint large check (a > 5) not valid")
        done = dbops("doctor", "--check", "not-valid-constraint", "--fix", "--yes")
        assert done.code == 3
        assert "failed: ALTER TABLE public.t VALIDATE CONSTRAINT large; check constraint" in done.out
        assert "done: ALTER TABLE public.t VALIDATE CONSTRAINT short;" in done.out

    def test_nothing_to_apply(self, dbops: Command, sick: str) -> None:
        done = dbops("doctor", "--check", "primary-key", "--fix")
        assert done.code == 3
        assert "no finding has a fix that --fix applies" in done.err


class TestBackups:
    def test_none_then_young_then_old(self, dbops: Command, sick: str) -> None:
        command = ("doctor", "--check", "backup-age", "--json")
        assert dbops(*command).json["not_checked"]
        Path("backups").mkdir()
        [found] = dbops(*command).json["findings"]
        assert (found["severity"], found["message"]) == ("error", "there is no good backup of this database")
        assert dbops("backup", "create", "-q").code == 0
        assert dbops(*command).json["checked"] == ["backup-age"]
        old = dbops(*command, "--backup-age", "0s")
        assert old.code == 3
        assert "the newest good backup is" in old.json["findings"][0]["message"]

    def test_a_store_that_is_away(self, dbops: Command, sick: str) -> None:
        Path("file").write_text("")
        [barred] = dbops("doctor", "--check", "backup-age", "--store", "file/below", "--json").json["not_checked"]
        assert barred["check"] == "backup-age"
        assert barred["reason"]


def test_the_list(dbops: Command, folder: Path) -> None:
    done = dbops("doctor", "--list", "--json")
    assert [each["check"] for each in done.json["checks"]] == list(checks())


def test_every_check_is_described() -> None:
    text = DOCS.read_text(encoding="utf-8")
    parts = re.split(r"^### (.*)$", text, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert set(sections) == set(checks())
    for name, check in checks().items():
        section = " ".join(sections[name].split())
        assert check.summary in section, name
        assert check.why in section, name
        assert check.severity in section.lower(), name
        for limit, value in check.limits.items():
            shown = f"{value:.10g}" if isinstance(value, float) else value
            assert f"`{limit}` {shown}" in section, f"{name}.{limit}"


def test_every_option_is_described(dbops: Command) -> None:
    from dbops.cli.doctor import command

    text = DOCS.read_text(encoding="utf-8")
    own = {option for each in command.params for option in each.opts if option.startswith("--")}
    common = {"--url", "--env", "--config", "--no-embedded", "--json", "--verbose", "--quiet"}
    assert {option for option in own - common if f"`{option}" not in text} == set()
