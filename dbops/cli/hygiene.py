"""`dbops hygiene`: each command parses, makes one call into the library, renders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from dbops.cli.hygiene_output import (
    batches_document,
    batches_text,
    cleanup_document,
    done_document,
    done_text,
    plan_document,
    review_document,
    review_text,
    stats_document,
    stats_text,
    undo_document,
    undo_plan_text,
    undo_text,
)
from dbops.cli.main import Lazy, common
from dbops.cli.migrate import CONFIRM, DRY_RUN, YES
from dbops.cli.output import Output
from dbops.wording import count

if TYPE_CHECKING:
    from dbops.hygiene import HygieneManager, Search
    from dbops.hygiene.table.model import Target

USER = click.option("--user", metavar="USER", help="Only this user: a UUID, or any text that user_uuid() maps to one.")


@click.group(cls=Lazy)
def command() -> None:
    """Duplicates found exactly and marked, never deleted; clean-up; each batch can be undone.

    \b
    dbops hygiene scan                     what dedupe would do
    dbops hygiene dedupe --user ann        mark one user's duplicates
    dbops hygiene review                   pairs that may be updates, for a person
    dbops hygiene cleanup --days 90        delete what was inactive for long
    dbops hygiene undo BATCH               every row as it was
    dbops hygiene dedupe --table documents --text body --keep "score desc" --action mark:is_copy=true
    """


def manager(out: Output) -> HygieneManager:
    """The library's manager; its progress is shown."""
    from dbops.embedded import resolve
    from dbops.hygiene import HygieneManager

    url = resolve(out.settings, lambda server: out.embedded(server.data_directory))
    out.settings = replace(out.settings, url=url)
    return HygieneManager(settings=out.settings, tell=out.say)


def searching(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what a duplicate is, and where they are looked for."""
    options = [
        USER,
        click.option("--all", "everyone", is_flag=True, help="All users (the default)."),
        click.option("--threshold", type=float, default=0.85, help="Jaccard similarity of the word sets (default 0.85)."),
        click.option("--semantic", type=float, metavar="X", help="Also pairs whose embeddings have this cosine similarity."),
        click.option("--both", is_flag=True, help="With --semantic: a pair must reach both."),
        click.option("--model", help="With --semantic: the embeddings of this model only."),
        click.option(
            "--cluster", type=click.Choice(["stars", "components"]), default="stars",
            help="stars: each loser is near its survivor. components: chains as well.",
        ),
        click.option("--table", "other", metavar="TABLE", help="Another table than the memories."),
        click.option("--text", metavar="EXPR", help="With --table: the text that is compared."),
        click.option("--scope", metavar="EXPR", help="With --table: only rows with the same value are compared."),
        click.option("--keep", metavar="ORDER", help='With --table: who survives, e.g. "score desc, id".'),
        click.option("--action", metavar="ACTION", help="With --table: mark:COLUMN=VALUE or delete."),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def _search(values: dict[str, Any]) -> tuple[str | None, Search, Target | None]:
    """(user, search, table) from the options."""
    from dbops.hygiene import Search
    from dbops.hygiene.session import without_nul

    for name in ("other", "text", "scope", "keep", "action", "model"):
        if values[name] is not None:
            without_nul(values[name], f"--{'table' if name == 'other' else name}")
    if values["user"] is not None and values["everyone"]:
        raise click.UsageError("--user and --all exclude each other")
    names = ("threshold", "semantic", "both", "model", "cluster")
    search = Search(**{name: values[name] for name in names})
    return values["user"], search, _target(values)


def _target(values: dict[str, Any]) -> Target | None:
    from dbops.hygiene.table.model import Target

    given = [name for name in ("text", "scope", "keep", "action") if values[name] is not None]
    if values["other"] is None:
        if given:
            raise click.UsageError(f"--{given[0]} goes with --table")
        return None
    if values["text"] is None or values["action"] is None:
        raise click.UsageError("--table needs --text and --action")
    if values["user"] is not None or values["semantic"] is not None:
        raise click.UsageError("--user and --semantic are for the memories, not for --table")
    return Target(values["other"], values["text"], values["action"], values["scope"], values["keep"])


@command.command()
@searching
@common
def scan(out: Output, **values: Any) -> None:
    """What dedupe would do; changes nothing.

    \b
    dbops hygiene scan --user ann --threshold 0.7
    """
    user, search, target = _search(values)
    plan = manager(out).scan(user, search, target=target)
    out.result(plan_document(plan), str(plan))


@command.command()
@searching
@DRY_RUN
@YES
@CONFIRM
@common
def dedupe(out: Output, dry_run: bool, yes: bool, word: str | None, **values: Any) -> int:
    """Mark duplicates: the most important, most confident, newest of them stays active.

    Pairs that differ in a number, a date, a negation or a name go to `review`. `undo` takes the batch back.

    \b
    dbops hygiene dedupe --dry-run
    dbops hygiene dedupe --semantic 0.95 --both
    """
    user, search, target = _search(values)
    library = manager(out)
    plan = library.scan(user, search, target=target)
    if dry_run:
        out.result(plan_document(plan), str(plan))
        return 0
    out.say(str(plan))
    verb = "delete" if plan.deletes else "mark"
    what = (
        f"{verb} {count(plan.marked, 'duplicate')}" if plan.marked else f"list {count(plan.review, 'pair')} to review"
    )
    if plan.marked or plan.review:
        out.confirm(f"{what} in {plan.table}", library.url, yes=yes, word=word)
    done = library.dedupe(plan, target=target)
    out.result(done_document(done), done_text(done, "deleted" if plan.deletes else "marked"))
    return 1 if done.failed else 0


@command.command()
@click.argument("verdict", required=False, type=click.Choice(["accept", "reject"]))
@click.argument("ids", nargs=-1, type=int, metavar="[ID]...")
@USER
@click.option("--limit", type=click.IntRange(1), default=100, help="How many pairs (default 100).")
@DRY_RUN
@YES
@CONFIRM
@common
def review(
    out: Output, verdict: str | None, ids: tuple[int, ...], user: str | None, limit: int, dry_run: bool, yes: bool,
    word: str | None,
) -> int:  # fmt: skip
    """Pairs that may be updates or contradictions; accept marks the second, reject keeps both for good.

    Where the pair is of another table, accept does the --action of the run that found it.

    \b
    dbops hygiene review
    dbops hygiene review accept 3 4
    """
    if verdict is not None and not ids:
        raise click.UsageError(f"review {verdict} needs the ID of a pair")
    library = manager(out)
    items = library.review(user, limit=limit, ids=ids or None)
    if verdict is None or dry_run:
        out.result(review_document(items), review_text(items))
        return 0
    if verdict == "reject":
        rejected = library.reject(ids)
        out.result({"items": [], "rejected": rejected}, f"{rejected} rejected: they are not listed again")
        return 0
    out.say(review_text(items))
    verb = "delete" if any(item.deletes for item in items) else "mark"
    out.confirm(f"{verb} the second of {count(len(items), 'pair')}", library.url, yes=yes, word=word)
    done = library.accept(ids)
    out.result(done_document(done) | {"items": []}, done_text(done, "deleted" if verb == "delete" else "marked"))
    return 1 if done.failed else 0


@command.command()
@click.option("--days", type=int, default=90, help="Inactive and unchanged for so many days (default 90).")
@click.option("--purge-after", type=int, default=30, help="For so many days undo can bring it back (default 30).")
@USER
@DRY_RUN
@YES
@CONFIRM
@common
def cleanup(
    out: Output, days: int, purge_after: int, user: str | None, dry_run: bool, yes: bool, word: str | None
) -> int:
    """Delete memories that were inactive for long, and expired blobs; a loser whose survivor is gone stays.

    Without --user the ledgers of batches whose time is over go as well: those cannot be undone any more.

    \b
    dbops hygiene cleanup --days 180 --dry-run
    """
    library = manager(out)
    plan = library.plan_cleanup(days, user=user)
    if dry_run:
        out.result(cleanup_document(plan), str(plan))
        return 0
    out.say(str(plan))
    if not plan.empty:
        what = f"delete {count(plan.memories, 'memory')} and {count(plan.blobs, 'blob')}"
        for_good = f", and for good {plan.kept}" if plan.kept else ""
        out.confirm(what + for_good, library.url, yes=yes, word=word)
    done = library.cleanup_old_memories(days, plan=plan, purge_after=purge_after)
    out.result(done_document(done), done_text(done, "deleted"))
    return 1 if done.failed else 0


@command.command()
@click.argument("batch")
@DRY_RUN
@YES
@CONFIRM
@common
def undo(out: Output, batch: str, dry_run: bool, yes: bool, word: str | None) -> int:
    """Take a batch back: its rows are as they were. Exit 3 where some had changed since and were left as they are.

    Exit 1 where it failed for a user: the others are done, and undo can be run again.

    \b
    dbops hygiene history
    dbops hygiene undo 6f1c54a2-8a2b-4a53-9d86-2f3a4a0f5d11
    """
    library = manager(out)
    plan = library.plan_undo(batch)
    if dry_run:
        out.result(
            {"batch": plan.batch, "restored": 0, "refused": [], "altered": [], "failed": [], "rows": plan.rows},
            undo_plan_text(plan),
        )
        return 0
    out.say(undo_plan_text(plan))
    out.confirm(f"take back batch {plan.batch}", library.url, yes=yes, word=word)
    undone = library.undo(batch)
    out.result(undo_document(undone), undo_text(undone))
    return 1 if undone.failed else 3 if undone.refused else 0


LIMIT = click.option("--limit", type=click.IntRange(1), default=50, help="How many batches or users (default 50).")


@command.command()
@LIMIT
@common
def history(out: Output, limit: int) -> None:
    """The newest batches: what was marked or deleted, by whom, and what was undone."""
    batches = manager(out).history(limit=limit)
    out.result(batches_document(batches), batches_text(batches))


@command.command()
@USER
@LIMIT
@common
def stats(out: Output, user: str | None, limit: int) -> None:
    """Duplicates found and bytes won, over time and by user."""
    found = manager(out).stats(user, limit=limit)
    out.result(stats_document(found), stats_text(found))
