"""The guard: whether two near-duplicates say different things, an update or a contradiction, and not the same twice.

It compares numbers, dates, negations and names. A name is known by its capital; in a text without capitals (lower case,
or a script that has none) any content word that stands for another one may be a name, and is taken as one.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from dbops.hygiene.words import (
    DATES,
    FUNCTION,
    FUNCTION_CHARACTERS,
    NEGATING_CHARACTERS,
    NEGATING_ENDINGS,
    NEGATING_PARTS,
    NEGATING_PREFIXES,
    NEGATIONS,
    NUMBERS,
    OPPOSITES,
)

Reason = Literal["number", "date", "negation", "name", "order", "word"]

# an ideograph or kana alone, as these scripts have no blanks; else letters with marks, or a number with what belongs to it
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0e7f]"
    r"|(?:(?<!\w)[-−+])?\d(?:[\d.,:/-]*\d)?[a-z%°]*"
    r"|[^\W\d_](?:[\w\u0900-\u097f\u0610-\u065f]|['’](?=\w)|[-+#](?=\w))*(?:\+\+|#)?",
    re.IGNORECASE,
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_DATE = re.compile(r"\d{4}-\d{1,2}(-\d{1,2})?|\d{1,2}[./]\d{1,2}[./]\d{2,4}|(19|20)\d\ds?")
_SENTENCE_END = re.compile(r"(?:^\s*|[.!?:…]\s+|[\"“«(]\s*)$")
_SUFFIXES = {"", "s", "es", "d", "ed", "ing", "ly", "e", "n", "en", "er", "ne", "a", "ę", "ą", "y"}
_MUCH = 10_000  # pairs of words that differ: past that, texts are not compared word by word
_CONTRACTED = {"cannot": ("can", "not"), "cant": ("can", "not"), "can't": ("can", "not")}


@dataclass(frozen=True)
class _Text:
    """What the guard sees of a text, in its order."""

    words: tuple[str, ...]  # lower-cased, without a possessive's ending
    numbers: tuple[str, ...]
    dates: tuple[str, ...]
    denies: bool
    names: tuple[str, ...]  # with a capital inside a sentence, or more than one capital
    starts: tuple[str, ...]  # with a capital that a sentence's start explains
    cased: bool


def guard(a: str, b: str) -> Reason | None:
    """Why two texts are not the same fact said twice; None where nothing speaks against it. Symmetric."""
    if a == b:
        return None
    left, right = _seen(a), _seen(b)
    if Counter(left.dates) != Counter(right.dates):
        return "date"
    if left.numbers != right.numbers:
        return "number"
    if left.denies != right.denies:
        return "negation"
    gone, come = set(left.words) - set(right.words), set(right.words) - set(left.words)
    if len(gone) * len(come) > _MUCH:
        return "word"
    if any(_opposite(a, b) for a in gone for b in come):
        return "negation"
    if _foreign(left, right) or _foreign(right, left):
        return "name"
    if not (left.cased and right.cased) and _exchanged(left, right):
        return "word"
    return "order" if _turned(left, right) else None


@lru_cache(maxsize=4096)
def _seen(text: str) -> _Text:
    text = unicodedata.normalize("NFKC", text)
    cased = text not in (text.lower(), text.upper())
    words, numbers, dates, names, starts = list[str](), list[str](), list[str](), list[str](), list[str]()
    for match in _WORD.finditer(text):
        word = match[0].replace("’", "'").replace("−", "-")
        plain = word.casefold()
        if not word[0].isalpha() and (word[0] in "+-" or word[0].isdigit()):
            _number(plain, numbers, dates)
            continue
        if plain in NUMBERS:
            numbers.append(NUMBERS[plain])
            continue
        plain = plain.removesuffix("'s") if len(plain) > 3 else plain
        # a month or weekday; "may" and "march" are verbs as well, in lower case
        if plain in DATES or plain.removesuffix("s") in DATES:
            dates.append(plain.removesuffix("s"))
        words.extend(_CONTRACTED.get(plain, (plain,)))
        if cased and word != word.lower() and plain not in FUNCTION:
            initial = word[1:] == word[1:].lower() and _SENTENCE_END.search(
                text[max(match.start() - 9, 0) : match.start()]
            )
            (starts if initial else names).append(plain)
    return _Text(
        tuple(words), tuple(numbers), tuple(dates), _denies(text.casefold(), words), tuple(names), tuple(starts), cased
    )


def _number(word: str, numbers: list[str], dates: list[str]) -> None:
    value = _THOUSANDS.sub("", word.rstrip(".,:/-").removeprefix("+"))
    value = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in value)
    (dates if _DATE.fullmatch(value) else numbers).append(value)


def _denies(text: str, words: list[str]) -> bool:
    """Whether the text denies anything: "ne … pas" and a doubled denial are one."""
    if not NEGATIONS.isdisjoint(words) or "n't" in text or "n’t" in text:
        return True
    if text.isascii():
        return False
    return not NEGATING_CHARACTERS.isdisjoint(words) or any(part in text for part in NEGATING_PARTS)


def _opposite(a: str, b: str) -> bool:
    """Whether a word stands against another: "always" and "never", "able" and "unable"."""
    if frozenset((a, b)) in OPPOSITES or frozenset((a.removesuffix("s"), b.removesuffix("s"))) in OPPOSITES:
        return True
    short, long = sorted((a, b), key=len)
    if len(short) > 3 and any(long == prefix + short for prefix in NEGATING_PREFIXES):
        return True
    stem = short[:3]
    return long.startswith(stem) and long.endswith(NEGATING_ENDINGS) and not short.endswith(NEGATING_ENDINGS)


def _turned(left: _Text, right: _Text) -> bool:
    """Whether the same words stand in another order that may say something else: who does it to whom, what is denied."""
    if not _same_bag(left, right):
        return False
    if left.denies or not (left.cased and right.cased):
        return True
    # "Anna on Monday" and "on Monday Anna" is one fact, "Bob introduced Alice" and the reverse are two
    people = {*left.names, *left.starts} & {*right.names, *right.starts} - DATES
    return [w for w in left.words if w in people] != [w for w in right.words if w in people]


def _foreign(one: _Text, other: _Text) -> set[str]:
    """The names of one text that the other one does not know."""
    known = set(other.words)
    found = {name for name in one.names if name not in known and name not in DATES}
    # "Alice likes tea" and "Bob likes tea", but not "Really likes tea" and "Likes tea"
    replaced = not any(start in one.words for start in other.starts)
    if replaced and other.starts:
        found |= {s for s in one.starts if s not in known and s not in FUNCTION and not _inflected_in(s, known)}
    return found


def _inflected_in(word: str, words: set[str]) -> bool:
    return any(_inflected(word, other) for other in words)


def _inflected(a: str, b: str) -> bool:
    """Whether one word is a form of the other, by their endings."""
    stem = 0
    while stem < min(len(a), len(b)) and a[stem] == b[stem]:
        stem += 1
    return stem >= 3 and a[stem:] in _SUFFIXES and b[stem:] in _SUFFIXES


def _content(words: tuple[str, ...]) -> list[str]:
    return [w for w in words if w not in FUNCTION and w not in NEGATIONS and w not in FUNCTION_CHARACTERS]


def _exchanged(left: _Text, right: _Text) -> bool:
    """Whether each text has content words that the other has in no form: without capitals, maybe a name."""
    only_left = [w for w in _content(left.words) if w not in right.words and not _inflected_in(w, set(right.words))]
    only_right = [w for w in _content(right.words) if w not in left.words and not _inflected_in(w, set(left.words))]
    return bool(only_left and only_right)


def _same_bag(left: _Text, right: _Text) -> bool:
    return Counter(_content(left.words)) == Counter(_content(right.words)) and _content(left.words) != _content(
        right.words
    )
