"""Migration files: every format that is read, every bad input and its message, checksums and order."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.errors import MigrationFileError
from dbops.migrate.files import Migration, parse_sql, read_folder, text_checksum, version_order
from dbops.migrate.kinds import program
from dbops.migrate.new import TEMPLATE, new_file, write_new
from dbops.migrate.parse import parse, tree_checksum

pytestmark = pytest.mark.quick

DBMATE = "-- migrate:up\ncreate table a (id int);\n\n-- migrate:down\ndrop table a;\n"


def write(folder: Path, **files: str | bytes) -> Path:
    """Write files by their names."""
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def read_one(folder: Path, name: str, content: str | bytes) -> Migration:
    (migration,) = read_folder(write(folder, **{name: content}))
    return migration


def refused(folder: Path, name: str, content: str | bytes) -> str:
    """The message with which a folder that holds this file is refused, when it is read or parsed."""
    write(folder, **{name: content})
    with pytest.raises(MigrationFileError) as caught:
        [program(migration.up) for migration in read_folder(folder)]
    assert caught.value.exit_code == 2
    assert caught.value.hint
    return caught.value.message.removeprefix(f"{folder}/")


class TestFormats:
    def test_dbmate(self, tmp_path: Path) -> None:
        migration = read_one(tmp_path, "20250101_000001_add_a.sql", DBMATE)
        assert (migration.version, migration.name) == ("20250101_000001", "add_a")
        assert migration.up.sql == "create table a (id int);\n\n"
        assert migration.up.line == 2
        assert migration.down is not None
        assert (migration.down.sql, migration.down.line) == ("drop table a;\n", 5)

    @pytest.mark.parametrize(
        "mark",
        [
            "-- migrate:up",
            "--migrate:up",
            "-- migrate:up   ",
            "--\tmigrate: up",
            "-- migrate:up transaction:true",
        ],
    )
    def test_spellings_of_a_marker(self, tmp_path: Path, mark: str) -> None:
        assert read_one(tmp_path, "1_a.sql", f"{mark}\nselect 1;").up.sql == "select 1;"

    def test_the_down_part_may_stand_first(self, tmp_path: Path) -> None:
        migration = read_one(tmp_path, "1_a.sql", "-- migrate:down\ndrop table a;\n-- migrate:up\ncreate table a ();")
        assert migration.up.sql == "create table a ();"
        assert migration.down is not None
        assert migration.down.sql == "drop table a;\n"

    def test_transaction_false_is_said_for_each_direction(self, tmp_path: Path) -> None:
        migration = read_one(
            tmp_path, "1_a.sql", "-- migrate:up transaction:false\nvacuum;\n-- migrate:down\nselect 1;"
        )
        assert migration.down is not None
        assert (migration.up.transaction, migration.down.transaction) == (False, True)

    def test_an_empty_down_part_is_none(self, tmp_path: Path) -> None:
        assert read_one(tmp_path, "1_a.sql", "-- migrate:up\nselect 1;\n-- migrate:down\n\n-- nothing\n").down is None

    def test_comments_may_stand_before_the_first_marker(self, tmp_path: Path) -> None:
        migration = read_one(tmp_path, "1_a.sql", "-- who\n/* and\n why */\n\n-- migrate:up\nselect 1;")
        assert (migration.up.sql, migration.up.line) == ("select 1;", 6)

    def test_directives(self, tmp_path: Path) -> None:
        text = (
            "-- migrate:requires extension vector\n-- migrate:requires extension  citext\n"
            "-- migrate:loses the old names\n" + DBMATE
        )
        migration = read_one(tmp_path, "1_a.sql", text)
        assert migration.requires == ("vector", "citext")
        assert migration.loses == "the old names"

    def test_plain_sql_is_all_up(self, tmp_path: Path) -> None:
        text = "-- Supabase's way\ncreate table a (id int);\n"
        migration = read_one(tmp_path, "20250101000001_a.sql", text)
        assert (migration.up.sql, migration.up.line, migration.down) == (text, 1, None)

    def test_a_pair(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            **{
                "000001_a.up.sql": "create table a ();",
                "000001_a.down.sql": "drop table a;",
                "000002_b.up.sql": "select 1",
            },
        )
        first, second = read_folder(tmp_path)
        assert (first.version, first.name, first.path.name) == ("000001", "a", "000001_a.up.sql")
        assert first.down is not None
        assert (first.down.sql, first.down.path.name, first.down.transaction) == (
            "drop table a;",
            "000001_a.down.sql",
            True,
        )
        assert second.down is None

    def test_the_down_half_of_a_pair_may_run_outside_a_transaction(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            **{
                "1_a.up.sql": "select 1",
                "1_a.down.sql": "-- migrate:down transaction:false\ndrop index concurrently i;",
            },
        )
        (migration,) = read_folder(tmp_path)
        assert migration.down is not None
        assert migration.down.transaction is False

    def test_json_with_texts(self, tmp_path: Path) -> None:
        content = {
            "version": "20250101_000001",
            "name": "enhanced_memory_schema",
            "up": "create table a ();",
            "down": "drop table a;",
            "requires": "vector",
            "loses": "a",
            "transaction": False,
            "description": "ignored",
        }
        migration = read_one(tmp_path, "20250101_000001_x.json", json.dumps(content))
        assert (migration.version, migration.name) == ("20250101_000001", "enhanced_memory_schema")
        assert migration.down is not None
        assert (migration.up.sql, migration.down.sql) == ("create table a ();", "drop table a;")
        assert (migration.requires, migration.loses, migration.up.transaction) == (("vector",), "a", False)

    @pytest.mark.parametrize(
        "parts",
        [
            ["create table a ()", "create table b ()"],
            ["create table a ();", "create table b ();"],
            ["create table a () -- the first", "create table b () -- the second;"],
            ["create table a ();\n-- done", "", "  ", "create table b ()"],
        ],
    )
    def test_json_with_lists(self, tmp_path: Path, parts: list[str]) -> None:
        migration = read_one(
            tmp_path, "1_a.json", json.dumps({"up": parts, "down": [], "requires": ["extension vector"]})
        )
        assert [s.kind for s in program(migration.up).statements] == ["create_stmt", "create_stmt"]
        assert (migration.down, migration.name, migration.requires) == (None, "a", ("vector",))

    @pytest.mark.parametrize(
        ("name", "version"),
        [
            ("V1__a.sql", "1"),
            ("V1.2__a.sql", "1.2"),
            ("V2_10__a.sql", "2.10"),
            ("20250101_000001_a.sql", "20250101_000001"),
            ("20250101000001-a.sql", "20250101000001"),
            ("001_a.b.sql", "001"),
            ("7_a.SQL", "7"),
        ],
    )
    def test_versions_in_names(self, tmp_path: Path, name: str, version: str) -> None:
        migration = read_one(tmp_path, name, "select 1")
        assert (migration.version, migration.name) == (version, "a.b" if ".b" in name else "a")

    def test_a_version_needs_no_name(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            **{"20250101_000001.sql": "select 1", "20250101_000002.sql": "select 2", "3.up.sql": "select 3"},
        )
        assert [m.version for m in read_folder(tmp_path)] == ["3", "20250101_000001", "20250101_000002"]

    def test_what_is_no_migration_is_passed_over(self, tmp_path: Path) -> None:
        write(tmp_path, **{"README.md": "x", ".hidden.sql": "x", "_draft.sql": "x", "1_a.sql": "select 1"})
        (tmp_path / "sub").mkdir()
        assert [m.version for m in read_folder(tmp_path)] == ["1"]
        assert read_folder(tmp_path / "nowhere") == ()

    def test_a_link_inside_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "x.txt").write_text("select 1")
        (tmp_path / "1_a.sql").symlink_to(tmp_path / "real" / "x.txt")
        assert [m.version for m in read_folder(tmp_path)] == ["1"]

    def test_a_folder_that_is_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        write(tmp_path / "real", **{"1_a.sql": "select 1"})
        (tmp_path / "link").symlink_to(tmp_path / "real")
        assert [m.version for m in read_folder(tmp_path / "link")] == ["1"]

    def test_a_byte_order_mark_is_dropped(self, tmp_path: Path) -> None:
        migration = read_one(tmp_path, "1_a.sql", b"\xef\xbb\xbf" + DBMATE.encode())
        assert migration.checksum == parse_sql(DBMATE, tmp_path / "1_a.sql", "1", "a").checksum
        (tmp_path / "1_a.sql").unlink()
        assert program(read_one(tmp_path, "2_b.sql", b"\xef\xbb\xbfselect 1").up).statements[0].sql == "select 1"

    def test_crlf_reads_as_lf(self, tmp_path: Path) -> None:
        unix = parse_sql(DBMATE, tmp_path / "1_a.sql", "1", "a")
        assert read_one(tmp_path, "1_a.sql", DBMATE.replace("\n", "\r\n")) == unix

    def test_many_blank_lines_cost_nothing(self, tmp_path: Path) -> None:
        text = "-- migrate:up\n" + "\n \t" * 5000 + "select 1;" + "\n" * 5000
        assert program(read_one(tmp_path, "1_a.sql", text).up).statements[0].line == 5002

    def test_ten_megabytes(self, tmp_path: Path) -> None:
        row = "('" + "x" * 1000 + "'),\n"
        text = "create table a (t text);\ninsert into a values\n" + row * 10_500 + "('last');\n"
        assert len(text) > 10 << 20
        statements = program(read_one(tmp_path, "1_a.sql", text).up).statements
        assert [(s.line, s.kind) for s in statements] == [(1, "create_stmt"), (2, "insert_stmt")]
        assert statements[1].sql.endswith("('last')")
        assert len(tree_checksum(statements)) == 64


class TestBadInput:
    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("1_a.sql", "1_b.sql"),
            ("1_a.sql", "1_b.json"),
            ("1_a.sql", "001_b.sql"),
            ("20250101000001_a.sql", "20250101_000001_b.sql"),
            ("1_a.sql", "1_a.up.sql"),
            ("V1_2__a.sql", "V1.2__b.sql"),
        ],
    )
    def test_a_duplicate_version_names_both_files(self, tmp_path: Path, first: str, second: str) -> None:
        write(tmp_path, **{first: "select 1", second: '{"up": "select 1"}' if "json" in second else "select 1"})
        with pytest.raises(MigrationFileError, match="duplicate version ") as caught:
            read_folder(tmp_path)
        assert first in caught.value.message
        assert second in caught.value.message

    @pytest.mark.parametrize(
        "name",
        ["add_users.sql", "v_1.sql", "R__view.sql", "U1__undo.sql", "2025-.sql", "1_.sql", "a1_b.json"],
    )
    def test_a_malformed_name(self, tmp_path: Path, name: str) -> None:
        assert refused(tmp_path, name, "select 1") == f"{name}: malformed name: no version in front"

    def test_a_json_file_in_two_halves(self, tmp_path: Path) -> None:
        assert "a JSON file holds both directions" in refused(tmp_path, "1_a.up.json", '{"up": "select 1"}')

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("1_a.sql", ""),
            ("1_a.sql", "  \n-- only a comment\n"),
            ("1_a.sql", "/* only * a ** comment */ ;\n;"),
            ("1_a.sql", "-- migrate:up\n\n-- migrate:down\ndrop table a;"),
            ("1_a.sql", "-- migrate:up"),
            ("1_a.up.sql", "\n"),
            ("1_a.json", "{}"),
            ("1_a.json", '{"up": ["", " "]}'),
            ("1_a.json", '{"up": "-- nothing", "down": "drop table a"}'),
        ],
    )
    def test_an_empty_up_part(self, tmp_path: Path, name: str, content: str) -> None:
        assert refused(tmp_path, name, content) == f"{name}: the up part is empty"

    def test_a_missing_up_part(self, tmp_path: Path) -> None:
        assert refused(tmp_path, "1_a.sql", "-- migrate:down\ndrop table a;") == "1_a.sql: the up part is missing"

    def test_a_down_half_without_its_up_half(self, tmp_path: Path) -> None:
        assert refused(tmp_path, "1_a.down.sql", "drop table a;") == "1_a.down.sql: its .up.sql is missing"

    def test_statements_before_the_first_marker(self, tmp_path: Path) -> None:
        message = refused(tmp_path, "1_a.sql", "select 0;\n-- migrate:up\nselect 1;")
        assert message == "1_a.sql: statements before the first marker"

    def test_a_second_marker(self, tmp_path: Path) -> None:
        message = refused(tmp_path, "1_a.sql", "-- migrate:up\nselect 1;\n-- migrate:up\nselect 2;")
        assert message == "1_a.sql:3: a second `-- migrate:up`"

    @pytest.mark.parametrize(
        ("directive", "message"),
        [
            ("UP", "unknown directive `-- migrate:UP`"),
            ("dwon", "unknown directive `-- migrate:dwon`"),
            ("requires vector", "unknown directive `-- migrate:requires vector`"),
            ("loses", "unknown directive `-- migrate:loses`"),
            ("down transaction:maybe", "unknown option 'transaction:maybe' of `-- migrate:down`"),
        ],
    )
    def test_an_unknown_directive(self, tmp_path: Path, directive: str, message: str) -> None:
        text = f"-- migrate:up\nselect 1;\n-- migrate:{directive}\n"
        assert refused(tmp_path, "1_a.sql", text) == f"1_a.sql:3: {message}"

    def test_an_up_directive_in_a_down_half(self, tmp_path: Path) -> None:
        write(tmp_path, **{"1_a.up.sql": "select 1"})
        message = refused(tmp_path, "1_a.down.sql", "-- x\n-- migrate:up\nselect 1")
        assert message == "1_a.down.sql:2: `-- migrate:up` in the down half of a pair"

    def test_what_is_not_utf8(self, tmp_path: Path) -> None:
        assert refused(tmp_path, "1_a.sql", b"select 1;\nselect '\xe4';") == "1_a.sql:2: not UTF-8 (byte 0xe4)"
        (tmp_path / "1_a.sql").unlink()
        assert "not UTF-8 (byte 0xff)" in refused(tmp_path, "2_a.sql", "select 1".encode("utf-16"))

    def test_a_nul_byte(self, tmp_path: Path) -> None:
        assert "a NUL byte" in refused(tmp_path, "1_a.sql", b"select 1;\0")

    @pytest.mark.parametrize("command", ["\\i other.sql", "\\restrict abc", "  \\set x 1"])
    def test_a_psql_meta_command(self, tmp_path: Path, command: str) -> None:
        message = refused(tmp_path, "1_a.sql", f"-- migrate:up\nselect 1;\n\n{command}\nselect 2;")
        assert message == f"1_a.sql:4: psql meta-command {command.split()[0]}: only psql understands it"

    def test_a_syntax_error_shows_file_line_column_and_the_line(self, tmp_path: Path) -> None:
        message = refused(tmp_path, "1_a.sql", "-- migrate:up\nselect 1;\n-- für später\n  create tabel a ();\n")
        assert message.splitlines() == [
            '1_a.sql:4:10: syntax error at or near "tabel"',
            "    create tabel a ();",
            "           ^",
        ]

    def test_the_column_counts_characters_not_bytes(self, tmp_path: Path) -> None:
        assert refused(tmp_path, "1_a.sql", "select 'äöü' frm a b;").startswith("1_a.sql:1:18: ")

    @pytest.mark.parametrize(
        ("text", "near"), [("select 'open", "unterminated quoted string"), ("select (1", "end of input")]
    )
    def test_a_syntax_error_at_the_end(self, tmp_path: Path, text: str, near: str) -> None:
        assert near in refused(tmp_path, "1_a.sql", text)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ('{"up": "select 1",\n "down"', "1_a.json:2:8: malformed JSON: Expecting ':' delimiter"),
            ("", "1_a.json:1:1: malformed JSON: Expecting value"),
            ("[]", "1_a.json: unexpected: not an object"),
            ('{"up": "select 1", "donw": ""}', "1_a.json: unexpected: donw"),
            ('{"up": 3}', "1_a.json: up is neither a text nor a list of texts"),
            ('{"up": ["a", 3]}', "1_a.json: up is neither a text nor a list of texts"),
            ('{"up": "select 1", "down": {"a": 1}}', "1_a.json: down is neither a text nor a list of texts"),
            ('{"up": "select 1", "version": "2"}', "1_a.json: version '2' inside, '1' in its name"),
            ('{"up": "select 1", "transaction": "false"}', "1_a.json: transaction is no true or false"),
            ('{"up": "select 1", "requires": 3}', "1_a.json: requires is no list of extensions"),
            ('{"up": "select 1", "requires": [""]}', "1_a.json: requires is no list of extensions"),
        ],
    )
    def test_malformed_json(self, tmp_path: Path, content: str, message: str) -> None:
        assert refused(tmp_path, "1_a.json", content) == message

    @pytest.mark.parametrize("target", ["../outside.sql", "loop"])
    def test_a_link_out_of_the_folder(self, tmp_path: Path, target: str) -> None:
        folder = tmp_path / "sql"
        folder.mkdir()
        (tmp_path / "outside.sql").write_text("select 1")
        (folder / "1_a.sql").symlink_to("1_a.sql" if target == "loop" else target)
        with pytest.raises(MigrationFileError, match=r"1_a\.sql: (a link out of the folder|Too many levels)"):
            read_folder(folder)

    def test_a_sibling_folder_whose_name_begins_alike_is_outside(self, tmp_path: Path) -> None:
        (tmp_path / "sql").mkdir()
        (tmp_path / "sql2").mkdir()
        (tmp_path / "sql2" / "x.sql").write_text("select 1")
        (tmp_path / "sql" / "1_a.sql").symlink_to(tmp_path / "sql2" / "x.sql")
        with pytest.raises(MigrationFileError, match="a link out of the folder"):
            read_folder(tmp_path / "sql")

    def test_a_link_to_nothing_and_a_folder_with_a_files_name(self, tmp_path: Path) -> None:
        (tmp_path / "1_a.sql").symlink_to("gone.sql")
        with pytest.raises(MigrationFileError, match=r"1_a\.sql: No such file"):
            read_folder(tmp_path)
        (tmp_path / "1_a.sql").unlink()
        (tmp_path / "2_b.sql").mkdir()
        with pytest.raises(MigrationFileError, match=r"2_b\.sql: Is a directory"):
            read_folder(tmp_path)

    def test_a_file_beyond_reason(self, tmp_path: Path) -> None:
        with (tmp_path / "1_a.sql").open("wb") as file:
            os.truncate(file.fileno(), 65 << 20)
        with pytest.raises(MigrationFileError, match=r"1_a\.sql: 65 MB; a migration has at most 64"):
            read_folder(tmp_path)


# Tokens from which statements are put together again with other blanks and comments between them.
CORPUS = [
    "create table app . users ( id bigint generated always as identity primary key , a text default 'x' )",
    "create index concurrently if not exists i on a using gin ( b jsonb_path_ops ) where c > 3",
    "select 'it''s' , E'a\\n' , $$ body ; -- kept $$ , $f$ $$ $f$ , 1.5 , \"Quoted Name\" from a where b = c",
    "select array [ 1 , 2 ] , a in ( 1 , 2 ) , ( b , c ) = any ( d ) from t where e between 1 and 2",
    "create policy p on t for select to authenticated using ( ( select auth . uid ( ) ) = user_id )",
    "create function f ( ) returns int language sql begin atomic select 1 ; select 2 ; end",
    "create rule r as on insert to a do also ( insert into b values ( 1 ) ; delete from c )",
    "do $$ begin raise notice 'x' ; end $$",
    "insert into t values ( 1 , null , true , -3 , interval '1 day' ) on conflict do nothing",
    "grant select , insert on all tables in schema public to anon with grant option",
    "alter type mood add value if not exists 'ok' after 'bad'",
    "select a <=> b , c -> 'd' ->> 'e' from t order by embedding <=> '[1,2]' limit 5",
]
BLANKS = [
    " ",
    "\n",
    "\t",
    "  \n\n",
    " /* a comment */ ",
    " /* nested /* one */ ; */ ",
    " -- a note; with 'quotes'\n",
    "\r\n",
]


def tokens(sql: str) -> list[str]:
    """The tokens of a text by the parser's own scanner."""
    from postgast import scan

    raw = sql.encode()
    return [raw[token.start : token.end].decode() for token in scan(sql).tokens]


def scattered(sql: str, rng: random.Random) -> str:
    pieces = tokens(sql)
    return "".join(rng.choice(BLANKS) + piece for piece in pieces) + rng.choice(BLANKS)


def checksum(sql: str) -> str:
    return tree_checksum(parse(sql))


class TestChecksums:
    @given(st.text(alphabet="ab\n \t;'", max_size=60), st.sampled_from(["\r\n", "\r"]))
    def test_line_endings_do_not_count(self, text: str, ending: str) -> None:
        assert text_checksum(text.replace("\n", ending)) == text_checksum(text)

    @given(st.text(max_size=30), st.text(max_size=30))
    def test_everything_else_does(self, one: str, two: str) -> None:
        same = [" ".join(text.splitlines()).strip() for text in (one, two)]
        if same[0] != same[1]:
            assert text_checksum(one) != text_checksum(two)

    @pytest.mark.parametrize("sql", CORPUS)
    @given(seed=st.integers())
    def test_comments_and_blanks_do_not_count_in_the_tree(self, sql: str, seed: int) -> None:
        assert checksum(scattered(sql, random.Random(seed))) == checksum(sql)

    @pytest.mark.parametrize("sql", CORPUS)
    @given(data=st.data())
    def test_a_changed_literal_counts(self, sql: str, data: st.DataObject) -> None:
        pieces = tokens(sql)
        literals = [n for n, piece in enumerate(pieces) if piece[0].isdigit() or piece[0] in "'$E"]
        if not literals:
            return
        place = data.draw(st.sampled_from(literals))
        piece = pieces[place]
        edited = (
            f"{piece}7" if piece[0].isdigit() else f"{piece[:2]}z{piece[2:]}" if piece[0] == "E" else _inside(piece)
        )
        before, after = " ".join(pieces), " ".join([*pieces[:place], edited, *pieces[place + 1 :]])
        assert checksum(after) != checksum(before)

    @given(st.sampled_from(CORPUS), st.sampled_from(CORPUS))
    def test_different_statements_differ(self, one: str, two: str) -> None:
        assert (checksum(one) == checksum(two)) == (one == two)

    @given(st.lists(st.sampled_from(CORPUS), min_size=2, max_size=4, unique=True))
    def test_order_and_number_count(self, statements: list[str]) -> None:
        whole = checksum(";".join(statements))
        assert checksum(";".join(reversed(statements))) != whole
        assert checksum(";".join(statements[:-1])) != whole

    @pytest.mark.parametrize(
        ("one", "two"),
        [
            ("select a", "select b"),
            ("select 'a'", "select 'A'"),
            ('select "a"', 'select "A"'),
            ("drop table a", "drop table a cascade"),
            ("drop table a", "drop table if exists a"),
            ("create table a (b int)", "create table a (b int not null)"),
            ("select -1", "select 1"),
            ("select $$a$$", "select $$ a$$"),
            ("create index i on t (a)", "create index concurrently i on t (a)"),
            ("select a and b or c", "select a and (b or c)"),
        ],
    )
    def test_pairs_that_differ(self, one: str, two: str) -> None:
        assert checksum(one) != checksum(two)

    @pytest.mark.parametrize(
        ("one", "two"),
        [
            ("SELECT A", "select a"),
            ("select 1;", "select 1"),
            ("select (1)", "select 1"),
            ("select $$a$$", "select 'a'"),
        ],
    )
    def test_pairs_that_mean_the_same(self, one: str, two: str) -> None:
        assert checksum(one) == checksum(two)


def _inside(piece: str) -> str:
    """A quoted text with a letter more in it."""
    mark = "'" if piece[0] == "'" else piece[: piece.index("$", 1) + 1]
    return f"{mark}z{piece[len(mark) :]}"


VERSIONS = st.one_of(
    st.from_regex(r"\A[0-9]{8}_[0-9]{6}\Z"),
    st.from_regex(r"\A[0-9]{1,14}\Z"),
    st.from_regex(r"\A[0-9]{1,3}(\.[0-9]{1,3}){0,3}\Z"),
)


class TestOrder:
    @given(st.lists(VERSIONS, max_size=12), st.randoms())
    def test_the_order_does_not_depend_on_how_files_are_listed(self, versions: list[str], rng: random.Random) -> None:
        shuffled = rng.sample(versions, len(versions))
        assert list(map(version_order, sorted(shuffled, key=version_order))) == sorted(map(version_order, versions))

    @given(VERSIONS, VERSIONS)
    def test_two_versions_of_one_order_are_one_number_written_twice(self, one: str, two: str) -> None:
        same = version_order(one) == version_order(two)
        assert same == (_numbers(one) == _numbers(two))
        assert (version_order(one) < version_order(two)) + (version_order(two) < version_order(one)) + same == 1

    def test_examples(self) -> None:
        expected = [
            "001",
            "1.2",
            "1.9",
            "1.10",
            "2",
            "0010",
            "20250101_000001",
            "20250101000002",
            "20250201_000000",
        ]
        shuffled = random.Random(1).sample(expected, len(expected))
        assert sorted(shuffled, key=version_order) == expected

    def test_a_folder_is_read_in_order(self, tmp_path: Path) -> None:
        names = ["10_a.sql", "9_a.sql", "V1.10__a.sql", "V1.9__a.sql", "20250101_000001_a.sql"]
        write(tmp_path, **dict.fromkeys(names, "select 1"))
        assert [m.version for m in read_folder(tmp_path)] == ["1.9", "1.10", "9", "10", "20250101_000001"]


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.replace("_", "").split(".")]


class TestSplitting:
    @given(st.lists(st.sampled_from(CORPUS), min_size=1, max_size=6), st.integers())
    def test_joined_statements_are_parsed_as_they_were(self, statements: list[str], seed: int) -> None:
        rng = random.Random(seed)
        texts, text, lines = [], "", []
        for statement in statements:
            text += rng.choice([*BLANKS, "", ";", " ; -- x\n;"])
            lines.append(text.count("\n") + 1)
            piece = " ".join(tokens(statement))
            texts.append(piece)
            text += piece + ";"
        parsed = parse(text)
        assert [s.sql for s in parsed] == texts
        assert [s.line for s in parsed] == lines
        assert tree_checksum(parsed) == tree_checksum(s for t in texts for s in parse(t))

    def test_the_first_line_is_counted_from_where_the_part_begins(self) -> None:
        assert [s.line for s in parse("\nselect 1;\n\n/* x\n */ select 2", first_line=10)] == [11, 14]

    def test_places_are_right_after_wide_characters(self) -> None:
        assert [s.sql for s in parse("select 'äö😀'; -- ü\nselect 'ß';")] == ["select 'äö😀'", "select 'ß'"]

    @pytest.mark.parametrize("text", ["", " \n", ";;", "-- x", "/* x */"])
    def test_no_statement(self, text: str) -> None:
        assert parse(text) == ()


class TestNew:
    def test_the_version_is_the_time(self, tmp_path: Path) -> None:
        from datetime import UTC, datetime

        path, text = new_file(tmp_path / "sql", "Add Users!", datetime(2026, 11, 1, 8, 30, 5, tzinfo=UTC))
        assert (path.name, text) == ("20261101_083005_add_users.sql", TEMPLATE)
        write_new(path, text)
        assert path.read_text() == TEMPLATE
        with pytest.raises(FileExistsError):
            write_new(path, "other")
        assert path.read_text() == TEMPLATE

    @pytest.mark.parametrize(
        ("newest", "expected"),
        [
            ("29990101_000001_z.sql", "29990101_000002"),
            ("29990101235959_z.sql", "29990101_235960"),
            ("V3__z.sql", "2026"),
            ("007_z.sql", "2026"),
        ],
    )
    def test_the_version_follows_the_newest(self, tmp_path: Path, newest: str, expected: str) -> None:
        from datetime import UTC, datetime

        write(tmp_path, **{newest: "select 1"})
        path, _ = new_file(tmp_path, "a", datetime(2026, 11, 1, tzinfo=UTC))
        assert path.name.startswith(expected)
        write_new(path, TEMPLATE.replace("-- migrate:up\n", "-- migrate:up\nselect 1;\n"))
        assert [m.path.name for m in read_folder(tmp_path)] == [newest, path.name]

    @pytest.mark.parametrize("name", ["", " ", "!?", "../"])
    def test_a_name_without_letters(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(Exception, match="is no name for a migration"):
            new_file(tmp_path, name)

    def test_a_name_stays_in_the_folder(self, tmp_path: Path) -> None:
        path, _ = new_file(tmp_path, "../../etc/passwd")
        assert path.parent == tmp_path
