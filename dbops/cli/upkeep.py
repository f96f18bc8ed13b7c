"""`dbops migrate check, repair, baseline, adopt, reverse, plan`."""

from __future__ import annotations

import click

from dbops.cli.main import common
from dbops.cli.migrate import CONFIRM, DRY_RUN, SCRATCH, YES, manager, pending_document, plan_document
from dbops.cli.output import Output, utc
from dbops.errors import shown


@click.command()
@click.option("--to", metavar="VERSION", help="Up to and with this version.")
@click.option("--count", type=click.IntRange(min=1), help="At most this many.")
@click.option("--allow-out-of-order", is_flag=True, help="Also what is older than the newest applied one.")
@click.option(
    "--xray", is_flag=True, help="Run it on a scratch copy of the target's schema: locks, rewrites, what would block."
)
@SCRATCH
@common
def plan(out: Output, to: str | None, count: int | None, allow_out_of_order: bool, xray: bool) -> int:
    """What `up` would do; with --xray what it would lock, rewrite and block.

    \b
    dbops migrate plan --xray --url "$PROD_URL"
    """
    library = manager(out)
    found = library.plan_up(to=to, count=count, allow_out_of_order=allow_out_of_order)
    if xray:
        from dbops.cli.xray import xray_document, xray_text

        picture = library.xray(found)
        out.result(xray_document(picture), xray_text(picture))
        return 1 if picture.failed else 0
    out.result(plan_document(found), str(found))
    return 0


@click.command()
@click.argument("version")
@click.option("--write", is_flag=True, help="Append it to the migration's file, where that has no down part.")
@click.option("--dry-run", is_flag=True, help="With --write: write nothing.")
@common
def reverse(out: Output, version: str, write: bool, dry_run: bool) -> None:
    """Write the down part that follows from a migration's up part.

    Names each statement that cannot be reversed without losing data.

    \b
    dbops migrate reverse 20250101_000001            print it
    dbops migrate reverse 20250101_000001 --write    append it to the file, then prove it
    """
    migration, reversal = manager(out).reverse(version)
    stuck = [{"line": step.line, "reason": step.reason} for step in reversal.irreversible]
    if write and not dry_run:
        from dbops.migrate.new import append_down

        append_down(migration, reversal.sql)
        out.say(f"wrote the down part into {shown(migration.path)}; prove it: dbops migrate prove {version}")
    out.result({"version": version, "down": reversal.sql, "irreversible": stuck}, reversal.sql)
    for step in reversal.irreversible:
        out.warn(f"{shown(migration.path)}:{step.line}: {step.reason}")


@click.command()
@common
def check(out: Output) -> int:
    """Drift of the configured schemas against what the last run left (policies: `dbops policy check`).

    Exit 3 where there is drift, 4 where nothing can be compared.
    """
    drift = manager(out).check()
    since = f" since {utc(drift.since):%Y-%m-%d %H:%M} UTC" if drift.since else ""
    document = {"drift": drift.text, "comparable": drift.comparable, "since": drift.since, "reason": drift.reason}
    if not drift.comparable:
        out.result(document, drift.reason)
        return 4
    out.result(document, drift.text or f"no drift{since}")
    return 3 if drift.text else 0


@click.command()
@click.argument("versions", nargs=-1, metavar="[VERSION]...")
@click.option("--step-done", metavar="VERSION", help="The step that a killed run began was done: go on after it.")
@click.option("--forget-steps", metavar="VERSION", help="Give up one that stopped half-way; what its steps did stays.")
@click.option("--step-again", metavar="VERSION", help="The step that a killed run began was not done: run it again.")
@DRY_RUN
@YES
@CONFIRM
@common
def repair(
    out: Output,
    versions: tuple[str, ...],
    step_done: str | None,
    step_again: str | None,
    forget_steps: str | None,
    dry_run: bool,
    yes: bool,
    word: str | None,
) -> None:
    """Accept edited files as they are now, on the record; nothing is run.

    \b
    dbops migrate repair --dry-run           what was edited
    dbops migrate repair 20250101_000001     accept one
    """
    library = manager(out)
    if forget_steps:
        if not dry_run:
            out.confirm(f"forget the steps of {forget_steps}", library.url, yes=yes, word=word)
            library.forget_steps(forget_steps)
        out.result({"repaired": [forget_steps]}, f"{forget_steps}: its steps are forgotten; what they did stays")
        return
    if step_done or step_again:
        version = str(step_done or step_again)
        if not dry_run:
            out.confirm(f"settle the step of {version} that a killed run began", library.url, yes=yes, word=word)
            library.settle_step(version, done=step_done is not None)
        out.result({"repaired": [version]}, f"{version}: the step counts as {'done' if step_done else 'not done'}")
        return
    edited = library.plan_repair(versions)
    diffs = {migration.version: library.edit_diff(migration.version) for migration in edited}
    text = "\n".join(diffs.values()) or "nothing was edited"
    if dry_run or not edited:
        out.result({"repaired": [], "diff": diffs}, text)
        return
    out.say(text)
    out.confirm(f"accept {len(edited)} edited file{'s' * (len(edited) != 1)}", library.url, yes=yes, word=word)
    accepted = library.repair(versions)
    out.result({"repaired": list(accepted), "diff": diffs}, f"accepted {', '.join(accepted)}")


@click.command()
@click.argument("version")
@DRY_RUN
@YES
@CONFIRM
@common
def baseline(out: Output, version: str, dry_run: bool, yes: bool, word: str | None) -> None:
    """Record all migrations up to VERSION as applied, for a database that has them already; nothing is run."""
    library = manager(out)
    chosen = library.plan_baseline(version)
    text = "\n".join(f"record {migration.version} {migration.name}" for migration in chosen)
    document = {
        "recorded": [] if dry_run else [m.version for m in chosen],
        "plan": [pending_document(m) for m in chosen],
    }
    if not dry_run:
        out.say(text)
        out.confirm(f"record {len(chosen)} migrations as applied", library.url, yes=yes, word=word)
        library.baseline(version)
        text = f"recorded {len(chosen)} migrations"
    out.result(document, text)


@click.command()
@click.option("--from", "tool", metavar="TOOL", help="dbmate, golang-migrate, Flyway or Supabase; else found out.")
@DRY_RUN
@YES
@CONFIRM
@common
def adopt(out: Output, tool: str | None, dry_run: bool, yes: bool, word: str | None) -> None:
    """Take over the history of another tool; its table stays, renamed where the name is needed."""
    library = manager(out)
    adoption = library.plan_adopt(tool)
    if not dry_run:
        out.say(str(adoption))
        out.confirm(f"take over the history of {adoption.source.tool.name}", library.url, yes=yes, word=word)
        adoption = library.adopt(tool)
    document = {
        "tool": adoption.source.tool.name,
        "table": adoption.source.qualified,
        "renamed_to": adoption.rename_to or None,
        "adopted": [] if dry_run else [m.version for m in adoption.migrations],
        "plan": [pending_document(m) for m in adoption.migrations],
        "without_file": list(adoption.without_file),
    }
    out.result(document, str(adoption) if dry_run else f"adopted {len(adoption.migrations)} migrations")
