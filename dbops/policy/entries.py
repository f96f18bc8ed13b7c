"""One table's keys: read, and held against each other. The values' readers serve the rest of a file too."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from dbops.policy.keys import KEYS
from dbops.policy.model import PREFIX, VERBS, Auth, Name, Raw, Shared, TableRules, Tenant, Verb
from dbops.policy.place import Place, nearest
from dbops.policy.tokens import tokens

NAME_BYTES = 63
EVERY_MEMBER = "*"
_NAME = re.compile(r'("(?:[^"]|"")+"|[^".]+)\.("(?:[^"]|"")+"|[^".]+)')
_TYPES = {str: "a text", list: "a list", dict: "a table", bool: "true or false", int: "a number"}
T = TypeVar("T")


def table_rules(at: Place, rules: dict[str, Any], auth: Auth) -> TableRules:
    assert at.table is not None
    known_only(at, rules, [key.name for key in KEYS[TableRules]])
    values: dict[str, Any] = {key: _READERS[key](at / key, rules[key], auth) for key in rules}
    _sensible(at, {key: value for key, value in values.items() if value not in (False, ())})
    return TableRules(at.table, at.path, at.line, **values)


def _sensible(at: Place, values: Mapping[str, Any]) -> None:
    """Raise DefinitionError for keys that do not go together."""
    if not set(values) & {"owner", "tenant", "shared", "service", "raw", "closed"}:
        raise at.error("there is no rule", "give owner, tenant, shared, service or raw; or closed = true")
    if "closed" in values and len(values) > 1:
        other = next(key for key in values if key != "closed")
        raise (at / "closed").error(f"a closed table has no other rule, and there is {other}", "take one of them out")
    if "verbs" in values and "owner" not in values:
        raise (at / "verbs").error("it says what an owner may do, and there is no owner", "for members there is roles")
    if "roles" in values and "tenant" not in values:
        raise (at / "roles").error("it speaks of a tenant's members, and there is no tenant")
    if "roles" in values and not values["tenant"].role and any(values["roles"].values()):
        raise (at / "roles").error('members have no roles here (role = "")')
    if "immutable" in values and not set(values) & {"owner", "tenant"}:
        raise (at / "immutable").error("it needs an owner or a tenant")


def _tenant(at: Place, value: object, _: Auth) -> Tenant:
    given = _fields(at, value, Tenant)
    names = {
        key: name_of(at / key, text) for key, text in given.items() if key != "members" and (key, text) != ("role", "")
    }
    if given.get("role") == "":
        names["role"] = ""
    text = typed(at / "members", given["members"], str)
    members = reading(at / "members", table_name, text)
    return Tenant(members=members, **({"tenant": names["column"]} | names))


def _roles(at: Place, value: object, _: Auth) -> dict[Verb, tuple[str, ...]]:
    found = typed(at, value, dict)
    return {_verb(at / verb, verb): _member_roles(at / verb, roles) for verb, roles in found.items()}


def _member_roles(at: Place, value: object) -> tuple[str, ...]:
    """`["*"]` is every member: the model's empty tuple, which as a list could be read as nobody."""
    roles = _texts(at, value, names=False)
    if not roles:
        raise at.error(
            "no role is named", f'every member: ["{EVERY_MEMBER}"]; nobody: a restrictive raw policy, "false"'
        )
    if EVERY_MEMBER in roles and len(roles) > 1:
        raise at.error(f'"{EVERY_MEMBER}" is every member already', "take the others out")
    return () if EVERY_MEMBER in roles else roles


def _shared(at: Place, value: object, auth: Auth) -> tuple[Shared, ...]:
    several = isinstance(value, list)
    items = cast(list[Any], value) if several else [value]
    return tuple(_one_shared(at / number if several else at, item, auth) for number, item in enumerate(items))


def _one_shared(at: Place, item: object, auth: Auth) -> Shared:
    given = _fields(at, item, Shared)
    verbs = _verbs(at / "verbs", given["verbs"]) if "verbs" in given else ("select",)
    to = _texts(at / "to", given["to"]) if "to" in given else (auth.user_role,)
    if not verbs or not to:
        raise at.error("it opens nothing: verbs or to is empty", "take it out")
    if "public" in to:
        raise (at / "to").error(
            "public would be every role, future ones too", "name the roles, the users' and the visitors'"
        )
    return Shared(_predicate(at / "when", given["when"]), verbs, to)


def _raws(at: Place, value: object, auth: Auth) -> tuple[Raw, ...]:
    found: dict[str, Raw] = {}
    for number, item in enumerate(typed(at, value, list)):
        raw = _raw(at / number, item, auth)
        if raw.name in found:
            raise (at / number / "name").error(f'"{raw.name}" is the name of two policies')
        found[raw.name] = raw
    return tuple(found.values())


def _raw(at: Place, item: object, auth: Auth) -> Raw:
    given = _fields(at, item, Raw)
    name = name_of(at / "name", given["name"])
    if name.startswith(PREFIX):
        raise (at / "name").error(f'names that begin with "{PREFIX}" are the compiler\'s', "choose another")
    kind = _one_of(at / "as", given.get("as", "permissive"), ("permissive", "restrictive"))
    verb = _one_of(at / "for", given.get("for", "all"), ("all", *VERBS))
    to = _texts(at / "to", given["to"]) if "to" in given else (auth.user_role,)
    if not to:
        raise (at / "to").error("it is for nobody", 'name roles, or "public" for everybody')
    using, check = (_predicate(at / key, given[key]) if key in given else None for key in ("using", "check"))
    if using is None and check is None:
        raise at.error("there is neither using nor check")
    if check is not None and verb in ("select", "delete"):
        raise (at / "check").error(f"{verb} writes no row: it takes using only")
    if using is not None and verb == "insert":
        raise (at / "using").error("insert reads no row: it takes check only")
    return Raw(name, kind == "permissive", cast(Any, verb), to, using, check)


def _closed(at: Place, value: object, _: Auth) -> bool:
    return typed(at, value, bool)


_READERS: dict[str, Callable[[Place, object, Auth], Any]] = {
    "owner": lambda at, value, _: name_of(at, value),
    "verbs": lambda at, value, _: _verbs(at, value),
    "immutable": lambda at, value, _: _texts(at, value),
    "tenant": _tenant,
    "roles": _roles,
    "shared": _shared,
    "service": lambda at, value, _: _texts(at, value),
    "raw": _raws,
    "closed": _closed,
}


# --- values --------------------------------------------------------------------------------------


def typed(at: Place, value: object, kind: type[T]) -> T:
    if type(value) is not kind:  # true is no number
        raise at.error(f"it must be {_TYPES[kind]}, not {_TYPES.get(type(value), 'a ' + type(value).__name__)}")
    return value


def reading(at: Place, read: Callable[[str], T], text: str) -> T:
    try:
        return read(text)
    except ValueError as error:
        raise at.error(str(error)) from None


def known_only(at: Place, value: Mapping[str, object], known: list[str]) -> None:
    for key in value:
        if key not in known:
            raise (at / key).error(f'the key "{key}" is not known', nearest(key, known, f"known: {', '.join(known)}"))


def _fields(at: Place, value: object, kind: type) -> dict[str, Any]:
    found = typed(at, value, dict)
    known_only(at, found, [key.name for key in KEYS[kind]])
    for key in KEYS[kind]:
        if key.required and key.name not in found:
            raise at.error(f'the key "{key.name}" is missing')
    return found


def name_of(at: Place, value: object) -> str:
    text = typed(at, value, str)
    reading(at, _fits, text)
    return text


def _texts(at: Place, value: object, *, names: bool = True) -> tuple[str, ...]:
    found = [typed(at / number, item, str) for number, item in enumerate(typed(at, value, list))]
    for number, item in enumerate(found):
        if names:
            name_of(at / number, item)
        if found.index(item) != number:
            raise at.error(f'"{item}" stands twice')
    return tuple(found)


def _verbs(at: Place, value: object) -> tuple[Verb, ...]:
    return tuple(_verb(at, verb) for verb in _texts(at, value))


def _verb(at: Place, value: str) -> Verb:
    return cast(Verb, _one_of(at, value, VERBS))


def _one_of(at: Place, value: object, known: tuple[str, ...]) -> str:
    text = typed(at, value, str)
    if text not in known:
        raise at.error(f'"{text}" is none of {", ".join(known)}', nearest(text, known))
    return text


def _predicate(at: Place, value: object) -> str:
    text = typed(at, value, str)
    reading(at, tokens, text)
    return text


def table_name(text: str) -> Name:
    """`public.documents`; a part that holds a dot or a quote stands in quotes. Letters' case is kept.

    Raises ValueError for anything else, or a part of over 63 bytes.
    """
    match = _NAME.fullmatch(text)
    if not match:
        raise ValueError("""a table is written "schema.table", a part with a dot in quotes: '"my.schema".table'""")
    parts = [part[1:-1].replace('""', '"') if part[0] == '"' else part for part in match.groups()]
    for part in parts:
        _fits(part)
    return Name(*parts)


def _fits(name: str) -> None:
    if not name or "\0" in name:
        raise ValueError("the name is empty or holds a NUL character")
    if len(name.encode()) > NAME_BYTES:
        raise ValueError(f"the name is over {NAME_BYTES} bytes: PostgreSQL would cut it off")
