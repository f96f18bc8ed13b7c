"""Definitions from a live database: what its policies mean is kept, and nothing is opened."""

from __future__ import annotations

import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from dbops.errors import UsageError, shown
from dbops.policy.explain import rights_of
from dbops.policy.identity import base_type
from dbops.policy.model import PREFIX, VERBS, Auth, Name, Verb
from dbops.policy.read import read_definitions
from dbops.policy.state import Catalog, Policy, Table

_SETTING = re.compile(r"current_setting\('([\w.]+)'::text")
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_NOT_HELD = "# left out: none of its roles has the privilege, and a definition would grant it"


def find_table(name: str | Name, catalog: Catalog) -> Name:
    """The table of that name (`documents` is `public.documents`). Raises UsageError for one that is not there."""
    found = [
        each for each in catalog.tables if name in (each, str(each)) or (each.schema == "public" and each.name == name)
    ]
    if len(found) != 1:
        raise UsageError(f"there is no table {name}", hint="write schema.table, unquoted; nothing was done")
    return found[0]


def export(
    catalog: Catalog, folder: Path, tables: Collection[str | Name] | None, schemas: Collection[str], record: str
) -> list[Path]:  # fmt: skip
    """Write one file a schema, `SCHEMA.toml`; the paths. See `PolicyManager.export`."""
    # the migrations' record keeps its own rules
    chosen = [table for table in _chosen(catalog, tables, schemas) if str(table.name) != record]
    auth = auth_of(catalog, chosen)
    by_schema: dict[str, list[Table]] = defaultdict(list)
    for table in chosen:
        by_schema[table.name.schema].append(table)
    names = {schema: _file_name(schema) for schema in by_schema}
    if len({name.lower() for name in names.values()}) < len(names):
        raise UsageError(
            f"two schemas would share a file: {', '.join(sorted(names))}", hint="export them one at a time"
        )
    texts = {folder / names[schema]: _file(group, auth, catalog) for schema, group in by_schema.items()}
    existing = [str(path) for path in texts if path.exists()]
    if existing:
        raise UsageError(
            f"{', '.join(existing)}: there is such a file", hint="choose another folder; nothing was written"
        )
    _refuse_defined(folder, chosen, auth)
    _prove_readable(texts)
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    return list(texts)


def _chosen(catalog: Catalog, tables: Collection[str | Name] | None, schemas: Collection[str]) -> list[Table]:
    if tables is not None:
        names = sorted({find_table(name, catalog) for name in tables})
    else:
        with_policy = {policy.table for policy in catalog.policies}
        # partitions are closed with their parent, as the definitions do
        of_parent = {t.name for t in catalog.tables.values() if t.partition_of and t.name not in with_policy}
        names = sorted(n for n, t in catalog.tables.items() if (t.rls or n in with_policy) and n.schema in schemas)
        names = [name for name in names if name not in of_parent]
    return [catalog.tables[name] for name in names if catalog.tables[name].kind != "f"]


def _file_name(schema: str) -> str:
    return re.sub(r"[^\w-]+", "_", schema).strip("_") + ".toml"


def _refuse_defined(folder: Path, chosen: Sequence[Table], auth: Auth) -> None:
    """All files of a folder are read together: a table stands in one of them, and they agree on who is who."""
    if not folder.is_dir():
        return
    there = read_definitions(folder)
    found = [there.tables[table.name] for table in chosen if table.name in there.tables]
    if found:
        places = ", ".join(f"{shown(rules.path)}:{rules.line} defines {rules.name}" for rules in found)
        raise UsageError(f"{places} already", hint="choose another folder, or other tables; nothing was written")
    if there.tables and (there.auth.setting, there.auth.user_role) != (auth.setting, auth.user_role):
        raise UsageError(
            f"{shown(folder)}: its files say another auth or user_role than this database's policies",
            hint="choose another folder; nothing was written",
        )


def _prove_readable(texts: dict[Path, str]) -> None:
    """Raises DefinitionError where the files would not be read."""
    with tempfile.TemporaryDirectory() as folder:
        for path, text in texts.items():
            (Path(folder) / path.name).write_text(text, encoding="utf-8")
        read_definitions(Path(folder))


def auth_of(catalog: Catalog, tables: Sequence[Table]) -> Auth:
    """How sessions say who they are: auth.uid() where it exists, else the setting that most policies read."""
    names = {table.name for table in tables}
    policies = [policy for policy in catalog.policies if policy.table in names]
    texts = " ".join(text for p in policies for text in (p.using, p.check) if text)
    settings = Counter(_SETTING.findall(texts)).most_common(1)
    supabase = any(f.name == Name("auth", "uid") for f in catalog.functions)
    # roles belong to the cluster: that one of this name is there says nothing of this database
    others = ("public", Auth.anon_role)
    acting = Counter(role for p in policies for role in p.roles if role not in others and not _passes(role, catalog))
    default = supabase or not acting or Auth.user_role in acting
    user = Auth.user_role if default else acting.most_common(1)[0][0]
    return Auth(setting="" if supabase or not settings else settings[0][0], user_role=user)


def _passes(role: str, catalog: Catalog) -> bool:
    return catalog.roles[role].superuser or catalog.roles[role].bypasses


# --- one table -----------------------------------------------------------------------------------


def _file(tables: Sequence[Table], auth: Auth, catalog: Catalog) -> str:
    lines = ["# Written by `dbops policy export`. `dbops policy plan` shows what applying it would change."]
    lines += ["version = 1", f"auth = {string('supabase' if auth.supabase else f'guc:{auth.setting}')}"]
    lines += [f"user_role = {string(auth.user_role)}"] if auth.user_role != Auth().user_role else []
    for table in tables:
        lines += ["", *_table(table, auth, catalog)]
    return "".join(f"{line}\n" for line in lines)


def _table(table: Table, auth: Auth, catalog: Catalog) -> Iterator[str]:
    header = string(_label(table.name))
    policies = [
        p for p in catalog.policies if p.table == table.name and (p.table, p.name) not in catalog.verbatim_policies
    ]
    owner, owned = owner_of(table, policies, auth, catalog)
    rest = [policy for policy in policies if policy not in owned]
    if owner is None and _immutable(table, catalog):
        raise UsageError(
            f"{table.name}: its immutable columns can be said only of a table with an owner or a tenant",
            hint="this table's definition is to be written by hand; nothing was written",
        )
    parts = {policy.name: list(_reachable(policy, table, auth, catalog)) for policy in rest}
    raws = [raw for made in parts.values() for raw in made]
    yield from (_comment(f"{_NOT_HELD}: {name}") for name, made in parts.items() if not made)
    replaced = [string(p.name) for p in policies if p.name not in {raw.name for raw in raws}]
    if replaced:
        yield _comment(f"# `dbops policy apply --prune` drops what this replaces: {', '.join(replaced)}")
    yield f"[table.{header}]"
    if owner is not None:
        yield from _owned(owner, owned, _immutable(table, catalog))
    elif not raws:
        yield "closed = true"
    for raw in raws:
        yield from _raw(header, raw)


def _owned(owner: str, owned: Sequence[Policy], immutable: Sequence[str]) -> Iterator[str]:
    yield f"owner = {string(owner)}"
    if immutable:
        yield f"immutable = {array(immutable)}"
    verbs = [verb for verb in VERBS if any(p.verb in (verb, "all") for p in owned)]
    if len(verbs) < len(VERBS):
        yield f"verbs = {array(verbs)}"


def _comment(text: str) -> str:
    """On one line: a policy's name may hold anything."""
    return re.sub(r"[\x00-\x1f\x7f]", " ", text)


def owner_of(
    table: Table, policies: Sequence[Policy], auth: Auth, catalog: Catalog
) -> tuple[str | None, list[Policy]]:  # fmt: skip
    """The owner's column and the policies that say so, where that is certain: the very expression, the user role only.

    Only where the user role holds the privileges already: a definition would grant them.
    """
    held = rights_of(catalog.roles[auth.user_role], table, catalog) if auth.user_role in catalog.roles else frozenset()
    for column in table.columns:
        if base_type(column.type) != "uuid":
            continue
        forms = set(_forms(column.name, auth))
        found = [p for p in policies if p.permissive and p.roles == (auth.user_role,) and _says(p, forms)]
        verbs = {verb for p in found for verb in _verbs(p)}
        if found and {verb.upper() for verb in verbs} <= held:
            return column.name, found
    return None, []


def _immutable(table: Table, catalog: Catalog) -> list[str]:
    """The columns that the trigger of an earlier definition holds fast: its function's arguments."""
    found = [t.definition for t in catalog.triggers if (t.table, t.name) == (table.name, f"{PREFIX}immutable")]
    arguments = found[0].rpartition("(")[2] if found else ""
    return [c.name for c in table.columns if "'" + c.name.replace("'", "''") + "'" in arguments]


def _says(policy: Policy, forms: set[str]) -> bool:
    """Whether a policy lets rows through that are the user's, and no others."""
    texts = [text for text in (policy.using, policy.check) if text is not None]
    whole = policy.using is not None or policy.verb == "insert"
    return whole and bool(texts) and all(text in forms for text in texts)


def _forms(column: str, auth: Auth) -> Iterator[str]:
    """`column = identity` as PostgreSQL prints it, bare and wrapped, either way round."""
    name = column if re.fullmatch(r"[a-z_][a-z0-9_]*", column) else '"' + column.replace('"', '""') + '"'
    if auth.supabase:
        identities = ["auth.uid()", "( SELECT auth.uid() AS uid)"]
    else:
        setting = f"(NULLIF(current_setting('{auth.setting}'::text, true), ''::text))::uuid"
        identities = [setting, f'( SELECT {setting} AS "nullif")']
    for identity in identities:
        yield f"({name} = {identity})"
        yield f"({identity} = {name})"


def _verbs(policy: Policy) -> tuple[Verb, ...]:
    return VERBS if policy.verb == "all" else (policy.verb,)


def _reachable(policy: Policy, table: Table, auth: Auth, catalog: Catalog) -> Iterator[Policy]:
    """The policy, or its parts for the roles that hold the privilege: a definition grants what its policies need."""
    policy = replace(policy, name=_free(policy.name))
    if not policy.permissive:
        yield policy
        return
    named = [r for r in policy.roles if r != "public"]
    if "public" in policy.roles:
        # a definition's policy for everybody grants to these two
        named += [role for role in (auth.user_role, auth.anon_role) if role in catalog.roles]
    holds = {
        (role, verb): verb.upper() in rights_of(catalog.roles[role], table, catalog) for role in named for verb in VERBS
    }
    if named and all(holds[role, verb] for role in named for verb in _verbs(policy)):
        yield policy
        return
    others = [role for role in table.grants if "public" in policy.roles and role != "public"]
    for verb in _verbs(policy):
        roles = {role for role in named if holds[role, verb]}
        roles |= {r for r in others if verb.upper() in table.grants[r] and not _passes(r, catalog)}
        if roles:
            yield _part(policy, verb, tuple(sorted(roles)))


def _part(policy: Policy, verb: Verb, roles: tuple[str, ...]) -> Policy:
    name = policy.name if policy.verb != "all" else f"{policy.name.encode()[:56].decode(errors='ignore')}_{verb}"
    check = policy.check if policy.check is not None or verb == "update" else policy.using
    using = None if verb == "insert" else policy.using
    return replace(
        policy, name=name, verb=verb, roles=roles, using=using, check=check if verb in ("insert", "update") else None
    )


def _free(name: str) -> str:
    """dbops' own names are not for definitions."""
    return f"kept_{name.removeprefix(PREFIX)}" if name.startswith(PREFIX) else name


def _raw(header: str, policy: Policy) -> Iterator[str]:
    yield f"[[table.{header}.raw]]"
    yield f"name = {string(policy.name)}"
    if not policy.permissive:
        yield 'as = "restrictive"'
    yield f"for = {string(policy.verb)}"
    yield f"to = {array(policy.roles)}"
    for key, text in (("using", policy.using), ("check", policy.check)):
        if text is not None:
            yield f"{key} = {string(text)}"


# --- TOML ----------------------------------------------------------------------------------------


def _label(name: Name) -> str:
    """`schema.table`, quoted as in SQL where a part holds more than letters and digits."""
    return ".".join(
        p if re.fullmatch(r"\w+", p) else '"' + p.replace('"', '""') + '"' for p in (name.schema, name.name)
    )


def string(text: str) -> str:
    """A basic string (https://toml.io/en/v1.0.0#string)."""
    return '"' + "".join(_SHORT.get(c) or (c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}") for c in text) + '"'


def array(texts: Sequence[str]) -> str:
    return "[" + ", ".join(map(string, texts)) + "]"
