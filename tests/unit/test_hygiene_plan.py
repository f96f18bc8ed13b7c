"""Clusters and survivors, without a database."""

from __future__ import annotations

import hashlib
import random
import time
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.errors import UsageError
from dbops.hygiene.model import ClusterBy, Doubt, Merge, Plan, Ref, Row, ScopePlan, Search
from dbops.hygiene.plan import Graph, Verdict, plan_scope

pytestmark = pytest.mark.quick


def digest(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def row(name: str, text: str, words: int | None) -> Row:
    return Row(name, text, digest(text), words)


def merged(plan: ScopePlan) -> dict[str, list[str]]:
    return {merge.survivor.id: [loser.id for loser in merge.losers] for merge in plan.merges}


def doubted(plan: ScopePlan) -> list[tuple[str, str, str]]:
    return [(doubt.a.id, doubt.b.id, doubt.reason) for doubt in plan.doubts]


CHAIN = [row("b", "user likes tea", 1), row("a", "user likes tea very", 2), row("c", "user likes tea very much", 3)]
LINKS = [(1, 2, 0.9), (2, 3, 0.9)]


class TestClusters:
    def test_a_star_takes_only_the_survivors_neighbours(self) -> None:
        assert merged(plan_scope("u", CHAIN, LINKS, Search())) == {"b": ["a"]}

    def test_a_component_takes_the_chain(self) -> None:
        plan = plan_scope("u", CHAIN, LINKS, Search(cluster="components"))
        assert merged(plan) == {"b": ["a", "c"]}
        assert plan.pairs == 2

    def test_the_order_of_the_rows_says_who_survives(self) -> None:
        assert merged(plan_scope("u", [CHAIN[1], CHAIN[0], CHAIN[2]], LINKS, Search())) == {"a": ["b", "c"]}

    def test_copies_make_no_pairs(self) -> None:
        rows = [row(str(n), "user likes tea", 1) for n in range(20_000)]
        plan = plan_scope("u", rows, [], Search())
        assert plan.pairs == 20_000 * 19_999 // 2
        assert plan.losers == 19_999
        assert plan.merges[0].survivor.id == "0"
        assert plan.bytes == 19_999 * len("user likes tea")

    def test_pairs_count_copies_on_both_sides(self) -> None:
        rows = [row("1", "x y", 1), row("2", "x y", 1), row("3", "x y z", 2)]
        assert plan_scope("u", rows, [(1, 2, 0.9)], Search()).pairs == 3

    def test_nothing_near_is_nothing_to_do(self) -> None:
        assert plan_scope("u", CHAIN, [], Search()) == ScopePlan("u", 0, (), ())
        assert plan_scope("u", [], [], Search()) == ScopePlan("u", 0, (), ())


GOOGLE, MICROSOFT = row("g", "User works at Google", 1), row("m", "User works at Microsoft", 2)
ROUND = [
    row("x", "Bob likes Alice", 1),
    row("y", "Alice likes Bob", 1),
    row("z", "Bob likes Alice", 1),
    row("w", "Alice likes Bob", 1),
]


class TestGuarded:
    def test_another_name_goes_to_review(self) -> None:
        plan = plan_scope("u", [GOOGLE, MICROSOFT], [(1, 2, 0.9)], Search())
        assert plan.merges == ()
        assert plan.doubts == (Doubt(GOOGLE.ref, MICROSOFT.ref, 0.9, "text", "name"),)

    def test_one_word_set_may_hold_two_facts(self) -> None:
        plan = plan_scope("u", ROUND, [], Search())
        assert merged(plan) == {"x": ["z"], "y": ["w"]}
        assert doubted(plan) == [("x", "y", "order")]

    @pytest.mark.parametrize(("verdict", "merges"), [("accepted", {"g": ["m"]}), ("rejected", {})])
    def test_a_person_goes_before_the_guard(self, verdict: Verdict, merges: dict[str, list[str]]) -> None:
        decided = {frozenset((GOOGLE.hash, MICROSOFT.hash)): verdict}
        plan = plan_scope("u", [GOOGLE, MICROSOFT], [(1, 2, 0.9)], Search(), decided=decided)
        assert merged(plan) == merges
        assert plan.doubts == ()

    def test_a_rejected_pair_stays_apart_though_the_guard_has_no_doubt(self) -> None:
        decided: dict[frozenset[str], Verdict] = {frozenset((CHAIN[0].hash, CHAIN[1].hash)): "rejected"}
        assert merged(plan_scope("u", CHAIN, LINKS, Search(), decided=decided)) == {"a": ["c"]}

    def test_a_chain_is_guarded_against_its_survivor(self) -> None:
        rows = [GOOGLE, row("n", "user works at google and microsoft", 3), MICROSOFT]
        decided: dict[frozenset[str], Verdict] = {
            frozenset((GOOGLE.hash, rows[1].hash)): "accepted",
            frozenset((MICROSOFT.hash, rows[1].hash)): "accepted",
        }
        plan = plan_scope("u", rows, [(1, 3, 0.9), (3, 2, 0.9)], Search(cluster="components"), decided=decided)
        assert merged(plan) == {"g": ["n"]}


class TestMeaning:
    ROWS = (
        row("1", "the user is fond of tea", 1),
        row("2", "user likes tea a lot", 2),
        row("3", "user likes tea a lot", 2),
    )

    def test_pairs_by_meaning_are_added(self) -> None:
        plan = plan_scope("u", self.ROWS, [], Search(semantic=0.95), meant=[("1", "2", 0.97)])
        assert doubted(plan) == [("1", "2", "word")]
        assert plan.doubts[0].kind == "semantic"
        assert merged(plan) == {"2": ["3"]}

    def test_both_demands_both(self) -> None:
        rows = [
            row("1", "User likes green tea", 1),
            row("2", "User really likes green tea", 2),
            row("3", "User likes tea", 3),
        ]
        links = [(1, 2, 0.9), (1, 3, 0.9)]
        search = Search(semantic=0.9, both=True)
        assert merged(plan_scope("u", rows, links, search, meant=[("1", "2", 0.97), ("2", "3", 0.99)])) == {"1": ["2"]}

    def test_rows_without_a_word_set_are_compared_by_meaning(self) -> None:
        rows = [
            row("1", "User likes tea", None),
            row("2", "User likes tea a lot", None),
            row("3", "User likes tea", None),
        ]
        plan = plan_scope("u", rows, [], Search(semantic=0.9), meant=[("1", "2", 0.9), ("9", "1", 0.9)])
        assert merged(plan) == {"1": ["2", "3"]}


@pytest.mark.parametrize("value", [0.0, -1.0, 1.01, float("nan"), float("inf")])
def test_a_similarity_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(UsageError, match="a similarity lies above 0 and up to 1"):
        Search(threshold=value)
    with pytest.raises(UsageError, match="a similarity lies above 0 and up to 1"):
        Search(semantic=value)


def test_both_needs_a_second_similarity() -> None:
    with pytest.raises(UsageError, match="--both needs --semantic"):
        Search(both=True)


edges = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)).filter(lambda e: e[0] < e[1]), unique=True)


@given(edges, st.sampled_from(["stars", "components"]))
def test_every_row_is_once_in_a_cluster_and_every_near_pair_is_settled(
    near: list[tuple[int, int]], cluster: str
) -> None:
    rows = [row(str(n), f"User likes tea {'so ' * n}", n) for n in range(8)]
    links = [(a, b, 0.9) for a, b in near]
    plan = plan_scope("u", rows, links, Search(cluster=cluster))  # type: ignore[arg-type]
    losers = [loser for group in merged(plan).values() for loser in group]
    assert len(losers) == len(set(losers))
    assert not set(losers) & set(merged(plan))
    left = {str(n) for n in range(8)} - set(losers)
    assert not [pair for pair in combinations(sorted(left), 2) if (int(pair[0]), int(pair[1])) in near]
    if cluster == "stars":
        assert all((int(s), int(loser)) in near for s, group in merged(plan).items() for loser in group)


@given(edges)
def test_neighbours_are_symmetric(near: list[tuple[int, int]]) -> None:
    graph = Graph([row(str(n), f"t{n}", n) for n in range(8)], [(a, b, 0.9) for a, b in near])
    found = neighbours(graph)
    assert all(n in found[m] for n in range(8) for m in found[n])
    assert graph.pairs() == len(near)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["a b", "A b", "b a", "a  b!"])), max_size=12),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)).filter(lambda e: e[0] < e[1]), unique=True),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)).filter(lambda e: e[0] < e[1]), unique=True),
    st.booleans(),
)
def test_pairs_are_counted_without_being_made(
    texts: list[tuple[int, str]], near: list[tuple[int, int]], meant: list[tuple[int, int]], both: bool
) -> None:
    rows = [row(str(n), f"{text} {words}", words) for n, (words, text) in enumerate(texts)]
    alike, means = [(a, b, 0.9) for a, b in near], [(str(a), str(b), 0.9) for a, b in meant]
    graph = Graph(rows, alike, means, both=both)
    sizes = [len(node) for node in graph.nodes]
    within = sum(size * (size - 1) for size in sizes)
    across = sum(sizes[n] * sizes[m] for n, others in enumerate(neighbours(graph)) for m in others)
    assert graph.pairs() == (within + across) // 2


def neighbours(graph: Graph) -> list[set[int]]:
    return [{m for *_, nodes in graph.near(n) for m in nodes} - {n} for n in range(len(graph.nodes))]


@pytest.mark.parametrize("cluster", ["stars", "components"])
@pytest.mark.parametrize("cased", [True, False])
def test_20_000_texts_of_one_word_set(cluster: ClusterBy, cased: bool) -> None:
    words = ["the", "old", "dog", "sleeps", "under", "green", "table", "near", "cold", "window", "today", "again"]
    draw = random.Random(1)
    texts = [" ".join(draw.sample(words, len(words))) for _ in range(20_000)]
    texts = ["".join(draw.choice((c, c.upper())) for c in text) if cased else text for text in texts]
    started = time.process_time()
    plan = plan_scope("u", [row(str(n), text, 1) for n, text in enumerate(texts)], [], Search(cluster=cluster))
    assert plan.pairs == 20_000 * 19_999 // 2
    assert len(plan.doubts) <= 20_000 - plan.losers
    assert time.process_time() - started < 12


def test_capitals_and_punctuation_make_no_second_node() -> None:
    texts = ["Ann likes tea", "ann likes tea!", "ANN likes (tea)", "tea likes Ann"]
    graph = Graph([row(str(n), text, 1) for n, text in enumerate(texts)], [])
    assert [len(node) for node in graph.nodes] == [3, 1]


def test_a_survivor_has_one_doubt_its_nearest() -> None:
    rows = [row(str(n), f"User has {n} cats and a dog", n) for n in range(1000)]
    links = [(a, b, 0.95 if b == a + 1 else 0.9) for a in range(1000) for b in range(a + 1, 1000)]
    plan = plan_scope("u", rows, links, Search())
    assert plan.pairs == 499_500
    assert plan.merges == ()
    assert len(plan.doubts) == 999
    assert {(int(d.b.id) - int(d.a.id), d.similarity, d.reason) for d in plan.doubts} == {(1, 0.95, "number")}


def test_the_next_doubt_comes_when_the_first_was_rejected() -> None:
    rows = [GOOGLE, MICROSOFT, row("a", "User works at Amazon", 3)]
    links = [(1, 2, 0.95), (1, 3, 0.9)]
    assert doubted(plan_scope("u", rows, links, Search())) == [("g", "m", "name"), ("g", "a", "name")]
    decided: dict[frozenset[str], Verdict] = {frozenset((GOOGLE.hash, MICROSOFT.hash)): "rejected"}
    assert doubted(plan_scope("u", rows, links, Search(), decided=decided)) == [("g", "a", "name")]


def test_the_plan_prints_itself() -> None:
    merge = Merge(Ref("a", ""), tuple(Ref(name, "") for name in "bcde"))
    scope = ScopePlan("u1", 10, (merge,), (Doubt(Ref("a", ""), Ref("f", ""), 0.9, "text", "name"),), 40)
    plan = Plan("public.user_memories", Search(semantic=0.95), 20, (scope, ScopePlan("u2", 0, (), ())), (("u3", "x"),))
    assert str(plan).splitlines() == [
        "public.user_memories: 10 pairs (text at 0.85, or meaning at 0.95) among 20 rows; 4 duplicates (20.0%) of 1 user, 1 pair to review",
        "  u1: 4 duplicates, 10 pairs",
        "    a stays, b, c, d and 1 more marked",
        "    1 to review",
        "  too large to be compared: 1 text",
    ]
