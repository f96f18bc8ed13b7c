"""The server dies, or its disk is full: a clear error, nothing half done, and the next run finishes."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tools import FIRST, MIGRATIONS, events_of, named, needs_the_server_here, sample

from dbops.errors import CannotConnect, StatementFailed
from dbops.migrate import Event

if TYPE_CHECKING:
    from conftest import Mortal

pytestmark = [pytest.mark.fault, needs_the_server_here]


def test_killed_in_the_middle(mortal: Mortal, tmp_path: Path) -> None:
    clean = mortal.target("clean", tmp_path / "clean")
    events = events_of(clean, "up")
    expected = clean.state()
    for number in sample(len(events), 4, "server"):
        target = mortal.target(f"killed_{number}", tmp_path / str(number))
        numbers = count()

        def kill(event: Event, numbers: count[int] = numbers, number: int = number) -> None:
            if next(numbers) == number:
                mortal.kill()

        place = f"killed at {number}: {named(events[number])}"
        with pytest.raises(CannotConnect) as caught:  # at the last event, too: nobody knows what is on disk
            target.manager(kill).migrate_up()
        assert caught.value.exit_code == 10, place
        mortal.start()
        target.manager().migrate_up()
        assert target.state() == expected, place


MANY = "insert into person select n, 'name', 'mail' from generate_series(1000, 80000) n"
FULL = {
    "a statement": ("insert into person select n, repeat('x', 500), '' from generate_series(1000, 80000) n", ""),
    "an index": ("create index concurrently person_long on person (rpad(md5(id::text), 500, md5(id::text)))", MANY),
}


@pytest.mark.parametrize(("statement", "rows"), FULL.values(), ids=FULL.keys())
def test_a_full_disk(mortal: Mortal, tmp_path: Path, statement: str, rows: str) -> None:
    target = mortal.target("full_disk", tmp_path / "full")
    target.write({FIRST: MIGRATIONS[FIRST], "20250101_000002_large.sql": f"-- migrate:up\n{statement};"})
    target.manager().migrate_up(count=1)
    if rows:
        target.sql(rows)
    before = target.state()
    mortal.stop()
    mortal.start(file_size=20 * 2**20)  # above a segment of WAL, which PostgreSQL cannot do without
    with pytest.raises(StatementFailed) as caught:
        target.manager().migrate_up()
    assert "20250101_000002_large.sql:2" in caught.value.message
    assert target.state() == before
    mortal.stop()
    mortal.start()
    target.manager().migrate_up()
    assert len(target.state()["versions"]) == 2
    assert all(valid for _, valid in target.state()["indexes"])
