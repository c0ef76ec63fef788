"""One thread for every way in, whatever the environment says, and results that do not depend on it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import odd_bundles
import pytest

from bbqrec_lab.threads import COUNTS

MANY = dict.fromkeys(COUNTS, "2") | {"MKL_DOMAIN_NUM_THREADS": "2", "GOTO_NUM_THREADS": "2", "OMP_DYNAMIC": "TRUE"}
LOADED = "import numpy, torch\n"
REPORT = (
    "import json, torch\nfrom threadpoolctl import threadpool_info\nimport sklearn.cluster\n"
    "print(json.dumps([torch.get_num_threads(), *(pool['num_threads'] for pool in threadpool_info())]))"
)
WAYS = {
    "a command": "from bbqrec_lab import cli\ncli.main(['--version'])\n",
    "a script that loads data": "from bbqrec_lab.datasets import sources\n"
    "try:\n    sources.load('nowhere')\nexcept ValueError:\n    pass\n",
    "a worker": "from bbqrec_lab.suite.process_pool import _prepare_worker\n"
    "import multiprocessing, threading\nmultiprocessing.parent_process = lambda: threading.Event()\n"
    "threading.Event.join = threading.Event.wait\n_prepare_worker()\n",
}


def child(code: str, env: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("before", ["", LOADED], ids=["libraries come later", "libraries are loaded"])
def test_every_way_in_has_one_thread(way: str, before: str) -> None:
    counts = json.loads(child(before + WAYS[way] + REPORT, MANY))
    assert len(counts) > 2
    assert set(counts) == {1}


@pytest.mark.parametrize("variant", ["sasrec", "ease"])
def test_results_do_not_depend_on_inherited_thread_counts(tmp_path: Path, variant: str) -> None:
    bundle, found = odd_bundles.twelve_items(tmp_path / "shop"), []
    for name, env in (("one", {}), ("two", MANY)):
        code = (
            f"from bbqrec_lab import fit\nprint(fit({str(bundle)!r}, {variant!r}, 'smoke', out={name!r}).directory)\n"
        )
        inherited = {key: value for key, value in os.environ.items() if key not in COUNTS}
        done = subprocess.run(
            [sys.executable, "-c", code], env=inherited | env, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        folder = tmp_path / done.stdout.splitlines()[-1]
        found.append({path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".json"})
    assert len(found[0]) > 4
    assert found[0] == found[1]
