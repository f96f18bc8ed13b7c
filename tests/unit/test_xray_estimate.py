"""What locks block, and the estimates from sizes: no server needed."""

from __future__ import annotations

import pytest

from dbops.cli.xray import size, xray_document, xray_text
from dbops.migrate.xray import Xray, XrayStep
from dbops.migrate.xray.estimate import (
    INDEX_ROWS_S,
    KEY_ROWS_S,
    MODES,
    REWRITE_BYTES_S,
    SCAN_BYTES_S,
    UPDATE_ROWS_S,
    Built,
    Lock,
    Seen,
    assumptions,
    blocked_by,
    estimated,
    mode_of,
    rows_of,
    strongest,
    work_ms,
)
from dbops.schema_copy import Failed, Size

pytestmark = pytest.mark.quick

GB = 1_000_000_000
USERS = "public.users"
SIZES = {
    USERS: Size(total_bytes=2 * GB, heap_bytes=GB, index_bytes=GB // 5, rows=10_000_000),
    "public.new": Size(total_bytes=GB, heap_bytes=GB, index_bytes=0, rows=None),
}


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("AccessShareLock", "ACCESS SHARE"),
        ("RowShareLock", "ROW SHARE"),
        ("RowExclusiveLock", "ROW EXCLUSIVE"),
        ("ShareUpdateExclusiveLock", "SHARE UPDATE EXCLUSIVE"),
        ("ShareLock", "SHARE"),
        ("ShareRowExclusiveLock", "SHARE ROW EXCLUSIVE"),
        ("ExclusiveLock", "EXCLUSIVE"),
        ("AccessExclusiveLock", "ACCESS EXCLUSIVE"),
    ],
)
def test_modes_are_written_as_in_sql(name: str, mode: str) -> None:
    assert mode_of(name) == mode
    assert mode in MODES


def test_what_a_mode_blocks() -> None:
    assert {mode: blocked_by(mode) for mode in MODES} == {
        "ACCESS SHARE": "",
        "ROW SHARE": "",
        "ROW EXCLUSIVE": "",
        "SHARE UPDATE EXCLUSIVE": "",
        "SHARE": "writes",
        "SHARE ROW EXCLUSIVE": "writes",
        "EXCLUSIVE": "writes and SELECT … FOR UPDATE",
        "ACCESS EXCLUSIVE": "reads and writes",
    }


def test_the_strongest_lock_of_each_relation_counts() -> None:
    locks = [Lock("SHARE", "a"), Lock("ACCESS EXCLUSIVE", "b"), Lock("ACCESS EXCLUSIVE", "a"), Lock("ROW SHARE", "b")]
    assert strongest(locks) == (Lock("ACCESS EXCLUSIVE", "a"), Lock("ACCESS EXCLUSIVE", "b"))


def ms(amount: float, rate: float) -> float:
    return amount / rate * 1000


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        (Seen("", 1), 0.0),
        (Seen("", 1, rewrites=(USERS,)), ms(1.8 * GB, REWRITE_BYTES_S)),  # heap and TOAST
        (Seen("", 1, scans=(USERS,)), ms(GB, SCAN_BYTES_S)),
        (Seen("", 1, scans=(USERS,), rewrites=(USERS,)), ms(1.8 * GB, REWRITE_BYTES_S)),  # one pass
        (Seen("", 1, scans=(USERS,), changes=(USERS,)), ms(1e7, UPDATE_ROWS_S)),
        (Seen("", 1, keys=(USERS,)), ms(1e7, KEY_ROWS_S)),
        (Seen("", 1, indexes=(Built("i", USERS, "btree"),)), ms(1e7, INDEX_ROWS_S["btree"])),
        (Seen("", 1, indexes=(Built("i", USERS, "hnsw"),)), ms(1e7, INDEX_ROWS_S["hnsw"])),
        (Seen("", 1, scans=("public.gone",), keys=("public.gone",)), 0.0),
    ],
)
def test_the_work_follows_from_the_sizes(seen: Seen, wanted: float) -> None:
    assert work_ms(seen, SIZES) == pytest.approx(wanted)
    assert work_ms(Seen(**(vars(seen) | {"duration_ms": 12.0})), SIZES) == pytest.approx(wanted + 12)


def test_rows_that_nobody_counted_are_guessed_from_the_bytes() -> None:
    assert rows_of(SIZES["public.new"]) == 10_000_000
    assert rows_of(SIZES[USERS]) == 10_000_000


def test_locks_are_held_until_the_transaction_ends() -> None:
    alter = Seen("alter", 1, locks=(Lock("ACCESS EXCLUSIVE", USERS),))
    slow = Seen("update", 2, locks=(Lock("ROW EXCLUSIVE", "public.new"),), duration_ms=5000.0)

    (first, second) = estimated([alter, slow], SIZES, transactional=True)
    assert (first.about_ms, first.blocks[0].about_ms) == (0.0, 5000.0)
    assert second.blocks == ()
    (block,) = first.blocks
    assert (block.what, block.bytes, block.rows) == ("reads and writes", 2 * GB, 10_000_000)

    (first, _) = estimated([alter, slow], SIZES, transactional=False)
    assert first.blocks[0].about_ms == 0.0


def test_a_lock_on_an_index_blocks_its_table() -> None:
    locks = (Lock("ACCESS EXCLUSIVE", "public.i", table=USERS), Lock("SHARE", USERS))
    (seen,) = estimated([Seen("reindex", 1, locks=locks)], SIZES, transactional=True)
    assert [(b.relation, b.mode, b.what) for b in seen.blocks] == [(USERS, "ACCESS EXCLUSIVE", "reads and writes")]


def test_what_the_migration_made_blocks_nobody() -> None:
    locks = (Lock("ACCESS EXCLUSIVE", "public.fresh", created=True), Lock("SHARE UPDATE EXCLUSIVE", USERS))
    (seen,) = estimated([Seen("create", 1, locks=locks)], SIZES, transactional=True)
    assert seen.blocks == ()


def test_an_update_of_a_whole_table_blocks_writers_of_its_rows() -> None:
    seen = Seen("update", 1, locks=(Lock("ROW EXCLUSIVE", USERS),), scans=(USERS,), changes=(USERS,))
    (seen,) = estimated([seen], SIZES, transactional=True)
    assert [(b.what, b.mode) for b in seen.blocks] == [("writes to the rows it changes", "ROW EXCLUSIVE")]


def example() -> Xray:
    statements = estimated(
        [
            Seen(
                "alter table users\n  alter n type bigint", 3, state="ran", duration_ms=1.5,
                locks=(Lock("ACCESS EXCLUSIVE", USERS), Lock("ACCESS EXCLUSIVE", "public.users_n", True, USERS)),
                rewrites=(USERS,), scans=(USERS,), indexes=(Built("public.users_n", USERS, "btree"),),
            ),
            Seen("alter table users alter n set not null", 5, state="ran", scans=(USERS,)),
            Seen("create index on logs (id)", 6, state="ran", locks=(Lock("SHARE UPDATE EXCLUSIVE", "public.logs"),)),
            Seen("select 1/0", 7, state="failed", error="x.sql:7: division by zero (22012)\n  select 1/0"),
            Seen("select 2", 8),
        ],
        SIZES, transactional=True,
    )  # fmt: skip
    step = XrayStep("20250101_000001", "widen", "up", True, statements)
    missing = Failed("extension postgis", 'extension "postgis" is not available')
    return Xray((step,), ("one thing",), "18", "embedded", (missing,))


def test_the_text() -> None:
    assert xray_text(example()).splitlines() == [
        "up 20250101_000001 widen: in one transaction",
        "     3  alter table users …",
        "          ACCESS EXCLUSIVE on public.users: blocks reads and writes; table rewritten; 2.0 GB, about 24 s; "
        "held for about 25 s, to the end of the migration",
        "          builds index public.users_n (btree)",
        "     5  alter table users alter n set not null",
        "          public.users, locked since before: table scanned; about 1.0 s",
        "     6  create index on logs (id)",
        "          SHARE UPDATE EXCLUSIVE on public.logs: blocks neither reads nor writes",
        "     7  select 1/0",
        "          FAILED on the copy: x.sql:7: division by zero (22012)",
        "            select 1/0",
        "     8  select 2",
        "          not looked at",
        "seen on PostgreSQL 18 (embedded). Assumed:",
        "  - one thing",
        "not in the copy of the schema (what failed may have failed for that):",
        '  - extension postgis: extension "postgis" is not available',
    ]


def test_the_document() -> None:
    document = xray_document(example())
    assert set(document) >= {"steps", "assumptions", "server_version", "not_copied"}
    first, *_, last = document["steps"][0]["statements"]
    assert first["locks"][0] == {"mode": "ACCESS EXCLUSIVE", "relation": USERS, "created": False}
    assert first["rewrites"] == [USERS]
    assert first["duration_ms"] == 1.5
    assert first["blocks"][0]["what"] == "reads and writes"
    assert first["blocks"][0]["about_ms"] == pytest.approx(25_000, rel=0.05)
    assert last["state"] == "not looked at"
    assert document["failed"] == ["20250101_000001"]
    assert document["not_copied"][0]["object"] == "extension postgis"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (8192, "8 kB"), (1_240_000_000, "1.2 GB"), (345e6, "345 MB"), (2.5e12, "2.5 TB")]
)
def test_sizes_for_people(count: float, text: str) -> None:
    assert size(count) == text


def test_the_assumptions_name_their_figures() -> None:
    text = " ".join(assumptions(3.0, 10))
    assert "180 MB/s" in text
    assert "up to 3 s a try" in text
