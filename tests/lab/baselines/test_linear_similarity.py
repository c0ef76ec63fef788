"""Laws of reweighting that is linear in the similarity, against loops."""

import pytest
import torch
from tiny import lab_recommender_config, semantic_ids

from bbqrec_core import SimilarityBias
from bbqrec_core.recommender.similarity_bias import all_channels, build_reweighting
from bbqrec_lab.baselines.linear_similarity import LinearSimilarity, make_reweighting
from bbqrec_lab.baselines.sequence_models import make_model

N, WIDTH, LAYERS, HEADS = 11, 5, 2, 3
SIZES = (4, 4)
SIGNALS = ["text", "image", "id"]
ROWS = torch.tensor([[3, 8, 3, 1, 0], [5, 2, 9, 4, 7]])  # a repeated item, a padded position


def filled(bias):
    with torch.no_grad():
        bias.table.copy_(torch.randn(bias.table.shape, generator=torch.Generator().manual_seed(1)))
    return bias


def kind_by_hand(present, i, j, channel):
    """What offset a pair of item rows has: -1 by its cosine; 2 padding beats 1 missing, missing beats 0 self."""
    if i == 0 or j == 0:
        return 2
    if not (present[i, channel.query] and present[j, channel.key]):
        return 1
    return 0 if i == j else -1


def linear(which="all"):
    """The linear form in float64 over IDs some of whose signals are missing, its table filled, and those IDs."""
    ids = semantic_ids(N, SIZES, width=WIDTH)
    vectors, present = torch.from_numpy(ids.signal_vectors).double(), torch.from_numpy(ids.present)
    channels = all_channels(SIGNALS)[: len(SIGNALS) if which == "same" else None]
    made = LinearSimilarity(vectors, present, channels, torch.zeros(len(channels), 0), layers=LAYERS, heads=HEADS)
    return filled(made.double()), ids


@pytest.mark.parametrize("which", ["same", "all"])
def test_linear_offsets_are_slope_times_cosine_or_an_offset_of_their_own(which):
    (made, ids), met = linear(which), set()
    vectors = torch.from_numpy(ids.signal_vectors).double()
    for layer, offset in enumerate(made(ROWS)):
        for b, row in enumerate(ROWS.tolist()):
            for t, i in enumerate(row):
                for r, j in enumerate(row):
                    wanted = 0
                    for c, channel in enumerate(made.channels):
                        table = made.table[layer, c]
                        kind = kind_by_hand(ids.present, i, j, channel)
                        met.add(kind)
                        q, k = vectors[i, channel.query], vectors[j, channel.key]
                        wanted = wanted + (table[0] * (q @ k / q.norm() / k.norm()) if kind < 0 else table[1 + kind])
                    torch.testing.assert_close(offset[b, :, t, r], wanted)
    assert met == {-1, 0, 1, 2}


def test_the_gradient_of_linear_offsets_is_that_of_differences():
    made, _ = linear()

    def offsets(table):
        return torch.stack(torch.func.functional_call(made, {"table": table}, (ROWS,)))

    assert torch.autograd.gradcheck(offsets, made.table.detach().clone().requires_grad_())
    assert [name for name, _ in made.named_parameters()] == ["table"]


def test_a_configuration_picks_form_and_channels():
    ids = semantic_ids(N, SIZES, width=WIDTH)
    arguments = torch.from_numpy(ids.signal_vectors), torch.from_numpy(ids.present), SIGNALS
    for changes, kind, count in (
        ({}, SimilarityBias, 5),
        ({"channels": "same"}, SimilarityBias, 3),
        ({"similarity": "signals"}, SimilarityBias, 5),
        ({"similarity": "features"}, SimilarityBias, 3),
        ({"similarity_form": "linear"}, LinearSimilarity, 5),
        ({"similarity_form": "linear", "similarity": "features"}, LinearSimilarity, 3),
    ):
        made = make_reweighting(*arguments, lab_recommender_config(**changes))
        assert type(made) is kind
        assert len(made.channels) == count
        assert made.table.shape == (2, count, {SimilarityBias: 4 + 3, LinearSimilarity: 1 + 3}[kind], 3)
        assert not made.table.any()


def test_even_edges_and_quantiles_differ_in_their_edges_alone():
    ids = semantic_ids(N, SIZES, width=WIDTH)
    arguments = torch.from_numpy(ids.signal_vectors), torch.from_numpy(ids.present), SIGNALS
    even, quantile = (
        make_reweighting(*arguments, lab_recommender_config(bucket_edges=kind)) for kind in ("uniform", "quantile")
    )
    torch.testing.assert_close(even.edges, torch.tensor([-0.5, 0.0, 0.5]).expand(5, -1))
    core = build_reweighting(*arguments, lab_recommender_config())
    assert core.channels == quantile.channels == even.channels
    assert torch.equal(core.edges, quantile.edges)
    assert not torch.equal(even.edges, quantile.edges)


def two_models(**changes):
    """The same parameters with and without reweighting, over IDs with three signals."""
    ids, models = semantic_ids(N, SIZES, width=WIDTH), []
    for reweight in (True, False):
        torch.manual_seed(3)
        config = lab_recommender_config(reweight=reweight, similarity_form="linear", **changes)
        models.append(make_model(N, ids, config, None))
    assert type(models[0].reweighting) is LinearSimilarity
    return models


def test_a_zero_table_is_the_plain_backbone_bit_for_bit():
    gradients, states = [], []
    for model in two_models(dropout=0.4):
        model.train()
        torch.manual_seed(5)
        states.append(model.states(ROWS)[0])
        torch.manual_seed(5)
        model.loss(ROWS)["loss"].backward()
        others = [(name, p) for name, p in model.named_parameters() if not name.startswith("reweighting")]
        gradients.append({name: p.grad for name, p in others if p.grad is not None})
    assert torch.equal(*states)
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(value, gradients[1][name]) for name, value in gradients[0].items())


def test_the_table_itself_gets_gradient_at_zero():
    model = two_models()[0]
    model.loss(ROWS)["loss"].backward()
    assert bool(model.reweighting.table.grad.abs().sum() > 0)


def test_each_weight_is_multiplied_by_exp_of_its_offset_before_normalisation():
    weighted, plain = (model.double().eval() for model in two_models(layers=1))
    offset = filled(weighted.reweighting)(ROWS)[0]
    _, [found] = weighted.states(ROWS)
    _, [before] = plain.states(ROWS)
    product = before * offset.exp()
    torch.testing.assert_close(found, product / product.sum(-1, keepdim=True))
    assert not torch.allclose(found, before)


@pytest.mark.parametrize("changes", [{}, {"output": "items"}, {"output": "both"}, {"granularity": "code"}])
def test_the_last_state_alone_is_that_of_one_pass_over_all(changes):
    model = two_models(**changes)[0].double().eval()
    filled(model.reweighting)
    rows = torch.tensor([[3, 8, 3, 7], [5, 9, 0, 0], [4, 0, 0, 0]])
    last = (rows > 0).sum(1) * model.per_item - 1
    torch.testing.assert_close(model.last_states(rows), model.states(rows)[0][torch.arange(3), last])
