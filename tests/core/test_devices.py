"""Laws of another device than the CPU: a GPU where there is one, and CPU tensors that behave like a GPU's anywhere."""

from contextlib import suppress

import numpy as np
import pytest
import torch
from elsewhere import second_device
from tiny import planted_data, recommender_config, semantic_ids, tokenizer_config

from bbqrec_core import EvaluationConfig, fit_recommender, fit_tokenizer
from bbqrec_core.recommender import fit as recommender_fit
from bbqrec_core.tokenizer import fit as tokenizer_fit
from bbqrec_core.training import best_device, moved, training_precision

GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"))
EVALUATION = EvaluationConfig(early_users=23, beam=20, exact_items=1000, batch=16)
EMBEDDINGS = np.random.default_rng(5).normal(size=(25, 4)).astype(np.float32)  # another model's, of 24 items
TOKENIZERS = (  # one for every branch of training
    *({}, {"combine": "chain"}, {"combine": "concat", "shared_codebook": False}, {"codebook_update": "gradient"}),
    *({"gradient": "rotation"}, {"w_align": 0.5, "joined": True}),
)
RECOMMENDERS = ({}, {"output": "both", "features": True}, {"output": "items"}, {"prefixes": False, "reweight": False})


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


def test_the_second_device_refuses_what_a_gpu_refuses_and_computes_what_the_cpu_computes():
    there, here = torch.arange(6.0, device=second_device()), torch.arange(6.0)
    assert torch.equal((there * there).cpu(), here * here)
    assert torch.equal(there[torch.tensor([1, 4])].cpu(), here[[1, 4]])  # indices may be the CPU's
    with pytest.raises(RuntimeError, match="one device"):
        there + here
    with pytest.raises(RuntimeError):
        there.numpy()


def near(found, wanted, share=0.99):
    """Whether two arrays of whole numbers agree but for a near tie or two, which sums in another order may part."""
    return found.shape == wanted.shape and (found == wanted).mean() > share


@pytest.mark.parametrize("changes", TOKENIZERS)
def test_a_tokenizer_trained_elsewhere_is_that_of_the_cpu_within_rounding(data, device, tmp_path, monkeypatch, changes):
    made = []
    for name in ("there", "here"):
        made.append(fit_tokenizer(data, tokenizer_config(epochs=1, **changes), 0, tmp_path / name, EMBEDDINGS))
        monkeypatch.setattr(tokenizer_fit, "best_device", lambda: torch.device("cpu"))
    there, here = made
    share = 0.8 if device.type == "cuda" else 0.99  # a GPU rounds the factors of its products in training
    assert near(there.ids.raw_codes, here.ids.raw_codes, share)
    assert near(there.ids.signal_codes, here.ids.signal_codes, share)
    assert there.log[0]["loss"] == pytest.approx(here.log[0]["loss"], rel=0.05)
    assert all(isinstance(array, np.ndarray) for array in (there.behaviour, there.specific, there.residual))


@pytest.mark.parametrize("changes", RECOMMENDERS)
def test_a_recommender_trained_elsewhere_ranks_there_what_the_cpu_ranks(data, device, tmp_path, monkeypatch, changes):
    config, given = recommender_config(epochs=1, **changes), None
    if changes.get("output") != "items":
        given = semantic_ids(data.n_items, (5, 5, 3))
    there, history = fit_recommender(data, given, config, EVALUATION, 0, tmp_path / "there")
    assert there.device.type == device.type
    monkeypatch.setattr(recommender_fit, "best_device", lambda: torch.device("cpu"))
    here, wanted = fit_recommender(data, given, config, EVALUATION, 0, tmp_path / "here")
    assert here.device.type == "cpu"
    assert history.epochs[0]["loss"] == pytest.approx(wanted.epochs[0]["loss"], rel=0.01)
    users, past, targets = np.arange(data.n_users), data.history("test"), data.targets("test")

    def ranked(recommender):
        """Scores, scores for ranking, and the beams' ranks with the seen items included and masked."""
        modes = () if given is None else (False, True)
        beams = [recommender_fit.beam_ranks(recommender, data, "test", users, EVALUATION, masked) for masked in modes]
        return recommender.scores(past, users), recommender.ranking_scores(past, users, targets), beams

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


def test_batches_of_one_tensor_or_several_are_moved():
    there = second_device()
    assert moved(torch.arange(3), there).device == there
    assert [part.device for part in moved((torch.arange(3), torch.ones(2)), there)] == [there, there]
