"""Two sides of a comparison, each repetition in its own process, so that each has its own memory peak.

A module of this package that compares readers ends with `main(WAYS, LIBRARIES)`; `take_turns` then runs it as
`python -m benchmarks.MODULE SIDE PATH CLOCK` and reads the seconds and the growth of peak memory that it prints.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from bbqrec_lab.measure import Plan


def take_turns(plan: Plan, module: str, path: Path, sides: Mapping[str, object]) -> list[np.ndarray]:
    """Seconds and growth of peak memory in bytes of every repetition, (2, repetitions) per side; a first is dropped."""
    figures: dict[str, list[list[float]]] = {name: [] for name in sides}
    for repetition in range(plan.repetitions + 1):
        for name in list(sides)[:: -1 if repetition % 2 else 1]:
            command = [sys.executable, "-m", f"benchmarks.{module}", name, str(path), plan.clock]
            figures[name].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return [np.array(found[1:]).T for found in figures.values()]


def main(ways: Mapping[str, Callable[[Path], object]], libraries: Mapping[str, str]) -> None:
    """Run one side once, with all imports of libraries done before the timing."""
    which, path, clock = sys.argv[1:]
    for name in libraries[which].split(", "):
        __import__(name)
    before = _peak()
    now = time.perf_counter if clock == "wall" else time.process_time
    start = now()
    kept = ways[which](Path(path))
    print(json.dumps([now() - start, _peak() - before]))
    del kept


def _peak() -> int:
    """Peak memory of this process so far, in bytes; `resource` would include the memory of its parent at the fork."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
