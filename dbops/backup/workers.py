"""The worker processes of `create`, seen from the process that starts them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any

from dbops.backup.copying import Setup, Stored, Task
from dbops.errors import DbopsError

_PROGRAM = "from dbops.backup.copying import main; main()"


class Worker:
    """One worker process. As a context manager: it is gone at the end, whatever happened."""

    def __init__(self, setup: Setup) -> None:
        # imported from where we were: a folder that holds another dbops must not come in between
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-P", "-c", _PROGRAM]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self._send(setup)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        # closes its pipes, whatever is left in them, and waits for its end
        with suppress(BrokenPipeError), self.process:
            pass

    def ready(self) -> None:
        """Wait until it has the snapshot and its locks. Raises what it raised: Moved, CannotConnect."""
        self._receive()

    def run(self, task: Task) -> list[Stored]:
        """Have a task done. Raises what the worker raised."""
        self._send(task)
        stored: list[Stored] = self._receive()
        return stored

    def _send(self, value: object) -> None:
        assert self.process.stdin is not None
        try:
            pickle.dump(value, self.process.stdin)
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # its last words, or their absence, are told by _receive

    def _receive(self) -> Any:
        assert self.process.stdout is not None
        try:
            answer = pickle.load(self.process.stdout)
        except (EOFError, pickle.UnpicklingError):
            raise DbopsError(
                f"a worker process of the backup ended by itself (exit code {self.process.wait()})",
                hint="no backup was written; its words are above; what was stored is used by the next run",
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def stored(setup: Setup, tasks: Iterable[Task], workers: list[Worker]) -> Iterator[Stored]:
    """The chunks of all tasks, as they come. Raises what the first worker to fail raised."""
    results: SimpleQueue[list[Stored] | BaseException | None] = SimpleQueue()
    waiting = deque(tasks)
    threads = [Thread(target=_feed, args=(worker, waiting, results), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    running = len(threads)
    while running:
        result = results.get()
        if isinstance(result, BaseException):
            raise result
        if result is None:
            running -= 1
        else:
            yield from result


def _feed(worker: Worker, waiting: deque[Task], results: SimpleQueue[list[Stored] | BaseException | None]) -> None:
    try:
        while waiting:
            try:
                task = waiting.popleft()
            except IndexError:  # another thread was faster
                break
            results.put(worker.run(task))
        results.put(None)
    except BaseException as error:
        results.put(error)


def started(stack: ExitStack, setup: Setup, count: int) -> list[Worker]:
    """That many workers, all of them starting at once, ended with the stack."""
    return [stack.enter_context(Worker(setup)) for _ in range(count)]
