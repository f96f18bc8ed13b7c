"""`dbops hygiene` as a person or a script meets it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from dbops.wording import count
from tests.cli.conftest import Command
from tests.hygiene import ANN, BOB, Connection, embed, image, marked, one, remember, uid

FACTS = [
    "The user likes green tea in the morning",
    "User likes green tea in the morning",
    "User has 3 cats and a very old dog",
    "User has 4 cats and a very old dog",
]
LOOSE = ("--threshold", "0.8")


@pytest.fixture
def noisy(folder: Path, db: Connection, memory_url: str, monkeypatch: pytest.MonkeyPatch) -> Connection:
    """A user with a duplicate and an update."""
    monkeypatch.setenv("DATABASE_URL", memory_url)
    remember(db, FACTS)
    return db


KEYS = {"batch", "users", "pairs", "marked", "review", "reduction", "duration_ms"}


def test_scan_shows_and_changes_nothing(noisy: Connection, dbops: Command) -> None:
    before = image(noisy)
    done = dbops("hygiene", "scan", *LOOSE, "--json")
    assert done.code == 0
    assert set(done.json) >= KEYS
    assert (done.json["batch"], done.json["users"], done.json["pairs"], done.json["marked"], done.json["review"]) == (
        None,
        1,
        2,
        1,
        1,
    )
    assert done.json["reduction"] == 0.25
    assert done.json["clusters"] == [{"user": ANN, "survivor": uid(1), "losers": [uid(2)]}]
    assert f"{uid(1)} stays, {uid(2)} marked" in dbops("hygiene", "scan", *LOOSE).out
    assert dbops("hygiene", "dedupe", *LOOSE, "--dry-run", "--json").json["clusters"] == done.json["clusters"]
    assert image(noisy) == before


class TestDedupe:
    def test_without_a_terminal_and_a_yes_nothing_is_done(self, noisy: Connection, dbops: Command) -> None:
        before = image(noisy)
        done = dbops("hygiene", "dedupe", *LOOSE, "--json")
        assert (done.code, done.error["code"]) == (2, "confirmation_required")
        assert image(noisy) == before

    def test_the_question_shows_the_plan_and_the_target(
        self, noisy: Connection, dbops: Command, types: Callable[[str], None]
    ) -> None:
        types("n")
        done = dbops("hygiene", "dedupe", *LOOSE)
        assert done.code == 2
        assert "1 duplicate (25.0%)" in done.err
        assert "mark 1 duplicate in public.user_memories on " in done.err
        assert marked(noisy) == {}
        types("y")
        assert dbops("hygiene", "dedupe", *LOOSE).code == 0
        assert marked(noisy) == {uid(2): uid(1)}

    def test_marked_reviewed_undone(self, noisy: Connection, dbops: Command) -> None:
        before = image(noisy)
        done = dbops("hygiene", "dedupe", "--user", ANN, *LOOSE, "--yes", "--json")
        assert done.code == 0
        assert set(done.json) >= KEYS
        batch = done.json["batch"]
        assert (done.json["marked"], done.json["review"], done.json["skipped"]) == (1, 1, [])
        [entry] = dbops("hygiene", "history", "--json").json["batches"]
        assert (entry["batch"], entry["marked"], entry["undone"], entry["command"]) == (batch, 1, 0, "dedupe")
        assert entry["at"].endswith("Z")
        assert entry["by"]
        stats = dbops("hygiene", "stats", "--json").json
        assert stats["batches"] == [entry]
        assert [(user["user"], user["duplicates"]) for user in stats["users"]] == [(ANN, 1)]
        undone = dbops("hygiene", "undo", batch, "--yes", "--json")
        restored = {"batch": batch, "restored": 1, "refused": [], "altered": [], "failed": []}
        assert (undone.code, undone.json) == (0, restored)
        assert image(noisy) == before
        again = dbops("hygiene", "undo", batch, "--yes", "--json")
        assert (again.code, again.error["code"]) == (2, "usage")

    def test_what_changed_since_is_refused_named_and_exits_3(self, noisy: Connection, dbops: Command) -> None:
        batch = dbops("hygiene", "dedupe", *LOOSE, "--yes", "--json").json["batch"]
        noisy.execute("update user_memories set tags = '{new}' where id = %s", [uid(2)])
        undone = dbops("hygiene", "undo", batch, "--yes", "--json")
        assert undone.code == 3
        assert undone.json["refused"] == [{"id": uid(2), "reason": "it was changed since"}]

    def test_nothing_to_do_needs_no_question(self, noisy: Connection, dbops: Command) -> None:
        noisy.execute("delete from user_memories where id = any (%s)", [[uid(2), uid(4)]])
        done = dbops("hygiene", "dedupe")
        assert (done.code, done.out) == (0, "nothing to do among 2 rows\n")

    def test_a_profile_wants_its_word(self, noisy: Connection, folder: Path, dbops: Command) -> None:
        (folder / "dbops.toml").write_text('[env.prod]\nconfirm = "prod"\n')
        assert dbops("hygiene", "dedupe", *LOOSE, "--env", "prod", "--yes").code == 2
        assert marked(noisy) == {}
        assert dbops("hygiene", "dedupe", *LOOSE, "--env", "prod", "--confirm", "prod").code == 0


class TestMeaning:
    FACTS = ("User adores cats", "User really is fond of cats", "User adores cats very much", "User simply adores cats")

    @pytest.fixture
    def meant(self, noisy: Connection) -> Connection:
        """Three more memories near the first: one by meaning, one by words, one by both; another model says otherwise."""
        noisy.execute("delete from user_memories")
        remember(noisy, list(self.FACTS))
        for n, vector in enumerate(([1.0, 0.0, 0.0], [0.99, 0.1, 0.0], [0.0, 1.0, 0.0], [0.98, 0.0, 0.1]), 1):
            embed(noisy, uid(n), vector)
        for n, vector in ((1, [1.0, 0.0]), (2, [0.0, 1.0]), (3, [1.0, 0.01])):
            embed(noisy, uid(n), vector, model="other")
        return noisy

    @pytest.mark.parametrize(
        ("options", "how", "pairs", "losers"),
        [
            (("--semantic", "0.95", "--model", "m"), "text at 0.85, or meaning at 0.95", 3, (2, 4)),
            (("--semantic", "0.95", "--model", "other"), "text at 0.85, or meaning at 0.95", 1, (3,)),
            (("--semantic", "0.95"), "text at 0.85, or meaning at 0.95", 4, (2, 3, 4)),
            (("--semantic", "0.95", "--model", "m", "--threshold", "0.6"), "text at 0.6, or meaning at 0.95", 4, (2, 3, 4)),
            (("--semantic", "0.95", "--both", "--model", "m", "--threshold", "0.6"), "text at 0.6 and meaning at 0.95", 1, (4,)),
            (("--semantic", "0.95", "--both", "--threshold", "0.6"), "text at 0.6 and meaning at 0.95", 2, (3, 4)),
        ],
    )  # fmt: skip
    def test_marked_and_undone(
        self, options: tuple[str, ...], how: str, pairs: int, losers: tuple[int, ...], meant: Connection, dbops: Command
    ) -> None:
        before = image(meant)
        done = dbops("hygiene", "dedupe", *options, "--yes", "--json")
        assert done.code == 0
        assert f"public.user_memories: {count(pairs, 'pair')} ({how}) among 4 rows; " in done.err
        assert (done.json["pairs"], done.json["marked"], done.json["review"]) == (pairs, len(losers), 0)
        assert marked(meant) == {uid(n): uid(1) for n in losers}
        active = {str(row[0]) for row in meant.execute("select id from user_memories where is_active")}
        assert active == {uid(n) for n in (1, 2, 3, 4) if n not in losers}
        assert dbops("hygiene", "undo", done.json["batch"], "--yes", "--json").json["restored"] == len(losers)
        assert image(meant) == before

    def test_what_a_person_sees(self, meant: Connection, dbops: Command) -> None:
        before = image(meant, "memory_embeddings")
        done = dbops("hygiene", "dedupe", "--semantic", "0.95", "--model", "m", "--yes")
        assert (done.code, done.out[:26]) == (0, "marked 2 rows of 4 (50.0%)")
        assert f"{uid(1)} stays, {uid(2)}, {uid(4)} marked" in done.err
        assert marked(meant) == {uid(2): uid(1), uid(4): uid(1)}
        assert image(meant, "memory_embeddings") == before


@pytest.mark.parametrize(("cluster", "losers"), [("stars", (2,)), ("components", (2, 3))])
def test_a_chain_is_one_cluster_or_not(
    cluster: str, losers: tuple[int, ...], noisy: Connection, dbops: Command
) -> None:
    noisy.execute("delete from user_memories")
    chain = ["User likes tea with milk every morning", "User likes tea with milk", "User likes tea"]
    remember(noisy, chain)
    before = image(noisy)
    done = dbops("hygiene", "dedupe", "--cluster", cluster, "--threshold", "0.6", "--yes")
    assert done.code == 0
    assert done.out.startswith(f"marked {count(len(losers), 'row')} of 3 ")
    assert "2 pairs (text at 0.6) among 3 rows" in done.err
    assert f"{uid(1)} stays, {', '.join(uid(n) for n in losers)} marked" in done.err
    assert marked(noisy) == {uid(n): uid(1) for n in losers}
    [batch] = dbops("hygiene", "history", "--json").json["batches"]
    assert dbops("hygiene", "undo", batch["batch"], "--yes").code == 0
    assert image(noisy) == before


class TestReview:
    def test_list_accept_reject(self, noisy: Connection, dbops: Command) -> None:
        assert dbops("hygiene", "review").out == "nothing to review\n"
        dbops("hygiene", "dedupe", *LOOSE, "--yes")
        [item] = dbops("hygiene", "review", "--json").json["items"]
        assert {"id", "pair", "texts", "reason"} <= set(item)
        assert (item["pair"], item["texts"], item["reason"]) == ([uid(3), uid(4)], FACTS[2:], "number")
        shown = dbops("hygiene", "review").out
        assert FACTS[2] in shown
        assert FACTS[3] in shown
        assert dbops("hygiene", "review", "accept", str(item["id"]), "--dry-run", "--json").json["items"] == [item]
        asked = dbops("hygiene", "review", "accept", str(item["id"]))
        assert asked.code == 2
        assert "mark the second of 1 pair on " in asked.err
        assert uid(4) not in marked(noisy)
        assert dbops("hygiene", "review", "accept", str(item["id"]), "--yes", "--json").json["marked"] == 1
        assert marked(noisy)[uid(4)] == uid(3)
        assert dbops("hygiene", "review", "reject", str(item["id"])).code == 2

    def test_accept_shows_the_pair_asks_and_wants_a_profiles_word(
        self, noisy: Connection, folder: Path, dbops: Command, types: Callable[[str], None]
    ) -> None:
        dbops("hygiene", "dedupe", *LOOSE, "--yes")
        id_ = str(dbops("hygiene", "review", "--json").json["items"][0]["id"])
        types("n")
        asked = dbops("hygiene", "review", "accept", id_)
        assert asked.code == 2
        assert FACTS[3] in asked.err
        (folder / "dbops.toml").write_text('[env.prod]\nconfirm = "prod"\n')
        types("yes")  # not the word
        assert dbops("hygiene", "review", "accept", id_, "--env", "prod", "--yes").code == 2
        assert uid(4) not in marked(noisy)
        assert dbops("hygiene", "review", "accept", id_, "--env", "prod", "--confirm", "prod").code == 0
        assert uid(4) in marked(noisy)

    def test_a_plan_of_doubts_alone_is_asked_for_too(self, noisy: Connection, dbops: Command) -> None:
        noisy.execute("delete from user_memories where id = %s", [uid(2)])
        asked = dbops("hygiene", "dedupe", *LOOSE)
        assert asked.code == 2
        assert "list 1 pair to review in public.user_memories" in asked.err
        assert dbops("hygiene", "review").out == "nothing to review\n"
        assert dbops("hygiene", "dedupe", *LOOSE, "--yes", "--json").json["review"] == 1

    def test_rejected(self, noisy: Connection, dbops: Command) -> None:
        dbops("hygiene", "dedupe", *LOOSE, "--yes")
        [item] = dbops("hygiene", "review", "--json").json["items"]
        assert dbops("hygiene", "review", "reject", str(item["id"]), "--json").json == {"items": [], "rejected": 1}
        assert dbops("hygiene", "scan", *LOOSE, "--json").json["review"] == 0


def test_cleanup_asks_deletes_and_comes_back(noisy: Connection, dbops: Command) -> None:
    dbops("hygiene", "dedupe", *LOOSE, "--yes")
    noisy.execute("update user_memories set updated_at = now() - interval '1 year' where not is_active")
    before = image(noisy)
    planned = dbops("hygiene", "cleanup", "--dry-run", "--json")
    assert set(planned.json) >= KEYS
    assert planned.json["marked"] == 1
    assert dbops("hygiene", "cleanup").code == 2
    assert image(noisy) == before
    done = dbops("hygiene", "cleanup", "--days", "30", "--yes", "--json")
    assert set(done.json) >= KEYS
    assert done.json["marked"] == 1
    assert dbops("hygiene", "undo", done.json["batch"], "--yes").code == 0
    assert image(noisy) == before


@pytest.mark.parametrize(("option", "days"), [((), 30), (("--purge-after", "7"), 7), (("--purge-after", "0"), 0)])
def test_a_clean_up_can_be_taken_back_for_so_long(
    option: tuple[str, ...], days: int, noisy: Connection, dbops: Command
) -> None:
    dbops("hygiene", "dedupe", *LOOSE, "--yes")
    noisy.execute("update user_memories set updated_at = now() - interval '1 year' where not is_active")
    before = image(noisy)
    done = dbops("hygiene", "cleanup", *option, "--yes")
    assert (done.code, done.out[:25]) == (0, "deleted 1 row of 4 (25.0%")
    assert one(noisy, "select count(*) from user_memories where id = %s", [uid(2)]) == 0
    [entry] = [each for each in dbops("hygiene", "history", "--json").json["batches"] if each["command"] == "cleanup"]
    lasts = datetime.fromisoformat(entry["purge_after"]) - datetime.fromisoformat(entry["at"])
    assert round(lasts / timedelta(days=1), 3) == days
    batch = entry["batch"]
    again = dbops("hygiene", "cleanup", "--yes")
    kept = one(noisy, "select count(*) from hygiene_changes where batch = %s", [batch])
    undone = dbops("hygiene", "undo", batch, "--yes")
    if days:
        assert (again.out, kept) == ("nothing to do among 3 rows\n", 1)
        assert (undone.code, undone.out) == (0, f"1 row as before batch {batch}\n")
        assert image(noisy) == before
    else:
        assert (again.out, kept) == ("1 ledger removed for good\n", 0)
        assert undone.code == 2
        assert "its ledger was purged" in undone.err


def test_one_users_error_is_named_and_exits_1(noisy: Connection, dbops: Command) -> None:
    remember(noisy, FACTS[:2], BOB, first=11)
    noisy.execute(
        "create function forbid() returns trigger language plpgsql as $$ begin raise exception 'not today'; end $$;"
        "create trigger forbid before update on user_memories for each row "
        f"when (old.user_id = '{ANN}') execute function forbid()".encode()
    )
    done = dbops("hygiene", "dedupe", "--yes")
    assert done.code == 1
    assert f"failed for {ANN}: not today\n" in done.out
    assert "their rows are as they were" in done.out
    assert marked(noisy) == {uid(12): uid(11)}
    noisy.execute("alter table user_memories disable trigger forbid")
    assert dbops("hygiene", "dedupe", "--yes", "--json").json["failed"] == []


def test_the_purge_of_ledgers_is_planned_and_asked_for(noisy: Connection, dbops: Command) -> None:
    batch = dbops("hygiene", "dedupe", "--yes", "--json").json["batch"]
    assert dbops("hygiene", "cleanup").code == 0
    noisy.execute("update dbops.hygiene_runs set purge_after = now() - interval '1 s'")
    planned = dbops("hygiene", "cleanup", "--dry-run", "--json").json
    assert (planned["marked"], planned["ledgers"], planned["reviews"]) == (0, 1, 0)
    asked = dbops("hygiene", "cleanup")
    assert asked.code == 2
    assert "1 ledger of batches whose time to be undone is over" in asked.err
    assert dbops("hygiene", "undo", batch, "--dry-run").code == 0
    done = dbops("hygiene", "cleanup", "--yes")
    assert (done.code, done.out) == (0, "1 ledger removed for good\n")
    assert dbops("hygiene", "undo", batch, "--yes").code == 2


def test_a_forged_command_does_not_reach_the_terminal(noisy: Connection, dbops: Command) -> None:
    noisy.execute(
        "alter table hygiene_batches drop constraint hygiene_batches_command_printable"
    )  # as in an older schema
    noisy.execute("insert into hygiene_batches (user_id, command) values (%s, %s)", [ANN, "\x1b[2Jmark\u202e\n"])
    shown = dbops("hygiene", "history").out
    assert "\\x1b[2Jmark\\u202e\\n" in shown
    assert "\x1b" not in shown


def test_any_table(folder: Path, empty_url: str, monkeypatch: pytest.MonkeyPatch, dbops: Command) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_url)
    with psycopg.connect(empty_url, autocommit=True) as conn:
        conn.execute(
            "create table documents (id int primary key, tenant_id int, body text, score int, is_copy boolean)"
        )
        conn.execute(
            "insert into documents values (1, 1, 'one two three', 1), (2, 1, 'One two, three', 2), (3, 2, 'one two three', 3)"
        )
        before = image(conn, "documents")
        table = ("--table", "documents", "--text", "body", "--scope", "tenant_id", "--keep", "score desc")
        done = dbops("hygiene", "dedupe", *table, "--action", "mark:is_copy=true", "--yes", "--json")
        assert done.code == 0
        assert done.json["marked"] == 1
        assert [row[0] for row in conn.execute("select id from documents where is_copy")] == [1]
        assert dbops("hygiene", "undo", done.json["batch"], "--yes", "--json").json["restored"] == 1
        assert image(conn, "documents") == before
        asked = dbops("hygiene", "dedupe", *table, "--action", "delete")
        assert "delete 1 duplicate in public.documents" in asked.err
        assert image(conn, "documents") == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--threshold", "0"), "lies above 0 and up to 1"),
        (("--threshold", "1.5"), "lies above 0 and up to 1"),
        (("--threshold", "nan"), "--threshold NaN"),
        (("--threshold", "much"), "is not a valid float"),
        (("--both",), "--both needs --semantic"),
        (("--user", "a", "--all"), "--user and --all exclude each other"),
        (("--text", "body"), "--text goes with --table"),
        (("--table", "documents"), "--table needs --text and --action"),
        (("--table", "documents", "--text", "body", "--action", "delete", "--semantic", "0.9"), "are for the memories"),
        (("--table", "documents", "--text", "body; drop table x", "--action", "delete"), "is no expression"),
        (("--table", "documents", "--text", "body", "--action", "burn"), "--action 'burn' is unknown"),
        (("--user", "nobody"), "there is no user nobody"),
        (("--user", "\udcff"), "the user is not valid Unicode"),
        (("--semantic", "0.9", "--model", "\udcff"), "--model is not valid Unicode"),
        (("--table", "\udcff", "--text", "body", "--action", "delete"), "--table is not valid Unicode"),
        (("--table", "t", "--text", "'\udcff'", "--action", "delete"), "--text is not valid Unicode"),
        (("--table", "t", "--text", "a", "--action", "mark:a='\udcff'"), "--action is not valid Unicode"),
        (("--table", "t", "--text", "a", "--action", "delete", "--keep", "'\udcff'"), "--keep is not valid Unicode"),
        (("--table", "t", "--text", "a", "--action", "delete", "--scope", "'\udcff'"), "--scope is not valid Unicode"),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: tuple[str, ...], message: str, noisy: Connection, dbops: Command
) -> None:
    done = dbops("hygiene", "scan", *options, "--json")
    assert done.code == 2
    assert message in done.error["message"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("review", "accept"),
        ("review", "maybe"),
        ("review", "accept", "x"),
        ("undo", "x", "--yes"),
        ("cleanup", "--days", "-1"),
    ],
)
def test_arguments_that_are_wrong(arguments: tuple[str, ...], noisy: Connection, dbops: Command) -> None:
    assert dbops("hygiene", *arguments, "--json").error["exit"] == 2
