"""Sweeps: accuracy as one size of the method varies, and recovery as the signal ratio of planted data varies."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import polars as pl

from bbqrec_core import Tokenized
from bbqrec_lab.analysis import probes
from bbqrec_lab.code_keys import code_hash
from bbqrec_lab.datasets import sources
from bbqrec_lab.datasets.planted import PlantedConfig, load_truth, write_planted
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.experiments.presets import Config, with_overrides
from bbqrec_lab.experiments.runs import run_tokenizer, run_variant
from bbqrec_lab.store import Store, write_atomic

SIZES = {  # symbol -> (setting, label)
    "S": ("recommender.buckets", "similarity buckets S"),
    "L": ("tokenizer.levels", "levels L"),
    "K": ("tokenizer.codes", "codes per level K"),
    "E": ("tokenizer.code_width", "code width E"),
    "D": ("recommender.width", "model width D"),
    "T": ("recommender.max_events", "history length T"),
}


def size_values(config: Config, factors: Sequence[float] = (0.5, 2.0)) -> dict[str, list[int]]:
    """Values of each size: the one of `config`, and this value times each factor (L: one less and one more).

    Choice: L does not use factors, because an ID has few levels and twice as many would be a different kind of ID.
    """
    found = {}
    for symbol, (setting, _) in SIZES.items():
        part, name = setting.split(".")
        own = getattr(getattr(config, part), name)
        around = (own - 1, own + 1) if symbol == "L" else (round(own * factor) for factor in factors)
        found[symbol] = sorted({own, *(value for value in around if value >= 1)})
    return found


def size_curves(
    data: NamedDataset, config: Config, values: Mapping[str, Sequence[int]], seeds: Sequence[int], store: Store
) -> pl.DataFrame:
    """NDCG@10 of `bbqrec` on validation and test as one size varies at a time; the store keeps each run.

    Args: values: values to try by symbol of `SIZES`; all curves share the run with the value of `config`.
    Returns: columns size, value, own (whether `config` has this value), seed, valid (seen items included), and
        included, filtered (test).
    """
    rows = []
    for symbol, tried in values.items():
        part, name = SIZES[symbol][0].split(".")
        own = getattr(getattr(config, part), name)
        for value in tried:
            for seed in seeds:
                chosen = with_overrides(replace(config, seed=seed), {SIZES[symbol][0]: value})
                result = run_variant(data, "bbqrec", chosen, store)
                test = result.rows.filter(
                    (pl.col("segment") == "all") & pl.col("metric").str.starts_with("ndcg@10")
                ).select("seen_items", "value")
                rows.append(
                    {"size": symbol, "value": value, "own": value == own, "seed": seed}
                    | {"valid": result.cost["valid_ndcg@10"].item()}
                    | dict(test.iter_rows())
                )
    return pl.DataFrame(rows)


def size_gains(points: pl.DataFrame) -> tuple[dict[str, float], float, set[str]]:
    """Gain of each size on validation, how far the seeds of one value differ on average, and which curves still rise.

        gain = largest mean over seeds - mean over seeds of the value of `config`

    Args: points: from `size_curves`.
    Returns: label of the size -> gain; mean over values of max - min over seeds; labels of the sizes whose best value
        is the smallest or the largest one.
    """
    of_value = points.group_by("size", "value", "own", maintain_order=True).agg(
        pl.col("valid").mean(), (pl.col("valid").max() - pl.col("valid").min()).alias("apart")
    )
    gains, at_end = {}, set()
    for (symbol,), part in of_value.sort("value").group_by("size", maintain_order=True):
        label = SIZES[symbol][1]
        gains[label] = part["valid"].max() - part.filter("own")["valid"][0]
        if part["valid"].arg_max() in (0, len(part) - 1):
            at_end.add(label)
    return gains, float(of_value["apart"].mean()), at_end


SMALL = PlantedConfig(users=200, items=120, branching=(4, 3), features="direct", missing=0.0)
# Overrides on `smoke` that separate the parts of planted data: a strong cross-modal loss, a weak CLUB penalty, and no
# reconstruction from the codes only, because that loss would put the nuisance into the codes.
SEPARATING: dict[str, object] = {
    "w_cross": 1.0,
    "w_mi": 0.2,
    "w_codes_only": 0.0,
    "specific_dropout": 0.0,
    "id_signal": False,
    "tokenizer.epochs": 12,
    "tokenizer.lr": 4e-3,
}


def quantized_gains(
    data: NamedDataset, done: Tokenized, truth: Mapping[str, np.ndarray], seed: int = 0
) -> dict[str, float]:
    """Gains of linear probes of the planted factors from the quantized vectors, mean over modalities.

    Returns: `behaviour` (leaf of the true tree) and `nuisance` (of the same modality), 0 by chance, 1 if perfect.
    """
    gains: dict[str, list[float]] = {"behaviour": [], "nuisance": []}
    for index, name in enumerate(done.ids.signals):
        if f"{name}_nuisance" in truth:
            here = done.ids.present[:, index]
            for factor, labels in (("behaviour", truth["leaf"]), ("nuisance", truth[f"{name}_nuisance"])):
                probe = probes.linear_probe(done.ids.signal_vectors[here, index], labels[here], seed)
                gains[factor].append(probe.gain)
    return {factor: float(np.mean(values)) for factor, values in gains.items()}


def phase_diagram(
    config: Config,
    settings: Mapping[str, Mapping[str, object]],
    ratios: Sequence[float],
    seeds: Sequence[int],
    store: Store,
    planted: PlantedConfig = SMALL,
) -> pl.DataFrame:
    """Recovery of behaviour and nuisance by the codes, as the ratio of the two in the features varies.

    Args: config: of the tokenizer; its seed is replaced. settings: name of a line -> overrides on `config`.
        ratios: energy of behaviour over energy of nuisance, the same in text and image. seeds: one dataset and one
        training run per seed. store: keeps datasets, tokenizers and measured points. planted: the other options.
    Returns: columns setting, ratio, seed, behaviour, nuisance (gains of `quantized_gains`).
    """
    rows = []
    for ratio in ratios:
        for seed in seeds:
            knobs = replace(planted, text_signal=ratio, image_signal=ratio, seed=seed)
            bundle = planted_bundle(knobs, store)
            data = sources.load(bundle, config.data)
            for name, overrides in settings.items():
                chosen = with_overrides(replace(config, seed=seed), overrides)
                rows.append(
                    {"setting": name, "ratio": float(ratio), "seed": seed, **_point(data, bundle, chosen, store)}
                )
    return pl.DataFrame(rows).sort("ratio", "seed", maintain_order=True)


def planted_bundle(knobs: PlantedConfig, store: Store) -> Path:
    """The bundle of a planted dataset, kept in the store."""

    def make(directory: Path) -> None:
        shutil.rmtree(directory / "bundle", ignore_errors=True)  # left by a killed process
        write_planted(directory / "bundle", knobs)

    code = code_hash("bbqrec_lab.datasets.planted")
    return store.get("planted", {"knobs": asdict(knobs), "code": code}, make) / "bundle"


def _point(data: NamedDataset, bundle: Path, config: Config, store: Store) -> dict[str, float]:
    """The gains of one tokenizer, measured once and stored."""
    done, home = run_tokenizer(data, config, store)

    def make(directory: Path) -> None:
        gains = quantized_gains(data, done, load_truth(bundle, data), config.seed)
        write_atomic(directory / "gains.json", json.dumps(gains))

    code = code_hash("bbqrec_lab.analysis.recovery", "bbqrec_lab.analysis.probes", alone=(__name__,))
    directory = store.get("recovery", {"tokenizer": home.name, "code": code}, make)
    return json.loads((directory / "gains.json").read_text())
