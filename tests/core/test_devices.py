"""Laws of another device than the CPU: a GPU where there is one, and CPU tensors that behave like a GPU's anywhere."""

from contextlib import suppress

import pytest
import recommender_laws
import tokenizer_laws
import torch
from elsewhere import second_device
from tiny import planted_data, recommender_config, semantic_ids, tokenizer_config

from bbqrec_core import EvaluationConfig, SequenceModel, fit_recommender, fit_tokenizer
from bbqrec_core.recommender import fit as fit_module
from bbqrec_core.training import best_device, moved, training_precision

RECOMMENDERS = ({}, {"output": "both"}, {"output": "items"}, {"prefixes": False, "reweight": False})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return planted_data(tmp_path_factory.mktemp("devices"))


def test_the_second_device_refuses_what_a_gpu_refuses_and_computes_what_the_cpu_computes():
    there, here = torch.arange(6.0, device=second_device()), torch.arange(6.0)
    assert torch.equal((there * there).cpu(), here * here)
    assert torch.equal(there[torch.tensor([1, 4])].cpu(), here[[1, 4]])  # indices may be the CPU's
    with pytest.raises(RuntimeError, match="one device"):
        there + here
    with pytest.raises(RuntimeError):
        there.numpy()


def test_a_tokenizer_trained_elsewhere_is_that_of_the_cpu_within_rounding(data, device, tmp_path, monkeypatch):
    config = tokenizer_config(epochs=1)
    tokenizer_laws.trained_elsewhere_is_that_of_the_cpu_within_rounding(
        lambda name: fit_tokenizer(data, config, 0, tmp_path / name), device, monkeypatch
    )


@pytest.mark.parametrize("changes", RECOMMENDERS)
def test_a_recommender_trained_elsewhere_ranks_there_what_the_cpu_ranks(data, device, tmp_path, monkeypatch, changes):
    ids = None if changes.get("output") == "items" else semantic_ids(data.n_items, (5, 5, 3))
    config, evaluation = recommender_config(epochs=1, **changes), recommender_laws.ON_DEVICES
    recommender_laws.trained_elsewhere_ranks_what_the_cpu_ranks(
        lambda name: fit_recommender(data, ids, config, evaluation, 0, tmp_path / name), data, device, monkeypatch
    )


def test_factors_are_rounded_in_training_on_a_gpu_or_where_asked_and_nowhere_afterwards():
    before = torch.get_float32_matmul_precision()
    with training_precision(torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == before == "highest"
    with suppress(KeyError), training_precision(torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "high"
        raise KeyError  # a training that fails leaves nothing behind
    assert torch.get_float32_matmul_precision() == before
    for device in ("cpu", "cuda"):
        with training_precision(torch.device(device), "bf16"):
            assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="fixes the CPU")
def test_a_recommender_trains_in_the_asked_precision_and_ranks_in_full(data, tmp_path, monkeypatch):
    asked = []
    note = lambda what: asked.append((what, torch.get_float32_matmul_precision()))  # noqa: E731
    loss, rank = SequenceModel.loss, fit_module.early_score
    monkeypatch.setattr(SequenceModel, "loss", lambda *given: (note("step"), loss(*given))[1])
    monkeypatch.setattr(fit_module, "early_score", lambda *given: (note("ranking"), rank(*given))[1])
    for precision, expected in (("fp32", "highest"), ("bf16", "medium")):
        asked.clear()
        config = recommender_config(precision=precision, epochs=2)
        fit_recommender(data, None, config, EvaluationConfig(), 0, tmp_path / precision)
        assert set(asked) == {("step", expected), ("ranking", "highest")}


def test_the_gpu_is_taken_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert best_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert best_device() == torch.device("cuda")


def test_batches_of_one_tensor_or_several_are_moved():
    there = second_device()
    assert moved(torch.arange(3), there).device == there
    assert [part.device for part in moved((torch.arange(3), torch.ones(2)), there)] == [there, there]
