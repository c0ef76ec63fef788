"""Agreement of learned codes with the planted tree and with the codes of other seeds."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics import adjusted_mutual_info_score

MOST_ITEMS = 3000  # items per agreement, because the correction for chance is quadratic in the number of groups


def prefix_groups(codes: Int[np.ndarray, "R sid_len"]) -> Int[np.ndarray, "sid_len R"]:
    """The group of each row by its first code, by its first two codes, and so on; groups are numbered from 0."""
    lengths = range(1, codes.shape[1] + 1)
    groups = [np.unique(codes[:, :length], axis=0, return_inverse=True)[1].reshape(-1) for length in lengths]
    return np.array(groups, dtype=np.int64).reshape(codes.shape[1], len(codes))


def true_tree(truth: Mapping[str, Int[np.ndarray, "rows"]]) -> Int[np.ndarray, "rows depth"]:
    """Digits of the planted tree by item row, root first, from `planted.load_truth`; -1 if unknown.

    Raises: ValueError if `truth` has no `level_1`.
    """
    levels = [name for name in sorted(truth) if name.startswith("level_")]
    if not levels:
        raise ValueError(f"a true tree needs level_1, level_2, ..., got {sorted(truth) or 'nothing'}")
    return np.stack([truth[name] for name in levels], 1)


def tree_agreement(
    codes: Int[np.ndarray, "rows sid_len"], tree: Int[np.ndarray, "rows depth"], seed: int = 0
) -> Float[np.ndarray, "sid_len depth"]:
    """Agreement of groups below learned prefixes with groups below true nodes, for each prefix length and tree level.

        AMI(U, V) = (I(U; V) - E I) / ((H(U) + H(V)) / 2 - E I), with E I for groups of the same sizes drawn at random

    Args: codes: learned IDs. tree: digits of the true path, same rows as `codes`; rows with a negative digit (padding,
        items without truth) are left out. seed: of the drawn items if there are more than `MOST_ITEMS`.
    Returns: 1 for equal groups, 0 on average for unrelated groups; NaN if each group of one side has a single item.
    Raises: ValueError if fewer than two items have a truth.
    Source: Vinh, Epps and Bailey 2010 (adjusted for chance, arithmetic mean of the entropies).
    """
    known = np.flatnonzero((tree >= 0).all(1))
    if len(known) < 2:
        raise ValueError(f"agreement needs at least two items with a known place in the tree, got {len(known)}")
    known = np.random.default_rng(seed).permutation(known)[:MOST_ITEMS]
    learned, true = prefix_groups(codes[known]), prefix_groups(tree[known])
    return np.array([[_agreement(prefix, node) for node in true] for prefix in learned])


def _agreement(one: Int[np.ndarray, "R"], two: Int[np.ndarray, "R"]) -> float:
    """Adjusted mutual information; NaN if all groups of one side have a single item, because it has no scale then."""
    if max(one.max(), two.max()) + 1 == len(one):
        return float("nan")
    return float(adjusted_mutual_info_score(one, two))


class Stability(NamedTuple):
    """Similarity of the IDs of several seeds by prefix length, each value the mean over pairs of seeds.

    agreement: (lengths,) adjusted mutual information, 0 on average for unrelated IDs, NaN if no prefix is shared.
    together: (lengths,) share of item pairs with a common prefix under one seed that have one under the other seed too.
    by_chance: (lengths,) share of all item pairs that have a common prefix; the value of `together` for unrelated IDs.
    All are NaN for a single item.
    """

    agreement: Float[np.ndarray, "lengths"]
    together: Float[np.ndarray, "lengths"]
    by_chance: Float[np.ndarray, "lengths"]


def seed_stability(tables: Sequence[Int[np.ndarray, "N _"]], seed: int = 0) -> Stability:
    """Compare the item groups of several seeds. Code numbers are arbitrary, so groups are compared, not numbers.

    Args: tables: ID tables with the padding row, one per seed; longer IDs are cut to the common length. seed: of the
        drawn items if there are more than `MOST_ITEMS`.
    Raises: ValueError for fewer than two tables, or tables of different catalogues.
    """
    sizes = [len(table) for table in tables]
    if len(tables) < 2 or len(set(sizes)) > 1:
        raise ValueError(f"stability needs at least two tables of one catalogue, got tables of {sizes} rows")
    drawn = np.random.default_rng(seed).permutation(np.arange(1, sizes[0]))[:MOST_ITEMS]
    length = min(table.shape[1] for table in tables)
    groups = [prefix_groups(table[drawn][:, :length]) for table in tables]
    pairs = [[_compared(a, b) for a, b in zip(one, two, strict=True)] for one, two in combinations(groups, 2)]
    return Stability(*np.array(pairs).mean(0).T)


def together_by_chance(
    tables: Sequence[Int[np.ndarray, "N _"]], seed: int = 0, draws: int = 200
) -> tuple[float, float]:
    """The range of `Stability.together` at the first code if IDs are dealt to the items at random: 95 % of the draws.

    A value inside this range is what grouping without any relation gives on these data.

    Args: tables: as in `seed_stability`. seed: of the drawn items and of the dealing.
    Returns: NaN for both if no two items share a first code.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(np.arange(1, len(tables[0])))[:MOST_ITEMS]
    groups = [np.unique(table[drawn, 0], return_inverse=True)[1].reshape(-1) for table in tables]
    sizes = [_pairs(np.bincount(group)) for group in groups]
    if not any(sizes):
        return float("nan"), float("nan")
    found = []
    for _ in range(draws):
        dealt = [rng.permutation(group) for group in groups]
        found.append(np.nanmean([_together(dealt, sizes, a, b) for a, b in combinations(range(len(groups)), 2)]))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _together(groups: Sequence[Int[np.ndarray, "R"]], sizes: Sequence[float], one: int, two: int) -> float:
    """As `_compared`, the share of pairs together in one grouping that are together in the other; NaN without pairs."""
    both = _pairs(np.bincount(groups[one] * (groups[two].max() + 1) + groups[two]))
    shares = [both / sizes[index] for index in (one, two) if sizes[index]]
    return float(np.mean(shares)) if shares else float("nan")


def _compared(one: Int[np.ndarray, "R"], two: Int[np.ndarray, "R"]) -> tuple[float, float, float]:
    """Agreement of two groupings; the share of pairs together in one that are together in the other; and by chance."""
    both = _pairs(np.unique(np.stack([one, two]), axis=1, return_counts=True)[1])
    apart = [_pairs(np.bincount(group)) for group in (one, two)]
    shares = [both / pairs for pairs in apart if pairs]
    everything = len(one) * (len(one) - 1) / 2
    by_chance = sum(apart) / 2 / everything if everything else float("nan")
    return _agreement(one, two), float(np.mean(shares)) if shares else float("nan"), by_chance


def _pairs(sizes: Int[np.ndarray, "groups"]) -> float:
    """Number of pairs within groups of these sizes."""
    return float((sizes * (sizes - 1)).sum() / 2)
