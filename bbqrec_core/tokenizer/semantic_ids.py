"""Semantic IDs: the integer table, its health figures, and the repair that makes IDs unique."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from .prefix_tree import build_tree


@dataclass(frozen=True)
class SemanticIds:
    """The IDs of a catalogue, with the codes and vectors that stage 2 and the plots need. Row 0 is padding."""

    code_ids: Int[np.ndarray, "N sid_len"]
    sizes: tuple[int, ...]  # number of codes at each of the sid_len positions
    learned: int  # number of positions that come from the codebook; the others disambiguate
    signals: tuple[str, ...]  # names of the quantized signals, modalities then `id`; empty for IDs without signals
    signal_codes: Int[np.ndarray, "N S L"]
    signal_vectors: Float[np.ndarray, "N S V"]  # compared by the reweighting; by default quantized vectors (V = E)
    present: Bool[np.ndarray, "N S"]
    codebook: Float[np.ndarray, "learned K E"]
    raw_codes: Int[np.ndarray, "N learned"]  # the IDs before the repair, to measure collisions

    @property
    def sid_len(self) -> int:
        """Number of codes in one semantic ID."""
        return self.code_ids.shape[1]

    def save(self, path: Path) -> None:
        """Write to one `.npz`."""
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "SemanticIds":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        sizes, learned = tuple(map(int, arrays.pop("sizes"))), int(arrays.pop("learned"))
        return cls(sizes=sizes, learned=learned, signals=tuple(map(str, arrays.pop("signals"))), **arrays)


def group_sizes(code_ids: Int[np.ndarray, "N sid_len"]) -> tuple[Int[np.ndarray, "groups"], Int[np.ndarray, "N-1"]]:
    """Number of items per distinct ID, and the group of every item, both without row 0."""
    _, group, size = np.unique(code_ids[1:], axis=0, return_inverse=True, return_counts=True)
    return size, group.reshape(-1)


def health(code_ids: Int[np.ndarray, "N sid_len"], sizes: tuple[int, ...]) -> dict[str, float | list[float]]:
    """Figures that show problems of a set of IDs, before or after a repair.

    Returns: `collision_rate` = 1 - distinct IDs / items; `colliding_items`, items that share an ID; `largest_group`;
        per position: `used` and `dead` codes, `perplexity` of code use (1 .. size), and `fan_out`, children per prefix.
    """
    size, _ = group_sizes(code_ids)
    table, tree = code_ids[1:], build_tree(code_ids)
    used, perplexity = [], []
    for position, codes in enumerate(sizes):
        share = np.bincount(table[:, position], minlength=codes) / len(table)
        used.append(int((share > 0).sum()))
        perplexity.append(float(np.exp(-(share[share > 0] * np.log(share[share > 0])).sum())))
    nodes = [1] + [len(level) for level in tree.code]
    return {
        "collision_rate": float(1 - len(size) / len(table)),
        "colliding_items": int(size[size > 1].sum()),
        "largest_group": int(size.max()),
        "used": used,
        "dead": [codes - seen for codes, seen in zip(sizes, used, strict=True)],
        "perplexity": perplexity,
        "fan_out": [nodes[depth + 1] / nodes[depth] for depth in range(len(sizes))],
    }


def move_to_free(
    code_ids: Int[np.ndarray, "N sid_len"], residual: Float[np.ndarray, "N E"], table: Float[np.ndarray, "K E"]
) -> Int[np.ndarray, "N sid_len"]:
    """Give colliding items the nearest free last code below their prefix; the item nearest to its code keeps it.

    Args: residual: input of the last level. table: its codebook.
    Returns: the new table. Items still collide if their prefix has no free code left.
    """
    repaired = code_ids.copy()
    size, group = group_sizes(code_ids)
    _, prefix = group_sizes(code_ids[:, :-1]) if code_ids.shape[1] > 1 else (None, np.zeros(len(group), dtype=int))
    for crowded in np.unique(prefix[size[group] > 1]):
        members = np.flatnonzero(prefix == crowded) + 1
        codes = code_ids[members, -1]
        gap = np.square(residual[members, None] - table).sum(-1)  # (members, K)
        order = np.argsort(gap[np.arange(len(members)), codes], kind="stable")
        stay = np.unique(codes[order], return_index=True)[1]  # the first item of each code, in this order
        free = np.setdiff1d(np.arange(len(table)), codes)
        for index in np.delete(order, stay)[: len(free)]:
            nearest = free[gap[index, free].argmin()]
            repaired[members[index], -1] = nearest
            free = free[free != nearest]
    return repaired
