"""Tools of a notebook: the workspace, and the display of tables, of what to notice, and of checks of answers."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from bbqrec_core import Tokenized
from bbqrec_lab import escaping, exercises
from bbqrec_lab.code_keys import ROOT
from bbqrec_lab.datasets import planted, sources
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.datasets.sources import absolute_dataset
from bbqrec_lab.experiments import runs, tables, variants
from bbqrec_lab.experiments.presets import Config, by_full_name, make_config, parse_overrides
from bbqrec_lab.experiments.runs import Result, run_folder
from bbqrec_lab.object_store import open_store
from bbqrec_lab.store import Store

OUT_DIR = "../runs"  # the default of the notebooks, as seen from their folder


@dataclass(frozen=True)
class Workspace:
    """One dataset, preset and seed, and all results for them below `out_dir`; loads nothing before it is needed.

    Args: dataset: a registered name, or a path to a bundle. preset, seed: as in `presets.make_config`.
        out_dir: tables and figures go to `out_dir/DATASET/PRESET`, trained results to `out_dir/artefacts`. The default
            is the folder `runs` of the repository, for any working folder.
        overrides: settings by name, as a mapping or as text (`presets.parse_overrides`).
    Raises: ValueError for a wrong dataset, preset, seed or override, on construction.
    """

    dataset: str | int  # a number if a bundle has the name 2024 and papermill reads it so
    preset: str = "quick"
    seed: int = 0
    out_dir: str = OUT_DIR
    overrides: dict | str = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dataset", absolute_dataset(str(self.dataset)))
        object.__setattr__(self, "overrides", parse_overrides(self.overrides))
        if self.out_dir == OUT_DIR and (ROOT / "notebooks").is_dir():
            object.__setattr__(self, "out_dir", str(ROOT / "runs"))
        make_config(self.preset, self.seed, self.overrides)
        fixed = variants.VARIANTS["bbqrec"].overrides
        given = by_full_name(self.overrides).items()
        lost = [f"{name}={fixed[name]}" for name, value in given if fixed.get(name, value) != value]
        if lost:
            remark(f"bbqrec always has {tables.listed(lost)}: an override of it changes other rows only.")

    @property
    def config(self) -> Config:
        """The configuration of preset, seed and overrides."""
        return make_config(self.preset, self.seed, self.overrides)

    @cached_property
    def data(self) -> NamedDataset:
        """The dataset with encoded and scaled features; read once."""
        return sources.load(self.dataset, self.config.data)

    @property
    def store(self) -> Store:
        """The store of trained results, shared by all notebooks with the same `out_dir`."""
        return open_store(Path(self.out_dir).resolve() / "artefacts")

    @property
    def folder(self) -> Path:
        """`out_dir/DATASET/PRESET`, which contains `tables`, `figures` and `notebooks`."""
        return run_folder(Path(self.out_dir).resolve(), self.dataset, self.preset, self.data, claim=True)

    def tokenizer(self, variant: str = "bbqrec") -> Tokenized:
        """Stage 1 of a variant: loaded if it exists, otherwise trained."""
        config = variants.variant_config(variant, self.config)
        return runs.run_tokenizer(self.data, config, self.store)[0]

    def run(self, variant: str = "bbqrec", seed: int | None = None) -> Result:
        """Both stages and the evaluation of a variant: loaded if they exist, otherwise computed."""
        config = make_config(self.preset, self.seed if seed is None else seed, self.overrides)
        return runs.run_variant(self.data, variant, config, self.store)

    def row(self, variant: str, seed: int) -> Result:
        """The results of a variant: as `run`, but from a committed row if there is one, which has no model."""
        config = make_config(self.preset, seed, self.overrides)
        return runs.find_row(self.data, variant, config, self.store)

    def expect(self, holds: bool, rule: str) -> None:
        """Check a rule that data made for teaching keep; other data may break it, and then a sentence says so.

        Raises: AssertionError if it does not hold on planted data.
        """
        if not holds:
            assert not self.truth(), rule
            remark(f"These data break a rule, which small or uniform data can do by chance: {rule}.")

    def truth(self) -> dict[str, Int[np.ndarray, "rows"]]:
        """Planted factors by item row; empty if the dataset has no known truth."""
        path = self._bundle()
        return planted.load_truth(path, self.data) if (path / "truth.json").exists() else {}

    def oracle(self, part: str) -> Float[np.ndarray, "U rows"]:
        """Probability of every item to be each user's target of `part`, from the process that made the planted data.

        Raises: ValueError for data without a planted truth.
        """
        return planted.oracle_scores(self._bundle(), self.data, part)

    def _bundle(self) -> Path:
        """The folder of the dataset."""
        return sources.get(self.dataset) if self.dataset in sources.REGISTRY else Path(self.dataset)


NOT_YET = "Not answered yet: replace None with your answer and run the cell again."
NO_ANSWER = "These data have no answer to this exercise."


def notice(*points: str) -> None:
    """Display what to notice in the figure above, one bullet per point; points quote numbers of this run.

    A point is text, with whatever names of items or modalities: none of it becomes markup.
    """
    _say("\n".join(["**What to notice.**", "", *(f"- {escaping.markdown(point)}" for point in points)]))


def answer(sentence: str) -> None:
    """Display the answer to the question of a section, in one sentence that quotes numbers of this run."""
    _say(f"**Answer.** {escaping.markdown(sentence)}")


def short(name: object) -> str:
    """The name of an item or a category in a sentence: cut after 80 letters."""
    text = str(name)
    return text if len(text) <= 80 else f"{text[:79]}…"


def remark(sentence: str) -> None:
    """Display one sentence, such as why a section has nothing to show on these data."""
    _say(f"*{escaping.markdown(sentence)}*")


def ratio(part: float, whole: float) -> float:
    """`part / whole`; NaN if the whole is 0, so that a text about it can still be written."""
    return float(part) / float(whole) if whole else float("nan")


def show_table(
    frame: pl.DataFrame,
    name: str,
    folder: str | Path,
    caption: str,
    most: int = 40,
    shown: pl.DataFrame | None = None,
) -> None:
    """Save a table with `tables.save_table` and display its first `most` rows, or `shown` if it is given.

    The caption says how many rows are left out; the file has all of them.
    """
    if shown is None:
        shown = frame.head(most)
        if len(shown) < len(frame):
            caption += f" The first {len(shown)} of {len(frame):,} rows."
    tables.save_table(frame, name, folder, caption, shown)
    _say(tables.markdown(shown, caption))


def command(*words: str, folder: str | Path) -> None:
    """Run a command of bbqrec in a folder, as in a terminal; display it and what it prints, without progress bars.

    Raises: RuntimeError with the output of a command that fails.
    """
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    env = os.environ | {"PYTHONPATH": paths, "COLUMNS": "100", "FORCE_COLOR": "1"}  # then tables keep to the width
    called = [sys.executable, "-m", "bbqrec_lab", *words]
    done = subprocess.run(called, cwd=folder, env=env, capture_output=True, text=True, encoding="utf-8")
    told = [line for line in re.split(r"[\r\n]+", done.stderr) if line.strip() and "%|" not in line]
    said = "\n".join([f"$ bbqrec {shlex.join(words)}", done.stdout.rstrip(), *told])
    said = re.sub(r"\x1b\[[\d;]*m", "", said)  # colours of a terminal
    if done.returncode:
        raise RuntimeError(said)
    print(escaping.printable(said))


def verdict(exercise: str, answer: object, *given: object) -> str:
    """Feedback on an answer: not answered yet, right, or look again; it never contains the right answer.

    Args: exercise: such as `02-3`, number of the notebook and of the exercise. answer: None, a number, a string or a
        list of these. given: what the right answer depends on, as in `exercises.COMPUTED`.
    Raises: ValueError for an exercise that does not exist.
    """
    if answer is None:
        return NOT_YET
    tests, values = exercises.tests_of(exercise, *given), _values(answer)
    if not tests:
        return NO_ANSWER
    if len(tests) != len(values):
        return f"Look again: the exercise asks for {len(tests)} value{'s' * (len(tests) > 1)}, not for {len(values)}."
    right = sum(test(value) for test, value in zip(tests, values, strict=True))
    return "Right." if right == len(tests) else f"Look again: {right} of {len(tests)} right."


def _values(answer: object) -> list:
    """The values of an answer: of a list, a tuple, an array or a tensor, or the one that it is."""
    several = isinstance(answer, Iterable) and not isinstance(answer, str) and getattr(answer, "shape", True) != ()
    values = list(answer) if several else [answer]
    return [value.item() if hasattr(value, "item") else value for value in values]


def check(exercise: str, answer: object, *given: object) -> None:
    """Display the verdict on an answer to an exercise (`verdict`)."""
    remark(verdict(exercise, answer, *given))


def solve(exercise: str, answer: object, *given: object) -> None:
    """Display the answer of a solved exercise with its verdict.

    Raises: AssertionError if the check of the exercise rejects it.
    """
    said = verdict(exercise, answer, *given)
    assert said in ("Right.", NO_ANSWER), f"{answer!r}: {said}"
    shown = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in _values(answer)]
    remark(f"Answer: {', '.join(shown)}. {said}")


def _say(text: str) -> None:
    from IPython.display import Markdown, display

    display(Markdown(text))
