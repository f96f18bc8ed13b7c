"""A statement of a plan, and how its text is composed. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from psycopg import sql

from dbops.policy.model import Name


@dataclass(frozen=True)
class Statement:
    """One statement of a plan: on which tables, why, and what is there now (`was`, empty for what is new).

    `file` is the name of the file where the statement is a whole file of policies/*.sql.
    """

    sql: str
    tables: tuple[Name, ...]
    why: str
    was: str = ""
    file: str = ""

    @property
    def table(self) -> str:
        return ", ".join(map(str, self.tables))


def role_list(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("PUBLIC") if n == "public" else sql.Identifier(n) for n in sorted(set(names)))


def words(text: str) -> sql.SQL:
    return sql.SQL(text)


def composed(form: str, *parts: sql.Composable) -> str:
    return words(form).format(*parts).as_string()
