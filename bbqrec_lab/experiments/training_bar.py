"""The progress bar of a training run: one line on standard error, with the epoch, the loss and the time left."""

import sys

from tqdm import tqdm

from bbqrec_core.training import Progress


class TrainingBar:
    """A `progress` callback that draws one bar per epoch; silent if standard error is not a terminal."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def __call__(self, at: Progress) -> None:
        if at.step == 1:
            self.bar = tqdm(
                total=at.steps, desc=_label(at), leave=False, file=sys.stderr, mininterval=1.0, disable=None
            )
        if not self.bar.disable:
            self.bar.set_postfix(loss=f"{at.loss:.3f}", refresh=False)
        self.bar.update()
        if at.step == at.steps:
            self.bar.close()


def _label(at: Progress) -> str:
    """Name, epoch, best score so far and the time left, estimated from the mean epoch time."""
    label = f"{at.name} epoch {at.epoch}/{at.epochs}"
    if at.best is not None:
        label += f", best {at.best:.4f}"
    if at.epoch > 1:
        label += f", at most {at.seconds / (at.epoch - 1) * (at.epochs - at.epoch + 1) / 60:.1f} min left"
    return label
