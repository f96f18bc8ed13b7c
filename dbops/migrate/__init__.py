"""Migrations: read, ordered, applied, reversed, proven."""

from __future__ import annotations

from dbops.migrate.events import Event, Observer
from dbops.migrate.files import Migration, Script
from dbops.migrate.history import Record, Run
from dbops.migrate.manager import MigrationManager, Outcome
from dbops.migrate.plan import Plan, Status

__all__ = ["Event", "Migration", "MigrationManager", "Observer", "Outcome", "Plan", "Record", "Run", "Script", "Status"]
