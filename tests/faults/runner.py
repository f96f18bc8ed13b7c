"""A run in a process of its own: it writes its events into a file and kills itself at the one numbered `last`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from dbops.config import Settings
from dbops.migrate import Event, MigrationManager


def main(url: str, folder: str, command: str, log: str, last: str) -> None:
    seen = 0
    with open(log, "a", encoding="utf-8") as file:

        def observe(event: Event) -> None:
            nonlocal seen
            file.write(f"{event.what} {event.version} {event.step}\n")
            file.flush()
            if seen == int(last):
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

        settings = Settings(url=url, migrations=Path(folder), wait=60.0)
        manager = MigrationManager(settings=settings, observer=observe)
        manager.migrate_up() if command == "up" else manager.migrate_down(to="0")


if __name__ == "__main__":
    main(*sys.argv[1:])
