"""Neighbourhoods of items: nearest items, shared audiences, purity of prefixes, agreement of signals, words."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import compress
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.stats import rankdata

from bbqrec_core import Sequences


def mean_signals(behaviour: Float[np.ndarray, "N S E"], present: Bool[np.ndarray, "N S"]) -> Float[np.ndarray, "N E"]:
    """One vector per item: the mean of its present signals, scaled to length sqrt(E); zero without signals."""
    mean = (behaviour * present[..., None]).sum(1)
    length = np.linalg.norm(mean, axis=1, keepdims=True)
    return (mean / np.maximum(length, 1e-12) * np.sqrt(behaviour.shape[-1])).astype(np.float32)


def nearest(
    vectors: Float[np.ndarray, "N d"], present: Bool[np.ndarray, "N"], rows: Int[np.ndarray, "Q"], k: int
) -> Int[np.ndarray, "Q k"]:
    """The k present item rows with the highest cosine to each query row, best first, without the query row.

    Returns: fewer columns if fewer than k other items are present.
    """
    others = np.flatnonzero(present)
    k = min(k, max(len(others) - 1, 0))
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found = []
    for block in np.array_split(rows, max(1, len(rows) // 512)):
        cosine = unit[block] @ unit[others].T
        cosine[block[:, None] == others] = -np.inf
        found.append(others[np.argsort(-cosine, axis=1, kind="stable")[:, :k]])
    return np.concatenate(found)


def shared_audience(
    sequences: Sequences, first: Int[np.ndarray, "P"], second: Int[np.ndarray, "P"]
) -> Float[np.ndarray, "P"]:
    """Cosine of the sets of users of two items, |U_i & U_j| / sqrt(|U_i| |U_j|), in [0, 1]; NaN if either has none."""
    users = np.repeat(np.arange(len(sequences.offsets) - 1), np.diff(sequences.offsets))
    height = max(int(rows.max(initial=0)) for rows in (sequences.items, first, second)) + 1
    seen = sparse.csr_array((np.ones(len(users)), (sequences.items, users)), (height, len(sequences.offsets) - 1))
    seen.data[:] = 1  # repeated events of a user count once
    size = np.diff(seen.indptr)
    common = seen[first].multiply(seen[second]).sum(1)
    with np.errstate(invalid="ignore"):
        return common / np.sqrt(size[first] * size[second])


def audience_of_nearest(
    vectors: Float[np.ndarray, "N d"], present: Bool[np.ndarray, "N"], sequences: Sequences, seed: int = 0, k: int = 10
) -> tuple[float, float]:
    """Mean shared audience of items and their k nearest neighbours in a space, and its standard error.

    Args: sequences: events that define audiences; items without events are left out. k: maximum number of neighbours;
        fewer if fewer items are present. At most 500 query items are drawn.
    Returns: NaN for both if fewer than two items with an event are present.
    """
    active = present & (np.bincount(sequences.items, minlength=len(present)) > 0)
    if active.sum() < 2:
        return float("nan"), float("nan")
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(active))[:500]
    near = nearest(vectors, active, rows, k)
    cosine = shared_audience(sequences, np.repeat(rows, near.shape[1]), near.reshape(-1)).reshape(near.shape).mean(1)
    return float(cosine.mean()), float(cosine.std(ddof=1) / np.sqrt(len(cosine)))


class Purity(NamedTuple):
    """Likeness of random pairs of items by the length of the prefix they share (entry 0: any two items).

    mean, error: (depths,) mean likeness, NaN without pairs, and its standard error, NaN with fewer than two pairs.
    pairs: number of distinct pairs.
    """

    mean: Float[np.ndarray, "depths"]
    error: Float[np.ndarray, "depths"]
    pairs: Int[np.ndarray, "depths"]


def prefix_purity(
    code_ids: Int[np.ndarray, "N sid_len"],
    rows: Int[np.ndarray, "R"],
    likeness: Callable[[np.ndarray, np.ndarray], np.ndarray],
    seed: int = 0,
    draws: int = 4000,
) -> Purity:
    """Likeness of items that share a prefix; pairs are drawn below common prefixes of each length.

    Args: code_ids: with the padding row. rows: the items to draw from. likeness: of two arrays of item rows, for
        example `shared_audience` of some events. draws: pairs drawn per depth.
    Choice: an item is drawn first, then a partner from its group, so a large group does not dominate the mean.
    """
    rng = np.random.default_rng(seed)
    mean, error, pairs = [], [], []
    for depth in range(code_ids.shape[1] + 1):
        _, group = np.unique(code_ids[rows, :depth], axis=0, return_inverse=True)
        first, second = _pairs(group.reshape(-1) if depth else np.zeros(len(rows), dtype=np.int64), rng, draws)
        values = likeness(rows[first], rows[second])
        pairs.append(len(np.unique(np.sort([first, second], axis=0), axis=1).T))
        mean.append(values.mean() if len(values) else np.nan)
        # A repeated pair adds no information: if few items share a prefix, more draws must not shrink the error.
        error.append(values.std(ddof=1) / np.sqrt(pairs[-1]) if pairs[-1] > 1 else np.nan)
    return Purity(np.array(mean), np.array(error), np.array(pairs))


def _pairs(
    group: Int[np.ndarray, "R"], rng: np.random.Generator, draws: int
) -> tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"]]:
    """Random items from groups of at least two, and for each one another member of its group."""
    order = np.argsort(group, kind="stable")
    size = np.bincount(group)
    start = np.cumsum(size) - size
    place = np.empty(len(group), dtype=np.int64)
    place[order] = np.arange(len(group)) - start[group[order]]
    crowd = np.flatnonzero(size[group] > 1)
    if not len(crowd):
        return crowd, crowd
    first = crowd[rng.integers(0, len(crowd), draws)]
    home = group[first]
    step = 1 + (rng.random(draws) * (size[home] - 1)).astype(np.int64)  # 1 .. size - 1: never the item itself
    return first, order[start[home] + (place[first] + step) % size[home]]


class Agreement(NamedTuple):
    """How often two signals of an item have the same code, measured and by chance; both (L, S, S) in [0, 1]."""

    share: Float[np.ndarray, "L S S"]
    chance: Float[np.ndarray, "L S S"]


def code_agreement(signal_codes: Int[np.ndarray, "N S L"], present: Bool[np.ndarray, "N S"]) -> Agreement:
    """Agreement of each pair of signals at each level, over items that have both; NaN if there are none.

    chance = sum_k (share of items with code k for signal i) * (share of items with code k for signal j)
    """
    n_signals, levels = signal_codes.shape[1:]
    share, chance = (np.full((levels, n_signals, n_signals), np.nan) for _ in range(2))
    size = int(signal_codes.max(initial=0)) + 1
    for i, j in np.ndindex(n_signals, n_signals):
        both = present[:, i] & present[:, j]
        for level in range(levels) if both.any() else ():
            one, two = signal_codes[both, i, level], signal_codes[both, j, level]
            share[level, i, j] = (one == two).mean()
            use = [np.bincount(codes, minlength=size) / both.sum() for codes in (one, two)]
            chance[level, i, j] = use[0] @ use[1]
    return Agreement(share, chance)


class Word(NamedTuple):
    """A word of a group's texts: in how many texts of the group and outside it, and its lift (`distinctive_words`)."""

    word: str
    inside: int
    outside: int
    lift: float


def distinctive_words(
    texts: Sequence[str | None], member: Bool[np.ndarray, "N"], most: int = 5, least: int = 5, lift: float = 2.0
) -> list[Word]:
    """Words that are typical of the texts of a group, highest lift first, then the most frequent.

        lift = share of the group's texts with the word / share of all texts with the word

    Args: texts: one per item or None. member: which items belong to the group. least: texts of the group that a word
        must be in: a word of few items has a high lift by chance. lift: the least, in which no article or pronoun is.
    Returns: at most `most` words; parts joined by a hyphen are one.
    """
    sets = [set(re.findall(r"\b[^\W\d_](?:[^\W\d_]|-(?=[^\W\d_])){2,}", (text or "").lower())) for text in texts]
    n_texts, n_in = (
        sum(map(bool, sets)),
        sum(bool(words) for words, belongs in zip(sets, member, strict=True) if belongs),
    )
    inside, all_of = (Counter(word for words in some for word in words) for some in (compress(sets, member), sets))
    found = [
        Word(word, here, all_of[word] - here, here * n_texts / (n_in * all_of[word]))
        for word, here in inside.items()
        if here >= least
    ]
    lifted = [word for word in found if word.lift >= lift]
    return sorted(lifted, key=lambda word: (-word.lift, -word.inside, word.word))[:most]


class Against(NamedTuple):
    """One number of the items of a group against that of all others.

    above: share of pairs of an item of the group and another item in which the first has the larger number, equal
        ones counted half; NaN where either side has fewer than five known numbers. inside, everywhere: the median.
    """

    above: float
    inside: float
    everywhere: float


class Profile(NamedTuple):
    """What the items of a group have in common, as far as texts, years and training events tell."""

    items: int
    words: list[Word]
    years: Against
    events: Against


def profile(items: pl.DataFrame, counts: Int[np.ndarray, "N"], member: Bool[np.ndarray, "N"], most: int = 5) -> Profile:
    """What is typical of a group of items.

    Args: items: the table of a dataset, without the padding row. counts: training events of each item. member: which
        items belong to the group. most: words at most.
    """
    years = items["title"].cast(pl.String).str.extract(r"\((\d{4})\)\s*$").cast(pl.Float64).fill_null(np.nan).to_numpy()
    words = distinctive_words(item_texts(items), member, most)
    return Profile(int(member.sum()), words, _against(years, member), _against(counts.astype(np.float64), member))


def _against(values: Float[np.ndarray, "N"], member: Bool[np.ndarray, "N"], least: int = 5) -> Against:
    """The known numbers of a group against those of all other items."""
    known = np.isfinite(values)
    inside, outside = int((member & known).sum()), int((~member & known).sum())
    if min(inside, outside) < least:
        return Against(float("nan"), float("nan"), float("nan"))
    ranks = rankdata(values[known])[member[known]].sum()
    above = (ranks - inside * (inside + 1) / 2) / (inside * outside)
    return Against(float(above), float(np.median(values[member & known])), float(np.median(values[known])))


def codes_by_events(
    codes: Int[np.ndarray, "N"], counts: Int[np.ndarray, "N"], most: int = 4
) -> list[tuple[int, Int[np.ndarray, "_"]]]:
    """The codes whose items have most training events, most first, each with its items, most popular first.

    A code with many items can be one that collects what nobody chooses; a code with many events is one that users meet.

    Args: codes, counts: code and training events of each item, without the padding row.
    Returns: (code, item rows, counted from 1).
    """
    events = np.bincount(codes, weights=counts)
    order = [code for code in np.argsort(-events, kind="stable")[:most].tolist() if (codes == code).any()]
    by_count = np.argsort(-counts, kind="stable")
    return [(code, by_count[codes[by_count] == code] + 1) for code in order]


def telling_code(items: pl.DataFrame, codes: Int[np.ndarray, "N"], counts: Int[np.ndarray, "N"], most: int = 8) -> int:
    """The code with most training events among those whose texts have words of their own, or else among all codes.

    Args: items: the table of a dataset. codes, counts: as in `codes_by_events`. most: codes that are tried.
    """
    texts, found = item_texts(items), codes_by_events(codes, counts, most)
    return next((code for code, _ in found if distinctive_words(texts, codes == code)), found[0][0])


def item_texts(items: pl.DataFrame) -> list[str]:
    """Title, text and categories of each item in one text, without the padding row."""
    categories = pl.col("categories").cast(pl.List(pl.String)).list.join(" ")
    return (
        items.select(pl.concat_str("title", "text", categories, separator=" ", ignore_nulls=True)).to_series().to_list()
    )
