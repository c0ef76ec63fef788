"""Requests: what is watched is what is answered, and axes vary one size. No time is asserted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from answering import HISTORY, tiny_recommender
from tiny import lab_recommender_config, planted_data

from bbqrec_core import Recommender, build_recommender
from bbqrec_lab.baselines.sequence_models import make_model
from bbqrec_lab.datasets.synthetic import random_ids
from bbqrec_lab.experiments.presets import Config, make_config
from bbqrec_lab.measure import Plan
from bbqrec_lab.speed import growth, latency

ROWS = torch.tensor([HISTORY, [9, 2, 8, 0, 0]])


def small(**changes: object) -> Config:
    config = make_config(
        "smoke", 0, {"codes": 4, "levels": 3, "beam": 3, "recommender.max_events": 5, "evaluation.batch": 7}
    )
    return replace(config, recommender=lab_recommender_config(**changes))


def models() -> dict[str, Recommender]:
    return latency.contestants(29, random_ids(29, 3, 4, 6), small())


@pytest.mark.parametrize("name", ["bbqrec", "no reweighting", "no score offsets", "extra code", "code by code"])
def test_a_watched_search_answers_as_the_recommender_and_counts_what_it_read(name: str) -> None:
    model = models()[name]
    seen = latency.trace(model, ROWS, 3)
    items, scores = model.beam(ROWS, 3)
    assert torch.equal(seen.items, items)
    assert torch.equal(seen.scores, scores)
    first = len(model.tree.code[0])
    rest = len(model.tree.code) - 2
    assert seen.carried == (2, 2 * min(first, 3), *[2 * 3] * rest)
    levels = range(1, len(model.tree.code) + 1)
    assert list(seen.seconds)[:3] == ["history", "level 1, model", "level 1, search"]
    assert set(seen.seconds) == {"history", *(f"level {n}, {kind}" for n in levels for kind in ("model", "search"))}
    assert all(spent >= 0 for spent in seen.seconds.values())


def test_steps_of_a_search_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = []
    monkeypatch.setattr(Plan, "now", lambda plan: ticks.append(None) or float(len(ticks)))
    seen = latency.trace(models()["bbqrec"], ROWS, 3)
    between = len(ticks) - 1 - sum(seen.seconds.values())
    assert between == 1  # from reading the history to the first level's model nothing happens


def test_a_model_that_scores_items_cannot_be_watched() -> None:
    for output in ("items", "both"):
        model = build_recommender(20, random_ids(20, 3, 4, 6), lab_recommender_config(output=output), 0)
        with pytest.raises(ValueError, match="scores items"):
            latency.trace(model, ROWS, 3)


def test_shortcuts_leave_scores_within_rounding_and_a_wrong_one_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_recommender()
    found = latency.gaps(model, ROWS, 4)
    assert set(found) == {"caches", "batch", "widest beam", "traced"}
    assert max(found.values()) < 1e-4
    extend = model.model.head.blocks.extend
    monkeypatch.setattr(model.model.head.blocks, "extend", lambda x, caches: extend(x, [None] * len(caches)))
    assert latency.gaps(model, ROWS, 4)["caches"] > 1e-3  # a search that forgets the codes before


def test_contestants_differ_in_what_their_names_say() -> None:
    found = models()
    assert found["bbqrec"].model.reweighting is not None
    assert found["no reweighting"].model.reweighting is None
    with_offsets = small(seen_offset=True, score_reweight=True)
    scored = latency.contestants(29, random_ids(29, 3, 4, 6), with_offsets)
    unscored = [name for name, model in scored.items() if model.model.scoring is None]
    assert unscored == ["no score offsets", "code by code"]
    assert len(found["extra code"].tree.code) == len(found["bbqrec"].tree.code) + 1
    assert [model.model.per_item > 1 for model in found.values()] == [False, False, False, False, True]
    assert all(not model.model.training for model in found.values())


@pytest.mark.parametrize(
    ("changes", "taken"), [({}, True), ({"output": "both"}, False), ({"granularity": "code"}, False)]
)
def test_a_trained_model_takes_the_methods_place_where_it_has_its_shape(changes: dict, taken: bool) -> None:
    trained = build_recommender(20, random_ids(20, 3, 4, 6), lab_recommender_config(**changes), 1, make=make_model)
    found = latency.with_trained(models(), trained)
    assert (found["bbqrec"] is trained) is taken
    assert list(found) == list(models())
    assert latency.with_trained(models(), object())["bbqrec"].model is not None


@pytest.mark.parametrize(
    ("items", "codes", "least", "levels"), [(8, 4, 1, 2), (9, 4, 1, 3), (8, 4, 3, 3), (10**9, 256, 1, 4), (1, 2, 1, 1)]
)
def test_levels_leave_twice_as_many_ids_as_items(items: int, codes: int, least: int, levels: int) -> None:
    assert latency.levels_for(items, codes, least) == levels


def test_real_requests_are_the_last_events_of_users_who_come_again_where_they_are_few(tmp_path: Path) -> None:
    data = planted_data(tmp_path)  # 23 users
    history = data.history("test")
    found = latency.real_rows(data, 3, 50)
    assert len(found) == 50
    for number in (0, 1, 22, 23):
        user = number % 23
        ends = history.offsets[user : user + 2]
        assert found[number].tolist() == [history.items[slice(*ends)][-3:].tolist()]
    spread = latency.real_rows(data, 3, 2)
    assert spread[1].tolist() == [history.items[slice(*history.offsets[11:13])][-3:].tolist()]


def test_requests_take_turns_and_masked_ones_leave_their_history_out() -> None:
    model, asked = models()["bbqrec"], []
    seen = replace(model)
    object.__setattr__(seen, "beam", lambda rows, width, masked: asked.append((rows.tolist(), width, masked)))
    side = latency.request_side(seen, [ROWS[:1], ROWS[1:]], 4)
    for _ in range(3):
        side.run()
    assert [rows for rows, _, _ in asked] == [ROWS[:1].tolist(), ROWS[1:].tolist(), ROWS[:1].tolist()]
    assert all(masked is None for _, _, masked in asked)
    latency.request_side(seen, [ROWS], 4, masked=True).run()
    assert torch.equal(asked[-1][2], ROWS)


def test_every_request_is_timed_once_and_percentiles_are_those_of_numpy() -> None:
    spent = latency.latencies(models(), ROWS.split(1), 3)
    assert {name: len(values) for name, values in spent.items()} == dict.fromkeys(models(), 2)
    table = latency.percentiles({"a": np.arange(101.0), "b": np.array([2.0, 2.0])})
    assert table.rows() == [("a", 101, 50.0, 90.0, 99.0, 1.98), ("b", 2, 2.0, 2.0, 2.0, 1.0)]


def test_axes_vary_one_size_each_and_mark_the_configured_one(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"L": (2, 3), "W": (1, 3), "T": (2, 5), "N": (10, 40)}
    monkeypatch.setitem(latency.VALUES, "smoke", (values, (2, 1)))
    shapes = []
    build = latency.made_models
    monkeypatch.setattr(latency, "made_models", lambda shape, config: shapes.append(shape) or build(shape, config))
    found = latency.axis_costs(small(), 20)
    tried = {axis: sorted(set(part["value"])) for (axis,), part in found.group_by("axis")}
    assert tried == {"L": [2, 3], "W": [1, 3], "T": [2, 5], "N": [10, 20, 40]}
    own = found.filter(pl.col("own")).select("axis", "value").unique().sort("axis").rows()
    assert own == [("L", 3), ("N", 20), ("T", 5), ("W", 3)]
    assert set(found.filter(pl.col("axis") == "N")["model"]) == {*models(), "masked"}
    assert set(found.filter(pl.col("axis") == "W")["model"]) == set(models())
    assert (found["low"] <= found["ms"]).all() and (found["ms"] <= found["high"]).all()  # noqa: PT018
    sizes = [(shape.levels, shape.items) for shape in shapes]
    assert sorted(sizes) == [(2, 20), (3, 20), (4, 10), (4, 20), (4, 40)]  # 4^3 is not twice 40; none is built twice


def test_codes_that_are_too_few_for_a_catalogue_are_doubled() -> None:
    model = latency.made_models(latency.Shape(2, 1, 5, 20), small())["bbqrec"]
    assert [table.num_embeddings for table in model.model.vectors.codes] == [8, 8]  # 4 x 4 IDs are fewer than 40


def test_batches_of_the_axes_become_curves_in_seconds() -> None:
    line = {
        "axis": "N",
        "value": 10,
        "own": True,
        "model": "bbqrec",
        "kind": "batch",
        "ms": 2.0,
        "low": 1.0,
        "high": 4.0,
    }
    other = [line | {"kind": "single"}, line | {"model": "masked"}]
    found = growth.of_requests(pl.DataFrame([line, *other]))
    assert found.rows() == [("generation, per user in a batch", "items", 10, "seconds", 0.002, 0.001, 0.004)]
