"""`dbops migrate lint`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from dbops.cli.findings import FAIL_ON, FORMAT, document_of, failing, report, text_of
from dbops.cli.main import common
from dbops.cli.output import Output
from dbops.errors import UsageError
from dbops.migrate.files import Migration
from dbops.migrate.lint import RULES
from dbops.migrate.lint import lint as look
from dbops.migrate.manager import MigrationManager


@click.command()
@click.argument("versions", nargs=-1, metavar="[VERSION]...")
@click.option("--pending", is_flag=True, help="Only what is not applied yet (asks the database).")
@FAIL_ON
@FORMAT
@click.option("--pg-version", type=click.IntRange(min=10), help="The server's major version (default: the settings').")
@click.option("--squawk/--no-squawk", default=True, help="With squawk's rules, where it is installed (default).")
@common
def lint(
    out: Output, versions: tuple[str, ...], pending: bool, fail_on: str, form: str, pg_version: int | None, squawk: bool
) -> int:
    """Find what is dangerous in migrations: squawk's rules and rules on pgvector, RLS, locks and the way back.

    A comment suppresses a rule, with a reason: -- dbops:ignore RULE REASON (on the statement's line or above it),
    -- dbops:ignore-file RULE REASON. docs/lint.md describes each rule.

    \b
    dbops migrate lint                                every file
    dbops migrate lint --pending --fail-on error      what a deploy would apply
    dbops migrate lint --format sarif > lint.sarif    for a code host
    """
    from dbops.cli.migrate import manager  # which imports this module

    library = manager(out)
    files = library.files()
    # all files tell of the tables; the chosen ones are reported
    chosen = {path for migration in _chosen(library, files, versions, pending) for path in _paths(migration)}
    found = look(files, pg_version=str(pg_version or out.settings.postgres_version), squawk=squawk)
    found = tuple(each for each in found if each.path in chosen or not each.line)
    report(out, found, RULES, form, {"findings": [document_of(each) for each in found]}, text_of(found))
    return 3 if failing(found, fail_on) else 0


def _chosen(
    library: MigrationManager, files: Sequence[Migration], versions: Sequence[str], pending: bool
) -> list[Migration]:
    unknown = [version for version in versions if version not in {m.version for m in files}]
    if unknown:
        known = ", ".join(m.version for m in files[-5:]) or "none"
        raise UsageError(f"there is no migration {unknown[0]}", hint=f"versions: {known}")
    waiting = {m.version for m in files}
    if pending:
        waiting -= {record.version for record in library.get_migration_status().applied}
    return [m for m in files if m.version in waiting and (not versions or m.version in versions)]


def _paths(migration: Migration) -> list[Path]:
    return [script.path for script in (migration.up, migration.down) if script is not None]
