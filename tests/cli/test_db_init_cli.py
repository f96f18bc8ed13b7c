"""`dbops init` and `dbops db`: a project's files, and its embedded server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from dbops.embedded import local_status, stop_local
from dbops.sql import shipped
from tests.cli.conftest import Command, write

BARE = [".gitignore", "backups/.gitkeep", "dbops.toml", "migrations/sql/.gitkeep", "policies/app.toml"]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class TestInit:
    def test_without_the_memory_schema(self, folder: Path, dbops: Command) -> None:
        done = dbops("init", "--no-memory")
        assert done.code == 0
        assert files(folder) == BARE
        assert sorted(line.removeprefix("wrote ") for line in done.out.splitlines()[:-2]) == BARE
        assert done.out.splitlines()[-2] == "next: dbops migrate new NAME, dbops migrate up"
        assert tomllib.loads((folder / "dbops.toml").read_text()) == {
            "migrations": "migrations/sql",
            "policies": "policies",
            "schemas": ["public"],
        }
        assert tomllib.loads((folder / "policies" / "app.toml").read_text()) == {"version": 1}

    def test_without_a_terminal_nobody_is_asked(self, folder: Path, dbops: Command) -> None:
        assert sorted(dbops("init", "--json").json["files"]) == BARE

    @pytest.mark.parametrize(("answer", "memory"), [("y", True), ("n", False)])
    def test_at_a_terminal_somebody_is(
        self, folder: Path, dbops: Command, types: Callable[[str], None], answer: str, memory: bool
    ) -> None:
        types(answer)
        done = dbops("init")
        assert "With the memory schema" in done.err
        assert (len(files(folder)) > len(BARE)) == memory

    def test_with_the_memory_schema(self, folder: Path, dbops: Command) -> None:
        done = dbops("init", "--memory", "--json")
        names = sorted(path.name for path in shipped("migrations/sql").glob("*.sql"))
        assert "20250101_000001_enhanced_memory_schema.sql" in names
        assert sorted(path.name for path in (folder / "migrations/sql").glob("*.sql")) == names
        for name in names:
            assert (folder / "migrations/sql" / name).read_bytes() == (shipped("migrations/sql") / name).read_bytes()
        assert (folder / "policies/memory.toml").read_bytes() == (shipped("policies") / "memory.toml").read_bytes()
        assert sorted(done.json["files"]) == files(folder)
        assert tomllib.loads((folder / "dbops.toml").read_text())["schemas"] == ["public", "auth"]

    def test_in_another_folder(self, folder: Path, dbops: Command) -> None:
        assert dbops("init", "shop").code == 0
        assert files(folder / "shop") == BARE

    def test_a_dry_run_writes_nothing(self, folder: Path, dbops: Command) -> None:
        done = dbops("init", "new/shop", "--memory", "--dry-run")
        assert done.code == 0
        assert "would write migrations/sql/20250101_000001_enhanced_memory_schema.sql" in done.out
        assert list(folder.iterdir()) == []

    def test_a_second_time_is_refused(self, folder: Path, dbops: Command) -> None:
        (folder / "dbops.toml").write_text("wait = '1s'")
        done = dbops("init", "--json")
        assert done.code == 2
        assert done.error["message"].endswith("dbops.toml is there already")
        assert (folder / "dbops.toml").read_text() == "wait = '1s'"
        assert files(folder) == ["dbops.toml"]

    @pytest.mark.parametrize(
        "name", ["migrations/sql/20250101_000001_enhanced_memory_schema.sql", "policies/memory.toml"]
    )
    def test_no_file_is_overwritten(self, folder: Path, dbops: Command, name: str) -> None:
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_text("mine")
        done = dbops("init", "--memory", "--json")
        assert path.read_text() == "mine"
        assert (done.code, "is there already" in done.error["message"]) == (2, True)
        assert files(folder) == [name]

    @pytest.mark.parametrize("before", ["*.log", "*.log\n", ""])
    def test_a_gitignore_gets_the_lines_that_it_lacks(self, folder: Path, dbops: Command, before: str) -> None:
        (folder / ".gitignore").write_text(before)
        assert dbops("init").code == 0
        lines = (folder / ".gitignore").read_text().splitlines()
        assert [line for line in lines if line] == [*before.split(), ".dbops/", "backups/*", "!backups/.gitkeep"]
        (folder / "dbops.toml").unlink()
        for name in BARE[1:]:
            (folder / name).unlink(missing_ok=True)
        assert dbops("init").code == 0
        assert (folder / ".gitignore").read_text().splitlines() == lines

    def test_what_was_written_can_be_read(self, folder: Path, dbops: Command, empty_url: str) -> None:
        dbops("init", "--memory")
        planned = dbops("migrate", "plan", "--url", empty_url, "--json").json
        assert "20250101_000001" in [step["version"] for step in planned["steps"]]


@pytest.fixture
def local(folder: Path) -> Iterator[Path]:
    """A folder whose embedded server is stopped afterwards."""
    yield folder
    stop_local(folder / ".dbops" / "pg18")


class TestDb:
    def test_before_the_first_start(self, folder: Path, dbops: Command) -> None:
        done = dbops("db", "status")
        assert (done.code, done.out) == (0, "not running; its data directory is .dbops/pg18\n")
        assert dbops("db", "status", "--json").json == {
            "url": None,
            "running": False,
            "server_version": None,
            "data_directory": str(folder / ".dbops" / "pg18"),
        }
        assert dbops("db", "stop").code == 0
        assert list(folder.iterdir()) == []

    def test_start_status_url_stop(self, local: Path, dbops: Command) -> None:
        started = dbops("db", "start", "--json").json
        assert (started["running"], started["server_version"]) == (True, "18")
        assert started["data_directory"] == str(local / ".dbops" / "pg18")
        assert dbops("db", "start", "--json").json == started
        assert dbops("db", "status", "--json").json == started
        assert dbops("db", "url").out == started["url"] + "\n"
        assert dbops("db", "status").out == f"PostgreSQL 18 runs: {started['url']}\ndata in .dbops/pg18\n"
        assert (local / ".dbops" / ".gitignore").read_text() == "*\n"
        with psycopg.connect(started["url"], autocommit=True) as conn:
            conn.execute("create table kept ()")
        stopped = dbops("db", "stop", "--json").json
        assert (stopped["running"], stopped["url"]) == (False, None)
        with psycopg.connect(dbops("db", "url", "--json").json["url"]) as conn:
            conn.execute("select from kept")

    def test_the_embedded_server_is_used_with_a_word(self, local: Path, dbops: Command) -> None:
        write(local, "20250101_000001_a", "create table a ();", "drop table a;")
        done = dbops("migrate", "up")
        assert done.code == 0
        assert done.err.splitlines()[0] == f"using the embedded PostgreSQL; its data lie in {local / '.dbops' / 'pg18'}"
        status = dbops("migrate", "status", "--json")
        assert status.err.count("using the embedded PostgreSQL") == 1
        assert [record["version"] for record in status.json["applied"]] == ["20250101_000001"]

    def test_a_named_server_is_used_without(self, folder: Path, dbops: Command, empty_url: str) -> None:
        (folder / "migrations" / "sql").mkdir(parents=True)
        assert dbops("migrate", "status", "--url", empty_url).err == ""
        assert [path.name for path in folder.iterdir()] == ["migrations"]

    @pytest.mark.parametrize("verb", ["start", "url", "psql"])
    @pytest.mark.parametrize("how", ["option", "production"])
    def test_it_can_be_forbidden(
        self, folder: Path, dbops: Command, verb: str, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DBOPS_ENV", "production" if how == "production" else "")
        done = dbops("db", verb, "--json", *(["--no-embedded"] if how == "option" else []))
        assert done.code == 2
        assert "forbidden" in done.error["message"]
        assert list(folder.iterdir()) == []

    def test_data_of_another_version_are_left_alone(self, folder: Path, dbops: Command) -> None:
        data = folder / ".dbops" / "pg18"
        data.mkdir(parents=True)
        (data / "PG_VERSION").write_text("16\n")
        done = dbops("db", "start", "--json")
        assert done.code == 1
        assert f"{data} holds data of PostgreSQL 16, not 18" in done.error["message"]
        assert "postgres_version = 16" in done.error["hint"]
        assert [path.name for path in data.iterdir()] == ["PG_VERSION"]

    def test_a_version_that_is_not_there(self, folder: Path, dbops: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DBOPS_POSTGRES_VERSION", "12")
        done = dbops("db", "start", "--json")
        assert done.error["message"] == "the embedded server has no PostgreSQL 12"
        assert done.error["hint"] == "it has 16, 18: set postgres_version"

    def test_a_stale_pid_file_is_no_running_server(self, folder: Path) -> None:
        data = folder / "data"
        data.mkdir()
        gone = subprocess.Popen(["true"])
        gone.wait()
        (data / "postmaster.pid").write_text(f"{gone.pid}\n{data}\n1\n5432\n/tmp\n\n0 0\nready\n")
        assert not local_status(data).running
        (data / "postmaster.pid").write_text(f"{os.getpid()}\n")
        assert not local_status(data).running


class TestPsql:
    def psql(self, folder: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`dbops db psql` becomes psql, so it runs in a process of its own."""
        command = [sys.executable, "-m", "dbops", "db", "psql", *arguments]
        environ = os.environ | {"DATABASE_URL": url}
        return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)

    def test_it_reaches_the_database_of_the_settings(self, folder: Path, empty_url: str) -> None:
        done = self.psql(folder, empty_url, "--", "-XAtc", "select current_database(), current_user")
        name = psycopg.conninfo.conninfo_to_dict(empty_url)["dbname"]
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{name}|postgres\n", "")

    def test_the_password_is_not_among_its_arguments(self, folder: Path, empty_url: str) -> None:
        url = psycopg.conninfo.make_conninfo(empty_url, password="hunter22")
        shell = "tr '\\\\0' ' ' < /proc/$PPID/cmdline; echo \"<$PGPASSWORD>\""
        done = self.psql(folder, url, "--", "-X", "-c", f"\\! {shell}")
        assert done.returncode == 0
        arguments, _, password = done.stdout.strip().rpartition("<")
        assert "dbname=" in arguments
        assert "hunter22" not in arguments
        assert password == "hunter22>"


def test_python_m_dbops(folder: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "dbops", "db", "status", "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["running"] is False
    assert done.stderr == ""
