"""`dbops migrate` on real servers: what it prints, its JSON, its exit codes, what it asks, what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dbops.cli import migrate as migrate_cli
from dbops.embedded import with_database
from dbops.lock import RunnerLock
from dbops.migrate import Event
from tests.cli.conftest import VERSIONS, Command, write

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as conn:
        rows = conn.execute(
            "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'"
        )
        return {row[0] for row in rows}


class TestUp:
    def test_up_applies_everything_once(self, project: Path, dbops: Command, empty_url: str) -> None:
        first = dbops("migrate", "up")
        assert first.code == 0
        assert re.fullmatch(r"applied 3 migrations in \d+ ms\n", first.out)
        assert [line.split(":")[0] for line in first.err.splitlines()] == [
            "  20250101_000001 users",
            "  20250101_000002 index",
            "  20250201_000001 notes",
        ]
        assert tables(empty_url) == {"users", "notes", "schema_migrations"}
        second = dbops("migrate", "up")
        assert (second.code, second.out, second.err) == (0, "nothing to do\n", "")

    def test_json(self, project: Path, dbops: Command) -> None:
        done = dbops("migrate", "up", "--json", "--count", "2")
        assert done.json["applied"] == VERSIONS[:2]
        assert done.json["duration_ms"] > 0
        assert dbops("migrate", "up", "--json").json["applied"] == VERSIONS[2:]
        assert dbops("migrate", "up", "--json").json["applied"] == []

    def test_to(self, project: Path, dbops: Command) -> None:
        assert dbops("migrate", "up", "--to", VERSIONS[1], "--json").json["applied"] == VERSIONS[:2]
        unknown = dbops("migrate", "up", "--to", "7", "--json")
        assert unknown.error["message"] == "there is no migration 7"
        assert unknown.code == 2

    def test_a_dry_run_changes_nothing(self, project: Path, dbops: Command, empty_url: str) -> None:
        done = dbops("migrate", "up", "--dry-run")
        assert done.code == 0
        assert done.out == dbops("migrate", "plan").out
        assert done.out.splitlines() == [
            "up 20250101_000001 users: 1 statement, in one transaction",
            "     2  create table users (id bigint primary key)",
            "up 20250101_000002 index: 1 statement, step by step (CREATE INDEX CONCURRENTLY)",
            "     2  create index concurrently users_i on users (id)",
            "up 20250201_000001 notes: 1 statement, in one transaction",
            "     2  create table notes (id int)",
        ]
        assert tables(empty_url) == set()
        assert dbops("migrate", "up", "--dry-run", "--json").json["applied"] == []

    def test_verbose_and_quiet(self, project: Path, dbops: Command) -> None:
        assert "1/1 create table users" in dbops("migrate", "up", "--count", "1", "-v").err
        assert dbops("migrate", "up", "--count", "1", "-q").err == ""

    def test_a_failing_statement_is_shown_with_its_place(self, project: Path, dbops: Command, empty_url: str) -> None:
        write(project, "20250301_000001_bad", "create table extra ();\nselect 1,\n  nonsense from users;")
        done = dbops("migrate", "up")
        assert done.code == 1
        error, *rest = done.err[done.err.index("error:") :].splitlines()
        assert error == 'error: migrations/sql/20250301_000001_bad.sql:4:3: column "nonsense" does not exist (42703)'
        assert rest[:2] == ["    nonsense from users", "    ^"]
        assert "20250301_000001 was rolled back; what was applied before stays recorded" in rest[-1]
        assert tables(empty_url) == {"users", "notes", "schema_migrations"}
        assert dbops("migrate", "status", "--json").json["pending"][0]["version"] == "20250301_000001"

    def test_a_syntax_error_stops_everything(self, project: Path, dbops: Command, empty_url: str) -> None:
        write(project, "20250301_000001_bad", "select 1;\ncreate tabel x ();")
        done = dbops("migrate", "up", "--json")
        assert done.code == 2
        assert done.error["code"] == "migration_file"
        assert done.error["message"].startswith("migrations/sql/20250301_000001_bad.sql:3:8: syntax error")
        assert "users" not in tables(empty_url)

    def test_a_password_in_a_statement_is_not_shown(self, project: Path, dbops: Command) -> None:
        write(project, "20250301_000001_role", "alter role nobody_here password 'hunter22'; -- password 'hunter22'")
        done = dbops("migrate", "up", "-v")
        assert done.code == 1
        assert "does not exist" in done.err
        assert "hunter22" not in done.out + done.err

    def test_no_folder(self, folder: Path, dbops: Command, empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATABASE_URL", empty_url)
        done = dbops("migrate", "up")
        assert done.code == 2
        assert "migrations/sql: there is no such folder" in done.err
        assert "dbops init" in done.err


class TestStatus:
    def test_json_has_every_key(self, project: Path, dbops: Command) -> None:
        dbops("migrate", "up", "--count", "2")
        document = dbops("migrate", "status", "--json").json
        assert {"applied", "pending", "waiting", "changed", "missing", "out_of_order"} <= set(document)
        record = document["applied"][0]
        assert {"version", "name", "checksum", "applied_at", "duration_ms"} <= set(record)
        assert (record["version"], record["name"]) == (VERSIONS[0], "users")
        assert ISO.fullmatch(record["applied_at"])
        assert re.fullmatch(r"[0-9a-f]{64}", record["checksum"])
        path = "migrations/sql/20250201_000001_notes.sql"
        assert document["pending"] == [{"version": VERSIONS[2], "name": "notes", "path": path}]

    def test_text(self, project: Path, dbops: Command) -> None:
        dbops("migrate", "up", "--count", "1")
        lines = dbops("migrate", "status").out.splitlines()
        assert re.fullmatch(r"\[x\] 20250101_000001 users  \d{4}-\d\d-\d\d \d\d:\d\d by \w+", lines[0])
        assert lines[1:] == ["[ ] 20250101_000002 index", "[ ] 20250201_000001 notes", "applied 1, pending 2"]

    def test_exit_codes(self, project: Path, dbops: Command) -> None:
        assert dbops("migrate", "status").code == 0
        assert dbops("migrate", "status", "--exit-code").code == 3
        dbops("migrate", "up")
        assert dbops("migrate", "status", "--exit-code").code == 0
        write(project, "20250101_000001_users", "create table users (id int primary key);", "drop table users;")
        assert dbops("migrate", "status", "--exit-code").code == 12
        assert dbops("migrate", "status").code == 0

    def test_a_folder_that_is_not_there_is_no_empty_folder(self, project: Path, dbops: Command) -> None:
        (project / "migrations" / "sql").rename(project / "elsewhere")
        for verb in ("status", "plan", "lint", "prove", "up"):
            done = dbops("migrate", verb)
            assert (done.code, "there is no such folder" in done.err) == (2, True)

    def test_a_waiting_migration(self, project: Path, dbops: Command) -> None:
        path = write(project, "20250301_000001_wait", "select 1;")
        path.write_text("-- migrate:requires extension no_such_thing\n" + path.read_text())
        done = dbops("migrate", "up")
        assert done.code == 0
        assert (
            "20250301_000001 waits: extension no_such_thing is not on this server, or this role may not create it"
            in done.err
        )
        document = dbops("migrate", "status", "--json").json
        assert document["pending"] == []
        assert document["waiting"][0]["version"] == "20250301_000001"

    def test_status_writes_nothing(self, project: Path, dbops: Command, empty_url: str) -> None:
        dbops("migrate", "status")
        assert tables(empty_url) == set()


class TestDisagreement:
    def test_an_edited_file_stops_with_12(self, project: Path, dbops: Command, empty_url: str) -> None:
        dbops("migrate", "up", "--count", "1")
        write(project, "20250101_000001_users", "create table users (id int primary key);", "drop table users;")
        done = dbops("migrate", "up", "--json")
        assert done.code == 12
        assert done.error["code"] == "history_mismatch"
        assert "edited after it was applied: 20250101_000001" in done.error["message"]
        assert "repair" in done.error["hint"]
        assert "notes" not in tables(empty_url)

    def test_an_edited_comment_warns(self, project: Path, dbops: Command) -> None:
        path = write(
            project, "20250101_000001_users", "create table users (id bigint primary key);", "drop table users;"
        )
        dbops("migrate", "up", "--count", "1")
        path.write_text(path.read_text().replace("create", "-- why\r\ncreate"))
        done = dbops("migrate", "up")
        assert done.code == 0
        assert "warning: 20250101_000001 was edited after it was applied: comments or white space only" in done.err

    def test_a_missing_file_warns(self, project: Path, dbops: Command) -> None:
        dbops("migrate", "up")
        (project / "migrations/sql/20250101_000001_users.sql").unlink()
        done = dbops("migrate", "up")
        assert done.code == 0
        assert "warning: 20250101_000001 is applied, but its file is missing" in done.err
        assert dbops("migrate", "status", "--json").json["missing"] == ["20250101_000001"]
        assert "file missing" in dbops("migrate", "status").out

    def test_out_of_order_wants_a_word(self, project: Path, dbops: Command) -> None:
        dbops("migrate", "up")
        write(project, "20250115_000001_late", "create table late ();")
        done = dbops("migrate", "up")
        assert done.code == 12
        assert "out of order: 20250115_000001, older than 20250201_000001" in done.err
        assert dbops("migrate", "up", "--allow-out-of-order", "--json").json["applied"] == ["20250115_000001"]

    def test_another_tools_table_is_left_alone(self, project: Path, dbops: Command, empty_db: Any) -> None:
        empty_db.execute("create table schema_migrations (version text); insert into schema_migrations values ('1')")
        done = dbops("migrate", "up")
        assert done.code == 12
        assert "public.schema_migrations belongs to another tool (its columns: version)" in done.err
        assert "adopt" in done.err
        assert empty_db.execute("select * from schema_migrations").fetchall() == [("1",)]


class TestDown:
    @pytest.fixture(autouse=True)
    def _applied(self, project: Path, dbops: Command) -> None:
        assert dbops("migrate", "up").code == 0

    def test_without_a_terminal_it_wants_yes(self, dbops: Command, empty_url: str) -> None:
        done = dbops("migrate", "down")
        assert done.code == 2
        assert done.out == ""
        assert "down 20250201_000001 notes: 1 statement, in one transaction" in done.err
        name = psycopg.conninfo.conninfo_to_dict(empty_url)["dbname"]
        assert re.search(rf"error: reverse 1 migration on {name} on \S+: this needs a confirmation", done.err)
        assert "hint: give --yes; nothing was done" in done.err
        assert "notes" in tables(empty_url)

    def test_yes_reverses_the_newest(self, dbops: Command, empty_url: str) -> None:
        done = dbops("migrate", "down", "--yes", "--json")
        assert (done.code, done.json["reversed"]) == (0, [VERSIONS[2]])
        assert done.json["duration_ms"] > 0
        assert tables(empty_url) == {"users", "schema_migrations"}
        assert dbops("migrate", "up", "--json").json["applied"] == [VERSIONS[2]]

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["--count", "2"], VERSIONS[:0:-1]),
            (["--to", VERSIONS[0]], VERSIONS[:0:-1]),
            (["--to", VERSIONS[2]], []),
            (["--to", "0"], VERSIONS[::-1]),
            ([VERSIONS[2]], VERSIONS[2:]),
        ],
    )
    def test_how_far(self, dbops: Command, arguments: list[str], expected: list[str]) -> None:
        assert dbops("migrate", "down", *arguments, "--yes", "--json").json["reversed"] == expected

    @pytest.mark.parametrize("arguments", [["--to", ""], ["--to", "7"], ["20250301_000001"], [""]])
    def test_a_version_that_is_not_applied(self, dbops: Command, arguments: list[str], empty_url: str) -> None:
        done = dbops("migrate", "down", *arguments, "--yes", "--json")
        assert done.code == 2
        assert "there is no migration" in done.error["message"]
        assert {"users", "notes"} <= tables(empty_url)

    def test_one_of_the_three(self, dbops: Command) -> None:
        done = dbops("migrate", "down", "--to", "0", "--count", "1", "--json")
        assert (done.code, done.error["message"]) == (2, "give one of VERSION, --to, --count")

    def test_a_dry_run_changes_nothing(self, dbops: Command, empty_url: str) -> None:
        done = dbops("migrate", "down", "--dry-run")
        assert done.code == 0
        assert done.out.splitlines()[1] == "     5  drop table notes"
        assert "notes" in tables(empty_url)
        steps = dbops("migrate", "down", "--dry-run", "--json").json["steps"]
        assert (steps[0]["version"], steps[0]["direction"]) == (VERSIONS[2], "down")

    @pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 2), ("", 2)])
    def test_a_person_is_asked(self, dbops: Command, types: Callable[[str], None], answer: str, code: int) -> None:
        types(answer)
        done = dbops("migrate", "down", "--json")
        assert done.code == code
        assert "reverse 1 migration on " in done.err
        assert done.json.get("reversed", done.json.get("error", {}).get("message")) in ([VERSIONS[2]], "not confirmed")

    def test_what_has_no_way_back_is_refused(self, project: Path, dbops: Command, empty_url: str) -> None:
        write(project, "20250301_000001_one_way", "create table more ();")
        dbops("migrate", "up")
        done = dbops("migrate", "down", "--count", "2", "--yes", "--json")
        assert done.code == 1
        assert done.error["code"] == "irreversible"
        assert "20250301_000001 one_way: it has no down part" in done.error["message"]
        assert {"more", "notes"} <= tables(empty_url)

    def test_a_checkout_without_the_file_can_go_back(self, project: Path, dbops: Command, empty_url: str) -> None:
        (project / "migrations/sql/20250201_000001_notes.sql").unlink()
        assert dbops("migrate", "down", "--yes", "--json").json["reversed"] == [VERSIONS[2]]
        assert "notes" not in tables(empty_url)

    def test_redo(self, dbops: Command, empty_db: Any) -> None:
        empty_db.execute("insert into notes values (1)")
        assert dbops("migrate", "redo").code == 2
        assert dbops("migrate", "redo", "--dry-run", "--json").json["reversed"] == []
        done = dbops("migrate", "redo", "--yes", "--json")
        assert (done.json["reversed"], done.json["applied"]) == ([VERSIONS[2]], [VERSIONS[2]])
        assert done.json["duration_ms"] > 0
        assert empty_db.execute("select count(*) from notes").fetchone() == (0,)
        two = dbops("migrate", "redo", "--count", "2", "--yes", "--json")
        assert (two.json["reversed"], two.json["applied"]) == (VERSIONS[:0:-1], VERSIONS[1:])

    def test_redo_of_a_file_that_is_gone_does_nothing(self, project: Path, dbops: Command, empty_url: str) -> None:
        (project / "migrations/sql/20250201_000001_notes.sql").unlink()
        done = dbops("migrate", "redo", "--yes")
        assert done.code == 12
        assert "the file is missing, so it could not be applied again: 20250201_000001" in done.err
        assert "notes" in tables(empty_url)

    def test_redo_of_what_could_not_be_applied_again_does_nothing(
        self, project: Path, dbops: Command, empty_url: str
    ) -> None:
        write(project, "20250201_000001_notes", "create tabel notes ();", "drop table notes;")
        assert dbops("migrate", "redo", "--yes").code == 2
        write(project, "20250201_000001_notes", "create table notes (id bigint);", "drop table notes;")
        write(project, "20250101_000001_users", "create table users (id int);", "drop table users;")
        edited = dbops("migrate", "redo", "--yes")
        assert (edited.code, "edited after it was applied: 20250101_000001" in edited.err) == (12, True)
        assert dbops("migrate", "status", "--json").json["pending"] == []

    def test_redo_takes_an_edited_file(self, project: Path, dbops: Command, empty_db: Any) -> None:
        write(project, "20250201_000001_notes", "create table notes (id int, more int);", "drop table notes;")
        assert dbops("migrate", "redo", "--yes", "--json").json["applied"] == [VERSIONS[2]]
        empty_db.execute("select more from notes")
        assert dbops("migrate", "status", "--json").json["changed"] == []


class TestConfirmWord:
    @pytest.fixture(autouse=True)
    def _profile(self, project: Path, dbops: Command) -> None:
        (project / "dbops.toml").write_text('[env.prod]\nconfirm = "prod"\n')
        assert dbops("migrate", "up").code == 0

    @pytest.mark.parametrize("arguments", [[], ["--yes"], ["--confirm", "Prod"], ["--confirm", ""]])
    def test_only_the_word_counts(self, dbops: Command, arguments: list[str]) -> None:
        done = dbops("migrate", "down", "--env", "prod", "--json", *arguments)
        assert done.code == 2
        assert done.error["code"] == "confirmation_required"
        assert done.error["hint"] == "give --confirm prod; nothing was done"

    def test_given_as_an_option(self, dbops: Command) -> None:
        done = dbops("migrate", "down", "--env", "prod", "--confirm", "prod", "--json")
        assert done.json["reversed"] == [VERSIONS[2]]

    @pytest.mark.parametrize(("typed", "code"), [("prod", 0), ("y", 2), ("", 2)])
    def test_typed(self, dbops: Command, types: Callable[[str], None], typed: str, code: int) -> None:
        types(typed)
        done = dbops("migrate", "down", "--env", "prod", "--yes")
        assert done.code == code
        assert "Type 'prod' to go on" in done.err

    def test_another_profile_has_none(self, dbops: Command) -> None:
        assert dbops("migrate", "down", "--yes", "--json").json["reversed"] == [VERSIONS[2]]


class TestPlanHistoryNew:
    def test_plan_json_has_every_key(self, project: Path, dbops: Command) -> None:
        steps = dbops("migrate", "plan", "--json").json["steps"]
        assert [(s["version"], s["transactional"]) for s in steps] == list(
            zip(VERSIONS, (True, False, True), strict=True)
        )
        assert steps[0]["statements"] == [{"sql": "create table users (id bigint primary key)", "line": 2}]

    def test_history(self, project: Path, dbops: Command) -> None:
        assert dbops("migrate", "history").out == "no runs\n"
        dbops("migrate", "up", "--count", "2")
        dbops("migrate", "down", "--yes")
        down, up = dbops("migrate", "history", "--json").json["runs"]
        assert (up["command"], up["versions"]) == ("up", VERSIONS[:2])
        assert (down["command"], down["versions"]) == ("down", [VERSIONS[1]])
        assert all(ISO.fullmatch(run[key]) for run in (up, down) for key in ("started_at", "finished_at"))
        assert up["run_from"]
        assert len(dbops("migrate", "history", "--limit", "1").out.splitlines()) == 1

    def test_the_history_knows_the_schema(self, project: Path, dbops: Command) -> None:
        dbops("migrate", "up")
        (run,) = dbops("migrate", "history", "--json").json["runs"]
        assert (run["note"], len(run["schema_hash"])) == ("", 64)

    def test_check(self, project: Path, dbops: Command, empty_db: Any) -> None:
        dbops("migrate", "up")
        same = dbops("migrate", "check", "--json")
        assert (same.code, same.json["drift"], same.json["comparable"]) == (0, "", True)
        empty_db.execute("alter table notes add by_hand int")
        drifted = dbops("migrate", "check", "--json")
        assert drifted.code == 3
        assert "by_hand" in drifted.json["drift"]

    def test_new(self, project: Path, dbops: Command) -> None:
        tried = dbops("migrate", "new", "Add Tags", "--dry-run", "--json").json
        assert not Path(tried["path"]).exists()
        made = dbops("migrate", "new", "Add Tags", "--json").json
        assert re.fullmatch(r"migrations/sql/\d{8}_\d{6}_add_tags\.sql", made["path"])
        assert made["version"] == Path(made["path"]).name[:15]
        assert Path(made["path"]).read_text().startswith("-- migrate:up\n")
        assert dbops("migrate", "up").code == 2  # it is empty still

    def test_new_needs_no_database(self, folder: Path, dbops: Command) -> None:
        done = dbops("migrate", "new", "first", "--no-embedded")
        assert done.code == 0
        assert re.fullmatch(r"wrote migrations/sql/\d{8}_\d{6}_first\.sql\n", done.out)
        assert dbops("migrate", "new", "!", "--json").error["message"] == "'!' is no name for a migration"

    def test_prove_json_has_every_key(self, folder: Path, dbops: Command) -> None:
        write(folder, "20250101_000001_users", "create table users (id int);", "drop table users;")
        write(folder, "20250101_000002_more", "create table more (id int);")
        done = dbops("migrate", "prove", "--json", "--no-embedded")
        assert {"proven", "failed", "irreversible", "not_proven", "server_version"} <= set(done.json)
        assert done.json["proven"] == ["20250101_000001"]
        assert [item["version"] for item in done.json["irreversible"]] == ["20250101_000002"]
        assert done.json["irreversible"][0]["reason"]


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["migrate", "up", "--count", "x"], "Invalid value for '--count'"),
            (["migrate", "up", "--count", "0"], "Invalid value for '--count'"),
            (["migrate", "up", "--cuont", "1"], "No such option"),
            (["migrate", "upp"], "No such command 'upp'"),
            (["nothing"], "No such command 'nothing'"),
            (["migrate", "new"], "Missing argument 'NAME'"),
            (["migrate", "up", "--wait", "soon"], "option: wait: 'soon' is no duration"),
            (["migrate", "up", "--url", ""], "option: url: it is empty"),
            (["migrate", "up", "--url", "mysql://h/d"], "the scheme mysql://"),
            (["migrate", "status", "--url", "postgresql://u:pw%zz@h/d"], "the database URL cannot be read"),
            (["migrate", "up", "--env", "nowhere"], "there is no profile 'nowhere'"),
            (["migrate", "up", "--config", "gone.toml"], "there is no such file"),
        ],
    )
    def test_a_wrong_call(self, folder: Path, dbops: Command, arguments: list[str], message: str) -> None:
        (folder / "migrations" / "sql").mkdir(parents=True)
        done = dbops(*arguments)
        assert done.code == 2
        assert done.out == ""
        assert re.search(f"^error: .*{re.escape(message)}", done.err, re.MULTILINE)
        as_json = dbops(*arguments, "--json")
        assert as_json.err == ""
        assert (as_json.code, message in as_json.error["message"]) == (2, True)

    def test_nothing_named_and_the_embedded_server_forbidden(self, folder: Path, dbops: Command) -> None:
        (folder / "migrations" / "sql").mkdir(parents=True)
        done = dbops("migrate", "status", "--no-embedded", "--json")
        assert done.code == 2
        assert "the embedded server is forbidden" in done.error["message"]
        assert [path.name for path in folder.iterdir()] == ["migrations"]


class TestServer:
    """Servers that cannot be reached or may not be written to. No message holds the password."""

    def fails(self, dbops: Command, *arguments: str, code: int = 10) -> dict[str, Any]:
        text = dbops("migrate", "up", *arguments)
        assert text.out == ""
        assert text.code == code
        done = dbops("migrate", "up", "--json", *arguments)
        assert "hunter22" not in text.err + done.out + done.err
        assert f"error: {done.error['message']}" in text.err
        return done.error

    def test_unreachable(self, project: Path, dbops: Command) -> None:
        error = self.fails(dbops, "--url", "postgresql://ann:hunter22@127.0.0.1:1/shop")
        assert error["code"] == "cannot_connect"
        assert error["message"].startswith("cannot connect to shop on 127.0.0.1:1: ")
        assert "Connection refused" in error["message"]
        assert "check host, port and network" in error["hint"]

    def test_a_missing_database(self, project: Path, dbops: Command, empty_url: str) -> None:
        error = self.fails(dbops, "--url", with_database(empty_url, "nowhere"))
        assert 'database "nowhere" does not exist' in error["message"]
        assert "check the names" in error["hint"]

    def test_a_wrong_password(self, project: Path, dbops: Command, guarded_url: str) -> None:
        wrong = psycopg.conninfo.make_conninfo(guarded_url, user="ann", password="hunter22")
        error = self.fails(dbops, "--url", wrong)
        assert 'password authentication failed for user "ann"' in error["message"]
        assert "check the user and the password" in error["hint"]

    def test_no_password_at_all(self, project: Path, dbops: Command, guarded_url: str) -> None:
        error = self.fails(dbops, "--url", psycopg.conninfo.make_conninfo(guarded_url, user="ann"))
        assert "no password supplied" in error["message"]

    def test_the_right_password(self, project: Path, dbops: Command, guarded_url: str) -> None:
        right = psycopg.conninfo.make_conninfo(guarded_url, user="ann", password="right one")
        assert dbops("migrate", "status", "--url", right).code == 0

    def test_a_standby_is_refused_by_name(self, project: Path, dbops: Command, standby_url: str) -> None:
        assert dbops("migrate", "status", "--url", standby_url).code == 0
        error = self.fails(dbops, "--url", standby_url)
        assert error["code"] == "unfit_server"
        assert error["message"] == "postgres is a read-only standby: nothing can be changed there"
        assert "the primary's URL" in error["hint"]

    def test_missing_privileges(self, project: Path, dbops: Command, plain: str, empty_url: str) -> None:
        error = self.fails(dbops, "--url", psycopg.conninfo.make_conninfo(empty_url, user=plain))
        assert error["code"] == "not_allowed"
        assert "permission denied" in error["message"]
        assert "grant the right that is missing" in error["hint"]
        assert tables(empty_url) == set()

    def test_a_migration_without_the_right(self, project: Path, dbops: Command, plain: str, empty_db: Any) -> None:
        empty_db.execute("create table other (id int)")
        _grant(empty_db, plain)
        write(project, "20250301_000001_other", "alter table other add a int;")
        url = psycopg.conninfo.make_conninfo(empty_db.info.dsn, user=plain)
        done = dbops("migrate", "up", "--url", url, "--json")
        assert done.code in (1, 10)
        assert "must be owner of table other (42501)" in done.error["message"]
        assert "connect as the owner" in done.error["hint"]
        status = dbops("migrate", "status", "--url", url, "--json").json
        assert [m["version"] for m in status["pending"]] == ["20250301_000001"]

    def test_a_plain_owner_under_force_rls(self, project: Path, dbops: Command, plain: str, empty_db: Any) -> None:
        _grant(empty_db, plain)
        empty_db.execute(f"create table secrets (id int); alter table secrets owner to {plain}")
        empty_db.execute("alter table secrets enable row level security, force row level security")
        url = psycopg.conninfo.make_conninfo(empty_db.info.dsn, user=plain)
        error = self.fails(dbops, "--url", url)
        assert error["code"] == "not_allowed"
        assert f"role {plain} is subject to row level security on secrets" in error["message"]
        assert f'ALTER ROLE "{plain}" BYPASSRLS' in error["hint"]
        assert "users" not in tables(empty_db.info.dsn)
        empty_db.execute(f"alter role {plain} bypassrls")
        assert dbops("migrate", "up", "--url", url, "--json").json["applied"] == VERSIONS

    def test_the_database_is_dropped_under_the_runner(
        self, project: Path, dbops: Command, empty_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = psycopg.conninfo.conninfo_to_dict(empty_url)["dbname"]

        def drop(_: object, event: Event) -> None:
            if (event.what, event.version) == ("statement", VERSIONS[2]):
                with psycopg.connect(with_database(empty_url, "postgres"), autocommit=True) as conn:
                    conn.execute(f"drop database {name} with (force)".encode())

        monkeypatch.setattr(migrate_cli, "show", drop)
        done = dbops("migrate", "up", "--json")
        assert done.code == 10
        assert done.error["code"] == "cannot_connect"
        assert "the connection was lost" in done.error["message"]
        assert "what was committed is recorded" in done.error["hint"]
        again = dbops("migrate", "up", "--json")
        assert (again.code, f'database "{name}" does not exist' in again.error["message"]) == (10, True)

    def test_another_runner_holds_the_lock(self, project: Path, dbops: Command, empty_url: str) -> None:
        with RunnerLock(empty_url, "public.schema_migrations", wait=0) as lock:
            done = dbops("migrate", "up", "--wait", "0s", "--json")
            assert done.code == 11
            assert done.error["code"] == "lock_held"
            assert f"server process {lock.pid}" in done.error["message"]
            assert "waiting for another runner: dbops lock as postgres" in done.err
            assert dbops("migrate", "status").code == 0
        assert dbops("migrate", "up", "--wait", "0s").code == 0


def _grant(conn: Any, role: str) -> None:
    """What a plain owner has: he may make tables in his database."""
    conn.execute(f"grant create on schema public to {role}; grant create on database {conn.info.dbname} to {role}")


def test_ctrl_c_ends_with_130(project: Path, dbops: Command, empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object, event: Event) -> None:
        if (event.what, event.version) == ("statement", VERSIONS[2]):
            raise KeyboardInterrupt

    monkeypatch.setattr(migrate_cli, "show", interrupt)
    done = dbops("migrate", "up", "--json")
    assert done.code == 130
    assert done.error["code"] == "interrupted"
    assert "notes" not in tables(empty_url)
    monkeypatch.undo()
    assert json.loads(json.dumps(done.error))["hint"].startswith("what was under way was rolled back")
