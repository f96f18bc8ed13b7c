"""Who attacks which row: pairs of an own and a victim's row, with the actors for each. A pure plan."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dbops.policy.attack.actors import Actor, intruders, sign_in, user
from dbops.policy.attack.oracle import may
from dbops.policy.attack.result import Vacuous
from dbops.policy.attack.seed import Membership, Seeded
from dbops.policy.attack.target import Bout, Control, Pair, Place, Row
from dbops.policy.model import VERBS, Definitions, Name, Verb
from dbops.policy.state import Catalog

NOBODY = str(uuid.uuid5(uuid.NAMESPACE_URL, "dbops:nobody"))
_NAMED = 6


@dataclass(frozen=True)
class Plan:
    """The bouts and controls of a table, and what cannot be attacked."""

    place: Place
    bouts: tuple[Bout, ...] = ()
    controls: tuple[Control, ...] = ()
    vacuous: tuple[Vacuous, ...] = ()


@dataclass(frozen=True)
class Planner:
    """`owners` says who attacks as a table's owner and what makes him that; `reach` which roles may do anything there."""

    definitions: Definitions
    catalog: Catalog
    seeded: Seeded
    marks: Mapping[str, Any] = field(default_factory=dict)
    owners: Mapping[Name, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    reach: Mapping[Name, frozenset[str]] = field(default_factory=dict)

    def plan(self, place: Place) -> Plan:
        if not place.rows:
            return self._nothing(place, self.seeded.reasons.get(str(place.name), "no row could be made"))
        rules = place.rules
        if rules is not None and not rules.closed and rules.tenant:
            return self._tenants(place)
        if rules is not None and not rules.closed and rules.owner:
            return self._owners(place)
        return self._nobodys(place)

    def _nothing(self, place: Place, reason: str) -> Plan:
        return Plan(place, vacuous=(Vacuous(str(place.name), "", reason),))

    # --- rows with an owner ---

    @property
    def attacker(self) -> str:
        return self.seeded.attacker or NOBODY

    def _owners(self, place: Place) -> Plan:
        assert place.rules is not None
        assert place.rules.owner is not None
        owner = place.rules.owner
        counted = Counter(row.values[owner] for row in place.rows if row.values[owner] is not None)
        if len(counted) < 2:
            return self._nothing(place, f"all rows have the same {owner}: there is no victim")
        most = min(counted, key=lambda who: (-counted[who], str(who)))
        attacker = self.attacker if self.attacker in counted else most
        own = _unshared(place, [row for row in place.rows if row.values[owner] == attacker])
        victim = _unshared(place, [row for row in place.rows if row.values[owner] not in (attacker, None)])
        pair = Pair(place, place.name, own, victim)
        hunter = user(self.definitions.auth, "another user", str(attacker), thorough=True)
        return self._assembled(
            pair, [hunter], str(attacker), str(victim.values[owner]), {}, self._rightful(pair, str(attacker), None)
        )

    def _rightful(self, pair: Pair, identity: str, membership: Membership | None) -> tuple[Control, ...]:
        rules, auth = pair.place.rules, self.definitions.auth
        role = membership.role if membership else None
        owns = bool(rules and rules.owner and pair.own and pair.own.values[rules.owner] == identity)
        verbs = tuple(verb for verb in VERBS if may(rules, verb, role, owns=owns))
        name = "owner" if membership is None else _member(membership)
        return (Control(user(auth, name, identity), pair, verbs),)

    # --- rows of a tenant ---

    def _tenants(self, place: Place) -> Plan:
        assert place.rules is not None
        assert place.rules.tenant is not None
        tenant, auth = place.rules.tenant, self.definitions.auth
        members = self.seeded.members.get(tenant.members, ())
        by_tenant = {member.tenant: self._rows_of(place, member.tenant) for member in members}
        if len(by_tenant) < 2:
            return self._nothing(place, f"there are no members of two tenants in {tenant.members}")
        if not all(by_tenant.values()):
            return self._nothing(place, f"not both of the two tenants have rows with {tenant.column}")
        home, *_ = by_tenant
        away = next(name for name in by_tenant if name != home)
        plans: list[Plan] = []
        marks = {tenant.column: away, tenant.tenant or tenant.column: away}
        for number, member in enumerate(members):
            at_home = member.tenant == home
            own = self._own(place, member, by_tenant[member.tenant])
            pair = Pair(place, place.name, own, _unshared(place, by_tenant[away if at_home else home]))
            hunter = user(
                auth,
                _member(member) if at_home else "member of another tenant",
                member.user,
                thorough=number == 0 or not at_home,
            )
            rightful = self._at_home(pair, member, by_tenant[home]) if at_home else ()
            if number:
                plans.append(Plan(place, (Bout(hunter, pair),), rightful))
            else:
                victim = next(one.user for one in members if one.tenant == away)
                plans.append(self._assembled(pair, [hunter], member.user, victim, marks, rightful))
        stranger = user(auth, "another user", self._stranger(members))
        plans.append(Plan(place, (Bout(stranger, Pair(place, place.name, None, by_tenant[home][0])),)))
        return _joined(place, plans)

    def _at_home(self, pair: Pair, member: Membership, rows: Sequence[Row]) -> tuple[Control, ...]:
        """What a member may do with his own row, and by his role with that of another member."""
        own = self._rightful(pair, member.user, member)
        owner = pair.place.rules.owner if pair.place.rules else None
        others = [row for row in rows if owner and row.values[owner] not in (member.user, None) and row != pair.own]
        if not others:
            return own
        return (*own, *self._rightful(replace(pair, own=_unshared(pair.place, others)), member.user, member))

    def _rows_of(self, place: Place, tenant: str) -> list[Row]:
        assert place.rules is not None
        assert place.rules.tenant is not None
        return [row for row in place.rows if row.values[place.rules.tenant.column] == tenant]

    def _own(self, place: Place, member: Membership, rows: Sequence[Row]) -> Row:
        owner = place.rules.owner if place.rules else None
        return _unshared(place, [row for row in rows if owner and row.values[owner] == member.user] or rows)

    def _stranger(self, members: Sequence[Membership]) -> str:
        taken = {member.user for member in members}
        return next((one for one in self.seeded.users if one not in taken), NOBODY)

    # --- rows that are nobody's: closed, shared with some, or without a definition ---

    def _nobodys(self, place: Place) -> Plan:
        auth = self.definitions.auth
        pair = Pair(place, place.name, None, _unshared(place, place.rows))
        victim = next((one for one in self.seeded.users if one != self.attacker), NOBODY)
        hunter = user(auth, "another user", self.attacker, thorough=True)
        return self._assembled(pair, [hunter], self.attacker, victim, {}, ())

    # --- all of them ---

    def _assembled(
        self,
        pair: Pair,
        hunters: Sequence[Actor],
        attacker: str,
        victim: str,
        marks: Mapping[str, Any],
        controls: tuple[Control, ...],
    ) -> Plan:
        auth, place = self.definitions.auth, pair.place
        others = (*intruders(auth, attacker, victim, {**self.marks, **marks}), *self._named(place, pair.victim))
        bouts = [Bout(actor, pair) for actor in (*hunters, *others)]
        if place.rules is not None and place.name in self.owners:
            role, before = self.owners[place.name]
            bouts.append(Bout(Actor("table owner", role, sign_in(auth, attacker), attacker), pair, before))
        direct, vacuous = self._partitions(pair, [*hunters, others[0]])
        shared, empty = self._shared(place)
        return Plan(place, (*bouts, *direct), (*controls, *shared), (*vacuous, *empty))

    def _named(self, place: Place, victim: Row) -> list[Actor]:
        """Users whose ids stand in the victim's row though no rule makes it theirs: a policy may go by such a column."""
        auth = self.definitions.auth
        policies = [policy for policy in self.catalog.policies if policy.table == place.name]
        read = " ".join(text for policy in policies for text in (policy.using, policy.check) if text)
        columns = [
            column.name
            for column in place.table.columns
            if column.name not in place.scope
            and victim.values[column.name] is not None
            and (column.type == "uuid" or not auth.supabase)
            and re.search(rf'(?<![\w"]){re.escape(column.name)}(?!\w)', read.replace('"', ""))
        ]
        return [user(auth, f"user in {column}", str(victim.values[column])) for column in columns[:_NAMED]]

    def _partitions(self, pair: Pair, actors: Iterable[Actor]) -> tuple[list[Bout], list[Vacuous]]:
        """A partition is reached by its own name too, past its parent's policies."""
        bouts: list[Bout] = []
        vacuous: list[Vacuous] = []
        for partition, leaves in self._leaves(pair.place.name).items():
            within = [row for row in pair.place.rows if row.mark.partition("(")[0] in leaves]
            owners = (
                [row for row in within if all(row.values[c] == pair.own.values[c] for c in pair.place.scope)]
                if pair.own
                else []
            )
            victims = [row for row in within if row not in owners]
            if victims:
                bouts += [
                    Bout(actor, Pair(pair.place, partition, next(iter(owners), None), victims[0])) for actor in actors
                ]
            elif self.reach.get(partition):
                vacuous.append(Vacuous(str(pair.place.name), "", f"partition {partition} has no row to attack"))
        return bouts, vacuous

    def _leaves(self, root: Name) -> dict[Name, set[str]]:
        """Each partition below that has no definition of its own, with the oids of its leaves."""
        found: dict[Name, set[str]] = {}
        for table in self.catalog.tables.values():
            line = list(self._line(table.name))
            if root in line[1:] and not any(name in self.definitions.tables for name in line[: line.index(root)]):
                for name in line[: line.index(root)]:
                    found.setdefault(name, set()).add(str(table.oid))
        return found

    def _line(self, name: Name) -> Iterator[Name]:
        step: Name | None = name
        while step is not None:
            yield step
            step = self.catalog.tables[step].partition_of if step in self.catalog.tables else None

    def _shared(self, place: Place) -> tuple[list[Control], list[Vacuous]]:
        """Those with whom rows are shared must get them, and rows that are not shared must be there to be held back."""
        controls: list[Control] = []
        vacuous: list[Vacuous] = []
        for shared, marks in zip(place.rules.shared if place.rules else (), place.open, strict=True):
            row = next((row for row in place.rows if row.mark in marks), None)
            if row is None:
                vacuous.append(Vacuous(str(place.name), "", f"no row could be made for which {shared.when} holds"))
                continue
            if len(marks) == len(place.rows) and shared.when.strip().lower() != "true":
                vacuous.append(
                    Vacuous(str(place.name), "", f"{shared.when} holds for every row: nothing could be held back")
                )
            pair = Pair(place, place.name, row, row)
            controls += [Control(self._guest(role), pair, _ordered(shared.verbs)) for role in shared.to]
        return controls, vacuous

    def _guest(self, role: str) -> Actor:
        auth = self.definitions.auth
        if role == auth.user_role:
            return user(auth, "another user", NOBODY if auth.supabase else self.attacker)
        visitor = intruders(auth, NOBODY, NOBODY, {})[0]
        return Actor("anon" if role == auth.anon_role else f"role {role}", role, visitor.settings)


def _unshared(place: Place, rows: Sequence[Row]) -> Row:
    """A row that no rule shares, where there is one: what is seen of it is seen by its owner's or tenant's right."""
    shared = frozenset[str]().union(*place.open)
    return next((row for row in rows if row.mark not in shared), rows[0])


def _member(member: Membership) -> str:
    return f"member ({member.role})" if member.role else "member"


def _ordered(verbs: Iterable[Verb]) -> tuple[Verb, ...]:
    chosen = set(verbs)
    return tuple(verb for verb in VERBS if verb in chosen)


def _joined(place: Place, plans: Sequence[Plan]) -> Plan:
    return Plan(
        place,
        tuple(bout for plan in plans for bout in plan.bouts),
        tuple(control for plan in plans for control in plan.controls),
        tuple(vacuous for plan in plans for vacuous in plan.vacuous),
    )
