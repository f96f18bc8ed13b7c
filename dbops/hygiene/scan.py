"""The plan of a deduplication: what the memory schema's functions find, made into clusters. Nothing is written."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from dbops.errors import UsageError
from dbops.hygiene import record
from dbops.hygiene.model import MEMORIES, Plan, Row, ScopePlan, Search, Tell
from dbops.hygiene.plan import plan_scope
from dbops.hygiene.semantic import semantic_pairs
from dbops.hygiene.session import Session, since, uuids
from dbops.wording import count

T = TypeVar("T")
_Pairs = dict[str, list[tuple[str, str, float]]]  # by user
_AT_ONCE = 20_000  # memories that one question to the server is about


class _Alike(NamedTuple):
    """Of one user: for each memory the first one that has its words, and the pairs of such first ones."""

    first: dict[str, str]
    near: list[tuple[str, str, float]]


class _Copies(NamedTuple):
    """The memories that say a text, and their places in the survivors' order."""

    text: str
    hash: str
    ids: list[str]
    places: list[int]


_NONE = _Alike({}, [])


def scan(session: Session, search: Search, user: str | None = None, *, tell: Tell = lambda _: None) -> Plan:
    """What would be merged and what is to be reviewed: of one user (any text that names him) or of all.

    Raises UsageError where there is no such user or no memory schema.
    """
    started = time.monotonic()
    with session.transaction(read_only=True):
        session.require_memories(embeddings=search.semantic is not None)
        owner = session.user(user)
        found = session.rows("users", {"user": owner})
        _refuse_unknown(session, user, owner, known=bool(found))
        oversized = tuple((str(u), str(m)) for u, m in session.rows("oversized", {"user": owner}))
    sizes = {str(name): size for name, size, _ in found}
    scopes: list[ScopePlan] = []
    searched = stale = 0
    portions = list(_portions({name: size for name, size in sizes.items() if size > 1}))
    with _ahead(session, [partial(_found, session, search, users) for users in portions]) as answers:
        for users, (rows, left_out, alike, meant, decided) in zip(portions, answers, strict=True):
            plans = [
                _plan(user, rows[user], alike.get(user, _NONE), meant.get(user, []), search, decided) for user in rows
            ]
            scopes += [plan for plan in plans if plan.pairs]
            stale += left_out
            searched += sum(sizes[name] for name in users)
            tell(f"{searched:,} of {count(sum(sizes.values()), 'memory')} searched")
    unread = sum(missing for *_, missing in found)
    notes = []
    if unread:
        notes += [f"{unread} memories have no word set yet and were not compared: select public.fill_memory_tokens()"]
    if stale:
        notes += [
            f"{count(stale, 'memory')} left out, their word set being another text's: dbops doctor --check stale-tokens"
        ]
    return Plan(MEMORIES, search, sum(sizes.values()), tuple(scopes), oversized, since(started), tuple(notes))


def _refuse_unknown(session: Session, name: str | None, user: str | None, *, known: bool) -> None:
    if user is not None and not known and not session.value("user_exists", {"user": user}):
        shown = name if name == user else f"{name} ({user})"
        raise UsageError(f"there is no user {shown}", hint="auth.users has all; nothing was done")


def _portions(sizes: dict[str, int]) -> Iterator[list[str]]:
    portion, rows = list[str](), 0
    for user, size in sizes.items():
        if portion and rows + size > _AT_ONCE:
            yield portion
            portion, rows = [], 0
        portion.append(user)
        rows += size
    if portion:
        yield portion


@contextmanager
def _ahead(session: Session, questions: Sequence[Callable[[], T]]) -> Iterator[Iterator[T]]:
    """The answers in their order; a thread asks the next question while the caller works on an answer.

    Nothing else may use the session meanwhile. Where the caller ends early (Ctrl-C), what the server does is cancelled.
    """
    import psycopg

    with ThreadPoolExecutor(1) as pool:
        asked = [pool.submit(session.patiently, "the search", question) for question in questions[:1]]

        def answers() -> Iterator[T]:
            for number in range(1, len(questions) + 1):
                answer = asked[0].result()
                asked[:] = [pool.submit(session.patiently, "the search", q) for q in questions[number : number + 1]]
                yield answer

        try:
            yield answers()
        finally:
            # again and again, for once may hit the moment between two statements
            while asked and not asked[0].done():
                with suppress(psycopg.Error):
                    session.conn.cancel_safe(timeout=1)
                wait(asked, timeout=0.1)


def _found(
    session: Session, search: Search, users: Sequence[str]
) -> tuple[dict[str, list[_Copies]], int, dict[str, _Alike], _Pairs, Any]:
    """Of these users, those who have pairs: their rows, how many are left out, the pairs by text and by meaning, decisions."""
    with session.transaction(read_only=True):
        alike = _alike(session, search, users)
        meant = semantic_pairs(session, users, search.semantic, search.model) if search.semantic is not None else {}
        found = {user: _involved(alike.get(user, _NONE), meant.get(user, ())) for user in users}
        rows, stale = _rows(session, found)
        return rows, stale, alike, meant, record.decided(session, MEMORIES, users)


def _alike(session: Session, search: Search, users: Sequence[str]) -> dict[str, _Alike]:
    found: dict[str, _Alike] = defaultdict(lambda: _Alike({}, []))
    for user, a, others, similarity in session.rows("sets", {"users": uuids(users), "threshold": search.threshold}):
        if similarity == 1:
            found[user].first.update(dict.fromkeys(others.split(","), a))
        else:
            found[user].near.append((a, others, similarity))
    return found


def _involved(alike: _Alike, meant: Iterable[tuple[str, str, float]]) -> set[str]:
    pairs = chain(alike.near, meant)
    return {*alike.first, *alike.first.values(), *(id_ for a, b, _ in pairs for id_ in (a, b))}


def _rows(session: Session, found: dict[str, set[str]]) -> tuple[dict[str, list[_Copies]], int]:
    """By user, in the survivors' order; and how many are left out, for they say something else than their word set."""
    users = uuids(user for user, ids in found.items() for _ in ids)
    ids = uuids(id_ for ids in found.values() for id_ in ids)
    rows: dict[str, list[_Copies]] = defaultdict(list)
    left_out = 0
    for user, text, hashed, copies, places, stale in session.rows("rows", {"users": users, "ids": ids}):
        if stale:
            left_out += len(places)
        else:
            rows[user].append(_Copies(text, hashed, copies.split(","), places))
    return rows, left_out


def _plan(
    user: str, found: Sequence[_Copies], alike: _Alike, meant: Sequence[tuple[str, str, float]], search: Search,
    decided: Any,
) -> ScopePlan:  # fmt: skip
    numbers: dict[str, int] = {}
    rows: dict[int, Row] = {}
    for text, hashed, ids, places in found:
        # copies of one text are one, where they have no word set yet too
        sets = {alike.first.get(id_, id_) for id_ in ids}
        number = next((numbers[word_set] for word_set in sets if word_set in numbers), len(numbers))
        numbers |= dict.fromkeys(sets, number)
        rows |= {place: Row(id_, text, hashed, number) for id_, place in zip(ids, places, strict=True)}
    # one that was deleted since the pairs were found has no number
    near = [(numbers[a], numbers[b], s) for a, b, s in alike.near if a in numbers and b in numbers]
    in_order = [rows[place] for place in range(len(rows))]
    return plan_scope(user, in_order, near, search, meant=meant, decided=decided.get(user))
