"""Duplicates in any table: without the memory schema, with NULLs, odd types and odd names, and all of it undone."""

from __future__ import annotations

import random
from itertools import combinations
from typing import Any

import pytest

from dbops.errors import DbopsError, UsageError
from dbops.hygiene import Search
from dbops.hygiene.model import Row
from dbops.hygiene.table.model import Target
from dbops.hygiene.table.scan import _by_first, _within
from tests.hygiene import Connection, image, manager, one

TABLE = """
create table documents (id int primary key, tenant_id int, body text, score float8, is_copy boolean, seen timestamptz);
insert into documents values
  (1, 1, 'the quick brown fox jumps over the lazy dog today', 0.1, null, '2024-01-01 00:00:00.123456+00'),
  (2, 1, 'The quick brown fox jumps over the lazy dog, today!', 'NaN', false, null),
  (3, 1, 'the quick brown fox jumps over the very lazy dog today', 0.9, false, now()),
  (4, 2, 'the quick brown fox jumps over the lazy dog today', 0.5, null, now()),
  (5, null, 'the quick brown fox jumps over the lazy dog today', 0.5, null, now()),
  (6, 1, null, 0.5, null, now()),
  (7, 1, 'something else', null, null, null);
"""


def mark(**options: Any) -> Target:
    values = {
        "table": "documents",
        "text": "body",
        "action": "mark:is_copy=true",
        "scope": "tenant_id",
        "keep": "score desc nulls last",
    }
    return Target(**(values | options))


@pytest.fixture
def documents(empty_db: Connection) -> Connection:
    empty_db.execute(TABLE.encode())
    return empty_db


class TestMark:
    def test_copies_are_marked_and_undone(self, documents: Connection, empty_url: str) -> None:
        library, before = manager(empty_url), image(documents, "documents")
        plan = library.scan(target=mark())
        assert image(documents, "documents") == before
        # NaN is the greatest float8: document 2 stays
        assert [(s.scope, [(m.survivor.id, [r.id for r in m.losers]) for m in s.merges]) for s in plan.scopes] == [
            ("1", [('["2"]', ['["3"]', '["1"]'])])
        ]
        assert (plan.rows, plan.pairs) == (5, 3)
        done = library.dedupe(plan, target=mark())
        assert [row[0] for row in documents.execute("select id from documents where is_copy order by 1")] == [1, 3]
        assert library.scan(target=mark()).marked == 0
        assert done.batch
        undone = library.undo(done.batch)
        assert (undone.restored, undone.refused) == (2, ())
        assert image(documents, "documents") == before
        assert library.history()[0].undone == 2
        with pytest.raises(UsageError, match="has been undone already"):
            library.undo(done.batch)

    def test_it_leaves_nothing_but_its_record(self, documents: Connection, empty_url: str) -> None:
        manager(empty_url).scan(target=mark())
        assert one(documents, "select count(*) from pg_namespace where nspname = 'dbops'") == 0
        assert one(documents, "select count(*) from pg_proc where proname in ('word_set', 'word_fold')") == 0

    def test_scopes_are_texts(self, empty_db: Connection, empty_url: str) -> None:
        empty_db.execute("create table notes (id int primary key, scope numeric, body text, is_copy boolean)")
        empty_db.execute("insert into notes values (1, 1, 'a b'), (2, 1.0, 'a b')")
        for scope, marked in (("scope", 0), ("trim_scale(scope)", 1)):
            target = Target("notes", "body", "mark:is_copy=true", scope=scope)
            assert manager(empty_url).scan(target=target).marked == marked

    def test_without_a_scope_all_rows_are_one(self, documents: Connection, empty_url: str) -> None:
        plan = manager(empty_url).scan(target=mark(scope=None, keep=None))
        assert [[m.survivor.id for m in scope.merges] for scope in plan.scopes] == [['["1"]']]
        assert plan.marked == 4

    def test_a_mark_that_is_no_constant(self, documents: Connection, empty_url: str) -> None:
        documents.execute("alter table documents add column copied_at timestamptz")
        library, target = manager(empty_url), mark(action="mark:copied_at=now()")
        assert library.dedupe(target=target).marked == 2
        assert library.dedupe(target=target).batch is None

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("json", """'{"copy": true}'"""),
            ("jsonb", """'{"copy":true}'"""),
            ("mood", "'copy'"),
            ("numeric(10,2)", "1"),
            ("char(5)", "'x'"),
            ("float8", "-1"),
            ("point", "'(1,2)'"),
            ("text", "'100 % copy'"),
            ("text[]", "'{a,b}'"),
        ],
    )
    def test_marks_of_other_types(self, column: str, value: str, documents: Connection, empty_url: str) -> None:
        documents.execute("create type mood as enum ('copy', 'other')")
        documents.execute(f'alter table documents add column "The Mark" {column}'.encode())
        before = image(documents, "documents")
        library, target = manager(empty_url), mark(action=f'mark:"The Mark"={value}')
        done = library.dedupe(target=target)
        assert done.marked == 2
        assert one(documents, 'select count("The Mark") from documents') == 2
        assert library.dedupe(target=target).batch is None
        assert done.batch
        undone = library.undo(done.batch)
        assert (undone.restored, undone.refused, undone.altered) == (2, (), ())
        assert image(documents, "documents") == before

    def test_what_changed_since_the_plan_stays(self, documents: Connection, empty_url: str) -> None:
        library = manager(empty_url)
        plan = library.scan(target=mark())
        documents.execute("update documents set body = 'new' where id = 1")
        done = library.dedupe(plan, target=mark())
        assert (done.marked, done.skipped) == (1, ('["1"]',))

    def test_what_changed_since_the_batch_is_refused_and_named(self, documents: Connection, empty_url: str) -> None:
        library = manager(empty_url)
        done = library.dedupe(target=mark())
        documents.execute("update documents set score = 3 where id = 1; delete from documents where id = 3")
        assert done.batch
        undone = library.undo(done.batch)
        assert undone.restored == 0
        assert {(each.id, each.reason) for each in undone.refused} == {
            ('["1"]', "it was changed since"),
            ('["3"]', "it was deleted since"),
        }

    def test_the_guard_holds_here_too(self, documents: Connection, empty_url: str) -> None:
        documents.execute(
            "insert into documents values (8, 3, 'He has 2 cats and a dog'), (9, 3, 'He has 3 cats and a dog')"
        )
        plan = manager(empty_url).scan(target=mark(), search=Search(threshold=0.7))
        assert [(d.a.id, d.b.id, d.reason) for s in plan.scopes for d in s.doubts] == [('["8"]', '["9"]', "number")]


class TestReview:
    CATS = "insert into documents values (8, 3, 'He has 2 cats and a dog', 2), (9, 3, 'He has 3 cats and a dog', 1)"

    def test_listed_accepted_undone_rejected(self, documents: Connection, empty_url: str) -> None:
        documents.execute(self.CATS)
        library, search = manager(empty_url), Search(threshold=0.7)
        library.dedupe(target=mark(), search=search)
        before = image(documents, "documents")
        [item] = library.review()
        assert (item.table, item.scope, item.a, item.b) == ("public.documents", "3", '["8"]', '["9"]')
        assert item.texts == ("He has 2 cats and a dog", "He has 3 cats and a dog")
        done = library.accept([item.id])
        assert one(documents, "select is_copy from documents where id = 9")
        assert library.review() == ()
        assert done.batch
        assert library.undo(done.batch).restored == 1
        assert image(documents, "documents") == before
        assert library.reject([library.review()[0].id]) == 1
        assert library.scan(target=mark(), search=search).review == 0

    def test_what_changed_meanwhile_is_not_shown(self, documents: Connection, empty_url: str) -> None:
        documents.execute(self.CATS)
        library = manager(empty_url)
        library.dedupe(target=mark(), search=Search(threshold=0.7))
        [item] = library.review()
        documents.execute("update documents set body = 'new' where id = 9")
        assert library.review() == ()
        assert library.accept([item.id]).skipped == ('["9"]',)
        documents.execute("drop table documents")
        assert library.review() == ()

    def test_one_pairs_error_stops_no_other(self, documents: Connection, empty_url: str) -> None:
        documents.execute(self.CATS)
        documents.execute(self.CATS.replace("(8, 3", "(18, 4").replace("(9, 3", "(19, 4"))
        library = manager(empty_url)
        library.dedupe(target=mark(), search=Search(threshold=0.7))
        documents.execute(
            "create function refuse() returns trigger language plpgsql as $$ begin raise 'not today'; end $$;"
            "create trigger refuse before update on documents for each row when (old.tenant_id = 3) execute function refuse()"
        )
        done = library.accept([item.id for item in library.review()])
        assert [(each.user, each.reason.splitlines()[0]) for each in done.failed] == [("3", "not today")]
        assert (done.marked, [item.scope for item in library.review()]) == (1, ["3"])


class TestDelete:
    def test_deleted_rows_come_back_exactly(self, empty_db: Connection, empty_url: str) -> None:
        empty_db.execute("""
            create table "Odd ""Table" ("The Key" int generated always as identity, part text, body varchar(80), j json, n numeric, b bytea,
              a int[], doubled numeric generated always as (n * 2) stored, primary key (part, "The Key"));
            insert into "Odd ""Table" (part, body, j, n, b, a) values
              ('x', 'one two three', '{"a":1, "a":  2}', 1.500, '\\x00ff', '{1,NULL}'), ('x', 'one two three.', null, 'NaN', '', '{}'),
              ('y', 'one two three', 'null', 'Infinity', null, '{{1,2}}');
        """)
        table = '"Odd ""Table"'
        before = image(empty_db, table)
        library, target = manager(empty_url), Target(table, "body", "delete")
        done = library.dedupe(target=target)
        assert done.marked == 2
        assert one(empty_db, f"select count(*) from {table}") == 1
        assert done.batch
        assert library.undo(done.batch).restored == 2
        assert image(empty_db, table) == before

    def test_a_key_in_use_is_refused(self, documents: Connection, empty_url: str) -> None:
        library = manager(empty_url)
        done = library.dedupe(target=mark(action="delete"))
        assert done.marked == 2
        documents.execute("insert into documents values (1, 1, 'new')")
        assert done.batch
        undone = library.undo(done.batch)
        assert (undone.restored, [each.id for each in undone.refused]) == (1, ['["1"]'])

    def test_rows_that_others_hang_on_are_refused(self, documents: Connection, empty_url: str) -> None:
        documents.execute("create table pages (document int references documents on delete cascade)")
        with pytest.raises(UsageError, match=r"would change rows of public\.pages"):
            manager(empty_url).scan(target=mark(action="delete"))


def taken(documents: Connection, url: str, action: str = "delete") -> str:
    """A batch that took documents 1 and 3."""
    done = manager(url).dedupe(target=mark(action=action))
    assert done.marked == 2
    assert done.batch
    return done.batch


MOVE = """
    create function stamp() returns trigger language plpgsql as $$ begin {} return new; end $$;
    create trigger stamp {} on documents for each row execute function stamp()
"""


class TestUndoOfWhatChangedMeanwhile:
    """Each row that cannot come back is refused with its reason; the others come back."""

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ("update documents set score = id; alter table documents add unique (score); insert into documents values (9, 1, 'x', 0.1)", "documents_score_key"),
            ("create table tenants (id int primary key); insert into tenants values (1), (2); delete from documents where id = 7;"
             "alter table documents add foreign key (tenant_id) references tenants;"
             "update documents set tenant_id = null; delete from tenants where id = 1", "documents_tenant_id_fkey"),
            ("alter table documents add check (score > 0.5) not valid", "documents_score_check"),
            (MOVE.format("if new.id = 1 then return null; end if;", "before insert"), "a trigger kept it"),
            (MOVE.format("if new.id = 1 then new.id := 100; end if;", "before insert"), "a trigger kept it"),
            (MOVE.format("if new.id = 1 then raise exception 'not this one'; end if;", "before insert"), "not this one"),
        ],
    )  # fmt: skip
    def test_a_row_that_cannot_be_written(
        self, change: str, reason: str, documents: Connection, empty_url: str
    ) -> None:
        documents.execute(
            "update documents set tenant_id = 2 where id = 4; insert into documents values (8, 2, 'seven')"
        )
        documents.execute(
            "update documents set body = body || ' and once more', tenant_id = 2, score = 0.7 where id = 3"
        )
        documents.execute("insert into documents values (33, 2, (select body from documents where id = 3), 0.8)")
        before = image(documents, "(select * from documents where id in (1, 3))")
        batch = taken(documents, empty_url)
        documents.execute(change.encode())
        undone = manager(empty_url).undo(batch)
        assert [each.id for each in undone.refused] == ['["1"]']
        assert reason in undone.refused[0].reason
        assert image(documents, "(select * from documents where id in (1, 3, 100))") == before[1:]
        assert manager(empty_url).history()[0].undone == 1

    def test_a_key_that_is_checked_late(self, documents: Connection, empty_url: str) -> None:
        documents.execute("alter table documents drop constraint documents_pkey")
        documents.execute("alter table documents add primary key (id) deferrable initially deferred")
        before = image(documents, "documents")
        batch = taken(documents, empty_url)
        undone = manager(empty_url).undo(batch)
        assert (undone.restored, undone.refused, image(documents, "documents")) == (2, (), before)

    def test_a_check_that_is_made_late(self, documents: Connection, empty_url: str) -> None:
        documents.execute(
            "update documents set score = id where id > 3; alter table documents add unique (score) deferrable initially deferred"
        )
        batch = taken(documents, empty_url)
        documents.execute("insert into documents values (9, 1, 'x', 0.1)")
        undone = manager(empty_url).undo(batch)
        assert (undone.restored, [each.id for each in undone.refused]) == (1, ['["1"]'])

    @pytest.mark.parametrize(("child", "parent"), [(1, 3), (3, 1)])
    def test_rows_that_hang_on_each_other(
        self, child: int, parent: int, documents: Connection, empty_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("dbops.hygiene.table.undo._AT_ONCE", 1)
        documents.execute("alter table documents add column parent int references documents")
        documents.execute("update documents set parent = %s where id = %s", [parent, child])
        before = image(documents, "documents")
        undone = manager(empty_url).undo(taken(documents, empty_url))
        assert (undone.restored, undone.refused, image(documents, "documents")) == (2, (), before)

    @pytest.mark.parametrize("action", ["delete", "mark:is_copy=true"])
    def test_a_column_that_came_since(self, action: str, documents: Connection, empty_url: str) -> None:
        before = image(documents, "documents")
        batch = taken(documents, empty_url, action)
        documents.execute("alter table documents add column lang text not null default 'en'")
        undone = manager(empty_url).undo(batch)
        assert (undone.restored, undone.refused, undone.altered) == (2, (), ())
        assert one(documents, "select count(*) from documents where lang = 'en'") == len(before)
        documents.execute("alter table documents drop column lang")
        assert image(documents, "documents") == before

    @pytest.mark.parametrize("action", ["delete", "mark:is_copy=true"])
    def test_a_column_that_went_since(self, action: str, documents: Connection, empty_url: str) -> None:
        batch = taken(documents, empty_url, action)
        documents.execute("alter table documents drop column body")
        undone = manager(empty_url).undo(batch)
        assert (undone.restored, len(undone.refused)) == (0, 2)
        assert "no column body" in undone.refused[0].reason

    @pytest.mark.parametrize("action", ["delete", "mark:is_copy=true"])
    def test_a_key_that_is_generated(self, action: str, documents: Connection, empty_url: str) -> None:
        documents.execute("alter table documents drop constraint documents_pkey")
        documents.execute("alter table documents add column number int generated always as (id * 2) stored primary key")
        before = image(documents, "documents")
        undone = manager(empty_url).undo(taken(documents, empty_url, action))
        assert (undone.restored, undone.refused, image(documents, "documents")) == (2, (), before)

    @pytest.mark.parametrize("action", ["delete", "mark:is_copy=true"])
    def test_another_key_since(self, action: str, documents: Connection, empty_url: str) -> None:
        batch = taken(documents, empty_url, action)
        documents.execute("alter table documents drop constraint documents_pkey")
        documents.execute("alter table documents add column number int generated by default as identity primary key")
        undone = manager(empty_url).undo(batch)
        assert (undone.restored, {each.reason for each in undone.refused}) == (
            0,
            {"the column number of the key was not there then"},
        )

    def test_a_table_that_went_since(self, documents: Connection, empty_url: str) -> None:
        batch = taken(documents, empty_url)
        documents.execute("drop table documents")
        with pytest.raises(UsageError, match=r"public\.documents does not exist"):
            manager(empty_url).undo(batch)

    def test_others_hang_on_it_since(self, documents: Connection, empty_url: str) -> None:
        batch = taken(documents, empty_url)
        documents.execute("create table pages (document int references documents on delete cascade)")
        assert manager(empty_url).undo(batch).restored == 2

    @pytest.mark.parametrize(
        ("action", "when"),
        [("delete", "before insert"), ("mark:is_copy=true", "before update"), ("delete", "after insert"),
         ("mark:is_copy=true", "after update of is_copy")],
    )  # fmt: skip
    def test_a_trigger_that_changes_what_is_written(
        self, action: str, when: str, documents: Connection, empty_url: str
    ) -> None:
        statement = (
            "new.seen := now();"
            if "before" in when
            else "update public.documents d set seen = now() where d.id = new.id;"
        )
        documents.execute(MOVE.format(statement, when).encode())
        before = [row[0] for row in documents.execute("select to_jsonb(d) - 'seen' from documents d order by id")]
        batch = taken(documents, empty_url, action)
        library = manager(empty_url)
        undone = library.undo(batch)
        assert (undone.restored, undone.refused) == (2, ())
        assert {(each.id, each.reason) for each in undone.altered} == {
            ('["1"]', "restored, but a trigger or a new type changed seen"),
            ('["3"]', "restored, but a trigger or a new type changed seen"),
        }
        assert [
            row[0] for row in documents.execute("select to_jsonb(d) - 'seen' from documents d order by id")
        ] == before
        assert library.history()[0].undone == 2

    def test_a_trigger_that_keeps_an_update_away(self, documents: Connection, empty_url: str) -> None:
        batch = taken(documents, empty_url, "mark:is_copy=true")
        documents.execute(MOVE.format("if new.id = 1 then return null; end if;", "before update").encode())
        undone = manager(empty_url).undo(batch)
        assert (undone.restored, [each.id for each in undone.refused]) == (1, ['["1"]'])
        assert "a trigger kept it" in undone.refused[0].reason

    def test_an_error_that_is_not_of_a_row(self, documents: Connection, empty_url: str) -> None:
        batch = taken(documents, empty_url)
        documents.execute(MOVE.format("raise exception using errcode = 'disk_full';", "before insert").encode())
        with pytest.raises(DbopsError, match=r"public\.documents") as caught:
            manager(empty_url).undo(batch)
        assert "was left as it is" in caught.value.hint

    def test_one_scopes_error_stops_no_other(self, documents: Connection, empty_url: str) -> None:
        documents.execute(
            "insert into documents (id, tenant_id, body) values (91, 9, 'one two three four'), (92, 9, 'one two three four');"
            "create function refuse() returns trigger language plpgsql as $$ begin raise 'not today'; end $$;"
            "create trigger refuse before update on documents for each row when (old.tenant_id = 1) execute function refuse()"
        )
        done = manager(empty_url).dedupe(target=mark())
        assert [(each.user, each.reason.splitlines()[0]) for each in done.failed] == [("1", "not today")]
        assert (done.marked, done.users) == (1, 1)

    def test_a_delete_that_is_not_allowed(self, documents: Connection, empty_url: str) -> None:
        documents.execute("create table pages (document int references documents); insert into pages values (1)")
        with pytest.raises(DbopsError, match=r"scope 1 .*pages_document_fkey") as caught:
            manager(empty_url).dedupe(target=mark(action="delete"))
        assert "was left as it is" in caught.value.hint
        assert one(documents, "select count(*) from documents") == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"table": "nothing"}, "public.nothing does not exist"),
        ({"text": "nothing"}, "--text: public.documents has no column nothing"),
        ({"scope": "tenant"}, "--scope: public.documents has no column tenant"),
        ({"keep": "points desc"}, "--keep: public.documents has no column points"),
        ({"action": "mark:id=3"}, "public.documents.id cannot be set"),
        ({"action": "mark:copy=true"}, "has no column copy"),
    ],
)
def test_what_does_not_fit_the_table(
    options: dict[str, str], message: str, documents: Connection, empty_url: str
) -> None:
    with pytest.raises(UsageError, match=message):
        manager(empty_url).scan(target=mark(**options))


def test_an_expression_that_fails(documents: Connection, empty_url: str) -> None:
    with pytest.raises(DbopsError, match="--table documents: division by zero") as caught:
        manager(empty_url).scan(target=mark(text="1 / (id - id)"))
    assert "nothing was done" in caught.value.hint


PARTITIONED = """
create schema "The App";
create table "The App"."Do""cs" ("tenant Id" char(4), code text, "The Body" text, kind text not null, "Is Copy" boolean, primary key ("tenant Id", code))
  partition by list ("tenant Id");
create table "The App"."Part 1" partition of "The App"."Do""cs" for values in ('a', 'b');
create table "The App".part2 partition of "The App"."Do""cs" default partition by hash (code);
create table "The App".part3 partition of "The App".part2 for values with (modulus 1, remainder 0);
insert into "The App"."Do""cs" values ('a', ' x', 'one two', 'k'), ('a', 'x', 'One, two', 'k'), ('b', 'x', 'one two', 'k'), ('c', '"', 'one two', 'k'),
  ('c', 'é', 'two one', 'k'), ('c', '', 'three', 'k');
"""


@pytest.mark.parametrize("action", ["delete", 'mark:"Is Copy"=true'])
@pytest.mark.parametrize(("name", "marked"), [('"Do""cs"', 2), ('"Part 1"', 1), ("part2", 1), ("part3", 1)])
def test_partitions(name: str, marked: int, action: str, empty_db: Connection, empty_url: str) -> None:
    empty_db.execute(PARTITIONED.encode())
    whole = '(select t.tableoid::regclass, t.* from "The App"."Do""cs" t)'
    before = image(empty_db, whole)
    target = Target(
        f'"The App".{name}', '"The Body"', action, scope='"tenant Id"', keep='length("The Body") desc, "Is Copy"'
    )
    library = manager(empty_url)
    done = library.dedupe(target=target)
    assert done.marked == marked
    assert len(set(before) - set(image(empty_db, whole))) == marked
    assert done.batch
    undone = library.undo(done.batch)
    assert (undone.restored, undone.refused, undone.altered) == (marked, (), ())
    assert image(empty_db, whole) == before


def test_a_table_needs_a_key(empty_db: Connection, empty_url: str) -> None:
    empty_db.execute("create table notes (body text, is_copy boolean)")
    with pytest.raises(UsageError, match="has no primary key"):
        manager(empty_url).scan(target=Target("notes", "body", "mark:is_copy=true"))


def test_the_memory_table_has_its_own_way(db: Connection, memory_url: str) -> None:
    with pytest.raises(UsageError, match="has a ledger of its own") as caught:
        manager(memory_url).scan(target=Target("user_memories", "fact", "delete", scope="user_id"))
    assert "leave out --table" in caught.value.hint


@pytest.mark.parametrize("action", ["delete", "mark:is_copy=true"])
def test_a_table_that_others_inherit_is_refused(action: str, documents: Connection, empty_url: str) -> None:
    documents.execute("create table letters (primary key (id)) inherits (documents)")
    with pytest.raises(UsageError, match=r"public\.documents is inherited by public\.letters"):
        manager(empty_url).scan(target=mark(action=action))
    documents.execute("insert into letters select * from documents")
    assert manager(empty_url).scan(target=mark(table="letters", action=action)).marked == 2


def test_a_view_is_refused(documents: Connection, empty_url: str) -> None:
    documents.execute("create view papers as select * from documents")
    with pytest.raises(UsageError, match=r"public\.papers is a view, no table"):
        manager(empty_url).scan(target=mark(table="papers"))


def test_nothing_but_nulls(empty_db: Connection, empty_url: str) -> None:
    empty_db.execute("create table notes (id int primary key, body text, scope int, is_copy boolean)")
    empty_db.execute(
        "insert into notes select n from generate_series(1, 5) n; insert into notes select n, 'a b' from generate_series(6, 9) n"
    )
    library = manager(empty_url)
    assert library.scan(target=Target("notes", "body", "mark:is_copy=true", scope="scope")).rows == 0
    assert library.scan(target=Target("notes", "body", "mark:is_copy=true")).marked == 3


def test_beside_the_memory_schema(db: Connection, memory_url: str) -> None:
    db.execute(TABLE.encode())
    assert manager(memory_url).scan(target=mark()).marked == 2


def test_a_function_that_somebody_planted_is_not_called(documents: Connection, empty_url: str) -> None:
    # all that the memory schema would have, by one who may create in public
    documents.execute("""
        create table user_memories (id int); create table hygiene_changes (id int);
        create function word_set(text) returns text[] language plpgsql as $$ begin raise exception 'called'; end $$;
        create function word_fold(text) returns text language plpgsql as $$ begin raise exception 'called'; end $$;
        insert into documents values (8, 1, 'Äpfel und Birnen'), (9, 1, 'Äpfel und Birnen!');
    """)
    assert manager(empty_url).scan(target=mark()).marked == 3


def test_scopes_are_kept_apart_at_the_cost_of_their_pairs(empty_db: Connection, empty_url: str) -> None:
    # 10,000 scopes with all pairs looked through for each took most of a minute
    pairs = [(number, number + 1, 0.9) for number in range(0, 40_000, 2)]
    near = _by_first(pairs)
    rows = [[Row("1", "a", "", a), Row("2", "b", "", b), Row("3", "c", "", None)] for a, b, _ in pairs]
    assert [_within(part, near) for part in rows] == [[pair] for pair in pairs]
    # and the same texts in each
    empty_db.execute("create table notes (id int primary key, scope int, body text, is_copy boolean)")
    empty_db.execute("insert into notes select n, n / 3, 'note ' || n % 3 / 2 from generate_series(0, 2999) n")
    plan = manager(empty_url).scan(target=Target("notes", "body", "mark:is_copy=true", scope="scope"))
    assert (plan.pairs, plan.marked, len(plan.scopes)) == (1000, 1000, 1000)


WORDS = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu"]


@pytest.mark.parametrize("threshold", [0.05, 0.2, 1 / 3, 0.5, 0.51, 2 / 3, 0.75, 0.85, 1.0])
def test_every_pair_is_found_at_every_threshold(threshold: float, empty_db: Connection, empty_url: str) -> None:
    rng = random.Random(threshold)
    texts = [(n, n % 2, " ".join(rng.sample(WORDS, rng.randint(1, len(WORDS))))) for n in range(60)]
    empty_db.execute("create table notes (id int primary key, scope int, body text, is_copy boolean)")
    empty_db.cursor().executemany("insert into notes values (%s, %s, %s)", texts)

    def near(a: str, b: str) -> bool:
        one, other = set(a.split()), set(b.split())
        return len(one & other) / len(one | other) >= threshold

    expected = sum(s == t and near(a, b) for (_, s, a), (_, t, b) in combinations(texts, 2))
    target = Target("notes", "body", "mark:is_copy=true", scope="scope")
    assert manager(empty_url).scan(target=target, search=Search(threshold=threshold)).pairs == expected
