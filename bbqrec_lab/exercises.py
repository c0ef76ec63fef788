"""Right answers to the exercises of the notebooks, out of sight of the cells that check them.

An answer by hand does not depend on the data: only a hash of it is stored, one per value. All other answers are
computed from what the notebook has, and only after the reader has answered.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bbqrec_core import PrefixTree, SemanticIds, Tokenized, metrics
from bbqrec_lab.analysis import explanations, neighbours
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.experiments import runs, statistics
from bbqrec_lab.experiments.presets import Config
from bbqrec_lab.without_sequence.finding import Finding

Answer = float | str | list[float] | None
Test = Callable[[object], bool]


@runtime_checkable
class Space(Protocol):
    """What exercises use of a notebook's workspace, `notebook.Workspace`."""

    overrides: dict
    config: Config
    data: NamedDataset

    def tokenizer(self, variant: str = "bbqrec") -> Tokenized: ...

    def run(self, variant: str = "bbqrec") -> runs.Result: ...


@runtime_checkable
class Atlas(Protocol):
    """What exercises use of `widgets.inspector.Atlas`: the IDs, the training events of items, and vector spaces."""

    ids: SemanticIds
    items: object
    spaces: dict


@runtime_checkable
class Beam(Protocol):
    """What exercises use of a timed model, `speed.latency.Contestant`: its beam search and its tree."""

    tree: PrefixTree

    def beam(self, rows: Tensor, width: int) -> tuple[Tensor, Tensor]: ...


class Hashed(NamedTuple):
    """An answer by hand: the hash of each value (`digest`), which a number reaches after rounding to `decimals`."""

    digests: tuple[str, ...]
    decimals: int = 0


def digest(exercise: str, place: int, value: object, decimals: int = 0) -> str:
    """Hash of one value of an answer, 12 hex digits; equal values of other exercises or places have other hashes."""
    text = str(value).strip().lower()
    if isinstance(value, int | float | np.number) and np.isfinite(value):
        text = f"{round(float(value), decimals) + 0.0:.{decimals}f}"  # adding zero makes -0 a 0
    return hashlib.sha256(f"bbqrec exercise {exercise}, value {place}: {text}".encode()).hexdigest()[:12]


def tests_of(exercise: str, *given: object) -> list[Test]:
    """One test per value that an exercise asks for; each says whether a value is right.

    Args: exercise: such as `02-3`, the number of the notebook and of the exercise. given: what the exercise depends on,
        in the order of its function in `COMPUTED`; nothing for an exercise by hand.
    Returns: the tests; empty if these data have no answer.
    Raises: ValueError for an exercise that does not exist.
    """
    if exercise in BY_HAND:
        known = BY_HAND[exercise]
        return [_hash_test(exercise, place, known) for place in range(len(known.digests))]
    if exercise not in COMPUTED:
        raise ValueError(f"no exercise {exercise!r}: there are {', '.join(sorted(BY_HAND | COMPUTED))}")
    compute, tolerance = COMPUTED[exercise]
    right = compute(*given)
    values = [] if right is None else right if isinstance(right, list) else [right]
    return [_value_test(value, tolerance) for value in values]


def _hash_test(exercise: str, place: int, known: Hashed) -> Test:
    return lambda value: digest(exercise, place, value, known.decimals) == known.digests[place]


def _value_test(right: float | str, tolerance: float) -> Test:
    def test(value: object) -> bool:
        if isinstance(right, str) or isinstance(value, str):
            return str(right).strip().lower() == str(value).strip().lower()
        return isinstance(value, int | float | np.number) and bool(abs(value - right) <= tolerance)

    return test


def same_first_code(codes: Int[np.ndarray, "N sid_len"], picked: Int[np.ndarray, "k"]) -> int | None:
    """00-2: number of items with the first code of the top recommendation; None without recommendations."""
    return int((codes[1:, 0] == codes[picked[0], 0]).sum()) if len(picked) else None


def still_recommended(space: Space, past: Int[np.ndarray, "T"], picked: Int[np.ndarray, "k"]) -> int | None:
    """00-3: number of items of the list `picked` that are also recommended after `past` without its last event."""
    if len(past) < 2:
        return None
    names = np.array(["", *space.data.items["item_id"].cast(pl.String).to_list()])
    again = runs.recommend(space.run("bbqrec").directory, names[past[:-1]].tolist(), 8)
    return len(set(map(str, again["item_id"])) & set(names[picked].tolist()))


def _most_popular(data: NamedDataset) -> Int[np.ndarray, "ten"]:
    """Rows of the ten items with most training events, fewer if there are fewer."""
    return np.argsort(-data.train_counts()[1:], kind="stable")[:10] + 1


def popular_targets(data: NamedDataset) -> float:
    """01-2: share of test targets among the ten most popular items."""
    return float(np.isin(data.targets("test"), _most_popular(data)).mean())


def popular_at_random(data: NamedDataset) -> str:
    """01-3: whether popularity scores higher on a random event of each user than on the last; exact, without draws."""
    hit = np.isin(data.sequences.items, _most_popular(data)).astype(float)
    expected = np.add.reduceat(hit, data.sequences.offsets[:-1]) / np.diff(data.sequences.offsets)
    change = float(expected.mean()) - popular_targets(data)
    return "same" if abs(change) < 0.002 else "higher" if change > 0 else "lower"


def explained_by_first_code(tokenized: Tokenized) -> float:
    """02-2: share of the mean squared length of item vectors that the first code vector explains."""
    ids = tokenized.ids
    vectors = neighbours.mean_signals(tokenized.behaviour, ids.present)[1:]
    rest = vectors - ids.codebook[0][ids.raw_codes[1:, 0]]
    return float(1 - (rest**2).sum() / (vectors**2).sum())


def agreement_without_contrast(space: Space) -> list[float] | None:
    """02-3: agreement of the first pair of signals at level 1, in per cent, without and with the contrast.

    None if no item has two signals.
    """
    with_it = space.tokenizer().ids
    share = neighbours.code_agreement(with_it.signal_codes[1:], with_it.present[1:]).share[0]
    pairs = np.argwhere(np.triu(share >= 0, 1))
    if not len(pairs):
        return None
    without = replace(space, overrides={**space.overrides, "w_cross": 0.0}).tokenizer().ids
    other = neighbours.code_agreement(without.signal_codes[1:], without.present[1:]).share[0]
    return [float(100 * each[tuple(pairs[0])]) for each in (other, share)]


def random_collisions(space: Space) -> float:
    """03-2: expected collision rate of IDs drawn at random from all IDs of the learned positions."""
    ids, n_items = space.tokenizer("random-ids").ids, space.data.n_items
    room = float(np.prod(np.array(ids.sizes[: ids.learned], float)))
    return float(1 - room * -np.expm1(-n_items / room) / n_items)


def other_repair(space: Space) -> list[float]:
    """03-3: length of the IDs under the other repair of collisions, and number of items that still share one."""
    repair = {"nearest": "extra"}.get(space.config.tokenizer.uniqueness, "nearest")
    other = replace(space, overrides={**space.overrides, "uniqueness": repair}).tokenizer()
    return [other.ids.sid_len, other.health["after"]["colliding_items"]]


def top_changes(scorer: explanations.Scorer, data: NamedDataset) -> float:
    """04-3: share of the first 100 users whose top recommendation changes without the offsets of attention."""
    users = np.arange(data.n_users)[:100]
    asked = data.history("test"), data.targets("test"), users, ("included",)
    ranks = [
        metrics.rank_users(model.scores, *asked)["included"] for model in (scorer, explanations.rescaled(scorer, 0.0))
    ]
    return float((ranks[0].top[:, 0] != ranks[1].top[:, 0]).mean())


def lost_to_correction(compared: pl.DataFrame) -> int:
    """05-2: comparisons with p below 0.05 before Holm's correction but not after it."""
    return compared.filter((pl.col("p") < 0.05) & (pl.col("p_holm") >= 0.05)).height


def seeds_against_users(results: list[runs.Result]) -> float:
    """05-3: deviation of the filtered NDCG@10 of bbqrec over seeds, over its standard error over users."""
    rows = pl.concat([result.rows for result in results])
    spread = statistics.by_variant(rows, "ndcg@10", "filtered")["bbqrec"]
    first = next(result for result in results if result.variant == "bbqrec")
    values = metrics.per_user(runs.load_ranks(first.directory, "filtered"))["ndcg@10"]
    over_seeds = np.std(spread, ddof=1) if len(spread) > 1 else 0.0
    return float(over_seeds / (values.std(ddof=1) / np.sqrt(len(values))))


def gains_most_from_filtering(means: dict[str, dict[str, float]]) -> str:
    """06-2: the variant with the largest ratio of filtered to included NDCG@10."""
    return max(means["filtered"], key=lambda name: means["filtered"][name] / max(means["included"][name], 1e-9))


def two_choosers(hits: dict[str, Float[np.ndarray, "U"]], other: str) -> list[float]:
    """06-3: Recall@10 of a coin between bbqrec and another model, and of a chooser that is always right."""
    one, two = hits["bbqrec"], hits[other]
    return [float((one + two).mean() / 2), float((1 - (1 - one) * (1 - two)).mean())]


def siblings_and_below(atlas: Atlas, row: int) -> list[float]:
    """07-2: number of other first codes in use, and of items with the first two codes of an item."""
    codes = atlas.ids.code_ids
    return [len(np.unique(codes[1:, 0])) - 1, int((codes[1:, :2] == codes[row, :2]).all(1).sum())]


def nearest_share_first_code(atlas: Atlas) -> float | None:
    """07-3: share of the 50 most popular items with the first code of their nearest item in behaviour space."""
    top, codes, space = (
        np.argsort(-atlas.items.counts, kind="stable")[:50],
        atlas.ids.code_ids,
        atlas.spaces["behaviour"],
    )
    top = top[space.present[top]]
    near = neighbours.nearest(space.vectors, space.present, top, 1)
    return float((codes[top, 0] == codes[near[:, 0], 0]).mean()) if near.size else None


def narrow_beam_agrees(models: dict[str, Beam], asked: Int[Tensor, "B T"]) -> float:
    """08-3: share of histories for which beams of width 1 and as wide as the tree have the same first item."""
    model = models["bbqrec"]
    narrow, exact = (model.beam(asked, wide)[0][:, 0] for wide in (1, model.tree.leaves))
    return float((narrow == exact).to(torch.float64).mean())


def lists_of_new_users(kinds: dict[str, Bool[np.ndarray, "Q"]]) -> float:
    """09-2: share of the lists whose user had no event before the start of the replay."""
    return float((kinds["new user"] | kinds["both new"]).mean())


def furthest_ahead(ahead: Float[np.ndarray, "Q"], period: Int[np.ndarray, "Q"]) -> int:
    """09-3: the period with the largest mean difference; the first of equal ones."""
    return int(np.argmax([ahead[period == p].mean() for p in range(int(period.max()) + 1)]))


def prefixes_in_use(ids: SemanticIds) -> int:
    """10-2: number of different prefixes of the IDs, of all lengths."""
    return sum(len(np.unique(ids.code_ids[1:, : length + 1], axis=0)) for length in range(ids.sid_len))


def without_common_word(searched: Finding | None) -> float | None:
    """10-3: share of the queries that share no word with what is left of their item; None without queries."""
    if searched is None:
        return None
    asked = searched.queries
    left = [set(asked.texts[row - 1].split()) for row in asked.targets]
    return float(np.mean([left[n].isdisjoint(words.split()) for n, words in enumerate(asked.words)]))


BY_HAND: dict[str, Hashed] = {
    "00-1": Hashed(("536285e285c2", "cea35841eb3c")),
    "01-1": Hashed(("b697ebdb85cd",)),
    "02-1": Hashed(("2a9138240fa8",)),
    "03-1": Hashed(("489fec3667f3",), 4),
    "04-1": Hashed(("569f4645c522",), 2),
    "04-2": Hashed(("3343fb3fde73",), 4),
    "05-1": Hashed(("6322a7c10d74",), 4),
    "06-1": Hashed(("d5d3af9cf2a0",), 2),
    "07-1": Hashed(("63725bdac5a3", "8ff8d98853dc", "a4b7fe4a7eca")),
    "08-1": Hashed(("004c10539d20",)),
    "08-2": Hashed(("e605ec97f640", "460e8be25156", "b823ebf54526")),
    "09-1": Hashed(("4754991e039a", "3bf03afe15c4")),
    "10-1": Hashed(("b125ea717282",), 2),
}

COMPUTED: dict[str, tuple[Callable[..., Answer], float]] = {  # function, allowed difference of a number
    "00-2": (same_first_code, 0),
    "00-3": (still_recommended, 0),
    "01-2": (popular_targets, 6e-4),
    "01-3": (popular_at_random, 0),
    "02-2": (explained_by_first_code, 6e-3),
    "02-3": (agreement_without_contrast, 0.6),
    "03-2": (random_collisions, 6e-5),
    "03-3": (other_repair, 0),
    "04-3": (top_changes, 6e-3),
    "05-2": (lost_to_correction, 0),
    "05-3": (seeds_against_users, 6e-3),
    "06-2": (gains_most_from_filtering, 0),
    "06-3": (two_choosers, 6e-4),
    "07-2": (siblings_and_below, 0),
    "07-3": (nearest_share_first_code, 6e-3),
    "08-3": (narrow_beam_agrees, 6e-3),
    "09-2": (lists_of_new_users, 6e-3),
    "09-3": (furthest_ahead, 0),
    "10-2": (prefixes_in_use, 0),
    "10-3": (without_common_word, 6e-3),
}
