"""Laws of the repair by transport, against loops and an exact assignment."""

import identities
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from tiny import ids_config, lab_tokenizer_config, planted_data

from bbqrec_core import health
from bbqrec_core.tokenizer.fit import encode_items, finish
from bbqrec_core.tokenizer.semantic_ids import group_sizes, move_to_free
from bbqrec_lab.baselines.tokenizers import make_tokenized
from bbqrec_lab.baselines.transport_repair import repair_by_transport, sinkhorn, spread_by_transport
from bbqrec_lab.baselines.variant_tokenizer import VariantTokenizer

COMBINE = {"fused": 4, "concat": 2, "chain": 2}  # and so few codes that items collide


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return planted_data(tmp_path_factory.mktemp("transport"))


def test_transport_has_its_margins_and_prefers_what_is_cheap():
    cost = np.random.default_rng(0).random((6, 9))
    plan = sinkhorn(cost, iterations=500)
    assert plan.sum(1) == pytest.approx(np.ones(6))
    assert plan.sum(0).max() < 1.01
    assert (plan * cost).sum() < 1.1 * cost[linear_sum_assignment(cost)].sum()
    cheap = np.where(np.eye(4) > 0, 0.0, 1.0)
    assert sinkhorn(cheap).argmax(1).tolist() == [0, 1, 2, 3]
    assert np.isfinite(sinkhorn(1e9 * cost)).all()


@pytest.mark.parametrize("length", [1, 2])
def test_transport_parts_colliding_items_and_moves_no_other(length):
    rng = np.random.default_rng(1)
    codes, items = rng.normal(size=(9, 3)), 40
    table, residual = rng.integers(0, 12 if length == 2 else 9, (items + 1, length)), rng.normal(size=(items + 1, 3))
    table[:, -1] = rng.integers(0, 9, items + 1)
    repaired = spread_by_transport(table, residual, codes)
    assert np.array_equal(repaired[:, :-1], table[:, :-1])
    size, group = group_sizes(table)
    alone = np.append(False, size[group] == 1)
    if length == 2:
        assert np.array_equal(repaired[alone], table[alone])
        assert health(repaired, (12, 9))["collision_rate"] == 0
    order = np.append(0, 1 + rng.permutation(items))
    assert np.array_equal(spread_by_transport(table[order], residual[order], codes), repaired[order])


def test_transport_costs_less_than_moving_one_by_one_in_a_crowd():
    rng = np.random.default_rng(2)
    codes = rng.normal(size=(16, 2))
    residual = rng.normal(size=(15, 2)) * 0.3
    table = np.zeros((15, 1), dtype=int)

    def cost(ids):
        return np.square(residual[1:] - codes[ids[1:, 0]]).sum()

    moved = spread_by_transport(table, residual, codes)
    assert len(np.unique(moved[1:, 0])) == 14
    assert cost(moved) <= cost(move_to_free(table, residual, codes))


@pytest.mark.parametrize("combine", COMBINE)
def test_ids_repaired_by_transport_are_those_before_the_repair_after_it(data, tmp_path, combine):
    config = lab_tokenizer_config(combine=combine, uniqueness="none", codes=COMBINE[combine])
    plain, done = (
        make_tokenized(data, ids_config(transport=transport), config, 0, tmp_path / str(transport))
        for transport in (False, True)
    )
    ids = done.ids
    assert plain.health["after"]["collision_rate"] > done.health["after"]["collision_rate"]
    assert np.array_equal(ids.raw_codes, plain.ids.code_ids)
    assert np.array_equal(ids.code_ids, spread_by_transport(ids.raw_codes, done.residual, ids.codebook[-1]))
    assert (ids.sizes, ids.learned) == (plain.ids.sizes, plain.ids.learned)
    assert done.health["before"] == plain.health["before"] == health(ids.raw_codes, ids.sizes)
    assert done.health["after"] == health(ids.code_ids, ids.sizes)
    assert done.log == plain.log
    for name in ("signal_codes", "signal_vectors", "present", "codebook"):
        assert np.array_equal(getattr(ids, name), getattr(plain.ids, name))


@pytest.mark.parametrize("uniqueness", ["extra", "nearest"])
def test_transport_takes_the_place_of_another_repair(data, tmp_path, uniqueness):
    first, second = (
        make_tokenized(data, ids_config(transport=True), config, 0, tmp_path / config.uniqueness)
        for config in (lab_tokenizer_config(uniqueness=kind, codes=4) for kind in ("none", uniqueness))
    )
    assert np.array_equal(second.ids.code_ids, first.ids.code_ids)
    assert second.ids.sizes == first.ids.sizes
    assert second.health == first.health


@pytest.mark.parametrize("combine", COMBINE)
def test_renumbering_items_renumbers_their_ids(data, combine):
    """As in test_identities.py: the same model of renumbered items gives their IDs in the new order."""
    config = lab_tokenizer_config(combine=combine, uniqueness="none", codes=COMBINE[combine])
    plain, other, order = identities.renumbered(lambda one: identities.stage_one(one, VariantTokenizer, config), data)
    found, wanted = (repair_by_transport(finish(encode_items(model), config, [])) for model in (other, plain))
    assert np.array_equal(found.ids.code_ids[1:], wanted.ids.code_ids[order][1:])
    assert found.health == wanted.health
    assert not np.array_equal(wanted.ids.code_ids, wanted.ids.raw_codes)
