"""Pieces of SQL of which the statements of policies and triggers are put together. Pure."""

from __future__ import annotations

import re

from psycopg import sql

from dbops.policy.model import Name
from dbops.policy.state import Policy, Trigger

# stands for the table's name in a trigger's text
TABLE = "\0"
_ON_TWIN = re.compile(r' ON pg_temp(?:_\d+)?\.(?:"(?:[^"]|"")+"|[^\s"]+) ')


def identifier(name: Name) -> sql.Identifier:
    return sql.Identifier(name.schema, name.name)


def raw(text: str) -> sql.SQL:
    """A text of a definition as it stands; printing it on a twin proves that it is one expression."""
    # the line's end closes a comment at the end of a predicate
    return sql.SQL(text + "\n" * ("--" in text))


def clauses(policy: Policy) -> sql.Composed:
    """USING and WITH CHECK as they stand in CREATE and ALTER POLICY."""
    texts = (("USING", policy.using), ("WITH CHECK", policy.check))
    return sql.SQL("").join(
        sql.SQL(" {} ({})").format(sql.SQL(word), raw(text)) for word, text in texts if text is not None
    )


def template(trigger: Trigger) -> str:
    """The statement that makes a trigger, with a mark in the place of the table's name."""
    return trigger.definition.replace(identifier(trigger.table).as_string(), TABLE, 1)


def without_twin(definition: str) -> str:
    """A twin's trigger in the form of `Printed.triggers`."""
    return _ON_TWIN.sub(f" ON {TABLE} ", definition, count=1)


def without_table(definition: str, table: Name) -> str:
    """A trigger's definition in the form of `Printed.triggers`: with a mark in the place of the table's name."""
    schemas, names = ((part, sql.Identifier(part).as_string()) for part in (table.schema, table.name))
    for label in (f" ON {schema}.{name} " for schema in schemas for name in names):
        if label in definition:
            return definition.replace(label, f" ON {TABLE} ", 1)
    return definition
