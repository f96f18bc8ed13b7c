"""A backup taken: rows by worker processes, the schema by pg_dump, one snapshot for all, the manifest last."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from dbops import __version__
from dbops.backup import manifest as manifests
from dbops.backup.choose import Chosen, Relation, choose
from dbops.backup.copying import Setup, Stored
from dbops.backup.definitions import definitions, pg_dump_version
from dbops.backup.layout import filled, planned, tasks
from dbops.backup.model import MANIFEST, POST, SCHEMA, Manifest, Object, Omitted, Tier
from dbops.backup.objects import BACKUPS, PUBLISH, absent, backup_id, compress, object_key
from dbops.backup.source import (
    UNKNOWN,
    Moved,
    Snapshot,
    details,
    facts,
    held,
    identity,
    migration,
    sequences,
)
from dbops.backup.workers import started, stored
from dbops.errors import Blocked, DbopsError, LockHeld, StoreError
from dbops.fingerprint import schema_text

if TYPE_CHECKING:
    from dbops.backup.store import Store
    from dbops.config import Settings

_PUBLISH_WAIT = 1800.0  # all rows are in the store, and nothing is locked on the server any more
_ROUNDS = 3


class Gone(Exception):
    """Chunks that a create counted on were swept before it was done."""


@dataclass(frozen=True)
class Progress:
    """How far a backup is. `note` is what a person should be told besides; `bytes_total` is an estimate."""

    bytes_done: int = 0
    bytes_total: int = 0
    elapsed_s: float = 0.0
    note: str = ""

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self.bytes_done / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds left; None while nobody can say."""
        return max(0, self.bytes_total - self.bytes_done) / self.rate if self.rate else None


Tell = Callable[[Progress], None]


@dataclass(frozen=True)
class Wanted:
    """What was asked for, and what the store has of this database already."""

    url: str
    store: Store
    settings: Settings
    tier: Tier
    tell: Tell
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    heal: frozenset[str]
    database: str
    identifier: str
    before: Manifest | None

    def choice(self, relations: Sequence[Relation], standby: bool) -> Chosen:
        return choose(relations, standby, self.include, self.exclude)


def create(
    url: str,
    store: Store,
    settings: Settings,
    tier: Tier,
    *,
    tell: Tell = lambda _: None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    heal: Collection[str] = (),
) -> Manifest:
    """Take a backup of the database at `url` and return its manifest, the last thing that was written.

    `include` and `exclude` are patterns (`public.*`, `log_*`) of tables whose rows are kept; definitions are kept of
    all. `heal` are hashes of chunks that are damaged in the store: they are written anew where the rows still give them.
    One create for a database runs at a time in a store; another waits `settings.wait` seconds.
    Raises LockHeld, Blocked (a table is held exclusively), CannotConnect, NotAllowed, UnfitServer (a pooler), StoreError.
    """
    began = time.monotonic()
    database, identifier = identity(url)
    with _alone(store, f"{identifier} {database}", settings.wait, tell):
        before = [
            each
            for each in manifests.read_all(store)[0]
            if (each.database, each.system_identifier) == (database, identifier)
        ]
        wanted = Wanted(
            url, store, settings, tier, tell, tuple(include), tuple(exclude), frozenset(heal), database, identifier,
            before[-1] if before else None,
        )  # fmt: skip
        for _ in range(_ROUNDS):
            manifest, texts = _tries(wanted)
            try:
                return publish(store, manifest, texts, began)
            except Gone as gone:
                tell(Progress(note=str(gone)))
    raise StoreError(
        f"chunks that the backup counts on vanish from {store.place} while it is taken",
        hint="no backup was written; see what else deletes there: a prune on another machine, a lifecycle rule of the bucket",
    )


@contextmanager
def _alone(store: Store, whose: str, wait: float, tell: Tell) -> Iterator[None]:
    name = "create-" + hashlib.sha256(whose.encode()).hexdigest()[:16]
    with ExitStack() as stack:
        try:
            stack.enter_context(store.lease(name, 0))
        except LockHeld as error:
            tell(Progress(note=f"waiting: {error.message}"))
            stack.enter_context(store.lease(name, wait))
        yield


def _tries(wanted: Wanted) -> tuple[Manifest, dict[str, bytes]]:
    """Let go and begin anew as long as others change tables. Raises Blocked after `settings.lock_tries`."""
    reason = ""
    for left in reversed(range(wanted.settings.lock_tries)):
        try:
            with held(wanted.url, wanted.settings, wanted.choice) as snapshot:
                return _copy(wanted, snapshot)
        except Moved as moved:
            reason = str(moved)
        if left:
            wanted.tell(Progress(note=f"begun anew: {reason}"))
            time.sleep(random.uniform(0.1, 0.5))
    raise Blocked(
        f"the tables did not hold still for a backup: {reason}",
        hint="try again when that session is done; no backup was written, what was stored is used by the next run",
    )


def _copy(wanted: Wanted, snapshot: Snapshot) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest but for what only its writing shows, and the texts that go beside it. The rows are in the store."""
    known, found, settings = facts(snapshot), details(snapshot), wanted.settings
    plan = planned(snapshot.chosen.tables, known, found, snapshot.server.major, wanted.before)
    work = tasks(plan)
    encoding = "SQL_ASCII" if known.encoding == "SQL_ASCII" else "UTF8"
    locked = tuple(each.name for each in (*snapshot.chosen.parents, *snapshot.chosen.tables))
    setup = Setup(
        wanted.url, snapshot.id, wanted.store, tuple(each.source for each in plan), locked,
        known={chunk.sha256: chunk.stored_bytes for chunk in wanted.before.chunks} if wanted.before else {},
        heal=wanted.heal, encoding=encoding,
    )  # fmt: skip
    managed = sorted(snapshot.chosen.managed)
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(3))
        workers = started(stack, setup, min(settings.workers, len(work)))
        wait_ms = round(settings.lock_timeout * 1000)
        pre = pool.submit(definitions, snapshot, "pre-data", managed, encoding, wait_ms)
        post = pool.submit(definitions, snapshot, "post-data", managed, encoding, wait_ms)
        mark = pool.submit(_fingerprint, wanted.url, settings, wait_ms)
        values, version = sequences(snapshot), migration(snapshot, settings.table)
        for worker in workers:
            worker.ready()
        chunks = _gather(wanted.tell, stored(setup, work, workers), sum(map(sum, found.sizes.values())))
        texts = {SCHEMA: pre.result(), POST: post.result()}
        fingerprint, omitted = mark.result()
    manifest = Manifest(
        id="", tier=wanted.tier, created_at=known.taken_at, database=wanted.database,
        system_identifier=wanted.identifier, server_version=snapshot.server.version,
        pg_dump_version=pg_dump_version(texts[SCHEMA]), dbops_version=__version__, encoding=known.encoding,
        extensions=known.extensions, roles=known.roles,
        tables=tuple(filled(each.table, chunks.get(n, ())) for n, each in enumerate(plan)),
        sequences=values, objects=(), omitted=(*known.omitted, *omitted, *_substitute(wanted.identifier)),
        migration=version, fingerprint=fingerprint,
        new_bytes=sum({each.chunk.sha256: each.new_bytes for parts in chunks.values() for each in parts}.values()),
    )  # fmt: skip
    return manifest, texts


def _substitute(identifier: str) -> tuple[Omitted, ...]:
    if not identifier.startswith(UNKNOWN):
        return ()
    return (
        Omitted("system identifier", "the role may not call pg_control_system(): the database's OID stands for it"),
    )


def _fingerprint(url: str, settings: Settings, wait_ms: int) -> tuple[str, tuple[Omitted, ...]]:
    """The hash that `migrate check` knows, read beside the snapshot: no reason to begin anew where it cannot be had."""
    try:
        return schema_text(url, settings.schemas, exclude_tables=(settings.table,), lock_wait_ms=wait_ms).hash, ()
    except DbopsError as error:
        return "", (Omitted("fingerprint of the schema", error.message),)


def _gather(tell: Tell, parts: Iterable[Stored], expected: int) -> dict[int, list[Stored]]:
    """All chunks by their table's number, telling how far it is."""
    found: dict[int, list[Stored]] = {}
    began, done = time.monotonic(), 0
    for part in parts:
        found.setdefault(part.source, []).append(part)
        done += part.chunk.raw_bytes
        tell(Progress(done, max(done, expected), time.monotonic() - began))
    return found


def publish(store: Store, manifest: Manifest, texts: dict[str, bytes], began: float) -> Manifest:
    """Write what goes beside the manifest, then the manifest: from then on the backup exists.

    A last look comes first, under the lease without which no sweep deletes. Raises Gone where a chunk is not there.
    """
    packed = {name: compress(text) for name, text in texts.items()}
    objects = tuple(
        Object(name, hashlib.sha256(text).hexdigest(), len(text), len(packed[name])) for name, text in texts.items()
    )
    # two databases may be backed up in the same second, and a run that was killed leaves files under its id
    with store.lease(PUBLISH, _PUBLISH_WAIT):
        if gone := absent(store, {chunk.sha256 for chunk in manifest.chunks}):
            raise Gone(f"begun anew: {len(gone)} chunks were swept away meanwhile")
        taken = manifest.created_at
        while next(iter(store.list(f"{BACKUPS}{backup_id(taken, manifest.tier)}/")), None):
            taken += timedelta(seconds=1)
        name = backup_id(taken, manifest.tier)
        for each in objects:
            store.put(object_key(name, each.name), packed[each.name])
        new_bytes = manifest.new_bytes + sum(each.stored_bytes for each in objects)
        took = (time.monotonic() - began) * 1000
        manifest = replace(manifest, id=name, objects=objects, new_bytes=new_bytes, duration_ms=took)
        store.put(object_key(name, MANIFEST), manifests.dump(manifest))
    return manifest
