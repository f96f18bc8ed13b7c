"""What the stores have in common: which keys are good, who holds a lease, and the words for both."""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, datetime

from dbops.errors import LockHeld, ObjectMissing, UsageError

LOCKS = ".locks"  # leases lie here; a name that begins with a dot is no object


def is_key(key: str) -> bool:
    parts = key.split("/")
    return "\\" not in key and key.isprintable() and all(part and not part.startswith(".") for part in parts)


def checked(key: str) -> str:
    """The key itself. Raises UsageError for one that could lead out of a store or that a store keeps for itself."""
    if not is_key(key):
        raise UsageError(
            f"{key!r} is no key of a store",
            hint="nothing was read or written; keys are relative paths, no part of which begins with a dot",
        )
    return key


def missing(key: str, place: str) -> ObjectMissing:
    return ObjectMissing(
        f"{key} is not in {place}", hint="nothing was changed; `dbops backup list` shows what is there"
    )


def holder(**more: str) -> str:
    """Who we are, as JSON, for the message of whoever waits for us."""
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": now, **more})


def held(name: str, place: str, text: str) -> LockHeld:
    """The error for a lease that someone else holds, who is described by `text`."""
    try:
        who = json.loads(text)
        words = f"process {who['pid']} on {who['host']}, since {who['since']}"
    except (ValueError, KeyError, TypeError):
        words = "another process"
    return LockHeld(
        f"{name!r} in {place} is held by {words}",
        hint="nothing was done; wait for it (--wait 10min), or end that process",
    )
