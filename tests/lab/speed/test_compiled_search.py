"""Compiled requests: the same lists and scores as the recommender's own beam."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from answering import HISTORY, SIZES, N, tiny_recommender
from tiny import lab_recommender_config, semantic_ids

from bbqrec_core import Recommender, build_recommender, build_tree
from bbqrec_lab.speed.compiled_search import CompiledBeam, Request, compile_beam

WIDTH = 7
REQUESTS = [HISTORY, [9, 2, 8], [4], [1, 2, 3, 4, 5]]
KINDS = {
    "codes": {},
    "both": {"output": "both"},
    "score reweighting": {"score_reweight": True},
    "code by code": {"granularity": "code"},
    "plain attention": {"reweight": False, "prefixes": False, "depth_layers": 2},
    "linear": {"similarity_form": "linear", "block": "ligr"},
}


def rows_of(request: list[int]) -> torch.Tensor:
    """A request of as many events as the model reads."""
    return torch.tensor([request + [0] * (len(HISTORY) - len(request))])


def with_new_items(found: Recommender) -> Recommender:
    """The same recommender, half of whose items no training saw."""
    ids = semantic_ids(N, SIZES)
    return replace(found, tree=build_tree(ids.code_ids, np.arange(N + 1) % 2 == 0))


def agree(answer: object, recommender: Recommender, masked: bool) -> None:
    """Whether requests are answered as by the recommender: equal scores, and items wherever neighbours' differ."""
    for request in REQUESTS:
        rows = rows_of(request)
        items, scores = recommender.beam(rows, WIDTH, rows if masked else None)
        found, own = answer(rows)
        torch.testing.assert_close(own, scores, atol=1e-4, rtol=0)
        assert (found > 0).sum() > WIDTH // 2
        for score in scores.unique():
            tied = (scores - score).abs() < 1e-3
            assert set(found[tied].tolist()) == set(items[tied].tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_compiled_answers_as_the_recommender(kind: str) -> None:
    recommender = with_new_items(tiny_recommender(**KINDS[kind]))
    agree(Request(recommender, WIDTH, masked=True).export().module(), recommender, masked=True)


def test_buckets_of_a_catalogue_too_large_for_a_table_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bbqrec_core.recommender.similarity_bias.PAIR_BYTES", 0)
    recommender = tiny_recommender()
    assert recommender.model.reweighting.pairs is None
    agree(Request(recommender, WIDTH).export().module(), recommender, masked=False)


@pytest.mark.suite  # half a minute
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch meets its own deprecations
def test_a_program_answers_as_the_recommender_it_was_made_of(tmp_path: Path) -> None:
    recommender = tiny_recommender()
    compile_beam(recommender, WIDTH, tmp_path / "beam.pt2", masked=True, users=3)
    program = CompiledBeam(tmp_path / "beam.pt2")
    agree(program, recommender, masked=True)
    short, padded = program(torch.tensor([[9, 2, 8]])), program(rows_of([9, 2, 8]))
    assert torch.equal(short[0], padded[0])
    together = program(torch.cat([rows_of([4]), rows_of([9, 2, 8])]))
    assert together[0].shape == (2, short[0].shape[1])
    assert torch.equal(together[0][1:], short[0])
    for rows in (torch.ones(4, 5, dtype=torch.long), torch.ones(1, 6, dtype=torch.long)):
        with pytest.raises(ValueError, match="at most 3 users of at most 5 events"):
            program(rows)


def test_a_recommender_without_codes_is_refused(tmp_path: Path) -> None:
    scorer = build_recommender(N, None, lab_recommender_config(output="items"), 0)
    with pytest.raises(ValueError, match="tree=None"):
        compile_beam(scorer, WIDTH, tmp_path / "beam.pt2")
