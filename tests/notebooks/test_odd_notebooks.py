"""Every notebook runs on bundles that are good for `bbqrec data check`, however odd.

A bundle takes more than a minute, so only those run here that differ most; rows run on all of them.
"""

from pathlib import Path

import pytest
from odd_bundles import BUNDLES

from bbqrec_lab.suite import notebooks

pytestmark = pytest.mark.suite
SEEDS, JOBS = "0,1", 2
CHOSEN = ("one-item", "all-seen", "no-shared-user", "no-features", "one-user", "dotted-name")


@pytest.mark.parametrize("name", CHOSEN)
def test_every_notebook_runs_on_an_odd_bundle(name: str, tmp_path: Path) -> None:
    bundle = BUNDLES[name](tmp_path / name)
    given = {"dataset": str(bundle), "preset": "smoke", "seed": 0, "out_dir": str(tmp_path / "runs"), "overrides": {}}
    found = notebooks.discover(notebooks.notebook_folder())
    plan = {path: notebooks.parameters_for(path, given, SEEDS) for path in found}
    assert notebooks.run_notebooks(plan, tmp_path / "run", "odd", JOBS) == {}
