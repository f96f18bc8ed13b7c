"""A real S3 server: Ceph's RGW over one monitor and one OSD in memory, without root's services or containers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin", "rados")
MISSING = [name for name in PROGRAMS if not shutil.which(name)]
ACCESS, SECRET, USER = "CEPHACCESS", "ceph+secret/key", "dbops"

CONF = """
[global]
fsid = {fsid}
mon host = [v1:127.0.0.1:{mon}]
mon initial members = a
auth cluster required = none
auth service required = none
auth client required = none
run dir = {folder}
pid file = {folder}/$name.pid
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
crash dir = {folder}
keyring = {folder}/keyring
osd objectstore = memstore
memstore device bytes = 2147483648
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
mon allow pool size one = true
mon warn on pool no redundancy = false
mon data avail crit = 1
ms bind msgr2 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
# a quota counts at once
rgw bucket quota ttl = 0
erasure code dir = {libraries}/ceph/erasure-code
osd class dir = {libraries}/rados-classes
plugin dir = {libraries}/ceph
rgw frontends = beast endpoint=127.0.0.1:{rgw}
[mon.a]
mon data = {folder}/mon
mon addr = 127.0.0.1:{mon}
[osd.0]
osd data = {folder}/osd
"""


@dataclass
class Ceph:
    """A running cluster. `url` is its S3 endpoint."""

    folder: Path
    url: str
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    options: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def run(self, *command: str, data: bytes | None = None, tries: int = 20) -> str:
        done = subprocess.run(
            [command[0], "-c", str(self.folder / "ceph.conf"), *command[1:]],
            input=data, capture_output=True, timeout=60, check=False, env=self._environment(),
        )  # fmt: skip
        # a client that is faster than the monitor's map is refused: "wrong fsid"
        if b"EPERM" in done.stderr and tries:
            time.sleep(0.2)
            return self.run(*command, data=data, tries=tries - 1)
        assert done.returncode == 0, f"{command}: {done.stderr.decode(errors='replace')[-2000:]}"
        return done.stdout.decode()

    def admin(self, *words: str) -> str:
        return self.run("radosgw-admin", "-n", "client.rgw", *words)

    def start(self, program: str, *options: str) -> None:
        self.options[program] = options
        command = [program, "-c", str(self.folder / "ceph.conf"), "-f", *options]
        with (self.folder / f"{program}.out").open("wb") as out:
            self.processes[program] = subprocess.Popen(command, stdout=out, stderr=out, env=self._environment())

    def start_again(self, reason: str) -> None:
        """Start what gave up for this reason anew."""
        for name, process in list(self.processes.items()):
            if process.poll() is not None and reason in (self.folder / f"{name}.out").read_text(errors="replace"):
                self.start(name, *self.options[name])

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "CEPH_CONF": str(self.folder / "ceph.conf")}

    def rot(self, key: str) -> None:
        """Change bytes of the objects whose key ends so, in whatever bucket, in the storage below the server."""
        pool = "default.rgw.buckets.data"
        names = [each for each in self.run("rados", "-p", pool, "ls").splitlines() if each.endswith(key)]
        assert names, f"nothing to rot: {key}"
        for name in names:
            self.run("rados", "-p", pool, "put", name, "-", "--offset", "12", data=b"rotten")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The server takes connections and does not answer."""
        self.processes["radosgw"].send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.processes["radosgw"].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        for process in reversed(self.processes.values()):
            process.kill()
            process.wait()


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def ceph(folder: Path) -> Iterator[Ceph]:
    """A cluster that is gone afterwards, with the user whose keys are ACCESS and SECRET."""
    rgw, mon, fsid = _port(), _port(), str(uuid.uuid4())
    program = shutil.which("ceph-osd")
    assert program
    # beside the programs, wherever the packages were unpacked
    [libraries] = {each.parent for each in Path(program).parents[1].glob("lib*/**/rados-classes")}
    (folder / "ceph.conf").write_text(CONF.format(folder=folder, fsid=fsid, mon=mon, rgw=rgw, libraries=libraries))
    for name in ("mon", "osd"):
        (folder / name).mkdir()
    cluster = Ceph(folder, f"http://127.0.0.1:{rgw}")
    monmap = str(folder / "monmap")
    try:
        address = f"[v1:127.0.0.1:{mon}]"
        subprocess.run(
            ["monmaptool", "--create", "--addv", "a", address, "--fsid", fsid, monmap], check=True, capture_output=True
        )
        cluster.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
        cluster.start("ceph-mon", "-i", "a")
        cluster.run("ceph", "--connect-timeout", "30", "osd", "create")
        cluster.run("ceph-osd", "-i", "0", "--mkfs")
        cluster.start("ceph-osd", "-i", "0")
        _wait(lambda: json.loads(cluster.run("ceph", "osd", "stat", "-f", "json"))["num_up_osds"] == 1, cluster)
        cluster.start("radosgw", "-n", "client.rgw")
        _wait(lambda: _answers(cluster.url), cluster)
        keys = ("--access-key", ACCESS, "--secret-key", SECRET)
        cluster.admin("user", "create", "--uid", USER, "--display-name", USER, *keys)
        yield cluster
    finally:
        cluster.stop()


def _wait(condition: object, cluster: Ceph) -> None:
    end = time.monotonic() + 90
    while not condition():  # type: ignore[operator]
        cluster.start_again("wrong fsid")
        dead = [name for name, process in cluster.processes.items() if process.poll() is not None]
        assert not dead, f"{dead} ended: " + (cluster.folder / f"{dead[0]}.out").read_text(errors="replace")[-2000:]
        assert time.monotonic() < end, "the cluster did not start"
        time.sleep(0.2)


def _answers(url: str) -> bool:
    with suppress(OSError, HTTPError), urlopen(url, timeout=5) as answer:
        return bool(answer.status)
    return False
