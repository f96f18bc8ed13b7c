"""The plan of a deduplication: what the memory schema's functions find, made into clusters. Nothing is written."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from dbops.errors import UsageError
from dbops.hygiene import record
from dbops.hygiene.model import MEMORIES, Plan, Row, ScopePlan, Search, Tell
from dbops.hygiene.plan import plan_scope
from dbops.hygiene.semantic import semantic_pairs
from dbops.hygiene.session import Session, since
from dbops.wording import count

T = TypeVar("T")
_Pairs = dict[str, list[tuple[str, str, float]]]  # by user
_AT_ONCE = 20_000  # memories that one question to the server is about


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
    searched = 0
    portions = list(_portions({name: size for name, size in sizes.items() if size > 1}))
    with _ahead(session, [partial(_found, session, search, users) for users in portions]) as answers:
        for users, (rows, alike, meant, decided) in zip(portions, answers, strict=True):
            plans = [
                _plan(user, rows[user], alike.get(user, []), meant.get(user, []), search, decided) for user in rows
            ]
            scopes += [plan for plan in plans if plan.pairs]
            searched += sum(sizes[name] for name in users)
            tell(f"{searched:,} of {count(sum(sizes.values()), 'memory')} searched")
    unread = sum(missing for *_, missing in found)
    note = f"{unread} memories have no word set yet and were not compared: select public.fill_memory_tokens()"
    return Plan(
        MEMORIES, search, sum(sizes.values()), tuple(scopes), oversized,
        since(started), (note,) if unread else (),
    )  # fmt: skip


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
) -> tuple[dict[str, list[tuple[str, str, str]]], _Pairs, _Pairs, Any]:
    """Of these users, those who have pairs: their rows, the pairs by text and by meaning, what people have decided."""
    with session.transaction(read_only=True):
        alike = _alike(session, search, users)
        meant = semantic_pairs(session, users, search.semantic, search.model) if search.semantic is not None else {}
        found = {
            user: {id_ for a, b, _ in [*alike.get(user, ()), *meant.get(user, ())] for id_ in (a, b)} for user in users
        }
        rows = _rows(session, found)
        return rows, alike, meant, record.decided(session, MEMORIES, users)


def _alike(session: Session, search: Search, users: Sequence[str]) -> _Pairs:
    pairs: dict[str, list[tuple[str, str, float]]] = defaultdict(list)
    for user, a, b, similarity in session.rows("sets", {"users": list(users), "threshold": search.threshold}):
        pairs[str(user)].append((str(a), str(b), similarity))
    return pairs


def _rows(session: Session, found: dict[str, set[str]]) -> dict[str, list[tuple[str, str, str]]]:
    """By user (id, text, hash) in the survivors' order."""
    wanted = [(user, id_) for user, ids in found.items() for id_ in ids]
    values = {"users": [user for user, _ in wanted], "ids": [id_ for _, id_ in wanted]}
    rows: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for user, id_, text, hashed in session.rows("rows", values) if wanted else ():
        rows[str(user)].append((str(id_), text, hashed))
    return rows


def _plan(
    user: str, found: Sequence[tuple[str, str, str]], alike: Sequence[tuple[str, str, float]],
    meant: Sequence[tuple[str, str, float]], search: Search, decided: Any,
) -> ScopePlan:  # fmt: skip
    numbers: dict[str, int] = {}
    texts: dict[str, int] = {}
    first = {b: a for a, b, similarity in alike if similarity == 1}
    for id_, _, hashed in found:
        word_set = first.get(id_, id_)
        # copies of one text are one, where it has no word set too
        number = numbers.get(word_set, texts.get(hashed, len(numbers)))
        numbers[word_set] = texts[hashed] = number
    rows = [Row(id_, text, hashed, numbers[first.get(id_, id_)]) for id_, text, hashed in found]
    # one that was deleted since the pairs were found has no number
    near = [(numbers[a], numbers[b], s) for a, b, s in alike if s < 1 and a in numbers and b in numbers]
    return plan_scope(user, rows, near, search, meant=meant, decided=decided.get(user))
