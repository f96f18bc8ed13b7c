"""Duplicates: how fast they are found, how many, and what a token set costs; with MinHash LSH (datasketch) as the peer.

    python benchmarks/hygiene.py                     a million facts of 10,000 users
    python benchmarks/hygiene.py --rows 100000 --peer-users 20

Facts are generated: 5 to 20 words of a Zipf vocabulary, users as unequal as they are (the largest has a 20th of all, at
most 50,000), a fifth of the facts a near-duplicate of another of the same user. Recall and precision are against brute
force: every pair of the sampled users compared in numpy.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, LiteralString

import numpy as np
import psycopg

from dbops.config import Settings
from dbops.embedded import scratch
from dbops.hygiene import HygieneManager
from dbops.hygiene.semantic import semantic_pairs
from dbops.hygiene.session import opened
from dbops.migrate import MigrationManager
from dbops.sql import shipped

Connection = psycopg.Connection[Any]
THRESHOLD = 0.85
SETS = "select count(*) from public.find_duplicate_sets(%s, %s)"
PAIRS = "select a, b from public.find_duplicate_pairs(%s, %s)"
TRIGGER: dict[str, LiteralString] = {
    "without": "alter table public.user_memories disable trigger user_memories_tokens_insert",
    "with": "alter table public.user_memories enable trigger user_memories_tokens_insert",
}
INSERT = "insert into public.user_memories (user_id, id, fact, memory_type) select user_id, id, fact, 'fact' from facts where n > %s and n <= %s order by n"


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def told(what: str, took: float, bound: float, unit: str = "s") -> None:
    print(f"  {what:<58} {took:9.2f} {unit}   bound {bound:g}: {'met' if took <= bound else 'MISSED'}", flush=True)


# --- data ----------------------------------------------------------------------------------------


def facts(rows: int, seed: int = 7) -> list[tuple[int, str]]:
    """(user's number, fact), the largest user first."""
    rng = np.random.default_rng(seed)
    users, largest = max(20, rows // 100), min(50_000, rows // 20)
    weight = 1 / np.arange(1, users) ** 0.6
    owner = np.concatenate([np.zeros(largest, int), 1 + rng.choice(users - 1, rows - largest, p=weight / weight.sum())])
    owner.sort()
    zipf = 1 / np.arange(1, 60_001)
    lengths = rng.integers(5, 21, rows)
    draw = np.searchsorted(np.cumsum(zipf / zipf.sum()), rng.random(lengths.sum() + 10)).clip(0, 59_999)
    ends = np.cumsum(lengths)
    found: list[tuple[int, str]] = []
    own: list[list[int]] = []
    last = -1
    for number, user in enumerate(owner):
        if user != last:
            own, last = [], int(user)
        words = draw[ends[number] - lengths[number] : ends[number]].tolist()
        if own and rng.random() < 0.2:
            words = near(rng, own[int(rng.integers(len(own)))], words[0])
        else:
            own.append(words)
        found.append((int(user), " ".join(f"w{word:x}" for word in words).capitalize() + "."))
    return found


def near(rng: np.random.Generator, words: Sequence[int], other: int) -> list[int]:
    """The words again, shuffled, or with one replaced, dropped or added."""
    again, place = list(words), int(rng.integers(len(words)))
    way = rng.random()
    if way < 0.5:
        rng.shuffle(again)
    elif way < 0.75:
        again[place] = other
    elif way < 0.9:
        del again[place]
    else:
        again.insert(place, other)
    return again


def user_id(number: int) -> uuid.UUID:
    return uuid.UUID(int=number + 1)


def add(conn: Connection, rows: Sequence[tuple[int, str]]) -> None:
    """Into the table `facts`, from which they are inserted."""
    with conn.cursor().copy("copy facts (user_id, id, fact) from stdin") as copy:
        for user, fact in rows:
            copy.write_row((user_id(user), uuid.uuid4(), fact))
    conn.execute("insert into auth.users (id) select distinct user_id from facts on conflict do nothing")
    conn.execute("analyze facts")


# --- what is measured ----------------------------------------------------------------------------


def trigger(conn: Connection, rows: int, rounds: int) -> None:
    part = min(rows // 2, 100_000)
    times: dict[str, list[float]] = {"without": [], "with": []}
    for number in range(rounds * 2):
        state = ("without", "with")[number % 2]
        conn.execute("truncate public.user_memories cascade")
        conn.execute(TRIGGER[state])
        times[state].append(seconds(lambda: conn.execute(INSERT.encode(), (0, part))))
    middle = {state: statistics.median(took) for state, took in times.items()}
    for state, took in times.items():
        spread = f"{middle[state]:.2f} s   {min(took):.2f} to {max(took):.2f}"
        print(f"  {part:,} memories in one INSERT, {state} the trigger: {spread}")
    told("the trigger's cost, of the insert without it", (middle["with"] / middle["without"] - 1) * 100, 30, "%")
    conn.execute("truncate public.user_memories cascade")


def fill(conn: Connection, rows: int) -> None:
    conn.execute(TRIGGER["without"])
    conn.execute(INSERT.encode(), (0, rows))
    conn.execute(TRIGGER["with"])
    conn.execute("vacuum analyze public.user_memories")
    conn.execute("drop index public.memory_tokens_size")
    longest = 0.0

    def whole() -> None:
        nonlocal longest
        left = 1
        while left:
            began = time.perf_counter()
            left = conn.execute("select public.fill_memory_tokens(10000)").fetchone()[0]  # type: ignore[index]
            longest = max(longest, time.perf_counter() - began)
        conn.execute("create index memory_tokens_size on public.memory_tokens (user_id, words, sketch)")

    told(f"token sets of {rows:,} memories that were there", seconds(whole), 60)
    print(f"    the longest of its transactions took {longest:.2f} s")
    conn.execute("vacuum analyze public.memory_tokens")


def finding(conn: Connection, sizes: Sequence[tuple[uuid.UUID, int]]) -> None:
    largest, typical = sizes[0], sizes[len(sizes) // 2]

    def everybody() -> None:
        for user, _ in sizes:
            conn.execute(SETS, (user, THRESHOLD))

    told(f"all {len(sizes):,} users, {sum(n for _, n in sizes):,} facts", seconds(everybody), 15)
    told(f"the largest user, {largest[1]:,} facts", seconds(lambda: conn.execute(SETS, (largest[0], THRESHOLD))), 1)
    times = [seconds(lambda: conn.execute(SETS, (typical[0], THRESHOLD))) * 1000 for _ in range(50)]
    told(f"a typical user, {typical[1]:,} facts", statistics.median(times), 20, "ms")


def others(conn: Connection, rows: int) -> None:
    """An adversary, who has few words, and one who says one thing again and again."""
    rng = np.random.default_rng(1)
    few, same = 10**7, 10**7 + 1
    count = min(rows // 20, 50_000)
    said = [rng.integers(0, 500, int(rng.integers(5, 21))).tolist() for _ in range(count)]
    for number in range(1, count, 5):
        said[number] = near(rng, said[int(rng.integers(number))], int(rng.integers(500)))
    add(conn, [(few, " ".join(f"w{word}" for word in words)) for words in said])
    add(conn, [(same, "the user likes green tea in the morning")] * min(rows // 50, 20_000))
    conn.execute(INSERT.encode(), (rows, 10**9))
    conn.execute("vacuum analyze public.memory_tokens")
    told(f"a user with {count:,} facts of 500 words", seconds(lambda: conn.execute(SETS, (user_id(few), THRESHOLD))), 3)
    told(
        f"a user with {min(rows // 50, 20_000):,} equal facts",
        seconds(lambda: conn.execute(SETS, (user_id(same), THRESHOLD))),
        1,
    )


def whole(url: str) -> None:
    """What the command does: found, planned and marked, of the one who says one thing again and again."""
    hygiene, user = HygieneManager(url), str(user_id(10**7 + 1))
    plan = None

    def planned() -> None:
        nonlocal plan
        plan = hygiene.scan(user)

    found = seconds(planned)
    print(f"  that user's deduplication: planned in {found:.2f} s")
    told("  planned and marked", found + seconds(lambda: hygiene.dedupe(plan)), 1)


def meanings(conn: Connection, url: str, count: int) -> None:
    """Pairs by cosine similarity within users of 100 memories each, 384 dimensions."""
    rng = np.random.default_rng(3)
    conn.execute("insert into public.embedding_models (model, dimensions) values ('bench', 384)")
    first = 2 * 10**7
    add(conn, [(first + n // 100, f"meaning {n}") for n in range(count)])
    conn.execute(
        "insert into public.user_memories (user_id, id, fact, memory_type) select user_id, id, fact, 'fact' from facts f"
        " where f.fact like 'meaning %%' on conflict do nothing"
    )
    ids = conn.execute("select user_id, id from facts where fact like 'meaning %%' order by n").fetchall()
    with conn.cursor().copy(
        "copy public.memory_embeddings (user_id, memory_id, model, dimensions, embedding) from stdin"
    ) as copy:
        for user, memory in ids:
            vector = rng.standard_normal(384).astype(np.float32)
            copy.write_row((user, memory, "bench", 384, "[" + ",".join(f"{v:.4f}" for v in vector) + "]"))
    conn.execute("analyze public.memory_embeddings")
    users = sorted({str(user) for user, _ in ids})
    with opened(url, Settings(url=url), "benchmark") as session, session.transaction(read_only=True):
        took = seconds(lambda: semantic_pairs(session, users, 0.9, None))
    told(f"pairs by meaning, {count:,} x 384 of {len(users):,} users", took, 5)


def lookups(conn: Connection, user: uuid.UUID) -> None:
    asked = conn.execute(
        "select fact from public.user_memories where user_id = %s order by id limit 300", (user,)
    ).fetchall()
    conn.execute(
        "create policy own on public.memory_tokens for select to authenticated using (user_id = (select auth.uid()))"
    )
    query = "select * from public.find_duplicate_memories(%s, %s)"
    for who, bound in (("an operator", 5), ("the user, under row level security", 5)):
        times = []
        with conn.transaction():
            if who != "an operator":
                conn.execute("select set_config('request.jwt.claim.sub', %s, true)", (str(user),))
                conn.execute("set local role authenticated")
            for (fact,) in asked:
                times.append(seconds(lambda fact=fact: conn.execute(query.encode(), (user, fact)).fetchall()) * 1000)  # type: ignore[misc]
        times = sorted(times[10:])
        told(f"one lookup among the largest user's, {who}: p95", times[len(times) * 95 // 100], bound, "ms")
        print(f"    p50 {statistics.median(times):.2f} ms")


# --- recall, and the peer ------------------------------------------------------------------------


def brute_force(sets: Sequence[tuple[uuid.UUID, Sequence[str]]]) -> set[tuple[uuid.UUID, uuid.UUID]]:
    """Every pair, as products of incidence matrices."""
    place: dict[str, int] = {}
    rows = [[place.setdefault(word, len(place)) for word in words] for _, words in sets]
    has = np.zeros((len(rows), len(place)), np.float32)
    for number, words in enumerate(rows):
        has[number, words] = 1
    sizes = has.sum(1)
    both = has @ has.T
    similar = both.astype(float) / (sizes[:, None] + sizes[None, :] - both) >= THRESHOLD
    first, second = np.nonzero(np.triu(similar, 1))
    return {ordered(sets[a][0], sets[b][0]) for a, b in zip(first, second, strict=True)}


def sampled(conn: Connection, user: uuid.UUID, what: str, count: int = 500) -> None:
    """Recall and precision for some facts of a large user, each compared with all of his: shared words are counted."""
    sets = conn.execute(
        "select memory_id, tsvector_to_array(tokens) from public.memory_tokens where user_id = %s and words > 0",
        (user,),
    ).fetchall()
    places: dict[str, list[int]] = defaultdict(list)
    for number, (_, words) in enumerate(sets):
        for word in words:
            places[word].append(number)
    holders = {word: np.array(numbers) for word, numbers in places.items()}
    sizes = np.array([len(words) for _, words in sets])
    sample = np.random.default_rng(5).choice(len(sets), min(count, len(sets)), replace=False)
    truth = set()
    for number in sample:
        memory, words = sets[number]
        both = np.zeros(len(sets))
        for word in words:
            both[holders[word]] += 1
        similar = both / (len(words) + sizes - both) >= THRESHOLD
        truth |= {ordered(memory, sets[other][0]) for other in np.flatnonzero(similar) if other != number}
    chosen = {sets[number][0] for number in sample}
    found = {(a, b) for a, b in conn.execute(PAIRS, (user, THRESHOLD)).fetchall() if a in chosen or b in chosen}
    right = len(found & truth)
    recall, precision = right / max(len(truth), 1), right / max(len(found), 1)
    print(
        f"  {len(sample)} facts of {what} against all {len(sets):,} of his: {len(truth):,} pairs, recall {recall:.4f}, precision {precision:.4f}"
    )


def ordered(a: uuid.UUID, b: uuid.UUID) -> tuple[uuid.UUID, uuid.UUID]:
    return (a, b) if a < b else (b, a)


def minhash(sets: Sequence[tuple[uuid.UUID, Sequence[str]]]) -> set[tuple[uuid.UUID, uuid.UUID]]:
    """datasketch's way: 128 permutations, candidates of the LSH verified exactly."""
    from datasketch import MinHash, MinHashLSH

    lsh, hashes = MinHashLSH(threshold=THRESHOLD, num_perm=128), {}
    words_of = {memory: frozenset(words) for memory, words in sets}
    bulk = MinHash.bulk([[w.encode() for w in words] for _, words in sets], num_perm=128)
    for (memory, _), one in zip(sets, bulk, strict=True):
        hashes[memory] = one
        lsh.insert(memory, one)
    found = set()
    for memory, one in hashes.items():
        for other in lsh.query(one):
            x, y = words_of[memory], words_of[other]
            if other > memory and len(x & y) / len(x | y) >= THRESHOLD:
                found.add((memory, other))
    return found


def against(conn: Connection, users: Sequence[tuple[uuid.UUID, int]]) -> None:
    truth, ours, theirs = set(), set(), set()
    took = {"ours": 0.0, "theirs": 0.0}
    for user, _ in users:
        sets = [
            (row[0], row[1])
            for row in conn.execute("select memory_id, tsvector_to_array(tokens) from public.memory_tokens where user_id = %s and words > 0", (user,))
        ]  # fmt: skip
        truth |= brute_force(sets)
        took["ours"] += seconds(lambda user=user: ours.update(conn.execute(PAIRS, (user, THRESHOLD)).fetchall()))  # type: ignore[misc]
        took["theirs"] += seconds(lambda sets=sets: theirs.update(minhash(sets)))  # type: ignore[misc]
    print(f"  {len(users)} users, {sum(n for _, n in users):,} facts, {len(truth):,} pairs by brute force")
    for name, found in (("ours", ours), ("theirs", theirs)):
        right = len(found & truth)
        recall, precision = right / max(len(truth), 1), right / max(len(found), 1)
        title = {"ours": "find_duplicate_pairs", "theirs": "datasketch MinHash LSH"}[name]
        print(f"  {title:<24} {took[name]:7.2f} s   recall {recall:.4f}   precision {precision:.4f}")
    told("MinHash LSH's time / ours: at least 10", 10 / (took["theirs"] / took["ours"]), 1, "of it")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--rounds", type=int, default=7, help="of the bulk insert")
    options.add_argument("--peer-users", type=int, default=200, help="users compared with brute force and the peer")
    chosen = options.parse_args()
    print(f"{os.cpu_count()} cores; threshold {THRESHOLD}")
    with scratch(18) as server, server.database() as url:
        MigrationManager(settings=Settings(url=url, migrations=shipped("migrations/sql"))).migrate_up()
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(
                "create unlogged table facts (n bigint generated always as identity primary key, user_id uuid, id uuid, fact text)"
            )
            add(conn, facts(chosen.rows))
            print("\nkeeping the word sets")
            trigger(conn, chosen.rows, chosen.rounds)
            fill(conn, chosen.rows)
            sizes = conn.execute(
                "select user_id, count(*) from public.memory_tokens group by 1 order by 2 desc, 1"
            ).fetchall()
            print("\nfinding")
            finding(conn, sizes)
            others(conn, chosen.rows)
            lookups(conn, sizes[0][0])
            whole(url)
            print("\nrecall, and the peer on the same facts")
            small = [size for size in sizes if size[1] <= 2000]
            against(conn, small[:: max(len(small) // chosen.peer_users, 1)][: chosen.peer_users])
            sampled(conn, sizes[0][0], "the largest user")
            sampled(conn, user_id(10**7), "the one with 500 words")
            print()
            meanings(conn, url, chosen.rows // 10)


if __name__ == "__main__":
    main()
