"""Which tokenizer a variant uses: a learned one with the variant's switches, or a control; then the repair."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from bbqrec_core import Dataset, Tokenized, fit_tokenizer
from bbqrec_core.tokenizer.fit import finish
from bbqrec_core.training import Progress
from bbqrec_lab.baselines.control_tokenizers import control_codes
from bbqrec_lab.baselines.extra_code import repair_by_extra
from bbqrec_lab.baselines.transport_repair import repair_by_transport
from bbqrec_lab.baselines.variant_tokenizer import tokenizer_maker
from bbqrec_lab.datasets.features import joined_features
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.settings import IdsConfig, VariantTokenizerConfig


def resolve_signals(config: VariantTokenizerConfig, data: Dataset) -> VariantTokenizerConfig:
    """Set `signals` to the modalities to use: those named that the data have (all if none is named), else the first.

    Choice: a text-only tokenizer on data without text uses the first modality, or the ID signal if there is none. So
    every variant exists on every dataset; the configuration of the run records the choice.
    """
    wanted = config.signals or tuple(data.features)
    found = [name for name in wanted if name in data.features] or list(data.features)[:1]
    return replace(config, signals=tuple(found), id_signal=config.id_signal or not found)


def resolve_source(config: IdsConfig, tokenizer: VariantTokenizerConfig, data: NamedDataset) -> IdsConfig:
    """Replace a source that the data do not allow; `tokenizer` must be resolved.

    Choice: RQ-k-means replaces published codes that a bundle lacks, and random codes replace RQ-k-means if there is
    nothing to cluster. So every variant exists on every dataset; the configuration of the run records the choice.
    """
    source = config.source
    if source == "published" and not data.codes:
        source = "kmeans"
    if source == "kmeans" and not tokenizer.signals:
        source = "random"
    return replace(config, source=source)


def join_modalities(data: Dataset, config: VariantTokenizerConfig) -> tuple[Dataset, VariantTokenizerConfig]:
    """A dataset whose only modality joins the features of all `signals`, and the settings that name it."""
    name = "+".join(config.signals)
    features, present = joined_features(data, config.signals)
    return replace(data, features={name: features}, presence={name: present}), replace(config, signals=(name,))


def fit_numbered(
    data: Dataset,
    config: VariantTokenizerConfig,
    seed: int,
    directory: Path,
    maker: Callable[..., nn.Module],
    progress: Callable[[Progress], None] | None,
) -> Tokenized:
    """`fit_tokenizer` with modalities named by number, because a module allows no dot and no method in a name.

    Args: those of `fit_tokenizer`; `config` must be resolved.
    """
    names = {f"modality_{number}": name for number, name in enumerate(config.signals)}
    features = {key: data.features[name] for key, name in names.items()}
    presence = {key: data.presence[name] for key, name in names.items()}
    numbered = replace(data, features=features, presence=presence)
    done = fit_tokenizer(numbered, replace(config, signals=tuple(names)), seed, directory, maker, progress)
    signals = tuple(names.get(key, key) for key in done.ids.signals)
    return done._replace(ids=replace(done.ids, signals=signals))


def make_tokenized(
    data: NamedDataset,
    ids: IdsConfig,
    config: VariantTokenizerConfig,
    seed: int,
    directory: Path,
    collaborative: np.ndarray | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Tokenized:
    """A finished stage 1 for any source of IDs; arguments as for `fit_tokenizer`.

    Args: collaborative: item embeddings of a SASRec, (N+1, D), if the settings need them.
    """
    config = resolve_signals(config, data)
    ids = resolve_source(ids, config, data)
    if ids.source == "learned":
        if config.joined and len(config.signals) > 1:
            data, config = join_modalities(data, config)
        done = fit_numbered(data, config, seed, directory, tokenizer_maker(collaborative), progress)
    else:
        done = finish(control_codes(data, ids, config, seed, collaborative), config, [])
    return repaired(done, ids, config)


def repaired(done: Tokenized, ids: IdsConfig, config: VariantTokenizerConfig) -> Tokenized:
    """A stage 1 after the repairs that only the laboratory has; `finish` leaves these IDs as they are."""
    if ids.transport:
        return repair_by_transport(done)
    return repair_by_extra(done) if config.uniqueness == "extra" else done
