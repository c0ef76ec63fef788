"""Remade tokens in the words of the old ones: codes are renamed so that as many items as possible keep theirs."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from bbqrec_core import SemanticIds


def renaming(
    old: Int[np.ndarray, "N L"], new: Int[np.ndarray, "N L"], sizes: tuple[int, ...]
) -> list[Int[np.ndarray, "K"]]:
    """For each level the old code that every new code becomes, each used once.

        names_l = argmax over permutations p of the number of items i with p(new[i, l]) = old[i, l]

    Args: old, new: codes of the same items. sizes: codes at each level, K.
    """
    found = []
    for level, size in enumerate(sizes):
        both = np.zeros((size, size), np.int64)
        np.add.at(both, (new[:, level], old[:, level]), 1)
        found.append(linear_sum_assignment(both, maximize=True)[1])  # rows come in order, 0..K-1
    return found


def renamed(ids: SemanticIds, names: list[Int[np.ndarray, "K"]]) -> SemanticIds:
    """The same IDs and codebook under other codes; vectors of items do not change."""
    codebook = np.empty_like(ids.codebook)
    for level, name in enumerate(names[: ids.learned]):
        codebook[level, name] = ids.codebook[level]
    return replace(
        ids,
        code_ids=_by_level(ids.code_ids, names),
        raw_codes=_by_level(ids.raw_codes, names),
        signal_codes=_by_level(ids.signal_codes, names),
        codebook=codebook,
    )


def renamed_weights(state: dict[str, Tensor], names: list[Int[np.ndarray, "K"]]) -> dict[str, Tensor]:
    """The weights of stage 1 with a codebook under other codes, so that new items get these codes too."""
    found = dict(state)
    for key, value in state.items():
        if key.startswith("quantizer.") and value.ndim >= 2 and value.shape[:2] == (len(names), len(names[0])):
            found[key] = value.clone()
            for level, name in enumerate(names):
                found[key][level, torch.from_numpy(name)] = value[level]
    return found


def _by_level(
    codes: Int[np.ndarray, "N *signals L"], names: list[Int[np.ndarray, "K"]]
) -> Int[np.ndarray, "N *signals L"]:
    """Codes under other names; levels without names stay."""
    found = codes.copy()
    for level in range(min(codes.shape[-1], len(names))):
        found[..., level] = names[level][codes[..., level]]
    return found
