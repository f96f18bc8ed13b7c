"""Which rows to propose. Pure: PostgreSQL judges the proposals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from random import Random

from dbops.rows.catalog import Column, ForeignKey, Table
from dbops.rows.constants import size_links
from dbops.values import Pool, finite, sized

Row = dict[str, str | None]


class Want(Enum):
    """What a row is to show in a column, when it is not one certain value (text, or None for NULL)."""

    ANY = "any"
    SOME = "not null"


Pin = Want | str | None
Pins = Mapping[str, Pin]
NULLS = 0.3  # how often a nullable column is NULL where nothing is wanted of it
_AS_WRITTEN = {"int2", "int4", "int8", "text", "varchar", "uuid", "date"}
MOST_VALUES = 16  # a column with so few values shows each of them


@dataclass
class Draft:
    """A proposed row. While `firm`, its pins hold; else they give way after some tries."""

    row: Row
    pins: Pins = field(default_factory=dict)
    firm: bool = False


class Proposer:
    """Proposes rows for one table, and changes those that were refused."""

    def __init__(self, table: Table, pools: Mapping[str, Pool], rng: Random, serial: Callable[[Column], str]) -> None:
        self.table, self.pools, self.rng, self.serial = table, pools, rng, serial
        self.columns = {
            column.name: column
            for column in table.columns
            if not column.generated and (column.name in pools or column.sequence)
        }
        self.referable: dict[str, list[tuple[str, ...]]] = {}
        """For each foreign key the keys of rows that it may refer to."""
        self.used: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        self.lessons: dict[str, list[Row]] = defaultdict(list)
        """For each check some values that it accepted."""
        links = [link for check in table.checks for link in size_links(check.expression)]
        self.links = [(a, b) for a, b in links if a in self.columns and b in self.columns]
        self.use(table.keys)

    def use(self, keys: Iterable[ForeignKey]) -> None:
        """Obey these foreign keys from now on; those that share columns are solved together."""
        self.keys = sorted(keys, key=lambda key: (not self.table.mandatory(key), -len(key.columns), key.name))
        self.groups: list[tuple[set[str], list[ForeignKey]]] = []
        for key in self.keys:
            columns, members = set(key.columns), [key]
            for group in [group for group in self.groups if group[0] & columns]:
                columns, members = columns | group[0], group[1] + members
                self.groups.remove(group)
            self.groups.append((columns, members))

    # --- what the rows are to show ---

    def goals(self) -> dict[str, list[Pin]]:
        """For each column what some row should show: NULL, a value, or each one of a few values."""
        referring = {name for key in self.table.keys for name in key.columns}
        goals: dict[str, list[Pin]] = {}
        for name, column in self.columns.items():
            pool = self.pools.get(name)
            if pool and pool.empty:
                continue
            values: list[Pin] = [Want.SOME]
            if pool and name not in referring and _few(column, pool):
                values = list(pool.known)
            if column.nullable:
                values.insert(1, None)
            if len(values) > 1:
                goals[name] = values
        return goals

    def plan(self, count: int) -> list[Pins]:
        """Pins for at least `count` rows: one with everything, one with every NULL, then mixtures."""
        goals = self.goals()
        needed = max([count, *(len(values) + 2 for values in goals.values())])
        return [
            {
                name: values[(turn + (place if turn > 1 else 0)) % len(values)]
                for place, (name, values) in enumerate(goals.items())
            }
            for turn in range(needed)
        ]

    # --- rows ---

    def draw(self, pins: Pins) -> Row | None:
        """A new row; None where a foreign key has nothing to refer to."""
        return self.redraw({}, set(self.columns), pins)

    def redraw(self, row: Row, columns: Iterable[str], pins: Pins) -> Row | None:
        """The row with other values in these columns, and in those that hang on them."""
        touched = set(columns)
        new = dict(row)
        for members, keys in self.groups:
            if members & touched:
                solved = self._solve(members, keys, pins)
                if solved is None:
                    return None
                new.update(solved)
                touched -= members
        for name in sorted(touched & set(self.columns)):
            new[name] = self._value(name, pins)
        self._resize(new, pins)
        return new

    def mend(self, row: Row, check: str, columns: Sequence[str], pins: Pins) -> Row | None:
        """The row with other values in one or all of the columns of a rule that refused it."""
        known = self.lessons.get(check)
        if known and self.rng.random() < 0.5 and not any(name in pins for name in columns):
            free = set(columns) - {name for members, _ in self.groups for name in members}
            lesson = self.rng.choice(known)
            return row | {name: lesson[name] for name in columns if name in free}
        chosen = [name for name in columns if name in self.columns] or list(self.columns)
        if len(chosen) > 1 and self.rng.random() < 0.6:
            chosen = [self.rng.choice(chosen)]
        new = self.redraw(row, chosen, pins)
        if new is not None and self.rng.random() < 0.15:
            self._copy(new, columns, pins)
        return new

    def learn(self, check: str, columns: Sequence[str], row: Row) -> None:
        """Remember values that a check accepted."""
        if len(self.lessons[check]) < 50 and all(row.get(name) is not None for name in columns):
            self.lessons[check].append({name: row[name] for name in columns})

    def distinct(self, row: Row, pins: Pins) -> Row | None:
        """The row with no key that a row has already; None where no free key was found."""
        candidate: Row | None = row
        for _ in range(80):
            if candidate is None:
                return None
            taken = self._taken(candidate)
            if taken is None:
                return candidate
            candidate = self.redraw(candidate, taken, pins)
        return None

    def free(self, key: ForeignKey, found: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """Those of the keys found that may be referred to once more: a unique key allows it only once."""
        for unique in self.table.uniques:
            if unique.plain and set(unique.columns) <= set(key.columns):
                places = [key.columns.index(name) for name in unique.columns]
                used = self.used[unique.name]
                found = [values for values in found if tuple(values[i] for i in places) not in used]
        return list(found)

    def reserve(self, row: Row) -> None:
        for name, values in self._unique_values(row):
            self.used[name].add(values)

    def release(self, row: Row) -> None:
        for name, values in self._unique_values(row):
            self.used[name].discard(values)

    def _taken(self, row: Row) -> tuple[str, ...] | None:
        taken = {name for name, values in self._unique_values(row) if values in self.used[name]}
        return next((unique.columns for unique in self.table.uniques if unique.name in taken), None)

    def _unique_values(self, row: Row) -> list[tuple[str, tuple[str, ...]]]:
        found = []
        for unique in self.table.uniques:
            values = tuple(value for name in unique.columns if (value := row.get(name)) is not None)
            if unique.plain and len(values) == len(unique.columns):
                found.append((unique.name, values))
        return found

    # --- values ---

    def _value(self, name: str, pins: Pins) -> str | None:
        column, pin = self.columns[name], pins.get(name, Want.ANY)
        if not isinstance(pin, Want):
            return pin
        if column.sequence:
            return self.serial(column)
        pool = self.pools[name]
        if column.nullable and ((pin is Want.ANY and self.rng.random() < NULLS) or pool.empty):
            return None
        return pool.draw(self.rng)

    def _resize(self, row: Row, pins: Pins) -> None:
        for name, size_name in self.links:
            value, size = row.get(name), row.get(size_name)
            if value is not None and size is not None and size.isdigit() and not isinstance(pins.get(name), str):
                row[name] = sized(self.columns[name].type, int(size), self.rng) or value

    def _copy(self, row: Row, columns: Sequence[str], pins: Pins) -> None:
        """Give one column the value of another of its type: some rules demand that they are equal."""
        keyed = {name for members, _ in self.groups for name in members}
        free = [name for name in columns if name in self.columns and name not in keyed and name not in pins]
        if free:
            name = self.rng.choice(free)
            kind = self.columns[name].type
            same = [other for other in columns if other in row and self.columns[other].type == kind]
            value = row[self.rng.choice(same)] if same else None
            row[name] = value if value is not None else row[name]

    # --- foreign keys ---

    def _solve(self, members: set[str], keys: Sequence[ForeignKey], pins: Pins) -> Row | None:
        """Values for columns of keys that share columns, so that each key refers to a row or to none."""
        for _ in range(40):
            row: Row = {}
            if all(self._refer(key, row, pins) for key in keys):
                free = sorted(members - set(row))
                return row | {name: self._value(name, pins) for name in free}
        return None

    def _refer(self, key: ForeignKey, row: Row, pins: Pins) -> bool:
        wanted = [pins.get(name, Want.ANY) for name in key.columns]
        optional = not self.table.mandatory(key)
        some = any(pin is Want.SOME or isinstance(pin, str) for pin in wanted)
        none = optional and (None in wanted or (not some and self.rng.random() < NULLS))
        if none and self._skip(key, row, pins):
            return True
        choices = self.referable.get(key.name, [])
        if any(name in row or name in pins for name in key.columns):
            choices = [values for values in choices if _fits(key, values, row, pins)]
        if not choices:
            return optional and not some and self._skip(key, row, pins)
        row.update(zip(key.columns, self.rng.choice(choices), strict=True))
        return True

    def _skip(self, key: ForeignKey, row: Row, pins: Pins) -> bool:
        """Make the key refer to nothing; False where a value that is set already forbids it."""
        if any(row.get(name, "") is None for name in key.columns) and not key.full:
            return True
        shared = {name for other in self.keys if other is not key for name in other.columns}
        free = [
            name for name in key.columns
            if self.table.column(name).nullable and name not in row and not isinstance(pins.get(name), str)
        ]  # fmt: skip
        chosen = [name for name in free if name not in shared or pins.get(name, "") is None] or free
        if not chosen or (key.full and len(free) < len(key.columns)):
            return False
        row.update(dict.fromkeys(free if key.full else chosen))
        return True


def _few(column: Column, pool: Pool) -> bool:
    """Whether each of the pool's values is worth a row; others are not printed as they were written."""
    short = pool.closed and len(pool.known) <= MOST_VALUES and column.type.name in _AS_WRITTEN
    return not pool.empty and (finite(column.type) or short)


def _fits(key: ForeignKey, values: tuple[str, ...], row: Row, pins: Pins) -> bool:
    for name, value in zip(key.columns, values, strict=True):
        pin = pins.get(name, Want.ANY)
        if row.get(name, value) != value or not (isinstance(pin, Want) or pin == value):
            return False
    return True
