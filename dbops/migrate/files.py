"""Migration files: dbmate's format, plain SQL, `*.up.sql`/`*.down.sql` pairs, JSON.

Reading needs no parser and no server: a folder of 5,000 files is read in a fraction of a second.
The formats are described in docs/migration-files.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dbops.errors import MigrationFileError, shown

_FILE = re.compile(
    r"^(?:V(?P<flyway>\d+(?:[._]\d+)*)__|(?P<version>\d{8}_\d{6}|\d+)[_-])(?P<name>.+?)(?P<part>\.up|\.down)?\.(?P<kind>sql|json)$",
    re.I,
)
_NUMBER_ONLY = re.compile(r"^(?P<version>\d{8}_\d{6}|\d+)(?P<name>)(?P<part>\.up|\.down)?\.(?P<kind>sql|json)$", re.I)
_DIRECTIVE = re.compile(r"^--[ \t]*migrate:[ \t]*(\S+)[ \t]*(.*?)[ \t]*$", re.MULTILINE)
# possessive: nothing is tried twice, however many blank lines there are
_COMMENT_OR_BLANK = re.compile(r"[\s;]+|--[^\n]*|/\*.*?\*/", re.DOTALL)
_JSON_KEYS = {"version", "name", "up", "down", "requires", "loses", "transaction", "description"}
LARGEST = 64 * 1024 * 1024


@dataclass(frozen=True)
class Script:
    """One direction of a migration. `line` is where its text begins in `path`, counted from 1."""

    sql: str
    path: Path
    line: int = 1
    transaction: bool = True


@dataclass(frozen=True)
class Migration:
    """A migration as its file has it."""

    version: str
    name: str
    path: Path
    up: Script
    down: Script | None = None
    requires: tuple[str, ...] = ()
    loses: str = ""

    @property
    def checksum(self) -> str:
        """SHA-256 (hex) of the up part with its line endings normalised."""
        return text_checksum(self.up.sql)

    @property
    def order(self) -> tuple[int, ...]:
        return version_order(self.version)


def text_checksum(text: str) -> str:
    """SHA-256 (hex) of a text with its line endings normalised."""
    return hashlib.sha256(text.replace("\r\n", "\n").replace("\r", "\n").strip().encode("utf-8")).hexdigest()


def version_order(version: str) -> tuple[int, ...]:
    """The key that sorts versions: `20250101_000001` stands among 14-digit ones, Flyway's `1.10` after `1.9`."""
    if re.fullmatch(r"\d{8}_\d{6}", version):
        return (int(version.replace("_", "")),)
    return tuple(int(part) for part in re.findall(r"\d+", version))


def read_folder(folder: Path) -> tuple[Migration, ...]:
    """The migrations of a folder in order of their versions; empty where the folder does not exist.

    Raises MigrationFileError for a malformed name, a duplicate version, a link out of the folder, or a bad file.
    """
    found: dict[tuple[int, ...], Migration] = {}
    halves: dict[tuple[str, str], dict[str, Path]] = {}
    root = os.path.realpath(folder)
    for entry in _entries(folder):
        path = folder / entry.name
        if entry.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
            raise MigrationFileError(
                f"{shown(path)}: a link out of the folder", hint="copy the file into the folder; nothing was applied"
            )
        version, name, part, kind = _parse_name(path)
        if part:
            parts = halves.setdefault((version, name), {})
            if part in parts:
                raise _duplicate(version, path, parts[part])
            parts[part] = path
            continue
        _add(found, _read_json(path, version, name) if kind == "json" else _read_sql(path, version, name))
    for (version, name), parts in halves.items():
        _add(found, _read_pair(version, name, parts))
    return tuple(sorted(found.values(), key=lambda migration: migration.order))


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.name.lower().endswith((".sql", ".json")) and not entry.name.startswith((".", "_")):
                yield entry


def _parse_name(path: Path) -> tuple[str, str, str, str]:
    # 20250101_000001.sql is a version without a name
    match = _NUMBER_ONLY.match(path.name) or _FILE.match(path.name)
    if not match:
        raise MigrationFileError(
            f"{shown(path)}: malformed name: no version in front",
            hint="name it like 20250101_000001_add_users.sql (`dbops migrate new add_users` does); nothing was applied",
        )
    groups = match.groupdict()
    version = (groups.get("flyway") or "").replace("_", ".") or groups["version"]
    part, kind = (groups["part"] or "")[1:].lower(), groups["kind"].lower()
    if part and kind == "json":
        raise MigrationFileError(
            f"{shown(path)}: malformed name: a JSON file holds both directions",
            hint=f"name it without .{part} and put `up` and `down` into it; nothing was applied",
        )
    return version, groups["name"], part, kind


def _add(found: dict[tuple[int, ...], Migration], migration: Migration) -> None:
    # 1 and 001 have one place in the order: no two may share it
    if migration.order in found:
        raise _duplicate(migration.version, migration.path, found[migration.order].path)
    found[migration.order] = migration


def _duplicate(version: str, path: Path, other: Path) -> MigrationFileError:
    return MigrationFileError(
        f"duplicate version {version}: {shown(other)} and {shown(path)}",
        hint="give the newer one a version of its own; nothing was applied",
    )


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise MigrationFileError(f"{shown(path)}: {error.strerror}", hint="nothing was applied") from error
    if len(raw) > LARGEST:
        raise MigrationFileError(
            f"{shown(path)}: {len(raw) >> 20} MB; a migration has at most {LARGEST >> 20}",
            hint="load data with COPY from a script of its own, not with a migration; nothing was applied",
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise MigrationFileError(
            f"{shown(path)}:{line}: not UTF-8 (byte 0x{raw[error.start]:02x})",
            hint="save the file as UTF-8; nothing was applied",
        ) from None
    return text.replace("\r\n", "\n")


def _read_sql(path: Path, version: str, name: str) -> Migration:
    return parse_sql(_read_text(path), path, version, name)


def parse_sql(text: str, path: Path, version: str, name: str) -> Migration:
    """A migration from the text of one .sql file; without markers all of it is the up part."""
    migration = Migration(version, name, path, Script(text, path))
    sections: dict[str, Script] = {}
    marks = list(_DIRECTIVE.finditer(text))
    first = next((mark for mark in marks if mark[1] in ("up", "down")), None)
    for mark in marks:
        line = text.count("\n", 0, mark.start()) + 1
        migration = _directive(migration, mark, line)
        if mark[1] in ("up", "down"):
            if mark[1] in sections:
                raise MigrationFileError(
                    f"{shown(path)}:{line}: a second `-- migrate:{mark[1]}`", hint="one of each is allowed"
                )
            end = next((m.start() for m in marks if m.start() > mark.end() and m[1] in ("up", "down")), len(text))
            sections[mark[1]] = Script(text[mark.end() + 1 : end], path, line + 1, _transaction(mark, path, line))
    if first is not None:
        if not _is_empty(text[: first.start()]):
            raise MigrationFileError(
                f"{shown(path)}: statements before the first marker", hint="move them below `-- migrate:up`"
            )
        if "up" not in sections:
            raise MigrationFileError(
                f"{shown(path)}: the up part is missing", hint="add a line `-- migrate:up`; nothing was applied"
            )
        migration = replace(migration, up=sections["up"], down=sections.get("down"))
    return _checked(migration)


def _directive(migration: Migration, mark: re.Match[str], line: int) -> Migration:
    """The migration with what a `-- migrate:` line says; `up` and `down` cut the text and change nothing here."""
    word, rest = mark[1], mark[2]
    if word in ("up", "down"):
        return migration
    if word == "requires" and re.fullmatch(r"extension\s+\S+", rest):
        return replace(migration, requires=(*migration.requires, rest.split()[1]))
    if word == "loses" and rest:
        return replace(migration, loses=rest)
    raise MigrationFileError(
        f"{shown(migration.path)}:{line}: unknown directive `-- migrate:{' '.join((word, rest)).strip()}`",
        hint="known: up, down (with transaction:false), requires extension NAME, loses REASON; nothing was applied",
    )


def _transaction(mark: re.Match[str], path: Path, line: int) -> bool:
    for option in mark[2].split():
        if option not in ("transaction:false", "transaction:true"):
            raise MigrationFileError(
                f"{shown(path)}:{line}: unknown option {option!r} of `-- migrate:{mark[1]}`",
                hint="known: transaction:false",
            )
    return "transaction:false" not in mark[2].split()


def _checked(migration: Migration) -> Migration:
    if _is_empty(migration.up.sql):
        raise MigrationFileError(
            f"{shown(migration.path)}: the up part is empty",
            hint="write its statements (`select 1;` where none is needed); nothing was applied",
        )
    down = migration.down
    if down is not None and _is_empty(down.sql):
        return replace(migration, down=None)
    return migration


def _is_empty(text: str) -> bool:
    """Whether there is nothing but comments, blanks and semicolons.

    Piece by piece: one expression for the whole wants possessive quantifiers, which now and then fail in Python 3.11
    (https://github.com/python/cpython/issues/106052).
    """
    at = 0
    while piece := _COMMENT_OR_BLANK.match(text, at):
        at = piece.end()
    return at == len(text)


def _read_pair(version: str, name: str, parts: dict[str, Path]) -> Migration:
    if "up" not in parts:
        raise MigrationFileError(f"{shown(parts['down'])}: its .up.sql is missing", hint="nothing was applied")
    migration = _read_sql(parts["up"], version, name)
    if "down" in parts:
        migration = replace(migration, down=_read_down(parts["down"]))
    return _checked(migration)


def _read_down(path: Path) -> Script:
    """The down half of a pair; of the directives it may hold `-- migrate:down transaction:false` alone."""
    text, transaction = _read_text(path), True
    for mark in _DIRECTIVE.finditer(text):
        line = text.count("\n", 0, mark.start()) + 1
        if mark[1] != "down":
            raise MigrationFileError(
                f"{shown(path)}:{line}: `-- migrate:{mark[1]}` in the down half of a pair",
                hint="move it to the .up.sql",
            )
        transaction = _transaction(mark, path, line)
    return Script(text, path, transaction=transaction)


def _read_json(path: Path, version: str, name: str) -> Migration:
    try:
        content = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise MigrationFileError(
            f"{shown(path)}:{error.lineno}:{error.colno}: malformed JSON: {error.msg}", hint="nothing was applied"
        ) from None
    if not isinstance(content, dict) or set(content) - _JSON_KEYS:
        extra = ", ".join(sorted(set(content) - _JSON_KEYS)) if isinstance(content, dict) else "not an object"
        raise MigrationFileError(
            f"{shown(path)}: unexpected: {extra}", hint=f"keys: {', '.join(sorted(_JSON_KEYS))}; nothing was applied"
        )
    if str(content.get("version", version)) != version:
        raise MigrationFileError(
            f"{shown(path)}: version {content['version']!r} inside, {version!r} in its name", hint="make them agree"
        )
    transaction, requires = content.get("transaction", True), content.get("requires", [])
    if not isinstance(transaction, bool):
        raise MigrationFileError(f"{shown(path)}: transaction is no true or false", hint="nothing was applied")
    required = [requires] if isinstance(requires, str) else requires
    if not isinstance(required, list) or not all(isinstance(item, str) and item.strip() for item in required):
        raise MigrationFileError(f"{shown(path)}: requires is no list of extensions", hint='for example: ["vector"]')
    up = Script(_json_text(content, "up", path), path, 1, transaction)
    down = Script(_json_text(content, "down", path), path, 1, transaction) if content.get("down") else None
    extensions = tuple(item.split()[-1] for item in required)
    return _checked(
        Migration(version, str(content.get("name", name)), path, up, down, extensions, str(content.get("loses", "")))
    )


def _json_text(content: dict[str, Any], key: str, path: Path) -> str:
    value = content.get(key, "")
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise MigrationFileError(
            f"{shown(path)}: {key} is neither a text nor a list of texts", hint="nothing was applied"
        )
    # on a line of its own: a part may end with a comment
    return "\n;\n".join(part.strip() for part in parts if part.strip())
