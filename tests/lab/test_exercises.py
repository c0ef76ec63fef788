"""The checks of exercises: they know a right answer, never show it, and compute only when they have one to check."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from tiny import PLANTED

from bbqrec_lab import Workspace, exercises, notebook
from bbqrec_lab.datasets import planted

BY_HAND = {  # worked out here once more, each with its rounding
    "00-1": [2, 0],
    "01-1": 2,
    "02-1": int(np.argmin(np.hypot(*(np.array([[2, 2], [-2, 1], [0, -2]]) - [2, -2]).T))),
    "03-1": 1 - 3 / 6,
    "04-1": 0.5 / (0.5 + 0.5 + 0.4 + 0.1 + 0.2),
    "04-2": 0.0,
    "05-1": 2 / 2**5,
    "06-1": 0.67,
    "07-1": [3, 2, 4],
    "08-1": 1 + 4 + 10 + 10,
    "08-2": [5, 4, 3],
    "09-1": [60, 20],
    "10-1": 0.75,
}


@pytest.mark.parametrize("exercise", exercises.BY_HAND)
def test_an_answer_by_hand_is_known_by_its_hash_alone(exercise: str) -> None:
    right = BY_HAND[exercise]
    values = right if isinstance(right, list) else [right]
    assert notebook.verdict(exercise, right) == "Right."
    assert notebook.verdict(exercise, np.array(values)) == notebook.verdict(exercise, torch.tensor(values)) == "Right."
    wrong = [value + 1 for value in values]
    assert notebook.verdict(exercise, wrong) == f"Look again: 0 of {len(values)} right."
    assert notebook.verdict(exercise, "seven") != "Right."


def test_answers_are_rounded_as_the_exercise_asks() -> None:
    assert notebook.verdict("06-1", 2 / 3) == notebook.verdict("06-1", 0.67) == "Right."
    assert notebook.verdict("06-1", 0.66) == "Look again: 0 of 1 right."
    assert notebook.verdict("04-2", -0.0) == notebook.verdict("04-2", 0) == notebook.verdict("04-2", -1e-9) == "Right."


def test_each_value_of_each_exercise_has_a_hash_of_its_own() -> None:
    digests = [digest for known in exercises.BY_HAND.values() for digest in known.digests]
    assert len(set(digests)) == len(digests)
    assert exercises.digest("00-1", 0, 2) != exercises.digest("00-1", 1, 2) != exercises.digest("01-1", 1, 2)


def test_nothing_is_computed_before_an_answer_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setitem(exercises.COMPUTED, "00-2", (lambda *given: asked.append(given), 0))
    assert notebook.verdict("00-2", None, 1, 2) == notebook.NOT_YET
    assert asked == []
    assert notebook.verdict("00-2", 3, 1, 2) == notebook.NO_ANSWER  # it returned None
    assert asked == [(1, 2)]


def test_a_verdict_never_tells_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(exercises.COMPUTED, "00-2", (lambda: 3.0, 0.05))
    assert notebook.verdict("00-2", 3.04) == "Right."
    assert notebook.verdict("00-2", 3.06) == "Look again: 0 of 1 right."
    assert notebook.verdict("00-2", "three") == notebook.verdict("00-2", [[3]]) == "Look again: 0 of 1 right."
    assert notebook.verdict("00-2", float("nan")) == "Look again: 0 of 1 right."
    assert notebook.verdict("00-2", [3, 3]) == "Look again: the exercise asks for 1 value, not for 2."
    monkeypatch.setitem(exercises.COMPUTED, "00-2", (lambda: "higher", 0))
    assert notebook.verdict("00-2", "Higher ") == "Right."
    assert notebook.verdict("00-2", "lower") == "Look again: 0 of 1 right."
    monkeypatch.setitem(exercises.COMPUTED, "00-2", (lambda: [1, 3], 0))
    assert notebook.verdict("00-2", (1, 2)) == "Look again: 1 of 2 right."
    assert notebook.verdict("00-2", 1) == "Look again: the exercise asks for 2 values, not for 1."
    with pytest.raises(ValueError, match="no exercise '00-9'"):
        notebook.verdict("00-9", 1)


def test_a_solution_must_be_right(capsys: pytest.CaptureFixture) -> None:
    notebook.solve("07-1", [3, 2, 4])
    with pytest.raises(AssertionError, match="2 of 3 right"):
        notebook.solve("07-1", [3, 2, 5])


def test_answers_computed_from_hand_made_numbers() -> None:
    codes = np.array([[0, 0], [3, 1], [3, 2], [5, 1], [3, 1]])
    assert exercises.same_first_code(codes, np.array([1, 3])) == 3
    assert exercises.same_first_code(codes, np.array([], int)) is None
    compared = pl.DataFrame({"p": [0.04, 0.04, 0.2], "p_holm": [0.12, 0.04, 0.2]})
    assert exercises.lost_to_correction(compared) == 1
    means = {"filtered": {"a": 0.2, "b": 0.1}, "included": {"a": 0.2, "b": 0.02, "other": 0.0}}
    assert exercises.gains_most_from_filtering(means) == "b"
    hits = {"bbqrec": np.array([1.0, 0, 0, 1]), "gru": np.array([1.0, 1, 0, 0])}
    assert exercises.two_choosers(hits, "gru") == [0.5, 0.75]
    space = SimpleNamespace(vectors=np.eye(5, 2)[[0, 0, 0, 1, 1]], present=np.array([False, True, True, True, True]))
    atlas = SimpleNamespace(
        ids=SimpleNamespace(code_ids=codes), items=SimpleNamespace(counts=np.arange(5)), spaces={"behaviour": space}
    )
    assert exercises.siblings_and_below(atlas, 1) == [1, 2]
    assert exercises.nearest_share_first_code(atlas) == 0.5  # 1 and 2 agree, 3 and 4 do not


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = tmp_path_factory.mktemp("exercises")
    planted.write_planted(folder / "mine", PLANTED)
    return Workspace(str(folder / "mine"), "smoke", 0, str(folder / "runs")).data


def test_popularity_on_a_random_event_is_the_mean_of_many_draws(data: object) -> None:
    top = np.argsort(-data.train_counts()[1:], kind="stable")[:10] + 1
    rng, lengths = np.random.default_rng(0), np.diff(data.sequences.offsets)
    draws = data.sequences.offsets[:-1] + (rng.random((500, data.n_users)) * lengths).astype(int)
    last = np.mean([target in top for target in data.targets("test")])
    change = np.isin(data.sequences.items[draws], top).mean() - last
    assert exercises.popular_targets(data) == pytest.approx(last)
    assert abs(change) > 0.01, "these data cannot tell the directions apart"
    assert exercises.popular_at_random(data) == ("higher" if change > 0 else "lower")
