"""The progress of a training run, with the epoch, the loss and the time left, as suits the place where it runs.

A notebook that is open in a frontend shows a bar of ipywidgets. A terminal has one line per epoch. Everywhere else, in
papermill as well, a plain line goes to the standard error of the process now and then, never into a notebook: the
outputs of an executed notebook must not depend on whether a result was stored before.
"""

import os
import sys
import time
import weakref
from contextlib import suppress

from tqdm import tqdm

from bbqrec_core.training import Progress
from bbqrec_lab.frontend import has_frontend, kernel

SECONDS = 30.0  # between two plain lines
REDRAW = 0.2  # seconds between two updates of a widget


class TrainingBar:
    """A `progress` callback that draws where its reader is; one object for one or more trainings, one after another."""

    def __init__(self) -> None:
        self.name, self.draw, self.finish = None, None, None

    def __call__(self, at: Progress) -> None:
        if at.name != self.name:
            if self.finish is not None:
                self.finish()
            self.name, self.draw = at.name, _display()
            # Training may stop before its last epoch, without a word; then this object is thrown away.
            self.finish = weakref.finalize(self, self.draw.finish)
        self.draw(at)


def _display() -> "_TerminalBar | _Lines | _Widget":
    """The display for this process: a widget, a line of a terminal, or plain lines."""
    if has_frontend():
        return _Widget()
    return _TerminalBar() if sys.stderr.isatty() else _Lines()


class _TerminalBar:
    """One bar of tqdm per epoch on standard error."""

    def __call__(self, at: Progress) -> None:
        if at.step == 1:
            self.bar = tqdm(total=at.steps, desc=_label(at), leave=False, file=sys.stderr, mininterval=1.0)
        self.bar.set_postfix(loss=f"{at.loss:.3f}", refresh=False)
        self.bar.update()
        if at.step == at.steps:
            self.bar.close()

    def finish(self) -> None:
        """Each epoch closes its bar."""


class _Lines:
    """A plain line every `SECONDS`, for logs; a kernel writes it to its own standard error, not into the notebook."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, at: Progress) -> None:
        now = time.monotonic()
        if now - self.last >= SECONDS:
            self.last = now
            _write(f"{_label(at)}, step {at.step}/{at.steps}, loss {at.loss:.3f}\n")

    def finish(self) -> None:
        """The result of the training says the rest."""


def _write(line: str) -> None:
    """Write a line to the standard error of the process, unless another display has a terminal there.

    In a kernel, `sys.stderr` is the notebook; its `fileno` is the stream that the kernel was started with, but some
    systems do not have it.
    """
    stream = sys.stderr
    with suppress(OSError):
        try:
            place = stream.fileno()
        except (OSError, AttributeError):
            stream = sys.__stderr__ if kernel() else stream
            stream.write(line)
            stream.flush()
        else:
            if not os.isatty(place):
                os.write(place, line.encode(errors="replace"))


class _Widget:
    """A bar of ipywidgets over all epochs; at the end, one line of text takes its place in the notebook."""

    def __init__(self) -> None:
        import ipywidgets
        from IPython.display import display

        self.bar = ipywidgets.FloatProgress(min=0.0, max=1.0, layout={"width": "14rem"})
        self.text = ipywidgets.Label()
        self.box = ipywidgets.HBox([self.bar, self.text])
        self.shown = display(self.box, display_id=True)
        self.start = self.last = time.monotonic()
        self.first = self.at = None

    def __call__(self, at: Progress) -> None:
        now, done = time.monotonic(), _done(at)
        if self.first is None:
            self.first = done  # above 0 after an interruption
        ends = at.epoch == at.epochs and at.step == at.steps
        if self.at is None or now - self.last >= REDRAW or ends:
            self.last, self.bar.value = now, done
            text = f"{at.name}: epoch {at.epoch}/{at.epochs}, loss {at.loss:.3f}"
            text += "" if at.best is None else f", best {at.best:.4f}"
            if done > self.first:
                left = (now - self.start) / (done - self.first) * (1 - done)
                text += f", at most {_minutes(left)} left"
            self.text.value = text
        self.at = at

    def finish(self) -> None:
        """Replace the bar by its last line: a saved notebook shows text where a widget would need a kernel."""
        at = self.at
        text = f"{at.name}: {at.epoch} of {at.epochs} epochs in {_minutes(time.monotonic() - self.start)}"
        text += f", loss {at.loss:.3f}" + ("" if at.best is None else f", best {at.best:.4f}")
        self.shown.update({"text/plain": text}, raw=True)
        for widget in (self.box, self.text, self.bar):
            widget.close()


def _done(at: Progress) -> float:
    """The finished share of all steps."""
    return (at.epoch - 1 + at.step / at.steps) / at.epochs


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def _label(at: Progress) -> str:
    """Name, epoch, best score so far and the time left, estimated from the mean epoch time."""
    label = f"{at.name} epoch {at.epoch}/{at.epochs}"
    if at.best is not None:
        label += f", best {at.best:.4f}"
    if at.epoch > 1:
        label += f", at most {at.seconds / (at.epoch - 1) * (at.epochs - at.epoch + 1) / 60:.1f} min left"
    return label
