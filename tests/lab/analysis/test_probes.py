"""Probes, dependence, neighbours and maps, against cases whose answer is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from toys import toy_data

from bbqrec_core import SemanticIds, Sequences, Tokenized
from bbqrec_lab.analysis import maps, neighbours, probes
from bbqrec_lab.store import Store

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(4), 30)
ONE_HOT = np.eye(4)[LABELS] + 0.05 * RNG.normal(size=(120, 4))
NOISE = RNG.normal(size=(120, 7))


def pad(array: np.ndarray) -> np.ndarray:
    """With the padding row in front."""
    return np.concatenate([np.zeros_like(array[:1]), array])


def sequences(*histories: list[int]) -> Sequences:
    return toy_data(list(histories), 9).sequences


def test_a_probe_reads_a_factor_that_is_there_and_only_that() -> None:
    there, absent = probes.linear_probe(ONE_HOT, LABELS), probes.linear_probe(NOISE, LABELS)
    assert there.accuracy == 1.0
    assert there.gain == 1.0
    assert there.chance == absent.chance == 0.25
    assert abs(absent.accuracy - 0.25) < 0.15
    assert len(there.folds) == probes.FOLDS


def test_a_probe_is_judged_on_items_it_has_not_seen() -> None:
    wide = RNG.normal(size=(60, 200))  # enough columns to learn any labels by heart
    assert probes.linear_probe(wide, np.tile([0, 1], 30)).accuracy < 0.75


def test_a_rare_class_weighs_as_much_as_a_common_one() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    constant = np.zeros((100, 1))
    assert probes.linear_probe(constant, labels).accuracy == pytest.approx(0.5)


def test_items_of_unknown_factor_and_tiny_classes_are_left_out() -> None:
    labels = np.concatenate([LABELS, [probes.UNKNOWN] * 20, [9] * 4])
    vectors = np.concatenate([ONE_HOT, NOISE[:24, :4]])
    found, expected = probes.linear_probe(vectors, labels), probes.linear_probe(ONE_HOT, LABELS)
    assert found.folds.tolist() == expected.folds.tolist()
    assert found.chance == expected.chance


def test_a_probe_of_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"two classes of 5 items each, got class sizes \[40, 3\]"):
        probes.linear_probe(NOISE[:43], np.array([0] * 40 + [1] * 3))


def test_the_probe_table_has_a_row_per_part_and_factor_that_can_be_probed() -> None:
    present = np.append(False, np.ones(120, bool))
    factors = {"known": pad(LABELS), "rare": pad(np.r_[np.ones(3, int), np.zeros(117, int)])}
    table = probes.probe_table({"a": pad(ONE_HOT), "b": pad(NOISE)}, factors, present)
    assert table.select("part", "factor").rows() == [("a", "known"), ("b", "known")]
    assert table["accuracy"].to_list()[0] == 1.0
    assert (table["low"] <= table["accuracy"]).all()
    assert (table["accuracy"] <= table["high"]).all()


def test_signals_are_asked_their_own_nuisance_only() -> None:
    both, codes = pad(np.stack([ONE_HOT, NOISE[:, :4]], 1)), np.zeros((121, 2, 1), np.int64)
    book, present = np.eye(4)[None], np.append(False, np.ones(120, bool))[:, None].repeat(2, 1)
    raw = np.maximum(pad(LABELS), 0)[:, None]
    ids = SemanticIds(raw, (4,), 1, ("text", "id"), codes, both, present, book, raw)
    done = Tokenized(ids, [], {}, both, pad(NOISE)[:, None], both[:, 0])
    data = replace(toy_data([[1, 2, 3]], 120), features={"text": pad(NOISE).astype(np.float32)})
    factors = {"behaviour factor": pad(LABELS), "text_nuisance": pad(LABELS), "image_nuisance": pad(LABELS)}
    table = probes.probe_signals(data, done, factors)
    asked = {(part, factor) for part, factor in table.select("part", "factor").iter_rows()}
    kinds = ("raw", "behaviour", "quantized", "specific")
    assert asked == {(f"text: {kind}", factor) for kind in kinds for factor in ("behaviour factor", "own nuisance")} | {
        *((f"id: {kind}", "behaviour factor") for kind in ("behaviour", "quantized")),
        ("semantic ID: codes", "behaviour factor"),
    }
    gains = probes.mean_gains(table)
    assert gains["own nuisance"]["behaviour"] == 1.0
    gain = dict(table.filter(pl.col("factor") == "behaviour factor").select("part", "gain").iter_rows())
    assert gains["behaviour factor"]["behaviour"] == gain["text: behaviour"] != gain["id: behaviour"]  # as many signals
    assert gain["semantic ID: codes"] > 0.9  # the first code of these IDs is the factor
    alone = probes.mean_gains(table.filter(pl.col("part").str.starts_with("id")))
    assert alone["behaviour factor"]["behaviour"] == gain["id: behaviour"]


def test_category_factors_are_the_commonest_and_say_where_nothing_is_known() -> None:
    rows = [["a", "b"], ["a"], ["b"], None, ["c"], ["b", "all"]]
    categories = pl.Series("categories", rows, dtype=pl.List(pl.String))
    factors = probes.category_factors(categories, most=2)
    assert {name: labels.tolist() for name, labels in factors.items()} == {
        "b": [-1, 1, 0, 1, -1, 0, 1],
        "a": [-1, 1, 1, 0, -1, 0, 0],
    }
    assert probes.category_factors(pl.Series("categories", [None, None], dtype=pl.List(pl.String))) == {}


def test_a_category_that_all_items_have_is_no_factor() -> None:
    assert probes.category_factors(pl.Series("categories", [["x"]] * 20)) == {}


def test_hsic_is_one_for_the_same_and_by_chance_for_unrelated_vectors() -> None:
    assert probes.hsic(NOISE, NOISE).value == pytest.approx(1.0)
    other = probes.hsic(NOISE, RNG.normal(size=(120, 3)))
    assert other.value < 1.3 * other.by_chance
    assert probes.hsic(NOISE, 3 * NOISE @ np.linalg.qr(RNG.normal(size=(7, 7)))[0]).value == pytest.approx(1.0)


def test_hsic_sees_what_a_line_does_not() -> None:
    x = RNG.uniform(-1, 1, size=(200, 1))
    square = probes.hsic(x, x**2)
    assert abs(np.corrcoef(x[:, 0], x[:, 0] ** 2)[0, 1]) < 0.2
    assert square.value > 2 * square.by_chance


def test_hsic_equals_the_trace_formula() -> None:
    x, y = NOISE[:12].astype(float), ONE_HOT[::10].astype(float)

    def centred(vectors: np.ndarray) -> np.ndarray:
        square = np.array([[((a - b) ** 2).sum() for b in vectors] for a in vectors])
        kernel = np.exp(-square / np.median(square[square > 1e-9]))
        centre = np.eye(12) - 1 / 12
        return centre @ kernel @ centre

    k, m = centred(x), centred(y)
    expected = np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))
    assert probes.hsic(x, y).value == pytest.approx(expected)
    with pytest.raises(ValueError, match="needs at least 10 items, got 9"):
        probes.hsic(x[:9], y[:9])


def test_a_map_is_made_once_and_then_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    plane = maps.project(ONE_HOT, "pca", 0, store)
    assert plane.shape == (120, 2)
    monkeypatch.setattr(maps, "PCA", None)  # a second projection would now fail
    assert np.array_equal(maps.project(ONE_HOT, "pca", 0, store), plane)
    with pytest.raises(TypeError):
        maps.project(NOISE, "pca", 0, store)


def test_pca_keeps_the_largest_variance(tmp_path: Path) -> None:
    vectors = np.zeros((50, 5), np.float32)
    vectors[:, 3] = np.arange(50)
    plane = maps.project(vectors, "pca", 0, Store(tmp_path))
    assert abs(np.corrcoef(plane[:, 0], vectors[:, 3])[0, 1]) == pytest.approx(1)


def test_wrong_maps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="three vectors, got 2"):
        maps.project(NOISE[:2], "pca", 0, Store(tmp_path))
    with pytest.raises(Exception, match="tsne"):  # in tests the type checker is first to refuse it
        maps.project(NOISE, "tsne", 0, Store(tmp_path))


def test_nearest_is_brute_force_over_present_items_without_itself() -> None:
    vectors = RNG.normal(size=(30, 5)).astype(np.float32)
    present = RNG.random(30) < 0.7
    rows = np.flatnonzero(present)[:4]
    for row, found in zip(rows, neighbours.nearest(vectors, present, rows, 3), strict=True):
        cosine = [
            vectors[row] @ vector / np.linalg.norm(vectors[row]) / np.linalg.norm(vector) if keep and i != row else -9
            for i, (vector, keep) in enumerate(zip(vectors, present, strict=True))
        ]
        assert found.tolist() == np.argsort(cosine)[::-1][:3].tolist()
    assert neighbours.nearest(vectors, present, rows, 40).shape == (4, present.sum() - 1)
    assert neighbours.nearest(vectors, np.arange(30) == 3, np.array([3]), 5).shape == (1, 0)


def test_item_vectors_average_what_is_present() -> None:
    behaviour = RNG.normal(size=(3, 2, 4)).astype(np.float32)
    present = np.array([[False, False], [True, False], [True, True]])
    found = neighbours.mean_signals(behaviour, present)
    assert (found[0] == 0).all()
    assert found[1] == pytest.approx(2 * behaviour[1, 0] / np.linalg.norm(behaviour[1, 0]), rel=1e-5)
    mean = behaviour[2].sum(0)
    assert found[2] == pytest.approx(2 * mean / np.linalg.norm(mean), rel=1e-5)


def test_shared_audience_is_the_cosine_of_sets_of_users() -> None:
    events = sequences([1, 2, 1], [1, 3, 3], [2, 1, 4], [1, 4, 5])  # who comes back counts once
    one, two = np.array([1, 1, 2, 5, 1]), np.array([2, 3, 3, 5, 6])
    found = neighbours.shared_audience(events, one, two)
    assert found[:4] == pytest.approx([2 / np.sqrt(4 * 2), 1 / np.sqrt(4 * 1), 0, 1])
    assert np.isnan(found[4])  # item 6 has no user


def test_the_audience_of_nearest_ignores_items_without_an_event() -> None:
    events = sequences([1, 2, 1], [1, 2, 2], [3, 3, 3])
    vectors = np.eye(10, 3, dtype=np.float32)
    vectors[1] = vectors[2] = vectors[9] = [1, 0, 0]  # 9 is as near, and nobody met it
    mean, _ = neighbours.audience_of_nearest(vectors, np.ones(10, bool), events, k=1)
    assert mean == pytest.approx((1 + 1 + 0) / 3)


def test_purity_by_depth_is_the_mean_over_pairs_below_common_prefixes() -> None:
    codes = np.array([[0, 0], [1, 1], [1, 1], [1, 2], [2, 1], [2, 3]])
    rows = np.arange(1, 6)
    same = {(1, 2), (2, 1)}

    def likeness(one: np.ndarray, two: np.ndarray) -> np.ndarray:
        assert (one != two).all()
        return np.array([float((a, b) in same) for a, b in zip(one.tolist(), two.tolist(), strict=True)])

    found = neighbours.prefix_purity(codes, rows, likeness, draws=6000)
    assert found.mean[2] == 1
    # an item, then a partner: items 1 and 2 have half a chance each of finding the other, 3 none, 4 and 5 none
    assert found.mean[1] == pytest.approx(2 / 5 * 1 / 2, abs=0.03)
    assert found.mean[0] == pytest.approx(2 / 5 * 1 / 4, abs=0.03)
    assert found.pairs.tolist() == [10, 4, 1]  # {1,2,3} and {4,5} below a common first code
    assert found.error[0] == pytest.approx(np.sqrt(0.1 * 0.9 / 10), rel=0.1)  # ten pairs, however often drawn


def test_purity_has_no_value_where_no_prefix_is_shared() -> None:
    found = neighbours.prefix_purity(np.arange(4)[:, None], np.arange(1, 4), lambda one, two: np.ones(len(one)))
    assert np.isnan(found.mean[1])
    assert found.pairs[1] == 0


def test_one_pair_has_no_standard_error() -> None:
    codes = np.array([0, 1, 1, 2, 3])[:, None]
    found = neighbours.prefix_purity(codes, np.arange(1, 5), lambda one, two: np.ones(len(one)))
    assert (found.mean[1], found.pairs[1]) == (1, 1)
    assert np.isnan(found.error[1])


def test_the_telling_code_is_the_busiest_one_with_words_of_its_own() -> None:
    titles = ["tea"] * 6 + ["space"] * 6 + ["jam"] * 6
    items = pl.DataFrame({"title": titles, "text": [None] * 18, "categories": [None] * 18})
    busy = np.repeat([1, 2, 3], 6)
    assert neighbours.telling_code(items, np.repeat([7, 8, 9], 6), busy) == 9
    mixed = np.array([*([7, 8] * 6), *[9] * 6])
    assert neighbours.telling_code(items, mixed, np.repeat([3, 3, 1], 6)) == 9, "the others have no word of their own"
    assert neighbours.telling_code(items, np.arange(18), busy) == 12, "no code has words"


def test_a_profile_compares_years_and_events_with_all_other_items() -> None:
    titles = [f"space film ({year})" for year in (1990, 1991, 1992, 1993, 1994)] + [
        f"tea ({1994 + n})" for n in range(5)
    ]
    items = pl.DataFrame({"title": titles, "text": [None] * 10, "categories": [None] * 10})
    counts, member = np.array([9, 9, 9, 9, 9, 1, 1, 1, 1, 1]), np.arange(10) < 5
    found = neighbours.profile(items, counts, member)
    assert (found.items, found.events) == (5, (1.0, 9.0, 5.0))
    assert found.years.above == pytest.approx(0.5 / 25)  # of 25 pairs one is equal, in all others the other is later
    assert {word for word, *_ in found.words} == {"space", "film"}
    few = neighbours.profile(items.with_columns(title=pl.lit("tea")), counts, np.arange(10) < 4)
    assert np.isnan([few.years.above, few.events.above]).all(), "four items are too few to tell"


def test_agreement_counts_items_that_have_both_signals() -> None:
    codes = np.array([[[1, 0], [1, 1]], [[2, 0], [2, 0]], [[1, 1], [0, 1]], [[3, 3], [3, 3]]])  # (4, 2, 2)
    present = np.array([[True, True], [True, True], [True, True], [True, False]])
    found = neighbours.code_agreement(codes, present)
    assert found.share[:, 0, 1] == pytest.approx([2 / 3, 2 / 3])
    assert found.chance[0, 0, 1] == pytest.approx(2 / 3 * 1 / 3 + 1 / 3 * 1 / 3)
    assert found.share[0, 0, 0] == 1
    nobody = neighbours.code_agreement(codes, np.array([[True, False]] * 4))
    assert np.isnan(nobody.share[0, 0, 1])


def test_distinctive_words_are_frequent_inside_and_rare_outside() -> None:
    texts = ["red tea pot", "red tea", "red cup", None, "red jam", "the red pot"]
    member = np.array([True, True, False, True, False, False])
    assert neighbours.distinctive_words(texts, member, least=2) == [("tea", 2, 0, 1 / (2 / 5))]
    assert neighbours.distinctive_words(texts, member, least=1, lift=1.1)[1] == ("pot", 1, 1, 0.5 / (2 / 5))
    assert [
        word.word for word in neighbours.distinctive_words(["sci-fi a-b -x-", ""], np.array([True, False]), 9, 1, 1)
    ] == ["a-b", "sci-fi"]
    assert neighbours.distinctive_words([None, None], np.array([True, False])) == []


def test_a_word_of_four_items_says_nothing_about_a_code() -> None:
    texts = ["rare often common"] * 4 + ["often common"] * 2 + ["common"] * 6
    found = neighbours.distinctive_words(texts, np.arange(12) < 6)
    assert [word.word for word in found] == ["often"]


def test_codes_are_chosen_by_events_and_their_items_by_popularity() -> None:
    codes, counts = np.array([5, 5, 5, 2, 7, 2]), np.array([1, 0, 2, 4, 3, 9])
    found = [(code, rows.tolist()) for code, rows in neighbours.codes_by_events(codes, counts, 9)]
    assert found == [(2, [6, 4]), (5, [3, 1, 2]), (7, [5])]
    assert [code for code, _ in neighbours.codes_by_events(codes, counts, 1)] == [2]


def test_the_text_of_an_item_has_its_title_and_categories_too() -> None:
    items = pl.DataFrame({"title": ["A", None], "text": ["b", None], "categories": [["Sci-Fi", "War"], None]})
    assert neighbours.item_texts(items) == ["A b Sci-Fi War", ""]
    bare = pl.DataFrame({name: [None, None] for name in ("title", "text", "categories")})
    assert neighbours.item_texts(bare) == ["", ""]


def test_a_map_holds_every_item_and_the_codes_in_use(tmp_path: Path) -> None:
    raw = np.array([[0, 0], [2, 1], [2, 3], [2, 1], [0, 1]])  # row 0 is padding
    book = RNG.normal(size=(2, 4, 3)).astype(np.float32)
    behaviour = RNG.normal(size=(5, 2, 3)).astype(np.float32)
    present = np.ones((5, 2), dtype=bool)
    codes = np.zeros((5, 2, 2), dtype=np.int64)
    ids = SemanticIds(raw, (4, 4), 2, ("text", "id"), codes, behaviour, present, book, raw)
    done = Tokenized(ids, [], {}, behaviour, np.zeros((5, 1, 2), dtype=np.float32), behaviour[:, 0])
    items, (first, below) = maps.map_codes(done, "pca", 0, Store(tmp_path))
    vectors = neighbours.mean_signals(behaviour, present)[1:]
    whole = np.concatenate([vectors, book[0][[0, 2]], book[0][2] + book[1][[1, 3]]])  # code 2 is the largest
    plane = maps.project(whole, "pca", 0, Store(tmp_path))
    np.testing.assert_array_equal(np.concatenate([items, first, below]), plane)
    assert [len(part) for part in (items, first, below)] == [4, 2, 2]
