"""Clusters and who survives: a pure function of rows, pairs and what people have decided. No database is needed.

Rows come in the survivors' order, the best first. Texts that differ in capitals and punctuation at most are one node, so
that 20,000 identical facts are one node and no 200 million pairs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from dbops.hygiene.guard import Reason, guard, key
from dbops.hygiene.model import Doubt, Kind, Merge, Row, ScopePlan, Search

Verdict = Literal["accepted", "rejected"]
Decided = Mapping[frozenset[str], Verdict]  # by the two texts' hashes: a text that is changed is judged anew
Sets = Mapping[int, Iterable[int]]  # nodes by their word set
_REFUSED = 10  # nodes of one word set that are not the same as a node: it is compared with no more of that set


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
        self.rank = {row.id: number for number, row in enumerate(rows)}
        self.sets: dict[int, list[int]] = defaultdict(list)
        self._near_sets: dict[int, dict[int, float]] = defaultdict(dict)
        self._meant: dict[int, dict[int, float]] = defaultdict(dict)
        self.both = both
        node_of = self._number(rows)
        for a, b, similarity in alike:
            self._near_sets[a][b] = self._near_sets[b][a] = similarity
        for first, second, similarity in meant:
            self._mean(node_of.get(first), node_of.get(second), similarity)

    def _number(self, rows: Sequence[Row]) -> dict[str, int]:
        numbers: dict[Hashable, int] = {}
        node_of: dict[str, int] = {}
        for row in rows:
            copy = (row.words, row.hash)
            number = numbers.get(copy)
            if number is None:
                # without a word set, and with `both`, a text that differs in anything is compared by its own meaning
                alike = copy if self.both or row.words is None else (row.words, key(row.text))
                number = numbers[copy] = numbers.setdefault(alike, len(self.nodes))
            if number == len(self.nodes):
                self.nodes.append([])
                if row.words is not None:
                    self.sets[row.words].append(number)
            self.nodes[number].append(row)
            node_of[row.id] = number
        return node_of

    def _mean(self, a: int | None, b: int | None, similarity: float) -> None:
        if a is None or b is None or a == b:
            return
        self._meant[a][b] = self._meant[b][a] = max(similarity, self._meant[a].get(b, 0.0))

    def _text(self, a: int, b: int) -> float | None:
        """How near two nodes' word sets are; None where they are not."""
        one, other = self.nodes[a][0].words, self.nodes[b][0].words
        if one is None or other is None:
            return None
        return 1.0 if one == other else self._near_sets.get(one, {}).get(other)

    def near(self, node: int, sets: Sets | None = None) -> list[tuple[float, Kind, Iterable[int]]]:
        """(how near, by what, nodes) for this node and the sets near it, the nearest first; its own holds itself.

        Nodes of one set go together and are not copied: 20,000 orders of the same words share one. `sets` narrows them.
        """
        meant = self._meant[node].items() if node in self._meant else ()
        found: list[tuple[float, Kind, Iterable[int]]] = []
        if self.both:
            found = [(s, "text", (n,)) for n, _ in meant if (s := self._text(node, n)) is not None]
        else:
            own, sets = self.nodes[node][0].words, self.sets if sets is None else sets
            if own is not None:
                alike = {own: 1.0} | self._near_sets.get(own, {})
                found = [(s, "text", sets.get(words, ())) for words, s in alike.items()]
            found += [(s, "semantic", (n,)) for n, s in meant if self._text(node, n) is None]
        return sorted(found, key=lambda each: -each[0])

    def pairs(self) -> int:
        """How many pairs of rows are near each other, copies included; none is made."""
        sizes = [len(node) for node in self.nodes]
        twice = sum(size * (size - 1) for size in sizes)
        for a, others in self._meant.items():
            twice += sum(sizes[a] * sizes[b] for b in others if (self._text(a, b) is not None) == self.both)
        if self.both:
            return twice // 2
        rows = {words: sum(sizes[n] for n in nodes) for words, nodes in self.sets.items()}
        for words, nodes in self.sets.items():
            twice += rows[words] ** 2 - sum(sizes[n] ** 2 for n in nodes)
            twice += sum(rows[words] * rows.get(other, 0) for other in self._near_sets.get(words, ()))
        return twice // 2


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
        if not self.decided:
            return None
        return self.decided.get(frozenset((self.graph.nodes[a][0].hash, self.graph.nodes[b][0].hash)))

    def doubt(self, a: int, b: int) -> Reason | None:
        """Why a person should look; None where nothing speaks against the merge, or a person has decided."""
        if self.verdict(a, b) is not None:
            return None
        return guard(self.graph.nodes[a][0].text, self.graph.nodes[b][0].text)

    def same(self, a: int, b: int) -> bool:
        verdict = self.verdict(a, b)
        return verdict == "accepted" or (verdict is None and self.doubt(a, b) is None)


class _Left:
    """The nodes that are in no cluster yet."""

    def __init__(self, graph: Graph, judge: _Judge) -> None:
        self.graph, self.judge = graph, judge
        self.nodes = dict.fromkeys(range(len(graph.nodes)))
        self.sets = {words: dict.fromkeys(nodes) for words, nodes in graph.sets.items()}

    def __iter__(self) -> Iterator[int]:
        """Each in its turn, and taken."""
        for node in range(len(self.graph.nodes)):
            if node in self.nodes:
                self._take([node])
                yield node

    def take_same(self, node: int) -> list[int]:
        """Those near the node that are the same, taken."""
        found = [n for *_, nodes in self.graph.near(node, self.sets) for n in self._same(node, nodes)]
        self._take(found)
        return sorted(set(found))

    def _same(self, node: int, others: Iterable[int]) -> Iterator[int]:
        refused = 0
        for other in others:
            if other not in self.nodes:
                continue
            if self.judge.same(node, other):
                yield other
            elif (refused := refused + 1) == _REFUSED:
                return

    def _take(self, nodes: Iterable[int]) -> None:
        for node in nodes:
            self.nodes.pop(node, None)
            words = self.graph.nodes[node][0].words
            if words is not None:
                self.sets[words].pop(node, None)


def _stars(graph: Graph, judge: _Judge) -> dict[int, list[int]]:
    """Each survivor with those of its neighbours that no better one took."""
    left = _Left(graph, judge)
    return {node: left.take_same(node) for node in left}


def _components(graph: Graph, judge: _Judge) -> dict[int, list[int]]:
    """Chains as one cluster; who is not the same as the survivor by the guard leaves it, and forms another."""
    clusters: dict[int, list[int]] = {}
    for members in _connected(graph, judge):
        while members:
            survivor, *rest = members
            clusters[survivor], members = [], []
            for node in rest:
                (clusters[survivor] if judge.same(survivor, node) else members).append(node)
    return clusters


def _connected(graph: Graph, judge: _Judge) -> Iterable[list[int]]:
    left = _Left(graph, judge)
    for node in left:
        members, edge = [node], [node]
        while edge:
            new = left.take_same(edge.pop())
            members += new
            edge += new
        yield sorted(members)


def _gone(graph: Graph, survivor: int, losers: Sequence[int]) -> list[Row]:
    rows = [*graph.nodes[survivor][1:], *(row for node in losers for row in graph.nodes[node])]
    return sorted(rows, key=lambda row: graph.rank[row.id]) if losers else rows


def _merge(graph: Graph, survivor: int, losers: Sequence[int]) -> Merge:
    return Merge(graph.nodes[survivor][0].ref, tuple(row.ref for row in _gone(graph, survivor, losers)))


def _doubts(graph: Graph, judge: _Judge, clusters: Mapping[int, Sequence[int]]) -> Iterable[Doubt]:
    """For each survivor the nearest other one that only the guard keeps apart from it: at most as many as survivors."""
    sets = {words: [n for n in nodes if n in clusters] for words, nodes in graph.sets.items()}
    found: dict[tuple[int, int], Doubt] = {}
    for node in clusters:
        for similarity, kind, others in graph.near(node, sets):
            other, reason = _doubted(judge, node, (n for n in others if n in clusters and n != node))
            if reason:
                a, b = sorted((node, other))
                doubt = Doubt(graph.nodes[a][0].ref, graph.nodes[b][0].ref, similarity, kind, reason)
                found.setdefault((a, b), doubt)
                break
    return found.values()


def _doubted(judge: _Judge, node: int, others: Iterable[int]) -> tuple[int, Reason | None]:
    """The first of the others that the guard keeps apart, and why."""
    for other in others:
        if reason := judge.doubt(node, other):
            return other, reason
    return node, None
