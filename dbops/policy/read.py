"""Reads definition files: every problem is told with file, line, table and key.

docs/policy-format.md describes the format.
"""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dbops.errors import DefinitionError
from dbops.policy.entries import known_only, name_of, reading, table_name, table_rules, typed
from dbops.policy.keys import KEYS
from dbops.policy.model import Auth, Definitions, Name, TableRules, Verbatim
from dbops.policy.place import Place, lines_of, problem

_SETTING = re.compile(r"[A-Za-z_][\w$]*(\.[A-Za-z_][\w$]*)+", re.ASCII)


def read_definitions(folder: Path) -> Definitions:
    """All `*.toml` and `*.sql` of a folder, in order of their names. An empty folder defines nothing.

    Raises DefinitionError with file, line, table and key; also where the folder is missing.
    """
    files = _files(folder)
    read = [_parse(path) for path in files if path.suffix == ".toml"]
    auth = _auth(read)
    views: dict[Name, str] = {}
    tables: dict[Name, TableRules] = {}
    for place, content in read:
        for rules, at in _tables(place, content, auth):
            if rules.name in tables:
                first = tables[rules.name]
                raise at.error(
                    f"the table is defined twice, also in {first.path.name}:{first.line}", "keep one of them"
                )
            tables[rules.name] = rules
        views |= _views(place, content)
    verbatim = tuple(_verbatim(path) for path in files if path.suffix == ".sql")
    return Definitions(auth, tables, verbatim, views, files)


# --- files ---------------------------------------------------------------------------------------


def _files(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise DefinitionError(
            f"{folder}: there is no such folder", hint="make it, or name another (setting policies); nothing was done"
        )
    root = os.path.realpath(folder)
    found = sorted(p for p in folder.iterdir() if p.suffix in (".toml", ".sql") and not p.name.startswith((".", "_")))
    for path in found:
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
            raise problem(path, 0, "", "a link out of the folder", "copy the file into the folder")
        if not path.is_file():
            raise problem(path, 0, "", "no file, or a link to nothing", "take it out of the folder")
    return tuple(found)


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"not UTF-8 (byte 0x{raw[error.start]:02x})"
        raise problem(path, line, "", message, "save the file as UTF-8") from None
    except OSError as error:
        raise problem(path, 0, "", f"cannot be read: {error.strerror}") from None


def _verbatim(path: Path) -> Verbatim:
    text = _text(path)
    return Verbatim(path, text, hashlib.sha256(text.encode()).hexdigest())


def _parse(path: Path) -> tuple[Place, dict[str, Any]]:
    text = _text(path)
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        match = re.search(r" \(at line (\d+), column \d+\)$", str(error))
        # only the end of the document has no number
        line = int(match[1]) if match else text.rstrip("\n").count("\n") + 1
        raise problem(path, line, "", f"malformed TOML: {str(error).split(' (at ')[0]}") from None
    place = Place(path, lines_of(text))
    known = [key.name for key in KEYS[Auth]]
    known_only(place, content, ["version", "table", "view", *known])
    version = typed(place / "version", content.get("version", 1), int)
    if version != 1:
        raise (place / "version").error(f"version {version} of the format is not known", "this dbops reads version = 1")
    return place, content


def _auth(read: list[tuple[Place, dict[str, Any]]]) -> Auth:
    """What the files say together: each may say it, none may say something else."""
    given: dict[str, tuple[str, Place]] = {}
    for place, content in read:
        for key in KEYS[Auth]:
            if key.name not in content:
                continue
            at = place / key.name
            value = _setting(at, content[key.name]) if key.name == "auth" else name_of(at, content[key.name])
            before, first = given.setdefault(key.field, (value, at))
            if before != value:
                raise at.error(f"{first.path.name}:{first.line} says something else", f"one {key.name} for all files")
    return Auth(**{field: value for field, (value, _) in given.items()})


def _setting(at: Place, value: object) -> str:
    text = typed(at, value, str)
    if text == "supabase":
        return ""
    if not text.startswith("guc:") or not _SETTING.fullmatch(text[4:]):
        raise at.error(f'"{text}" is not known', 'write "supabase", or "guc:" and a setting\'s name: "guc:app.user_id"')
    return text[4:]


# --- tables --------------------------------------------------------------------------------------


def _tables(place: Place, content: Mapping[str, Any], auth: Auth) -> Iterator[tuple[TableRules, Place]]:
    for text, rules in typed(place / "table", content.get("table", {}), dict).items():
        at = place / "table" / text
        at = Place(at.path, at.lines, at.keys, reading(at, table_name, text))
        yield table_rules(at, typed(at, rules, dict), auth), at


def _views(place: Place, content: Mapping[str, Any]) -> dict[Name, str]:
    found: dict[Name, str] = {}
    for text, view in typed(place / "view", content.get("view", {}), dict).items():
        at = place / "view" / text
        known_only(at, typed(at, view, dict), ["definer"])
        reason = typed(at / "definer", view.get("definer", ""), str).strip()
        if not reason:
            raise at.error("a view that keeps its owner's rights needs a reason", 'write definer = "REASON"')
        found[reading(at, table_name, text)] = reason
    return found
