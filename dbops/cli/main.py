"""The command `dbops`: its groups, its options, its exit codes."""

from __future__ import annotations

import functools
import gc
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from dbops import __version__
from dbops.errors import EXIT_CODES, DbopsError, Interrupted, UsageError

GROUPS = {
    name: f"dbops.cli.{name}:command" for name in ("backup", "db", "doctor", "hygiene", "init", "migrate", "policy")
}
EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())


class Lazy(click.Group):
    """A group of which some members are imported when they are called: start-up time is a feature.

    `lazy` maps a command's name to `module:attribute`. Every command's help ends with the exit codes.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*self.lazy, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        command = super().get_command(ctx, name)
        if command is None and name in self.lazy:
            module, _, attribute = self.lazy[name].partition(":")
            command = getattr(import_module(module), attribute)
        if command is not None:
            command.epilog = EPILOG
        return command


@click.group(
    cls=Lazy,
    lazy=GROUPS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="dbops")
def cli() -> None:
    """PostgreSQL operations, proven on a real PostgreSQL.

    \b
    dbops init                  a project here
    dbops migrate up            apply what is pending
    dbops migrate prove --all   up, down, up on a scratch server
    """


def common(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command has; the command gets an `Output` with the settings as its first argument."""

    @click.option(
        "--url", help="The database's URL; else DBOPS_URL, DATABASE_URL, dbops.toml, PG*, the embedded server."
    )
    @click.option("--env", "profile", metavar="PROFILE", help="The profile [env.PROFILE] of dbops.toml.")
    @click.option("--config", type=click.Path(path_type=Path), help="Another dbops.toml or pyproject.toml.")
    @click.option("--no-embedded", is_flag=True, help="Never use the embedded server.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
    @click.option("-v", "--verbose", is_flag=True, help="Say more.")
    @click.option("-q", "--quiet", is_flag=True, help="No progress.")
    @functools.wraps(function)
    def command(
        url: str | None, profile: str | None, config: Path | None, no_embedded: bool, as_json: bool, verbose: bool, quiet: bool,
        **options: Any,
    ) -> Any:  # fmt: skip
        from dbops.cli.output import Output
        from dbops.config import KEYS, load

        flags: dict[str, object] = {"url": url, "embedded": False if no_embedded else None}
        flags |= {key: options.pop(key) for key in list(options) if key in KEYS}
        settings = load(config=config, env=profile, flags=flags)
        out = Output(settings, as_json, verbose, quiet)
        for note in settings.notes:
            out.warn(note)
        return function(out, **options)

    return command


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    # a short process: the collector would walk all that was imported, over and over and once more at the end
    gc.set_threshold(200_000, 50, 100)
    code = run(list(sys.argv[1:] if arguments is None else arguments))
    gc.freeze()
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run the command line; its exit code."""
    as_json = "--json" in arguments
    # a deploy that is stopped ends like Ctrl-C: what runs is rolled back
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = cli.main(arguments, prog_name="dbops", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except DbopsError as error:
        return _fail(error, as_json)
    except click.UsageError as error:
        if error.ctx is not None and not as_json:
            click.echo(error.ctx.get_usage(), err=True)
        return _fail(UsageError(error.format_message(), hint="see --help; nothing was done"), as_json)
    except click.ClickException as error:
        return _fail(UsageError(error.format_message()), as_json)
    except (KeyboardInterrupt, click.Abort):
        return _fail(
            Interrupted("interrupted", hint="what was under way was rolled back; what was committed is recorded"),
            as_json,
        )
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        return _fail(DbopsError(f"{error.filename or 'the system'}: {error.strerror or error}"), as_json)
    except Exception as error:
        return _fail(_unforeseen(error), as_json)


def _unforeseen(error: Exception) -> DbopsError:
    """An error that nobody has thought of: PostgreSQL's is told as such, ours is shown whole with DBOPS_DEBUG."""
    if type(error).__module__.startswith("psycopg"):
        from dbops.database import translate

        return translate(error)  # type: ignore[arg-type]
    if os.environ.get("DBOPS_DEBUG"):
        raise error
    hint = "this is a fault of dbops: please report it, with what DBOPS_DEBUG=1 shows"
    return DbopsError(f"{type(error).__name__}: {error}", hint=hint)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _fail(error: DbopsError, as_json: bool) -> int:
    from dbops.cli.output import show_error

    show_error(error, as_json=as_json)
    return error.exit_code
