"""The attack: what the definitions allow, tried on a scratch database by those whom they do not allow it."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbops.database import Connection
    from dbops.policy.attack.result import Mutants, Report
    from dbops.policy.model import Definitions, Name
    from dbops.policy.state import Catalog


def attack(
    conn: Connection,
    definitions: Definitions,
    catalog: Catalog,
    *,
    server_version: str,
    server_kind: str,
    seed: int = 0,
    verbs: Collection[str] | None = None,
    tables: Collection[Name] | None = None,
) -> Report:
    """Attack every table that has a definition or that a user can reach. Everything is rolled back.

    `conn` is a superuser's, in autocommit, to a *scratch* database that has the schema, the policies and the grants.
    `catalog` was read from it. `verbs` and `tables` narrow the attack (None: all). The oracle is what the definitions
    say, never what a policy says (https://www.postgresql.org/docs/current/ddl-rowsecurity.html).
    Raises DbopsError where the attack itself cannot be carried out.
    """
    from dbops.policy.attack.run import attack as run

    return run(
        conn,
        definitions,
        catalog,
        server_version=server_version,
        server_kind=server_kind,
        seed=seed,
        verbs=verbs,
        tables=tables,
    )


def attack_mutants(
    conn: Connection,
    definitions: Definitions,
    catalog: Catalog,
    *,
    seed: int = 0,
    tables: Collection[Name] | None = None,
) -> Mutants:
    """Weaken each policy of a defined table in turn and demand that the attack notices. Everything is rolled back."""
    from dbops.policy.attack.mutate import attack_mutants as run

    return run(conn, definitions, catalog, seed=seed, tables=tables)
