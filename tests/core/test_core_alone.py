"""The core needs torch, numpy, safetensors and jaxtyping alone: both stages train where nothing else can be imported."""

import subprocess
import sys

ALLOWED = {"bbqrec_core", "jaxtyping", "numpy", "safetensors", "torch"}
THEIRS = {"typing_extensions", "wadler_lindig"}  # what those import: torch the first, jaxtyping the second
LAZY = set()

SCRIPT = """
import sys

ALLOWED = set(sys.argv[2].split(","))
refused = set()


class Only:
    '''Refuses every import from outside the standard library but those that are allowed.'''

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in ALLOWED and top not in sys.stdlib_module_names:
            refused.add(top)
            raise ModuleNotFoundError(f"{name} is refused", name=name)


sys.meta_path.insert(0, Only())
for name in ("bbqrec_lab", "pandas", "polars", "scipy", "sklearn", "matplotlib", "tqdm"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} was not refused")

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
for output in ("codes", "both", "items"):
    small = {"width": 8, "layers": 1, "epochs": 1, "min_steps": 0, "batch_users": 4, "output": output}
    config, evaluation = core.RecommenderConfig(**small), core.EvaluationConfig(beam=4, batch=8)
    made, history = core.fit_recommender(data, ids, config, evaluation, 0, folder / output, progress=told.append)
    users, past, targets = np.arange(data.n_users), data.history("test"), data.targets("test")
    ranks = core.rank_users(made.scores, past, targets, users)
    assert all(0 <= core.per_user(found)["ndcg@10"].mean() <= 1 for found in ranks.values())
    assert len(history.epochs) == 1
print(f"trained {len({at.name for at in told})} stages, refused {','.join(sorted(refused))}")
"""


def test_both_stages_train_without_the_laboratory_and_its_libraries(root, tmp_path):
    allowed = ",".join(sorted(ALLOWED | THEIRS | LAZY))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path), allowed],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "trained 2 stages" in done.stdout
    print(done.stdout)
