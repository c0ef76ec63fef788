"""The training loop of every model here: progress, early stopping, checkpoints, resuming."""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn


def best_device() -> torch.device:
    """The CUDA GPU if torch finds one, else the CPU; CUDA_VISIBLE_DEVICES selects among several."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def moved(batch: Tensor | tuple[Tensor, ...], device: torch.device) -> Tensor | tuple[Tensor, ...]:
    """Move a batch to another device."""
    return batch.to(device) if isinstance(batch, Tensor) else tuple(part.to(device) for part in batch)


@contextmanager
def training_precision(device: torch.device, precision: str = "fp32") -> Iterator[None]:
    """In training, products round their factors to bfloat16 (`bf16`) or, on a GPU, to TF32; sums stay in float32."""
    before = torch.get_float32_matmul_precision()
    if precision == "bf16" or device.type != "cpu":
        torch.set_float32_matmul_precision("medium" if precision == "bf16" else "high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@dataclass
class Task:
    """A model and everything the loop needs to train it."""

    name: str  # shown next to the progress bar
    model: nn.Module  # holds all state of a checkpoint; batches move to its device
    optimizers: Sequence[torch.optim.Optimizer]  # the loop steps the first on `loss`; `loss` itself steps the others
    batches: Callable[[int], Sequence]  # of an epoch; must depend on its number alone
    loss: Callable[[object], dict[str, Tensor]]  # of a batch: the loss to minimise under "loss", and its parts
    score: Callable[[], float] | None = None  # of validation, higher is better; None trains all epochs
    watch: Callable[[], dict[str, object]] = field(default=dict)  # figures after each epoch, such as code usage
    precision: str = "fp32"  # of matrix products, see `training_precision`

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.parameters()).device


class TrainingLog(NamedTuple):
    """One dict per epoch (`epoch`, mean loss parts, `score` if measured, `watch` figures), and the best epoch."""

    epochs: list[dict[str, object]]
    best_epoch: int
    seconds: float


class Progress(NamedTuple):
    """The state of a training, passed to a callback after every step."""

    name: str  # of the task
    epoch: int  # the current one, from 1
    epochs: int  # the planned number
    step: int  # the same within the epoch
    steps: int
    loss: float  # mean of the epoch so far
    best: float | None  # score so far
    seconds: float  # of finished epochs


Report = Callable[[Progress], None] | None  # called after every step of a training; None is silent


def save_checkpoint(path: Path, task: Task, progress: dict[str, object]) -> None:
    """Write model, optimizers and progress to one safetensors file with its checksum, atomically and synced."""
    tensors = {f"model.{name}": value for name, value in task.model.state_dict().items()}
    for index, optimizer in enumerate(task.optimizers):
        for parameter, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{parameter}.{name}": value for name, value in state.items()}
    tensors = {name: value.detach().contiguous().to("cpu", copy=True) for name, value in tensors.items()}
    told, partial = {"progress": json.dumps(progress)}, path.with_name(f".{path.name}")
    told["sha256"] = hashlib.sha256(safetensors.torch.save(tensors, told)).hexdigest()
    with partial.open("wb") as file:
        file.write(safetensors.torch.save(tensors, told))
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def load_checkpoint(path: Path, task: Task) -> dict[str, object]:
    """Load a checkpoint into the task's model and optimizers; return its progress."""
    with safetensors.safe_open(path, "pt") as file:
        progress = json.loads(file.metadata()["progress"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    task.model.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("model.")})
    for index, optimizer in enumerate(task.optimizers):
        saved: dict[int, dict[str, Tensor]] = {}
        for name in (name for name in tensors if name.startswith(f"optimizer.{index}.")):
            parameter, key = name.split(".", 3)[2:]
            saved.setdefault(int(parameter), {})[key] = tensors[name]
        optimizer.load_state_dict({"state": saved, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress


def learning_rate(done: float) -> float:
    """Fraction of the peak learning rate after a fraction `done` of all planned steps.

    Choice: linear warm-up over the first 5 %, then half a cosine down to 10 %; a resumed run needs no scheduler state.
    """
    return min(1.0, (done + 1e-3) / 0.05) * (0.55 + 0.45 * math.cos(math.pi * done))


def run_epoch(task: Task, epoch: int, epochs: int, report: Callable[[int, int, float], None]) -> dict[str, object]:
    """Train one epoch and return the mean of each loss part; `report` receives step, steps and mean loss."""
    task.model.train()
    totals: dict[str, float] = {}
    batches, groups = task.batches(epoch), task.optimizers[0].param_groups
    for step, batch in enumerate(batches, start=1):
        share = learning_rate((epoch + (step - 1) / len(batches)) / epochs)
        for group in groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * share
        parts = task.loss(moved(batch, task.device))
        values = dict(zip(parts, torch.stack([part.detach() for part in parts.values()]).cpu().tolist(), strict=True))
        if not math.isfinite(values["loss"]):
            raise FloatingPointError(f"{task.name}: loss is not finite in epoch {epoch + 1}: lower the learning rate")
        task.optimizers[0].zero_grad(set_to_none=True)
        parts["loss"].backward()
        nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
        task.optimizers[0].step()
        for name, value in values.items():
            totals[name] = totals.get(name, 0.0) + value
        report(step, len(batches), totals["loss"] / step)
    return {name: total / len(batches) for name, total in totals.items()}


def epochs_for(steps: int, steps_per_epoch: int, epochs: int) -> int:
    """The planned number of epochs: `epochs`, or more if a small dataset needs more to reach `steps`."""
    return max(epochs, -(-steps // max(steps_per_epoch, 1)))


def fit(
    task: Task, seed: int, epochs: int, directory: Path, every: int = 1, patience: int = 1, progress: Report = None
) -> TrainingLog:
    """Train for `epochs`, or until the score has not improved for `patience` evaluations; keep the best weights.

    Evaluations are `every` epochs apart. The checkpoints of the last two epochs are kept in `directory`. A second call
    after an interruption resumes from the newest; on CPU the result equals an uninterrupted run bit for bit.

    Raises: FloatingPointError when the loss is not finite.
    """
    directory.mkdir(parents=True, exist_ok=True)
    best = directory / "best.safetensors"
    state: dict[str, object] = {"epochs": [], "best": None, "best_epoch": 0, "stale": 0, "seconds": 0.0}
    for last in sorted(directory.glob("epoch-*.safetensors"))[-1:]:
        state = load_checkpoint(last, task)

    def report(step: int, steps: int, loss: float) -> None:
        if progress is not None:
            epoch = len(state["epochs"]) + 1
            progress(Progress(task.name, epoch, epochs, step, steps, loss, state["best"], state["seconds"]))

    with torch.random.fork_rng(devices=[task.device] if task.device.type == "cuda" else []):
        while len(state["epochs"]) < epochs and state["stale"] < patience:
            epoch, start = len(state["epochs"]), time.monotonic()
            torch.manual_seed((seed * 1_000_003 + epoch * 7_919 + 17) % 2**31)  # resuming needs no generator state
            with training_precision(task.device, task.precision):
                means = run_epoch(task, epoch, epochs, report)
            row = {"epoch": epoch + 1, **means, **task.watch()}
            if task.score is not None and ((epoch + 1) % every == 0 or epoch + 1 == epochs):
                task.model.eval()
                row["score"] = task.score()
                state["stale"] += 1
                if state["best"] is None or row["score"] > state["best"]:
                    state |= {"best": row["score"], "best_epoch": epoch + 1, "stale": 0}
            state["epochs"].append(row)
            state["seconds"] += time.monotonic() - start
            if state["best_epoch"] == epoch + 1:
                save_checkpoint(best, task, state)
            save_checkpoint(directory / f"epoch-{epoch + 1:06d}.safetensors", task, state)
            (directory / f"epoch-{epoch - 1:06d}.safetensors").unlink(missing_ok=True)
    if best.exists():
        load_checkpoint(best, task)
    task.model.eval()
    return TrainingLog(state["epochs"], state["best_epoch"] or len(state["epochs"]), state["seconds"])
