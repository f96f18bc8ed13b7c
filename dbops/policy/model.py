"""What a definition file says: who owns the rows of a table and who else may do what with them.

These classes are the format: docs/policy-format.md is generated from their fields and docstrings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Verb = Literal["select", "insert", "update", "delete"]
VERBS: tuple[Verb, ...] = ("select", "insert", "update", "delete")
# policies of this prefix are written by dbops and by nobody else
PREFIX = "dbops_"
# helpers and triggers' functions: executable by users, but in a schema that they can't look into
HELPERS = "dbops_policy"


@dataclass(frozen=True, order=True)
class Name:
    """A qualified name, unquoted: `Name("public", "user_memories")`."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class Auth:
    """How a session says who it is. `auth = "supabase"` reads auth.uid(); `auth = "guc:app.user_id"` a setting.

    `user_role` and `anon_role` are the roles that users and visitors act as.
    """

    setting: str = ""  # empty for supabase
    user_role: str = "authenticated"
    anon_role: str = "anon"

    @property
    def supabase(self) -> bool:
        return not self.setting


@dataclass(frozen=True)
class Tenant:
    """Rows belong to a tenant: `column` names it, `members` says who is one of it.

    `members` has the columns `user` (default user_id), `tenant` (default the name of `column`) and `role` (default
    role; "" where members have no roles).
    """

    column: str
    members: Name
    user: str = "user_id"
    tenant: str = ""
    role: str = "role"


@dataclass(frozen=True)
class Shared:
    """Rows for which `when` holds are open to the roles `to`, for these verbs, whoever owns them."""

    when: str
    verbs: tuple[Verb, ...] = ("select",)
    to: tuple[str, ...] = ()


@dataclass(frozen=True)
class Raw:
    """A policy as it stands, for what the rest cannot say. It may narrow what the table's other keys allow.

    What it opens beyond them is reported by the attack as a leak.
    """

    name: str
    permissive: bool = True
    verb: Literal["all", "select", "insert", "update", "delete"] = "all"
    to: tuple[str, ...] = ("authenticated",)
    using: str | None = None
    check: str | None = None


@dataclass(frozen=True)
class TableRules:
    """One table: RLS is enabled and forced, and users may do what is said here and nothing else.

    `owner`: the column that holds the user's id; `verbs`: what an owner may do (default all four).
    `immutable`: columns that a user may set and never change. `tenant` and `roles` (a verb to the members' roles that
    may, none means all members): a row is a tenant's. `shared`: open rows. `service`: roles that may do everything.
    `closed`: no user may do anything.
    """

    name: Name
    path: Path
    line: int = 0
    owner: str | None = None
    verbs: tuple[Verb, ...] = VERBS
    immutable: tuple[str, ...] = ()
    tenant: Tenant | None = None
    roles: Mapping[Verb, tuple[str, ...]] = field(default_factory=dict)
    shared: tuple[Shared, ...] = ()
    service: tuple[str, ...] = ()
    raw: tuple[Raw, ...] = ()
    closed: bool = False


@dataclass(frozen=True)
class Verbatim:
    """A file `policies/*.sql`, applied as it is when its text has changed since it was last applied."""

    path: Path
    text: str
    checksum: str


@dataclass(frozen=True)
class Definitions:
    """All files of a folder. A view that is to keep its owner's rights is named in `definer_views` with a reason."""

    auth: Auth
    tables: Mapping[Name, TableRules]
    verbatim: tuple[Verbatim, ...] = ()
    definer_views: Mapping[Name, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
