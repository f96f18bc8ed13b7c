"""Views, materialised views and functions with their owner's rights are never isolated because no made row shows through."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psycopg
import pytest

from dbops.policy.model import Shared
from tests.integration.test_policy_seed import POST, POSTS, again, attacked, beside
from tests.policy_faults import guarded, owned

Connection = psycopg.Connection[Any]
MINE = "user_id = auth.uid()"
OPEN = "visibility = 'public'"
PAGES = "create table public.pages (user_id uuid primary key references auth.users, title text not null);"
BASE = POSTS + PAGES + guarded("posts") + guarded("pages")
OWNED = owned("pages", "posts")
READ = "grant select on public.feed to authenticated;\n"


def feed(query: str, kind: str = "view") -> str:
    return f"create {kind} public.feed as {query};\n{READ}"


def definer(signature: str, body: str, language: str = "sql") -> str:
    return (
        f"create function public.{signature} language {language} stable security definer set search_path = ''"
        f" as $$ {body} $$;\n"
    )


# each with a twin that gives a reader his own rows only
PLANTED: dict[str, tuple[str, str, str]] = {
    "a value": (
        feed(f"select * from public.posts where {OPEN} or {MINE}"),
        feed(f"select * from public.posts where {OPEN} and {MINE}"),
        "view public.feed",
    ),
    "a nested view": (
        f"create view public.inner_one as select * from public.posts where {OPEN} or {MINE};"
        + feed("select * from public.inner_one where level = 700"),
        f"create view public.inner_one as select * from public.posts where {MINE};"
        + feed("select * from public.inner_one where level = 700"),
        "view public.feed",
    ),
    "a cte": (
        feed(f"with seen as (select * from public.posts where {OPEN}) select id from seen where level > 900"),
        feed(f"with seen as (select * from public.posts where {OPEN}) select id from seen where level > 900 and {MINE}"),
        "view public.feed",
    ),
    "a branch of a union": (
        feed(f"select id from public.posts where {MINE} union all select id from public.posts where level = 702"),
        feed(f"select id from public.posts where {MINE} union all"
             f" select id from public.posts where level = 702 and {MINE}"),
        "view public.feed",
    ),
    "lower": (
        feed(f"select * from public.posts p where {MINE} or lower(p.visibility) = 'publik'"),
        feed(f"select * from public.posts p where {MINE} and lower(p.visibility) = 'publik'"),
        "view public.feed",
    ),
    "in": (
        feed(f"select * from public.posts where visibility in ('world', 'public') or {MINE}"),
        feed(f"select * from public.posts where visibility in ('world', 'public') and {MINE}"),
        "view public.feed",
    ),
    "a boolean": (
        feed("select count(*) from public.posts where published and not archived"),
        feed(f"select count(*) from public.posts where published and not archived and {MINE}"),
        "view public.feed",
    ),
    "a materialised view": (
        feed(f"select * from public.posts where {OPEN}", "materialized view"),
        feed(f"select * from public.posts where {OPEN}", "materialized view").replace(READ, ""),
        "view public.feed",
    ),
    "a view of a materialised view": (
        f"create materialized view public.kept as select * from public.posts where {OPEN};"
        + feed("select * from public.kept where level = 705"),
        f"create materialized view public.kept as select * from public.posts where {OPEN};"
        + feed(f"select * from public.kept where level = 705 and {MINE}"),
        "view public.feed",
    ),
    "a column under another name": (
        "create view public.named as select user_id, lower(visibility) as seen from public.posts;"
        + feed(f"select * from public.named where seen = 'everyone' or {MINE}"),
        "create view public.named as select user_id, lower(visibility) as seen from public.posts;"
        + feed(f"select * from public.named where seen = 'everyone' and {MINE}"),
        "view public.feed",
    ),
    "a join": (
        feed("select p.id from public.posts p join public.pages k on k.user_id = p.user_id and k.title = 'front'"),
        feed("select p.id from public.posts p join public.pages k on k.user_id = p.user_id and k.title = 'front'"
             f" where p.{MINE}"),
        "view public.feed",
    ),
    "a session that anybody has": (
        feed(f"select * from public.posts where auth.uid() is not null and {OPEN}"),
        feed(f"select * from public.posts where auth.uid() is not null and {OPEN} and {MINE}"),
        "view public.feed",
    ),
    "a session asked within": (
        feed(f"with p as (select * from public.posts where auth.uid() is not null) select * from p where {OPEN}"),
        feed(f"with p as (select * from public.posts where {MINE}) select * from p where {OPEN}"),
        "view public.feed",
    ),
    "a function in sql": (
        definer("shown() returns setof public.posts", f"select * from public.posts where {OPEN} or {MINE}"),
        definer("shown() returns setof public.posts", f"select * from public.posts where {OPEN} and {MINE}"),
        "function public.shown",
    ),
    "a function in plpgsql": (
        definer("shown() returns bigint",
                f"declare n bigint; begin select count(*) into n from public.posts where {OPEN}; return n; end",
                "plpgsql"),
        definer("shown() returns bigint",
                f"declare n bigint; begin select count(*) into n from public.posts where {OPEN} and {MINE};"
                " return n; end",
                "plpgsql"),
        "function public.shown",
    ),
    "an argument that is compared with a column": (
        definer("shown(what text, n int) returns setof uuid",
                "select id from public.posts where visibility = what and level = n and feeling = 'open'"),
        definer("shown(what text, n int) returns setof uuid",
                f"select id from public.posts where visibility = what and level = n and feeling = 'open' and {MINE}"),
        "function public.shown",
    ),
    "an argument that is compared with a constant": (
        definer("shown(code text) returns setof uuid", "select id from public.posts where code = 'open sesame'"),
        definer("shown(code text) returns setof uuid",
                f"select id from public.posts where code = 'open sesame' and {MINE}"),
        "function public.shown",
    ),
    "an id and a value": (
        definer("shown(post uuid) returns setof public.posts",
                f"select * from public.posts where id = post and ({OPEN} or {MINE})"),
        definer("shown(post uuid) returns setof public.posts",
                f"select * from public.posts where id = post and {MINE}"),
        "function public.shown",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_what_shows_rows_by_a_value_is_found(name: str, empty_db: Connection) -> None:
    faulty, _, via = PLANTED[name]
    report = attacked(empty_db, BASE + faulty, OWNED)
    assert {leak.via for leak in report.leaks} == {via}, report.vacuous


@pytest.mark.parametrize("name", PLANTED)
def test_what_shows_a_readers_own_rows_is_isolated(name: str, empty_db: Connection) -> None:
    _, clean, _ = PLANTED[name]
    report = attacked(empty_db, BASE + clean, OWNED)
    assert (report.verdict, report.leaks, report.vacuous, report.not_proven) == ("isolated", (), (), ())


# --- what no made row gets through is never safe ---

HIDDEN = {
    "a hash": feed(f"select * from public.posts where {MINE} or md5(visibility) = '0'"),
    "a count": feed("select count(*) from public.posts where md5(visibility) = '0'"),
    "a claim of the server's": feed(
        f"select * from public.posts where {MINE} or auth.jwt() -> 'app_metadata' ->> 'staff' = 'yes'"
    ),
    "a function": definer(
        "shown() returns setof public.posts", f"select * from public.posts where {MINE} or md5(visibility) = '0'"
    ),
    "too many ways": feed(
        "select * from public.posts where "
        + " and ".join(f"(level = 900 + {n} or md5(visibility) = '{n}' or visibility = 'v{n}')" for n in range(6))
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_no_made_row_gets_through_is_vacuous(name: str, empty_db: Connection) -> None:
    report = attacked(empty_db, BASE + HIDDEN[name], OWNED)
    assert report.verdict == "vacuous", report
    title = "function public.shown" if name == "a function" else "view public.feed"
    assert {(one.table, title in one.reason) for one in report.vacuous} == {("public.posts", True)}


def test_rows_that_a_rule_shares_are_no_leak_of_a_view(empty_db: Connection) -> None:
    shared = OWNED | {POST: replace(OWNED[POST], shared=(Shared(OPEN, to=("authenticated",)),))}
    report = attacked(
        empty_db, BASE + beside(OPEN) + feed(f"select * from public.posts where {OPEN} or {MINE}"), shared
    )
    assert (report.verdict, report.vacuous) == ("isolated", ())
    assert {leak.via for leak in again(empty_db, OWNED).leaks} == {"table", "view public.feed"}


@pytest.mark.parametrize("name", ["a value", "a materialised view", "a column under another name", "a function in sql"])
def test_a_leaks_script_makes_the_row_that_it_shows(name: str, empty_db: Connection) -> None:
    faulty, _, via = PLANTED[name]
    leak = attacked(empty_db, BASE + faulty, OWNED).leaks[0]
    assert leak.via == via
    # every row of the attack is gone: what the last statement gives, it gives of the script's own
    *_, statement, end = leak.sql.removesuffix(";\n").split(";\n")
    assert end == "ROLLBACK"
    cursor = empty_db.execute(leak.sql.removesuffix("ROLLBACK;\n").encode())
    while cursor.nextset():
        pass
    shown = cursor.fetchone()
    empty_db.execute("rollback")
    assert (shown or ("",))[0] not in ("", 0), statement


def test_a_script_says_which_rows_it_needs_where_one_is_not_enough(empty_db: Connection) -> None:
    leak = attacked(empty_db, BASE + PLANTED["a join"][0], OWNED).leaks[0]
    assert leak.sql.startswith("-- it needs rows of others in public.pages that show through view public.feed\nBEGIN;")


# --- what is common and sound is not called vacuous ---

SOUND = {
    "the newest": feed(f"select * from public.posts where {MINE} order by day desc limit 5"),
    "groups": feed(f"select visibility, count(*) from public.posts where {MINE} group by 1 having count(*) > 0"),
    "a window": feed(
        f"select id, row_number() over (partition by user_id order by day) from public.posts where {MINE}"
    ),
    "an outer join": feed(
        "select p.id, k.title from public.posts p left join public.pages k using (user_id)"
        " where p.user_id = (select auth.uid())"
    ),
    "exists": feed(
        f"select title from public.pages k where {MINE}"
        " and exists (select from public.posts p where p.user_id = k.user_id)"
    ),
    "one row": definer(
        "one(post uuid) returns public.posts",
        f"declare r public.posts; begin select * into r from public.posts where id = post and {MINE}; return r; end",
        "plpgsql",
    ),
    "an argument that may be left out": definer(
        "counted(since date default null) returns bigint",
        f"select count(*) from public.posts where {MINE} and (since is null or day >= since)",
    ),
    "no table": definer("version_of() returns text", "select 'v1'"),
}


@pytest.mark.parametrize("name", SOUND)
def test_what_is_sound_is_isolated(name: str, empty_db: Connection) -> None:
    report = attacked(empty_db, BASE + SOUND[name], OWNED)
    assert (report.verdict, report.vacuous, report.not_proven) == ("isolated", (), ())
