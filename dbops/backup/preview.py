"""What a create would take, without taking it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dbops.backup.choose import Chosen, Relation, choose
from dbops.backup.model import Omitted, Tier
from dbops.backup.source import Moved, details, held
from dbops.config import Settings
from dbops.errors import Blocked


@dataclass(frozen=True)
class CreatePlan:
    """The tables with their sizes on the server in bytes, TOAST included, and what would be left out."""

    tier: Tier
    tables: tuple[tuple[str, int], ...]
    omitted: tuple[Omitted, ...]

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.tables)

    def __str__(self) -> str:
        width = max((len(name) for name, _ in self.tables), default=0)
        lines = [f"  {name:<{width}}  {size:>15,} bytes" for name, size in self.tables]
        lines += [f"  not in it: {each.name}: {each.reason}" for each in self.omitted]
        return "\n".join([f"a {self.tier} backup of {len(self.tables)} tables, {self.bytes:,} bytes", *lines])


def preview(url: str, settings: Settings, tier: Tier, include: Sequence[str], exclude: Sequence[str]) -> CreatePlan:
    """Look at the tables as a create does, under the same locks. Raises as `create` does, but nothing is stored."""

    def choice(relations: Sequence[Relation], standby: bool) -> Chosen:
        return choose(relations, standby, include, exclude)

    try:
        with held(url, settings, choice) as snapshot:
            sizes = details(snapshot).sizes
            chosen = snapshot.chosen
    except Moved as moved:
        raise Blocked(f"a table did not hold still: {moved}", hint="try again; nothing was done") from None
    tables = tuple((str(each.name), sum(sizes.get(each.oid, (0, 0)))) for each in chosen.tables)
    return CreatePlan(tier, tables, chosen.omitted)
