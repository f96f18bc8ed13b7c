"""The keys of a definition file: read.py reads by this list, and reference.py prints it."""

from __future__ import annotations

from dataclasses import dataclass

from dbops.policy.model import Auth, Raw, Shared, TableRules, Tenant


@dataclass(frozen=True)
class Key:
    """`name` as written in a file, the field of the model's class that it fills, its type, and what it means."""

    name: str
    field: str
    written: str
    meaning: str
    required: bool = False


TEXT, TEXTS, FLAG = "text", "list of texts", "true or false"
VERB_LIST = 'list of "select", "insert", "update", "delete"'

KEYS: dict[type, tuple[Key, ...]] = {
    Auth: (
        Key("auth", "setting", TEXT, '`"supabase"` reads `auth.uid()`; `"guc:app.user_id"` reads that setting'),
        Key("user_role", "user_role", TEXT, "the role that users act as"),
        Key("anon_role", "anon_role", TEXT, "the role that visitors act as; it need not exist where no rule names it"),
    ),
    TableRules: (
        Key("owner", "owner", TEXT, "the column that holds the user's id"),
        Key("verbs", "verbs", VERB_LIST, "what an owner may do with his rows"),
        Key("immutable", "immutable", TEXTS, "columns that a user sets when he inserts a row and never changes"),
        Key("tenant", "tenant", "table", "the rows belong to tenants, see [tenant](#tenant)"),
        Key(
            "roles",
            "roles",
            "table of verb = list of texts",
            "the members' roles that may do it. A verb that is not named: every member may, or, where the table also "
            'has an `owner`, the owner only. `["*"]`: every member may',
        ),
        Key("shared", "shared", "table, or list of tables", "rows that are open, see [shared](#shared)"),
        Key("service", "service", TEXTS, "roles that may do everything; never one that users act as"),
        Key("raw", "raw", "list of tables", "policies as they stand, see [raw](#raw)"),
        Key("closed", "closed", FLAG, "no user may do anything; stands alone"),
    ),
    Tenant: (
        Key("column", "column", TEXT, "the table's column that names the tenant", required=True),
        Key("members", "members", TEXT, 'the table that says who is a member, as `"public.members"`', required=True),
        Key("user", "user", TEXT, "its column with the user's id"),
        Key("tenant", "tenant", TEXT, "its column with the tenant, of the same type as `column` (default: its name)"),
        Key("role", "role", TEXT, 'its column with the member\'s role; `""` where members have none'),
    ),
    Shared: (
        Key("when", "when", TEXT, "a boolean expression over the table's columns", required=True),
        Key("verbs", "verbs", VERB_LIST, "what is open"),
        Key("to", "to", TEXTS, 'the roles (default: `user_role`)'),
    ),
    Raw: (
        Key("name", "name", TEXT, "the policy's name; `dbops_…` is reserved", required=True),
        Key("as", "permissive", '"permissive" or "restrictive"', "opens rows, or narrows what others open"),
        Key("for", "verb", '"all", "select", "insert", "update" or "delete"', "what it is about"),
        Key("to", "to", TEXTS, 'for whom (default: `user_role`); `"public"` is everybody'),
        Key("using", "using", TEXT, "which rows are seen, changed, deleted; not with `for = \"insert\"`"),
        Key("check", "check", TEXT, "which rows may be written; with insert, update and all"),
    ),
}  # fmt: skip
# fields that no key fills
OTHER_FIELDS = {TableRules: {"name", "path", "line"}}
