"""Every notebook runs on bundles that are good for `bbqrec data check`, however odd.

A bundle takes more than a minute, so only those run here that differ most; rows run on all of them.
"""

from pathlib import Path

import nbformat
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


@pytest.mark.parametrize("variant", ["sasrec-codes", "generation"])
def test_the_first_notebook_runs_with_one_output_alone_and_says_so(variant: str, tmp_path: Path) -> None:
    (path,) = notebooks.discover(notebooks.notebook_folder(), ("00",))
    notebook = nbformat.read(path, 4)
    changed = [cell for cell in notebook.cells if 'space.run("bbqrec")' in cell.source]
    assert changed
    for cell in changed:
        cell.source = cell.source.replace('space.run("bbqrec")', f'space.run("{variant}")')
    nbformat.write(notebook, tmp_path / path.name)
    given = {"dataset": "planted-smoke", "preset": "smoke", "seed": 0, "out_dir": str(tmp_path), "overrides": {}}
    assert notebooks.execute(tmp_path / path.name, tmp_path / "done.ipynb", given) == ""
    outputs = [out for cell in nbformat.read(tmp_path / "done.ipynb", 4).cells for out in cell.get("outputs", ())]
    said = "\n".join(out.get("data", {}).get("text/markdown", "") for out in outputs)
    assert ("generates no ID, so there is nothing to search" in said) == (variant == "sasrec-codes")
    assert "both outputs rank it" not in said


def test_the_notebook_on_data_runs_where_new_items_are_held_out(tmp_path: Path) -> None:
    (path,) = notebooks.discover(notebooks.notebook_folder(), ("01",))
    given = {"dataset": "planted-smoke", "preset": "smoke", "seed": 0, "out_dir": str(tmp_path)}
    assert notebooks.execute(path, tmp_path / "done.ipynb", given | {"overrides": {"data.cold_items": 0.1}}) == ""
