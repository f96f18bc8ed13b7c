"""From the text that names a store to the store."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from dbops.backup.local import LocalStore
from dbops.backup.store import Store
from dbops.errors import ConfigError, MissingToolError

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


def open_store(text: str, root: Path, tell: Callable[[str], None] = lambda _: None) -> Store:
    """The store that `text` names: `s3://bucket/prefix?endpoint=…`, a folder from `root` on, or "" for backups/ there.

    `tell` gets what a person should know of the store. Nothing is read or written yet.
    Raises ConfigError for another scheme or a credential in the URL, MissingToolError without boto3.
    """
    scheme = _SCHEME.match(text)
    if not scheme:
        return LocalStore(root / Path(text or "backups").expanduser())
    if scheme[1].lower() != "s3":
        raise ConfigError(f"there is no store of the kind {scheme[1]}://", hint="name a folder or s3://bucket/prefix")
    try:
        from dbops.backup.s3 import s3_store
    except ModuleNotFoundError:
        raise MissingToolError("s3:// needs boto3", hint="pip install 'pg-dbops[s3]'") from None
    return s3_store(text, tell)
