"""What a person or a script sees: data on stdout, progress, warnings and errors on stderr, one JSON document with --json."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dbops.config import Settings
from dbops.database import parameters, place_of, redact
from dbops.errors import ConfirmationRequired, DbopsError

if TYPE_CHECKING:
    pass


@dataclass
class Output:
    """One command's way to the outside."""

    settings: Settings = field(default_factory=Settings)
    as_json: bool = False
    verbose: bool = False
    quiet: bool = False

    def result(self, document: dict[str, Any], text: str = "") -> None:
        """The command's data: the document with --json, else the text."""
        if self.as_json:
            click.echo(json.dumps(_redacted(document), indent=2, default=_plain, ensure_ascii=False))
        elif text:
            click.echo(redact(text))

    def say(self, text: str, **style: Any) -> None:
        """A line of progress."""
        if not self.quiet:
            click.secho(redact(text), err=True, **style)

    def embedded(self, data_directory: Path | str) -> None:
        """Say that the embedded server is used, and where its data lie; with --quiet, too."""
        click.echo(f"using the embedded PostgreSQL; its data lie in {data_directory}", err=True)

    def warn(self, text: str) -> None:
        click.secho(f"warning: {redact(text)}", err=True, fg="yellow")

    def target(self, url: str) -> str:
        """`database on host:port` of a URL."""
        return place_of(parameters(url))

    def confirm(self, what: str, url: str, *, yes: bool, word: str | None) -> None:
        """Ask before a destructive act. Raises ConfirmationRequired (exit 2) where nobody can be asked."""
        wanted = self.settings.confirm
        if wanted and word == wanted:
            return
        if yes and not wanted:
            return
        where = self.target(url)
        if sys.stdin is None or not sys.stdin.isatty():
            need = f"--confirm {wanted}" if wanted else "--yes"
            raise ConfirmationRequired(
                f"{what} on {where}: this needs a confirmation", hint=f"give {need}; nothing was done"
            )
        if wanted:
            typed = click.prompt(
                f"{what} on {where}. Type {wanted!r} to go on", err=True, default="", show_default=False
            )
            agreed = typed == wanted
        else:
            agreed = click.confirm(f"{what} on {where}?", err=True)
        if not agreed:
            raise ConfirmationRequired("not confirmed", hint="nothing was done")


def _redacted(value: Any) -> Any:
    """The document without the passwords that migrations' own SQL may hold."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: _redacted(item) for key, item in value.items()}
    return [_redacted(item) for item in value] if isinstance(value, (list, tuple)) else value


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, (tuple, set, frozenset)):
        return list(value)
    return str(value)


def show_error(error: DbopsError, *, as_json: bool) -> None:
    """An error for people on stderr, for scripts as one JSON document on stdout."""
    message, hint = redact(error.message), redact(error.hint)
    if as_json:
        content = {"code": error.code, "message": message, "hint": hint, "exit": error.exit_code}
        click.echo(json.dumps({"error": content}, indent=2, ensure_ascii=False))
        return
    click.secho(f"error: {message}", err=True, fg="red")
    if hint:
        click.echo(f"hint: {hint}", err=True)


def duration(ms: float) -> str:
    """A duration for people."""
    return f"{ms:.0f} ms" if ms < 10_000 else f"{ms / 1000:.1f} s"


def utc(moment: datetime) -> datetime:
    """A moment as all of dbops shows it."""
    return moment.astimezone(UTC)
