"""The SARIF document against the parts of the 2.1.0 schema that code hosts read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dbops.cli.sarif import to_sarif
from dbops.migrate.lint import RULES, Finding

pytestmark = pytest.mark.quick

_MESSAGE = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}}
_RULE = {
    "type": "object",
    "required": ["id"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "string"},
        "shortDescription": _MESSAGE,
        "help": _MESSAGE,
        "defaultConfiguration": {
            "type": "object",
            "properties": {"level": {"enum": ["none", "note", "warning", "error"]}},
            "additionalProperties": False,
        },
    },
}
_LOCATION = {
    "type": "object",
    "required": ["physicalLocation"],
    "properties": {
        "physicalLocation": {
            "type": "object",
            "required": ["artifactLocation"],
            "properties": {
                "artifactLocation": {
                    "type": "object",
                    "required": ["uri"],
                    "properties": {
                        "uri": {"type": "string", "format": "uri-reference"},
                        "uriBaseId": {"type": "string"},
                    },
                },
                "region": {"type": "object", "properties": {"startLine": {"type": "integer", "minimum": 1}}},
            },
        }
    },
}
_RESULT = {
    "type": "object",
    "required": ["message"],
    "additionalProperties": False,
    "properties": {
        "ruleId": {"type": "string"},
        "ruleIndex": {"type": "integer", "minimum": 0},
        "level": {"enum": ["none", "note", "warning", "error"]},
        "message": _MESSAGE,
        "locations": {"type": "array", "items": _LOCATION, "minItems": 1},
        "partialFingerprints": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
_DRIVER = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "semanticVersion": {"type": "string"},
        "rules": {"type": "array", "uniqueItems": True, "items": _RULE},
    },
}
_RUN = {
    "type": "object",
    "required": ["tool"],
    "additionalProperties": False,
    "properties": {
        "tool": {"type": "object", "required": ["driver"], "properties": {"driver": _DRIVER}},
        "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
        "results": {"type": "array", "items": _RESULT},
    },
}
SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "required": ["version", "runs"],
    "additionalProperties": False,
    "properties": {
        "$schema": {"type": "string", "format": "uri"},
        "version": {"const": "2.1.0"},
        "runs": {"type": "array", "items": _RUN},
    },
}


def one(rule: str = "data-lost", line: int = 3, path: Path = Path("sql/a b.sql"), message: str = "gone") -> Finding:
    return Finding(rule, "warning", path, line, message, "say so")


def document(*findings: Finding, root: Path | None = None) -> dict[str, Any]:
    made = json.loads(json.dumps(to_sarif(findings, RULES, root)))
    jsonschema.validate(made, SCHEMA, cls=jsonschema.Draft7Validator)
    return made["runs"][0]  # type: ignore[no-any-return]


def test_the_schema_refuses_a_wrong_document() -> None:
    wrong = to_sarif([one()], RULES)
    wrong["runs"][0]["results"][0]["level"] = "info"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMA)


def test_no_findings() -> None:
    run = document()
    assert run["results"] == []
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == sorted(RULES)


def test_a_result() -> None:
    run = document(one())
    [result] = run["results"]
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == "data-lost"
    assert result["level"] == "warning"
    assert result["message"]["text"] == "gone\nsay so"
    place = result["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "sql/a%20b.sql", "uriBaseId": "%SRCROOT%"}, "region": {"startLine": 3}}


def test_info_is_a_note_and_squawks_rules_are_listed() -> None:
    run = document(Finding("squawk/ban-drop-table", "info", Path("a.sql"), 1, "m", "h"))
    [result] = run["results"]
    assert result["level"] == "note"
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]] == {
        "id": "squawk/ban-drop-table",
        "shortDescription": {"text": "squawk's rule ban-drop-table"},
        "help": {"text": "h"},
        "defaultConfiguration": {"level": "warning"},
    }


def test_a_finding_of_no_line_has_no_place() -> None:
    [result] = document(Finding("squawk-missing", "info", Path("sql"), 0, "m", ""))["results"]
    assert "locations" not in result


def test_paths_are_relative_to_the_root(tmp_path: Path) -> None:
    inside, outside = one(path=tmp_path / "project" / "sql" / "a.sql"), one(path=tmp_path / "b.sql")
    results = document(inside, outside, root=tmp_path / "project")["results"]
    artifacts = [result["locations"][0]["physicalLocation"]["artifactLocation"] for result in results]
    assert artifacts == [{"uri": "sql/a.sql", "uriBaseId": "%SRCROOT%"}, {"uri": (tmp_path / "b.sql").as_uri()}]


def test_fingerprints_outlive_moved_lines_and_tell_repeats_apart() -> None:
    def prints(*findings: Finding) -> list[str]:
        return [result["partialFingerprints"]["dbops/v1"] for result in document(*findings)["results"]]

    assert prints(one(line=3)) == prints(one(line=9))
    assert (
        len(set(prints(one(), one(line=4), one(message="other"), one(rule="no-way-back"), one(path=Path("b.sql")))))
        == 5
    )
