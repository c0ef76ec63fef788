"""Laws of batching: what a window holds, that every target is seen once, and that an epoch repeats."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bbqrec_core import Sequences
from bbqrec_core.dataset import gather_padded, history_batches, item_rows, window_batches, windows

SIZES = (1, 13, 3, 1, 7, 5, 2, 11)  # events per user; two users have nothing to predict


def sequences(sizes=SIZES):
    """Every event is an item of its own, so that an item names its place."""
    return Sequences(np.cumsum([0, *sizes], dtype=np.int64), np.arange(1, sum(sizes) + 1, dtype=np.int32))


def users_of(data):
    return [data.items[a:b].tolist() for a, b in itertools.pairwise(data.offsets)]


def rows_of(batches):
    """Every row of all batches as a list, padding cut off."""
    return [[item for item in row if item] for batch in batches for row in batch.tolist()]


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=8).filter(lambda sizes: max(sizes) > 1),
    length=st.integers(1, 9),
    batch=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_every_event_but_a_users_first_is_a_target_exactly_once(sizes, length, batch, seed):
    data = sequences(sizes)
    rows = rows_of(window_batches(data, length, batch, (seed, 0)))
    assert sorted(item for row in rows for item in row[1:]) == sorted(i for user in users_of(data) for i in user[1:])
    assert all(2 <= len(row) <= length + 1 for row in rows)


@pytest.mark.parametrize("length", [1, 2, 5, 100])
def test_a_window_is_a_run_of_one_users_events(length):
    data = sequences()
    user_of = {item: user for user, items in enumerate(users_of(data)) for item in items}
    for row in rows_of(window_batches(data, length, 3, (0, 0))):
        assert row == list(range(row[0], row[0] + len(row)))
        assert len({user_of[item] for item in row}) == 1


def test_a_short_sequence_is_one_window():
    rows = rows_of(window_batches(sequences(), 12, 3, (0, 0)))
    assert sorted(rows) == sorted(user for user in users_of(sequences()) if len(user) > 1)


def test_padding_stands_on_the_right_and_no_further_than_needed():
    for batch in window_batches(sequences(), 5, 3, (0, 0)):
        real = batch > 0
        assert bool((real[:, :-1] >= real[:, 1:]).all())
        assert bool(real[:, -1].any())
        assert batch.dtype == torch.int64


def test_batches_are_full_and_hold_windows_of_like_length():
    batches = window_batches(sequences((2, 3, 4, 5) * 7), 9, 4, (0, 0))
    sizes = sorted(len(batch) for batch in batches)
    assert sizes == [4] * 7
    spans = sorted(((batch > 0).sum(1).min().item(), (batch > 0).sum(1).max().item()) for batch in batches)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_an_epoch_repeats_for_its_seed_and_differs_for_others():
    first, again, other = (window_batches(sequences(), 3, 2, seed) for seed in ((4, 0), (4, 0), (4, 1)))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert rows_of(first) != rows_of(other)


def test_cuts_move_from_epoch_to_epoch_over_every_place():
    starts = {row[0] for epoch in range(60) for row in rows_of(window_batches(sequences((13,)), 3, 2, (0, epoch)))}
    assert starts == set(range(1, 13))  # the last event is never an input


def test_windows_start_where_the_cuts_say():
    begin, size = windows(sequences((8,)), 3, np.random.default_rng(0))
    assert begin[0] == 0
    assert begin.tolist() == np.cumsum([0, *size[:-1]]).tolist()
    assert size.sum() == 7
    assert max(size) <= 3


def test_sequences_without_a_second_event_are_refused():
    with pytest.raises(ValueError, match="none of 3 users has 2 training events to learn from: give longer histories"):
        window_batches(sequences((1, 1, 1)), 3, 2, (0, 0))


def test_gathering_pads_each_row_to_the_longest():
    items = np.array([7, 8, 9, 10], dtype=np.int32)
    rows = gather_padded(items, np.array([2, 0, 3]), np.array([2, 3, 0]))
    assert rows.tolist() == [[9, 10, 0], [7, 8, 9], [0, 0, 0]]


def test_batches_hold_the_times_of_the_events_for_a_model_that_reads_them():
    data = sequences()._replace(times=1000 * np.arange(1, sum(SIZES) + 1))
    timed, plain = (
        window_batches(data, 5, 3, (0, 0), timed=read)
        + [rows for _, rows in history_batches(data, np.arange(8), 5, 3, timed=read)]
        for read in (True, False)
    )
    for both, items in zip(timed, plain, strict=True):
        assert torch.equal(both, torch.stack([items, 1000 * items], -1))
        assert torch.equal(item_rows(both), items)
        assert torch.equal(item_rows(items), items)
    unknown = window_batches(sequences(), 5, 3, (0, 0), timed=True)
    assert {batch.ndim for batch in unknown} == {2}


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_histories_keep_the_last_events_of_every_user_asked(batch):
    data, users = sequences(), np.array([6, 1, 4, 0])
    found = {}
    for asked, rows in history_batches(data, users, 5, batch):
        assert len(asked) == len(rows) <= batch
        found |= {int(user): [i for i in row if i] for user, row in zip(asked, rows.tolist(), strict=True)}
        assert bool(((rows[:, :-1] > 0) >= (rows[:, 1:] > 0)).all())
    assert found == {user: users_of(data)[user][-5:] for user in users.tolist()}


def test_a_limit_keeps_that_many_batches_drawn_anew_each_epoch():
    data = sequences([5] * 40)
    whole = window_batches(data, 10, 4, (0, 0))
    some = window_batches(data, 10, 4, (0, 0), limit=3)
    assert [b.tolist() for b in some] == [b.tolist() for b in whole[:3]]
    assert [b.tolist() for b in some] != [b.tolist() for b in window_batches(data, 10, 4, (0, 1), limit=3)]
    assert len(window_batches(data, 10, 4, (0, 0), limit=99)) == len(whole) == 10
