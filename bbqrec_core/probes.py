"""What a set of vectors knows: linear probes of known factors, dependence of two parts, neighbours, a map in the plane."""

import hashlib
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bbqrec_core.artifacts import Store, load_arrays, save_arrays
from bbqrec_core.data import Sequences

FOLDS = 5


class Probe(NamedTuple):
    """Balanced accuracy of a linear classifier on items it has not seen, in [0, 1]: the mean, per fold, and chance."""

    accuracy: float
    folds: Float[np.ndarray, "folds"]
    chance: float

    @property
    def gain(self) -> float:
        """Share of the way from chance to certainty: 0 knows nothing of the factor, 1 all."""
        return (self.accuracy - self.chance) / (1 - self.chance)


def linear_probe(vectors: Float[np.ndarray, "R d"], labels: Int[np.ndarray, "R"], seed: int = 0) -> Probe:
    """How well a linear classifier reads a factor off vectors, by cross-validation in five stratified folds.

        accuracy = mean over folds of the mean over classes of recall;  chance = 1 / classes

    Args: vectors: one row per item. labels: the factor's value, classes with fewer than five items are left out.
        seed: of the folds.
    Raises: ValueError if fewer than two classes have five items.
    Choice: standardised columns, logistic regression with unit L2 penalty; classes weigh the same however rare.
    """
    values, counts = np.unique(labels, return_counts=True)
    known = np.isin(labels, values[counts >= FOLDS])
    vectors, labels = vectors[known], labels[known]
    classes = len(np.unique(labels))
    if classes < 2:
        raise ValueError(f"a probe needs two classes of {FOLDS} items each, got counts {counts.tolist()}")
    scores = []
    for fit, held in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(vectors, labels):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, class_weight="balanced"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a probe a little short of its optimum still probes
            model.fit(vectors[fit], labels[fit])
        scores.append(balanced_accuracy_score(labels[held], model.predict(vectors[held])))
    return Probe(float(np.mean(scores)), np.array(scores), 1 / classes)
