"""A recommender's beam search as a compiled program, for requests that come one at a time.

Most of a single request's time goes into calling some two thousand operators, not into what they compute. Compiled
ahead of time they are a few dozen loops and matrix products: the same lists, four to five times as fast. A program is
a file that holds code, weights and tree; it loads within a tenth of a second, without a compiler and without the model.
"""

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .recommender import Recommender


class Request(nn.Module):
    """`Recommender.beam` of one user as `torch.export` takes it: a module whose sizes do not depend on what is asked.

    Args: as of `compile_beam`.
    """

    def __init__(self, recommender: Recommender, width: int, masked: bool = False) -> None:
        super().__init__()
        self.model, self.width, self.masked = recommender.model, width, masked
        widest = recommender.tree.widest.tolist()  # what stands in a tensor is not known while compiling
        self.recommender = replace(recommender, tree=recommender.tree._replace(widest=widest))

    def forward(self, rows: Int[Tensor, "one T"]) -> tuple[Int[Tensor, "one W"], Float[Tensor, "one W"]]:
        """Best items (0 where fewer) and scores in nats."""
        return self.recommender.beam(rows, self.width, rows if self.masked else None)

    def export(self) -> torch.export.ExportedProgram:
        """The operators of a request of as many events as the model reads."""
        return torch.export.export(self.eval(), (torch.ones(1, self.model.config.history, dtype=torch.long),))


def compile_beam(recommender: Recommender, width: int, path: Path, masked: bool = False) -> None:
    """Write the beam search of single requests as a program to `path`; takes half a minute and a C++ compiler.

    Args: recommender: one that emits codes. width: of the beam. path: ends in `.pt2`. masked: whether a request's
        events leave the tree first.
    Raises: ValueError without a tree.
    Choice: one thread, since the loops are too short to share. A program runs on processors like the one it was made
        on, under the same version of torch.
    """
    if recommender.tree is None:
        raise ValueError("only a recommender that emits codes has a beam, got one with tree=None")
    settings = {"cpp.threads": 1, "aot_inductor.metadata": {"history": str(recommender.model.config.history)}}
    program = Request(recommender, width, masked).export()
    torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=settings)


class CompiledBeam:
    """A program of `compile_beam`: answers as `Recommender.beam` does, scores to rounding.

    Args: path: of the program.
    """

    def __init__(self, path: Path) -> None:
        self._run = torch._inductor.aoti_load_package(str(path))
        self.history = int(self._run.get_metadata()["history"])  # T, events of a request at most

    def __call__(self, rows: Int[Tensor, "B T"]) -> tuple[Int[Tensor, "B W"], Float[Tensor, "B W"]]:
        """Best items (0 where fewer) and scores in nats for one user's last events; 0 pads on the right.

        Raises: ValueError for more than one user or more events than the model reads.
        """
        if len(rows) != 1 or rows.shape[1] > self.history:
            raise ValueError(f"a request is one user of at most {self.history} events, got rows {tuple(rows.shape)}")
        return self._run(F.pad(rows, (0, self.history - rows.shape[1])))
