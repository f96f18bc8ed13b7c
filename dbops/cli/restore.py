"""`dbops backup diff` and `restore`: what differs, and bringing it back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from dbops.cli.backup import BEFORE, ID, STORE, chosen, manager
from dbops.cli.backup_output import omitted_document
from dbops.cli.difference_output import (
    difference_document,
    difference_text,
    merged_document,
    merged_text,
    plan_document,
    samples_text,
)
from dbops.cli.main import common
from dbops.cli.migrate import CONFIRM, DRY_RUN, WAIT, YES
from dbops.cli.output import Output, duration
from dbops.config import libpq_url
from dbops.errors import DbopsError, UsageError
from dbops.wording import count

if TYPE_CHECKING:
    from dbops.backup import BackupManager, Manifest
    from dbops.backup.merge import Mode

MERGED_WHOLE = "rows are written in one transaction, all or none; `dbops backup diff` shows how they stand"
BEGUN = "a database in which the restore had begun is marked as unfinished: the same command with --yes begins anew"
TABLE = click.option("--table", "tables", multiple=True, metavar="TABLE", help="Only this table; may be given again.")
USER = click.option("--user", metavar="USER", help="Only this user's rows, by the tenancy column (setting tenancy).")
WHERE = click.option("--where", metavar="EXPR", help="Only the rows of one --table for which this is true.")


@click.command()
@ID
@BEFORE
@TABLE
@USER
@WHERE
@click.option("--against", metavar="ID", help="Compare with another backup instead of the database.")
@click.option("--exit-code", is_flag=True, help="Exit 3 where something differs.")
@STORE
@common
def diff(
    out: Output, backup: str, before: datetime | None, tables: tuple[str, ...], user: str | None, where: str | None,
    against: str | None, exit_code: bool,
) -> int:  # fmt: skip
    """What a backup (default: the newest) and the database differ in, row by row; changes nothing.

    \b
    dbops backup diff --table notes
    dbops backup diff --before 2025-01-31T03:00 --user 7c9e6679-7425-40de-944b-e07fc1f90ae7
    """
    with manager(out, "", connects=True) as library, blamed(user, where):
        found = library.diff(
            chosen(backup, before), before=before, tables=tables or None, user=user, where=where, against=against
        )
    out.result(difference_document(found), difference_text(found))
    if any(table.missing or table.changed for table in found.tables):
        out.say("next: `dbops backup restore` with --table or --user, and --mode missing or upsert; --dry-run first")
    return 3 if exit_code and any(table.differs for table in found.tables) else 0


@contextmanager
def blamed(user: str | None, where: str | None) -> Iterator[None]:
    """What PostgreSQL says of a --user or --where that it cannot read is an error of usage."""
    try:
        yield
    except DbopsError as error:
        state = str(getattr(error.__cause__, "sqlstate", None) or "")
        # https://www.postgresql.org/docs/current/errcodes-appendix.html: data exception; syntax error, unknown name
        if type(error) is not DbopsError or (user or where) is None or state[:2] not in ("22", "42"):
            raise
        what = f"--where {where!r}" if where is not None else f"--user {user!r}"
        raise UsageError(f"{what}: {error.message.splitlines()[0]}", hint="no live row was touched") from error


@click.command()
@ID
@BEFORE
@TABLE
@USER
@WHERE
@click.option(
    "--mode",
    type=click.Choice(["missing", "upsert", "replace", "side"]),
    help="missing: insert rows that are gone. upsert: also turn changed ones back. replace: also delete what the backup "
    "does not have. side: only load into a schema beside.",
)
@click.option("--cascade", is_flag=True, help="With replace: take in the tables whose rows refer to the selected ones.")
@click.option("--into", metavar="URL", help="Another database instead of --url, e.g. an empty one for a whole backup.")
@click.option("--create-roles", is_flag=True, help="Make roles that the server does not have, without login.")
@click.option("--no-owner", is_flag=True, help="Leave out ownership and the rights of roles that are missing.")
@click.option("--undo", metavar="RUN", help="Take an earlier restore of rows back.")
@STORE
@WAIT
@DRY_RUN
@YES
@CONFIRM
@common
def restore(
    out: Output, backup: str, before: datetime | None, tables: tuple[str, ...], user: str | None, where: str | None,
    mode: Mode | None, cascade: bool, into: str | None, create_roles: bool, no_owner: bool, undo: str | None,
    dry_run: bool, yes: bool, word: str | None,
) -> None:  # fmt: skip
    """Bring back a whole backup into an empty database, or tables or one user's rows into a live one.

    Rows go into a live database in one transaction, after the plan was shown; what is overwritten is saved first.

    \b
    dbops backup restore --table notes --mode missing
    dbops backup restore --user 7c9e6679-7425-40de-944b-e07fc1f90ae7 --mode upsert --dry-run
    dbops backup restore backup_20250101_120000_daily --into "$NEW_URL" --create-roles
    dbops backup restore --undo 20250101_120000_1f2e3d4c
    """
    selected = bool(tables or user is not None or where is not None)
    _refuse_nonsense(selected, mode, undo, create_roles or no_owner, cascade)
    if into is not None and not into.strip():
        raise click.UsageError("--into is empty")
    if undo is not None:
        _into(out, into)
        _undo(out, undo, dry_run, yes, word)
        return
    # which backup is the latest is a question to the database that --url names, not to the one that is restored into
    with manager(out, "") as library:
        manifest = library.get_backup(chosen(backup, before), before=before)
    _into(out, into)
    if mode is None:
        _whole(out, manifest, create_roles, no_owner, dry_run, yes, word)
        return
    with manager(out, "", connects=True, stopped=MERGED_WHOLE) as library, ExitStack() as stack:
        with blamed(user, where):
            prepared = stack.enter_context(
                library.plan_merge(manifest, mode=mode, tables=tables or None, user=user, where=where, cascade=cascade)
            )
        _merge(out, library, prepared, dry_run, yes, word)


def _into(out: Output, into: str | None) -> None:
    if into is not None:
        out.settings = replace(out.settings, url=libpq_url(into), url_source="option")


def _refuse_nonsense(selected: bool, mode: str | None, undo: str | None, roles: bool, cascade: bool) -> None:
    if undo is not None and (selected or mode or roles or cascade):
        raise click.UsageError("--undo stands alone")
    if selected and mode is None:
        raise click.UsageError(
            "into a live table there is no default --mode: missing inserts rows that are gone, upsert also turns changed "
            "ones back, replace also deletes what the backup does not have, side only loads into a schema beside"
        )
    if mode and roles:
        raise click.UsageError("--create-roles and --no-owner are for a whole backup")
    if cascade and mode != "replace":
        raise click.UsageError("--cascade goes with --mode replace")


def _undo(out: Output, run: str, dry_run: bool, yes: bool, word: str | None) -> None:
    with manager(out, "", connects=True, stopped=MERGED_WHOLE) as library:
        tables = [table.merged for table in library.plan_undo(run).tables]
        shown = "\n".join(f"  {each.table}: {count(each.written, 'row')} as before that run" for each in tables)
        if dry_run:
            out.result({"tables": [asdict(each) | {"written": 0} for each in tables], "run": run}, shown)
            return
        out.say(shown)
        out.confirm(f"take back run {run}", library.url, yes=yes, word=word)
        merged = library.undo(run)
    out.result(merged_document(merged), merged_text(merged))


def _whole(
    out: Output, manifest: Manifest, create_roles: bool, no_owner: bool, dry_run: bool, yes: bool, word: str | None
) -> None:
    what = f"{count(len(manifest.tables), 'table')}, {count(manifest.rows, 'row')}"
    document: dict[str, Any] = {
        "tables": [{"table": str(t.name), "missing": t.rows, "changed": 0, "extra": 0, "written": 0} for t in manifest.tables],
        "run": None, "id": manifest.id, "notes": [], "left_out": omitted_document(manifest.omitted),
    }  # fmt: skip
    for each in manifest.omitted:
        out.warn(f"not in this backup: {each.name}: {each.reason}")
    from dbops.backup.restore import examine_target

    with manager(out, "rows", connects=True, stopped=BEGUN) as library:
        left = examine_target(library.url)
        first = f", after dropping {left}" if left else ""
        if dry_run:
            out.result(document, f"would restore {manifest.id} ({what}) into {out.target(library.url)}{first}")
            return
        out.confirm(f"restore {manifest.id} ({what}){first}", library.url, yes=yes, word=word)
        done = library.restore_whole(manifest, create_roles=create_roles, no_owner=no_owner, clean=bool(left))
    for note in done.notes:
        out.warn(note)
    for each in done.left_out:
        out.warn(f"left out: {each.name}: {each.reason}")
    document |= {"duration_ms": round(done.duration_ms, 3), "notes": list(done.notes)}
    document |= {"left_out": omitted_document((*manifest.omitted, *done.left_out))}
    document["tables"] = [table | {"written": table["missing"]} for table in document["tables"]]
    text = f"restored {count(done.tables, 'table')}, {count(done.rows, 'row')} in {duration(done.duration_ms)}"
    out.result(document, text)


def _merge(out: Output, library: BackupManager, prepared: Any, dry_run: bool, yes: bool, word: str | None) -> None:
    from dbops.backup.merge import merge

    plan = prepared.plan
    shown = "\n".join([str(plan), *(line for table in plan.tables for line in samples_text(table))])
    if dry_run:
        document = plan_document(plan.tables) | {"problems": list(plan.problems), "notes": list(plan.notes)}
        out.result(document | {"mode": plan.mode}, shown)
        return
    out.say(shown)
    if plan.writes and not plan.problems:
        out.confirm(f"write {count(plan.writes, 'row')} (mode {plan.mode})", library.url, yes=yes, word=word)
    merged = merge(prepared)
    out.result(merged_document(merged), merged_text(merged))
