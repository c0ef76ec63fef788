"""Identities of the method: what must not matter does not, and what is switched off matches its absence.

Each identity stands in one place. Those that belong to one module are tested beside it:

- Decoding the codes gives the quantized vector:
  test_quantizer.py::test_decoding_the_codes_returns_the_quantized_vector,
  test_fit_tokenizer.py::test_signal_vectors_are_the_codebook_entries_of_the_signal_codes,
  test_variant_tokenizer.py::test_a_chain_quantizes_what_the_signals_before_left_over
- Relabelling codes changes no quantized vector: test_quantizer.py::test_relabelling_codes_changes_no_quantized_vector
- Padding changes no score: test_fit_recommender.py::test_padding_never_changes_a_score (codes and SASRec),
  test_baseline_models.py::test_padding_never_changes_a_score (added features, gated blocks),
  test_features.py::test_padding_never_changes_an_embedding,
  test_metrics.py::test_the_padding_column_is_ignored_whatever_it_holds
- Items renumbered, with what belongs to them, renumber the results:
  test_fit_recommender.py::test_permuting_items_and_what_belongs_to_them_permutes_the_scores,
  test_baseline_models.py::test_permuting_items_and_what_belongs_to_them_permutes_the_scores,
  test_counting.py::test_renumbering_items_renumbers_the_scores,
  test_transport_repair.py::test_renumbering_items_renumbers_their_ids,
  test_extra_code.py::test_an_extra_code_makes_ids_unique_and_does_not_depend_on_item_numbers,
  test_metrics.py::test_renumbering_items_never_changes_a_metric,
  test_reading.py::test_order_of_item_rows_never_matters
- Zero similarity tables are the plain backbone:
  test_similarity_bias.py::test_a_zero_table_is_the_plain_backbone_bit_for_bit
- A beam as wide as the tree is exact scoring: test_decoding.py::test_a_beam_as_wide_as_the_tree_is_exact_ranking,
  test_fit_recommender.py::test_ranks_by_a_wide_beam_are_ranks_by_exact_scores
- With s, z and all weights off, one modality is a plain RQ-VAE:
  test_variant_tokenizer.py::test_with_everything_else_off_it_is_a_plain_rqvae
- Absent modalities and unseen items leave no trace:
  test_tokenizer_model.py::test_features_of_an_absent_modality_change_nothing,
  test_tokenizer_model.py::test_items_without_training_events_ignore_the_id_signal
- What counts without order ignores a shuffle of time:
  test_baseline_models.py::test_what_counts_without_order_ignores_a_shuffle_of_training_time
- One signal leaves nothing to combine or to share:
  test_variant_tokenizer.py::test_with_one_signal_all_ways_to_combine_and_to_share_are_the_same

This file holds those that cross modules; test_variant_tokenizer.py holds tokenizers of baselines to those of stage 1.
Models are float64 and compared to 1e-9, unless a test says bit for bit.
"""

import re
from dataclasses import replace

import identities
import numpy as np
import pytest
import torch
from identities import DRAWN, WINDOWS, N, close, same_losses
from tiny import normal, planted_data, recommender_config, semantic_ids, tokenizer_config

from bbqrec_core import ResidualQuantizer, Sequences, build_recommender, fit_tokenizer, rank_scores
from bbqrec_core.tokenizer.model import Tokenizer

SIZES = (5, 5, 3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return planted_data(tmp_path_factory.mktemp("identities"))


def stage_one(data, **changes):
    """A tokenizer of `identities.stage_one` whose codebook moves no dead code."""
    return identities.stage_one(data, Tokenizer, tokenizer_config(revive_every=0, **changes))


def stage_two(ids, **changes):
    """A recommender in float64 whose similarity tables are not zero."""
    made = build_recommender(N, ids, recommender_config(**changes), 3)
    made.model.double()
    if made.model.reweighting is not None:
        with torch.no_grad():
            made.model.reweighting.table.copy_(normal(*made.model.reweighting.table.shape, seed=2))
    return made


@pytest.fixture(scope="module")
def ids():
    return semantic_ids(N, SIZES)


@pytest.fixture(scope="module")
def histories():
    return Sequences(np.array([0, 4, 6, 11]), np.array([3, 8, 3, 17, 5, 6, 20, 1, 14, 9, 2], dtype=np.int32))


def test_every_test_named_above_is_there(root):
    named = re.findall(r"(test_\w+\.py)::(test_\w+)", __doc__)
    assert len(named) > 15
    for file, name in named:
        (path,) = (root / "tests").rglob(file)
        assert f"def {name}(" in path.read_text(), f"{file} has no {name}"


# ---- the quantizer


def test_turning_scaling_and_moving_signals_turns_scales_and_moves_the_first_level():
    """K-means, residuals and choices know distances only: codes stay, later levels turn and scale without moving."""
    points, turn, move = normal(60, 6), torch.linalg.qr(normal(6, 6, seed=1)).Q, normal(6, seed=2)
    plain, moved = (ResidualQuantizer(3, 5, 6).double() for _ in range(2))
    plain.initialise(points, torch.Generator().manual_seed(0))
    moved.initialise(3 * points @ turn + move, torch.Generator().manual_seed(0))
    close(moved.codebook[0], 3 * plain.codebook[0] @ turn + move)
    close(moved.codebook[1:], 3 * plain.codebook[1:] @ turn)
    assert torch.equal(moved(3 * points @ turn + move).codes, plain(points).codes)


# ---- stage 1


def test_relabelling_codes_relabels_ids_and_changes_no_vector_and_no_loss(data):
    identities.relabelling_codes_relabels_ids_and_changes_no_vector_and_no_loss(stage_one(data), stage_one(data))


@pytest.mark.parametrize("uniqueness", ["none", "nearest"])  # `extra` numbers equal items: see above
def test_renumbering_items_renumbers_their_ids_and_changes_no_loss(data, uniqueness):
    identities.renumbering_items_renumbers_their_ids_and_changes_no_loss(
        lambda one: stage_one(one, uniqueness=uniqueness), data
    )


def test_the_order_of_modalities_changes_no_code_and_no_loss(data):
    identities.order_of_modalities_orders_the_codes_and_changes_no_loss(
        lambda **changes: stage_one(data, **changes), one_after_another=False
    )


def test_an_item_with_one_signal_is_fused_into_that_signal(data):
    model = stage_one(data).eval()
    parts = model.parts(DRAWN)
    units, _ = model.units(parts.signals, parts.present)
    alone = (parts.present.sum(1) == 1).nonzero().squeeze(-1)
    assert len(alone)
    close(units[alone, -1], parts.signals[alone, parts.present[alone].int().argmax(1)])


def test_specific_parts_of_zero_are_no_specific_parts(data):
    fixed = {"w_mi": 0.0, "specific_dropout": 0.0}  # no draw that one of them does without
    zero, none = (stage_one(data, specific=specific, **fixed) for specific in (True, False))
    with torch.no_grad():
        for net in zero.specific.values():
            net[-1].weight.zero_()
            net[-1].bias.zero_()
    width = zero.config.specific_width
    state = {name: value for name, value in zero.state_dict().items() if name in none.state_dict()}
    for name in zero.modalities:
        state[f"decoders.{name}.0.weight"] = state[f"decoders.{name}.0.weight"][:, width:]
    none.load_state_dict(state)
    assert "reconstruction" in same_losses(zero, none)


def test_padding_never_changes_a_stage_one_loss(data):
    model = stage_one(data)
    model.history_encoder.eval()  # its dropout draws one number a place
    padded = torch.cat([WINDOWS, torch.zeros(len(WINDOWS), 2, dtype=torch.long)], 1)
    same_losses(model, model, padded, DRAWN)


# ---- time


def shuffled(data):
    """The same data with the order of each user's training events shuffled."""
    rng, items = np.random.default_rng(8), data.sequences.items.copy()
    for start, end in zip(data.sequences.offsets[:-1], data.sequences.offsets[1:] - 2, strict=True):
        items[start:end] = rng.permutation(items[start:end])
    return replace(data, sequences=Sequences(data.sequences.offsets, items))


def test_what_reads_no_order_ignores_a_shuffle_of_training_time(data, tmp_path):
    """Bit for bit: a tokenizer without its sequence term; with it, IDs do change."""
    other = shuffled(data)
    for weight in (0.0, 0.7):
        config, made = tokenizer_config(w_seq=weight), []
        for name, one in (("plain", data), ("shuffled", other)):
            made.append(fit_tokenizer(one, config, 0, tmp_path / f"{name}-{weight}"))
        assert np.array_equal(made[0].ids.signal_vectors, made[1].ids.signal_vectors) == (weight == 0)


@pytest.mark.parametrize("output", ["codes", "items"])
def test_one_layer_without_positions_forgets_the_order_of_what_came_before(output, ids):
    model = stage_two(ids, output=output, layers=1).model
    first, second = torch.tensor([[3, 8, 20, 3, 17]]), torch.tensor([[20, 3, 3, 8, 17]])
    assert not torch.allclose(model.last_states(first), model.last_states(second))
    with torch.no_grad():
        model.position.weight.zero_()
    close(model.last_states(first), model.last_states(second))


# ---- stage 2


@pytest.mark.parametrize("output", ["codes", "both"])
def test_relabelling_codes_with_their_embeddings_changes_no_score_and_no_beam(output, ids, histories):
    new_name = [np.random.default_rng(size).permutation(size) for size in SIZES]
    table = np.stack([names[ids.code_ids[:, level]] for level, names in enumerate(new_name)], 1)
    plain, other = stage_two(ids, output=output), stage_two(replace(ids, code_ids=table), output=output)
    other.model.load_state_dict(plain.model.state_dict())
    with torch.no_grad():
        for level, names in enumerate(new_name):
            other.model.vectors.codes[level].weight[names] = plain.model.vectors.codes[level].weight
            other.model.head.biases[level].copy_(normal(SIZES[level], seed=level)[np.argsort(names)])
            plain.model.head.biases[level].copy_(normal(SIZES[level], seed=level))
    assert not np.array_equal(table, ids.code_ids)
    users = np.arange(3)
    close(other.scores(histories, users), plain.scores(histories, users))
    found, wanted = (made.beam(WINDOWS, 4) for made in (other, plain))
    close(found[1], wanted[1])
    for line in range(len(WINDOWS)):
        assert set(found[0][line].tolist()) == set(wanted[0][line].tolist())


def test_items_of_one_id_are_the_same_item_unless_their_signals_are_compared(ids, histories):
    """Bit for bit: without reweighting the model sees codes only."""
    table = ids.code_ids.copy()
    table[7] = table[3]
    twins = replace(ids, code_ids=table)
    swapped = Sequences(histories.offsets, np.where(histories.items == 3, 7, histories.items).astype(np.int32))
    for reweight in (False, True):
        made = stage_two(twins, reweight=reweight)
        scores = [made.scores(history, np.arange(3)) for history in (histories, swapped)]
        assert torch.equal(scores[0][:, 3], scores[0][:, 7])
        assert torch.equal(*scores) == (not reweight)


@pytest.mark.parametrize("output", ["codes", "items"])
def test_one_offset_for_every_bucket_is_no_offset(output, ids, histories):
    """A softmax does not see what is added to all its logits: only differences between buckets act."""
    made, scores = stage_two(ids, output=output), []
    table = made.model.reweighting.table
    constant = normal(table.shape[0], 1, 1, table.shape[3], seed=4).expand_as(table)
    for value in (torch.zeros_like(table), constant, normal(*table.shape, seed=5)):
        with torch.no_grad():
            table.copy_(value)
        scores.append(made.scores(histories, np.arange(3)))
    close(scores[1], scores[0])
    assert not torch.allclose(scores[2], scores[0])


def test_ranks_read_the_order_of_scores_alone():
    """Bit for bit, ties included, under a map that is increasing and exact on whole numbers."""
    scores = torch.randint(-6, 7, (9, N + 1), generator=torch.Generator().manual_seed(3)).double()
    targets = np.arange(1, 10)
    for found, wanted in zip(rank_scores(scores**3 / 2 + 5, targets), rank_scores(scores, targets), strict=True):
        assert np.array_equal(found, wanted)
