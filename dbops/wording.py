"""Numbers as they stand in sentences."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """`1 row`, `1,200 rows`, `2 memories`."""
    if number != 1:
        noun = f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeiou" else f"{noun}s"
    return f"{number:,} {noun}"
