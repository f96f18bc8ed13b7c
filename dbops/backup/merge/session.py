"""The connection that a comparison works on: temporary tables live as long as it does, and vanish with it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from dbops.backup.merge.catalog import ROOM, Catalog, ForeignKey, LiveTable, read_catalog
from dbops.backup.model import Name
from dbops.config import Settings
from dbops.database import connect, endless, local_settings, require_bypass, seeing_all, server_of, translated
from dbops.errors import UnfitServer
from dbops.sql import queries

if TYPE_CHECKING:
    from dbops.database import Connection, Server


class Session:
    """A direct connection to a primary as a role that sees all rows, and the catalog that was read with it."""

    def __init__(self, conn: Connection, server: Server, settings: Settings, url: str) -> None:
        self.conn, self.server, self.settings, self.url = conn, server, settings, url
        self._within = False
        self.catalog = self.read_catalog()

    def read_catalog(self) -> Catalog:
        with seeing_all(self.conn, self.server.major):
            self.conn.execute("SET LOCAL search_path = ''")
            return read_catalog(self.conn)

    @contextmanager
    def transaction(self, *, read_only: bool = False, settings: Mapping[str, str] | None = None) -> Iterator[None]:
        """A transaction in which values read as text the same everywhere, and too few rights are an error.

        Temporary tables can be filled in a read-only one, and nothing else can be written, whatever is called in it.
        """
        with translated(), self.conn.transaction():
            if self._within:
                # what is SET LOCAL here would last beyond this part: the lock_timeout of the whole would be gone
                if read_only:
                    self.conn.execute("SET TRANSACTION READ ONLY")
                yield
                return
            values = endless(self.server.major) | self._notice | {"row_security": "off"} | dict(settings or {})
            self.conn.execute(local_settings(values).encode())
            self.conn.execute(queries(ROOM)["pin"], {})
            if self.settings.search_path:
                self._set_path()
            if read_only:
                self.conn.execute("SET TRANSACTION READ ONLY")
            self._within = True
            try:
                yield
            finally:
                self._within = False

    @cached_property
    def _notice(self) -> dict[str, str]:
        """Where the server can see that its client has gone, a statement of a run that was killed ends soon."""
        row = self.conn.execute(queries(ROOM)["notices_gone_client"], {}).fetchone()
        return {"client_connection_check_interval": "200ms"} if row == (True,) else {}

    def altered(self, names: Collection[Name]) -> bool:
        """Whether these tables or their foreign keys are other ones than when the session began."""
        with translated(), self.conn.transaction(force_rollback=True):
            self.conn.execute("SET LOCAL search_path = ''")
            now = read_catalog(self.conn)
        return _part(now, names) != _part(self.catalog, names)

    def _set_path(self) -> None:
        from psycopg import sql

        parts = [part.strip().strip('"') for part in self.settings.search_path.split(",") if part.strip()]
        names = sql.SQL(", ").join(sql.Identifier(part) for part in parts)
        self.conn.execute(sql.SQL("SET LOCAL search_path = {}").format(names))


def _part(catalog: Catalog, names: Collection[Name]) -> tuple[list[LiveTable | None], list[ForeignKey]]:
    keys = [key for key in catalog.foreign_keys if key.child in names or key.parent in names]
    return [catalog.tables.get(name) for name in names], keys


@contextmanager
def opened(url: str, settings: Settings, purpose: str) -> Iterator[Session]:
    """A session for `purpose`. Raises NotAllowed where rows would be hidden, UnfitServer for a standby or a pooler."""
    import psycopg

    with closing(connect(url, purpose)) as conn:
        # whatever the role's defaults are
        conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        conn.read_only = False
        server = server_of(conn)
        if server.standby:
            raise UnfitServer(
                f"{server.database} is a read-only standby: rows cannot be loaded there to compare them",
                hint="give the primary's URL; nothing was done",
            )
        if server.pooled:
            raise UnfitServer(
                "a pooler stands between: the temporary tables of a comparison would reach other clients",
                hint="give the URL of the server itself; nothing was done",
            )
        with translated():
            require_bypass(conn, server)
        yield Session(conn, server, settings, url)
