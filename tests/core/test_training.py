"""Laws of the training loop: same seed, same tensors; a kill costs time and nothing else; the best weights stay."""

import copy

import numpy as np
import pytest
import tokenizer_laws
import torch
from killing import Killed, dying
from tiny import planted_data, recommender_config, same_tensors, semantic_ids, tokenizer_config
from torch import nn
from torch.optim import AdamW

from bbqrec_core import EvaluationConfig, SequenceModel, fit_recommender, fit_tokenizer
from bbqrec_core.training import Task, epochs_for, fit, learning_rate, load_checkpoint, save_checkpoint

EVALUATION = EvaluationConfig(early_users=20, beam=8, exact_items=1000, batch=16)


def noisy_task(scores=None, dies_at=None, watch=dict):
    """A linear model with dropout and a second optimizer whose parameter is stepped inside the loss."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"main": nn.Linear(5, 3), "side": nn.Linear(3, 1)})
    optimizers = [AdamW(model["main"].parameters(), lr=0.1), AdamW(model["side"].parameters(), lr=0.1)]
    seen, asked = [], iter(scores or ())

    def batches(epoch):
        rng = np.random.default_rng(epoch)
        return [torch.from_numpy(rng.normal(size=(7, 5)).astype(np.float32)) for _ in range(3)]

    def loss(batch):
        seen.append(batch)
        if len(seen) == dies_at:
            raise Killed
        optimizers[1].zero_grad()
        model["side"](model["main"](batch).detach()).square().mean().backward()
        optimizers[1].step()
        out = nn.functional.dropout(model["main"](batch), 0.5, model.training)
        error = (out - 1).square().mean()
        return {"loss": error + 0.1 * model["side"](out).mean(), "error": error}

    score = (lambda: next(asked)) if scores is not None else None
    return Task("noisy", model, optimizers, batches, loss, score, watch)


def recording(task, note):
    """Call `note` at every step of a task."""
    loss = task.loss
    task.loss = lambda batch: (note(), loss(batch))[1]


def moments(optimizer):
    """An optimizer's state as named tensors."""
    state = optimizer.state_dict()["state"]
    return {f"{parameter} {name}": value for parameter, values in state.items() for name, value in values.items()}


def test_the_same_seed_gives_equal_tensors_and_another_seed_does_not(tmp_path):
    states = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        task = noisy_task()
        fit(task, seed=seed, epochs=2, directory=tmp_path / name)
        states.append(task.model.state_dict())
    assert same_tensors(states[0], states[1])
    assert not same_tensors(states[0], states[2])


def test_every_step_of_every_epoch_and_seed_draws_anew(tmp_path):
    drawn = []
    for seed in (0, 1):
        task = noisy_task()
        recording(task, lambda: drawn.append(float(torch.rand(()))))
        fit(task, seed=seed, epochs=3, directory=tmp_path / str(seed))
    assert len(set(drawn)) == 18


def test_training_leaves_the_callers_random_stream_alone(tmp_path):
    torch.manual_seed(11)
    wanted = torch.rand(2)
    torch.manual_seed(11)
    task = noisy_task()
    torch.manual_seed(11)
    fit(task, seed=0, epochs=1, directory=tmp_path)
    assert torch.equal(torch.rand(2), wanted)


@pytest.mark.parametrize("dies_at", [1, 3, 4, 8, 9])
@pytest.mark.parametrize("scores", [None, (0.2, 0.5, 0.4, 0.3)])
def test_a_run_killed_in_any_batch_ends_bit_for_bit_as_if_uninterrupted(tmp_path, dies_at, scores):
    whole, dying = noisy_task(scores), noisy_task(scores, dies_at)
    wanted = fit(whole, seed=1, epochs=4, directory=tmp_path / "whole", patience=9)
    with pytest.raises(Killed):
        fit(dying, seed=1, epochs=4, directory=tmp_path / "cut", patience=9)
    resumed = noisy_task(scores[(dies_at - 1) // 3 :] if scores else None)
    found = fit(resumed, seed=1, epochs=4, directory=tmp_path / "cut", patience=9)
    assert same_tensors(resumed.model.state_dict(), whole.model.state_dict())
    assert found.epochs == wanted.epochs
    assert found.best_epoch == wanted.best_epoch
    for mine, other in zip(resumed.optimizers, whole.optimizers, strict=True):
        assert same_tensors(moments(mine), moments(other))


def test_a_finished_run_is_only_loaded(tmp_path):
    first = noisy_task((0.1, 0.3, 0.2))
    wanted = fit(first, seed=1, epochs=3, directory=tmp_path, patience=9)
    again = noisy_task((), dies_at=1)
    found = fit(again, seed=1, epochs=3, directory=tmp_path, patience=9)
    assert same_tensors(again.model.state_dict(), first.model.state_dict())
    assert found == wanted


def test_early_stopping_keeps_the_best_weights(tmp_path):
    scores, kept = (0.1, 0.5, 0.4, 0.5, 0.9), []
    task = noisy_task(scores, watch=lambda: kept.append(copy.deepcopy(task.model.state_dict())) or {})
    history = fit(task, seed=0, epochs=9, directory=tmp_path, patience=2)
    assert [row["score"] for row in history.epochs] == [0.1, 0.5, 0.4, 0.5]  # an equal score is not better
    assert history.best_epoch == 2
    assert same_tensors(task.model.state_dict(), kept[1])
    assert not same_tensors(task.model.state_dict(), kept[3])
    assert not task.model.training


def test_a_stopped_run_stays_stopped_when_it_is_called_again(tmp_path):
    first = fit(noisy_task((0.5, 0.4, 0.3)), seed=0, epochs=9, directory=tmp_path, patience=2)
    again = fit(noisy_task((), dies_at=1), seed=0, epochs=9, directory=tmp_path, patience=2)
    assert again == first
    assert len(first.epochs) == 3


def test_scores_are_taken_at_the_stated_epochs_and_at_the_end(tmp_path):
    history = fit(noisy_task((0.1, 0.2, 0.3)), seed=0, epochs=5, directory=tmp_path, every=2, patience=9)
    assert [row["epoch"] for row in history.epochs if "score" in row] == [2, 4, 5]


def test_without_a_score_all_epochs_run_and_the_last_stays(tmp_path):
    kept = []
    task = noisy_task(watch=lambda: kept.append(copy.deepcopy(task.model.state_dict())) or {"seen": len(kept)})
    history = fit(task, seed=0, epochs=3, directory=tmp_path)
    assert same_tensors(task.model.state_dict(), kept[2])
    assert history.best_epoch == 3
    assert [row["seen"] for row in history.epochs] == [1, 2, 3]


def test_history_holds_the_mean_of_every_part_of_the_loss(tmp_path):
    task, parts = noisy_task(), []
    inner = task.loss

    def loss(batch):
        out = inner(batch)
        parts.append({name: float(value.detach()) for name, value in out.items()})
        return out

    task.loss = loss
    history = fit(task, seed=0, epochs=1, directory=tmp_path)
    for name in ("loss", "error"):
        assert history.epochs[0][name] == pytest.approx(np.mean([part[name] for part in parts]))


def test_progress_is_told_after_every_step_with_the_mean_loss_so_far(tmp_path):
    told, parts, task = [], [], noisy_task((0.5, 0.25))
    inner = task.loss

    def loss(batch):
        assert len(told) == len(parts)  # the step before has been told, this one has not
        out = inner(batch)
        parts.append(float(out["loss"].detach()))
        return out

    task.loss = loss
    history = fit(task, seed=0, epochs=2, directory=tmp_path, progress=told.append)
    assert [(at.name, at.epoch, at.epochs, at.step, at.steps) for at in told] == [
        ("noisy", epoch, 2, step, 3) for epoch in (1, 2) for step in (1, 2, 3)
    ]
    for place, at in enumerate(told):
        assert at.loss == pytest.approx(np.mean(parts[place // 3 * 3 : place + 1]))
    assert [at.loss for at in told[2::3]] == [row["loss"] for row in history.epochs]
    assert [at.best for at in told] == [None] * 3 + [0.5] * 3
    assert [at.seconds for at in told[:3]] == [0.0] * 3
    assert 0 < told[3].seconds == told[5].seconds < history.seconds


def test_progress_of_a_resumed_run_goes_on_where_it_stopped_and_changes_nothing(tmp_path):
    told, silent, watched = [], noisy_task((0.5, 0.25)), noisy_task((0.5,))
    fit(silent, seed=0, epochs=2, directory=tmp_path / "silent", patience=9)
    with pytest.raises(Killed):
        fit(noisy_task((0.5,), 4), seed=0, epochs=2, directory=tmp_path / "told", patience=9, progress=told.append)
    fit(watched, seed=0, epochs=2, directory=tmp_path / "told", patience=9, progress=told.append)
    assert [(at.epoch, at.step) for at in told] == [(epoch, step) for epoch in (1, 2) for step in (1, 2, 3)]
    assert told[-1].best == 0.5
    assert same_tensors(watched.model.state_dict(), silent.model.state_dict())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, bad):
    task = noisy_task()
    before = copy.deepcopy(task.model["main"].state_dict())
    task.loss = lambda batch: {"loss": task.model["main"](batch).mean() * bad}
    with pytest.raises(FloatingPointError, match="noisy: loss is not finite in epoch 1: lower the learning rate"):
        fit(task, seed=0, epochs=1, directory=tmp_path)
    assert same_tensors(task.model["main"].state_dict(), before)


def test_gradients_are_clipped_to_length_one(tmp_path):
    task = noisy_task()
    task.optimizers = [torch.optim.SGD(task.model["main"].parameters(), lr=1.0)]
    task.batches = lambda epoch: [torch.ones(1, 5)]
    task.loss = lambda batch: {"loss": 1e3 * task.model["main"](batch).sum()}
    before = torch.cat([p.detach().flatten().clone() for p in task.model["main"].parameters()])
    fit(task, seed=0, epochs=1, directory=tmp_path)
    after = torch.cat([p.detach().flatten() for p in task.model["main"].parameters()])
    assert float((after - before).norm()) == pytest.approx(learning_rate(0.0), rel=1e-4)


def test_the_learning_rate_warms_up_and_then_falls_to_a_tenth():
    shares = [learning_rate(step / 1000) for step in range(1001)]
    assert 0 < shares[0] < 0.05
    assert max(shares) <= 1
    assert shares[-1] == pytest.approx(0.1)
    top = int(np.argmax(shares))
    assert top <= 50
    assert np.all(np.diff(shares[: top + 1]) > 0)
    assert np.all(np.diff(shares[top:]) < 0)


def test_every_step_takes_the_share_of_its_place_in_the_whole_run(tmp_path):
    task, used = noisy_task(), []
    recording(task, lambda: used.append(task.optimizers[0].param_groups[0]["lr"]))
    fit(task, seed=0, epochs=4, directory=tmp_path)
    assert used == pytest.approx([0.1 * learning_rate(step / 12) for step in range(12)])
    assert task.optimizers[1].param_groups[0]["lr"] == 0.1


def test_a_checkpoint_restores_model_optimizers_and_progress(tmp_path):
    task, other = noisy_task(), noisy_task()
    fit(task, seed=0, epochs=2, directory=tmp_path / "run")
    save_checkpoint(tmp_path / "here.safetensors", task, {"epochs": [1], "best": None})
    assert load_checkpoint(tmp_path / "here.safetensors", other) == {"epochs": [1], "best": None}
    assert same_tensors(other.model.state_dict(), task.model.state_dict())
    for mine, stored in zip(other.optimizers, task.optimizers, strict=True):
        assert len(moments(mine)) == 6  # step and two moments of weight and bias
        assert same_tensors(moments(mine), moments(stored))
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["here.safetensors"]  # no partial file left


def test_one_batch_is_memorised(tmp_path):
    """A recommender over random IDs repeats the histories of four users after it has seen them often enough."""
    torch.manual_seed(0)
    model = SequenceModel(11, semantic_ids(11, (4, 4, 3)), recommender_config(width=12, dropout=0.0))
    batch = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 3, 5, 7, 0], [2, 4, 6, 0, 0]])
    task = Task("memory", model, [AdamW(model.parameters(), lr=0.02)], lambda epoch: [batch] * 40, model.loss)
    history = fit(task, seed=0, epochs=4, directory=tmp_path)
    assert history.epochs[0]["loss"] > 0.5
    assert history.epochs[-1]["loss"] < 0.02


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return planted_data(tmp_path_factory.mktemp("training"))


@pytest.mark.parametrize("after", [2, 8])
def test_a_killed_tokenizer_ends_as_if_uninterrupted(data, tmp_path, monkeypatch, after):
    config = tokenizer_config(epochs=3)
    tokenizer_laws.killed_training_ends_as_if_uninterrupted(
        lambda name: fit_tokenizer(data, config, 1, tmp_path / name), monkeypatch, after
    )


@pytest.mark.parametrize("after", [2, 8])
@pytest.mark.parametrize("kind", ["codes", "items"])
def test_a_killed_recommender_ends_as_if_uninterrupted(data, tmp_path, monkeypatch, after, kind):
    ids = semantic_ids(data.n_items, (5, 5, 3)) if kind == "codes" else None
    config = recommender_config(output=kind, epochs=4, patience=9)
    whole, wanted = fit_recommender(data, ids, config, EVALUATION, 1, tmp_path / "whole")
    with monkeypatch.context() as patch:
        dying(patch, SequenceModel, "loss", after)
        with pytest.raises(Killed):
            fit_recommender(data, ids, config, EVALUATION, 1, tmp_path / "cut")
    resumed, found = fit_recommender(data, ids, config, EVALUATION, 1, tmp_path / "cut")
    assert found.epochs == wanted.epochs
    assert same_tensors(resumed.model.state_dict(), whole.model.state_dict())


def test_small_data_get_more_epochs_until_the_steps_are_made():
    assert epochs_for(0, 10, 8) == 8
    assert epochs_for(80, 10, 8) == 8
    assert epochs_for(81, 10, 8) == 9
    assert epochs_for(1200, 40, 8) == 30
