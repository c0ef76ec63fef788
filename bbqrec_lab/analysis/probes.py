"""Information in vectors: linear probes of known factors, and dependence of two parts (HSIC)."""

import warnings
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bbqrec_core import Dataset, Tokenized

FOLDS = 5
UNKNOWN = -1  # label of items with an unknown factor, and of the padding row


class Probe(NamedTuple):
    """Balanced accuracy in [0, 1] of a linear classifier on held-out items: mean, per fold, and by chance."""

    accuracy: float
    folds: Float[np.ndarray, "folds"]
    chance: float

    @property
    def gain(self) -> float:
        """Accuracy rescaled so that 0 is chance and 1 is perfect."""
        return (self.accuracy - self.chance) / (1 - self.chance)


class Dependence(NamedTuple):
    """Normalised HSIC in [0, 1], and its 95 % quantile over random pairings of the same vectors."""

    value: float
    by_chance: float


def linear_probe(vectors: Float[np.ndarray, "R d"], labels: Int[np.ndarray, "R"], seed: int = 0) -> Probe:
    """Accuracy of a linear classifier that predicts a factor from vectors, by five-fold stratified cross-validation.

        accuracy = mean over folds of the mean over classes of recall;  chance = 1 / classes

    Args: vectors: one row per item. labels: value of the factor; items with a negative label and classes with fewer
        than five items are left out. seed: of the folds.
    Raises: ValueError if fewer than two classes have five items.
    Choice: standardised columns, logistic regression with unit L2 penalty, equal class weights.
    """
    values, counts = np.unique(labels[labels >= 0], return_counts=True)
    known = np.isin(labels, values[counts >= FOLDS])
    vectors, labels = vectors[known], labels[known]
    classes = len(np.unique(labels))
    if classes < 2:
        raise ValueError(f"a probe needs two classes of {FOLDS} items each, got class sizes {counts.tolist()}")
    scores = []
    for fit, held in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(vectors, labels):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, class_weight="balanced"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a probe need not reach its exact optimum
            model.fit(vectors[fit], labels[fit])
        scores.append(balanced_accuracy_score(labels[held], model.predict(vectors[held])))
    return Probe(float(np.mean(scores)), np.array(scores), 1 / classes)


def probe_table(
    parts: dict[str, Float[np.ndarray, "N _"]],
    factors: dict[str, Int[np.ndarray, "N"]],
    present: Bool[np.ndarray, "N"],
    seed: int = 0,
) -> pl.DataFrame:
    """Probe each factor from each part over the present items.

    Returns: columns part, factor, accuracy, low and high (worst and best fold), chance, gain; factors without two
        classes of five items are left out.
    """
    rows = []
    for factor, labels in factors.items():
        if (np.unique(labels[present & (labels >= 0)], return_counts=True)[1] >= FOLDS).sum() < 2:
            continue
        for part, vectors in parts.items():
            probe = linear_probe(vectors[present], labels[present], seed)
            spread = (float(probe.folds.min()), float(probe.folds.max()))
            rows.append((part, factor, probe.accuracy, *spread, probe.chance, probe.gain))
    numbers = dict.fromkeys(("accuracy", "low", "high", "chance", "gain"), pl.Float64)
    return pl.DataFrame(rows, schema={"part": pl.String, "factor": pl.String, **numbers}, orient="row")


def probe_signals(
    data: Dataset, done: Tokenized, factors: dict[str, Int[np.ndarray, "rows"]], seed: int = 0
) -> pl.DataFrame:
    """Probe each part of each signal of a finished tokenizer, and its IDs.

    Args: factors: by item row; a factor `SIGNAL_nuisance` is probed only from that signal, as `own nuisance`.
    Returns: as `probe_table`; parts are named `SIGNAL: KIND`, with kinds raw (the feature), behaviour, quantized and
        specific; the last part is `semantic ID: codes`, the sum of an ID's code vectors before any repair. Parts that
        the tokenizer does not have are left out.
    """
    tables = []
    for index, name in enumerate(done.ids.signals):
        parts = {"behaviour": done.behaviour[:, index], "quantized": done.ids.signal_vectors[:, index]}
        if name in data.features:
            parts = {"raw": data.features[name], **parts, "specific": done.specific[:, index]}
        asked = {key: labels for key, labels in factors.items() if not key.endswith("_nuisance")}
        if f"{name}_nuisance" in factors:
            asked["own nuisance"] = factors[f"{name}_nuisance"]
        named = {f"{name}: {kind}": vectors for kind, vectors in parts.items() if vectors.shape[1]}
        tables.append(probe_table(named, asked, done.ids.present[:, index], seed))
    shared = {key: labels for key, labels in factors.items() if not key.endswith("_nuisance")}
    book, codes = done.ids.codebook, done.ids.raw_codes
    whole = sum(table[codes[:, level]] for level, table in enumerate(book))
    tables.append(probe_table({"semantic ID: codes": whole}, shared, done.ids.present.any(1), seed))
    return pl.concat(tables)


def mean_gains(table: pl.DataFrame) -> dict[str, dict[str, float]]:
    """Factor -> kind of part -> gain, mean over signals, from a table of `probe_signals`.

    Only signals with a raw feature count where there are any, so that the means of all kinds are over the same signals.
    """
    named = table.with_columns(pl.col("part").str.split_exact(": ", 1).struct.rename_fields(["signal", "kind"])).unnest(
        "part"
    )
    raw = named.filter(pl.col("kind") == "raw")["signal"].unique().to_list()
    counted = named.filter(pl.col("signal").is_in([*raw, "semantic ID"])) if raw else named
    out: dict[str, dict[str, float]] = {}
    for factor, name, gain in counted.group_by("factor", "kind", maintain_order=True).agg(pl.mean("gain")).iter_rows():
        out.setdefault(factor, {})[name] = gain
    return out


def category_factors(categories: pl.Series, most: int = 4) -> dict[str, Int[np.ndarray, "rows"]]:
    """The most common categories as factors of item rows: 1 if an item has it, 0 if not, -1 without categories.

    Args: categories: N lists of names or nulls. most: at most this many, from categories of 5 to 95 % of known items.
    """
    known = categories.is_not_null().to_numpy()
    if not known.any():
        return {}
    names = categories.rename("name").drop_nulls().list.unique().explode().value_counts()
    common = names.filter((pl.col("count") / known.sum()).is_between(0.05, 0.95))
    out = {}
    for name in common.sort("count", "name", descending=[True, False])["name"].head(most):
        has = categories.list.contains(name).fill_null(False).to_numpy()
        out[str(name)] = np.append(UNKNOWN, np.where(known, has, UNKNOWN)).astype(np.int64)
    return out


def hsic(
    first: Float[np.ndarray, "R d"], second: Float[np.ndarray, "R e"], seed: int = 0, most: int = 500, draws: int = 100
) -> Dependence:
    """Linear and nonlinear dependence of two parts of the same items.

        HSIC(X, Y) = tr(K_X K_Y) / R^2 with centred Gaussian kernels;  value = HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y))

    Args: most: maximum number of items, drawn at random. draws: random pairings for the value by chance.
    Raises: ValueError for fewer than 10 items.
    Source: Gretton et al. 2005.
    Choice: the width of each kernel is the median distance of its vectors. A part that is the same for all items
        depends on nothing: both values are 0.
    """
    if len(first) < 10:
        raise ValueError(f"HSIC needs at least 10 items, got {len(first)}")
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(first))[:most]
    kernels = [_kernel(vectors[rows].astype(np.float64)) for vectors in (first, second)]
    scale = np.sqrt(np.prod([(kernel * kernel).sum() for kernel in kernels]))
    if not scale:
        return Dependence(0.0, 0.0)
    shuffles = [rng.permutation(len(rows)) for _ in range(draws)]
    by_chance = [(kernels[0] * kernels[1][np.ix_(order, order)]).sum() / scale for order in shuffles]
    return Dependence(float((kernels[0] * kernels[1]).sum() / scale), float(np.quantile(by_chance, 0.95)))


def _kernel(vectors: Float[np.ndarray, "R d"]) -> Float[np.ndarray, "R R"]:
    """Centred Gaussian kernel with the median distance as width."""
    square = (vectors**2).sum(1)
    distance = np.maximum(square[:, None] + square - 2 * vectors @ vectors.T, 0)
    kernel = np.exp(-distance / max(np.median(distance[distance > 1e-9]) if (distance > 1e-9).any() else 1, 1e-9))
    return kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()
