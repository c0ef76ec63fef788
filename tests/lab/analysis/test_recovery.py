"""Agreement with known trees and between seeds, against pairs counted one by one; and what planted codes recover."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from tiny import lab_tokenizer_config

from bbqrec_core import EvaluationConfig
from bbqrec_lab.analysis import recovery, sweeps
from bbqrec_lab.datasets.planted import PlantedConfig
from bbqrec_lab.experiments.presets import Config
from bbqrec_lab.settings import DataConfig, IdsConfig, VariantRecommenderConfig
from bbqrec_lab.store import Store

RNG = np.random.default_rng(0)
TREE = np.array([[a, b] for a in range(3) for b in range(2) for _ in range(10)])  # 3 branches of 2 leaves of 10 items
TINY = PlantedConfig(users=20, items=60, branching=(2, 2), moods=1, length=8, nuisances=2, features="direct", missing=0)


def test_the_true_tree_agrees_with_itself_under_any_names() -> None:
    found = recovery.tree_agreement(7 - 2 * TREE, TREE)
    assert np.diag(found) == pytest.approx(1)
    assert found[0, 1] == pytest.approx(found[1, 0])
    assert 0.3 < found[0, 1] < 0.95


def test_unrelated_codes_agree_by_nothing_on_average() -> None:
    found = [recovery.tree_agreement(RNG.integers(0, 6, (60, 2)), TREE) for _ in range(20)]
    assert np.abs(np.mean(found, 0)).max() < 0.04


def test_only_items_of_known_place_count() -> None:
    unknown = np.full((30, 2), -1)
    unknown[:10, 1] = 1  # of these the branch alone is not known
    codes = np.concatenate([RNG.integers(0, 4, (30, 2)), TREE])
    found = recovery.tree_agreement(codes, np.concatenate([unknown, TREE]))
    assert found == pytest.approx(recovery.tree_agreement(TREE, TREE))


def test_there_is_no_agreement_where_every_item_is_alone() -> None:
    codes = np.stack([TREE[:, 0], np.arange(60)], 1)
    found = recovery.tree_agreement(codes, TREE)
    assert np.isnan(found[1]).all()
    assert found[0, 0] == pytest.approx(1)


def test_a_tree_of_one_known_item_is_refused() -> None:
    with pytest.raises(ValueError, match="two items with a known place in the tree, got 1"):
        recovery.tree_agreement(TREE[:3], np.array([[-1, 0], [0, 0], [1, -1]]))


def test_the_true_tree_is_read_root_first() -> None:
    digits = {"leaf": np.array([-1, 5]), "level_2": np.array([-1, 1]), "level_1": np.array([-1, 2])}
    assert recovery.true_tree(digits).tolist() == [[-1, -1], [2, 1]]
    with pytest.raises(ValueError, match=r"level_1, level_2, ..., got \['leaf'\]"):
        recovery.true_tree({"leaf": np.array([-1])})


def test_large_catalogues_are_sampled_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "MOST_ITEMS", 20)
    codes = RNG.integers(0, 3, (60, 1))
    one, again, other = (recovery.tree_agreement(codes, TREE, seed) for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def brute_stability(one: np.ndarray, two: np.ndarray, length: int) -> tuple[float, float]:
    """(share of pairs together in one that are in the other, mean of both ways; and by chance), pair by pair."""
    pairs = list(combinations(range(1, len(one)), 2))
    first, second = ([(t[i, :length] == t[j, :length]).all() for i, j in pairs] for t in (one, two))
    both = sum(a and b for a, b in zip(first, second, strict=True))
    return (both / sum(first) + both / sum(second)) / 2, (sum(first) + sum(second)) / 2 / len(pairs)


def test_stability_counts_pairs_of_items_and_leaves_the_padding_out() -> None:
    one, two = RNG.integers(0, 3, (23, 2)), RNG.integers(0, 3, (23, 2))
    two[1:15] = one[1:15]
    two[0] = one[1] = one[0]
    found = recovery.seed_stability([one, two])
    for length in (1, 2):
        together, by_chance = brute_stability(one, two, length)
        assert found.together[length - 1] == pytest.approx(together)
        assert found.by_chance[length - 1] == pytest.approx(by_chance)


def test_equal_ids_of_other_names_are_perfectly_stable_and_pairs_of_seeds_are_averaged() -> None:
    one = np.concatenate([[[0, 0]], TREE])
    same = recovery.seed_stability([one, 9 - one])
    assert same.agreement == pytest.approx(1)
    assert same.together == pytest.approx(1)
    other = np.concatenate([[[0, 0]], RNG.integers(0, 4, (60, 2))])
    three = recovery.seed_stability([one, 9 - one, other])
    apart = recovery.seed_stability([one, other])
    assert three.agreement == pytest.approx((1 + 2 * apart.agreement) / 3)


def test_random_ids_of_two_seeds_are_at_zero_and_at_chance() -> None:
    tables = [np.random.default_rng(seed).integers(0, 4, (400, 2)) for seed in range(4)]
    found = recovery.seed_stability(tables)
    assert np.abs(found.agreement).max() < 0.02
    assert found.together == pytest.approx(found.by_chance, abs=0.02)


def test_random_ids_are_inside_the_range_of_chance_and_equal_ones_are_not() -> None:
    tables = [np.random.default_rng(seed).integers(0, 9, (400, 2)) for seed in range(3)]
    low, high = recovery.together_by_chance(tables)
    found = recovery.seed_stability(tables)
    assert low < found.by_chance[0] < high < 0.16
    assert low <= found.together[0] <= high
    assert recovery.seed_stability([tables[0], tables[0]]).together[0] > recovery.together_by_chance(tables[:1] * 2)[1]
    assert np.isnan(recovery.together_by_chance([np.arange(9)[:, None]] * 2)).all(), "no two items share a code"


def test_tables_of_other_length_are_compared_as_far_as_both_go() -> None:
    longer = np.concatenate([np.zeros((61, 2), int), np.arange(61)[:, None]], 1)
    longer[1:, :2] = TREE
    assert len(recovery.seed_stability([longer, longer[:, :2]]).agreement) == 2


@pytest.mark.parametrize("sizes", [(5,), (5, 6)])
def test_one_table_or_two_catalogues_are_no_comparison(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"at least two tables of one catalogue, got tables of \[5"):
        recovery.seed_stability([np.zeros((size, 1), int) for size in sizes])


def settings(**changes: object) -> Config:
    """A tokenizer small enough for a test, without what needs many epochs."""
    plain = lab_tokenizer_config(w_mi=0.0, w_seq=0.0, codes=8, code_width=8, epochs=3, id_signal=False, **changes)
    return Config("smoke", 0, DataConfig(), IdsConfig(), plain, VariantRecommenderConfig(), EvaluationConfig())


@pytest.fixture(scope="module")
def diagram(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[dict]]:
    store = Store(tmp_path_factory.mktemp("store"))
    lines = {"pulled": {"w_cross": 1.0}, "alone": {"w_cross": 0.0}}
    return store, sweeps.phase_diagram(settings(), lines, (30.0, 0.03), (0,), store, TINY).to_dicts()


def test_codes_know_what_the_features_show_most_of(diagram: tuple[Store, list[dict]]) -> None:
    assert [(point["setting"], point["ratio"]) for point in diagram[1]] == [
        ("pulled", 0.03),
        ("alone", 0.03),
        ("pulled", 30.0),
        ("alone", 30.0),
    ]
    for point in diagram[1]:
        ahead = point["behaviour"] - point["nuisance"]
        assert (ahead if point["ratio"] > 1 else -ahead) > 0.3


def test_a_diagram_is_measured_once_and_kept_below_the_store(
    diagram: tuple[Store, list[dict]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, points = diagram
    monkeypatch.setattr(sweeps, "quantized_gains", None)  # measuring again would now fail
    monkeypatch.setattr(sweeps, "write_planted", None)
    again = sweeps.phase_diagram(settings(), {"alone": {"w_cross": 0.0}}, (0.03,), (0,), store, TINY)
    assert again.to_dicts() == points[1:2]
    kinds = {path.name.split("-")[0] for path in store.root.iterdir() if path.is_dir()}
    assert kinds == {"planted", "tokenizer", "recovery"}


def test_each_seed_has_data_and_training_of_its_own_and_each_line_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    def point(data: PlantedConfig, bundle: PlantedConfig, config: Config, store: Store) -> dict[str, float]:
        assert (data.seed, data.text_signal, data.users) == (config.seed, data.image_signal, TINY.users)
        return {"behaviour": data.text_signal, "nuisance": config.tokenizer.w_cross}

    monkeypatch.setattr(sweeps, "planted_bundle", lambda knobs, store: knobs)
    monkeypatch.setattr(sweeps.sources, "load", lambda bundle, options: bundle)
    monkeypatch.setattr(sweeps, "_point", point)
    lines = {"pulled": {"w_cross": 1.0}, "alone": {"w_cross": 0.0}}
    found = sweeps.phase_diagram(settings(), lines, (0.5, 2.0), (3, 4, 5), Store("unused"), TINY)
    assert found.height == 12
    assert (found["behaviour"] == found["ratio"]).all()
    assert (found["nuisance"] == (found["setting"] == "pulled")).all()
    assert sorted(found["seed"].unique()) == [3, 4, 5]


def test_a_killed_bundle_is_written_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    half = store.path("planted", {}).parent
    finished = sweeps.planted_bundle(TINY, store)
    left = finished.parent.rename(half / f"{finished.parent.name}.partial")
    (left / "bundle" / "items.parquet").write_bytes(b"half")
    assert (sweeps.planted_bundle(TINY, store) / "truth.json").exists()
