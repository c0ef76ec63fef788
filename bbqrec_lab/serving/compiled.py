"""The beam search of a served run: eager until a process beside the server has compiled it, then by the program.

`python -m bbqrec_lab.serving.compiled RUN WIDTH FILE` is that process.
"""

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from bbqrec_core import Recommender
from bbqrec_core.dataset import gather_padded
from bbqrec_lab.measure import processor_name
from bbqrec_lab.speed.compiled_search import CompiledBeam, compile_beam
from bbqrec_lab.store import MANIFEST, Store, file_hash


class Beam:
    """Lists by a beam search, for a model that generates IDs and has no vectors of items.

    Args: recommender: as trained; lists of another one, with new items, are eager. width: of the beam.
    Raises: ValueError for a model that scores items, since a beam over IDs alone would find other lists.
    """

    def __init__(self, recommender: object, width: int) -> None:
        model = recommender.model if isinstance(recommender, Recommender) else None
        if model is None or model.head is None or model.items is not None or model.per_item > 1:
            raise ValueError("--beam needs a run that only generates IDs (variant generation): leave it out")
        self.recommender, self.width, self.program = recommender, width, None

    def compile(self, directory: Path, say: Callable[[str], None]) -> None:
        """Take the program from the store beside a run, or have it compiled by a process of its own, meanwhile."""
        run = {"run": file_hash(directory / MANIFEST), "width": self.width, "torch": torch.__version__}

        def make(folder: Path) -> None:
            words = [sys.executable, "-m", __name__, str(directory), str(self.width), str(folder / "beam.pt2")]
            subprocess.run(words, check=True, capture_output=True, text=True)

        def work() -> None:
            try:
                folder = Store(directory.parent).get("program", run | {"processor": processor_name()}, make)
                self.program = CompiledBeam(folder / "beam.pt2")
                say("the beam search is compiled")
            except (OSError, RuntimeError, ValueError, subprocess.CalledProcessError) as error:
                told = (getattr(error, "stderr", "") or str(error)).strip().splitlines() or ["no message"]
                say(f"the beam search stays eager ({told[-1]})")

        threading.Thread(target=work, name="compiler", daemon=True).start()

    @torch.inference_mode()
    def lists(
        self, recommender: Recommender, histories: Sequence[Int[np.ndarray, "_"]], k: int
    ) -> list[tuple[Int[np.ndarray, "_"], Float[np.ndarray, "_"]]]:
        """The k best items of the beam and their scores after each history, without its items; fewer if it has few."""
        sizes = np.array([len(rows) for rows in histories])
        read = np.minimum(sizes, recommender.model.config.max_events)
        rows = gather_padded(np.concatenate(histories).astype(np.int32), np.cumsum(sizes) - read, read)
        if self.program is not None and recommender is self.recommender:
            pairs = [self.program(one[None]) for one in rows]
            items, scores = (np.concatenate([pair[place].numpy() for pair in pairs]) for place in range(2))
        else:
            items, scores = (part.numpy() for part in recommender.beam(rows, self.width, rows))
        found = []
        for history, row, score in zip(histories, items, scores, strict=True):
            keep = (row > 0) & ~np.isin(row, history)  # events before those that are read are still in the beam
            found.append((row[keep][:k], score[keep][:k]))
        return found


def main() -> None:
    """Compile the search of a run into a file."""
    from bbqrec_lab.experiments.runs import load_scorer
    from bbqrec_lab.threads import use_one_thread

    use_one_thread()
    directory, width, path = sys.argv[1:]
    compile_beam(load_scorer(Path(directory)), int(width), Path(path), masked=True)


if __name__ == "__main__":
    main()
