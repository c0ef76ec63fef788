"""Sets without order: no model reads one, each hidden item is hidden, and a planted pair is found."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import PLANTED, lab_recommender_config, planted_data, semantic_ids

from bbqrec_core import Sequences, metrics
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.experiments.presets import Config, make_config, with_overrides
from bbqrec_lab.store import Store
from bbqrec_lab.without_sequence import asking, baskets
from bbqrec_lab.without_sequence.set_model import SetModel, show_some

OFF = {"lag_bias": False, "seen_offset": False, "score_reweight": False}
ITEMS = 24


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> NamedDataset:
    return planted_data(tmp_path_factory.mktemp("baskets"), PLANTED)


def encoder(output: str, reweight: bool = True) -> SetModel:
    torch.manual_seed(0)
    settings = lab_recommender_config(output=output, reweight=reweight, dropout=0.0, **OFF)
    model = SetModel(ITEMS, semantic_ids(ITEMS, (3, 4)), settings)
    if reweight:
        torch.nn.init.normal_(model.reweighting.table)
    return model.eval()


@pytest.mark.parametrize("output", ["items", "codes"])
def test_the_order_of_a_set_changes_nothing_and_padding_neither(output: str) -> None:
    model = encoder(output)
    rows = torch.tensor([[3, 9, 14, 20], [5, 6, 0, 0]])
    states = model.last_states(rows)
    assert torch.allclose(states[:1], model.last_states(rows[:1, [2, 0, 3, 1]]), atol=1e-5)
    assert torch.allclose(states[1:], model.last_states(rows[1:, :2]), atol=1e-5)
    assert not torch.allclose(states[:1], model.last_states(rows[:1, :3]), atol=1e-3)


def test_reweighting_reaches_the_state() -> None:
    rows = torch.tensor([[3, 9, 14, 20]])
    assert not torch.allclose(encoder("items").last_states(rows), encoder("items", False).last_states(rows), atol=1e-4)


def test_settings_that_read_an_order_are_refused() -> None:
    with pytest.raises(ValueError, match="a set has no order"):
        SetModel(ITEMS, semantic_ids(ITEMS, (3, 4)), lab_recommender_config(lag_bias=True))
    for output, reweight in baskets.ENCODERS.values():
        chosen = baskets.set_settings(make_config("smoke"), output, reweight, 10.0).recommender
        assert (chosen.output, chosen.reweight) == (output, reweight)
        assert [chosen.lag_bias, chosen.seen_offset, chosen.score_reweight] == [False] * 3
    brief = baskets.set_settings(make_config("quick"), "items", True, 10.0, thorough=False).recommender
    assert brief.epochs == baskets.BRIEF_EPOCHS


def test_in_training_some_items_are_shown_and_some_are_hidden() -> None:
    torch.manual_seed(0)
    items = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 0, 0, 0, 0, 0, 0]]).repeat(200, 1)
    shown = show_some(items)
    assert not shown[items == 0].any()
    assert (shown.sum(1) >= 1).all()
    assert (((items > 0) & ~shown).sum(1) >= 1).all()
    assert shown[::2].float().mean(0).std() < 0.1, "every place is shown as often"


@pytest.mark.parametrize("output", ["items", "codes"])
def test_a_hidden_item_is_a_target_and_not_an_input(output: str) -> None:
    model = encoder(output)
    rows, seen = torch.tensor([[3, 9, 14, 20, 0]]), []
    inner = model.last_states
    model.last_states = lambda items: seen.append(items) or inner(items)
    torch.manual_seed(1)
    loss = model.loss(rows)["loss"]
    hidden = set(rows[rows > 0].tolist()) - set(seen[0].flatten().tolist())
    states = inner(seen[0]).expand(len(hidden), -1)
    if output == "items":
        logits = states @ model.items.weight[1:].T
        chance = logits.log_softmax(-1)[torch.arange(len(hidden)), torch.tensor(sorted(hidden)) - 1]
    else:
        chance = model.head(states, model.vectors.node[sorted(hidden)])
    assert 1 <= len(hidden) <= 3
    assert loss.item() == pytest.approx(-chance.mean().item(), rel=1e-4)
    loss.backward()
    assert model.position.weight.grad is None


def test_baskets_have_each_item_once_in_another_order_and_withhold_some(data: NamedDataset) -> None:
    offsets, items = data.sequences[:2]
    twice = replace(
        data, sequences=Sequences(2 * offsets, np.repeat(items, 2)), timestamps=np.repeat(data.timestamps, 2)
    )
    sets, again, other = (baskets.as_baskets(twice, seed) for seed in (0, 0, 1))
    for user in range(data.n_users):
        own, was = (x.items[x.offsets[user] : x.offsets[user + 1]] for x in (sets.sequences, data.sequences))
        assert sorted(own) == sorted(was)
    assert (sets.sequences.items != items).any()
    assert (sets.sequences.items == again.sequences.items).all()
    assert (sets.sequences.items != other.sequences.items).any()
    assert sets.cold[1:].sum() == round(baskets.WITHHELD * data.n_items)
    assert not sets.cold[sets.train().items].any()
    assert len({data.content_hash, sets.content_hash, other.content_hash}) == 3


def test_baskets_of_too_few_items_are_refused_in_words(data: NamedDataset) -> None:
    same = replace(data, sequences=Sequences(data.sequences.offsets, np.ones_like(data.sequences.items)))
    assert "no basket" in asking.ask(baskets.as_baskets, same, 0).reason


def pairs_data(data: NamedDataset, users: int = 150) -> NamedDataset:
    """Items come in pairs, 1 with 2, 3 with 4, ...: every user has four pairs, in random order."""
    rng = np.random.default_rng(0)
    first = np.stack([rng.choice(ITEMS // 2, 4, replace=False) for _ in range(users)]) * 2 + 1
    items = rng.permuted(np.concatenate([first, first + 1], 1), axis=1).astype(np.int32)
    return replace(
        data,
        sequences=Sequences(np.arange(users + 1) * 8, items.ravel()),
        timestamps=np.zeros(8 * users, np.int64),
        users=np.arange(users),
    )


def test_als_finds_what_comes_together_and_never_what_it_has_not_seen(data: NamedDataset) -> None:
    sets = baskets.as_baskets(pairs_data(data), 0)
    model, again = (baskets.Als(sets, 12, 10.0, 0.1, 0) for _ in range(2))
    asked = sets.history("test"), sets.targets("test"), np.arange(sets.n_users)
    ranks = model.ranks(*asked)["filtered"]
    known = sets.train_counts()[asked[1]] > 0
    assert metrics.per_user(ranks)["recall@1"][known].mean() > 0.8
    assert not metrics.per_user(ranks)["recall@20"][~known].any()
    assert (~known).any()
    assert torch.equal(model.scores(asked[0], asked[2]), again.scores(asked[0], asked[2]))


def test_the_study_has_every_model_and_is_loaded_a_second_time(
    data: NamedDataset, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [make_config("smoke", seed, {"tokenizer.epochs": 1}) for seed in (0, 1)]
    found = baskets.study(data, configs, Store(tmp_path), False)
    assert set(found.ranks) == {*baskets.COUNTED, baskets.ALS, *baskets.ENCODERS}
    assert [len(found.ranks[name]) for name in ("ease", "als", "set-items")] == [1, 2, 1]
    assert baskets.wide(found).columns[2:] == [
        *("NDCG@10, all", "NDCG@10, known items", "Recall@20, new items", "coverage@10")
    ]
    compared = baskets.compare(found, "set-codes")
    assert compared["against"].to_list() == [*baskets.COUNTED, baskets.ALS, baskets.ITSELF]
    assert found.left_out == {}
    monkeypatch.setattr(baskets, "fit_recommender", None)
    again = baskets.study(data, configs, Store(tmp_path), False)
    assert (again.ranks["set-codes"][0].greater == found.ranks["set-codes"][0].greater).all()


def test_models_that_the_data_do_not_allow_are_left_out_with_a_reason(
    data: NamedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert baskets.not_possible(data) == {}
    monkeypatch.setattr(baskets, "DENSE_ITEMS", data.n_items - 1)
    reasons = baskets.not_possible(replace(data, features={}, presence={}))
    assert reasons["content-knn"] == "these data have no features"
    assert f"at most {data.n_items - 1} items, and these data have {data.n_items}" in reasons["ease"]


@pytest.fixture(scope="module")
def tiny_sets(data: NamedDataset) -> tuple[NamedDataset, baskets.Made, Config]:
    """Baskets, random IDs, and the settings of a set encoder that trains one step."""
    overrides = {"recommender.width": 8, "recommender.layers": 1, "recommender.epoch_steps": 1}
    config = baskets.set_settings(make_config("smoke", 0, overrides), "items", False, 5.0)
    config = with_overrides(config, {"recommender.epochs": 1, "recommender.min_steps": 0})
    return baskets.as_baskets(data, 0), baskets.Made(semantic_ids(data.n_items, (8, 8)), "ids"), config


def test_other_settings_of_evaluation_and_another_torch_train_again(
    tiny_sets: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets, made, config = tiny_sets
    for changed in ({}, {"evaluation.early_users": 7}):
        baskets._kept(sets, "set-items-plain", made, with_overrides(config, changed), Store(tmp_path))
    assert len(list(tmp_path.glob("basket-*/ranks.npz"))) == 2
    monkeypatch.setattr(baskets, "torch", SimpleNamespace(__version__="another"))
    baskets._kept(sets, "set-items-plain", made, config, Store(tmp_path))
    assert len(list(tmp_path.glob("basket-*/ranks.npz"))) == 3


def test_a_damaged_checkpoint_is_set_aside(tiny_sets: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = baskets.fit_recommender

    def interrupted(*given: object) -> None:
        train(*given)
        for path in given[5].rglob("*.safetensors"):
            path.write_bytes(path.read_bytes()[:-8])
        raise KeyboardInterrupt

    monkeypatch.setattr(baskets, "fit_recommender", interrupted)
    with pytest.raises(KeyboardInterrupt):
        baskets._kept(tiny_sets[0], "set-items-plain", *tiny_sets[1:], Store(tmp_path))
    assert list(tmp_path.rglob("*.safetensors"))
    monkeypatch.setattr(baskets, "fit_recommender", train)
    ranks = baskets._kept(tiny_sets[0], "set-items-plain", *tiny_sets[1:], Store(tmp_path))
    assert len(ranks.greater) == tiny_sets[0].n_users


def test_tables_average_known_and_new_items_apart() -> None:
    ranks = metrics.rank_scores(torch.tensor([[0.0, 3, 2, 1], [0, 3, 2, 1], [0, 3, 2, 1.0]]), np.array([1, 2, 3]))
    found = baskets.Baskets({"ease": [ranks]}, np.array([True, True, False]), np.array([0, 5, 5, 0]), {})
    values = dict(baskets.table(found).select("metric", "mean").iter_rows())
    assert values["NDCG@10, known items"] == pytest.approx((1 + 1 / np.log2(3)) / 2)
    assert values["NDCG@10, all"] == pytest.approx((1 + 1 / np.log2(3) + 0.5) / 3)
    assert values["Recall@20, new items"] == values["coverage@10"] == 1.0
    known = found._replace(known=np.ones(3, bool))
    assert list(baskets.seeds_of(known)) == ["NDCG@10", "coverage@10"]
