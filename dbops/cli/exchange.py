"""`dbops backup export`, `import`, `schedule`, and the ping that scheduled runs send."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dbops.cli.backup import STORE, manager
from dbops.cli.main import common
from dbops.cli.migrate import DRY_RUN, SCRATCH
from dbops.cli.output import Output
from dbops.errors import UsageError, shown
from dbops.wording import count

if TYPE_CHECKING:
    from dbops.backup.exchange.export import Exchanged, Form
    from dbops.backup.schedule import Kind


@click.command()
@click.argument("backup", metavar="[ID]", required=False)
@click.option("--table", "tables", multiple=True, metavar="TABLE", help="Only this table; may be given again.")
@click.option("--format", "form", type=click.Choice(["json", "sql"]), default="json", help="json (default) or sql.")
@click.option("--to", "folder", type=click.Path(path_type=Path), default="export", help="The folder (default: export).")
@STORE
@SCRATCH
@common
def export(out: Output, backup: str | None, tables: tuple[str, ...], form: Form, folder: Path) -> None:
    """Write tables as JSON lines (schema.table.json.gz, one object a row) or as one SQL file.

    Of the database as it is now, or of a backup (ID or `latest`), which is restored into a scratch server for that.

    \b
    dbops backup export --table notes --to out
    dbops backup export latest --format sql
    """
    with manager(out, "rows", connects=backup is None) as library:
        done = library.export(folder, tables, form=form, backup=backup)
    out.result(exchanged_document(done), "\n".join(f"wrote {shown(path)}" for path in done.files))
    out.say(f"{count(done.rows, 'row')} of {count(len(done.tables), 'table')}")


def exchanged_document(done: Exchanged) -> dict[str, Any]:
    return {"files": [shown(path) for path in done.files], "rows": done.rows, "tables": done.tables}


@click.command(name="import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--table", "name", metavar="TABLE", help="The table (default: the one that the file's name says).")
@STORE
@DRY_RUN
@common
def import_(out: Output, files: tuple[Path, ...], name: str | None, dry_run: bool) -> None:
    """Insert the rows of JSON lines (.json.gz or plain) into tables that are there; all files or nothing.

    \b
    dbops backup import export/*.json.gz --dry-run
    dbops backup import old_notes.jsonl --table notes
    """
    with manager(out, "rows", connects=True) as library:
        done = library.load(files, name, dry_run=dry_run)
    what = f"{count(done.rows, 'row')} into {count(len(done.tables), 'table')}"
    out.result(exchanged_document(done), f"would import {what}" if dry_run else f"imported {what}")


@click.command()
@click.argument("kind", type=click.Choice(["systemd", "cron", "kubernetes"]))
@click.option("--to", "folder", type=click.Path(path_type=Path), help="Write the files there (default: print them).")
@click.option("--at", "nightly", metavar="HH:MM", default="02:30", help="When (default 02:30; Kubernetes: UTC).")
@click.option("--drill-at", metavar="HH:MM", default="04:30", help="When the weekly drill is (default 04:30).")
@click.option("--drill-day", metavar="DAY", default="sun", help="Its day: sun (default), mon, …")
@click.option("--sample", type=click.FloatRange(0, 1), default=0.05, help="The share verified a night (default 0.05).")
@click.option("--heartbeat", metavar="URL", default="", help="Pinged at the start, at success, at a failure.")
@click.option("--drill-heartbeat", metavar="URL", default="", help="The same for the drill.")
@click.option("--variables", default="/etc/dbops/backup.env", help="Where the file with the secrets will lie.")
@click.option("--image", default="dbops", help="Kubernetes: the container image.")
@STORE
@DRY_RUN
@common
def schedule(
    out: Output, kind: Kind, folder: Path | None, nightly: str, drill_at: str, drill_day: str, sample: float,
    heartbeat: str, drill_heartbeat: str, variables: str, image: str, dry_run: bool,
) -> None:  # fmt: skip
    """Write systemd units, a crontab or Kubernetes CronJobs: every night a backup, a verified sample, prune; weekly a drill.

    Secrets stand in none of them but in backup.env.

    \b
    dbops backup schedule systemd --heartbeat "$PING_URL" --to units
    dbops backup schedule cron --at 01:15
    """
    from dbops.backup.schedule import VARIABLES, Heartbeat, Place, When, schedule

    program = "dbops" if kind == "kubernetes" else _program()
    place = Place(str(out.settings.root.resolve()), program, variables, image)
    beat = Heartbeat(heartbeat, drill_heartbeat)
    units = schedule(kind, place, When(nightly, drill_at, drill_day), heartbeat=beat, sample=sample)
    if folder is None or dry_run:
        text = "\n".join(f"# {unit.name}\n{unit.text}" for unit in units)
        contents = {unit.name: unit.text for unit in units}
        out.result({"files": list(contents), "contents": contents}, text.rstrip())
        return
    folder.mkdir(parents=True, exist_ok=True)
    for unit in units:
        write_new(folder / unit.name, unit.text, 0o600 if unit.name == VARIABLES else 0o644)
    files = [shown(folder / unit.name) for unit in units]
    out.result({"files": files}, "\n".join(f"wrote {file}" for file in files))
    out.say("fill in backup.env; then see docs/backup.md for the three commands that install them")


def _program() -> str:
    """Where this dbops lies: a scheduler has no PATH to speak of."""
    own = Path(sys.argv[0])
    found = str(own.absolute()) if own.name == "dbops" and own.is_file() else shutil.which("dbops")
    return found or "dbops"


def write_new(path: Path, text: str, mode: int) -> None:
    """Write a file that was not there. Raises UsageError where it was: secrets may have been filled in."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise UsageError(f"{shown(path)} is there already", hint="move it away first; it was left as it is") from None
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


@click.command(hidden=True)
@click.argument("word", metavar="[WORD]", required=False)
@click.option("--drill", is_flag=True, help="Of the drill (DBOPS_DRILL_HEARTBEAT) and not of the nightly run.")
@common
def ping(out: Output, word: str | None, drill: bool) -> None:
    """Tell the monitor at DBOPS_HEARTBEAT how a scheduled run goes; never fails.

    WORD is `start`, an exit code, or what systemd says (SERVICE_RESULT, the default).

    \b
    dbops backup ping start
    """
    from dbops.backup.heartbeat import moment_of, ping

    url = os.environ.get("DBOPS_DRILL_HEARTBEAT" if drill else "DBOPS_HEARTBEAT", "")
    moment = moment_of(word or os.environ.get("SERVICE_RESULT", ""))
    problem = ping(url, moment) if url else ""
    if problem:
        out.warn(problem)
    out.result({"pinged": bool(url and not problem), "moment": moment})
