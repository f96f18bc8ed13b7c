"""Is there a backup of this database that is young enough, whole as far as a quick look shows, and proven lately?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from dbops.backup.damaged import known
from dbops.backup.manifest import read_all, read_drills
from dbops.backup.model import Damage, Drill, Manifest
from dbops.backup.objects import chunk_key, id_parts
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

    One that is damaged is told, and the newest one without damage counts; a backup from the future does not. With
    `proven`, the last drill that succeeded must not be older than that. Raises StoreError.
    """
    manifests, broken = read_all(store)
    own = [each for each in manifests if database_of(each) == database and each.created_at <= now + _SKEW]
    good, damaged = _newest_good(store, own)
    since = good.created_at if good else None
    # nobody can say whose a manifest is that cannot be read: one that would be the newest counts
    damaged += [Damage(key, what, (key.split("/")[1],)) for key, what in broken if _later(key, since)]
    drills = [each for each in read_drills(store)[0] if each.ok and each.id in {one.id for one in own}]
    proven_at = max((each.at for each in drills), default=None)
    newest = _described(good, drills, now) if good else None
    problems = tuple(_problems(newest, proven_at, now, max_age, proven))
    return Checked(newest, proven_at, problems, tuple(damaged))


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
            if chunk.sha256 in known:
                tables.setdefault(chunk.sha256, set()).add(str(table.name))
    what = "dbops backup verify found it damaged"
    return [Damage(chunk_key(each), what, (manifest.id,), tuple(sorted(names))) for each, names in tables.items()]


def _later(key: str, since: datetime | None) -> bool:
    try:
        return since is None or id_parts(key.split("/")[1])[0] >= since.replace(microsecond=0)
    except ValueError:
        return True


def _described(manifest: Manifest, drills: list[Drill], now: datetime) -> Newest:
    age = max(0.0, (now - manifest.created_at).total_seconds())
    proven_at = max((each.at for each in drills if each.id == manifest.id), default=None)
    return Newest(manifest.id, manifest.created_at, age, proven_at)


def _problems(
    newest: Newest | None, proven_at: datetime | None, now: datetime, max_age: timedelta, proven: timedelta | None
) -> list[str]:
    found = []
    if newest is None:
        found.append("there is no good backup of this database")
    elif newest.age_s > max_age.total_seconds():
        found.append(
            f"the newest good backup is {_told(newest.age_s)} old, the limit is {_told(max_age.total_seconds())}"
        )
    if proven and proven_at is None:
        found.append("no backup of this database was ever proven: dbops backup drill latest")
    elif proven and proven_at and now - proven_at > proven:
        age = (now - proven_at).total_seconds()
        found.append(
            f"the last backup that was proven was so {_told(age)} ago, the limit is {_told(proven.total_seconds())}"
        )
    return found


def _told(seconds: float) -> str:
    return f"{seconds / 86400:.1f} days" if seconds >= 2 * 86400 else f"{seconds / 3600:.1f} h"
