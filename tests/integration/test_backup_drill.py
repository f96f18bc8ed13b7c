"""A drill passes for a backup that comes back as it was, and fails for each way in which one may not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from dbops.backup.create import create
from dbops.backup.drill import drill, drills
from dbops.backup.local import LocalStore
from dbops.backup.model import POST, SCHEMA, Chunk, Drill, Manifest, Name, Object, Sequence, Table
from dbops.backup.objects import chunk_key, compress, object_key, read_chunk
from dbops.backup.schema import read_text
from dbops.config import Settings
from dbops.embedded import Scratch
from dbops.errors import DbopsError, StoreError

SCHEMA_AND_ROWS = """
    create extension vector;
    create table owners (id serial primary key, name text not null);
    create table twins (id int, name text);
    create table vectors (id int, v vector(3));
    insert into owners (name) select 'o' || n from generate_series(1, 20) n;
    insert into twins select id, name from owners;
    insert into twins values (21, 'one more');
    delete from twins where id = 1;
    insert into vectors values (1, '[1,2,3]');
    create index on vectors using hnsw (v vector_l2_ops);
    create function about(v vector) returns text language sql as 'select v::text';
"""


@pytest.fixture(scope="module")
def taken() -> dict[str, tuple[Manifest, Path]]:
    """Backups that were taken before, by version."""
    return {}


@pytest.fixture
def backup(
    make_database: Callable[..., str],
    major: str,
    taken: dict[str, tuple[Manifest, Path]],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Manifest, LocalStore]:
    """A backup, and the store it is in: objects are added there and never changed."""
    if major not in taken:
        url, folder = make_database(), tmp_path_factory.mktemp("taken")
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(SCHEMA_AND_ROWS.encode())
        taken[major] = create(url, LocalStore(folder), Settings(url=url), "manual"), folder
    manifest, folder = taken[major]
    return manifest, LocalStore(folder)


@pytest.fixture
def settings(server: Scratch) -> Settings:
    """The drill goes to the server that runs: as on a --scratch-url. By one process; the first test has two."""
    return Settings(scratch_url=server.url, workers=1)


def changed(manifest: Manifest, name: str, change: Callable[[Table], Table]) -> Manifest:
    tables = tuple(change(each) if each.name.name == name else each for each in manifest.tables)
    assert tables != manifest.tables
    return replace(manifest, tables=tables)


def chunks_of(manifest: Manifest, name: str) -> tuple[Chunk, ...]:
    return next(each for each in manifest.tables if each.name.name == name).chunks


def mismatches(result: Drill) -> dict[str, str]:
    return {each.table: each.reason for each in result.tables if not each.matches}


def with_schema(store: LocalStore, manifest: Manifest, name: str, text: str) -> Manifest:
    """The backup under another id and with another text in one of its schema files."""
    other = replace(manifest, id=manifest.id.replace("manual", "weekly"))
    for each in (SCHEMA, POST):
        data = (text if each == name else read_text(store, manifest, each)).encode()
        store.put(object_key(other.id, each), compress(data))
        changed = Object(each, hashlib.sha256(data).hexdigest(), len(data), len(compress(data)))
        other = replace(other, objects=tuple(changed if known.name == each else known for known in other.objects))
    return other


class TestPasses:
    def test_what_came_back_whole(self, backup: tuple[Manifest, LocalStore], major: str) -> None:
        """On a server of its own, of the same major version."""
        manifest, store = backup
        result = drill(manifest, store, Settings())
        assert (result.ok, result.problems, result.not_proven) == (True, (), ())
        assert {(each.table, each.rows) for each in result.tables} == {
            ("public.owners", 20), ("public.twins", 20), ("public.vectors", 1),
        }  # fmt: skip
        assert result.server_version // 10000 == int(major)
        assert result.restore_ms > 0
        assert result in drills(store, manifest.id)
        assert drills(store, "backup_20000101_000000_daily") == ()

    def test_roles_that_are_missing_are_made_and_gone_afterwards(
        self, empty_url: str, server: Scratch, settings: Settings, tmp_path: Path
    ) -> None:
        store = LocalStore(tmp_path)
        with psycopg.connect(empty_url, autocommit=True) as conn:
            conn.execute("create role drilled_reader; create table t (a int); grant select on t to drilled_reader")
            manifest = create(empty_url, store, Settings(url=empty_url), "manual")
            conn.execute("drop owned by drilled_reader; drop role drilled_reader")
            assert drill(manifest, store, settings).ok
            assert conn.execute("select from pg_roles where rolname = 'drilled_reader'").fetchall() == []

    def test_the_check_of_the_restored_database(self, backup: tuple[Manifest, LocalStore], settings: Settings) -> None:
        asked: list[list[tuple[int, ...]]] = []

        def check(url: str) -> list[str]:
            with psycopg.connect(url) as conn:
                asked.append(conn.execute("select count(*) from owners").fetchall())
            return []

        assert drill(*backup, settings, check=check).ok
        assert asked == [[(20,)]]


class TestFails:
    def test_for_a_chunk_swapped_for_another_valid_one(
        self, backup: tuple[Manifest, LocalStore], settings: Settings
    ) -> None:
        """Both have 20 rows of the same types."""
        manifest, store = backup
        other = changed(manifest, "owners", lambda table: replace(table, chunks=chunks_of(manifest, "twins")))
        result = drill(other, store, settings)
        assert not result.ok
        assert list(mismatches(result)) == ["public.owners"]
        assert "content hash" in mismatches(result)["public.owners"]

    def test_for_a_table_short_of_a_row(self, backup: tuple[Manifest, LocalStore], settings: Settings) -> None:
        manifest, store = backup
        data = read_chunk(store, chunks_of(manifest, "twins")[0])
        # a binary tuple of two fields: its count, then each field's length and bytes
        short = data[:19] + data[19 + 2 + 4 + 4 + 4 + len("o2") :]
        sha256 = hashlib.sha256(short).hexdigest()
        store.put(chunk_key(sha256), compress(short))
        chunk = Chunk(sha256, 19, len(short), len(compress(short)))
        result = drill(changed(manifest, "twins", lambda table: replace(table, chunks=(chunk,))), store, settings)
        assert not result.ok
        assert mismatches(result) == {"public.twins": "19 rows came back, the backup was taken of 20"}

    def test_for_a_table_without_its_chunks(self, backup: tuple[Manifest, LocalStore], settings: Settings) -> None:
        manifest, store = backup
        result = drill(changed(manifest, "twins", lambda table: replace(table, chunks=())), store, settings)
        assert not result.ok
        assert "0 rows came back" in mismatches(result)["public.twins"]

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (Sequence(Name("public", "owners_id_seq"), 7, True), "owners_id_seq is behind: public.owners has id = 8 already"),
            (Sequence(Name("public", "owners_id_seq"), 1, False), "owners_id_seq is behind: public.owners has id = 1"),
            (Sequence(Name("public", "no_such"), 1, False), "sequence public.no_such"),
        ],
    )  # fmt: skip
    def test_for_a_wrong_sequence(
        self, value: Sequence, reason: str, backup: tuple[Manifest, LocalStore], settings: Settings
    ) -> None:
        manifest, store = backup
        result = drill(replace(manifest, sequences=(value,)), store, settings)
        assert not result.ok
        assert any(reason in problem for problem in result.problems)

    def test_for_a_sequence_that_something_in_the_backup_moves(
        self, backup: tuple[Manifest, LocalStore], settings: Settings
    ) -> None:
        manifest, store = backup
        header = "\n--\n-- Name: more; Type: FUNCTION; Schema: -; Owner: -\n--\n"
        moved = f"{header}select pg_catalog.setval('public.owners_id_seq', 5000);\n"
        result = drill(with_schema(store, manifest, POST, read_text(store, manifest, POST) + moved), store, settings)
        assert not result.ok
        assert result.problems == ("sequence public.owners_id_seq is at (5000, True), the manifest says (20, True)",)

    def test_for_damage_and_is_kept_as_well(self, backup: tuple[Manifest, LocalStore], settings: Settings) -> None:
        manifest, store = backup
        missing = replace(chunks_of(manifest, "owners")[0], sha256="0" * 64)
        other = replace(manifest, id=manifest.id.replace("manual", "monthly"))
        for each in (SCHEMA, POST):
            store.put(object_key(other.id, each), store.get(object_key(manifest.id, each)))
        result = drill(changed(other, "owners", lambda table: replace(table, chunks=(missing,))), store, settings)
        assert not result.ok
        assert "table public.owners: " in result.problems[0]
        assert drills(store, other.id) == (result,)

    def test_for_a_check_that_fails_or_finds_something(
        self, backup: tuple[Manifest, LocalStore], settings: Settings
    ) -> None:
        def raising(_: str) -> list[str]:
            raise DbopsError("a migration is missing")

        assert not drill(*backup, settings, check=lambda _: ["drift"]).ok
        assert "a migration is missing" in drill(*backup, settings, check=raising).problems[0]


def test_what_needs_a_missing_extension_is_named_as_not_proven(
    backup: tuple[Manifest, LocalStore], settings: Settings
) -> None:
    manifest, store = backup
    text = read_text(store, manifest, SCHEMA).replace("IF NOT EXISTS vector", "IF NOT EXISTS no_such_extension")
    extensions = {name.replace("vector", "no_such_extension"): version for name, version in manifest.extensions.items()}
    other = replace(with_schema(store, manifest, SCHEMA, text), extensions=extensions)
    result = drill(other, store, settings)
    names = {each.name for each in result.not_proven}
    assert {"extension no_such_extension", "table public.vectors", "function public.about(public.vector)"} <= names
    assert [each.table for each in result.tables] == ["public.owners", "public.twins"]
    assert all(each.matches for each in result.tables)


def test_a_store_that_fails_proves_nothing(backup: tuple[Manifest, LocalStore], settings: Settings) -> None:
    class Failing(LocalStore):
        def get(self, key: str) -> bytes:
            raise StoreError("the bucket does not answer")

    manifest, store = backup
    before = drills(store, manifest.id)
    with pytest.raises(StoreError, match="does not answer"):
        drill(manifest, Failing(store.folder), settings)
    assert drills(store, manifest.id) == before
