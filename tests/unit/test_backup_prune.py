"""Which backups go: golden plans, the promotion of tiers, and what no age or clock may remove."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.backup.model import TIERS, Drill, Manifest, Tier
from dbops.backup.prune import Keep, PrunePlan, auto_tier, database_of, plan_prune
from dbops.config import Settings
from tests.backup_store import manifest_of

pytestmark = pytest.mark.quick

GOLDEN = Path(__file__).parent / "golden"
NOW = datetime(2025, 12, 31, 3, tzinfo=UTC)


def golden(name: str, plan: PrunePlan) -> None:
    path = GOLDEN / f"backup_prune_{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(f"{plan}\n")
    assert f"{plan}\n" == path.read_text()


def nightly(first: datetime, nights: int, database: str = "shop") -> list[Manifest]:
    """Backups as `--tier auto` makes them: 01:30 every night."""
    made: list[Manifest] = []
    for night in range(nights):
        at = first + timedelta(days=night)
        rows = [b"the same in all", f"{database} of the month {at:%Y-%m}".encode(), f"{database} {at}".encode()]
        made.append(manifest_of(at, auto_tier(made, at), rows, database))
    return made


def drill(manifest: Manifest, ok: bool = True) -> Drill:
    return Drill(manifest.id, manifest.created_at + timedelta(hours=1), ok, 100.0, 180004, ())


FIRST = datetime(2024, 11, 20, 1, 30, tzinfo=UTC)


def test_a_year_of_nights() -> None:
    manual = manifest_of(FIRST - timedelta(days=300), "manual")
    every = [manual, *nightly(FIRST, 406)]
    plan = plan_prune(every, [], NOW, Keep())
    golden("year", plan)
    tiers = [each.id.rpartition("_")[2] for each in plan.kept]
    # 2 to 30 December but for four Mondays; the Mondays from 13 October on but for 1 December; the firsts of 2025
    assert {tier: tiers.count(tier) for tier in TIERS} == {"daily": 25, "weekly": 11, "monthly": 12, "manual": 1}
    # kept by the plan, nothing more goes the second time
    kept = {each.id for each in plan.kept}
    assert not plan_prune([each for each in every if each.id in kept], [], NOW, Keep()).removed


def test_two_databases_in_one_store() -> None:
    ours, theirs = nightly(FIRST, 3), nightly(FIRST + timedelta(minutes=1), 3, "theirs")
    drills = [drill(ours[0]), drill(ours[1], ok=False)]
    golden("ours", plan_prune([*ours, *theirs], drills, NOW, Keep(monthly=1), [database_of(ours[0])]))
    golden("both", plan_prune([*ours, *theirs], drills, NOW, Keep(monthly=1)))


def test_the_same_name_in_another_cluster() -> None:
    ours = manifest_of(FIRST)
    copy = manifest_of(FIRST + timedelta(days=1), system_identifier="1")
    plan = plan_prune([ours, copy], [], NOW, Keep(), [database_of(copy)])
    assert [each.id for each in plan.kept] == [copy.id, ours.id]
    assert "another database" in plan.kept[1].reason


def test_clocks_that_were_wrong() -> None:
    """A backup from the future stays, and does not stand for the newest."""
    every = [*nightly(FIRST, 3), manifest_of(NOW + timedelta(days=900), "daily")]
    golden("future", plan_prune(every, [drill(every[-1])], NOW, Keep(monthly=1)))
    # ours is far behind: nothing is old
    assert not plan_prune(every, [], FIRST - timedelta(days=9999), Keep()).removed


@pytest.mark.parametrize(
    ("tier", "taken", "last"),
    [
        ("daily", "2025-01-01", "2025-01-30"),
        ("weekly", "2025-01-01", "2025-03-25"),
        ("monthly", "2025-01-31", "2026-01-30"),
        ("monthly", "2024-02-29", "2025-02-27"),
    ],
)
def test_until_when(tier: Tier, taken: str, last: str) -> None:
    at = datetime.fromisoformat(taken).replace(tzinfo=UTC)
    every = [manifest_of(at, tier), manifest_of(at + timedelta(minutes=1), "manual")]
    end = datetime.fromisoformat(last).replace(tzinfo=UTC) + timedelta(days=1)
    assert not plan_prune(every, [], end - timedelta(seconds=1), Keep()).removed
    [gone] = plan_prune(every, [], end, Keep()).removed
    assert gone.id == every[0].id


def test_freed_bytes_are_those_that_only_the_removed_have() -> None:
    shared, own = b"shared" * 100, b"own" * 100
    old = manifest_of(FIRST, rows=[shared, own, own])
    new = manifest_of(FIRST + timedelta(days=1), rows=[shared])
    plan = plan_prune([old, new], [], NOW, Keep())
    assert plan.freed_bytes == old.tables[0].chunks[1].stored_bytes + old.objects[0].stored_bytes


def test_settings() -> None:
    assert Keep.of(Settings(keep_daily=1, keep_weekly=2, keep_monthly=3)) == Keep(1, 2, 3)
    assert Keep.of(Settings()) == Keep()


_backups = st.lists(
    st.tuples(st.integers(-500, 50), st.sampled_from(TIERS), st.sampled_from(["a", "b"]), st.booleans()),
    max_size=12, unique_by=lambda each: each[0],
)  # fmt: skip


@given(_backups, st.integers(-600, 600))
def test_what_is_never_removed(backups: list[tuple[int, Tier, str, bool]], skew: int) -> None:
    every = [manifest_of(NOW + timedelta(days=day), tier, database=name) for day, tier, name, _ in backups]
    drills = [drill(each, proven) for each, (*_, proven) in zip(every, backups, strict=True)]
    now = NOW + timedelta(days=skew)
    plan = plan_prune(every, drills, now, Keep())
    removed = {each.id for each in plan.removed}
    assert removed | {each.id for each in plan.kept} == {each.id for each in every}
    assert len(plan.removed) + len(plan.kept) == len(every)
    for name in {each.database for each in every}:
        own = sorted((each for each in every if each.database == name), key=lambda each: each.created_at)
        past = [each for each in own if each.created_at <= now]
        proven = [each for each in past if any(drill.ok for drill in drills if drill.id == each.id)]
        assert {each.id for each in own if each.tier == "manual" or each.created_at > now} & removed == set()
        assert {each.id for each in past[-1:] + proven[-1:]} & removed == set()


def test_auto_tier() -> None:
    made = nightly(datetime(2025, 1, 30, 1, 30, tzinfo=UTC), 12)
    assert [f"{each.created_at:%a %d} {each.tier}" for each in made] == [
        "Thu 30 monthly", "Fri 31 daily",  # the first of all, too, is the first of its month
        "Sat 01 monthly", "Sun 02 daily",
        "Mon 03 weekly", "Tue 04 daily", "Wed 05 daily", "Thu 06 daily", "Fri 07 daily", "Sat 08 daily", "Sun 09 daily",
        "Mon 10 weekly",
    ]  # fmt: skip


def test_auto_tier_makes_up_for_a_missed_night() -> None:
    made = nightly(datetime(2025, 2, 1, tzinfo=UTC), 2)
    assert auto_tier(made, datetime(2025, 2, 5, tzinfo=UTC)) == "weekly"
    assert auto_tier(made, datetime(2025, 3, 4, tzinfo=UTC)) == "monthly"


def test_auto_tier_counts_neither_manual_backups_nor_the_future() -> None:
    now = datetime(2025, 2, 1, 1, 30, tzinfo=UTC)
    made = [manifest_of(now - timedelta(minutes=30), "manual"), manifest_of(now + timedelta(days=1), "monthly")]
    assert auto_tier(made, now) == "monthly"


def test_auto_tier_across_the_year() -> None:
    """The last days of December may be in the first week of the next year."""
    made = [manifest_of(datetime(2024, 12, 1, tzinfo=UTC), "monthly")]
    made.append(manifest_of(datetime(2024, 12, 30, tzinfo=UTC), auto_tier(made, datetime(2024, 12, 30, tzinfo=UTC))))
    assert made[-1].tier == "weekly"
    made.append(manifest_of(datetime(2025, 1, 1, tzinfo=UTC), auto_tier(made, datetime(2025, 1, 1, tzinfo=UTC))))
    assert made[-1].tier == "monthly"
    assert auto_tier(made, datetime(2025, 1, 2, tzinfo=UTC)) == "daily"


def test_auto_tier_by_utc() -> None:
    from datetime import timezone

    east = datetime(2025, 2, 1, 1, tzinfo=timezone(timedelta(hours=2)))  # still January in UTC
    assert auto_tier([manifest_of(datetime(2025, 1, 31, 12, tzinfo=UTC), "monthly")], east) == "daily"
