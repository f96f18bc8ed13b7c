"""How a function is called: with ids of others, with rows' values, and with the constants of its own text. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, product, zip_longest

from psycopg import sql

from dbops.policy.attack.actors import Actor
from dbops.policy.attack.bouts import Plan
from dbops.policy.attack.oracle import fixed, relation
from dbops.policy.attack.selects import words
from dbops.policy.attack.statements import text
from dbops.policy.attack.target import Place, Row
from dbops.policy.model import Name
from dbops.rows.constants import constants

_FROM = "SELECT coalesce(pg_catalog.string_agg(x::text, E'\\n' ORDER BY x::text), '') FROM {}({}) AS x"
_SAMPLES = {"boolean": "true", "json": "{}", "jsonb": "{}", "date": "2025-01-01", "text[]": "{}", "uuid[]": "{}"}
_NUMBERS = ("smallint", "integer", "bigint", "numeric", "real", "double precision")
_TEXTS = ("text", "character varying", "character")
_PREFIX = re.compile(r"^(?:_+|p_|in_|arg_|the_)")
_PIECES = re.compile(r"\b(?:and|or|where|on|then|when)\b|;", re.IGNORECASE)
_IDS, _ROWS, _FEW, _CONSTANTS, _CALLERS = 6, 24, 2, 40, 8


@dataclass(frozen=True)
class Function:
    """A function that users may call; `types` and `names` of its arguments (names may be fewer), `body` its text."""

    name: Name
    kind: str
    definer: bool
    volatility: str
    types: Sequence[str]
    roles: Sequence[str]
    names: Sequence[str]
    body: str = ""

    @property
    def via(self) -> str:
        return f"function {self.name}"

    def compared(self, columns: Collection[str]) -> dict[int, str]:
        """The column beside which each argument, by its number, stands in a condition."""
        found: dict[int, str] = {}
        for piece in _PIECES.split(self.body):
            said = words(piece)
            beside = next((column for column in columns if column in said and column not in self.names), None)
            for at, (_, name) in enumerate(zip_longest(self.types, self.names, fillvalue="")):
                named = name in said or re.search(rf"\${at + 1}(?!\d)", piece)
                if beside is not None and named:
                    found.setdefault(at, beside)
        return found

    def constants(self, type_: str) -> list[str]:
        """What an argument of the type may be compared with."""
        told = constants([self.body])
        if type_ == "boolean":
            return ["true", "false"]
        return [str(number) for number in told.numbers] if type_ in _NUMBERS else list(told.texts)


@dataclass
class Caller:
    """Who calls, with the ids and rows to try: the victims' and his own."""

    actor: Actor
    ids: list[str | None] = field(default_factory=list)
    rows: list[tuple[Place, Row]] = field(default_factory=list)

    def calls(self, function: Function) -> list[str]:
        if not function.types:
            return [_call(function, [])]
        ids = dict.fromkeys([*self.ids[: _IDS if function.definer else _FEW], self.actor.identity or None, None])
        told = [[_argument(type_, one) for type_ in function.types] for one in ids]
        # with its caller's rights it can do nothing that the attack on the tables does not try: a few calls are enough
        values = [_from_row(function, place, row) for place, row in self.rows[: _ROWS if function.definer else _FEW]]
        told += [[_cast(*each) for each in zip(row, function.types, strict=True)] for row in values]
        if function.definer:
            told += islice(_with_constants(function, values[:3]), _CONSTANTS)
        return list(dict.fromkeys(_call(function, arguments) for arguments in told))


def callers(
    plans: Mapping[Name, Plan], read: Collection[Name], function: Function, marks: Mapping[Name, Sequence[str]]
) -> list[Caller]:
    """Each user once, and those who are nobody; the tables that the function reads come first.

    `marks`: the rows that were made for it.
    """
    found: dict[tuple[str, str], Caller] = {}
    for plan in sorted(plans.values(), key=lambda plan: plan.place.name not in read):
        wanted = marks.get(plan.place.name, ())
        made = [(plan.place, row) for row in plan.place.rows if row.mark in wanted]
        for bout in plan.bouts:
            if bout.before or plan.place.rules is None or (bout.actor.identity and not bout.actor.thorough):
                continue
            key = (bout.actor.name, bout.actor.identity)
            if key not in found:
                found[key] = Caller(bout.actor)
            caller, victim = found[key], bout.pair.victim.values
            caller.ids += [victim[c] for c in (*plan.place.scope, *plan.place.key) if victim[c] is not None]
            caller.rows += [(plan.place, row) for row in (bout.pair.victim, bout.pair.own) if row is not None]
            caller.rows += [one for one in made if one not in caller.rows]
    able = [caller for caller in list(found.values())[:_CALLERS] if caller.actor.role in function.roles]
    return able if function.definer else able[:_FEW]


def _call(function: Function, arguments: Sequence[sql.Composable]) -> str:
    form = sql.SQL("CALL {}({})" if function.kind == "p" else _FROM)
    return text(form.format(relation(function.name), sql.SQL(", ").join(arguments)))


def _cast(value: str | None, type_: str) -> sql.Composable:
    return sql.SQL("{}::{}").format(sql.Literal(value), fixed(type_))


def _argument(type_: str, one: str | None) -> sql.Composable:
    value: str | None = one
    if one is not None:
        if type_ in _SAMPLES:
            value = _SAMPLES[type_]
        elif type_ in _NUMBERS:
            value = one if one.isdigit() else "10"
        elif type_ == "uuid":
            value = one if len(one) == 36 else None
        elif not type_.startswith(_TEXTS):
            value = None
    return _cast(value, type_)


def _from_row(function: Function, place: Place, row: Row) -> list[str | None]:
    """Each argument the row's value of the column that it is compared with or that has its name, else of a key of its
    type."""
    types = {column.name: column.type for column in place.table.columns}
    likely = [*(c for c in place.key if c not in place.scope), *place.scope, *types]
    compared = function.compared(types)
    arguments: list[str | None] = []
    for at, (type_, name) in enumerate(zip_longest(function.types, function.names, fillvalue="")):
        alike = [column for column in likely if types[column] == type_]
        column = next((c for c in (compared.get(at), name, _PREFIX.sub("", name), *alike) if c in types), None)
        arguments.append(row.values[column] if column else _SAMPLES.get(type_, "10" if type_ in _NUMBERS else None))
    return arguments


def _with_constants(function: Function, rows: Sequence[Sequence[str | None]]) -> Iterator[list[sql.Composable]]:
    """The constants of its text in place of each argument, then of all at once."""
    asked = [function.constants(type_) for type_ in function.types]
    for row in rows:
        for at, constants_ in enumerate(asked):
            for value in constants_:
                changed = [*row[:at], value, *row[at + 1 :]]
                yield [_cast(*each) for each in zip(changed, function.types, strict=True)]
    for values in product(*asked):
        yield [_cast(*each) for each in zip(values, function.types, strict=True)]
