"""Policies applied in spite of kills, rivals and long transactions: all of a plan or nothing, and nobody waits behind it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from tools import needs_the_server_here, wait_for

from dbops.config import Settings
from dbops.errors import Blocked, DefinitionError, LockLost, UnfitServer
from dbops.lock import NAMESPACE, RunnerLock
from dbops.policy import PolicyManager

if TYPE_CHECKING:
    from conftest import Mortal

pytestmark = pytest.mark.fault
TAG = uuid.uuid4().hex[:8]
USER = f"user_{TAG}"
LONG = 'Ü"' + "x" * 60
SCHEMA = f"""
create table notes (id int, user_id text);
create table {sql.Identifier(LONG).as_string()} (id int, "User" text);
create table gate (opened boolean);
create table theirs (id int);
create policy theirs on notes using (id = 1);
"""
TOML = f"""
version = 1
auth = "guc:app.sub"
user_role = "{USER}"
[table."public.notes"]
owner = "user_id"
immutable = ["user_id"]
[table.'public."{LONG.replace('"', '""')}"']
owner = "User"
"""
RUN = """
import sys
from pathlib import Path
from dbops.config import Settings
from dbops.policy import PolicyManager
PolicyManager(settings=Settings(url=sys.argv[1], policies=Path(sys.argv[2]), wait=60.0)).apply()
"""


@pytest.fixture
def direct(make_database: Callable[..., str]) -> Iterator[str]:
    url = make_database("empty")
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(sql.SQL("create role {}").format(sql.Identifier(USER)))
        conn.execute(SCHEMA.encode())
        yield url
        conn.execute(sql.SQL("drop owned by {0}; drop role {0}").format(sql.Identifier(USER)))


@pytest.fixture
def make(via: Callable[[str], str], direct: str, tmp_path: Path) -> Callable[..., PolicyManager]:
    def manager(text: str = TOML, tell: Callable[[str], None] = lambda _: None, **changes: Any) -> PolicyManager:
        (tmp_path / "a.toml").write_text(text)
        settings = Settings(url=via(direct), policies=tmp_path, **({"wait": 60.0} | changes))
        return PolicyManager(settings=settings, tell=tell)

    return manager


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as conn:
        return conn.execute(statement.encode()).fetchall()


def state(url: str) -> list[tuple[Any, ...]]:
    """All that an apply may change."""
    return rows(
        url,
        "select 'policy', polrelid::regclass::text, polname::text, polcmd::text from pg_policy "
        "union all select 'table', relname::text, relrowsecurity::text || relforcerowsecurity, relacl::text from pg_class "
        "where relnamespace = 'public'::regnamespace "
        "union all select 'trigger', tgname::text, '', '' from pg_trigger "
        "union all select 'schema', nspname::text, '', '' from pg_namespace where nspname like 'dbops%' order by 1, 2, 3",
    )


def working(url: str) -> list[tuple[Any, ...]]:
    return rows(url, "select pid from pg_stat_activity where datname = current_database() and state <> 'idle' "
                     "and application_name like 'dbops policy%'")  # fmt: skip


def test_killed_in_the_middle(make: Callable[..., PolicyManager], direct: str, tmp_path: Path) -> None:
    manager = make()
    before = state(direct)
    (tmp_path / "z.sql").write_text(
        "create policy of_file on public.theirs using (true);\n"
        "do $$ begin while not exists (select from public.gate) loop perform pg_sleep(0.02); end loop; end $$;"
    )
    arguments = [sys.executable, "-c", RUN, manager.url, str(tmp_path)]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE)
    try:
        # all the definitions' statements have run by then
        wait_for(lambda: process.poll() is None and rows(
            direct, "select 1 from pg_stat_activity where query like '%of_file%' and state = 'active' "
                    "and pid <> pg_backend_pid() and datname = current_database()"))  # fmt: skip
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    # the server notices at the latest when it would answer
    rows(direct, "with opened as (insert into public.gate values (true) returning 1) select * from opened")
    wait_for(lambda: not working(direct))
    assert state(direct) == before
    (tmp_path / "z.sql").write_text("create policy of_file on public.theirs using (true);")
    assert manager.apply().statements
    assert manager.check().plan.statements == ()


def test_the_runner_lock_is_lost_on_the_way(make: Callable[..., PolicyManager], direct: str, tmp_path: Path) -> None:
    manager = make()
    before = state(direct)
    (tmp_path / "z.sql").write_text(
        "do $$ begin while not exists (select from public.gate) loop perform pg_sleep(0.02); end loop; end $$;"
    )
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(manager.apply)
        wait_for(lambda: run.done() or rows(direct, "select 1 from pg_stat_activity where query like '%public.gate%' "
                 "and state = 'active' and pid <> pg_backend_pid() and datname = current_database()"))  # fmt: skip
        cut = rows(direct, "select pid, pg_terminate_backend(pid, 60000) from pg_locks where locktype = 'advisory' "
                           f"and classid = {NAMESPACE} and granted and database = (select oid from pg_database "
                           "where datname = current_database())")  # fmt: skip
        rows(direct, "with opened as (insert into public.gate values (true) returning 1) select * from opened")
        with pytest.raises(LockLost, match="in the middle of the run"):
            run.result(60)
    assert len(cut) == 1
    assert state(direct) == before
    assert make().apply().statements


def test_the_runner_lock_is_lost_between_two_messages(make: Callable[..., PolicyManager], direct: str) -> None:
    """Nothing is committed without the lock, wherever it was lost."""
    before = state(direct)

    class Forgetful(RunnerLock):
        def guard(self) -> sql.Composed:
            nonlocal guards
            guards -= 1
            if guards < 0:
                self.conn.close()
                wait_for(
                    lambda: not rows(direct, f"select 1 from pg_locks where classid = {NAMESPACE} and pid = {self.pid}")
                )
            return super().guard()

    for number in range(3):
        guards = number
        manager = make()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dbops.policy.apply.RunnerLock", Forgetful)
            with pytest.raises(LockLost):
                manager.apply()
        assert state(direct) == before
    assert manager.apply().statements


@needs_the_server_here
def test_a_standby_is_refused_by_name(mortal: Mortal, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('version = 1\nauth = "guc:app.sub"\n')
    with psycopg.connect(mortal.server.url, autocommit=True) as conn:
        conn.execute("alter system set wal_level = replica")
    for _ in range(2):  # what was written before the change no standby takes
        mortal.stop()
        mortal.start()
    mortal.stop()
    (mortal.data / "standby.signal").touch()
    mortal.start()
    manager = PolicyManager(settings=Settings(url=mortal.server.url, policies=tmp_path))
    for verb in (manager.plan, manager.check, manager.apply):
        with pytest.raises(UnfitServer, match="read-only standby"):
            verb()


def test_a_deadlock_is_called_one(make: Callable[..., PolicyManager], direct: str) -> None:
    """The other session waits for what we hold while we wait for what it holds; ours is the one that looks."""
    before = state(direct)
    with psycopg.connect(direct, autocommit=True) as conn:
        conn.execute(sql.SQL("alter database {} set deadlock_timeout = '4s'").format(sql.Identifier(conn.info.dbname)))
    with psycopg.connect(direct, application_name="somebody") as somebody, ThreadPoolExecutor(2) as pool:
        somebody.execute("set deadlock_timeout = '10min'")
        somebody.execute(sql.SQL("lock table {} in access share mode").format(sql.Identifier(LONG)))
        run = pool.submit(make(lock_timeout=60.0, lock_tries=1).apply)
        wait_for(lambda: run.done() or rows(direct, "select 1 from pg_locks where not granted and relation is not null "
                 "and database = (select oid from pg_database where datname = current_database())"))  # fmt: skip
        other = pool.submit(somebody.execute, "select from notes")
        with pytest.raises(Blocked, match="a deadlock") as caught:
            run.result(120)
        other.result(60)
        assert LONG in caught.value.message
        assert f"process {somebody.info.backend_pid} (" in caught.value.message
        assert state(direct) == before
    assert make().apply().statements


def test_two_at_once(make: Callable[..., PolicyManager], direct: str) -> None:
    managers = [make(), make()]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda manager: len(manager.apply().statements), managers))
    assert done.count(0) == 1
    assert max(done) > 0
    assert managers[0].plan().statements == ()


def test_plans_beside_an_apply(make: Callable[..., PolicyManager]) -> None:
    manager = make()
    with ThreadPoolExecutor(4) as pool:
        plans = [pool.submit(manager.plan) for _ in range(4)]
        manager.apply()
    assert all(plan.result() is not None for plan in plans)
    assert manager.plan().statements == ()


def test_behind_a_long_transaction(make: Callable[..., PolicyManager], direct: str) -> None:
    before = state(direct)
    told: list[str] = []
    with psycopg.connect(direct, application_name="somebody") as somebody:
        somebody.execute("select count(*) from notes where id = 17")

        def tell(sentence: str) -> None:
            told.append(sentence)
            # between two tries nothing of ours stands in front of others
            assert not rows(direct, "select 1 from pg_locks where not granted and relation = 'notes'::regclass")

        with pytest.raises(Blocked) as caught:
            make(tell=tell, lock_timeout=0.3, lock_tries=2).apply()
        for text in (caught.value.message, *told):
            assert f"process {somebody.info.backend_pid} (" in text
            assert "somebody" in text
            assert "id = 17" in text
        assert len(told) == 1
        assert state(direct) == before
        wait_for(lambda: not working(direct))
    assert make().apply().statements


def test_it_ends_well_when_the_transaction_does(make: Callable[..., PolicyManager], direct: str) -> None:
    with psycopg.connect(direct) as somebody:
        somebody.execute("select from notes")
        manager = make(tell=lambda _: somebody.rollback(), lock_timeout=0.3, lock_tries=10)
        assert manager.apply().statements
    assert manager.plan().statements == ()


def test_odd_names_and_others_policies(make: Callable[..., PolicyManager], direct: str) -> None:
    manager = make()
    applied = manager.apply()
    assert [(each.table, each.policy) for each in applied.unmanaged] == [("public.notes", "theirs")]
    assert manager.apply().statements == ()
    flags = {name: flag for kind, name, flag, _ in state(direct) if kind == "table"}
    assert flags[LONG] == "truetrue"
    assert ("policy", "notes", "theirs", "*") in state(direct)
    assert "theirs" in manager.check().text
    manager.apply(prune=True)
    assert ("policy", "notes", "theirs", "*") not in state(direct)
    assert manager.check().text == ""


def test_a_role_that_does_not_exist(make: Callable[..., PolicyManager], direct: str) -> None:
    before = state(direct)
    raw = '[[table."public.notes".raw]]\nname = "r"\nfor = "select"\nto = ["no such role"]\nusing = "true"\n'
    with pytest.raises(DefinitionError, match="no such role"):
        make(TOML + raw).apply()
    assert state(direct) == before
