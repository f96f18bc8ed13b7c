"""The statements that write: rows saved, deleted, inserted, turned back; and the foreign keys checked afterwards."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from psycopg.sql import SQL, Composable, Composed, Identifier

from dbops.backup.merge.catalog import Catalog, ForeignKey
from dbops.backup.merge.compare import NEW, OLD, Targets, children, complete, parent_of, parents
from dbops.backup.merge.model import What
from dbops.backup.merge.target import COMMA, Target, listed, qualified, row_hash, row_json
from dbops.errors import DbopsError

if TYPE_CHECKING:
    from dbops.database import Connection

ROLLED_BACK = "nothing was written: the transaction was rolled back"


def keep_before(conn: Connection, targets: Targets, acts: Collection[What]) -> None:
    """The live rows that will be overwritten or deleted, into temporary tables, as they are under the lock."""
    for target in targets.values():
        old = sorted(OLD & set(acts))
        text = "INSERT INTO {} ({}) SELECT {} FROM {} l WHERE {}"
        rows = target.relation if target.keyed else target.selected(targets)
        conn.execute(
            SQL(text).format(
                target.temporary("before"),
                listed(target.written),
                listed(target.written, "l"),
                rows,
                target.in_delta("l", old),
            )
        )
        conn.execute(SQL("ANALYZE {}").format(target.temporary("before")))


def delete(target: Target, targets: Targets, whats: Iterable[What]) -> Composed:
    """Delete the live rows that the delta names."""
    names = sorted(whats)
    if target.keyed:
        return SQL("DELETE FROM {} l WHERE {}").format(target.relation, target.in_delta("l", names))
    # the number among equals is given anew by the same rule: any of them will do
    text = (
        "DELETE FROM {} l USING (SELECT x.dbops_t, x.dbops_c FROM {} x WHERE {}) y "
        "WHERE l.tableoid = y.dbops_t AND l.ctid = y.dbops_c"
    )
    return SQL(text).format(target.relation, target.selected(targets), target.in_delta("x", names))


def insert(target: Target, what: What) -> Composed:
    """Insert staged rows that the delta names; a changed one keeps what the backup does not know of it."""
    kept = target.kept if what == "changed" else ()
    rows: Composable = target.staged()
    joined: Composable = SQL("")
    if kept:
        joined = SQL(" JOIN {} b ON {}").format(target.before(), target.same_key("b", "s"))
    text = "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} s{} WHERE {}"
    values = COMMA.join([listed(target.columns, "s"), *([listed(kept, "b")] if kept else [])])
    return SQL(text).format(
        qualified(target.name), listed((*target.columns, *kept)), values, rows, joined, target.in_delta("s", [what])
    )


def update(target: Target) -> Composed | None:
    """Turn changed rows back in place: for a role whose deletes would set off foreign keys' cascades."""
    identity = {column.name for column in target.live.columns if column.identity == "a"}
    columns = [name for name in target.columns if name not in identity and name not in target.key]
    if not columns or not target.keyed:
        return None
    sets = COMMA.join(SQL("{0} = s.{0}").format(Identifier(name)) for name in columns)
    text = "UPDATE {} l SET {} FROM {} s WHERE {} AND {}"
    return SQL(text).format(
        target.relation, sets, target.staged(), target.same_key("s", "l"), target.in_delta("s", ["changed"])
    )


def write_as_replica(conn: Connection, targets: Targets, acts: Collection[What]) -> None:
    """All rows that go are deleted before any comes: so values of unique keys can be swapped, in any order of tables."""
    for target in targets.values():
        if OLD & set(acts):
            conn.execute(delete(target, targets, OLD & set(acts)))
    for target in targets.values():
        for what in sorted(NEW & set(acts)):
            conn.execute(insert(target, what))


def write_as_owner(conn: Connection, targets: Targets, acts: Collection[What]) -> None:
    """All in one statement: foreign keys are checked at its end, in whatever circles they go.

    A unique value that passes from a row that goes to one that comes stands in its way: then what goes goes first.
    """
    going = [delete(target, targets, ["extra"]) for target in targets.values()] if "extra" in acts else []
    coming = [insert(target, "missing") for target in targets.values()] if "missing" in acts else []
    if "changed" in acts:
        coming += [statement for target in targets.values() if (statement := update(target))]
    try:
        with conn.transaction():
            _together(conn, going + coming)
    except (psycopg.errors.UniqueViolation, psycopg.errors.ExclusionViolation):
        try:
            with conn.transaction():
                _together(conn, going)
                _together(conn, coming)
        except (psycopg.errors.UniqueViolation, psycopg.errors.ExclusionViolation) as error:
            raise DbopsError(
                f"values of a unique key pass from one row to another: {str(error).splitlines()[0]}",
                hint="as a superuser: GRANT SET ON PARAMETER session_replication_role TO this role (PostgreSQL 15 and later), or "
                f"restore as a superuser: then rows are replaced in an order that works; {ROLLED_BACK}",
            ) from error


@contextmanager
def in_words() -> Iterator[None]:
    """A rule of the live database that stops a row, told with what can be done."""
    try:
        yield
    except psycopg.errors.IntegrityError as error:
        first, _, rest = str(error).partition("\n")
        detail = next((line for line in rest.splitlines() if line.startswith("DETAIL")), "")
        raise DbopsError(
            f"{error.diag.schema_name}.{error.diag.table_name}: a row of the backup cannot be written: {first} {detail}".strip(),
            hint=f"{ROLLED_BACK}; a live row that stays may have its value (--mode replace takes such rows away), or the rule is "
            "newer than the backup (--mode side loads beside)",
        ) from error


def _together(conn: Connection, statements: Sequence[Composed]) -> None:
    if statements:
        parts = COMMA.join(
            SQL("{} AS ({})").format(Identifier(f"dbops_{number}"), statement)
            for number, statement in enumerate(statements)
        )
        conn.execute(SQL("WITH {} SELECT").format(parts))


def save(conn: Connection, target: Target, run: str, acts: Collection[What]) -> int:
    """What was there before, and a hash of what is there now, into dbops.restore_saved. Returns the rows written."""
    if target.keyed:
        return conn.execute(_saving(target, run, acts)).rowcount
    count = 0
    text = (
        'INSERT INTO dbops.restore_saved (run, "table", what, key, before) SELECT {}, {}, {}, {}, {} FROM {} r WHERE {}'
    )
    if "extra" in acts:
        row = row_json(target.written, "r")
        where: Composable = SQL("true")
        count += conn.execute(
            SQL(text).format(run, str(target.name), sql.Literal("extra"), row, row, target.before(), where)
        ).rowcount
    if "missing" in acts:
        row, where = row_json(target.columns, "r"), target.in_delta("r", ["missing"])
        count += conn.execute(
            SQL(text).format(run, str(target.name), sql.Literal("missing"), row, SQL("NULL"), target.staged(), where)
        ).rowcount
    return count


def _saving(target: Target, run: str, acts: Collection[What]) -> Composed:
    first = Identifier("b", target.key[0])
    text = (
        'INSERT INTO dbops.restore_saved (run, "table", what, key, before, after_hash) '
        "SELECT {run}, {table}, d.dbops_what, {key}, CASE WHEN {first} IS NOT NULL THEN {before} END, "
        "CASE WHEN d.dbops_what <> 'extra' THEN {hash} END "
        "FROM {delta} d LEFT JOIN {rows} b ON {same_b} LEFT JOIN {live} l ON {same_l} WHERE d.dbops_what = ANY ({acts})"
    )
    return SQL(text).format(
        run=sql.Literal(run), table=sql.Literal(str(target.name)), key=row_json(target.key, "d"), first=first,
        before=row_json(target.written, "b"), hash=row_hash(target.written, "l"), delta=target.temporary("delta"),
        rows=target.before(), same_b=target.same_key("d", "b"), live=target.relation, same_l=target.same_key("d", "l"),
        acts=sql.Literal(sorted(acts)),
    )  # fmt: skip


def check_references(conn: Connection, catalog: Catalog, targets: Targets, acts: Collection[What]) -> None:
    """Raise DbopsError where a reference was left without its row: nobody else checks under the replica role."""
    for key in catalog.foreign_keys:
        child, parent = targets.get(key.child), targets.get(key.parent)
        queries: list[Composed] = []
        if child:
            if not parent:
                conn.execute(_hold_parents(key, child, acts))
            queries.append(_orphans(key, _came(child, acts)))
        if parent and OLD & set(acts):
            gone = SQL("EXISTS (SELECT FROM {} p WHERE {})").format(parent.temporary("before"), parent_of(key, "c"))
            queries.append(_orphans(key, gone))
        for query in queries:
            row = conn.execute(query).fetchone()
            if row:
                raise DbopsError(
                    f"{key}: the row with {row[0]} would refer to a row that is not there",
                    hint=f"{ROLLED_BACK}; take both tables in, or see what `dbops backup diff` says now",
                )


def _came(child: Target, acts: Collection[What]) -> Composed:
    """The rows that were written; of a table without a primary key, all."""
    if not child.keyed:
        return SQL("{}").format(SQL("true"))
    return child.in_delta("c", sorted(NEW & set(acts)))


def _orphans(key: ForeignKey, which: Composed) -> Composed:
    text = "SELECT {} FROM {} c WHERE {} AND {} AND NOT EXISTS (SELECT FROM {} p WHERE {}) LIMIT 1"
    return SQL(text).format(
        row_json(key.child_columns, "c"), children(key), which, complete(key, "c"),
        parents(key), parent_of(key, "c"),
    )  # fmt: skip


def _hold_parents(key: ForeignKey, child: Target, acts: Collection[What]) -> Composed:
    """As PostgreSQL's own check does: who deletes such a row must wait for us, or we for him."""
    text = "SELECT FROM {} p WHERE EXISTS (SELECT FROM {} c WHERE {} AND {}) FOR KEY SHARE"
    return SQL(text).format(parents(key), child.relation, _came(child, acts), parent_of(key, "c"))


def sequence_state(conn: Connection, name: Composable) -> tuple[int, bool]:
    row = conn.execute(SQL("SELECT last_value, is_called FROM {}").format(name)).fetchone()
    assert row is not None
    return int(row[0]), bool(row[1])


def advance_sequence(conn: Connection, name: Identifier, step: int, backup: tuple[int, bool]) -> bool:
    """Set a sequence to the backup's value where that lies further on. Returns whether it did."""

    def following(state: tuple[int, bool]) -> int:
        return state[0] + step * state[1]

    def further() -> bool:
        ahead = following(backup) - following(sequence_state(conn, name))
        return ahead > 0 if step > 0 else ahead < 0

    if not further():
        return False
    # nobody draws a value between our look and our write: ALTER waits for those who do, and keeps others out
    conn.execute(SQL("ALTER SEQUENCE {} INCREMENT BY {}").format(name, sql.Literal(step)))
    if not further():
        return False
    value, called = backup
    conn.execute(SQL("SELECT pg_catalog.setval({}::pg_catalog.regclass, {}, {})").format(
        sql.Literal(name.as_string(conn)), sql.Literal(value), sql.Literal(called)
    ))  # fmt: skip
    return True
