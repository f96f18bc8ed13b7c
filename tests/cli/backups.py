"""A small shop whose backups the tests of the command line take: users and their notes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dbops.cli.backup_output import Bar
from tests.cli.conftest import Command, migrated, sql, write

ANN, BOB = "00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"
UP = """create table public.users (user_id uuid primary key, name text not null);
create table public.notes (id bigint generated always as identity primary key,
  user_id uuid not null references public.users, note text not null);"""
ROWS = f"""insert into users values ('{ANN}', 'ann'), ('{BOB}', 'bob');
insert into notes (user_id, note) select case n % 2 when 0 then '{ANN}' else '{BOB}' end::uuid, 'note ' || n
from generate_series(1, 100) n"""
NOTES = "select id, user_id, note from notes order by 1"


@pytest.fixture
def shop(folder: Path, make_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch, dbops: Command) -> Path:
    """A project with users and their notes."""
    write(folder, "20250101_000001_notes", UP)

    def fill(url: str) -> None:
        migrated(dbops, url)
        sql(url, ROWS)

    monkeypatch.setenv("DATABASE_URL", make_database("shop with rows", fill))
    # what is said is the same however many processes work; that each more is right, the library's tests and the docs' say
    monkeypatch.setenv("DBOPS_WORKERS", "1")
    return folder


def rows(url: str, query: str = NOTES) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as conn:
        return conn.execute(query.encode()).fetchall()


def create(dbops: Command, *options: str) -> str:
    done = dbops("backup", "create", "--json", *options)
    assert done.code == 0, done
    found: str = done.json["id"]
    return found


def stop_at_the_first_rows(patch: pytest.MonkeyPatch) -> None:
    """From now on somebody presses Ctrl-C when the first rows are done."""

    def stop(_: Bar, now: Any) -> None:
        if now.bytes_done:
            raise KeyboardInterrupt

    patch.setattr(Bar, "__call__", stop)
