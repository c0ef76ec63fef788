"""Checkpoints of an interrupted training: those that are damaged are set aside before it goes on."""

import hashlib
import json
import os
from pathlib import Path

import safetensors.torch

from bbqrec_lab.terminal import say


def settle(directory: Path) -> None:
    """Rename damaged checkpoints below `directory` to `*.damaged`, with a line on standard error for each.

    Training then goes on from the checkpoint before. It starts anew if there is none, or if its best weights are lost.
    """
    for folder in sorted({path.parent for path in directory.rglob("*.safetensors")}):
        progress = {path: read_progress(path) for path in sorted(folder.glob("*.safetensors"))}
        sound = [path for path, found in progress.items() if found is not None]
        epochs = [path for path in sound if path.name.startswith("epoch-")]
        if epochs and progress[epochs[-1]]["best_epoch"] and folder / "best.safetensors" not in sound:
            epochs = []
        then = f"training goes on after epoch {int(epochs[-1].stem[6:])}" if epochs else "training starts anew"
        for path in progress if not epochs else set(progress) - set(sound):
            os.replace(path, path.with_suffix(".damaged"))
            if progress[path] is None:
                say(f"{path} is damaged: it is renamed to {path.stem}.damaged, and {then}")


def read_progress(path: Path) -> dict[str, object] | None:
    """The progress of a checkpoint if its content has the checksum that it was saved with, else None."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            told = dict(file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        wanted = told.pop("sha256")
        found = hashlib.sha256(safetensors.torch.save(tensors, told)).hexdigest()
        return json.loads(told["progress"]) if found == wanted else None
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError):
        return None
