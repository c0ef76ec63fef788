"""A recommender's beam search as a compiled program, for requests one at a time or in batches of one size.

Most of a single request's time goes into calling some two thousand operators, not into what they compute. Compiled
ahead of time they are a few dozen loops and matrix products: the same lists, four to five times as fast, and batches of
64, whose operators have more to compute, 1.3 times. A program is a file that holds code, weights and tree; it loads
within a tenth of a second, without a compiler and without the model.
"""

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bbqrec_core import Recommender


class Request(nn.Module):
    """`Recommender.beam` as `torch.export` takes it: a module whose sizes do not depend on what is asked.

    Args: as of `compile_beam`.
    """

    def __init__(self, recommender: Recommender, width: int, masked: bool = False, users: int = 1) -> None:
        super().__init__()
        self.model, self.width, self.masked, self.users = recommender.model, width, masked, users
        max_fanout = recommender.tree.max_fanout.tolist()  # what stands in a tensor is not known while compiling
        self.recommender = replace(recommender, tree=recommender.tree._replace(max_fanout=max_fanout))

    def forward(self, rows: Int[Tensor, "B T"]) -> tuple[Int[Tensor, "B W"], Float[Tensor, "B W"]]:
        """Best items (0 where fewer) and scores in nats."""
        return self.recommender.beam(rows, self.width, rows if self.masked else None)

    def export(self) -> torch.export.ExportedProgram:
        """The operators for as many users as are asked at a time, with as many events as the model reads."""
        rows = torch.ones(self.users, self.model.config.max_events, dtype=torch.long)
        return torch.export.export(self.eval(), (rows,))


def compile_beam(recommender: Recommender, width: int, path: Path, masked: bool = False, users: int = 1) -> None:
    """Write a beam search as a program to `path`; takes half a minute and a C++ compiler.

    Args: recommender: one that emits codes. width: of the beam. path: ends in `.pt2`. masked: whether a request's
        events leave the tree first. users: that are asked at a time; every call costs what so many cost.
    Raises: ValueError without a tree.
    Choice: one thread, since the loops are too short to share. A program runs on processors like the one it was made
        on, under the same version of torch.
    """
    if recommender.tree is None:
        raise ValueError("only a recommender that emits codes has a beam, got one with tree=None")
    sizes = {"history": str(recommender.model.config.max_events), "users": str(users)}
    settings = {"cpp.threads": 1, "aot_inductor.metadata": sizes}
    program = Request(recommender, width, masked, users).export()
    torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=settings)


class CompiledBeam:
    """A program of `compile_beam`: answers as `Recommender.beam` does, scores to rounding.

    Args: path: of the program.
    """

    def __init__(self, path: Path) -> None:
        self._run = torch._inductor.aoti_load_package(str(path))
        sizes = self._run.get_metadata()
        self.history, self.users = int(sizes["history"]), int(sizes["users"])  # T and B at most

    def __call__(self, rows: Int[Tensor, "B T"]) -> tuple[Int[Tensor, "B W"], Float[Tensor, "B W"]]:
        """Best items (0 where fewer) and scores in nats for users' last events; 0 pads on the right.

        Raises: ValueError for more users than it was compiled for, or more events than the model reads.
        """
        asked, events = rows.shape
        if asked > self.users or events > self.history:
            limits = f"at most {self.users} users of at most {self.history} events"
            raise ValueError(f"this program answers {limits}, got rows {tuple(rows.shape)}")
        items, scores = self._run(F.pad(rows, (0, self.history - events, 0, self.users - asked)))
        return items[:asked], scores[:asked]
