"""What the hygiene tests share: users with memories, and the tables as one text."""

from __future__ import annotations

from typing import Any, cast

import psycopg

from dbops.config import Settings
from dbops.hygiene.manager import HygieneManager

Connection = psycopg.Connection[Any]
ANN, BOB = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"


def uid(number: int) -> str:
    return f"00000000-0000-4000-9000-{number:012}"


def person(conn: Connection, user: str = ANN) -> str:
    conn.execute("insert into auth.users (id) values (%s) on conflict do nothing", [user])
    return user


def remember(conn: Connection, facts: list[str], user: str = ANN, first: int = 1, **columns: Any) -> list[str]:
    """Store facts of a user with the ids uid(first) …; the earlier in the list, the more important."""
    person(conn, user)
    ids = [uid(first + n) for n in range(len(facts))]
    for n, (id_, fact) in enumerate(zip(ids, facts, strict=True)):
        values = {"importance_score": round(0.9 - n * 0.001, 4), "memory_type": "fact"} | columns
        names = ", ".join(values)
        marks = ", ".join(["%s"] * len(values))
        statement = f"insert into user_memories (user_id, id, fact, {names}) values (%s, %s, %s, {marks})"
        conn.execute(statement.encode(), [user, id_, fact, *values.values()])
    return ids


def embed(conn: Connection, id_: str, vector: list[float], user: str = ANN, model: str = "m") -> None:
    conn.execute(
        "insert into embedding_models (model, dimensions) values (%s, %s) on conflict do nothing", [model, len(vector)]
    )
    conn.execute(
        "insert into memory_embeddings (user_id, memory_id, model, dimensions, embedding) values (%s, %s, %s, %s, %s::text::vector)",
        [user, id_, model, len(vector), str(vector)],
    )


def marked(conn: Connection) -> dict[str, str]:
    """The survivor of each loser."""
    rows = conn.execute("select id, duplicate_of from user_memories where duplicate_of is not null")
    return {str(id_): str(survivor) for id_, survivor in rows}


def image(conn: Connection, *tables: str) -> list[str]:
    """All rows of the tables, as text."""
    found: list[str] = []
    for table in tables or ("user_memories", "memory_usage", "memory_tokens", "memory_embeddings", "memory_blobs"):
        found += [row[0] for row in conn.execute(f"select t::text from {table} t order by 1".encode())]
    return found


def one(conn: Connection, statement: str, values: Any = None) -> Any:
    return cast(tuple[Any, ...], conn.execute(statement.encode(), values).fetchone())[0]


def manager(url: str, **settings: Any) -> HygieneManager:
    return HygieneManager(settings=Settings(url=url, **settings))
