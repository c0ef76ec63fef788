"""TIGER's repair of colliding IDs: one more code, which numbers the items that share an ID."""

from dataclasses import replace

import numpy as np
from jaxtyping import Int

from bbqrec_core import SemanticIds, Tokenized, health
from bbqrec_core.tokenizer.semantic_ids import group_sizes


def append_extra(code_ids: Int[np.ndarray, "N sid_len"]) -> tuple[Int[np.ndarray, "N longer"], int]:
    """TIGER's repair: a new position numbers the items of each colliding group; returns the table and the size.

    Rows are permuted at load, so these numbers carry no information about the item.
    Source: Rajput et al. 2023 (TIGER), section 3.1.
    """
    _, group = group_sizes(code_ids)
    order = np.argsort(group, kind="stable")
    ranked = group[order]
    begins = np.concatenate([[True], ranked[1:] != ranked[:-1]])
    position = np.arange(len(ranked))
    number = position - np.maximum.accumulate(np.where(begins, position, 0))
    extra = np.zeros((len(code_ids), 1), dtype=code_ids.dtype)
    extra[order + 1, 0] = number
    return np.hstack([code_ids, extra]), int(number.max()) + 1


def with_extra(ids: SemanticIds) -> SemanticIds:
    """The same IDs with one more code for each item, even without collisions."""
    table, size = append_extra(ids.code_ids)
    return replace(ids, code_ids=table, sizes=(*ids.sizes, size))


def repair_by_extra(done: Tokenized) -> Tokenized:
    """A finished stage 1 without a repair, and then with `append_extra`."""
    ids = with_extra(done.ids)
    return done._replace(ids=ids, health=done.health | {"after": health(ids.code_ids, ids.sizes)})
