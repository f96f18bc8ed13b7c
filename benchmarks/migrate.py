"""Migrations raced against dbmate and Alembic on one server: `python benchmarks/migrate.py [--peers FOLDER]`.

500 one-table migrations: `up` in a whole process, then `status` in a whole process; the runs alternate, the medians and
their ratios are printed. dbmate is looked for in FOLDER/node_modules/.bin and on PATH (npm i dbmate), Alembic beside this
Python (pip install alembic). A peer that is missing is said to be missing. Then `import dbops`, and 500 against 5,000
migrations: status and plan must grow no faster than their number.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from dbops.database import parameters
from dbops.embedded import Scratch, binaries, scratch, start_local, stop_local

COUNT = 500
ROUNDS = 5


def write_folder(folder: Path, count: int) -> Path:
    """One-table migrations that both dbops and dbmate read."""
    folder.mkdir(parents=True)
    for number in range(count):
        up = f"create table t{number} (id int primary key, name text);"
        text = f"-- migrate:up\n{up}\n\n-- migrate:down\ndrop table t{number};\n"
        (folder / f"{20250101000000 + number}_t{number}.sql").write_text(text)
    return folder


def write_alembic(folder: Path, count: int, url: str) -> Path:
    (folder / "versions").mkdir(parents=True)
    (folder / "alembic.ini").write_text(f"[alembic]\nscript_location = {folder}\nsqlalchemy.url = {url}\n")
    (folder / "env.py").write_text(
        "from alembic import context\nfrom sqlalchemy import create_engine, pool\n"
        "engine = create_engine(context.config.get_main_option('sqlalchemy.url'), poolclass=pool.NullPool)\n"
        "with engine.connect() as connection:\n    context.configure(connection=connection, transaction_per_migration=True)\n"
        "    with context.begin_transaction():\n        context.run_migrations()\n"
    )
    for number in range(count):
        before = f"'r{number - 1:05}'" if number else "None"
        (folder / "versions" / f"r{number:05}.py").write_text(
            f"from alembic import op\nrevision = 'r{number:05}'\ndown_revision = {before}\n"
            f"def upgrade():\n    op.execute('create table t{number} (id int primary key, name text)')\n"
            f"def downgrade():\n    op.execute('drop table t{number}')\n"
        )
    return folder


class Contestant:
    """A tool: how it migrates and how it shows its status, each as a whole process."""

    def __init__(self, name: str, up: Callable[[str], list[str]], status: Callable[[str], list[str]]) -> None:
        self.name, self.up, self.status = name, up, status


def timed(command: list[str], environment: dict[str, str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    took = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return took


@contextmanager
def durable(major: int) -> Iterator[Scratch]:
    """A server with PostgreSQL's own defaults, gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "pg"
        os.chmod(folder, 0o755)
        try:
            yield Scratch(start_local(data, major).url, major, "embedded")
        finally:
            stop_local(data)


@contextmanager
def fresh(server: Scratch) -> Iterator[str]:
    with server.database() as conninfo:
        parts = parameters(conninfo)
        yield f"postgres://postgres@/{parts['dbname']}?host={parts['host']}"


def contestants(work: Path, peers: Path, count: int) -> list[Contestant]:
    folder = write_folder(work / f"sql{count}", count)
    dbops = [sys.executable, "-m", "dbops", "migrate"]
    script = Path(sys.executable).parent / "dbops"
    if script.exists():
        dbops = [str(script), "migrate"]
    environment_folder = ["env", f"DBOPS_MIGRATIONS={folder}"]
    found = [
        Contestant("dbops", lambda u: [*environment_folder, *dbops, "up", "-q", "--url", u],
                   lambda u: [*environment_folder, *dbops, "status", "--url", u]),
    ]  # fmt: skip
    dbmate = shutil.which("dbmate", path=f"{peers / 'node_modules' / '.bin'}:{os.environ['PATH']}")
    if dbmate:
        base = [dbmate, "--migrations-dir", str(folder), "--schema-file", str(work / "schema.sql")]
        # as it comes it writes the schema to a file at the end, as dbops writes it into its ledger
        found.append(
            Contestant(
                "dbmate", lambda u: [*base, "--url", _socket(u), "up"], lambda u: [*base, "--url", _socket(u), "status"]
            )
        )
        found.append(
            Contestant(
                "dbmate, no dump",
                lambda u: [*base, "--no-dump-schema", "--url", _socket(u), "up"],
                lambda u: [*base, "--url", _socket(u), "status"],
            )
        )
    alembic = Path(sys.executable).parent / "alembic"
    if alembic.exists():

        def configured(url: str) -> list[str]:
            place = work / f"alembic{abs(hash(url))}"
            if not place.exists():
                write_alembic(place, count, url.replace("postgres://", "postgresql+psycopg://"))
            return [str(alembic), "-c", str(place / "alembic.ini")]

        found.append(
            Contestant("alembic", lambda u: [*configured(u), "upgrade", "head"], lambda u: [*configured(u), "current"])
        )
    for name in {"dbmate", "alembic"} - {c.name for c in found}:
        print(f"{name}: not installed, left out of the race")
    return found


def _socket(url: str) -> str:
    """dbmate's spelling of a socket folder."""
    return url.replace("?host=", "?socket=") + "&sslmode=disable" if "?host=/" in url else url


def race(server: Scratch, peers: Path, rounds: int) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "DBOPS_")) and k != "DATABASE_URL"}
    folder = binaries(server.major)
    if folder:
        environment["PATH"] = f"{folder}:{environment['PATH']}"
    ups: dict[str, list[float]] = {}
    statuses: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as work:
        field = contestants(Path(work), peers, COUNT)
        for number in range(rounds + 1):
            for contestant in field:
                with fresh(server) as url:
                    contestant.up(url)
                    up = timed(contestant.up(url), environment)
                    contestant.status(url)
                    looks = [timed(contestant.status(url), environment) for _ in range(3)]
                if number:  # the first round warms up
                    ups.setdefault(contestant.name, []).append(up)
                    statuses.setdefault(contestant.name, []).extend(looks)
    table(f"up, {COUNT} one-table migrations, whole process", ups)
    table(f"status, {COUNT} applied, whole process", statuses)


def table(title: str, times: dict[str, list[float]]) -> None:
    print(f"\n{title} (median of {len(next(iter(times.values())))})")
    own = statistics.median(times["dbops"])
    for name, values in times.items():
        median = statistics.median(values)
        print(
            f"  {name:<22} {median:7.3f} s   {min(values):.3f} to {max(values):.3f}   dbops/{name} = {own / median:.2f}"
        )


def import_time() -> None:
    code = "import time; t = time.perf_counter(); import dbops; print(time.perf_counter() - t)"
    values = [float(subprocess.check_output([sys.executable, "-c", code])) * 1000 for _ in range(11)]
    print(f"\nimport dbops: {statistics.median(values):.1f} ms (median of {len(values)}; the bound is 30 ms)")


def linear(server: Scratch) -> None:
    """Seconds per migration of status and plan in one process, at 500 and 5,000."""
    from dbops import MigrationManager
    from dbops.config import Settings

    print("\nstatus and plan, within the process")
    costs: dict[str, list[float]] = {"status": [], "plan": []}
    for count in (500, 5000):
        with tempfile.TemporaryDirectory() as work, fresh(server) as url:
            manager = MigrationManager(settings=Settings(url=url, migrations=write_folder(Path(work) / "sql", count)))
            began = time.perf_counter()
            manager.plan_up()
            costs["plan"].append((time.perf_counter() - began) / count)
            with psycopg.connect(url, autocommit=True):
                manager.migrate_up(count=count)
            began = time.perf_counter()
            manager.get_migration_status()
            costs["status"].append((time.perf_counter() - began) / count)
    for name, (small, large) in costs.items():
        print(
            f"  {name:<7} {small * 1e6:6.0f} µs each of 500, {large * 1e6:6.0f} µs each of 5,000: "
            f"ratio {large / small:.2f} (1 is linear)"
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--peers", type=Path, default=Path.cwd(), help="the folder with dbmate's node_modules")
    options.add_argument("--rounds", type=int, default=ROUNDS)
    chosen = options.parse_args()
    print(f"{os.cpu_count()} cores, {chosen.rounds} rounds, the contestants in turn")
    with durable(18) as server:
        print(f"\n== PostgreSQL {server.major} as it comes: commits wait for the disk")
        race(server, chosen.peers, chosen.rounds)
    with scratch(18) as server:
        print(f"\n== PostgreSQL {server.major} with fsync = off: what is left is the tools' own work")
        race(server, chosen.peers, chosen.rounds)
        import_time()
        linear(server)


if __name__ == "__main__":
    main()
