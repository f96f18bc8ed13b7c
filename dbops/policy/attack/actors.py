"""Who attacks: a database role, and what the session claims to be. Pure values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dbops.policy.model import Auth

CLAIMS = "request.jwt.claims"
LEGACY = "request.jwt.claim.sub"
# the stand-in for an owner that is a superuser: made in the attack's transaction, gone with it
OWNER_ROLE = "dbops_attack_owner"
_LITERAL = re.compile(r"(->>?\s*)?'([^']*)'")
_KNOWN = ("sub", "user_metadata", "app_metadata", "raw_user_meta_data", "role")


@dataclass(frozen=True)
class Setting:
    """One set_config. `local` is what an application sets; a setting of the session is left over from before."""

    name: str
    value: str
    local: bool = True


@dataclass(frozen=True)
class Actor:
    """`identity` is the user whom the definitions see in the session: empty where it proves to be nobody."""

    name: str
    role: str
    settings: tuple[Setting, ...]
    identity: str = ""
    thorough: bool = False  # tries every variant of a statement, the others the telling ones


def sign_in(auth: Auth, identity: str, **claims: Any) -> tuple[Setting, ...]:
    """What a session sets for a user, in the transaction."""
    if not auth.supabase:
        return (Setting(auth.setting, identity),)
    text = json.dumps({"sub": identity, "role": auth.user_role, **claims})
    return (Setting(LEGACY, ""), Setting(CLAIMS, text))


def user(auth: Auth, name: str, identity: str, *, thorough: bool = False) -> Actor:
    return Actor(name, auth.user_role, sign_in(auth, identity), identity, thorough)


def intruders(auth: Auth, attacker: str, victim: str, marks: Mapping[str, Any]) -> tuple[Actor, ...]:
    """Those who claim what they are not, or nothing. `marks` are keys and values that a policy may look for."""
    role = auth.user_role
    visitor = Actor("anon", auth.anon_role, nobody(auth, auth.anon_role))
    stale = tuple(Setting(s.name, s.value, local=False) for s in _stale(auth, victim))
    emptied = tuple(Setting(s.name, "") for s in stale)
    return (
        visitor,
        Actor("forged user_metadata", role, _metadata(auth, attacker, victim, marks), attacker),
        Actor("forged role claim", role, _role_claim(auth, attacker, victim), attacker),
        Actor("no sub", role, nobody(auth, role)),
        Actor("empty claims", role, emptied),
        Actor("stale session", role, stale + emptied),
        Actor("malformed sub", role, sign_in(auth, "' or true --")),
    )


def nobody(auth: Auth, role: str) -> tuple[Setting, ...]:
    """A session without a user: a token without `sub`, or nothing set at all."""
    return (Setting(LEGACY, ""), Setting(CLAIMS, json.dumps({"role": role}))) if auth.supabase else ()


def _stale(auth: Auth, victim: str) -> tuple[Setting, ...]:
    if not auth.supabase:
        return (Setting(auth.setting, victim),)
    return (Setting(LEGACY, victim), *sign_in(auth, victim)[1:])


def _metadata(auth: Auth, attacker: str, victim: str, marks: Mapping[str, Any]) -> tuple[Setting, ...]:
    told = {"role": "admin", "is_admin": True, "admin": True, "sub": victim, "user_id": victim, "id": victim, **marks}
    if auth.supabase:
        metadata = {**told, "app_metadata": told}
        return sign_in(auth, attacker, user_metadata=metadata, raw_user_meta_data=metadata)
    beside = [Setting(CLAIMS, json.dumps({"sub": victim, "user_metadata": told}))]
    return (*beside, *sign_in(auth, attacker))


def _role_claim(auth: Auth, attacker: str, victim: str) -> tuple[Setting, ...]:
    if auth.supabase:
        return (*sign_in(auth, attacker, role="service_role"), Setting("request.jwt.claim.role", "service_role"))
    prefix = auth.setting.rpartition(".")[0]
    names = {"role": "admin", "user_role": "admin", "is_admin": "true", "bypass_rls": "on"}
    return (*(Setting(f"{prefix}.{name}", value) for name, value in names.items()), *sign_in(auth, attacker))


def marks_of(texts: Sequence[str | None]) -> dict[str, Any]:
    """The keys of JSON that predicates and functions read, each with the text that stands nearest, else true."""
    marks: dict[str, Any] = {}
    for text in filter(None, texts):
        before, last = "", ""
        for is_key, value in _LITERAL.findall(text):
            if is_key:
                last = value
                marks.setdefault(value, before or True)
            elif value and last:
                marks[last] = value
                last = ""
            before = "" if is_key else value
    return {key: value for key, value in marks.items() if key not in _KNOWN}
