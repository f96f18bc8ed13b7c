"""Real servers for every test: the embedded PostgreSQL 18 and 16, or the one that DBOPS_TEST_URL names.

Their data lie in memory where there is room: a server is 1,000 files and each database 300, and a disk's file system
(ext4 above all, which looks at each inode deleted lately before it gives one out) takes longer over making and deleting
them than the server over everything else.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest
from psycopg import sql
from pytest_postgresql.factories import postgresql_noproc

from dbops.config import Settings
from dbops.database import parameters
from dbops.embedded import Scratch, scratch, with_database
from dbops.migrate import MigrationManager
from tests.faults.tools import WHOLE

TEST_URL = os.environ.get("DBOPS_TEST_URL", "")
MAJORS = ["url"] if TEST_URL else ["18", "16"]
_numbers = count()

# no test is timed: a busy machine is no fault. The examples are the same in each run; `make faults` draws new ones
hypothesis.settings.register_profile("dbops", deadline=None, derandomize=not WHOLE)
hypothesis.settings.load_profile("dbops")

MEMORY = Path("/dev/shm")
ROOM = 6 * 2**30  # a worker of the tests takes 0.2 GB, while plans are looked at 1


def room_in_memory() -> bool:
    if not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK | os.X_OK) or os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
        return False
    known = re.search(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    room = [int(known[1]) * 1024 if known else 0, shutil.disk_usage(MEMORY).free]
    most, now = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if most.is_file() and (limit := most.read_text().strip()).isdigit():  # a container's own
        room.append(int(limit) - int(now.read_text()))
    return min(room) >= ROOM


# for this process and all that it starts, if nobody chose a place; what pytest keeps of its runs stays on the disk
if "TMPDIR" not in os.environ and room_in_memory():
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)

# nothing but DBOPS_TEST_URL may point the tests at a server; DBOPS_TEST_FAULTS=whole runs all fault tests
for _name in [n for n in os.environ if n.startswith(("PG", "DBOPS_")) or n == "DATABASE_URL"]:
    if not _name.startswith("DBOPS_TEST_"):
        del os.environ[_name]


# started in the background of a shell without job control SIGINT is ignored, by all that tests start as well
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Base:
    """What pytest-postgresql wants to know of a server that it did not start."""

    server: Scratch
    admin: psycopg.Connection[Any]
    host: str
    port: int
    user: str
    password: str | None
    options: str = ""
    maintenance_dbname: str = "postgres"
    template_dbname: str | None = None
    prepared: dict[str, str] = field(default_factory=dict)

    def create(self, name: str, template: str) -> str:
        """The URL of a new database like another."""
        # copied as files, where the server can do that: a third of the work of writing it to the log first
        how = sql.SQL(" STRATEGY file_copy" if self.admin.info.server_version >= 150000 else "")
        words = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        self.admin.execute(words + how)
        return with_database(self.server.url, name)

    def drop(self, name: str) -> None:
        self.admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def like(self, kind: str, template: str, prepare: Callable[[str], None]) -> str:
        """The name of a database like the template, prepared once; a new one when that fails."""
        if kind not in self.prepared:
            name = f"prepared_{os.getpid()}_{len(self.prepared)}"
            try:
                prepare(self.create(name, template))
            except BaseException:
                self.drop(name)
                raise
            self.prepared[kind] = name
        return self.prepared[kind]


def _base(major: int | None) -> Iterator[Base]:
    with (
        scratch(major, url=TEST_URL or None) as server,
        psycopg.connect(server.url, autocommit=True, application_name="make_database") as admin,
    ):
        parts = parameters(server.url)
        base = Base(
            server,
            admin,
            parts["host"],
            int(parts.get("port") or 5432),
            parts.get("user") or "postgres",
            parts.get("password"),
        )
        yield base
        for name in base.prepared.values():
            base.drop(name)


@pytest.fixture(scope="session")
def server18() -> Iterator[Base]:
    yield from _base(18)


@pytest.fixture(scope="session")
def server16() -> Iterator[Base]:
    yield from _base(16)


@pytest.fixture(scope="session")
def serverurl() -> Iterator[Base]:
    yield from _base(None)


def memory_schema(**where: Any) -> None:
    """Load the memory schema into a run's template database."""
    from psycopg.conninfo import make_conninfo

    where.pop("autocommit", None)
    folder = Path(__file__).parents[1] / "migrations" / "sql"
    MigrationManager(settings=Settings(url=make_conninfo("", **where), migrations=folder)).migrate_up()


empty18 = postgresql_noproc(depends_on="server18", dbname="empty", load=[lambda **_: None])
empty16 = postgresql_noproc(depends_on="server16", dbname="empty", load=[lambda **_: None])
emptyurl = postgresql_noproc(depends_on="serverurl", dbname="empty", load=[lambda **_: None])
memory18 = postgresql_noproc(depends_on="server18", dbname="memory", load=[memory_schema])
memory16 = postgresql_noproc(depends_on="server16", dbname="memory", load=[memory_schema])
memoryurl = postgresql_noproc(depends_on="serverurl", dbname="memory", load=[memory_schema])


@pytest.fixture(params=MAJORS)
def major(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(request: pytest.FixtureRequest, major: str) -> Scratch:
    """The server that this test runs on."""
    base: Base = request.getfixturevalue(f"server{major}")
    return base.server


@pytest.fixture
def make_database(request: pytest.FixtureRequest, major: str) -> Iterator[Callable[..., str]]:
    """make_database(kind="empty" or "memory"): the URL of a new database cloned from the run's template.

    make_database("filled", fill, of="memory") clones one that `fill(url)` made of such a clone, once in the run.
    """
    base: Base = request.getfixturevalue(f"server{major}")
    made: list[str] = []

    def make(kind: str = "empty", prepare: Callable[[str], None] | None = None, *, of: str = "empty") -> str:
        template: str = request.getfixturevalue(f"{of if prepare else kind}{major}").template_dbname
        if prepare:
            template = base.like(kind, template, prepare)
        made.append(f"test_{next(_numbers)}")
        return base.create(made[-1], template)

    yield make
    for name in made:
        base.drop(name)


@pytest.fixture
def empty_url(make_database: Callable[..., str]) -> str:
    """The URL of a fresh, empty database."""
    return make_database("empty")


@pytest.fixture
def memory_url(make_database: Callable[..., str]) -> str:
    """The URL of a fresh database with the memory schema."""
    return make_database("memory")


@pytest.fixture
def empty_db(empty_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection (autocommit, superuser) to a fresh, empty database."""
    with psycopg.connect(empty_url, autocommit=True) as conn:
        yield conn


@pytest.fixture
def db(memory_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection (autocommit, superuser) to a fresh database with the memory schema."""
    with psycopg.connect(memory_url, autocommit=True) as conn:
        yield conn
