"""Pairs by meaning against every pair compared one by one."""

from __future__ import annotations

import struct
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.hygiene import semantic
from dbops.hygiene.semantic import near

pytestmark = pytest.mark.quick


def brute(vectors: np.ndarray, threshold: float, slack: float) -> set[tuple[int, int]]:
    pairs = set()
    for a, b in combinations(range(len(vectors)), 2):
        length = float(np.linalg.norm(vectors[a]) * np.linalg.norm(vectors[b]))
        if np.isfinite(length) and length > 0 and float(vectors[a] @ vectors[b]) / length >= threshold + slack:
            pairs.add((a, b))
    return pairs


@given(
    st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(1, 6), st.sampled_from([0.1, 0.5, 0.9, 0.95, 0.999, 1.0])
)
def test_all_pairs_and_no_others(seed: int, count: int, dimensions: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-3, 4, (count, dimensions)).astype(np.float64)
    found = list(near(vectors, threshold))
    pairs = {(a, b) for a, b, _ in found}
    assert len(pairs) == len(found)
    assert brute(vectors, threshold, 1e-9) <= pairs <= brute(vectors, threshold, -1e-9)
    assert all(a < b and threshold <= similarity <= 1 for a, b, similarity in found)


def test_pairs_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic, "_BLOCK", 7)
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((50, 3))
    assert {(a, b) for a, b, _ in near(vectors, 0.8)} == brute(vectors, 0.8, 0.0)


def test_equal_vectors_are_1_and_strange_ones_near_nothing() -> None:
    vectors = np.array([[0.1, 0.7], [0.1, 0.7], [0, 0], [0, 0], [np.nan, 1], [np.inf, 1], [-0.1, -0.7]])
    assert list(near(vectors, 1.0)) == [(0, 1, 1.0)]
    assert list(near(np.empty((0, 3)), 0.5)) == []


def test_pgvectors_binary_form() -> None:
    data = [struct.pack(">HH2f", 2, 0, 0.5, -1.0), struct.pack(">HH2f", 2, 0, 3.0, 4.0)]
    assert semantic._matrix(data).tolist() == [[0.5, -1.0], [3.0, 4.0]]
