"""Comparison of tokenizers: collisions under each repair, size of the codebooks, and accuracy of the runs."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool, Int

from bbqrec_core import SemanticIds, Tokenized, health
from bbqrec_core.tokenizer.semantic_ids import group_sizes, move_to_free
from bbqrec_lab.analysis.neighbours import prefix_purity
from bbqrec_lab.baselines.extra_code import append_extra
from bbqrec_lab.baselines.tokenizers import resolve_signals, resolve_source
from bbqrec_lab.baselines.transport_repair import spread_by_transport
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.experiments.presets import Config
from bbqrec_lab.experiments.runs import run_tokenizer, run_variant
from bbqrec_lab.experiments.variants import VARIANTS, variant_config
from bbqrec_lab.settings import IdsConfig, VariantTokenizerConfig
from bbqrec_lab.store import Store

REPAIRS = ("none", "nearest", "sinkhorn", "extra")


class _Shelf(Store):
    """A read-only store: it never computes a missing result."""

    def get(self, kind: str, key: Mapping[str, object], make: Callable[[Path], None]) -> Path:
        """As `Store.get`, but raises LookupError if the result is missing."""
        if not self.path(kind, key).exists():
            raise LookupError(f"{self.path(kind, key)} does not exist")
        return super().get(kind, key, make)


def reached(
    data: NamedDataset,
    names: Sequence[str],
    config: Config,
    store: Store,
    metric: str = "ndcg@10",
    seen_items: str = "filtered",
) -> dict[str, float]:
    """The metric of each variant over all users, NaN if the store has no run of it; never trains."""
    found = dict.fromkeys(names, float("nan"))
    for name in names:
        try:
            rows = run_variant(data, name, config, _Shelf(store.root)).rows
        except LookupError:
            continue
        here = (
            (pl.col("segment") == "all")
            & (pl.col("seen_items") == seen_items)
            & pl.col("metric").str.starts_with(metric)
        )
        found[name] = float(rows.filter(here)["value"][0])
    return found


def tokenizer_config(data: NamedDataset, variant: str, config: Config) -> VariantTokenizerConfig:
    """The resolved tokenizer settings of a variant on these data."""
    return resolve_signals(variant_config(variant, config).tokenizer, data)


def ids_source(data: NamedDataset, variant: str, config: Config) -> IdsConfig:
    """The resolved source of a variant's IDs on these data."""
    config = variant_config(variant, config)
    return resolve_source(config.ids, resolve_signals(config.tokenizer, data), data)


def distinct_tokenizers(data: NamedDataset, config: Config, names: Sequence[str]) -> list[str]:
    """The named variants that have IDs; of variants with equal IDs before the repair only the first.

    Raises: ValueError for an unknown variant.
    """
    seen: dict[str, str] = {}
    for name in names:
        settings = replace(tokenizer_config(data, name, config), uniqueness="none")
        source = replace(ids_source(data, name, config), transport=False)
        before_repair = str((asdict(settings), asdict(source)))
        if VARIANTS[name].kind == "ids":
            seen.setdefault(before_repair, name)
    return list(seen.values())


def other_settings(names: Sequence[str], config: Config) -> dict[str, list[str]]:
    """The settings in which the recommender of each variant differs from that of `bbqrec`, without their stage."""
    of = {name: asdict(variant_config(name, config).recommender) for name in (*names, "bbqrec")}
    return {name: [key for key, value in of[name].items() if value != of["bbqrec"][key]] for name in names}


def ids_of_seeds(
    data: NamedDataset, variant: str, config: Config, seeds: Sequence[int], store: Store
) -> list[Int[np.ndarray, "N _"]]:
    """The IDs of a variant before the repair, one table per seed; missing tokenizers are trained."""
    configs = [variant_config(variant, replace(config, seed=seed)) for seed in seeds]
    return [run_tokenizer(data, one, store)[0].ids.raw_codes for one in configs]


def repair_with(repair: str, done: Tokenized) -> tuple[Int[np.ndarray, "N sid_len"], tuple[int, ...]]:
    """Apply another repair to a tokenizer's unrepaired IDs; returns the IDs and the codebook size per position.

    The input vectors of the last level decide which items move. They do not change how many items collide afterwards: m
    items below one prefix get min(m, K) different IDs by `nearest` and by `sinkhorn`.

    Args: repair: one of `REPAIRS`.
    Raises: ValueError for another repair.
    """
    if repair not in REPAIRS:
        raise ValueError(f"repair must be one of {', '.join(REPAIRS)}, got {repair!r}")
    raw, books = done.ids.raw_codes, done.ids.codebook
    sizes = done.ids.sizes[: raw.shape[1]]
    if repair == "none":
        return raw, sizes
    if repair == "extra":
        table, largest = append_extra(raw)
        return table, (*sizes, largest)
    move = move_to_free if repair == "nearest" else spread_by_transport
    return move(raw, done.residual, books[-1][: sizes[-1]]), sizes


def repair_table(tokenizers: Mapping[str, Tokenized]) -> pl.DataFrame:
    """Collisions of each tokenizer's IDs under each repair.

    Returns: columns tokenizer, repair, collision_rate, colliding_items, largest_group, moved (items with a changed code
        or an added code other than 0), sid_len.
    """
    rows = []
    for name, done in tokenizers.items():
        raw = done.ids.raw_codes
        for repair in REPAIRS:
            table, sizes = repair_with(repair, done)
            figures = health(table, sizes)
            longer = np.hstack([raw, np.zeros((len(raw), table.shape[1] - raw.shape[1]), raw.dtype)])
            told = {key: figures[key] for key in ("collision_rate", "colliding_items", "largest_group")}
            told |= {"moved": int((table != longer).any(1).sum()), "sid_len": table.shape[1]}
            rows.append({"tokenizer": name, "repair": repair, **told})
    return pl.DataFrame(rows)


def nested(frame: pl.DataFrame, column: str) -> dict[str, dict[str, float]]:
    """A column of `repair_table` or `shape_table` in the form for `plots.ledger`: tokenizer -> case -> value."""
    cases = frame["repair"] if "repair" in frame.columns else [""] * len(frame)
    out: dict[str, dict[str, float]] = {}
    for tokenizer, case, value in zip(frame["tokenizer"], cases, frame[column], strict=True):
        out.setdefault(tokenizer, {})[case] = float(value)
    return out


def largest_groups(
    raw_codes: Int[np.ndarray, "N L"],
    present: Bool[np.ndarray, "N S"],
    events: Int[np.ndarray, "N"],
    titles: Sequence[str],
    most: int = 5,
) -> pl.DataFrame:
    """The largest groups of items with one ID before the repair, largest first; all arguments have the padding row.

    Args: present: signals of each item. events: of training.
    Returns: columns ID before repair, items, signals present (%), mean training events, some of them (four titles).
    """
    size, group = group_sizes(raw_codes)
    table = []
    for index in np.argsort(-size, kind="stable")[:most]:
        member = np.flatnonzero(group == index) + 1
        code = "-".join(map(str, raw_codes[member[0]].tolist()))
        some = "; ".join(textwrap.shorten(str(titles[i]), 30, placeholder="…") for i in member[:4])
        table.append((code, len(member), 100 * present[member].mean(), events[member].mean(), some))
    columns = ["ID before repair", "items", "signals present (%)", "mean training events", "some of them"]
    return pl.DataFrame(table, schema=columns, orient="row")


def branch(code_ids: Int[np.ndarray, "N sid_len"], items: int = 12) -> Int[np.ndarray, "_"]:
    """The rows below the first code whose number of items, at least two if possible, is nearest to `items`."""
    first = code_ids[1:, 0]
    width = np.bincount(first)
    wanted = np.flatnonzero(width > 1) if (width > 1).any() else np.flatnonzero(width)
    return np.flatnonzero(first == wanted[np.argmin(np.abs(width[wanted] - items))]) + 1


def stored_vectors(ids: SemanticIds, config: VariantTokenizerConfig, source: str) -> int:
    """Number of codebook vectors of a tokenizer, used or not; 0 if its codes have no vectors.

        vectors = sets * L * K;  sets: 1 if shared, else one per quantized unit

    Args: config: resolved settings of the tokenizer. source: resolved source of its IDs.
    """
    if not len(ids.signals):
        return 0
    units = len(ids.signals)
    if config.combine == "fused" and units > 1:
        units += 1
    sets = 1 if config.shared_codebook or source != "learned" else units
    return sets * config.levels * ids.codebook.shape[1]


def shape_table(
    tokenizers: Mapping[str, Tokenized],
    configs: Mapping[str, VariantTokenizerConfig],
    sources: Mapping[str, str],
    likeness: Callable[[np.ndarray, np.ndarray], np.ndarray],
    rows: Int[np.ndarray, "R"],
    seed: int = 0,
) -> pl.DataFrame:
    """One row per tokenizer, before the repair: collisions, code usage, fan-out, likeness below a first code, memory.

    Args: configs: resolved settings by tokenizer. sources: resolved sources of the IDs by tokenizer. likeness, rows,
        seed: as in `neighbours.prefix_purity`.
    Returns: columns tokenizer, collision_rate, colliding_items, largest_group, codes (per ID), used, perplexity and
        fan_out (each per position, as text), even_use (perplexity of the first code over its codebook size),
        first_fan_out (mean children of a first code), purity (likeness of two items with the same first code over that
        of any two items), codebook_vectors, codebook_width.
    """
    out = []
    for name, done in tokenizers.items():
        figures, raw = health(done.ids.raw_codes, done.ids.sizes[: done.ids.learned]), done.ids.raw_codes
        alike = prefix_purity(raw[:, :1], rows, likeness, seed).mean
        told = {key: figures[key] for key in ("collision_rate", "colliding_items", "largest_group")}
        told |= {"codes": raw.shape[1]}
        told |= {key: ", ".join(f"{value:.4g}" for value in figures[key]) for key in ("used", "perplexity", "fan_out")}
        told["even_use"] = figures["perplexity"][0] / done.ids.sizes[0]
        told["first_fan_out"] = figures["fan_out"][1] if raw.shape[1] > 1 else float("nan")
        told["purity"] = float(alike[1] / alike[0]) if alike[0] > 0 else float("nan")
        vectors = stored_vectors(done.ids, configs[name], sources[name])
        told |= {"codebook_vectors": vectors, "codebook_width": done.ids.codebook.shape[2] if vectors else 0}
        out.append({"tokenizer": name, **told})
    return pl.DataFrame(out)
