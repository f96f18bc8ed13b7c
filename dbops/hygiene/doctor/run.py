"""Run the checks: each in a short read-only transaction of its own, so that one that fails leaves the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbops.config import Settings
from dbops.database import Server, connect, local_settings, redact, server_of, translated
from dbops.errors import DbopsError, UsageError
from dbops.hygiene.doctor.model import Check, Finding, Limit, NotChecked, Report, Severity, checks
from dbops.sql import queries

if TYPE_CHECKING:
    from psycopg import sql

    from dbops.database import Connection

    _Probe = tuple[str, sql.Composed]  # the target's name, and what looks at it

Problem = tuple[Severity, str, str, str]  # severity, object, message, fix
# what the caller answers, by check: "backup-age" looks at a store, of which this room knows nothing
Answers = Mapping[str, Callable[[], Iterable[Problem]]]
_ROOM = "hygiene/doctor"
_TOGETHER = 50  # targets that one statement looks at
_MOST = 200  # findings of one check that are told
_ROLLBACKS = 100  # tries


@dataclass(frozen=True)
class _Patient:
    """The server, and what of it decides whether a check applies."""

    conn: Connection
    server: Server
    extensions: Mapping[str, tuple[str, str]]  # name: schema, version
    roles: frozenset[str]
    seconds: float


@dataclass
class _Told:
    """What one check came to so far."""

    findings: list[Finding]
    not_checked: list[NotChecked]


def examine(
    url: str,
    settings: Settings | None = None,
    *,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    limits: Mapping[str, Limit] | None = None,
    answers: Answers | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Report:
    """Examine a database, changing nothing.

    `only` and `skip` name checks; `limits` are set as `{"unused-index.days": 30}`; `answers` gives what only the caller
    can know. A check has `settings.statement_timeout` (30 s where that is 0) and waits half a second for a lock. What
    cannot be checked is in the report, never passed over. Raises UsageError for an unknown check or limit, CannotConnect.
    """
    chosen, values = _chosen(only, skip), _limits(limits or {})
    settings = settings or Settings()
    started = time.monotonic()
    with connect(url, "doctor") as conn, translated():
        patient = _ask(conn, settings.statement_timeout or 30.0)
        found, applying, barred, lame = [], [], [], []
        for check in chosen:
            tell(check.name)
            reason = _inapplicable(patient, check)
            if reason:
                lame.append(NotChecked(check.name, reason))
                continue
            told = _run(patient, check, values[check.name], answers or {})
            found += _most(told.findings)
            barred += told.not_checked
            if not told.not_checked:
                applying.append(check.name)
        version = conn.info.parameter_status("server_version") or ""
    order = {severity: rank for rank, severity in enumerate(("error", "warning", "info"))}
    found.sort(key=lambda each: (order[each.severity], each.check, each.object))
    took = (time.monotonic() - started) * 1000
    return Report(
        tuple(found), tuple(applying), tuple(barred), tuple(lame), patient.server.database, version.split()[0], took
    )


def _chosen(only: Collection[str], skip: Collection[str]) -> list[Check]:
    known = checks()
    for name in (*only, *skip):
        if name not in known:
            raise UsageError(f"there is no check {name!r}", hint=f"checks: {', '.join(known)}")
    return [check for name, check in known.items() if (not only or name in only) and name not in skip]


def _limits(given: Mapping[str, Limit]) -> dict[str, dict[str, Limit]]:
    """The limits of each check, those that were given in place of its own."""
    values = {name: dict(check.limits) for name, check in checks().items()}
    for name, value in given.items():
        check, _, limit = name.partition(".")
        if limit not in values.get(check, {}):
            known = [f"{each}.{one}" for each, own in values.items() for one in own]
            raise UsageError(f"there is no limit {name!r}", hint=f"limits: {', '.join(known)}")
        if isinstance(values[check][limit], float) and not isinstance(value, (int, float)):
            raise UsageError(f"the limit {name} is a number, not {value!r}", hint="nothing was done")
        values[check][limit] = value
    return values


def _ask(conn: Connection, seconds: float) -> _Patient:
    server = server_of(conn)
    asked = queries(_ROOM)
    extensions = {name: (schema, version) for name, schema, version in conn.execute(asked["doctor_extensions"])}
    roles = frozenset(name for (name,) in conn.execute(asked["doctor_roles"]))
    return _Patient(conn, server, extensions, roles, seconds)


def _inapplicable(patient: _Patient, check: Check) -> str:
    """Why there is nothing for the check to look at here; empty where there is."""
    if patient.server.major < check.since:
        return f"PostgreSQL {check.since} or newer"
    for what in check.requires:
        kind, name = what.split()
        if kind == "extension" and name not in patient.extensions:
            return f"no extension {name}"
        if kind == "relation" and not _there(patient.conn, name):
            return f"no relation {name}"
    return ""


def _there(conn: Connection, name: str) -> bool:
    row = conn.execute(queries(_ROOM)["doctor_relation"], {"name": name}).fetchone()
    return bool(row and row[0])


def _lacking(patient: _Patient, check: Check) -> str:
    """What is missing to tell; empty where nothing is."""
    for what in check.needs:
        kind, name = what.split()
        if kind == "role" and name not in patient.roles:
            return f'the role lacks the rights of {name}: GRANT {name} TO "{patient.server.user}"'
        if kind == "extension" and name not in patient.extensions:
            return f"the extension {name} is not installed"
    return ""


def _run(patient: _Patient, check: Check, limits: Mapping[str, Limit], answers: Answers) -> _Told:
    import psycopg

    told = _Told([], [])
    lacking = _lacking(patient, check)
    if lacking:
        told.not_checked.append(NotChecked(check.name, lacking))
    elif not check.query:
        _answer(check, answers, told)
    else:
        try:
            with _transaction(patient):
                _examine(patient, check, limits, told)
        except psycopg.Error as error:
            _end(patient.conn)
            if patient.conn.closed:
                raise
            told.not_checked.append(NotChecked(check.name, _reason(error)))
    return told


def _end(conn: Connection) -> None:
    """The transaction that failed is over. A time-out that is very short hits its ROLLBACK as well: again, then."""
    import psycopg
    from psycopg.pq import TransactionStatus

    for _ in range(_ROLLBACKS):
        if conn.closed or conn.info.transaction_status == TransactionStatus.IDLE:
            return
        with suppress(psycopg.errors.QueryCanceled):
            conn.rollback()


def _answer(check: Check, answers: Answers, told: _Told) -> None:
    if check.name not in answers:
        told.not_checked.append(NotChecked(check.name, "the caller gave no way to look"))
        return
    try:
        told.findings += [Finding(check.name, *problem) for problem in answers[check.name]()]
    except DbopsError as error:
        told.not_checked.append(NotChecked(check.name, redact(error.message)))


def _reason(error: Exception) -> str:
    return redact(str(error).strip()).splitlines()[0] if str(error).strip() else type(error).__name__


@contextmanager
def _transaction(patient: _Patient) -> Iterator[None]:
    """One snapshot for a check's statements, held no longer than the check; too few rights are an error, not fewer rows."""
    from psycopg import IsolationLevel

    conn = patient.conn
    conn.isolation_level, conn.read_only = IsolationLevel.REPEATABLE_READ, True
    values = {
        "statement_timeout": str(round(patient.seconds * 1000)),
        "lock_timeout": "500",
        # nobody's function stands in for the system's; what is printed is qualified
        "search_path": "",
        "row_security": "off",
        "jit": "off",
        "DateStyle": "ISO",
        "TimeZone": "UTC",
        "extra_float_digits": "0",
    }
    if patient.server.major >= 15:
        values["stats_fetch_consistency"] = "snapshot"
    with conn.transaction():
        conn.execute(local_settings(values).encode())
        yield


def _examine(patient: _Patient, check: Check, limits: Mapping[str, Limit], told: _Told) -> None:
    from psycopg import sql
    from psycopg.rows import dict_row

    cursor = patient.conn.cursor(row_factory=dict_row)
    given: dict[str, sql.Composable] = {name: sql.Literal(value) for name, value in limits.items()}
    given |= {name: sql.Identifier(schema) for name, (schema, _) in patient.extensions.items()}
    rows = cursor.execute(sql.SQL(check.query).format(**given)).fetchall()
    if not check.each:
        _record(check, rows, told)
        return
    told.not_checked += [
        NotChecked(check.name, "the role may not read it", row["object"]) for row in rows if not row["readable"]
    ]
    probes = [(row["object"], _composed(check.each, row, given)) for row in rows if row["readable"]]
    # a table that takes long leaves time for the others
    cursor.execute(local_settings({"statement_timeout": str(max(1, round(patient.seconds * 250)))}).encode())
    until = time.monotonic() + patient.seconds
    for start in range(0, len(probes), _TOGETHER):
        _probe(cursor, check, probes[start : start + _TOGETHER], until, told)


def _composed(each: Any, target: Mapping[str, Any], given: Mapping[str, Any]) -> sql.Composed:
    """`each` with a target's columns: a list is a dotted name, a list of lists several, all else a value."""
    from psycopg import sql

    def part(value: Any) -> sql.Composable:
        if not isinstance(value, list):
            return sql.Literal(value)
        if value and isinstance(value[0], list):
            return sql.SQL(", ").join(sql.Identifier(*name) for name in value)
        return sql.Identifier(*value)

    return sql.SQL(each).format(**given, **{name: part(value) for name, value in target.items()})


def _probe(cursor: Any, check: Check, batch: Sequence[_Probe], until: float, told: _Told) -> None:
    """Look at several targets in one statement; where it fails, at each by itself."""
    import psycopg
    from psycopg import sql

    if time.monotonic() > until:
        told.not_checked += [NotChecked(check.name, "time was up", name) for name, _ in batch]
        return
    together = sql.SQL(" union all ").join(sql.SQL("({})").format(probe) for _, probe in batch)
    try:
        with cursor.connection.transaction():
            rows = cursor.execute(together).fetchall()
    except psycopg.Error as error:
        if cursor.connection.closed:
            raise
        if len(batch) == 1:
            told.not_checked.append(NotChecked(check.name, _reason(error), batch[0][0]))
            return
        for one in batch:
            _probe(cursor, check, [one], until, told)
    else:
        _record(check, rows, told)


def _record(check: Check, rows: Sequence[Mapping[str, Any]], told: _Told) -> None:
    for row in rows:
        severity = row.get("severity") or check.severity
        if severity == "unchecked":
            told.not_checked.append(NotChecked(check.name, row["message"], row["object"] or ""))
        else:
            told.findings.append(Finding(check.name, severity, row["object"], row["message"], row["fix"] or ""))


def _most(found: Sequence[Finding]) -> list[Finding]:
    if len(found) <= _MOST:
        return list(found)
    left = len(found) - _MOST
    rest = Finding(
        found[0].check, found[0].severity, f"{left} more", f"{left} more findings of this check are not shown"
    )
    return [*found[:_MOST], rest]
