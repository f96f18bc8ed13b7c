"""What row level security costs, and what proving it costs: `python benchmarks/policy.py [--rounds N] [--rows N] [--tables N]`.

1. The memory schema with its policies, `--rows` memories: the same queries as a signed-in user under RLS, and as a superuser
   with `WHERE user_id = $1` and no RLS; the runs alternate, the medians and their ratio are printed (bound 1.1), once with the
   statement planned each time and once prepared.
2. An attack from nothing (a server started, a schema built, policies applied, everything attacked): the memory schema
   (bound 3 s), and `--attacked` tables of their own (bound 10 s).
3. A plan for `--tables` tables of which nothing is applied, and one of which all is (bound 2 s).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg

from dbops.config import Settings
from dbops.embedded import Scratch, scratch
from dbops.migrate import MigrationManager
from dbops.policy import PolicyManager
from dbops.policy.attack import attack
from dbops.policy.attack.result import Report
from dbops.policy.catalog import load_catalog
from dbops.sql import shipped

PER_USER = 1000
Connection = psycopg.Connection[Any]
# what a user does, with and without the condition that the policy adds by itself
QUERIES = {
    "count his own": "select count(*) from public.user_memories",
    "the 20 newest": "select id, fact from public.user_memories {} order by created_at desc limit 20",
    "one by its id": "select fact from public.user_memories {} and id = %(id)s",
    "words in facts": "select count(*) from public.user_memories {} and fact_words @@ to_tsquery('english', 'number')",
    "update one": "update public.user_memories set importance = 4 {} and id = %(id)s",
}


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def told(title: str, values: Sequence[float], bound: float) -> None:
    median = statistics.median(values)
    verdict = "holds" if median <= bound else "BROKEN"
    print(f"  {title:<44} {median:7.2f} s   {min(values):.2f} to {max(values):.2f}   bound {bound:g} s: {verdict}")


# --- 1: what RLS costs ---------------------------------------------------------------------------


def memories(url: str, rows: int) -> tuple[str, str]:
    """Users with 1,000 memories each, one of them with a tenth of all; that one, and one of his memories."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("set session_replication_role = replica")  # the triggers of a million rows are not measured here
        conn.execute(
            "insert into auth.users (id) select gen_random_uuid() from generate_series(1, %s)",
            [max(rows * 9 // 10 // PER_USER, 1)],
        )
        conn.execute(
            "insert into public.user_memories (user_id, fact, memory_type, created_at) "
            "select u.id, 'the fact of number ' || n, 'fact', now() - n * interval '1 s' "
            "from auth.users u, generate_series(1, %s) n",
            [min(rows, PER_USER)],
        )
        conn.execute(
            "insert into public.user_memories (user_id, fact, memory_type, created_at) "
            "select (select min(id::text)::uuid from auth.users), 'the fact of number ' || n, 'fact', "
            "now() - interval '1 day' - n * interval '1 s' from generate_series(1, %s) n",
            [rows // 10],
        )
        conn.execute("vacuum analyze public.user_memories")
        found = conn.execute("select user_id, id from public.user_memories order by user_id limit 1").fetchone()
    assert found is not None
    return str(found[0]), str(found[1])


def statement(text: str, *, guarded: bool) -> str:
    """The query under RLS, or with the condition written out."""
    own = "where true" if guarded else "where user_id = %(user)s"
    return text.format(own) if "{}" in text else f"{text} {own}"


def race(url: str, user: str, memory: str, rounds: int, *, prepared: bool) -> None:
    # a connection each: with a prepared statement the role belongs to the plan
    with psycopg.connect(url, autocommit=True) as own, psycopg.connect(url, autocommit=True) as operator:
        for name, text in QUERIES.items():
            times: dict[bool, list[float]] = {True: [], False: []}
            results: dict[bool, object] = {}
            for number in range(rounds * 20 + 10):
                for guarded in (True, False) if number % 2 else (False, True):
                    conn, query = (own if guarded else operator), statement(text, guarded=guarded)
                    took, results[guarded] = one(conn, query, user, memory, guarded=guarded, prepared=prepared)
                    if number >= 10:  # the first ones warm up
                        times[guarded].append(took)
            if results[True] != results[False]:
                raise SystemExit(f"{name}: not the same rows with and without RLS")
            under, without = statistics.median(times[True]) * 1000, statistics.median(times[False]) * 1000
            print(f"  {name:<18} {under:8.3f} ms with RLS, {without:8.3f} ms without: ratio {under / without:.2f}")


def one(conn: Connection, text: str, user: str, memory: str, *, guarded: bool, prepared: bool) -> tuple[float, object]:
    """One query in a transaction of its own; that of a user sets role and claims first, which is not timed."""
    # committed: psycopg forgets what is prepared after a rollback
    with conn.transaction():
        if guarded:
            conn.execute("select set_config('request.jwt.claims', %s, true)", [f'{{"sub": "{user}"}}'])
            conn.execute("set local role authenticated")
        began = time.perf_counter()
        cursor = conn.execute(text.encode(), {"user": user, "id": memory}, prepare=prepared)
        result = cursor.fetchall() if cursor.description else cursor.rowcount
        return time.perf_counter() - began, result


# --- 2: an attack from nothing -------------------------------------------------------------------


def made_up(folder: Path, count: int) -> Settings:
    """Tables of users' rows: a migration each hundred, and a definition."""
    sql, policies = folder / "sql", folder / "policies"
    sql.mkdir(parents=True)
    policies.mkdir()
    first = shipped("migrations/sql") / "20250101_000000_supabase_compatibility.sql"
    (sql / first.name).write_text(first.read_text(encoding="utf-8"))
    tables = [
        f"create table public.t{n} (user_id uuid not null, id int generated always as identity, note text not null, "
        f"done boolean not null default false, primary key (user_id, id));"
        for n in range(count)
    ]
    for start in range(0, count, 100):
        body = "\n".join(tables[start : start + 100])
        (sql / f"20250102_{start:06}_tables.sql").write_text(f"-- migrate:up\n{body}\n")
    rules = "".join(f'[table."public.t{n}"]\nowner = "user_id"\nimmutable = ["user_id"]\n' for n in range(count))
    (policies / "all.toml").write_text(f'version = 1\nauth = "supabase"\n{rules}')
    return Settings(migrations=sql, policies=policies)


def shipped_memory() -> Settings:
    return Settings(migrations=shipped("migrations/sql"), policies=shipped("policies"))


def build(settings: Settings, url: str) -> PolicyManager:
    here = replace(settings, url=url)
    MigrationManager(settings=here).migrate_up()
    manager = PolicyManager(settings=here)
    manager.apply()
    return manager


def from_nothing(settings: Settings) -> Report:
    with scratch(18) as server, server.database() as url:
        manager = build(settings, url)
        with psycopg.connect(url, autocommit=True) as conn:
            return attack(conn, manager.definitions(), load_catalog(conn), server_version="18", server_kind=server.kind)


def attacks(title: str, settings: Settings, rounds: int, bound: float) -> None:
    reports: list[Report] = []
    times = [seconds(lambda: reports.append(from_nothing(settings))) for _ in range(rounds)]
    last = reports[-1]
    told(f"{title}: {len(last.tables)} tables, {last.attacks:,} attacks", times, bound)
    if last.verdict != "isolated":
        print(f"    the verdict is {last.verdict}: {len(last.leaks)} leaks, {len(last.vacuous)} vacuous")


# --- 3: a plan -----------------------------------------------------------------------------------


def plans(server: Scratch, settings: Settings, tables: int, rounds: int) -> None:
    with server.database() as url:
        here = replace(settings, url=url)
        MigrationManager(settings=here).migrate_up()
        manager = PolicyManager(settings=here)
        told(f"plan, {tables:,} tables, nothing applied", [seconds(manager.plan) for _ in range(rounds)], 2)
        took = seconds(manager.apply)
        told(f"plan, {tables:,} tables, all applied", [seconds(manager.plan) for _ in range(rounds)], 2)
        print(f"  (apply took {took:.2f} s)")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--rows", type=int, default=1_000_000, help="memories (default 1,000,000)")
    options.add_argument("--attacked", type=int, default=100, help="tables that are attacked (default 100)")
    options.add_argument("--tables", type=int, default=1000, help="tables of the plan (default 1,000)")
    chosen = options.parse_args()
    print(f"{os.cpu_count()} cores, {chosen.rounds} rounds")
    with tempfile.TemporaryDirectory() as work:
        with scratch(18) as server:
            with server.database() as url:
                build(shipped_memory(), url)
                user, memory = memories(url, chosen.rows)
                print(f"\nRLS against WHERE user_id = $1, {chosen.rows:,} memories (the bound is a ratio of 1.1)")
                for prepared in (False, True):
                    print(f" {'prepared once' if prepared else 'planned each time'}")
                    race(url, user, memory, chosen.rounds, prepared=prepared)
            print("\nplanning")
            plans(server, made_up(Path(work) / "planned", chosen.tables), chosen.tables, chosen.rounds)
        print("\nattack from nothing: server, schema, policies, attack")
        attacks("memory schema", shipped_memory(), chosen.rounds, 3)
        attacks("one after another", made_up(Path(work) / "attacked", chosen.attacked), chosen.rounds, 10)


if __name__ == "__main__":
    main()
