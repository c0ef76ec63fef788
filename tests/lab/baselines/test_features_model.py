"""Laws of item embeddings with projected features: what is added, where, and that nothing else changes.

What they share with the core's models is tested beside the other baselines, in test_baseline_models.py.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import recommender_laws as laws
import torch
from recommender_laws import EVALUATION, SIZES, N, alike
from tiny import lab_recommender_config, planted_data, same_tensors, semantic_ids

from bbqrec_core import SequenceModel, build_recommender, fit_recommender
from bbqrec_lab.baselines import features_model
from bbqrec_lab.baselines.features_model import FeaturesModel, item_features
from bbqrec_lab.baselines.sequence_models import make_model

FEATURES = laws.features_of_some_items()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return planted_data(tmp_path_factory.mktemp("features-model"))


@pytest.fixture(scope="module")
def ids():
    return semantic_ids(N, SIZES)


@pytest.mark.parametrize("block", ["plain", "ligr"])
def test_features_are_the_same_going_in_and_coming_out_and_absent_ones_add_nothing(ids, block):
    config = lab_recommender_config(output="both", features=True, block=block)
    model = laws.fresh(ids, config, partial(make_model, features=FEATURES)).model
    vectors = model.item_embeddings()
    torch.testing.assert_close(vectors, model.items.weight + FEATURES.double() @ model.project.weight.T)
    torch.testing.assert_close(model.item_embeddings(torch.tensor([[8], [3]])), vectors[[8, 3]][:, None])
    assert torch.equal(vectors[4], model.items.weight[4])  # has none
    model.loss(torch.tensor([[1, 2]]))["loss"].backward()
    assert bool(model.project.weight.grad.any())
    assert not model.features.requires_grad


def test_item_features_lie_side_by_side_about_as_long_as_a_unit_vector(data):
    found = item_features(data)
    assert found.shape == (N + 1, sum(part.shape[1] for part in data.features.values()))
    start, scale = 0, None
    for name, part in data.features.items():
        block, wanted = found[:, start : start + part.shape[1]], torch.from_numpy(part)
        scale = wanted.norm() / block.norm() if scale is None else scale  # one for all
        torch.testing.assert_close(block * scale, wanted)
        assert not block[~torch.from_numpy(data.presence[name])].any()
        start += part.shape[1]
    known = torch.from_numpy(np.any(list(data.presence.values()), axis=0))
    assert float(found[known].square().sum(1).mean()) == pytest.approx(1)
    assert item_features(replace(data, features={}, presence={})) is None


def test_of_many_columns_the_principal_components_stay(data, monkeypatch):
    monkeypatch.setattr(features_model, "COMPONENTS", 3)
    joined = np.concatenate(list(data.features.values()), 1)
    known = np.any(list(data.presence.values()), axis=0)
    found = item_features(data).numpy()
    assert found.shape == (N + 1, 3)
    assert not found[~known].any()
    _, vectors = np.linalg.eigh(np.cov(joined[known].T))
    wanted = (joined[known] - joined[known].mean(0)) @ vectors[:, ::-1][:, :3]
    cosine = (
        np.abs((wanted * found[known]).sum(0)) / np.linalg.norm(wanted, axis=0) / np.linalg.norm(found[known], axis=0)
    )
    np.testing.assert_allclose(cosine, 1, rtol=1e-3)


def test_data_without_modalities_train_as_without_features(data, tmp_path):
    bare = replace(data, features={}, presence={})
    rows = {
        "asked": lab_recommender_config(output="items", features=True),
        "plain": lab_recommender_config(output="items"),
    }
    make = partial(make_model, features=item_features(bare))
    asked, plain = (
        fit_recommender(bare, None, config, EVALUATION, 0, tmp_path / name, make) for name, config in rows.items()
    )
    assert alike(asked, plain)
    assert alike(asked, fit_recommender(data, None, rows["plain"], EVALUATION, 0, tmp_path / "core"))


def test_without_features_it_is_the_model_of_the_core_bit_for_bit(ids):
    config = lab_recommender_config(output="both")
    states = [
        build_recommender(N, ids, config, 3, make=kind).model.state_dict() for kind in (FeaturesModel, SequenceModel)
    ]
    assert same_tensors(*states)


def test_features_and_their_map_are_kept_beside_what_the_core_holds(ids):
    made = build_recommender(
        N, ids, lab_recommender_config(output="both"), 3, make=partial(FeaturesModel, features=FEATURES)
    )
    state, core = (
        made.model.state_dict(),
        build_recommender(N, ids, lab_recommender_config(output="both"), 3).model.state_dict(),
    )
    assert state.keys() - core.keys() == {"features", "project.weight"}
    assert torch.equal(state["features"], FEATURES)
    assert 0 < float(state["project.weight"].std()) < 0.1


@pytest.mark.parametrize("output", ["both", "items"])
def test_a_recommender_trained_elsewhere_ranks_there_what_the_cpu_ranks(data, device, tmp_path, monkeypatch, output):
    config = lab_recommender_config(epochs=1, output=output, features=True)
    given = None if output == "items" else semantic_ids(data.n_items, SIZES)
    make = partial(make_model, features=item_features(data))
    laws.trained_elsewhere_ranks_what_the_cpu_ranks(
        lambda name: fit_recommender(data, given, config, laws.ON_DEVICES, 0, tmp_path / name, make),
        data,
        device,
        monkeypatch,
    )
