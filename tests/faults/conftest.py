"""Targets of the fault tests: a database reached directly or through pgbouncer, and a server that may be killed."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from tools import WHOLE, Target, sample, wait_for

from dbops.database import parameters
from dbops.embedded import Scratch, binaries, scratch, with_database

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
NO_POOLER = "pgbouncer is not installed: what happens behind a pooler was not tested"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep a third of each test's variants, as a seed chooses, of those behind a pooler as of the others.

    All of them are kept in `make faults` and where a test is named (`file.py::test`).
    """
    if WHOLE or any("::" in argument for argument in config.args):
        return
    groups: dict[tuple[str, str], list[pytest.Item]] = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and Path(__file__).parent in item.path.parents:
            variant = item.callspec.params.get("via", "") if hasattr(item, "callspec") else ""
            groups[item.originalname, variant].append(item)
    left_out = {group[n] for key, group in groups.items() for n in unwanted(len(group), "".join(key))}
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=list(left_out))


def unwanted(count: int, seed: str) -> set[int]:
    return set(range(count)) - set(sample(count, -(-count // 3), seed))


@contextmanager
def pooler(server: Scratch, **settings: object) -> Iterator[str]:
    """A pgbouncer in front of a server; the host and port for its URLs. `settings` are its configuration's."""
    host = parameters(server.url)["host"]
    folder = Path(tempfile.mkdtemp(prefix="dbops-pgbouncer-"))
    values: dict[str, object] = {
        "unix_socket_dir": folder, "listen_port": 6432, "auth_type": "any", "pool_mode": "transaction",
        "default_pool_size": 5, "max_client_conn": 200,
    }  # fmt: skip
    lines = [f"{key} = {value}" for key, value in (values | settings).items()]
    config = folder / "pgbouncer.ini"
    config.write_text("\n".join(["[databases]", f"* = host={host} user=postgres", "[pgbouncer]", *lines, ""]))
    assert PGBOUNCER
    owner = None
    if os.geteuid() == 0:  # which it refuses to run as: it becomes the one whom the server's socket lets in
        owner = Path(host).owner()
        shutil.chown(folder, owner)
    process = subprocess.Popen(
        [PGBOUNCER, "-q", str(config)], user=owner, cwd="/", preexec_fn=end_with_parent,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(lambda: (folder / ".s.PGSQL.6432").exists() or process.poll() is not None)
        assert process.poll() is None, "pgbouncer did not start"
        yield f"host={folder} port=6432"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def end_with_parent() -> None:
    """In a child: end when the tests are killed, where the system can do that (PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def through(pooler: str, direct: str) -> str:
    """The URL of a database by way of a pooler."""
    return f"{pooler} user=postgres dbname={parameters(direct)['dbname']}"


@pytest.fixture(params=["direct", "pooled"])
def via(request: pytest.FixtureRequest, server: Scratch) -> Iterator[Callable[[str], str]]:
    """How the runners reach a database."""
    if request.param == "direct":
        yield lambda direct: direct
        return
    if not PGBOUNCER:
        pytest.skip(NO_POOLER)
    if not parameters(server.url).get("host", "").startswith("/"):
        pytest.skip("the pooler is put in front of the embedded server only")
    # idle connections to the databases of earlier targets would fill the server
    with pooler(server, server_idle_timeout=1) as place:
        yield lambda direct: through(place, direct)


def targets(
    make_database: Callable[..., str], via: Callable[[str], str], folder: Path
) -> Iterator[Callable[[], Target]]:
    """A maker of new databases with MIGRATIONS in the folder. Runners still alive at the end are killed."""
    folder.mkdir()
    made: list[Target] = []

    def make() -> Target:
        direct = make_database("empty")
        target = Target(via(direct), direct, folder)
        target.prepare()
        made.append(target)
        return target

    yield make
    for target in made:
        target.kill_started()


@pytest.fixture
def make_target(
    make_database: Callable[..., str], via: Callable[[str], str], tmp_path: Path
) -> Iterator[Callable[[], Target]]:
    """make_target(): a new target, directly and then behind a pooler."""
    yield from targets(make_database, via, tmp_path / "migrations")


@pytest.fixture
def target(make_target: Callable[[], Target]) -> Target:
    return make_target()


@pytest.fixture
def make_direct(make_database: Callable[..., str], tmp_path: Path) -> Iterator[Callable[[], Target]]:
    """make_direct(): a new target, never behind a pooler."""
    yield from targets(make_database, lambda direct: direct, tmp_path / "migrations")


@pytest.fixture
def direct(make_direct: Callable[[], Target]) -> Target:
    return make_direct()


@dataclass
class Mortal:
    """A server of its own, which a test may kill."""

    server: Scratch
    data: Path

    @property
    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().splitlines()[0])

    def kill(self) -> None:
        """SIGKILL for the postmaster; its children see that by themselves."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        if (self.data / "postmaster.pid").exists():
            self._end(signal.SIGQUIT)

    def _end(self, number: int) -> None:
        os.kill(self.pid, number)
        wait_for(lambda: not self._processes())
        # in a container nobody may collect the dead process: PostgreSQL would take it for a living one
        for lock in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            (self.data / lock).unlink(missing_ok=True)

    def _processes(self) -> list[str]:
        """The server's processes: all work in the data directory."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (process / "cwd").readlink() == self.data:
                    found.append(process.name)
        return found

    def start(self, file_size: int = resource.RLIM_INFINITY) -> None:
        """Start it again; no file that it writes grows beyond `file_size` bytes."""
        folder = binaries(self.server.major)
        assert folder is not None
        options = ["-w", "-D", self.data, "-l", self.data / "log", "-o", f'-h "" -k {self.data}']
        owner = self.data.owner() if os.geteuid() == 0 else None
        command = [folder / "pg_ctl", *options, "start"]

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY))

        subprocess.run(command, check=True, user=owner, stdout=subprocess.DEVNULL, cwd="/", preexec_fn=limit)

    def target(self, name: str, folder: Path) -> Target:
        """A new database with MIGRATIONS in the folder."""
        folder.mkdir()
        with psycopg.connect(self.server.url, autocommit=True) as conn:
            conn.execute(f"create database {name}".encode())
        url = with_database(self.server.url, name)
        target = Target(url, url, folder)
        target.prepare()
        return target


@pytest.fixture
def mortal(major: str) -> Iterator[Mortal]:
    with ExitStack() as stack:
        server = stack.enter_context(scratch(int(major)))
        mine = Mortal(server, Path(parameters(server.url)["host"]))
        stack.callback(mine.stop)
        with psycopg.connect(server.url, autocommit=True) as conn:  # what is committed must outlive the server
            conn.execute("alter system set synchronous_commit = on")
            conn.execute("select pg_reload_conf()")
        yield mine
