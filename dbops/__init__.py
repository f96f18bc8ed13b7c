"""dbops: PostgreSQL and pgvector operations, proven on a real PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "BackupManager",
    "DbopsError",
    "HygieneManager",
    "MigrationManager",
    "PolicyManager",
    "Settings",
    "__version__",
]

if TYPE_CHECKING:
    from dbops.backup import BackupManager
    from dbops.config import Settings
    from dbops.errors import DbopsError
    from dbops.hygiene import HygieneManager
    from dbops.migrate import MigrationManager
    from dbops.policy import PolicyManager

_HOME = {
    "BackupManager": "dbops.backup", "DbopsError": "dbops.errors", "HygieneManager": "dbops.hygiene",
    "MigrationManager": "dbops.migrate", "PolicyManager": "dbops.policy", "Settings": "dbops.config",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import dbops` alone loads nothing else."""
    if name not in _HOME:
        raise AttributeError(f"module 'dbops' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
