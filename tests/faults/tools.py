"""What the fault tests share: a target with its folder of migrations, its runners, and looks at what they leave."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from psycopg.rows import tuple_row

from dbops.config import Settings
from dbops.lock import INNER_NAMESPACE, NAMESPACE
from dbops.migrate import Event, MigrationManager

WHOLE = os.environ.get("DBOPS_TEST_FAULTS", "") == "whole"
T = TypeVar("T")

# what is in the database before the first migration; the journal shows what was run how often
BEFORE = "create table journal (what text); create table gate (opened boolean)"

MIGRATIONS = {
    "20250101_000001_people.sql": """-- migrate:up
create table person (id int primary key, name text, mail text);
insert into person select n, 'name ' || n, 'mail ' || n from generate_series(1, 500) n;
create index person_old on person (mail);
create type mood as enum ('low');
create table event (at int, what text) partition by range (at);
create table event_1 partition of event for values from (0) to (10);
create table event_2 partition of event for values from (10) to (20);
insert into journal values ('1 up');
-- migrate:down
drop table event;
drop table person;
drop type mood;
insert into journal values ('1 down');
""",
    "20250101_000002_step_by_step.sql": """-- migrate:up
insert into journal values ('2 up, first');
create unique index concurrently person_name on person (name);
create index concurrently on person (lower(mail));
drop index concurrently person_old;
alter type mood add value 'high';
insert into journal values ('2 up, ' || 'high'::mood);
vacuum (analyze) person;
reindex table concurrently person;
alter table event detach partition event_2 concurrently;
insert into journal values ('2 up, last');
-- migrate:down
insert into journal values ('2 down, first');
alter table event attach partition event_2 for values from (10) to (20);
create index concurrently person_old on person (mail);
drop index concurrently person_name;
drop index concurrently person_lower_idx;
insert into journal values ('2 down, last');
""",
    "20250101_000003_age.sql": """-- migrate:up
alter table person add column age int;
insert into journal values ('3 up');
-- migrate:down
alter table person drop column age;
insert into journal values ('3 down');
""",
}

FIRST = "20250101_000001_people.sql"
JOURNAL = ["1 up", "2 up, first", "2 up, high", "2 up, last", "3 up"]

# a statement that ends when a row is in the table `gate`
WAIT_AT_GATE = "do $$ begin while not exists (select from gate) loop perform pg_sleep(0.02); end loop; end $$;"


@dataclass(frozen=True)
class Target:
    """A database, its URL for the runners (behind a pooler, say) and for the tests, and a folder of migrations."""

    url: str
    direct: str
    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def pooled(self) -> bool:
        return self.url != self.direct

    def prepare(self) -> None:
        self.write(MIGRATIONS)
        self.sql(BEFORE)

    def write(self, migrations: dict[str, str]) -> None:
        """Make these the migrations of the folder."""
        for path in self.folder.iterdir():
            path.unlink()
        for name, text in migrations.items():
            (self.folder / name).write_text(text, encoding="utf-8")

    def sql(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement, run directly."""
        with psycopg.connect(self.direct, autocommit=True, row_factory=tuple_row) as conn:
            cursor = conn.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def one(self, statement: str, **values: Any) -> Any:
        return self.sql(statement, **values)[0][0]

    def manager(self, observer: Callable[[Event], None] = lambda _: None, **changes: Any) -> MigrationManager:
        settings = Settings(url=self.url, migrations=self.folder, **({"wait": 60.0} | changes))
        return MigrationManager(settings=settings, observer=observer)

    def cli(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """`dbops migrate ARGUMENTS`, started."""
        names = {"DBOPS_URL": self.url, "DBOPS_MIGRATIONS": str(self.folder)} | environment
        return self._start([sys.executable, "-m", "dbops", "migrate", *arguments], names)

    def runner(self, command: str, log: Path, last: int = -1) -> subprocess.Popen[str]:
        """A run in a process of its own, killed at its event number `last`."""
        script = str(Path(__file__).with_name("runner.py"))
        return self._start([sys.executable, script, self.url, str(self.folder), command, str(log), str(last)], {})

    def kill_started(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def _start(self, command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command, env=os.environ | environment, cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self.started.append(process)
        return process

    @contextmanager
    def transaction(self, *statements: str, begin: str = "begin") -> Iterator[psycopg.Connection[Any]]:
        """Somebody's open transaction, rolled back at the end."""
        with psycopg.connect(self.direct, autocommit=True, application_name="somebody") as conn:
            for statement in (begin, *statements):
                conn.execute(statement.encode())
            yield conn
            if not conn.closed:
                conn.execute("rollback")

    def state(self) -> dict[str, Any]:
        """All that the migrations of this module may change."""
        return {
            "journal": self.journal(),
            "versions": self.sql("select version from schema_migrations order by version"),
            "steps": self.sql("select version, step, state from dbops.migration_steps"),
            "indexes": self.sql(
                "select i.indexrelid::regclass::text, i.indisvalid and i.indisready from pg_index i join pg_class c "
                "on c.oid = i.indexrelid where c.relnamespace = 'public'::regnamespace order by 1"
            ),
            "columns": self.sql(
                "select a.attrelid::regclass::text, a.attname::text from pg_attribute a join pg_class c "
                "on c.oid = a.attrelid where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') "
                "and a.attnum > 0 and not a.attisdropped order by 1, 2"
            ),
            "partitions": self.sql("select inhrelid::regclass::text, inhdetachpending from pg_inherits order by 1"),
            "labels": self.sql("select enumlabel::text from pg_enum order by 1"),
        }

    def journal(self) -> list[str]:
        """What was run, as often as it was run."""
        return [row[0] for row in self.sql("select what from journal order by what")]

    def locks(self) -> list[tuple[Any, ...]]:
        """The runner locks that are held in this database."""
        return self.sql(
            "select l.pid, l.classid::bigint, l.objid::bigint from pg_locks l where l.locktype = 'advisory' "
            "and l.classid = any(%(names)s) "
            "and l.database = (select oid from pg_database where datname = current_database())",
            names=[NAMESPACE, INNER_NAMESPACE],
        )

    def backends(self) -> list[tuple[Any, ...]]:
        """The server's processes that work for a runner."""
        return self.sql(
            "select pid, application_name, state, query from pg_stat_activity where datname = current_database() "
            "and application_name like 'dbops %'" + " and state <> 'idle'" * self.pooled
        )

    def running(self, query: str, also: str = "true") -> int:
        """The process id of the one that runs a statement like this; 0 where none does."""
        rows = self.sql(
            "select pid from pg_stat_activity where datname = current_database() and query ilike %(query)s "
            f"and state = 'active' and pid <> pg_backend_pid() and {also}",
            query=f"%{query}%",
        )
        return rows[0][0] if rows else 0

    def waiting(self, query: str) -> int:
        """As `running`, once it waits for a lock."""
        return self.running(query, "wait_event_type = 'Lock'")

    def cut_lock(self) -> None:
        """End the server's process that holds the runner lock."""
        held = [row for row in self.locks() if row[1] == NAMESPACE]
        for pid, *_ in held:
            self.sql(f"select pg_terminate_backend({pid})")
            wait_for(lambda pid=pid: not self.alive(pid))

    def alive(self, pid: int) -> bool:
        """Whether a process of the server is there."""
        return bool(self.one("select exists (select from pg_stat_activity where pid = %(pid)s)", pid=pid))

    def left_clean(self) -> None:
        """Nobody works for a runner any more, and no lock is held."""
        wait_for(lambda: not self.locks() and not self.backends())


def wait_for(look: Callable[[], T], seconds: float = 60.0) -> T:
    """Look until something is seen."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
    return found


def finish(process: subprocess.Popen[str], code: int = 0) -> dict[str, Any]:
    """Wait for a process that ends with this code; its JSON document, if it wrote one."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, f"exit {process.returncode}\n{out}\n{err}"
    return json.loads(out) if out.startswith("{") else {"text": out}


def events_of(target: Target, command: str) -> list[Event]:
    """The events of a run that nothing disturbs."""
    seen: list[Event] = []
    manager = target.manager(seen.append)
    manager.migrate_up() if command == "up" else manager.migrate_down(to="0")
    return seen


def sample(count: int, size: int, seed: str) -> list[int]:
    """Numbers below `count`: all of them in `make faults`, else `size` that the seed chooses."""
    if WHOLE or size >= count:
        return list(range(count))
    return sorted(random.Random(seed).sample(range(count), size))


def named(event: Event) -> str:
    return f"{event.what} {event.version} {event.step}"


needs_the_server_here = pytest.mark.skipif(
    bool(os.environ.get("DBOPS_TEST_URL")), reason="the server that DBOPS_TEST_URL names is not ours to kill"
)
