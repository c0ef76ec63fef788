"""Laws of the dataset as arrays: what is filled in, what is refused, and how events are split."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from bbqrec_core import Dataset, Sequences

EVENTS = [[1, 2, 3], [4, 1, 1, 2, 5], [5, 4, 3, 2]]
N = 5


def make(events=EVENTS, **changes):
    offsets = np.cumsum([0, *map(len, events)])
    items = np.array([item for user in events for item in user], dtype=np.int32)
    times = 100 + 7 * np.arange(len(items))
    return Dataset(n_items=N, sequences=Sequences(offsets, items, times), **changes)


def users_of(sequences):
    return [sequences.items[a:b].tolist() for a, b in zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True)]


def features(*absent, width=3, seed=0):
    array = np.random.default_rng(seed).normal(size=(N + 1, width)).astype(np.float32)
    array[[0, *absent]] = 0
    return array


def test_each_event_is_trained_on_or_a_target_once():
    data = make()
    assert data.n_users == 3
    assert users_of(data.train()) == [user[:-2] for user in EVENTS]
    assert users_of(data.history("valid")) == [user[:-2] for user in EVENTS]
    assert users_of(data.history("test")) == [user[:-1] for user in EVENTS]
    assert data.targets("valid").tolist() == [user[-2] for user in EVENTS]
    assert data.targets("test").tolist() == [user[-1] for user in EVENTS]
    assert data.train_counts().tolist() == [0, 3, 0, 0, 2, 1]
    assert data.warm_rows().tolist() == [1, 2, 3, 4, 5]
    assert data.features == data.presence == {}


def test_an_item_lacks_a_modality_whose_features_are_all_zero_unless_it_is_said():
    text, image = features(2, 4), features(3, seed=1)
    said = np.array([False, True, True, True, False, True])
    data = make(features={"text": text, "image": image}, presence={"image": said})
    assert data.presence["text"].tolist() == [False, True, False, True, False, True]
    assert data.presence["image"] is said
    assert make(features={"text": text}).presence.keys() == {"text"}
    other = replace(data, features={"text": image}, presence={})
    assert other.presence["text"].tolist() == [False, True, True, False, True, True]


def test_times_stay_with_their_events():
    cold = np.array([True, True, False, False, False, False])
    data, held, times = make(), make(cold=cold), [100, 107, 114, 121, 128, 135, 142, 149, 156, 163, 170, 177]
    assert data.history("test").times.tolist() == [*times[:2], *times[3:7], *times[8:11]]
    assert data.train().times.tolist() == [*times[:1], *times[3:6], *times[8:10]]
    assert held.train().times.tolist() == [times[3], *times[8:10]]  # items 1 have gone
    untimed = replace(data, sequences=data.sequences._replace(times=None))
    assert untimed.train().times is untimed.history("test").times is None


def test_items_held_out_leave_training_and_nothing_else():
    cold = np.array([True, True, False, False, False, False])
    data = make(cold=cold)
    assert users_of(data.train()) == [[item for item in user[:-2] if item != 1] for user in EVENTS]
    assert users_of(data.history("test")) == [user[:-1] for user in EVENTS]
    assert data.targets("valid").tolist() == make().targets("valid").tolist()
    assert data.warm_rows().tolist() == [2, 3, 4, 5]
    assert data.train_counts()[1] == 0


@pytest.mark.parametrize("short", [[1, 2], [4], []])
def test_a_history_too_short_to_split_is_refused(short):
    with pytest.raises(ValueError, match=rf"user row 1 has {len(short)} events, need 3: drop shorter histories"):
        make([EVENTS[0], short, EVENTS[1], short])


def test_another_part_than_validation_and_test_is_refused():
    for ask in (make().history, make().targets):
        with pytest.raises(ValueError, match="part must be 'valid' or 'test', got 'train'"):
            ask("train")


def test_a_dataset_is_made_by_name_and_cannot_be_changed_in_place():
    with pytest.raises(TypeError):
        Dataset(N, make().sequences)
    with pytest.raises(FrozenInstanceError):
        make().n_items = 7
