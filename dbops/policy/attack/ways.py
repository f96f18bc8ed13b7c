"""The ways in which a predicate may be true, cut out of its text as PostgreSQL prints it. Pure; no operator is rewritten.

`(a OR b) AND c` is true in two ways, by `a, c` and by `b, c`: each of them may open rows, so each is to be tried.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

MOST = 200  # ways of one predicate; nobody reads a longer one
TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|[()\[\],]|[^\W\d][\w$]*""")
_STRING = re.compile(r"'(?:[^']|'')*'")
_NAME = r'(?:[^\W\d][\w$]*|"(?:[^"]|"")+")'
# PostgreSQL prints the schema of every function that is not its own
_CALL = re.compile(rf"({_NAME})\s*\.\s*({_NAME})\s*\(")
_SESSION = re.compile(
    r"\b(select|current_setting\(|current_user|current_role|session_user|user|pg_has_role\()", re.IGNORECASE
)
Parts = tuple[str, ...]


class TooMany(ValueError):
    """A predicate with more than `MOST` ways to be true."""


@dataclass(frozen=True)
class Way:
    """Parts that are true together. `loose` are those that read columns which say nothing of whose the row is."""

    parts: Parts
    loose: Parts
    columns: Parts  # that the loose parts read
    impossible: bool = False  # on the face of it: rows are tried all the same, for a collation may see it otherwise

    @property
    def text(self) -> str:
        return joined(self.parts)

    @property
    def values(self) -> Parts:
        """The loose parts that the row alone decides."""
        return tuple(part for part in self.loose if not asks_session(part))

    @property
    def opaque(self) -> Parts:
        """The loose parts in which a session and values are mixed: one outcome says little of the others."""
        return tuple(part for part in self.loose if asks_session(part))

    def about(self, table: str, column: str) -> list[str]:
        """The loose parts that read the column."""
        return [part for part in self.loose if reads(part, table, column)]


def joined(parts: Iterable[str]) -> str:
    return " AND ".join(map(enclosed, parts)) or "true"


def enclosed(part: str) -> str:
    # the line's end closes a comment at the end of a predicate that is as somebody wrote it
    return f"({part}\n)" if "--" in part else f"({part})"


def ways_of(predicate: str, table: str, columns: Iterable[str], scope: Iterable[str]) -> list[Way]:
    """The ways of a predicate on the table with these columns; `scope` says whose a row is. Raises TooMany."""
    free = [column for column in columns if column not in set(scope)]
    found = []
    for parts in dict.fromkeys(true_ways(predicate)):
        read = {part: [column for column in free if reads(part, table, column)] for part in parts}
        loose = tuple(part for part in parts if read[part])
        columns_ = tuple(dict.fromkeys(c for part in loose for c in read[part]))
        found.append(Way(parts, loose, columns_, contradicts(parts)))
    return found


def without_strings(text: str) -> str:
    return _STRING.sub("''", text)


def asks_session(part: str) -> bool:
    """Whether anything but the row has a say: who asks, another table, a function of the user's."""
    plain = without_strings(part)
    return bool(_SESSION.search(plain) or _CALL.search(plain))


def calls(text: str) -> list[tuple[str, str]]:
    """The functions, by schema and name, that are not PostgreSQL's own."""
    return [(bare(schema), bare(name)) for schema, name in _CALL.findall(without_strings(text))]


def reads(part: str, table: str, column: str) -> bool:
    """Whether the part reads this column: in a subquery it stands behind the table's name."""
    plain = without_strings(part)
    for match in TOKEN.finditer(plain):
        called = plain[match.end() :].lstrip().startswith("(") and not match[0].startswith('"')
        if bare(match[0]) == column and not called:
            before = re.search(rf"({_NAME})\.$", plain[: match.start()])
            if not plain[: match.start()].endswith(".") or (before and bare(before[1]) == table):
                return True
    return False


def bare(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


# --- cutting ---


def unwrapped(text: str) -> str:
    """Without the parentheses around the whole of it; a subquery keeps its own."""
    inner = text.strip()
    while inner.startswith("(") and end_of(inner) == len(inner):
        within = inner[1:-1].strip()
        if re.match(r"(select|values|with)\b", within, re.IGNORECASE):
            break
        inner = within
    return inner


def split(text: str, word: str) -> list[str]:
    """The text cut at this word or comma, outside of parentheses and CASE. BETWEEN has an AND of its own."""
    parts, start, depth, between = [], 0, 0, 0
    for match in TOKEN.finditer(text):
        token = match[0].lower()
        depth += (token in ("(", "[", "case")) - (token in (")", "]", "end"))
        if depth == 0 and token == "between":
            between += 1
        elif depth == 0 and token == "and" and between:
            between -= 1
        elif depth == 0 and token == word:
            parts.append(text[start : match.start()].strip())
            start = match.end()
    return [*parts, text[start:].strip()]


def end_of(text: str) -> int:
    """Where the parenthesis or CASE that opens first is closed."""
    depth = 0
    for match in TOKEN.finditer(text):
        token = match[0].lower()
        depth += (token in ("(", "[", "case")) - (token in (")", "]", "end"))
        if depth == 0 and token in (")", "]", "end"):
            return match.end()
    return len(text) + 1


def true_ways(text: str) -> list[Parts]:
    inner = unwrapped(text)
    if len(either := split(inner, "or")) > 1:
        return _bounded(parts for each in either for parts in true_ways(each))
    if len(both := split(inner, "and")) > 1:
        return _together(*map(true_ways, both))
    if negated := re.match(r"not\b(.*)", inner, re.IGNORECASE | re.DOTALL):
        return _false(negated[1])
    if held := re.match(r"(\(.*\)) is true$", inner, re.IGNORECASE | re.DOTALL):
        return true_ways(held[1])
    if inner.lower() in ("true", "false", "null::boolean"):
        return [()] if inner.lower() == "true" else []
    return _coalesced(inner) or _cased(inner) or [(inner,)]


def _false(text: str) -> list[Parts]:
    """The ways in which NOT `text` is true."""
    inner = unwrapped(text)
    if len(either := split(inner, "or")) > 1:
        return _together(*map(_false, either))
    if len(both := split(inner, "and")) > 1:
        return _bounded(parts for each in both for parts in _false(each))
    if negated := re.match(r"not\b(.*)", inner, re.IGNORECASE | re.DOTALL):
        return true_ways(negated[1])
    if inner.lower() in ("true", "false", "null::boolean"):
        return [()] if inner.lower() == "false" else []
    return [(f"NOT ({inner})",)]


def _coalesced(text: str) -> list[Parts]:
    """COALESCE(a, b) is true where a is, or where a is NULL and b is true."""
    match = re.match(r"coalesce(?=\()", text, re.IGNORECASE)
    if not match or end_of(text) != len(text):
        return []
    first, *others = split(text[match.end() + 1 : -1], ",")
    rest = true_ways(f"COALESCE({', '.join(others)})" if len(others) > 1 else others[0]) if others else []
    return _bounded([*true_ways(first), *_together([(f"({first}) IS NULL",)], rest)])


def _cased(text: str) -> list[Parts]:
    """CASE WHEN: each result with its condition and without those before it."""
    match = re.match(r"case(?=\s+when\b)", text, re.IGNORECASE)
    if not match or end_of(text) != len(text):
        return []
    # split at WHEN leaves nothing in front of the first
    branches, *last = split(text[match.end() : -len("end")], "else")
    found: list[Parts] = []
    passed: list[str] = []
    for branch in split(branches, "when")[1:]:
        condition, result = split(branch, "then")
        found += _together([tuple(passed)], true_ways(condition), true_ways(result))
        passed.append(f"({condition}) IS NOT TRUE")
    return _bounded([*found, *_together([tuple(passed)], true_ways(last[0]) if last else [])])


def _together(*each: list[Parts]) -> list[Parts]:
    return _bounded(tuple(dict.fromkeys(part for parts in chosen for part in parts)) for chosen in product(*each))


def _bounded(found: Iterable[Parts]) -> list[Parts]:
    def counted() -> Iterator[Parts]:
        for number, parts in enumerate(found):
            if number >= MOST:
                raise TooMany(f"it has more than {MOST} ways to be true")
            yield parts

    return list(counted())


def contradicts(parts: Parts) -> bool:
    """Whether the parts cannot hold together on the face of it: a and not a, or a column equal to two constants."""
    texts = {unwrapped(part) for part in parts}
    if any(f"NOT ({text})" in texts for text in texts):
        return True
    constants = dict[str, str]()
    for text in texts:
        equal = re.fullmatch(rf"({_NAME}) = ('(?:[^']|'')*'::[\w ]+|-?\d+)", text)
        if equal and constants.setdefault(equal[1], equal[2]) != equal[2]:
            return True
    return False
