"""Laws of what similarity compares: quantized vectors, the signals before quantization, or raw features."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from tiny import lab_recommender_config, same_tensors, semantic_ids

from bbqrec_core import SequenceModel
from bbqrec_lab.experiments.runs import with_compared

N, WIDTH = 11, 5
SIZES = (4, 4)


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
        torch.testing.assert_close(*(F.cosine_similarity(x[:, None], x[None], dim=-1) for x in (padded, own)))
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
        state = SequenceModel(N, with_compared(given[0], what, *given[1:]), lab_recommender_config()).state_dict()
        states.append({name: value for name, value in state.items() if not name.startswith("reweighting")})
    assert all(same_tensors(states[0], state) for state in states[1:])
    assert all(bool(states[0][f"vectors.codes.{level}.weight"].any()) for level in range(2))
