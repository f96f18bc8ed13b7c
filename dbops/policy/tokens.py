"""A predicate's text cut into PostgreSQL's tokens: enough to know that it stays within the parentheses put around it.

https://www.postgresql.org/docs/current/sql-syntax-lexical.html, with standard_conforming_strings on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

Kind = Literal["word", "quoted", "string", "number", "symbol"]
# what is not closed falls through to `open`; every character beyond ASCII is a letter, and folding is ASCII's
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n\f\v]+|--[^\r\n]*[\r\n]|/\*)
      | (?P<string>e'(?:[^'\\]|\\.|'')*'(?:\s*[\r\n]\s*'(?:[^'\\]|\\.|'')*')*(?!')
          | (?:[bnx]|u&)?'(?:[^']|'')*'(?!') | \$(?P<tag>(?:[a-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*)?)\$.*?\$(?P=tag)\$)
      | (?P<quoted>(?:u&)?"(?:[^"]|"")+"(?!"))
      | (?P<open>e'|(?:[bnx]|u&)?'|(?:u&)?"|--|\$(?:[a-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*)?\$)
      | (?P<word>[a-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*)
      | (?P<number>\.?\d[\w.]*|\$\d+)
      | (?P<symbol>::|:=|[-+*/<>=~!@#%^&|`?]+|.)""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_FOLD = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_COMMENT = re.compile(r"/\*|\*/")
_OPENS = {")": "(", "]": "["}
# words that begin a statement: the first ones are reserved and can begin nothing else
_QUERY = {"select", "with", "table", "grant", "create"}
_STATEMENTS = {
    "insert", "update", "delete", "merge", "values", "alter", "drop", "revoke", "truncate", "copy", "do", "call", "set",
    "reset", "lock", "comment", "begin", "commit", "rollback", "execute", "prepare", "explain", "notify", "refresh",
    "vacuum", "analyze", "reindex", "cluster", "security", "import", "listen",
}  # fmt: skip


@dataclass(frozen=True)
class Token:
    """`text` as PostgreSQL takes it: a bare word in lower case, a quoted one without its quotes."""

    kind: Kind
    text: str
    depth: int  # how many parentheses and brackets are open around it; a bracket itself counts as outside

    @property
    def name(self) -> bool:
        return self.kind in ("word", "quoted")


@cache
def tokens(text: str) -> tuple[Token, ...]:
    """The tokens of one expression.

    Raises ValueError with the reason where the text is none, or would reach out of the parentheses put around it.
    """
    found: list[Token] = []
    opened: list[str] = []
    for kind, part in _cut(text):
        if part in _OPENS and kind == "symbol" and (not opened or opened.pop() != _OPENS[part]):
            raise ValueError(f"there is a {part} without its {_OPENS[part]}")
        if kind == "symbol" and part == ";":
            raise ValueError("there is a semicolon: one expression is wanted, no statements")
        if kind == "symbol" and part == "," and not opened:
            raise ValueError("there is a comma: one expression is wanted")
        found.append(Token(kind, part, len(opened)))
        if kind == "symbol" and part in _OPENS.values():
            opened.append(part)
    if opened:
        raise ValueError(f"a {opened[-1]} is not closed")
    _refuse_statement(found)
    return tuple(found)


def folded(word: str) -> str:
    """A bare name as PostgreSQL takes it: A to Z in lower case, all else as it is."""
    return word.translate(_FOLD)


def _refuse_statement(found: Sequence[Token]) -> None:
    if not found:
        raise ValueError("it is empty")
    first, second = found[0], found[1] if len(found) > 1 else None
    follows = second is not None and (second.name or (first.text, second.text) == ("values", "("))
    if first.kind == "word" and (first.text in _QUERY or (first.text in _STATEMENTS and follows)):
        raise ValueError(f"it is a statement ({first.text.upper()}): one boolean expression is wanted")


def _cut(text: str) -> Iterator[tuple[Kind, str]]:
    if "\0" in text:
        raise ValueError("it holds a NUL character")
    at = 0
    while match := _TOKEN.match(text, at):
        kind, part, at = match.lastgroup, match[0], match.end()
        if part == "/*":
            at = _end_of_comment(text, at)
        elif match["open"]:
            what = "a comment (--) swallows what follows" if part == "--" else f"a {part} is not closed"
            raise ValueError(what)
        elif match["symbol"]:
            part, at = _operator(part, at)
            yield "symbol", part
        elif match["string"]:
            yield "string", part
        elif kind == "word":
            yield "word", folded(part)
        elif kind == "number":
            yield "number", part
        elif kind == "quoted":
            yield "quoted", part[part.index('"') + 1 : -1].replace('""', '"')


def _operator(part: str, end: int) -> tuple[str, int]:
    """A comment may begin right behind an operator: `a <-- b`."""
    cut = min((part.index(mark) for mark in ("--", "/*") if mark in part), default=len(part))
    return part[:cut], end - (len(part) - cut)


def _end_of_comment(text: str, at: int) -> int:
    depth = 1
    for match in _COMMENT.finditer(text, at):
        depth += 1 if match[0] == "/*" else -1
        if not depth:
            return match.end()
    raise ValueError("a comment (/*) is not closed")
