"""The beam search of a recommender as a compiled program, for single requests or batches of one size.

Most of the time of a single request is the overhead of about two thousand operator calls. Ahead-of-time compilation
turns them into a few dozen loops and matrix products. The lists are the same, 4 to 5 times as fast. Batches of 64 are
1.3 times as fast, because their operators compute more. A program is one file with code, weights and tree. It loads
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
    """`Recommender.beam` in the form for `torch.export`: a module whose sizes do not depend on the request.

    Args: as in `compile_beam`.
    """

    def __init__(self, recommender: Recommender, width: int, masked: bool = False, users: int = 1) -> None:
        super().__init__()
        self.model, self.width, self.masked, self.users = recommender.model, width, masked, users
        max_fanout = recommender.tree.max_fanout.tolist()  # the values of a tensor are unknown during compilation
        self.recommender = replace(recommender, tree=recommender.tree._replace(max_fanout=max_fanout))

    def forward(self, rows: Int[Tensor, "B T"]) -> tuple[Int[Tensor, "B W"], Float[Tensor, "B W"]]:
        """Best items (padded with 0) and scores in nats."""
        return self.recommender.beam(rows, self.width, rows if self.masked else None)

    def export(self) -> torch.export.ExportedProgram:
        """The operators for `users` histories of the maximum length that the model reads."""
        rows = torch.ones(self.users, self.model.config.max_events, dtype=torch.long)
        return torch.export.export(self.eval(), (rows,))


def compile_beam(recommender: Recommender, width: int, path: Path, masked: bool = False, users: int = 1) -> None:
    """Write a beam search as a program to `path`; takes half a minute and needs a C++ compiler.

    Args: recommender: with a code head. width: of the beam. path: ends in `.pt2`. masked: whether the events of a
        request are removed from the tree first. users: batch size; each call has the cost of a full batch.
    Raises: ValueError without a tree.
    Choice: one thread, because the loops are too short to divide. A program needs the same kind of processor and the
        same version of torch as at compilation.
    """
    if recommender.tree is None:
        raise ValueError("a beam search needs a recommender that emits codes, got one with tree=None")
    sizes = {"history": str(recommender.model.config.max_events), "users": str(users)}
    settings = {"cpp.threads": 1, "aot_inductor.metadata": sizes}
    program = Request(recommender, width, masked, users).export()
    torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=settings)


class CompiledBeam:
    """A program of `compile_beam`: returns the lists of `Recommender.beam`, with scores equal up to rounding.

    Args: path: of the program.
    """

    def __init__(self, path: Path) -> None:
        self._run = torch._inductor.aoti_load_package(str(path))
        sizes = self._run.get_metadata()
        self.history, self.users = int(sizes["history"]), int(sizes["users"])  # maximum T and B

    def __call__(self, rows: Int[Tensor, "B T"]) -> tuple[Int[Tensor, "B W"], Float[Tensor, "B W"]]:
        """Best items (padded with 0) and scores in nats for the last events of users, padded with 0 on the right.

        Raises: ValueError for more users than the compiled batch size, or more events than the model reads.
        """
        asked, events = rows.shape
        if asked > self.users or events > self.history:
            limits = f"at most {self.users} users of at most {self.history} events"
            raise ValueError(f"this program takes {limits}, got rows of shape {tuple(rows.shape)}")
        items, scores = self._run(F.pad(rows, (0, self.history - events, 0, self.users - asked)))
        return items[:asked], scores[:asked]
