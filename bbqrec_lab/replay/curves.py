"""Metrics of a replay over time, with intervals: curves, loss per day, cost, and how new items fare."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int

from bbqrec_core.metrics import concat_ranks, filter_seen, rank_scores
from bbqrec_lab.datasets.time_split import by_kind
from bbqrec_lab.experiments.statistics import cluster_bootstrap, cluster_means
from bbqrec_lab.replay.learners import TokenLearner
from bbqrec_lab.replay.rounds import BATCH, LISTED, Outcome
from bbqrec_lab.replay.stream import DAY, Stream

METRICS = ("ndcg@10", "recall@10")
FIRST = 5  # events of a new item that count as its first ones


def slope(
    days: Float[np.ndarray, "Q"], values: Float[np.ndarray, "Q"], users: Int[np.ndarray, "Q"]
) -> tuple[float, float, float]:
    """The least-squares change of values per day, and its 95 % bounds over users with all of their lists."""
    parts = np.stack([np.ones_like(days), days, values, days**2, days * values])
    whole, drawn = cluster_bootstrap(parts, users)
    return float(_fitted(whole[:, None])[0]), *map(float, np.percentile(_fitted(drawn), [2.5, 97.5]))


def _fitted(sums: Float[np.ndarray, "five draws"]) -> Float[np.ndarray, "draws"]:
    """Slopes of least squares from the sums of 1, x, y, xx and xy; 0 where all x are equal."""
    n, x, y, xx, xy = sums
    spread = n * xx - x * x
    return np.where(spread > 1e-9 * n * xx, (n * xy - x * y) / np.where(spread > 0, spread, 1), 0)


def mean_over_seeds(outcomes: Sequence[Outcome], metric: str) -> dict[tuple[str, str], Float[np.ndarray, "Q"]]:
    """A metric of every list by (learner, policy), averaged over seeds."""
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for outcome in outcomes:
        found.setdefault((outcome.learner, outcome.policy), []).append(outcome.metric(metric))
    return {name: np.mean(values, 0) for name, values in found.items()}


def curves(stream: Stream, outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """Each metric of each learner and policy in each period, with bounds over users with all of their lists.

    Returns: columns learner, policy, metric, period, day (middle of the period, since the start), lists, value, low,
        high.
    """
    places = outcomes[0].places
    users, period = stream.users(places), stream.period_of(places)
    middle = (stream.moments[:-1] + stream.moments[1:] - 2 * stream.moments[0]) / 2 / DAY
    table = []
    for metric in METRICS:
        for (learner, policy), values in mean_over_seeds(outcomes, metric).items():
            for p in range(stream.periods):
                inside = period == p
                found = cluster_means(values[inside], users[inside])
                table.append((learner, policy, metric, p, float(middle[p]), int(inside.sum()), *found))
    columns = ["learner", "policy", "metric", "period", "day", "lists", "value", "low", "high"]
    return pl.DataFrame(table, schema=columns, orient="row")


def costs(stream: Stream, outcomes: Sequence[Outcome], reference: str = "updates") -> pl.DataFrame:
    """What each policy costs: seconds, and accuracy.

    Returns: columns learner, policy, seeds, ndcg@10 (mean over all lists), low, high; learning: seconds after the first
        training, mean over seeds; answering: seconds of all lists; per day: change of NDCG@10 a day, with bounds
        day low and day high; difference: mean difference to the policy `reference` of the same learner on the same
        lists, with bounds difference low and difference high (null for it, and where it is missing).
    """
    places, table = outcomes[0].places, []
    users, days = stream.users(places), (stream.times(places) - stream.moments[0]) / DAY
    values = mean_over_seeds(outcomes, "ndcg@10")
    for (learner, policy), ours in values.items():
        same = [o for o in outcomes if (o.learner, o.policy) == (learner, policy)]
        seconds = (
            float(np.mean([o.learning[1:].sum() for o in same])),
            float(np.mean([o.answering.sum() for o in same])),
        )
        other = values.get((learner, reference))
        against = (None,) * 3 if other is None or policy == reference else cluster_means(ours - other, users)
        table.append(
            (learner, policy, len(same), *cluster_means(ours, users), *seconds, *slope(days, ours, users), *against)
        )
    columns = ["learner", "policy", "seeds", "ndcg@10", "low", "high", "learning", "answering"]
    columns += ["per day", "day low", "day high", "difference", "difference low", "difference high"]
    floats = {name: pl.Float64 for name in columns[3:]}
    return pl.DataFrame(table, schema={name: floats.get(name) for name in columns}, orient="row")


def kinds(stream: Stream, places: Int[np.ndarray, "Q"]) -> dict[str, Bool[np.ndarray, "Q"]]:
    """The lists by what was known at the start of the replay of their user and item, as in `time_split.KINDS`."""
    before = np.arange(stream.bounds[0])
    old_user = np.isin(stream.users(places), stream.users(before))
    old_item = np.isin(stream.items(places), stream.items(before))
    return by_kind(old_user, old_item)


def apart(stream: Stream, outcomes: Sequence[Outcome], metric: str = "ndcg@10") -> pl.DataFrame:
    """One metric by kind of target; columns learner, policy, kind, lists, value (null without a list)."""
    places, table = outcomes[0].places, []
    for (learner, policy), values in mean_over_seeds(outcomes, metric).items():
        for kind, inside in kinds(stream, places).items():
            table.append(
                (learner, policy, kind, int(inside.sum()), float(values[inside].mean()) if inside.any() else None)
            )
    return pl.DataFrame(table, schema=["learner", "policy", "kind", "lists", "value"], orient="row")


def around(
    stream: Stream, outcomes: Sequence[Outcome], moment: int, fixed: str = "history", learning: str = "updates"
) -> pl.DataFrame:
    """How far the policy `learning` is ahead of `fixed` in NDCG@10, in lists before a moment and from then on.

    The lists of the first period are left out: nothing was learned before them, so there the policies are one.

    Args: moment: in Unix seconds; it may lie inside a period.
    Returns: columns learner; before, after: mean differences on the same lists; gain: after - before, with bounds low
        and high over users with all of their lists. All are null if one side has no list.
    """
    places, table = outcomes[0].places, []
    users, late = stream.users(places), stream.times(places) >= moment
    late, early = (side & (stream.period_of(places) > 0) for side in (late, ~late))
    values = mean_over_seeds(outcomes, "ndcg@10")
    for learner in dict.fromkeys(name for name, policy in values if {(name, fixed), (name, learning)} <= set(values)):
        ahead, found = values[learner, learning] - values[learner, fixed], (None,) * 5
        if late.any() and early.any():
            whole, drawn = cluster_bootstrap(np.stack([ahead * early, early, ahead * late, late]), users)
            both = (drawn[1] > 0) & (drawn[3] > 0)  # draws with lists on both sides
            gains = drawn[2, both] / drawn[3, both] - drawn[0, both] / drawn[1, both]
            before, after = whole[0] / whole[1], whole[2] / whole[3]
            found = map(float, (before, after, after - before, *np.percentile(gains, [2.5, 97.5])))
        table.append((learner, *found))
    floats = {name: pl.Float64 for name in ("before", "after", "gain", "low", "high")}
    return pl.DataFrame(table, schema={"learner": pl.String} | floats, orient="row")


def first_events(stream: Stream, places: Int[np.ndarray, "Q"]) -> Bool[np.ndarray, "Q"]:
    """Which lists were asked for before one of the first `FIRST` events of an item that joined after the start."""
    everything = np.arange(stream.bounds[-1])
    items = stream.items(everything)
    order = np.argsort(items, kind="stable")
    size = np.bincount(items)
    number = np.empty(len(items), np.int64)
    number[order] = np.arange(len(items)) - (np.cumsum(size) - size)[items[order]]
    return (stream.joined[items[places]] > 0) & (number[places] < FIRST)


def new_items(stream: Stream, ranked: Mapping[str, Outcome]) -> pl.DataFrame:
    """How items that joined after the start fare, by name of a way to rank them.

    Returns: columns way; new items; recommended (share of them that is in a list of 10 at least once); lists (before
        one of their first events); recall@20, with bounds low and high; median rank (infinite if more than half of
        them cannot be recommended).
    """
    table, joined = [], np.flatnonzero(stream.joined > 0)
    for way, outcome in ranked.items():
        shown = np.isin(joined, outcome.ranks.top[:, :LISTED])
        early = first_events(stream, outcome.places)
        recall = outcome.metric("recall@20")[early]
        found = cluster_means(recall, stream.users(outcome.places[early])) if early.any() else (None,) * 3
        rank = float(np.median(outcome.rank[early])) if early.any() else None
        share = float(shown.mean()) if len(joined) else None
        table.append((way, len(joined), share, int(early.sum()), *found, rank))
    columns = ["way", "new items", "recommended", "lists", "recall@20", "low", "high", "median rank"]
    floats = {name: pl.Float64 for name in ("recommended", *columns[4:])}
    return pl.DataFrame(table, schema={name: floats.get(name) for name in columns}, orient="row")


def controls(stream: Stream, learner: TokenLearner) -> dict[str, Outcome]:
    """Two ways to rank new items that need no token, on the scores of a model that is never trained again.

    `even share`: every new item has the probability of an average known item, 1/N of all. `nearest neighbour`: it has
    the score of the known item whose content is most like its own, and an even share if it has no content. New items
    with equal scores share their ranks.

    Args: learner: of the policy `history`, new.
    """
    learner.begin(stream, 0)
    known, catalogue = learner.known, learner.encoder.catalogue
    content = np.reshape(learner.contents(stream, stream.n_items), (-1, catalogue.shape[1]))
    near = torch.from_numpy((content @ catalogue[1:].T).argmax(1) + 1)
    blank = torch.from_numpy(~content.any(1))
    found: dict[str, list] = {"even share": [], "nearest neighbour": []}
    for period in range(stream.periods):
        size, asked = int(stream.sizes[period]), stream.asked_in(period)
        for places in np.array_split(asked, max(-(-len(asked) // BATCH), 1)):
            scores = learner.scores(stream, int(places[0]), int(places[-1]) + 1)
            even = scores[:, 1:].logsumexp(1, keepdim=True) - np.log(known)
            new = size - known
            like = torch.where(blank[:new], even, scores[:, near[:new]])
            more = {"even share": even.expand(-1, new), "nearest neighbour": like}
            for way, columns in more.items():
                wide = torch.nn.functional.pad(
                    torch.cat([scores, columns], 1), (0, stream.n_items - size), value=-np.inf
                )
                history = stream.histories(places, size)
                if stream.source.seen_items == "filtered":
                    wide = filter_seen(wide, history, np.arange(len(places)))
                found[way].append((places, rank_scores(wide, stream.items(places))))
    return {way: _joined(way, parts, stream.periods) for way, parts in found.items()}


def _joined(way: str, parts: list, periods: int) -> Outcome:
    """One outcome of the batches of a control, without costs."""
    places, ranks = zip(*parts, strict=True)
    nothing = np.zeros(periods)
    return Outcome(way, "control", 0, np.concatenate(places), concat_ranks(ranks), nothing, nothing)
