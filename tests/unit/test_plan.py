"""Plans as text, against golden files; `UPDATE_GOLDEN=1 pytest tests/unit/test_plan.py` writes them anew."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.cli.migrate import plan_document, status_document, status_text
from dbops.errors import HistoryMismatch, Irreversible, MigrationFileError, UsageError
from dbops.migrate.files import Migration, parse_sql
from dbops.migrate.history import Record, Scripts, StepRecord
from dbops.migrate.kinds import program
from dbops.migrate.parse import tree_checksum
from dbops.migrate.plan import Status, choose_down, plan_down, plan_up, status

pytestmark = pytest.mark.quick

GOLDEN = Path(__file__).parent / "golden"
WHEN = datetime(2026, 11, 1, 8, 30, tzinfo=UTC)

FILES = {
    "20250101_000001_add_users": """\
-- migrate:up
create table users (
  id bigint primary key
);
-- migrate:down
drop table users;
""",
    "20250101_000002_index": """\
-- migrate:up
set work_mem = '1GB';
create index concurrently i
  on users (id);
-- migrate:down
drop index concurrently i;
""",
    "20250201_000001_vectors": """\
-- migrate:requires extension vector
-- migrate:up
alter table users add v vector(3);
-- migrate:down
alter table users drop v;
""",
    "20250301_000001_no_way_back": f"-- migrate:up\nselect 1; select '{'x' * 200}';\n",
}


def migration(name: str, text: str | None = None) -> Migration:
    """A migration of FILES, or one with another text."""
    return parse_sql(FILES[name] if text is None else text, Path(f"sql/{name}.sql"), name[:15], name[16:])


def files(*numbers: int) -> list[Migration]:
    return [migration(name) for number, name in enumerate(FILES, 1) if number in numbers]


def applied(item: Migration, kind: str = "applied") -> Record:
    return Record(
        version=item.version,
        name=item.name,
        checksum=item.checksum,
        tree_checksum=tree_checksum(program(item.up).statements),
        applied_at=WHEN,
        duration_ms=12.5,
        applied_by="ann",
        applied_from="laptop",
        dbops_version="0.1.0",
        kind=kind,
        has_down=item.down is not None,
    )


def step(item: Migration, number: int, state: str, direction: str = "up") -> StepRecord:
    return StepRecord(item.version, direction, number, 2, "c", state, "", None, None, [])


def there(*names: str) -> Any:
    """A server on which these extensions can be had."""
    return lambda wanted: set(names) & set(wanted)


def golden(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text + "\n", encoding="utf-8")
    assert text + "\n" == path.read_text(encoding="utf-8")


def scripts_of(*items: Migration) -> Any:
    stored = {
        i.version: Scripts(i.up.sql, i.down.sql if i.down else None, i.down.transaction if i.down else True, "")
        for i in items
    }
    return stored.get


def down(records: Sequence[Record], known: Sequence[Migration], stored: Sequence[Migration] = ()) -> str:
    return str(plan_down(records, {m.version: m for m in known}, scripts_of(*stored)))


class TestUp:
    def test_everything_is_pending(self) -> None:
        now = status(files(1, 2, 3, 4), [], extensions=there("vector"))
        golden("up_all", f"{plan_up(now)}\n\n{status_text(now)}")

    def test_what_is_applied_is_passed_over(self) -> None:
        now = status(files(1, 2, 3, 4), [applied(m) for m in files(1, 2, 3)], extensions=there("vector"))
        golden("up_rest", f"{plan_up(now)}\n\n{status_text(now)}")

    def test_nothing_to_do(self) -> None:
        now = status(files(1), [applied(files(1)[0])])
        assert str(plan_up(now)) == "nothing to do"
        assert plan_up(now).versions == ()

    def test_a_migration_waits_for_its_extension(self) -> None:
        now = status(files(1, 3, 4), [applied(files(1)[0])])
        assert [m.version for m in now.pending] == ["20250301_000001"]
        golden("up_waiting", f"{plan_up(now)}\n\n{status_text(now)}")

    def test_the_server_is_asked_only_for_what_files_name(self) -> None:
        asked: list[set[str]] = []
        status(files(1, 2), [], extensions=lambda names: asked.append(set(names)) or ())
        assert asked == []
        status(files(1, 3), [], extensions=lambda names: asked.append(set(names)) or ())
        assert asked == [{"vector"}]

    def test_one_that_waited_may_come_late(self) -> None:
        now = status(files(1, 3, 4), [applied(m) for m in files(1, 4)], extensions=there("vector"))
        assert now.out_of_order == ()
        assert plan_up(now).versions == ("20250201_000001",)

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"count": 1}, ["20250101_000001"]),
            ({"count": 9}, ["20250101_000001", "20250101_000002", "20250301_000001"]),
            ({"to": "20250101_000002"}, ["20250101_000001", "20250101_000002"]),
            ({"to": "20250201_000001"}, ["20250101_000001", "20250101_000002"]),
            ({"to": "20250301_000001", "count": 2}, ["20250101_000001", "20250101_000002"]),
        ],
    )
    def test_count_and_to(self, options: dict[str, Any], expected: list[str]) -> None:
        assert list(plan_up(status(files(1, 2, 3, 4), []), **options).versions) == expected

    def test_to_one_that_is_applied_does_nothing(self) -> None:
        now = status(files(1, 2), [applied(files(1)[0])])
        assert plan_up(now, to="20250101_000001").acts == ()

    @pytest.mark.parametrize("to", ["20250101_000003", "", "0"])
    def test_to_one_that_nobody_knows(self, to: str) -> None:
        with pytest.raises(UsageError, match=f"there is no migration {to}") as caught:
            plan_up(status(files(1, 2), []), to=to)
        assert caught.value.hint == "versions: 20250101_000001, 20250101_000002"

    def test_a_syntax_error_in_the_last_file_stops_the_first(self) -> None:
        broken = migration("20250301_000001_no_way_back", "select 1;\nselct 2;")
        with pytest.raises(MigrationFileError, match=r"no_way_back\.sql:2:1: syntax error"):
            plan_up(status([*files(1), broken], []))

    def test_a_run_that_was_killed_is_shown(self) -> None:
        first, second = files(1, 2)
        now = status([first, second], [applied(first)], steps=[step(second, 1, "done"), step(second, 2, "started")])
        golden("up_partial", f"{plan_up(now)}\n\n{status_text(now)}")
        assert status_document(now)["partial"] == [
            {"version": second.version, "direction": "up", "done": 1, "steps": 2}
        ]

    def test_out_of_order_stops(self) -> None:
        now = status(files(1, 2, 4), [applied(m) for m in files(1, 4)])
        assert now.out_of_order == ("20250101_000002",)
        with pytest.raises(HistoryMismatch) as caught:
            plan_up(now)
        allowed = plan_up(now, allow_out_of_order=True)
        golden("up_out_of_order", f"{status_text(now)}\n\n{caught.value.message}\n{caught.value.hint}\n\n{allowed}")


class TestEdits:
    def test_an_edited_file_stops(self) -> None:
        first, second = files(1, 2)
        edited = migration("20250101_000001_add_users", FILES["20250101_000001_add_users"].replace("bigint", "int"))
        now = status([edited, second], [applied(first)])
        assert (now.changed, now.reformatted) == ((first.version,), ())
        with pytest.raises(HistoryMismatch) as caught:
            plan_up(now, allow_out_of_order=True)
        assert caught.value.exit_code == 12
        golden("up_changed", f"{status_text(now)}\n\n{caught.value.message}\n{caught.value.hint}")

    @pytest.mark.parametrize("edit", ["-- a note\n", "/* x */ ", "\n\n", "  "])
    def test_comments_and_blanks_only_warn(self, edit: str) -> None:
        (first,) = files(1)
        text = FILES["20250101_000001_add_users"].replace("create", f"{edit}create")
        now = status([migration("20250101_000001_add_users", text)], [applied(first)])
        assert (now.changed, now.reformatted) == ((), (first.version,) if edit.strip() else ())
        assert plan_up(now).acts == ()

    def test_reformatted_as_text(self) -> None:
        (first,) = files(1)
        text = FILES["20250101_000001_add_users"].replace("  id", "  -- the key\n  id")
        golden(
            "status_reformatted", status_text(status([migration("20250101_000001_add_users", text)], [applied(first)]))
        )

    def test_an_edit_of_the_down_part_is_none(self) -> None:
        (first,) = files(1)
        text = FILES["20250101_000001_add_users"].replace("drop table", "drop table if exists")
        now = status([migration("20250101_000001_add_users", text)], [applied(first)])
        assert (now.changed, now.reformatted) == ((), ())

    def test_an_applied_file_that_no_longer_parses_is_edited(self) -> None:
        (first,) = files(1)
        assert status([migration("20250101_000001_add_users", "create tabel x ();")], [applied(first)]).changed == (
            first.version,
        )

    def test_the_tree_is_made_only_of_what_differs_in_text(self) -> None:
        first, second = files(1, 2)
        seen: list[str] = []
        edited = migration("20250101_000001_add_users", "select 1;")
        status([edited, second], [applied(first), applied(second)], tree=lambda m: seen.append(m.version) or "")
        assert seen == [first.version]

    def test_a_missing_file_is_shown_and_stops_nothing(self) -> None:
        now = status(files(2, 4), [applied(m) for m in files(1, 2)])
        assert now.missing == ("20250101_000001",)
        golden("status_missing", f"{status_text(now)}\n\n{plan_up(now)}")

    def test_a_record_without_checksum_is_no_edit(self) -> None:
        (first,) = files(1)
        adopted = Record(**{**vars(applied(first, "adopted")), "checksum": ""})
        assert status([first], [adopted]).changed == ()


class TestDown:
    def test_the_newest_by_default(self) -> None:
        now = status(files(1, 2), [applied(m) for m in files(1, 2)])
        golden("down_one", down(choose_down(now), files(1, 2)))

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({}, [3]),
            ({"count": 2}, [3, 2]),
            ({"count": 9}, [3, 2, 1]),
            ({"to": "20250101_000001"}, [3, 2]),
            ({"to": "20250201_000001"}, []),
            ({"to": "0"}, [3, 2, 1]),
            ({"version": "20250101_000002"}, [2]),
        ],
    )
    def test_count_to_and_version(self, options: dict[str, Any], expected: list[int]) -> None:
        records = [applied(m) for m in files(1, 2, 3)]
        chosen = choose_down(status(files(1, 2, 3), records), **options)
        assert [record.version for record in chosen] == [records[number - 1].version for number in expected]

    @pytest.mark.parametrize("options", [{"to": ""}, {"to": "7"}, {"version": ""}, {"version": "20250301_000001"}])
    def test_one_that_is_not_applied(self, options: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match="there is no migration"):
            choose_down(status(files(1, 4), [applied(m) for m in files(1)]), **options)

    def test_nothing_is_applied(self) -> None:
        assert down(choose_down(status(files(1), [])), files(1)) == "nothing to do"

    def test_all_of_them(self) -> None:
        records = [applied(m) for m in reversed(files(1, 2, 3))]
        golden("down_all", down(records, files(1, 2, 3)))

    def test_a_missing_file_is_reversed_as_it_was_recorded(self) -> None:
        (first,) = files(1)
        golden("down_missing", down([applied(first)], [], [first]))

    def test_an_edited_file_is_reversed_as_it_was_recorded(self) -> None:
        (first,) = files(1)
        edited = migration("20250101_000001_add_users", "-- migrate:up\nselect 1;\n-- migrate:down\nselect 2;\n")
        assert "drop table users" in down([applied(first)], [edited], [first])

    def test_a_down_part_that_was_added_later_counts(self) -> None:
        bare = migration("20250101_000001_add_users", "-- migrate:up\nselect 1;\n")
        later = migration("20250101_000001_add_users", "-- migrate:up\nselect 1;\n-- migrate:down\nselect 2;\n")
        assert "select 2" in down([applied(bare)], [later], [bare])

    def test_what_has_no_way_back_is_named(self) -> None:
        records = [applied(m) for m in reversed(files(2, 4))] + [applied(files(1)[0], "baseline")]
        bare = migration("20250101_000001_add_users", "select 1")
        with pytest.raises(Irreversible) as caught:
            down(records, [*files(2, 4), bare])
        golden("down_irreversible", f"{caught.value.message}\n{caught.value.hint}")


def test_a_plan_as_json_has_the_same_statements() -> None:
    plan = plan_up(status(files(1, 2), []))
    assert plan_document(plan) == {
        "steps": [
            {
                "version": "20250101_000001",
                "name": "add_users",
                "direction": "up",
                "transactional": True,
                "statements": [{"sql": "create table users (\n  id bigint primary key\n)", "line": 2}],
            },
            {
                "version": "20250101_000002",
                "name": "index",
                "direction": "up",
                "transactional": False,
                "statements": [
                    {"sql": "set work_mem = '1GB'", "line": 2},
                    {"sql": "create index concurrently i\n  on users (id)", "line": 3},
                ],
            },
        ],
        "waiting": [],
    }


@given(st.sets(st.integers(1, 40), min_size=1), st.data())
def test_up_and_down_are_each_others_reverse(numbers: set[int], data: st.DataObject) -> None:
    known = [
        parse_sql("-- migrate:up\nselect 1;\n-- migrate:down\nselect 2;", Path("x"), str(n), "x")
        for n in sorted(numbers)
    ]
    done = data.draw(st.integers(0, len(known)))
    records = [applied(m) for m in known[:done]]
    now: Status = status(known, data.draw(st.permutations(records)))
    assert now.out_of_order == ()
    up = plan_up(now).versions
    assert [r.version for r in now.applied] + list(up) == [m.version for m in known]
    after = status(known, [applied(m) for m in known])
    to = records[-1].version if records else "0"
    assert [r.version for r in choose_down(after, to=to)] == list(reversed(up))
