"""Options that several commands share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from bbqrec_lab.terminal import say

Preset = Literal["smoke", "quick", "full"]
Dataset = Annotated[str, Parameter(help="Registered name, or folder of a bundle.")]
Variant = Annotated[str, Parameter(help="Row of the tables; bbqrec variants lists them.")]
Out = Annotated[Path, Parameter(help="Folder of all results.")]
Json = Annotated[bool, Parameter(help="Print JSON instead of a table.", show_default=False)]
Encoder = Annotated[str, Parameter(help="english, ngrams, auto, or a model of sentence-transformers.")]
Overrides = Annotated[str, Parameter(help="Settings as K=V,K=V, or as a JSON object.", show_default=False)]


@Parameter(name="*")
@dataclass(frozen=True)
class RunOptions:
    """Dataset, preset and place of the results of a command that runs something."""

    dataset: Dataset = "ml-100k"
    preset: Annotated[Preset, Parameter(help="Amount of training.")] = "quick"
    out: Out = Path("runs")


@Parameter(name="*")
@dataclass(frozen=True)
class TrainOptions(RunOptions):
    """Those of a command that may train."""

    text_encoder: Encoder = "auto"
    precision: Annotated[
        Literal["fp32", "bf16"], Parameter(help="Of matrix products in training; bf16 needs AMX or a GPU.")
    ] = "fp32"
    store: Annotated[
        str, Parameter(help="s3://BUCKET/PREFIX: share results with other machines.", show_default=False)
    ] = ""

    def open_store(self) -> None:
        """Use the object store, if one is given. Raises: ValueError before any work if it cannot be used."""
        from bbqrec_lab import object_store

        object_store.use(self.store)

    @property
    def overrides(self) -> dict[str, object]:
        """The settings that differ from the preset."""
        given = {"text_encoder": self.text_encoder, "precision": self.precision}
        return {name: value for name, value in given.items() if value not in ("auto", "fp32")}


@Parameter(name="*")
@dataclass(frozen=True)
class RunChoice:
    """Which finished run: its folder, or the newest of a dataset and a variant."""

    run: Annotated[Path | None, Parameter(help="Folder of a run, as printed by fit and runs.")] = None
    dataset: Annotated[str, Parameter(help="Without --run: dataset of the run.")] = "ml-100k"
    variant: Annotated[str, Parameter(help="Without --run: variant of the run.")] = "bbqrec"
    preset: Annotated[Preset | None, Parameter(help="Without --run: preset; default: any.")] = None
    seed: Annotated[int | None, Parameter(help="Without --run: seed; default: any.")] = None
    out: Annotated[Path, Parameter(help="Without --run: folder of all results.")] = Path("runs")

    def find(self) -> Path:
        """The folder of the run. Raises: ValueError if there is none."""
        from bbqrec_lab.experiments import run_labels

        if self.run is None:
            found = run_labels.find_run(self.out, self.dataset, self.variant, self.preset, self.seed)
            say(f"run {found}")
            return found
        if not self.run.is_dir():
            raise ValueError(f"no run at {self.run}: give --run the folder that bbqrec fit prints")
        return self.run


RUN_OPTIONS, TRAIN_OPTIONS, RUN_CHOICE = RunOptions(), TrainOptions(), RunChoice()


def names(text: str) -> tuple[str, ...]:
    """Parse `02,05` into ("02", "05"), without the blanks around a name."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def examples(*lines: str) -> str:
    """The examples at the end of a command's help."""
    return "\n".join(["Examples:", "", *(f"  {line}" for line in lines)])
