"""HygieneManager on real servers: what it finds, what it changes, and that all of it comes back."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from dbops.errors import UsageError
from dbops.hygiene import Search, cleanup, review
from dbops.hygiene.table.model import Target
from tests.hygiene import ANN, BOB, Connection, embed, image, manager, marked, one, person, remember, uid

TEA = [
    "The user likes green tea in the morning",
    "User likes green tea in the morning",
    "the user likes green tea in the morning!",
]
JOBS = [
    "User works at Google as a senior data engineer in the office in the city",
    "User works at Microsoft as a senior data engineer in the office in the city",
]


def test_near_copies_are_marked_and_undo_restores_every_row(db: Connection, memory_url: str) -> None:
    remember(db, [*TEA, "User has a dog"])
    library = manager(memory_url)
    before = image(db)
    plan = library.scan()
    assert image(db) == before
    assert (plan.rows, plan.marked, plan.review, plan.pairs) == (4, 2, 0, 3)
    done = library.dedupe(plan)
    assert marked(db) == {uid(2): uid(1), uid(3): uid(1)}
    assert (done.users, done.marked, done.skipped) == (1, 2, ())
    assert done.reduction == 0.5
    assert done.batch
    undone = library.undo(done.batch)
    assert (undone.restored, undone.refused) == (2, ())
    assert image(db) == before
    with pytest.raises(UsageError, match="has been undone already"):
        library.undo(done.batch)


def test_what_an_undo_refused_can_be_tried_again(db: Connection, memory_url: str) -> None:
    remember(db, TEA)
    library, before = manager(memory_url), image(db)
    batch = library.dedupe().batch
    assert batch
    db.execute("set session_replication_role = replica")  # no trigger notes the time or counts versions
    db.execute("update user_memories set source = 'x' where id = %s", [uid(2)])
    undone = library.undo(batch)
    assert (undone.restored, [each.id for each in undone.refused]) == (1, [uid(2)])
    assert marked(db) == {uid(2): uid(1)}
    db.execute("update user_memories set source = null where id = %s", [uid(2)])
    undone = library.undo(batch)
    assert (undone.restored, undone.refused) == (1, ())
    assert image(db) == before
    with pytest.raises(UsageError, match="has been undone already"):
        library.undo(batch)


def test_what_is_clean_makes_no_batch(db: Connection, memory_url: str) -> None:
    remember(db, ["User has a dog", "User likes tea"])
    library = manager(memory_url)
    done = library.dedupe()
    assert (done.batch, done.users, done.marked, done.rows) == (None, 0, 0, 2)
    assert library.history() == ()


def test_the_survivor_is_the_most_important_then_confident_newest_lowest(db: Connection, memory_url: str) -> None:
    now = datetime.now(UTC)
    fact = [TEA[0]]
    remember(db, fact, first=1, importance_score=0.5, confidence_score=0.5, created_at=now)
    remember(db, fact, first=2, importance_score=0.9, confidence_score=0.1, created_at=now)
    remember(db, fact, first=3, importance_score=0.9, confidence_score=0.4, created_at=now - timedelta(days=1))
    remember(db, fact, first=5, importance_score=0.9, confidence_score=0.4, created_at=now)
    remember(db, fact, first=4, importance_score=0.9, confidence_score=0.4, created_at=now)
    manager(memory_url).dedupe()
    assert marked(db) == {uid(n): uid(4) for n in (1, 2, 3, 5)}


def test_tags_and_counts_go_to_the_survivor_whose_version_stays(db: Connection, memory_url: str) -> None:
    remember(db, TEA[:1], tags=["tea"])
    remember(db, TEA[1:2], first=2, tags=["green", "tea"], importance_score=0.1)
    db.execute(
        "insert into memory_usage (user_id, memory_id, access_count) values (%s, %s, 2), (%s, %s, 3)",
        [ANN, uid(1), ANN, uid(2)],
    )
    before = image(db)
    library = manager(memory_url)
    done = library.dedupe()
    assert one(db, "select tags from user_memories where id = %s", [uid(1)]) == ["tea", "green"]
    assert one(db, "select access_count from memory_usage where memory_id = %s", [uid(1)]) == 5
    assert one(db, "select version from user_memories where id = %s", [uid(1)]) == 1
    assert done.batch
    assert library.undo(done.batch).refused == ()
    assert image(db) == before


class TestUsers:
    def test_one_user_only(self, db: Connection, memory_url: str) -> None:
        remember(db, TEA)
        remember(db, TEA, BOB, first=11)
        library = manager(memory_url)
        assert library.deduplicate_memories(BOB).marked == 2
        assert set(marked(db)) == {uid(12), uid(13)}
        assert library.dedupe().users == 1

    def test_no_pair_crosses_users(self, db: Connection, memory_url: str) -> None:
        remember(db, TEA[:1])
        remember(db, TEA[:1], BOB, first=11)
        assert manager(memory_url).scan().pairs == 0

    def test_a_user_by_any_name(self, db: Connection, memory_url: str) -> None:
        user = str(one(db, "select user_uuid('ann')"))
        remember(db, TEA, user)
        assert manager(memory_url).scan("ann").marked == 2

    def test_an_unknown_user_is_an_error_and_one_without_memories_is_none(
        self, db: Connection, memory_url: str
    ) -> None:
        person(db)
        assert manager(memory_url).scan(ANN).rows == 0
        with pytest.raises(UsageError, match=f"there is no user {BOB}"):
            manager(memory_url).scan(BOB)
        with pytest.raises(UsageError, match=r"there is no user nobody \(.{36}\)"):
            manager(memory_url).dedupe(user="nobody")

    @pytest.mark.parametrize("name", ["a\0b", "\ud800"])
    def test_a_name_that_is_no_text(self, name: str, memory_url: str) -> None:
        with pytest.raises(UsageError, match=r"NUL character|not valid Unicode"):
            manager(memory_url).scan(name)

    def test_an_option_that_is_no_text(self, memory_url: str) -> None:
        with pytest.raises(UsageError, match="text is not valid Unicode"):
            manager(memory_url).scan(target=Target("notes", "'\ud800'", "delete"))
        with pytest.raises(UsageError, match="model is not valid Unicode"):
            manager(memory_url).scan(search=Search(semantic=0.9, model="\ud800"))
        with pytest.raises(UsageError, match="model holds a NUL character"):
            manager(memory_url).scan(search=Search(semantic=0.9, model="\0"))


class TestReview:
    def test_an_update_goes_to_review_and_not_to_the_merge(self, db: Connection, memory_url: str) -> None:
        remember(db, JOBS)
        library = manager(memory_url)
        done = library.dedupe(search=Search(threshold=0.8))
        assert (done.marked, done.review) == (0, 1)
        [item] = library.review()
        assert (item.texts, item.reason, item.kind) == ((JOBS[0], JOBS[1]), "name", "text")
        assert library.dedupe(search=Search(threshold=0.8)).review == 1
        assert len(library.review()) == 1

    def test_accepted_it_is_marked_and_undo_opens_it_again(self, db: Connection, memory_url: str) -> None:
        remember(db, JOBS)
        library = manager(memory_url)
        library.dedupe(search=Search(threshold=0.8))
        before = image(db)
        done = library.accept([library.review()[0].id])
        assert marked(db) == {uid(2): uid(1)}
        assert library.review() == ()
        assert done.batch
        library.undo(done.batch)
        assert image(db) == before
        assert len(library.review()) == 1

    def test_rejected_it_does_not_come_back_until_a_text_changes(self, db: Connection, memory_url: str) -> None:
        remember(db, JOBS)
        library, search = manager(memory_url), Search(threshold=0.8)
        library.dedupe(search=search)
        assert library.reject([library.review()[0].id]) == 1
        assert library.scan(search=search).review == 0
        db.execute("update user_memories set fact = replace(fact, 'Google', 'Amazon')")
        assert library.scan(search=search).review == 1

    def test_an_unknown_or_decided_pair_is_refused_and_nothing_done(self, db: Connection, memory_url: str) -> None:
        remember(db, JOBS)
        library = manager(memory_url)
        with pytest.raises(UsageError, match="7 is not on the list"):
            library.reject([7])
        library.dedupe(search=Search(threshold=0.8))
        [item] = library.review()
        with pytest.raises(UsageError, match="999 is not on the list"):
            library.accept([item.id, 999])
        assert marked(db) == {}
        library.reject([item.id])
        with pytest.raises(UsageError, match=f"{item.id} was rejected"):
            library.accept([item.id])

    def test_the_list_is_read_in_portions(
        self, db: Connection, memory_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(review, "_AT_ONCE", 2)
        for n in range(0, 50, 10):
            remember(db, JOBS, f"00000000-0000-4000-8000-{n:012}", first=n + 1)
        library = manager(memory_url)
        library.dedupe(search=Search(threshold=0.8))
        assert len(library.review()) == 5
        first = library.review(limit=1)
        db.execute("update user_memories set fact = 'User is a painter' where id = %s", [first[0].b])
        assert [len(library.review(limit=limit)) for limit in (1, 3, 4, 5)] == [1, 3, 4, 4]

    def test_a_pair_whose_text_changed_is_not_shown(self, db: Connection, memory_url: str) -> None:
        remember(db, JOBS)
        library = manager(memory_url)
        library.dedupe(search=Search(threshold=0.8))
        db.execute("update user_memories set fact = 'User is a painter' where id = %s", [uid(2)])
        assert library.review() == ()


class TestMeaning:
    FACTS = ("User adores cats", "User really is fond of cats", "User adores cats very much")

    def vectors(self, conn: Connection) -> None:
        remember(conn, list(self.FACTS))
        for n, vector in enumerate(([1.0, 0.0, 0.0], [0.99, 0.1, 0.0], [0.0, 1.0, 0.0]), 1):
            embed(conn, uid(n), vector)

    def test_pairs_by_meaning_are_added(self, db: Connection, memory_url: str) -> None:
        self.vectors(db)
        library = manager(memory_url)
        assert library.scan().pairs == 0
        assert library.dedupe(search=Search(semantic=0.95)).marked == 1
        assert marked(db) == {uid(2): uid(1)}

    def test_both_demands_both(self, db: Connection, memory_url: str) -> None:
        self.vectors(db)
        library = manager(memory_url)
        assert library.scan(search=Search(threshold=0.6, semantic=0.95, both=True)).pairs == 0
        assert library.scan(search=Search(threshold=0.6, semantic=0.95)).pairs == 2

    def test_without_embeddings_there_are_none(self, db: Connection, memory_url: str) -> None:
        remember(db, list(self.FACTS))
        assert manager(memory_url).scan(search=Search(semantic=0.9)).pairs == 0

    @pytest.mark.parametrize("both", [False, True])
    @pytest.mark.parametrize("text", ["!!!", "word " * 15_000, "User adores cats"])
    def test_copies_with_one_vector_are_found_with_a_word_set_or_without(
        self, text: str, both: bool, db: Connection, memory_url: str
    ) -> None:
        remember(db, [text] * 3)
        for n in (1, 2, 3):
            embed(db, uid(n), [1.0, 0.5])
        library, search = manager(memory_url), Search(semantic=0.95, both=both)
        assert library.scan(search=search).pairs == 3
        library.dedupe(search=search)
        assert marked(db) == {uid(2): uid(1), uid(3): uid(1)}

    def test_zero_vectors_are_near_nothing(self, db: Connection, memory_url: str) -> None:
        remember(db, [*self.FACTS, "!!!", "!!!"])
        for n in (1, 2, 3, 4, 5):
            embed(db, uid(n), [0.0, 0.0])
        assert manager(memory_url).scan(search=Search(semantic=0.1)).pairs == 0

    def test_the_model_is_chosen(self, db: Connection, memory_url: str) -> None:
        self.vectors(db)
        assert manager(memory_url).scan(search=Search(semantic=0.9, model="other")).pairs == 0
        assert manager(memory_url).scan(search=Search(semantic=0.9, model="m")).pairs == 1


class TestCleanup:
    def old(self, conn: Connection, days: int = 100) -> None:
        conn.execute(
            "update user_memories set updated_at = now() - make_interval(days => %s) where not is_active", [days]
        )

    def test_old_losers_go_and_come_back(self, db: Connection, memory_url: str) -> None:
        remember(db, TEA)
        library = manager(memory_url)
        library.dedupe()
        db.execute("insert into memory_usage (user_id, memory_id, access_count) values (%s, %s, 2)", [ANN, uid(2)])
        embed(db, uid(2), [0.5, 0.25])
        assert library.plan_cleanup().users == ()
        self.old(db)
        before = image(db)
        plan = library.plan_cleanup()
        assert (plan.users, plan.memories) == (((ANN, 2, 0),), 2)
        done = library.cleanup_old_memories(90, plan=plan)
        assert one(db, "select count(*) from user_memories") == 1
        assert (done.marked, done.users) == (2, 1)
        assert done.batch
        assert library.undo(done.batch).refused == ()
        assert image(db) == before

    def test_expired_blobs_go_with_their_bytes_and_come_back(self, db: Connection, memory_url: str) -> None:
        person(db)
        db.execute(
            "insert into memory_blobs (user_id, key, content, sha256, size_bytes, stored_bytes, expires_at) "
            "values (%s, 'k', '\\x00ff', sha256('\\x00ff'), 2, 2, now() - interval '1 hour')",
            [ANN],
        )
        before = image(db)
        library = manager(memory_url)
        done = library.cleanup_old_memories()
        assert one(db, "select count(*) from memory_blobs") == 0
        assert done.batch
        assert library.undo(done.batch).restored == 1
        assert image(db) == before

    def test_the_ledger_is_purged_when_its_time_is_over(self, db: Connection, memory_url: str) -> None:
        remember(db, TEA)
        library = manager(memory_url)
        library.dedupe()
        self.old(db)
        done = library.cleanup_old_memories(purge_after=0)
        assert one(db, "select count(*) from hygiene_changes where batch = %s", [done.batch]) == 2
        again = library.cleanup_old_memories()
        assert (again.batch, again.purged) == (None, 1)
        assert one(db, "select count(*) from hygiene_changes where batch = %s", [done.batch]) == 0
        assert done.batch
        with pytest.raises(UsageError, match="its ledger was purged"):
            library.undo(done.batch)

    def test_every_runs_ledger_is_purged_in_portions(
        self, db: Connection, memory_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cleanup, "_AT_ONCE", 2)
        remember(db, [*TEA, "tea user likes green in the morning", *JOBS])
        remember(db, TEA, BOB, first=11)
        library = manager(memory_url)
        done = library.dedupe(search=Search(threshold=0.8))
        accepted = library.accept([item.id for item in library.review()])
        assert all(batch.purge_after for batch in library.history())
        assert library.plan_cleanup().ledgers == 0
        db.execute("update dbops.hygiene_runs set purge_after = now() - interval '1 s' where batch = %s", [done.batch])
        plan = library.plan_cleanup()
        assert (plan.users, plan.ledgers, plan.empty) == ((), 1, False)
        assert library.plan_cleanup(user=ANN).empty
        done_cleanup = library.cleanup_old_memories(plan=plan)
        assert (done_cleanup.batch, done_cleanup.purged) == (None, 1)
        assert one(db, "select count(*) from hygiene_batches where id = %s", [done.batch]) == 0
        assert accepted.batch
        assert library.undo(accepted.batch).restored == accepted.marked

    def test_without_the_memory_schema_it_purges(self, empty_db: Connection, empty_url: str) -> None:
        empty_db.execute("create table notes (id int primary key, body text, is_copy boolean)")
        empty_db.execute("insert into notes select n, 'one two three' from generate_series(1, 5) n")
        library, target = manager(empty_url), Target("notes", "body", "mark:is_copy=true")
        done = library.dedupe(target=target)
        assert library.plan_cleanup().empty
        empty_db.execute("update dbops.hygiene_runs set purge_after = now() - interval '1 s'")
        assert library.plan_cleanup().ledgers == 1
        assert library.cleanup_old_memories().purged == 1
        assert one(empty_db, "select count(*) from dbops.hygiene_saved") == 0
        assert library.plan_cleanup().empty
        assert done.batch
        with pytest.raises(UsageError, match="its ledger was purged"):
            library.undo(done.batch)

    def test_reviews_of_what_is_gone_go(self, db: Connection, memory_url: str) -> None:
        remember(db, JOBS)
        library = manager(memory_url)
        library.dedupe(search=Search(threshold=0.8))
        assert library.plan_cleanup().empty
        db.execute("delete from user_memories where id = %s", [uid(2)])
        assert library.plan_cleanup().reviews == 1
        library.cleanup_old_memories()
        assert one(db, "select count(*) from dbops.hygiene_reviews") == 0

    def test_more_than_one_portion(self, db: Connection, memory_url: str) -> None:
        person(db)
        db.execute(
            "insert into user_memories (user_id, fact, memory_type, is_active) select %s, 'f ' || n, 'fact', false from generate_series(1, 2500) n",
            [ANN],
        )
        self.old(db)
        library = manager(memory_url)
        before = image(db)
        done = library.cleanup_old_memories()
        assert done.marked == 2500
        assert done.batch
        assert library.undo(done.batch).restored == 2500
        assert image(db) == before

    @pytest.mark.parametrize("days", [-1, 10**6])
    def test_days_out_of_range(self, days: int, memory_url: str) -> None:
        with pytest.raises(UsageError, match=f"--days {days}"):
            manager(memory_url).cleanup_old_memories(days)


class TestHistory:
    def test_batches_of_both_kinds_and_what_was_undone(self, db: Connection, memory_url: str) -> None:
        ids = remember(db, [*TEA, "User has a dog", "User owns one dog"])
        library = manager(memory_url)
        done = library.dedupe()
        db.execute("select mark_memory_duplicate(%s, %s, %s)", [ANN, ids[4], ids[3]])
        batches = {batch.command: batch for batch in library.history()}
        assert batches["dedupe"].marked == 2
        assert batches["dedupe"].finished
        assert batches["dedupe"].bytes == sum(len(fact) for fact in TEA[1:])
        assert batches["mark"].marked == 1
        assert done.batch
        library.undo(done.batch)
        library.undo(batches["mark"].batch)
        assert {batch.command: batch.undone for batch in library.history()} == {"dedupe": 2, "mark": 1}

    def test_stats_by_user(self, db: Connection, memory_url: str) -> None:
        remember(db, TEA)
        remember(db, ["User has a dog"], BOB, first=11)
        library = manager(memory_url)
        library.dedupe()
        stats = library.stats()
        assert [(each.user, each.memories, each.duplicates, each.bytes) for each in stats.users] == [
            (ANN, 3, 2, sum(map(len, TEA[1:])))
        ]
        assert stats.users[0].reduction == pytest.approx(2 / 3)
        assert stats.marked == 2
        assert [each.user for each in library.stats(BOB).users] == [BOB]


@pytest.mark.parametrize("batch", ["nonsense", str(uuid.UUID(int=5))])
def test_an_unknown_batch(batch: str, memory_url: str) -> None:
    with pytest.raises(UsageError, match="no batch"):
        manager(memory_url).undo(batch)


def test_without_the_memory_schema_it_is_said(empty_url: str) -> None:
    library = manager(empty_url)
    for act in (library.scan, library.dedupe, library.review, library.plan_cleanup):
        with pytest.raises(UsageError, match="no memory schema"):
            act()
    assert library.history() == ()
    assert library.stats().users == ()


def test_texts_without_words_and_too_large_ones(db: Connection, memory_url: str) -> None:
    large = "word " * 15_000
    remember(db, ["...", "!!!", "...", large, large, " ", "x"])
    plan = manager(memory_url).scan()
    assert {id_ for _, id_ in plan.oversized} == {uid(4), uid(5)}
    assert plan.marked == 0


def test_memories_that_came_past_the_trigger_are_told(db: Connection, memory_url: str) -> None:
    db.execute("alter table user_memories disable trigger user_memories_tokens_insert")
    remember(db, TEA)
    assert manager(memory_url).scan().notes == (
        "3 memories have no word set yet and were not compared: select public.fill_memory_tokens()",
    )


def test_a_memory_whose_word_set_is_of_another_text_is_left_alone(db: Connection, memory_url: str) -> None:
    remember(db, [*TEA, TEA[0]])
    db.execute("set session_replication_role = replica")  # as a restore does
    db.execute("update user_memories set fact = 'drinks black coffee after lunch' where id = %s", [uid(1)])
    db.execute("reset session_replication_role")
    library = manager(memory_url)
    plan = library.scan()
    assert plan.notes == ("1 memory left out, their word set being another text's: dbops doctor --check stale-tokens",)
    library.dedupe(plan)
    assert one(db, "select is_active from user_memories where id = %s", [uid(1)])
    assert uid(1) not in {str(row[0]) for row in db.execute("select duplicate_of from user_memories")}


def test_cleanup_removes_word_sets_without_a_memory(db: Connection, memory_url: str) -> None:
    remember(db, TEA)
    db.execute("set session_replication_role = replica")
    db.execute("delete from user_memories where id = %s", [uid(1)])
    db.execute("reset session_replication_role")
    library = manager(memory_url)
    plan = library.plan_cleanup()
    assert (plan.word_sets, plan.kept) == (1, "1 word set without an active memory")
    library.cleanup_old_memories(plan=plan)
    assert one(db, "select array_agg(memory_id::text order by 1) from memory_tokens") == [uid(2), uid(3)]


def test_what_it_keeps_is_closed_to_others(db: Connection, memory_url: str) -> None:
    remember(db, TEA)
    manager(memory_url).dedupe()
    for table in ("hygiene_runs", "hygiene_saved", "hygiene_reviews"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute(f"begin; set local role authenticated; select from dbops.{table}".encode())
        db.rollback()
        assert one(db, "select relrowsecurity from pg_class where oid = %s::regclass", [f"dbops.{table}"])
