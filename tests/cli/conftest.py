"""The command line as a person or a script meets it: called in this process, in a project of its own."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dbops import embedded
from dbops.cli.main import run


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout; anything else there is an error."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The error of a `--json` call, held against the process's exit code."""
        content: dict[str, Any] = self.json["error"]
        assert set(content) == {"code", "message", "hint", "exit"}
        assert content["exit"] == self.code
        return content


Command = Callable[..., Done]


@pytest.fixture
def dbops(capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """dbops("migrate", "up"): run a command line; nobody sits at a terminal."""
    handler = signal.getsignal(signal.SIGTERM)

    def call(*arguments: str) -> Done:
        capsys.readouterr()
        code = run(list(arguments))
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    yield call
    signal.signal(signal.SIGTERM, handler)


class Terminal(io.StringIO):
    """A terminal at which somebody has typed ahead."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """types("prod"): somebody sits at a terminal and types that."""
    return lambda text: monkeypatch.setattr("sys.stdin", Terminal(text + "\n"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    return tmp_path


@pytest.fixture
def project(folder: Path, empty_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with three migrations, of which the second runs step by step, on an empty database."""
    monkeypatch.setenv("DATABASE_URL", empty_url)
    write(folder, "20250101_000001_users", "create table users (id bigint primary key);", "drop table users;")
    write(
        folder,
        "20250101_000002_index",
        "create index concurrently users_i on users (id);",
        "drop index concurrently users_i;",
    )
    write(folder, "20250201_000001_notes", "create table notes (id int);", "drop table notes;")
    return folder


VERSIONS = ["20250101_000001", "20250101_000002", "20250201_000001"]


def write(folder: Path, name: str, up: str, down: str = "") -> Path:
    """Write a migration file."""
    path = folder / "migrations" / "sql" / f"{name}.sql"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"-- migrate:up\n{up}\n" + (f"\n-- migrate:down\n{down}\n" if down else ""))
    return path


COMPATIBLE = Path(__file__).parents[2] / "migrations" / "sql" / "20250101_000000_supabase_compatibility.sql"
TABLE = """create table public.notes (user_id uuid not null, id int generated always as identity, note text,
  primary key (user_id, id));"""
DEFINITIONS = 'version = 1\nauth = "supabase"\n\n[table."public.notes"]\nowner = "user_id"\n'


@pytest.fixture
def shop_url(folder: Path, make_database: Callable[..., str], dbops: Command) -> str:
    """The URL of a fresh database with the migrations of the shop, which are written into the folder."""
    up = COMPATIBLE.read_text(encoding="utf-8").split("-- migrate:up\n")[1].split("-- migrate:down")[0]
    write(folder, "20250101_000000_auth", up)
    write(folder, "20250101_000001_notes", TABLE)
    return make_database("shop", lambda url: migrated(dbops, url))


def migrated(dbops: Command, url: str) -> None:
    assert dbops("migrate", "up", "-q", "--url", url).code == 0


@pytest.fixture
def shop(folder: Path, shop_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one table of users' rows, migrated, and its definition, not applied."""
    monkeypatch.setenv("DATABASE_URL", shop_url)
    (folder / "policies").mkdir()
    (folder / "policies" / "notes.toml").write_text(DEFINITIONS)
    return folder


def sql(url: str, text: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(text.encode())


@pytest.fixture
def plain(empty_db: psycopg.Connection[Any]) -> Iterator[str]:
    """A role that is neither superuser nor sees past row level security; gone afterwards, with what it owns here."""
    name = f"plain_{os.getpid()}"
    empty_db.execute(f"create role {name} login nosuperuser nobypassrls".encode())
    yield name
    empty_db.execute(f"drop owned by {name}; drop role {name}".encode())


@pytest.fixture(scope="session")
def guarded_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that wants ann's password, which is `right one`."""
    with own_server() as server:
        url = f"postgresql://postgres@/postgres?host={server.get_postmaster_info().socket_dir}"
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("create role ann login password 'right one'")
            hba = Path(conn.execute("show hba_file").fetchone()[0])  # type: ignore[index]
            hba.write_text("local all ann scram-sha-256\n" + hba.read_text())
            conn.execute("select pg_reload_conf()")
        yield url


@pytest.fixture(scope="session")
def standby_url() -> Iterator[str]:
    """A server in recovery: it can be read and not written to."""
    with own_server(standby=True) as server:
        yield f"postgresql://postgres@/postgres?host={server.get_postmaster_info().socket_dir}"


@contextmanager
def own_server(*, standby: bool = False) -> Iterator[Any]:
    """A server apart from the run's; in recovery for ever where there is no primary to follow."""
    folder = Path(tempfile.mkdtemp(prefix="dbops-test-"))
    server = embedded._server(folder / "data", 18, cleanup="delete")
    server.ensure_pgdata_inited()
    if standby:
        shutil.copy(server.pgdata / "PG_VERSION", server.pgdata / "standby.signal")
        owner = (server.pgdata / "PG_VERSION").stat()
        os.chown(server.pgdata / "standby.signal", owner.st_uid, owner.st_gid)
    try:
        server.start()
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
