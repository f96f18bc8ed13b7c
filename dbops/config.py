"""Settings: flag > environment > dbops.toml or [tool.dbops] > libpq's PG* variables > the embedded server."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from dbops.errors import ConfigError

LIBPQ_VARIABLES = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE")
# what other tools put into a URL and libpq refuses: Prisma's, SQLAlchemy's, dbmate's
_FOREIGN_PARAMETERS = {"pgbouncer", "connection_limit", "pool_timeout", "schema", "prepared_statements", "search_path"}
_SCHEME = re.compile(r"([A-Za-z][\w.+-]*)://")
_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Settings:
    """What a command works with. `url` is None where the embedded server is meant; durations are seconds.

    `workers` processes copy a backup's rows; `tenancy` is the column that says whose a row is; `keep_daily` days,
    `keep_weekly` weeks and `keep_monthly` months are how long backups of these tiers stay.

    `notes` are what a person should be told of how the settings came about.
    """

    url: str | None = field(default=None, repr=False)
    url_source: str = "embedded"
    root: Path = Path()
    env: str = ""
    confirm: str = ""
    embedded: bool = True
    postgres_version: int = 18
    scratch_url: str | None = field(default=None, repr=False)
    migrations: Path = Path("migrations/sql")
    policies: Path = Path("policies")
    store: str = ""  # of backups: a folder or s3://bucket/prefix; empty: backups/ in the root
    workers: int = 2
    tenancy: str = "user_id"
    keep_daily: int = 30
    keep_weekly: int = 12
    keep_monthly: int = 12
    table: str = "public.schema_migrations"
    schemas: tuple[str, ...] = ("public",)
    search_path: str = ""
    lock_timeout: float = 3.0
    lock_tries: int = 10
    statement_timeout: float = 0.0
    wait: float = 300.0
    notes: tuple[str, ...] = ()

    @property
    def data_directory(self) -> Path:
        """Where the project's embedded server keeps its data."""
        return self.root / ".dbops" / f"pg{self.postgres_version}"


def seconds(value: object) -> float:
    """A duration in seconds from `3`, `"3s"`, `"500ms"`, `"5min"`, `"1h"`. Raises ValueError for others."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h)?\s*", str(value))
    if not match:
        raise ValueError(f"{value!r} is no duration; write 500ms, 3s, 5min or 1h")
    return float(match[1]) * _UNITS[match[2] or "s"]


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off", ""):
        return False
    raise ValueError(f"{value!r} is neither true nor false")


def _names(value: object) -> tuple[str, ...]:
    parts = value if isinstance(value, list) else str(value).split(",")
    names = tuple(str(part).strip() for part in parts if str(part).strip())
    if not names:
        raise ValueError("at least one name is needed")
    return names


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")
    return value


def _url(value: object) -> str:
    # an unset variable in `--url "$PROD_URL"` must not mean the server that libpq finds by itself
    if not _text(value).strip():
        raise ValueError("it is empty")
    return _text(value)


def _positive(value: object) -> int:
    number = int(str(value))
    if number < 1:
        raise ValueError(f"{number} is less than 1")
    return number


def _table(value: object) -> str:
    name = _text(value)
    return name if "." in name else f"public.{name}"


def _search_path(value: object) -> str:
    return ", ".join(_names(value))


KEYS: dict[str, Callable[[object], Any]] = {
    "url": _url,
    "confirm": _text,
    "embedded": _flag,
    "postgres_version": _positive,
    "scratch_url": _url,
    "migrations": lambda value: Path(_text(value)),
    "policies": lambda value: Path(_text(value)),
    "store": _url,
    "workers": _positive,
    "tenancy": _text,
    "keep_daily": _positive,
    "keep_weekly": _positive,
    "keep_monthly": _positive,
    "table": _table,
    "schemas": _names,
    "search_path": _search_path,
    "lock_timeout": seconds,
    "lock_tries": _positive,
    "statement_timeout": seconds,
    "wait": seconds,
}


def load(
    *,
    start: Path | None = None,
    config: Path | None = None,
    env: str | None = None,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings for a command run in folder `start` (default: the current one).

    `flags` are options given on the command line (None means not given), under the keys of the file.
    Raises ConfigError for a file that does not parse, an unknown key or profile, or a value of the wrong kind.
    """
    environ = os.environ if environ is None else environ
    start = (start or Path.cwd()).absolute()
    named = config or (Path(environ["DBOPS_CONFIG"]) if environ.get("DBOPS_CONFIG") else None)
    path, content = _read_named(named) if named else _find(start)
    profile, values = _profile(path, content, env, environ)
    root = path.parent if path else start
    settings = Settings(root=root, env=profile)
    settings = _apply(settings, values, str(path), "dbops.toml", root)
    settings = _apply(settings, _from_environment(environ), "environment", "environment", root)
    settings = _apply(settings, {k: v for k, v in (flags or {}).items() if v is not None}, "option", "option", start)
    if env and "url" in values and settings.url_source == "environment":
        note = f"the URL comes from the environment, which goes before [env.{env}] of {path}"
        settings = replace(settings, notes=(note,))
    return _finish(settings, environ)


def _finish(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """Fill in what follows from the rest: libpq's variables, no embedded server in production, absolute paths."""
    if settings.url is None and any(environ.get(name) for name in LIBPQ_VARIABLES):
        settings = replace(settings, url="", url_source="PG* variables")
    if "production" in (settings.env, environ.get("DBOPS_ENV")):
        settings = replace(settings, embedded=False)
    if settings.url:
        path = search_path_of(settings.url)
        settings = replace(settings, url=libpq_url(settings.url), search_path=settings.search_path or path)
    if settings.scratch_url:
        settings = replace(settings, scratch_url=libpq_url(settings.scratch_url))
    root = settings.root
    return replace(settings, migrations=root / settings.migrations, policies=root / settings.policies)


def _from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    values: dict[str, object] = {}
    if environ.get("DATABASE_URL"):
        values["url"] = environ["DATABASE_URL"]
    for key in KEYS:
        if environ.get(f"DBOPS_{key.upper()}"):
            values[key] = environ[f"DBOPS_{key.upper()}"]
    if environ.get("DBOPS_NO_EMBEDDED"):
        try:
            values["embedded"] = not _flag(environ["DBOPS_NO_EMBEDDED"])
        except ValueError as error:
            raise ConfigError(f"environment: DBOPS_NO_EMBEDDED: {error}", hint="mend the value") from None
    return values


def _find(start: Path) -> tuple[Path | None, dict[str, Any]]:
    """The nearest `dbops.toml`, or `pyproject.toml` with a [tool.dbops], in `start` or a folder above it."""
    for folder in (start, *start.parents):
        if (folder / "dbops.toml").is_file():
            return folder / "dbops.toml", _read(folder / "dbops.toml")
        project = folder / "pyproject.toml"
        if project.is_file() and b"[tool.dbops" in project.read_bytes():
            return project, _read(project).get("tool", {}).get("dbops", {})
    return None, {}


def _read_named(path: Path) -> tuple[Path, dict[str, Any]]:
    path = path.absolute()
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file", hint="check --config or DBOPS_CONFIG")
    content = _read(path)
    return path, content.get("tool", {}).get("dbops", {}) if path.name == "pyproject.toml" else content


def _read(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(
            f"{path}: {error}", hint="nothing was done; mend the file and run the command again"
        ) from error


def _profile(
    path: Path | None, content: dict[str, Any], env: str | None, environ: Mapping[str, str]
) -> tuple[str, dict[str, Any]]:
    """The profile's name and the file's values with the profile's [env.NAME] laid over them."""
    profiles = content.get("env", {})
    if not isinstance(profiles, dict) or not all(isinstance(values, dict) for values in profiles.values()):
        raise ConfigError(f"{path}: `env` holds profiles, not a value", hint="write a section [env.prod]")
    name = env or environ.get("DBOPS_ENV", "")
    values = {key: value for key, value in content.items() if key != "env"}
    # DBOPS_ENV=production is also how a container says where it runs, with no profile of that name
    if name and name not in profiles and (env or name != "production"):
        known = ", ".join(sorted(profiles)) or "none"
        raise ConfigError(
            f"there is no profile {name!r} in {path or 'dbops.toml'}",
            hint=f"profiles there: {known}; add [env.{name}] or choose another with --env or DBOPS_ENV",
        )
    return name, values | profiles.get(name, {})


def _apply(settings: Settings, values: Mapping[str, object], where: str, source: str, base: Path) -> Settings:
    changes: dict[str, Any] = {}
    for key, value in values.items():
        if key not in KEYS:
            known = ", ".join(sorted(KEYS))
            raise ConfigError(f"{where}: unknown key {key!r}", hint=f"known keys: {known}")
        try:
            changes[key] = KEYS[key](value)
        except (ValueError, TypeError) as error:
            # a URL's text may hold a password
            reason = f"{key}: {error}" if key not in ("url", "scratch_url") or not value else f"{key}: not a text"
            raise ConfigError(f"{where}: {reason}", hint="nothing was done; mend the value") from None
    if changes.get("url") is not None:
        changes["url_source"] = source
    changes |= {key: base / changes[key] for key in ("migrations", "policies") if key in changes}
    return replace(settings, **changes)


def libpq_url(url: str) -> str:
    """The URL as libpq takes it: without SQLAlchemy's driver part and without other tools' parameters."""
    match = _SCHEME.match(url.strip())
    if not match:
        return url
    scheme = match[1].split("+", 1)[0].lower()
    if scheme not in ("postgresql", "postgres"):
        raise ConfigError(
            f"a URL with the scheme {scheme}:// is not PostgreSQL's",
            hint="write postgresql://user@host:5432/database",
        )
    base, query = _split_query(url.strip()[match.end() :])
    # libpq reads %20 and not +: what is kept keeps its spelling
    kept = [pair for pair in query if pair.partition("=")[0] not in _FOREIGN_PARAMETERS]
    return f"{scheme}://{base}{'?' * bool(kept)}{'&'.join(kept)}"


def _split_query(url: str) -> tuple[str, list[str]]:
    """What stands before the `?`, and the `key=value` pairs after it."""
    base, mark, query = url.rpartition("?")
    return (base, query.split("&")) if mark else (url, [])


def search_path_of(url: str) -> str:
    """dbmate's `?search_path=app,public` of a URL, or an empty text."""
    pairs = dict(pair.partition("=")[::2] for pair in _split_query(url)[1]) if _SCHEME.match(url.strip()) else {}
    return unquote(pairs.get("search_path", "").strip())


assert set(KEYS) <= {each.name for each in fields(Settings)}
