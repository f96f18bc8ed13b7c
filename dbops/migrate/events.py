"""What a run tells while it goes on: the command line shows it, the tests interrupt it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """A moment of a run. `what` is one of:

    waiting (for another runner), locked, begin (of a migration), transaction (begun), statement (about to run), ran,
    record (about to be written), committed, step (its start recorded), step_done, retry (after a lock time-out),
    abandoned (waiting for a killed runner's backend), rebuilt (an invalid index was dropped), resumed, warning,
    embedded (the embedded server is used), proving, xray, notice (of the server; `name` is its severity).
    """

    what: str
    version: str = ""
    name: str = ""
    step: int = 0
    steps: int = 0
    detail: str = ""
    duration_ms: float = 0.0


Observer = Callable[[Event], None]


def silent(_: Event) -> None:
    """An observer that does nothing."""
