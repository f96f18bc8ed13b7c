"""squawk's part of lint: what it is given, how its report is read, and what happens without it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dbops.migrate.files import parse_sql, read_folder
from dbops.migrate.lint import Finding, lint, squawk
from dbops.migrate.lint.squawk import DROPPED

pytestmark = pytest.mark.quick

needs_squawk = pytest.mark.skipif(
    squawk.binary() is None, reason="squawk is not installed: pip install 'pg-dbops[lint]'"
)


def found(sql: str, **options: str) -> list[Finding]:
    every = lint([parse_sql(sql, Path("m/1_x.sql"), "1", "x")], **options)
    return [each for each in every if "squawk" in each.rule]


def places(sql: str) -> list[tuple[str, int]]:
    return [(each.rule, each.line) for each in found(sql)]


def test_the_binary_beside_python_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("venv", "path"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "squawk").write_text("#!/bin/sh\n", encoding="utf-8")
        (tmp_path / folder / "squawk").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert squawk.binary() == str(tmp_path / "venv" / "squawk")
    (tmp_path / "venv" / "squawk").unlink()
    assert squawk.binary() == str(tmp_path / "path" / "squawk")


def test_without_squawk_there_is_a_word_and_our_own_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squawk, "binary", lambda: None)
    every = lint(
        [parse_sql("-- dbops:ignore squawk/ban-drop-table why\nupdate t set c = 1;", Path("m/1_x.sql"), "1", "x")]
    )
    [missing] = [each for each in every if each.rule == "squawk-missing"]
    assert (missing.severity, missing.path, missing.line) == ("info", Path("m"), 0)
    assert missing.message == "squawk is not installed: pip install 'pg-dbops[lint]'"
    assert "write-without-where" in {each.rule for each in every}
    # what squawk would have found is not known
    assert "suppression-unused" not in {each.rule for each in every}


def test_no_migrations_need_no_squawk() -> None:
    assert lint([]) == ()


@needs_squawk
def test_lines_are_those_of_the_file() -> None:
    sql = "-- migrate:up\n\ncreate table k (a text);\nalter table t\n  drop column b;\n-- migrate:down\ndrop table k;\n"
    assert places(sql) == [("squawk/ban-drop-column", 5)]


@needs_squawk
def test_severity_message_and_hint() -> None:
    [each] = found("alter table t add constraint c check (a > 0);")
    assert (each.rule, each.severity, each.path) == (
        "squawk/constraint-missing-not-valid",
        "warning",
        Path("m/1_x.sql"),
    )
    assert "table scan" in each.message
    assert "NOT VALID" in each.hint


@needs_squawk
@pytest.mark.parametrize(
    "sql",
    [
        "create index i on t (a);",
        "create index concurrently i on t (a);",
        "create index concurrently if not exists i on t (a);\ncreate index concurrently j on t (a);",
        "begin;\nalter table t add column b text;\ncommit;",
        "create table k (a text);\ncreate index i on k (a);\ncreate index concurrently j on t (a);",
    ],
)
def test_what_dbops_makes_moot_is_not_shown(sql: str) -> None:
    assert places(sql) == []


@needs_squawk
def test_squawk_knows_the_dropped_rules() -> None:
    """A name that squawk gave up would hide nothing: the table would be wrong."""
    listed = subprocess.run(
        [squawk.binary() or "", "--exclude", ",".join(DROPPED), __file__], capture_output=True, text=True, check=False
    )
    assert "invalid value" not in listed.stderr


@needs_squawk
def test_its_own_comments_are_honoured() -> None:
    ban = "alter table t drop column b;"
    assert places(f"-- squawk-ignore ban-drop-column\n{ban}") == []
    assert places(f"{ban}\n-- squawk-ignore-file ban-drop-column") == []
    assert places(f"-- dbops:ignore squawk/ban-drop-column,data-lost unused since May\n{ban}") == []


def test_a_comment_for_squawk_counts_for_our_rule_in_its_place() -> None:
    def rules(sql: str) -> set[str]:
        return {each.rule for each in lint([parse_sql(sql, Path("m/1_x.sql"), "1", "x")], squawk=False)}

    index = "create index i on t (a);"
    assert "index-blocks-writes" in rules(index)
    assert "index-blocks-writes" in rules(f"-- squawk-ignore ban-drop-column\n{index}")
    assert not {"index-blocks-writes", "suppression-unused"} & rules(
        f"-- squawk-ignore require-concurrent-index-creation\n{index}"
    )
    assert "index-blocks-writes" not in rules(
        f"-- squawk-ignore-file ban-drop-table, require-concurrent-index-creation\n{index}"
    )


@needs_squawk
def test_a_comment_for_squawk_above_the_marker(tmp_path: Path) -> None:
    path = tmp_path / "1_x.sql"
    path.write_text(
        "-- squawk-ignore-file ban-drop-column\n-- migrate:up\nalter table t drop column b;\n", encoding="utf-8"
    )
    assert not [each for each in lint(read_folder(tmp_path)) if each.rule.startswith("squawk")]


@needs_squawk
def test_many_files_keep_their_findings(tmp_path: Path) -> None:
    for number in range(1, 300):
        bad = "alter table t drop column b;" if number % 100 == 7 else "select 1;"
        (tmp_path / f"{number}_x.sql").write_text("\n" * (number % 5) + bad, encoding="utf-8")
    every = [each for each in lint(read_folder(tmp_path)) if each.rule.startswith("squawk")]
    assert [(each.path.name, each.line) for each in every] == [("107_x.sql", 3), ("207_x.sql", 3), ("7_x.sql", 3)]


@needs_squawk
def test_a_file_that_squawk_cannot_parse_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {
        "file": "/x/0.sql",
        "line": 4,
        "level": "Error",
        "message": "expected command",
        "rule_name": "syntax-error",
    }
    monkeypatch.setattr(squawk, "_entries", lambda _: [entry, entry])
    [each] = found("select 1;")
    assert (each.rule, each.severity, each.line, each.message) == (
        "squawk-unreadable",
        "info",
        5,
        "squawk's parser: expected command",
    )


@pytest.mark.parametrize(
    "output",
    [
        "",
        "no json",
        '{"new": "form"}',
        "[1]",
        '[{"file": "0.sql"}]',
        '[{"file": "a.sql", "line": 1, "message": "", "rule_name": ""}]',
    ],
)
def test_another_output_is_a_word_and_no_crash(output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "squawk"
    fake.write_text(f"#!/bin/sh\ncat <<'E'\n{output}\nE\necho 'of no use' >&2\nexit 2\n", encoding="utf-8")
    fake.chmod(0o755)
    monkeypatch.setattr(squawk, "binary", lambda: str(fake))
    [each] = found("select 1;")
    assert (each.rule, each.severity) == ("squawk-failed", "info")
    assert "of no use" in each.message or "another form" in each.message or "no json" in each.message


def test_a_program_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squawk, "binary", lambda: str(tmp_path / "gone"))
    assert [each.rule for each in found("select 1;")] == ["squawk-failed"]


@pytest.mark.skipif(not shutil.which("sh"), reason="needs a shell")
def test_what_squawk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, log = tmp_path / "squawk", tmp_path / "log"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {log}\necho "[]"\n', encoding="utf-8")
    fake.chmod(0o755)
    monkeypatch.setattr(squawk, "binary", lambda: str(fake))
    one = parse_sql("select 1;", Path("1_x.sql"), "1", "x")
    two = parse_sql("create index concurrently i on t (c);", Path("2_x.sql"), "2", "x")
    lint([one, two], pg_version="16")
    told = [line.rsplit(os.sep, 1)[0].rsplit(" ", 1)[0] for line in log.read_text(encoding="utf-8").splitlines()]
    assert told == [
        "--reporter json --pg-version 16 --assume-in-transaction",
        "--reporter json --pg-version 16 --no-assume-in-transaction",
    ]


@needs_squawk
def test_the_report_has_the_form_that_is_read(tmp_path: Path) -> None:
    """Pins what is read of squawk's JSON: lines from 0, levels in words."""
    path = tmp_path / "0.sql"
    path.write_text("\nalter table t drop column b;\n", encoding="utf-8")
    done = subprocess.run(
        [squawk.binary() or "", "--reporter", "json", str(path)], capture_output=True, text=True, check=False
    )
    entry = next(each for each in json.loads(done.stdout) if each["rule_name"] == "ban-drop-column")
    assert (entry["line"], entry["level"], entry["file"]) == (1, "Warning", str(path))
