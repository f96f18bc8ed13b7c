"""The content hash of COPY streams, the types that go in binary, and how a table is cut: pure, against oracles."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_128_intdigest

from dbops.backup.allow import Type, is_binary
from dbops.backup.choose import Relation, choose
from dbops.backup.hash import HEADER, TRAILER, hash_stream, hash_text, rows_of
from dbops.backup.layout import CHUNK, pages_per_chunk
from dbops.backup.model import Name, Omitted
from dbops.errors import BackupDamaged

pytestmark = pytest.mark.quick
FIELDS = st.lists(st.one_of(st.none(), st.binary(max_size=12)), max_size=5)
ROWS = st.lists(FIELDS, max_size=12)


def tuple_of(fields: list[bytes | None]) -> bytes:
    parts = [struct.pack("!i", -1) if each is None else struct.pack("!i", len(each)) + each for each in fields]
    return struct.pack("!h", len(fields)) + b"".join(parts)


def stream(rows: list[bytes]) -> bytes:
    return HEADER + b"".join(rows) + TRAILER


@given(ROWS, st.randoms())
def test_a_binary_stream_hashes_to_the_sum_of_its_rows_in_any_order(
    rows: list[list[bytes | None]], chance: random.Random
) -> None:
    tuples = [tuple_of(fields) for fields in rows]
    expected = len(tuples), sum(map(xxh3_128_intdigest, tuples)) % 2**128
    assert list(rows_of("binary", stream(tuples))) == tuples
    assert hash_stream("binary", stream(tuples)) == expected
    chance.shuffle(tuples)
    assert hash_stream("binary", stream(tuples)) == expected


@given(st.lists(st.binary(max_size=12).filter(lambda line: b"\n" not in line), max_size=12))
def test_a_text_stream_hashes_to_the_sum_of_its_lines(lines: list[bytes]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    assert hash_stream("text", data) == (len(lines), sum(map(xxh3_128_intdigest, lines)) % 2**128)


@given(ROWS.filter(bool), st.data())
def test_a_binary_stream_that_is_cut_off_is_refused(rows: list[list[bytes | None]], data: st.DataObject) -> None:
    whole = stream([tuple_of(fields) for fields in rows])
    with pytest.raises(BackupDamaged):
        hash_stream("binary", whole[: data.draw(st.integers(0, len(whole) - 1))])


@pytest.mark.parametrize(
    "data",
    [b"", b"PGCOPY\n", stream([]) + b"x", stream([tuple_of([b"a"])]) + TRAILER, HEADER + b"\xff\xfe"],
    ids=["empty", "half a header", "bytes behind the end", "two ends", "a negative count"],
)
def test_what_is_no_binary_stream_is_refused(data: bytes) -> None:
    with pytest.raises(BackupDamaged, match="no whole COPY stream"):
        hash_stream("binary", data)


def test_a_text_stream_without_its_last_line_end_is_refused() -> None:
    with pytest.raises(BackupDamaged):
        hash_stream("text", b"1\ta\n2\tb")


def test_equal_rows_do_not_cancel_each_other_out() -> None:
    row = tuple_of([b"a"])
    assert len({hash_stream("binary", stream([row] * n))[1] for n in range(4)}) == 4


def test_the_hash_of_known_rows_stays_what_it_is() -> None:
    """Manifests hold it: another hash would call every old backup wrong."""
    rows, total = hash_stream("binary", stream([tuple_of([b"\0\0\0\1", None]), tuple_of([b"\0\0\0\2", b"two"])]))
    assert (rows, hash_text(total)) == (2, "661a5a0c7e0bc6bb2cdca894298a23e5")


TYPES = {
    each.oid: each
    for each in (
        Type(23, "int4", "b", 0, 0, ""), Type(1007, "_int4", "b", 0, 23, ""), Type(2205, "regclass", "b", 0, 0, ""),
        Type(2210, "_regclass", "b", 0, 2205, ""), Type(1033, "aclitem", "b", 0, 0, ""), Type(142, "xml", "b", 0, 0, ""),
        Type(3904, "int4range", "r", 0, 0, ""), Type(4451, "int4multirange", "m", 0, 0, ""),
        Type(20001, "mood", "e", 0, 0, ""), Type(20002, "_mood", "b", 0, 20001, ""), Type(20003, "dpos", "d", 23, 0, ""),
        Type(20004, "_dpos", "b", 0, 20003, ""), Type(20005, "dreg", "d", 2205, 0, ""), Type(20006, "dd", "d", 20003, 0, ""),
        Type(20007, "pair", "c", 0, 0, "", (23, 1007)), Type(20008, "moody", "c", 0, 0, "", (23, 20001)),
        Type(20009, "regpair", "c", 0, 0, "", (23, 2205)), Type(20010, "fr", "r", 0, 0, ""),
        Type(20011, "vector", "b", 0, 0, "vector"), Type(20012, "_vector", "b", 0, 20011, "vector"),
        Type(20013, "vector", "b", 0, 0, ""), Type(20014, "geometry", "b", 0, 0, "postgis"), Type(20015, "int4", "b", 0, 0, ""),
        Type(20016, "dmood", "d", 20001, 0, ""), Type(20017, "dpair", "d", 20007, 0, ""), Type(20018, "_pair", "b", 0, 20007, ""),
    )
}  # fmt: skip


def test_only_types_whose_bytes_mean_the_same_elsewhere_go_in_binary() -> None:
    binary = {each.name for each in TYPES.values() if is_binary(each.oid, TYPES)}
    assert binary == {
        "int4", "_int4", "int4range", "int4multirange", "mood", "dpos", "dd", "pair", "vector", "dmood", "dpair",
    }  # fmt: skip
    # a type of somebody's own under a known name is not that type
    assert not any(is_binary(oid, TYPES) for oid in (20013, 20015))


@pytest.mark.parametrize(
    ("heap", "toast", "expected"),
    [
        (0, 0, 128),
        (8192, 0, 128),
        (100 << 20, 0, 128),
        (100 << 20, 100 << 20, 64),
        (1 << 20, 118 << 20, 1),
        (8192, 1 << 30, 1),
    ],
)
def test_a_chunk_is_about_a_megabyte_with_its_toast(heap: int, toast: int, expected: int) -> None:
    assert pages_per_chunk(heap, toast, 8192) == expected
    assert CHUNK == 1 << 20


def test_page_ranges_stay_while_they_are_within_a_factor_of_two() -> None:
    kept = [before for before in range(300) if pages_per_chunk(100 << 20, 0, 8192, before) == before]
    assert kept == list(range(64, 257))


def relation(name: str, kind: str = "r", **more: object) -> Relation:
    schema, _, bare = name.partition(".")
    values = {
        "oid": 1,
        "persistence": "p",
        "partition": False,
        "schema_owner": "me",
        "extension": "",
        "condition": None,
    }
    return Relation(name=Name(schema, bare), kind=kind, **(values | more))  # type: ignore[arg-type]


def test_what_is_left_out_is_said() -> None:
    managed = {"schema_owner": "supabase_admin"}
    chosen = choose(
        [
            relation("public.a"), relation("public.log_1"), relation("public.f", "f"), relation("public.m", "m"),
            relation("public.p", "p"), relation("public.s", "S"), relation("public.u", persistence="u"),
            relation("public.ext", extension="e"), relation("public.conf", extension="e", condition="WHERE x"),
            relation("auth.users", **managed), relation("vault.secrets", **managed), relation("auth.mine"),
        ],
        standby=True, include=(), exclude=("log_*",),
    )  # fmt: skip
    assert [str(each.name) for each in chosen.tables] == ["public.a", "public.conf", "auth.users", "auth.mine"]
    assert [str(each.name) for each in chosen.parents] == ["public.p"]
    assert [str(each.name) for each in chosen.sequences] == ["public.s"]
    assert chosen.managed == {"auth", "vault"}
    assert [(each.name, each.reason.split(":")[0]) for each in chosen.omitted] == [
        ("auth", "managed by Supabase"),
        ("public.f", "foreign table"),
        ("public.log_1", "excluded"),
        ("public.m", "materialised view"),
        ("public.u", "unlogged"),
        ("vault", "managed by Supabase"),
    ]
    assert Omitted("vault", "managed by Supabase: left out") in chosen.omitted


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ((), (), ["a.x", "a.y", "b.x"]),
        (("a.*",), (), ["a.x", "a.y"]),
        (("x",), (), ["a.x", "b.x"]),
        ((), ("*.x",), ["a.y"]),
        (("a.*",), ("x",), ["a.y"]),
    ],
)
def test_patterns_choose_tables(include: tuple[str, ...], exclude: tuple[str, ...], expected: list[str]) -> None:
    chosen = choose([relation("a.x"), relation("a.y"), relation("b.x")], False, include, exclude)
    assert [str(each.name) for each in chosen.tables] == expected
    assert len(chosen.tables) + len(chosen.omitted) == 3
