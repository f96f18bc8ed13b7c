"""What the memory schema promises: constraints, business rules, row level security, and a down that leaves nothing behind."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

MIGRATIONS = sorted((Path(__file__).parents[2] / "migrations" / "sql").glob("*.sql"))
MARK = re.compile(rb"^-- migrate:(?:up|down)(.*)\n", re.MULTILINE)
USERS = uuid.uuid5(uuid.NAMESPACE_URL, "dbops:user")

Connection = psycopg.Connection[Any]


# making rows ------------------------------------------------------------------------------------------------------


def user(db: Connection) -> uuid.UUID:
    return insert(db, "auth.users", "id")


def memory(db: Connection, user_id: uuid.UUID, **values: Any) -> uuid.UUID:
    return insert(
        db, "public.user_memories", "id", user_id=user_id, **({"fact": "likes tea", "memory_type": "fact"} | values)
    )


def loser(db: Connection, user_id: uuid.UUID, survivor: uuid.UUID, score: float, **values: Any) -> uuid.UUID:
    return memory(db, user_id, duplicate_of=survivor, is_active=False, importance_score=score, **values)


def insert(db: Connection, table: str, returning: str, **values: Any) -> Any:
    statement = sql.SQL("insert into {} ({}) values ({}) returning {}").format(
        sql.Identifier(*table.split(".")), sql.SQL(", ").join(map(sql.Identifier, values)),
        sql.SQL(", ").join(map(sql.Placeholder, values)), sql.Identifier(returning),
    ) if values else sql.SQL("insert into {} default values returning {}").format(
        sql.Identifier(*table.split(".")), sql.Identifier(returning)
    )  # fmt: skip
    return one(db, statement, values)


def one(db: Connection, query: Any, params: Any = None) -> Any:
    """The first value of the first row."""
    row = db.execute(query, params).fetchone()
    return row[0] if row else None


def marks(db: Connection, user_id: uuid.UUID) -> dict[uuid.UUID, tuple[bool, uuid.UUID | None]]:
    """Each of the user's memories: is it active, and whose duplicate is it?"""
    rows = db.execute("select id, is_active, duplicate_of from public.user_memories where user_id = %s", (user_id,))
    return {row[0]: (row[1], row[2]) for row in rows}


def delete(db: Connection, user_id: uuid.UUID, *ids: uuid.UUID) -> None:
    db.execute("delete from public.user_memories where user_id = %s and id = any(%s)", (user_id, list(ids)))


# constraints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "constraint"),
    [
        ({"memory_type": "rumour"}, "user_memories_memory_type_known"),
        ({"fact": ""}, "user_memories_fact_not_empty"),
        ({"fact": "word " * 20001}, "user_memories_fact_not_too_long"),
        ({"importance": 0}, "user_memories_importance_range"),
        ({"importance": 6}, "user_memories_importance_range"),
        ({"importance_score": 1.01}, "user_memories_importance_score_range"),
        ({"importance_score": float("nan")}, "user_memories_importance_score_range"),
        ({"confidence_score": -0.01}, "user_memories_confidence_score_range"),
        ({"version": 0}, "user_memories_version_positive"),
        ({"metadata": "[]"}, "user_memories_metadata_is_object"),
    ],
)
def test_a_memory_out_of_range_is_refused_by_name(db: Connection, values: dict[str, Any], constraint: str) -> None:
    with pytest.raises(errors.CheckViolation) as caught:
        memory(db, user(db), **values)
    assert caught.value.diag.constraint_name == constraint


@pytest.mark.parametrize("column", ["user_id", "fact", "memory_type", "is_active", "version"])
def test_required_fields_of_a_memory(db: Connection, column: str) -> None:
    owner = user(db)
    with pytest.raises(errors.NotNullViolation) as caught:
        memory(db, **({"user_id": owner} | {column: None}))
    assert caught.value.diag.column_name == column


def test_the_longest_fact_fits_the_text_search(db: Connection) -> None:
    assert memory(db, user(db), fact="".join(chr(0x4E00 + n % 20000) + " " * (n % 3 == 0) for n in range(75000)))


def test_a_row_needs_its_user(db: Connection) -> None:
    for table in ("conversations", "chats", "user_profiles", "user_quotas", "user_statistics"):
        with pytest.raises(errors.ForeignKeyViolation):
            insert(db, f"public.{table}", "user_id", user_id=uuid.uuid4())


def test_no_row_refers_to_another_users_row(db: Connection) -> None:
    mine, theirs = user(db), user(db)
    conversation = insert(db, "public.conversations", "id", user_id=theirs)
    chat = insert(db, "public.chats", "id", user_id=theirs)
    for table, values in (
        ("user_memories", {"duplicate_of": memory(db, theirs), "is_active": False, "fact": "a", "memory_type": "fact"}),
        ("user_memories", {"source_conversation_id": conversation, "fact": "a", "memory_type": "fact"}),
        ("memory_usage", {"memory_id": memory(db, theirs)}),
        ("chats", {"conversation_id": conversation}),
        ("messages", {"chat_id": chat, "user_message": "a", "assistant_message": "b"}),
        ("chat_summaries", {"chat_id": chat, "summary": "a"}),
    ):
        with pytest.raises(errors.ForeignKeyViolation):
            insert(db, f"public.{table}", "user_id", user_id=mine, **values)


def test_an_embedding_matches_its_model_and_dimensions(db: Connection) -> None:
    owner = user(db)
    row = {"user_id": owner, "memory_id": memory(db, owner), "model": "small"}
    insert(db, "public.embedding_models", "model", model="small", dimensions=3)

    for values, error, constraint in (
        ({"dimensions": 3, "embedding": "[1,2]"}, errors.CheckViolation, "memory_embeddings_dimensions_match"),
        ({"dimensions": 2, "embedding": "[1,2]"}, errors.ForeignKeyViolation, "memory_embeddings_model"),
        (
            {"dimensions": 3, "embedding": "[1,2,3]", "model": "other"},
            errors.ForeignKeyViolation,
            "memory_embeddings_model",
        ),
    ):
        with pytest.raises(error) as caught:
            insert(db, "public.memory_embeddings", "model", **(row | values))
        assert caught.value.diag.constraint_name == constraint

    assert insert(db, "public.memory_embeddings", "model", **row, dimensions=3, embedding="[1,2,3]") == "small"
    with pytest.raises(errors.UniqueViolation):
        insert(db, "public.embedding_models", "model", model="small", dimensions=4)


def test_deleting_a_user_deletes_all_that_is_his_and_nothing_else(db: Connection) -> None:
    mine, theirs = full_user(db), full_user(db)
    counts = {table: rows(db, table, mine) for table in owned_tables(db)}
    assert all(counts.values()), counts

    db.execute("delete from auth.users where id = %s", (mine,))
    assert {rows(db, table, mine) for table in owned_tables(db)} == {0}
    assert {table: rows(db, table, theirs) for table in owned_tables(db)} == counts


def full_user(db: Connection) -> uuid.UUID:
    """A user with at least one row in each table."""
    owner = user(db)
    conversation = insert(db, "public.conversations", "id", user_id=owner)
    survivor = memory(db, owner, source_conversation_id=conversation)
    loser(db, owner, survivor, 0.1)
    loser(db, owner, survivor, 0.2)
    db.execute("select public.mark_memory_duplicate(%s, %s, %s)", (owner, memory(db, owner), survivor))
    chat = insert(db, "public.chats", "id", user_id=owner, conversation_id=conversation)
    vector = {"user_id": owner, "model": "all-MiniLM-L6-v2", "dimensions": 384, "embedding": str([0.5] * 384)}
    for table, values in (
        ("memory_usage", {"memory_id": survivor}),
        ("memory_embeddings", vector | {"memory_id": survivor}),
        ("messages", {"chat_id": chat, "user_message": "a", "assistant_message": "b"}),
        ("chat_summaries", {"chat_id": chat, "summary": "a"}),
        ("summary_embeddings", vector | {"chat_id": chat}),
        ("memory_blobs", {"key": "a", "sha256": bytes(32), "size_bytes": 1, "stored_bytes": 1}),
        ("user_profiles", {}), ("user_quotas", {}), ("user_statistics", {}),
    ):  # fmt: skip
        insert(db, f"public.{table}", "user_id", **({"user_id": owner} | values))
    return owner


def owned_tables(db: Connection) -> list[str]:
    return [
        row[0]
        for row in db.execute(
            "select a.attrelid::regclass::text from pg_attribute a join pg_class c on c.oid = a.attrelid"
            " where a.attname = 'user_id' and c.relkind in ('r', 'p') and c.relnamespace = 'public'::regnamespace order by 1"
        )
    ]


def rows(db: Connection, table: str, owner: uuid.UUID) -> int:
    return int(one(db, f"select count(*) from {table} where user_id = %s", (owner,)))


# business rules ---------------------------------------------------------------------------------------------------


def test_an_active_memory_is_no_duplicate(db: Connection) -> None:
    owner = user(db)
    survivor = memory(db, owner)
    with pytest.raises(errors.CheckViolation, match="user_memories_duplicate_is_inactive"):
        memory(db, owner, duplicate_of=survivor)
    lost = loser(db, owner, survivor, 0.5)
    with pytest.raises(errors.CheckViolation, match="user_memories_duplicate_is_inactive"):
        db.execute("update public.user_memories set is_active = true where id = %s", (lost,))
    with pytest.raises(errors.CheckViolation, match="user_memories_duplicate_of_another"):
        db.execute("update public.user_memories set is_active = false, duplicate_of = id where id = %s", (survivor,))


def test_the_best_loser_takes_the_place_of_a_deleted_survivor(db: Connection) -> None:
    owner = user(db)
    survivor, bystander = memory(db, owner), memory(db, owner)
    low, best, middle = (loser(db, owner, survivor, score) for score in (0.1, 0.9, 0.5))
    other = loser(db, owner, bystander, 1.0)

    delete(db, owner, survivor)
    assert marks(db, owner) == {
        best: (True, None), low: (False, best), middle: (False, best), bystander: (True, None), other: (False, bystander),
    }  # fmt: skip
    delete(db, owner, best)
    assert marks(db, owner)[middle] == (True, None)
    assert marks(db, owner)[low] == (False, middle)


def test_among_equals_the_more_certain_then_the_older_is_promoted(db: Connection) -> None:
    owner = user(db)
    survivor = memory(db, owner)
    older, newer = (
        loser(db, owner, survivor, 0.5, created_at=f"2025-01-0{day}", confidence_score=0.9) for day in (1, 2)
    )
    loser(db, owner, survivor, 0.5, created_at="2024-01-01", confidence_score=0.8)
    delete(db, owner, survivor)
    assert marks(db, owner)[older] == (True, None)
    assert marks(db, owner)[newer] == (False, older)


def test_survivors_and_losers_deleted_together(db: Connection) -> None:
    owner = user(db)
    clusters = []
    for _ in range(3):
        survivor = memory(db, owner)
        clusters.append([survivor, *(loser(db, owner, survivor, score) for score in (0.9, 0.5, 0.1))])
    delete(db, owner, *(member for cluster in clusters for member in cluster[:2]))
    assert marks(db, owner) == {
        member: (True, None) if member == cluster[2] else (False, cluster[2])
        for cluster in clusters
        for member in cluster[2:]
    }


def test_a_loser_that_loses_its_mark_is_active(db: Connection) -> None:
    owner = user(db)
    survivor = memory(db, owner)
    for score in (0.1, 0.9):
        loser(db, owner, survivor, score)
    db.execute("update public.user_memories set duplicate_of = null where duplicate_of = %s", (survivor,))
    assert set(marks(db, owner).values()) == {(True, None)}


def test_a_large_cluster_is_handed_on_in_time(db: Connection) -> None:
    """Each of 5,000 losers looks for the heir: a search without an index would take minutes."""
    owner = user(db)
    survivor = memory(db, owner)
    db.execute(
        "insert into public.user_memories (user_id, fact, memory_type, is_active, duplicate_of, importance_score)"
        " select %s, 'loser ' || n, 'fact', false, %s, n / 5000.0 from generate_series(1, 5000) n",
        (owner, survivor),
    )
    db.execute("set statement_timeout = '10s'")
    delete(db, owner, survivor)
    assert sorted(active for active, _ in marks(db, owner).values()) == [False] * 4999 + [True]
    assert one(db, "select importance_score from public.user_memories where is_active") == 1.0


def test_versions_only_increment(db: Connection) -> None:
    owner = user(db)
    it = memory(db, owner)

    def update(assignment: str) -> int:
        return int(one(db, f"update public.user_memories set {assignment} where id = %s returning version", (it,)))

    assert update("importance_score = 0.9") == 1
    assert update("fact = 'likes coffee'") == 2
    assert update("fact = 'likes water', version = version + 1") == 3
    assert update("version = 7") == 7
    with pytest.raises(errors.CheckViolation) as caught:
        update("version = 6")
    assert caught.value.diag.constraint_name == "user_memories_version_increments"


def test_updated_at_follows_unless_it_is_set(db: Connection) -> None:
    owner = user(db)
    it = memory(db, owner, updated_at="2020-01-01")
    change = "update public.user_memories set importance = 4 {} where id = %s returning updated_at > '2021-01-01'"
    assert one(db, change.format(", updated_at = '2020-06-01'"), (it,)) is False
    assert one(db, change.format(""), (it,)) is True


def test_messages_of_one_transaction_keep_their_order(db: Connection) -> None:
    owner = user(db)
    chat = insert(db, "public.chats", "id", user_id=owner)
    with db.transaction():
        ids = [
            insert(db, "public.messages", "id", user_id=owner, chat_id=chat, user_message=str(n), assistant_message="")
            for n in range(5)
        ]
    assert ids == [row[0] for row in db.execute("select id from public.messages order by created_at")]


def test_a_users_id_from_elsewhere_has_the_uuid_that_python_gives_it(db: Connection) -> None:
    names = [
        "",
        "auth0|5f7c",
        "user@example.com",
        "a\nb",
        "日本語",
        "😀" * 40,
        "{" + str(USERS) + "}",
        str(USERS) + " ",
    ]
    names += ["x" * length for length in range(130)]  # every way to fill a block of SHA-1
    found = db.execute(
        "select public.user_uuid(name) from unnest(%s::text[]) with ordinality n(name, i) order by i", (names,)
    )
    assert [row[0] for row in found] == [uuid.uuid5(USERS, name) for name in names]
    assert one(db, "select public.user_uuid(%s)", (str(USERS).upper(),)) == USERS
    assert one(db, "select public.user_uuid(null)") is None


# what the catalog must show ---------------------------------------------------------------------------------------

UNFORCED = """
select c.oid::regclass::text
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attname = 'user_id' and not a.attisdropped
where c.relkind in ('r', 'p') and c.relnamespace = 'public'::regnamespace
  and not (c.relrowsecurity and c.relforcerowsecurity)
"""


def test_row_level_security_is_on_and_forced_on_every_users_table(db: Connection) -> None:
    assert len(owned_tables(db)) == 15
    assert db.execute(UNFORCED).fetchall() == []
    db.execute("create table public.forgotten (user_id uuid)")
    assert db.execute(UNFORCED).fetchall() == [("forgotten",)], "this very test must see a table that was forgotten"


def test_every_key_of_a_users_table_begins_with_the_user(db: Connection) -> None:
    stray = db.execute(
        """
        select conrelid::regclass::text, conname from pg_constraint
        where conrelid::regclass::text = any(%s)
          and case contype
                when 'p' then (select attname from pg_attribute where (attrelid, attnum) = (conrelid, conkey[1])) <> 'user_id'
                when 'u' then (select attname from pg_attribute where (attrelid, attnum) = (conrelid, conkey[1])) <> 'user_id'
                when 'f' then confrelid::regclass::text <> 'embedding_models'
                  and (select attname from pg_attribute where (attrelid, attnum) = (conrelid, conkey[1])) <> 'user_id'
              end
        """,
        (owned_tables(db),),
    ).fetchall()
    assert stray == []


def test_grants_are_the_least_that_work(db: Connection) -> None:
    def granted(role: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for table, privilege in db.execute(
            "select c.relname, a.privilege_type from pg_class c, aclexplode(c.relacl) a"
            " where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'"
            " and a.grantee = case %s when 'public' then 0 else to_regrole(%s)::oid end",
            (role, role),
        ):
            found.setdefault(table, set()).add(privilege)
        return found

    rows_only = {"SELECT", "INSERT", "UPDATE", "DELETE"}
    tables = [*owned_tables(db), "embedding_models"]
    less = {table: {"SELECT"} for table in ("user_quotas", "embedding_models", "memory_tokens")}
    less |= {"hygiene_batches": {"SELECT"}, "hygiene_changes": {"SELECT", "INSERT"}}
    assert granted("public") == granted("anon") == {}
    assert granted("authenticated") == {table: less.get(table, rows_only) for table in tables}
    assert granted("service_role") == dict.fromkeys(tables, rows_only)


def test_no_function_depends_on_the_search_path(db: Connection) -> None:
    loose = db.execute(
        "select p.oid::regprocedure::text from pg_proc p"
        " where p.pronamespace in ('public'::regnamespace, 'auth'::regnamespace)"
        " and p.prosqlbody is null and array_position(p.proconfig, 'search_path=\"\"') is null"
        " and not exists (select from pg_depend where objid = p.oid and deptype = 'e')"
    ).fetchall()
    assert loose == []


# who may do what --------------------------------------------------------------------------------------------------


def claim(db: Connection, owner: uuid.UUID) -> None:
    """In a transaction: become that user, as the runtime does."""
    db.execute("set local role authenticated")
    db.execute("select set_config('request.jwt.claim.sub', %s, true)", (str(owner),))


def own_rows_only(db: Connection) -> None:
    """Policies like those that come with policies/."""
    for table in owned_tables(db):
        db.execute(f"create policy own on {table} to authenticated using (user_id = (select auth.uid()))")


def test_without_a_policy_a_user_sees_and_writes_nothing(db: Connection) -> None:
    owner = full_user(db)
    with db.transaction():
        claim(db, owner)
        assert {rows(db, table, owner) for table in owned_tables(db)} == {0}
        with pytest.raises(errors.InsufficientPrivilege), db.transaction():
            memory(db, owner)

    with db.transaction():
        db.execute("set local role anon")
        for table in owned_tables(db):
            with pytest.raises(errors.InsufficientPrivilege), db.transaction():
                db.execute(f"select from {table}")


def hands_on(db: Connection) -> None:
    """As whom the session is: delete a survivor and see its place taken."""
    owner = one(db, "select auth.uid()")
    survivor = memory(db, owner)
    low, best = loser(db, owner, survivor, 0.1), loser(db, owner, survivor, 0.9)
    delete(db, owner, survivor)
    assert marks(db, owner) == {best: (True, None), low: (False, best)}
    delete(db, owner, low, best)


@pytest.mark.parametrize("role", ["authenticated", "service_role"])
def test_promotion_works_for_each_role(db: Connection, role: str) -> None:
    owner = user(db)
    own_rows_only(db)
    with db.transaction():
        claim(db, owner)
        db.execute(f"set local role {role}")
        hands_on(db)


def test_promotion_works_for_a_user_who_may_not_update(db: Connection) -> None:
    owner = user(db)
    for verb, part in (("select", "using"), ("insert", "with check"), ("delete", "using")):
        db.execute(
            f"create policy own_{verb} on public.user_memories for {verb} to authenticated {part} (user_id = auth.uid())"
        )
    with db.transaction():
        claim(db, owner)
        hands_on(db)


def test_claims_are_read_as_supabase_reads_them(empty_db: Connection) -> None:
    apply(empty_db, MIGRATIONS[0])
    who = "select auth.uid()::text, auth.role(), auth.jwt() ->> 'aud'"
    for setting, value, expected in (
        ("request.jwt.claims", "", (None, None, None)),
        (
            "request.jwt.claims",
            f'{{"sub": "{USERS}", "role": "authenticated", "aud": "x"}}',
            (str(USERS), "authenticated", "x"),
        ),
        ("request.jwt.claim.sub", str(USERS), (str(USERS), None, None)),
        ("request.jwt.claim.role", "anon", (None, "anon", None)),
    ):
        with empty_db.transaction():
            empty_db.execute("set local role anon")
            empty_db.execute("select set_config(%s, %s, true)", (setting, value))
            assert empty_db.execute(who).fetchone() == expected
    empty_db.execute("set role authenticated")
    with pytest.raises(errors.InsufficientPrivilege):
        empty_db.execute("select from auth.users")


@pytest.fixture
def plain_owner(empty_db: Connection) -> Iterator[str]:
    """A role with no special right that owns the schema; it belongs to no API role. The session stays the superuser's."""
    apply(empty_db, MIGRATIONS[0])  # what is left after the down part: the roles
    reverse(empty_db, MIGRATIONS[0])
    empty_db.execute("create extension vector")  # the embedded server's is no trusted extension
    role = f"owner_{uuid.uuid4().hex[:8]}"
    empty_db.execute(f"create role {role} nosuperuser nobypassrls")
    empty_db.execute(f"grant create on schema public to {role}")
    empty_db.execute(f"do $$ begin execute format('grant create on database %I to {role}', current_database()); end $$")
    empty_db.execute(f"set role {role}")
    for path in MIGRATIONS:
        apply(empty_db, path)
    yield role
    empty_db.execute("reset role")
    empty_db.execute(f"drop owned by {role} cascade")
    empty_db.execute(f"drop role {role}")


def test_a_plain_owner_is_bound_by_row_level_security_and_the_rules_hold_all_the_same(
    empty_db: Connection, plain_owner: str
) -> None:
    db = empty_db
    own_rows_only(db)
    gone, kept = user(db), user(db)
    with db.transaction():
        claim(db, kept)
        hands_on(db)
        memory(db, kept)
    with db.transaction():
        claim(db, gone)
        conversation = insert(db, "public.conversations", "id", user_id=gone)
        survivor = memory(db, gone, source_conversation_id=conversation)
        loser(db, gone, survivor, 0.5, source_conversation_id=conversation)

    with db.transaction():
        claim(db, kept)
        db.execute("delete from public.user_memories")
        memory(db, kept)  # its word set is written by the owner, who reads memories in triggers
        assert rows(db, "public.memory_tokens", kept) == 1

    assert rows(db, "public.user_memories", gone) == 0, "forced: its owner sees nothing"
    with pytest.raises(errors.InsufficientPrivilege):
        memory(db, gone)
    db.execute("delete from auth.users where id = %s", (gone,))

    db.execute("reset role")
    assert {rows(db, table, gone) for table in owned_tables(db)} == {0}
    assert rows(db, "public.user_memories", kept) == 1


def test_a_plain_owner_can_reverse_what_he_applied(empty_db: Connection, plain_owner: str) -> None:
    for path in reversed(MIGRATIONS):
        reverse(empty_db, path)
    assert owned_tables(empty_db) == []
    assert one(empty_db, "select count(*) from pg_extension where extname = 'vector'") == 1


# up and down ------------------------------------------------------------------------------------------------------


def apply(db: Connection, path: Path) -> None:
    run(db, *MARK.split(path.read_bytes())[1:3])


def reverse(db: Connection, path: Path) -> None:
    run(db, *MARK.split(path.read_bytes())[3:5])


def run(db: Connection, options: bytes, text: bytes) -> None:
    """In one transaction, or each paragraph in its own where the file says so."""
    for step in text.split(b";\n\n") if options else [text]:
        db.execute(step)


def objects(db: Connection) -> set[tuple[Any, ...]]:
    """All that lies in the database, with the transaction that wrote it last: any touch shows."""
    return set(
        db.execute(
            """
            select 'schema', nspname::text, xmin::text, nspacl::text from pg_namespace where nspname !~ '^pg_(toast_)?temp'
            union all select 'relation', oid::regclass::text, xmin::text, relacl::text from pg_class
              where relnamespace <> 'pg_toast'::regnamespace
            union all select 'function', oid::regprocedure::text, xmin::text, proacl::text from pg_proc
            union all select 'type', oid::regtype::text, xmin::text, typacl::text from pg_type
            union all select 'extension', extname::text, xmin::text, null from pg_extension
            union all select 'policy', polname::text, xmin::text, null from pg_policy
            union all select 'trigger', tgname::text, xmin::text, null from pg_trigger
            union all select 'comment', description, xmin::text, null from pg_description
            """
        )
    )


def test_each_down_leaves_nothing_behind(empty_db: Connection) -> None:
    for path in MIGRATIONS:
        before = objects(empty_db)
        apply(empty_db, path)
        assert objects(empty_db) != before
        reverse(empty_db, path)
        # a foreign key that came and went may leave its mark on pg_class: what it referred to is the same all the same
        assert {row[:2] for row in objects(empty_db)} == {row[:2] for row in before}
        apply(empty_db, path)
    for path in reversed(MIGRATIONS):
        reverse(empty_db, path)
    assert one(empty_db, "select count(*) from pg_namespace where nspname = 'auth'") == 0


def test_a_vector_extension_that_others_use_stays(empty_db: Connection) -> None:
    for path in MIGRATIONS[:3]:
        apply(empty_db, path)
    empty_db.execute("create table public.others (v public.vector)")
    reverse(empty_db, MIGRATIONS[2])
    empty_db.execute("insert into public.others values ('[1,2]')")


def test_without_vector_all_but_the_embeddings_applies(empty_db: Connection) -> None:
    needing = [path for path in MIGRATIONS if b"migrate:requires" in path.read_bytes()]
    assert len(needing) == 2
    for path in MIGRATIONS:
        if path not in needing:
            apply(empty_db, path)
    assert one(empty_db, "select count(*) from pg_extension where extname = 'vector'") == 0
    for path in needing:
        apply(empty_db, path)
    assert len(owned_tables(empty_db)) == 15


SUPABASE = """
create schema extensions;
create schema auth;
create table auth.users (
  instance_id uuid, id uuid primary key, aud varchar(255), role varchar(255), email varchar(255) unique,
  encrypted_password varchar(255)
);
alter table auth.users enable row level security;
create function auth.uid() returns uuid language sql stable as $$ select '00000000-0000-0000-0000-000000000001'::uuid $$;
create function auth.role() returns text language sql stable as $$ select 'theirs' $$;
create function auth.jwt() returns jsonb language sql stable as $$ select '{"theirs": true}'::jsonb $$;
comment on table auth.users is 'Auth: Stores user login data within a secure schema.';
"""


def test_supabases_own_auth_is_left_untouched(empty_db: Connection) -> None:
    empty_db.execute(SUPABASE)
    before = objects(empty_db)
    apply(empty_db, MIGRATIONS[0])
    assert objects(empty_db) == before
    reverse(empty_db, MIGRATIONS[0])
    assert objects(empty_db) == before


def test_the_schema_works_on_supabase(empty_db: Connection) -> None:
    empty_db.execute(SUPABASE)
    for path in MIGRATIONS:
        apply(empty_db, path)
    assert (
        one(empty_db, "select extnamespace::regnamespace::text from pg_extension where extname = 'vector'")
        == "extensions"
    )
    owner = insert(empty_db, "auth.users", "id", id=uuid.uuid4())
    vector = {"model": "all-MiniLM-L6-v2", "dimensions": 384, "embedding": str([0.5] * 384)}
    insert(empty_db, "public.memory_embeddings", "model", user_id=owner, memory_id=memory(empty_db, owner), **vector)
    distance = one(
        empty_db, "select public.embedding_distance(embedding, %(embedding)s) from public.memory_embeddings", vector
    )
    assert distance == pytest.approx(0)

    for path in reversed(MIGRATIONS):
        reverse(empty_db, path)
    assert one(empty_db, "select count(*) from auth.users") == 1
    assert one(empty_db, "select auth.role()") == "theirs"


def test_what_is_missing_of_auth_is_added_and_only_that_is_dropped(empty_db: Connection) -> None:
    empty_db.execute("create schema auth; create table auth.users (id uuid primary key)")
    apply(empty_db, MIGRATIONS[0])
    assert one(empty_db, "select auth.uid()") is None
    reverse(empty_db, MIGRATIONS[0])
    assert one(empty_db, "select to_regprocedure('auth.uid()')") is None
    assert one(empty_db, "select to_regclass('auth.users')::text") == "auth.users"
