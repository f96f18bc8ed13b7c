"""The embedded and scratch servers: no environment leads away from them, and nobody else's things are touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from dbops import embedded
from dbops.config import Settings
from dbops.database import connect
from dbops.embedded import Scratch, local_status, resolve, scratch, start_local, stop_local
from dbops.errors import EmbeddedServerError, LockHeld, NotAllowed
from dbops.migrate import MigrationManager
from dbops.migrate.files import read_folder
from dbops.migrate.trial import trial

from .conftest import Project

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment that names another server with all that libpq reads."""
    service = tmp_path / "service.conf"
    service.write_text("[other]\nhostaddr=127.0.0.9\nport=9\ndbname=other\noptions=-c work_mem=77MB\n")
    for name, value in {
        "PGHOST": "nowhere.invalid", "PGHOSTADDR": "127.0.0.9", "PGPORT": "9", "PGUSER": "other", "PGDATABASE": "other",
        "PGOPTIONS": "-c work_mem=77MB", "PGSERVICE": "other", "PGSERVICEFILE": str(service),
        "PGCHANNELBINDING": "require",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Settings]:
    settings = Settings(root=tmp_path)
    yield settings
    stop_local(settings.data_directory)


def data_directory(url: str) -> Path:
    with connect(url, "test") as conn:
        row = conn.execute("select current_setting('data_directory'), current_setting('work_mem')").fetchone()
    assert row is not None
    assert row[1] != "77MB"
    return Path(row[0])


# --- where a URL leads -----------------------------------------------------------------------------


@pytest.mark.usefixtures("elsewhere")
def test_no_variable_leads_away_from_a_scratch_server(tmp_path: Path) -> None:
    with scratch(18) as server, trial(server, Settings()) as copy:
        found = data_directory(server.url)
        assert found.parent.name.startswith(f"dbops-scratch-{os.getpid()}-")
        assert data_directory(copy.url) == found


def test_a_local_server_is_reached_whatever_the_port_was_when_it_started(
    local: Settings, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("PGPORT", "6789")
    url = resolve(local)
    assert "port=6789" in url
    monkeypatch.delenv("PGPORT")
    assert resolve(local) == url
    assert data_directory(url) == local.data_directory
    stop_local(local.data_directory)
    plain = start_local(local.data_directory, 18).url
    assert plain.endswith("&port=5432")  # for other programs, too: they know neither hostaddr nor options
    request.getfixturevalue("elsewhere")
    assert data_directory(resolve(local)) == local.data_directory


def test_another_server_that_answers_is_refused(
    server: Scratch, local: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_local(local.data_directory, 18)
    monkeypatch.setattr(embedded, "_url", lambda _: server.url.removesuffix(embedded._NOTHING_ELSE))
    with pytest.raises(EmbeddedServerError, match="another server answers"):
        resolve(local)


# --- processes and folders -------------------------------------------------------------------------


def test_a_pid_that_was_given_out_anew_is_no_server(local: Settings) -> None:
    data = local.data_directory
    resolve(local)
    pid_file = data / "postmaster.pid"
    crashed, *rest = pid_file.read_text().splitlines()
    os.kill(int(crashed), signal.SIGKILL)
    while local_status(data).running:
        time.sleep(0.01)
    other = subprocess.Popen(SLEEP)
    try:
        pid_file.write_text("\n".join([str(other.pid), *rest]) + "\n")
        assert not local_status(data).running
        for _ in range(100):  # its children need a moment to see that it is gone
            try:
                assert start_local(data, 18).running
                break
            except EmbeddedServerError:
                time.sleep(0.1)
        assert data_directory(resolve(local)) == data
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_without_proc_the_processes_are_asked_for(local: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(local)
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda self: str(self) != "/proc/self/cmdline" and exists(self))
    assert local_status(local.data_directory).running
    assert embedded._served(str(os.getpid())) is None


def test_only_our_own_abandoned_servers_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    victim = subprocess.Popen(SLEEP)
    ours, foreign = tmp_path / f"dbops-scratch-{gone.pid}-a", tmp_path / f"dbops-scratch-{gone.pid}-b"
    try:
        for folder in (ours, foreign):
            (folder / "data").mkdir(parents=True)
            (folder / "data" / "postmaster.pid").write_text(f"{victim.pid}\n{folder}/data\n")
        if os.getuid() == 0:
            os.chown(foreign, 12345, 12345)
        embedded._remove_abandoned()
        assert victim.poll() is None
        assert not ours.exists()
        assert foreign.exists() == (os.getuid() == 0)
    finally:
        victim.kill()
        victim.wait()


def test_an_abandoned_server_is_stopped_and_removed(tmp_path: Path) -> None:
    code = (
        "import os; from dbops.embedded import scratch\n"
        "with scratch(18) as server:\n    print(server.url, flush=True); os.kill(os.getpid(), 9)"
    )
    # not tmp_path: a socket's path may be 107 characters long
    with tempfile.TemporaryDirectory(prefix="dbops-t-") as folder:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"TMPDIR": folder},
            capture_output=True,
            text=True,
            check=False,
        )
        (left,) = Path(folder).glob("dbops-scratch-*")
        assert data_directory(done.stdout.strip()) == left / "data"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tempfile, "tempdir", folder)
            embedded._remove_abandoned()
        assert not left.exists()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(done.stdout.strip())


# --- a scratch server that others use, too ---------------------------------------------------------


@pytest.fixture
def shared(server: Scratch) -> Scratch:
    return replace(server, kind="scratch-url")


def has_role(server: Scratch, name: str) -> bool:
    with connect(server.url, "test") as conn:
        return conn.execute("select 1 from pg_roles where rolname = %s", [name]).fetchone() is not None


def test_a_colleagues_role_stays_and_a_used_one_too(project: Project, shared: Scratch) -> None:
    project.write(1, 'create role "Mine"; create user used; do $$ begin create role hidden; end $$;')
    (migration,) = read_folder(project.folder)
    with connect(shared.url, "test") as conn:
        try:
            with trial(shared, project.settings) as copy:
                copy.up(migration)
                conn.execute("create role colleague")
                conn.execute("create table kept (); alter table kept owner to used")
            left = [name for name in ("Mine", "used", "hidden", "colleague") if has_role(shared, name)]
            assert left == ["used", "hidden", "colleague"]
        finally:
            conn.execute("drop table if exists kept; drop role if exists used, hidden, colleague")


def test_two_proofs_at_once_take_turns(project: Project) -> None:
    project.write(
        1,
        "create role reader; create table t (id int primary key); grant select on t to reader;",
        "drop table t; drop role reader;",
    )
    proofs: list[object] = []

    def prove() -> None:
        try:
            proofs.append(MigrationManager(settings=project.settings).prove().proven)
        except Exception as error:
            proofs.append(error)

    threads = [threading.Thread(target=prove) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert proofs == [("20250101_000001",)] * 3


def test_a_trial_waits_no_longer_than_told_and_never_for_itself(shared: Scratch) -> None:
    told: list[BaseException] = []

    def other() -> None:
        try:
            with trial(shared, Settings(wait=0.2)):
                pass
        except LockHeld as error:
            told.append(error)

    with trial(shared, Settings()) as base, trial(shared, base.settings):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(told) == 1
    other()
    assert len(told) == 1


def test_a_scratch_role_that_may_not_make_databases_is_told_so(server: Scratch) -> None:
    with connect(server.url, "test") as conn:
        conn.execute("create role poor login")
        try:
            poor = server.url.replace("postgres@", "poor@")
            with (
                pytest.raises(NotAllowed, match="permission denied to create database"),
                scratch(url=poor) as given,
                trial(given, Settings()),
            ):
                pass
        finally:
            conn.execute("drop role poor")
