"""Pairs by meaning: exact cosine within each user, a block of the matrix at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dbops.hygiene.session import ROOM, Session
from dbops.sql import queries

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BLOCK = 1024
_ROUNDING = 2.0**-24  # of float32: what a sum of d products of unit vectors can be off by is d times that


def semantic_pairs(
    session: Session, users: Sequence[str], threshold: float, model: str | None
) -> dict[str, list[tuple[str, str, float]]]:
    """By user the pairs of memories whose cosine similarity is at least `threshold`, within each model.

    Zero vectors and those with NaN are near nothing. Of copies with one text and one vector the first stands for all:
    it makes a pair with each of them, and the pairs with others.
    """
    pairs: dict[str, list[tuple[str, str, float]]] = defaultdict(list)
    for user, copies, data in _vectors(session, users, model):
        vectors = _matrix(data)
        pairs[user] += [(copies[a][0], copies[b][0], similarity) for a, b, similarity in near(vectors, threshold)]
        pairs[user] += [
            (ids[0], copy, 1.0)
            for ids, vector in zip(copies, vectors, strict=True)
            if _points(vector)
            for copy in ids[1:]
        ]
    return pairs


def _points(vector: NDArray[np.float64]) -> bool:
    """Whether it points anywhere: neither zero nor NaN."""
    return bool(0 < (vector * vector).sum() < float("inf"))


def _vectors(
    session: Session, users: Sequence[str], model: str | None
) -> Iterator[tuple[str, list[list[str]], list[bytes]]]:
    """(user, memory ids of one text and vector, vectors as PostgreSQL sends them) for each user and model."""
    with session.conn.cursor(binary=True) as cursor:
        cursor.execute(queries(ROOM)["vectors"], {"users": list(users), "model": model})
        groups: dict[tuple[Any, str], dict[tuple[str, bytes], list[str]]] = defaultdict(lambda: defaultdict(list))
        for user, name, memory, text, vector in cursor:
            groups[user, name][text, bytes(vector)].append(str(memory))
    for (user, _), found in groups.items():
        yield str(user), list(found.values()), [vector for _, vector in found]


def _matrix(data: Sequence[bytes]) -> NDArray[np.float64]:
    """pgvector's binary form: the number of dimensions and 0, each in 2 bytes, then big-endian float4."""
    import numpy as np

    return np.frombuffer(b"".join(vector[4:] for vector in data), dtype=">f4").reshape(len(data), -1).astype(np.float64)


def near(vectors: NDArray[np.float64], threshold: float) -> Iterator[tuple[int, int, float]]:
    """Every pair (row, row, cosine) with cosine >= threshold, once, the lower row first.

    Found in float32, with room for its rounding, and judged in float64: none is lost.
    """
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=1)
    rows = np.flatnonzero(np.isfinite(lengths) & (lengths > 0))
    unit = vectors[rows] / lengths[rows, None]
    narrow = unit.astype(np.float32)
    least = threshold - (unit.shape[1] + 8) * _ROUNDING
    for start in range(0, len(rows), _BLOCK):
        block = narrow[start : start + _BLOCK] @ narrow[start:].T
        a, b = np.nonzero(np.triu(block >= least, k=1))
        for part in range(0, len(a), _BLOCK * 64):
            left, right = a[part : part + _BLOCK * 64] + start, b[part : part + _BLOCK * 64] + start
            exact = np.einsum("ij,ij->i", unit[left], unit[right])
            # equal vectors: 1, though the roots may not multiply to it
            exact = np.minimum(np.where(exact > 1 - 1e-12, 1.0, exact), 1.0)
            for n in np.flatnonzero(exact >= threshold):
                yield int(rows[left[n]]), int(rows[right[n]]), float(exact[n])
