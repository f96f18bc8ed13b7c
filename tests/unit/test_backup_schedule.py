"""The texts that `backup schedule` writes, and the ping that its jobs send."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from dbops.backup.heartbeat import Moment, address, moment_of, ping
from dbops.backup.schedule import KINDS, VARIABLES, Heartbeat, Kind, Place, Unit, When, schedule
from dbops.errors import UsageError

pytestmark = pytest.mark.quick
GOLDEN = Path(__file__).parent / "golden"
PLACE = Place("/srv/shop", "/opt/dbops/bin/dbops")
BEAT = Heartbeat("https://hc.example/ping/secret-1", "https://hc.example/ping/secret-2")


def units(kind: Kind, **options: object) -> tuple[Unit, ...]:
    return schedule(kind, PLACE, When(), heartbeat=BEAT, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_the_texts(kind: Kind) -> None:
    text = "".join(f"==> {unit.name} <==\n{unit.text}" for unit in units(kind))
    path = GOLDEN / f"backup_schedule_{kind}.txt"
    if os.environ.get("DBOPS_TEST_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_secret_stands_in_the_variables_only(kind: Kind) -> None:
    *files, variables = units(kind)
    assert variables.name == VARIABLES
    assert "secret-1" in variables.text
    assert "secret-2" in variables.text
    assert not [unit.name for unit in files if "secret-" in unit.text]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_runs_the_same_commands(kind: Kind) -> None:
    text = "\n".join(unit.text for unit in units(kind, sample=0.25))
    for command in ("create --tier auto", "verify --all --sample 0.25", "prune --yes", "drill latest", "ping start"):
        assert f"/opt/dbops/bin/dbops backup {command}" in text


FAKE = """#!/bin/sh
echo "$*" >> "$LOG"
[ "$2" != "$FAILS" ] || exit 13
"""


def run_line(tmp_path: Path, line: str, fails: str) -> tuple[int, list[str]]:
    """Run a crontab's line as cron does, with a program that writes down how it is called."""
    log = tmp_path / "log"
    done = subprocess.run(["/bin/sh", "-c", line], env={"LOG": str(log), "FAILS": fails}, check=False)
    return done.returncode, log.read_text().splitlines()


@pytest.mark.parametrize(
    ("fails", "code", "called"),
    [
        ("", 0, ["ping start", "create --tier auto", "verify --all --sample 0.05", "prune --yes", "ping 0"]),
        ("verify", 13, ["ping start", "create --tier auto", "verify --all --sample 0.05", "ping 13"]),
    ],
)
def test_the_crontabs_line_stops_at_a_failure_and_tells_it(
    tmp_path: Path, fails: str, code: int, called: list[str]
) -> None:
    program, variables = tmp_path / "dbops", tmp_path / "backup.env"
    program.write_text(FAKE)
    program.chmod(0o700)
    place = Place(str(tmp_path), str(program), str(variables))
    crontab, file = schedule("cron", place, When("23:05", "00:00", "wed"))
    variables.write_text(file.text)
    comment, nightly, drill = crontab.text.splitlines()
    assert comment.startswith("#")
    assert nightly.startswith("5 23 * * * ")
    assert drill.startswith("0 0 * * 3 ")
    assert run_line(tmp_path, nightly.split(" ", 5)[5], fails) == (code, [f"backup {each}" for each in called])


def test_a_shell_reads_any_url_from_the_variables(tmp_path: Path) -> None:
    url = "https://hc.example/p?a=1&b=$HOME`id`;x"
    file = schedule("cron", PLACE, When(), heartbeat=Heartbeat(url))[-1]
    (tmp_path / "env").write_text(file.text)
    done = subprocess.run(
        ["/bin/sh", "-c", f'. {tmp_path}/env; printf %s "$DBOPS_HEARTBEAT"'], capture_output=True, check=True
    )
    assert done.stdout.decode() == url


@pytest.mark.parametrize(
    ("place", "when", "beat", "named"),
    [
        (PLACE, When("24:00"), BEAT, "24:00"),
        (PLACE, When("2:30"), BEAT, "2:30"),
        (PLACE, When(drill_day="sunday"), BEAT, "sunday"),
        (Place("/srv/my shop"), When(), BEAT, "/srv/my shop"),
        (Place("/srv", "dbops; rm -rf /"), When(), BEAT, "rm -rf"),
        (Place("/srv", image="x\ny"), When(), BEAT, "x"),
        (Place("/srv/100%"), When(), BEAT, "100%"),
        (PLACE, When(), Heartbeat("file:///etc/passwd"), "http"),
        (PLACE, When(), Heartbeat("https://hc.example/'x"), "http"),
    ],
)
def test_what_the_files_cannot_carry_is_refused(place: Place, when: When, beat: Heartbeat, named: str) -> None:
    for kind in KINDS:
        with pytest.raises(UsageError, match=named):
            schedule(kind, place, when, heartbeat=beat)


class Monitor(BaseHTTPRequestHandler):
    """Writes down what is asked for; `/broken` fails."""

    paths: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.paths.append(self.path)
        self.send_response(500 if "broken" in self.path else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def monitor() -> Iterator[str]:
    Monitor.paths.clear()
    with HTTPServer(("127.0.0.1", 0), Monitor) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class TestPing:
    def test_each_moment_has_its_path(self, monitor: str) -> None:
        moments: tuple[Moment, ...] = ("start", "success", "fail")
        assert [ping(f"{monitor}/check/", moment) for moment in moments] == ["", "", ""]
        assert Monitor.paths == ["/check/start", "/check", "/check/fail"]

    def test_a_query_stays_behind_the_path(self) -> None:
        assert address("https://hc.example/p/1?rid=2", "fail") == "https://hc.example/p/1/fail?rid=2"

    @pytest.mark.parametrize(
        "url", ["{}/broken/secret", "http://127.0.0.1:1/secret", "nonsense-secret", "http://[secret"]
    )
    def test_what_fails_is_told_without_the_url_and_is_no_error(self, monitor: str, url: str) -> None:
        told = ping(url.format(monitor), "success")
        assert "did not get through" in told
        assert "secret" not in told

    @pytest.mark.parametrize(
        ("word", "moment"),
        [("start", "start"), ("success", "success"), ("0", "success"), ("13", "fail"), ("oom-kill", "fail")],
    )
    def test_words_of_systemd_and_sh(self, word: str, moment: Moment) -> None:
        assert moment_of(word) == moment
