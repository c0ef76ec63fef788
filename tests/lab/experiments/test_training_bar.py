"""Laws of the progress bar: one an epoch, at its place, with the mean loss so far, the best score and the time left."""

import io
import sys

import pytest

from bbqrec_core.training import Progress
from bbqrec_lab.experiments import training_bar
from bbqrec_lab.experiments.training_bar import TrainingBar


class Recorded:
    """A bar that notes what it is told and, like tqdm between two refreshes, does not count along."""

    made: list["Recorded"]

    def __init__(self, total, desc, disable, **options):
        self.total, self.desc, self.options, self.disable = total, desc, options, False
        self.silent_without_terminal = disable is None
        self.shown, self.steps, self.closed = [], 0, False
        self.made.append(self)

    def set_postfix(self, loss, refresh):
        assert not refresh
        self.shown.append(loss)

    def update(self):
        self.steps += 1

    def close(self):
        self.closed = True


@pytest.fixture
def bars(monkeypatch):
    Recorded.made = []
    monkeypatch.setattr(training_bar, "tqdm", Recorded)
    return Recorded.made


def test_every_epoch_has_a_bar_that_shows_the_mean_loss_so_far(bars):
    bar = TrainingBar()
    for epoch in (1, 2):
        for step in (1, 2, 3):
            bar(Progress("noisy", epoch, 2, step, 3, epoch + step / 8, None, 0.0))
            assert not any(made.closed for made in bars[epoch - 1 :]) or step == 3
    assert [made.total for made in bars] == [3, 3]
    assert [made.steps for made in bars] == [3, 3]
    assert [made.shown for made in bars] == [["1.125", "1.250", "1.375"], ["2.125", "2.250", "2.375"]]
    assert all(made.closed for made in bars)
    assert all(made.silent_without_terminal and made.options["file"] is sys.stderr for made in bars)


def test_the_label_names_the_epoch_the_best_score_and_the_time_left(bars):
    bar = TrainingBar()
    for epoch, best, seconds in ((1, None, 0.0), (2, None, 60.0), (3, 0.25, 120.0)):
        bar(Progress("sasrec", epoch, 4, 1, 1, 1.0, best, seconds))
    assert [made.desc for made in bars] == [
        "sasrec epoch 1/4",
        "sasrec epoch 2/4, at most 3.0 min left",
        "sasrec epoch 3/4, best 0.2500, at most 2.0 min left",
    ]


def test_nothing_is_written_where_standard_error_is_no_terminal(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    bar = TrainingBar()
    for step in (1, 2):
        bar(Progress("noisy", 1, 1, step, 2, 1.0, None, 0.0))
    assert out.getvalue() == ""
