"""The memory schema's own policies: nothing is left out, and they do what they say."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from dbops.policy.catalog import load_catalog
from dbops.policy.compile import compile_definitions
from dbops.policy.model import Definitions, Name
from dbops.policy.read import read_definitions
from dbops.policy.state import Catalog
from dbops.sql import shipped

Conn = psycopg.Connection[Any]
# closed by migrate itself: row level security, and no grants
NOT_OURS = {Name("public", "schema_migrations")}


@pytest.fixture(scope="module")
def definitions() -> Definitions:
    return read_definitions(shipped("policies"))


def without_definition(definitions: Definitions, catalog: Catalog) -> set[Name]:
    """The tables of the schema public that nobody has said anything about."""
    tables = {name for name, table in catalog.tables.items() if name.schema == "public" and not table.partition_of}
    return tables - set(definitions.tables) - NOT_OURS


def test_every_table_has_a_definition(db: Conn, definitions: Definitions) -> None:
    catalog = load_catalog(db)
    assert len(definitions.tables) == 16
    assert without_definition(definitions, catalog) == set()
    db.execute("create table public.one_more (user_id uuid not null)")
    assert without_definition(definitions, load_catalog(db)) == {Name("public", "one_more")}


def test_a_table_with_a_user_is_the_users(db: Conn, definitions: Definitions) -> None:
    catalog = load_catalog(db)
    with_user = {name for name, table in catalog.tables.items() if name.schema == "public" and table.column("user_id")}
    assert {rules.name for rules in definitions.tables.values() if rules.owner == "user_id"} == with_user
    # where users may change rows, a row never changes its user
    written = {name for name in with_user if "update" in definitions.tables[name].verbs}
    read_only = {name for name in with_user if definitions.tables[name].verbs == ("select",)}
    assert read_only == {Name("public", "user_quotas"), Name("public", "memory_tokens")}
    assert with_user - written - read_only == {Name("public", "hygiene_batches"), Name("public", "hygiene_changes")}
    assert all(definitions.tables[name].immutable == ("user_id",) for name in written)


def test_what_migrate_keeps_is_closed(db: Conn) -> None:
    table = load_catalog(db).tables[Name("public", "schema_migrations")]
    assert table.rls
    assert set(table.grants) & {"anon", "authenticated", "public"} == set()


def test_nothing_is_left_to_propose_and_nothing_to_say(db: Conn, definitions: Definitions) -> None:
    wanted = compile_definitions(definitions, load_catalog(db))
    assert (wanted.proposals, wanted.notes, wanted.invoker_views) == ((), (), ())


def test_the_migrations_grant_what_the_rules_need(db: Conn, definitions: Definitions) -> None:
    catalog = load_catalog(db)
    for name, table in compile_definitions(definitions, catalog).tables.items():
        found = catalog.tables[name].grants
        assert {role: found.get(role, frozenset()) for role in table.grants} == dict(table.grants), name
        assert not any(found.get(role, frozenset()) & taken for role, taken in table.revokes.items()), name
