"""Codes of many vectors by a residual quantizer, in blocks whose distances stay in cache."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from bbqrec_core import ResidualQuantizer
from bbqrec_core.kernels import argmin_rows

BLOCK = 1024  # vectors encoded at a time: their distances to 256 codes take 1 MB


@torch.no_grad()
def encode(quantizer: ResidualQuantizer, signal: Float[Tensor, "*S E"]) -> Int[Tensor, "*S L"]:
    """The codes of `quantizer(signal)` alone."""
    codebook, flat = quantizer.codebook, signal.reshape(-1, signal.shape[-1])
    squares = codebook.square().sum(-1)
    codes = torch.empty(len(flat), len(codebook), dtype=torch.long, device=flat.device)
    scratch = flat.new_empty(min(len(flat), BLOCK), codebook.shape[1])
    for block, found in zip(flat.split(BLOCK), codes.split(BLOCK), strict=True):
        residual, distance = block.clone(), scratch[: len(block)]
        for level, table in enumerate(codebook):
            torch.addmm(squares[level], residual, table.T, alpha=-2, out=distance)  # as in `nearest_code`
            found[:, level] = argmin_rows(distance)
            residual -= F.embedding(found[:, level], table)
    return codes.reshape(*signal.shape[:-1], len(codebook))
