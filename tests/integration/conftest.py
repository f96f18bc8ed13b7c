"""A project of one test: its folder of migrations and its manager."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dbops.config import Settings
from dbops.migrate import Event, MigrationManager


class Project:
    """A folder of migrations and a database."""

    def __init__(self, root: Path, url: str, scratch_url: str) -> None:
        self.folder = root / "migrations"
        self.folder.mkdir(exist_ok=True)
        self.events: list[Event] = []
        self.settings = Settings(url=url, root=root, migrations=self.folder, scratch_url=scratch_url, wait=20.0)

    @property
    def manager(self) -> MigrationManager:
        return MigrationManager(settings=self.settings, observer=self.events.append)

    def write(self, version: int | str, up: str, down: str | None = None, name: str = "m", options: str = "") -> Path:
        """Write a migration; a number becomes a version."""
        if isinstance(version, int):
            version = f"20250101_{version:06}"
        path = self.folder / f"{version}_{name}.sql"
        path.write_text(f"-- migrate:up{options}\n{up}\n" + (f"\n-- migrate:down\n{down}\n" if down else ""))
        return path

    def told(self, what: str) -> list[Event]:
        return [event for event in self.events if event.what == what]


@pytest.fixture
def project(tmp_path: Path, empty_url: str, server: object) -> Project:
    """A project on a fresh, empty database; proofs run on the same server."""
    return Project(tmp_path, empty_url, server.url)  # type: ignore[attr-defined]


MakeProject = Callable[..., Project]
