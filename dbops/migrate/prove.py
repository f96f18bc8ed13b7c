"""The proof of a way back: up, down, up on a scratch server, with rows made up before and between.

For each migration: the schema after `down` equals the one before, the schema after the second `up` the one after the
first, and the rows that were there before are there afterwards. Loss is allowed only by `-- migrate:loses REASON`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from dbops.config import Settings
from dbops.database import connect
from dbops.embedded import Scratch, scratch
from dbops.errors import DbopsError, Irreversible, NotAllowed, StatementFailed
from dbops.fingerprint import SchemaText, compare
from dbops.migrate.events import Event, Observer, silent
from dbops.migrate.files import Migration, Script
from dbops.migrate.history import Record, Scripts
from dbops.migrate.kinds import program
from dbops.migrate.parse import walk
from dbops.migrate.trial import Trial, available, trial
from dbops.rows import Unfilled, compare_rows, make_rows, read_rows

ROWS_PER_TABLE = 20


@dataclass(frozen=True)
class Failure:
    """Where a proof failed: `step` is up, down, schema after down, rows, second up, schema after second up …"""

    version: str
    step: str
    diff: str


@dataclass(frozen=True)
class Remark:
    """A version and a reason."""

    version: str
    reason: str


@dataclass(frozen=True)
class Proof:
    """What was proven. `notes` are differences that do not count, such as an order of columns."""

    proven: tuple[str, ...]
    failed: tuple[Failure, ...]
    irreversible: tuple[Remark, ...]
    not_proven: tuple[Remark, ...]
    server_version: str
    server_kind: str
    notes: tuple[Remark, ...] = ()


@dataclass
class _Findings:
    proven: list[str] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    irreversible: list[Remark] = field(default_factory=list)
    not_proven: list[Remark] = field(default_factory=list)
    notes: list[Remark] = field(default_factory=list)

    def settled(self, server: Scratch) -> Proof:
        return Proof(
            tuple(self.proven), tuple(self.failed), tuple(self.irreversible), tuple(self.not_proven),
            str(server.major), server.kind, tuple(self.notes),
        )  # fmt: skip


class _Failed(Exception):
    def __init__(self, step: str, diff: str) -> None:
        super().__init__(step)
        self.step, self.diff = step, diff


def prove(
    migrations: Sequence[Migration], selected: Collection[str], settings: Settings, major: int, tell: Observer = silent
) -> Proof:
    """Prove the selected versions on a scratch server as near to PostgreSQL `major` as can be had.

    The migrations before each are applied without being proven. Raises EmbeddedServerError, MissingToolError.
    """
    found = _Findings()
    with scratch(major, url=settings.scratch_url) as server, trial(server, settings) as base:
        # the record's own table and schema are there before anything is compared
        base.perform()
        if server.note:
            found.not_proven.append(Remark("*", server.note))
        extensions = available(server, [name for m in migrations for name in m.requires])
        skipped: list[str] = []
        last = max((i for i, m in enumerate(migrations) if m.version in selected), default=-1)
        for migration in migrations[: last + 1]:
            _one(migration, migration.version in selected, base, server, extensions, skipped, found, tell)
        return found.settled(server)


def _one(
    migration: Migration, wanted: bool, base: Trial, server: Scratch, extensions: Collection[str], skipped: list[str],
    found: _Findings, tell: Observer,
) -> None:  # fmt: skip
    """Prove one migration on a copy, then apply it to the base that the next ones build on."""
    missing = [name for name in migration.requires if name not in extensions]
    if missing:
        skipped.append(migration.version)
        if wanted:
            reason = f"extension {', '.join(missing)} is not on the scratch server (PostgreSQL {server.major}, {server.kind})"
            found.not_proven.append(Remark(migration.version, reason))
        return
    if wanted:
        tell(Event("proving", migration.version, migration.name, detail="up, down, up"))
        _prove_one(migration, base, server, skipped, found)
    try:
        base.up(migration)
    except DbopsError as error:
        skipped.append(migration.version)
        if not wanted:
            found.not_proven.append(Remark(migration.version, f"it could not be applied: {error.message}"))


def _prove_one(migration: Migration, base: Trial, server: Scratch, skipped: Sequence[str], found: _Findings) -> None:
    with trial(server, base.settings, template=_name(base)) as copy:
        walkthrough = _Walkthrough(migration, copy)
        try:
            walkthrough.go()
        except _Failed as failure:
            if failure.step == "up" and skipped:
                reason = f"it does not apply, and {', '.join(skipped)} before it could not be: {failure.diff}"
                found.not_proven.append(Remark(migration.version, reason))
            else:
                found.failed.append(Failure(migration.version, failure.step, failure.diff))
            return
    found.notes += [Remark(migration.version, note) for note in walkthrough.notes]
    unproven = walkthrough.unproven()
    if migration.down is None:
        found.irreversible.append(
            Remark(migration.version, "it has no down part; up alone was run, on tables with rows")
        )
    elif unproven:
        found.not_proven += [Remark(migration.version, reason) for reason in unproven]
    else:
        found.proven.append(migration.version)


def _name(base: Trial) -> str:
    from dbops.database import parameters

    return str(parameters(base.url)["dbname"])


class _Walkthrough:
    """Up, down, up, rows, down, up of one migration on one database."""

    def __init__(self, migration: Migration, copy: Trial) -> None:
        self.migration, self.copy = migration, copy
        self.notes: list[str] = []
        self.unfilled: dict[str, Unfilled] = {}
        self._seed = 0

    def go(self) -> None:
        self._fill()
        before, rows = self.copy.schema(), self._rows()
        self._do("up", "up")
        after = self.copy.schema()
        if self.migration.down is None:
            return
        self._do("down", "down")
        self._same(before, self.copy.schema(), "schema after down")
        self._kept(rows, "rows after down", exactly=True)
        self._do("up", "second up")
        self._same(after, self.copy.schema(), "schema after the second up")
        self._fill()
        self._do("down", "down with new rows")
        self._same(before, self.copy.schema(), "schema after down with new rows")
        self._kept(rows, "rows after down with new rows", exactly=False)
        self._do("up", "third up, with new rows")
        self._same(after, self.copy.schema(), "schema after the third up")

    def _fill(self) -> None:
        self._seed += 1
        with connect(self.copy.url, "prove") as conn:
            # no extremes: `amount * 100` in a migration may overflow on the largest integer, and need not bear it
            made = make_rows(
                conn,
                self.copy.schemas(),
                per_table=ROWS_PER_TABLE,
                seed=self._seed,
                exclude=(self.copy.settings.table,),
                extremes=False,
            )
        self.unfilled |= {item.table: item for item in made.unfilled}

    def _rows(self) -> Mapping[str, list[str]]:
        with connect(self.copy.url, "prove") as conn:
            return read_rows(conn, self.copy.schemas(), exclude=(self.copy.settings.table,))

    def _do(self, direction: str, step: str) -> None:
        try:
            (self.copy.up if direction == "up" else self.copy.down)(self.migration)
        except DbopsError as error:
            raise _Failed(step, error.message) from error

    def _same(self, wanted: SchemaText, found: SchemaText, step: str) -> None:
        difference = compare(wanted, found)
        if difference.equal:
            return
        if difference.order_only:
            self._note("only the order of columns differs after down")
            return
        raise _Failed(step, difference.text)

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _kept(self, rows: Mapping[str, list[str]], step: str, *, exactly: bool) -> None:
        now = self._rows()
        if not exactly:
            # rows that were made up in between may be there too
            now = {table: _common(rows[table], now[table]) if table in rows else now[table] for table in now}
            now = {table: content for table, content in now.items() if table in rows}
        difference = compare_rows(rows, now)
        if not difference:
            return
        if self.migration.loses:
            self._note(f"rows differ after down, as declared: {self.migration.loses}")
            return
        raise _Failed(step, difference)

    def unproven(self) -> list[str]:
        """Tables that this migration names and that could not be filled: what it does to their rows was not seen."""
        named = _named_tables(self.migration)
        return [
            f"table {item.table} could not be filled: {item.reason}"
            for item in self.unfilled.values()
            if item.table.rpartition(".")[2].strip('"') in named
        ]


def _common(wanted: Sequence[str], found: Sequence[str]) -> list[str]:
    """The rows of `found` that stand in `wanted`, each at most as often."""
    from collections import Counter

    return sorted((Counter(wanted) & Counter(found)).elements())


def _named_tables(migration: Migration) -> set[str]:
    scripts = [migration.up, migration.down] if migration.down else [migration.up]
    nodes = (node for script in scripts for s in program(script).statements for node in walk(s.node))
    return {node.relname for node in nodes if node.DESCRIPTOR.name == "RangeVar"}


def require_independent(
    version: str, applied: Sequence[tuple[Record, Scripts | None]], settings: Settings, major: int
) -> None:
    """Raise Irreversible unless the newer migrations stand without `version`.

    Shown on a scratch server: everything applied and `version` reversed gives the schema of everything but `version`.
    """
    migrations = [_recorded(record, scripts) for record, scripts in applied]
    try:
        with scratch(major, url=settings.scratch_url) as server:
            with trial(server, settings) as without:
                for migration in migrations:
                    if migration.version != version:
                        without.up(migration)
                wanted = without.schema()
            with trial(server, settings) as reversed_:
                for migration in migrations:
                    reversed_.up(migration)
                reversed_.down(next(m for m in migrations if m.version == version))
                difference = compare(wanted, reversed_.schema())
    except (StatementFailed, NotAllowed) as error:
        raise _dependent(version, error.message) from error
    if not (difference.equal or difference.order_only):
        raise _dependent(version, difference.text)


def _dependent(version: str, why: str) -> Irreversible:
    return Irreversible(
        f"{version} is not the newest, and newer migrations depend on it (tried on a scratch server): {why}",
        hint="`dbops migrate down --to VERSION` reverses the newer ones too; nothing was reversed",
    )


def _recorded(record: Record, scripts: Scripts | None) -> Migration:
    from pathlib import Path

    path = Path(f"{record.version}_{record.name} (as recorded)")
    if scripts is None or not scripts.up.strip():
        raise _dependent(record.version, f"the SQL of {record.version} was not recorded ({record.kind})")
    down = Script(scripts.down, path, 1, scripts.down_transaction) if scripts.down else None
    return Migration(record.version, record.name, path, Script(scripts.up, path), down)
