"""A merge taken back: exactly, or not at all; and the property of all modes over random harm."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from dbops.backup.merge import undo
from dbops.errors import DbopsError, DifferenceFound, UsageError
from tests.backup_snapshot import Shop, open_shop, role

TABLES = ("person", "note", "part", "remark", "log", "event")
SCHEMA = """
create type mood as enum ('good', 'bad');
create domain short as text check (length(value) < 40);
create table person (user_id int primary key, name text, unique (user_id, name));
create table note (
  user_id int not null references person on delete cascade, id int generated always as identity, body short, data json,
  price numeric, at timestamptz, how mood, twice int generated always as (user_id * 2) stored,
  best int, primary key (user_id, id), unique (user_id, body), foreign key (user_id, best) references note);
create table part (
  id bigserial primary key, u int, n int, x float8, raw bytea, tags text[],
  foreign key (u, n) references note on delete cascade);
create table remark (id text collate "C" primary key, user_id int references person on delete set null, said jsonb);
create table log (user_id int, what json);
create table event (user_id int, id int, what text, primary key (user_id, id)) partition by list (user_id);
create table event_1 partition of event for values in (1, 2);
create table event_2 (what text, id int not null, user_id int not null);
alter table event attach partition event_2 default;
create function forbid() returns trigger language plpgsql as $$ begin raise 'a trigger fired'; end $$;
"""
TRIGGERS = "".join(
    f"create trigger never before insert or update or delete on {table} for each row execute function forbid();"
    for table in TABLES
)


def edit(conn: psycopg.Connection[Any], chance: random.Random) -> None:
    """One random change, if the rules allow it."""
    user, number = chance.randint(1, 4), chance.randint(1, 6)
    choices = [
        "insert into person values (%(u)s, %(t)s)",
        "update person set name = %(t)s where user_id = %(u)s",
        "delete from person where user_id = %(u)s",
        "insert into note (user_id, body, data, price, at, how) values (%(u)s, %(t)s, '{\"a\": 1, \"a\":  2}', 1.50, 'infinity', 'bad')",
        "insert into note (user_id, body, price, at) values (%(u)s, null, 'NaN', '2025-03-30 02:30+00')",
        "update note set body = %(t)s, price = 1.5 where user_id = %(u)s and id %% 3 = %(n)s %% 3",
        "update note set best = (select max(id) from note n where n.user_id = note.user_id) where user_id = %(u)s",
        "delete from note where user_id = %(u)s and id %% 2 = %(n)s %% 2",
        "insert into part (u, n, x, raw, tags) select user_id, id, 0.1 + 0.2, '\\x00ff', array[%(t)s, null, ''] from note limit %(n)s",
        "update part set x = '-0', u = null where id %% 5 = %(n)s",
        "delete from part where id %% 3 = %(n)s %% 3",
        "insert into remark values (%(t)s, (select min(user_id) from person), '[1.0]')",
        "delete from remark where id = %(t)s",
        "insert into log values (%(u)s, '{\"x\":  1}'), (%(u)s, '{\"x\":  1}'), (null, null)",
        "delete from log where ctid in (select ctid from log limit %(n)s)",
        "insert into event values (%(u)s, %(n)s, %(t)s)",
        "update event set what = %(t)s, user_id = 1 + user_id %% 4 where id = %(n)s",
        "delete from event where id = %(n)s",
    ]
    values = {"u": user, "n": number, "t": f"text {chance.randint(1, 5)}"}
    with suppress(psycopg.errors.IntegrityError):
        conn.execute(chance.choice(choices).encode(), values)


@pytest.fixture
def shop(make_database: Callable[..., str], tmp_path: Path) -> Iterator[Shop]:
    with open_shop(make_database("empty"), tmp_path, TABLES) as shop:
        yield shop


@pytest.fixture
def small(shop: Shop) -> Shop:
    shop.run(
        "create table note (id int primary key, body text); insert into note select n, 'body ' || n from generate_series(1, 5) n;"
        "create table log (what text); insert into log select 'line' from generate_series(1, 4)"
    )
    shop.tables = ("note", "log")
    return shop


def fresh(shop: Shop, chance: random.Random) -> None:
    """The schema anew, with random rows."""
    shop.run("drop schema if exists dbops cascade; drop schema public cascade; create schema public")
    shop.run(SCHEMA)
    for _ in range(60):
        edit(shop.conn, chance)


def of_user(rows: dict[str, list[tuple[Any, ...]]], shop: Shop, user: int) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of the tables with the tenancy column that are this user's."""
    return {
        table: shop.rows(f"select t::text from {table} t where user_id = {user} order by 1")
        for table in ("person", "note", "remark", "log", "event")
    }


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    mode=st.sampled_from(["missing", "upsert", "replace"]),
    whole=st.booleans(),
    options=st.sampled_from(["superuser", "nosuperuser"]),
    form=st.sampled_from(["binary", "text"]),
)
def test_any_harm_any_mode(shop: Shop, seed: int, mode: Any, whole: bool, options: str, form: str) -> None:
    chance = random.Random(seed)
    fresh(shop, chance)
    manifest, before = shop.backup(form=form, per_chunk=7), shop.all()
    mine = of_user(before, shop, 2)
    for _ in range(25):
        edit(shop.conn, chance)
    shop.run(TRIGGERS)
    harmed = shop.all()
    # a table without a primary key has no other mode
    selection: dict[str, Any] = (
        {"tables": ["person", "note", "part", "remark", "event"]} if whole and mode != "replace" else {}
    )
    if not whole:
        selection = (
            {"user": "2"} if mode == "replace" else {"user": "2", "tables": ["person", "note", "remark", "event"]}
        )
    with role(shop, options) as url:
        try:
            merged = shop.merge(manifest, mode, url, **selection)
        except DbopsError as error:
            event(f"{mode} {whole} refused: {type(error).__name__}")
            # with everything selected, and all rights, nothing stands in the way of a replace
            if mode == "replace" and whole and options == "superuser":
                raise
            assert shop.all() == harmed
            return
        event(f"{mode} {whole} {options}")
        after = shop.all()
        if mode == "missing":
            for table, rows in harmed.items():
                assert not set(rows) - set(after[table])
        elif whole and mode == "replace":
            assert after == before
        elif mode == "replace":
            now = of_user(after, shop, 2)
            assert all(set(rows) <= set(now[table]) for table, rows in mine.items())
        for table in TABLES:
            others_before = [row for row in harmed[table] if table in ("log", "event") and not row[0].startswith("(2,")]
            assert whole or mode == "replace" or not set(others_before) - set(after[table])
        if merged.run:
            undo(merged.run, url, shop.settings)
    assert shop.all() == harmed


def test_undo_is_a_run_and_can_be_undone(small: Shop) -> None:
    manifest, before = small.backup(), small.all()
    small.run(
        "delete from note where id < 3; update note set body = 'bad' where id = 4; insert into note values (9, 'new'); insert into log values ('new'), ('line'); "
    )
    harmed = small.all()
    merged = small.merge(manifest, "replace")
    assert small.all() == before
    undone = undo(merged.run, small.url, small.settings)
    assert small.all() == harmed
    assert {each.table: each.written for each in undone.tables} == {"public.note": 4, "public.log": 2}
    undo(undone.run, small.url, small.settings)
    assert small.all() == before
    rows = small.rows(
        "select command, undoes, run_by = session_user, backup from dbops.restore_runs order by started_at"
    )
    assert rows == [
        ("merge", None, True, manifest.id),
        ("undo", merged.run, True, manifest.id),
        ("undo", undone.run, True, manifest.id),
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("update note set body = 'later' where id = 1", r"public.note \(1\)"),
        ("delete from note where id = 4", r"public.note \(4\)"),
        ("insert into note values (9, 'again')", r"public.note \(9\)"),
        ("delete from log", "public.log"),
        ("create table after (note int references note); insert into after values (1)", r"public.after \(note\) -> public.note: 1 live row"),
        ("alter table note drop column body", "has lost the column body"),
        ("alter table note drop constraint note_pkey", "has another key"),
        ("drop table log", "public.log is gone"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("options", ["superuser", "nosuperuser"])
def test_undo_refuses_what_changed_since(small: Shop, change: str, words: str, options: str) -> None:
    manifest = small.backup()
    small.run(
        "delete from note where id < 3; update note set body = 'bad' where id = 4; insert into note values (9, 'new'); delete from log where ctid in (select ctid from log limit 2)"
    )
    merged = small.merge(manifest, "replace")
    small.run(change)
    state = small.state()
    with role(small, options) as url, pytest.raises(DifferenceFound, match=words) as refused:
        undo(merged.run, url, small.settings)
    assert "nothing was written" in refused.value.hint
    assert small.state() == state


def test_undo_knows_its_runs(small: Shop) -> None:
    manifest = small.backup()
    with pytest.raises(UsageError, match="there is no run 'x' on record"):
        undo("x", small.url, small.settings)
    small.run("delete from note")
    merged = small.merge(manifest, "missing", tables=["note"])
    undone = undo(merged.run, small.url, small.settings)
    with pytest.raises(UsageError, match=f"undone already, by {undone.run}"):
        undo(merged.run, small.url, small.settings)
    with pytest.raises(UsageError, match="only loaded rows beside"):
        undo(small.merge(manifest, "side").run, small.url, small.settings)


def test_undo_keeps_what_the_backup_did_not_know(small: Shop) -> None:
    manifest = small.backup()
    small.run(
        "alter table note add owner text default 'nobody'; update note set owner = 'me', body = 'bad' where id = 2; delete from note where id = 3"
    )
    harmed = small.all("note")
    merged = small.merge(manifest, "upsert", tables=["note"])
    assert small.rows("select * from note where id in (2, 3) order by 1") == [
        (2, "body 2", "me"),
        (3, "body 3", "nobody"),
    ]
    undo(merged.run, small.url, small.settings)
    assert small.all("note") == harmed
