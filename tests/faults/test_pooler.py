"""Behind pgbouncer: what a run leaves in the pool, small pools, statement mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from conftest import NO_POOLER, PGBOUNCER, pooler, through
from tools import JOURNAL, MIGRATIONS, Target, finish, needs_the_server_here, wait_for

from dbops.embedded import Scratch
from dbops.errors import CannotConnect, DbopsError, MigrationFileError, StatementFailed, UnfitServer

pytestmark = [pytest.mark.fault, pytest.mark.skipif(not PGBOUNCER, reason=NO_POOLER), needs_the_server_here]
SIZE = 3

# each would reach the record, the next file, or the next client of the pool
LEAVES = {
    "search_path": "set search_path = ''",
    "set_config": "select pg_catalog.set_config('search_path', '', false)",
    "role": "set role pg_monitor",
    "session": "set session authorization postgres",
    "replication": "set session_replication_role = replica",
    "timeout": "set lock_timeout = '1ms'; set statement_timeout = '50s'; set default_transaction_read_only = on",
    "own": "set my.own = 'left'",
    "temp": "create temp table user_memories (id int)",
    "advisory": "select pg_advisory_lock(4711)",
    "listen": "listen something",
    "prepare": "prepare something as select 1",
    "cursor": "declare something cursor with hold for select 1",
    "sequence": "create temp sequence s; select nextval('s')",
}


class Pool:
    """A target behind a pooler with SIZE connections to the server."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def look(self) -> list[dict[str, Any]]:
        """What each of the pool's connections carries from one client to the next."""
        with ExitStack() as stack:
            found = []
            for _ in range(SIZE):  # each holds one connection by its open transaction
                conn = stack.enter_context(psycopg.connect(self.target.url, autocommit=True, prepare_threshold=None))
                conn.execute("begin")
                found.append(dict(conn.execute(CARRIED).fetchall()))
            return sorted(found, key=lambda carried: int(carried["process"]))


CARRIED = """
select name, setting from pg_settings where name !~ '^(application_name|transaction_)'
union all select 'process', pg_backend_pid()::text
union all select 'role', current_user::text || ' as ' || session_user
union all select 'own', coalesce(current_setting('my.own', true), '')
union all select 'tables', count(*)::text from pg_class where relpersistence = 't' and relnamespace = pg_my_temp_schema()
union all select 'prepared', count(*)::text from pg_prepared_statements
union all select 'cursors', count(*)::text from pg_cursors
union all select 'channels', count(*)::text from pg_listening_channels()
union all select 'locks', count(*)::text from pg_locks where locktype = 'advisory'
"""


@pytest.fixture
def pooled(direct: Target, server: Scratch) -> Iterator[Target]:
    with pooler(server, default_pool_size=SIZE) as place:
        yield Target(through(place, direct.direct), direct.direct, direct.folder, direct.started)


def test_nothing_reaches_the_next_file_or_the_pool(pooled: Target) -> None:
    pool = Pool(pooled)
    before = pool.look()
    note = "insert into journal values (current_user || ', ' || current_setting('search_path'))"
    scripts = [script for statement in LEAVES.values() for script in (statement, note)]
    pooled.write({f"20250101_{n:06}_file.sql": f"-- migrate:up\n{sql};" for n, sql in enumerate(scripts)})
    pooled.manager().migrate_up()
    assert pooled.journal() == ['postgres, "$user", public'] * len(LEAVES)
    assert pool.look() == before
    pooled.left_clean()


def test_a_migration_that_fails_leaves_nothing_in_the_pool(pooled: Target) -> None:
    pool = Pool(pooled)
    before = pool.look()
    for statement in LEAVES.values():
        pooled.write({"20250101_000001_fails.sql": f"-- migrate:up\n{statement};\nselect 1/0;"})
        with pytest.raises(StatementFailed) as caught:
            pooled.manager().migrate_up()
        assert "division by zero" in caught.value.message
    assert pool.look() == before
    pooled.left_clean()


def test_a_killed_run_leaves_nothing_in_the_pool(pooled: Target) -> None:
    statements = ";\n".join(LEAVES.values())
    pooled.write({"20250101_000001_leaves.sql": f"-- migrate:up\n{statements};\nselect pg_catalog.pg_sleep(600);"})
    process = pooled.cli("up")
    sleeper = wait_for(lambda: pooled.running("pg_sleep(600)"))
    process.kill()
    wait_for(lambda: not pooled.alive(sleeper))
    for carried in Pool(pooled).look():
        assert carried["tables"] == carried["prepared"] == carried["channels"] == carried["locks"] == "0"
        assert carried["own"] == ""
    pooled.left_clean()


def test_a_pool_of_two_is_enough(direct: Target, server: Scratch) -> None:
    """One connection for the lock, one for the work; those who wait take turns on the latter."""
    with pooler(server, default_pool_size=2) as place:
        target = Target(through(place, direct.direct), direct.direct, direct.folder, direct.started)
        processes = [target.cli("up", "--json") for _ in range(8)]
        applied = [version for process in processes for version in finish(process)["applied"]]
        assert sorted(applied) == [name[:15] for name in sorted(MIGRATIONS)]
        assert target.journal() == JOURNAL
        target.left_clean()


def test_a_pool_of_one_is_refused(direct: Target, server: Scratch) -> None:
    with pooler(server, default_pool_size=1, query_wait_timeout=2) as place:
        target = Target(through(place, direct.direct), direct.direct, direct.folder)
        with pytest.raises(CannotConnect) as caught:
            target.manager().migrate_up()
        assert "no free connection" in caught.value.message
        assert "needs two" in caught.value.hint
        assert target.journal() == []


def test_statement_mode_is_refused(direct: Target, server: Scratch) -> None:
    with pooler(server, pool_mode="statement") as place:
        target = Target(through(place, direct.direct), direct.direct, direct.folder)
        with pytest.raises(UnfitServer) as caught:
            target.manager().migrate_up()
        assert "statement mode" in caught.value.message
        assert target.journal() == []


def test_settings_for_a_statement_outside_a_transaction_are_refused(pooled: Target) -> None:
    script = "-- migrate:up\nset search_path = public;\nvacuum journal;"
    pooled.write({"20250101_000001_vacuum.sql": script})
    with pytest.raises(MigrationFileError) as caught:
        pooled.manager().migrate_up()
    assert "through a pooler" in caught.value.message


def test_what_pg_dump_cannot_take_is_said(pooled: Target) -> None:
    told: list[str] = []
    pooled.manager(lambda event: told.append(event.detail) if event.what == "warning" else None).migrate_up()
    assert "pg_dump" in told[0]
    with pytest.raises(DbopsError):
        pooled.manager().check()
