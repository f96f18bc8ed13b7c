"""`dbops migrate`: each command parses, makes one call into the library, renders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dbops.cli.main import Lazy, common
from dbops.cli.output import Output, duration, utc
from dbops.errors import shown
from dbops.migrate import Event, Migration, MigrationManager, Outcome, Plan, Status

if TYPE_CHECKING:
    from dbops.migrate.plan import Act

SCRATCH = click.option(
    "--scratch-url", help="A server for proofs; else DBOPS_SCRATCH_URL, an installed one, the embedded one."
)
DRY_RUN = click.option("--dry-run", is_flag=True, help="Show the plan and change nothing.")
YES = click.option("--yes", is_flag=True, help="Do not ask.")
CONFIRM = click.option("--confirm", "word", metavar="WORD", help="The word that a profile's `confirm` wants.")
WAIT = click.option("--wait", metavar="TIME", help="How long to wait for another runner, e.g. 10min (default 5min).")


ELSEWHERE = dict.fromkeys(("plan", "reverse", "check", "repair", "baseline", "adopt"), "dbops.cli.upkeep") | {
    "lint": "dbops.cli.lint",
    "prove": "dbops.cli.prove",
    "rehearse": "dbops.cli.rehearse",
}


@click.group(cls=Lazy, lazy={name: f"{module}:{name}" for name, module in ELSEWHERE.items()})
def command() -> None:
    """Schema migrations, locked, recorded, reversible, proven.

    \b
    dbops migrate new add_users     a file for the next one
    dbops migrate up --dry-run      what would be applied
    dbops migrate up                apply it
    dbops migrate prove --pending   up, down, up on a scratch server first
    """


def manager(out: Output) -> MigrationManager:
    """The library's manager, its events shown as progress."""
    return MigrationManager(settings=out.settings, observer=lambda event: show(out, event))


def show(out: Output, event: Event) -> None:
    """One line for the moments of a run that people want to know of."""
    name = f"{event.version} {event.name}"
    if event.what == "embedded":
        out.embedded(event.detail)
    elif event.what == "waiting":
        out.say(f"waiting for another runner: {event.detail}")
    elif event.what == "committed":
        out.say(f"  {name}: {duration(event.duration_ms)}")
    elif event.what in ("retry", "abandoned", "rebuilt"):
        out.say(f"  {name}: {event.detail}", fg="yellow")
    elif event.what == "resumed":
        out.say(f"  {name}: step {event.step} of {event.steps} was done by an earlier run")
    elif event.what == "warning":
        out.warn(event.detail)
    elif out.verbose and event.what == "statement":
        out.say(f"    {event.step}/{event.steps} {' '.join(event.detail.split())[:100]}")
    elif event.what == "notice" and (out.verbose or event.name == "WARNING"):
        out.say(f"    {event.name}: {event.detail}")
    elif event.what in ("proving", "xray"):
        out.say(f"  {name}: {event.detail}" if event.version else event.detail)


def warn_of(out: Output, status: Status) -> None:
    for version in status.reformatted:
        out.warn(f"{version} was edited after it was applied: comments or white space only")
    for version in status.missing:
        out.warn(f"{version} is applied, but its file is missing")
    for waiting in status.waiting:
        out.warn(f"{waiting.version} waits: {waiting.reason}")


def fields(item: object, names: str) -> dict[str, Any]:
    """Some attributes of a value, as a document."""
    return {name: getattr(item, name) for name in names.split()}


def pending_document(migration: Migration) -> dict[str, Any]:
    return {"version": migration.version, "name": migration.name, "path": shown(migration.path)}


def status_document(status: Status) -> dict[str, Any]:
    return {
        "applied": [
            fields(r, "version name checksum applied_at duration_ms applied_by applied_from dbops_version kind")
            for r in status.applied
        ],
        "pending": [pending_document(m) for m in status.pending],
        "waiting": [{"version": w.version, "reason": w.reason} for w in status.waiting],
        "changed": list(status.changed),
        "reformatted": list(status.reformatted),
        "missing": list(status.missing),
        "out_of_order": list(status.out_of_order),
        "partial": [
            {"version": p.version, "direction": p.direction, "done": p.done, "steps": p.steps} for p in status.partial
        ],
    }


def status_text(status: Status) -> str:
    notes = dict.fromkeys(status.changed, "EDITED") | dict.fromkeys(status.reformatted, "edited (comments)")
    notes |= {version: f"{notes.get(version, '')} file missing".strip() for version in status.missing}
    lines = [
        f"[x] {r.version} {r.name}  {utc(r.applied_at):%Y-%m-%d %H:%M} by {r.applied_by}"
        f"{'' if r.kind == 'applied' else f', {r.kind}'}{f'  {notes[r.version]}' if r.version in notes else ''}"
        for r in status.applied
    ]
    under_way = {p.version: f"  step {p.done} of {p.steps} done" for p in status.partial if p.direction == "up"}
    late = set(status.out_of_order)
    lines += [
        f"[ ] {m.version} {m.name}{under_way.get(m.version, '')}{'  out of order' if m.version in late else ''}"
        for m in status.pending
    ]
    lines += [f"[~] {w.version} waiting: {w.reason}" for w in status.waiting]
    shown = {m.version for m in status.pending}
    lines += [
        f"[!] {p.version} {'applied' if p.direction == 'up' else 'reversed'} half-way: {p.done} of {p.steps} steps"
        for p in status.partial
        if p.direction == "down" or p.version not in shown
    ]
    lines.append(
        f"applied {len(status.applied)}, pending {len(status.pending)}"
        + (f", waiting {len(status.waiting)}" if status.waiting else "")
    )
    return "\n".join(lines)


@command.command()
@click.option(
    "--exit-code", is_flag=True, help="Exit 3 where something is pending, 12 where files and history disagree."
)
@click.option("--diff", is_flag=True, help="Show what was edited in applied files.")
@common
def status(out: Output, exit_code: bool, diff: bool) -> int:
    """What is applied, pending, waiting, edited, missing, out of order."""
    library = manager(out)
    now = library.get_migration_status()
    document, text = status_document(now), status_text(now)
    if diff:
        document["diff"] = "\n".join(library.edit_diff(version) for version in (*now.changed, *now.reformatted))
        text = "\n".join(filter(None, (text, document["diff"])))
    out.result(document, text)
    if exit_code and (now.changed or now.out_of_order or now.missing):
        return 12
    return 3 if exit_code and (now.pending or now.partial) else 0


def plan_document(plan: Plan) -> dict[str, Any]:
    return {
        "steps": [act_document(act) for act in plan.acts],
        "waiting": [{"version": w.version, "reason": w.reason} for w in plan.waiting],
    }


def act_document(act: Act) -> dict[str, Any]:
    return {
        "version": act.version,
        "name": act.migration.name,
        "direction": act.direction,
        "transactional": act.program.transactional,
        "statements": [{"sql": s.sql, "line": s.line} for s in act.program.statements],
    }


def run_document(key: str, outcome: Outcome) -> dict[str, Any]:
    return {
        key: list(outcome.versions),
        "duration_ms": round(outcome.duration_ms, 3),
        "waiting": [{"version": w.version, "reason": w.reason} for w in outcome.plan.waiting],
    }


def run_text(verb: str, outcome: Outcome) -> str:
    count = len(outcome.versions)
    if not count:
        return "nothing to do"
    return f"{verb} {count} migration{'s' * (count != 1)} in {duration(outcome.duration_ms)}"


@command.command()
@click.option("--to", metavar="VERSION", help="Up to and with this version.")
@click.option("--count", type=click.IntRange(min=1), help="At most this many.")
@click.option("--allow-out-of-order", is_flag=True, help="Apply also what is older than the newest applied one.")
@click.option("--lock-timeout", metavar="TIME", help="How long a statement waits for a lock, each time (default 3s).")
@WAIT
@DRY_RUN
@common
def up(out: Output, to: str | None, count: int | None, allow_out_of_order: bool, dry_run: bool) -> None:
    """Apply what is pending: one transaction per migration, its record inside it.

    \b
    dbops migrate up --to 20250201_000002
    dbops migrate up --url "$PROD_URL" --wait 10min --json
    """
    library = manager(out)
    if dry_run:
        plan = library.plan_up(to=to, count=count, allow_out_of_order=allow_out_of_order)
        out.result(plan_document(plan) | {"applied": [], "duration_ms": 0}, str(plan))
        return
    outcome = library.migrate_up(to=to, count=count, allow_out_of_order=allow_out_of_order)
    warn_of(out, library.get_migration_status())
    out.result(run_document("applied", outcome), run_text("applied", outcome))


@command.command()
@click.argument("version", required=False)
@click.option("--to", metavar="VERSION", help="Reverse what came after this version (0: everything); it stays applied.")
@click.option("--count", type=click.IntRange(min=1), help="Reverse the newest this many (default 1).")
@WAIT
@SCRATCH
@DRY_RUN
@YES
@CONFIRM
@common
def down(
    out: Output, version: str | None, to: str | None, count: int | None, dry_run: bool, yes: bool, word: str | None
) -> None:
    """Reverse migrations, the newest first.

    \b
    dbops migrate down                         the newest one
    dbops migrate down --to 20250101_000001    what came after it
    dbops migrate down 20250201_000002         one that newer ones do not depend on
    """
    if sum(option is not None for option in (version, to, count)) > 1:
        raise click.UsageError("give one of VERSION, --to, --count")
    library = manager(out)
    plan = library.plan_down(version=version, to=to, count=count)
    if dry_run or not plan.acts:
        out.result(plan_document(plan) | {"reversed": [], "duration_ms": 0}, str(plan))
        return
    out.say(str(plan))
    out.confirm(f"reverse {len(plan.acts)} migration{'s' * (len(plan.acts) != 1)}", library.url, yes=yes, word=word)
    outcome = library.migrate_down(version=version, to=to, count=count, expected=plan.versions)
    out.result(run_document("reversed", outcome), run_text("reversed", outcome))


@command.command()
@click.option("--count", type=click.IntRange(min=1), default=1, help="The newest this many (default 1).")
@WAIT
@DRY_RUN
@YES
@CONFIRM
@common
def redo(out: Output, count: int, dry_run: bool, yes: bool, word: str | None) -> None:
    """Reverse the newest migration and apply it again."""
    library = manager(out)
    plan = library.plan_down(count=count)
    if dry_run or not plan.acts:
        out.result(plan_document(plan) | {"reversed": [], "applied": [], "duration_ms": 0}, str(plan))
        return
    out.say(str(plan))
    out.confirm(f"reverse and apply again {', '.join(plan.versions)}", library.url, yes=yes, word=word)
    outcome = library.migrate_redo(count=count, expected=plan.versions)
    document = run_document("reversed", outcome) | {"applied": list(reversed(outcome.versions))}
    out.result(document, run_text("redid", outcome))


@command.command()
@click.argument("name")
@DRY_RUN
@common
def new(out: Output, name: str, dry_run: bool) -> None:
    """Write an empty migration file with the next version.

    \b
    dbops migrate new add_users
    """
    from dbops.migrate.new import new_file, write_new

    path, text = new_file(out.settings.migrations, name)
    if not dry_run:
        write_new(path, text)
    out.result(
        {"path": shown(path), "version": path.name[:15]},
        f"{'would write' if dry_run else 'wrote'} {shown(path)}",
    )


@command.command()
@click.option("--limit", type=click.IntRange(min=1), default=20, help="The newest this many runs.")
@common
def history(out: Output, limit: int) -> None:
    """Who ran what, when, from where."""
    runs = manager(out).history(limit)
    document = [
        fields(r, "run command versions started_at finished_at run_by run_from dbops_version note schema_hash")
        for r in runs
    ]
    lines = [
        f"{utc(r.finished_at):%Y-%m-%d %H:%M:%S}  {r.command:<8} {', '.join(r.versions)}  by {r.run_by} from {r.run_from}"
        f"{f'  ({r.note.splitlines()[0]})' if r.note else ''}"
        for r in runs
    ]
    out.result({"runs": document}, "\n".join(lines) or "no runs")
