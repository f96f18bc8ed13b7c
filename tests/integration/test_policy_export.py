"""Definitions from a live database: every user sees and may do the same afterwards, or less where it was an oversight."""

from __future__ import annotations

import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from dbops.config import Settings
from dbops.errors import UsageError
from dbops.policy import PolicyManager
from dbops.policy.export import array, string
from dbops.policy.model import Name

Db = psycopg.Connection[Any]
TAG = uuid.uuid4().hex[:8]
USER, OTHER = f"user_{TAG}", f'Oth"er_{TAG}'
ANN, BOB = uuid.UUID(int=1), uuid.UUID(int=2)
ODD = 'Ta"b.le ü'
SCHEMA = f"""
create table own (id int, user_id uuid); create table half (id int, user_id uuid); create table bare (id int);
create table "{ODD.replace('"', '""')}" (id int, note text); create table wide (id int, user_id uuid);
alter table own enable row level security; alter table half enable row level security;
alter table bare enable row level security; alter table wide enable row level security;
alter table "{ODD.replace('"', '""')}" enable row level security;
create policy mine on own to {USER} using (user_id = nullif(current_setting('app.sub', true), '')::uuid);
create policy look on half for select to {USER}
  using ((select nullif(current_setting('app.sub', true), '')::uuid) = user_id);
create policy "put ""it" on half for insert to {USER}
  with check (user_id = nullif(current_setting('app.sub', true), '')::uuid and id > 0);
create policy "o\\d'd" on "{ODD.replace('"', '""')}" as permissive for all using (note <> E'a"b\\\\c\\n') with check (id < 9);
create policy strict on "{ODD.replace('"', '""')}" as restrictive for select to {USER} using (id <> 2);
create policy everyone on wide using (id = 1);
create policy unreachable on wide for delete to {USER} using (true);
grant all on own, half to {USER}; grant select, insert on "{ODD.replace('"', '""')}" to {USER};
grant select on wide, bare to {USER};
"""


@pytest.fixture
def there(empty_db: Db) -> Iterator[Db]:
    empty_db.execute(sql.SQL("create role {}; create role {}").format(sql.Identifier(USER), sql.Identifier(OTHER)))
    empty_db.execute(SCHEMA.encode())
    for table in ("own", "half", "wide"):
        empty_db.execute(sql.SQL("insert into {} values (1, {}), (2, {})").format(sql.Identifier(table), ANN, BOB))
    empty_db.execute(
        sql.SQL("insert into {} values (1, 'x'), (2, 'y'), (3, E'a\"b\\\\c\\n')").format(sql.Identifier(ODD))
    )
    empty_db.execute("insert into bare values (1)")
    yield empty_db
    roles = sql.SQL(", ").join(map(sql.Identifier, (USER, OTHER)))
    empty_db.execute(sql.SQL("drop owned by {}; drop role {}").format(roles, roles))


PROBES = ["select * from {} order by 1", "update {} set id = id returning *", "delete from {} returning *",
          "insert into {} (id) values (5) returning *", "insert into {} select * from {} returning *"]  # fmt: skip


def seen(conn: Db) -> dict[tuple[str, str, uuid.UUID], object]:
    """What each user gets by each verb on each table."""
    found: dict[tuple[str, str, uuid.UUID], object] = {}
    for table in ("own", "half", "bare", "wide", ODD):
        for probe in PROBES:
            for user in (ANN, BOB):
                with conn.transaction(force_rollback=True):
                    conn.execute(
                        sql.SQL("set local role {}; set local app.sub = {}").format(sql.Identifier(USER), str(user))
                    )
                    names = [sql.Identifier(table)] * probe.count("{}")
                    try:
                        with conn.transaction():
                            rows = conn.execute(sql.SQL(probe).format(*names)).fetchall()  # type: ignore[arg-type]
                            found[table, probe, user] = sorted(map(str, rows))
                    except psycopg.errors.InsufficientPrivilege:
                        found[table, probe, user] = []  # nothing, as where no policy opens a row
    return found


def test_what_users_see_stays_the_same(there: Db, tmp_path: Path) -> None:
    before = seen(there)
    assert len({str(value) for value in before.values()}) >= 4
    manager = PolicyManager(settings=Settings(url=there.info.dsn, policies=tmp_path / "out", wait=20.0))
    [path] = manager.export(tmp_path / "out")
    content = tomllib.loads(path.read_text())
    assert content["auth"] == "guc:app.sub"
    assert content["user_role"] == USER
    tables = content["table"]
    assert tables["public.own"] == {"owner": "user_id"}
    assert tables["public.half"]["owner"] == "user_id"
    assert tables["public.half"]["verbs"] == ["select"]
    assert tables["public.bare"] == {"closed": True}
    assert "unreachable" not in [raw["name"] for raw in tables["public.wide"]["raw"]]
    replaced = [line for line in path.read_text().splitlines() if "apply --prune` drops what this replaces" in line]
    assert sorted(name for line in replaced for name in line.partition("replaces: ")[2].split(", ")) == sorted(
        ['"mine"', '"look"', '"everyone"', '"unreachable"', '"o\\\\d\'d"']
    )
    assert (
        "# left out: none of its roles has the privilege, and a definition would grant it: unreachable"
        in path.read_text()
    )
    granted = [s.sql for s in manager.plan().statements if s.sql.startswith("GRANT")]
    assert granted == []
    manager.apply()
    assert seen(there) == before
    left = {each.policy for each in manager.plan().unmanaged}
    assert all(string(name) in "".join(replaced) for name in left)
    manager.apply(prune=True)
    assert seen(there) == before


def test_no_file_is_overwritten(there: Db, tmp_path: Path) -> None:
    manager = PolicyManager(settings=Settings(url=there.info.dsn, policies=tmp_path))
    (tmp_path / "public.toml").write_text("mine")
    with pytest.raises(UsageError, match="there is such a file"):
        manager.export(tmp_path)
    assert (tmp_path / "public.toml").read_text() == "mine"
    with pytest.raises(UsageError, match="there is no table nothing"):
        manager.export(tmp_path / "other", ["nothing"])
    assert not (tmp_path / "other").exists()


def test_a_table_that_the_folder_defines_is_refused_whatever_its_file_is_called(there: Db, tmp_path: Path) -> None:
    manager = PolicyManager(settings=Settings(url=there.info.dsn, policies=tmp_path))
    head = f'version = 1\nauth = "guc:app.sub"\nuser_role = "{USER}"\n'
    mine = tmp_path / "mine.toml"
    mine.write_text(head + '[table."public.half"]\nclosed = true\n')
    with pytest.raises(UsageError, match=r"mine\.toml:4 defines public\.half already"):
        manager.export(tmp_path)
    assert list(tmp_path.iterdir()) == [mine]
    mine.write_text(head.replace("app.sub", "app.other") + '[table."public.else"]\nclosed = true\n')
    with pytest.raises(UsageError, match="another auth"):
        manager.export(tmp_path)
    assert list(tmp_path.iterdir()) == [mine]
    mine.write_text(head + '[table."public.else"]\nclosed = true\n')
    assert [path.name for path in manager.export(tmp_path)] == ["public.toml"]
    assert Name("public", "else") in manager.definitions().tables


def test_only_the_tables_that_are_named(there: Db, tmp_path: Path) -> None:
    manager = PolicyManager(settings=Settings(url=there.info.dsn, policies=tmp_path))
    [path] = manager.export(tmp_path / "one", ["own", f"public.{ODD}"])
    assert len(tomllib.loads(path.read_text())["table"]) == 2


@pytest.mark.quick
@given(st.lists(st.text(st.characters(codec="utf-8"))))
def test_texts_are_what_toml_reads(texts: list[str]) -> None:
    assert tomllib.loads(f"a = {array(texts)}\nb = {string(''.join(texts))}") == {"a": texts, "b": "".join(texts)}
