"""A small stream of planted events, and what learns from it, for tests of the replay."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from tiny import planted_data, run_config

from bbqrec_core import EvaluationConfig
from bbqrec_lab.datasets.planted import PlantedConfig
from bbqrec_lab.datasets.reading import read_bundle
from bbqrec_lab.experiments.presets import Config
from bbqrec_lab.replay.learners import SequenceLearner, TokenLearner
from bbqrec_lab.replay.stream import Stream, make_stream
from bbqrec_lab.settings import DataConfig

DATA = PlantedConfig(users=40, items=24, branching=(3, 2), moods=2, length=9, features="direct", missing=0.2)
PERIODS = 3


def made_stream(folder: Path, split_seed: int = 0) -> Stream:
    """Users of the whole time, so that histories go on after the start."""
    data = planted_data(folder, DATA)
    if split_seed:
        data = read_bundle(folder / "planted-tiny", DataConfig(split_seed=split_seed))
    times = data.timestamps.copy()
    for start, stop in zip(data.sequences.offsets[:-1], data.sequences.offsets[1:], strict=True):
        times[start:stop] = 10**9 + np.sort(np.random.default_rng(start).permutation(10**6)[: stop - start])
    return make_stream(replace(data, timestamps=times), PERIODS, 0.6, withheld=0.2, seed=1)


def config(**changes: object) -> Config:
    return run_config(0, EvaluationConfig(early_users=20), **({"uniqueness": "nearest"} | changes))


def learner(
    policy: str, folder: Path, tokens: bool = True, start: Path | None = None, **changes: object
) -> SequenceLearner:
    """`bbqrec` or SASRec; policies with the same `start` share the first training. `changes` are of `bbqrec`."""
    if tokens:
        settings = config(**({"r_output": "both", "r_features": True, "r_score_reweight": True} | changes))
        return TokenLearner(policy, settings, start or folder / "start", folder)
    plain = config(r_output="items", r_score_reweight=False, r_seen_offset=False, r_reweight=False)
    return SequenceLearner(policy, plain, start or folder / "start", folder)
