"""`dbops backup`: each command parses, makes one call into the library, renders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from dbops.cli.backup_output import (
    Bar,
    check_document,
    check_text,
    created_document,
    created_text,
    damaged_document,
    list_text,
    listed_document,
    moment,
    prune_document,
    show_document,
    show_text,
    verified_text,
)
from dbops.cli.main import Lazy, common
from dbops.cli.migrate import CONFIRM, DRY_RUN, WAIT, YES
from dbops.cli.output import Output
from dbops.cli.xray import size
from dbops.errors import Interrupted, UsageError
from dbops.wording import count

if TYPE_CHECKING:
    from dbops.backup.manager import AnyTier, BackupManager

UNFINISHED = "no backup was written; what was stored is used by the next `dbops backup create`"
NEXT = (
    "next: `dbops backup create` stores anew what the database still has; `dbops backup list` shows the other backups"
)
STORE = click.option("--store", metavar="STORE", help="A folder or s3://bucket/prefix (default: backups/).")
ID = click.argument("backup", metavar="[ID]", default="latest")


def a_moment(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """A time: `2025-01-31`, `2025-01-31T03:00`, in UTC where it says no zone."""
    try:
        return moment(value) if value is not None else None
    except ValueError:
        raise click.BadParameter(f"{value!r} is no time; write 2025-01-31 or 2025-01-31T03:00:00+01:00") from None


def an_age(ctx: click.Context, param: click.Parameter, value: str | None) -> timedelta | None:
    """A time span: `26h`, `8d`."""
    from dbops.config import seconds

    try:
        if value is None:
            return None
        text = value.strip()
        return timedelta(days=float(text[:-1])) if text.endswith("d") else timedelta(seconds=seconds(text))
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{value!r} is no time span; write 26h or 8d") from None


BEFORE = click.option(
    "--before", metavar="TIME", callback=a_moment, help="The newest backup until then, instead of an ID."
)
ELSEWHERE = dict.fromkeys(("diff", "restore"), "dbops.cli.restore") | dict.fromkeys(
    ("export", "import_", "schedule", "ping"), "dbops.cli.exchange"
)
ELSEWHERE["drill"] = "dbops.cli.drill"


@click.group(cls=Lazy, lazy={name.rstrip("_"): f"{module}:{name}" for name, module in ELSEWHERE.items()})
def command() -> None:
    """Backups that are proven: deduplicated, verified, drilled, restorable by table and by user.

    \b
    dbops backup create              now
    dbops backup list                what there is, and when it was last restored as a proof
    dbops backup diff                what the newest one and the database differ in
    dbops backup restore --table notes --mode missing
    dbops backup drill               restore one into a scratch server
    dbops backup schedule systemd    every night
    """


@contextmanager
def manager(
    out: Output, what: str, *, connects: bool = False, stopped: str = "nothing was changed"
) -> Iterator[BackupManager]:
    """The library's manager, its progress shown; `connects`: the database is needed for certain.

    `stopped` is what somebody is told who ends it with Ctrl-C.
    """
    from dbops.backup.manager import BackupManager
    from dbops.embedded import resolve

    if connects:
        url = resolve(out.settings, lambda server: out.embedded(server.data_directory))
        out.settings = replace(out.settings, url=url)
    try:
        with Bar(out, what) as bar:
            yield BackupManager(settings=out.settings, tell=bar)
    except (KeyboardInterrupt, click.Abort):
        raise Interrupted("interrupted", hint=stopped) from None


@command.command()
@click.option(
    "--tier",
    type=click.Choice(["auto", "daily", "weekly", "monthly", "manual"]),
    default="manual",
    help="How long it stays (default: manual, for ever); auto is for schedules.",
)
@click.option("--include", multiple=True, metavar="PATTERN", help="Only the rows of these tables, e.g. 'app.*'.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Without the rows of these tables, e.g. 'log_*'.")
@STORE
@WAIT
@DRY_RUN
@common
def create(out: Output, tier: AnyTier, include: tuple[str, ...], exclude: tuple[str, ...], dry_run: bool) -> None:
    """Take a backup. What an interrupted run had stored is used.

    \b
    dbops backup create
    dbops backup create --tier auto --url "$PROD_URL" --store s3://backups/shop
    """
    with manager(out, "rows", connects=True, stopped=UNFINISHED) as library:
        if dry_run:
            plan = library.plan_create(tier, include=include, exclude=exclude)
            document: dict[str, Any] = {
                "id": None,
                "tier": plan.tier,
                "tables": len(plan.tables),
                "raw_bytes": plan.bytes,
            }
            document |= {"rows": None, "stored_bytes": None, "new_bytes": None, "duration_ms": 0}
            document["omitted"] = [{"object": each.name, "reason": each.reason} for each in plan.omitted]
            out.result(document, str(plan))
            return
        manifest = library.create_full_backup(tier, include=include, exclude=exclude)
        place = library.store.place
    for each in manifest.omitted if out.verbose else ():
        out.say(f"not in it: {each.name}: {each.reason}")
    out.result(created_document(manifest), created_text(manifest, place))


@command.command(name="list")
@STORE
@common
def list_(out: Output) -> None:
    """The backups of the store, newest first, with when each was last restored as a proof, and how long that took.

    \b
    dbops backup list --json
    """
    with manager(out, "") as library:
        listed, place = library.get_backup_list(), library.store.place
    out.result({"backups": [listed_document(each) for each in listed]}, list_text(listed, place))


@command.command()
@ID
@BEFORE
@STORE
@common
def show(out: Output, backup: str, before: datetime | None) -> None:
    """One backup: its tables with rows and bytes, roles, extensions, what is not in it.

    \b
    dbops backup show
    dbops backup show backup_20250101_120000_daily
    """
    with manager(out, "") as library:
        listed = library.describe(chosen(backup, before), before=before)
    out.result(show_document(listed), show_text(listed))


def chosen(backup: str, before: datetime | None) -> str:
    """The id that was asked for. Raises UsageError where --before stands beside one."""
    if before is not None and backup != "latest":
        raise UsageError("give an ID or --before, not both", hint="nothing was done")
    return backup


@command.command()
@click.option(
    "--max-age",
    metavar="TIME",
    callback=an_age,
    default="26h",
    help="How old the newest good backup may be (default 26h).",
)
@click.option("--proven", metavar="TIME", callback=an_age, help="How long ago a drill must have proven one, e.g. 8d.")
@STORE
@common
def check(out: Output, max_age: timedelta, proven: timedelta | None) -> int:
    """For a monitor: exit 3 where the newest good backup of this database is too old, 13 where one is damaged.

    \b
    dbops backup check --max-age 26h --proven 8d
    """
    with manager(out, "", connects=True) as library:
        found, place = library.check(max_age=max_age, proven=proven), library.store.place
    out.result(check_document(found), check_text(found, place))
    if found.damaged:
        out.say(NEXT)
    return 13 if found.damaged else 3 if found.problems else 0


@command.command()
@click.argument("backup", metavar="[ID]", required=False)
@click.option("--all", "everything", is_flag=True, help="The whole store.")
@click.option(
    "--sample", type=click.FloatRange(0, 1), default=1.0, help="Only this share of the objects, chosen anew, e.g. 0.05."
)
@STORE
@common
def verify(out: Output, backup: str | None, everything: bool, sample: float) -> int:
    """Every byte of a backup (default: the newest) or of the whole store against its hashes.

    Exit 13 and the list where something is damaged; the next create writes anew what it still can.

    \b
    dbops backup verify --all
    dbops backup verify --all --sample 0.05     every night
    """
    if everything and backup:
        raise click.UsageError("give one of ID, --all")
    with manager(out, "read") as library:
        found = library.verify_backup_integrity(None if everything else backup or "latest", sample=sample)
    document = {"ok": found.ok, "checked_bytes": found.checked_bytes, "damaged": damaged_document(found.damaged)}
    out.result(document | {"backups": list(found.backups), "objects": found.objects}, verified_text(found))
    if not found.ok:
        out.say(NEXT)
    return 0 if found.ok else 13


@command.command()
@STORE
@DRY_RUN
@YES
@CONFIRM
@common
def prune(out: Output, dry_run: bool, yes: bool, word: str | None) -> None:
    """Remove this database's backups whose time is over (settings keep_daily, keep_weekly, keep_monthly).

    The newest one and the newest proven one stay, whatever their age.

    \b
    dbops backup prune --dry-run     each backup with the reason why it stays or goes
    """
    stopped = "the backups that are listed are whole; the next prune goes on"
    with manager(out, "", connects=True, stopped=stopped) as library:
        plan = library.plan_cleanup()
        if dry_run:
            out.result(prune_document(plan), str(plan))
            return
        if plan.removed:
            out.say(str(plan))
            what = f"remove {count(len(plan.removed), 'backup')} of {library.store.place}, taken"
            out.confirm(what, library.url, yes=yes, word=word)
        done = library.cleanup_old_backups(plan)
        place = library.store.place
    for note in done.notes:
        out.warn(note)
    document = prune_document(plan) | {"freed_bytes": done.freed_bytes}
    what = f"removed {count(len(done.removed), 'backup')} from {place}, {size(done.freed_bytes)} freed"
    out.result(document, f"{what}; {count(len(plan.kept), 'backup')} stay{'s' * (len(plan.kept) == 1)}")
