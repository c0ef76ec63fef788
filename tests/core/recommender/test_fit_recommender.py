"""Laws of stage 2 as a whole: what may not change a score, what a score is, and that every setting does something."""

from dataclasses import asdict, fields, replace
from functools import cache

import numpy as np
import pytest
import recommender_laws as laws
import torch
from recommender_laws import EVALUATION, SIZES, N, alike
from tiny import normal, planted_data, recommender_config, same_tensors, semantic_ids

from bbqrec_core import (
    RecommenderConfig,
    SequenceModel,
    Sequences,
    SimilarityBias,
    build_recommender,
    fit_recommender,
    per_user,
    rank_users,
)
from bbqrec_core.recommender import fit as fit_module
from bbqrec_core.recommender.fit import beam_ranks, early_score, fit
from bbqrec_core.recommender.score_bias import SeenOffsets
from bbqrec_core.transformer import INIT_STD, Block

KINDS = {
    "codes": {"output": "codes"},
    "items": {"output": "items"},  # SASRec: the one kind without IDs
    "enriched": {"output": "items"},
    "both": {"output": "both"},
}


def given(kind, ids):
    """The IDs that a kind of model gets."""
    return None if kind == "items" else ids


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return planted_data(tmp_path_factory.mktemp("recommender"))


@pytest.fixture(scope="module")
def ids():
    return semantic_ids(N, SIZES)


@pytest.fixture(scope="module")
def run(data, ids, tmp_path_factory):
    """run(kind, **settings) -> (Recommender, TrainingLog), each distinct one trained once."""

    @cache
    def fit(kind="codes", evaluation=EVALUATION, seed=0, new=0, **changes):
        """`new`: share of items that training never sees."""
        config = recommender_config(**(KINDS[kind] | changes))
        held = replace(data, cold=np.arange(N + 1) < new * N) if new else data
        return fit_recommender(held, given(kind, ids), config, evaluation, seed, tmp_path_factory.mktemp("r") / "c")

    return fit


def fresh(kind, ids, **changes):
    return laws.fresh(given(kind, ids), recommender_config(**(KINDS[kind] | changes)))


@pytest.mark.parametrize("kind", KINDS)
def test_padding_never_changes_a_score(kind, ids):
    laws.padding_never_changes_a_score(fresh(kind, ids, max_events=9).model)


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_state_alone_is_that_of_one_pass_over_all(kind, ids):
    laws.last_state_alone_is_that_of_one_pass_over_all(fresh(kind, ids).model)


@pytest.mark.parametrize("kind", KINDS)
def test_a_later_item_changes_no_earlier_state(kind, ids):
    laws.later_item_changes_no_earlier_state(fresh(kind, ids).model)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_come_in_the_order_of_the_users_asked(kind, ids, data):
    laws.scores_come_in_the_order_of_the_users_asked(fresh(kind, ids), data)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_read_the_last_events_only(kind, ids):
    laws.scores_read_the_last_events_only(fresh(kind, ids, max_events=3))


def test_code_scores_are_the_heads_log_probabilities(ids, data):
    recommender = fresh("codes", ids)
    users = np.array([3, 0])
    scores = recommender.scores(data.history("test"), users)
    history = data.history("test")
    for place, user in enumerate(users):
        items = history.items[history.offsets[user] : history.offsets[user + 1]][-5:]
        state = recommender.model.last_states(torch.tensor([items.tolist()]))
        for row in range(1, N + 1):
            wanted = recommender.model.head(state, recommender.model.vectors.node[row][None])
            torch.testing.assert_close(scores[place, row], wanted[0])


def test_sasrec_scores_and_loss_are_a_softmax_over_the_catalogue(data):
    model = fresh("items", None).model
    rows = torch.tensor([[3, 8, 3, 17], [5, 6, 0, 0]])
    states, _ = model.states(rows[:, :-1])
    losses = []
    for b, t, target in ((0, 0, 8), (0, 1, 3), (0, 2, 17), (1, 0, 6)):
        logits = [states[b, t] @ model.items.weight[item] for item in range(1, N + 1)]  # padding is no candidate
        losses.append(torch.logsumexp(torch.stack(logits), 0) - logits[target - 1])
    torch.testing.assert_close(model.loss(rows)["loss"], sum(losses) / 4)
    recommender = fresh("items", None)
    scores = recommender.scores(data.history("test"), np.array([4]))[0]
    history = data.history("test")
    items = history.items[history.offsets[4] : history.offsets[5]][-5:]
    last = recommender.model.last_states(torch.tensor([items.tolist()]))
    torch.testing.assert_close(scores[1:], (last @ recommender.model.items.weight.T)[0, 1:])


def test_the_loss_over_codes_is_the_mean_of_minus_log_probabilities(ids):
    model = fresh("codes", ids).model
    rows = torch.tensor([[3, 8, 3, 17], [5, 6, 0, 0]])
    states, _ = model.states(rows[:, :-1])
    places = ((0, 0, 8), (0, 1, 3), (0, 2, 17), (1, 0, 6))
    losses = [-model.head(states[b, t][None], model.vectors.node[target][None])[0] for b, t, target in places]
    torch.testing.assert_close(model.loss(rows)["loss"], sum(losses) / 4)


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_enters_by_its_own_vector_or_by_those_of_its_codes(kind, ids):
    laws.item_enters_by_its_own_vector_or_by_those_of_its_codes(
        fresh(kind, ids).model, given(kind, ids), items=kind != "codes"
    )


@pytest.mark.parametrize("w", [1.0, 0.3])
def test_two_heads_score_by_the_weighted_sum_of_both_log_probabilities(w, ids, data):
    laws.two_heads_score_by_the_weighted_sum_of_both_log_probabilities(fresh("both", ids, w_codes=w), data)


@pytest.mark.parametrize("w", [1.0, 0.3])
def test_two_heads_learn_from_the_weighted_sum_of_both_losses(ids, w):
    laws.two_heads_learn_from_the_weighted_sum_of_both_losses(fresh("both", ids, w_codes=w).model)


def test_a_model_with_one_head_has_no_other_loss(ids):
    rows = torch.tensor([[3, 8, 3, 17], [5, 6, 0, 0]])
    assert list(fresh("codes", ids).model.loss(rows)) == list(fresh("items", ids).model.loss(rows)) == ["loss"]


@pytest.mark.parametrize("kind", KINDS)
def test_permuting_items_and_what_belongs_to_them_permutes_the_scores(kind, ids, data):
    laws.permuting_items_and_what_belongs_to_them_permutes_the_scores(lambda some: fresh(kind, some), ids, data)


def test_equal_arguments_give_equal_parameters_and_another_seed_does_not(ids):
    first, again, other = (build_recommender(N, ids, recommender_config(), seed).model for seed in (1, 1, 2))
    assert same_tensors(first.state_dict(), again.state_dict())
    assert not same_tensors(first.state_dict(), other.state_dict())


class Other(SequenceModel):
    """A model of another class, which takes twice its loss."""

    def loss(self, rows):
        return {"loss": 2 * super().loss(rows)["loss"]}


def test_a_model_that_is_made_otherwise_takes_the_place_of_ours(data, ids, run, tmp_path):
    config, asked = recommender_config(), []

    def make(*given):
        asked.append(given)
        return Other(*given)

    found = build_recommender(N, ids, config, 1, make=make)
    assert type(found.model) is Other
    assert asked == [(N, ids, config)]
    assert same_tensors(found.model.state_dict(), build_recommender(N, ids, config, 1).model.state_dict())
    trained, history = fit_recommender(data, ids, config, EVALUATION, 0, tmp_path / "c", make)
    assert type(trained.model) is Other
    assert history.epochs[0]["loss"] > 1.5 * run()[1].epochs[0]["loss"]


def test_a_kind_of_block_is_that_of_the_backbone_alone(ids):
    class Gated(Block):
        pass

    model = SequenceModel(N, ids, recommender_config(), block=Gated)
    assert [type(part) for part in model.blocks.blocks] == [Gated] * 2
    assert [type(part) for part in model.head.blocks.blocks] == [Block]


def test_progress_is_told_of_every_step(data, ids, run, tmp_path):
    told = []
    found, history = fit_recommender(
        data, ids, recommender_config(), EVALUATION, 0, tmp_path / "c", progress=told.append
    )
    assert [at.epoch for at in told if at.step == at.steps] == [row["epoch"] for row in history.epochs]
    assert {at.name for at in told} == {"recommender"}
    assert same_tensors(found.model.state_dict(), run()[0].model.state_dict())


def test_tables_start_from_the_codebook_up_to_one_scale(ids):
    wide = semantic_ids(N, SIZES, width=6)
    tables = build_recommender(N, wide, recommender_config(), 0).model.vectors.codes
    scale = INIT_STD / wide.codebook[0].std(ddof=1)
    for level in range(2):
        torch.testing.assert_close(tables[level].weight, torch.from_numpy(wide.codebook[level] * scale))
    assert float(tables[0].weight.detach().std()) == pytest.approx(INIT_STD, rel=1e-4)
    projected = build_recommender(N, ids, recommender_config(), 0).model.vectors.codes  # width 5 to 6
    assert np.linalg.matrix_rank(torch.cat([projected[0].weight, projected[1].weight]).detach().numpy(), tol=1e-6) == 5
    assert [len(table.weight) for table in projected] == list(SIZES)


def test_tables_without_a_codebook_start_with_the_deviation_of_embeddings(ids):
    model = build_recommender(N, ids, recommender_config(output="both", width=60), 0).model
    for table in (model.position, model.items):
        assert float(table.weight.detach().std()) == pytest.approx(INIT_STD, rel=0.15)


def test_the_output_table_is_the_input_table(ids):
    model = fresh("codes", ids).model
    assert model.head.vectors is model.vectors
    model.loss(torch.tensor([[1, 2]]))["loss"].backward()
    assert all(weight.grad is not None for weight in model.vectors.parameters())


def test_reweighting_needs_signals(ids):
    assert isinstance(build_recommender(N, ids, recommender_config(), 0).model.reweighting, SimilarityBias)
    assert build_recommender(N, ids, recommender_config(reweight=False), 0).model.reweighting is None
    blank = replace(ids, signals=())
    assert build_recommender(N, blank, recommender_config(), 0).model.reweighting is None
    assert build_recommender(N, None, recommender_config(), 0).model.reweighting is None
    assert build_recommender(N, ids, recommender_config(output="items"), 0).model.reweighting is not None


def test_attention_maps_and_biases_are_handed_out(ids):
    model = fresh("codes", ids).model
    rows = torch.tensor([[3, 8, 17, 0], [1, 2, 3, 4]])
    _, maps = model.states(rows)
    biases = model.biases(rows)
    assert len(maps) == len(biases) == 2
    assert all(m.shape == b.shape == (2, 3, 4, 4) for m, b in zip(maps, biases, strict=True))
    assert bool((biases[0].triu(1)[:, :, 0, 1:] == -torch.inf).all())


@pytest.mark.parametrize("kind", KINDS)
def test_training_repeats_for_its_seed_and_learns(data, ids, run, tmp_path, kind):
    config = recommender_config(**KINDS[kind])
    again = fit_recommender(data, given(kind, ids), config, EVALUATION, 0, tmp_path / "c")
    laws.training_repeats_for_its_seed_and_learns(run(kind), again, run(kind, seed=1))


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_back_is_the_best_epoch_by_validation(data, run, kind):
    laws.what_comes_back_is_the_best_epoch_by_validation(run(kind), data)


@pytest.mark.parametrize("kind", KINDS)
def test_test_events_change_nothing_that_is_trained(data, ids, run, tmp_path, kind):
    config, changed = recommender_config(**KINDS[kind]), laws.other_test_events(data)
    assert alike(fit_recommender(changed, given(kind, ids), config, EVALUATION, 0, tmp_path / "c"), run(kind))


@pytest.mark.parametrize("emitting", ["codes", "both"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("part", ["valid", "test"])
def test_ranks_by_a_wide_beam_are_ranks_by_exact_scores(data, ids, part, masked, emitting):
    recommender = fresh(emitting, ids)
    users = np.array([20, 3, 11, 0, 7])
    beam = beam_ranks(recommender, data, part, users, replace(EVALUATION, beam=100, batch=2), masked)
    kind = "filtered" if masked else "included"
    exact = rank_users(recommender.scores, data.history(part), data.targets(part), users, (kind,))[kind]
    assert beam.greater[exact.ties > 0].tolist() == exact.greater[exact.ties > 0].tolist()
    assert beam.ties.tolist() == exact.ties.tolist()
    assert np.array_equal(beam.top, exact.top)


def test_a_beam_of_two_heads_is_listed_best_first_with_exact_scores(data, ids):
    recommender = fresh("both", ids)
    history = data.history("test")
    rows = torch.tensor([history.items[history.offsets[user] : history.offsets[user] + 5].tolist() for user in (1, 2)])
    exact = recommender.scores(Sequences(np.array([0, 5, 10]), rows.flatten().numpy().astype(np.int32)), np.arange(2))
    items, scores = recommender.beam(rows, 4)
    assert torch.equal(scores, scores.sort(dim=1, descending=True).values)
    for line in range(2):
        real = items[line] > 0
        torch.testing.assert_close(scores[line, real], exact[line, items[line, real]])
        assert bool((scores[line, ~real] == -torch.inf).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 5, 20])
def test_scores_for_ranking_leave_out_only_what_no_metric_or_list_shows(kind, k, data, ids):
    part = laws.scores_for_ranking_leave_out_only_what_no_metric_or_list_shows(fresh(kind, ids), data, k)
    if kind == "codes" and k == 1:
        assert int((part == -torch.inf).sum()) > data.n_users


def test_ranks_by_a_narrow_beam_miss_targets_and_count_them_as_zero(data, ids):
    recommender = fresh("codes", ids)
    ranks = beam_ranks(recommender, data, "test", np.arange(data.n_users), replace(EVALUATION, beam=1))
    missed = np.array([target not in top for target, top in zip(data.targets("test"), ranks.top, strict=True)])
    assert missed.any()
    assert bool((ranks.ties[missed] == 0).all())
    assert bool((per_user(ranks)["recall@20"][missed] == 0).all())


def test_the_early_score_of_sasrec_is_exact_ndcg(data):
    recommender = fresh("items", None)
    users = np.array([1, 5, 9])
    for kind in ("included", "filtered"):
        asked = replace(data)
        vars(asked)["seen_items"] = kind
        ranks = rank_users(recommender.scores, data.history("valid"), data.targets("valid"), users, (kind,))[kind]
        assert early_score(recommender, asked, users, EVALUATION) == pytest.approx(per_user(ranks)["ndcg@10"].mean())


CHANGES = {
    "output": "items",
    "w_codes": 0.5,
    "width": 12,
    "layers": 1,
    "heads": 2,
    "depth_layers": 2,
    "dropout": 0.3,
    "reweight": False,
    "buckets": 5,
    "lag_bias": False,
    "seen_offset": False,
    "score_reweight": True,
    "score_buckets": 3,
    "score_steps": 5,
    "partners": 1,
    "unseen": "model",
    "prefixes": False,
    "init_from_codebook": False,
    "max_events": 3,
    "lr": 0.02,
    "weight_decay": 0.2,
    "epochs": 2,
    "min_steps": 60,
    "precision": "bf16",
    "batch_events": 50,
    "epoch_steps": 1,
    "evaluate_every": 2,
    "patience": 1,
}


NEEDS = {
    "w_codes": {"output": "both"},
    "unseen": {"new": 0.5},
    "score_buckets": {"score_reweight": True},
    "score_steps": {"score_reweight": True},
    "partners": {"score_reweight": True},
    "patience": {"lr": 0.05, "epochs": 8},  # fast enough for the score to fall
}


@pytest.mark.parametrize("length", [2, 5])
def test_a_step_holds_about_the_asked_number_of_targets_whatever_the_length_of_histories(
    data, ids, length, tmp_path, monkeypatch
):
    seen = []

    def watched(task, *given, **named):
        seen.extend(int((batch[:, 1:] > 0).sum()) for batch in task.batches(0))
        return fit(task, *given, **named)

    monkeypatch.setattr(fit_module, "fit", watched)
    config = recommender_config(max_events=length, batch_events=40, epochs=1)
    fit_recommender(data, ids, config, EVALUATION, 0, tmp_path)
    assert sum(seen) == int(np.maximum(np.diff(data.train().offsets) - 1, 0).sum())
    assert 30 < np.mean(seen[:-1]) < 50


def test_with_two_heads_codes_learn_from_every_fourth_state_and_change_none(ids):
    model = build_recommender(N, ids, recommender_config(output="both", dropout=0.0), 0).model.train()
    rows = torch.tensor([[3, 8, 3, 17, 2], [5, 6, 9, 0, 0]])
    states, targets = model.states(rows[:, :-1])[0][rows[:, 1:] > 0], rows[:, 1:][rows[:, 1:] > 0]
    model.scoring.seen.data = normal(len(SIZES) + 1, dtype=torch.float32)
    held = model.scoring.held(rows[:, :-1] * (rows[:, 1:] > 0))
    offsets = SeenOffsets(model.vectors, model.scoring.held_nodes(held), model.scoring.seen[1:])
    each = -model.head(states, model.vectors.node[targets], offsets)
    for seed in range(6):
        torch.manual_seed(seed)
        first = int(torch.randint(4, ()))
        torch.manual_seed(seed)
        found = model.loss(rows)["codes"]
        torch.testing.assert_close(found, each[first::4].mean())
        grads = torch.autograd.grad(found, [model.items.weight, model.head.start.weight], allow_unused=True)
        assert grads[0] is None
        assert bool(grads[1].any())


def test_with_two_heads_the_item_softmax_alone_chooses_the_epoch(data, ids):
    made, users = fresh("both", ids), np.arange(data.n_users)
    history, targets = data.history("valid"), data.targets("valid")
    items = lambda asked, some: made.model.prompt(made._rows(asked, some)).items  # noqa: E731
    kind = data.seen_items
    ranks = rank_users(items, history, targets, users, (kind,))[kind]
    assert early_score(made, data, users, EVALUATION) == pytest.approx(per_user(ranks)["ndcg@10"].mean())


def test_every_setting_has_a_test_that_changes_it():
    assert list(CHANGES) == [spec.name for spec in fields(RecommenderConfig)]
    base = asdict(recommender_config())
    assert all(base[name] != value for name, value in CHANGES.items())


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "precision"])  # of a processor: test_devices
def test_every_setting_changes_a_result(run, name):
    base = NEEDS.get(name, {})
    assert not alike(run(**base), run(**(base | {name: CHANGES[name]})))


@pytest.mark.parametrize(("name", "value"), [("early_users", 5), ("beam", 2)])
def test_evaluation_settings_change_the_early_score(run, name, value):
    first, second = run()[1], run(evaluation=replace(EVALUATION, **{name: value}))[1]
    assert [row["score"] for row in first.epochs] != [row["score"] for row in second.epochs]


@pytest.mark.parametrize("kind", KINDS)
def test_the_evaluation_batch_changes_no_result(run, kind):
    laws.evaluation_batch_changes_no_result(run, kind=kind)


def test_a_model_without_ids_ignores_the_settings_of_codes():
    models = [SequenceModel(N, None, recommender_config(output=output)) for output in ("codes", "items", "both")]
    assert all(model.head is None and model.items is not None for model in models)
