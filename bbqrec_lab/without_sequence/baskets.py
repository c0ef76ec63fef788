"""What else goes into this basket? Sets of items without order: linear models and factors beside set encoders."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Float32, Int
from scipy import sparse
from torch import Tensor

from bbqrec_core import Ranks, SemanticIds, Sequences, fit_recommender, metrics
from bbqrec_core.dataset import MIN_EVENTS
from bbqrec_lab.baselines.content_knn import ContentKnn
from bbqrec_lab.baselines.counting import DENSE_ITEMS, Ease, ItemKnn, Popularity, valid_ndcg
from bbqrec_lab.code_keys import code_hash
from bbqrec_lab.datasets.derived import derived, drawn_items
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.experiments import runs, statistics
from bbqrec_lab.experiments.checkpoints import settle
from bbqrec_lab.experiments.presets import Config, with_overrides
from bbqrec_lab.experiments.training_bar import TrainingBar
from bbqrec_lab.experiments.variants import variant_config
from bbqrec_lab.store import Store, load_arrays, save_arrays
from bbqrec_lab.threads import use_one_thread
from bbqrec_lab.without_sequence.asking import UnanswerableError
from bbqrec_lab.without_sequence.set_model import SetModel

WITHHELD = 0.1  # share of items held out of training
COUNTED = {"popularity": Popularity, "item-knn": ItemKnn, "content-knn": ContentKnn, "ease": Ease}
ALS = "als"
ENCODERS = {  # name: (what it predicts, whether attention is reweighted)
    "set-items": ("items", True),
    "set-items-plain": ("items", False),
    "set-codes": ("codes", True),
    "set-codes-plain": ("codes", False),
}
FACTORS, ALPHAS, PENALTIES = (8, 32, 128), (1.0, 10.0), (0.1, 10.0)  # of ALS
BRIEF_EPOCHS, BRIEF_STEPS = 2, 120  # of a first look
_SHUFFLE, _WITHHELD = 31, 32  # random streams under one split seed


class Baskets(NamedTuple):
    """Results of all models on the hidden items.

    Args: ranks: model -> one `Ranks` per seed; models that only count have one. known: (U,), whether the hidden item
        has training events; the others are new. counts: (N+1,), training events. left_out: model without a result ->
        why.
    """

    ranks: dict[str, list[Ranks]]
    known: Bool[np.ndarray, "U"]
    counts: Int[np.ndarray, "rows"]
    left_out: dict[str, str]


def as_baskets(data: NamedDataset, split_seed: int) -> NamedDataset:
    """The dataset with the items of every user once and in random order, and a tenth of all items held out of training.

    The usual split then hides one random item for validation and one for test, and the history is a set. Users with
    fewer than three items are left out.

    Raises: UnanswerableError if no basket has two items to learn from.
    """
    rng = np.random.default_rng([split_seed, _SHUFFLE])
    owner = np.repeat(np.arange(data.n_users), np.diff(data.sequences.offsets))
    _, first = np.unique(owner * (data.n_items + 1) + data.sequences.items, return_index=True)
    sizes = np.bincount(owner[first], minlength=data.n_users)
    first = first[sizes[owner[first]] >= MIN_EVENTS]
    order = first[np.lexsort((rng.random(len(first)), owner[first]))]
    cold = drawn_items(data.n_items, WITHHELD, (split_seed, _WITHHELD))
    cold[0] = True
    users = sizes >= MIN_EVENTS
    sets = derived(
        data,
        f"baskets, seed {split_seed}",
        sequences=Sequences(np.append(0, np.cumsum(sizes[users])), data.sequences.items[order]),
        timestamps=data.timestamps[order],
        users=data.users[users],
        cold=cold,
    )
    if not (np.diff(sets.train().offsets) > 1).any():
        raise UnanswerableError(f"no basket of {data.name} has two items to learn from")
    return sets


class Als:
    """Weighted matrix factorization by alternating least squares, from `implicit`; the history is folded in.

    Choice: items without training events have no score, since their factors are zero.
    Source: Hu, Koren and Volinsky 2008.
    """

    def __init__(self, data: NamedDataset, factors: int, alpha: float, penalty: float, seed: int) -> None:
        from implicit.als import AlternatingLeastSquares  # of the extra `tasks`

        train = data.train()
        self.counts, self.alpha = data.train_counts(), alpha
        options = {"random_state": seed, "num_threads": 1, "use_gpu": False}
        self.model = AlternatingLeastSquares(factors, regularization=penalty, alpha=1.0, **options)
        self.model.fit(self._table(train, np.arange(data.n_users)), show_progress=False)

    def _table(self, history: Sequences, users: Int[np.ndarray, "B"]) -> sparse.csr_matrix:
        """alpha for each item of each user, (B, N+1)."""
        sizes = np.diff(history.offsets)[users]
        starts = np.repeat(history.offsets[users] - (np.cumsum(sizes) - sizes), sizes)
        items = history.items[starts + np.arange(sizes.sum())]
        pairs = np.repeat(np.arange(len(users)), sizes), items
        table = sparse.coo_matrix((np.ones(len(items), np.float32), pairs), shape=(len(users), len(self.counts)))
        table = table.tocsr()
        table.data[:] = self.alpha
        return table

    def scores(self, history: Sequences, users: Int[np.ndarray, "B"]) -> Float32[Tensor, "B rows"]:
        """Products of factors (B, N+1), unitless; -inf for padding and for items without training events."""
        factors = self.model.recalculate_user(np.arange(len(users)), self._table(history, users))
        found = torch.from_numpy(np.asarray(factors @ self.model.item_factors.T, np.float32))
        return found.masked_fill(torch.from_numpy(self.counts == 0), -torch.inf)

    def ranks(
        self,
        history: Sequences,
        targets: Int[np.ndarray, "U"],
        users: Int[np.ndarray, "S"],
        kinds: tuple[str, ...] = ("included", "filtered"),
    ) -> dict[str, Ranks]:
        """As `metrics.rank_users` of `scores`."""
        return metrics.rank_users(self.scores, history, targets, users, kinds)


def fit_als(data: NamedDataset, seed: int) -> Als:
    """ALS with the number of factors, weight of an event and penalty that are best on validation, of 12 trials."""
    best, chosen = -1.0, None
    for factors, alpha, penalty in product(FACTORS, ALPHAS, PENALTIES):
        model = Als(data, factors, alpha, penalty, seed)
        if (score := valid_ndcg(data, model.ranks)) > best:
            best, chosen = score, model
    return chosen


def set_settings(config: Config, output: str, reweight: bool, events: float, thorough: bool = True) -> Config:
    """The settings of a set encoder: those of `generation`, without all that reads an order.

    Args: output: `items` or `codes`. reweight: whether attention is reweighted by similarity. events: training events
        per user, for the recipe of training. thorough: False trains little, for a first look.
    """
    orderless = {"lag_bias": False, "seen_offset": False, "score_reweight": False, "reweight": reweight}
    if not thorough:
        orderless |= {
            "min_steps": 0,
            "epochs": BRIEF_EPOCHS,
            "epoch_steps": BRIEF_STEPS,
            "evaluate_every": BRIEF_EPOCHS,
        }
    chosen = {f"recommender.{name}": value for name, value in orderless.items()} | {"recommender.output": output}
    return with_overrides(variant_config("generation", config, events), chosen)


def study(data: NamedDataset, configs: Sequence[Config], store: Store, thorough: bool = True) -> Baskets:
    """Fit all models, the learned ones for every seed of `configs`, or load their ranks; seen items are filtered.

    The IDs are those of the first seed. A model that these data do not allow is left out, see `not_possible`.

    Args: thorough: False trains the set encoders briefly and with the first seed only, for a first look.
    Raises: UnanswerableError as `as_baskets`.
    """
    use_one_thread()
    sets = as_baskets(data, configs[0].data.split_seed)
    tokenized, home = runs.run_tokenizer(sets, variant_config("bbqrec", configs[0]), store)
    ids = Made(tokenized.ids, home.name)
    left_out = not_possible(sets)
    ranks = {name: [_kept(sets, name, None, configs[0], store)] for name in COUNTED if name not in left_out}
    ranks[ALS] = [_kept(sets, ALS, None, config, store) for config in configs]
    for name, (output, reweight) in ENCODERS.items():
        ranks[name] = []
        for config in configs if thorough else configs[:1]:
            own = set_settings(config, output, reweight, len(sets.train().items) / sets.n_users, thorough)
            ranks[name].append(_kept(sets, name, ids, own, store))
    counts = sets.train_counts()
    return Baskets(ranks, counts[sets.targets("test")] > 0, counts, left_out)


def not_possible(data: NamedDataset) -> dict[str, str]:
    """The models of `COUNTED` that cannot be fitted to a dataset -> why."""
    found = {}
    if not data.features:
        found["content-knn"] = "these data have no features"
    if data.n_items > DENSE_ITEMS:
        found["ease"] = (
            f"its table of all pairs takes at most {DENSE_ITEMS:,} items, and these data have {data.n_items:,}"
        )
    return found


class Made(NamedTuple):
    """The IDs that set encoders read, and the name of the result that made them."""

    ids: SemanticIds
    name: str


def _kept(sets: NamedDataset, name: str, made: Made | None, config: Config, store: Store) -> Ranks:
    """The test ranks of one model and seed, computed once; `made` for a set encoder."""
    key = {"data": sets.content_hash, "split_seed": config.data.split_seed, "model": name}
    key |= {"code": code_hash(__name__), "torch": torch.__version__}
    if made is not None or name == ALS:
        key["seed"] = config.seed
    if made is not None:
        key |= {"ids": made.name, "recommender": asdict(config.recommender), "evaluation": asdict(config.evaluation)}

    def make(directory: Path) -> None:
        asked = sets.history("test"), sets.targets("test"), np.arange(sets.n_users)
        if made is not None:
            where = directory / "checkpoints"
            settle(where)
            parts = config.recommender, config.evaluation, config.seed, where, SetModel, TrainingBar()
            model, _ = fit_recommender(sets, made.ids, *parts)
            found = metrics.rank_users(model.scores, *asked, kinds=("filtered",), batch=config.evaluation.batch)
            shutil.rmtree(where)
        else:
            model = fit_als(sets, config.seed) if name == ALS else COUNTED[name].fit(sets)
            found = model.ranks(*asked, ("filtered",))
        save_arrays(directory / "ranks.npz", **found["filtered"]._asdict())

    return Ranks(**load_arrays(store.get("basket", key, make) / "ranks.npz"))


def per_user(found: Baskets, name: str, metric: str) -> Float[np.ndarray, "seeds U"]:
    """One metric of every seed and user."""
    return np.stack([metrics.per_user(ranks)[metric] for ranks in found.ranks[name]])


def table(found: Baskets) -> pl.DataFrame:
    """NDCG@10 for known, new and all hidden items, Recall@20 for new ones, and coverage: means over seeds and std."""
    lines = []
    for name, ranks in found.ranks.items():
        ndcg, recall = (per_user(found, name, metric) for metric in ("ndcg@10", "recall@20"))
        values = {
            "NDCG@10, all": ndcg.mean(1),
            "NDCG@10, known items": _mean(ndcg, found.known),
            "Recall@20, new items": _mean(recall, ~found.known),
            "coverage@10": np.array([statistics.list_metrics(one.top, found.counts)["coverage@10"] for one in ranks]),
        }
        for metric, each in values.items():
            lines.append((name, metric, len(ranks), float(each.mean()), float(each.std())))
    return pl.DataFrame(lines, schema=["model", "metric", "seeds", "mean", "std"], orient="row")


def wide(found: Baskets) -> pl.DataFrame:
    """`table` with one line per model: the means."""
    return table(found).pivot(on="metric", index=["model", "seeds"], values="mean")


def seeds_of(found: Baskets) -> dict[str, dict[str, Float[np.ndarray, "seeds"]]]:
    """Quantity -> model -> one value per seed, as `plots.seed_points` takes them."""
    values: dict[str, dict[str, np.ndarray]] = {"NDCG@10": {}, "Recall@20, new items": {}, "coverage@10": {}}
    for name, ranks in found.ranks.items():
        values["NDCG@10"][name] = per_user(found, name, "ndcg@10").mean(1)
        if not found.known.all():
            values["Recall@20, new items"][name] = _mean(per_user(found, name, "recall@20"), ~found.known)
        lists = [statistics.list_metrics(one.top, found.counts)["coverage@10"] for one in ranks]
        values["coverage@10"][name] = np.array(lists)
    return {label: each for label, each in values.items() if each}


def _mean(values: Float[np.ndarray, "seeds U"], users: Bool[np.ndarray, "U"]) -> Float[np.ndarray, "seeds"]:
    """The mean of each seed over some users; NaN without any."""
    return values[:, users].mean(1) if users.any() else np.full(len(values), np.nan)


ITSELF = "itself without reweighting"


def compare(found: Baskets, ours: str) -> pl.DataFrame:
    """NDCG@10 of a set encoder minus each model that is no set encoder, and minus `ITSELF`, paired over users.

    Returns: columns against, difference, low, high, p and p_holm, corrected for the lines of the table.
    """
    mine = per_user(found, ours, "ndcg@10")
    others = {name: name for name in found.ranks if name not in ENCODERS} | {ITSELF: f"{ours}-plain"}
    lines = [
        (label, *statistics.paired_bootstrap(mine, per_user(found, name, "ndcg@10"))) for label, name in others.items()
    ]
    frame = pl.DataFrame(lines, orient="row", schema=["against", "difference", "low", "high", "p"])
    return statistics.with_holm(frame)
