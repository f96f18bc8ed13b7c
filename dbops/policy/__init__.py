"""Row level security: declared, applied as a diff, attacked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = [
    "Applied",
    "Definitions",
    "Drift",
    "Explanation",
    "Listed",
    "Plan",
    "PolicyManager",
    "Statement",
    "Unmanaged",
]

if TYPE_CHECKING:
    from dbops.policy.apply import Applied
    from dbops.policy.explain import Explanation
    from dbops.policy.manager import Drift, Listed, PolicyManager
    from dbops.policy.model import Definitions
    from dbops.policy.plan import Plan, Statement, Unmanaged

_HOME = {
    "Applied": "apply", "Definitions": "model", "Drift": "manager", "Explanation": "explain", "Listed": "manager",
    "Plan": "plan", "PolicyManager": "manager", "Statement": "plan", "Unmanaged": "plan",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: a module of this room alone loads no driver."""
    if name not in _HOME:
        raise AttributeError(f"module 'dbops.policy' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"dbops.policy.{_HOME[name]}"), name)
