"""A counting baseline that counts nothing: nearest neighbours by the frozen features, for items without events too."""

import numpy as np
from scipy import sparse

from bbqrec_core import Dataset
from bbqrec_core.recommender.score_bias import compare_content
from bbqrec_lab.baselines.counting import DECAYS, NEIGHBOURS, ItemKnn, Trial, valid_ndcg


class ContentKnn(ItemKnn):
    """Nearest content neighbours: as `ItemKnn`, with s from the frozen features, so it ranks items without events too.

        s(i, j) = max(cosine of the features of i and j, 0)^3 for the `NEIGHBOURS` most like i

    Source: `bbqrec_core.recommender.score_bias.compare_content`, the content of score reweighting.
    """

    @classmethod
    def fit(cls, data: Dataset) -> "ContentKnn":
        """Compare the features, then choose among 5 decays on validation, as for `Markov`."""
        alike, cosines = compare_content(data, min(NEIGHBOURS, data.n_items))
        row, counts = np.repeat(np.arange(len(alike)), alike.shape[1]), data.train_counts()
        entries = cosines.numpy().ravel().astype(np.float64), (row, alike.numpy().ravel())
        similar = sparse.coo_array(entries, shape=(len(alike), len(alike))).tocsr()
        similar.eliminate_zeros()
        trials = [Trial((decay,), valid_ndcg(data, cls(decay, similar, counts).ranks)) for decay in DECAYS]
        return cls(max(trials, key=lambda trial: trial.ndcg).settings[0], similar, counts, tuple(trials))
