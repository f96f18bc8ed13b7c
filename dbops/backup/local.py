"""A store in a folder: objects appear whole by rename, and stay after a power cut by fsync."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from dbops.backup.keys import LOCKS, checked, held, holder, missing
from dbops.backup.store import Item
from dbops.errors import BackupDamaged, StoreError, shown

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TEMPORARY = ".tmp"
_TRIES = 5


class LocalStore:
    """Objects as files (0600) below `folder` (made at the first write, 0700). A name with a dot in front is no object."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.place = shown(self.folder)

    def _path(self, key: str) -> Path:
        path = self.folder / checked(key)
        self._refuse_link(path, key)
        return path

    def _refuse_link(self, path: Path, key: str) -> None:
        """A link in the store must not make us read, overwrite or delete what lies elsewhere."""
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise StoreError(
                f"{key} in {self.place} is a link that leads out of the store",
                hint="nothing was read or written; remove the link",
            )

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        for left in reversed(range(_TRIES)):
            try:
                self._write(path, data)
                return
            except OSError as error:
                # a sweep has just removed the folder, that was empty, or the file, that was half-written
                if not (left and isinstance(error, FileNotFoundError)):
                    raise self._failure(key, "written", error) from error

    def _write(self, path: Path, data: bytes) -> None:
        temporary = path.parent / f".{secrets.token_hex(8)}{_TEMPORARY}"
        self._make(path.parent)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(path.parent)

    def _make(self, folder: Path) -> None:
        """Make a folder of the store and those above it, each for its owner only, each entered durably in its parent."""
        if folder.is_dir():
            return
        self._make(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            _sync(folder.parent)

    def get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise missing(key, self.place) from None
        except OSError as error:
            if error.errno == errno.EIO:
                raise BackupDamaged(f"{key} in {self.place}: the disk cannot read it", hint="check the disk") from error
            raise self._failure(key, "read", error) from error

    def size(self, key: str) -> int | None:
        path = self._path(key)
        try:
            return path.stat().st_size if path.is_file() else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failure(key, "read", error) from error

    def list(self, prefix: str = "") -> Iterator[Item]:
        folder = self._path(prefix.rpartition("/")[0]) if "/" in prefix else self.folder
        try:
            for path in _files(folder, f"{self.folder}/{prefix}"):
                with suppress(FileNotFoundError):  # deleted while we look
                    stat = path.stat()
                    key = path.relative_to(self.folder).as_posix()
                    yield Item(key, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))
        except OSError as error:
            raise self._failure(prefix or "the folder", "listed", error) from error

    def touch(self, key: str) -> bool:
        path = self._path(key)
        try:
            os.utime(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise self._failure(key, "written", error) from error
        return True

    def delete(self, keys: Iterable[str]) -> None:
        folders = set()
        for key in keys:
            path = self._path(key)
            try:
                path.unlink(missing_ok=True)
            except NotADirectoryError:
                continue
            except OSError as error:
                raise self._failure(key, "deleted", error) from error
            folders.add(path.parent)
        for folder in folders:
            # a deleted manifest must not come back after a power cut, when its chunks are gone
            with suppress(FileNotFoundError):
                _sync(folder)
                with suppress(OSError):
                    folder.rmdir()

    def tidy(self, before: datetime) -> int:
        """Remove what killed writers left half-written before that time; the number of bytes that were freed."""
        freed = 0
        for folder, _, names in os.walk(self.folder):
            for name in names:
                path = Path(folder, name)
                if name.startswith(".") and name.endswith(_TEMPORARY):
                    with suppress(FileNotFoundError):
                        stat = path.stat()
                        if stat.st_mtime < before.timestamp():
                            path.unlink()
                            freed += stat.st_size
        return freed

    @contextmanager
    def lease(self, name: str, wait: float) -> Iterator[None]:
        """See Store. The kernel lets go of a dead holder's lock; the file only says who holds it."""
        path = self.folder / LOCKS / checked(name)
        self._refuse_link(path, f"{LOCKS}/{name}")
        try:
            self._make(path.parent)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise self._failure(name, "locked", error) from error
        with open(descriptor, "r+", encoding="utf-8") as file:
            end = time.monotonic() + wait
            while not _locked(file.fileno()):
                if time.monotonic() >= end:
                    raise held(name, self.place, file.read())
                time.sleep(0.05)
            file.truncate(0)
            file.write(holder())
            file.flush()
            yield

    def _failure(self, key: str, done: str, error: OSError) -> StoreError:
        reason = error.strerror or type(error).__name__
        if error.errno in _FULL:
            hint = "the store is full; what was there before is untouched; free space or run `dbops backup prune`"
        else:
            hint = "what was there before is untouched; check the folder, its owner and its rights"
        return StoreError(f"{key} in {self.place} cannot be {done}: {reason}", hint=hint)


def _files(folder: Path, prefix: str) -> Iterator[Path]:
    """The files below a folder that are objects and whose paths begin with `prefix`; a missing folder has none."""
    try:
        with os.scandir(folder) as entries:
            found = [each for each in entries if not each.name.startswith(".")]
    except FileNotFoundError:
        return
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            if f"{entry.path}/".startswith(prefix) or prefix.startswith(f"{entry.path}/"):
                yield from _files(Path(entry.path), prefix)
        elif entry.is_file(follow_symlinks=False) and entry.path.startswith(prefix):
            yield Path(entry.path)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
