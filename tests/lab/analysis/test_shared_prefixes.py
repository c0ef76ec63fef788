"""What two semantic IDs share is what they begin with."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tiny import semantic_ids

from bbqrec_core import Sequences
from bbqrec_lab.analysis import explanations

CODES = arrays.arrays(np.int64, (5, 3), elements=st.integers(0, 2))


def test_equal_codes_after_a_difference_do_not_count() -> None:
    first, second = np.array([[4, 1, 7], [3, 1, 7]]), np.array([[4, 1, 7], [4, 1, 2], [3, 2, 7]])
    assert explanations.shared_prefix(first, second).tolist() == [[3, 2, 0], [0, 0, 1]]


@given(CODES)
def test_the_prefix_of_that_length_is_equal_and_the_next_code_is_not(codes: np.ndarray) -> None:
    shared = explanations.shared_prefix(codes, codes)
    assert (shared == shared.T).all()
    for (i, j), length in np.ndenumerate(shared):
        assert (codes[i, :length] == codes[j, :length]).all()
        assert length == codes.shape[1] or codes[i, length] != codes[j, length]


def test_the_longest_is_taken_over_the_user_s_own_history_and_learned_codes() -> None:
    ids = semantic_ids(6, (3, 3, 2))
    history = Sequences(np.array([0, 2, 3]), np.array([1, 2, 3], dtype=np.int32))
    lists = np.array([[4, 5], [3, 6]])
    found = explanations.longest_shared(ids, history, np.array([0, 1]), lists)
    codes = ids.code_ids[:, : ids.learned]
    for line, past in enumerate(([1, 2], [3])):
        for place, item in enumerate(lists[line]):
            expected = 0
            for other in past:
                same = [a == b for a, b in zip(codes[item], codes[other], strict=True)]
                expected = max(expected, same.index(False) if False in same else len(same))
            assert found[line, place] == expected
    assert found[1, 0] == ids.learned


def test_a_missing_item_shares_nothing() -> None:
    ids = semantic_ids(6, (3, 3, 2))
    history = Sequences(np.array([0, 6]), np.arange(1, 7, dtype=np.int32))
    assert explanations.longest_shared(ids, history, np.array([0]), np.array([[0, 2]])).tolist() == [[0, ids.learned]]


def test_others_are_drawn_once_each_from_what_the_history_lacks() -> None:
    history = Sequences(np.array([0, 2, 5]), np.array([1, 2, 3, 4, 5], dtype=np.int32))
    drawn = explanations.draw_others(history, np.array([1, 0]), 6, 3, np.random.default_rng(0))
    assert sorted(drawn[0]) == [1, 2, 6]
    assert len(set(drawn[1])) == 3
    assert set(drawn[1]) <= {3, 4, 5, 6}
    assert explanations.draw_others(history, np.array([1]), 5, 3, np.random.default_rng(0))[0, 2] == 0


def test_lift_counts_steps_within_users_against_chance() -> None:
    codes = np.array([0, 0, 1, 1])  # row 0 is padding
    train = Sequences(np.array([0, 3, 5]), np.array([1, 2, 3, 1, 3], dtype=np.int32))
    # steps 0-1, 1-1 and 0-1: three in all, two from code 0, three to code 1; 1-0 between the users is none
    assert explanations.step_lift(codes, train, 2).tolist() == [[0, 2 * 3 / (2 * 3)], [0, 1 * 3 / (1 * 3)]]
    codes, train = np.array([0, 0, 1]), Sequences(np.array([0, 2, 4]), np.array([1, 1, 2, 2], dtype=np.int32))
    assert explanations.step_lift(codes, train, 2).tolist() == [[2, 0], [0, 2]]
