"""The attack from nothing: a scratch server, the schema on it, the policies, and the attack.

Nothing of it touches the target but the copying of its schema and, of a live one, what `live.py` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from dbops.config import Settings
from dbops.database import connect, server_of, translated
from dbops.embedded import Scratch, scratch
from dbops.errors import UsageError
from dbops.policy.apply import Applier, Tell
from dbops.policy.attack import attack, attack_mutants
from dbops.policy.attack.result import Report, Vacuous
from dbops.policy.catalog import load_catalog
from dbops.policy.export import find_table
from dbops.policy.live import look
from dbops.policy.model import Definitions, Name
from dbops.policy.state import Catalog
from dbops.schema_copy import copy_schema
from dbops.scratch_database import scratch_database

# what dbops keeps for itself: no user's, and not every role that may attack may read it
_KEPT = ("dbops.migration_runs", "dbops.migration_steps", "dbops.policy_files")
# fills an empty database, named by its URL, with the schema: the project's migrations, say
Build = Callable[[str], None]


@dataclass(frozen=True)
class Proof:
    """How a proof is run: `mutate` weakens each policy as well, `tables` narrow the attack (None: all)."""

    settings: Settings
    definitions: Definitions
    mutate: bool = False
    tables: Collection[str | Name] | None = None
    tell: Tell = lambda _: None

    def built(self, build: Build, major: int) -> Report:
        """Attack what `build` makes, under the definitions. Raises what the building raises."""
        with self._database(major) as (server, url, _):
            self.tell(f"building the schema on {_told(server)}")
            build(url)
            self._apply(url)
            return self._attack(server, url)

    def live(self, target: str, major: int) -> Report:
        """Attack a copy of the target as it is, then read the target itself as those who may not."""
        with self._database(major) as (server, url, made):
            self.tell(f"copying the schema to {_told(server)}")
            copied = copy_schema(target, url, exclude_tables=(self.settings.table, *_KEPT))
            made.update(copied.roles_made)
            report = self._attack(server, url)
        lost = tuple(Vacuous(each.object, "", each.message) for each in copied.not_copied)
        self.tell("reading the target as those who may not")
        seen = look(target, self.definitions, None if self.tables is None else set(report.tables))
        return replace(
            report,
            attacks=report.attacks + seen.attacks,
            leaks=tuple(sorted({*report.leaks, *seen.leaks})),
            not_proven=(*report.not_proven, *lost, *seen.not_proven),
        )

    @contextmanager
    def _database(self, major: int) -> Iterator[tuple[Scratch, str, set[str]]]:
        made: set[str] = set()
        with scratch(major, url=self.settings.scratch_url) as server:
            if server.note:
                self.tell(server.note)
            with scratch_database(server, self.settings.wait, made) as url:
                yield server, url, made

    def _apply(self, url: str) -> None:
        """Bring the scratch database to the definitions, as far as it has their tables."""
        with connect(url, "policy attack") as conn, translated():
            there = load_catalog(conn).tables
        tables = {name: rules for name, rules in self.definitions.tables.items() if name in there}
        settings = replace(self.settings, url=url, wait=5.0, lock_tries=1, search_path="")
        Applier(url, settings, replace(self.definitions, tables=tables)).apply()

    def _attack(self, server: Scratch, url: str) -> Report:
        self.tell("attacking")
        with connect(url, "policy attack") as conn, translated():
            catalog = load_catalog(conn)
            tables = self._chosen(catalog)
            report = attack(
                conn, self.definitions, catalog, tables=tables,
                server_version=str(server.major), server_kind=server.kind,
            )  # fmt: skip
            if not self.mutate:
                return report
            self.tell("weakening each policy in turn")
            return replace(report, mutants=attack_mutants(conn, self.definitions, catalog, tables=tables))

    def _chosen(self, catalog: Catalog) -> set[Name] | None:
        """The tables by name. Raises UsageError for one that is neither there nor defined."""
        if self.tables is None:
            return None
        defined = {str(name): name for name in self.definitions.tables}
        return {defined.get(str(name)) or find_table(name, catalog) for name in self.tables}


def major_of(settings: Settings) -> int:
    """The target's major version; without a named server the embedded one's, which need not run for that."""
    if settings.url is None:
        return settings.postgres_version
    with connect(settings.url, "policy attack") as conn:
        return server_of(conn).major


def refuse_nothing(definitions: Definitions) -> None:
    """Raise UsageError where there is nothing to hold the database to."""
    if not definitions.tables:
        raise UsageError(
            "there are no definitions: nothing says who may do what",
            hint="write policies/*.toml, or start with `dbops policy export`; nothing was attacked",
        )


def _told(server: Scratch) -> str:
    return f"a scratch server (PostgreSQL {server.major}, {server.kind})"
