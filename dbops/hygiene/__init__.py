"""Hygiene: duplicates found exactly, marked, reviewed, undone; clean-up; the doctor's checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["Batch", "CleanupPlan", "Done", "HygieneManager", "Plan", "Review", "Search", "Stats", "Undone"]

if TYPE_CHECKING:
    from dbops.hygiene.manager import HygieneManager
    from dbops.hygiene.model import Batch, CleanupPlan, Done, Plan, Review, Search, Stats, Undone

_HOME = {name: "manager" if name == "HygieneManager" else "model" for name in __all__}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: a module of this room alone loads no driver."""
    if name not in _HOME:
        raise AttributeError(f"module 'dbops.hygiene' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"dbops.hygiene.{_HOME[name]}"), name)
