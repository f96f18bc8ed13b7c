"""Roles whose own settings would break a run: time-outs, isolation levels, read-only transactions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tools import Target, wait_for

pytestmark = pytest.mark.fault
DEFAULTS = {
    "transaction_timeout": "400ms",
    "idle_in_transaction_session_timeout": "100ms",
    "statement_timeout": "300ms",
    "lock_timeout": "100ms",
    "default_transaction_isolation": "'repeatable read'",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "search_path": "elsewhere",
    "row_security": "on",
}
SCRIPTS = {
    "20250101_000001_table.sql": "-- migrate:up\ncreate table public.made (id int, name text);\nselect pg_sleep(0.6);",
    "20250101_000002_index.sql": "-- migrate:up\ncreate index concurrently made_name on public.made (name);\n"
    "insert into public.made values (1, 'x');\nset search_path = public;\nset role app;\n"
    "create index concurrently made_id on made (id);\nreset role;\nvacuum made;",
}


@pytest.fixture
def owner(direct: Target) -> Iterator[Target]:
    """The target as a role that is no superuser, with unfortunate defaults; it may set the role `app`."""
    name = f"owner_{direct.one('select current_database()')}"
    script = "".join(part.replace("role app", f"role {name}_app") for part in SCRIPTS["20250101_000002_index.sql"])
    direct.write(SCRIPTS | {"20250101_000002_index.sql": script.replace("role app", f"role {name}_app")})
    direct.sql(f"create role {name}_app; create role {name} login in role {name}_app; grant {name} to {name}_app")
    direct.sql(f"grant all on schema public to {name}, {name}_app")
    direct.sql(f"do $$ begin execute format('grant create on database %I to {name}', current_database()); end $$")
    yield Target(make_conninfo(direct.direct, user=name), direct.direct, direct.folder)
    direct.sql(f"drop owned by {name}, {name}_app; drop role {name}, {name}_app")
