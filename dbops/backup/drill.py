"""A backup proven by restoring it into a scratch PostgreSQL, and the result kept beside its manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from dbops.backup.create import Progress, Tell
from dbops.backup.manifest import drill_key, dump_drill, read_drills
from dbops.backup.model import Drill, DrillTable, Manifest
from dbops.backup.restore import Restored, restore_whole
from dbops.backup.restoring.compare import compare_tables, sequence_problems
from dbops.backup.store import Store
from dbops.config import Settings
from dbops.database import connect, translated
from dbops.embedded import Scratch, scratch
from dbops.errors import CannotConnect, DbopsError, LockHeld, MissingToolError, NotAllowed, StoreError
from dbops.scratch_database import scratch_database

# of these the backup is not the cause: they prove nothing, neither way
_ELSEWHERE = (StoreError, CannotConnect, LockHeld, MissingToolError)

Check = Callable[[str], Iterable[str]]
"""Asked of the restored database's URL: what is wrong there, a line each."""


def drill(
    manifest: Manifest,
    store: Store,
    settings: Settings,
    *,
    check: Check | None = None,
    tell: Tell = lambda _: None,
) -> Drill:
    """Restore a backup into a scratch server of the nearest major version, compare all of it, and keep the result.

    `check` is asked of the restored database: the migrations' check, say. Nobody has to look at the backup's own
    server: rows, hashes and sequences are compared with the manifest. What depends on an extension that the scratch
    server does not have is in `not_proven`, by name. A failure is a result (`ok` is False) and is kept as well.
    Raises StoreError, CannotConnect, EmbeddedServerError where nothing could be tried.
    """
    with scratch(manifest.server_version // 10000, url=settings.scratch_url) as server:
        if server.note:
            tell(Progress(note=server.note))
        result = _on(server, manifest, store, settings, check, tell)
    store.put(drill_key(result), dump_drill(result))
    return result


def drills(store: Store, backup: str) -> tuple[Drill, ...]:
    """The drills of a backup, oldest first. Raises StoreError."""
    return tuple(each for each in read_drills(store)[0] if each.id == backup)


def _on(
    server: Scratch, manifest: Manifest, store: Store, settings: Settings, check: Check | None, tell: Tell
) -> Drill:
    restored: Restored | None = None
    tables: tuple[DrillTable, ...] = ()
    problems: tuple[str, ...] = ()
    # on a server of others only these roles go with the database
    with scratch_database(server, settings.wait, set(manifest.roles)) as url, connect(url, "drill") as conn:
        version = conn.info.server_version
        try:
            restored = restore_whole(manifest, store, url, settings, create_roles=True, partial=True, tell=tell)
            tables, problems = _proof(url, manifest, restored, settings, check)
        except DbopsError as error:
            if isinstance(error, _ELSEWHERE) and not isinstance(error, NotAllowed):
                raise
            problems = (error.message,)
    not_proven = restored.left_out if restored else ()
    ok = not problems and all(each.matches for each in tables) and (bool(tables) or not manifest.tables)
    duration = restored.duration_ms if restored else 0.0
    at = datetime.now(UTC).replace(microsecond=0)
    return Drill(manifest.id, at, ok, duration, version, tables, problems, not_proven)


def _proof(
    url: str, manifest: Manifest, restored: Restored, settings: Settings, check: Check | None
) -> tuple[tuple[DrillTable, ...], tuple[str, ...]]:
    """How the tables compare, and all else that is wrong with a restored database."""
    left_out = {each.name: each.reason for each in restored.left_out}
    proven = [t for t in manifest.tables if t.kind != "foreign" and f"table {t.name}" not in left_out]
    tables = compare_tables(url, manifest, proven, settings.workers)
    with connect(url, "drill") as conn, translated():
        problems = tuple(sequence_problems(conn, manifest, left_out))
    return tables, problems + _checked(url, check)


def _checked(url: str, check: Check | None) -> tuple[str, ...]:
    try:
        return tuple(check(url)) if check else ()
    except DbopsError as error:
        return (f"the check of the restored database failed: {error.message}",)
