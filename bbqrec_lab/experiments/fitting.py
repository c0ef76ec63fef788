"""Train one row of the tables from the names of its dataset and variant, as `bbqrec fit` does."""

from collections.abc import Mapping
from pathlib import Path

from bbqrec_lab.datasets import sources
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.experiments.estimates import tell_rows
from bbqrec_lab.experiments.presets import parse_overrides
from bbqrec_lab.experiments.run_labels import STORE
from bbqrec_lab.experiments.runs import Result, run_variant
from bbqrec_lab.experiments.variants import fit_config, reads_features
from bbqrec_lab.object_store import open_store


def fit(
    dataset: str | Path | NamedDataset,
    variant: str = "bbqrec",
    preset: str = "quick",
    seed: int = 0,
    overrides: str | Mapping[str, object] = "",
    out: str | Path = "runs",
) -> Result:
    """Train and evaluate one variant on one dataset, or load the stored result; long work is announced.

    Args: dataset: a registered name, the folder of a bundle, or loaded data. overrides: settings by name, as a mapping
        or as `k=v,k=v`. out: folder of results.
    Raises: ValueError, before any long work, for an unknown dataset, variant, preset or setting, for an override
        without effect, and for settings of the part `data` if the data are loaded already; FloatingPointError if a loss
        is not finite.
    """
    settings = fit_config(variant, preset, seed, parse_overrides(overrides))
    if isinstance(dataset, NamedDataset):
        late = [name for name in settings.given if name.startswith("data.")]
        if late:
            raise ValueError(f"{', '.join(late)} changes how data are read: give the name or folder of the dataset")
        data = dataset
    else:
        data = sources.load(dataset, settings.data, encoded=reads_features(variant, settings))
    store = open_store(Path(out).expanduser() / STORE)
    tell_rows(data, [(variant, seed)], lambda _: settings, store, find=run_variant)
    return run_variant(data, variant, settings, store)
