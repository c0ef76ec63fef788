"""A repair for comparison: entropic transport assigns the free last codes to colliding items."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from bbqrec_core import Tokenized, health
from bbqrec_core.tokenizer.semantic_ids import group_sizes, move_to_free


def sinkhorn(
    cost: Float[np.ndarray, "n K"], regularisation: float = 0.05, iterations: int = 50
) -> Float[np.ndarray, "n K"]:
    """Entropic transport of n <= K items (mass 1 each) onto K codes (at most 1 each), by alternate scaling.

    Args: cost: any unit; it is divided by its mean. Source: Cuturi 2013; its use on codes, LC-Rec (Zheng et al. 2024).
    """
    plan = np.exp(-(cost - cost.min(1, keepdims=True)) / (regularisation * max(float(cost.mean()), 1e-12)))
    for _ in range(iterations):
        plan /= np.maximum(plan.sum(0), 1)
        plan /= np.maximum(plan.sum(1, keepdims=True), 1e-300)
    return plan


def spread_by_transport(
    code_ids: Int[np.ndarray, "N sid_len"], residual: Float[np.ndarray, "N E"], table: Float[np.ndarray, "K E"]
) -> Int[np.ndarray, "N sid_len"]:
    """Give colliding items new last codes by `sinkhorn`, for all colliding items of a prefix at once, at most K.

    Items without a collision keep their codes. `move_to_free` repairs the collisions that remain after the plan.

    Args, returns: as `move_to_free`.
    """
    repaired = code_ids.copy()
    size, group = group_sizes(code_ids)
    _, prefix = group_sizes(code_ids[:, :-1]) if code_ids.shape[1] > 1 else (None, np.zeros(len(group), dtype=int))
    for crowded in np.unique(prefix[size[group] > 1]):
        members = np.flatnonzero((prefix == crowded) & (size[group] > 1))
        own = np.square(residual[members + 1] - table[code_ids[members + 1, -1]]).sum(-1)
        members = members[np.argsort(own, kind="stable")[: len(table)]]
        held = code_ids[np.flatnonzero((prefix == crowded) & (size[group] == 1)) + 1, -1]
        free = np.setdiff1d(np.arange(len(table)), held)
        if len(free):
            cost = np.square(residual[members + 1, None] - table[free]).sum(-1)
            repaired[members + 1, -1] = free[sinkhorn(cost).argmax(1)]
    return move_to_free(repaired, residual, table)


def repair_by_transport(done: Tokenized) -> Tokenized:
    """A finished stage 1 with `spread_by_transport` instead of its own repair, if it had one."""
    ids, sizes = done.ids, done.ids.sizes[: done.ids.learned]
    table = spread_by_transport(ids.raw_codes, done.residual, ids.codebook[-1][: sizes[-1]])
    figures = done.health | {"after": health(table, sizes)}
    return done._replace(ids=replace(ids, code_ids=table, sizes=sizes), health=figures)
