"""A whole restore raced against pg_restore on one server: `python benchmarks/backup_restore.py [--rows 1000000] [--rounds 3]`.

The data and their indexes are those of benchmarks/backup.py. Whole processes that alternate, each into a new database on a
server with PostgreSQL's own defaults: `restore_whole` with two workers, which analyses the tables as well, and
`pg_restore -j2` of a `-Fd` dump, alone and with the ANALYZE that it leaves to others. Medians and ratios are printed (bound:
2.5 x as fast as pg_restore alone), and that both hold the same rows. Then one user's rows, deleted and brought back into the
live tables, plan and all (bound: 10 s).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from backup import Data, create, durable, fill, run

from dbops.embedded import Scratch, binaries

RESTORE = """
import sys
from pathlib import Path
from dbops.backup.local import LocalStore
from dbops.backup.manifest import read_all
from dbops.backup.restore import restore_whole
from dbops.config import Settings

url, folder = sys.argv[1:]
store = LocalStore(Path(folder))
restore_whole(read_all(store)[0][-1], store, url, Settings(url=url))
"""
CONTENT = """
select (select count(*) from mem_vec), (select count(*) from mem_doc),
  (select sum(hashtextextended(d::text, 0)::numeric) from mem_doc d), (select sum(hashtextextended(v::text, 0)::numeric) from mem_vec v),
  (select count(*) from pg_index i join pg_class c on c.oid = indrelid and c.relname ~ '^mem_' where i.indisvalid)
"""
ONE_USER = """
import sys
from dbops.backup import BackupManager

url, folder, user = sys.argv[1:]
manager = BackupManager(url, folder)
print(sum(table.written for table in manager.restore_from_backup("latest", user=user, mode="missing").tables))
"""
OURS, PEER, WITH_ANALYZE = "dbops", "pg_restore -j2", "pg_restore -j2, ANALYZE"


@contextmanager
def settled(server: Scratch) -> Iterator[str]:
    """A new database on a server that has nothing else to write."""
    with server.database() as url:
        ask(url, "checkpoint")
        yield url


def ask(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as conn:
        cursor = conn.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


def race(server: Scratch, dump: Path, store: Path, rounds: int, content: object) -> dict[str, list[float]]:
    programs = binaries(server.major)
    assert programs
    times: dict[str, list[float]] = {OURS: [], PEER: [], WITH_ANALYZE: []}
    for _ in range(rounds):
        with settled(server) as url:
            times[OURS].append(run([sys.executable, "-c", RESTORE, url, str(store)])[0])
            assert ask(url, CONTENT) == content
        with settled(server) as url:
            alone = run([str(programs / "pg_restore"), "-j2", "-d", url, str(dump)])[0]
            times[PEER].append(alone)
            times[WITH_ANALYZE].append(alone + run([str(programs / "psql"), "-qc", "analyze", "-d", url])[0])
            assert ask(url, CONTENT) == content
    return times


def one_user(url: str, store: Path, rounds: int) -> None:
    """The user with the most rows loses all of them, and gets them back."""
    [(user, rows)] = ask(url, "select user_id::text, count(*) from mem_doc group by 1 order by 2 desc limit 1")
    taken = []
    for _ in range(rounds):
        gone = sum(
            int(
                str(
                    ask(
                        url,
                        f"with d as (delete from {table} where user_id = '{user}' returning 1) select count(*) from d",
                    )[0][0]
                )
            )
            for table in ("mem_doc", "mem_vec")
        )
        took, written = run([sys.executable, "-c", ONE_USER, url, str(store), str(user)])
        assert int(written) == gone, (written, gone)
        taken.append(took)
    print(f"one user's {gone:,} rows ({rows:,} of them documents) brought back: {statistics.median(taken):.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="documents; 6 embeddings for each 100 of them")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    programs = binaries(18)
    assert programs, "the embedded PostgreSQL is not installed"
    with durable(18) as server, tempfile.TemporaryDirectory(prefix="dbops-bench-") as name:
        folder = Path(name)
        with server.database() as url:
            fill(url, Data(), options.rows)
            create(url, folder / "store")
            run([str(programs / "pg_dump"), "-Fd", "-j2", "-Z", "gzip:1", "-f", str(folder / "dump"), "-d", url])
            content = ask(url, CONTENT)
            one_user(url, folder / "store", options.rounds)
            assert ask(url, CONTENT) == content
        times = race(server, folder / "dump", folder / "store", options.rounds, content)
    ours = statistics.median(times[OURS])
    for way, taken in times.items():
        print(
            f"{way:28} {statistics.median(taken):7.2f} s   restore is {statistics.median(taken) / ours:5.2f} x as fast"
        )


if __name__ == "__main__":
    main()
