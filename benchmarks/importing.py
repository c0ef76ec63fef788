"""Import time of the core against that of torch, its largest dependency."""

import subprocess
import sys

import numpy as np

from bbqrec_lab.measure import Plan, Side, interleave

from .harness import Row, cost_row

CORE = "import bbqrec_core.recommender.fit, bbqrec_core.tokenizer.fit, bbqrec_core.metrics"


def _start(code: str) -> None:
    """Run code in a fresh interpreter."""
    subprocess.run([sys.executable, "-c", code], check=True)


def importing(plan: Plan) -> list[Row]:
    """Time of a fresh interpreter that imports the package, all of its model, or only torch."""
    codes = {"package": "import bbqrec_core", "core": CORE, "torch": "import torch", "nothing": "pass"}
    sides = {name: Side(lambda code=code: _start(code)) for name, code in codes.items()}
    seconds = interleave(sides, plan)
    milliseconds = {name: 1000 * spent for name, spent in seconds.items()}
    start = np.median(milliseconds["nothing"])  # varies by more than an empty package takes, so clip at 0 below
    own = {name: np.maximum(spent - start, 0.0) for name, spent in milliseconds.items()}
    note = "a fresh interpreter each, start time subtracted"
    return [
        cost_row(words, "import torch", "ms", own[name], own["torch"], "<= 1.3", note)
        for name, words in (("package", "import bbqrec_core"), ("core", "import of stage 1, stage 2 and metrics"))
    ]
