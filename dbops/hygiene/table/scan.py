"""The plan for any table: its word sets in temporary tables, in a transaction that is rolled back."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from psycopg.sql import SQL, Composable, Composed, Identifier

from dbops.database import translated
from dbops.hygiene import record
from dbops.hygiene.model import Plan, Row, Search
from dbops.hygiene.plan import plan_scope
from dbops.hygiene.session import Session, since
from dbops.hygiene.table.model import NOTHING, Target
from dbops.hygiene.table.source import COMMA, KEY, KEYS, ROOM, Source, hinted, raw, read_source, verbatim
from dbops.sql import queries, shipped

_WORDS = "20250401_000004_token_sets.sql"
Pair = tuple[int, int, float]  # two word sets by number, and how similar they are


def scan_table(session: Session, target: Target, search: Search) -> Plan:
    """What would be marked or deleted. Rows whose text or scope is NULL are compared with none."""
    started = time.monotonic()
    hint = f"mend the option that it names, or give a longer statement_timeout; {NOTHING}"
    with hinted(f"--table {target.table}", hint), _rolled_back(session):
        source = read_source(session, target)
        _stage(session, source, target)
        values = {"t": search.threshold, "rare": 2 if search.threshold > 0.5 else 1}
        pairs = session.conn.execute(queries(ROOM)["pairs"], values).fetchall()
        rows, count = _rows(session, source, target, pairs)
        found = session.conn.execute(queries(ROOM)["oversized_rows"]).fetchall()
        decided = record.decided(session, source.shown, None)
    near = _by_first(pairs)
    scopes = [
        plan_scope(_shown(scope, target), part, _within(part, near), search, decided=decided.get(_shown(scope, target)))
        for scope, part in rows.items()
    ]
    return Plan(
        source.shown, search, count, tuple(scope for scope in scopes if scope.pairs),
        tuple((scope, key) for scope, key in found), since(started), deletes=target.deletes,
    )  # fmt: skip


def _shown(scope: str, target: Target) -> str | None:
    return scope if target.scope is not None else None


@contextmanager
def _rolled_back(session: Session) -> Iterator[None]:
    """A transaction of which nothing stays, whatever the expressions call."""
    from psycopg import Rollback

    with translated(), session.transaction():
        yield
        raise Rollback


def _stage(session: Session, source: Source, target: Target) -> None:
    function = _word_set(session)
    session.conn.execute(queries(ROOM)["create_staging"])
    session.run("SET TRANSACTION READ ONLY")
    session.run(_filling(source, target, function), {})
    for name in ("fill_sets", "number_rows", "analyze_staging"):
        session.conn.execute(queries(ROOM)[name])


def _word_set(session: Session) -> Composable:
    """The one definition of a word set, for this transaction: one in public may be anybody's, and would have our rights."""
    text = (shipped("migrations/sql") / _WORDS).read_text(encoding="utf-8")
    made = r"^((?:do \$make\$|create function public\.word_\w+\().*?;)\ncomment on function public\.word_"
    parts = re.findall(made, text, re.M | re.S)
    assert len(parts) == 4
    for part in parts:
        session.conn.execute(part.replace("public.", "pg_temp.").encode())
    return SQL("pg_temp.word_set")


def _filling(source: Source, target: Target, function: Composable) -> Composed:
    """Each row's key, scope and words, in the survivors' order."""
    keys = COMMA.join(SQL("t.{}").format(Identifier(name)) for name in source.key)
    order = SQL("{}\n, {}").format(verbatim(target.keep), keys) if target.keep else keys
    scope = SQL("{}::pg_catalog.text").format(raw(target.scope)) if target.scope else SQL("''")
    text = SQL("{}::pg_catalog.text").format(raw(target.text))
    statement = """
        INSERT INTO pg_temp.dbops_rows (rank, key, scope, hash, words)
        SELECT r.rank, r.key, r.scope, pg_catalog.md5(r.text), {function}(r.text)
        FROM (SELECT pg_catalog.row_number() OVER (ORDER BY {order}) AS rank, {key} AS key, {scope} AS scope, {text} AS text
              FROM {table} t WHERE {unmarked} OFFSET 0) r
        WHERE r.text IS NOT NULL AND r.scope IS NOT NULL
    """
    return SQL(statement).format(
        function=function, order=order, key=source.key_of(), scope=scope, text=text, table=source.relation,
        unmarked=unmarked(source, target),
    )  # fmt: skip


def unmarked(source: Source, target: Target) -> Composable:
    """Whether a row does not have the mark yet: by the constant that it is, else by its being set at all."""
    if target.deletes:
        return SQL("true")
    column, value = target.assignment
    if target.constant:
        # as texts: not every type has an equality
        text = "t.{}::pg_catalog.text IS DISTINCT FROM CAST({} AS {})::pg_catalog.text"
        return SQL(text).format(Identifier(column), raw(value), source.type_of(column))
    return SQL("t.{} IS NULL").format(Identifier(column))


def _rows(
    session: Session, source: Source, target: Target, pairs: Sequence[Pair]
) -> tuple[Mapping[str, list[Row]], int]:
    """By scope the rows that have a near one, the survivors first; and how many rows were compared."""
    near = sorted({number for a, b, _ in pairs for number in (a, b)})
    found = session.conn.execute(queries(ROOM)["involved"], {"sets": near}).fetchall()
    [(count, large)] = session.conn.execute(queries(ROOM)["counts"]).fetchall()
    texts = {key: text for key, text, _ in texts_of(session, source, target, [key for _, key, *_ in found])}
    rows: dict[str, list[Row]] = defaultdict(list)
    for scope, key, hashed, words in found:
        if key in texts:  # else somebody has just deleted it
            rows[scope].append(Row(key, texts[key], hashed, words))
    return rows, count - large


def texts_of(session: Session, source: Source, target: Target, keys: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """(key, text, hash) of the rows with these keys."""
    columns = "SELECT {key}, {text}::pg_catalog.text, pg_catalog.md5({text}::pg_catalog.text) "
    query = SQL(columns + "FROM {keys} JOIN {table} t ON {same}").format(
        key=source.key_of(), text=raw(target.text), keys=KEYS, table=source.relation, same=source.same(KEY)
    )
    yield from session.conn.execute(query, {"keys": list(keys)})


def _by_first(pairs: Sequence[Pair]) -> Mapping[int, Sequence[Pair]]:
    found: dict[int, list[Pair]] = defaultdict(list)
    for pair in pairs:
        found[pair[0]].append(pair)
    return found


def _within(rows: Sequence[Row], near: Mapping[int, Sequence[Pair]]) -> list[Pair]:
    """The pairs of one scope: a set lies in one only."""
    own = dict.fromkeys(row.words for row in rows if row.words is not None)
    return [pair for words in own for pair in near.get(words, ())]
