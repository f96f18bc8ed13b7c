"""`dbops doctor`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dbops.cli.backup import an_age
from dbops.cli.findings import FAIL_ON, failing, text_of
from dbops.cli.main import common
from dbops.cli.migrate import CONFIRM, DRY_RUN, YES
from dbops.cli.output import Output
from dbops.cli.sarif import to_sarif
from dbops.embedded import resolve
from dbops.errors import DbopsError, UsageError
from dbops.hygiene.doctor import Finding, Mended, NotChecked, Problem, Report, checks, examine, mend, mendable
from dbops.hygiene.doctor.model import Limit, number
from dbops.wording import count

if TYPE_CHECKING:
    from dbops.config import Settings


@click.command()
@click.option("--check", "only", multiple=True, metavar="NAME", help="Only this check; may be given several times.")
@click.option("--skip", multiple=True, metavar="NAME", help="Without this check; may be given several times.")
@click.option("--limit", "limits", multiple=True, metavar="CHECK.LIMIT=VALUE", help="E.g. unused-index.days=30.")
@click.option("--list", "listing", is_flag=True, help="Only say what the checks are.")
@FAIL_ON
@click.option("--sarif", is_flag=True, help="The findings as SARIF, for a code host.")
@click.option("--fix", is_flag=True, help="Apply the fixes that are safe beside users; asks first.")
@click.option("--statement-timeout", metavar="TIME", help="How long a check may take (default 30s).")
@click.option("--store", metavar="STORE", help="The backup store to look into (default: the settings').")
@click.option(
    "--backup-age",
    metavar="TIME",
    callback=an_age,
    default="26h",
    help="How old the newest backup may be (default 26h).",
)
@DRY_RUN
@YES
@CONFIRM
@common
def command(
    out: Output, only: tuple[str, ...], skip: tuple[str, ...], limits: tuple[str, ...], listing: bool, fail_on: str,
    sarif: bool, fix: bool, backup_age: timedelta, dry_run: bool, yes: bool, word: str | None,
) -> int:  # fmt: skip
    """Examine a database as a whole: indexes, keys, row level security, vacuum, sessions, embeddings, backups.

    Each finding comes with the SQL that mends it. --fix applies only ANALYZE, VACUUM, the concurrent rebuild of an
    invalid index and VALIDATE CONSTRAINT. What could not be checked is told. Exit 3 at --fail-on.

    \b
    dbops doctor --url "$PROD_URL"
    dbops doctor --skip unused-index --fail-on error --json
    dbops doctor --check invalid-index --fix --dry-run
    """
    if listing:
        _list(out)
        return 0
    given = dict(map(_limit, limits))
    url = resolve(out.settings, lambda server: out.embedded(server.data_directory))
    out.settings = replace(out.settings, url=url)
    answers = {"backup-age": backups(out.settings, backup_age)}

    def look(names: Sequence[str]) -> Report:
        tell = out.say if out.verbose else lambda _: None
        return examine(url, out.settings, only=names, skip=skip, limits=given, answers=answers, tell=tell)

    report = look(only)
    mended: tuple[Mended, ...] = ()
    if fix and not dry_run and _agreed(out, report, url, yes, word):
        mended = mend(url, report, out.settings, tell=out.say)
        report = look(only)
    if sarif and not out.as_json:
        for each in report.not_checked:
            out.warn(_barred(each))
        click.echo(json.dumps(to_sarif(_items(report.findings, sarif=True), checks()), indent=2, ensure_ascii=False))
    else:
        out.result(_document(report, mended), _text(report, mended, out.verbose, fix and dry_run))
    return 3 if failing(_items(report.findings), fail_on) else 0


def _limit(text: str) -> tuple[str, Limit]:
    name, mark, value = text.partition("=")
    if not mark:
        raise UsageError(f"--limit {text} has no value", hint="write CHECK.LIMIT=VALUE, e.g. unused-index.days=30")
    return name.strip(), number(value.strip())


def _list(out: Output) -> None:
    document = [
        {"check": each.name, "severity": each.severity, "summary": each.summary, "limits": dict(each.limits)}
        for each in checks().values()
    ]
    out.result(
        {"checks": document},
        "\n".join(f"{each.name:22} {each.severity:8} {each.summary}" for each in checks().values()),
    )


def backups(settings: Settings, max_age: timedelta) -> Callable[[], Iterable[Problem]]:
    """What the backup room says of the newest backup, asked when the check's turn comes."""

    def look() -> list[Problem]:
        from dbops.backup.manager import BackupManager

        if not settings.store and not (settings.root / "backups").is_dir():
            raise DbopsError("no backup store is named (--store, setting store), and there is no folder backups/")
        found = BackupManager(settings=settings).check(max_age=max_age)
        damaged: list[Problem] = [
            ("error", each.object, each.what, "-- dbops backup verify --all") for each in found.damaged
        ]
        return damaged + [("error", "backups", problem, "-- dbops backup create") for problem in found.problems]

    return look


def _agreed(out: Output, report: Report, url: str, yes: bool, word: str | None) -> bool:
    """Whether there is something to apply, and somebody wants it. Raises ConfirmationRequired."""
    todo = mendable(report)
    if not todo:
        out.say("no finding has a fix that --fix applies")
        return False
    for each in todo:
        out.say(each.fix)
    out.confirm(f"apply {len(todo)} fix{'es' * (len(todo) != 1)}", url, yes=yes, word=word)
    return True


@dataclass(frozen=True)
class _Item:
    """A finding as the lints' output takes it; `identity` is what stays the same from day to day."""

    rule: str
    severity: str
    message: str
    hint: str
    place: str
    identity: str
    path: Path | None = None
    line: int = 0


def _items(found: Sequence[Finding], *, sarif: bool = False) -> list[_Item]:
    return [
        _Item(
            each.check,
            each.severity,
            f"{each.object}: {each.message}" if sarif else each.message,
            each.fix,
            each.object,
            each.object,
        )
        for each in found
    ]


def _document(report: Report, mended: Sequence[Mended]) -> dict[str, Any]:
    return {
        "findings": [
            {"check": e.check, "severity": e.severity, "object": e.object, "message": e.message, "fix": e.fix}
            for e in report.findings
        ],
        "checked": list(report.checked),
        "not_checked": [_missing(each) for each in report.not_checked],
        "not_applicable": [_missing(each) for each in report.not_applicable],
        "mended": [
            {
                "check": e.finding.check,
                "object": e.finding.object,
                "fix": e.finding.fix,
                "done": not e.problem,
                "problem": e.problem,
            }
            for e in mended
        ],
        "database": report.database,
        "server_version": report.server_version,
        "duration_ms": round(report.duration_ms, 3),
    }


def _missing(each: NotChecked) -> dict[str, str]:
    return {"check": each.check, "object": each.object, "reason": each.reason}


def _barred(each: NotChecked) -> str:
    return f"not checked: {each.check}{f' of {each.object}' if each.object else ''}: {each.reason}"


def _text(report: Report, mended: Sequence[Mended], verbose: bool, would: bool) -> str:
    lines = [f"done: {e.finding.fix}" if not e.problem else f"failed: {e.finding.fix} {e.problem}" for e in mended]
    if would:
        lines += [f"would apply: {each.fix}" for each in mendable(report)]
    lines.append(text_of(_items(report.findings), lambda each: each.place))
    lines += [_barred(each) for each in report.not_checked]
    if verbose:
        lines += [f"does not apply: {each.check}: {each.reason}" for each in report.not_applicable]
    barred = len({each.check for each in report.not_checked})
    made = [
        f"{count(len(report.checked), 'check')} made",
        f"{barred} not or not wholly" if barred else "",
    ]
    made.append(f"{len(report.not_applicable)} do not apply" if report.not_applicable else "")
    return "\n".join([*lines, ", ".join(filter(None, made))])
