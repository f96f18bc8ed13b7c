"""Rights on columns, and the helpers that others got hold of: what stands, and what is mended or refused."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from dbops.config import Settings
from dbops.errors import NotAllowed
from dbops.policy import PolicyManager

Db = psycopg.Connection[Any]
TAG = uuid.uuid4().hex[:8]
USER, ANON = f"user_{TAG}", f"anon_{TAG}"
SCHEMA = """
create table members (user_id uuid, tenant_id int, role text);
create table documents (id int primary key, tenant_id int, owner_id uuid, title text);
"""
TOML = f"""
version = 1
auth = "guc:app.sub"
user_role = "{USER}"
anon_role = "{ANON}"
[table."public.documents"]
owner = "owner_id"
immutable = ["owner_id"]
tenant = {{ column = "tenant_id", members = "public.members" }}
roles = {{ select = ["viewer"] }}
"""


@pytest.fixture
def there(empty_db: Db) -> Iterator[Db]:
    roles = [sql.Identifier(role) for role in (USER, ANON)]
    for role in roles:
        empty_db.execute(sql.SQL("create role {}").format(role))
    empty_db.execute(SCHEMA)
    yield empty_db
    names = sql.SQL(", ").join(roles)
    empty_db.execute(sql.SQL("drop owned by {} cascade; drop role {}").format(names, names))


@pytest.fixture
def manager(there: Db, tmp_path: Path) -> Callable[[], PolicyManager]:
    (tmp_path / "a.toml").write_text(TOML)
    return lambda: PolicyManager(settings=Settings(url=there.info.dsn, policies=tmp_path, wait=20.0))


@pytest.mark.parametrize("verb", ["select", "update"])
def test_what_was_granted_on_columns_stays(manager: Callable[..., PolicyManager], there: Db, verb: str) -> None:
    user = sql.Identifier(USER)
    there.execute(sql.SQL("grant {} (title, id) on documents to {}").format(sql.SQL(verb), user))
    there.execute(sql.SQL("grant insert (id), references (id) on documents to {}").format(sql.Identifier(ANON)))
    subject = manager()
    subject.apply()
    held = "select has_column_privilege(%s, 'documents', %s, %s), has_table_privilege(%s, 'documents', %s)"
    assert there.execute(held, [USER, "title", verb, USER, verb]).fetchone() == (True, False)
    assert there.execute(held, [USER, "owner_id", verb, USER, "delete"]).fetchone() == (False, True)
    assert there.execute(held, [ANON, "id", "insert", ANON, "insert"]).fetchone() == (False, False)
    assert subject.plan().statements == ()
    assert subject.check().text == ""


HELPER = 'dbops_policy."tenants of public.members: tenant_id by user_id, role"'
REPLACED = {
    "another body": f"create or replace function {HELPER}(roles text[]) returns setof int language sql as 'select 1'",
    "another result": f"drop function {HELPER} cascade;"
    f"create function {HELPER}(roles text[]) returns text language sql as $$ select 'x' $$",
    "another name of its argument": f"drop function {HELPER} cascade;"
    f"create function {HELPER}(r text[]) returns setof int language sql as 'select 1'",
    "another owner": f"alter function {HELPER} owner to {USER}",
    "the trigger's": f"alter function dbops_policy.refuse_change() owner to {USER}",
}


@pytest.mark.parametrize("change", REPLACED)
def test_a_helper_that_was_replaced_is_mended(manager: Callable[..., PolicyManager], there: Db, change: str) -> None:
    subject = manager()
    subject.apply()
    before = there.execute("select proname, prosrc, proacl, proowner::regrole from pg_proc "
                           "where pronamespace = 'dbops_policy'::regnamespace order by 1").fetchall()  # fmt: skip
    there.execute(REPLACED[change].encode())
    assert "function dbops_policy." in subject.check().text
    assert subject.apply().statements
    assert subject.check().text == ""
    after = there.execute("select proname, prosrc, proacl, proowner::regrole from pg_proc "
                          "where pronamespace = 'dbops_policy'::regnamespace order by 1").fetchall()  # fmt: skip
    assert after == before


def test_a_schema_that_somebody_made_beforehand_is_not_used(manager: Callable[..., PolicyManager], there: Db) -> None:
    there.execute(sql.SQL("create schema dbops_policy authorization {}").format(sql.Identifier(USER)))
    subject = manager()
    for verb in (subject.plan, subject.apply):
        with pytest.raises(NotAllowed, match=f"schema dbops_policy is owned by {USER}, not by postgres") as caught:
            verb()
        assert "ALTER SCHEMA dbops_policy OWNER TO" in caught.value.hint
    assert there.execute(
        "select count(*) from pg_proc where pronamespace = 'dbops_policy'::regnamespace"
    ).fetchone() == (0,)
    there.execute("alter schema dbops_policy owner to current_user")
    assert subject.apply().statements
