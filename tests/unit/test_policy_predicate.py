"""Predicates: what is refused, what is read of the rest, and that none reaches out of its parentheses."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dbops.errors import DbopsError
from dbops.migrate.parse import parse
from dbops.policy.predicate import Predicate, check_predicate
from dbops.policy.tokens import tokens

pytestmark = pytest.mark.quick

REFUSED = {
    "": "it is empty",
    " \n -- nothing\n": "it is empty",
    "true; drop table users": "there is a semicolon",
    "true) or (true": "there is a ) without its (",
    "(true": "a ( is not closed",
    "a[1": "a [ is not closed",
    "(a]": "there is a ] without its [",
    "true, false": "there is a comma",
    "true -- and more": "a comment (--) swallows what follows",
    "true /* and more": "a comment (/*) is not closed",
    "true /* /* */ and more": "a comment (/*) is not closed",
    "name = 'it": "a ' is not closed",
    "name = E'it\\'": "a E' is not closed",
    'name = "it': 'a " is not closed',
    "name = $a$ it $b$": "a $a$ is not closed",
    "true\0": "it holds a NUL character",
    "select true": "it is a statement (SELECT)",
    "WITH x AS (SELECT 1) SELECT true": "it is a statement (WITH)",
    "values (true)": "it is a statement (VALUES)",
    "drop table users": "it is a statement (DROP)",
    "delete from users": "it is a statement (DELETE)",
    "is_public pub": '"pub" follows a complete expression',
    "1": "it is no boolean expression",
    "null": "it is no boolean expression",
    "a + 1": "it is no boolean expression",
    "(a, b)": "it is no boolean expression",
    "array[a]": "it is no boolean expression",
    "a::text": "it is no boolean expression",
    "count(*) > 1": "an aggregate (count)",
    "max(a) > 1": "an aggregate (max)",
    "sum(a) over () > 1": "a window function",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_predicate(text)
    assert REFUSED[text] in str(caught.value)


def reads(
    columns: str | None, functions: str = "", tables: tuple[tuple[str, ...], ...] = (), unwrapped: str = ""
) -> Predicate:
    return Predicate(
        None if columns is None else frozenset(columns.split()),
        frozenset(functions.split()),
        frozenset(tables),
        tuple(unwrapped.split()),
    )


ACCEPTED = {
    "true": reads(""),
    "is_public": reads("is_public"),
    "Visibility = 'public;)--'": reads("visibility"),
    "\"UserId\" = 'it''s' and É = 'x'": reads("UserId É"),
    "documents.a = 1 or public.documents.b": reads("a b"),
    "a = $q$;) $p$ ($q$": reads("a"),
    "a = E'\\';' -- why\nand b": reads("a b"),
    "a /* ; /* ( */ ) */ is null": reads("a"),
    "user = owner and current_role = 'x' and session_user = x": reads("owner x"),
    '"user" = owner': reads("user owner"),
    "auth.uid() = user_id": reads("user_id", "auth.uid", unwrapped="auth.uid"),
    "(select auth.uid()) = user_id": reads("user_id", "auth.uid"),
    "user_id = nullif(current_setting('app.user_id', true), '')::uuid": reads(
        "user_id", "nullif current_setting", unwrapped="current_setting"
    ),
    "user_id = (SELECT nullif(pg_catalog.current_setting('app.user_id', true), '')::uuid)": reads(
        "user_id", "nullif pg_catalog.current_setting"
    ),
    "(select auth.jwt()) ->> 'role' = 'x' and auth.role() = 'y'": reads("", "auth.jwt auth.role", unwrapped="auth.role"),
    "exists (select 1 from members m where m.user_id = auth.uid() and m.team = team_id)": reads(
        "", "auth.uid", (("members",),), "auth.uid"
    ),
    "exists (select from public.members m where m.user_id = (select auth.uid()))": reads(
        "", "auth.uid", (("public", "members"),)
    ),
    'team_id in (select t.id from "My Teams" t join a.b on true)': reads("team_id", "", (("My Teams",), ("a", "b"))),
    "id in (with x as (select id from y) select id from x)": reads("id", "", (("y",),)),
    "id in (select n from generate_series(1, 3) n)": reads("id", "generate_series"),
    "(select count(*) from t) < 10": reads("", "count", (("t",),)),
    "extract(epoch from created_at) > 0": reads("created_at", "extract"),
    "a is not distinct from b": reads("a b"),
    "owner_of(id, verb => 'x')": reads("id", "owner_of"),
    "lower(name) = any (array['a', 'b'])": reads("name", "lower"),
    "embedding <=> probe < 0.3": reads("embedding probe"),
    "embedding <#> probe < 1": reads(None),
    "a <#> (select b from x.y) < 1 and c is distinct from d": reads(None, "", (("x", "y"),)),
    "a <#> b < 1 and user_id = auth.uid() and (select auth.uid()) = c": reads(None, "auth.uid", unwrapped="auth.uid"),
    "update = 1": reads("update"),
}  # fmt: skip


@pytest.mark.parametrize("text", ACCEPTED)
def test_what_is_read(text: str) -> None:
    assert check_predicate(text) == ACCEPTED[text]


# what tries to get out, in quotes and comments that do or do not end
PIECES = st.sampled_from(
    ["x) or (x", "x) = (x", "'", "''", "$a$", "$$", "--", "/*", "*/", "\n", "\r", "\\", "E'", "U&'", " or x", "'x", "é", "\u00a0",
     '"', "(x)", ";", "a$b$ ", "<", "$é$"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=6).map(lambda pieces: f"x{''.join(pieces)}"))
@example("true) or (true")
@example("a <-- b\n")
@example("e'a'\n'\\'' or (true) --'")
@example("'\\' or true) or ('")
@example("$é$ ) $é$")
@example("a$b$ ) $b$")
def test_an_accepted_text_stays_within_its_parentheses(text: str) -> None:
    """PostgreSQL's parser is the oracle: what binds tightest behind the parentheses binds all of the text."""
    try:
        tokens(text)
    except ValueError:
        return
    try:
        statements = parse("".join(("select 1 as first, (", text, ")::bool as second")))
    except DbopsError:
        return  # no expression after all, which PostgreSQL says
    assert [statement.kind for statement in statements] == ["select_stmt"]
    node = statements[0].node
    assert [target.res_target.name for target in node.target_list] == ["first", "second"]
    assert node.target_list[1].res_target.val.WhichOneof("node") == "type_cast"
    assert not len(node.from_clause)
    assert not node.HasField("where_clause")


@pytest.mark.parametrize("text", list(ACCEPTED))
def test_what_is_accepted_is_an_expression_to_postgresql(text: str) -> None:
    assert len(parse("".join(("select (", text, ") as x")))) == 1
