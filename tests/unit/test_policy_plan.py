"""The plan: the fewest statements, in an order in which nothing opens before what narrows it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dbops.errors import DefinitionError
from dbops.policy.model import Name, Verbatim
from dbops.policy.plan import Plan, Unmanaged, make_plan
from dbops.policy.printed import Printed
from dbops.policy.recursion import refuse_recursion
from dbops.policy.state import (
    Catalog,
    Function,
    Helper,
    Policy,
    Proposal,
    Role,
    Table,
    Trigger,
    View,
    Wanted,
    WantedTable,
)

pytestmark = pytest.mark.quick
GOLDEN = Path(__file__).parent / "golden"
NOTES, ODD = Name("public", "notes"), Name("My.schema", 'Ta"ble')
HELPER = "printed\n RETURNS SETOF uuid\n"
ROLES = {name: Role(name, False, False, frozenset()) for name in ("anon", "authenticated", 'O"dd')}
ROLES["op"] = Role("op", True, True, frozenset())


def policy(name: str, table: Name = NOTES, **facts: object) -> Policy:
    defaults = {"permissive": True, "verb": "select", "roles": ("authenticated",), "using": "a = 1", "check": None}
    return Policy(table, name, **(defaults | facts))  # type: ignore[arg-type]


def table(name: Name = NOTES, *, rls: bool = True, forced: bool = True, **facts: object) -> Table:
    return Table(name, 1, "r", "op", rls, forced, (), **facts)  # type: ignore[arg-type]


def wanted(*policies: Policy, **facts: object) -> WantedTable:
    name = policies[0].table if policies else NOTES
    defaults = {"triggers": (), "grants": {}, "revokes": {}, "source": "policies/a.toml:1"}
    return WantedTable(name, policies, **(defaults | facts))  # type: ignore[arg-type]


def catalog(*policies: Policy, tables: tuple[Table, ...] | None = None, **facts: object) -> Catalog:
    named = {each.name: each for each in ((table(),) if tables is None else tables)}
    return Catalog(180000, "db", "op", named, policies=policies, roles=ROLES, **facts)  # type: ignore[arg-type]


def printed(want: Wanted) -> Printed:
    """As a PostgreSQL would print it that puts everything into parentheses."""
    texts = {
        (p.table, p.name): tuple(text if text is None else f"({text})" for text in (p.using, p.check))
        for t in want.tables.values()
        for p in t.policies
    }
    triggers = {(t.table, t.name): f"printed {t.name}" for w in want.tables.values() for t in w.triggers}
    return Printed(texts, triggers, {(h.name, h.arguments): HELPER for h in want.helpers})  # type: ignore[arg-type]


def found(each: Policy) -> Policy:
    using, check = (None if text is None else f"({text})" for text in (each.using, each.check))
    return replace(each, using=using, check=check)


def plan(want: Wanted, there: Catalog, **options: object) -> Plan:
    return make_plan(want, there, printed(want), **options)  # type: ignore[arg-type]


def only(*tables: WantedTable, **facts: object) -> Wanted:
    return Wanted({each.name: each for each in tables}, **facts)  # type: ignore[arg-type]


FULL = only(
    wanted(
        policy("dbops_floor", permissive=False, verb="all", check="a = 1"),
        policy("dbops_owner_update", verb="update", using="a = 2", check="a = 3"),
        policy("dbops_owner_select"),
        triggers=(Trigger(NOTES, "dbops_immutable", 'CREATE TRIGGER "dbops_immutable" …'),),
        grants={"authenticated": frozenset({"SELECT", "UPDATE"})},
        revokes={"public": frozenset({"TRUNCATE"}), "anon": frozenset({"SELECT", "TRUNCATE"})},
    ),
    wanted(
        policy('Po"licy', ODD, roles=("anon", 'O"dd')),
        grants={"authenticated": frozenset({"SELECT", "UPDATE"})},
        revokes={"public": frozenset({"TRUNCATE"}), "anon": frozenset({"TRUNCATE"})},
    ),
    helpers=(Helper("tenants of x", "roles text[]", "create or replace function …", ("authenticated",)),),
    invoker_views=(Name("public", "v"),),
    proposals=(Proposal(NOTES, ("a",), 'CREATE INDEX CONCURRENTLY "i" ON …', "the policies read it"),),
    notes=("a note",),
)
BARE = catalog(
    policy("theirs"),
    policy("dbops_old", permissive=False),
    policy("dbops_older"),
    tables=(
        table(
            rls=False, forced=False,
            grants={"anon": frozenset({"SELECT", "TRUNCATE"}), "public": frozenset({"TRUNCATE"})},
            column_grants={"a": {"anon": frozenset({"SELECT"})}},
        ),
        table(ODD, forced=False, grants={"anon": frozenset({"TRUNCATE"})}),
    ),
    views={Name("public", "v"): View(Name("public", "v"), 2, False, "op", False, (NOTES,))},
)  # fmt: skip


def test_a_whole_plan_as_it_is_shown() -> None:
    files = (Verbatim(Path("policies/more.sql"), "create policy p on notes;\n", "1"),)
    text = str(plan(FULL, BARE, verbatim=files, target="db on host:5432"))
    assert text == (GOLDEN / "policy_plan.sql").read_text()


def test_nothing_to_do() -> None:
    there = catalog(
        *(found(each) for each in FULL.tables[NOTES].policies),
        *(found(each) for each in FULL.tables[ODD].policies),
        tables=(
            table(grants={"authenticated": frozenset({"SELECT", "UPDATE"}), "anon": frozenset({"INSERT"})}),
            table(ODD, grants={"authenticated": frozenset({"SELECT", "UPDATE", "DELETE"})}),
        ),
        triggers=(Trigger(NOTES, "dbops_immutable", "printed dbops_immutable"),),
        views={Name("public", "v"): View(Name("public", "v"), 2, False, "op", True, (NOTES,))},
        functions=(helper_found(),),
    )
    assert plan(FULL, there).statements == ()
    assert str(plan(only(), there_without_ours())) == "-- nothing to do\n"


def there_without_ours() -> Catalog:
    return catalog()


def helper_found(**facts: object) -> Function:
    name = Name("dbops_policy", "tenants of x")
    values = {"executable_by": frozenset({"op", "authenticated"}), "definition": HELPER}
    return Function(name, 3, "roles text[]", "SETOF uuid", "f", True, "op", (), "s", **(values | facts))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ({"roles": ("anon",)}, ['ALTER POLICY "p" ON "public"."notes" TO "authenticated"']),
        ({"using": "(b)"}, ['ALTER POLICY "p" ON "public"."notes" USING (a = 1)']),
        ({"check": "(b)"}, ['ALTER POLICY "p" ON "public"."notes" WITH CHECK (a = 2)']),
        ({"check": None}, ['ALTER POLICY "p" ON "public"."notes" WITH CHECK (a = 2)']),
        (
            {"using": "(b)", "check": "(b)", "roles": ("public",)},
            ['ALTER POLICY "p" ON "public"."notes" TO "authenticated" USING (a = 1) WITH CHECK (a = 2)'],
        ),
        ({"verb": "all"}, ["DROP POLICY", "CREATE POLICY"]),
        ({"permissive": False}, ["DROP POLICY", "CREATE POLICY"]),
    ],
)
def test_a_policy_that_differs(there: dict[str, object], expected: list[str]) -> None:
    want = policy("p", verb="update", check="a = 2")
    made = plan(only(wanted(want)), catalog(replace(found(want), **there)))  # type: ignore[arg-type]
    assert [s.sql[: len(e)] for s, e in zip(made.statements, expected, strict=True)] == expected
    if len(expected) == 1:
        assert made.sql[0] == expected[0]
    assert made.statements[-1].was.startswith('CREATE POLICY "p"')


def test_an_expression_that_is_no_longer_wanted_makes_the_policy_anew() -> None:
    want = policy("p", verb="all")
    made = plan(only(wanted(want)), catalog(replace(found(want), check="(b)")))
    assert [sql.split(" ")[0] for sql in made.sql] == ["DROP", "CREATE"]


def test_others_are_dropped_only_by_prune() -> None:
    other, ours, elsewhere = policy("theirs"), policy("dbops_x"), policy("p", Name("storage", "objects"))
    there = catalog(other, ours, elsewhere, tables=(table(), table(Name("storage", "objects"))))
    made = plan(only(), there, schemas=("public",))
    assert made.sql == ('DROP POLICY "dbops_x" ON "public"."notes"',)
    assert made.unmanaged == (Unmanaged("public.notes", "theirs"),)
    pruned = plan(only(), there, schemas=("public",), prune=True)
    assert set(pruned.sql) == {*made.sql, 'DROP POLICY "theirs" ON "public"."notes"'}
    assert pruned.unmanaged == ()
    assert Unmanaged("storage.objects", "p") in plan(only(), there).unmanaged


def test_a_restrictive_policy_that_goes_is_noted_where_something_stays_open() -> None:
    there = catalog(policy("theirs"), policy("dbops_floor", permissive=False))
    assert "dbops_floor" in plan(only(), there).notes[0]
    assert plan(only(), catalog(policy("dbops_floor", permissive=False))).notes == ()


def test_helpers_that_differ_or_are_not_needed() -> None:
    want = Wanted({}, helpers=FULL.helpers)
    open_to_all = helper_found(executable_by=frozenset({"op", "public"}))
    assert plan(want, catalog(functions=(open_to_all,))).sql == (
        'REVOKE EXECUTE ON FUNCTION "dbops_policy"."tenants of x"(roles text[]) FROM PUBLIC',
        'GRANT EXECUTE ON FUNCTION "dbops_policy"."tenants of x"(roles text[]) TO "authenticated"',
    )
    assert plan(want, catalog(functions=(helper_found(definition="other"),))).sql == ("create or replace function …",)
    dropped = ('DROP FUNCTION "dbops_policy"."tenants of x"(roles text[])',)
    assert plan(only(), catalog(functions=(helper_found(),))).sql == dropped
    # CREATE OR REPLACE would not take it
    for change in ({"returns": "integer"}, {"arguments": "r text[]"}):
        made = plan(want, catalog(functions=(replace(helper_found(), **change),)))  # type: ignore[arg-type]
        assert [text.split(" ON ")[0].partition(" FUNCTION ")[0] for text in made.sql] == [
            "DROP",
            "create or replace function …",
            "REVOKE EXECUTE",
            "GRANT EXECUTE",
        ]
    # its owner could make it say anything
    theirs = replace(helper_found(), owner="anon", executable_by=frozenset({"anon", "authenticated"}))
    assert plan(want, catalog(functions=(theirs,))).sql == (
        'ALTER FUNCTION "dbops_policy"."tenants of x"(roles text[]) OWNER TO "op"',
    )
    # somebody's policy calls it: it would stand in the way
    calls = policy("theirs", using='(a IN ( SELECT dbops_policy."tenants of x"(NULL)))')
    assert plan(only(), catalog(calls, functions=(helper_found(),))).sql == ()
    assert plan(only(), catalog(calls, functions=(helper_found(),)), prune=True).sql[1:] == dropped


def test_files_run_when_their_text_or_their_policies_changed() -> None:
    file = Verbatim(Path("policies/more.sql"), "text", "2")
    left = policy("of the file")
    same = catalog(
        left, verbatim={"more.sql": "2", "gone.sql": "1"}, verbatim_policies=frozenset({(NOTES, "of the file")}),
        recorded={"more.sql": (left,)},
    )  # fmt: skip
    assert plan(only(), same, verbatim=(file,)).sql == ()
    assert plan(only(), same, verbatim=(file,)).unmanaged == ()
    assert "gone.sql" in plan(only(), same, verbatim=(file,)).notes[0]
    assert plan(only(), replace(same, verbatim={"more.sql": "1"}), verbatim=(file,)).sql == ("text",)
    changed = replace(same, policies=(replace(left, using="true"),))
    assert plan(only(), changed, verbatim=(file,)).sql == ("text",)
    assert plan(only(), replace(same, policies=()), verbatim=(file,)).sql == ("text",)


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(DefinitionError, match=r"policies/a.toml:1: public.notes: there is no role 'nobody'") as caught:
        plan(only(wanted(policy("p", roles=("nobody",)))), catalog())
    assert 'CREATE ROLE "nobody"' in caught.value.hint
    with pytest.raises(DefinitionError, match=r"policies/a.toml:1: there is no table public.notes"):
        plan(only(wanted(policy("p"))), catalog(tables=()))


A, B, C = (Name("public", name) for name in "abc")
SUB = "( SELECT 1)"


@pytest.mark.parametrize(
    ("policies", "circle"),
    [
        ([(policy("p", A, using=SUB), {A})], "public.a -> public.a"),
        (
            [(policy("p", A, using=SUB), {B}), (policy("q", B, using=SUB), {C}), (policy("r", C, using=SUB), {A})],
            "a -> public.b",
        ),
        ([(policy("p", A, verb="update", using=SUB), {A})], None),
        ([(policy("p", A, verb="update", using=SUB), {A}), (policy("q", A, using=SUB), set())], "public.a -> public.a"),
        ([(policy("p", A, using=SUB), {B}), (policy("q", B, using=SUB, roles=("anon",)), {A})], None),
        ([(policy("p", A, using=SUB), {B}), (policy("q", B, using=SUB, roles=("public",)), {A})], "public.b"),
        ([(policy("p", A, using=SUB), {B}), (policy("q", B, verb="insert", using=None, check=SUB), {A})], None),
        ([(policy("p", A, using=SUB), {Name("public", "invoker")})], "public.a -> public.a"),
        ([(policy("p", A, using=SUB), {Name("public", "definer")})], None),
    ],
)
def test_policies_that_come_back_to_their_table(policies: list[tuple[Policy, set[Name]]], circle: str | None) -> None:
    of = {name: tuple(p for p, _ in policies if p.table == name) for name in (A, B, C)}
    want = only(*(replace(wanted(), name=name, policies=of[name]) for name in (A, B, C)))
    texts = Printed(
        {(p.table, p.name): (p.using, p.check) for p, _ in policies},
        reads={(p.table, p.name): frozenset(reads) for p, reads in policies},
        subqueries=frozenset((p.table, p.name) for p, _ in policies if p.using == SUB),
    )
    views = {
        Name("public", name): View(Name("public", name), 2, False, "op", name == "invoker", (A,))
        for name in ("invoker", "definer")
    }
    there = catalog(tables=(table(A), table(B), table(C)), views=views)
    if circle is None:
        refuse_recursion(want, there, texts)
    else:
        with pytest.raises(DefinitionError, match=circle) as caught:
            refuse_recursion(want, there, texts)
        assert "42P17" in caught.value.message
