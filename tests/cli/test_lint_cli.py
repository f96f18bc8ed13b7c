"""`dbops migrate lint` as it is typed: what it prints, and its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from dbops.cli.lint import lint
from dbops.cli.main import run
from dbops.cli.migrate import command
from dbops.migrate.lint import squawk

Lint = Callable[..., tuple[int, str, str]]

SQL = "migrations/sql"
FILES = {
    "20250101_000001_clean.sql": "-- migrate:up\ncreate table k (id bigint);\n-- migrate:down\ndrop table k;\n",
    "20250101_000002_warns.sql": "-- migrate:up\n\nupdate t set c = 1;\n-- migrate:down\nselect 1;\n",
    "20250101_000003_fails.sql": "-- migrate:up\nalter table t disable row level security;\n-- migrate:down\n"
    "alter table t enable row level security;\n",
    "20250101_000004_tells.sql": "create table l (id bigint primary key);\n",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "migrations" / "sql").mkdir(parents=True)
    for name, text in FILES.items():
        (tmp_path / "migrations" / "sql" / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(project: Path, capsys: pytest.CaptureFixture[str]) -> Lint:
    assert isinstance(command, click.Group)
    command.add_command(lint)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(["migrate", "lint", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_text(cli: Lint) -> None:
    code, out, _ = cli("--no-squawk")
    assert code == 3
    assert out.splitlines() == [
        f"{SQL}/20250101_000002_warns.sql:3: warning write-without-where: UPDATE without WHERE: every row of public.t",
        "  say which rows: WHERE …; a large table in batches",
        f"{SQL}/20250101_000003_fails.sql:2: error rls-disabled: row level security of public.t is disabled",
        "  write a policy that allows what is needed; where it is meant, say why with -- dbops:ignore",
        f"{SQL}/20250101_000004_tells.sql:1: info down-missing: no down part, although one follows from the up part",
        "  `dbops migrate reverse VERSION --write` writes it; then `dbops migrate prove VERSION`",
        "1 error, 1 warning, 1 info",
    ]


@pytest.mark.parametrize(
    ("version", "fail_on", "code"),
    [
        ("20250101_000001", "info", 0),
        ("20250101_000002", "error", 0),
        ("20250101_000002", "warning", 3),
        ("20250101_000003", "error", 3),
        ("20250101_000003", "never", 0),
        ("20250101_000004", "warning", 0),
        ("20250101_000004", "info", 3),
    ],
)
def test_exit_codes(cli: Lint, version: str, fail_on: str, code: int) -> None:
    assert cli(version, "--fail-on", fail_on, "--no-squawk")[0] == code


def test_clean(cli: Lint) -> None:
    assert cli("20250101_000001", "--no-squawk") == (0, "nothing found\n", "")


@pytest.mark.parametrize("flag", [["--json"], ["--format", "json"], ["--json", "--format", "sarif"]])
def test_json_is_one_document(cli: Lint, flag: list[str]) -> None:
    code, out, err = cli("20250101_000003", "20250101_000002", "--no-squawk", *flag)
    findings = json.loads(out)["findings"]
    assert (code, err) == (3, "")
    assert findings[0] == {
        "rule": "write-without-where",
        "severity": "warning",
        "path": "migrations/sql/20250101_000002_warns.sql",
        "line": 3,
        "message": "UPDATE without WHERE: every row of public.t",
        "hint": "say which rows: WHERE …; a large table in batches",
    }
    assert [each["rule"] for each in findings] == ["write-without-where", "rls-disabled"]


def test_sarif(cli: Lint) -> None:
    code, out, _ = cli("--format", "sarif", "--no-squawk", "--fail-on", "never")
    document = json.loads(out)
    assert (code, document["version"]) == (0, "2.1.0")
    places = [r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in document["runs"][0]["results"]]
    assert places[0] == "migrations/sql/20250101_000002_warns.sql"


def test_an_unknown_version(cli: Lint) -> None:
    code, out, _ = cli("2", "--json")
    assert code == 2
    assert json.loads(out)["error"]["message"] == "there is no migration 2"


def test_a_syntax_error(cli: Lint, project: Path) -> None:
    (project / "migrations" / "sql" / "20250101_000005_x.sql").write_text("create tabel x ();\n", encoding="utf-8")
    code, _, err = cli()
    assert code == 2
    assert "20250101_000005_x.sql:1:8: syntax error" in err


def test_without_squawk_it_says_so_once(cli: Lint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squawk, "binary", lambda: None)
    code, out, _ = cli("20250101_000001")
    assert code == 0
    assert out.splitlines()[0] == "info squawk-missing: squawk is not installed: pip install 'pg-dbops[lint]'"


def test_an_empty_folder(cli: Lint, project: Path) -> None:
    for path in (project / "migrations" / "sql").iterdir():
        path.unlink()
    assert cli() == (0, "nothing found\n", "")


def test_pg_version(cli: Lint, project: Path) -> None:
    text = "alter table t enable row level security;\ncreate view v as select * from t;\n"
    (project / "migrations" / "sql" / "20250101_000005_x.sql").write_text(text, encoding="utf-8")
    arguments = ("20250101_000005", "--no-squawk", "--pg-version")
    assert "view-bypasses-rls" in cli(*arguments, "15")[1]
    assert "view-bypasses-rls" not in cli(*arguments, "14")[1]


def test_pending_asks_the_database(cli: Lint, monkeypatch: pytest.MonkeyPatch) -> None:
    from dbops.migrate import MigrationManager

    class Applied:
        version = "20250101_000002"

    class Status:
        applied = (Applied,)

    monkeypatch.setattr(MigrationManager, "get_migration_status", lambda _: Status)
    findings = json.loads(cli("--pending", "--json", "--no-squawk")[1])["findings"]
    assert [each["rule"] for each in findings] == ["rls-disabled", "down-missing"]
