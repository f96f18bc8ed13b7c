"""Clusters and who survives: a pure function of rows, pairs and what people have decided. No database is needed.

Rows come in the survivors' order, the best first. Copies of one text are one node, so that 20,000 identical facts are one
node and no 200 million pairs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from dbops.hygiene.guard import Reason, guard
from dbops.hygiene.model import Doubt, Kind, Merge, Row, ScopePlan, Search

Verdict = Literal["accepted", "rejected"]
Decided = Mapping[frozenset[str], Verdict]  # by the two texts' hashes: a text that is changed is judged anew
Near = tuple[float, Kind]


class Graph:
    """The texts of one user as nodes, numbered in the survivors' order; near ones are neighbours."""

    def __init__(
        self,
        rows: Sequence[Row],
        alike: Iterable[tuple[int, int, float]],
        meant: Iterable[tuple[str, str, float]] = (),
        *,
        both: bool = False,
    ) -> None:
        self.nodes: list[list[Row]] = []
        self._sets: dict[int, list[int]] = defaultdict(list)
        self._near_sets: dict[int, dict[int, float]] = defaultdict(dict)
        self._meant: dict[int, dict[int, float]] = defaultdict(dict)
        self.both = both
        node_of = self._number(rows)
        for a, b, similarity in alike:
            self._near_sets[a][b] = self._near_sets[b][a] = similarity
        for first, second, similarity in meant:
            self._mean(node_of.get(first), node_of.get(second), similarity)

    def _number(self, rows: Sequence[Row]) -> dict[str, int]:
        numbers: dict[tuple[int | None, str], int] = {}
        node_of: dict[str, int] = {}
        for row in rows:
            # texts without a word set are compared by meaning only, copies are copies all the same
            number = numbers.setdefault((row.words, row.hash), len(self.nodes))
            if number == len(self.nodes):
                self.nodes.append([])
                if row.words is not None:
                    self._sets[row.words].append(number)
            self.nodes[number].append(row)
            node_of[row.id] = number
        return node_of

    def _mean(self, a: int | None, b: int | None, similarity: float) -> None:
        if a is None or b is None or a == b:
            return
        self._meant[a][b] = self._meant[b][a] = max(similarity, self._meant[a].get(b, 0.0))

    def neighbours(self, node: int) -> dict[int, Near]:
        """The nodes near this one, with how near and by what."""
        found: dict[int, Near] = {}
        own = self.nodes[node][0].words
        if own is not None:
            for words, similarity in ((own, 1.0), *self._near_sets.get(own, {}).items()):
                found |= {other: (similarity, "text") for other in self._sets.get(words, ()) if other != node}
        meant = self._meant.get(node, {})
        if self.both:
            return {other: near for other, near in found.items() if other in meant}
        for other, similarity in meant.items():
            found.setdefault(other, (similarity, "semantic"))
        return found

    def pairs(self) -> int:
        """How many pairs of rows are near each other, copies included; none is made."""
        sizes = [len(node) for node in self.nodes]
        within = sum(size * (size - 1) for size in sizes)
        return (within + sum(sizes[n] * sizes[m] for n in range(len(sizes)) for m in self.neighbours(n))) // 2


def plan_scope(
    scope: str | None,
    rows: Sequence[Row],
    alike: Iterable[tuple[int, int, float]],
    search: Search,
    *,
    meant: Iterable[tuple[str, str, float]] = (),
    decided: Decided | None = None,
) -> ScopePlan:
    """The clusters of one user's rows, in the survivors' order.

    `alike` are pairs of word sets by number, `meant` pairs of row ids, each with a similarity at or over its threshold.
    """
    graph = Graph(rows, alike, meant, both=search.both)
    judge = _Judge(graph, decided or {})
    clusters = _stars(graph, judge) if search.cluster == "stars" else _components(graph, judge)
    merges = [_merge(graph, survivor, losers) for survivor, losers in clusters.items()]
    return ScopePlan(
        scope,
        graph.pairs(),
        tuple(merge for merge in merges if merge.losers),
        tuple(_doubts(graph, judge, clusters)),
        sum(len(row.text.encode()) for s, losers in clusters.items() for row in _gone(graph, s, losers)),
    )


class _Judge:
    """Says whether two nodes may become one, and why not; a person's decision goes before the guard's."""

    def __init__(self, graph: Graph, decided: Decided) -> None:
        self.graph, self.decided = graph, decided

    def verdict(self, a: int, b: int) -> Verdict | None:
        return self.decided.get(frozenset((self.graph.nodes[a][0].hash, self.graph.nodes[b][0].hash)))

    def doubt(self, a: int, b: int) -> Reason | None:
        """Why a person should look; None where nothing speaks against the merge, or a person has decided."""
        if self.verdict(a, b) is not None:
            return None
        return guard(self.graph.nodes[a][0].text, self.graph.nodes[b][0].text)

    def same(self, a: int, b: int) -> bool:
        verdict = self.verdict(a, b)
        return verdict == "accepted" or (verdict is None and self.doubt(a, b) is None)


def _stars(graph: Graph, judge: _Judge) -> dict[int, list[int]]:
    """Each survivor with those of its neighbours that no better one took."""
    taken: set[int] = set()
    clusters: dict[int, list[int]] = {}
    for node in range(len(graph.nodes)):
        if node in taken:
            continue
        losers = sorted(n for n in graph.neighbours(node) if n > node and n not in taken and judge.same(node, n))
        taken.update(losers)
        clusters[node] = losers
    return clusters


def _components(graph: Graph, judge: _Judge) -> dict[int, list[int]]:
    """Chains as one cluster; who is not the same as the survivor by the guard leaves it, and forms another."""
    clusters: dict[int, list[int]] = {}
    for members in _connected(graph, judge):
        while members:
            survivor, *rest = members
            clusters[survivor] = [n for n in rest if judge.same(survivor, n)]
            members = [n for n in rest if n not in set(clusters[survivor])]
    return clusters


def _connected(graph: Graph, judge: _Judge) -> Iterable[list[int]]:
    seen: set[int] = set()
    for node in range(len(graph.nodes)):
        if node in seen:
            continue
        seen.add(node)
        members, edge = [node], [node]
        while edge:
            at = edge.pop()
            new = [n for n in graph.neighbours(at) if n not in seen and judge.same(at, n)]
            seen.update(new)
            members += new
            edge += new
        yield sorted(members)


def _gone(graph: Graph, survivor: int, losers: Sequence[int]) -> list[Row]:
    return [*graph.nodes[survivor][1:], *(row for node in losers for row in graph.nodes[node])]


def _merge(graph: Graph, survivor: int, losers: Sequence[int]) -> Merge:
    return Merge(graph.nodes[survivor][0].ref, tuple(row.ref for row in _gone(graph, survivor, losers)))


def _doubts(graph: Graph, judge: _Judge, clusters: Mapping[int, Sequence[int]]) -> Iterable[Doubt]:
    """The pairs of survivors that are near each other and that only the guard keeps apart."""
    for node in clusters:
        for other, (similarity, kind) in sorted(graph.neighbours(node).items()):
            if other > node and other in clusters and (reason := judge.doubt(node, other)):
                yield Doubt(graph.nodes[node][0].ref, graph.nodes[other][0].ref, similarity, kind, reason)
