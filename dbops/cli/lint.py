"""`dbops migrate lint`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from dbops.cli.main import common
from dbops.cli.output import Output, shown_path
from dbops.errors import UsageError
from dbops.migrate.files import Migration
from dbops.migrate.lint import SEVERITIES, Finding, to_sarif
from dbops.migrate.lint import lint as look
from dbops.migrate.manager import MigrationManager

_COLOURS = {"error": "red", "warning": "yellow", "info": "blue"}


@click.command()
@click.argument("versions", nargs=-1, metavar="[VERSION]...")
@click.option("--pending", is_flag=True, help="Only what is not applied yet (asks the database).")
@click.option(
    "--fail-on",
    type=click.Choice([*SEVERITIES, "never"]),
    default="warning",
    help="Exit 3 where something this grave is found (default warning).",
)
@click.option("--format", "form", type=click.Choice(["text", "json", "sarif"]), default="text", help="Default text.")
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
    out.as_json = out.as_json or form == "json"
    if form == "sarif" and not out.as_json:
        click.echo(json.dumps(to_sarif(found), indent=2, ensure_ascii=False))
    else:
        out.result({"findings": [_document(each) for each in found]}, _text(found))
    return 3 if _failing(found, fail_on) else 0


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


def _failing(found: Sequence[Finding], fail_on: str) -> bool:
    if fail_on == "never":
        return False
    ranks = {severity: rank for rank, severity in enumerate((*SEVERITIES, "never"))}
    return any(ranks[each.severity] <= ranks[fail_on] for each in found)


def _document(each: Finding) -> dict[str, object]:
    return {
        "rule": each.rule,
        "severity": each.severity,
        "path": shown_path(each.path),
        "line": each.line,
        "message": each.message,
        "hint": each.hint,
    }


def _text(found: Sequence[Finding]) -> str:
    lines = [line for each in found for line in _lines(each)]
    counts = [(severity, sum(each.severity == severity for each in found)) for severity in SEVERITIES]
    summary = ", ".join(f"{count} {severity}{'s' * (count != 1)}" for severity, count in counts if count)
    return "\n".join([*lines, summary.replace("infos", "info") or "nothing found"])


def _lines(each: Finding) -> list[str]:
    place = f"{shown_path(each.path)}:{each.line}: " if each.line else ""
    severity = click.style(each.severity, fg=_COLOURS[each.severity])
    hint = [f"  {each.hint}"] if each.hint else []
    return [f"{place}{severity} {each.rule}: {each.message}", *hint]
