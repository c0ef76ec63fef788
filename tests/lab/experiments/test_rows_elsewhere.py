"""Laws of rows on another device than the CPU: a GPU where there is one, and CPU tensors that behave like a GPU's."""

import numpy as np
import pytest
import torch
from elsewhere import near, train_on
from tiny import planted_data, run_config

from bbqrec_core import EvaluationConfig
from bbqrec_core.recommender.fit import beam_ranks
from bbqrec_lab.experiments.runs import load_ranks, load_scorer, run_variant
from bbqrec_lab.measure import device_name
from bbqrec_lab.store import Store

ROWS = (  # one for every branch of training and ranking
    *("bbqrec", "generation", "letter", "mql4grec", "chain", "gradient-codebook", "rotation", "no-prefixes"),
    *("sasrec", "sasrec-bce", "gsasrec", "sasrec-features", "esasrec", "bsarec", "hstu"),
    *("similarity-linear", "code-granularity"),
)
EVALUATION = EvaluationConfig(early_users=23, beam=20, exact_items=1000, batch=16)
BY_BEAM = EvaluationConfig(early_users=23, beam=20, exact_items=1, batch=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return planted_data(tmp_path_factory.mktemp("rows-elsewhere"))


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("cpu"))


@pytest.mark.parametrize("name", ROWS)
def test_a_row_trained_and_ranked_elsewhere_is_the_row_of_the_cpu_within_rounding(
    data, device, on_cpu, tmp_path, monkeypatch, name
):
    there = run_variant(data, name, run_config(0, EVALUATION), Store(tmp_path))
    assert there.cost["device"].item() == device_name(device)
    train_on(torch.device("cpu"), monkeypatch)
    here = run_variant(data, name, run_config(0, EVALUATION), on_cpu)
    assert here.cost["device"].item() == device_name(torch.device("cpu"))
    assert there.rows.drop("value", "config_hash").equals(here.rows.drop("value", "config_hash"))
    assert np.allclose(there.rows["value"], here.rows["value"], atol=0.1 if device.type == "cuda" else 0.02)
    scorer, again = load_scorer(there.directory), load_scorer(here.directory)
    assert scorer.device.type == "cpu"  # a run is read without the device that made it
    assert scorer.model.state_dict().keys() == again.model.state_dict().keys()


@pytest.mark.parametrize("name", ["bbqrec", "generation", "code-granularity"])
def test_beams_elsewhere_find_what_the_cpu_finds(data, device, tmp_path, name):
    done = run_variant(data, name, run_config(0, BY_BEAM), Store(tmp_path))
    users, scorer = np.arange(data.n_users), load_scorer(done.directory)
    for mode in ("included", "filtered"):
        kept = load_ranks(done.directory, mode)
        here = beam_ranks(scorer, data, "test", users, BY_BEAM, masked=mode == "filtered")
        assert near(kept.top, here.top)  # equal weights
        assert near(kept.greater, here.greater)


def test_a_device_is_named_with_its_model(monkeypatch):
    monkeypatch.setattr("bbqrec_lab.measure.processor_name", lambda: "Xeon")
    assert device_name(torch.device("cpu")) == "cpu (Xeon)"
    monkeypatch.setattr("bbqrec_lab.measure.processor_name", lambda: "")
    assert device_name(torch.device("cpu")) == "cpu"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    assert device_name(torch.device("cuda")) == "cuda (NVIDIA H100)"
