"""ALTER TABLE (and of views, indexes, types …), command by command, and its reverse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dbops.migrate.parse import Node, new, unwrap
from dbops.migrate.reverse.command import (
    alter_sql,
    dropped_options,
    hidden_options,
    only_names,
    type_restored,
    with_definition,
)
from dbops.migrate.reverse.make import UNKNOWN_BEFORE, UNNAMED, remember_column
from dbops.migrate.reverse.names import constraint_name
from dbops.migrate.reverse.nodes import clipped, copy, enum, quote_ident, shown, wrap
from dbops.migrate.reverse.state import File, Key, Part, cannot, nothing

_ASSUMED = "assumes that it was not so before"
_ALIKE = "assumes that it had the table's indexes, keys and triggers before"
_DEFAULT_BEFORE = "assumes that it was at its default before"
# the reverse of a command that only switches something
_SWITCHED = {
    "AT_SetNotNull": "AT_DropNotNull", "AT_DropNotNull": "AT_SetNotNull",
    "AT_EnableRowSecurity": "AT_DisableRowSecurity", "AT_DisableRowSecurity": "AT_EnableRowSecurity",
    "AT_ForceRowSecurity": "AT_NoForceRowSecurity", "AT_NoForceRowSecurity": "AT_ForceRowSecurity",
    "AT_SetLogged": "AT_SetUnLogged", "AT_SetUnLogged": "AT_SetLogged",
    "AT_EnableTrig": "AT_DisableTrig", "AT_DisableTrig": "AT_EnableTrig",
    "AT_EnableAlwaysTrig": "AT_EnableTrig", "AT_EnableReplicaTrig": "AT_EnableTrig",
    "AT_EnableTrigAll": "AT_DisableTrigAll", "AT_DisableTrigAll": "AT_EnableTrigAll",
    "AT_EnableTrigUser": "AT_DisableTrigUser", "AT_DisableTrigUser": "AT_EnableTrigUser",
    "AT_EnableRule": "AT_DisableRule", "AT_DisableRule": "AT_EnableRule",
    "AT_EnableAlwaysRule": "AT_EnableRule", "AT_EnableReplicaRule": "AT_EnableRule",
    "AT_AddInherit": "AT_DropInherit", "AT_DropInherit": "AT_AddInherit",
}  # fmt: skip
# these lose what the command says beyond the thing's name
_TAKEN_BACK = {"AT_AddIdentity": "AT_DropIdentity", "AT_AddOf": "AT_DropOf"}
_UNSET = {"AT_SetRelOptions": "AT_ResetRelOptions", "AT_SetOptions": "AT_ResetOptions"}
_TO_DEFAULT: dict[str, Callable[[], Node]] = {
    "AT_ReplicaIdentity": lambda: wrap("replica_identity_stmt", new("ReplicaIdentityStmt", identity_type="d")),
    "AT_SetStatistics": lambda: wrap("integer", new("Integer", ival=-1)),
    "AT_SetStorage": lambda: wrap("string", new("String", sval="default")),
    "AT_SetCompression": lambda: wrap("string", new("String", sval="default")),
}
_LOST = {
    "AT_DropIdentity": "its identity and the value of its sequence are gone",
    "AT_SetIdentity": "its earlier identity is not in this file",
    "AT_SetExpression": "its earlier expression is not in this file",
    "AT_DropExpression": "its expression is not in this file",
    "AT_ResetOptions": "its earlier options are not in this file",
    "AT_ResetRelOptions": "its earlier options are not in this file",
    "AT_ReplaceRelOptions": "its earlier options are not in this file",
    "AT_AlterConstraint": "its earlier definition is not in this file",
    "AT_ValidateConstraint": "PostgreSQL cannot make a valid constraint unvalidated again",
    "AT_ChangeOwner": "the earlier owner is not in this file",
    "AT_DropCluster": "the index that it was clustered on is not in this file",
    "AT_DropOf": "its type is not in this file",
    "AT_SetAccessMethod": "the earlier access method is not in this file",
    "AT_SetTableSpace": "the earlier tablespace is not in this file",
    "AT_AlterColumnGenericOptions": "its earlier options are not in this file",
}
_NAMED = (("Trig", "trigger"), ("Rule", "rule"), ("Constraint", "constraint"))
_NAMES_OTHERS = frozenset(("AT_ClusterOn", "AT_SetAccessMethod", "AT_SetTableSpace"))
_NO_TRACE = frozenset(("AT_DropOids", "AT_DetachPartitionFinalize"))


def alter_table(node: Node, file: File) -> list[Part]:
    """A part for each command, in the order of the statement."""
    return [_Table(node, file).part(unwrap(command)) for command in node.cmds]


class _Table:
    """The table, view, index or type of one ALTER statement, and what to do about its commands."""

    def __init__(self, node: Node, file: File) -> None:
        self.node, self.file = node, file
        relation = file.relation(node.relation)
        self.key = Key("type", relation.names) if enum(node, "objtype") == "OBJECT_TYPE" else relation

    def part(self, command: Node) -> Part:
        """What is to be done about one command."""
        kind = enum(command, "subtype")
        if kind in _SPECIAL:
            return _SPECIAL[kind](self, command)
        leaf = "RowSecurity" in kind or "Trig" in kind
        return self.file.about(self._target(command, kind), command, self._plain(command, kind), leaf=leaf)

    def _plain(self, command: Node, kind: str) -> Part:
        if kind in _NO_TRACE:
            return nothing("leaves nothing to reverse")
        if kind in _SWITCHED:
            return Part(None, _ASSUMED, command=copy(command, subtype=_SWITCHED[kind]))
        if kind in _TAKEN_BACK:
            return Part(None, _ASSUMED, command=copy(command, **{"subtype": _TAKEN_BACK[kind], "def": None}))
        if kind == "AT_ClusterOn":
            return Part(None, _ASSUMED, command=copy(command, subtype="AT_DropCluster", name=None))
        if kind in _UNSET:
            back = with_definition(copy(command, subtype=_UNSET[kind]), only_names(command))
            return Part(None, _DEFAULT_BEFORE, command=back)
        if kind in _TO_DEFAULT:
            return Part(None, _DEFAULT_BEFORE, command=with_definition(command, _TO_DEFAULT[kind]()))
        return self.lost(command, _LOST.get(kind, "no reverse is known"))

    def _target(self, command: Node, kind: str) -> Key:
        """What a command changes: what its name names, or the table."""
        if not command.name or kind in _NAMES_OTHERS:
            return self.key
        what = next((what for word, what in _NAMED if word in kind), "column")
        return self.child(what, command.name)

    def child(self, kind: str, name: str) -> Key:
        return Key(kind, (*self.key.names, name))

    def lost(self, command: Node, why: str) -> Part:
        return cannot(f"{clipped(alter_sql(self.node, [command]))}: {why}")

    def add_column(self, command: Node) -> Part:
        column = unwrap(getattr(command, "def"))
        key = self.child("column", column.colname)
        back = copy(command, **{"subtype": "AT_DropColumn", "name": column.colname, "def": None, "missing_ok": None})
        part = self.lost(command, UNKNOWN_BEFORE) if command.missing_ok else Part(None, command=back)
        part = self.file.make(key, f"COLUMN {shown([*self.key.names[:2][-1:], column.colname])}", command, part)
        if part.of:
            remember_column(self.file, key, column)
        return part

    def drop_column(self, command: Node) -> Part:
        return self._dropped("column", command, "its data are gone")

    def drop_constraint(self, command: Node) -> Part:
        return self._dropped("constraint", command, "its definition is not in this file")

    def _dropped(self, kind: str, command: Node, why: str) -> Part:
        key = self.child(kind, command.name)
        own = self.file.drop(key)
        if enum(command, "behavior") == "DROP_CASCADE" and own:
            return self.lost(command, "what went with it is not known")
        return nothing("what the file made itself") if own else self.file.about(key, command, self.lost(command, why))

    def add_constraint(self, command: Node) -> Part:
        constraint = unwrap(getattr(command, "def"))
        kind = enum(constraint, "contype")
        if constraint.indexname:
            return self._from_index(command, constraint)
        if kind == "CONSTR_NOTNULL" and not constraint.conname:
            column = unwrap(constraint.keys[0]).sval
            back = new("AlterTableCmd", subtype="AT_DropNotNull", name=column)
            return self.file.about(self.child("column", column), command, Part(None, _ASSUMED, command=back))
        name = constraint.conname or constraint_name(self.node.relation.relname, constraint, kind)
        key = self.child("constraint", name)
        if not constraint.conname and (not name or key in self.file.things):
            return self.file.about(self.key, command, self.lost(command, UNNAMED))
        notes = [] if constraint.conname else ["PostgreSQL's name for it was free"]
        notes += ["its columns were NOT NULL before"] if kind == "CONSTR_PRIMARY" else []
        return self._made(key, command, "assumes that " + " and that ".join(notes) if notes else "")

    def _made(self, key: Key, command: Node, note: str) -> Part:
        back = new("AlterTableCmd", subtype="AT_DropConstraint", name=key.names[-1], behavior="DROP_RESTRICT")
        return self.file.make(key, f"CONSTRAINT {quote_ident(key.names[-1])}", command, Part(None, note, command=back))

    def _from_index(self, command: Node, constraint: Node) -> Part:
        """USING INDEX: the constraint's drop takes the index along, which is right where the file made it."""
        index = self.file.relation(copy(self.node.relation, relname=constraint.indexname))
        if self.file.drop(index) is None:
            why = f"index {quote_ident(constraint.indexname)} would go with it, and its definition is not in this file"
            return self.file.about(self.key, command, self.lost(command, why))
        return self._made(self.child("constraint", constraint.conname or constraint.indexname), command, "")

    def disinherit(self, command: Node) -> Part:
        """Always reversed: what the parent's columns are tied to goes before this table may."""
        return replace(self._plain(command, "AT_DropInherit"), of=self.file.find(self.key))

    def set_default(self, command: Node) -> Part:
        return self._restored(command, "the earlier default is not in this file")

    def set_type(self, command: Node) -> Part:
        return self._restored(command, "the earlier type, and what the new one cannot hold, are not in this file")

    def _restored(self, command: Node, why: str) -> Part:
        """Back to what this file said before, where it did."""
        key, kind = self.child("column", command.name), enum(command, "subtype")
        own = self.file.find(key)
        before = self.file.earlier.get((key, kind)) if own and not own.reaches_out else None
        self.file.earlier[key, kind] = command
        if before is None:
            return self.file.about(key, command, self.lost(command, why))
        return self.file.about(key, command, Part(None, command=type_restored(copy(before, name=command.name))))

    def attach(self, command: Node) -> Part:
        """A partition that was there before must leave before the table that it joined is dropped."""
        partition = unwrap(getattr(command, "def"))
        if enum(self.node, "objtype") == "OBJECT_INDEX":
            return self.file.about(
                self.key, command, self.lost(command, "PostgreSQL cannot detach a partition's index")
            )
        definition = wrap("partition_cmd", copy(partition, bound=None))
        back = with_definition(copy(command, subtype="AT_DetachPartition"), definition)
        table, joined = self.file.find(self.key), self.file.relation(partition.name)
        if table and (own := self.file.find(joined)):
            own.join(table)
        elif table:
            table.reaches_out = table.exact = True
        return self.file.about(joined, self.node, Part(None, _ALIKE, command=back))

    def inherit(self, command: Node) -> Part:
        """What is done to the parent from here on is done to this table too."""
        relation = unwrap(getattr(command, "def"))
        parent, own = self.file.find(self.file.relation(relation)), self.file.find(self.key)
        if own:
            own.parents |= {relation.relname}
        if parent and (own is None or own.reaches_out):
            parent.reaches_out = parent.exact = True
        return self.file.about(self.key, command, self._plain(command, enum(command, "subtype")))

    def detach(self, command: Node) -> Part:
        partition = unwrap(getattr(command, "def")).name
        if own := self.file.find(self.file.relation(partition)):
            own.join(None)
        return self.file.about(
            self.file.relation(partition), self.node, self.lost(command, "its bounds are not in this file")
        )

    def options(self, command: Node) -> Part:
        return self.file.about(self.key, command, self._options_back(command))

    def _options_back(self, command: Node) -> Part:
        back = dropped_options(unwrap(getattr(command, "def")).items)
        if back is None:
            shown_options = wrap("list", new("List", items=hidden_options(unwrap(getattr(command, "def")).items)))
            return self.lost(with_definition(command, shown_options), "its earlier options are not in this file")
        return Part(None, command=with_definition(command, wrap("list", new("List", items=back))))


_SPECIAL: dict[str, Callable[[_Table, Node], Part]] = {
    "AT_AddColumn": _Table.add_column,
    "AT_DropColumn": _Table.drop_column,
    "AT_AddConstraint": _Table.add_constraint,
    "AT_DropConstraint": _Table.drop_constraint,
    "AT_ColumnDefault": _Table.set_default,
    "AT_AlterColumnType": _Table.set_type,
    "AT_AttachPartition": _Table.attach,
    "AT_AddInherit": _Table.inherit,
    "AT_DropInherit": _Table.disinherit,
    "AT_DetachPartition": _Table.detach,
    "AT_GenericOptions": _Table.options,
}
