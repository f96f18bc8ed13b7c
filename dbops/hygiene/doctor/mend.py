"""Apply what can be applied without a risk: ANALYZE, VACUUM, the rebuild of an invalid index, VALIDATE CONSTRAINT."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbops.config import Settings
from dbops.database import connect, local_settings, primary_of, redact
from dbops.hygiene.doctor.model import Finding, Report, checks
from dbops.sql import queries

if TYPE_CHECKING:
    from dbops.database import Connection

_NAME = r'(?:"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)'
_RELATION = rf"{_NAME}(?:\.{_NAME})?"
# the whole of what is ever run: whatever a check says, nothing else passes
_ALLOWED = re.compile(
    rf"ANALYZE {_RELATION};|VACUUM {_RELATION};|VACUUM \(FREEZE\) {_RELATION};|REINDEX INDEX CONCURRENTLY {_RELATION};"
    rf"|ALTER TABLE {_RELATION} VALIDATE CONSTRAINT {_NAME};"
)
_SKIPPED = "skipped: somebody else holds a lock on it; try again later"


@dataclass(frozen=True)
class Mended:
    """What became of one fix: `problem` is empty where it was done."""

    finding: Finding
    problem: str = ""


def mendable(report: Report) -> tuple[Finding, ...]:
    """The findings whose fix `mend` may apply, each statement once."""
    known = checks()
    allowed = {
        each.fix: each
        for each in reversed(report.findings)
        if known[each.check].applies and _ALLOWED.fullmatch(each.fix)
    }
    return tuple(reversed(allowed.values()))


def mend(
    url: str, report: Report, settings: Settings | None = None, *, tell: Callable[[str], None] = lambda _: None
) -> tuple[Mended, ...]:
    """Apply the fixes of `mendable`, one after the other, each beside the database's users; one that fails stops no other.

    VACUUM and ANALYZE pass over what is locked. VALIDATE CONSTRAINT waits for its lock no longer than
    `settings.lock_timeout`. A rebuild is never cut short (that would leave another invalid index); where it fails, what
    it left over is dropped. Raises CannotConnect, UnfitServer for a standby.
    """
    settings = settings or Settings()
    done = []
    with connect(url, "doctor") as conn:
        server = primary_of(conn)
        conn.read_only = False  # whatever the role's default is
        if not server.pooled:
            conn.execute("SET statement_timeout = 0")
        for finding in mendable(report):
            tell(finding.fix)
            done.append(Mended(finding, _apply(conn, finding, settings)))
    return tuple(done)


def _apply(conn: Connection, finding: Finding, settings: Settings) -> str:
    import psycopg

    notices: list[str] = []
    heard = lambda notice: notices.append(notice.message_primary or "")  # noqa: E731
    conn.add_notice_handler(heard)
    try:
        if " VALIDATE " in finding.fix:
            with conn.transaction():
                conn.execute(local_settings({"lock_timeout": f"{round(settings.lock_timeout * 1000)}ms"}).encode())
                conn.execute(finding.fix.encode())
        else:
            conn.execute(_waiting_for_nobody(finding.fix).encode())
    except psycopg.Error as error:
        if finding.fix.startswith("REINDEX") and not conn.closed:
            _drop_leftovers(conn, finding.object)
        return redact(str(error)).splitlines()[0]
    finally:
        conn.remove_notice_handler(heard)
    # a role that may not vacuum gets a warning, not an error
    skipped = next((each for each in notices if "skipping" in each or "permission denied" in each), "")
    return _SKIPPED if "lock not available" in skipped else skipped


def _waiting_for_nobody(fix: str) -> str:
    """VACUUM and ANALYZE with SKIP_LOCKED."""
    fix = re.sub(r"^(VACUUM|ANALYZE) (?!\()", r"\1 (SKIP_LOCKED) ", fix)
    return fix.replace("VACUUM (FREEZE)", "VACUUM (FREEZE, SKIP_LOCKED)", 1)


def _drop_leftovers(conn: Connection, index: str) -> None:
    """Drop the invalid copies that the failed rebuild of an index left on its table."""
    import psycopg
    from psycopg import sql

    for name in conn.execute(queries("hygiene/doctor")["doctor_leftovers"], {"index": index}).fetchall():
        try:
            conn.execute(sql.SQL("DROP INDEX CONCURRENTLY {}").format(sql.Identifier(*name)))
        except psycopg.Error:
            return  # the next examination names it
