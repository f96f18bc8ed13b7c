"""The guard against pairs that people labelled: what it misses is merged by mistake, a false alarm is a look too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.hygiene.guard import _seen_long, guard, key

pytestmark = pytest.mark.quick

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Labelled:
    language: str
    kind: str  # "same", or what tells the two apart
    a: str
    b: str

    @property
    def differs(self) -> bool:
        return self.kind != "same"


def labelled(name: str) -> list[Labelled]:
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    return [Labelled(*line.split("\t")) for line in lines if not line.startswith("#")]


PAIRS = labelled("hygiene_pairs.tsv")
UNSEEN = labelled("hygiene_pairs_unseen.tsv")  # which the guard was not made with


def measured(pairs: list[Labelled]) -> tuple[float, float]:
    """Precision and recall of "look at this pair"."""
    held = [pair for pair in pairs if guard(pair.a, pair.b)]
    right = sum(pair.differs for pair in held)
    return right / len(held), right / sum(pair.differs for pair in pairs)


def test_the_file_is_wide_enough() -> None:
    assert len(PAIRS) >= 200
    assert len({(pair.a, pair.b) for pair in PAIRS}) == len(PAIRS)
    languages = Counter(pair.language for pair in PAIRS)
    assert languages["en"] >= 80
    assert languages["en-lower"] >= 40
    assert len(languages) >= 12
    kinds = Counter(pair.kind for pair in PAIRS)
    assert min(kinds[kind] for kind in ("number", "date", "negation", "name", "same")) >= 20


def test_precision_and_recall(capsys: pytest.CaptureFixture[str]) -> None:
    groups = {
        "en": ("en",),
        "en-lower": ("en-lower",),
        "others": tuple({p.language for p in PAIRS} - {"en", "en-lower"}),
    }
    with capsys.disabled():
        for name, languages in (groups | {"all": tuple({p.language for p in PAIRS})}).items():
            pairs = [pair for pair in PAIRS if pair.language in languages]
            precision, recall = measured(pairs)
            print(f"\n  guard, {name}: {len(pairs)} pairs, precision {precision:.3f}, recall {recall:.3f}", end="")
            assert recall >= 0.9, [p for p in pairs if p.differs and not guard(p.a, p.b)]
            assert precision >= 0.85, [p for p in pairs if not p.differs and guard(p.a, p.b)]


def test_precision_and_recall_on_pairs_that_it_was_not_made_with(capsys: pytest.CaptureFixture[str]) -> None:
    precision, recall = measured(UNSEEN)
    with capsys.disabled():
        print(f"\n  guard, unseen: {len(UNSEEN)} pairs, precision {precision:.3f}, recall {recall:.3f}", end="")
    assert recall >= 0.9, [p for p in UNSEEN if p.differs and not guard(p.a, p.b)]
    assert precision >= 0.9, [p for p in UNSEEN if not p.differs and guard(p.a, p.b)]


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        ("User has 3 cats", "User has 4 cats", "number"),
        ("Due on 2024-03-05", "Due on 2024-03-06", "date"),
        ("User eats meat", "User does not eat meat", "negation"),
        ("User works at Google", "User works at Microsoft", "name"),
        ("Bob introduced Alice", "Alice introduced Bob", "order"),
        ("i work at google", "i work at amazon", "word"),
        ("Wakes up at 10 am", "Wakes up at 10 pm", "number"),
        ("Takes 5 mg", "Takes 5 g", "number"),
        ("It costs $9", "It costs €9", "number"),
        ("It costs $9", "It costs 9 dollars", None),
        ("Alarm if x < 5", "Alarm if x > 5", "word"),
        ("The answer is 👍", "The answer is 👎", "word"),
        ("The answer is 👍🏽", "The answer is 👍", None),
        ("Does not eat meat and eats fish", "Does not eat meat and does not eat fish", "negation"),
        ("User can't swim", "User cannot swim", None),
        ("User likes tea", "The user likes tea.", None),
        ("User has 3 cats", "User has three cats", None),
        ("USER LIKES TEA", "user likes tea", None),
        ("", "", None),
        ("!!!", "...", None),
        ("User cannot swim", "User Cannot Swim", None),
    ],
)
def test_the_reason_is_told(a: str, b: str, reason: str | None) -> None:
    assert guard(a, b) == reason


def test_long_texts_that_differ_in_much_are_for_a_person() -> None:
    one, other = (" ".join(f"Is {letter}{n}x" for n in range(5000)) for letter in "ab")
    assert guard(one, other) == "word"


def test_a_long_document_is_judged_to_its_last_word() -> None:
    one = " ".join(f"word{n} is here" for n in range(3000))
    assert guard(one, f"{one} more") is None
    assert guard(one, f"{one.replace('word7 ', 'word7x ')}") is not None


def test_long_texts_are_not_kept() -> None:
    for n in range(100):
        guard(f"{n} {'long ' * 5000}", "short")
    assert _seen_long.cache_info().currsize <= 16


@given(st.sampled_from(PAIRS), st.sampled_from([str.upper, str.lower, str.title]), st.sampled_from(["", "!", " ?"]))
def test_texts_with_one_key_are_the_same(pair: Labelled, case: Callable[[str], str], end: str) -> None:
    other = case(pair.a) + end
    assert key(pair.a) != key(other) or guard(pair.a, other) is None
    assert key(pair.a) != key(pair.b) or guard(pair.a, pair.b) is None


@given(st.text(max_size=60), st.text(max_size=60))
def test_it_is_symmetric_and_takes_any_text(a: str, b: str) -> None:
    assert guard(a, b) == guard(b, a)
    assert guard(a, a) is None


@given(st.sampled_from(PAIRS), st.sampled_from(["", ".", "!", "  "]))
def test_a_mark_at_the_end_changes_nothing(pair: Labelled, mark: str) -> None:
    assert guard(pair.a + mark, pair.b) == guard(pair.a, pair.b)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_another_number_is_never_the_same(a: int, b: int) -> None:
    held = guard(f"The order has {a} parts", f"The order has {b} parts")
    assert (held is None) == (a == b)
