"""What every notebook starts from: the data, the configuration, the store and the folders of one run."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int

from . import experiments, planted, sources
from .artifacts import Store
from .config import Config, make_config
from .data import Dataset
from .experiments import Result
from .reproduce import absolute_dataset, run_folder
from .tokenizer import Tokenized


@dataclass(frozen=True)
class Workspace:
    """One dataset, preset and seed, with everything made for it below `out_dir`; opens nothing until asked.

    Args: dataset: a registered name, or a path to a bundle. preset, seed, overrides: as in `config.make_config`.
        out_dir: tables and figures land in `out_dir/DATASET/PRESET`, trained results in `out_dir/artefacts`.
    Raises: ValueError for a wrong dataset, preset, seed or override, as soon as it is built.
    """

    dataset: str
    preset: str
    seed: int
    out_dir: str
    overrides: dict

    def __post_init__(self) -> None:
        object.__setattr__(self, "dataset", absolute_dataset(self.dataset))
        make_config(self.preset, self.seed, self.overrides)

    @property
    def config(self) -> Config:
        """The configuration asked for."""
        return make_config(self.preset, self.seed, self.overrides)

    @cached_property
    def data(self) -> Dataset:
        """The dataset, with encoded and scaled features; read once."""
        return sources.load(self.dataset, self.config.data)

    @property
    def store(self) -> Store:
        """Where trained results are kept, shared by all notebooks below one `out_dir`."""
        return Store(Path(self.out_dir).resolve() / "artefacts")

    @property
    def folder(self) -> Path:
        """`out_dir/DATASET/PRESET`, holding `tables`, `figures` and `notebooks`."""
        return run_folder(Path(self.out_dir).resolve(), self.dataset, self.preset, self.data)

    def tokenizer(self, variant: str = "bbqrec") -> Tokenized:
        """Stage 1 of a variant: loaded if it was made before, else trained now."""
        config = experiments.variant_config(variant, self.config)
        return experiments.run_tokenizer(self.data, config, self.store)[0]

    def run(self, variant: str = "bbqrec", seed: int | None = None) -> Result:
        """Both stages and the evaluation of a variant: loaded if made before, else made now."""
        config = make_config(self.preset, self.seed if seed is None else seed, self.overrides)
        return experiments.run_variant(self.data, variant, config, self.store)

    def truth(self) -> dict[str, Int[np.ndarray, "rows"]]:
        """Planted factors by item row where the dataset has a truth, else nothing."""
        path = sources.get(self.dataset) if self.dataset in sources.REGISTRY else Path(self.dataset)
        return planted.load_truth(path, self.data) if (path / "truth.json").exists() else {}
