"""Laws of another device than the CPU: a GPU where there is one, and CPU tensors that behave like a GPU's anywhere."""

from contextlib import suppress

import numpy as np
import pytest
import torch
from elsewhere import second_device
from test_experiments import configure
from tiny import planted_data

from bbqrec_core import EvaluationConfig
from bbqrec_core.recommender import fit as recommender_fit
from bbqrec_core.tokenizer import fit as tokenizer_fit
from bbqrec_core.training import best_device, device_name, moved, training_precision
from bbqrec_lab.experiments.runs import load_ranks, load_scorer, run_variant
from bbqrec_lab.store import Store

GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"))
ROWS = (  # one for every branch of training and ranking
    *("bbqrec", "hybrid", "letter", "mql4grec", "chain", "gradient-codebook", "rotation", "no-prefixes"),
    *("sasrec", "sasrec-bce", "sasrec-features", "esasrec", "similarity-linear", "code-granularity"),
)
BY_BEAM = EvaluationConfig(early_users=23, beam=20, exact_items=1, batch=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return planted_data(tmp_path_factory.mktemp("devices"))


@pytest.fixture(params=["elsewhere", GPU])
def device(request, monkeypatch):
    """A device that is not the CPU, as the best there is."""
    found = second_device() if request.param == "elsewhere" else torch.device("cuda")
    for module in (recommender_fit, tokenizer_fit):
        monkeypatch.setattr(module, "best_device", lambda: found)
    return found


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("cpu"))


def test_the_second_device_refuses_what_a_gpu_refuses_and_computes_what_the_cpu_computes():
    there, here = torch.arange(6.0, device=second_device()), torch.arange(6.0)
    assert torch.equal((there * there).cpu(), here * here)
    assert torch.equal(there[torch.tensor([1, 4])].cpu(), here[[1, 4]])  # indices may be the CPU's
    with pytest.raises(RuntimeError, match="one device"):
        there + here
    with pytest.raises(RuntimeError):
        there.numpy()


@pytest.mark.parametrize("name", ROWS)
def test_a_row_trained_and_ranked_elsewhere_is_the_row_of_the_cpu_within_rounding(
    data, device, on_cpu, tmp_path, monkeypatch, name
):
    there = run_variant(data, name, configure(), Store(tmp_path))
    assert there.cost["device"].item() == device_name(device)
    for module in (recommender_fit, tokenizer_fit):
        monkeypatch.setattr(module, "best_device", lambda: torch.device("cpu"))
    here = run_variant(data, name, configure(), on_cpu)
    assert here.cost["device"].item() == "cpu"
    assert there.rows.drop("value", "config_hash").equals(here.rows.drop("value", "config_hash"))
    assert np.allclose(there.rows["value"], here.rows["value"], atol=0.1 if device.type == "cuda" else 0.02)
    scorer, again = load_scorer(there.directory), load_scorer(here.directory)
    assert scorer.device.type == "cpu"  # a run is read without the device that made it
    assert scorer.model.state_dict().keys() == again.model.state_dict().keys()


@pytest.mark.parametrize("name", ["bbqrec", "hybrid", "code-granularity"])
def test_beams_elsewhere_find_what_the_cpu_finds(data, device, tmp_path, name):
    done = run_variant(data, name, configure(evaluation=BY_BEAM), Store(tmp_path))
    users, scorer = np.arange(data.n_users), load_scorer(done.directory)
    for mode in ("kept", "masked"):
        kept = load_ranks(done.directory, mode)
        here = recommender_fit.beam_ranks(scorer, data, "test", users, BY_BEAM, masked=mode == "masked")
        assert (kept.top == here.top).mean() > 0.99  # equal weights; sums in another order may part a near tie
        assert (kept.greater == here.greater).mean() > 0.99


def test_factors_are_rounded_in_training_on_a_gpu_alone_and_nowhere_afterwards():
    before = torch.get_float32_matmul_precision()
    with training_precision(torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == before == "highest"
    with suppress(KeyError), training_precision(torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "high"
        raise KeyError  # a training that fails leaves nothing behind
    assert torch.get_float32_matmul_precision() == before


def test_the_gpu_is_taken_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert best_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert best_device() == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    assert device_name(best_device()) == "cuda (NVIDIA H100)"


def test_batches_of_one_tensor_or_several_are_moved():
    there = second_device()
    assert moved(torch.arange(3), there).device == there
    assert [part.device for part in moved((torch.arange(3), torch.ones(2)), there)] == [there, there]
