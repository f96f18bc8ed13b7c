"""HygieneManager: the public API of the room. It returns frozen values and raises DbopsErrors; it never prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from dbops.config import Settings, libpq_url, load
from dbops.embedded import resolve
from dbops.errors import UsageError
from dbops.hygiene.model import (
    Batch,
    CleanupPlan,
    Done,
    Plan,
    Review,
    Search,
    Stats,
    Tell,
    Undone,
    UndoPlan,
)

if TYPE_CHECKING:
    from dbops.hygiene.session import Session
    from dbops.hygiene.table.model import Target


class HygieneManager:
    """Duplicates and clean-up of one database, as an operator who sees all rows.

    `url` is any PostgreSQL URL or conninfo; None takes the settings' (environment, dbops.toml, the embedded server).
    `tell` is called with a line of progress.
    """

    def __init__(
        self, url: str | None = None, *, settings: Settings | None = None, tell: Tell = lambda _: None
    ) -> None:
        self.settings = settings or load()
        if url is not None:
            if not url.strip():
                raise UsageError("the URL is empty", hint="leave it out for the settings' own; nothing was done")
            self.settings = replace(self.settings, url=libpq_url(url), url_source="argument")
        self.tell = tell

    @cached_property
    def url(self) -> str:
        """The URL in use; the embedded server is started where no other is named."""
        return resolve(self.settings, lambda server: self.tell(f"embedded server in {server.data_directory}"))

    @contextmanager
    def _session(self, purpose: str) -> Iterator[Session]:
        from dbops.hygiene.session import opened

        with opened(self.url, self.settings, purpose) as session:
            yield session

    # --- duplicates ------------------------------------------------------------------------------------

    def scan(self, user: str | None = None, search: Search | None = None, *, target: Target | None = None) -> Plan:
        """What dedupe would do, of one user or of all; of another table with `target`. Changes nothing."""
        search = search or Search()
        _refuse_no_text({"model": search.model} | (target.settings() if target else {}))
        with self._session("scan") as session:
            if target is not None:
                from dbops.hygiene.table.scan import scan_table

                return scan_table(session, target, search)
            from dbops.hygiene.scan import scan

            return scan(session, search, user, tell=self.tell)

    def dedupe(
        self, plan: Plan | None = None, *, user: str | None = None, search: Search | None = None,
        target: Target | None = None,
    ) -> Done:  # fmt: skip
        """Carry out a plan of `scan`; without one, make it first. Nothing that changed since the plan is touched."""
        _refuse_no_text(target.settings() if target else {})
        plan = plan or self.scan(user, search, target=target)
        with self._session("dedupe") as session:
            if target is not None:
                from dbops.hygiene.table.apply import carry_out_table

                return carry_out_table(session, target, plan)
            from dbops.hygiene.dedupe import carry_out

            return carry_out(session, plan, tell=self.tell)

    def deduplicate_memories(self, user_id: str) -> Done:
        """Mark one user's duplicates, at the usual threshold."""
        return self.dedupe(user=str(user_id))

    # --- review ----------------------------------------------------------------------------------------

    def review(
        self, user: str | None = None, *, limit: int = 100, ids: Sequence[int] | None = None
    ) -> tuple[Review, ...]:
        """The pairs that wait for a person; with `ids` these. Raises UsageError for an id that is not open."""
        from dbops.hygiene.review import listed, these

        with self._session("review") as session:
            return listed(session, user, limit=limit) if ids is None else these(session, ids)

    def accept(self, ids: Sequence[int]) -> Done:
        """These pairs are duplicates. Raises UsageError for an id that is not open."""
        from dbops.hygiene.review import accept

        with self._session("review") as session:
            return accept(session, ids)

    def reject(self, ids: Sequence[int]) -> int:
        """These pairs are not. Raises UsageError for an id that is not open."""
        from dbops.hygiene.review import reject

        with self._session("review") as session:
            return reject(session, ids)

    # --- clean-up and the way back ---------------------------------------------------------------------

    def plan_cleanup(self, days_old: int = 90, *, user: str | None = None) -> CleanupPlan:
        """What `cleanup_old_memories` would delete."""
        from dbops.hygiene.cleanup import plan_cleanup

        with self._session("cleanup") as session:
            return plan_cleanup(session, days_old, user)

    def cleanup_old_memories(
        self, days_old: int = 90, *, user: str | None = None, plan: CleanupPlan | None = None, purge_after: int = 30
    ) -> Done:
        """Delete memories that were inactive and unchanged for `days_old` days, and expired blobs.

        `undo` brings them back for `purge_after` days. Without a user the ledgers of batches whose time is over go as well.
        """
        from dbops.hygiene.cleanup import carry_out

        plan = plan or self.plan_cleanup(days_old, user=user)
        with self._session("cleanup") as session:
            return carry_out(session, plan, purge_after=purge_after, tell=self.tell)

    def plan_undo(self, batch: str) -> UndoPlan:
        """What `undo` would take back. Raises UsageError for an unknown batch."""
        from dbops.hygiene.undo import plan_undo

        with self._session("undo") as session:
            return plan_undo(session, batch)

    def undo(self, batch: str) -> Undone:
        """Take a batch back. What changed since is left as it is, and named. Raises UsageError for an unknown batch."""
        from dbops.hygiene.undo import undo

        with self._session("undo") as session:
            return undo(session, batch, tell=self.tell)

    # --- looking back ----------------------------------------------------------------------------------

    def history(self, *, limit: int = 50) -> tuple[Batch, ...]:
        """The newest batches first, those made by functions called from SQL among them."""
        from dbops.hygiene.history import history

        with self._session("history") as session:
            return history(session, limit)

    def stats(self, user: str | None = None, *, limit: int = 50) -> Stats:
        """What was found and won, by batch over time and by user."""
        from dbops.hygiene.history import history, user_stats

        with self._session("stats") as session:
            return Stats(history(session, limit), user_stats(session, user, limit))


def _refuse_no_text(values: Mapping[str, str | None]) -> None:
    """Raise UsageError for a text that PostgreSQL cannot take."""
    from dbops.hygiene.session import without_nul

    for name, text in values.items():
        if text is not None:
            without_nul(text, name)
