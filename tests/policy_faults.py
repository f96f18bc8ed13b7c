"""Schemas with one planted fault each, and their clean twins: what an attack must find, and where it must find nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dbops.policy.model import Auth, Definitions, Name, Shared, TableRules, Tenant

PRELUDE = """
do $$
begin
  if to_regrole('anon') is null then create role anon nologin noinherit; end if;
  if to_regrole('authenticated') is null then create role authenticated nologin noinherit; end if;
exception when duplicate_object or unique_violation then null;
end
$$;
create schema auth;
grant usage on schema auth to anon, authenticated;
create table auth.users (id uuid primary key default gen_random_uuid());
create function auth.jwt() returns jsonb language sql stable
  return nullif(current_setting('request.jwt.claims', true), '')::jsonb;
create function auth.uid() returns uuid language sql stable
  return coalesce(nullif(current_setting('request.jwt.claim.sub', true), ''),
                  nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid;
create function auth.role() returns text language sql stable
  return nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role';
"""
NOTES = """
create table public.notes (
  user_id uuid not null references auth.users,
  id uuid not null default gen_random_uuid(),
  body text not null,
  primary key (user_id, id)
);
"""
MINE = "user_id = (select auth.uid())"


def policy(verb: str, using: str | None = None, check: str | None = None, table: str = "notes") -> str:
    parts = [f"using ({using})" if using else "", f"with check ({check})" if check else ""]
    return f"create policy {table}_{verb} on public.{table} for {verb} to authenticated {' '.join(parts)};\n"


def guarded(table: str = "notes", using: str = MINE, **changed: str) -> str:
    """Strict policies for the four verbs; a keyword puts another one in place of a verb's."""
    policies = {
        "select": policy("select", using, table=table),
        "insert": policy("insert", None, using, table),
        "update": policy("update", using, using, table),
        "delete": policy("delete", using, table=table),
    }
    return (
        f"alter table public.{table} enable row level security, force row level security;\n"
        f"grant select, insert, update, delete on public.{table} to authenticated;\n"
        + "".join((policies | changed).values())
    )


def owned(*names: str, immutable: tuple[str, ...] = ()) -> dict[Name, TableRules]:
    rules = (TableRules(Name("public", name), Path("f.toml"), owner="user_id", immutable=immutable) for name in names)
    return {each.name: each for each in rules}


@dataclass(frozen=True)
class Fault:
    """`faulty` and `clean` are schemas; `verb`, `via` and `actor` name the leak that only the first one has."""

    name: str
    faulty: str
    clean: str
    verb: str
    via: str
    actor: str = "another user"
    tables: Mapping[Name, TableRules] = field(default_factory=lambda: owned("notes"))
    auth: Auth = field(default_factory=Auth)
    roles: tuple[str, ...] = ()  # made by the schema: they belong to the cluster and are dropped afterwards

    @property
    def definitions(self) -> Definitions:
        return Definitions(self.auth, self.tables)


def claims_or(test: str) -> str:
    return f"{MINE} or {test}"


ADMIN = "coalesce(auth.jwt() -> 'user_metadata' ->> 'plan', '') = 'staff'"
SERVICE = "coalesce((select auth.role()), '') = 'service_role'"
HARMLESS = "coalesce(auth.jwt() ->> 'aal', '') = 'aal2'"
DEFINER = """
create function public.recent() returns setof public.notes language sql stable security {} set search_path = '' as
$$ select * from public.notes $$;
grant execute on function public.recent() to authenticated;
"""
# beside the strict policies: the bodies differ, and the twin's is restrictive
BESIDE = "create policy beside on public.notes {} for select to authenticated using (body is not null);\n"
MEMBERS = """
create table public.teams (id uuid primary key default gen_random_uuid(), title text);
create table public.members (
  user_id uuid not null references auth.users, team_id uuid not null references public.teams, role text not null,
  primary key (user_id, team_id)
);
create table public.documents (
  team_id uuid not null references public.teams, id uuid not null default gen_random_uuid(),
  author text not null, body text, primary key (team_id, id)
);
create schema private;
create function private.my_teams(roles text[]) returns setof uuid language sql stable security definer
  set search_path = '' as $$
  select m.team_id from public.members m where m.user_id = auth.uid() and (roles is null or m.role = any (roles)) $$;
"""
TEAM = "team_id in (select private.my_teams({}))"
ANY, EDITORS = TEAM.format("null"), TEAM.format("array['editor']")
DOCUMENTS = {
    "select": policy("select", ANY, table="documents"),
    "insert": policy("insert", None, EDITORS, "documents"),
    "update": policy("update", EDITORS, EDITORS, "documents"),
    "delete": policy("delete", EDITORS, table="documents"),
}
ROLES = {"select": ("viewer", "editor"), "insert": ("editor",), "update": ("editor",), "delete": ("editor",)}
TENANT = {
    Name("public", "documents"): TableRules(
        Name("public", "documents"), Path("f.toml"), tenant=Tenant("team_id", Name("public", "members")), roles=ROLES
    )
}
IMMUTABLE = {
    name: TableRules(name, Path("f.toml"), tenant=rules.tenant, roles=ROLES, immutable=("author",))
    for name, rules in TENANT.items()
}
KEEP = """
create function private.keep() returns trigger language plpgsql set search_path = '' as $$
begin raise insufficient_privilege using message = 'author may not change'; end $$;
create trigger keep before update on public.documents for each row when (old.author is distinct from new.author)
  execute function private.keep();
"""
PARTS = """
create table public.notes (
  user_id uuid not null references auth.users, id uuid not null default gen_random_uuid(),
  body text not null, year int not null check (year in (2024, 2025)), primary key (user_id, id, year)
) partition by list (year);
create table public.notes_2024 partition of public.notes for values in (2024);
create table public.notes_2025 partition of public.notes for values in (2025);
"""
CLOSED_PARTS = "".join(
    f"alter table public.notes_{year} enable row level security, force row level security;\n" for year in (2024, 2025)
)
OPEN_PARTS = "grant select, insert, update, delete on public.notes_2024, public.notes_2025 to authenticated;\n"
TAGS = """
create table public.tags (
  user_id uuid not null references auth.users, id uuid not null default gen_random_uuid(), note_id uuid not null,
  primary key (user_id, id){}
);
"""
UNIQUE_NOTES = NOTES.replace("primary key (user_id, id)", "primary key (user_id, id), unique (id)")
OWNER = """
create role dbops_test_{0} nologin;
grant create on schema public to dbops_test_{0};
alter table public.notes owner to dbops_test_{0};
{1}
"""

FAULTS: tuple[Fault, ...] = (
    Fault(
        "update with check (true)",
        NOTES + guarded(update=policy("update", MINE, "true")),
        NOTES + guarded(),
        "update",
        "table",
    ),
    Fault(
        "insert without check",
        NOTES + guarded(insert=policy("insert", None, "true")),
        NOTES + guarded(),
        "insert",
        "table",
    ),
    Fault(
        "trust in user_metadata",
        NOTES + guarded(select=policy("select", claims_or(ADMIN))),
        NOTES + guarded(select=policy("select", f"{MINE} and not ({HARMLESS} and false)")),
        "select",
        "table",
        "forged user_metadata",
    ),
    Fault(
        "trust in a role claim",
        NOTES + guarded(select=policy("select", claims_or(SERVICE))),
        NOTES + guarded(),
        "select",
        "table",
        "forged role claim",
    ),
    Fault(
        "a view with its owner's rights",
        NOTES
        + guarded()
        + "create view public.overview as select * from public.notes; grant select on public.overview to authenticated;",
        NOTES + guarded() + "create view public.overview with (security_invoker = true) as select * from public.notes;"
        "grant select on public.overview to authenticated;",
        "select",
        "view public.overview",
    ),
    Fault(
        "a writable view with its owner's rights",
        NOTES
        + guarded()
        + "create view public.overview as select * from public.notes where user_id = (select auth.uid());"
        "create view public.open as select * from public.notes; grant delete on public.open to authenticated;",
        NOTES + guarded() + "create view public.open with (security_invoker = true) as select * from public.notes;"
        "grant delete on public.open to authenticated;",
        "delete",
        "view public.open",
    ),
    Fault(
        "a materialised view",
        NOTES
        + guarded()
        + "create materialized view public.summary as select user_id, count(*) from public.notes group by 1;"
        "grant select on public.summary to authenticated;",
        NOTES
        + guarded()
        + "create materialized view public.summary as select user_id, count(*) from public.notes group by 1;",
        "select",
        "view public.summary",
    ),
    Fault(
        "a security definer function",
        NOTES + guarded() + DEFINER.format("definer"),
        NOTES + guarded() + DEFINER.format("invoker"),
        "select",
        "function public.recent",
    ),
    Fault(
        "a security definer function that writes",
        NOTES + guarded() + "create function public.forget(note uuid) returns void language sql security definer as"
        " $$ delete from public.notes where id = note $$;",
        NOTES + guarded() + "create function public.forget(note uuid) returns void language sql security definer as"
        " $$ delete from public.notes where id = note and user_id = auth.uid() $$;",
        "call",
        "function public.forget",
    ),
    Fault(
        "a permissive policy beside a strict one",
        NOTES + guarded() + BESIDE.format("as permissive"),
        NOTES + guarded() + BESIDE.format("as restrictive"),
        "select",
        "table",
    ),
    Fault(
        "enabled without force",
        NOTES + guarded() + "alter table public.notes no force row level security;",
        NOTES + guarded(),
        "select",
        "table",
        "table owner",
    ),
    Fault(
        "a table owned by the api role",
        NOTES
        + guarded()
        + "alter table public.notes no force row level security;"
        + OWNER.format("api", "grant dbops_test_api to authenticated;"),
        NOTES + guarded() + OWNER.format("apart", ""),
        "alter",
        "privilege",
        roles=("dbops_test_api", "dbops_test_apart"),
    ),
    Fault(
        "bypassrls through a membership",
        NOTES
        + guarded()
        + "create role dbops_test_bypass nologin bypassrls; grant dbops_test_bypass to authenticated;",
        NOTES + guarded() + "create role dbops_test_plain nologin; grant dbops_test_plain to authenticated;",
        "bypass",
        "privilege",
        roles=("dbops_test_bypass", "dbops_test_plain"),
    ),
    Fault(
        "a global unique as an oracle",
        NOTES + "alter table public.notes add constraint notes_body unique (body);" + guarded(),
        NOTES + "alter table public.notes add constraint notes_body unique (user_id, body);" + guarded(),
        "insert",
        "unique notes_body",
    ),
    Fault(
        "a foreign key as an oracle",
        UNIQUE_NOTES
        + guarded()
        + TAGS.format(", constraint tags_note foreign key (note_id) references public.notes (id)")
        + guarded("tags"),
        UNIQUE_NOTES
        + guarded()
        + TAGS.format(", constraint tags_note foreign key (user_id, note_id) references public.notes (user_id, id)")
        + guarded("tags"),
        "insert",
        "foreign key tags_note",
        tables=owned("notes", "tags"),
    ),
    Fault(
        "truncate granted",
        NOTES + guarded() + "grant truncate on public.notes to authenticated;",
        NOTES + guarded(),
        "truncate",
        "privilege",
    ),
    Fault(
        "true for a null identity",
        NOTES + guarded(select=policy("select", "user_id = coalesce((select auth.uid()), user_id)")),
        NOTES + guarded(),
        "select",
        "table",
        "no sub",
    ),
    Fault(
        "a policy on the parent and none on a partition",
        PARTS + guarded() + OPEN_PARTS,
        PARTS + guarded() + CLOSED_PARTS + OPEN_PARTS,
        "select",
        "partition public.notes_2024",
    ),
    Fault(
        "a row may be given to another owner",
        NOTES + guarded(select=policy("select", "true"), update=policy("update", MINE, "body is not null")),
        NOTES + guarded(select=policy("select", "true")),
        "update",
        "table",
        tables={
            Name("public", "notes"): TableRules(
                Name("public", "notes"),
                Path("f.toml"),
                owner="user_id",
                shared=(Shared("true", to=("authenticated",)),),
            )
        },
    ),
    Fault(
        "a column that may not change",
        MEMBERS + guarded("documents", ANY, **DOCUMENTS),
        MEMBERS + guarded("documents", ANY, **DOCUMENTS) + KEEP,
        "update",
        "table",
        "member (editor)",
        tables=IMMUTABLE,
    ),
    Fault(
        "a viewer may write",
        MEMBERS + guarded("documents", ANY, **(DOCUMENTS | {"update": policy("update", ANY, ANY, "documents")})),
        MEMBERS + guarded("documents", ANY, **DOCUMENTS),
        "update",
        "table",
        "member (viewer)",
        tables=TENANT,
    ),
    Fault(
        "another tenant's rows",
        MEMBERS
        + guarded(
            "documents",
            ANY,
            **(
                DOCUMENTS
                | {"delete": policy("delete", "exists (select from private.my_teams(null))", table="documents")}
            ),
        ),
        MEMBERS + guarded("documents", ANY, **DOCUMENTS),
        "delete",
        "table",
        "member of another tenant",
        tables=TENANT,
    ),
    Fault(
        "a table that nobody declared",
        NOTES
        + guarded()
        + "create table public.leads (id int primary key, email text); grant select on public.leads to anon;",
        NOTES + guarded() + "create table public.leads (id int primary key, email text);",
        "select",
        "table",
        "anon",
    ),
    Fault(
        "a setting in place of a token",
        NOTES + guarded(using="user_id = coalesce(nullif(current_setting('app.user_id', true), '')::uuid, user_id)"),
        NOTES + guarded(using="user_id = (select nullif(current_setting('app.user_id', true), '')::uuid)"),
        "select",
        "table",
        "stale session",
        auth=Auth("app.user_id"),
    ),
)
