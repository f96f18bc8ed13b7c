"""`dbops policy`: each command parses, makes one call into the library, renders."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dbops.cli.main import Lazy, common
from dbops.cli.migrate import CONFIRM, DRY_RUN, WAIT, YES
from dbops.cli.output import Output, duration
from dbops.cli.policy_output import listed_document, listed_text, plan_document
from dbops.embedded import resolve
from dbops.errors import DbopsError, shown

if TYPE_CHECKING:
    from dbops.migrate import MigrationManager
    from dbops.policy import PolicyManager, Statement

PRUNE = click.option("--prune", is_flag=True, help="Also drop the policies that no definition makes.")


@click.group(cls=Lazy, lazy={name: f"dbops.cli.attack:{name}" for name in ("attack", "lint")})
def command() -> None:
    """Row level security, declared in policies/, applied as a difference, attacked.

    \b
    dbops policy plan       what differs, as SQL
    dbops policy apply      make it so, in one transaction
    dbops policy attack     prove it on a scratch server
    dbops policy check      exit 3 where the database differs, for CI and cron
    """


def manager(out: Output) -> PolicyManager:
    """The library's manager on the database of the settings."""
    from dbops.policy import PolicyManager

    url = resolve(out.settings, lambda server: out.embedded(server.data_directory))
    out.settings = replace(out.settings, url=url)
    return PolicyManager(settings=out.settings, tell=out.say)


@command.command(name="list")
@common
def list_(out: Output) -> None:
    """The database's policies, and who made each: dbops, a definition (`raw`), a file, or somebody else.

    \b
    dbops policy list --json
    """
    listed = manager(out).list()
    out.result(listed_document(listed), listed_text(listed))


@command.command()
@PRUNE
@click.option("--write-migration", is_flag=True, help="Write the indexes that the policies need as a migration.")
@click.option("--dry-run", is_flag=True, help="With --write-migration: write nothing.")
@common
def plan(out: Output, prune: bool, write_migration: bool, dry_run: bool) -> None:
    """What `apply` would do, as SQL.

    \b
    dbops policy plan --url "$PROD_URL"
    dbops policy plan --write-migration     the indexes too; then: dbops migrate prove --pending
    """
    library = manager(out)
    found = library.plan(prune=prune)
    _tell_of_nothing(out, library)
    written = library.write_migration(found, out.settings.migrations) if write_migration and not dry_run else None
    out.result(plan_document(found) | {"migration": shown(written) if written else None}, str(found).rstrip())
    if written:
        out.say(f"wrote {shown(written)}; prove it: dbops migrate prove --pending")
    elif write_migration and not found.proposals:
        out.say("no index is missing: no migration was written")
    if found.statements:
        tables = {table for statement in found.statements for table in statement.tables}
        out.say(
            f"{_count(found.statements)} on {len(tables)} table{'s' * (len(tables) != 1)}; next: dbops policy apply"
        )


def _tell_of_nothing(out: Output, library: PolicyManager) -> None:
    """Say that nothing is declared: no difference means little then."""
    definitions = library.definitions()
    if not definitions.tables and not definitions.verbatim:
        out.say(
            f"no table is defined in {shown(out.settings.policies)}: dbops policy export writes what a database has"
        )


@command.command()
@PRUNE
@WAIT
@DRY_RUN
@YES
@CONFIRM
@common
def apply(out: Output, prune: bool, dry_run: bool, yes: bool, word: str | None) -> None:
    """Bring the database to the definitions, in one transaction.

    It asks first where a statement drops, changes or narrows something.

    \b
    dbops policy apply --dry-run
    dbops policy apply --url "$PROD_URL" --yes --json
    """
    library = manager(out)
    found = library.plan(prune=prune)
    _tell_of_nothing(out, library)
    document = plan_document(found) | {"applied": False, "duration_ms": 0}
    if dry_run or not found.statements:
        out.result(document, str(found).rstrip())
        return
    out.say(str(found).rstrip())
    narrowing = sum(map(narrows, found.statements))
    if narrowing:
        what = f"apply {_count(found.statements)} ({narrowing} change or narrow what is there)"
        out.confirm(what, library.url, yes=yes, word=word)
    with _schema_on_the_record(out):
        done = library.apply(prune=prune, expected=found)
    document |= {"applied": True, "duration_ms": round(done.duration_ms, 3)}
    out.result(document, f"applied {_count(done.statements)} in {duration(done.duration_ms)}")


def _count(statements: Sequence[object]) -> str:
    return f"{len(statements)} statement{'s' * (len(statements) != 1)}"


def narrows(statement: Statement) -> bool:
    """Whether a statement drops, changes or narrows something. What is not known to add only, does."""
    text = statement.sql
    adds = text.startswith(("GRANT ", "CREATE SCHEMA ", "CREATE OR REPLACE FUNCTION "))
    adds = adds or (text.startswith("CREATE POLICY ") and " AS RESTRICTIVE " not in text)
    return bool(statement.was or statement.file) or not adds


@contextmanager
def _schema_on_the_record(out: Output) -> Iterator[None]:
    """What happens within is no drift of the migrations, where they had none before."""
    from dbops.migrate import MigrationManager

    library = MigrationManager(settings=out.settings)
    clean = _is_clean(library, out)
    started = datetime.now(UTC)
    yield
    if not clean:
        return
    try:
        with library.locked(ensure=False) as (worker, _):
            library.record_run(worker, uuid.uuid4(), "policy apply", (), started)
    except DbopsError as error:
        out.warn(f"the policies are applied, but `dbops migrate check` will call them drift: {error.message}")


def _is_clean(library: MigrationManager, out: Output) -> bool:
    try:
        drift = library.check()
    except DbopsError:
        return False  # no pg_dump, or a pooler: nothing was ever compared
    if drift.text:
        out.warn("the schema had drifted before (dbops migrate check): the policies will be shown with that drift")
    return drift.comparable and not drift.text


@command.command()
@common
def check(out: Output) -> int:
    """Drift of the database against the definitions; policies that no definition makes count.

    Exit 3 where there is some.

    \b
    dbops policy check --url "$PROD_URL" --json
    """
    library = manager(out)
    drift = library.check()
    _tell_of_nothing(out, library)
    document = {"drift": drift.text, "comparable": drift.comparable}
    out.result(document | plan_document(drift.plan), drift.text.rstrip() or "no drift")
    return 3 if drift.text else 0


@command.command()
@click.argument("name", metavar="TABLE")
@common
def explain(out: Output, name: str) -> None:
    """In plain words who may do what on a table.

    \b
    dbops policy explain public.user_memories
    """
    found = manager(out).explain(name)
    out.result({"table": found.table, "sentences": list(found.sentences)}, str(found).rstrip())


@command.command()
@click.argument("tables", nargs=-1, metavar="[TABLE]...")
@click.option("--to", "folder", type=click.Path(path_type=Path), help="The folder (default: the settings').")
@DRY_RUN
@common
def export(out: Output, tables: tuple[str, ...], folder: Path | None, dry_run: bool) -> None:
    """Write definitions from what a database has, so that an existing project can start.

    \b
    dbops policy export --url "$SUPABASE_URL"
    dbops policy export public.notes --dry-run
    """
    library, target = manager(out), folder or out.settings.policies
    if not dry_run:
        files = library.export(target, tables or None)
        out.result({"files": [shown(file) for file in files]}, "\n".join(f"wrote {shown(file)}" for file in files))
        _tell_of_no_files(out, files)
        return
    with tempfile.TemporaryDirectory() as aside:
        files = library.export(Path(aside), tables or None)
        texts = {shown(target / file.name): file.read_text(encoding="utf-8") for file in files}
    text = "\n".join(f"# {path}\n{content}" for path, content in texts.items())
    out.result({"files": list(texts), "contents": texts}, text.rstrip())
    _tell_of_no_files(out, files)


def _tell_of_no_files(out: Output, files: Sequence[Path]) -> None:
    if not files:
        schemas = ", ".join(out.settings.schemas)
        out.say(f"nothing to write: no table of {schemas} has row level security or a policy (setting schemas)")
