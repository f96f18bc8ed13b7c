"""The one hierarchy of errors. Each has a message, a hint and an exit code.

The message names the thing and says what happened; the hint says what was left untouched and what to do next::

    DbopsError                        1  failed (a proof that failed too)
    ├── UsageError                    2  a wrong option, setting, file or argument
    │   ├── ConfigError
    │   ├── MigrationFileError           a migration file that cannot be read or may not run
    │   ├── DefinitionError              a policy definition that cannot be read or does not fit the database
    │   └── ConfirmationRequired         a destructive act without --yes and without a terminal
    ├── DifferenceFound               3  something is pending, differs, is too old or was found
    ├── NotProven                     4  a leak, or nothing was proven
    ├── CannotConnect                10  cannot connect or not allowed
    │   ├── NotAllowed
    │   └── UnfitServer                  a standby, or a pooler in statement mode
    ├── LockHeld                     11  another runner holds the lock
    ├── HistoryMismatch              12  files and history disagree (edited, missing, out of order)
    ├── BackupDamaged                13  a backup is damaged or a drill failed
    ├── StoreError                    1  the backup store cannot be read or written
    │   └── ObjectMissing                an object that a manifest names is not there
    ├── StatementFailed               1  PostgreSQL refused a statement of a migration
    │   └── Blocked                      it waited for a lock longer than lock_timeout, tries included
    ├── LockLost                      1  the runner lock was lost in the middle of a run
    ├── Irreversible                  1  a migration that has no way back
    ├── EmbeddedServerError           1  the PostgreSQL that comes with the install did not start
    ├── MissingToolError              1  a program or extra that is needed is not installed
    └── Interrupted                 130  Ctrl-C or SIGTERM
"""

from __future__ import annotations

from pathlib import Path

EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "failed (a proof that failed too)",
    2: "usage",
    3: "something is pending, differs, is too old or was found",
    4: "a leak, or nothing was proven",
    10: "cannot connect or not allowed",
    11: "another runner holds the lock",
    12: "files and history disagree (edited, missing, out of order)",
    13: "a backup is damaged or a drill failed",
    130: "interrupted",
}


class DbopsError(Exception):
    """The base of all errors that dbops raises. `code` names the kind in JSON, `exit_code` is the process's."""

    code = "failed"
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(DbopsError):
    code = "usage"
    exit_code = 2


class ConfigError(UsageError):
    code = "config"


class MigrationFileError(UsageError):
    code = "migration_file"


class DefinitionError(UsageError):
    code = "definition"


class ConfirmationRequired(UsageError):
    code = "confirmation_required"


class DifferenceFound(DbopsError):
    code = "difference"
    exit_code = 3


class NotProven(DbopsError):
    code = "not_proven"
    exit_code = 4


class CannotConnect(DbopsError):
    code = "cannot_connect"
    exit_code = 10


class NotAllowed(CannotConnect):
    code = "not_allowed"


class UnfitServer(CannotConnect):
    code = "unfit_server"


class LockHeld(DbopsError):
    code = "lock_held"
    exit_code = 11


class HistoryMismatch(DbopsError):
    code = "history_mismatch"
    exit_code = 12


class BackupDamaged(DbopsError):
    code = "backup_damaged"
    exit_code = 13


class StoreError(DbopsError):
    code = "store"


class ObjectMissing(StoreError):
    code = "object_missing"


class StatementFailed(DbopsError):
    code = "statement_failed"


class Blocked(StatementFailed):
    code = "blocked"


class LockLost(DbopsError):
    code = "lock_lost"


class Irreversible(DbopsError):
    code = "irreversible"


class EmbeddedServerError(DbopsError):
    code = "embedded_server"


class MissingToolError(DbopsError):
    code = "missing_tool"


class Interrupted(DbopsError):
    code = "interrupted"
    exit_code = 130


def shown(path: Path) -> str:
    """The path as messages show it: from the current folder on, where it lies below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
