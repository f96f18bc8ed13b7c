"""Which backups stay and which go: a pure plan; then the deletion, in the order that leaves no listed backup damaged."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dbops.backup.model import Drill, Manifest, Tier
from dbops.backup.objects import BACKUPS, manifest_key
from dbops.backup.store import Store
from dbops.backup.sweep import GRACE, sweep
from dbops.config import Settings
from dbops.wording import count

Database = tuple[str, str]  # name, system identifier


@dataclass(frozen=True)
class Keep:
    """How long the tiers stay: days, weeks and calendar months after a backup was taken. `manual` stays for ever."""

    daily: int = 30
    weekly: int = 12
    monthly: int = 12

    @classmethod
    def of(cls, settings: Settings) -> Keep:
        return cls(settings.keep_daily, settings.keep_weekly, settings.keep_monthly)

    def until(self, manifest: Manifest) -> tuple[datetime | None, str]:
        """When a backup may go (None: never), and its tier's rule in words."""
        at = manifest.created_at
        if manifest.tier == "daily":
            return at + timedelta(days=self.daily), f"daily, {count(self.daily, 'day')}"
        if manifest.tier == "weekly":
            return at + timedelta(weeks=self.weekly), f"weekly, {count(self.weekly, 'week')}"
        if manifest.tier == "monthly":
            return _months_later(at, self.monthly), f"monthly, {count(self.monthly, 'month')}"
        return None, "manual, kept for ever"


@dataclass(frozen=True)
class Verdict:
    """Why a backup stays or goes."""

    id: str
    reason: str


@dataclass(frozen=True)
class PrunePlan:
    """Newest first. `freed_bytes` are what goes with the removed backups, once the grace period is over."""

    kept: tuple[Verdict, ...]
    removed: tuple[Verdict, ...]
    freed_bytes: int = 0

    def __str__(self) -> str:
        lines = [f"{sign} {each.id}  {each.reason}" for sign, each in self._signed()]
        return "\n".join([*lines, f"{len(self.removed)} of {len(lines)} go, {self.freed_bytes:,} bytes"])

    def _signed(self) -> list[tuple[str, Verdict]]:
        every = [("keep  ", each) for each in self.kept] + [("remove", each) for each in self.removed]
        return sorted(every, key=lambda pair: (pair[1].id.split("_", 1)[1], pair[1].id), reverse=True)


@dataclass(frozen=True)
class Pruned:
    """What prune did. `notes` say what was left, and why."""

    removed: tuple[str, ...]
    freed_bytes: int
    notes: tuple[str, ...] = ()


def database_of(manifest: Manifest) -> Database:
    return manifest.database, manifest.system_identifier


def auto_tier(previous: Iterable[Manifest], now: datetime) -> Tier:
    """The tier of tonight's backup, where `previous` are those of the same database.

    The first of a calendar month is monthly, the first of a week (from Monday) weekly, else daily; by UTC. A manual
    backup is none of these, a night that was missed is made up for by the next.
    """
    now = now.astimezone(UTC)
    earlier = [each for each in previous if each.created_at <= now]
    monthly = [each.created_at.astimezone(UTC) for each in earlier if each.tier == "monthly"]
    weekly = [each.created_at.astimezone(UTC) for each in earlier if each.tier == "weekly"]
    if not any((at.year, at.month) == (now.year, now.month) for at in monthly):
        return "monthly"
    if not any(at.isocalendar()[:2] == now.isocalendar()[:2] for at in monthly + weekly):
        return "weekly"
    return "daily"


def plan_prune(
    manifests: Sequence[Manifest],
    drills: Iterable[Drill],
    now: datetime,
    keep: Keep,
    databases: Collection[Database] | None = None,
) -> PrunePlan:
    """What prune would do at `now` with the backups of `databases` (None: of all in the store).

    Kept whatever their age: of each database its newest backup, the newest that is not of some tables only, and the
    newest whose last drill proved it; what lies in the future, by a clock that was wrong; all of the databases that were
    not asked for.
    """
    last = {each.id: each.ok for each in sorted(drills, key=lambda each: each.at)}
    guarded = _guarded(manifests, {backup for backup, ok in last.items() if ok}, now)
    kept, removed = [], []
    for manifest in sorted(manifests, key=lambda each: (each.created_at, each.id), reverse=True):
        end, rule = keep.until(manifest)
        if databases is not None and database_of(manifest) not in databases:
            kept.append(Verdict(manifest.id, f"of another database, {manifest.database}"))
        elif manifest.created_at > now:
            kept.append(Verdict(manifest.id, "its time is in the future: a clock was wrong"))
        elif end is None or end > now:
            kept.append(Verdict(manifest.id, rule + (f": until {end.astimezone(UTC):%Y-%m-%d}" if end else "")))
        elif manifest.id in guarded:
            kept.append(Verdict(manifest.id, guarded[manifest.id]))
        else:
            removed.append(Verdict(manifest.id, f"{rule}: over since {end.astimezone(UTC):%Y-%m-%d}"))
    return PrunePlan(tuple(kept), tuple(removed), _freed(manifests, {each.id for each in removed}))


def _guarded(manifests: Sequence[Manifest], proven: set[str], now: datetime) -> dict[str, str]:
    """The backups that no age removes, with the reason. One from the future guards nothing: its time may be wrong."""
    guarded: dict[str, str] = {}
    for database in {database_of(each) for each in manifests}:
        own = [each for each in manifests if database_of(each) == database and each.created_at <= now]
        own.sort(key=lambda each: (each.created_at, each.id))
        for each in [one for one in own if one.id in proven][-1:]:
            guarded[each.id] = f"the newest proven backup of {each.database}"
        for each in [one for one in own if not one.partial][-1:]:
            guarded[each.id] = f"the newest backup of all of {each.database}"
        for each in own[-1:]:
            guarded[each.id] = f"the newest backup of {each.database}"
    return guarded


def _freed(manifests: Sequence[Manifest], removed: set[str]) -> int:
    gone = [each for each in manifests if each.id in removed]
    stay = {chunk.sha256 for each in manifests if each.id not in removed for chunk in each.chunks}
    chunks = {chunk.sha256: chunk.stored_bytes for each in gone for chunk in each.chunks if chunk.sha256 not in stay}
    return sum(chunks.values()) + sum(part.stored_bytes for each in gone for part in each.objects)


def prune(
    store: Store,
    plan: PrunePlan,
    *,
    grace: timedelta = GRACE,
    tell: Callable[[str], None] = lambda _: None,
) -> Pruned:
    """Remove what the plan says, then sweep the chunks that nobody needs. Killed at any moment, the next run goes on.

    Raises LockHeld where another prune works in the store, StoreError.
    """
    with store.lease("prune", 0):
        freed = sum(_remove(store, each.id, tell) for each in plan.removed)
        swept = sweep(store, grace=grace)
    return Pruned(tuple(each.id for each in plan.removed), freed + swept.freed_bytes, swept.notes)


def _remove(store: Store, backup: str, tell: Callable[[str], None]) -> int:
    """Delete a backup: its manifest first, for then it is listed no more. The number of bytes that were freed."""
    items = list(store.list(f"{BACKUPS}{backup}/"))
    store.delete([manifest_key(backup)])
    store.delete([item.key for item in items])
    tell(f"removed {backup}")
    return sum(item.size for item in items)


def _months_later(at: datetime, months: int) -> datetime:
    year, month = divmod(at.month - 1 + months, 12)
    year, month = at.year + year, month + 1
    return at.replace(year=year, month=month, day=min(at.day, monthrange(year, month)[1]))
