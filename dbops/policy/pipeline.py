"""Several statements in one message, and which of them failed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from dbops.database import Connection


def send(conn: Connection, texts: Iterable[str]) -> tuple[int, psycopg.Error | None]:
    """Run statements in one message, to the first that fails: how many were done, and that one's error.

    By the extended protocol, which takes one statement for each text and no more.
    https://www.postgresql.org/docs/current/libpq-pipeline-mode.html
    """
    cursors = []
    failed: psycopg.Error | None = None
    try:
        with conn.pipeline():
            for text in texts:
                try:
                    cursors.append(conn.execute(text.encode()))
                except psycopg.Error as error:  # leaving the pipeline with it would log what follows from it
                    failed = error
                    break
    except psycopg.Error as error:
        failed = failed or error
    # those before it have a result, those after it none
    return sum(cursor.pgresult is not None for cursor in cursors), failed
