"""Measure one group of rows in the environment of its peer; print the rows as JSON on standard output."""

import argparse
import importlib
import json
import os
import sys

os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", POLARS_MAX_THREADS="1", MKL_NUM_THREADS="1")


def main() -> None:
    """Run the function that `python -m benchmarks` names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("function")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    given = parser.parse_args()
    out = os.dup(1)  # standard output is only for the rows; prints of libraries go to standard error
    os.dup2(2, 1)
    import torch

    torch.set_num_threads(1)
    from bbqrec_lab.measure import Plan

    rows = getattr(importlib.import_module(f"benchmarks.{given.module}"), given.function)(
        Plan(given.scale, given.repetitions, given.clock)
    )
    with os.fdopen(out, "w") as stream:
        json.dump([row._asdict() for row in rows], stream)


if __name__ == "__main__":
    sys.exit(main())
