"""What every store must do, small backups to put into one, and an S3 server with a proxy that spoils its answers."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dbops.backup.manifest import dump
from dbops.backup.model import SCHEMA, Chunk, Column, Manifest, Name, Object, Table, Tier
from dbops.backup.objects import backup_id, chunk_key, compress, manifest_key, object_key
from dbops.backup.store import Store
from dbops.errors import LockHeld, ObjectMissing, UsageError

START = datetime(2025, 1, 1, 12, tzinfo=UTC)


def manifest_of(
    at: datetime = START, tier: Tier = "daily", rows: Sequence[bytes] = (), database: str = "shop", **more: object
) -> Manifest:
    """A manifest of one table, whose chunks hold `rows`, and a schema."""
    chunks = tuple(
        Chunk(hashlib.sha256(data).hexdigest(), 1, len(data), len(compress(data)), n, n + 1)
        for n, data in enumerate(rows)
    )
    columns = (Column("id", "bigint", not_null=True, identity="a"), Column("text", "pg_catalog.text"))
    table = Table(Name("public", "order"), "table", columns, ("id",), "binary", 1, len(rows), "0" * 32, chunks)
    schema = f"create table {database}".encode()
    beside = Object(SCHEMA, hashlib.sha256(schema).hexdigest(), len(schema), len(compress(schema)))
    values = {
        "id": backup_id(at, tier), "tier": tier, "created_at": at, "database": database,
        "system_identifier": "7300000000000000001", "server_version": 180004, "pg_dump_version": "18.4",
        "dbops_version": "0.1.0", "encoding": "UTF8", "extensions": {"vector": "0.8.5"}, "roles": ("owner",),
        "tables": (table,), "sequences": (), "objects": (beside,),
    }  # fmt: skip
    return Manifest(**values | more)  # type: ignore[arg-type]


def put_backup(store: Store, manifest: Manifest, rows: Sequence[bytes]) -> Manifest:
    """Write a backup of `manifest_of` as create does: chunks, what lies beside, the manifest last."""
    for data in rows:
        store.put(chunk_key(hashlib.sha256(data).hexdigest()), compress(data))
    store.put(object_key(manifest.id, SCHEMA), compress(f"create table {manifest.database}".encode()))
    store.put(manifest_key(manifest.id), dump(manifest))
    return manifest


class StoreContract:
    """Tests for a fixture `store`, empty at first, and one `python_store`: Python that makes the same one."""

    # the time between two that the store must tell apart, seconds
    tick = 1.1

    @pytest.mark.parametrize("data", [b"", b"\0\xff\r\n", bytes(range(256)) * 12_000], ids=["empty", "bytes", "3 MB"])
    def test_what_is_put_is_got(self, store: Store, data: bytes) -> None:
        store.put("chunks/ab/some.gz", data)
        assert (store.get("chunks/ab/some.gz"), store.size("chunks/ab/some.gz")) == (data, len(data))

    def test_an_object_is_replaced(self, store: Store) -> None:
        store.put("a", b"a long text")
        store.put("a", b"short")
        assert store.get("a") == b"short"
        assert [(item.key, item.size) for item in store.list()] == [("a", 5)]

    def test_what_is_not_there(self, store: Store) -> None:
        assert list(store.list()) == []
        assert store.size("a/b") is None
        assert not store.touch("a/b")
        store.put("a", b"")  # a name that could be a folder's
        assert store.size("a/b") is None
        with pytest.raises(ObjectMissing, match="a/b") as caught:
            store.get("a/b")
        assert store.place in caught.value.message
        store.delete(["a/b", "c"])
        assert [item.key for item in store.list()] == ["a"]

    def test_listed_by_prefix(self, store: Store) -> None:
        keys = ["backups/b_1/x", "backups/b_10/x", "chunks/ab/1.gz", "chunks/ab/12.gz", "chunks/b/1.gz"]
        for key in keys:
            store.put(key, b"x")
        for prefix in ("", "b", "backups/", "backups/b_1", "backups/b_1/", "chunks/ab/1", "chunks/ab/1.gz", "c/", "no"):
            assert sorted(item.key for item in store.list(prefix)) == [key for key in keys if key.startswith(prefix)]

    def test_deleted(self, store: Store) -> None:
        for key in ("a/1", "a/2", "b/1"):
            store.put(key, b"x")
        store.delete(["a/1", "a/2"])
        assert [item.key for item in store.list()] == ["b/1"]
        store.put("a/1", b"y")
        assert store.get("a/1") == b"y"

    def test_touched_is_new(self, store: Store) -> None:
        store.put("a", b"kept")
        [before] = store.list()
        time.sleep(self.tick)
        assert store.touch("a")
        [after] = store.list()
        assert after.modified > before.modified
        assert after.modified.utcoffset() == UTC.utcoffset(None)
        assert store.get("a") == b"kept"

    @pytest.mark.parametrize(
        "key", ["", "/a", "../a", "a/../../b", "a/./b", "a//b", "a/", ".", ".locks/x", "a\\b", "a\nb", "a\0b", "a\x7f"]
    )
    def test_a_key_that_leads_elsewhere(self, store: Store, key: str) -> None:
        acts: list[Callable[[], object]] = [
            lambda: store.put(key, b""), lambda: store.get(key), lambda: store.size(key), lambda: store.touch(key),
            lambda: store.delete([key]),
        ]  # fmt: skip
        for act in acts:
            with pytest.raises(UsageError):
                act()
        assert list(store.list()) == []

    def test_whole_or_not_at_all(self, store: Store) -> None:
        """Two write, one reads: what is read was written by one of them."""
        texts = [bytes([65 + n]) * 200_000 for n in range(2)]
        store.put("a", texts[0])
        with ThreadPoolExecutor(3) as pool:
            writers = [pool.submit(lambda t=text: [store.put("a", t) for _ in range(8)]) for text in texts]
            while not all(each.done() for each in writers):
                assert store.get("a") in texts
            for each in writers:
                each.result()
        assert [item.key for item in store.list()] == ["a"]

    def test_a_lease_is_held_by_one(self, store: Store) -> None:
        with store.lease("create", 0):
            with (
                pytest.raises(LockHeld, match=f"'create'.*process {os.getpid()} on ") as caught,
                store.lease("create", 0),
            ):
                pass
            assert store.place in caught.value.message
            with store.lease("prune", 0):  # another name is another lease
                assert list(store.list()) == []
        with store.lease("create", 0):
            pass

    def test_a_lease_waits(self, store: Store) -> None:
        order = []
        began = threading.Event()

        def second() -> None:
            began.set()
            with store.lease("create", 60):
                order.append("second")

        with ThreadPoolExecutor(1) as pool:
            with store.lease("create", 0):
                waiting = pool.submit(second)
                began.wait()
                time.sleep(0.2)
                order.append("first")
            waiting.result()
        assert order == ["first", "second"]

    def test_a_lease_is_let_go_after_an_error(self, store: Store) -> None:
        with pytest.raises(ZeroDivisionError), store.lease("create", 0):
            raise ZeroDivisionError
        with store.lease("create", 0):
            pass

    def test_a_dead_holder_lapses(self, store: Store) -> None:
        with in_process(store, "with store.lease('create', 0):\n print('held', flush=True)\n time.sleep(600)") as child:
            assert child.stdout
            assert child.stdout.readline() == "held\n"
            with pytest.raises(LockHeld, match=f"process {child.pid} on"), store.lease("create", 0):
                pass
            child.send_signal(signal.SIGKILL)
            child.wait()
            with store.lease("create", 60):
                pass

    def test_in_a_worker_process(self, store: Store) -> None:
        store.put("a", b"from here")
        with in_process(store, "store.put('b', store.get('a') + b' to there')") as child:
            assert child.wait() == 0
        assert store.get("b") == b"from here to there"


@contextmanager
def in_process(store: Store, code: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs `code` with the same store; killed at the end."""
    head = "import pickle, sys, time\nstore = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
    command = [sys.executable, "-c", head + code, pickle.dumps(store).hex()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as child:
        try:
            yield child
        finally:
            child.kill()


@contextmanager
def s3_server() -> Iterator[str]:
    """The URL of a server that speaks S3 and accepts any credential."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()
        assert server._server
        server._server.server_close()


class Proxy(ThreadingHTTPServer):
    """In front of an S3 server: `spoil` says for each request (method, path) what goes wrong, None for nothing.

    "503 Code" and the like answer so; "lost answer" does what was asked and says 500; "silent" never answers; "cut
    upload" loses the second half of a body and makes the length fit; "short answer" ends in the middle of a body;
    "deaf" takes the conditions out; "small pages" lists three objects at a time.
    """

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = target.removeprefix("http://")
        self.spoil: Callable[[str, str], str | None] = lambda method, path: None
        self.seen: list[tuple[str, str]] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def first(self, count: int, fault: str, method: str = "") -> None:
        """Spoil the first `count` requests from now on (of that method)."""
        left = [fault] * count
        self.spoil = lambda verb, path: left.pop() if left and verb.startswith(method) else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_: object) -> None: ...

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.command, self.path))
        fault = self.server.spoil(self.command, self.path) or ""
        if fault == "silent":
            self.server.released.wait(20)
            self.close_connection = True
            return
        if fault[:1].isdigit():
            status, code = fault.split(" ", 1)
            self._answer(int(status), {}, f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode())
            return
        headers = {name: value for name, value in self.headers.items() if name != "Expect"}
        if fault == "cut upload":
            body = body[: len(body) // 2]
            headers["Content-Length"] = str(len(body))
        if fault == "deaf":
            headers = {name: value for name, value in headers.items() if name not in ("If-None-Match", "If-Match")}
        if fault == "small pages" and "list-type" in self.path:
            self.path += "&max-keys=3"
        connection = HTTPConnection(self.server.target)
        connection.request(self.command, self.path, body or None, headers)
        answer = connection.getresponse()
        data, sent = answer.read(), dict(answer.getheaders())
        connection.close()
        if fault == "lost answer":
            self._answer(500, {}, b"<Error><Code>InternalError</Code></Error>")
            return
        if fault == "short answer":
            self._answer(answer.status, sent, data[: len(data) // 2], len(data))
        else:
            self._answer(answer.status, sent, data)

    def _answer(self, status: int, headers: dict[str, str], body: bytes, length: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        given = headers.get("Content-Length", headers.get("content-length", "0"))
        self.send_header("Content-Length", given if self.command == "HEAD" else str(length or len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = length is not None

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _any  # noqa: N815


@contextmanager
def proxied(target: str) -> Iterator[Proxy]:
    with Proxy(target) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield proxy
        finally:
            proxy.released.set()
            proxy.shutdown()
            thread.join()


def lock_text(**who: object) -> bytes:
    return json.dumps({"host": "elsewhere", "pid": 7, "since": "2025-01-01T00:00:00Z", "token": "t", **who}).encode()
