"""Metrics over time: means and bounds over users, slopes, costs, kinds of targets, new items and their controls."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from replayed import learner, made_stream

from bbqrec_core import Ranks
from bbqrec_lab.replay import curves
from bbqrec_lab.replay.rounds import Outcome, replay
from bbqrec_lab.replay.stream import DAY, Stream


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    return made_stream(tmp_path_factory.mktemp("data"))


def outcome(stream: Stream, greater: np.ndarray, learner: str = "a", policy: str = "history", seed: int = 0) -> Outcome:
    """Lists in which the target of each event has `greater` items above it."""
    places = np.arange(stream.bounds[0], stream.bounds[-1])
    size = len(places)
    ranks = Ranks(np.resize(greater, size).astype(np.int32), np.ones(size, np.int32), np.zeros((size, 20), np.int32))
    return Outcome(learner, policy, seed, places, ranks, np.arange(stream.periods) + 1.0, np.ones(stream.periods))


def test_a_slope_is_the_change_per_day() -> None:
    days = np.tile(np.arange(10.0), 20)
    rise, low, high = curves.slope(days, 0.5 - 0.02 * days, np.repeat(np.arange(20), 10))
    assert np.allclose([rise, low, high], -0.02)
    noisy = np.random.default_rng(0).normal(size=200)
    _, low, high = curves.slope(days, noisy, np.repeat(np.arange(20), 10))
    assert low < np.polyfit(days, noisy, 1)[0] < high
    assert curves.slope(np.ones(4), np.arange(4.0), np.arange(4))[0] == 0


def test_curves_have_the_mean_of_each_period(stream: Stream) -> None:
    one = outcome(stream, np.zeros(1))
    later = stream.period_of(one.places) > 0
    half = one._replace(seed=1, ranks=one.ranks._replace(greater=np.where(later, 99, 0).astype(np.int32)))
    table = curves.curves(stream, [one, half])
    assert table.filter(metric="ndcg@10")["value"].to_list() == [1.0, 0.5, 0.5]
    assert table["lists"].to_list() == np.diff(stream.bounds).tolist() * 2
    middle = (stream.moments[0] + stream.moments[1]) / 2 - stream.moments[0]
    assert table["day"][0] == pytest.approx(middle / DAY)


def test_costs_compare_policies_of_one_learner_on_the_same_lists(stream: Stream) -> None:
    better = outcome(stream, np.zeros(1), policy="updates")
    table = curves.costs(stream, [outcome(stream, np.array([1])), better, outcome(stream, np.zeros(1), "b")], "history")
    base, ahead, other = table.iter_rows(named=True)
    assert base["difference"] is None
    assert other["difference"] is None
    gain = 1 - 1 / np.log2(3)
    assert np.allclose([ahead["difference"], ahead["difference low"], ahead["difference high"]], gain)
    assert base["learning"] == 2.0 + 3.0  # without the first training
    assert base["answering"] == stream.periods
    assert base["per day"] == pytest.approx(0, abs=1e-9)


def test_kinds_divide_the_lists(stream: Stream) -> None:
    places = np.arange(stream.bounds[0], stream.bounds[-1])
    found = curves.kinds(stream, places)
    assert (np.sum(list(found.values()), 0) == 1).all()
    new = np.isin(stream.items(places), stream.items(np.arange(stream.bounds[0])), invert=True)
    assert ((found["new item"] | found["both new"]) == new).all()
    assert set(stream.joined[stream.items(places[new])]) - {0}
    table = curves.apart(stream, [outcome(stream, np.zeros(1))])
    assert table["lists"].sum() == len(places)


def test_first_events_are_the_first_of_new_items(stream: Stream) -> None:
    places = np.arange(stream.bounds[0], stream.bounds[-1])
    early = curves.first_events(stream, places)
    for row in np.flatnonzero(stream.joined > 0):
        own = np.flatnonzero(stream.items(places) == row)
        assert early[own].tolist() == [number < curves.FIRST for number in range(len(own))]
    assert not early[stream.joined[stream.items(places)] == 0].any()


def test_controls_rank_new_items_without_tokens(stream: Stream, tmp_path: Path) -> None:
    found = curves.controls(stream, learner("history", tmp_path))
    fixed = Outcome("bbqrec", "history", 0, *replay(stream, learner("history", tmp_path)))
    new = stream.joined[stream.items(fixed.places)] > 0
    for way in ("even share", "nearest neighbour"):
        assert (found[way].places == fixed.places).all()
        assert (found[way].ranks.ties[new] > 0).all()
        assert (found[way].ranks.greater[~new] >= fixed.ranks.greater[~new]).all()
    size = (stream.joined == 1).sum()
    first = stream.period_of(fixed.places) == 1
    assert (found["even share"].ranks.ties[new & first] >= size - 10).all()  # but for those that the user has had
    table = curves.new_items(stream, found | {"fixed": fixed})
    by_way = {row["way"]: row for row in table.iter_rows(named=True)}
    assert by_way["fixed"]["recommended"] == by_way["fixed"]["recall@20"] == 0
    assert by_way["fixed"]["median rank"] == np.inf
    assert by_way["even share"]["recommended"] > 0
    assert by_way["even share"]["new items"] == (stream.joined > 0).sum()


def test_new_items_without_content_have_an_even_share_and_no_neighbour(stream: Stream, tmp_path: Path) -> None:
    blank = {name: array & (stream.joined == 0) for name, array in stream.presence.items()}
    found = curves.controls(replace(stream, presence=blank), learner("history", tmp_path))
    one, other = (found[way].ranks for way in ("even share", "nearest neighbour"))
    assert all((a == b).all() for a, b in zip(one, other, strict=True))


def test_policies_are_compared_around_a_moment_inside_a_period(stream: Stream) -> None:
    base, better = outcome(stream, np.array([1])), outcome(stream, np.array([1]), policy="updates")
    times, users = stream.times(base.places), stream.users(base.places)
    period = stream.period_of(base.places)
    moment = int(np.median(times[period > 0]))
    late = (times >= moment) | (period == 0)  # in the first period, which must not count
    better = better._replace(ranks=better.ranks._replace(greater=np.where(late, 0, 1).astype(np.int32)))
    row = curves.around(stream, [base, better, base._replace(learner="b")], moment).row(0, named=True)
    gain = 1 - 1 / np.log2(3)
    assert np.allclose([row["before"], row["after"], row["gain"]], [0, gain, gain])
    assert np.allclose([row["low"], row["high"]], gain)
    worse = curves.around(stream, [better._replace(policy="history"), base._replace(policy="updates")], moment)
    assert worse["high"][0] < 0
    mixed = better._replace(
        ranks=better.ranks._replace(greater=np.where(late & (users % 2 > 0), 0, 1).astype(np.int32))
    )
    row = curves.around(stream, [base, mixed], moment).row(0, named=True)
    assert 0 < row["low"] < row["gain"] < row["high"] < gain
    assert curves.around(stream, [base, better], int(times.max()) + 1)["gain"].to_list() == [None]


def test_a_stream_without_new_items_has_nothing_to_compare(stream: Stream) -> None:
    old = replace(stream, sizes=np.full(stream.periods, stream.n_items))
    row = curves.new_items(old, {"way": outcome(old, np.zeros(1))}).row(0, named=True)
    assert (row["new items"], row["lists"], row["recall@20"], row["recommended"]) == (0, 0, None, None)
