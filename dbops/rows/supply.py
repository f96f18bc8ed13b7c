"""What values a column can get: proposed here, accepted by the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from dbops.rows.catalog import Check, Column, Table
from dbops.rows.constants import constants, suggestions
from dbops.rows.judge import Judge
from dbops.values import Pool, Type, certain, extreme, fresh, interesting

_SAMPLE = 60
_MINED = 400


def pool_of(judge: Judge, column: Column, checks: Sequence[Check], rng: Random, *, extremes: bool) -> tuple[Pool, bool]:
    """What to draw a column's values from, and whether NULL may be among them."""
    kind = refined(judge, column.type, rng)
    alone = [check for check in checks if set(check.columns) == {column.name}]
    mentioned = [check.expression for check in checks if column.name in check.columns]
    found = constants([column.default or "", *mentioned])
    mined = suggestions(kind, found, rng)[:_MINED]
    if mined:
        mined = judge.valid(kind, mined)
    # a uuid stands for one thing in the whole database: none is used twice on purpose
    plain = () if kind.name == "uuid" else interesting(kind)
    known = [v for v in dict.fromkeys((*mined, *plain)) if extremes or not extreme(kind, v)]
    if not certain(kind):
        known = judge.valid(kind, list(dict.fromkeys((*known, *(fresh(kind, rng) for _ in range(_SAMPLE))))))
    open_ended = certain(kind) and kind.kind != "enum" and kind.name != "bool"
    nullable = column.nullable and (kind.kind != "domain" or judge.accepts_null(kind))
    if not alone:
        return Pool(tuple(known), kind if open_ended else None), nullable
    sample = [fresh(kind, rng) for _ in range(_SAMPLE)] if open_ended else []
    row_of = [{column.name: value} for value in (None, *known, *sample)]
    one = Table(0, ("", ""), "", (replace(column, type=kind),))
    bad = [bool(refused) for refused in judge.refusals(one, alone, row_of)]
    passed = [v for v, refused in zip((*known, *sample), bad[1:], strict=True) if not refused]
    free = open_ended and not any(bad[1 + len(known) :])
    return Pool(tuple(dict.fromkeys(passed)), kind if free else None), nullable and not bad[0]


def refined(judge: Judge, kind: Type, rng: Random) -> Type:
    """The type with values for each domain in it that the domain's checks accept."""
    inner = refined(judge, kind.inner, rng) if kind.inner else None
    kind = replace(kind, inner=inner, fields=tuple(refined(judge, f, rng) for f in kind.fields))
    if kind.kind != "domain" or kind.labels:
        return kind
    sample = [*suggestions(kind, constants(kind.checks), rng), *interesting(kind)]
    sample += [fresh(kind, rng) for _ in range(_SAMPLE)]
    return replace(kind, labels=tuple(judge.valid(kind, list(dict.fromkeys(sample)))))
