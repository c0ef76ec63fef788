"""How anything is timed here: interleaved repetitions after a warm-up, all of them kept for medians and spreads."""

import resource
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch


@dataclass(frozen=True)
class Plan:
    """How things are timed.

    Args: scale: share of the full size, so that tests take seconds. repetitions: timed runs of each side after one
        that warms up. clock: `wall`, or `cpu`, the processor time of this process and its children, for a machine with
        other work.
    """

    scale: float = 1.0
    repetitions: int = 5
    clock: str = "wall"

    def size(self, full: int, least: int = 1) -> int:
        """A size scaled down, `least` at least."""
        return max(round(full * self.scale), least)

    def now(self) -> float:
        """Seconds on the chosen clock."""
        if self.clock == "wall":
            return time.perf_counter()
        finished = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + finished.ru_utime + finished.ru_stime


class Side(NamedTuple):
    """One of those that take turns: `run` is a repetition, `amount` its units of work (vectors, targets, users)."""

    run: Callable[[], object]
    amount: float = 1.0


def timed(run: Callable[[], object], plan: Plan) -> float:
    """Seconds that one call takes."""
    start = plan.now()
    run()
    return plan.now() - start


def interleave(sides: Mapping[Hashable, Side], plan: Plan, warm_up: int = 1) -> dict[Hashable, np.ndarray]:
    """Seconds of every repetition of every side: all sides in turn, and each second round in the opposite order.

    So whatever else the machine does meets all sides alike, and neither always runs behind the other.
    """
    seconds: dict[Hashable, list[float]] = {name: [] for name in sides}
    for _ in range(warm_up):
        for side in sides.values():
            side.run()
    for repetition in range(plan.repetitions):
        for name in list(sides)[:: -1 if repetition % 2 else 1]:
            seconds[name].append(timed(sides[name].run, plan))
    return {name: np.array(values) for name, values in seconds.items()}


def forget_peak_memory() -> None:
    """Start to measure peak memory anew, where the system can (Linux): a worker does many rows."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> float:
    """The most resident memory of this process since `forget_peak_memory`, in GB; elsewhere since it started."""
    with suppress(OSError, IndexError):
        return round(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20, 2)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def device_name(device: torch.device) -> str:
    """`cpu`, or the kind of device and its model, for tables."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type
