"""Makes rows that get through views and through functions with their owner's rights, by every way that their text has.

A row gets through where what the queries give is another with it than without it: PostgreSQL says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from psycopg import sql

from dbops.policy.attack.actors import sign_in
from dbops.policy.attack.made import MARK, Base, Maker, Try, Workshop
from dbops.policy.attack.oracle import relation
from dbops.policy.attack.runner import TOLD, install, run
from dbops.policy.attack.selects import Path, bound, conditions, words
from dbops.policy.attack.statements import as_replica, text
from dbops.policy.attack.subjects import Subject, probes, subjects, told, values
from dbops.policy.attack.target import Attempt, Shot, Values
from dbops.policy.attack.ways import asks_session
from dbops.policy.model import Name

_COLUMNS = 12
_FAILURES = 2  # whoever fails has tried every value


@dataclass(frozen=True)
class Passage:
    """What a row of a table is to change: each of `loose` is a probe. `texts` say which values are asked."""

    loose: tuple[str, ...]
    columns: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def opaque(self) -> tuple[str, ...]:
        return tuple(each for each in self.texts if asks_session(each))

    def about(self, _: str, __: str) -> list[str]:
        """All of them: a column may have other names further out."""
        return list(self.texts)


@dataclass
class Passer(Maker[Passage]):
    """A maker for passages. `after` refreshes what was computed from the rows."""

    after: tuple[str, ...] = ()

    def let_through(self, path: Path) -> tuple[str, ...]:
        """Make rows of the attacker's and of victims that get through; the marks of those that do.

        A stranger's row cannot get through a way in which the session says whose rows those are: it is given the values
        with which the attacker's own gets through.
        """
        whole, alone = self._passage(path), self._passage(values(path))
        marks: list[str] = []
        hint: Values = {}
        failed = 0
        for rows in self._groups():
            mine = self.reader.identity in [rows[0].values[column] for column in self.scope]
            if bound(path) and not mine and hint:
                marks.append(self._write(Try(Base(rows[0], self._fresh()), 0, hint)))
            wanted = whole if mine or not bound(path) else alone
            best = self._one(rows, wanted, hint)
            if best.held == len(wanted.loose):
                hint = best.values or hint
                marks.append(best.mark or best.base.row.mark)
            elif (failed := failed + 1) == _FAILURES:
                break
        return tuple(filter(None, marks))

    def _passage(self, path: Path) -> Passage:
        texts = conditions(path) if path else []
        asked = words(" ".join(texts))
        free = [c.name for c in self.shape.columns if c.name not in self.scope and not c.generated]
        columns = [column for column in free if column in asked]
        if not columns and len(path) > 1:  # the steps within may give them other names, by their places
            columns = free[:_COLUMNS]
        return Passage(probes(path), tuple(columns), tuple(texts))

    def _best(self, base: Base, way: Passage, tries: Sequence[Values]) -> Try:
        """The first of those that change the most of what the probes give without the row."""
        if not way.loose:
            return Try(base, 0, {})
        absent, *outcomes = run(self.conn, [self._absent(base, way), *self._present(base, way, tries)])
        before = (absent.found or "").split()
        counts = [
            sum(one != other for one, other in zip((each.found or "").split(), before, strict=True))
            if each.worked and absent.worked
            else -1
            for each in outcomes
        ]
        most = max(counts, default=-1)
        return Try(base, most, tries[counts.index(most)] if counts else {})

    def _absent(self, base: Base, way: Passage) -> Shot:
        gone = sql.SQL("DELETE FROM {} WHERE {} = {}")
        delete = text(gone.format(relation(self.table), MARK, sql.Literal(base.row.mark)))
        return self._shot(way, as_replica(delete) if base.keys is None else ())

    def _present(self, base: Base, way: Passage, tries: Iterable[Values]) -> list[Shot]:
        return [self._shot(way, (text(self._statement(base, each)),)) for each in tries]

    def _shot(self, way: Passage, prepare: tuple[str, ...]) -> Shot:
        return Shot(self.reader, Attempt("select", "", told(way.loose), "rows", (*prepare, *self.after)), TOLD)


def make_shown(shop: Workshop, tables: Sequence[Name]) -> tuple[Subject, ...]:
    """Make rows for all the ways through the views and functions that users reach: with these rows' marks."""
    install(shop.conn)
    settings = sign_in(shop.definitions.auth, next(iter(shop.readers.values()), ""))
    found = subjects(shop.conn, shop.definitions.auth, {name.name for name in tables}, settings)
    return tuple(replace(subject, marks=_marks(shop, subject, tables)) for subject in found)


def _marks(shop: Workshop, subject: Subject, tables: Sequence[Name]) -> dict[Name, tuple[str, ...]]:
    marks: dict[Name, tuple[str, ...]] = {}
    for path in subject.paths:
        for name in (name for name in subject.tables(path, tables) if name in shop.shapes):
            reader = shop.reader(name)
            signed = replace(reader, settings=(*reader.settings, *subject.settings))
            passer = Passer(
                shop.conn,
                name,
                shop.shapes[name],
                shop.scope(name),
                signed,
                shop.bodies,
                shop.state(name),
                subject.after,
            )
            marks[name] = (*marks.get(name, ()), *passer.let_through(path))
    return marks
