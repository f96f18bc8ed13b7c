"""Staged rows beside live ones: what is missing, changed, extra, and which references would be left without a row."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql
from psycopg.sql import SQL, Composable, Composed, Identifier

from dbops.backup.merge.catalog import Catalog, ForeignKey
from dbops.backup.merge.model import Sample, TableDifference, What
from dbops.backup.merge.target import AND, COMMA, OR, Target, listed, matched, qualified, row_hash, row_json
from dbops.backup.model import Name

if TYPE_CHECKING:
    from dbops.database import Connection

Targets = Mapping[Name, Target]
SAMPLES = 3
_WIDTH = 60
_CHILD = "dbops_child"
NEW: frozenset[What] = frozenset(("missing", "changed"))
OLD: frozenset[What] = frozenset(("changed", "extra"))


@dataclass(frozen=True)
class Counted:
    """The rows of one table's delta, and a digest over the keys and live values of those that will be written."""

    missing: int = 0
    changed: int = 0
    extra: int = 0
    digest: str = ""


def fill_delta(conn: Connection, target: Target, targets: Targets, acts: Collection[What]) -> Counted:
    """Compare: the keys of all rows that differ go into the delta, with a hash of the live row."""
    conn.execute(_comparison(target, targets))
    conn.execute(SQL("ANALYZE {}").format(target.temporary("delta")))
    return count_delta(conn, target, acts)


def count_delta(conn: Connection, target: Target, acts: Collection[What]) -> Counted:
    """The digest is of the differences that `acts` does away with: what is left alone may go on changing."""
    # two hashes of 64 bits, summed: the order of the rows does not count, and equal rows do not cancel out
    text = (
        "SELECT dbops_what, pg_catalog.count(*), pg_catalog.sum(pg_catalog.hashtextextended(t, 0)::pg_catalog.numeric), "
        "pg_catalog.sum(pg_catalog.hashtextextended(t, 1)::pg_catalog.numeric) "
        "FROM (SELECT dbops_what, ROW({}, dbops_live)::pg_catalog.text AS t FROM {}) d GROUP BY 1 ORDER BY 1"
    )
    rows = conn.execute(SQL(text).format(listed(target.key), target.temporary("delta"))).fetchall()
    counts = {row[0]: row[1] for row in rows}
    digest = "; ".join(" ".join(str(value) for value in row) for row in rows if row[0] in acts)
    return Counted(counts.get("missing", 0), counts.get("changed", 0), counts.get("extra", 0), digest)


def _comparison(target: Target, targets: Targets) -> Composed:
    differs: Composable = SQL("s.dbops_there IS NULL OR l.dbops_there IS NULL")
    if target.keyed:
        # the images of the values: json has no equality, and 1.0 is not 1.00 for who wants a row back as it was
        images = SQL("ROW({})::pg_catalog.record OPERATOR(pg_catalog.*<>) ROW({})::pg_catalog.record")
        differs = SQL("{} OR {}").format(
            differs, images.format(listed(target.columns, "s"), listed(target.columns, "l"))
        )
    keys = COMMA.join(SQL("coalesce(s.{0}, l.{0})").format(Identifier(name)) for name in target.key)
    text = (
        "INSERT INTO {delta} SELECT CASE WHEN l.dbops_there IS NULL THEN 'missing' WHEN s.dbops_there IS NULL THEN 'extra' "
        "ELSE 'changed' END, {keys}, CASE WHEN l.dbops_there THEN {hash} ELSE '' END "
        "FROM {staged} s FULL JOIN {live} l ON {same} WHERE {differs}"
    )
    return SQL(text).format(
        delta=target.temporary("delta"), keys=keys, hash=row_hash(target.written, "l"), staged=target.staged(),
        live=target.selected(targets), same=target.same_key("s", "l"), differs=differs,
    )  # fmt: skip


def staged_count(conn: Connection, target: Target) -> int:
    row = conn.execute(SQL("SELECT pg_catalog.count(*) FROM {}").format(target.temporary("staged"))).fetchone()
    return int(row[0]) if row else 0


def doubled_keys(conn: Connection, target: Target) -> str:
    """A key that several staged rows have, as text; empty where there is none: the live key may be a newer one."""
    text = "SELECT ROW({0})::pg_catalog.text FROM {1} GROUP BY {0} HAVING pg_catalog.count(*) > 1 LIMIT 1"
    row = conn.execute(SQL(text).format(listed(target.key), target.temporary("staged"))).fetchone()
    return str(row[0]) if row else ""


def unforeseen(conn: Connection, target: Target) -> bool:
    """Whether a live row came to be meant while the backup's rows were loaded: its own may not have been staged."""
    if target.scope.kind in ("whole", "needed") or not target.keyed or target.against is not None:
        return False
    text = "SELECT EXISTS (SELECT FROM {} d WHERE d.dbops_what = 'extra' AND NOT EXISTS (SELECT FROM {} k WHERE {}))"
    query = SQL(text).format(target.temporary("delta"), target.temporary("keys"), target.same_key("k", "d"))
    return conn.execute(query).fetchone() == (True,)


def difference(conn: Connection, target: Target, targets: Targets, counted: Counted) -> TableDifference:
    equal = staged_count(conn, target) - counted.missing - counted.changed
    differs = counted.missing or counted.changed or counted.extra
    samples = tuple(_samples(conn, target, targets)) if differs else ()
    return TableDifference(str(target.name), counted.missing, counted.changed, counted.extra, equal, samples)


def _samples(conn: Connection, target: Target, targets: Targets) -> Iterable[Sample]:
    few = SQL(
        "SELECT d.* FROM (SELECT t.*, pg_catalog.row_number() OVER (PARTITION BY dbops_what ORDER BY {}) AS dbops_rank "
        "FROM {} t) d WHERE dbops_rank <= {}"
    ).format(listed(target.key, "t"), target.temporary("delta"), sql.Literal(SAMPLES))
    text = (
        "SELECT d.dbops_what, {key}, CASE WHEN s.dbops_there THEN {staged_row} END, CASE WHEN l.dbops_there THEN {live_row} END "
        "FROM ({few}) d LEFT JOIN {staged} s ON d.dbops_what <> 'extra' AND {same_s} "
        "LEFT JOIN {live} l ON d.dbops_what <> 'missing' AND {same_l} ORDER BY d.dbops_what, d.dbops_rank"
    )
    query = SQL(text).format(
        key=row_json(target.key, "d"), staged_row=row_json(target.columns, "s"), live_row=row_json(target.columns, "l"),
        few=few, staged=target.staged(), live=target.selected(targets),
        same_s=target.same_key("d", "s"), same_l=target.same_key("d", "l"),
    )  # fmt: skip
    for what, key, backup, live in conn.execute(query).fetchall():
        named = (
            ", ".join(f"{name} {_cut(value)}" for name, value in key.items())
            if target.keyed
            else _cut(key["dbops_row"])
        )
        columns = [
            (name, _cut((live or {}).get(name)), _cut((backup or {}).get(name)))
            for name in target.columns
            if (live or {}).get(name) != (backup or {}).get(name) or live is None or backup is None
        ]
        yield Sample(what, str(named), tuple(columns))


def _cut(value: str | None) -> str | None:
    return value if value is None or len(value) <= _WIDTH else value[: _WIDTH - 1] + "…"


# foreign keys, before anything is written


def unmet(conn: Connection, catalog: Catalog, targets: Targets, acts: Collection[What]) -> list[str]:
    """References that writing would leave without their row, in words: the plan refuses with them."""
    problems = []
    for key in catalog.foreign_keys:
        child, parent = targets.get(key.child), targets.get(key.parent)
        if child and _has(child, key.child_columns) and NEW & set(acts):
            count = _one(conn, _without_parent(key, child, parent, acts))
            if count:
                problems.append(
                    f"{key}: {count:,} row{'s' * (count > 1)} of the backup would refer to rows that are not there; "
                    f"take {key.parent} in too (--table {key.parent})"
                )
        if parent and parent.keyed and OLD & set(acts):
            count = _one(conn, _left_behind(key, child, parent, acts))
            if count:
                problems.append(
                    f"{key}: {count:,} live row{'s' * (count > 1)} outside the selection refer{'s' * (count == 1)} to rows "
                    "that would be deleted; take that table in too (--cascade)"
                )
    return problems


def _has(target: Target, columns: Iterable[str]) -> bool:
    return set(columns) <= set(target.columns)


def _one(conn: Connection, query: Composed) -> int:
    row = conn.execute(query).fetchone()
    return int(row[0]) if row else 0


def complete(key: ForeignKey, alias: str) -> Composed:
    """Whether a row refers at all: with a NULL in one of its columns it does not."""
    return AND.join(SQL("{} IS NOT NULL").format(Identifier(alias, name)) for name in key.child_columns)


def parent_of(key: ForeignKey, child: str) -> Composed:
    return matched("p", key.parent_columns, key.equals, child, key.child_columns)


def children(key: ForeignKey) -> Composed:
    """The referring table in FROM; the rows of tables that inherit from it are not under the key."""
    return SQL("{}{}").format(SQL("" if key.child_partitioned else "ONLY "), qualified(key.child))


def parents(key: ForeignKey) -> Composed:
    return SQL("{}{}").format(SQL("" if key.parent_partitioned else "ONLY "), qualified(key.parent))


def _without_parent(key: ForeignKey, child: Target, parent: Target | None, acts: Collection[What]) -> Composed:
    text = "SELECT pg_catalog.count(*) FROM {} c JOIN {} d ON d.dbops_what = ANY ({}) AND {} WHERE {} AND NOT ({})"
    return SQL(text).format(
        child.staged(), child.temporary("delta"), sql.Literal(sorted(NEW & set(acts))), child.same_key("d", "c"),
        complete(key, "c"), _parent_will_be(key, parent, "c", acts),
    )  # fmt: skip


def _left_behind(key: ForeignKey, child: Target | None, parent: Target, acts: Collection[What]) -> Composed:
    gone = SQL("EXISTS (SELECT FROM {} p WHERE {} AND {})").format(
        parent.relation, parent_of(key, "c"), parent.in_delta("p", sorted(OLD & set(acts)))
    )
    also_goes: Composable = SQL("false")
    if child and child.keyed:
        also_goes = child.in_delta("c", sorted(OLD & set(acts)))
    elif child:
        also_goes = SQL("true")  # its rows have no key to be told by: the check after writing is exact
    text = "SELECT pg_catalog.count(*) FROM {} c WHERE {} AND NOT {} AND NOT ({})"
    return SQL(text).format(children(key), gone, also_goes, _parent_will_be(key, parent, "c", acts))


def _parent_will_be(key: ForeignKey, parent: Target | None, child: str, acts: Collection[What]) -> Composed:
    """Whether the row that `child` refers to is there once all is written."""
    match = parent_of(key, child)
    if parent is None:
        return SQL("EXISTS (SELECT FROM {} p WHERE {})").format(parents(key), match)
    stays: Composable = SQL("true")
    if parent.keyed:
        stays = SQL("NOT {}").format(parent.in_delta("p", sorted(OLD & set(acts))))
    found = [SQL("EXISTS (SELECT FROM {} p WHERE {} AND {})").format(parent.relation, match, stays)]
    if _has(parent, key.parent_columns):
        comes = parent.in_delta("p", sorted(NEW & set(acts)))
        found.append(SQL("EXISTS (SELECT FROM {} p WHERE {} AND {})").format(parent.staged(), match, comes))
    return OR.join(found)


def requirement(key: ForeignKey, child: Target, parent: Target | None, *, only_new: bool) -> Composed:
    """The condition on a parent's row, under its bare name: staged child rows need it, and nobody has it yet."""
    alias = key.parent.name
    refers = matched(alias, key.parent_columns, key.equals, _CHILD, key.child_columns)
    return SQL("EXISTS (SELECT FROM {} dbops_child WHERE {} AND {})").format(
        child.temporary("staged"), refers, _needy(key, child, parent, only_new=only_new)
    )


def requiring(key: ForeignKey, child: Target, parent: Target | None, *, only_new: bool) -> Composed:
    text = "SELECT pg_catalog.count(*) FROM {} dbops_child WHERE {}"
    return SQL(text).format(child.temporary("staged"), _needy(key, child, parent, only_new=only_new))


def _needy(key: ForeignKey, child: Target, parent: Target | None, *, only_new: bool) -> Composed:
    """Whether the staged row `c` refers to a row that is neither live nor staged."""
    parts: list[Composed] = [complete(key, _CHILD)]
    places = [parents(key)] + ([SQL("{}").format(parent.temporary("staged"))] if parent else [])
    parts += [SQL("NOT EXISTS (SELECT FROM {} p WHERE {})").format(place, parent_of(key, _CHILD)) for place in places]
    if only_new and child.keyed:
        parts.append(SQL("NOT EXISTS (SELECT FROM {} l WHERE {})").format(child.relation, child.same_key("l", _CHILD)))
    return AND.join(parts)
