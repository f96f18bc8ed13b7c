"""Backups: taken, kept, verified, restored, drilled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = [
    "BackupManager",
    "Checked",
    "Difference",
    "Drill",
    "Listed",
    "Manifest",
    "Merged",
    "PrunePlan",
    "Restored",
    "Verified",
]

if TYPE_CHECKING:
    from dbops.backup.check import Checked
    from dbops.backup.manager import BackupManager, Listed
    from dbops.backup.merge.model import Difference, Merged
    from dbops.backup.model import Drill, Manifest
    from dbops.backup.prune import PrunePlan
    from dbops.backup.restore import Restored
    from dbops.backup.verify import Verified

_HOME = {
    "BackupManager": "manager", "Checked": "check", "Difference": "merge.model", "Drill": "model", "Listed": "manager",
    "Manifest": "model", "Merged": "merge.model", "PrunePlan": "prune", "Restored": "restore", "Verified": "verify",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: a module of this room alone loads no driver."""
    if name not in _HOME:
        raise AttributeError(f"module 'dbops.backup' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"dbops.backup.{_HOME[name]}"), name)
