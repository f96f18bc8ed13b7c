"""What a database has of policies, as found in the catalog and as wanted by the definitions. Frozen values, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from dbops.policy.model import Name

PolicyVerb = Literal["all", "select", "insert", "update", "delete"]
# a role or "public" to what it may: SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER, MAINTAIN (17+)
Grants = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Policy:
    """A policy. Expressions are as written in a definition, or as PostgreSQL prints them (pg_get_expr)."""

    table: Name
    name: str
    permissive: bool
    verb: PolicyVerb
    roles: tuple[str, ...]  # sorted; ("public",) for all
    using: str | None
    check: str | None


@dataclass(frozen=True)
class Column:
    name: str
    type: str  # format_type
    not_null: bool
    writable: bool  # neither generated nor an identity ALWAYS


@dataclass(frozen=True)
class Key:
    """A unique index or a foreign key, with its columns; `refers_to` is empty for a unique one."""

    name: str
    columns: tuple[str, ...]
    refers_to: Name | None = None
    foreign_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trigger:
    table: Name
    name: str
    definition: str  # pg_get_triggerdef, or the statement that makes it


@dataclass(frozen=True)
class Table:
    """An ordinary or partitioned table (also a foreign one: `kind` is r, p or f)."""

    name: Name
    oid: int
    kind: str
    owner: str
    rls: bool
    forced: bool
    columns: tuple[Column, ...]
    partition_of: Name | None = None
    indexed: tuple[tuple[str, ...], ...] = ()  # the columns of each valid, unconditional index
    unique: tuple[Key, ...] = ()
    foreign: tuple[Key, ...] = ()
    grants: Grants = field(default_factory=dict)
    column_grants: Mapping[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)  # column -> role -> what

    def column(self, name: str) -> Column | None:
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True)
class View:
    name: Name
    oid: int
    materialized: bool
    owner: str
    security_invoker: bool
    reads: tuple[Name, ...]  # the tables that it reads, also through other views
    grants: Grants = field(default_factory=dict)


@dataclass(frozen=True)
class Function:
    """A function of a user's schema, procedures too. `arguments` as pg_get_function_identity_arguments prints them."""

    name: Name
    oid: int
    arguments: str
    returns: str
    kind: str  # f, p, a, w
    definer: bool
    owner: str
    settings: tuple[str, ...]  # proconfig
    volatile: str  # i, s, v
    executable_by: frozenset[str]  # roles and "public"
    definition: str = ""  # pg_get_functiondef of those in `HELPERS`


@dataclass(frozen=True)
class Role:
    name: str
    superuser: bool
    bypasses: bool
    member_of: frozenset[str]  # all the roles that it can become (SET ROLE) or inherits from, itself left out


@dataclass(frozen=True)
class Catalog:
    """What was found in the schemas that are looked at (PostgreSQL's own, and `dbops`, are left out)."""

    version: int  # server_version_num
    database: str
    user: str
    tables: Mapping[Name, Table]
    views: Mapping[Name, View] = field(default_factory=dict)
    functions: tuple[Function, ...] = ()
    policies: tuple[Policy, ...] = ()
    triggers: tuple[Trigger, ...] = ()  # those that dbops made (PREFIX)
    roles: Mapping[str, Role] = field(default_factory=dict)
    verbatim: Mapping[str, str] = field(default_factory=dict)  # file name -> checksum as last applied
    verbatim_policies: frozenset[tuple[Name, str]] = frozenset()  # made by those files
    recorded: Mapping[str, tuple[Policy, ...]] = field(default_factory=dict)  # by file name, as it left them

    @property
    def major(self) -> int:
        return self.version // 10000


@dataclass(frozen=True)
class Helper:
    """A function in the schema `HELPERS`: its name, and the whole CREATE OR REPLACE FUNCTION statement."""

    name: str
    arguments: str  # identity arguments, e.g. "roles text[]"
    statement: str
    execute: tuple[str, ...]  # roles that may call it


@dataclass(frozen=True)
class Proposal:
    """An index that a policy needs and the table lacks. `statement` builds it CONCURRENTLY."""

    table: Name
    columns: tuple[str, ...]
    statement: str
    reason: str


@dataclass(frozen=True)
class WantedTable:
    """How a table is to be. `privileges`: what the user and anon roles need (granted where it is missing)."""

    name: Name
    policies: tuple[Policy, ...]
    triggers: tuple[Trigger, ...]
    grants: Grants
    # what is taken from these roles, PUBLIC included: what no policy holds back, and what no rule allows
    revokes: Grants
    source: str  # `policies/memory.toml:12`, for errors


@dataclass(frozen=True)
class Wanted:
    """What the definitions ask of a database: RLS is enabled and forced on each of `tables`."""

    tables: Mapping[Name, WantedTable]
    helpers: tuple[Helper, ...] = ()
    invoker_views: tuple[Name, ...] = ()
    proposals: tuple[Proposal, ...] = ()
    notes: tuple[str, ...] = ()
