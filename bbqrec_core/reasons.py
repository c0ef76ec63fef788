"""Why an item may have been recommended: what its semantic ID shares with a history, and what usually follows it."""

import numpy as np
from jaxtyping import Float64, Int

from .data import Sequences
from .semantic_ids import SemanticIds


def shared_prefix(
    first: Int[np.ndarray, "R positions"], second: Int[np.ndarray, "H positions"]
) -> Int[np.ndarray, "R H"]:
    """How many leading codes the IDs of each pair of items share, from 0 to the number of positions."""
    same = first[:, None] == second[None]
    return np.cumprod(same, axis=-1, dtype=np.int64).sum(-1)  # after the first difference nothing counts


def longest_shared(
    ids: SemanticIds, history: Sequences, users: Int[np.ndarray, "U"], lists: Int[np.ndarray, "U k"]
) -> Int[np.ndarray, "U k"]:
    """For each listed item the longest prefix of learned codes that it shares with any item of the user's history.

    Args: history: of all users, each of one item at least. users: whose lists these are. lists: item rows, 0 (no item)
        shares nothing.
    """
    codes, found = ids.code_ids[:, : ids.learned], np.zeros(lists.shape, np.int64)
    for line, user in enumerate(users):
        past = history.items[history.offsets[user] : history.offsets[user + 1]]
        found[line] = shared_prefix(codes[lists[line]], codes[past]).max(1)
    return np.where(lists > 0, found, 0)


def draw_others(
    history: Sequences, users: Int[np.ndarray, "U"], n_items: int, k: int, rng: np.random.Generator
) -> Int[np.ndarray, "U k"]:
    """For each user k item rows drawn evenly from those that the history lacks; 0 where fewer are left."""
    drawn = np.zeros((len(users), k), np.int64)
    for line, user in enumerate(users):
        past = history.items[history.offsets[user] : history.offsets[user + 1]]
        left = np.setdiff1d(np.arange(1, n_items + 1), past)
        drawn[line, : min(k, len(left))] = rng.choice(left, min(k, len(left)), replace=False)
    return drawn


def step_lift(codes: Int[np.ndarray, "N"], train: Sequences, size: int) -> Float64[np.ndarray, "K K"]:
    """How many times as often as by chance one code comes right after another in the events of a user.

        lift[a, b] = n(a, b) n / (n(a, .) n(., b)),  n(a, b) = steps from an item of code a to one of code b

    Args: codes: of each item row at one level. train: training events. size: K. Returns: 0 where a step never happened.
    """
    inside = np.ones(len(train.items), bool)
    begins = train.offsets[:-1]
    inside[begins[begins < len(inside)]] = False  # from one user to the next is no step
    before, after = codes[train.items[:-1]][inside[1:]], codes[train.items[1:]][inside[1:]]
    steps = np.bincount(before * size + after, minlength=size * size).reshape(size, size)
    chance = np.outer(steps.sum(1), steps.sum(0)) / max(steps.sum(), 1)
    return np.divide(steps, chance, out=np.zeros((size, size)), where=chance > 0)
