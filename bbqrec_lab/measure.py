"""Timing: interleaved repetitions after a warm-up; all of them are kept, for medians and spreads."""

import platform
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
    """How to time.

    Args: scale: share of the full size; tests use a small one. repetitions: timed runs of each side, after the warm-up.
        clock: `wall`, or `cpu`: processor time of this process and its children, for a machine with other load.
    """

    scale: float = 1.0
    repetitions: int = 5
    clock: str = "wall"

    def size(self, full: int, least: int = 1) -> int:
        """A scaled size, at least `least`."""
        return max(round(full * self.scale), least)

    def now(self) -> float:
        """Seconds on the chosen clock."""
        if self.clock == "wall":
            return time.perf_counter()
        finished = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + finished.ru_utime + finished.ru_stime


class Side(NamedTuple):
    """One of the alternatives to time: `run` is a repetition, `amount` its work in units (vectors, targets, users)."""

    run: Callable[[], object]
    amount: float = 1.0


def timed(run: Callable[[], object], plan: Plan) -> float:
    """Duration of one call in seconds."""
    start = plan.now()
    run()
    return plan.now() - start


def interleave(sides: Mapping[Hashable, Side], plan: Plan, warm_up: int = 1) -> dict[Hashable, np.ndarray]:
    """Seconds of every repetition of every side: sides take turns, and every second round runs in reverse order.

    Other load on the machine then affects all sides alike, and no side always runs after the same other side.
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
    """Reset the peak memory of this process if the system can (Linux), because one worker runs many variants."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> float:
    """Peak resident memory of this process in GB since `forget_peak_memory`, or since its start if not on Linux."""
    with suppress(OSError, IndexError):
        return round(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20, 2)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def has_bf16() -> bool:
    """Whether the GPU, or without one the processor, has instructions for products of bfloat16."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return any(there for name, there in torch.cpu.get_capabilities().items() if "bf16" in name)


def processor_name() -> str:
    """The model of the processor, for tables: another one rounds sums differently."""
    with suppress(OSError, IndexError):
        return Path("/proc/cpuinfo").read_text().split("model name")[1].split(":", 1)[1].split("\n")[0].strip()
    return platform.processor()


def device_name(device: torch.device) -> str:
    """The type of a device with its model, for tables."""
    model = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return f"{device.type} ({model})" if model else device.type
