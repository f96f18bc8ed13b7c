"""The plan of an attack: actors, statements, what is allowed, how policies are weakened. Nothing here needs a server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from dbops.policy.attack.actors import Actor, Setting, intruders, marks_of, user
from dbops.policy.attack.attempts import controls, plan
from dbops.policy.attack.oracle import allowed, may, roles_for, snapshot
from dbops.policy.attack.runner import script
from dbops.policy.attack.target import Attempt, Pair, Place, Row, Shot
from dbops.policy.attack.ways import MOST, TooMany, asks_session, ways_of
from dbops.policy.attack.weaken import conjuncts, mutants
from dbops.policy.model import Auth, Definitions, Name, Shared, TableRules, Tenant, Verb
from dbops.policy.state import Catalog, Column, Key, Policy, Role, Table, Trigger

pytestmark = pytest.mark.quick

NOTES = Name("public", "notes")
COLUMNS = (Column("user_id", "uuid", True, True), Column("id", "uuid", True, True), Column("body", "text", False, True))
TABLE = Table(NOTES, 7, "r", "boss", True, True, COLUMNS, unique=(Key("notes_pkey", ("user_id", "id")),))
OWNED = TableRules(NOTES, Path("f.toml"), owner="user_id")
TENANT = Tenant("team_id", Name("public", "members"))


def row(mark: str, user_id: str, body: str | None) -> Row:
    return Row(mark, {"user_id": user_id, "id": mark, "body": body})


def place(rules: TableRules | None = OWNED, **more: object) -> Place:
    made = {"key": ("user_id", "id"), "rows": (row("1", "a", "x"), row("2", "b", None))} | more
    return Place(TABLE, rules, ("user_id", "id", "body"), **made)  # type: ignore[arg-type]


def pair(**more: object) -> Pair:
    where = place(**more)
    return Pair(where, NOTES, where.rows[0], where.rows[1])


def statements(verb: str) -> list[tuple[str, str]]:
    return [(attempt.label, attempt.statement) for attempt in plan(pair()) if attempt.verb == verb]


def test_each_verb_is_tried_with_and_without_where_and_returning() -> None:
    assert statements("delete") == [
        ("every row", 'DELETE FROM "public"."notes"'),
        ("RETURNING", 'DELETE FROM "public"."notes" RETURNING "user_id"'),
        ("every row", 'DELETE FROM "public"."notes"'),
        ("RETURNING", 'DELETE FROM "public"."notes" RETURNING "user_id"'),
        ("a row of one's own", 'DELETE FROM "public"."notes"'),
        ("WHERE", """DELETE FROM "public"."notes" WHERE "user_id" = 'b' AND "id" = '2'"""),
        (
            "WHERE RETURNING",
            """DELETE FROM "public"."notes" WHERE "user_id" = 'b' AND "id" = '2' RETURNING "user_id\"""",
        ),
        ("WHERE", """DELETE FROM "public"."notes" WHERE "user_id" = 'b' AND "id" = '2'"""),
        (
            "WHERE RETURNING",
            """DELETE FROM "public"."notes" WHERE "user_id" = 'b' AND "id" = '2' RETURNING "user_id\"""",
        ),
    ]


def test_an_update_is_tried_that_reads_no_column() -> None:
    told = dict(statements("update"))
    assert told["every row"] == 'UPDATE "public"."notes" SET "body" = NULL'
    assert told["give one's row away (user_id)"].startswith("""UPDATE "public"."notes" SET "user_id" = 'b'""")
    assert told["take the row over (user_id)"].startswith("""UPDATE "public"."notes" SET "user_id" = 'a'""")


def test_an_insert_as_the_victim_takes_the_place_of_his_row() -> None:
    first = next(attempt for attempt in plan(pair()) if attempt.verb == "insert")
    assert first.statement == """INSERT INTO "public"."notes" ("user_id", "id", "body") VALUES ('b', '2', NULL)"""
    assert first.prepare == ("""DELETE FROM "public"."notes" WHERE "user_id" = 'b' AND "id" = '2'""",)
    guarded = next(attempt for attempt in plan(pair(guarded=True)) if attempt.verb == "insert")
    assert guarded.prepare[0] == "SET LOCAL session_replication_role = replica"
    assert guarded.prepare[-1] == "SET LOCAL session_replication_role = origin"


def test_without_a_key_a_row_is_told_by_its_place() -> None:
    tried = [attempt for attempt in plan(pair(key=())) if attempt.label == "by the victim's key"]
    assert [attempt.statement for attempt in tried] == [
        """SELECT pg_catalog.count(*) FROM "public"."notes" WHERE tableoid::text || ctid::text = '2'"""
    ]
    assert not [attempt for attempt in plan(pair(key=())) if attempt.verb == "merge"]


def test_nobody_owns_a_row_of_a_table_without_rules() -> None:
    where = place(None)
    tried = plan(Pair(where, NOTES, None, where.rows[0]))
    assert {attempt.verb for attempt in tried} == {"select", "insert", "update", "delete", "merge"}
    assert not [attempt for attempt in tried if attempt.own]


def test_controls_are_those_of_the_verbs_that_are_allowed() -> None:
    assert [attempt.verb for attempt in controls(pair(), ("select", "delete"))] == ["select", "delete"]


# --- actors ---


def settings(actor: Actor) -> Mapping[str, str]:
    return {setting.name: setting.value for setting in actor.settings if setting.local}


def test_intruders_claim_what_they_are_not() -> None:
    found = {actor.name: actor for actor in intruders(Auth(), "me", "you", {"plan": "staff"})}
    assert list(found) == [
        "anon", "forged user_metadata", "forged role claim", "no sub", "empty claims", "stale session", "malformed sub"
    ]  # fmt: skip
    forged = json.loads(settings(found["forged user_metadata"])["request.jwt.claims"])
    assert (forged["sub"], forged["user_metadata"]["plan"], forged["user_metadata"]["sub"]) == ("me", "staff", "you")
    assert json.loads(settings(found["forged role claim"])["request.jwt.claims"])["role"] == "service_role"
    assert found["anon"].role == "anon"
    stale = found["stale session"]
    assert [s.value for s in stale.settings if not s.local and s.name.endswith(".sub")] == ["you"]
    assert set(settings(stale).values()) == {""}
    assert {actor.name for actor in found.values() if actor.identity} == {"forged user_metadata", "forged role claim"}


def test_a_setting_may_say_who_somebody_is() -> None:
    auth = Auth("app.user_id", "app", "web")
    assert user(auth, "owner", "7").settings == (Setting("app.user_id", "7"),)
    found = {actor.name: actor for actor in intruders(auth, "7", "8", {})}
    assert found["stale session"].settings == (Setting("app.user_id", "8", local=False), Setting("app.user_id", ""))
    assert settings(found["forged role claim"])["app.role"] == "admin"
    assert found["no sub"].settings == ()
    assert found["anon"].role == "web"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(jwt() -> 'user_metadata') ->> 'plan' = 'staff'", {"plan": "staff"}),
        ("COALESCE(((jwt() -> 'user_metadata'::text) ->> 'plan'::text), ''::text) = 'staff'::text", {"plan": "staff"}),
        ("(((jwt() -> 'user_metadata'::text) ->> 'vip'::text))::boolean", {"vip": True}),
        ("'gold' = (jwt() ->> 'level')", {"level": "gold"}),
        ("user_id = auth.uid()", {}),
        (None, {}),
    ],
)
def test_what_a_predicate_looks_for_is_claimed(text: str | None, expected: Mapping[str, object]) -> None:
    assert marks_of([text]) == expected


# --- what is allowed ---

ME = user(Auth(), "me", "me")


def told(rules: TableRules | None, actor: Actor = ME, verb: Verb = "select") -> str:
    return allowed(rules, Auth(), actor, verb, snapshot(9)).as_string(None)


def test_the_owner_may_do_what_his_verbs_say() -> None:
    rules = TableRules(NOTES, Path("f"), owner="user_id", verbs=("select",))
    assert told(rules) == """(coalesce("notes"."user_id"::text = 'me', false))"""
    assert told(rules, verb="update") == "false"
    assert told(rules, Actor("owner of the table", "boss", (), "me")) == "false"
    assert told(rules, Actor("no sub", "authenticated", ())) == "false"


def test_nothing_is_allowed_where_a_table_is_closed_or_unknown() -> None:
    assert told(TableRules(NOTES, Path("f"), closed=True)) == "false"
    assert told(None) == "false"


def test_shared_rows_are_open_to_the_roles_named() -> None:
    rules = TableRules(NOTES, Path("f"), shared=(Shared("body = 'x'", to=("anon",)),))
    assert told(rules, Actor("anon", "anon", ())) == "(coalesce((body = 'x'), false))"
    assert told(rules, Actor("anon", "anon", ()), "update") == "false"
    assert told(rules) == "false"


@pytest.mark.parametrize(
    ("owner", "roles", "verb", "expected"),
    [
        (None, {}, "select", ()),  # all members
        (None, {"select": ()}, "select", ()),
        (None, {"update": ("editor",)}, "update", ("editor",)),
        ("user_id", {}, "select", None),  # the owner only
        ("user_id", {"select": ("viewer",)}, "select", ("viewer",)),
    ],
)
def test_which_members_may(
    owner: str | None, roles: dict[Verb, tuple[str, ...]], verb: Verb, expected: tuple[str, ...] | None
) -> None:
    rules = TableRules(NOTES, Path("f"), owner=owner, tenant=TENANT, roles=roles)
    assert roles_for(rules, verb) == expected
    assert may(rules, verb, "viewer", owns=False) == (expected is not None and expected in ((), ("viewer",)))
    assert may(rules, verb, "viewer", owns=owner is not None) == (owner is not None or expected in ((), ("viewer",)))


def test_an_owner_is_bound_to_his_tenants() -> None:
    rules = TableRules(NOTES, Path("f"), owner="user_id", tenant=TENANT, roles={"select": ("viewer",)})
    member = (
        """EXISTS (SELECT FROM "pg_temp"."dbops_rows_9" m WHERE m."user_id"::text = 'me' """
        """AND m."team_id" = "notes"."team_id\""""
    )
    assert told(rules) == (
        f"""(({member}) AND (coalesce("notes"."user_id"::text = 'me', false) OR """
        f"""{member} AND m."role"::text = ANY ('{{viewer}}')))))"""
    )


# --- scripts ---


def test_a_script_stands_on_its_own() -> None:
    actor = Actor("stale", "authenticated", (Setting("app.user_id", "it's", local=False), Setting("app.user_id", "")))
    shot = Shot(actor, Attempt("delete", "every row", "DELETE FROM t", prepare=("DELETE FROM u",)), "")
    assert script(shot) == (
        "BEGIN;\nDELETE FROM u;\nSELECT pg_catalog.set_config('app.user_id', 'it''s', false);\n"
        "SET LOCAL ROLE \"authenticated\";\nSELECT pg_catalog.set_config('app.user_id', '', true);\n"
        "DELETE FROM t;\nROLLBACK;\n"
    )


# --- mutants ---


@pytest.mark.parametrize(
    ("predicate", "parts"),
    [
        ("(a = b)", ["a = b"]),
        ("((a = b) AND (c = d))", ["(a = b)", "(c = d)"]),
        ("a and b AND c", ["a", "b", "c"]),
        ("(a AND b) OR c", ["(a AND b) OR c"]),
        ("a AND b OR c", ["a AND b OR c"]),
        ("(a AND b)", ["a", "b"]),
        ("x = ' and ' AND y", ["x = ' and '", "y"]),
        ("x = 'it''s and' AND y", ["x = 'it''s and'", "y"]),
        ("a between 1 and 2 and b", ["a between 1 and 2", "b"]),
        ("brand AND android", ["brand", "android"]),
        ('"and" AND b', ['"and"', "b"]),
        ("case when a and b then c end", ["case when a and b then c end"]),
        ("f(a, (b AND c))", ["f(a, (b AND c))"]),
    ],
)
def test_a_predicate_is_cut_at_its_top(predicate: str, parts: list[str]) -> None:
    assert conjuncts(predicate) == parts


def catalog(*policies: Policy, triggers: tuple[Trigger, ...] = ()) -> Catalog:
    roles = {"authenticated": Role("authenticated", False, False, frozenset())}
    return Catalog(180000, "d", "boss", {NOTES: TABLE}, policies=policies, triggers=triggers, roles=roles)


def policy(name: str, verb: str, permissive: bool = True, **predicates: str | None) -> Policy:
    using, check = predicates.get("using"), predicates.get("check")
    return Policy(NOTES, name, permissive, verb, ("authenticated",), using, check)  # type: ignore[arg-type]


def test_each_policy_is_weakened_in_each_way() -> None:
    found = mutants(
        Definitions(Auth(), {NOTES: OWNED}), catalog(policy("u", "update", using="(user_id = me())")), OWNED
    )
    assert {mutant.name.removeprefix("public.notes: "): mutant.statements for mutant in found} == {
        "u: dropped": ('DROP POLICY "u" ON "public"."notes"',),
        # what USING stood for as a check is written out: one thing changes at a time
        "u: USING true": ('ALTER POLICY "u" ON "public"."notes" USING (true) WITH CHECK ((user_id = me()))',),
        "u: USING of the wrong column": (
            'ALTER POLICY "u" ON "public"."notes" USING (("id" = me())) WITH CHECK ((user_id = me()))',
        ),
        "u: WITH CHECK true": ('ALTER POLICY "u" ON "public"."notes" WITH CHECK (true)',),
        "u: WITH CHECK of the wrong column": ('ALTER POLICY "u" ON "public"."notes" WITH CHECK (("id" = me()))',),
        "u: TO PUBLIC": ('ALTER POLICY "u" ON "public"."notes" TO PUBLIC',),
        "DISABLE": ('ALTER TABLE "public"."notes" DISABLE ROW LEVEL SECURITY',),
        "NO FORCE": ('ALTER TABLE "public"."notes" NO FORCE ROW LEVEL SECURITY',),
        "TRUNCATE granted": ('GRANT TRUNCATE ON "public"."notes" TO "authenticated"',),
    }


def test_a_restrictive_policy_is_dropped_and_made_permissive() -> None:
    floor = policy("floor", "all", permissive=False, using="a AND b")
    found = {
        m.name.removeprefix("public.notes: "): m
        for m in mutants(Definitions(Auth(), {NOTES: OWNED}), catalog(floor), OWNED)
    }
    assert found["floor: made permissive"].statements == (
        'DROP POLICY "floor" ON "public"."notes"',
        'CREATE POLICY "floor" ON "public"."notes" AS PERMISSIVE FOR ALL TO "authenticated" USING (a AND b)',
    )
    assert found["floor: USING with OR instead of AND"].statements == (
        'ALTER POLICY "floor" ON "public"."notes" USING ((a) OR (b)) WITH CHECK (a AND b)',
    )


def test_services_are_trusted() -> None:
    rules = TableRules(NOTES, Path("f"), owner="user_id", service=("worker",))
    worker = Policy(NOTES, "w", True, "all", ("worker",), "true", "true")
    found = mutants(Definitions(Auth(), {NOTES: rules}), catalog(worker), rules)
    assert [mutant.name for mutant in found if "w:" in mutant.name.split()] == []


def test_a_trigger_is_dropped_beside_an_open_check() -> None:
    guard = Trigger(NOTES, "dbops_immutable", "create trigger …")
    made = catalog(policy("u", "update", using="user_id = me()"), triggers=(guard,))
    found = mutants(Definitions(Auth(), {NOTES: OWNED}), made, OWNED)
    dropped = next(mutant for mutant in found if "trigger" in mutant.name)
    assert dropped.statements == ('DROP TRIGGER "dbops_immutable" ON "public"."notes"',)
    assert dropped.companions[0].statements == ('ALTER POLICY "u" ON "public"."notes" WITH CHECK (true)',)


# --- the ways in which a predicate is true ---


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        ("true", [()]),
        ("false", []),
        ("((a = 1) AND ((b = 2) OR (c = 3)))", [("a = 1", "b = 2"), ("a = 1", "c = 3")]),
        ("(NOT ((a = 1) OR b))", [("NOT (a = 1)", "NOT (b)")]),
        ("(NOT ((a = 1) AND (NOT b)))", [("NOT (a = 1)",), ("b",)]),
        ("COALESCE((a = 1), false)", [("a = 1",)]),
        ("COALESCE((a = 1), b)", [("a = 1",), ("((a = 1)) IS NULL", "b")]),
        ("((a = 1) IS TRUE)", [("a = 1",)]),
        ("CASE WHEN (a = 1) THEN true ELSE b END", [("a = 1",), ("((a = 1)) IS NOT TRUE", "b")]),
        ("(CASE WHEN a THEN b ELSE c END = d)", [("CASE WHEN a THEN b ELSE c END = d",)]),
        ("(a BETWEEN 1 AND 2) AND b", [("a BETWEEN 1 AND 2", "b")]),
        ("(a = ' OR '::text) OR b", [("a = ' OR '::text",), ("b",)]),
        ("((a = 'x'::text) AND (a = 'y'::text))", []),  # cannot be
        ("(b AND (NOT b))", []),
        ("(EXISTS ( SELECT 1 FROM s WHERE (s.x OR s.y)))", [("EXISTS ( SELECT 1 FROM s WHERE (s.x OR s.y))",)]),
    ],
)
def test_a_predicate_is_cut_into_the_ways_it_is_true(predicate: str, expected: list[tuple[str, ...]]) -> None:
    assert [way.parts for way in ways_of(predicate, "notes", "abcd", ()) if not way.impossible] == expected


def test_what_a_row_decides_is_told_from_what_a_session_does() -> None:
    text = "((body = 'user_id'::text) AND (user_id = auth.uid()) AND public.f(notes.id) AND (EXISTS ( SELECT m.body FROM m)))"
    (way,) = ways_of(text, "notes", ("user_id", "id", "body"), ("user_id",))
    assert way.loose == ("body = 'user_id'::text", "public.f(notes.id)")
    assert (way.values, way.opaque) == (("body = 'user_id'::text",), ("public.f(notes.id)",))
    assert way.columns == ("id", "body") or way.columns == ("body", "id")


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("body = 'auth.uid()'::text", False),
        ("user_id = auth.uid()", True),
        ("lower(body) = 'x'::text", False),
        ("CURRENT_USER = 'x'::name", True),
        ("body = current_setting('a.b'::text)", True),
        ('public."My F"(body)', True),
    ],
)
def test_who_asks_has_a_say_or_not(part: str, expected: bool) -> None:
    assert asks_session(part) is expected


def test_a_predicate_may_have_too_many_ways() -> None:
    with pytest.raises(TooMany, match=str(MOST)):
        ways_of(" AND ".join(f"((a = {n}) OR (b = {n}))" for n in range(9)), "notes", "ab", ())
