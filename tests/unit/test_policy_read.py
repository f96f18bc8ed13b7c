"""Definition files: what is read, and every mistake by file, line, table and key."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.errors import DefinitionError
from dbops.policy.entries import table_name
from dbops.policy.keys import KEYS, OTHER_FIELDS
from dbops.policy.model import Auth, Name, Raw, Shared, TableRules, Tenant
from dbops.policy.place import lines_of
from dbops.policy.read import read_definitions
from dbops.policy.reference import EXAMPLE, reference

pytestmark = pytest.mark.quick

DOCS = Path(__file__).parents[2] / "docs"
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write(text, "b.toml"): the folder, with this file in it."""

    def writing(text: str | bytes, name: str = "app.toml") -> Path:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path

    return writing


def refusal(folder: Path) -> str:
    """What the error says from the file's name on."""
    with pytest.raises(DefinitionError) as caught:
        read_definitions(folder)
    assert caught.value.hint.endswith("nothing was done")
    assert str(folder) in caught.value.message
    return caught.value.message.split(f"{folder}/")[-1]


class TestWhatIsRead:
    def test_the_example_of_the_reference(self, write: Write) -> None:
        found = read_definitions(write(EXAMPLE))
        path = found.files[0]
        assert found.auth == Auth()
        assert {str(name): rules.line for name, rules in found.tables.items()} == {
            "public.notes": 5, "public.quotas": 10, "public.documents": 16, "public.members": 30, "public.audit": 35,
        }  # fmt: skip
        assert found.tables[Name("public", "documents")] == TableRules(
            Name("public", "documents"),
            path,
            16,
            tenant=Tenant("team_id", Name("public", "members"), "user_id", "team_id", "role"),
            roles={"select": (), "insert": ("editor",), "update": ("editor",), "delete": ("admin",)},
            immutable=("team_id",),
            shared=(Shared("visibility = 'public'", ("select",), ("anon", "authenticated")),),
            raw=(
                Raw(
                    "embargo",
                    False,
                    "select",
                    ("authenticated",),
                    "embargo_until is null or embargo_until < now()",
                    None,
                ),
            ),
        )
        assert found.tables[Name("public", "audit")].closed
        assert list(found.definer_views) == [Name("public", "team_sizes")]

    def test_several_files_are_one_set(self, write: Write) -> None:
        write('auth = "guc:app.user_id"\nuser_role = "app"\n[table."a.one"]\nowner = "u"', "a.toml")
        write(
            '[table."a.two"]\nshared = { when = "true" }\n[[table."a.two".raw]]\nname = "r"\nusing = "true"', "b.toml"
        )
        write("ignored = true", "_draft.toml")
        found = read_definitions(write("create\r\nfunction", "c.sql"))
        assert found.auth == Auth("app.user_id", "app", "anon")
        assert set(found.tables) == {Name("a", "one"), Name("a", "two")}
        # who is not named is the user's role, of whichever file
        two = found.tables[Name("a", "two")]
        assert (two.shared[0].to, two.raw[0].to) == (("app",), ("app",))
        assert [file.text for file in found.verbatim] == ["create\nfunction"]
        assert found.verbatim[0].checksum == hashlib.sha256(b"create\nfunction").hexdigest()

    def test_an_empty_folder_defines_nothing(self, tmp_path: Path) -> None:
        found = read_definitions(tmp_path)
        assert (found.auth, found.tables, found.files) == (Auth(), {}, ())

    def test_a_missing_folder_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(DefinitionError, match="there is no such folder"):
            read_definitions(tmp_path / "nothing")

    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("public.users", Name("public", "users")),
            ("Public.My Users", Name("Public", "My Users")),
            ('"my.schema"."a""b"', Name("my.schema", 'a"b')),
            ('schéma."x.y"', Name("schéma", "x.y")),
        ],
    )
    def test_names(self, text: str, name: Name) -> None:
        assert table_name(text) == name

    @pytest.mark.parametrize("text", ["users", "a.b.c", ".b", "a.", '""."b"', '"a.b', 'a.b"', f"a.{'é' * 32}", "a.\0"])
    def test_what_is_no_name(self, text: str) -> None:
        with pytest.raises(ValueError):
            table_name(text)


# the file's text, and what is said behind its path
MISTAKES = {
    "malformed": ('version = 1\n[table."a.b"]\nowner = ', ":3: malformed TOML: Invalid value"),
    "no end": ('version = 1\n[table."a.b"', ":2: malformed TOML: Expected ']' at the end of a table declaration"),
    "twice in one table": ('[table."a.b"]\nowner = "u"\nowner = "v"', ":3: malformed TOML: Cannot overwrite a value"),
    "not UTF-8": (b'version = 1\n# \xe4', ":2: not UTF-8 (byte 0xe4)"),
    "version 2": ("\nversion = 2", ":2: version: version 2 of the format is not known"),
    "version true": ("version = true", ":1: version: it must be a number, not true or false"),
    "unknown at the top": ('user_rol = "x"', ':1: user_rol: the key "user_rol" is not known'),
    "auth": ('auth = "jwt"', ':1: auth: "jwt" is not known'),
    "auth without a name": ('auth = "guc:user"', ':1: auth: "guc:user" is not known'),
    "auth with a quote": ("auth = \"guc:app.u'\"", ":1: auth: \"guc:app.u'\" is not known"),
    "table is a list": ("table = []", ":1: table: it must be a table, not a list"),
    "no qualified name": ("[table.users]\nowner = 'u'", ':1: table.users: a table is written "schema.table"'),
    "no rule": ('\n[table."a.b"]\nimmutable = []', ":2: a.b: there is no rule"),
    "unknown key": ('[table."a.b"]\nowner = "u"\nowned = "v"', ':3: a.b, owned: the key "owned" is not known'),
    "wrong type": ('[table."a.b"]\nowner = 1', ":2: a.b, owner: it must be a text, not a number"),
    "a date": ('[table."a.b"]\nowner = 2020-01-01', ":2: a.b, owner: it must be a text, not a date"),
    "empty": ('[table."a.b"]\nowner = ""', ":2: a.b, owner: the name is empty"),
    "64 bytes": (f'[table."a.b"]\nowner = "{"u" * 64}"', ":2: a.b, owner: the name is over 63 bytes"),
    "a table of 64 bytes": (f'[table."a.{"é" * 32}"]\nowner = "u"', ": the name is over 63 bytes"),
    "unknown verb": (
        '[table."a.b"]\nowner = "u"\nverbs = [\n "select",\n "uptade"]',
        ':3: a.b, verbs: "uptade" is none of select, insert, update, delete',
    ),
    "a verb twice": (
        '[table."a.b"]\nowner = "u"\nverbs = ["select", "select"]',
        ':3: a.b, verbs: "select" stands twice',
    ),
    "verbs of nobody": ('[table."a.b"]\nclosed = false\nservice = ["s"]\nverbs = ["select"]', ":4: a.b, verbs: it says"),
    "roles of nobody": ('[table."a.b"]\nowner = "u"\nroles = { select = ["x"] }', ":3: a.b, roles: it speaks of"),
    "immutable alone": ('[table."a.b"]\nservice = ["s"]\nimmutable = ["u"]', ":3: a.b, immutable: it needs an owner"),
    "closed and open": ('[table."a.b"]\nowner = "u"\nclosed = true', ":3: a.b, closed: a closed table has no other rule"),
    "no members": ('[table."a.b"]\ntenant = { column = "t" }', ':2: a.b, tenant: the key "members" is missing'),
    "members": ('[table."a.b"]\ntenant = { column = "t", members = "m" }', ":2: a.b, tenant.members: a table is written"),
    "no role in a list": (
        '[table."a.b"]\n[table."a.b".tenant]\ncolumn = "t"\nmembers = "a.m"\n[table."a.b".roles]\ndelete = []',
        ":6: a.b, roles.delete: no role is named",
    ),
    "roles without roles": (
        '[table."a.b"]\ntenant = { column = "t", members = "a.m", role = "" }\nroles = { delete = ["x"] }',
        ':3: a.b, roles: members have no roles here (role = "")',
    ),
    "every member and more": (
        '[table."a.b"]\ntenant = { column = "t", members = "a.m" }\nroles.delete = ["*", "x"]',
        ':3: a.b, roles.delete: "*" is every member already',
    ),
    "shared with PUBLIC": (
        '[table."a.b"]\nshared = { when = "true", to = ["public"] }',
        ":2: a.b, shared.to: public would be every role",
    ),
    "the second shared": (
        '[table."a.b"]\nshared = [{ when = "true" }, { when = "true;" }]',
        ":2: a.b, shared[1].when: there is a semicolon",
    ),
    "shared with nobody": ('[table."a.b"]\nshared = { when = "true", to = [] }', ":2: a.b, shared: it opens nothing"),
    "reserved": (
        '[table."a.b"]\nowner = "u"\n[[table."a.b".raw]]\nname = "dbops_x"\nusing = "true"',
        ':4: a.b, raw[0].name: names that begin with "dbops_" are the compiler\'s',
    ),
    "two of a name": (
        '[[table."a.b".raw]]\nname = "r"\nusing = "true"\n\n[[table."a.b".raw]]\nusing = "true"\nname = "r"',
        ':7: a.b, raw[1].name: "r" is the name of two policies',
    ),
    "neither": ('[[table."a.b".raw]]\nname = "r"', ":1: a.b, raw[0]: there is neither using nor check"),
    "check of a select": (
        '[[table."a.b".raw]]\nname = "r"\nfor = "select"\nusing = "true"\ncheck = "true"',
        ":5: a.b, raw[0].check: select writes no row",
    ),
    "using of an insert": (
        '[[table."a.b".raw]]\nname = "r"\nfor = "insert"\nusing = "true"',
        ":4: a.b, raw[0].using: insert reads no row",
    ),
    "for whom": ('[[table."a.b".raw]]\nname = "r"\nto = []\nusing = "true"', ":3: a.b, raw[0].to: it is for nobody"),
    "as": ('[[table."a.b".raw]]\nname = "r"\nas = "strict"', ':3: a.b, raw[0].as: "strict" is none of'),
    "out of the parentheses": (
        '[[table."a.b".raw]]\nname = "r"\ncheck = """\ntrue) or\n(true"""',
        ":3: a.b, raw[0].check: there is a ) without its (",
    ),
    "a view without a reason": ('[view."a.v"]\ndefiner = " "', ":1: view.a.v: a view that keeps"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_told_with_its_place(case: str, write: Write) -> None:
    text, expected = MISTAKES[case]
    said = refusal(write(text))
    assert said.startswith("app.toml")
    assert expected in said


def test_the_nearest_key_is_offered(write: Write) -> None:
    with pytest.raises(DefinitionError) as caught:
        read_definitions(write('[table."a.b"]\nowmer = "u"'))
    assert caught.value.hint == 'did you mean "owner"?; nothing was done'


class TestSeveralFiles:
    def test_one_says_something_else(self, write: Write) -> None:
        write('auth = "supabase"', "a.toml")
        said = refusal(write('version = 1\nauth = "guc:app.u"', "b.toml"))
        assert said == "b.toml:2: auth: a.toml:1 says something else"

    def test_a_table_is_defined_once(self, write: Write) -> None:
        write('[table."a.b"]\nowner = "u"', "a.toml")
        said = refusal(write('\n[table.\'"a"."b"\']\nclosed = true', "b.toml"))
        assert said == "b.toml:2: a.b: the table is defined twice, also in a.toml:1"

    def test_a_link_out_of_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "secret.sql").write_text("select 1")
        folder = tmp_path / "policies"
        folder.mkdir()
        os.symlink("../secret.sql", folder / "a.sql")
        assert refusal(folder) == "a.sql: a link out of the folder"

    def test_a_link_within_the_folder_is_a_file(self, write: Write, tmp_path: Path) -> None:
        write("select 1", "a.sql")
        os.symlink("a.sql", tmp_path / "b.sql")
        assert [file.path.name for file in read_definitions(tmp_path).verbatim] == ["a.sql", "b.sql"]

    def test_a_link_to_nothing(self, tmp_path: Path) -> None:
        os.symlink("nothing.toml", tmp_path / "a.toml")
        assert refusal(tmp_path) == "a.toml: no file, or a link to nothing"


class TestLines:
    def test_texts_of_several_lines_hide_what_looks_like_keys(self) -> None:
        text = 'a = """\nb = 1\n[c]\n"""  # d = """\ne = \'\'\'\nf = 1\'\'\'\n[g."h.i"]\nj.k = 1\n[[l]]\n[[l]]\nm = "#"'
        assert lines_of(text) == {
            ("a",): 1, ("e",): 5, ("g", "h.i"): 7, ("g", "h.i", "j"): 8, ("g", "h.i", "j", "k"): 8,
            ("l", 0): 9, ("l", 1): 10, ("l", 1, "m"): 11,
        }  # fmt: skip

    @given(st.text(alphabet="[]\"'=\n#. ab\\", max_size=40))
    def test_no_text_is_too_odd(self, text: str) -> None:
        assert all(1 <= line <= text.count("\n") + 1 for line in lines_of(text).values())


class TestReference:
    def test_the_page_is_the_reference(self) -> None:
        page = DOCS / "policy-format.md"
        assert page.read_text() == reference(), "python -m dbops.policy.reference > docs/policy-format.md"
        assert EXAMPLE in reference()

    @pytest.mark.parametrize("kind", KEYS, ids=lambda kind: kind.__name__)
    def test_every_field_of_the_model_has_a_key(self, kind: type) -> None:
        named = {key.field for key in KEYS[kind]} | OTHER_FIELDS.get(kind, set())
        assert named == {each.name for each in fields(kind)}
