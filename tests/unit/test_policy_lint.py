"""What lint reads in a predicate, and how its verdicts stand beside an attack's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dbops.policy.attack.result import Cell, Leak, Report, Vacuous
from dbops.policy.lint import RULES, Disagreement, Finding, beside
from dbops.policy.lint.logic import always_true, open_without_identity
from dbops.policy.lint.pgrls import DROPPED
from dbops.policy.lint.predicate import (
    asks_who,
    compared_with_identity,
    functions_of_columns,
    parsed,
    per_row,
    trusts_role_claim,
    trusts_user_metadata,
)
from dbops.policy.model import Auth

pytestmark = pytest.mark.quick

SUPABASE, GUC = Auth(), Auth(setting="app.user_id")
PAGE = (Path(__file__).parents[2] / "docs" / "policy-lint.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "opens"),
    [
        # as pg_get_expr prints them
        ("(user_id = ( SELECT auth.uid() AS uid))", False),
        ("((( SELECT auth.uid() AS uid) IS NULL) OR (user_id = ( SELECT auth.uid() AS uid)))", True),
        ("((auth.uid() IS NOT NULL) AND (user_id = auth.uid()))", False),
        ("((auth.uid() IS NOT NULL) OR shown)", False),
        ("(user_id = COALESCE(auth.uid(), user_id))", True),
        ("COALESCE((user_id = auth.uid()), true)", True),
        ("COALESCE((user_id = auth.uid()), false)", False),
        ("(COALESCE((auth.uid())::text, ''::text) = ''::text)", True),
        ("((user_id = auth.uid()) IS NOT FALSE)", True),
        ("((user_id = auth.uid()) IS TRUE)", False),
        ("(((user_id = auth.uid()) AND shown) IS NOT TRUE)", True),
        ("(NOT (user_id <> auth.uid()))", False),
        ("(NOT ((user_id <> auth.uid()) AND shown))", False),
        ("(NOT (user_id IS DISTINCT FROM auth.uid()))", True),
        ("((auth.jwt() ->> 'sub'::text) IS NULL)", True),
        ("((visibility = 'public'::text) OR (user_id = auth.uid()))", False),
        ("CASE WHEN (auth.uid() IS NULL) THEN true ELSE (user_id = auth.uid()) END", True),
        ("CASE WHEN (auth.uid() IS NOT NULL) THEN (user_id = auth.uid()) ELSE false END", False),
        ("CASE WHEN shown THEN (auth.uid() IS NULL) ELSE (user_id = auth.uid()) END", True),
        ("(EXISTS ( SELECT 1 FROM members m WHERE ((m.user_id = auth.uid()) AND (m.id = notes.id))))", False),
        ("(EXISTS ( SELECT 1 FROM members m WHERE ((m.user_id = auth.uid()) OR (auth.uid() IS NULL))))", True),
        ("(shown IS NULL)", False),
    ],
)
def test_open_without_identity(text: str, opens: bool) -> None:
    assert open_without_identity(text, SUPABASE) is opens


def test_a_setting_is_an_identity_where_the_definitions_say_so() -> None:
    text = "((current_setting('app.user_id'::text, true) IS NULL) OR (user_id = current_setting('app.user_id'::text, true)))"
    assert open_without_identity(text, GUC)
    assert not open_without_identity(text, SUPABASE)


def test_a_column_that_is_never_null() -> None:
    text = "(NOT (user_id IS DISTINCT FROM auth.uid()))"
    assert not open_without_identity(text, SUPABASE, frozenset({"user_id"}))


@pytest.mark.parametrize(
    ("text", "true"),
    [
        ("true", True),
        ("((1 = 1) OR (a = 2))", True),
        ("(true AND (NOT false))", True),
        ("((a = 2) OR true)", True),
        ("(a = 2)", False),
        ("false", False),
        ("NULL::boolean", False),
    ],
)
def test_always_true(text: str, true: bool) -> None:
    assert always_true(text) is true


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("(user_id = auth.uid())", {"auth.uid"}),
        ("(user_id = ( SELECT auth.uid() AS uid))", set()),
        ("(user_id = (NULLIF(current_setting('app.user_id'::text, true), ''::text))::uuid)", {"current_setting"}),
        ("(id IN ( SELECT m.id FROM members m WHERE (m.user_id = auth.uid())))", set()),
        ("(lower(note) = 'x'::text)", set()),
    ],
)
def test_called_for_each_row(text: str, names: set[str]) -> None:
    tree = parsed(text)
    assert tree is not None
    assert per_row(tree) == names


@pytest.mark.parametrize(
    ("text", "metadata", "role"),
    [
        ("(((auth.jwt() -> 'user_metadata'::text) ->> 'role'::text) = 'admin'::text)", True, False),
        ("((auth.jwt() #>> '{user_metadata,team}'::text[]) = 'a'::text)", True, False),
        ("(((auth.jwt() -> 'app_metadata'::text) ->> 'role'::text) = 'admin'::text)", False, False),
        ("((( SELECT auth.jwt() AS jwt) ->> 'role'::text) = 'service_role'::text)", False, True),
        ("(auth.role() = 'authenticated'::text)", False, True),
        ("(current_setting('request.jwt.claim.role'::text, true) = 'a'::text)", False, True),
        ("(((current_setting('request.jwt.claims'::text, true))::json ->> 'role'::text) = 'a'::text)", False, True),
        ("(role = 'admin'::text)", False, False),
    ],
)
def test_trust(text: str, metadata: bool, role: bool) -> None:
    tree = parsed(text)
    assert tree is not None
    assert (trusts_user_metadata(tree), trusts_role_claim(tree)) == (metadata, role)


def test_functions_of_columns() -> None:
    def names(text: str) -> set[str]:
        tree = parsed(text)
        assert tree is not None
        return functions_of_columns(tree)

    assert names("app.may_see(team_id)") == {"app.may_see"}
    assert names("(team_id IN ( SELECT app.my_teams() AS my_teams))") == set()
    assert names("(length(note) > 3)") == set()
    assert names("app.is_admin()") == set()


def test_whose_a_row_is() -> None:
    def columns(text: str) -> set[str]:
        return compared_with_identity(text, SUPABASE)

    assert columns("((( SELECT auth.uid() AS uid) = user_id) AND (kind = 'a'::text))") == {"user_id"}
    assert columns("(team_id IN ( SELECT app.my_teams() AS my_teams))") == {"team_id"}
    assert columns("(team_id IN ( SELECT m.team_id FROM members m WHERE (m.user_id = auth.uid())))") == {"team_id"}
    assert columns("(kind = 'a'::text)") == set()


def test_a_function_of_ones_own_may_know_who_asks() -> None:
    assert asks_who("(team_id IN ( SELECT app.my_teams() AS my_teams))", SUPABASE)
    assert not asks_who("(lower(kind) = 'a'::text)", SUPABASE)
    assert not asks_who("(auth.role() = 'authenticated'::text)", SUPABASE)


def test_what_sqlglot_cannot_read_is_none() -> None:
    assert parsed("((a = ) 1") is None


# --- beside --------------------------------------------------------------------------------------

LEAK = Leak("public.a", "other user", "select", "view public.v", "saw 1 row", "select 1")


def finding(rule: str, table: str, severity: str = "error") -> Finding:
    return Finding(rule, severity, None, 0, table, "m", "h")  # type: ignore[arg-type]


def attacked(*leaks: Leak, vacuous: tuple[Vacuous, ...] = ()) -> Report:
    cells = (Cell("public.a", "select", "anon", "held"),)
    return Report(("public.a", "public.b"), 9, leaks, vacuous, cells, "18", "embedded", 1.0)


def kinds(findings: list[Finding], report: Report) -> list[tuple[str, str]]:
    return [(each.table, each.kind) for each in beside(findings, report)]


def test_a_leak_that_lint_does_not_see() -> None:
    assert beside([], attacked(LEAK)) == (
        Disagreement(
            "public.a",
            "unseen",
            "the attack got through (select as other user via view public.v), and lint sees nothing",
        ),
    )
    # what it costs, a remark, and another table are no sight of it
    blind = [finding("policy-index-missing", "public.a"), finding("policy-to-public", "public.a", "info"),
             finding("rls-missing", "public.c"), finding("pgrls/PERF001", "public.a")]  # fmt: skip
    assert kinds(blind, attacked(LEAK)) == [("public.a", "unseen")]


@pytest.mark.parametrize(
    "sight",
    [
        finding("policy-to-public", "public.a", "warning"),
        finding("view-bypasses-rls", "public.v"),
        finding("role-bypasses-rls", ""),
        finding("pgrls/SEC030", "public.a", "warning"),
    ],
)
def test_a_leak_that_lint_sees(sight: Finding) -> None:
    assert kinds([sight], attacked(LEAK)) == []


def test_an_error_that_the_attack_does_not_bear_out() -> None:
    assert kinds([finding("policy-check-weaker", "public.b")], attacked()) == [("public.b", "unproven")]
    assert kinds([finding("policy-check-weaker", "public.b", "warning")], attacked()) == []
    vacuous = attacked(vacuous=(Vacuous("public.b", "", "no row"),))
    assert kinds([finding("policy-check-weaker", "public.b")], vacuous) == []


# --- the page ------------------------------------------------------------------------------------


def test_the_page_has_what_is_left_out_of_pgrls() -> None:
    assert dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE)) == DROPPED


def test_no_rule_of_pgrls_is_replaced_twice_or_dropped_too() -> None:
    replaced = [theirs for rule in RULES.values() for theirs in rule.replaces]
    assert len(replaced) == len(set(replaced))
    assert not set(replaced) & set(DROPPED)
