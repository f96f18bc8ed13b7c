"""Texts that match a simple regular expression. Pure."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from random import Random

_CLASSES = {
    "d": string.digits,
    "w": string.ascii_lowercase + string.digits + "_",
    "s": " ",
    "D": string.ascii_lowercase,
    "W": "-",
    "S": string.ascii_lowercase,
    "alpha": string.ascii_letters,
    "digit": string.digits,
    "alnum": string.ascii_letters + string.digits,
    "lower": string.ascii_lowercase,
    "upper": string.ascii_uppercase,
    "space": " ",
    "punct": string.punctuation,
    "xdigit": string.hexdigits,
}
_PRINTABLE = string.ascii_lowercase + string.ascii_uppercase + string.digits + "-_. "
_ANY = string.ascii_lowercase + string.digits


def matching(pattern: str, rng: Random) -> str | None:
    """A text that matches a simple regular expression; None where the pattern is too clever."""
    sampler = _Sampler(pattern, rng)
    try:
        text = sampler.alternatives()
    except (IndexError, ValueError, KeyError):
        return None
    return text if sampler.at == len(pattern) else None


class _Sampler:
    """Reads a pattern from left to right and writes a text that matches it. No back references."""

    def __init__(self, pattern: str, rng: Random) -> None:
        self.pattern, self.rng, self.at = pattern, rng, 0

    def peek(self, *expected: str) -> bool:
        """Skip the first of the expected strings that comes next, if one does."""
        for text in expected:
            if self.pattern.startswith(text, self.at):
                self.at += len(text)
                return True
        return False

    def alternatives(self) -> str:
        branches = [self.sequence()]
        while self.peek("|"):
            branches.append(self.sequence())
        return self.rng.choice(branches)

    def sequence(self) -> str:
        parts: list[str] = []
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            if not self.peek("^", "$", "\\A", "\\Z", "\\m", "\\M", "\\y"):
                parts.append(self.repeated())
        return "".join(parts)

    def repeated(self) -> str:
        start = self.at
        first = self.atom()
        after = self.at
        low, high = self.quantifier()
        end = self.at
        texts = [first] if high else []
        for _ in range(self.rng.randint(low, high) - 1):
            self.at = start
            texts.append(self.atom())
            assert self.at == after
        self.at = end
        return "".join(texts) if low or self.rng.random() < 0.7 else ""

    def quantifier(self) -> tuple[int, int]:
        low, high = 1, 1
        if self.peek("*", "+"):
            low, high = (0 if self.pattern[self.at - 1] == "*" else 1), 5
        elif self.peek("?"):
            low = 0
        elif bounds := re.compile(r"\{(\d+)(,?)(\d*)\}").match(self.pattern, self.at):
            self.at = bounds.end()
            low = int(bounds[1])
            high = int(bounds[3]) if bounds[3] else low + (5 if bounds[2] else 0)
        if (low, high) != (1, 1):
            self.peek("?")  # not greedy: the same texts match
        return low, high

    def atom(self) -> str:
        if self.peek("("):
            if self.peek("?!", "?=", "?<"):
                raise ValueError("a look-around says nothing about the text")
            self.peek("?:")
            text = self.alternatives()
            if not self.peek(")"):
                raise ValueError("an open group")
            return text
        if self.peek("["):
            return self.rng.choice(self.bracket())
        if self.peek("."):
            return self.rng.choice(_ANY)
        if self.peek("\\"):
            return self.rng.choice(self.escape())
        self.at += 1
        return self.pattern[self.at - 1]

    def escape(self) -> str:
        self.at += 1
        letter = self.pattern[self.at - 1]
        if letter.isdigit():
            raise ValueError("a back reference")
        return _CLASSES.get(letter, {"n": "\n", "t": "\t"}.get(letter, letter))

    def bracket(self) -> Sequence[str]:
        negated = self.peek("^")
        chars = self.member()
        while not self.peek("]"):
            if self.pattern[self.at] == "-" and self.pattern[self.at + 1] != "]":
                self.at += 1
                chars = chars[:-1] + "".join(map(chr, range(ord(chars[-1]), ord(self.member()) + 1)))
            else:
                chars += self.member()
        return sorted(set(_PRINTABLE) - set(chars)) if negated else chars

    def member(self) -> str:
        if self.peek("[:"):
            end = self.pattern.index(":]", self.at)
            name, self.at = self.pattern[self.at : end], end + 2
            return _CLASSES[name]
        if self.peek("\\"):
            return self.escape()
        self.at += 1
        return self.pattern[self.at - 1]
