"""The worker processes, seen from the one that starts them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dbops.backup.workers import Worker

pytestmark = pytest.mark.quick


def test_a_worker_that_was_killed_with_words_on_their_way() -> None:
    worker = Worker.__new__(Worker)
    worker.process = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    worker.process.wait()
    assert worker.process.stdin
    worker.process.stdin.write(b"a task")
    with worker:
        pass
    assert worker.process.stdin.closed
