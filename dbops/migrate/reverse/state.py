"""What a migration file has made so far: the state that decides whether a statement needs a reverse of its own.

The rule behind all of it: a reverse runs in the state just after its own statement, so the names in that statement are
right. A change to a thing which the same file made goes when the thing is dropped, unless it ties the thing to
something younger: the younger one is dropped first, so the tie must be cut before.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from dbops.migrate.parse import Node, unwrap, walk
from dbops.migrate.reverse.nodes import names, relation_names

CHILDREN = {
    "OBJECT_COLUMN": "column", "OBJECT_ATTRIBUTE": "column", "OBJECT_POLICY": "policy", "OBJECT_RULE": "rule",
    "OBJECT_TABCONSTRAINT": "constraint", "OBJECT_DOMCONSTRAINT": "constraint", "OBJECT_TRIGGER": "trigger",
}  # fmt: skip
# one namespace
_RELATIONS = frozenset(f"OBJECT_{kind}" for kind in ("TABLE", "VIEW", "MATVIEW", "INDEX", "SEQUENCE", "FOREIGN_TABLE"))
_TYPES = frozenset(("OBJECT_TYPE", "OBJECT_DOMAIN"))
_ROUTINES = frozenset(f"OBJECT_{kind}" for kind in ("FUNCTION", "PROCEDURE", "ROUTINE", "AGGREGATE"))
_CLASSES = frozenset(("OBJECT_OPCLASS", "OBJECT_OPFAMILY"))
# nothing ever depends on these
_LEAVES = frozenset(("policy", "trigger", "rule"))
# what these make is used by names that the file does not show
_UNSEEN = frozenset(("OBJECT_EXTENSION", "OBJECT_CAST", "OBJECT_OPCLASS", "OBJECT_OPFAMILY"))
_ANYTHING = "*"


@dataclass(frozen=True)
class Key:
    """A thing by kind and full name; a child (column, policy …) has its table's name in front of its own."""

    kind: str
    names: tuple[str, ...]

    @property
    def place(self) -> int:
        """Where its own name stands: last in a child, after the schema otherwise, and before a signature."""
        return len(self.names) - 1 if self.kind in CHILDREN.values() else min(1, len(self.names) - 1)

    def called(self, name: str) -> Key:
        """The key with another name."""
        return replace(self, names=(*self.names[: self.place], name, *self.names[self.place + 1 :]))

    @property
    def holders(self) -> tuple[Key, ...]:
        """What this is a part of: a table or view, or a type."""
        if self.kind not in CHILDREN.values():
            return ()
        return Key("relation", self.names[:-1]), Key("type", self.names[:-1])


@dataclass(eq=False)
class Own:
    """A thing that the file made. `order` is the place of the statement whose reverse takes it away."""

    label: str
    order: int
    holder: Own | None = None
    table: Key | None = None  # the table that an index, a constraint or statistics belong to
    words: frozenset[str] = frozenset()  # of the statement that made it
    parents: frozenset[str] = frozenset()  # the tables that it inherits from: what is done to them is done to it
    dropped: int = 0  # by the statement on this line
    exact: bool = False  # something younger is tied to it: every later change is reversed by itself
    reaches_out: bool = False  # what is done to it is done to a table that was there before, too

    @property
    def root(self) -> Own:
        """The thing whose drop takes this one along: itself, or what it is a part of."""
        return self.holder.root if self.holder and self.holder.order == self.order else self

    @property
    def gone(self) -> int:
        """The line that drops it, or what it is a part of; 0 while it is there."""
        return self.dropped or (self.holder.gone if self.holder else 0)

    def join(self, holder: Own | None) -> None:
        """Become a part of something; nonsense (of itself) is PostgreSQL's to refuse."""
        above = holder
        while above is not None and above is not self:
            above = above.holder
        if above is None:
            self.holder = holder


@dataclass(frozen=True)
class Part:
    """What is to be done about a statement, or a command of an ALTER TABLE (then `command` holds the reverse of it).

    `down` is None where there is no way back, empty where none is needed.
    """

    down: str | None
    reason: str = ""
    of: Own | None = None
    command: Node = None

    @property
    def settled(self) -> Part:
        """The same, once the whole file has been read: what it made and dropped again needs nothing."""
        if self.of and self.of.gone:
            return Part("", f"{self.of.label} is gone again by line {self.of.gone}")
        return self


Handler = Callable[[Node, "File"], Part | list[Part]]

SESSION = "puts a setting of the session back"


def cannot(reason: str) -> Part:
    """There is no way back, and why."""
    return Part(None, reason)


def nothing(reason: str) -> Part:
    """No way back is needed, and why."""
    return Part("", reason)


@dataclass
class File:
    """The state of one file, statement by statement."""

    line: int = 0
    order: int = 0
    things: dict[Key, Own] = field(default_factory=dict)
    # by column and kind: the command that gave it the default or the type it has
    earlier: dict[tuple[Key, str], Node] = field(default_factory=dict)
    # search_path and role: the statement in force
    settings: dict[str, str] = field(default_factory=dict)
    # by place: the names of what was made or changed there, and not dropped with something older
    _touched: list[tuple[int, frozenset[str]]] = field(default_factory=list)

    def qualified(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """A name with its schema; a name without one belongs to the search_path of the moment."""
        return names[-2:] if len(names) > 1 else (self.settings.get("search_path", ""), *names)

    def relation(self, relation: Node) -> Key:
        """The key of a RangeVar."""
        return Key("relation", self.qualified(relation_names(relation)))

    def child(self, kind: str, relation: Node, name: str) -> Key:
        """The key of a table's column, constraint, policy …"""
        return Key(kind, (*self.relation(relation).names, name))

    def key(self, kind: str, target: Node) -> Key:
        """The key of an object as DROP, COMMENT, ALTER … RENAME and others name it."""
        shape = target.DESCRIPTOR.name
        if shape == "RangeVar":
            return self.relation(target)
        if shape == "String":
            return Key(kind, (target.sval,))
        if shape == "TypeName":
            return Key("type", self.qualified(names(target.names)))
        if shape == "ObjectWithArgs":
            return self._with_args(kind, target)
        return self._listed(kind, [unwrap(item) for item in target.items])

    def _with_args(self, kind: str, target: Node) -> Key:
        kind = "routine" if kind in _ROUTINES else kind
        name = self.qualified(names(target.objname))
        if target.args_unspecified:
            return next((key for key in self.things if key.kind == kind and key.names[:2] == name), Key(kind, name))
        return Key(kind, (*name, *(_signature(unwrap(argument)) for argument in target.objargs)))

    def _listed(self, kind: str, items: list[Node]) -> Key:
        if kind == "OBJECT_DOMCONSTRAINT" and items[0].DESCRIPTOR.name == "TypeName":
            return Key("constraint", (*self.qualified(names(items[0].names)), items[1].sval))
        if any(item.DESCRIPTOR.name == "TypeName" for item in items):
            return Key(kind, tuple(getattr(item, "sval", "") or _signature(item) for item in items))
        parts = tuple(item.sval for item in items)
        if kind in CHILDREN:
            return Key(CHILDREN[kind], (*self.qualified(parts[:-1]), parts[-1]))
        if kind in _CLASSES:
            return Key(kind, (*self.qualified(parts[1:]), parts[0]))
        return Key("relation" if kind in _RELATIONS else "type" if kind in _TYPES else kind, self.qualified(parts))

    def find(self, key: Key) -> Own | None:
        """What the file made: the thing itself, or else what it is a part of."""
        return next((self.things[k] for k in (key, *key.holders) if k in self.things), None)

    def goes_with(self, own: Own, node: Node) -> bool:
        """Whether a change, as this statement or command makes it, goes when that thing is dropped."""
        return not own.root.exact and not self.tied(own, _words(node) | own.root.parents)

    def tied(self, own: Own, words: frozenset[str]) -> bool:
        """Whether these words name something younger than that thing."""
        return any(order > own.order and (_ANYTHING in them or them & words) for order, them in self._touched)

    def about(self, key: Key, node: Node, part: Part, *, leaf: bool = False) -> Part:
        """The part of a change to `key`: nothing where it goes with what the file made. Nothing depends on a leaf."""
        own = self.find(key)
        if own is None:
            return part
        if self.goes_with(own, node):
            return Part("", f"goes with {own.label}", own)
        own.root.exact |= not leaf
        return replace(part, of=own)

    def make(self, key: Key, label: str, node: Node, part: Part, holder: Key | None = None) -> Part:
        """The part of a statement that makes `key`, a piece of `holder` (or of its table)."""
        keys = (holder,) if holder else key.holders
        held_by = next((self.things[k] for k in keys if k in self.things), None)
        own = Own(label, self.order, held_by, next(iter(keys), None), _words(node))
        if held_by and self.goes_with(held_by, node):
            own.order = held_by.order
            self.things[key] = own
            return Part("", f"goes with {held_by.label}", own)
        if held_by and key.kind not in _LEAVES:
            held_by.root.exact = True
        if part.down is None and part.command is None:
            return replace(part, of=held_by)
        self.things[key] = own
        self._touch(key, holder)
        return replace(part, of=own)

    def _touch(self, key: Key, holder: Key | None = None) -> None:
        """From here on, what names `key` is tied to something younger than the things before it."""
        if key.kind in _LEAVES:
            return
        # what a column or a constraint is tied to names the table, not always the column
        name = key.names[-2] if key.kind in ("column", "constraint") else key.names[key.place]
        words = {_ANYTHING} if key.kind in _UNSEEN else {name, *(holder.names[-1:] if holder else ())}
        self._touched.append((self.order, frozenset(words)))

    def drop(self, key: Key) -> Own | None:
        """Forget a thing that the file made, for the file drops it; None where the file did not make it."""
        own = self.things.pop(key, None)
        if own:
            own.dropped = self.line
        if key.kind == "column":
            self._drop_with_column(key)
        self.things = {k: o for k, o in self.things.items() if not o.gone}
        self.earlier = {(k, what): node for (k, what), node in self.earlier.items() if key not in (k, *k.holders)}
        return own

    def _drop_with_column(self, column: Key) -> None:
        """PostgreSQL drops its indexes, constraints and statistics without a word."""
        for key, own in self.things.items():
            if own.table == column.holders[0] and column.names[-1] in own.words and key.kind not in _LEAVES:
                own.dropped = self.line

    def rename(self, old: Key, renamed: Key) -> None:
        """Follow a thing, and what belongs to it, to its new name."""
        own = self.find(old)
        if own:
            # the old name is free again for something younger, which would be in the way back
            own.root.exact |= old not in self.things or own.holder is not None
        for thing in self.things.values():
            thing.table = thing.table and _followed(thing.table, old, renamed)
            thing.words = _also(thing.words, old, renamed)
            thing.parents = _also(thing.parents, old, renamed)
        self._touched = [(order, _also(them, old, renamed)) for order, them in self._touched]
        self.things = {_followed(key, old, renamed): own for key, own in self.things.items()}
        self.earlier = {(_followed(key, old, renamed), what): node for (key, what), node in self.earlier.items()}


def _followed(key: Key, old: Key, renamed: Key) -> Key:
    if key == old:
        return renamed
    if old in key.holders:
        return replace(key, names=(*renamed.names, key.names[-1]))
    if old.kind == "OBJECT_SCHEMA" and len(key.names) > 1 and key.names[0] == old.names[0]:
        return replace(key, names=(*renamed.names, *key.names[1:]))
    return key


def _also(words: frozenset[str], old: Key, renamed: Key) -> frozenset[str]:
    """With the new name, where the old one is among them."""
    return words | {renamed.names[renamed.place]} if old.names[old.place] in words else words


def _signature(type_name: Node) -> str:
    """A type, so that `int` and `int4` are one; typmods are no part of a signature. None: a prefix operator's left."""
    if type_name is None:
        return ""
    return names(type_name.names)[-1] + "[]" * len(type_name.array_bounds)


def _words(node: Node) -> frozenset[str]:
    """Every name that a statement could mean: all its strings, and the words within them (`nextval('s.t')`)."""
    found: set[str] = set()
    for message in walk(node):
        for descriptor, value in message.ListFields():
            if descriptor.cpp_type == descriptor.CPPTYPE_STRING and not descriptor.is_repeated:
                found.update((value, *re.findall(r"\w+", value)))
    return frozenset(found)
