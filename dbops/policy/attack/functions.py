"""Functions that users may call, with ids of others: what they show and what they write."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from psycopg import sql

from dbops.policy.attack.actors import Actor
from dbops.policy.attack.assault import Attacker, Found
from dbops.policy.attack.bouts import Plan
from dbops.policy.attack.interference import Reading, compare
from dbops.policy.attack.judge import Allowed, judge, never
from dbops.policy.attack.oracle import fixed, relation
from dbops.policy.attack.result import Leak, Vacuous
from dbops.policy.attack.runner import SQL, run, script
from dbops.policy.attack.statements import text
from dbops.policy.attack.target import Attempt, Outcome, Place, Row, Shot
from dbops.policy.model import HELPERS, VERBS, Name


@dataclass(frozen=True)
class _Function:
    """A function that users may call; `types` and `names` of its arguments (names may be fewer)."""

    name: Name
    kind: str
    definer: bool
    volatility: str
    types: Sequence[str]
    roles: Sequence[str]
    names: Sequence[str]

    @property
    def via(self) -> str:
        return f"function {self.name}"


def functions(attacker: Attacker, plans: Mapping[Name, Plan], places: Mapping[Name, Place]) -> tuple[Found, list[str]]:
    """Every function that users or visitors may call, with ids of the victim, of the actor, and NULLs.

    One with its owner's rights that gives nothing to anybody is not proven: its tables are vacuous.
    """
    auth = attacker.definitions.auth
    hidden = tuple(place for place in places.values() if place.rules is not None)
    found = Found()
    if not hidden:
        return found, []
    bodies = {Name(schema, name): body for schema, name, body in attacker.conn.execute(SQL["texts"])}
    for schema, name, *rest in attacker.conn.execute(SQL["functions"], {"roles": [auth.user_role, auth.anon_role]}):
        function = _Function(Name(schema, name), *rest)
        read = _tables_read(attacker, bodies, function.name)
        calls = [(caller.actor, call) for caller in _callers(plans, read, function) for call in caller.calls(function)]
        if not calls:
            continue
        part, spoke = _called(attacker, function, calls, hidden)
        found += part
        if not spoke and function.definer and schema != HELPERS:
            found += _silent(function, sorted(read & {place.name for place in hidden}))
    return found, []


def _called(
    attacker: Attacker, function: _Function, calls: Sequence[tuple[Actor, str]], hidden: Sequence[Place]
) -> tuple[Found, bool]:
    """What came of the calls, and whether any of them gave or did anything at all."""
    found, spoke = Found(), False
    if function.kind == "f":
        readings = [Reading(actor, function.via, "select", call, tuple(hidden)) for actor, call in calls]
        found, outcomes = compare(attacker, readings)
        spoke = any(outcome.worked and outcome.found not in _NOTHING for outcome in outcomes)
    if function.volatility == "v":
        shots = [_write(attacker, function, actor, call, hidden, attacker.allows) for actor, call in calls]
        outcomes = run(attacker.conn, shots)
        found += _changed(function, shots, outcomes)
        if not spoke:
            any_ = [_write(attacker, function, actor, call, hidden, lambda *_: never) for actor, call in calls]
            spoke = any(outcome.found is not None for outcome in run(attacker.conn, any_))
    return found, spoke


def _silent(function: _Function, tables: Sequence[Name]) -> Found:
    arguments = ", ".join(function.types)
    why = f"function {function.name}({arguments}) has its owner's rights and gave nothing, whatever it was called with"
    if tables:
        return Found(vacuous=tuple(Vacuous(str(table), "", f"{why}: nothing is proven of it") for table in tables))
    return Found(unproven=(Vacuous(function.via, "", f"{why}, and reads no defined table as far as its text tells"),))


def _tables_read(attacker: Attacker, bodies: Mapping[Name, str], function: Name) -> set[Name]:
    """The tables whose names stand in the function's text, or in those of the functions and views that it names."""
    catalog = attacker.catalog
    seen = {function}
    texts = [bodies.get(function, "")]
    tables: set[Name] = set()
    for text_ in texts:  # grows while it is read
        words = set(re.findall(r"[^\W\d][\w$]*", text_.lower()))
        for name in sorted({*catalog.tables, *catalog.views, *bodies} - seen):
            if words.issuperset(re.findall(r"[^\W\d][\w$]*", name.name.lower())):
                seen.add(name)
                tables |= {name} & set(catalog.tables)
                tables |= set(catalog.views[name].reads) if name in catalog.views else set()
                texts += [bodies[name]] if name in bodies else []
    return tables


# --- calls ---


@dataclass
class _Caller:
    """Who calls, with the ids and rows to try: the victims' and his own."""

    actor: Actor
    ids: list[str | None] = field(default_factory=list)
    rows: list[tuple[Place, Row]] = field(default_factory=list)

    def calls(self, function: _Function) -> list[str]:
        ids = [*dict.fromkeys([*self.ids[:6], self.actor.identity or None, None])]
        if not function.types:
            return [_call(function, [])]
        told = [[_argument(type_, one) for type_ in function.types] for one in ids]
        told += [_from_row(function, place, row) for place, row in self.rows[:_ROWS]]
        return list(dict.fromkeys(_call(function, arguments) for arguments in told))


def _callers(plans: Mapping[Name, Plan], read: Collection[Name], function: _Function) -> list[_Caller]:
    """Each user once, and those who are nobody; the tables that the function reads come first."""
    callers: dict[tuple[str, str], _Caller] = {}
    for plan in sorted(plans.values(), key=lambda plan: plan.place.name not in read):
        for bout in plan.bouts:
            if bout.before or plan.place.rules is None or (bout.actor.identity and not bout.actor.thorough):
                continue
            caller = callers.setdefault((bout.actor.name, bout.actor.identity), _Caller(bout.actor))
            victim = bout.pair.victim.values
            caller.ids += [victim[c] for c in (*plan.place.scope, *plan.place.key) if victim[c] is not None]
            caller.rows += [(plan.place, row) for row in (bout.pair.victim, bout.pair.own) if row is not None]
    return [caller for caller in list(callers.values())[:8] if caller.actor.role in function.roles]


def _call(function: _Function, arguments: Sequence[sql.Composable]) -> str:
    form = sql.SQL("CALL {}({})" if function.kind == "p" else _FROM)
    return text(form.format(relation(function.name), sql.SQL(", ").join(arguments)))


_FROM = "SELECT coalesce(pg_catalog.string_agg(x::text, E'\\n' ORDER BY x::text), '') FROM {}({}) AS x"
# what a function gives that found no row
_NOTHING = (None, "", "f", "false", "0", "(f)", "()", "(,)", "{}", "[]", "null")
_SAMPLES = {"boolean": "true", "json": "{}", "jsonb": "{}", "date": "2025-01-01", "text[]": "{}", "uuid[]": "{}"}
_NUMBERS = ("smallint", "integer", "bigint", "numeric", "real", "double precision")
_ROWS = 6
_PREFIX = re.compile(r"^(?:_+|p_|in_|arg_|the_)")


def _argument(type_: str, one: str | None) -> sql.Composable:
    value: str | None = one
    if one is not None:
        if type_ in _SAMPLES:
            value = _SAMPLES[type_]
        elif type_ in _NUMBERS:
            value = one if one.isdigit() else "10"
        elif type_ == "uuid":
            value = one if len(one) == 36 else None
        elif not type_.startswith(("text", "character varying")):
            value = None
    return sql.SQL("{}::{}").format(sql.Literal(value), fixed(type_))


def _from_row(function: _Function, place: Place, row: Row) -> list[sql.Composable]:
    """Each argument the row's value of the column that has its name, else of a key of its type."""
    types = {column.name: column.type for column in place.table.columns}
    likely = [*(c for c in place.key if c not in place.scope), *place.scope, *types]
    arguments: list[sql.Composable] = []
    for type_, name in zip_longest(function.types, function.names, fillvalue=""):
        plain = _PREFIX.sub("", name)
        alike = [column for column in likely if types[column] == type_]
        column = next((c for c in (name, plain, *alike) if c in types), None)
        value = row.values[column] if column else _SAMPLES.get(type_, "10" if type_ in _NUMBERS else None)
        arguments.append(sql.SQL("{}::{}").format(sql.Literal(value), fixed(type_)))
    return arguments


# --- what a call writes ---


def _write(
    attacker: Attacker,
    function: _Function,
    actor: Actor,
    call: str,
    hidden: Sequence[Place],
    allows: Callable[[Place, Actor], Allowed],
) -> Shot:
    """The call, judged by the rows of all tables that it wrote and that `allows` does not allow."""
    reads = "rows" if function.kind == "f" else "write"
    attempt = Attempt("call", function.via, call, reads, writes=("insert", "update", "delete"))  # type: ignore[arg-type]
    judged = replace(attempt, judge="write")
    parts = [
        sql.SQL("SELECT {} AS t, ({}) AS f").format(
            sql.Literal(str(place.name)), fixed(judge(place, place.name, judged, allows(_own(place, function), actor)))
        )
        for place in hidden
    ]
    told = sql.SQL("SELECT pg_catalog.min(q.t || ': ' || q.f) FROM ({}) q")
    return Shot(actor, attempt, text(told.format(sql.SQL(" UNION ALL ").join(parts))))


def _own(place: Place, function: _Function) -> Place:
    """The table, with all verbs on his own rows where the function has its caller's rights.

    It can do nothing there that he could not: what happens beyond is a trigger's or a foreign key's work.
    """
    if function.definer or place.rules is None:
        return place
    return replace(place, rules=replace(place.rules, verbs=VERBS))


def _changed(function: _Function, shots: Sequence[Shot], outcomes: Sequence[Outcome]) -> Found:
    leaks: dict[str, Leak] = {}
    for shot, outcome in zip(shots, outcomes, strict=True):
        if outcome.found is not None and shot.actor is not None:
            table, _, what = outcome.found.partition(": ")
            leaks.setdefault(shot.actor.name, Leak(table, shot.actor.name, "call", function.via, what, script(shot)))
    return Found(len(shots), tuple(leaks.values()))
