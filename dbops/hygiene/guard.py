"""The guard: whether two near-duplicates say different things, an update or a contradiction, and not the same twice.

It compares numbers with their units, dates, negations, signs and names. A name is known by its capital; in a text
without capitals (lower case, or a script that has none) any content word that stands for another one may be a name, and
is taken as one.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence, Set
from functools import lru_cache
from hashlib import sha256
from typing import Literal, NamedTuple

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
    UNITS,
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
_UNIT = re.compile(r"\s?(?:([ap])\.\s?m\b|(°[cf]\b|[%$€£¥₹]|[^\W\d_]+))", re.IGNORECASE)
_NUMBER = re.compile(r"([-\d.,:/]*\d)(.*)")
_SENTENCE_END = re.compile(r"(?:^\s*|[.!?:…]\s+|[\"“«(]\s*)$")
_SUFFIXES = {"", "s", "es", "d", "ed", "ing", "ly", "e", "n", "en", "er", "ne", "a", "ę", "ą", "y"}
_PART = re.compile("|".join(NEGATING_PARTS))
_MUCH = 10_000  # pairs of words that differ: past that, texts are not compared word by word
_SIGNS = {"Sm", "Sc", "So"}  # of mathematics, currencies, and emoji
_PLAIN = re.compile(r"[\w\s.,;:!?'\"()/-]*")
_SHORT = 1000  # characters: what is longer is not kept in memory for long
_CONTRACTED = {"cannot": ("can", "not"), "cant": ("can", "not"), "can't": ("can", "not")}


class _Text(NamedTuple):
    """What the guard sees of a text, in its order."""

    words: tuple[str, ...]  # lower-cased, without a possessive's ending
    known: frozenset[str]  # the words
    numbers: tuple[tuple[str, str], ...]  # with what they count
    dates: tuple[str, ...]  # sorted
    denials: int
    content: tuple[str, ...]  # the words that say something
    bag: tuple[str, ...]  # these, sorted
    signs: frozenset[str]
    names: tuple[str, ...]  # with a capital inside a sentence, or more than one capital
    starts: tuple[str, ...]  # with a capital that a sentence's start explains
    cased: bool


def guard(a: str, b: str) -> Reason | None:
    """Why two texts are not the same fact said twice; None where nothing speaks against it. Symmetric."""
    if a == b:
        return None
    left, right = _seen(a), _seen(b)
    if left.dates != right.dates:
        return "date"
    if not _counted_alike(left.numbers, right.numbers):
        return "number"
    if left.denials != right.denials:
        return "negation"
    gone, come = left.known - right.known, right.known - left.known
    if len(gone) * len(come) > _MUCH or (left.signs - right.signs and right.signs - left.signs):
        return "word"
    if any(_opposite(a, b) for a in gone for b in come):
        return "negation"
    if _foreign(left, right) or _foreign(right, left):
        return "name"
    if not (left.cased and right.cased) and _new(gone, right) and _new(come, left):
        return "word"
    return "order" if _turned(left, right) else None


def key(text: str) -> Hashable:
    """Texts with one key are the same to the guard: they differ in capitals and punctuation at most."""
    seen = _seen(text)
    parts = (seen.words, seen.numbers, seen.dates, seen.denials, tuple(sorted(seen.signs)))
    return parts if len(text) <= _SHORT else sha256(repr(parts).encode("utf-8", "backslashreplace")).digest()


def _seen(text: str) -> _Text:
    return _seen_short(text) if len(text) <= _SHORT else _seen_long(text)


def _read(text: str) -> _Text:
    text = unicodedata.normalize("NFKC", text).replace("’", "'").replace("−", "-")
    cased = text not in (text.lower(), text.upper())
    words, dates, names, starts = list[str](), list[str](), list[str](), list[str]()
    numbers, end = list[tuple[str, str]](), 0
    for match in _WORD.finditer(text):
        if end and match.start() < end:  # a number's unit
            continue
        word = match[0]
        plain = folded = word.casefold()
        number = not word[0].isalpha() and (word[0] in "+-" or word[0].isdigit())
        if number or plain in NUMBERS:
            unit, end = _unit(text, match)
            if number:
                _number(plain, unit, numbers, dates)
            else:
                numbers.append((NUMBERS[plain], unit))
            continue
        if len(plain) > 3 and plain[-1] == "s":
            plain = plain.removesuffix("'s")
        # a month or weekday; "may" and "march" are verbs as well, in lower case
        if plain in DATES or (plain[-1] == "s" and plain[:-1] in DATES):
            dates.append(plain.removesuffix("s"))
        if plain in _CONTRACTED:  # never a name, whatever its capitals
            words += _CONTRACTED[plain]
            continue
        words.append(plain)
        if cased and word != folded and word != word.lower() and plain not in FUNCTION:
            initial = word[1:] == word[1:].lower() and _SENTENCE_END.search(
                text[max(match.start() - 9, 0) : match.start()]
            )
            (starts if initial else names).append(plain)
    content = _content(words)
    # most texts have nothing else than these
    rare = () if _PLAIN.fullmatch(text) else {*text} - {*UNITS, "°"}
    signs = frozenset(c for c in rare if unicodedata.category(c) in _SIGNS)
    return _Text(
        tuple(words), frozenset(words), tuple(numbers), tuple(sorted(dates)), _denials(text.casefold(), words),
        tuple(content), tuple(sorted(content)), signs, tuple(names), tuple(starts), cased,
    )  # fmt: skip


_seen_short, _seen_long = lru_cache(4096)(_read), lru_cache(16)(_read)


def _unit(text: str, match: re.Match[str]) -> tuple[str, int]:
    """What a number counts, if that is known, and where it ends: "$9", "9 dollars", "10 p.m."."""
    before = text[max(match.start() - 2, 0) : match.start()].strip()[-1:]
    after = _UNIT.match(text, match.end())
    word = f"{after[1]}.m" if after and after[1] else after[2] if after else ""
    unit = UNITS.get(word.casefold(), "")
    if unit and after:
        return unit, after.end()
    return UNITS.get(before, "") if not before.isalpha() else "", match.end()


def _number(word: str, unit: str, numbers: list[tuple[str, str]], dates: list[str]) -> None:
    value = _THOUSANDS.sub("", word.rstrip(".,:/-").removeprefix("+"))
    value = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in value)
    if _DATE.fullmatch(value):
        dates.append(value)
    elif (parts := _NUMBER.fullmatch(value)) and parts[2] in UNITS:
        numbers.append((parts[1], UNITS[parts[2]]))
    else:
        numbers.append((value, unit))


def _counted_alike(one: Sequence[tuple[str, str]], other: Sequence[tuple[str, str]]) -> bool:
    """Whether the numbers are the same; one without a unit may be of any."""
    if one == other:
        return True
    return len(one) == len(other) and all(
        a == b and (not unit or not also or unit == also) for (a, unit), (b, also) in zip(one, other, strict=True)
    )


def _denials(text: str, words: list[str]) -> int:
    """How often the text denies something: "ne … pas" does it once."""
    found = 0
    if "n't" in text or not NEGATIONS.isdisjoint(words):
        found = sum(word.endswith("n't") or (word in NEGATIONS and word not in ("ne", "n")) for word in words)
    if not text.isascii():
        found += sum(word in NEGATING_CHARACTERS for word in words) + len(_PART.findall(text))
    return found or int(not NEGATIONS.isdisjoint(words))


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
    if left.bag != right.bag or left.content == right.content:
        return False
    if left.denials or not (left.cased and right.cased):
        return True
    # "Anna on Monday" and "on Monday Anna" is one fact, "Bob introduced Alice" and the reverse are two
    people = {*left.names, *left.starts} & {*right.names, *right.starts} - DATES
    return [w for w in left.words if w in people] != [w for w in right.words if w in people]


def _foreign(one: _Text, other: _Text) -> set[str]:
    """The names of one text that the other one does not know."""
    found = {name for name in one.names if name not in other.known and name not in DATES}
    # "Alice likes tea" and "Bob likes tea", but not "Really likes tea" and "Likes tea"
    replaced = not any(start in one.known for start in other.starts)
    if replaced and other.starts:
        found |= set(_new({start for start in one.starts if start not in other.known}, other))
    return found


def _new(words: Set[str], other: _Text) -> list[str]:
    """Those content words that the other text has in no form."""
    if not words:
        return []
    stems: dict[str, list[str]] = defaultdict(list)
    for word in other.known:
        stems[word[:3]].append(word)
    return [w for w in _content(words) if not any(_inflected(w, known) for known in stems.get(w[:3], ()))]


def _inflected(a: str, b: str) -> bool:
    """Whether one word is a form of the other, by their endings."""
    stem = 0
    while stem < min(len(a), len(b)) and a[stem] == b[stem]:
        stem += 1
    return stem >= 3 and a[stem:] in _SUFFIXES and b[stem:] in _SUFFIXES


def _content(words: Iterable[str]) -> list[str]:
    return [w for w in words if w not in FUNCTION and w not in NEGATIONS and w not in FUNCTION_CHARACTERS]
