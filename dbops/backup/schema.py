"""The schema files of a backup: pg_dump's text cut into entries, each run by itself and named where it fails.

What pg_dump sets at the head of its text is not run: a newer one writes settings that an older server does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from dbops.backup.model import Manifest, Name
from dbops.backup.objects import HINT, object_key, read_object
from dbops.backup.store import Store
from dbops.errors import BackupDamaged, ObjectMissing

_HEADER = re.compile(r"-- Name: (.*); Type: (.*?); Schema: (.*?); Owner: .*")
_SETTING = re.compile(r"SET default_(?:tablespace|table_access_method) = [^;]*")
_TOKEN = re.compile(
    r"""
    --[^\n]*                                              # pg_dump heads each entry with comments
  | /\*.*?\*/
  | \b[eE]'(?:[^'\\]|\\.|'')*'
  | '(?:[^']|'')*'
  | "(?:[^"]|"")*"
  | \$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$
  | ^\\[^\n]*                                             # a command of psql's
  | [^\W\d][\w$]*
  | [;()]
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_IDENTIFIER = r'"(?:[^"]|"")+"|[^\s".;(]+'
_ON_TABLE = re.compile(
    rf"(?:CREATE (?:UNIQUE )?INDEX (?:{_IDENTIFIER}) ON|ALTER TABLE ONLY) "
    rf"(?P<schema>{_IDENTIFIER})\.(?P<name>{_IDENTIFIER})\s+(?:USING|ADD CONSTRAINT)\s"
)


@dataclass(frozen=True)
class Entry:
    """An object of a dump: its statements without semicolons, and the settings under which they are meant."""

    kind: str
    name: str
    schema: str
    statements: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind.lower()} {self.name if self.schema == '-' else f'{self.schema}.{self.name}'}"

    @property
    def text(self) -> str:
        """One text for the simple protocol: it runs whole or not at all."""
        return "".join(f"{statement};\n" for statement in (*self.settings, *self.statements))

    @property
    def built_on(self) -> Name | None:
        """The table on which this entry builds an index or a constraint with one; None for every other entry."""
        match = _ON_TABLE.match(self.statements[0]) if self.statements else None
        if self.kind not in ("INDEX", "CONSTRAINT") or match is None:
            return None
        return Name(unquoted(match["schema"]), unquoted(match["name"]))


def read_entries(store: Store, manifest: Manifest, name: str) -> tuple[Entry, ...]:
    """The entries of a schema file of a backup. Raises BackupDamaged, ObjectMissing, StoreError."""
    return tuple(entries(read_text(store, manifest, name)))


def read_text(store: Store, manifest: Manifest, name: str) -> str:
    """The text of a file beside the manifest, proven by its hash."""
    known = next((each for each in manifest.objects if each.name == name), None)
    key = object_key(manifest.id, name)
    if known is None:
        raise BackupDamaged(f"{manifest.id}: the manifest names no {name}", hint=HINT)
    try:
        return read_object(store, key, known.sha256, known.raw_bytes).decode("utf-8", "surrogateescape")
    except ObjectMissing as error:  # the manifest promises it
        raise BackupDamaged(error.message, hint=HINT) from error


def entries(text: str) -> Iterator[Entry]:
    """The entries of pg_dump's text in its order. Raises BackupDamaged for a command of psql's that is not pg_dump's."""
    entry: Entry | None = None
    settings: dict[str, str] = {}
    for part in _parts(text):
        if isinstance(part, Entry):
            if entry and entry.statements:
                yield entry
            entry = replace(part, settings=tuple(settings.values()))
        elif _SETTING.fullmatch(part):
            settings[part.split(" ")[1]] = part
        elif entry:  # else pg_dump's head
            entry = replace(entry, statements=(*entry.statements, part))
    if entry and entry.statements:
        yield entry


def _parts(text: str) -> Iterator[Entry | str]:
    """Headers as empty entries, and statements without their semicolons."""
    start = depth = blocks = 0
    words: list[str] = []
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token[0] in "-\\" and not text[start : match.start()].strip():
            header = _HEADER.fullmatch(token)
            if header:
                yield Entry(header[2], header[1], header[3])
            elif token[0] == "\\":
                _only_restrict(token)
            start = match.end()
        elif token in "()":
            depth += 1 if token == "(" else -1
        elif token == ";" and depth <= 0 and blocks <= 0:
            yield text[start : match.start()].strip()
            start, depth, words = match.end(), 0, []
        elif token[0].isalpha():
            words = [*words[-1:], token.lower()]
            blocks = _blocks(words, blocks)


def _blocks(words: list[str], blocks: int) -> int:
    """How many ENDs are awaited: the semicolons in a function's BEGIN ATOMIC … END end no statement."""
    if words == ["begin", "atomic"] or (blocks and words[-1] == "case"):
        return blocks + 1
    return blocks - 1 if blocks and words[-1] == "end" else blocks


def _only_restrict(token: str) -> None:
    # new pg_dumps guard their text against commands of psql's with this pair
    if not re.fullmatch(r"\\(un)?restrict \w+\s*", token):
        raise BackupDamaged(
            f"the schema holds a command of psql's, {token.split()[0]}: no pg_dump writes that",
            hint="nothing was restored; somebody changed this backup",
        )


def identifiers(statement: str) -> frozenset[str]:
    """All names and words in a statement, unquoted, what stands in texts and comments left aside."""
    tokens: Iterable[str] = (match[0] for match in _TOKEN.finditer(statement))
    return frozenset(unquoted(token) for token in tokens if token[0] == '"' or token[0].isalpha() or token[0] == "_")


def unquoted(identifier: str) -> str:
    """An identifier's name."""
    return identifier[1:-1].replace('""', '"') if identifier.startswith('"') else identifier
