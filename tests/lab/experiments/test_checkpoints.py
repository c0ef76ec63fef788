"""A damaged checkpoint never stops a training and never changes its result."""

import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from killing import Killed
from tiny import planted_data, run_config

from bbqrec_core import EvaluationConfig
from bbqrec_core import training as core_training
from bbqrec_lab.experiments import runs
from bbqrec_lab.experiments.checkpoints import settle
from bbqrec_lab.experiments.runs import run_variant
from bbqrec_lab.store import DamagedError, Store, save_arrays

EVALUATION = EvaluationConfig(early_users=23, beam=20, exact_items=1000, batch=16)
CONFIG = run_config(0, EVALUATION, r_epochs=3, r_patience=9, r_score_reweight=True, r_score_steps=5, epochs=3)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def turn_a_bit(path: Path) -> None:
    """One bit of a weight: the file can still be read."""
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def other_content(path: Path) -> None:
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(3)}))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return planted_data(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """The folder of an uninterrupted run."""
    return run_variant(data, "bbqrec", CONFIG, Store(tmp_path_factory.mktemp("whole"))).directory


@pytest.fixture(scope="module")
def whole(finished):
    """Its files, except those with times."""
    return contents(finished)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix != ".json"}


def interrupted(data, root, monkeypatch, stage: str) -> None:
    """A run that dies after the second epoch of a stage."""
    inner = core_training.save_checkpoint

    def dying(path, task, progress):
        inner(path, task, progress)
        if path.match(f"{stage}/epoch-000002.safetensors"):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(core_training, "save_checkpoint", dying)
        with pytest.raises(Killed):
            run_variant(data, "bbqrec", CONFIG, Store(root))


STAGES = ("tokenizer-*/checkpoints", "run-*/checkpoints/offsets", "run-*/checkpoints")
CASES = [(turn_a_bit, stage, "epoch-000002.safetensors") for stage in STAGES]
CASES += [(damaged, STAGES[0], "epoch-000002.safetensors") for damaged in (empty, cut, other_content)]
CASES += [(turn_a_bit, STAGES[2], "best.safetensors")]


@pytest.mark.parametrize(("damaged", "stage", "name"), CASES)
def test_a_damaged_checkpoint_is_set_aside_and_the_result_is_the_same(
    data, whole, tmp_path, monkeypatch, capsys, damaged, stage, name
):
    interrupted(data, tmp_path, monkeypatch, stage)
    (found,) = tmp_path.glob(f"{stage}/{name}")
    damaged(found)
    capsys.readouterr()
    done = run_variant(data, "bbqrec", CONFIG, Store(tmp_path))
    told = [line for line in capsys.readouterr().err.splitlines() if "damaged" in line]
    assert len(told) == 1
    assert str(found) in told[0]
    assert ("goes on after epoch 1" in told[0]) == ("epoch" in name)
    assert contents(done.directory) == whole
    assert not [path for path in done.directory.iterdir() if path.name.startswith(".")]


def test_without_its_best_weights_a_training_starts_anew(tmp_path):
    task = core_training.Task("toy", torch.nn.Linear(1, 1), [], lambda epoch: [], lambda batch: {})
    for name in ("best", "epoch-000001", "epoch-000002"):
        core_training.save_checkpoint(tmp_path / f"{name}.safetensors", task, {"best_epoch": 1})
    settle(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 3, "sound ones stay"
    turn_a_bit(tmp_path / "best.safetensors")
    settle(tmp_path)
    assert list(tmp_path.glob("*.safetensors")) == []
    assert len(list(tmp_path.glob("*.damaged"))) == 3


@pytest.mark.parametrize("damaged", [empty, cut, turn_a_bit])
def test_a_damaged_slice_of_ranks_is_ranked_again(data, tmp_path, monkeypatch, capsys, damaged):
    monkeypatch.setattr(runs, "SLICE", 8)
    save, saved = save_arrays, []

    def dying(path, **arrays):
        save(path, **arrays)
        saved.append(path)
        if len(saved) == 2 and path.name.startswith("ranks-"):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(runs, "save_arrays", dying)
        with pytest.raises(Killed):
            run_variant(data, "popularity", CONFIG, Store(tmp_path / "cut"))
    damaged(next(tmp_path.glob("cut/*.partial/checkpoints/ranks-0.npz")))
    done = run_variant(data, "popularity", CONFIG, Store(tmp_path / "cut"))
    assert "these users are ranked again" in capsys.readouterr().err
    monkeypatch.setattr(runs, "SLICE", 2048)
    assert contents(done.directory) == contents(run_variant(data, "popularity", CONFIG, Store(tmp_path)).directory)


@pytest.mark.parametrize("name", ["model.safetensors", "items.parquet", "ids.npz", "run.json", "users.parquet"])
def test_a_damaged_run_recommends_nothing(data, finished, tmp_path, name):
    directory = Path(shutil.copytree(finished, tmp_path / finished.name))
    turn_a_bit(directory / name)
    with pytest.raises(DamagedError, match=rf"{name} is damaged or missing: run bbqrec fit again"):
        runs.recommend_users(directory, [data.users[0]])
    with pytest.raises(DamagedError, match=name):
        runs.recommend(directory, data.items["item_id"][:1].to_list())


def test_damaged_ranks_are_not_compared(data, tmp_path):
    done = run_variant(data, "popularity", CONFIG, Store(tmp_path))
    turn_a_bit(done.directory / "ranks_filtered.npz")
    runs.recommend(done.directory, data.items["item_id"][:1].to_list())  # needs no ranks
    runs.load_ranks(done.directory, "included")
    with pytest.raises(DamagedError, match=r"ranks_filtered\.npz is damaged"):
        runs.load_ranks(done.directory, "filtered")
