"""Laws of discretized similarity reweighting, against loops over a catalogue small enough to write down."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import recommender_config, semantic_ids

from bbqrec_core import SequenceModel, SimilarityBias
from bbqrec_core.kernels import bucket_of
from bbqrec_core.recommender import similarity_bias
from bbqrec_core.recommender.similarity_bias import Channel, all_channels, build_reweighting, quantile_edges

N, WIDTH, LAYERS, HEADS, BUCKETS = 11, 5, 2, 3, 7
SIZES = (4, 4)
SIGNALS = ["text", "image", "id"]
ROWS = torch.tensor([[3, 8, 3, 1, 0], [5, 2, 9, 4, 7]])  # a repeated item, a padded position


def make(vectors=None, present=None, edges="even"):
    """A reweighting in float64 over all channels, with `even` or `quantile` edges."""
    ids = semantic_ids(N, SIZES, width=WIDTH)
    vectors = torch.from_numpy(ids.signal_vectors).double() if vectors is None else vectors
    present = torch.from_numpy(ids.present) if present is None else present
    channels = all_channels(SIGNALS[: vectors.shape[1]])
    if edges == "even":
        edges = torch.linspace(-1, 1, BUCKETS + 1, dtype=vectors.dtype)[1:-1].repeat(len(channels), 1)
    else:
        edges = quantile_edges(vectors, present, channels, BUCKETS)
    return SimilarityBias(vectors, present, channels, edges, layers=LAYERS, heads=HEADS).double()


def filled(bias):
    with torch.no_grad():
        bias.table.copy_(torch.randn(bias.table.shape, generator=torch.Generator().manual_seed(1)))
    return bias


def test_counting_edges_gives_the_buckets_of_a_binary_search():
    edges = torch.tensor([[-0.5, 0.1, 0.1, 0.7], [-0.9, -0.2, 0.0, 0.1]])
    cosine = torch.tensor([[-1.0, -0.5, -0.49], [0.1, 0.11, 0.7], [0.7 + 1e-6, 1.0, 0.0]]).expand(2, -1, -1)
    expected = [torch.bucketize(cosine[0], own, out_int32=True) for own in edges]
    assert torch.equal(bucket_of(cosine, edges).int(), torch.stack(expected))


def bucket_by_hand(vectors, present, i, j, channel, edges):
    """The bucket of one ordered pair of item rows: padding beats missing, missing beats self, self beats cosine."""
    if i == 0 or j == 0:
        return BUCKETS + 2
    if not (present[i, channel.query] and present[j, channel.key]):
        return BUCKETS + 1
    if i == j:
        return BUCKETS
    q, k = vectors[i, channel.query], vectors[j, channel.key]
    cosine = float(q @ k / q.norm() / k.norm())
    return sum(cosine > float(edge) for edge in edges)


@pytest.mark.parametrize("edges", ["even", "quantile"])
def test_buckets_are_those_of_the_loop(edges):
    bias, ids = make(edges=edges), semantic_ids(N, SIZES, width=WIDTH)
    vectors, found = torch.from_numpy(ids.signal_vectors).double(), bias.bucket_ids(ROWS)
    assert found.shape == (5, 2, 5, 5)
    for c, channel in enumerate(bias.channels):
        for b, row in enumerate(ROWS.tolist()):
            wanted = [[bucket_by_hand(vectors, ids.present, i, j, channel, bias.edges[c]) for j in row] for i in row]
            assert found[c, b].tolist() == wanted
    assert {BUCKETS, BUCKETS + 1, BUCKETS + 2} < set(found.flatten().tolist())


def test_offsets_sum_the_table_entries_of_all_channels():
    bias = filled(make())
    bucket, layers = bias.bucket_ids(ROWS), bias(ROWS)
    assert len(layers) == LAYERS
    for layer, offset in enumerate(layers):
        for b in range(len(ROWS)):
            for i in range(ROWS.shape[1]):
                for j in range(ROWS.shape[1]):
                    wanted = sum(bias.table[layer, c, bucket[c, b, i, j]] for c in range(len(bias.channels)))
                    torch.testing.assert_close(offset[b, :, i, j], wanted)


def test_gradient_reaches_the_table_only_where_it_was_read():
    bias = make()
    weight = torch.randn(2, HEADS, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (bias(ROWS)[1] * weight).sum().backward()
    wanted = torch.zeros_like(bias.table)
    for c, bucket in enumerate(bias.bucket_ids(ROWS)):
        for b in range(2):
            for i in range(5):
                for j in range(5):
                    wanted[1, c, bucket[b, i, j]] += weight[b, :, i, j]
    torch.testing.assert_close(bias.table.grad, wanted)
    assert [name for name, _ in bias.named_parameters()] == ["table"]


def test_channels_pair_signals_as_named():
    same = [Channel("text-text", 0, 0), Channel("image-image", 1, 1), Channel("id-id", 2, 2)]
    assert all_channels(SIGNALS) == [*same, Channel("text-image", 0, 1), Channel("image-text", 1, 0)]
    assert all_channels(["id"]) == [Channel("id-id", 0, 0)]


def test_cross_channels_are_each_others_mirror_and_not_symmetric():
    bias = make()
    names = [channel.name for channel in bias.channels]
    with torch.no_grad():
        bias.edges[:] = bias.edges[0]
    bucket = dict(zip(names, bias.bucket_ids(ROWS), strict=True))
    assert torch.equal(bucket["text-image"], bucket["image-text"].mT)
    assert not torch.equal(bucket["text-image"], bucket["text-image"].mT)
    assert torch.equal(bucket["text-text"], bucket["text-text"].mT)


def test_quantile_buckets_hold_about_equally_many_pairs():
    items = 101
    vectors = torch.randn(items + 1, 2, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.7
    bias = make(vectors, torch.ones(items + 1, 2, dtype=torch.bool), edges="quantile")
    everyone = torch.arange(1, items + 1)[None]
    for channel in bias.bucket_ids(everyone):
        share = torch.bincount(channel.flatten(), minlength=BUCKETS)[:BUCKETS] / (items * (items - 1))
        assert share == pytest.approx(torch.full((BUCKETS,), 1 / BUCKETS), abs=0.01)


def test_edges_come_from_pairs_of_present_and_different_items():
    vectors = F.normalize(torch.randn(N + 1, 2, WIDTH, generator=torch.Generator().manual_seed(0)), dim=-1)
    present = torch.zeros(N + 1, 2, dtype=torch.bool)
    present[[2, 5], 0] = present[[2, 7], 1] = True
    (only,) = quantile_edges(vectors, present, [Channel("text-text", 0, 0)], BUCKETS)
    torch.testing.assert_close(only, (vectors[2, 0] @ vectors[5, 0]).expand(BUCKETS - 1), atol=1e-4, rtol=0)
    (cross,) = quantile_edges(vectors, present, [Channel("text-image", 0, 1)], 4)
    allowed = torch.stack([vectors[i, 0] @ vectors[j, 1] for i, j in ((2, 7), (5, 2), (5, 7))])
    assert float(cross.min()) >= float(allowed.min()) - 1e-4
    assert float(cross.max()) <= float(allowed.max()) + 1e-4


def test_a_channel_without_pairs_falls_back_to_even_edges():
    none = torch.zeros(N + 1, 1, dtype=torch.bool)
    for present in (none, none.clone().index_fill_(0, torch.tensor([3]), True)):
        edges = quantile_edges(torch.ones(N + 1, 1, WIDTH), present, [Channel("id-id", 0, 0)], 4)
        torch.testing.assert_close(edges, torch.tensor([[-0.5, 0.0, 0.5]]))


def test_buckets_are_the_same_looked_up_or_compared_anew(monkeypatch):
    kept = make(edges="quantile")
    monkeypatch.setattr(similarity_bias, "PAIR_BYTES", 5 * (N + 1) ** 2 - 1)
    anew = make(edges="quantile")
    assert kept.pairs is not None
    assert anew.pairs is None
    assert torch.equal(kept.bucket_ids(ROWS), anew.bucket_ids(ROWS))
    monkeypatch.setattr(similarity_bias, "PAIR_BYTES", 5 * (N + 1) ** 2)
    assert make().pairs is not None
    assert set(kept.state_dict()) == set(anew.state_dict())


def test_the_bucket_of_a_pair_does_not_depend_on_its_company(monkeypatch):
    """Quantized vectors take few values, so that many pairs lie exactly on a quantile: rounding must not move them."""
    monkeypatch.setattr(similarity_bias, "PAIR_BYTES", 0)
    items, codes = 499, 3
    book = torch.randn(2, codes, 64, generator=torch.Generator().manual_seed(0))
    drawn = torch.randint(codes, (items + 1, 2, 2), generator=torch.Generator().manual_seed(1))
    vectors = book[0, drawn[..., 0]] + book[1, drawn[..., 1]]
    present = torch.ones(items + 1, 2, dtype=torch.bool)
    channels = all_channels(SIGNALS[:2])
    edges = quantile_edges(vectors, present, channels, 16)
    bias = SimilarityBias(vectors, present, channels, edges, layers=1, heads=1)
    everyone = torch.arange(1, items + 1)
    whole = bias.bucket_ids(everyone[None])[:, 0]
    for size in (2, 3, 5, 17, 50):
        rows = everyone[: items // size * size].view(-1, size)
        for part, found in zip(rows, bias.bucket_ids(rows).unbind(1), strict=True):
            assert torch.equal(found, whole[:, part - 1][:, :, part - 1])


def two_models(**changes):
    """The same parameters with and without reweighting, over IDs with three signals."""
    ids, models = semantic_ids(N, SIZES, width=WIDTH), []
    for reweight in (True, False):
        torch.manual_seed(3)
        models.append(SequenceModel(N, ids, recommender_config(reweight=reweight, **changes)))
    return models


def test_a_zero_table_is_the_plain_backbone_bit_for_bit():
    gradients, states = [], []
    for model in two_models(dropout=0.4):
        model.train()
        torch.manual_seed(5)
        states.append(model.states(ROWS)[0])
        torch.manual_seed(5)
        model.loss(ROWS)["loss"].backward()
        named = [
            (name, p) for name, p in model.named_parameters() if not name.startswith(("reweighting", "scoring.table"))
        ]
        gradients.append({name: p.grad for name, p in named if p.grad is not None})
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


def test_the_attention_map_of_a_case_done_by_hand():
    """Items 1 and 2 are alike, item 3 is opposite, all queries are zero: odds 3 to 1 for the like, 5 for oneself."""
    vectors = np.array([[0, 0], [1, 0], [2, 0], [-1, 0]], dtype=np.float32)[:, None].repeat(3, axis=1)
    present = np.array([False, True, True, True])[:, None] & [True, False, False]
    ids = replace(semantic_ids(3, SIZES, width=2), signal_vectors=vectors, present=present)
    model = SequenceModel(3, ids, recommender_config(layers=1, buckets=2)).eval()
    model.reweighting.edges.zero_()
    model.reweighting.pairs = None  # which were compared by the quantiles
    with torch.no_grad():
        model.blocks.blocks[0].qkv.weight.zero_()
        model.blocks.blocks[0].qkv.bias.zero_()
        model.reweighting.table[0, 0, :3] = torch.tensor([0, math.log(3), math.log(5)])[:, None]  # unlike, like, self
    _, [weights] = model.states(torch.tensor([[1, 3, 2, 0]]))
    wanted = torch.tensor([[1, 0, 0], [1 / 6, 5 / 6, 0], [3 / 9, 1 / 9, 5 / 9]])
    torch.testing.assert_close(weights[0, :, :3, :3], wanted.expand(3, 3, 3))


def test_what_is_compared_is_the_cosine_of_each_channels_signals_and_zero_for_zero_vectors():
    ids = semantic_ids(N, SIZES, width=WIDTH)
    vectors, present = torch.from_numpy(ids.signal_vectors).double(), torch.from_numpy(ids.present)
    vectors[8, 1] = 0
    pairs = make(vectors, present)
    columns = torch.tensor([[8, 3, 0], [6, 6, 2]])  # other items than the rows', and fewer
    cosine, (same, missing, padding) = pairs.compare(ROWS, columns)
    assert cosine.shape == (5, 2, 5, 3)
    for c, channel in enumerate(pairs.channels):
        for b in range(2):
            for t, i in enumerate(ROWS[b].tolist()):
                for r, j in enumerate(columns[b].tolist()):
                    wanted = F.cosine_similarity(vectors[i, channel.query], vectors[j, channel.key], dim=0)
                    torch.testing.assert_close(cosine[c, b, t, r], wanted)
                    assert missing[c, b, t, r] == (not (present[i, channel.query] and present[j, channel.key]))
                    assert same[b, t, r] == (i == j)
                    assert padding[b, t, r] == (not i or not j)
    assert bool((cosine[1][:, :, 0][0] == 0).all())  # image-image with item 8


def test_a_configuration_picks_the_sizes():
    ids = semantic_ids(N, SIZES, width=WIDTH)
    arguments = torch.from_numpy(ids.signal_vectors), torch.from_numpy(ids.present), SIGNALS
    for buckets in (4, 6):
        made = build_reweighting(*arguments, recommender_config(buckets=buckets))
        assert type(made) is SimilarityBias
        assert len(made.channels) == 5
        assert made.table.shape == (2, 5, buckets + 3, 3)
        assert not made.table.any()


def test_a_reweighting_that_is_made_otherwise_takes_the_place_of_ours():
    ids, asked = semantic_ids(N, SIZES, width=WIDTH), []

    def make(*given):
        asked.append(given)
        return filled(build_reweighting(*given))

    config = recommender_config()
    model = SequenceModel(N, ids, config, reweighting=make)
    ((vectors, present, signals, settings),) = asked
    assert np.array_equal(vectors, ids.signal_vectors)
    assert np.array_equal(present, ids.present)
    assert (tuple(signals), settings) == (ids.signals, config)
    assert bool(model.reweighting.table.all())
    SequenceModel(N, ids, recommender_config(reweight=False), reweighting=make)
    assert len(asked) == 1
