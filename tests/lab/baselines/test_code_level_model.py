"""Laws of reading histories code by code: no token knows what is to come, and beams give teacher forcing's numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import lab_recommender_config, planted_data, same_tensors, semantic_ids

from bbqrec_core import EvaluationConfig, Sequences, build_recommender, fit_recommender, rank_users
from bbqrec_core.recommender.fit import beam_ranks, early_score
from bbqrec_lab.baselines.code_level_model import TokenModel
from bbqrec_lab.baselines.sequence_models import make_model

N, SIZES = 24, (5, 5, 3)
L = len(SIZES)
EVALUATION = EvaluationConfig(early_users=23, beam=20, exact_items=1000, batch=7)
forms = pytest.mark.parametrize("changes", [{}, {"reweight": False, "block": "ligr"}, {"similarity_form": "linear"}])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return planted_data(tmp_path_factory.mktemp("token-model"))


@pytest.fixture(scope="module")
def ids():
    return semantic_ids(N, SIZES)


def fresh(ids, **changes):
    """An untrained recommender with a similarity table and vectors of prefixes that are not zero."""
    made = build_recommender(N, ids, lab_recommender_config(granularity="code", **changes), 3, make=make_model)
    made.model.double()
    if made.model.reweighting is not None:
        torch.nn.init.normal_(made.model.reweighting.table, generator=torch.Generator().manual_seed(2))
    for part in made.model.vectors.prefixes:
        torch.nn.init.normal_(part.weight, generator=torch.Generator().manual_seed(4))
    return made


def log_prob(model, history, item):
    """log p(ID | history) by teacher forcing: the item is read along, and each code judged by the token before it."""
    states, _ = model.states(torch.tensor([[*history, item]]))
    start, nodes = len(history) * L - 1, model.vectors.node[item]
    return sum(
        model.head.log_probs(
            states[:, start + level], level, nodes[level - 1 :][:1] if level else torch.zeros(1).long()
        )[0, model.vectors.code_of(level, nodes[level])]
        for level in range(L)
    )


@forms
def test_a_score_is_the_log_probability_by_teacher_forcing(ids, changes):
    recommender = fresh(ids, **changes)
    histories = ([3, 8, 3, 17], [5], [1, 2])  # of several lengths
    offsets = np.cumsum([0, *map(len, histories)])
    scores = recommender.scores(Sequences(offsets, np.concatenate(histories).astype(np.int32)), np.arange(3))
    assert scores.shape == (3, N + 1)
    assert bool((scores[:, 0] == -torch.inf).all())
    for line, history in enumerate(histories):
        wanted = torch.stack([log_prob(recommender.model, history, item) for item in range(1, N + 1)])
        torch.testing.assert_close(scores[line, 1:], wanted)


@forms
def test_a_token_knows_nothing_of_its_items_later_codes(ids, changes):
    model, table = fresh(ids, **changes).model, torch.from_numpy(ids.code_ids)
    twins = [(a, b) for a in range(1, N + 1) for b in range(1, N + 1) if torch.equal(table[a, :2], table[b, :2])]
    first, second = next((a, b) for a, b in twins if not torch.equal(table[a], table[b]))  # only the last code differs
    before, after = (model.states(torch.tensor([[4, 9, row, 7]]))[0] for row in (first, second))
    assert torch.equal(before[:, : 2 * L + 2], after[:, : 2 * L + 2])
    assert bool((before[:, 2 * L + 2 :] != after[:, 2 * L + 2 :]).any(-1).all())


def test_tokens_have_the_offsets_of_the_last_complete_item(ids):
    model = fresh(ids).model
    rows = torch.tensor([[4, 9, 2], [5, 5, 0]])
    shifted = torch.cat([torch.zeros(2, 1, dtype=torch.long), rows], 1)
    for bias, offset in zip(model.biases(rows), model.reweighting(shifted), strict=True):
        assert bias.shape == (2, 3, 3 * L, 3 * L)
        for query in range(3 * L):
            complete = (query + 1) // L  # how many items are read to their end
            assert bool((bias[:, :, query, query + 1 :] == -torch.inf).all())
            for key in range(query + 1):
                item = key // L + 1
                wanted = offset[:, :, complete, item if item <= complete else 0]
                assert torch.equal(bias[:, :, query, key], wanted)


@forms
def test_padding_changes_no_state_and_no_loss(ids, changes):
    model, row = fresh(ids, **changes).model, torch.tensor([[3, 8, 17]])
    padded = torch.tensor([[3, 8, 17, 0, 0]])
    torch.testing.assert_close(model.states(padded)[0][:, : 3 * L], model.states(row)[0])
    torch.testing.assert_close(model.last_states(padded), model.states(row)[0][:, -1])
    torch.testing.assert_close(model.loss(padded)["loss"], model.loss(row)["loss"])


def test_the_loss_is_the_mean_of_minus_log_probabilities(ids):
    model = fresh(ids).model
    losses = [-log_prob(model, *pair) for pair in (([3], 8), ([3, 8], 3), ([3, 8, 3], 17), ([5], 6))]
    torch.testing.assert_close(model.loss(torch.tensor([[3, 8, 3, 17], [5, 6, 0, 0]]))["loss"], sum(losses) / 4)


@pytest.mark.parametrize("masked", [False, True])
def test_ranks_by_a_wide_beam_are_ranks_by_scores(data, ids, masked):
    recommender, users = fresh(ids), np.array([20, 3, 11])
    beam = beam_ranks(recommender, data, "test", users, replace(EVALUATION, beam=100, batch=2), masked)
    kind = "filtered" if masked else "included"
    exact = rank_users(recommender.scores, data.history("test"), data.targets("test"), users, (kind,))[kind]
    assert beam.greater[exact.ties > 0].tolist() == exact.greater[exact.ties > 0].tolist()
    assert np.array_equal(beam.top, exact.top)


def test_a_narrow_beam_lists_scores_of_the_wide_one(ids):
    recommender, rows = fresh(ids), torch.tensor([[3, 8, 3, 17], [5, 6, 0, 0]])
    history = Sequences(np.array([0, 4, 6]), np.array([3, 8, 3, 17, 5, 6], dtype=np.int32))
    exact, (items, scores) = recommender.scores(history, np.arange(2)), recommender.beam(rows, 3)
    for line in range(2):
        real = items[line] > 0
        assert int(real.sum()) >= 3
        torch.testing.assert_close(scores[line, real], exact[line, items[line, real]])


def test_training_repeats_for_its_seed_and_learns(data, ids, tmp_path):
    config = lab_recommender_config(granularity="code")
    made = [fit_recommender(data, ids, config, EVALUATION, 0, tmp_path / str(n), make_model) for n in range(2)]
    assert same_tensors(*(recommender.model.state_dict() for recommender, _ in made))
    recommender, history = made[0]
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]
    score = early_score(recommender, data, np.arange(data.n_users), EVALUATION)
    assert score == pytest.approx(max(row["score"] for row in history.epochs))


def test_only_models_that_emit_codes_alone_read_code_by_code(ids):
    made = [
        build_recommender(N, given, lab_recommender_config(granularity="code", output=output), 0, make=make_model)
        for given, output in ((ids, "codes"), (ids, "items"), (ids, "both"), (None, "codes"), (None, "items"))
    ]
    assert [isinstance(recommender.model, TokenModel) for recommender in made] == [True, False, False, False, False]
