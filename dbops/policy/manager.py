"""`PolicyManager`: the verbs of row level security on one database."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from dbops.config import Settings, libpq_url, load, search_path_of
from dbops.database import connect, translated
from dbops.embedded import resolve
from dbops.errors import UsageError
from dbops.policy.apply import Applied, Applier, Tell, silent
from dbops.policy.catalog import load_catalog
from dbops.policy.drift import drift_text
from dbops.policy.explain import Explanation, explain
from dbops.policy.export import export, find_table
from dbops.policy.model import PREFIX, Definitions, Name
from dbops.policy.plan import Plan
from dbops.policy.read import read_definitions
from dbops.policy.state import Catalog, Policy

if TYPE_CHECKING:
    from dbops.policy.attack.result import Report
    from dbops.policy.proof import Build

# in the class, `list` is its method
Paths = list[Path]


@dataclass(frozen=True)
class Listed:
    """A policy of the database and who made it: dbops, definition, `file NAME`, or other."""

    policy: Policy
    made_by: str


@dataclass(frozen=True)
class Drift:
    """How the database differs from the definitions: a unified diff (empty for none) and the plan that ends it."""

    text: str
    comparable: bool
    plan: Plan


class PolicyManager:
    """The policies of one database, and the definitions in the settings' folder `policies`.

    `url` is any PostgreSQL URL or conninfo; None takes the settings' (environment, dbops.toml, the embedded server).
    `tell` is called with a sentence while something is waited for.
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None, tell: Tell = silent) -> None:
        self.settings = settings or load()
        if url is not None:
            if not url.strip():
                raise UsageError("the URL is empty", hint="leave it out for the settings' own; nothing was done")
            path = self.settings.search_path or search_path_of(url)
            self.settings = replace(self.settings, url=libpq_url(url), url_source="argument", search_path=path)
        self.tell = tell
        self._url: str | None = None

    @property
    def url(self) -> str:
        """The URL in use; the embedded server is started where no other is named."""
        if self._url is None:
            self._url = resolve(self.settings, lambda server: self.tell(f"embedded server in {server.data_directory}"))
        return self._url

    def definitions(self) -> Definitions:
        """The definitions of the folder. Raises DefinitionError with file, line, table and key."""
        return read_definitions(self.settings.policies)

    def catalog(self) -> Catalog:
        """The tables, policies, grants and roles of the database, in all schemas."""
        with connect(self.url, "policy") as conn, translated():
            return load_catalog(conn)

    def list(self) -> tuple[Listed, ...]:
        """The policies of the database, by table and name, and who made each."""
        catalog = self.catalog()
        # a database can be looked at before there are any definitions
        tables = self.definitions().tables if self.settings.policies.is_dir() else {}
        raw = {(t.name, each.name) for t in tables.values() for each in t.raw}
        files = {(p.table, p.name): name for name, made in catalog.recorded.items() for p in made}
        return tuple(Listed(p, _made_by(p, raw, files.get((p.table, p.name), ""))) for p in catalog.policies)

    def plan(self, prune: bool = False) -> Plan:
        """What `apply` would do. Changes nothing. Raises DefinitionError, NotAllowed, Blocked, UnfitServer."""
        return self._applier(prune).plan().plan

    def apply(self, prune: bool = False, expected: Plan | None = None) -> Applied:
        """Bring the database to the definitions, in one transaction under the runner lock.

        `prune` drops the policies of others too. `expected` is the plan that was confirmed: HistoryMismatch where
        another one would be applied by now. See `Applier.apply` for what else is raised; nothing is changed then.
        """
        return self._applier(prune).apply(expected, self.tell)

    def check(self) -> Drift:
        """How the database differs from the definitions; policies of others count. Changes nothing."""
        planned = self._applier(False).plan()
        return Drift(drift_text(planned), True, planned.plan)

    def attack(
        self,
        build: Build | None = None,
        *,
        live: bool = False,
        mutate: bool = False,
        tables: Collection[str | Name] | None = None,
    ) -> Report:
        """Try what the definitions do not allow, on a scratch server.

        `build` makes the schema in the empty database that it is given by URL; the definitions are applied to it then.
        `live` attacks a copy of the target with the policies that it has, and reads the target itself as those who may
        not (SELECT, READ ONLY, with time-outs). `mutate` weakens each policy in turn and tells which of that the attack
        did not notice. Raises UsageError without definitions, and what building, copying and applying raise.
        """
        from dbops.policy.proof import Proof, major_of, refuse_nothing

        definitions = self.definitions()
        refuse_nothing(definitions)
        proof = Proof(self.settings, definitions, mutate, tables, self.tell)
        if live:
            return proof.live(self.url, major_of(replace(self.settings, url=self.url)))
        if build is None:
            raise UsageError("nothing says how the schema is built", hint="give build=…, or live=True")
        return proof.built(build, major_of(self.settings))

    def explain(self, table: str | Name) -> Explanation:
        """In plain words who may do what on a table. Raises UsageError for one that is not there."""
        catalog = self.catalog()
        folder = self.settings.policies
        definitions = self.definitions() if folder.is_dir() else None
        return explain(find_table(table, catalog), definitions, catalog)

    def export(self, folder: Path, tables: Collection[str | Name] | None = None) -> Paths:
        """Write definitions that keep what the database's policies mean, one file a schema; the files written.

        `tables` None takes those of the settings' schemas with row level security or a policy. Raises UsageError,
        before anything is written, where a file exists or a table does not.
        """
        return export(self.catalog(), folder, tables, self.settings.schemas, self.settings.table)

    def write_migration(self, plan: Plan, folder: Path) -> Path | None:
        """Write the indexes that a plan proposes as one migration; None where it proposes none."""
        if not plan.proposals:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{_next_version(folder, datetime.now(UTC))}_policy_indexes.sql"
        ups = [f"{proposal.statement.rstrip().rstrip(';')};" for proposal in plan.proposals]
        downs = [_dropping(proposal.table, proposal.statement) for proposal in reversed(plan.proposals)]
        parts = ["-- migrate:up transaction:false", *ups, "", "-- migrate:down transaction:false", *downs, ""]
        with path.open("x", encoding="utf-8") as file:
            file.write("\n".join(parts))
        return path

    def _applier(self, prune: bool) -> Applier:
        return Applier(self.url, self.settings, self.definitions(), prune=prune)


def _made_by(policy: Policy, raw: Collection[tuple[Name, str]], file: str) -> str:
    if file:
        return f"file {file}"
    if policy.name.startswith(PREFIX):
        return "dbops"
    return "definition" if (policy.table, policy.name) in raw else "other"


def _next_version(folder: Path, now: datetime) -> str:
    """The time, later than every other version of the folder."""
    versions = (re.match(r"[\d_]*\d", path.name) for path in folder.iterdir())
    newest = max((int(found[0].replace("_", "")[:14]) for found in versions if found), default=0)
    digits = f"{max(int(f'{now:%Y%m%d%H%M%S}'), newest + 1):014d}"
    return f"{digits[:8]}_{digits[8:]}"


def _dropping(table: Name, statement: str) -> str:
    from psycopg import sql

    found = re.search(
        r'INDEX\s+(CONCURRENTLY\s+)?(?:IF\s+NOT\s+EXISTS\s+)?("(?:[^"]|"")+"|\w+)', statement, re.IGNORECASE
    )
    if not found:
        raise UsageError(f"the index proposed for {table} has no name: {statement}", hint="nothing was written")
    schema = sql.Identifier(table.schema).as_string()
    return f"DROP INDEX {(found[1] or '').upper()}IF EXISTS {schema}.{found[2]};"
