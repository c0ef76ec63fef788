"""Ranking models: AUC by hand, gradients where they belong, and a preference that only history and codes explain."""

import numpy as np
import polars as pl
import pytest
import torch

from bbqrec_lab.without_sequence import liking, rating_models, ratings
from bbqrec_lab.without_sequence.code_tables import ItemInput
from bbqrec_lab.without_sequence.rating_models import MODELS
from bbqrec_lab.without_sequence.ratings import TEST, TRAIN, VALID, Rated

ITEMS = 12


def events(count: int = 3000, seed: int = 0) -> Rated:
    """Users of two kinds like either odd or even items."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 40, count), rng.integers(1, ITEMS + 1, count)
    liked = (user + item) % 2 == 0
    part = np.repeat([TRAIN, VALID, TEST], [count - 600, 300, 300])
    return Rated(user, item, np.arange(count), liked, part, np.zeros(ITEMS + 1, bool))


def parity() -> ItemInput:
    """One token says whether the item is odd."""
    tokens = np.arange(ITEMS + 1)[:, None] % 2 + 1
    tokens[0] = 0
    return ItemInput(tokens, 2, None, 1)


def test_auc_is_the_share_of_pairs_in_order() -> None:
    chance, liked = np.array([0.9, 0.6, 0.4, 0.6, 0.2]), np.array([True, True, True, False, False])
    assert rating_models.area(chance, liked) == pytest.approx(4.5 / 6)
    assert rating_models.area(-chance, liked) == pytest.approx(1.5 / 6)
    assert np.isnan(rating_models.area(chance, np.ones(5, bool)))


def test_log_loss_is_that_of_what_happened() -> None:
    found = rating_models.log_losses(np.array([0.8, 0.8, 0.0]), np.array([True, False, True]))
    assert found[:2] == pytest.approx([-np.log(0.8), -np.log(0.2)])
    assert np.isfinite(found[2])


@pytest.mark.parametrize("kind", MODELS)
def test_a_preference_is_learned_from_history_and_token(kind: str) -> None:
    rated = events()
    known = ratings.known_before(rated)
    examples = rating_models.make_examples(rated, known)
    first, again = (rating_models.fit_ranking(parity(), kind, examples, rated.part, "quick", 0) for _ in range(2))
    test = rated.part == TEST
    assert rating_models.area(first.chance, rated.liked[test]) > 0.95
    assert (first.chance == again.chance).all()
    assert first.learned == 4 * 3 * (rating_models.WIDTH + 1)
    means = rating_models.fit_means(rated, known)
    assert rating_models.area(means, rated.liked[test]) < 0.65, "rates alone cannot know it"


def test_means_know_good_items_and_kind_users() -> None:
    rated = events()
    rng = np.random.default_rng(1)
    good = rng.random(len(rated.user)) < np.where(rated.item > ITEMS / 2, 0.9, 0.1)
    rated = rated._replace(liked=good)
    found = rating_models.fit_means(rated, ratings.known_before(rated))
    assert rating_models.area(found, good[rated.part == TEST]) > 0.8


@pytest.mark.parametrize("kind", MODELS)
def test_padding_of_history_and_tokens_changes_nothing(kind: str) -> None:
    rated = events(700)
    examples = rating_models.make_examples(rated, ratings.known_before(rated))
    torch.manual_seed(0)
    model = rating_models.RankingModel(parity(), kind)
    wider = examples._replace(liked=torch.nn.functional.pad(examples.liked, (0, 3)))
    assert torch.allclose(model(examples), model(wider), atol=1e-6)
    longer = ItemInput(np.pad(parity().tokens, ((0, 0), (0, 2))), 2, None, 1)
    torch.manual_seed(0)
    other = rating_models.RankingModel(longer, kind)
    assert torch.allclose(model(examples), other(examples), atol=1e-6)


def test_vectors_of_any_size_are_brought_to_one_scale() -> None:
    vectors = np.random.default_rng(0).normal(size=(ITEMS + 1, 5)).astype(np.float32)
    torch.manual_seed(0)
    small = rating_models.ItemVectors(ItemInput(None, 0, vectors, 20))()
    torch.manual_seed(0)
    large = rating_models.ItemVectors(ItemInput(None, 0, 1000 * vectors, 20))()
    assert torch.allclose(small, large, atol=1e-4)
    assert not small[0].any()


def results(seeds: int = 2) -> liking.Liking:
    """Made-up chances: `good` is right, `bad` is wrong, the rival says one half."""
    liked = np.arange(40) % 3 == 0
    user = np.repeat(np.arange(10), 4)
    good = np.where(liked, 0.9, 0.1)
    chance = {("MLP", "good"): good, ("MLP", "bad"): 1 - good, ("means", "means"): np.full(40, 0.5)}
    chance = {name: np.tile(values, (1 if "means" in name else seeds, 1)) for name, values in chance.items()}
    new = np.arange(40) < 12
    segments = {"no events": new, "over 100": ~new}
    memory = {"good": (100, 20), "bad": (50, 20), "means": (8, 0)}
    return liking.Liking(user, np.arange(40) % 20, liked, segments, chance, memory)


def test_the_table_has_every_segment_and_size() -> None:
    table = liking.table(results())
    assert len(table) == 3 * 3
    line = table.row(by_predicate=(pl.col("input") == "good") & (pl.col("segment") == "no events"), named=True)
    assert (line["auc"], line["events"], line["table_bytes"], line["item_bytes"]) == (1.0, 12, 100, 20)


def test_above_zero_our_input_is_better() -> None:
    compared = liking.compare(results(), "MLP", "good", ["bad", "means"])
    assert compared["segment"].to_list() == ["all", "all", "no events", "no events"]
    assert (compared["low"] > 0).all()
    assert compared["over"].to_list() == ["users", "users", "items", "items"]
    assert compared["units"].to_list() == [10, 10, 12, 12]
    assert (liking.compare(results(), "MLP", "bad", ["good"])["high"] < 0).all()
    assert (compared["p_holm"] >= compared["p"]).all()


def test_events_of_one_new_item_count_together() -> None:
    """Two new items: what the ID of the first gets wrong is wrong for all users, and no number of users tells more."""
    item = np.repeat([1, 2], 30)
    liked, user = np.arange(60) % 2 == 0, np.arange(60)
    good = np.where(liked, 0.7, 0.3)
    chance = {("MLP", "ours"): np.where(item == 1, good, 1 - good)[None], ("MLP", "other"): np.full((1, 60), 0.5)}
    found = liking.Liking(user, item, liked, {"no events": np.ones(60, bool)}, chance, {})
    new = liking.compare(found, "MLP", "ours", ["other"]).row(1, named=True)
    per_item = [float(np.log(0.7 / 0.5)), float(np.log(0.3 / 0.5))]  # log-loss of the other minus ours
    assert [new["high"], new["low"]] == pytest.approx(per_item)
    assert new["units"] == 2


def test_segments_are_shown_by_division() -> None:
    found = liking.by_segment(results(), "MLP", ["good", "means"])
    assert found["training events of the item"]["no events"] == {"good": 1.0, "means": 0.5}
    assert "age of the item" not in found, "a division without segments is left out"
    assert liking.groups(["means", "content", "text-only codes"]) == {
        "means": "rival",
        "content": "no ID",
        "text-only codes": "text-only",
    }
