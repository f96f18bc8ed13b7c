"""A role whose own settings would break a run: time-outs, isolation levels, read-only transactions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg.conninfo import make_conninfo
from tools import Target, wait_for

pytestmark = pytest.mark.fault
DEFAULTS = {
    "transaction_timeout": "400ms",
    "idle_in_transaction_session_timeout": "100ms",
    "statement_timeout": "300ms",
    "lock_timeout": "100ms",
    "default_transaction_isolation": "repeatable read",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "search_path": "elsewhere",
}
TABLE = """-- migrate:up
create table public.made (id int, name text);
insert into public.made values (1, 'x');
select pg_sleep(0.6);
"""
STEPS = """-- migrate:up
create index concurrently made_name on public.made (name);
insert into public.made values (2, 'y');
set search_path = public;
set role {app};
create index concurrently made_id on made (id);
insert into made values (3, current_user);
reset role;
vacuum made;
"""


@pytest.fixture
def owner(direct: Target) -> Iterator[Target]:
    """The target as a role that is no superuser, with unfortunate defaults; it may become another, which owns less."""
    name = f"owner_{direct.one('select current_database()')}"
    app = f"{name}_app"
    direct.sql(f"create role {app}; create role {name} login; grant {app} to {name}; grant {name} to postgres")
    direct.sql(f"grant usage, create on schema public to {name}, {app}")
    direct.sql(f"do $$ begin execute format('grant create on database %I to {name}', current_database()); end $$")
    for setting, value in DEFAULTS.items():
        if direct.sql("select 1 from pg_settings where name = %(name)s", name=setting):
            direct.sql(f"alter role {name} set {setting} = '{value}'")
    owner = Target(make_conninfo(direct.direct, user=name), direct.direct, direct.folder, direct.started)
    owner.write({"20250101_000001_table.sql": TABLE, "20250101_000002_steps.sql": STEPS.format(app=app)})
    yield owner
    direct.sql(f"drop owned by {name}, {app}; drop role {name}, {app}")


def test_the_roles_defaults_do_no_harm(owner: Target) -> None:
    owner.manager().migrate_up(count=1)
    owner.sql("alter table made owner to " + owner.one("select rolname from pg_roles where rolname ~ '_app$'"))
    with owner.transaction("lock table made in row exclusive mode") as somebody, ThreadPoolExecutor() as pool:
        run = pool.submit(owner.manager().migrate_up)
        wait_for(lambda: owner.waiting("made_name"))
        time.sleep(1)  # longer than the role allows a statement, a lock and a transaction
        somebody.execute("rollback")
        assert run.result(60).versions == ("20250101_000002",)
    state = owner.state()
    assert state["indexes"] == [("made_id", True), ("made_name", True), ("schema_migrations_pkey", True)]
    assert owner.one("select count(*) from made") == 3
    assert state["steps"] == []
    assert owner.one("select count(*) from dbops.migration_runs") == 2
    owner.left_clean()
