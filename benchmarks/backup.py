"""Backups raced against pg_dump on one server: `python benchmarks/backup.py [--rows 1000000] [--rounds 3]`.

The data: ROWS documents of text and jsonb, and for each 100 of them 6 embeddings of 1,536 dimensions, all generated. Whole
processes that alternate, medians and their ratios printed: `create` against `pg_dump -Fc`, `-Fd -j2 -Z gzip:1`, and
`-Fd -j2 -Z zstd:1` where this pg_dump has zstd. Then what a second backup adds after 1 % appended rows and after 0.1 %
scattered updates, what 54 backups of a growing database take, and what the content hash costs.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from dbops.backup.copying import Source, copied, statement
from dbops.backup.hash import HEADER, TRAILER, row_hash
from dbops.backup.model import Name
from dbops.embedded import Scratch, binaries, start_local, stop_local

DIMENSIONS, EMBEDDINGS, USERS, VOCABULARY = 1536, 0.06, 500, 12_000
SYLLABLES = (  # noqa: SIM905
    "ba be bi bo ka ke ki ko la le li lo ma me mi mo na ne ni no ra re ri "
    "ro sa se si so ta te ti to va ve shi tion ing er ed ly est pre con dis"
).split()
TABLES = f"""
create extension vector;
create table mem_vec (id bigint primary key, user_id uuid not null, embedding vector({DIMENSIONS}) not null);
create table mem_doc (id bigint primary key, user_id uuid not null, content text not null, meta jsonb,
  created_at timestamptz not null, updated_at timestamptz);
"""
CREATE = """
import json, resource, sys
from dbops.backup.create import create
from dbops.backup.local import LocalStore
from dbops.config import Settings
from pathlib import Path
url, folder = sys.argv[1:]
made = create(url, LocalStore(Path(folder)), Settings(url=url), "manual")
peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps({"stored": made.stored_bytes, "new": made.new_bytes, "peak": peak * 1024, "rows": made.rows}))
"""


# --- data ----------------------------------------------------------------------------------------


class Data:
    """Generated rows, the same for the same seed. `first` numbers them on from earlier ones."""

    def __init__(self) -> None:
        self.chance = random.Random(1)
        chance = self.chance
        self.users = [uuid.UUID(int=chance.getrandbits(128)) for _ in range(USERS)]
        words = sorted({"".join(chance.choices(SYLLABLES, k=chance.randint(1, 4))) for _ in range(VOCABULARY * 2)})
        chance.shuffle(words)
        # Zipf's frequencies, and a dozen likely successors of each word: text as compressible as real text
        weights = [1 / rank for rank in range(1, len(words) + 1)]
        self.words = words
        self.pool = chance.choices(range(len(words)), weights, k=1_000_000)
        self.follow = [chance.choices(range(len(words)), weights, k=12) for _ in words]
        # slices of it stand for embeddings: their overlaps lie far beyond what gzip sees
        floats = array("f", (chance.gauss(0, DIMENSIONS**-0.5) for _ in range(2_000_000)))
        floats.byteswap()
        self.floats = floats.tobytes()

    def vectors(self, first: int, count: int) -> Iterator[bytes]:
        yield HEADER
        size = DIMENSIONS * 4
        for number in range(first, first + count):
            at = self.chance.randrange(len(self.floats) // 4 - DIMENSIONS) * 4
            head = struct.pack("!hiqi", 3, 8, number, 16) + self.chance.choice(self.users).bytes
            yield head + struct.pack("!iHH", 4 + size, DIMENSIONS, 0) + self.floats[at : at + size]
        yield TRAILER

    def documents(self, first: int, count: int) -> Iterator[str]:
        chance, began = self.chance, datetime(2025, 1, 1, tzinfo=UTC)
        for number in range(first, first + count):
            at = began + timedelta(seconds=number * 31 + chance.random() * 30)
            changed = r"\N" if chance.random() < 0.7 else (at + timedelta(hours=chance.random() * 100)).isoformat()
            user = self.users[int(chance.random() ** 2 * USERS)]
            yield f"{number}\t{user}\t{self._sentence()}\t{self._meta()}\t{at.isoformat()}\t{changed}\n"

    def _sentence(self) -> str:
        draw, word = self.chance.random, self.pool[int(self.chance.random() * len(self.pool))]
        words = []
        for _ in range(int(15 + draw() * 45)):
            words.append(self.words[word])
            word = self.follow[word][int(draw() * 12)] if draw() < 0.6 else self.pool[int(draw() * len(self.pool))]
        return " ".join(words).capitalize() + "."

    def _meta(self) -> str:
        choice = self.chance.choice
        topic = choice(("preference", "fact", "event", "task", "person", "place"))
        tags = f'["{choice(self.words[:300])}", "{choice(self.words[:300])}"]'
        session = f"{self.chance.getrandbits(32):08x}"
        source = choice(("chat", "email", "api", "import"))
        return f'{{"topic": "{topic}", "source": "{source}", "score": {self.chance.random():.4f}, "tags": {tags}, "session": "{session}"}}'

    def append(self, url: str, first: int, count: int) -> None:
        """`count` documents and their share of embeddings, numbered from `first` on."""
        with psycopg.connect(url, autocommit=True) as conn, conn.cursor() as cursor:
            with cursor.copy("copy mem_vec from stdin (format binary)") as copy:
                for part in self.vectors(first, round(count * EMBEDDINGS)):
                    copy.write(part)
            with cursor.copy("copy mem_doc from stdin") as copy:
                for line in self.documents(first, count):
                    copy.write(line)


def fill(url: str, data: Data, rows: int) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(TABLES.encode())
        data.append(url, 0, rows)
        conn.execute("create index on mem_doc (user_id)")
        conn.execute("create index on mem_doc (created_at)")
        conn.execute("vacuum (analyze)")
        conn.execute("checkpoint")


# --- contestants ---------------------------------------------------------------------------------


def run(command: list[str]) -> tuple[float, str]:
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    took = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return took, done.stdout


def size_of(place: Path) -> int:
    return (
        sum(each.stat().st_size for each in place.rglob("*") if each.is_file())
        if place.is_dir()
        else place.stat().st_size
    )


def create(url: str, folder: Path) -> tuple[float, dict[str, int]]:
    took, told = run([sys.executable, "-c", CREATE, url, str(folder)])
    return took, json.loads(told)


def peers(pg_dump: Path) -> dict[str, list[str]]:
    """The ways of pg_dump, without its file; zstd where it was built in."""
    found = {"pg_dump -Fc": ["-Fc"], "pg_dump -Fd -j2 -Z gzip:1": ["-Fd", "-j2", "-Z", "gzip:1"]}
    asked = [pg_dump, "-Fc", "-Z", "zstd:1", "-d", "host=/nowhere"]
    if "ompression" in subprocess.run(asked, capture_output=True, text=True, check=False).stderr:
        print("this pg_dump has no zstd: that peer does not run")
    else:
        found["pg_dump -Fd -j2 -Z zstd:1"] = ["-Fd", "-j2", "-Z", "zstd:1"]
    return found


def race(url: str, pg_dump: Path, rounds: int, folder: Path) -> Path:
    """Print times, sizes and ratios; the store of the last create."""
    ways = {"dbops": []} | peers(pg_dump)
    times: dict[str, list[float]] = {name: [] for name in ways}
    places = {name: folder / f"contestant{number}" for number, name in enumerate(ways)}
    peak = 0
    for _ in range(rounds):
        for name, options in ways.items():
            remove(places[name])
            if name == "dbops":
                took, told = create(url, places[name])
                peak = max(peak, told["peak"])
            else:
                took, _ = run([str(pg_dump), *options, "-f", str(places[name]), "-d", url])
            times[name].append(took)
    ours, bytes_of = statistics.median(times["dbops"]), {name: size_of(place) for name, place in places.items()}
    for name in ways:
        median, size = statistics.median(times[name]), bytes_of[name]
        faster, part = median / ours, bytes_of["dbops"] / size
        print(
            f"{name:28} {median:7.2f} s {size / 1e6:8.1f} MB   create {faster:5.2f} x as fast, {part:.2f} of its bytes"
        )
    print(f"largest process of create: {peak / 1e6:.0f} MB")
    return places["dbops"]


def remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


# --- what else is promised -----------------------------------------------------------------------


def json_lines(url: str) -> int:
    """Bytes of all rows as JSON lines."""
    with psycopg.connect(url) as conn:
        query = "select sum(octet_length(row_to_json(t)::text) + 1)::bigint from {} t"
        return sum(conn.execute(query.format(name).encode()).fetchall()[0][0] for name in ("mem_vec", "mem_doc"))


def nights(url: str, store: Path, data: Data, rows: int) -> None:
    """What a second backup adds."""
    full = create(url, store)[1]["stored"]
    data.append(url, rows, rows // 100)
    took, told = create(url, store)
    print(f"after 1 % appended: {told['new'] / full:6.2%} new bytes, {took:.2f} s")
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("update mem_doc set updated_at = now() where id % 1000 = 7")
    took, told = create(url, store)
    print(f"after 0.1 % of the documents updated, scattered: {told['new'] / full:6.2%} new bytes, {took:.2f} s")


def year(url: str, store: Path, data: Data, rows: int) -> None:
    """54 backups, as the tiers of a year keep them, of a database that grows by half a percent from one to the next."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("drop table mem_vec, mem_doc; drop extension vector")
    fill(url, data, rows)
    for night in range(54):
        told = create(url, store)[1]
        data.append(url, rows + night * (rows // 200), rows // 200)
    print(
        f"54 backups of a growing database: {size_of(store) / told['stored']:.2f} x the bytes of the newest one alone"
    )


def hash_cost(url: str) -> None:
    """Reading all rows with and without the content hash, alternating."""
    took: dict[bool, list[float]] = {True: [], False: []}
    with psycopg.connect(url) as conn:
        for hashed in [True, False] * 3:
            began = time.perf_counter()
            rows = 0
            for name in ("mem_vec", "mem_doc"):
                columns = (
                    ("id", "user_id", "embedding")
                    if name == "mem_vec"
                    else ("id", "user_id", "content", "meta", "created_at")
                )
                source = Source(Name("public", name), columns, "binary", 1 << 20)
                rows += sum(1 for row in copied(conn, statement(source, None), "binary") if not hashed or row_hash(row))
            took[hashed].append(time.perf_counter() - began)
    with_it, without = (statistics.median(took[hashed]) for hashed in (True, False))
    print(
        f"content hash: {with_it - without:.2f} s of one process for {rows:,} rows ({with_it:.2f} s with, {without:.2f} s without)"
    )


@contextmanager
def durable(major: int) -> Iterator[Scratch]:
    """A server with PostgreSQL's own defaults, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="dbops-bench-") as folder:
        data = Path(folder) / "data"
        server = start_local(data, major)
        try:
            yield Scratch(server.url, major, "embedded", "")
        finally:
            stop_local(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="documents; 6 embeddings for each 100 of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--race-only", action="store_true")
    parser.add_argument("--pg-dump", type=Path, help="the peer (default: the embedded server's)")
    options = parser.parse_args()
    programs = binaries(18)
    pg_dump = options.pg_dump or (programs / "pg_dump" if programs else Path(shutil.which("pg_dump") or "pg_dump"))
    data = Data()
    with durable(18) as server, tempfile.TemporaryDirectory(prefix="dbops-bench-") as name, server.database() as url:
        fill(url, data, options.rows)
        store = race(url, pg_dump, options.rounds, Path(name))
        plain = json_lines(url)
        print(f"as JSON lines {plain / 1e6:.1f} MB: the backup is {1 - size_of(store) / plain:.0%} smaller")
        if options.race_only:
            return
        hash_cost(url)
        nights(url, store, data, options.rows)
        year(url, Path(name) / "year", data, options.rows // 5)


if __name__ == "__main__":
    main()
