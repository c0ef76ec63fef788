"""Lists by beam search: those of the model's own beam, eager or compiled; no beam where items are scored."""

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from served import Server, make_run

from bbqrec_lab import cli
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.experiments import runs
from bbqrec_lab.serving.compiled import Beam
from bbqrec_lab.serving.service import rank

WIDTH = 12


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[NamedDataset, Path]:
    return make_run(tmp_path_factory.mktemp("beams"), "generation")


def histories(data: NamedDataset) -> list[np.ndarray]:
    offsets, items, _ = data.sequences
    return [items[begin:end] for begin, end in pairwise(offsets)]


def test_a_list_is_the_models_beam_without_the_history(run: tuple[NamedDataset, Path]) -> None:
    """Histories are longer than the five events that the model reads; earlier events are left out as well."""
    model, past = runs.load_scorer(run[1]), histories(run[0])
    assert max(map(len, past)) > model.model.config.max_events
    for history, (rows, scores) in zip(past, Beam(model, WIDTH).lists(model, past, 5), strict=True):
        read = torch.from_numpy(history[-model.model.config.max_events :].astype(np.int64))[None]
        items, values = model.beam(read, WIDTH, read)
        kept = [(i, v) for i, v in zip(items[0].tolist(), values[0].tolist(), strict=True) if i and i not in history]
        assert rows.tolist() == [i for i, _ in kept[:5]]
        assert np.allclose(scores, [v for _, v in kept[:5]], atol=1e-5)


def test_a_beam_as_wide_as_the_tree_gives_the_exact_lists(run: tuple[NamedDataset, Path]) -> None:
    model, past = runs.load_scorer(run[1]), histories(run[0])[:9]
    exact = rank(model, [(rows, None) for rows in past], 6)
    for (rows, scores), (wanted, values) in zip(Beam(model, 30).lists(model, past, 6), exact, strict=True):
        assert rows.tolist() == wanted.tolist()
        assert np.allclose(scores, values, atol=1e-5)


@pytest.mark.parametrize("variant", ["bbqrec", "popularity"])
def test_runs_that_score_items_have_no_beam(tmp_path: Path, variant: str, capsys: pytest.CaptureFixture) -> None:
    _, directory = make_run(tmp_path, variant)
    assert cli.main(["serve", "--run", str(directory), "--port", "0", "--beam", "9"]) == 2
    assert "--beam needs a run that only generates IDs" in capsys.readouterr().err


@pytest.mark.suite
def test_a_server_goes_on_with_the_program_when_it_is_compiled(run: tuple[NamedDataset, Path], tmp_path: Path) -> None:
    user = str(run[0].users[0])
    with Server(run[1], "--beam", str(WIDTH), state=tmp_path / "state.sqlite") as server:
        before = server.ask(f"/recommend/{user}", k=5)[1]["items"]
        end = time.monotonic() + 300
        while not any("the beam search is compiled" in line for line in server.told):
            assert time.monotonic() < end, server.told
            assert not any("stays eager" in line for line in server.told), server.told
            time.sleep(0.2)
        after = server.ask(f"/recommend/{user}", k=5)[1]["items"]
        assert [item["item_id"] for item in after] == [item["item_id"] for item in before]
        assert np.allclose([item["score"] for item in after], [item["score"] for item in before], atol=1e-4)
