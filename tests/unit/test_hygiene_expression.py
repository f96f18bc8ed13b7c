"""What may be typed into --table, --text, --scope, --keep and --action, and what may not."""

from __future__ import annotations

import pytest

from dbops.errors import UsageError
from dbops.hygiene.table.expression import check_expression, check_order, is_literal
from dbops.hygiene.table.model import Target

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("body", {"body"}),
        ("Body", {"body"}),
        ('"Body"', {"Body"}),
        ("lower(title) || ' ' || body", {"title", "body"}),
        ("coalesce(body, '')", {"body"}),
        ("payload ->> 'text'", {"payload"}),
        ("(body)", {"body"}),
        ("1 % 2", set()),
        ("true", set()),
    ],
)
def test_an_expression_over_columns(text: str, columns: set[str]) -> None:
    assert check_expression(text, "--text") == columns


@pytest.mark.parametrize(
    "text",
    [
        "", "  ", "body, title", "body; drop table x", "body) from documents --", "body /* */", "(select body from x)", "count(*)",
        "other.body", "body as b", "row_number() over ()", "$1", "body) union select (1", "%(a)s", "a\0b", "*", "body from documents", "E'\\''",
        "1) order by (1",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--text"):
        check_expression(text, "--text")


@pytest.mark.parametrize(
    ("text", "columns"),
    [("score desc", {"score"}), ("score desc nulls last, id", {"score", "id"}), ("length(body)", {"body"})],
)
def test_an_order(text: str, columns: set[str]) -> None:
    assert check_order(text, "--keep") == columns


@pytest.mark.parametrize(
    "text", ["score desc limit 1", "score; select 1", "", "(select 1)", "score desc for update", "a union select 1"]
)
def test_no_order(text: str) -> None:
    with pytest.raises(UsageError, match="--keep"):
        check_order(text, "--keep")


@pytest.mark.parametrize(
    ("text", "constant"), [("true", True), ("-1", True), ("'x'", True), ("now()", False), ("score", False)]
)
def test_what_a_constant_is(text: str, constant: bool) -> None:
    assert is_literal(text) is constant


@pytest.mark.parametrize(
    "action", ["", "drop", "mark:", "mark:a", "mark:a=", "mark:a b=1", "mark:a=1; select 1", "deleted"]
)
def test_an_action_is_delete_or_a_mark(action: str) -> None:
    with pytest.raises(UsageError, match="--action"):
        Target("documents", "body", action)


@pytest.mark.parametrize("value", ["null", "NULL", "(null)", "null::text", "cast(null as boolean)"])
def test_a_mark_is_not_null(value: str) -> None:
    with pytest.raises(UsageError, match="is no mark") as caught:
        Target("documents", "body", f"mark:copy={value}")
    assert "nothing was done" in caught.value.hint


@pytest.mark.parametrize("table", ["", "a.b.c", "a b", "a;b", "a\0b"])
def test_a_table_has_a_name(table: str) -> None:
    with pytest.raises(UsageError, match="is no table's name"):
        Target(table, "body", "delete")


def test_names_as_postgresql_takes_them() -> None:
    assert Target('App."My Docs"', "body", "delete").place == ("app", "My Docs")
    assert Target("Docs", "body", 'mark:"Is Copy"=true').assignment == ("Is Copy", "true")
