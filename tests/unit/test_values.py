"""Proposed values and rows, without a server: they have the form that PostgreSQL reads."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.rows.catalog import Check, Column, ForeignKey, Table, Unique
from dbops.rows.constants import constants, size_links, suggestions
from dbops.rows.order import in_order, unify
from dbops.rows.pattern import matching
from dbops.rows.plan import Proposer, Row, Want
from dbops.values import (
    TEXTS,
    Pool,
    Type,
    array,
    certain,
    extreme,
    finite,
    fresh,
    interesting,
    limit,
    precision,
    record,
    sized,
)
from dbops.values.base import BASE

pytestmark = pytest.mark.quick
randoms = st.integers(0, 2**32).map(Random)


def numeric(digits: int, scale: int) -> Type:
    return Type("numeric", modifier=((digits << 16) | (scale & 0x7FF)) + 4)


def every(kind: Type, rng: Random) -> list[str]:
    return [*interesting(kind), *(fresh(kind, rng) for _ in range(5))]


# base types -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASE)
def test_every_base_type_has_values(name: str) -> None:
    assert interesting(Type(name))
    assert all(isinstance(value, str) for value in every(Type(name), Random(1)))


@pytest.mark.parametrize("name", ["int4", "text", "uuid", "timestamptz", "jsonb", "bytea", "numeric", "inet"])
def test_fresh_values_are_many(name: str) -> None:
    rng = Random(0)
    assert len({fresh(Type(name), rng) for _ in range(200)}) > 150


def test_the_same_seed_makes_the_same_values() -> None:
    assert [fresh(Type("text"), Random(7)) for _ in range(3)] == [fresh(Type("text"), Random(7))] * 3


def test_texts_hold_what_breaks_careless_code() -> None:
    together = "".join(TEXTS)
    assert "" in TEXTS
    assert all(mark in together for mark in ("'", '"', "\\", "\n", "\t", "😀"))


@given(digits=st.integers(1, 40), data=st.data(), rng=randoms)
def test_numerics_fit_their_precision(digits: int, data: st.DataObject, rng: Random) -> None:
    scale = data.draw(st.integers(0, digits))
    kind = numeric(digits, scale)
    assert precision(kind) == (digits, scale)
    for value in every(kind, rng):
        whole, _, part = value.lstrip("-").partition(".")
        assert len(whole.lstrip("0")) <= digits - scale
        assert len(part) <= scale


def test_a_negative_scale_is_read() -> None:
    assert precision(numeric(3, -2)) == (3, -2)
    assert all(int(value) % 100 == 0 for value in every(numeric(3, -2), Random(1)))


@given(length=st.integers(1, 80), rng=randoms, name=st.sampled_from(["varchar", "bpchar"]))
def test_texts_fit_their_length(length: int, rng: Random, name: str) -> None:
    kind = Type(name, modifier=length + 4)
    assert limit(kind) == length
    assert all(len(value) <= length for value in every(kind, rng))


@given(size=st.integers(1, 200), rng=randoms)
def test_bits_and_vectors_have_their_size(size: int, rng: Random) -> None:
    assert all(len(value) == size for value in every(Type("bit", modifier=size), rng))
    assert all(len(json.loads(value)) == size for value in every(Type("vector", modifier=size), rng))
    assert all(value.endswith(f"/{size}") for value in every(Type("sparsevec", modifier=size), rng))


def test_extremes_are_the_ends_of_the_integers() -> None:
    assert extreme(Type("int2"), "32767")
    assert extreme(Type("int8"), str(-(2**63)))
    assert not extreme(Type("int8"), "32767")
    assert not extreme(Type("text"), "32767")


# composed types ---------------------------------------------------------------------------------------------------


def unescaped(text: str) -> list[str | None]:
    """The elements of an array's or record's text, as PostgreSQL would read them."""
    found = re.findall(r'"((?:[^"\\]|\\.)*)"|(NULL)|(?<=[{,(])()(?=[,)])', text)
    return [None if null or (quoted == null == "" and '""' not in text) else re.sub(r"\\(.)", r"\1", quoted, flags=re.S)
            for quoted, null, _ in found]  # fmt: skip


@given(st.lists(st.none() | st.text(min_size=1), min_size=1))
def test_array_texts_are_quoted(values: Sequence[str | None]) -> None:
    assert unescaped(array(Type("text"), values)) == values


@given(st.lists(st.text(min_size=1), min_size=1))
def test_record_texts_are_quoted(values: Sequence[str]) -> None:
    assert unescaped(record(values)) == values


def test_boxes_have_a_separator_of_their_own() -> None:
    assert array(Type("box"), ["(1,1),(0,0)", "(2,2),(0,0)"]) == '{"(1,1),(0,0)";"(2,2),(0,0)"}'


@given(rng=randoms, name=st.sampled_from(["int2", "int4", "int8", "numeric", "date", "timestamp"]))
def test_ranges_go_up(rng: Random, name: str) -> None:
    low, high = re.findall(r'"([^"]*)"', fresh(Type("r", "range", inner=Type(name)), rng))
    assert (Decimal(low) < Decimal(high)) if low.isdigit() else low < high


def test_enums_and_booleans_are_finite() -> None:
    mood = Type("mood", "enum", labels=("sad", "ok"))
    assert finite(mood)
    assert finite(Type("d", "domain", inner=mood))
    assert finite(Type("bool"))
    assert not finite(Type("text"))
    assert interesting(mood) == ("sad", "ok")


def test_what_must_be_asked_of_the_server() -> None:
    domain = Type("email", "domain", inner=Type("text"))
    assert certain(Type("text"))
    assert certain(Type("_int4", "array", inner=Type("int4")))
    assert not certain(domain)
    assert not certain(Type("_email", "array", inner=domain))
    assert not certain(Type("hstore"))
    assert not certain(Type("xml"))


@given(size=st.integers(0, 300), rng=randoms)
def test_sized_values_have_the_size(size: int, rng: Random) -> None:
    assert len(sized(Type("text"), size, rng) or "") == size
    assert len(sized(Type("bytea"), size, rng) or "") == 2 + 2 * size
    ints = Type("_int4", "array", inner=Type("int4"))
    assert (sized(ints, size, rng) or "").count('"') == 2 * size
    assert sized(Type("varchar", modifier=10 + 4), 11 + size, rng) is None
    assert sized(Type("int4"), size, rng) is None


# constants of expressions -----------------------------------------------------------------------------------------


def test_constants_are_found() -> None:
    found = constants(
        ["""((k = ANY (ARRAY['it''s'::text, 'b'::text])) AND ("it's 5" > '-1.5'::numeric) AND (n < 10))"""]
    )
    assert found.texts == ("it's", "b", "-1.5")
    assert found.numbers == (Decimal("-1.5"), Decimal(10))


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_any_expression_can_be_read(expression: str) -> None:
    found = constants([expression])
    for kind in (
        Type("int4"),
        Type("text"),
        Type("jsonb"),
        Type("timestamptz"),
        Type("_t", "array", inner=Type("text")),
    ):
        suggestions(kind, found, Random(0))


@pytest.mark.parametrize(
    ("name", "expression", "wanted"),
    [
        ("text", "(k = ANY (ARRAY['a'::text, 'b'::text]))", {"a", "b"}),
        ("int4", "((n >= 10) AND (n <= 20))", {"9", "10", "15", "20", "21"}),
        ("int2", "(n < 99999)", set()),
        ("numeric", "((s >= 0.0) AND (s <= '1'::numeric))", {"0", "0.5", "1"}),
        ("text", "(u ~~ 'https://%'::text)", {"https://x"}),
        (
            "date",
            "((d >= '2024-01-01'::date) AND (d < '2024-02-01'::date))",
            {"2024-01-01", "2023-12-31", "2024-02-02"},
        ),
        ("jsonb", "(j ? 'kind'::text)", {'{"kind": 1}', '{"kind": "x"}'}),
    ],
)
def test_suggestions_lie_around_the_constants(name: str, expression: str, wanted: set[str]) -> None:
    assert wanted <= set(suggestions(Type(name), constants([expression]), Random(0)))


def test_lengths_are_suggested() -> None:
    found = suggestions(Type("text"), constants(["((length(code) = 3) AND (code = upper(code)))"]), Random(0))
    assert any(len(text) == 3 and text == text.upper() for text in found)
    arrays = suggestions(Type("_t", "array", inner=Type("text")), constants(["(cardinality(tags) = 3)"]), Random(0))
    assert any(text.count('"') == 6 for text in arrays)


def test_suggested_integers_fit_their_type() -> None:
    found = constants(["(n < 2147483647)"])
    assert all(abs(int(value)) < 2**31 for value in suggestions(Type("int4"), found, Random(0)))


@pytest.mark.parametrize(
    ("expression", "links"),
    [
        ("(public.vector_dims(embedding) = dimensions)", [("embedding", "dimensions")]),
        ("(dimensions = vector_dims(embedding))", [("embedding", "dimensions")]),
        ("(length((name)::text) <= longest)", [("name", "longest")]),
        ('(cardinality("My tags") = "n tags")', [("My tags", "n tags")]),
        ("(array_length(tags, 1) = n)", [("tags", "n")]),
        ("(length(name) > 0)", []),
        ("(a < b)", []),
    ],
)
def test_size_links(expression: str, links: list[tuple[str, str]]) -> None:
    assert size_links(expression) == links


@pytest.mark.parametrize(
    "pattern",
    [
        r"^[a-z0-9]+(-[a-z0-9]+)*$",
        r"^\+?[0-9]{7,15}$",
        r"^[^@\s]+@[^@]+\.[^@]+$",
        r"^(foo|bar|ba(z|x)){2}$",
        r"^\d{4}-\d{2}-\d{2}$",
        r"^[A-Z]{2,}[-_.]?\w*$",
        r"^.{3}$",
        r"^(?:a|b)?c{0}d{2,}?$",
        r"^[]a]+$",
    ],
)
@given(rng=randoms)
def test_matching_texts_match(pattern: str, rng: Random) -> None:
    text = matching(pattern, rng)
    assert text is not None
    assert re.search(pattern, text)


def test_posix_classes() -> None:
    assert re.fullmatch("[0-9a-fA-F]{64}", matching("^[[:xdigit:]]{64}$", Random(0)) or "")


@pytest.mark.parametrize("pattern", [r"(a)\1", "(?=x)y", "(a", "[a", "a)", "\\"])
def test_clever_or_broken_patterns_give_none(pattern: str) -> None:
    assert matching(pattern, Random(0)) is None


@given(st.text(st.sampled_from("ab01()[]{}|*+?.^$\\-,:")), randoms)
def test_any_pattern_ends(pattern: str, rng: Random) -> None:
    matching(pattern, rng)


# rows -------------------------------------------------------------------------------------------------------------


def table(oid: int, *columns: Column, **rules: tuple[object, ...]) -> Table:
    return Table(oid, ("public", f"t{oid}"), f"public.t{oid}", columns, **rules)  # type: ignore[arg-type]


def column(name: str, kind: str = "int4", *, null: bool = False) -> Column:
    return Column(name, Type(kind), null)


def proposer(of: Table, seed: int = 0) -> Proposer:
    pools = {c.name: Pool(interesting(c.type), None if finite(c.type) else c.type) for c in of.columns}
    return Proposer(of, pools, Random(seed), lambda _: "1")


def drawn(source: Proposer, **pins: Want | str | None) -> Row:
    row = source.draw(pins)
    assert row is not None
    return row


def test_a_plan_shows_every_value_and_both_kinds_of_nullable_columns() -> None:
    source = proposer(table(1, column("a", null=True), column("b", "bool"), column("c", "bool", null=True)))
    plans = source.plan(20)
    assert len(plans) >= 20
    assert {plan["a"] for plan in plans} == {Want.SOME, None}
    assert {plan["b"] for plan in plans} == {"true", "false"}
    assert {plan["c"] for plan in plans} == {"true", "false", None}
    assert plans[1]["a"] is plans[1]["c"] is None


@given(st.integers(0, 10**6))
def test_rows_keep_to_their_pins(seed: int) -> None:
    source = proposer(table(1, column("a", null=True), column("b"), column("c", "bool")), seed)
    row = drawn(source, a=None, c="true")
    assert row["a"] is None
    assert row["b"] is not None
    assert row["c"] == "true"


CONVERSATION = ForeignKey("fk_c", ("user_id", "conv"), ("public", "conv"), ("user_id", "id"), needs=2)
DUPLICATE = ForeignKey("fk_d", ("user_id", "dup"), ("public", "t1"), ("user_id", "id"), needs=1)
USER = ForeignKey("fk_u", ("user_id",), ("public", "users"), ("id",), needs=3)
MEMORY = table(
    1,
    column("user_id", "uuid"),
    column("id", "uuid"),
    column("conv", "uuid", null=True),
    column("dup", "uuid", null=True),
    keys=(CONVERSATION, DUPLICATE, USER),
)


@given(
    st.integers(0, 10**6),
    st.sampled_from([Want.ANY, Want.SOME, None]),
    st.sampled_from([Want.ANY, Want.SOME, None]),
)
def test_keys_that_share_a_column_agree(seed: int, conv: Want | None, dup: Want | None) -> None:
    source = proposer(MEMORY, seed)
    source.referable = {
        "fk_u": [("u1",), ("u2",), ("u3",)],
        "fk_c": [("u1", "c1"), ("u2", "c2"), ("u2", "c3")],
        "fk_d": [("u2", "m2"), ("u3", "m3")],
    }
    row = drawn(source, conv=conv, dup=dup)
    assert (row["user_id"],) in source.referable["fk_u"]
    assert row["conv"] is None or (row["user_id"], row["conv"]) in source.referable["fk_c"]
    assert row["dup"] is None or (row["user_id"], row["dup"]) in source.referable["fk_d"]
    assert conv is Want.ANY or (row["conv"] is None) == (conv is None)
    assert dup is Want.ANY or (row["dup"] is None) == (dup is None)


def test_without_a_row_to_refer_to_there_is_none() -> None:
    source = proposer(MEMORY)
    assert source.draw({}) is None


def test_match_full_is_all_or_nothing() -> None:
    key = ForeignKey("fk", ("a", "b"), ("public", "x"), ("a", "b"), full=True)
    source = proposer(table(1, column("a", null=True), column("b", null=True), keys=(key,)))
    source.referable = {"fk": [("1", "2")]}
    rows = [drawn(source) for _ in range(50)]
    assert {(row["a"], row["b"]) for row in rows} == {("1", "2"), (None, None)}


def test_a_unique_key_is_used_once() -> None:
    source = proposer(table(1, column("a", "bool"), column("b", "bool"), uniques=(Unique("u", ("a", "b")),)))
    found = []
    for _ in range(4):
        row = source.distinct(drawn(source), {})
        assert row is not None
        source.reserve(row)
        found.append((row["a"], row["b"]))
    assert len(set(found)) == 4
    assert source.distinct(drawn(source), {}) is None
    source.release({"a": found[0][0], "b": found[0][1]})
    assert source.distinct(drawn(source), {}) is not None


def test_a_column_takes_the_size_that_another_names() -> None:
    check = Check("dims", "(public.vector_dims(v) = n)", ("v", "n"))
    source = proposer(table(1, column("v", "vector"), column("n"), checks=(check,)))
    for n in ("1", "7"):
        assert len(json.loads(drawn(source, n=n)["v"] or "")) == int(n)


# the order of tables ----------------------------------------------------------------------------------------------


def referring(oid: int, *needs: int, null: bool = False) -> Table:
    keys = tuple(ForeignKey(f"fk{n}", ("x",), ("public", f"t{n}"), ("id",), needs=n) for n in needs)
    return table(oid, column("id"), column("x", null=null), keys=keys)


def order(*tables: Table) -> list[list[int]]:
    return [[t.oid for t in group] for group in in_order(tables)]


def test_tables_come_after_those_they_refer_to() -> None:
    assert order(referring(1, 2), referring(2, 3), referring(3)) == [[3], [2], [1]]


def test_a_nullable_key_gives_way_in_a_cycle() -> None:
    assert order(referring(1, 2, null=True), referring(2, 1)) == [[1], [2]]


def test_a_cycle_without_a_nullable_key_comes_together() -> None:
    assert order(referring(4, 1), referring(1, 2), referring(2, 3), referring(3, 1)) == [[1, 2, 3], [4]]
    assert order(referring(1, 1)) == [[1]]


@given(st.dictionaries(st.integers(1, 8), st.sets(st.integers(1, 8)), min_size=1))
def test_every_table_comes_once_and_never_before_what_it_must_refer_to(edges: dict[int, set[int]]) -> None:
    tables = [referring(oid, *(n for n in needs if n in edges)) for oid, needs in edges.items()]
    groups = order(*tables)
    assert sorted(oid for group in groups for oid in group) == sorted(edges)
    seen: set[int] = set()
    for group in groups:
        seen |= set(group)
        assert all((edges[oid] & edges.keys()) <= seen for oid in group)


def test_rows_that_come_together_refer_to_each_other() -> None:
    user = ForeignKey("fk_u", ("u",), ("public", "users"), ("id",), needs=9)
    to_b = ForeignKey("fk_b", ("u", "b"), ("public", "t2"), ("u", "id"), needs=2)
    to_a = ForeignKey("fk_a", ("u", "a"), ("public", "t1"), ("u", "id"), needs=1)
    a = table(1, column("u"), column("id"), column("b"), keys=(user, to_b))
    b = table(2, column("u"), column("id"), column("a"), keys=(to_a,))
    rows: dict[int, Row] = {1: {"u": "real", "id": "1", "b": "x"}, 2: {"u": "made up", "id": "2", "a": "y"}}
    unify(rows, [a, b])
    assert rows == {1: {"u": "real", "id": "1", "b": "2"}, 2: {"u": "real", "id": "2", "a": "1"}}
