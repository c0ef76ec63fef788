"""Laws of stage 2 that the core's models and those of baselines both keep; the tests of each call them.

Laws of an untrained model ask for one from `fresh`, those of a trained one for `run(**settings)`.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from elsewhere import near, train_on
from tiny import normal, same_tensors
from torch import Tensor

from bbqrec_core import (
    Dataset,
    EvaluationConfig,
    Recommender,
    RecommenderConfig,
    SemanticIds,
    SequenceModel,
    Sequences,
    build_recommender,
    rank_scores,
)
from bbqrec_core.metrics import filter_seen
from bbqrec_core.recommender.fit import ModelMaker, beam_ranks, early_score
from bbqrec_core.training import TrainingLog

N, SIZES = 24, (5, 5, 3)
EVALUATION = EvaluationConfig(early_users=23, beam=20, exact_items=1000, batch=7)
ON_DEVICES = replace(EVALUATION, batch=16)
Trained = tuple[Recommender, TrainingLog]

# ---- an untrained model over random IDs of 24 items


def as_read(model: SequenceModel, rows: Tensor) -> Tensor:
    """Rows as the model reads them: with times for each event, if it reads times; each item brings another time."""
    if not model.timed:
        return rows
    times = (1_000_000 + 1_000 * torch.arange(rows.shape[1]) + 37 * rows) * (rows > 0)
    return torch.stack([rows, times], -1)


def features_of_some_items() -> Tensor:
    """(N+1, 7) in float32, zero for padding and for item 4, which has none."""
    return normal(N + 1, 7, seed=5, dtype=torch.float32).index_fill(0, torch.tensor([0, 4]), 0.0)


def lively(recommender: Recommender) -> Recommender:
    """The same recommender with similarity tables and vectors of prefixes that are not zero."""
    model, generator = recommender.model, torch.Generator().manual_seed(2)
    zero = [] if model.reweighting is None else [model.reweighting.table]
    zero += [] if model.vectors is None else [part.weight for part in model.vectors.prefixes]
    with torch.no_grad():
        for weight in zero:
            weight.normal_(generator=generator)
    return recommender


def fresh(ids: SemanticIds | None, config: RecommenderConfig, kind: ModelMaker = SequenceModel) -> Recommender:
    """A lively recommender in float64; equal settings give equal parameters."""
    made = lively(build_recommender(N, ids, config, 3, make=kind))
    made.model.double()
    return made


def padding_never_changes_a_score(model: SequenceModel) -> None:
    """Neither does it change a state or a loss; the model reads nine events."""
    row = torch.tensor([[3, 8, 3, 17]])
    padded = torch.cat([row, torch.zeros(1, 5, dtype=torch.long)], 1)
    company = torch.cat([padded, torch.arange(1, 10)[None]])
    row, padded, company = (as_read(model, rows) for rows in (row, padded, company))
    for rows in (padded, company):
        torch.testing.assert_close(model.last_states(rows)[:1], model.last_states(row))
        torch.testing.assert_close(model.states(rows)[0][:1, :4], model.states(row)[0])
    alone = model.loss(row)["loss"]
    torch.testing.assert_close(model.loss(padded)["loss"], alone)


def last_state_alone_is_that_of_one_pass_over_all(model: SequenceModel) -> None:
    """Histories have several lengths here."""
    rows = torch.tensor([[3, 8, 3, 17], [5, 9, 0, 0], [4, 0, 0, 0]])
    last, rows = (rows > 0).sum(1) - 1, as_read(model, rows)
    torch.testing.assert_close(model.last_states(rows), model.states(rows)[0][torch.arange(3), last])


def later_item_changes_no_earlier_state(model: SequenceModel) -> None:
    """States are compared bit for bit."""
    both = (torch.tensor([rows]) for rows in ([4, 9, 2, 7, 1], [4, 9, 2, 11, 20]))
    before, after = (model.states(as_read(model, rows))[0] for rows in both)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.equal(before[:, 3], after[:, 3])


def scores_come_in_the_order_of_the_users_asked(recommender: Recommender, data: Dataset) -> None:
    """One finite score for every item, whatever the batch; none for padding."""
    history = data.history("test")
    one_by_one = torch.cat([recommender.scores(history, np.array([user])) for user in range(data.n_users)])
    assert one_by_one.shape == (data.n_users, N + 1)
    for users in (np.arange(data.n_users), np.array([5, 2, 19, 2, 0]), np.arange(data.n_users)[::-1]):
        torch.testing.assert_close(recommender.scores(history, users), one_by_one[users.copy()])
    assert bool((one_by_one[:, 0] == -torch.inf).all())
    assert bool(one_by_one[:, 1:].isfinite().all())


def scores_read_the_last_events_only(recommender: Recommender) -> None:
    """The model reads three events."""
    long = Sequences(np.array([0, 6, 9]), np.array([9, 8, 7, 1, 2, 3, 1, 2, 3], dtype=np.int32))
    scores = recommender.scores(long, np.array([0, 1]))
    torch.testing.assert_close(scores[0], scores[1])


def item_enters_by_its_own_vector_or_by_those_of_its_codes(
    model: SequenceModel, ids: SemanticIds | None, items: bool, features: Tensor | None = None
) -> None:
    """Its own vector and projected features where it has them, else the sum of its code vectors."""
    rows = torch.tensor([[3, 8, 0]])
    for place, row in enumerate([3, 8]):
        wanted = torch.zeros(6, dtype=torch.float64)
        if not items:
            codes, nodes = ids.code_ids[row], model.vectors.node[row]
            wanted += sum(table.weight[code] for table, code in zip(model.vectors.codes, codes, strict=True))
            wanted += sum(table.weight[node] for table, node in zip(model.vectors.prefixes, nodes[1:], strict=True))
        if items:
            wanted += model.items.weight[row]
        if features is not None:
            wanted += model.project.weight @ features[row].double()
        torch.testing.assert_close(model.embed(rows)[0, place], wanted)


def two_heads_score_by_the_weighted_sum_of_both_log_probabilities(recommender: Recommender, data: Dataset) -> None:
    """Scores are compared item by item."""
    model, history, w = recommender.model, data.history("test"), recommender.model.config.w_codes
    scores = recommender.scores(history, np.array([3, 0]))
    for place, user in enumerate([3, 0]):
        rows = history.rows(model.timed)[history.offsets[user] : history.offsets[user + 1]][-5:]
        state = model.last_states(torch.tensor([rows.tolist()]))
        logits = torch.stack([(state @ model.item_embeddings(torch.tensor([row])).T)[0, 0] for row in range(1, N + 1)])
        for row in range(1, N + 1):
            coded = model.head(state, model.vectors.node[row][None])[0]
            torch.testing.assert_close(scores[place, row], w * coded + logits[row - 1] - torch.logsumexp(logits, 0))


def two_heads_learn_from_the_weighted_sum_of_both_losses(model: SequenceModel) -> None:
    """Each loss is the mean over the targets."""
    rows, w = torch.tensor([[3, 8, 3, 17], [5, 6, 0, 0]]), model.config.w_codes
    parts = model.loss(rows)
    states, targets = model.states(rows[:, :-1])[0][rows[:, 1:] > 0], rows[:, 1:][rows[:, 1:] > 0]
    torch.testing.assert_close(parts["codes"], -model.head(states, model.vectors.node[targets]).mean())
    torch.testing.assert_close(parts["items"], F.cross_entropy(states @ model.item_embeddings()[1:].T, targets - 1))
    torch.testing.assert_close(parts["loss"], w * parts["codes"] + parts["items"])


def permuting_items_and_what_belongs_to_them_permutes_the_scores(
    build: Callable[[SemanticIds], Recommender], ids: SemanticIds, data: Dataset
) -> None:
    """`build` makes a recommender of these IDs, or of none."""
    order = np.append(0, 1 + np.random.default_rng(4).permutation(N))  # new row r holds what old row order[r] held
    moved = {
        name: value[order] if isinstance(value, np.ndarray) and name != "codebook" else value
        for name, value in vars(ids).items()
    }
    plain, other = build(ids), build(replace(ids, **moved))
    state = plain.model.state_dict()
    for name in state:
        if name in ("items.weight", "features", "reweighting.vectors", "reweighting.present"):
            state[name] = state[name][order]
    other.model.load_state_dict(state)
    if plain.model.reweighting is not None:  # buckets belong to pairs of items
        square = plain.model.reweighting.pairs.view(len(order), len(order), -1)
        other.model.reweighting.pairs = square[order][:, order].flatten(0, 1)
    history = data.history("test")
    renamed = history._replace(items=np.argsort(order)[history.items].astype(np.int32))
    users = np.arange(data.n_users)
    torch.testing.assert_close(other.scores(renamed, users), plain.scores(history, users)[:, order])


def scores_for_ranking_leave_out_only_what_no_metric_or_list_shows(
    recommender: Recommender, data: Dataset, k: int
) -> Tensor:
    """Lists of k and targets in them are compared with the seen items and without; returns the scores for ranking."""
    history, targets, users = data.history("test"), data.targets("test"), np.arange(data.n_users)
    whole, part = recommender.scores(history, users), recommender.ranking_scores(history, users, k)
    for mask in (lambda scores: scores, lambda scores: filter_seen(scores, history, users)):
        found, wanted = (rank_scores(mask(scores), targets, k) for scores in (part, whole))
        np.testing.assert_array_equal(found.top, wanted.top)
        listed = (wanted.greater < k) & (wanted.ties > 0)
        for name in ("greater", "ties"):
            np.testing.assert_array_equal(getattr(found, name)[listed], getattr(wanted, name)[listed])
        assert ((found.greater >= k) | (found.ties == 0))[~listed].all()
    return part


# ---- a trained one on planted data


def alike(first: Trained, second: Trained) -> bool:
    """Whether two trainings ended with the same numbers, bit for bit, and told the same on their way."""
    same = same_tensors(first[0].model.state_dict(), second[0].model.state_dict())
    return same and first[1].epochs == second[1].epochs


def training_repeats_for_its_seed_and_learns(first: Trained, again: Trained, other_seed: Trained) -> None:
    """The first two have one seed, the third another."""
    assert alike(again, first)
    assert not same_tensors(other_seed[0].model.state_dict(), first[0].model.state_dict())
    recommender, log = first
    assert log.epochs[-1]["loss"] < log.epochs[0]["loss"]
    assert not recommender.model.training


def what_comes_back_is_the_best_epoch_by_validation(trained: Trained, data: Dataset) -> None:
    """Early scores are of all users here."""
    recommender, log = trained
    scores = [row["score"] for row in log.epochs]
    assert log.best_epoch == 1 + int(np.argmax(scores))
    assert early_score(recommender, data, np.arange(data.n_users), EVALUATION) == pytest.approx(max(scores))


def other_test_events(data: Dataset) -> Dataset:
    """The same data with another last event for every user, at another time."""
    items, last = data.sequences.items.copy(), data.sequences.offsets[1:] - 1
    items[last] = items[last] % N + 1
    times = data.sequences.times.copy()
    times[last] += 1_000_000
    return replace(data, sequences=data.sequences._replace(items=items, times=times))


def evaluation_batch_changes_no_result(run: Callable[..., Trained], **changes: object) -> None:
    """Scores of validation to rounding, weights bit for bit."""
    (first, before), (second, after) = run(**changes), run(evaluation=replace(EVALUATION, batch=3), **changes)
    assert same_tensors(first.model.state_dict(), second.model.state_dict())
    assert [r["score"] for r in before.epochs] == pytest.approx([r["score"] for r in after.epochs])


def trained_elsewhere_ranks_what_the_cpu_ranks(
    fit: Callable[[str], Trained], data: Dataset, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`fit` trains in a folder of that name on the best device, which is `device` at first."""
    there, log = fit("there")
    assert there.device.type == device.type
    train_on(torch.device("cpu"), monkeypatch)
    here, wanted = fit("here")
    assert here.device.type == "cpu"
    assert log.epochs[0]["loss"] == pytest.approx(wanted.epochs[0]["loss"], rel=0.01)
    users, past = np.arange(data.n_users), data.history("test")

    def ranked(recommender):
        """Scores, scores for ranking, and the beams' ranks with the seen items included and masked."""
        modes = () if recommender.model.head is None else (False, True)
        beams = [beam_ranks(recommender, data, "test", users, ON_DEVICES, masked) for masked in modes]
        return recommender.scores(past, users), recommender.ranking_scores(past, users), beams

    scores, some, beams = ranked(there)
    assert scores.device.type == some.device.type == device.type
    same_scores, same_some, same_beams = ranked(there.to("cpu"))  # equal weights
    torch.testing.assert_close(scores.cpu(), same_scores, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(some.cpu()[same_some > -torch.inf], same_some[same_some > -torch.inf], atol=1e-3, rtol=0)
    for found, same in zip(beams, same_beams, strict=True):
        assert near(found.top, same.top)
        assert near(found.greater, same.greater)
    apart = 0.1 if device.type == "cuda" else 0.02
    torch.testing.assert_close(same_scores, here.scores(past, users), atol=apart, rtol=0)
