"""A lease in a bucket: a lock object, written where there is none, renewed while held; a dead holder's lapses.

Ages are told by the server's clock alone (its Date less the object's Last-Modified): the holders' clocks may differ.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from dbops.backup.keys import LOCKS, held, holder
from dbops.errors import LockLost, ObjectMissing, StoreError

if TYPE_CHECKING:
    from dbops.backup.s3 import S3Store


@dataclass(frozen=True)
class _Found:
    text: str
    etag: str
    age: float  # seconds

    @property
    def token(self) -> str:
        with suppress(ValueError, AttributeError):
            return str(json.loads(self.text).get("token"))
        return ""


@contextmanager
def lease(store: S3Store, name: str, wait: float) -> Iterator[None]:
    """See Store.lease. Raises LockLost at the end where it was lost in between: another may have run beside us."""
    lock = _Lock(store, name)
    lock.acquire(wait)
    stop = threading.Event()
    renewer = threading.Thread(target=lock.renew, args=(stop,), daemon=True)
    renewer.start()
    try:
        yield
    finally:
        stop.set()
        renewer.join()
        lock.release()
    if lock.lost:
        raise LockLost(
            f"the lease {name!r} in {store.place} was lost in the middle of the run",
            hint="another process may have run beside this one: run `dbops backup verify`",
        )


class _Lock:
    def __init__(self, store: S3Store, name: str) -> None:
        self.store, self.name, self.key = store, name, f"{LOCKS}/{name}"
        self.token = secrets.token_hex(16)
        self.text = holder(token=self.token)
        self.seconds = store.lease_seconds
        self.lost = False

    def acquire(self, wait: float) -> None:
        end = time.monotonic() + wait
        while not self._try():
            if time.monotonic() >= end:
                found = self._read()
                raise held(self.name, self.store.place, found.text if found else "")
            time.sleep(min(1.0, self.seconds / 10))

    def _try(self) -> bool:
        found = self._read()
        if found and found.token != self.token and found.age <= self.seconds:
            return False
        took_over = found is not None
        if not (self._replace(found) if found else self._put(IfNoneMatch="*")) and not self._is_ours():
            return False
        if took_over or not self._honours_conditions():
            # two may have written at once: the last one has it, and both see that after a while
            time.sleep(min(2.0, self.seconds / 10))
            return self._is_ours()
        return True

    def _honours_conditions(self) -> bool:
        """Whether the server refuses to write the object again, which is there now."""
        if not self._put(IfNoneMatch="*"):
            return True
        self.store.tell(
            f"{self.store.place}: this server ignores If-None-Match, so that two runs that start in the same second "
            "are told apart only by waiting; start runs at different times"
        )
        return False

    def _replace(self, found: _Found) -> bool:
        # Ceph compares the bare hash with what we send, others want the quotes that belong to an ETag
        return any(self._put(IfMatch=etag) for etag in (found.etag, found.etag.strip('"')))

    def _put(self, **condition: str) -> bool:
        from dbops.backup.s3 import Refused

        try:
            self.store.request("put_object", self.key, Body=self.text.encode(), **condition)
        except (Refused, ObjectMissing):
            return False
        return True

    def _read(self) -> _Found | None:
        try:
            answer = self.store.request("get_object", self.key)
        except ObjectMissing:
            return None
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
        age = (now - answer["LastModified"]).total_seconds()
        return _Found(answer["Body"].decode(errors="replace"), answer["ETag"], age)

    def _is_ours(self) -> bool:
        found = self._read()
        return found is not None and found.token == self.token

    def renew(self, stop: threading.Event) -> None:
        """Write the object anew, three times in its life, until stopped; note when it is no longer ours."""
        last = time.monotonic()
        while not stop.wait(self.seconds / 3):
            try:
                found = self._read()
                if not found or found.token != self.token or not self._replace(found):
                    self.lost = True
                    return
                last = time.monotonic()
            except StoreError:
                if time.monotonic() - last > self.seconds:
                    self.lost = True
                    return

    def release(self) -> None:
        """Let go. A server that does not answer now lets it lapse."""
        with suppress(StoreError):
            if not self.lost and self._is_ours():
                self.store.request("delete_object", self.key)
