"""Real servers for every test: the embedded PostgreSQL 18 and 16, or the one that DBOPS_TEST_URL names."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest
from pytest_postgresql.factories import postgresql_noproc
from pytest_postgresql.janitor import DatabaseJanitor

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
    host: str
    port: int
    user: str
    password: str | None
    options: str = ""
    maintenance_dbname: str = "postgres"
    template_dbname: str | None = None


def _base(major: int | None) -> Iterator[Base]:
    with scratch(major, url=TEST_URL or None) as server:
        parts = parameters(server.url)
        yield Base(
            server,
            parts["host"],
            int(parts.get("port") or 5432),
            parts.get("user") or "postgres",
            parts.get("password"),
        )


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
    """make_database(kind="empty" or "memory"): the URL of a new database cloned from the run's template."""
    janitors: list[DatabaseJanitor] = []

    def make(kind: str = "empty") -> str:
        proc = request.getfixturevalue(f"{kind}{major}")
        name = f"test_{next(_numbers)}"
        janitor = DatabaseJanitor(
            user=proc.user, host=proc.host, port=proc.port, dbname=name, password=proc.password,
            template_dbname=proc.template_dbname, maintenance_dbname=proc.maintenance_dbname,
        )  # fmt: skip
        janitor.init()
        janitors.append(janitor)
        server: Scratch = request.getfixturevalue(f"server{major}").server
        return with_database(server.url, name)

    yield make
    for janitor in janitors:
        janitor.drop()


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
