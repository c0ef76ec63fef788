"""A small recommender with random tables, its scores and its attention, for tests of the live views."""

import numpy as np
import torch
from tiny import lab_recommender_config, semantic_ids

from bbqrec_core import Dataset, Recommender, Sequences, build_recommender
from bbqrec_lab.baselines.sequence_models import make_model

N, SIZES, HISTORY = 29, (5, 5, 3), [3, 7, 3, 11, 29]


def tiny_recommender(**changes: object) -> Recommender:
    """A recommender with random tables, so that every term has an effect."""
    found = build_recommender(N, semantic_ids(N, SIZES), lab_recommender_config(**changes), 1, make=make_model)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _, parameter in sorted(found.model.named_parameters()):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        if found.model.reweighting is not None:
            found.model.reweighting.table.mul_(10)  # strong enough to move ranks
    if found.model.config.score_reweight:
        histories = torch.randint(1, N + 1, (60 * 8,), generator=generator).to(torch.int32).numpy()
        found.model.scoring.observe(Dataset(n_items=N, sequences=Sequences(np.arange(61) * 8, histories)))
        found.model.scoring.trust.fill_(0.5)
    return found


def scores_of(model: Recommender, rows: list[int]) -> torch.Tensor:
    """Scores of all items after a history, directly from the recommender."""
    asked = Sequences(np.array([0, len(rows)], dtype=np.int64), np.array(rows, dtype=np.int32))
    return model.scores(asked, np.array([0]))[0]


def maps_of(model: Recommender, rows: list[int]) -> torch.Tensor:
    """Attention of all layers and heads, directly from the model."""
    with torch.no_grad():
        return torch.stack([weights[0] for weights in model.model.states(torch.tensor([rows]))[1]])
