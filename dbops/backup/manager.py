"""BackupManager: the public API of the room. It returns frozen values and raises DbopsErrors; it never prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dbops.backup import damaged as damages
from dbops.backup.create import Progress, Tell, create
from dbops.backup.manifest import read, read_all, read_drills
from dbops.backup.model import Drill, Manifest, Tier
from dbops.backup.places import open_store
from dbops.backup.prune import Database, Keep, Pruned, PrunePlan, auto_tier, database_of, plan_prune, prune
from dbops.backup.source import identity
from dbops.backup.store import Store
from dbops.backup.verify import Verified, verify
from dbops.config import Settings, libpq_url, load
from dbops.database import connect, seeing_all
from dbops.embedded import resolve
from dbops.errors import BackupDamaged, ObjectMissing, UsageError

if TYPE_CHECKING:
    from dbops.backup.check import Checked
    from dbops.backup.drill import Check
    from dbops.backup.exchange.export import Exchanged, Form
    from dbops.backup.merge import Difference, Merged, Mode, Prepared
    from dbops.backup.merge.record import Run
    from dbops.backup.preview import CreatePlan
    from dbops.backup.restore import Restored

AnyTier = Literal["auto", "daily", "weekly", "monthly", "manual"]


@dataclass(frozen=True)
class Listed:
    """A backup and the last drill that proved it. `failed` is a later one that did not succeed."""

    manifest: Manifest
    proven: Drill | None
    failed: Drill | None


@dataclass(frozen=True)
class Copy:
    """A backup restored into a scratch server that is gone afterwards. `note` says how that differs."""

    url: str
    restored: Restored
    server_version: str
    server_kind: str
    note: str


class BackupManager:
    """The backups of one database in one store.

    `url` is any PostgreSQL URL or conninfo, `store` a folder, s3://bucket/prefix or a Store; None takes the settings'
    (environment, dbops.toml, the embedded server, backups/). `tell` is called with Progress while work goes on.
    """

    def __init__(
        self,
        url: str | None = None,
        store: str | Path | Store | None = None,
        *,
        settings: Settings | None = None,
        tell: Tell = lambda _: None,
    ) -> None:
        self.settings = settings or load()
        if url is not None:
            if not url.strip():
                raise UsageError("the URL is empty", hint="leave it out for the settings' own; nothing was done")
            self.settings = replace(self.settings, url=libpq_url(url), url_source="argument")
        self.tell = tell
        self._place = self.settings.store if store is None else store

    @cached_property
    def url(self) -> str:
        """The URL in use; the embedded server is started where no other is named."""
        return resolve(self.settings, lambda server: self._say(f"embedded server in {server.data_directory}"))

    @cached_property
    def store(self) -> Store:
        """The store in use."""
        if isinstance(self._place, (str, Path)):
            return open_store(str(self._place), self.settings.root, self._say)
        return self._place

    @cached_property
    def database(self) -> Database:
        """The database's name and its cluster's system identifier: by both a store tells databases apart."""
        return identity(self.url)

    def _say(self, text: str) -> None:
        self.tell(Progress(note=text))

    # --- taking ------------------------------------------------------------------------------------

    def create_full_backup(
        self, tier: AnyTier = "manual", *, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> Manifest:
        """Take a backup; its manifest. `auto`: the first of a month is monthly, the first of a week weekly, else daily.

        What a verification found damaged is written anew where the rows still give it. Raises as `create` does.
        """
        heal = damages.to_heal(self.store)
        manifest = create(
            self.url, self.store, self.settings, self.tier(tier), tell=self.tell, include=include, exclude=exclude, heal=heal
        )  # fmt: skip
        for key in damages.forget(self.store, manifest, heal) if heal else ():
            self._say(f"{key} was damaged: written anew")
        return manifest

    def tier(self, tier: AnyTier) -> Tier:
        """The tier that a backup taken now gets."""
        if tier != "auto":
            return tier
        own = [each for each in read_all(self.store)[0] if database_of(each) == self.database]
        return auto_tier(own, datetime.now(UTC))

    def plan_create(
        self, tier: AnyTier = "manual", *, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> CreatePlan:
        """What `create_full_backup` would take. Stores nothing."""
        from dbops.backup.preview import preview

        return preview(self.url, self.settings, self.tier(tier), include, exclude)

    def schedule_daily_backup(self) -> str:
        """Take a daily backup now; its id. (`dbops backup schedule` writes what takes one every night.)"""
        return self.create_full_backup("daily").id

    # --- looking -----------------------------------------------------------------------------------

    def get_backup_list(self) -> tuple[Listed, ...]:
        """All backups of the store, newest first, of all its databases; `tell` gets what cannot be read."""
        manifests, broken = read_all(self.store)
        drills, unread = read_drills(self.store)
        for key, what in (*broken, *unread):
            self._say(f"{key}: {what}")
        return tuple(_listed(each, drills) for each in reversed(manifests))

    def get_backup(self, backup: str = "latest", *, before: datetime | None = None) -> Manifest:
        """The backup with this id; `latest`: the newest of this database (`before` a time: the newest until then).

        Where the store has one database's backups only, the database itself is not asked. Raises ObjectMissing,
        BackupDamaged, and UsageError where nobody can say whose backup is meant.
        """
        if backup != "latest":
            return read(self.store, backup)
        manifests, broken = read_all(self.store)
        own = self._own(manifests)
        found = [each for each in own if before is None or each.created_at <= before]
        if found:
            for key, what in broken:  # it may be a newer one that was meant
                self._say(f"passed over: {key}: {what}")
            return found[-1]
        if broken:
            raise BackupDamaged(f"{broken[-1][0]}: {broken[-1][1]}", hint="no other backup is there; nothing was done")
        what = f"before {before:%Y-%m-%d %H:%M:%S %Z}" if before else f"in {self.store.place}"
        hint = (
            "`dbops backup list` shows what is there" if manifests else "take one: dbops backup create, or see --store"
        )
        raise ObjectMissing(f"there is no backup {what}", hint=f"{hint}; nothing was done")

    def describe(self, backup: str = "latest", *, before: datetime | None = None) -> Listed:
        """One backup, with its drills."""
        return _listed(self.get_backup(backup, before=before), read_drills(self.store)[0])

    def _own(self, manifests: Sequence[Manifest]) -> list[Manifest]:
        """Those of this database. In an incident it may be gone: then it is the only one of the store."""
        databases = {database_of(each) for each in manifests}
        if len(databases) <= 1:
            return list(manifests)
        own = [each for each in manifests if database_of(each) == self.database]
        if not own:
            names = ", ".join(sorted(name for name, _ in databases))
            raise UsageError(
                f"{self.store.place} has backups of several databases ({names}), and none of {self.database[0]}",
                hint="name a backup by its id: dbops backup list; nothing was done",
            )
        return own

    def check(self, *, max_age: timedelta, proven: timedelta | None = None) -> Checked:
        """Whether the newest good backup of this database is young enough, and was proven lately. See check.py."""
        from dbops.backup.check import check

        return check(self.store, self.database, datetime.now(UTC), max_age=max_age, proven=proven)

    def verify_backup_integrity(self, backup: str | None = None, *, sample: float = 1.0) -> Verified:
        """Every byte of a backup (None: of the whole store) against its hashes; `sample`: of a share of the objects.

        What is damaged is remembered for the next create. Raises ObjectMissing, NotProven for an empty store.
        """
        ids = None if backup is None else [self._id(backup)]

        def told(done: int, total: int) -> None:
            self.tell(Progress(done, total))

        found = verify(self.store, ids, sample=sample, workers=self.settings.workers, tell=told)
        damages.remember(self.store, found.damaged, whole=backup is None and sample >= 1)
        return found

    def _id(self, backup: str) -> str:
        # a backup whose manifest is damaged can be verified, and only by its id
        return self.get_backup().id if backup == "latest" else backup

    # --- removing ----------------------------------------------------------------------------------

    def plan_cleanup(self, now: datetime | None = None) -> PrunePlan:
        """Which of this database's backups `cleanup_old_backups` would remove, and why each stays or goes."""
        manifests, drills = read_all(self.store)[0], read_drills(self.store)[0]
        return plan_prune(manifests, drills, now or datetime.now(UTC), Keep.of(self.settings), [self.database])

    def cleanup_old_backups(self, expected: PrunePlan | None = None) -> Pruned:
        """Remove the backups whose time is over, and the chunks that nobody needs. `expected`: a plan that was confirmed."""
        return prune(self.store, expected or self.plan_cleanup(), tell=self._say)

    # --- bringing back -----------------------------------------------------------------------------

    def diff(
        self, backup: str = "latest", *, tables: Sequence[str] | None = None, user: str | None = None,
        where: str | None = None, against: str | None = None, before: datetime | None = None,
    ) -> Difference:  # fmt: skip
        """What a backup and the database (or another backup) have that the other has not. Changes nothing."""
        from dbops.backup.merge import diff

        manifest, other = self.get_backup(backup, before=before), self.get_backup(against) if against else None
        return diff(
            manifest, self.store, self.url, self.settings, tables=tables, user=user, where=where, against=other,
            tell=self._say,
        )  # fmt: skip

    def restore_from_backup(
        self, backup: str, tables: Sequence[str] | None = None, *, user: str | None = None, where: str | None = None,
        mode: Mode | None = None, cascade: bool = False, create_roles: bool = False, no_owner: bool = False,
        clean: bool = False,
    ) -> Restored | Merged:  # fmt: skip
        """Bring back a whole backup into an empty database, or tables or one user's rows into this live one.

        With `tables`, `user` or `where` a `mode` is needed: there is no default one. Raises as `restore_whole`,
        `plan_merge` and `merge` do.
        """
        from dbops.backup.merge import merge

        manifest = self.get_backup(backup)
        if not (tables or user is not None or where is not None or mode):
            return self.restore_whole(manifest, create_roles=create_roles, no_owner=no_owner, clean=clean)
        with self.plan_merge(manifest, mode=mode, tables=tables, user=user, where=where, cascade=cascade) as prepared:
            return merge(prepared)

    def restore_whole(
        self, manifest: Manifest, *, create_roles: bool = False, no_owner: bool = False, clean: bool = False
    ) -> Restored:
        """Restore a whole backup into this database, which must be empty."""
        from dbops.backup.restore import restore_whole

        return restore_whole(
            manifest, self.store, self.url, self.settings, create_roles=create_roles, no_owner=no_owner, clean=clean,
            tell=self.tell,
        )  # fmt: skip

    def plan_merge(
        self, manifest: Manifest, *, mode: Mode | None, tables: Sequence[str] | None = None, user: str | None = None,
        where: str | None = None, cascade: bool = False,
    ) -> AbstractContextManager[Prepared]:  # fmt: skip
        """What bringing back tables or one user's rows would do; `merge` acts on it while this is open."""
        from dbops.backup.merge import plan_merge
        from dbops.backup.merge.plan import check_mode

        check_mode(mode or "")
        assert mode is not None
        return plan_merge(
            manifest, self.store, self.url, self.settings, mode=mode, tables=tables, user=user, where=where,
            cascade=cascade, tell=self._say,
        )  # fmt: skip

    def plan_undo(self, run: str) -> Run:
        """The record of a merge that `undo` would take back."""
        from dbops.backup.merge import record

        with connect(self.url, "restore undo") as conn, seeing_all(conn, conn.info.server_version // 10000):
            found = record.read(conn, run)
        if found is None:
            raise UsageError(f"there is no run {run!r} on record in this database", hint="nothing was done")
        return found

    def undo(self, run: str) -> Merged:
        """Take a merge back, by the run that it returned; refused where rows that it wrote have changed since."""
        from dbops.backup.merge import undo

        return undo(run, self.url, self.settings, tell=self._say)

    # --- proving -----------------------------------------------------------------------------------

    def drill(self, backup: str = "latest", *, check: Check | None = None) -> Drill:
        """Restore a backup into a scratch server, compare all of it, and keep the result beside it."""
        from dbops.backup.drill import drill

        return drill(self.get_backup(backup), self.store, self.settings, check=check, tell=self.tell)

    @contextmanager
    def scratch_copy(self, manifest: Manifest) -> Iterator[Copy]:
        """A backup restored into a database of a scratch server that is gone afterwards.

        What needs an extension that the server lacks is left out, by name (`restored.left_out`).
        """
        from dbops.backup.restore import restore_whole
        from dbops.embedded import scratch
        from dbops.scratch_database import scratch_database

        with (
            scratch(manifest.server_version // 10000, url=self.settings.scratch_url) as server,
            scratch_database(server, self.settings.wait, set(manifest.roles)) as url,
        ):
            restored = restore_whole(
                manifest, self.store, url, self.settings, create_roles=True, partial=True, tell=self.tell
            )
            yield Copy(url, restored, str(server.major), server.kind, server.note)

    # --- rows for other programs -------------------------------------------------------------------

    def export(
        self, folder: Path, tables: Sequence[str] = (), *, form: Form = "json", backup: str | None = None
    ) -> Exchanged:
        """Write tables (none: all) of the database, or of a backup by way of a scratch server, as JSON lines or SQL."""
        from dbops.backup.exchange.export import export

        if backup is None:
            return export(self.url, folder, tables, form, self._say)
        with self.scratch_copy(self.get_backup(backup)) as copy:
            if copy.restored.left_out:
                lost = copy.restored.left_out[0]
                more = f" and {len(copy.restored.left_out) - 1} more" if len(copy.restored.left_out) > 1 else ""
                self._say(f"not in the export: {lost.name}: {lost.reason}{more}")
            return export(copy.url, folder, tables, form, self._say)

    def load(self, files: Sequence[Path], table: str | None = None, *, dry_run: bool = False) -> Exchanged:
        """Insert the rows of JSON lines into tables that are there. See exchange/load.py."""
        from dbops.backup.exchange.load import load as load_rows

        return load_rows(self.url, files, table, dry_run=dry_run, tell=self._say)


def _listed(manifest: Manifest, drills: Sequence[Drill]) -> Listed:
    own = [each for each in drills if each.id == manifest.id]
    proven = next((each for each in reversed(own) if each.ok), None)
    failed = own[-1] if own and not own[-1].ok else None
    return Listed(manifest, proven, failed)
