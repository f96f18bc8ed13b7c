"""Manifests: written in one way, read with suspicion; objects in which every bit counts."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.backup.manifest import drill_key, dump, dump_drill, load, load_drill
from dbops.backup.model import Drill, DrillTable, Manifest, Omitted, Sequence
from dbops.backup.objects import (
    backup_id,
    chunk_key,
    compress,
    decompress,
    fault,
    id_parts,
    is_chunk_key,
    manifest_key,
)  # fmt: skip
from dbops.errors import BackupDamaged
from tests.backup_store import START, manifest_of

pytestmark = pytest.mark.quick

GOLDEN = Path(__file__).parent / "golden" / "backup_manifest.json"
WHOLE: dict[str, Any] = {
    "sequences": (Sequence(manifest_of().tables[0].name, -5, True),),
    "omitted": (Omitted("public.log", "unlogged, on a standby"),),
    "migration": "20250101_000001", "fingerprint": "ab" * 32, "duration_ms": 1234.5, "new_bytes": 99,
}  # fmt: skip


def whole() -> Manifest:
    """A manifest with something in every field."""
    return manifest_of(START + timedelta(microseconds=5), rows=[b"first", "zweite Zeile ü".encode()], **WHOLE)


def sealed(document: dict[str, Any]) -> bytes:
    """The document with the hash that belongs to it, as a forger would make it, independently of the code."""
    body = {key: value for key, value in document.items() if key != "sha256"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return json.dumps(body | {"sha256": hashlib.sha256(text.encode()).hexdigest()}).encode()


def test_golden() -> None:
    data = dump(whole())
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_bytes(data)
    assert data == GOLDEN.read_bytes()
    assert load(data, manifest_key(whole().id)) == whole()
    # nothing in it is left at its default: what is added to the model must be added here
    assert {each.name for each in fields(Manifest)} <= json.loads(data).keys()
    assert all(json.loads(data).values())


def test_the_same_value_gives_the_same_bytes() -> None:
    east = whole().created_at.astimezone(timezone(timedelta(hours=5)))
    assert dump(replace(whole(), created_at=east, extensions=dict(reversed(whole().extensions.items())))) == dump(
        whole()
    )


def test_any_order_and_space_are_read() -> None:
    data = json.dumps(dict(reversed(json.loads(dump(whole())).items())), indent=2).encode()
    assert load(data, manifest_key(whole().id)) == whole()


def test_what_was_added_later_is_passed_over() -> None:
    document = json.loads(dump(whole())) | {"new": {"a": [1]}}
    document["tables"][0]["chunks"][0]["colour"] = "blue"
    assert load(sealed(document), manifest_key(whole().id)) == whole()


def test_what_was_added_later_may_be_missing() -> None:
    document = json.loads(dump(whole()))
    for name in ("omitted", "migration", "fingerprint", "duration_ms", "new_bytes"):
        del document[name]
    assert load(sealed(document), manifest_key(whole().id)).migration == ""


def _set(*path: Any) -> Callable[[Any], None]:
    *way, last, value = path

    def change(document: Any) -> None:
        for step in way:
            document = document[step]
        if value is None:
            del document[last]
        else:
            document[last] = value

    return change


CHUNK = ("tables", 0, "chunks", 0)
FORGED = {
    "format": (_set("format", 2), "its format is 2, this dbops reads 1"),
    "no format": (_set("format", None), "format"),
    "true format": (_set("format", "1"), "format"),
    "id": (_set("id", "backup_20250101_120000_hourly"), "hourly"),
    "id of another": (_set("id", "backup_20250101_120001_daily"), "that of"),
    "tier": (_set("tier", "weekly"), "tier"),
    "tier unknown": (_set("tier", "hourly"), "tier: 'hourly' is none of"),
    "path": (_set("objects", 0, "name", "../../../etc/passwd"), "objects: '../../../etc/passwd'"),
    "path down": (_set("objects", 0, "name", "a/b"), "objects"),
    "dot": (_set("objects", 0, "name", ".locks"), "objects"),
    "newline": (_set("objects", 0, "name", "schema.sql.gz\n"), "objects"),
    "itself": (_set("objects", 0, "name", "manifest.json"), "objects"),
    "hash": (_set(*CHUNK, "sha256", "../" * 21 + "a"), "no SHA-256"),
    "hash short": (_set(*CHUNK, "sha256", "ab" * 31), "no SHA-256"),
    "hash upper": (_set(*CHUNK, "sha256", "AB" * 32), "no SHA-256"),
    "hash newline": (_set(*CHUNK, "sha256", "ab" * 32 + "\n"), "no SHA-256"),
    "hash of object": (_set("objects", 0, "sha256", "x"), "no SHA-256"),
    "negative": (_set(*CHUNK, "raw_bytes", -1), "tables: chunks: raw_bytes: -1 is negative"),
    "fraction": (_set(*CHUNK, "rows", 1.5), "rows: '1.5' is not a whole number"),
    "huge": (_set(*CHUNK, "rows", 2**64), "whole number"),
    "true": (_set(*CHUNK, "rows", True), "whole number"),
    "text": (_set(*CHUNK, "rows", "1"), "whole number"),
    "pages": (_set(*CHUNK, "end_page", 0), "pages"),
    "missing": (_set(*CHUNK, "rows", None), "tables: chunks: rows is missing"),
    "list": (_set("tables", {"a": 1}), "tables: .* is not a list"),
    "object": (_set("tables", [7]), "tables: '7' is not an object"),
    "kind": (_set("tables", 0, "kind", "view"), "kind"),
    "nul": (_set("database", "a\0b"), "database: a NUL"),
    "time": (_set("created_at", "yesterday"), "created_at: 'yesterday' is not a time"),
    "zone": (_set("created_at", "2025-01-01T12:00:00"), "created_at"),
    "month": (_set("created_at", "2025-13-01T12:00:00Z"), "created_at"),
    "flag": (_set("tables", 0, "columns", 0, "not_null", 1), "not_null"),
    "duration": (_set("duration_ms", -0.5), "duration_ms"),
    "extensions": (_set("extensions", {"a": 1}), "extensions"),
}


@pytest.mark.parametrize(("change", "words"), FORGED.values(), ids=FORGED.keys())
def test_forged(change: Callable[[Any], None], words: str) -> None:
    document = json.loads(dump(whole()))
    change(document)
    key = manifest_key(whole().id)
    with pytest.raises(BackupDamaged, match=words) as caught:
        load(sealed(document), key)
    assert caught.value.message.startswith(f"{key} cannot be trusted: ")
    assert caught.value.exit_code == 13


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"format": ' + b"9" * 6000 + b"}", b'{"format": NaN}'],
    ids=["empty", "half", "list", "null", "bytes", "deep", "digits", "nan"],
)
def test_no_manifest_at_all(data: bytes) -> None:
    with pytest.raises(BackupDamaged):
        load(data, manifest_key(whole().id))


def test_every_changed_byte_is_seen() -> None:
    data = dump(whole())
    key = manifest_key(whole().id)
    for at in range(len(data) - 1):  # the last one is a line end
        for bit in (0, 3, 6):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            with pytest.raises(BackupDamaged):
                load(bytes(changed), key)
    for length in range(0, len(data) - 1, 7):
        with pytest.raises(BackupDamaged):
            load(data[:length], key)


@pytest.mark.parametrize(
    "change",
    [{"id": "../x"}, {"created_at": datetime(2025, 1, 1)}, {"duration_ms": float("nan")}, {"tier": "weekly"}],
)
def test_what_cannot_be_read_back_is_not_written(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        dump(replace(whole(), **change))


def test_drill() -> None:
    table = DrillTable("public.order", 7, False, "its content hash differs")
    drill = Drill(whole().id, START, False, 12.5, 180004, (table,), ("a sequence",), (Omitted("x", "y"),))
    assert drill_key(drill) == f"backups/{drill.id}/drill_20250101_120000.json"
    assert load_drill(dump_drill(drill), drill_key(drill)) == drill
    with pytest.raises(BackupDamaged, match="sha256"):
        load_drill(dump_drill(drill).replace(b"false", b"true"), drill_key(drill))
    with pytest.raises(BackupDamaged, match="that of"):
        load_drill(dump_drill(drill), "backups/backup_20250102_120000_daily/drill_20250101_120000.json")


def test_ids() -> None:
    east = START.astimezone(timezone(timedelta(hours=9)))
    assert backup_id(east, "manual") == "backup_20250101_120000_manual"
    assert id_parts("backup_20250101_120000_manual") == (START, "manual")
    for text in ("backup_20250101_120000_", "backup_20251301_120000_daily", "backup_20250101_120000_daily\n", "", ".."):
        with pytest.raises(ValueError):
            id_parts(text)


def test_chunk_keys() -> None:
    key = f"chunks/ab/{'ab' * 32}.gz"
    assert chunk_key("ab" * 32) == key
    assert is_chunk_key(key)
    assert not any(map(is_chunk_key, ["chunks/notes.txt", key.replace("/ab/", "/cd/"), key[:-3], f"x/{key}", ""]))
    for text in ("../" * 21 + "a", "", "AB" * 32):
        with pytest.raises(ValueError):
            chunk_key(text)


@given(st.binary(max_size=2000) | st.binary(max_size=20).map(lambda data: data * 50_000))
def test_others_read_what_we_compress(data: bytes) -> None:
    packed = compress(data)
    assert gzip.decompress(packed) == data
    assert decompress(packed, len(data)) == data
    assert fault(packed, hashlib.sha256(data).hexdigest(), len(data)) == ""
    assert compress(data) == packed


def test_zcat_reads_what_we_compress() -> None:
    data = bytes(range(256)) * 5_000
    assert subprocess.run(["zcat"], input=compress(data), capture_output=True, check=True).stdout == data


def test_we_read_what_others_compress() -> None:
    """Content counts for reading; only verification wants the seal."""
    data = b"made by hand" * 10
    assert decompress(gzip.compress(data), len(data)) == data
    assert "header" in fault(gzip.compress(data), hashlib.sha256(data).hexdigest(), len(data))


@pytest.mark.parametrize("data", [b"", b"x", b"a text that repeats, a text that repeats" * 3, os.urandom(300)])
def test_every_bit_of_an_object_counts(data: bytes) -> None:
    packed, sha256 = compress(data), hashlib.sha256(data).hexdigest()
    for bit in range(len(packed) * 8):
        changed = bytearray(packed)
        changed[bit // 8] ^= 1 << bit % 8
        assert fault(bytes(changed), sha256, len(data)), f"bit {bit}"
    for length in range(len(packed)):
        assert fault(packed[:length], sha256, len(data)), f"cut after {length}"
    assert fault(packed + b"\0", sha256, len(data))
    assert fault(packed + packed, sha256, len(data))
    assert fault(packed, hashlib.sha256(b"other").hexdigest(), len(data)) == "its content does not match its SHA-256"


def test_a_bomb_is_refused() -> None:
    import tracemalloc

    bomb = compress(bytes(200_000_000))
    assert len(bomb) < 2_000_000
    tracemalloc.start()
    with pytest.raises(BackupDamaged, match=r"chunks/x holds more than the 1,000 bytes"):
        decompress(bomb, 1000, "chunks/x")
    assert "more than" in fault(bomb, "0" * 64, 199_999_999)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cut off"), (compress(b"x" * 100)[:-3], "cut off|whole"), (compress(b"x" * 100) + b"more", "4 bytes after its end"),
        (compress(b"x" * 99), "holds 99 bytes, its manifest says 100"), (b"no gzip at all, but a text", "no whole gzip"),
    ],
)  # fmt: skip
def test_objects_that_do_not_fit(data: bytes, words: str) -> None:
    with pytest.raises(BackupDamaged, match=words):
        decompress(data, 100, "chunks/x")


def test_the_example_in_the_docs_is_a_manifest() -> None:
    page = (Path(__file__).parents[2] / "docs" / "backup-format.md").read_text(encoding="utf-8")
    example = page.partition("```json file=manifest.json\n")[2].partition("```")[0]
    assert load(example.encode(), manifest_key(whole().id)) == whole()


def test_the_header_in_the_docs_is_what_is_written() -> None:
    page = (Path(__file__).parents[2] / "docs" / "backup-format.md").read_text(encoding="utf-8")
    written = compress(b"x")
    for place, value in ((slice(0, 10), "1f 8b 08 04 00 00 00 00 00 ff"), (slice(10, 16), "08 00 44 42 04 00")):
        assert f"`{value}`" in page
        assert written[place] == bytes.fromhex(value)
    assert written[16:20] == zlib.crc32(written[20:]).to_bytes(4, "little")
