"""A whole backup comes back as it was, into an empty database only, and one that did not end says so."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from dbops.backup.create import Progress, create
from dbops.backup.local import LocalStore
from dbops.backup.model import POST, SCHEMA, Manifest, Name, Object
from dbops.backup.objects import chunk_key, compress, object_key
from dbops.backup.restore import Restored, restore_whole
from dbops.backup.restoring.compare import compare_tables
from dbops.backup.restoring.target import MARK, refuse_used
from dbops.backup.schema import read_text
from dbops.config import Settings
from dbops.database import parameters
from dbops.embedded import with_database
from dbops.errors import BackupDamaged, ConfirmationRequired, DbopsError, NotAllowed, UnfitServer, UsageError

EVERYTHING = (Path(__file__).parents[1] / "backup_everything.sql").read_text(encoding="utf-8")
SMALL = """
    create table owners (id int primary key, name text not null);
    create table things (id int generated always as identity primary key, owner int references owners, price numeric);
    insert into owners select n, 'o' || n from generate_series(1, 20) n;
    insert into things (owner, price) select 1 + n % 20, n from generate_series(1, 3000) n;
    create index on things (price);
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "backups")


@pytest.fixture
def back_up(make_database: Callable[..., str], store: LocalStore) -> Callable[[str], tuple[str, Manifest]]:
    """back_up(SQL): the URL of a database that the SQL filled, and its backup."""

    def take(text: str) -> tuple[str, Manifest]:
        url = make_database()
        run(url, text)
        return url, create(url, store, Settings(url=url), "manual")

    return take


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Manifest, Path]]:
    """Backups that were taken before, by version and SQL."""
    return {}


@pytest.fixture
def small(
    make_database: Callable[..., str],
    store: LocalStore,
    major: str,
    taken: dict[str, tuple[Manifest, Path]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Manifest:
    """A backup of SMALL in a store of this test's own."""
    if major not in taken:
        url, folder = make_database(), tmp_path_factory.mktemp("taken")
        run(url, SMALL)
        taken[major] = create(url, LocalStore(folder), Settings(url=url), "manual"), folder
    manifest, folder = taken[major]
    shutil.copytree(folder, store.folder, dirs_exist_ok=True)
    return manifest


def ask(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as conn:
        return conn.execute(query.encode()).fetchall()


def run(url: str, text: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(text.encode())


def restore(manifest: Manifest, store: LocalStore, url: str, **options: Any) -> Restored:
    return restore_whole(manifest, store, url, Settings(url=url), **options)


def unequal(url: str, manifest: Manifest) -> list[str]:
    """The tables that are not what the manifest says."""
    found = compare_tables(url, manifest, manifest.tables, 1)
    assert len(found) == len(manifest.tables)
    return [f"{each.table}: {each.reason}" for each in found if not each.matches]


def with_schema(store: LocalStore, manifest: Manifest, name: str, text: str) -> Manifest:
    """The backup with another text in one of its schema files."""
    data = text.encode()
    packed = compress(data)
    store.put(object_key(manifest.id, name), packed)
    changed = Object(name, hashlib.sha256(data).hexdigest(), len(data), len(packed))
    return replace(manifest, objects=tuple(changed if each.name == name else each for each in manifest.objects))


class TestEverything:
    @pytest.fixture
    def both(self, back_up: Callable[[str], tuple[str, Manifest]]) -> tuple[str, Manifest]:
        return back_up(EVERYTHING)

    def test_comes_back(self, both: tuple[str, Manifest], store: LocalStore, make_database: Callable[..., str]) -> None:
        source, manifest = both
        target = make_database()
        restored = restore(manifest, store, target)
        assert (restored.tables, restored.rows, restored.left_out) == (len(manifest.tables), manifest.rows, ())
        assert unequal(target, manifest) == []
        again = create(target, store, Settings(url=target), "manual")
        assert again.sequences == manifest.sequences
        for name in (SCHEMA, POST):
            assert read_text(store, again, name) == read_text(store, manifest, name)
        for query in (
            "select * from counted order by 2",
            "select * from counted_twice",
            "select oid, lo_get(oid) from pg_largeobject_metadata order by 1",
            "select what from audit",  # one row: no trigger fired while rows came in
            "select relname from pg_class where relkind = 'm' and not relispopulated",
            "select atomic_body(3), headers()",
        ):
            assert ask(target, query) == ask(source, query)
        assert ask(target, "select count(*) from pg_stats where schemaname in ('public', 'extra')")[0][0] > 50
        assert ask(target, f"select from pg_namespace where nspname = '{MARK}'") == []
        run(target, "insert into parent (kind) values ('the next number is free')")

    def test_goes_up_a_version(
        self,
        both: tuple[str, Manifest],
        store: LocalStore,
        major: str,
        request: pytest.FixtureRequest,
    ) -> None:
        if major != "16":
            pytest.skip("18 is the newest")
        with request.getfixturevalue("server18").server.database() as target:
            restore(both[1], store, target, create_roles=True)
            assert unequal(target, both[1]) == []

    def test_a_restore_that_was_cut_off_is_cleaned_away_whole(
        self, both: tuple[str, Manifest], store: LocalStore, make_database: Callable[..., str]
    ) -> None:
        """Of every kind of object nothing is left, and what was there before stays."""
        manifest, target = both[1], make_database()
        run(target, "create schema before_it")
        text = read_text(store, manifest, POST)
        header = "\n--\n-- Name: broken; Type: FUNCTION; Schema: -; Owner: -\n--\n"
        broken = with_schema(store, manifest, POST, f"{text}{header}select 1 / 0;\n")
        with pytest.raises(DbopsError, match="division by zero"):
            restore(broken, store, target)
        with pytest.raises(ConfirmationRequired, match=f"unfinished restore of {manifest.id}"):
            restore(broken, store, target)
        whole = with_schema(store, manifest, POST, text)
        restore(whole, store, target, clean=True)
        assert unequal(target, manifest) == []
        assert ask(target, "select from pg_namespace where nspname = 'before_it'") == [()]


class TestTarget:
    def test_must_be_empty(self, small: Manifest, store: LocalStore, empty_url: str) -> None:
        run(
            empty_url,
            "create table mine (a int); insert into mine values (1); create function f() returns int return 1",
        )
        with pytest.raises(UsageError, match=r"not empty: it holds function public\.f\(\), table public\.mine"):
            restore(small, store, empty_url)
        assert ask(empty_url, "select * from mine") == [(1,)]
        assert ask(empty_url, "select nspname from pg_namespace where nspname ~ 'dbops'") == []

    @pytest.mark.parametrize(
        "made",
        [
            "create type t as enum ('a')", "create domain d as int", "create view v as select 1", "create sequence s",
            "create schema x create table y (a int)", "create table p (a int) partition by range (a)", "select lo_create(7)", "create type c as (a int)",
            "create publication p", "create operator public.=== (leftarg = int, rightarg = int, function = int4eq)",
            "create foreign data wrapper w", "create aggregate a (int4) (sfunc = int4pl, stype = int4)",
        ],
    )  # fmt: skip
    def test_anything_is_something(self, made: str, empty_db: psycopg.Connection[Any]) -> None:
        refuse_used(empty_db)
        empty_db.execute(made.encode())
        with pytest.raises(UsageError, match="not empty"):
            refuse_used(empty_db)

    def test_an_extension_and_an_empty_schema_may_be_there(
        self, small: Manifest, store: LocalStore, empty_url: str
    ) -> None:
        run(empty_url, "create schema extensions; create extension vector schema extensions")
        restore(small, store, empty_url)
        assert unequal(empty_url, small) == []

    def test_a_role_without_rights_is_refused(
        self, small: Manifest, store: LocalStore, empty_url: str, role: str
    ) -> None:
        url = with_role(empty_url, role)
        with pytest.raises(NotAllowed, match="permission denied for database"):
            restore(small, store, url, no_owner=True)
        assert ask(empty_url, "select count(*) from pg_class where relnamespace = 'public'::regnamespace") == [(0,)]

    def test_a_plain_owner_restores_without_owners(
        self, small: Manifest, store: LocalStore, empty_url: str, role: str
    ) -> None:
        name = parameters(empty_url)["dbname"]
        run(empty_url, f"alter database {name} owner to {role}")
        restore(small, store, with_role(empty_url, role), no_owner=True)
        assert unequal(empty_url, small) == []
        assert ask(empty_url, "select relowner::regrole::text from pg_class where relname = 'things'") == [(role,)]


@pytest.fixture
def role(empty_url: str) -> Iterator[str]:
    """A login without any rights, gone afterwards with what it owns."""
    name = f"restorer_{parameters(empty_url)['dbname']}"
    run(empty_url, f"create role {name} login")
    yield name
    run(empty_url, f"reassign owned by {name} to current_user; drop owned by {name}")
    run(empty_url, f"alter database {parameters(empty_url)['dbname']} owner to current_user; drop role {name}")


def with_role(url: str, role: str) -> str:
    return psycopg.conninfo.make_conninfo(with_database(url, parameters(url)["dbname"]), user=role)


class TestRoles:
    @pytest.fixture
    def manifest(self, back_up: Callable[[str], tuple[str, Manifest]], empty_url: str) -> Manifest:
        """The backup of a database whose roles are gone since."""
        self.names = [f"{word}_{parameters(empty_url)['dbname']}" for word in ("owner", "reader", '"Lésér; --"')]
        self.names[2] = f'"Lésér; -- {parameters(empty_url)["dbname"]}"'
        owner, reader, odd = self.names
        url, manifest = back_up(
            f"create role {owner}; create role {reader}; create role {odd}; {SMALL}"
            f"alter table things owner to {owner}; grant select on things to {reader}, {odd};"
            f"grant insert on owners to public; alter default privileges for role {owner} grant select on tables to {reader}"
        )
        run(url, "; ".join(f"drop owned by {name} cascade; drop role {name}" for name in self.names))
        return manifest

    @pytest.fixture(autouse=True)
    def _gone_afterwards(self, empty_url: str) -> Iterator[None]:
        yield
        for name in getattr(self, "names", []):
            if ask(empty_url, f"select from pg_roles where quote_ident(rolname) = '{name}'"):
                run(empty_url, f"drop owned by {name} cascade; drop role {name}")

    def test_missing_ones_are_listed(self, manifest: Manifest, store: LocalStore, empty_url: str) -> None:
        with pytest.raises(UsageError, match="name roles that this server does not have") as caught:
            restore(manifest, store, empty_url)
        assert all(name.strip('"') in caught.value.message for name in self.names)
        assert "--create-roles" in caught.value.hint
        assert "--no-owner" in caught.value.hint
        assert ask(empty_url, "select count(*) from pg_class where relnamespace = 'public'::regnamespace") == [(0,)]

    def test_are_made_where_wanted(self, manifest: Manifest, store: LocalStore, empty_url: str) -> None:
        restore(manifest, store, empty_url, create_roles=True)
        assert (
            ask(empty_url, "select rolcanlogin from pg_roles where rolname ~ '^(owner|reader)_test'") == [(False,)] * 2
        )
        assert ask(empty_url, "select relowner::regrole::text from pg_class where relname = 'things'") == [
            (self.names[0],)
        ]
        assert ask(empty_url, f"select has_table_privilege('{self.names[1]}', 'things', 'select')") == [(True,)]

    def test_and_owners_are_left_out_where_wanted(self, manifest: Manifest, store: LocalStore, empty_url: str) -> None:
        restored = restore(manifest, store, empty_url, no_owner=True)
        assert "acl public.table things" in str(restored.left_out).lower()
        assert unequal(empty_url, manifest) == []
        rights = ask(empty_url, "select relname::text, relowner::regrole = current_user::regrole, relacl::text from pg_class "
                     "where relname in ('owners', 'things') order by 1")  # fmt: skip
        assert [(name, mine) for name, mine, _ in rights] == [("owners", True), ("things", True)]
        assert "=a/" in rights[0][2]  # what was granted to all

    def test_a_policy_of_a_missing_role_is_never_left_out(
        self, back_up: Callable[[str], tuple[str, Manifest]], store: LocalStore, empty_url: str
    ) -> None:
        name = f"guarded_{parameters(empty_url)['dbname']}"
        url, manifest = back_up(
            f"create role {name}; create table t (a int); create policy p on t as restrictive to {name}"
        )
        run(url, f"drop owned by {name} cascade; drop role {name}")
        with pytest.raises(UsageError, match=f"policy public.t p is for {name}.*cannot leave it out"):
            restore(manifest, store, empty_url, no_owner=True)


class TestDamage:
    def test_a_damaged_chunk_is_named_and_its_table_left_empty(
        self, small: Manifest, store: LocalStore, empty_url: str
    ) -> None:
        key = damage(store, small, "things", lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
        with pytest.raises(BackupDamaged, match=f"table public.things: {key}") as caught:
            restore(small, store, empty_url)
        assert caught.value.exit_code == 13
        assert ask(empty_url, "select count(*) from things") == [(0,)]
        with pytest.raises(ConfirmationRequired):
            restore(small, store, empty_url)

    def test_a_missing_chunk_too(self, small: Manifest, store: LocalStore, empty_url: str) -> None:
        key = chunk_key(table(small, "things").chunks[0].sha256)
        store.delete([key])
        with pytest.raises(BackupDamaged, match=f"table public.things: .*{key}"):
            restore(small, store, empty_url)

    def test_another_valid_stream_under_a_forged_name(self, small: Manifest, store: LocalStore, empty_url: str) -> None:
        data = b"9999\t1\t1\n"
        damage(store, small, "things", lambda _: compress(data))
        with pytest.raises(BackupDamaged, match=r"table public\.things"):
            restore(small, store, empty_url)
        assert ask(empty_url, "select count(*) from things") == [(0,)]

    def test_a_bomb_is_refused(self, small: Manifest, store: LocalStore, empty_url: str) -> None:
        damage(store, small, "things", lambda _: compress(bytes(1 << 26)))
        with pytest.raises(BackupDamaged, match="holds more than the"):
            restore(small, store, empty_url)

    def test_a_part_of_a_divided_table_takes_the_rest_with_it(
        self, back_up: Callable[[str], tuple[str, Manifest]], store: LocalStore, empty_url: str
    ) -> None:
        rows = "select n, repeat(md5(n::text), 60) from generate_series(1, 12000) n"
        manifest = back_up(f"create table large (id int, t text); insert into large {rows}")[1]
        chunks = table(manifest, "large").chunks
        assert len(chunks) >= 6  # else no worker's part is committed before
        store.delete([chunk_key(chunks[-1].sha256)])
        with pytest.raises(BackupDamaged, match=r"table public\.large"):
            restore(manifest, store, empty_url)
        assert ask(empty_url, "select count(*) from large") == [(0,)]

    def test_types_must_be_equal_to_the_letter(self, small: Manifest, store: LocalStore, empty_url: str) -> None:
        """An int8 goes into a timestamptz by binary COPY, and no error tells of it."""
        text = read_text(store, small, SCHEMA)
        other = with_schema(store, small, SCHEMA, text.replace("price numeric", "price timestamp with time zone"))
        with pytest.raises(BackupDamaged, match=r"price timestamp with time zone; the rows are of .*price numeric"):
            restore(other, store, empty_url)
        assert ask(empty_url, "select count(*) from things") == [(0,)]

    def test_a_schema_file_that_was_changed(self, small: Manifest, store: LocalStore, empty_url: str) -> None:
        store.put(object_key(small.id, SCHEMA), compress(b"drop schema public cascade;"))
        with pytest.raises(BackupDamaged, match=SCHEMA):
            restore(small, store, empty_url)
        assert ask(empty_url, "select nspname from pg_namespace where nspname ~ 'dbops'") == []

    def test_commands_of_psql_are_refused(self, small: Manifest, store: LocalStore, empty_url: str) -> None:
        other = with_schema(store, small, SCHEMA, "\\! touch /tmp/x\n" + read_text(store, small, SCHEMA))
        with pytest.raises(BackupDamaged, match=r"a command of psql's, \\!"):
            restore(other, store, empty_url)

    def test_a_missing_extension_is_named_before_anything_is_done(
        self, small: Manifest, store: LocalStore, empty_url: str
    ) -> None:
        with pytest.raises(UnfitServer, match="does not have: no_such_thing"):
            restore(replace(small, extensions=small.extensions | {"no_such_thing": "1"}), store, empty_url)
        assert ask(empty_url, "select nspname from pg_namespace where nspname ~ 'dbops'") == []

    def test_names_are_names(self, small: Manifest, store: LocalStore, empty_url: str) -> None:
        """A forged manifest's names reach SQL as identifiers only."""
        evil = 'things" (id) from stdin; drop table owners; --'
        forged = tuple(replace(each, name=Name("public", evil)) for each in small.tables if each.name.name == "things")
        with pytest.raises(BackupDamaged, match="the backup has rows of it, its definitions do not make it"):
            restore(replace(small, tables=(*small.tables, *forged)), store, empty_url)
        assert ask(empty_url, "select to_regclass('owners') is not null") == [(True,)]


def table(manifest: Manifest, name: str) -> Any:
    return next(each for each in manifest.tables if each.name.name == name)


def damage(store: LocalStore, manifest: Manifest, name: str, change: Callable[[bytes], bytes]) -> str:
    """Change the first chunk of a table; its key."""
    key = chunk_key(table(manifest, name).chunks[0].sha256)
    store.put(key, change(store.get(key)))
    return key


def test_progress_is_told_and_counts_every_byte(small: Manifest, store: LocalStore, empty_url: str) -> None:
    told: list[Progress] = []
    restore(small, store, empty_url, tell=told.append)
    assert told[-1].bytes_done == told[-1].bytes_total == sum(chunk.raw_bytes for chunk in small.chunks)


def test_the_mark_says_what_was_there_before(small: Manifest, store: LocalStore, empty_url: str) -> None:
    broken = with_schema(store, small, POST, read_text(store, small, POST).replace("ADD CONSTRAINT", "ADD CONSTRAIN"))
    with pytest.raises(DbopsError, match=r"constraint public\.owners owners_pkey: syntax error"):
        restore(broken, store, empty_url)
    [(note,)] = ask(empty_url, f"select obj_description('{MARK}'::regnamespace, 'pg_namespace')")
    assert json.loads(note) | {"began_at": ""} == {
        "backup": small.id, "began_at": "", "schemas": ["public"], "extensions": ["plpgsql"],
    }  # fmt: skip


def test_clean_asks_nothing_of_a_database_without_a_mark(small: Manifest, store: LocalStore, empty_url: str) -> None:
    run(empty_url, sql.SQL("create table {} (a int)").format(sql.Identifier("mine")).as_string())
    with pytest.raises(UsageError, match="not empty"):
        restore(small, store, empty_url, clean=True)
    assert ask(empty_url, "select to_regclass('mine') is not null") == [(True,)]
