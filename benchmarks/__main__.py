"""`python -m benchmarks`: measure each row in the environment of its peer; write bench.csv and bench_machine.csv.

Each group of rows runs in its own process, so memory and caches of one group do not affect another.
"""

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from .harness import Row

ROOT = Path(__file__).resolve().parent.parent
GROUPS = {  # name: environment below .peers, module, function
    "quantize": ("main", "quantizing", "encode"),
    "sasrec": ("recbole", "sequence_training", "sasrec"),
    "reweighting": ("main", "sequence_training", "reweighting"),
    "precision": ("main", "sequence_training", "precision"),
    "stage1": ("main", "quantizing", "stage_one"),
    "beam": ("main", "generating", "beam"),
    "request": ("main", "generating", "request"),
    "serve": ("main", "serving", "serve"),
    "evaluate": ("recbole", "evaluating", "evaluate"),
    "tree": ("main", "catalogue", "tree"),
    "scale": ("main", "scale", "counting"),
    "bundle": ("main", "reading", "bundle"),
    "own-data": ("main", "own_data", "own_data"),
    "import": ("main", "importing", "importing"),
}


def run_group(name: str, options: list[str], peers: Path) -> list[Row]:
    """The rows of one group, measured in its environment.

    Raises: RuntimeError if the process fails, or if both sides compute different results.
    """
    environment, module, function = GROUPS[name]
    python = peers / environment / "bin" / "python"
    with TemporaryDirectory(prefix="bench") as folder:  # some peers write logs into the working folder
        done = subprocess.run(
            [str(python), "-m", "benchmarks.worker", module, function, *options],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": folder},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        cause = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"{name}: {cause}")
    return [Row(**row) for row in json.loads(done.stdout)]


def machine(options: argparse.Namespace) -> dict[str, object]:
    """The machine and the options of the measurement."""
    from bbqrec_lab.measure import processor_name

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "threads a side": 1,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "clock": options.clock,
        "scale": options.scale,
        "repetitions": options.repetitions,
        "load when started": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "commit": commit.stdout.strip(),
    }


def shown(row: Row) -> str:
    """A row as one line of the printed table."""
    spread = f"{row.ratio_low:.2f} to {row.ratio_high:.2f}" if row.repetitions > 1 else ""
    met = ""
    if row.aim:
        met = "met" if row.met else "MISSED"
    figures = f"{row.ours:>12,.1f} {row.theirs:>12,.1f} {row.unit:<17} {row.ratio:>8.2f} {spread:<16} {row.aim:<10}"
    return f"{figures} {met:<6} {row.work} | {row.peer}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Time the core against its peers.")
    parser.add_argument("--only", default=",".join(GROUPS), help=f"groups of rows, from {', '.join(GROUPS)}")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full sizes")
    parser.add_argument("--repetitions", type=int, default=5, help="timed runs per side, after one warm-up run")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="use cpu on a machine with other work")
    parser.add_argument("--peers", type=Path, default=ROOT / ".peers", help="folder of the environments")
    parser.add_argument("--to", type=Path, default=ROOT / "runs" / "bench", help="folder for the two tables")
    given = parser.parse_args()
    given.only = given.only.split(",")
    if unknown := set(given.only) - set(GROUPS):
        parser.error(f"no rows {', '.join(sorted(unknown))}: choose from {', '.join(GROUPS)}")
    return given


def main() -> int:
    """Run the requested groups; returns 1 if a group fails. A missed aim is not a failure."""
    given = _arguments()
    options = [f"--scale={given.scale}", f"--repetitions={given.repetitions}", f"--clock={given.clock}"]
    facts, rows, failed = machine(given), [], 0
    given.to.mkdir(parents=True, exist_ok=True)
    print(f"{'ours':>12} {'theirs':>12} {'unit':<17} {'ratio':>8} {'quartiles':<16} {'aim':<10} {'':<6} work | peer")
    for name in given.only:
        try:
            found = run_group(name, options, given.peers)
        except RuntimeError as error:
            print(f"benchmarks: {error}", file=sys.stderr)
            failed = 1
            continue
        rows += found
        print("\n".join(map(shown, found)), flush=True)
        _write(given.to / "bench.csv", Row._fields, rows)  # after each group, so a stopped run keeps its results
    _write(given.to / "bench_machine.csv", ("what", "value"), facts.items())
    return failed


def _write(path: Path, columns: tuple[str, ...], rows: object) -> None:
    """Write a small table as CSV, with six digits per float."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows)


if __name__ == "__main__":
    sys.exit(main())
