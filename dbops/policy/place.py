"""Where in a definition file something stands, for errors that name file, line, table and key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dbops.errors import DefinitionError, shown
from dbops.policy.model import Name, TableRules

Keys = tuple[str | int, ...]
# strings of several lines may hold anything: only the other strings' and the comments' ends tell where one begins
_TEXTS = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|' + r"'''.*?'{3,5}|" + r'"(?:\\.|[^"\\\n])*"|' + r"'[^'\n]*'|#[^\n]*", re.DOTALL
)
_HEADER = re.compile(r"""^\s*(\[\[?)((?:"(?:\\.|[^"\\])*"|'[^']*'|[^"'\]])+)\]""")
_KEY = re.compile(r"""^\s*((?:"(?:\\.|[^"\\])*"|'[^']*'|[\w.\s-])+?)\s*=""")


def nearest(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """A hint: `did you mean "owner"?`, else `otherwise`."""
    close = get_close_matches(word, sorted(known), 1, 0.6)
    return f'did you mean "{close[0]}"?' if close else otherwise


def problem(path: Path, line: int, where: str, message: str, hint: str = "") -> DefinitionError:
    """`policies/app.toml:12: public.documents, owner: MESSAGE`."""
    parts = [f"{shown(path)}:{line}" if line else shown(path), *([where] if where else []), message]
    return DefinitionError(": ".join(parts), hint=f"{hint}; nothing was done" if hint else "nothing was done")


def unfit(rules: TableRules, key: str, message: str, hint: str = "") -> DefinitionError:
    """A rule that does not fit the database."""
    return problem(rules.path, rules.line, f"{rules.name}, {key}" if key else str(rules.name), message, hint)


@dataclass(frozen=True)
class Place:
    """A key of a file: `place / "owner"` is a key below it."""

    path: Path
    lines: Mapping[Keys, int]
    keys: Keys = ()
    table: Name | None = field(default=None)

    def __truediv__(self, key: str | int) -> Place:
        return Place(self.path, self.lines, (*self.keys, key), self.table)

    @property
    def line(self) -> int:
        """That of the key, or of the nearest key around it."""
        for end in range(len(self.keys), 0, -1):
            if self.keys[:end] in self.lines:
                return self.lines[self.keys[:end]]
        return 1

    def error(self, message: str, hint: str = "") -> DefinitionError:
        below = self.keys[2:] if self.table else self.keys
        key = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in below).lstrip(".")
        return problem(self.path, self.line, ", ".join(filter(None, [str(self.table or ""), key])), message, hint)


def lines_of(text: str) -> dict[Keys, int]:
    """The line of each header and key of a well-formed TOML text; tables of an array are numbered from 0."""
    found: dict[Keys, int] = {}
    numbers: dict[Keys, int] = {}
    prefix: Keys = ()
    for number, line in enumerate(_TEXTS.sub(_emptied, text).split("\n"), 1):
        if (match := _HEADER.match(line)) and (keys := _path(match[2])):
            prefix = keys
            if match[1] == "[[":
                numbers[keys] = numbers.get(keys, -1) + 1
                prefix = (*keys, numbers[keys])
            found.setdefault(prefix, number)
        elif (match := _KEY.match(line)) and (keys := _path(match[1])):
            for end in range(1, len(keys) + 1):
                found.setdefault((*prefix, *keys[:end]), number)
    return found


def _emptied(match: re.Match[str]) -> str:
    text = match[0]
    return '""' + "\n" * text.count("\n") if text[:3] in ('"""', "'''") else "" if text[0] == "#" else text


def _path(dotted: str) -> Keys:
    """The keys of `table."public.documents"`; none where it is no key after all (within an array)."""
    try:
        inner: Any = tomllib.loads(f"{dotted} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    keys: list[str] = []
    while isinstance(inner, dict):
        key = next(iter(inner))
        keys.append(key)
        inner = inner[key]
    return tuple(keys)
