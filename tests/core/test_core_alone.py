"""The core stands alone: both stages train where torch, numpy, safetensors and jaxtyping are all that is installed."""

import subprocess
import sys

OURS = {"jaxtyping", "numpy", "safetensors", "torch"}
THEIRS = {"mpmath", "sympy", "torchgen", "typing_extensions"}  # what torch and jaxtyping import on their way
LABS = ("IPython", "PIL", "bbqrec_lab", "filelock", "ipywidgets", "jupyter_client", "matplotlib", "nbformat", "pandas")
LABS += ("papermill", "polars", "pooch", "rich", "scipy", "seaborn", "sklearn", "tokenizers", "tqdm", "umap")

SCRIPT = """
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

ALLOWED = set(sys.argv[2].split(",")) | sys.stdlib_module_names
missed = set()


class Alone:
    '''Finds the standard library and what is allowed; anything else is not installed.'''

    @staticmethod
    def find_spec(name, path=None, target=None):
        top = name.partition(".")[0]
        if top in ALLOWED or top.startswith("_sysconfigdata"):
            return PathFinder.find_spec(name, path, target)
        missed.add(top)
        return None

    find_distributions = PathFinder.find_distributions  # jaxtyping reads its own version


sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Alone]
for name in sys.argv[3].split(","):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} was found")

from pathlib import Path

import numpy as np

import bbqrec_core as core

rng, folder = np.random.default_rng(0), Path(sys.argv[1])
sizes = rng.integers(3, 9, 12)
items = rng.integers(1, 16, sizes.sum()).astype(np.int32)
features = {name: rng.normal(size=(16, width)).astype(np.float32) for name, width in (("text", 5), ("image", 4))}
for array in features.values():
    array[0] = 0
data = core.Dataset(
    n_items=15, sequences=core.Sequences(np.concatenate([[0], np.cumsum(sizes)]), items), features=features
)
small = {"levels": 2, "codes": 4, "code_width": 6, "hidden": 7, "epochs": 1, "batch_items": 8, "batch_users": 4}
told = []
done = core.fit_tokenizer(data, core.TokenizerConfig(**small), 0, folder / "tokenizer", progress=told.append)
done.ids.save(folder / "ids.npz")
ids = core.SemanticIds.load(folder / "ids.npz")
for output, given in (("codes", ids), ("both", ids), ("items", None)):
    small = {"width": 8, "layers": 1, "epochs": 1, "min_steps": 0, "batch_events": 16, "output": output}
    config, evaluation = core.RecommenderConfig(**small), core.EvaluationConfig(beam=4, batch=8)
    made, history = core.fit_recommender(data, given, config, evaluation, 0, folder / output, progress=told.append)
    users, past, targets = np.arange(data.n_users), data.history("test"), data.targets("test")
    ranks = core.rank_users(made.scores, past, targets, users)
    assert all(0 <= core.per_user(found)["ndcg@10"].mean() <= 1 for found in ranks.values())
    assert len(history.epochs) == 1
print(",".join(sorted({at.name for at in told})))
print(",".join(sorted(missed)))
"""


def test_both_stages_train_without_the_laboratory_and_its_libraries(root, tmp_path):
    allowed = ",".join(sorted(OURS | THEIRS | {"bbqrec_core"}))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path), allowed, ",".join(LABS)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("\n")[0] == "recommender,sasrec,score offsets,tokenizer"
    missed = set(done.stdout.split("\n")[1].split(","))
    assert missed >= set(LABS)  # they were asked for, and were not there
