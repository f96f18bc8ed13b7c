"""Rows of a backup merged into a live database: what each mode writes, what it leaves alone, when it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from dbops.backup.merge import diff, merge, plan_merge, undo
from dbops.backup.merge.locking import may_be_replica
from dbops.backup.merge.session import opened
from dbops.backup.model import Omitted
from dbops.errors import DbopsError, DifferenceFound, NotAllowed, UsageError
from tests.backup_snapshot import Shop, open_shop, role

SCHEMA = """
create table person (user_id int primary key, name text unique);
create table note (
  user_id int references person on delete cascade, id int generated always as identity, body text, data json,
  twice int generated always as (user_id * 2) stored, primary key (user_id, id));
create table part (
  id serial primary key, u int, n int, x text, foreign key (u, n) references note on delete cascade);
create table remark (id int primary key, person int references person, said text);
insert into person select n, 'name ' || n from generate_series(1, 4) n;
insert into note (user_id, body, data) select 1 + n % 4, 'body ' || n, '{"n": 1,  "n": 2}' from generate_series(1, 12) n;
insert into part (u, n, x) select user_id, id, 'x' from note;
insert into remark select n, n, 'said ' || n from generate_series(1, 3) n;
"""


TABLES = ("person", "note", "part", "remark")


@pytest.fixture
def make_shop(make_database: Callable[..., str], tmp_path: Path) -> Iterator[Callable[..., Shop]]:
    with ExitStack() as stack:

        def make(schema: str = SCHEMA) -> Shop:
            shop = stack.enter_context(open_shop(make_database("empty"), tmp_path, TABLES))
            shop.run(schema)
            return shop

        yield make


@pytest.fixture
def shop(make_shop: Callable[..., Shop]) -> Shop:
    return make_shop()


HARM = "delete from person where user_id = 2; update note set body = 'bad' where user_id = 3; insert into note (user_id, body) values (4, 'new')"


def test_missing_inserts_what_is_gone_and_nothing_else(shop: Shop) -> None:
    manifest, before = shop.backup(), shop.all()
    shop.run("delete from remark; " + HARM)
    harmed = shop.all()
    merged = shop.merge(manifest, "missing")
    assert {each.table: each.written for each in merged.tables} == {
        "public.person": 1, "public.note": 3, "public.part": 3, "public.remark": 3,
    }  # fmt: skip
    now = shop.all()
    assert now["person"] == before["person"]
    assert set(now["note"]) == set(harmed["note"]) | {row for row in before["note"] if row[0].startswith("(2,")}


def test_upsert_turns_back_and_leaves_extra_rows(shop: Shop) -> None:
    manifest, before = shop.backup(form="text"), shop.all()
    shop.run("delete from remark where person = 2; " + HARM)
    shop.merge(manifest, "upsert")
    now = shop.all()
    assert set(now["note"]) - set(before["note"]) == {row for row in now["note"] if "new" in row[0]} != set()
    assert {table: rows for table, rows in now.items() if table != "note"} == {
        table: rows for table, rows in before.items() if table != "note"
    }


def test_replace_brings_the_backup_back_exactly(shop: Shop) -> None:
    manifest, before = shop.backup(), shop.all()
    shop.run("delete from remark; " + HARM)
    shop.merge(manifest, "replace")
    assert shop.all() == before
    assert shop.counts(manifest) == {
        "person": (0, 0, 0, 4),
        "note": (0, 0, 0, 12),
        "part": (0, 0, 0, 12),
        "remark": (0, 0, 0, 3),
    }


def test_one_users_rows_with_their_parts_and_what_they_need(shop: Shop) -> None:
    manifest, before = shop.backup(), shop.all()
    shop.run("delete from remark; delete from person where user_id in (2, 3)")
    merged = shop.merge(manifest, "replace", user="2")
    assert {each.table.removeprefix("public."): each.written for each in merged.tables} == {
        "person": 1,
        "note": 3,
        "part": 3,
    }
    assert [row for row in before["note"] if row[0].startswith("(2,")] == [
        row for row in shop.all()["note"] if row[0].startswith("(2,")
    ]
    assert shop.rows("select count(*) from person") == [(3,)]
    assert shop.rows("select count(*) from note where user_id = 3") == [(0,)]
    assert shop.rows("select count(*) from remark") == [(0,)]


def test_a_row_that_changed_hands_is_the_users_on_either_side(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop(
        "create table note (id int primary key, user_id int, body text); insert into note values (1, 1, 'a'), (2, 2, 'b')"
    )
    manifest = shop.backup()
    shop.run("update note set user_id = 3 - user_id")
    assert shop.counts(manifest, user="1") == {"note": (0, 2, 0, 0)}
    shop.merge(manifest, "replace", user="1")
    assert shop.rows("select id, user_id from note order by 1") == [(1, 1), (2, 2)]


def test_where_selects_on_both_sides_and_closes_over_what_is_needed(shop: Shop) -> None:
    manifest = shop.backup()
    shop.run(
        "delete from remark; delete from person where user_id = 2; insert into note (user_id, body) values (3, 'body x')"
    )
    merged = shop.merge(manifest, "replace", tables=["note"], where="note.body like 'body %' and (user_id in (2, 3))")
    assert {each.table: each.written for each in merged.tables} == {"public.person": 1, "public.note": 4}
    assert shop.rows("select count(*) from note") == [(12,)]


@pytest.mark.parametrize(
    "where",
    [
        "true); delete from note; --",
        "true) or (true",
        "1 = 1; select 1",
        "(select 1",
        "a /* */",
        "$$x$$ = ''",
        "",
        "'",
        "x][",
        # what a string is to PostgreSQL depends on what stands before it
        r"""body = date'\') ; delete from note; --'""",
        """body = \u00a0e'\\') ; delete from note; --'""",
        """body = e''\n'\\' || ') ; delete from note; --'""",
        "body = $\u00a0$'$\u00a0$) ; delete from note; --'",
        "body = '\0'",
    ],
)
def test_a_where_that_is_no_expression_is_refused(shop: Shop, where: str) -> None:
    manifest, before = shop.backup(), shop.all()
    with pytest.raises(UsageError, match="--where"):
        shop.merge(manifest, "missing", tables=["note"], where=where)
    assert shop.all() == before


def test_a_where_cannot_write(shop: Shop) -> None:
    shop.run(
        "create function spoil() returns bool language plpgsql as $$ begin delete from remark; return true; end $$"
    )
    manifest = shop.backup()
    shop.run("delete from note")
    with pytest.raises(DbopsError, match="read-only transaction"):
        shop.merge(manifest, "missing", tables=["note"], where="spoil()")
    assert shop.rows("select count(*) from remark") == [(3,)]


def test_rows_outside_that_refer_to_deleted_ones_refuse_it_unless_cascade(shop: Shop) -> None:
    shop.run("delete from remark where id = 3; delete from person where user_id = 4")
    manifest, before = shop.backup(), shop.all()
    shop.run("insert into person values (9, 'nine'); insert into remark values (9, 9, 'nine'), (8, null, 'nobody')")
    with pytest.raises(
        UsageError, match=r"public\.remark \(person\) -> public\.person: 1 live row outside the selection refers"
    ):
        shop.merge(manifest, "replace", tables=["person"])
    shop.merge(manifest, "replace", tables=["person"], cascade=True)
    # the row that refers to nobody is no part of any person
    assert shop.all("remark")["remark"] == sorted([*before["remark"], ("(8,,nobody)",)])
    assert shop.all("person")["person"] == before["person"]


def test_rows_that_need_a_parent_outside_the_selection_are_refused(shop: Shop) -> None:
    manifest = shop.backup()
    shop.run("delete from remark; delete from person")
    with pytest.raises(
        UsageError, match=r"12 rows of the backup would refer to rows that are not there; take public.person in too"
    ):
        shop.merge(manifest, "missing", tables=["note"])
    shop.merge(manifest, "missing", tables=["note", "person"])
    assert shop.rows("select count(*) from note") == [(12,)]


def test_side_loads_beside_and_touches_nothing(shop: Shop) -> None:
    manifest, before = shop.backup(), shop.all()
    shop.run(
        "drop table part; alter default privileges grant all on tables to public; alter default privileges grant usage on schemas to public"
    )
    left = shop.all("person", "note", "remark")
    merged = shop.merge(manifest, "side", tables=["part", "note"])
    assert shop.all("person", "note", "remark") == left
    assert [(each.table, each.written) for each in merged.tables] == [("public.part", 12), ("public.note", 12)]
    assert shop.rows(f"select t::text from {merged.schema}.part t order by 1") == before["part"]
    assert shop.rows(f"select has_schema_privilege('public', '{merged.schema}', 'usage')") == [(False,)]
    assert shop.rows(f"select has_table_privilege('public', '{merged.schema}.part', 'select')") == [(False,)]
    assert shop.rows("select command, run from dbops.restore_runs") == [("side", merged.run)]


def test_a_table_without_a_primary_key_is_a_multiset(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop(
        "create table log (what text, data json); insert into log select 'a', '{}' from generate_series(1, 3); insert into log values ('b', null), (null, null)"
    )
    manifest, before = shop.backup(), shop.all("log")
    shop.run(
        "delete from log where ctid in (select ctid from log where what = 'a' limit 2); insert into log values ('b', null), ('c', '1')"
    )
    assert shop.counts(manifest) == {"log": (2, 0, 2, 3)}
    with pytest.raises(UsageError, match=r"public\.log has no primary key: mode upsert"):
        shop.merge(manifest, "upsert")
    shop.merge(manifest, "replace")
    assert shop.all("log") == before


def test_unique_values_that_were_swapped(shop: Shop) -> None:
    manifest, before = shop.backup(), shop.all()
    shop.run(
        "update person set name = 'x' where user_id = 1; update person set name = 'name 1' where user_id = 2; update person set name = 'name 2' where user_id = 1"
    )
    shop.run(
        "delete from remark where person = 3; delete from person where user_id = 3; insert into person values (7, 'name 3')"
    )
    with pytest.raises(
        DbopsError, match=r"public\.person: a row of the backup cannot be written.*\(name\)=\(name 3\)"
    ) as refused:
        shop.merge(manifest, "upsert")
    assert "--mode replace" in refused.value.hint
    shop.merge(manifest, "replace")
    assert shop.all() == before


CIRCLE = """
create table team (id int primary key, captain int not null);
create table player (id int primary key, team int not null references team, name text);
alter table team add foreign key (captain) references player;
with t as (insert into team select n, n from generate_series(1, 3) n) insert into player select n, n, 'p' || n from generate_series(1, 3) n;
"""


@pytest.mark.parametrize("options", ["superuser", "nosuperuser"])
def test_circles_of_not_null_foreign_keys(make_shop: Callable[..., Shop], options: str) -> None:
    shop = make_shop(CIRCLE)
    manifest, before = shop.backup(), shop.all("team", "player")
    shop.run(
        "with t as (delete from team where id = 2) delete from player where id = 2; with t as (insert into team values (5, 5)) insert into player values (5, 5, 'p5')"
    )
    with role(shop, options) as url:
        assert shop.merge(manifest, "replace", url).written == 4
    assert shop.all("team", "player") == before


def test_as_an_owner_who_may_not_be_replica(shop: Shop) -> None:
    shop.run("create function spoil() returns trigger language plpgsql as $$ begin raise 'fired'; end $$")
    manifest, before = shop.backup(), shop.all()
    shop.run("delete from remark; " + HARM)
    for name, mode in (
        ("off", "disable trigger"),
        ("on", "enable trigger"),
        ("always", "enable always trigger"),
        ("rep", "enable replica trigger"),
    ):
        shop.run(
            f'create trigger "{name}" before insert or update or delete on note for each row execute function spoil(); alter table note {mode} "{name}"'
        )
    states = shop.rows("select tgname, tgenabled from pg_trigger where not tgisinternal order by 1")
    with role(shop, "nosuperuser") as url:
        with opened(url, shop.settings, "test") as session:
            assert not may_be_replica(session)
        shop.merge(manifest, "replace", url)
        assert shop.all() == before
    shop.run("truncate note cascade")
    shop.merge(manifest, "replace")
    assert shop.all() == before
    assert shop.rows("select tgname, tgenabled from pg_trigger where not tgisinternal order by 1") == states


def test_an_owner_is_told_of_swapped_values(shop: Shop) -> None:
    manifest = shop.backup()
    shop.run(
        "update person set name = 'x' where user_id = 1; update person set name = 'name 1' where user_id = 2; update person set name = 'name 2' where user_id = 1"
    )
    harmed = shop.all()
    with role(shop, "nosuperuser") as url, pytest.raises(DbopsError, match="pass from one row to another") as refused:
        shop.merge(manifest, "replace", url)
    assert "GRANT SET ON PARAMETER session_replication_role" in refused.value.hint
    assert shop.all() == harmed


def test_a_deferrable_unique_key_is_still_checked(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop(
        "create table seat (id int primary key, number int unique deferrable); insert into seat values (1, 1), (2, 2)"
    )
    manifest, before = shop.backup(), shop.all("seat")
    shop.run("delete from seat where id = 1; insert into seat values (3, 1)")
    with pytest.raises(DbopsError, match=r"pass from one row to another|cannot be written"):
        shop.merge(manifest, "missing")
    shop.merge(manifest, "replace")
    assert shop.all("seat") == before


def test_forced_row_security_is_refused_in_words(shop: Shop) -> None:
    shop.run(
        "alter table note enable row level security; alter table note force row level security; create policy p on note using (user_id = 1)"
    )
    manifest, before = shop.backup(), shop.all()
    shop.run("delete from part; delete from note")
    with (
        role(shop, "nosuperuser nobypassrls") as url,
        pytest.raises(NotAllowed, match="subject to row level security on note"),
    ):
        shop.merge(manifest, "missing", url)
    with role(shop, "nosuperuser bypassrls") as url:
        shop.merge(manifest, "missing", url)
    assert shop.all() == before


def test_sequences_take_the_greater_value(shop: Shop) -> None:
    shop.run("select setval('part_id_seq', 500)")
    manifest = shop.backup()
    shop.run("delete from part; select setval('part_id_seq', 3, false); select setval('note_id_seq', 900)")
    shop.merge(manifest, "missing")
    assert shop.rows("select nextval('part_id_seq'), nextval('note_id_seq')") == [(501, 901)]


def test_a_plan_that_is_out_of_date_is_refused(shop: Shop) -> None:
    manifest = shop.backup()
    shop.run("delete from remark; " + HARM)
    for change in (
        "update note set body = 'worse' where user_id = 3",
        "delete from note where user_id = 1",
        "alter table note add extra int",
    ):
        with plan_merge(manifest, shop.store, shop.url, shop.settings, mode="upsert") as prepared:
            shop.run(change)
            before = shop.all()
            with pytest.raises(DifferenceFound, match="since the plan was made"):
                merge(prepared)
        assert shop.all() == before


def test_rows_that_the_mode_leaves_alone_may_go_on_changing(shop: Shop) -> None:
    """A production database does not stand still while somebody reads a plan."""
    manifest, before = shop.backup(), shop.all()
    shop.run("delete from remark where id = 1; update note set body = 'bad' where id = 6")
    for mode, change in (
        ("missing", "update note set body = 'worse' where id = 6; insert into person values (20, 'came')"),
        ("upsert", "insert into person values (21, 'came too'); insert into note (user_id, body) values (21, 'new')"),
    ):
        with plan_merge(manifest, shop.store, shop.url, shop.settings, mode=mode) as prepared:  # type: ignore[arg-type]
            shop.run(change)
            assert merge(prepared).written == 1
    assert shop.all("remark")["remark"] == before["remark"]
    assert shop.rows("select body from note where id = 6") == [("body 6",)]
    assert shop.rows("select name from person where user_id > 4 order by 1") == [("came",), ("came too",)]
    with plan_merge(manifest, shop.store, shop.url, shop.settings, mode="replace") as prepared:
        shop.run("insert into person values (22, 'not in the plan')")
        with pytest.raises(DifferenceFound, match="since the plan was made"):
            merge(prepared)


def test_a_row_that_came_while_the_backup_was_loaded(shop: Shop) -> None:
    manifest = shop.backup()

    def come(text: str) -> None:
        if text.startswith("loaded public.note"):
            shop.run("insert into note (user_id, body) values (1, 'came')")

    with (
        pytest.raises(DifferenceFound, match="while the backup's were loaded"),
        plan_merge(manifest, shop.store, shop.url, shop.settings, mode="replace", user="1", tell=come),
    ):
        pass
    found = diff(manifest, shop.store, shop.url, shop.settings, user="1", tell=come)
    assert {each.table: each.extra for each in found.tables}["public.note"] == 2


def test_rows_of_a_partition_that_was_left_out_are_not_deleted(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop(
        """create table event (at int primary key, what text) partition by range (at);
        create table event_1 partition of event for values from (0) to (10);
        create table event_2 partition of event for values from (10) to (20);
        insert into event select n, 'e' || n from generate_series(1, 19) n"""
    )
    whole, before = shop.backup(), shop.all("event")
    kept = tuple(table for table in whole.tables if table.name.name != "event_2")
    left_out = (Omitted("public.event_2", "excluded: its definition is kept, its rows are left out"),)
    manifest = replace(whole, tables=kept, omitted=left_out)
    with pytest.raises(UsageError, match=r"public\.event_2 was left out of this backup"):
        shop.merge(manifest, "replace", tables=["event"])
    assert shop.all("event") == before
    shop.run("delete from event where at in (3, 13)")
    shop.merge(manifest, "missing", tables=["event"])
    assert shop.rows("select array_agg(n) from generate_series(1, 19) n where n not in (select at from event)") == [
        ([13],)
    ]


def test_a_partition_that_is_gone_is_named(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop(
        """create table event (at int primary key, what text) partition by range (at);
        create table event_1 partition of event for values from (0) to (10);
        create table event_2 partition of event for values from (10) to (20);
        insert into event select n, 'e' || n from generate_series(1, 19) n"""
    )
    manifest, before = shop.backup(), shop.all("event")
    shop.run("drop table event_2; delete from event where at = 3")
    with plan_merge(manifest, shop.store, shop.url, shop.settings, mode="missing", tables=["event"]) as prepared:
        [note] = [each for each in prepared.plan.notes if "partition" in each]
    assert note.startswith("public.event_2, in the backup a partition with the columns of public.event,")
    assert "10 rows are not compared" in note
    shop.run("create table event_2 partition of event for values from (10) to (20)")
    assert shop.merge(manifest, "missing", tables=["event"]).written == 11
    assert shop.all("event") == before


def test_a_foreign_key_that_is_not_enforced_asks_for_nothing(make_shop: Callable[..., Shop], major: str) -> None:
    if major == "16":
        pytest.skip("NOT ENFORCED came with PostgreSQL 18")
    shop = make_shop(
        "create table a (id int primary key); create table b (id int primary key, a int references a not enforced);"
        "insert into b values (1, 99)"
    )
    manifest, before = shop.backup(), shop.all("b")
    shop.run("delete from b")
    shop.merge(manifest, "missing", tables=["b"])
    assert shop.all("b") == before


def test_names_that_want_quotes(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop(
        """create schema "Odd ""Name%s"; create table "Odd ""Name%s"."select {}" (
          "user" int generated always as identity, "a ""b%" text, "{0}" int, t int, primary key ("user", t));
        create table "Odd ""Name%s"."p" ("user" int, t int, "dbops'x" text, primary key ("user", t),
          foreign key ("user", t) references "Odd ""Name%s"."select {}" on delete cascade);
        insert into "Odd ""Name%s"."select {}" ("a ""b%", "{0}", t) select 'v' || n, n, n from generate_series(1, 5) n;
        insert into "Odd ""Name%s"."p" select "user", t, 'x' from "Odd ""Name%s"."select {}"
        """
    )
    tables = ('"Odd ""Name%s"."select {}"', '"Odd ""Name%s"."p"')
    manifest, before = shop.backup(), shop.all(*tables)
    shop.run(f"delete from {tables[0]} where t < 3; update {tables[0]} set \"{{0}}\" = 0 where t = 4; "
             f"insert into {tables[0]} (t) values (9)")  # fmt: skip
    harmed = shop.all(*tables)
    merged = shop.merge(manifest, "replace", tables=['Odd "Name%s.select {}', tables[1]])
    assert shop.all(*tables) == before
    undo(merged.run, shop.url, shop.settings)
    assert shop.all(*tables) == harmed
    shop.merge(manifest, "upsert", tables=["p"], where='p."dbops\'x" = \'x\' and not "user" = any (array[4])')
    assert shop.rows(f"select t from {tables[1]} order by 1") == [(1,), (2,), (3,), (4,), (5,)]


def test_there_is_no_default_mode_and_no_unknown_table(shop: Shop) -> None:
    manifest = shop.backup()
    for arguments, words in (
        ({"mode": "all"}, "not one of missing, upsert, replace, side"),
        ({"mode": "missing", "tables": ["nothing"]}, "there is no table nothing"),
        ({"mode": "missing", "tables": ["person", "note"], "where": "true"}, "exactly one --table"),
        ({"mode": "missing", "tables": ["remark"], "user": "1"}, "public.remark does not have the column user_id"),
    ):
        with (
            pytest.raises(UsageError, match=words),
            plan_merge(manifest, shop.store, shop.url, shop.settings, **arguments),
        ):  # type: ignore[arg-type]
            pass
    shop.run("drop table remark")
    with pytest.raises(UsageError, match="remark is in the backup and not in this database"):
        shop.merge(manifest, "missing")


def test_what_dbops_keeps_is_not_turned_back(shop: Shop) -> None:
    first = shop.backup()
    shop.run("delete from remark")
    shop.merge(first, "missing")
    second = replace(
        first,
        tables=(
            *first.tables,
            replace(first.tables[0], name=replace(first.tables[0].name, schema="dbops", name="restore_runs")),
        ),
    )
    assert "dbops.restore_runs" not in shop.counts(second)
    assert shop.rows(
        "select has_schema_privilege('public', 'dbops', 'usage'), relrowsecurity from pg_class where relname = 'restore_saved'"
    ) == [(False, True)]
