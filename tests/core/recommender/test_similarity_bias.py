"""Laws of discretized similarity reweighting, against loops over a catalogue small enough to write down."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import recommender_config, same_tensors, semantic_ids

from bbqrec_core import SequenceModel, SimilarityBias
from bbqrec_core.kernels import bucket_of
from bbqrec_core.recommender import similarity_bias
from bbqrec_core.recommender.similarity_bias import (
    Channel,
    LinearSimilarity,
    bucket_edges,
    build_reweighting,
    channels,
    pairwise_cosine,
)
from bbqrec_lab.experiments.runs import with_compared

N, WIDTH, LAYERS, HEADS, BUCKETS = 11, 5, 2, 3, 7
SIZES = (4, 4)
SIGNALS = ["text", "image", "id"]
ROWS = torch.tensor([[3, 8, 3, 1, 0], [5, 2, 9, 4, 7]])  # a repeated item, a padded position
FORMS = ["buckets", "linear"]


def make(vectors=None, present=None, **changes):
    ids = semantic_ids(N, SIZES, width=WIDTH)
    vectors = torch.from_numpy(ids.signal_vectors).double() if vectors is None else vectors
    present = torch.from_numpy(ids.present) if present is None else present
    options = {"layers": LAYERS, "heads": HEADS, "buckets": BUCKETS, "edges": "uniform", "which": "all"} | changes
    return SimilarityBias(vectors, present, SIGNALS[: vectors.shape[1]], **options).double()


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


@pytest.mark.parametrize("edges", ["uniform", "quantile"])
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
    assert channels(SIGNALS, "same") == channels(SIGNALS, "all")[:3] == same
    assert channels(SIGNALS, "all")[3:] == [Channel("text-image", 0, 1), Channel("image-text", 1, 0)]
    assert channels(["id"], "all") == [Channel("id-id", 0, 0)]


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
    generator = torch.Generator().manual_seed(0)
    only = bucket_edges(vectors, present, Channel("text-text", 0, 0), BUCKETS, "quantile", generator)
    torch.testing.assert_close(only, (vectors[2, 0] @ vectors[5, 0]).expand(BUCKETS - 1), atol=1e-4, rtol=0)
    spare = bucket_edges(vectors, present & False, Channel("text-text", 0, 0), 4, "uniform", generator)
    torch.testing.assert_close(spare, torch.tensor([-0.5, 0.0, 0.5]))
    cross = bucket_edges(vectors, present, Channel("text-image", 0, 1), 4, "quantile", generator)
    allowed = torch.stack([vectors[i, 0] @ vectors[j, 1] for i, j in ((2, 7), (5, 2), (5, 7))])
    assert float(cross.min()) >= float(allowed.min()) - 1e-4
    assert float(cross.max()) <= float(allowed.max()) + 1e-4


def test_a_channel_without_pairs_falls_back_to_even_edges():
    none = torch.zeros(N + 1, 1, dtype=torch.bool)
    for present in (none, none.clone().index_fill_(0, torch.tensor([3]), True)):
        edges = bucket_edges(
            torch.ones(N + 1, 1, WIDTH), present, Channel("id-id", 0, 0), 4, "quantile", torch.Generator()
        )
        torch.testing.assert_close(edges, torch.tensor([-0.5, 0.0, 0.5]))


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
    bias = SimilarityBias(vectors, present, SIGNALS[:2], layers=1, heads=1, buckets=16, edges="quantile", which="all")
    everyone = torch.arange(1, items + 1)
    whole = bias.bucket_ids(everyone[None])[:, 0]
    for size in (2, 3, 5, 17, 50):
        rows = everyone[: items // size * size].view(-1, size)
        for part, found in zip(rows, bias.bucket_ids(rows).unbind(1), strict=True):
            assert torch.equal(found, whole[:, part - 1][:, :, part - 1])


def test_pairwise_cosine_is_the_loop_and_zero_for_zero_vectors():
    query, key = torch.randn(2, 3, WIDTH, dtype=torch.float64), torch.randn(2, 4, WIDTH, dtype=torch.float64)
    query[0, 1] = 0
    wanted = [[[F.cosine_similarity(q, k, dim=0) for k in key[b]] for q in query[b]] for b in range(2)]
    torch.testing.assert_close(pairwise_cosine(query, key), torch.tensor(wanted, dtype=torch.float64))
    assert bool((pairwise_cosine(query, key)[0, 1] == 0).all())


def two_models(**changes):
    """The same parameters with and without reweighting, over IDs with three signals."""
    ids, models = semantic_ids(N, SIZES, width=WIDTH), []
    for reweight in (True, False):
        torch.manual_seed(3)
        models.append(SequenceModel(N, ids, recommender_config(reweight=reweight, **changes)))
    return models


@pytest.mark.parametrize("form", FORMS)
def test_a_zero_table_is_the_plain_backbone_bit_for_bit(form):
    gradients, states = [], []
    for model in two_models(dropout=0.4, similarity_form=form):
        model.train()
        torch.manual_seed(5)
        states.append(model.states(ROWS)[0])
        torch.manual_seed(5)
        model.loss(ROWS)["loss"].backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if not name.startswith("reweighting")})
    assert torch.equal(*states)
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(value, gradients[1][name]) for name, value in gradients[0].items())


@pytest.mark.parametrize("form", FORMS)
def test_the_table_itself_gets_gradient_at_zero(form):
    model = two_models(similarity_form=form)[0]
    model.loss(ROWS)["loss"].backward()
    assert bool(model.reweighting.table.grad.abs().sum() > 0)


@pytest.mark.parametrize("form", FORMS)
def test_each_weight_is_multiplied_by_exp_of_its_offset_before_normalisation(form):
    weighted, plain = (model.double().eval() for model in two_models(layers=1, similarity_form=form))
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
    model = SequenceModel(3, ids, recommender_config(layers=1, buckets=2, bucket_edges="uniform")).eval()
    with torch.no_grad():
        model.blocks.blocks[0].qkv.weight.zero_()
        model.blocks.blocks[0].qkv.bias.zero_()
        model.reweighting.table[0, 0, :3] = torch.tensor([0, math.log(3), math.log(5)])[:, None]  # unlike, like, self
    _, [weights] = model.states(torch.tensor([[1, 3, 2, 0]]))
    wanted = torch.tensor([[1, 0, 0], [1 / 6, 5 / 6, 0], [3 / 9, 1 / 9, 5 / 9]])
    torch.testing.assert_close(weights[0, :, :3, :3], wanted.expand(3, 3, 3))


def linear(which="all"):
    """The linear form in float64 over IDs some of whose signals are missing, its table filled, and those IDs."""
    ids = semantic_ids(N, SIZES, width=WIDTH)
    vectors, present = torch.from_numpy(ids.signal_vectors).double(), torch.from_numpy(ids.present)
    made = LinearSimilarity(vectors, present, SIGNALS, layers=LAYERS, heads=HEADS, which=which)
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
                        kind = bucket_by_hand(vectors, ids.present, i, j, channel, ()) - BUCKETS
                        met.add(max(kind, -1))
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
        made = build_reweighting(*arguments, recommender_config(**changes))
        assert type(made) is kind
        assert len(made.channels) == count
        assert made.table.shape == (2, count, {SimilarityBias: 4 + 3, LinearSimilarity: 1 + 3}[kind], 3)
        assert not made.table.any()


def other_vectors():
    """IDs, signals before quantization, and features of two widths with who has them."""
    rng, ids = np.random.default_rng(3), semantic_ids(N, SIZES, width=WIDTH)
    behaviour = rng.normal(size=ids.signal_vectors.shape).astype(np.float32)
    features = {name: rng.normal(size=(N + 1, width)).astype(np.float32) for name, width in (("text", 3), ("image", 7))}
    presence = {name: rng.random(N + 1) < 0.7 for name in ("image", "text")}
    return ids, behaviour, features, presence


def test_signals_or_features_take_the_place_of_quantized_vectors_and_nothing_else_changes():
    ids, behaviour, features, presence = other_vectors()
    assert with_compared(ids, "quantized", behaviour, features, presence) is ids
    signals = with_compared(ids, "signals", behaviour, features, presence)
    assert np.array_equal(signals.signal_vectors, behaviour)
    assert signals.signals == ids.signals
    raw = with_compared(ids, "features", behaviour, features, presence)
    assert raw.signals == ("text", "image")
    for index, name in enumerate(raw.signals):
        own = torch.from_numpy(features[name])
        padded = torch.from_numpy(raw.signal_vectors[:, index])
        torch.testing.assert_close(pairwise_cosine(padded[None], padded[None]), pairwise_cosine(own[None], own[None]))
        assert np.array_equal(raw.present[:, index], presence[name])
    for name in ("code_ids", "codebook", "raw_codes"):
        assert getattr(raw, name) is getattr(signals, name) is getattr(ids, name)


def test_codes_without_signals_and_data_without_features_keep_what_they_have():
    ids, behaviour, features, presence = other_vectors()
    assert with_compared(ids, "features", behaviour, {}, {}) is ids
    blank = replace(ids, signals=())
    assert all(with_compared(blank, what, behaviour, features, presence) is blank for what in ("signals", "features"))


def test_what_is_compared_changes_no_other_parameter_at_the_start():
    given, states = other_vectors(), []
    for what in ("quantized", "signals", "features"):
        torch.manual_seed(3)
        state = SequenceModel(N, with_compared(given[0], what, *given[1:]), recommender_config()).state_dict()
        states.append({name: value for name, value in state.items() if not name.startswith("reweighting")})
    assert all(same_tensors(states[0], state) for state in states[1:])
    assert all(bool(states[0][f"vectors.codes.{level}.weight"].any()) for level in range(2))
