"""Is there a backup of this database that is young enough, whole as far as a quick look shows, and proven lately?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from dbops.backup.damaged import known
from dbops.backup.manifest import read_all, read_drills
from dbops.backup.model import Damage, Drill, Manifest
from dbops.backup.objects import chunk_key, id_parts, object_key
from dbops.backup.prune import Database, database_of
from dbops.backup.store import Store
from dbops.backup.verify import verify
from dbops.errors import ObjectMissing

_SKEW = timedelta(minutes=5)  # the clocks of the machine that took it and of this one


@dataclass(frozen=True)
class Newest:
    """The newest good backup. `proven_at`: when a drill last restored this very one."""

    id: str
    created_at: datetime
    age_s: float
    proven_at: datetime | None


@dataclass(frozen=True)
class Checked:
    """`problems` say what is too old, `damaged` what a quick look found. `proven_at` is of any backup of the database."""

    newest: Newest | None
    proven_at: datetime | None
    problems: tuple[str, ...]
    damaged: tuple[Damage, ...]

    @property
    def ok(self) -> bool:
        return not self.problems and not self.damaged


def check(
    store: Store, database: Database, now: datetime, *, max_age: timedelta, proven: timedelta | None = None
) -> Checked:
    """Look at the newest backup of a database: its age, that each of its objects is there, a few of them read.

    One that is damaged is told, and the newest one without damage counts; one from the future or of some tables only
    (`--include`) does not. The last
    drill must not have failed; with `proven`, the last that succeeded must not be older than that. Raises StoreError.
    """
    manifests, broken = read_all(store)
    own = [each for each in manifests if database_of(each) == database and each.created_at <= now + _SKEW]
    good, damaged = _newest_good(store, [each for each in own if not each.partial])
    since = good.created_at if good else None
    # nobody can say whose a manifest is that cannot be read: one that would be the newest counts
    damaged += [Damage(key, what, (key.split("/")[1],)) for key, what in broken if _later(key, since)]
    tried = [each for each in read_drills(store)[0] if each.id in {one.id for one in own}]
    drills = [each for each in tried if each.ok]
    proven_at = max((each.at for each in drills), default=None)
    newest = _described(good, drills, now) if good else None
    ahead = any(database_of(each) == database and each.created_at > now + _SKEW for each in manifests)
    problems = [*_too_old(newest, max_age, ahead=ahead), *_unproven(tried, proven_at, now, proven)]
    return Checked(newest, proven_at, tuple(problems), tuple(damaged))


def _newest_good(store: Store, own: list[Manifest]) -> tuple[Manifest | None, list[Damage]]:
    damaged: list[Damage] = []
    earlier = known(store)
    for manifest in reversed(own):
        told = _found_before(manifest, earlier)
        if told:
            damaged += [each for each in told if each not in damaged]
            continue
        try:
            found = verify(store, [manifest.id], sample=0.0)
        except ObjectMissing:  # pruned meanwhile
            continue
        if found.ok:
            return manifest, damaged
        damaged += [each for each in found.damaged if each not in damaged]
    return None, damaged


def _found_before(manifest: Manifest, known: frozenset[str]) -> list[Damage]:
    """What a verification found damaged and no create has written anew since."""
    tables: dict[str, set[str]] = {}
    for table in manifest.tables:
        for chunk in table.chunks:
            if (key := chunk_key(chunk.sha256)) in known:
                tables.setdefault(key, set()).add(str(table.name))
    for part in manifest.objects:
        if (key := object_key(manifest.id, part.name)) in known:
            tables[key] = set()
    what = "dbops backup verify found it damaged"
    return [Damage(key, what, (manifest.id,), tuple(sorted(names))) for key, names in tables.items()]


def _later(key: str, since: datetime | None) -> bool:
    try:
        return since is None or id_parts(key.split("/")[1])[0] >= since.replace(microsecond=0)
    except ValueError:
        return True


def _described(manifest: Manifest, drills: list[Drill], now: datetime) -> Newest:
    age = max(0.0, (now - manifest.created_at).total_seconds())
    proven_at = max((each.at for each in drills if each.id == manifest.id), default=None)
    return Newest(manifest.id, manifest.created_at, age, proven_at)


def _too_old(newest: Newest | None, max_age: timedelta, *, ahead: bool) -> Iterator[str]:
    clock = "; a newer one has a time in the future, which does not count: a clock is wrong" if ahead else ""
    if newest is None:
        yield f"there is no good backup of this database{clock}"
    elif newest.age_s > max_age.total_seconds():
        limit = _told(max_age.total_seconds())
        yield f"the newest good backup is {_told(newest.age_s)} old, the limit is {limit}{clock}"


def _unproven(tried: list[Drill], proven_at: datetime | None, now: datetime, proven: timedelta | None) -> Iterator[str]:
    last = max(tried, key=lambda each: each.at, default=None)
    if last and not last.ok:
        yield f"the last drill failed, of {last.id}: {_why(last)}; dbops backup drill tries again"
    if proven and proven_at is None:
        yield "no backup of this database was ever proven: dbops backup drill latest"
    elif proven and proven_at and now - proven_at > proven:
        age = (now - proven_at).total_seconds()
        yield f"the last backup that was proven was so {_told(age)} ago, the limit is {_told(proven.total_seconds())}"


def _why(drill: Drill) -> str:
    tables = [f"{each.table}: {each.reason}" for each in drill.tables if not each.matches]
    return next(iter((*drill.problems, *tables)), "nothing was compared")


def _told(seconds: float) -> str:
    return f"{seconds / 86400:.1f} days" if seconds >= 2 * 86400 else f"{seconds / 3600:.1f} h"
