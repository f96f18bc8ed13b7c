"""Sends attempts in batches to the server, which runs each in a subtransaction and rolls it back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from psycopg import sql

from dbops.database import translated
from dbops.errors import DbopsError
from dbops.policy.attack.actors import OWNER_ROLE, Setting
from dbops.policy.attack.oracle import relation
from dbops.policy.attack.target import Outcome, Place, Shot
from dbops.sql import queries

if TYPE_CHECKING:
    from dbops.database import Connection

SQL = queries("policy/attack")
# an attempt's judge may tell what was read as well as judge it
TOLD = "SELECT $2"
_BATCH = 2000
# no named statement: it prepares only where the function has been made
_RUN = sql.SQL(
    "SELECT r.phase, r.state, r.told, r.hit, r.got_through FROM pg_temp.dbops_attack(%(batch)s::pg_catalog.jsonb) r"
)


def install(conn: Connection) -> None:
    """Make the function that runs attempts, once: it is this session's and goes with the transaction."""
    conn.execute(SQL["runner"])


def run(conn: Connection, shots: Sequence[Shot]) -> list[Outcome]:
    """How each attempt ended, in their order. Raises DbopsError where a judgement itself failed."""
    outcomes: list[Outcome] = []
    for start in range(0, len(shots), _BATCH):
        part = shots[start : start + _BATCH]
        with translated():
            found = conn.execute(_RUN, {"batch": json.dumps([_packed(shot) for shot in part])})
            outcomes += [Outcome(*row) for row in found]
    for shot, outcome in zip(shots, outcomes, strict=True):
        if outcome.phase == "judge":
            raise DbopsError(
                f"an attempt could not be judged: {outcome.told} ({outcome.state}), after: {shot.attempt.statement}",
                hint="nothing was changed; this is a fault of dbops: please report it with the table's definition",
            )
    return outcomes


def _packed(shot: Shot) -> dict[str, Any]:
    return {
        "role": shot.actor.role if shot.actor else "none",
        "settings": [(s.name, s.value, "local" if s.local else "session") for s in shot.actor.settings]
        if shot.actor
        else [],
        "prepare": (*shot.before, *shot.attempt.prepare),
        "kept": shot.kept if shot.attempt.prepare else None,
        "statement": shot.attempt.statement,
        "reads": shot.attempt.reads,
        "judge": shot.judge,
    }


def kept(place: Place) -> str:
    """The rows that are there when the attempt begins."""
    marks = sql.SQL("SELECT coalesce(pg_catalog.array_agg(t.tableoid::text || t.ctid::text), '{{}}') FROM {} t")
    return marks.format(relation(place.name)).as_string(None)


def script(shot: Shot, made: Sequence[str] = ()) -> str:
    """What reproduces an attempt on a copy, for a superuser to run: from BEGIN to ROLLBACK.

    `made`: the statements that make the row which it is about.
    """
    lines = ["BEGIN", *made]
    actor = shot.actor
    if shot.before and actor and actor.role.startswith(OWNER_ROLE):
        lines.append(
            sql.SQL("CREATE ROLE {} NOSUPERUSER NOBYPASSRLS").format(sql.Identifier(actor.role)).as_string(None)
        )
    lines += [*shot.before, *shot.attempt.prepare]
    settings = actor.settings if actor else ()
    lines += [_setting(setting) for setting in settings if not setting.local]
    if actor is not None:
        lines.append(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(actor.role)).as_string(None))
    lines += [_setting(setting) for setting in settings if setting.local]
    return ";\n".join([*lines, shot.attempt.statement, "ROLLBACK"]) + ";\n"


def _setting(setting: Setting) -> str:
    call = sql.SQL("SELECT pg_catalog.set_config({}, {}, {})")
    return call.format(sql.Literal(setting.name), sql.Literal(setting.value), sql.Literal(setting.local)).as_string(
        None
    )
