"""Duplicates in SQL: the word set, exact pairs against brute force, one lookup, bad input."""

from __future__ import annotations

import random
import re
import unicodedata
import uuid
from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import errors

Connection = psycopg.Connection[Any]
Pairs = dict[tuple[uuid.UUID, uuid.UUID], float]
PAGE = Path(__file__).parents[2] / "docs" / "duplicates.md"
THRESHOLDS = [0.05, 0.1, 0.2, 0.3, 1 / 3, 0.4, 0.5, 0.51, 0.6, 2 / 3, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0]


def one(db: Connection, query: str, params: Sequence[Any] = ()) -> Any:
    row = db.execute(query.encode(), params).fetchone()
    return row[0] if row else None


def new_user(db: Connection) -> uuid.UUID:
    return one(db, "insert into auth.users default values returning id")


def remember(db: Connection, user: uuid.UUID, texts: Sequence[str]) -> list[uuid.UUID]:
    """All in one statement, in this order."""
    rows = db.execute(
        "insert into public.user_memories (user_id, fact, memory_type)"
        " select %s, x.fact, 'fact' from unnest(%s::text[]) with ordinality x(fact, n) order by x.n returning id",
        (user, list(texts)),
    )
    return [row[0] for row in rows]


def words(db: Connection, text: str) -> Any:
    return one(db, "select public.word_set(%s)", (text,))


# the word set -----------------------------------------------------------------------------------------------------

WORDS = [
    ("Hello, World! hello", ["hello", "world"]),
    ("well-known e-mail me@example.com", ["com", "e", "example", "known", "mail", "me", "well"]),
    ("snake_case", ["snake_case"]),
    ("don't DON’T donʼt", ["don't"]),
    ("rock 'n' roll, the dogs' bowl", ["bowl", "dogs", "n", "rock", "roll", "the"]),
    ("C++ C# F# c++17 a+b #tag", ["17", "a", "b", "c", "c#", "c++", "f#", "tag"]),
    ("3.5 1,000 v1.2.3 5. .5", ["1,000", "3.5", "5", "v1.2.3"]),
    ("10:30 2024-01-05 -7 50% $9", ["01", "05", "10", "2024", "30", "50", "7", "9"]),
    ("1, 2 and 1,2", ["1", "1,2", "2", "and"]),
    ("ÜBER uber", ["uber", "über"]),
    ("Straße STRASSE", ["strasse", "straße"]),
    ("ΟΔΟΣ οδός Οδος", ["οδοσ", "οδόσ"]),
    ("İstanbul istanbul", ["istanbul"]),
    ("Cafe\u0301 café", ["café"]),
    ("ﬁne ＡＢＣ ２０２４ x²", ["2024", "abc", "fine", "x2"]),
    ("« quoted » — dash… ¿qué?", ["dash", "quoted", "qué"]),
    ("co\u00adop zero\u200bwidth می\u200cخواهم", ["coop", "width", "zero", "میخواهم"]),
    ("我喜欢茶", ["喜欢", "我喜", "欢茶", "茶"]),
    ("茶。茶!", ["茶"]),
    ("コーヒー を飲む", ["を飲", "コー", "ヒー", "む", "ー", "ーヒ", "飲む"]),
    ("나는 커피를 좋아해", ["나는", "좋아해", "커피를"]),
    ("привет МИР", ["мир", "привет"]),
    ("मुझे चाय", ["चाय", "मुझे"]),
    ("ok 👍🏽👍 ☕️", ["ok", "☕", "👍"]),
    ("!!! ... —", []),
    ("", []),
    ("\t\r\n\x7f", []),
]


@pytest.mark.parametrize(("text", "expected"), WORDS, ids=[text for text, _ in WORDS])
def test_what_a_word_is(db: Connection, text: str, expected: list[str]) -> None:
    assert words(db, text) == sorted(unicodedata.normalize("NFC", word) for word in expected)


def shown_words() -> dict[str, tuple[list[str], list[str]]]:
    """The table of "What a word is": by its first cell, the texts in it and the words in the second cell."""
    table = PAGE.read_text(encoding="utf-8").partition("\n| text | words | why |\n")[2].partition("\n\n")[0]
    cells = [row.strip("| ").split(" | ") for row in table.splitlines()[1:]]
    assert [words for _, words, *_ in cells if re.sub("`[^`]+`", "", words).strip() not in ("", "none")] == []
    return {texts: (re.findall("`([^`]+)`", texts), re.findall("`([^`]+)`", words)) for texts, words, *_ in cells}


def test_the_page_shows_what_a_word_is(db: Connection) -> None:
    """Where a row holds several texts, the words are those of all of them."""
    shown = shown_words()
    assert len(shown) > 15
    assert min(len(texts) for texts, _ in shown.values()) == 1
    found = {row: sorted({word for text in texts for word in words(db, text)}) for row, (texts, _) in shown.items()}
    assert found == {row: sorted(expected) for row, (_, expected) in shown.items()}


def test_the_word_set_does_not_hang_on_the_collation(db: Connection) -> None:
    found = db.execute(
        """select public.word_set(t collate "C"), public.word_set(t collate "ucs_basic"), public.word_set(t)
           from (values ('ÉCOLE Üb İI ΟΔΟΣ'), ('TITLE')) v(t)"""
    ).fetchall()
    assert [set(map(tuple, row)) for row in found] == [
        {("ii", "école", "üb", "οδοσ")},
        {("title",)},
    ]


def test_a_word_is_cut_and_a_text_that_is_too_large_has_no_set(db: Connection) -> None:
    assert words(db, "x" * 600) == ["x" * 90, "x" * 255]
    assert len(words(db, " ".join(f"w{n}" for n in range(7000)))) == 7000
    assert words(db, "a " * 25000) == ["a"]
    assert words(db, "a " * 25000 + "b") is None
    assert words(db, "x" * 1_000_000) is None
    assert one(db, "select public.word_set(null)") is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=400))
@example("\u0344\u0345" * 100)
@example("\ufdfa" * 300)
def test_any_text_has_words_that_a_token_set_can_hold(db: Connection, text: str) -> None:
    found = words(db, text)
    assert found == sorted(set(found), key=lambda word: word.encode())
    assert not [word for word in found if not word or " " in word or len(word) > 255]
    assert one(db, "select length(array_to_tsvector(public.word_set(%s)))", (text,)) == len(found)
    if text.isascii():
        assert words(db, f" {text.upper()} ") == found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(text=st.text(st.sampled_from("aB9_ \t'.,+#-:%\x7f"), max_size=40))
def test_the_short_way_to_words_is_the_long_one(db: Connection, text: str) -> None:
    assert one(db, "select public.word_list(%s) = public.word_cut(%s)", (text, text))


def test_text_of_other_encodings_never_comes_in(db: Connection) -> None:
    with pytest.raises((psycopg.DataError, errors.CharacterNotInRepertoire)):
        words(db, "a\0b")
    with pytest.raises(errors.CharacterNotInRepertoire):
        db.execute("select public.word_set(convert_from('\\xff'::bytea, 'UTF8'))")


# pairs against brute force ----------------------------------------------------------------------------------------


def brute_force(db: Connection, user: uuid.UUID, threshold: float) -> Pairs:
    """Every pair compared, in Python: the words are the database's, the arithmetic is not."""
    rows = db.execute(
        "select id, public.word_set(fact) from public.user_memories where user_id = %s and is_active order by id",
        (user,),
    )
    sets = [(row[0], frozenset(row[1])) for row in rows if row[1]]
    pairs = {(a, b): len(x & y) / len(x | y) for (a, x), (b, y) in combinations(sets, 2)}
    return {pair: similarity for pair, similarity in pairs.items() if similarity >= threshold}


def found_pairs(db: Connection, user: uuid.UUID, threshold: float) -> Pairs:
    rows = db.execute("select a, b, similarity from public.find_duplicate_pairs(%s, %s)", (user, threshold)).fetchall()
    pairs = {(a, b): similarity for a, b, similarity in rows}
    assert len(pairs) == len(rows), "each pair once"
    return pairs


def from_sets(db: Connection, user: uuid.UUID, threshold: float, way: LiteralString = "find_duplicate_sets") -> Pairs:
    """The pairs that follow from the sets."""
    rows = db.execute(f"select a, b, similarity from public.{way}(%s, %s)", (user, threshold)).fetchall()
    member: dict[uuid.UUID, set[uuid.UUID]] = {}
    for a, b, similarity in rows:
        member.setdefault(a, {a})
        member.setdefault(b, {b}) if similarity < 1 else member[a].add(b)
    pairs = {tuple(sorted(pair)): 1.0 for ids in member.values() for pair in combinations(ids, 2)}
    for a, b, similarity in rows:
        if similarity < 1:
            pairs |= {tuple(sorted((x, y))): similarity for x in member[a] for y in member[b]}
    return pairs  # type: ignore[return-value]


# of a user with few memories, and of one with many: each is right for both
SETS: tuple[LiteralString, ...] = ("find_few_duplicate_sets", "find_many_duplicate_sets")


def few_words(vocabulary: int, most: int) -> st.SearchStrategy[list[str]]:
    text = st.lists(st.integers(0, vocabulary - 1), max_size=most).map(lambda found: " ".join(f"w{n}" for n in found))
    return st.lists(text.map(lambda text: text or "!"), min_size=2, max_size=24)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(texts=st.one_of(few_words(6, 6), few_words(12, 12), few_words(40, 8)))
@example(["w3 w7", "w1 w3 w7"])
@example(["w1", "w1", "w1 w2", "w2"])
@example(["a b c d e f g h i j k l m n o p q", "a b c d e f g h i j k l m n o p q r s t"])  # 17 of 20: 0.85
def test_pairs_are_those_of_brute_force_at_every_threshold(db: Connection, texts: list[str]) -> None:
    user = new_user(db)
    remember(db, user, texts)
    everything = brute_force(db, user, 0)
    for threshold in THRESHOLDS:
        expected = {pair: similarity for pair, similarity in everything.items() if similarity >= threshold}
        assert found_pairs(db, user, threshold) == expected
        for way in SETS:
            assert from_sets(db, user, threshold, way) == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(texts=few_words(10, 8), threshold=st.floats(0.01, 1.0))
def test_pairs_and_lookups_are_those_of_brute_force_at_any_threshold(
    db: Connection, texts: list[str], threshold: float
) -> None:
    user = new_user(db)
    ids = remember(db, user, texts)
    expected = brute_force(db, user, threshold)
    assert found_pairs(db, user, threshold) == expected
    assert from_sets(db, user, threshold, "find_many_duplicate_sets") == expected

    hits = db.execute("select id, similarity, kind from public.find_duplicate_memories(%s, %s, %s)", (user, texts[0], threshold)).fetchall()  # fmt: skip
    neighbours = {(set(pair) - {ids[0]}).pop(): s for pair, s in expected.items() if ids[0] in pair}
    itself = {ids[0]: 1.0} if words(db, texts[0]) else {}
    assert {row[0]: row[1] for row in hits} == neighbours | itself
    assert [row[1] for row in hits] == sorted((row[1] for row in hits), reverse=True)
    assert {row[2] for row in hits} <= {"text"}


@st.composite
def many_words(draw: st.DrawFn) -> list[str]:
    """Texts of up to 120 words, a hundred in the first, of a vocabulary of 300; each has others near it."""
    rng = draw(st.randoms(use_true_random=True))
    texts: list[list[int]] = []
    for size in [draw(st.integers(100, 117)), *draw(st.lists(st.integers(20, 117), min_size=1, max_size=3))]:
        base = rng.sample(range(300), size)
        others = [n for n in range(300) if n not in base]
        texts.append(base)
        for change in draw(st.lists(st.sampled_from(["replaced", "dropped", "added"]), min_size=1, max_size=4)):
            count = draw(st.integers(1, 3))
            kept = base if change == "added" else rng.sample(base, size - count)
            texts.append(kept if change == "dropped" else kept + rng.sample(others, count))
    return [" ".join(f"w{n}" for n in text) for text in texts]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=15)
@given(texts=many_words())
def test_full_sketches_lose_no_pair_and_no_lookup(db: Connection, texts: list[str]) -> None:
    user = new_user(db)
    ids = remember(db, user, texts[1:])  # the first one is looked up, and is not there
    full = one(db, "select max(bit_count(sketch::bit(64))) from public.memory_tokens where user_id = %s", (user,))
    assert full > 40
    everything = brute_force(db, user, 0)
    sets = [frozenset(text.split()) for text in texts]
    assert len(sets[0] & sets[1]) / len(sets[0] | sets[1]) > 0.9, "planted"
    for threshold in THRESHOLDS:
        expected = {pair: similarity for pair, similarity in everything.items() if similarity >= threshold}
        for way in SETS:
            assert from_sets(db, user, threshold, way) == expected
        for text, it in zip(texts[:3], sets, strict=False):
            hits = {row[0]: row[1] for row in lookup(db, user, text, threshold)}
            near = {id_: len(it & other) / len(it | other) for id_, other in zip(ids, sets[1:], strict=True)}
            assert hits == {id_: similarity for id_, similarity in near.items() if similarity >= threshold}


def test_only_the_users_own_active_memories_are_compared(db: Connection) -> None:
    mine, theirs = new_user(db), new_user(db)
    first, second, third = remember(db, mine, ["likes green tea"] * 3)
    remember(db, theirs, ["likes green tea"] * 2)
    db.execute("update public.user_memories set is_active = false where id = %s", (second,))
    assert found_pairs(db, mine, 0.85) == {(min(first, third), max(first, third)): 1.0}
    assert found_pairs(db, uuid.uuid4(), 0.85) == {}
    assert from_sets(db, mine, 0.85) == found_pairs(db, mine, 0.85)


def test_a_user_with_many_memories_is_searched_another_way_and_nothing_is_lost(db: Connection) -> None:
    user = new_user(db)
    rng = random.Random(3)
    remember(db, user, [" ".join(f"w{rng.randrange(30)}" for _ in range(rng.randrange(1, 9))) for _ in range(720)])
    assert from_sets(db, user, 0.7) == brute_force(db, user, 0.7)


def test_identical_facts_are_a_star_and_not_all_their_pairs(db: Connection) -> None:
    user = new_user(db)
    ids = remember(db, user, ["the user likes green tea"] * 20_000)
    rows = db.execute("select a, b, similarity from public.find_duplicate_sets(%s)", (user,)).fetchall()
    assert {row[0] for row in rows} == {min(ids)}
    assert {row[1] for row in rows} == set(ids) - {min(ids)}
    assert len(rows) == 19_999


# one lookup -------------------------------------------------------------------------------------------------------


def lookup(db: Connection, user: uuid.UUID, text: str | None, *more: Any) -> list[tuple[Any, ...]]:
    marks = ", %s" * len(more)
    query = f"select id, similarity, kind from public.find_duplicate_memories(%s, %s{marks})"
    return db.execute(query.encode(), (user, text, *more)).fetchall()


def test_a_lookup_loses_nothing_when_statistics_are_missing_or_old(db: Connection) -> None:
    user = new_user(db)
    (likes,) = remember(db, user, ["the user likes green tea in the morning"])
    assert lookup(db, user, "The USER likes green tea, in the morning!") == [(likes, 1.0, "text")]
    assert lookup(db, user, "a user likes green tea in the morning", 0.7) == [(likes, 7 / 8, "text")]
    remember(db, user, [f"the user likes number{n}" for n in range(300)])
    db.execute("analyze public.memory_tokens")
    remember(db, user, [f"green{n} tea morning" for n in range(300)])
    found = [row[0] for row in lookup(db, user, "the user likes green tea in the morning", 0.9)]
    assert found == [likes]


def test_a_lookup_by_meaning_beside_words(db: Connection) -> None:
    user = new_user(db)
    db.execute("insert into public.embedding_models (model, dimensions) values ('small', 2)")
    tea, coffee, gone = remember(db, user, ["likes tea", "drinks coffee", "loves tea"])
    for memory, vector in ((tea, "[1,0]"), (coffee, "[1,0.1]"), (gone, "[1,0]")):
        db.execute(
            "insert into public.memory_embeddings (user_id, memory_id, model, dimensions, embedding) values (%s, %s, 'small', 2, %s)",
            (user, memory, vector),
        )
    db.execute("update public.user_memories set is_active = false where id = %s", (gone,))
    found = lookup(db, user, "likes tea", "[1,0]", "small")
    assert [(row[0], row[2]) for row in found] == [(tea, "text"), (tea, "semantic"), (coffee, "semantic")]
    assert found[2][1] == pytest.approx(1 / 1.01**0.5)
    assert [row[0] for row in lookup(db, user, "likes tea", "[1,0]", "small", 1.0, 0.999)] == [tea, tea]
    assert [row[2] for row in lookup(db, user, "likes tea", None, "small")] == ["text"]
    assert lookup(db, user, "other", "[0,0]", "small") == []  # a zero vector is near to nothing
    with pytest.raises(errors.DataException):
        lookup(db, user, "likes tea", "[1,0,0]", "small")


# bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0, -0.1, 1.0000001, float("nan"), float("inf"), float("-inf"), None])
@pytest.mark.parametrize("function", ["find_duplicate_pairs(%s, %s)", "find_duplicate_sets(%s, %s)", "find_duplicate_memories(%s, 'tea', %s)"])  # fmt: skip
def test_a_threshold_out_of_range_is_refused(db: Connection, function: str, threshold: float | None) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="greater than 0 and at most 1"):
        db.execute(f"select * from public.{function}".encode(), (new_user(db), threshold))


def test_the_smallest_threshold_finds_all_that_share_a_word(db: Connection) -> None:
    user = new_user(db)
    a, b, _ = remember(db, user, ["green tea", "green house", "coffee"])
    assert found_pairs(db, user, 5e-324) == {(min(a, b), max(a, b)): 1 / 3}
    assert len(lookup(db, user, "tea house", 5e-324)) == 2


@pytest.mark.parametrize("threshold", [5e-324, 1e-300, 1e-12, 1e-10, 1e-9, 2e-9, 1e-8, 1e-5])
def test_tiny_thresholds_and_many_words(db: Connection, threshold: float) -> None:
    user = new_user(db)
    few, many = remember(db, user, ["a", " ".join(f"w{n}" for n in range(7000)) + " e"])
    assert [row[0] for row in lookup(db, user, "a b c d e", threshold)] == [
        few,
        *([many] if threshold <= 1 / 7005 else []),
    ]
    assert len(found_pairs(db, user, threshold)) == 0
    assert [row[0] for row in lookup(db, user, "b c d e " + " ".join(f"w{n}" for n in range(6000)), threshold)] == [
        many
    ]


def test_texts_without_words_are_nobodys_duplicates(db: Connection) -> None:
    user = new_user(db)
    remember(db, user, ["!!!", "!!!", "...", "tea"])
    assert found_pairs(db, user, 0.05) == {}
    for text in ("", "?!", None):
        assert lookup(db, user, text, 0.05) == []


def upto(size: int, text: str) -> str:
    """The text again and again, as many characters as fit into so many bytes."""
    return (text * (size // len(text.encode()) + 1)).encode()[:size].decode(errors="ignore")


def cut(text: str) -> set[str]:
    """Of one word that is too long."""
    return {text[n : n + 255] for n in range(0, len(text), 255)}


def neighbours(text: str) -> set[str]:
    """Of a run without spaces: pairs, and the last character."""
    return {text[n : n + 2] for n in range(len(text))}


def stream_safe(word: str) -> str:
    """NFKC of a letter with many marks, which are put into order 30 at a time (UAX #15)."""
    parts = [word[:31], *(word[n : n + 30] for n in range(31, len(word), 30))]
    return "".join(unicodedata.normalize("NFKC", part) for part in parts)


def every(first: int, last: int) -> str:
    return "".join(map(chr, range(first, last + 1)))


X, DIFFERENT = "x" * 50_000, upto(50_000, " ".join(f"w{n}" for n in range(9000)))
AFTER, WITHIN, POINTS = "c" + "+#" * 24_999, upto(49_999, "a'"), upto(49_999, "1.2,3.4,5,")
HAN, RARE_HAN, THAI = upto(50_000, every(0x4E00, 0x9FA5)), upto(50_000, every(0x20000, 0x2A6D6)), "ภาษาไทยไม่มีช่องว่าง"
MARKS, DISORDER = "a" + "\u0301" * 24_999, "a" + "\u0301\u0316" * 12_499
WIDE, KANA = " ".join(f"{n}\ufdfa" for n in range(5800)), upto(50_000, every(0x3300, 0x3357))
SKINS = "".join(map("".join, product("👍👋🤝🧑🙏", "🏻🏼🏽🏾🏿")))
HOSTILE: dict[str, tuple[str, set[str]]] = {
    "one word": (X, cut(X)),
    "all different": (DIFFERENT, set(DIFFERENT.split())),
    "apostrophes": ("'" * 50_000, set()),
    "apostrophes of all kinds": (upto(50_000, "'’ʼ"), set()),
    "apostrophes within a word": (WITHIN, cut(WITHIN)),
    "+ and #": (upto(50_000, "+#"), set()),
    "+ and # that end a word": (AFTER, cut(AFTER)),
    "+ and # that end no word": (upto(49_999, "a+#"), {"a"}),
    "spaces": (" " * 49_999 + "x", {"x"}),
    "Han": (HAN, neighbours(HAN)),
    "Han of 4 bytes": (RARE_HAN, neighbours(RARE_HAN)),
    "Thai": (upto(48_000, THAI), neighbours(THAI * 2)),
    "skins": (upto(50_000, SKINS), set("👍👋🤝🧑🙏")),
    "families": (upto(50_000, "👨🏽\u200d👩🏿\u200d👧🏻 "), set("👨👩👧")),
    "marks": (MARKS, cut("á" + MARKS[2:])),
    "marks in disorder": (DISORDER, cut(stream_safe(DISORDER))),
    "points and commas between digits": (POINTS, cut(POINTS.rstrip(","))),
    "points and commas beside digits": (upto(49_999, "1., 2,. ,3. .4, 5.6 "), {"1", "2", "3", "4", "5.6"}),
    "expanding": (upto(50_000, "\ufdfa"), {"صلى", "الله", "عليه", "وسلم", "وسلمصلى"}),
    "expanding, all different": (WIDE, set(unicodedata.normalize("NFKC", WIDE).split())),
    "expanding to kana": (KANA, neighbours(unicodedata.normalize("NFKC", KANA))),
}


def test_no_text_makes_the_trigger_fail(db: Connection) -> None:
    user = new_user(db)
    kept = "select tsvector_to_array(tokens), words, sketch from public.memory_tokens where memory_id = %s"
    for name, (text, expected) in HOSTILE.items():
        assert 45_000 <= len(text.encode()) <= 50_000, name
        (it,) = remember(db, user, [text])
        ((tokens, count, sketch),) = db.execute(kept, (it,)).fetchall()
        assert (set(tokens), count, sketch is None) == (expected, len(expected), not expected), name
    for text in ("x" * 50_001, "我" * 16_667, SKINS * 2000, "\ufdfa" * 100_000, "\U00020000" * 100_000):
        (it,) = remember(db, user, [text])
        assert db.execute(kept, (it,)).fetchall() == [(None, None, None)]


def test_a_large_text_is_stored_listed_and_not_compared(db: Connection) -> None:
    user = new_user(db)
    large = "word " * 20_000
    (memory,) = remember(db, user, [large])
    assert db.execute("select memory_id, tokens, words from public.memory_tokens").fetchall() == [(memory, None, None)]
    assert found_pairs(db, user, 0.5) == {}
    for text in (large, "x" * 1_048_576):
        with pytest.raises(errors.ProgramLimitExceeded, match="50000"):
            lookup(db, user, text)
    many = " ".join(f"w{n}" for n in range(7000))
    (widest,) = remember(db, user, [many])
    assert lookup(db, user, many) == [(widest, 1.0, "text")]
    assert lookup(db, user, many, 0.05) == [(widest, 1.0, "text")]
