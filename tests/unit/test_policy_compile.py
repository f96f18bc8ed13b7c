"""Definitions and a catalog made by hand: the wanted state as text, and everything that does not fit.

`UPDATE_GOLDEN=1 pytest tests/unit/test_policy_compile.py` writes the golden files anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dbops.errors import DefinitionError
from dbops.policy.compile import compile_definitions
from dbops.policy.model import Definitions, Name
from dbops.policy.read import read_definitions
from dbops.policy.reference import EXAMPLE
from dbops.policy.state import Catalog, Column, Role, Table, View, Wanted

pytestmark = pytest.mark.quick

GOLDEN = Path(__file__).parent / "golden"
DML = frozenset(["SELECT", "INSERT", "UPDATE", "DELETE"])


def table(name: str, columns: str, kind: str = "r", **more: object) -> Table:
    """table("public.notes", "id:bigint user_id:uuid")."""
    made = tuple(Column(*column.split(":"), False, True) for column in columns.split())
    return Table(Name(*name.split(".", 1)), 1, kind, "owner", False, False, made, **more)  # type: ignore[arg-type]


def view(name: str, reads: str, *, materialized: bool = False, to: str = "authenticated") -> View:
    grants = {to: frozenset(["SELECT"])}
    return View(Name("public", name), 1, materialized, "owner", False, (Name("public", reads),), grants)


TABLES = (
    table("public.notes", "id:bigint user_id:uuid body:text data:json", indexed=(("user_id", "id"),)),
    table("public.quotas", "user_id:uuid bytes:bigint"),
    table(
        "public.documents",
        "id:bigint team_id:uuid author:text visibility:text embargo_until:timestamptz",
        indexed=(("id",), ("id", "team_id")),
    ),
    table("public.members", "user_id:uuid team_id:uuid role:text number:bigint"),
    table("public.audit", "id:bigint"),
    table("public.events", "id:bigint user_id:uuid", "p"),
    table("public.events_1", "id:bigint user_id:uuid", "p", partition_of=Name("public", "events")),
    table("public.events_1a", "id:bigint user_id:uuid", partition_of=Name("public", "events_1")),
    table("public.elsewhere", "id:bigint user_id:uuid", "f"),
)
VIEWS = (view("team_sizes", "members"), view("titles", "documents"), view("own", "notes", to="reporter"))
ROLES = (
    Role("authenticated", False, False, frozenset()),
    Role("anon", False, False, frozenset()),
    Role("service_role", False, True, frozenset()),
    Role("worker", False, False, frozenset(["authenticated"])),
    Role("staff", False, False, frozenset()),
)


def catalog(version: int = 180000, tables: tuple[Table, ...] = TABLES, views: tuple[View, ...] = VIEWS) -> Catalog:
    return Catalog(
        version,
        "app",
        "postgres",
        {each.name: each for each in tables},
        {each.name: each for each in views},
        roles={role.name: role for role in ROLES},
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `policies` of the current one: paths are shown from there on."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").mkdir()
    return Path.cwd() / "policies"


def definitions(folder: Path, text: str) -> Definitions:
    (folder / "app.toml").write_text(text)
    return read_definitions(folder)


def compiled(folder: Path, text: str, found: Catalog | None = None) -> Wanted:
    return compile_definitions(definitions(folder, text), found or catalog())


def lines(wanted: Wanted) -> Iterator[str]:
    """The wanted state for people's eyes."""
    for name, each in wanted.tables.items():
        yield f"{name}  ({each.source})"
        for policy in each.policies:
            kind = "permissive" if policy.permissive else "restrictive"
            yield f"  policy {policy.name}: {kind} for {policy.verb} to {', '.join(policy.roles)}"
            yield from (f"    {key} {text}" for key, text in (("using", policy.using), ("check", policy.check)) if text)
        yield from (f"  {trigger.definition}" for trigger in each.triggers)
        for what, grants in (("grant", each.grants), ("revoke", each.revokes)):
            yield from (f"  {what} {role}: {', '.join(sorted(held))}" for role, held in grants.items())
    for helper in wanted.helpers:
        yield f'helper "{helper.name}"({helper.arguments}) for {", ".join(helper.execute) or "nobody"}'
        yield from (f"  {line}" for line in helper.statement.split("\n"))
    yield from (f"invoker {name}" for name in wanted.invoker_views)
    yield from (f"propose {each.statement}  -- {each.reason}" for each in wanted.proposals)
    yield from (f"note {note}" for note in wanted.notes)


BOTH = """\
auth = "guc:app.user"
user_role = "worker"
[table."public.documents"]
owner = "author"
verbs = ["insert", "update"]
tenant = { column = "team_id", members = "public.members", role = "" }
roles = { select = ["*"] }
shared = [{ when = "a.b", verbs = ["update"], to = ["authenticated"] }, { when = "visibility = 'x'", to = ["staff"] }]
service = ["staff"]
""".replace("a.b", "visibility = 'open' or id < 0")
PARTITIONS = '[table."public.events"]\nowner = "user_id"\nimmutable = ["user_id", "id"]\n'


@pytest.mark.parametrize(
    ("name", "text"), [("example", EXAMPLE), ("both", BOTH), ("partitions", PARTITIONS)], ids=lambda value: value[:10]
)
def test_the_wanted_state(name: str, text: str, folder: Path) -> None:
    shown = "\n".join(lines(compiled(folder, text))) + "\n"
    golden = GOLDEN / f"policy_compile_{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(shown)
    assert shown == golden.read_text()


UNFIT = {
    "table": ('[table."public.note"]\nowner = "user_id"', 'public.note: there is no table public.note in app|"public.notes"'),
    "view": ('[table."public.titles"]\nowner = "user_id"', "public.titles: public.titles is a view"),
    "foreign": ('[table."public.elsewhere"]\nowner = "user_id"', "public.elsewhere is a foreign table"),
    "owner": ('[table."public.notes"]\nowner = "users_id"', 'public.notes, owner: public.notes has no column|"user_id"'),
    "owner's type": ('[table."public.notes"]\nowner = "id"', "owner: column id can hold no user's id: it is bigint"),
    "immutable": ('[table."public.notes"]\nowner = "user_id"\nimmutable = ["x"]', "immutable: public.notes has no column x"),
    "not comparable": (
        '[table."public.notes"]\nowner = "user_id"\nimmutable = ["data"]',
        "immutable: column data is json: two values of it cannot be compared",
    ),
    "tenant": (
        '[table."public.notes"]\ntenant = { column = "team", members = "public.members" }',
        "tenant.column: public.notes has no column team",
    ),
    "members": (
        '[table."public.documents"]\ntenant = { column = "team_id", members = "public.member" }',
        'tenant.members: there is no table public.member in app|"public.members"',
    ),
    "members' tenant": (
        '[table."public.documents"]\ntenant = { column = "id", members = "public.members" }',
        "tenant.tenant: public.members has no column id",
    ),
    "members' user": (
        '[table."public.documents"]\ntenant = { column = "team_id", members = "public.members", user = "number" }',
        "tenant.user: column number can hold no user's id",
    ),
    "members' role": (
        '[table."public.documents"]\ntenant = { column = "team_id", members = "public.members", role = "roles" }',
        "tenant.role: public.members has no column roles",
    ),
    "types": (
        '[table."public.documents"]\ntenant = { column = "id", tenant = "team_id", members = "public.members" }',
        "tenant.column: column id is bigint, and public.members.team_id is uuid",
    ),
    "user_role": ('user_role = "user"\n[table."public.audit"]\nclosed = true', "user_role: there is no role user"),
    "anon_role": ('anon_role = "anom"\n[table."public.audit"]\nclosed = true', 'anon_role: there is no role anom|"anon"'),
    "shared to": ('[table."public.audit"]\nshared = { when = "true", to = ["x"] }', "shared 1, to: there is no role x"),
    "raw to": (
        '[[table."public.audit".raw]]\nname = "r"\nusing = "true"\nto = ["public", "annon"]',
        'raw "r", to: there is no role annon|"anon"',
    ),
    "service": ('[table."public.audit"]\nservice = ["x"]', "service: there is no role x"),
    "service is the user": ('[table."public.audit"]\nservice = ["authenticated"]', "service: authenticated is no service's"),
    "service above the user": (
        'user_role = "worker"\n[table."public.audit"]\nservice = ["authenticated"]',
        "users act as it: worker is a member of it",
    ),
    "predicate": (
        '[table."public.audit"]\nshared = { when = "count(*) > 1" }',
        "shared 1, when: an aggregate (count) stands outside of a subquery",
    ),
    "predicate's column": (
        '[[table."public.notes".raw]]\nname = "r"\ncheck = "bod = \'x\'"',
        'raw "r", check: public.notes has no column bod|"body"',
    ),
    "view's definer": (
        '[view."public.title"]\ndefiner = "x"',
        'view public.title, definer: there is no such view|"public.titles"',
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_told_with_its_place(case: str, folder: Path) -> None:
    text, expected = UNFIT[case]
    message, _, hint = expected.partition("|")
    with pytest.raises(DefinitionError) as caught:
        compiled(folder, text)
    assert caught.value.message.startswith("policies/app.toml")
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.hint.endswith("nothing was done")


def test_roles_without_a_column_for_them_do_not_become_every_member(folder: Path) -> None:
    found = definitions(folder, TEAMS.replace('members" }', 'members", role = "" }'))
    (rules,) = found.tables.values()
    by_hand = replace(found, tables={rules.name: replace(rules, roles={"delete": ("admin",)})})
    with pytest.raises(DefinitionError, match=r"roles: the members in public\.members have no roles"):
        compile_definitions(by_hand, catalog())


def test_nothing_defined_is_nothing_wanted(tmp_path: Path) -> None:
    assert compile_definitions(read_definitions(tmp_path), catalog()) == Wanted({})


def test_every_combination_is_made_of_what_the_file_says(folder: Path) -> None:
    """The verbs of a table's rules, its policies and its grants tell the same."""
    verbs = ("select", "insert", "update", "delete")
    for number in range(1, 16):
        chosen = [verb for index, verb in enumerate(verbs) if number >> index & 1]
        text = f'[table."public.notes"]\nowner = "user_id"\nverbs = {chosen}'
        wanted = compiled(folder, text).tables[Name("public", "notes")]
        assert [policy.verb for policy in wanted.policies] == chosen
        assert wanted.grants == {"authenticated": frozenset(verb.upper() for verb in chosen)}
        for role in ("authenticated", "anon", "public"):
            assert wanted.revokes[role] | wanted.grants.get(role, frozenset()) == DML | {
                "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN",
            }  # fmt: skip
            assert not wanted.revokes[role] & wanted.grants.get(role, frozenset())


def test_maintain_is_no_privilege_before_17(folder: Path) -> None:
    text = '[table."public.audit"]\nclosed = true'
    wanted = compiled(folder, text, catalog(160004))
    assert "MAINTAIN" not in wanted.tables[Name("public", "audit")].revokes["public"]


def test_a_verb_that_is_granted_on_columns_only_is_left_so(folder: Path) -> None:
    notes = replace(TABLES[0], column_grants={"body": {"authenticated": frozenset(["UPDATE"])}})
    wanted = compiled(folder, '[table."public.notes"]\nowner = "user_id"', catalog(tables=(notes,)))
    of_user = wanted.tables[notes.name]
    assert of_user.grants == {"authenticated": DML - {"UPDATE"}}
    assert not DML & of_user.revokes["authenticated"]
    assert "UPDATE" in of_user.revokes["anon"]


def test_views_before_15_are_noted(folder: Path) -> None:
    text = '[table."public.documents"]\nclosed = true'
    assert compiled(folder, text).invoker_views == (Name("public", "titles"),)
    wanted = compiled(folder, text, catalog(140011))
    assert wanted.invoker_views == ()
    assert wanted.notes == (
        "view public.titles reads with its owner's rights, and users may read it: PostgreSQL 15 has security_invoker",
    )


def test_a_materialized_view_that_users_read_is_noted(folder: Path) -> None:
    views = (view("a", "audit", materialized=True), view("b", "audit", materialized=True, to="reporter"))
    wanted = compiled(folder, '[table."public.audit"]\nclosed = true', catalog(views=views))
    assert wanted.notes == ("materialized view public.a holds rows of public.audit that no policy holds back",)


TEAMS = '[table."public.documents"]\ntenant = { column = "team_id", members = "public.members" }\n'


class TestWhoMayJoin:
    def test_whoever_writes_members_without_a_definition(self, folder: Path) -> None:
        members = replace(TABLES[3], grants={"authenticated": frozenset(["INSERT"])})
        assert compiled(folder, TEAMS).notes == ()
        notes = compiled(folder, TEAMS, catalog(tables=(*TABLES, members))).notes
        assert notes == ("public.members has no definition, and users may write it: whoever does joins any tenant",)

    def test_whoever_owns_his_membership(self, folder: Path) -> None:
        own = '[table."public.members"]\nowner = "user_id"\n'
        assert compiled(folder, f'{TEAMS}{own}verbs = ["select", "delete"]').notes == ()
        (note,) = compiled(folder, f"{TEAMS}{own}").notes
        assert note.startswith("public.members: a user may write his own membership, and so join any tenant")


def test_helpers_of_long_and_odd_names_stay_apart(folder: Path) -> None:
    long = "m" * 62
    columns = "user_id:uuid team_id:uuid role:text"
    tables = (
        table("public.one", columns), table("public.two", columns), table("public.three", columns),
        table(f"public.{long}a", columns), table(f"public.{long}b", columns), table("a.b.c", columns),
    )  # fmt: skip
    text = "".join(
        f'[table."public.{name}"]\ntenant = {{ column = "team_id", members = \'{members}\' }}\n'
        for name, members in (("one", f"public.{long}a"), ("two", f"public.{long}b"), ("three", 'a."b.c"'))
    )
    wanted = compiled(folder, text, catalog(tables=tables))
    assert len(wanted.helpers) == 3
    assert all(len(helper.name.encode()) <= 63 for helper in wanted.helpers)
