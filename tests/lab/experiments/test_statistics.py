"""The main table read: metrics by name, expectations against intervals, shared hits, changed orders."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bbqrec_lab.experiments import statistics, variants


def rows(*lines: tuple) -> pl.DataFrame:
    """`main_results` with the columns that are read; each line is variant, seed, metric, value."""
    frame = pl.DataFrame(lines, schema=["variant", "seed", "metric", "value"], orient="row")
    return frame.with_columns(seen_items=pl.lit("included"), segment=pl.lit("all"))


def test_a_metric_is_not_taken_for_another_whose_name_it_begins() -> None:
    table = rows(("b", 1, "recall@1", 0.1), ("b", 1, "recall@10", 0.5), ("a", 1, "recall@1 by beam 5", 0.2))
    assert {k: v.tolist() for k, v in statistics.by_variant(table, "recall@1", "included").items()} == {
        "b": [0.1],
        "a": [0.2],
    }


def test_only_the_asked_history_and_segment_count() -> None:
    table = pl.concat(
        [
            rows(("a", 1, "ndcg@10", 0.1), ("a", 2, "ndcg@10", 0.3)),
            rows(("a", 1, "ndcg@10", 0.7)).with_columns(seen_items=pl.lit("filtered")),
            rows(("a", 1, "ndcg@10", 0.9)).with_columns(segment=pl.lit("tail items")),
        ]
    )
    assert statistics.by_variant(table, "ndcg@10", "included")["a"].tolist() == [0.1, 0.3]
    assert statistics.by_variant(table, "ndcg@10", "included", "tail items")["a"].tolist() == [0.9]
    assert statistics.by_variant(table, "ndcg@10", "filtered")["a"].tolist() == [0.7]


def test_recall_by_cutoff_is_the_mean_over_seeds_in_the_order_of_the_cutoffs() -> None:
    table = rows(("a", 1, "recall@1", 0.1), ("a", 2, "recall@1", 0.3), ("a", 1, "recall@5", 0.5))
    found = statistics.by_cutoff(table, (5, 1), "included", ["a"])
    assert found["a"].tolist() == pytest.approx([0.5, 0.2])


@pytest.mark.parametrize(
    ("against", "difference", "p", "outcome"),
    [
        ("popularity", 0.1, 0.01, "as expected"),
        ("popularity", -0.1, 0.01, "the other way round"),
        ("popularity", -0.1, 0.05, "open"),
        ("hstu", -0.1, 0.01, "as expected"),
        ("hstu", 0.1, 0.01, "the other way round"),
    ],
)
def test_an_outcome_follows_sign_and_corrected_p(against: str, difference: float, p: float, outcome: str) -> None:
    line = {"seen_items": "included", "metric": "ndcg@10", "against": against, "difference": difference}
    frame = pl.DataFrame([line | {"low": difference, "high": difference, "p_holm": p}])
    found = statistics.outcomes(pl.concat([frame, frame.with_columns(metric=pl.lit("recall@10"))]))
    assert found["outcome"].to_list() == [outcome]


def test_ablations_are_not_among_what_was_expected() -> None:
    line = {"seen_items": "included", "metric": "ndcg@10", "against": "no-club", "difference": 0.1}
    assert statistics.outcomes(pl.DataFrame([line | {"low": 0.0, "high": 0.2, "p_holm": 0.01}])).is_empty()


def test_every_baseline_and_control_has_an_expectation() -> None:
    compared = {name for name, variant in variants.VARIANTS.items() if variant.group in ("baseline", "control")}
    assert set(statistics.EXPECTED) == compared


def test_shared_hits_by_hand() -> None:
    found = statistics.shared_hits(np.array([1.0, 1, 0, 0, 0.5]), np.array([1.0, 0, 1, 0, 0.5]))
    expected = {"both": 1.25, "only bbqrec": 1.25, "only the baseline": 1.25, "neither": 1.25}
    assert found == pytest.approx({name: total / 5 for name, total in expected.items()})
    found = statistics.shared_hits(np.array([1.0, 1, 0]), np.array([1.0, 0, 0]))
    assert found == pytest.approx({"both": 1 / 3, "only bbqrec": 1 / 3, "only the baseline": 0, "neither": 1 / 3})


@given(arrays.arrays(float, (2, 7), elements=st.floats(0, 1)))
def test_shared_hits_divide_all_users(hits: np.ndarray) -> None:
    found = statistics.shared_hits(*hits)
    assert sum(found.values()) == pytest.approx(1)
    assert found["both"] + found["only bbqrec"] == pytest.approx(hits[0].mean())


def test_swaps_names_the_pairs_that_change_places_winner_first() -> None:
    first, second = {"a": 3.0, "b": 2.0, "c": 1.0}, {"a": 2.0, "b": 1.0, "c": 3.0}
    assert statistics.swaps(first, second) == [("a", "c"), ("b", "c")]
    assert statistics.swaps(first, first) == []
    assert statistics.swaps({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 2.0}) == []
    assert statistics.swaps({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 1.0}) == []


def test_bounds_are_over_clusters_with_all_of_their_observations() -> None:
    values = np.array([1.0] * 50 + [0.0] * 50)
    mean, low, high = statistics.cluster_means(values, np.arange(100))
    assert mean == 0.5
    assert 0.35 < low < 0.45 < 0.55 < high < 0.65
    assert statistics.cluster_means(values, np.repeat([0, 1], 50)) == (0.5, 0.0, 1.0)
    assert statistics.cluster_means(np.ones(7), np.arange(7)) == (1.0, 1.0, 1.0)


def test_draws_of_clusters_come_in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, users = np.random.default_rng(0).normal(size=(3, 40)), np.arange(40) % 11
    whole, drawn = statistics.cluster_bootstrap(parts, users, 50)
    sums = np.stack([np.bincount(users, part) for part in parts])
    wanted = sums[:, np.random.default_rng(0).integers(11, size=(50, 11))].sum(2)
    assert np.allclose(whole, parts.sum(1))
    assert np.allclose(drawn, wanted)
    blocks, rows = [], statistics._blocks
    monkeypatch.setattr(statistics, "_blocks", lambda n, units: blocks.append(rows(n, units)) or blocks[-1])
    big = 2**18
    statistics.cluster_bootstrap(np.ones((2, big)), np.arange(big), 9)
    assert blocks == [[4, 4, 1]]  # of 2 x 2^18 numbers


def test_a_table_is_corrected_over_all_its_lines() -> None:
    table = statistics.with_holm(pl.DataFrame({"p": [0.04, 0.01]}))
    assert table["p_holm"].to_list() == pytest.approx([0.04, 0.02])
    assert statistics.with_holm(table.clear()).columns == ["p", "p_holm"]
