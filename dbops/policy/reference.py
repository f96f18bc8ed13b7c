"""The reference of the definition format, made from the model: docs/policy-format.md is what `reference()` returns.

`python -m dbops.policy.reference > docs/policy-format.md` writes it anew.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields

from dbops.policy.keys import KEYS, Key
from dbops.policy.model import Auth, Raw, Shared, TableRules, Tenant, Verbatim

EXAMPLE = """\
version = 1
auth = "supabase"

# notes are their author's, and nobody gives one away
[table."public.notes"]
owner = "user_id"
immutable = ["user_id"]

# a user reads what he may use, and the service says how much that is
[table."public.quotas"]
owner = "user_id"
verbs = ["select"]
service = ["service_role"]

# documents are their team's; what is published may be read by everybody
[table."public.documents"]
tenant = { column = "team_id", members = "public.members" }
roles = { select = ["*"], insert = ["editor"], update = ["editor"], delete = ["admin"] }
immutable = ["team_id"]
shared = { when = "visibility = 'public'", verbs = ["select"], to = ["anon", "authenticated"] }

[[table."public.documents".raw]]
name = "embargo"
as = "restrictive"
for = "select"
to = ["authenticated"]
using = "embargo_until is null or embargo_until < now()"

# who is in a team is read by himself, and written by the service only
[table."public.members"]
owner = "user_id"
verbs = ["select"]
service = ["service_role"]

[table."public.audit"]
closed = true

[view."public.team_sizes"]
definer = "counts of members are no secret, and no row comes out"
"""

_HEAD = """\
# Policy definitions

Row level security is declared in the folder that the setting `policies` names: all its `*.toml` files together, and
its `*.sql` files as they are. Names that begin with `.` or `_` are not read, nor are subfolders. Every mistake is
told with file, line, table and key, before anything is done.

<!-- made by python -m dbops.policy.reference, from dbops/policy/model.py and keys.py -->
"""

_COMBINED = """\
## What a table's keys mean together

- **`owner` alone**: a user may do `verbs` with the rows whose owner he is, and nothing with others. A row can't be
  given away: what is written must be his too.
- **`tenant` alone**: a member may do with his tenants' rows what `roles` allows; a verb that `roles` doesn't name,
  every member may.
- **`owner` and `tenant`**: nobody reaches beyond his tenants, owner or not. Within them a user may do `verbs` with
  his own rows, and what `roles` allows his role with everybody's. A verb that `roles` doesn't name is the owner's
  only. Who leaves a tenant loses his rows there.
- **`shared`** opens rows beside these, of any owner and any tenant. Where it opens `update`, make the owner's column
  `immutable`: whoever may write a row might else take it for his own.
- **`raw`, restrictive**, narrows all of it; **permissive**, it opens rows that no other key speaks of: the attack
  reports those.
- **`immutable`** holds for everybody whom row level security holds: an upsert that sets the column to its own value
  passes, and so does a role that passes by row level security (a restore). NULL is a value too.
- A user without an identity has no rows, and none of NULL either.
- PostgreSQL reads a row before it changes it: `update` and `delete` with a WHERE need `select` as well.

## What is made of it

For each table: ENABLE and FORCE ROW LEVEL SECURITY; one policy a verb and rule, named `dbops_…`, with its roles (TO)
and both USING and WITH CHECK written out; the identity in a subselect, evaluated once and not for each row. The user
and anon roles and PUBLIC keep exactly the privileges that the rules need: no TRUNCATE, REFERENCES, TRIGGER or
MAINTAIN, which no policy holds back. Where a verb was granted on chosen columns only, that choice stands. Privileges
on schemas and sequences are the migrations'.

A tenant's members are looked up by a SECURITY DEFINER function with an empty search_path in the schema
`dbops_policy`, which users can't look into; a restrictive policy `dbops_tenant_floor` keeps everything else within
their tenants. Partitions are closed to users, who come through the parent. Views over defined tables that users may
read get `security_invoker` (PostgreSQL 15 and later). Indexes that the policies need are proposed, and made by a
migration.

## `*.sql`

"""


def reference() -> str:
    """The reference as Markdown, with a complete example."""
    return "\n".join([_HEAD, "## An example", "", "```toml", f"{EXAMPLE}```", "", *_parts()])


def _parts() -> Iterator[str]:
    yield "## At the top of a file"
    yield f"\n{_said(Auth)} Each file may say it, and none something else. Also `version = 1`, the version of the format.\n"
    yield from _table(Auth)
    yield '\n## `[table."SCHEMA.TABLE"]`\n'
    yield f"{_said(TableRules)}\n"
    yield "Names are written as they are, letters' case included; a part that holds a dot or a quote stands in quotes:"
    yield """`[table.'"my.schema"."My Table"']`. No table is defined twice.\n"""
    yield from _table(TableRules)
    for kind, title in ((Tenant, "tenant"), (Shared, "shared"), (Raw, "raw")):
        yield f"\n### {title}\n\n{_said(kind)}\n"
        yield from _table(kind)
    yield '\n## `[view."SCHEMA.VIEW"]`\n'
    yield "A view over defined tables that users may read, and that is to keep its owner's rights.\n"
    yield "| key | value | default | meaning |\n| --- | --- | --- | --- |"
    yield "| `definer` | text | required | why the view keeps its owner's rights, and what therefore cannot come out |\n"
    yield f"{_COMBINED}{_said(Verbatim)}"
    yield "\nLine endings don't count. It is what the rest cannot say: functions, comments, policies on tables of others.\n"


def _said(kind: type) -> str:
    """What a class's docstring says first; the rest of it is about fields, which the table of keys tells."""
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())


def _table(kind: type) -> Iterator[str]:
    found = {each.name: each for each in fields(kind)}
    yield "| key | value | default | meaning |\n| --- | --- | --- | --- |"
    for key in KEYS[kind]:
        yield f"| `{key.name}` | {key.written} | {_default(key, found[key.field])} | {key.meaning} |"


_WRITTEN = {("setting", ""): '`"supabase"`', ("permissive", True): '`"permissive"`'}


def _default(key: Key, field: Field[object]) -> str:
    if key.required:
        return "required"
    value = field.default
    if key.name == "to" or value in (None, ()) or value is MISSING or (key.name, value) == ("tenant", ""):
        return ""
    return _WRITTEN.get((key.field, value)) or f"`{_toml(value)}`"


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value).lower() if isinstance(value, bool) else f'"{value}"'


if __name__ == "__main__":
    sys.stdout.write(reference())
