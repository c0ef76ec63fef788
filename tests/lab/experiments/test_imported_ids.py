"""IDs that were made elsewhere stay as they are unless a repair is asked for, and what a repair changed is told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import planted_data, run_config

from bbqrec_core import EvaluationConfig, SemanticIds
from bbqrec_lab.datasets.id_files import write_ids
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.experiments.runs import Result, id_report, run_tokenizer, run_variant
from bbqrec_lab.experiments.variants import variant_config
from bbqrec_lab.store import Store

EVALUATION = EvaluationConfig(early_users=23, beam=20, exact_items=1000, batch=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> NamedDataset:
    return planted_data(tmp_path_factory.mktemp("imported"))


@pytest.fixture(params=["wide", "narrow"])
def table(request: pytest.FixtureRequest, data: NamedDataset) -> np.ndarray:
    """IDs of 24 items, some of which share one; `narrow` has fewer last codes than items below some prefixes."""
    rows = np.arange(data.n_items)
    if request.param == "wide":
        codes = np.stack([rows % 5, np.zeros_like(rows), rows // 5 * 2], 1)
        codes[:3] = codes[3]
    else:
        codes = np.stack([rows % 10, np.zeros_like(rows), rows // 10 % 2], 1)
        codes[14] = codes[4]  # the other last code of this prefix is free
    return np.vstack([np.zeros((1, 3), int), codes])


def fitted(data: NamedDataset, table: np.ndarray, tmp_path: Path, repair: str = "", variant: str = "bbqrec") -> Result:
    """A row on imported IDs; `repair` is the uniqueness that the user asks for."""
    write_ids(tmp_path / "ids.json", data.items["item_id"], table)
    settings = {"source": "file", "ids_file": str(tmp_path / "ids.json")} | ({"uniqueness": repair} if repair else {})
    config = run_config(0, EVALUATION, **settings)
    config = replace(config, given=tuple(["tokenizer.uniqueness"] if repair else []))
    return run_variant(data, variant, config, Store(tmp_path / "store"))


def stored(result: Result) -> np.ndarray:
    return SemanticIds.load(result.directory / "ids.npz").code_ids


def test_they_stay_as_they_are(data: NamedDataset, table: np.ndarray, tmp_path: Path) -> None:
    result = fitted(data, table, tmp_path)
    assert np.array_equal(stored(result)[1:], table[1:])
    _, sizes = np.unique(table[1:], axis=0, return_counts=True)
    told = {"items": data.n_items, "sharing": int(sizes[sizes > 1].sum()), "changed": 0}
    assert id_report(result.directory) == told
    assert told["sharing"] >= 4


def test_a_repair_that_is_asked_for_is_made_and_counted(data: NamedDataset, table: np.ndarray, tmp_path: Path) -> None:
    result = fitted(data, table, tmp_path, repair="nearest")
    changed = (stored(result)[1:] != table[1:]).any(1)
    assert id_report(result.directory)["changed"] == changed.sum() > 0
    assert (stored(result)[1:] < table[1:].max(0) + 1).all(), "no code beyond those of its position"


@pytest.mark.parametrize(("variant", "length"), [("extra-code", 4), ("sinkhorn", 3), ("no-repair", 3)])
def test_a_variant_that_is_about_a_repair_asks_for_it(
    data: NamedDataset, table: np.ndarray, tmp_path: Path, variant: str, length: int
) -> None:
    found = stored(fitted(data, table, tmp_path, variant=variant))
    assert found.shape[1] == length
    shared = len(found) - 1 - len(np.unique(found[1:], axis=0))
    before = len(table) - 1 - len(np.unique(table[1:], axis=0))
    assert shared < before if variant != "no-repair" else shared == before


def test_published_codes_stay_and_what_replaces_them_is_repaired(data: NamedDataset, tmp_path: Path) -> None:
    codes = np.zeros((data.n_items + 1, 2), np.int32)
    given, store = replace(data, codes={"text": codes}, content_hash="published"), Store(tmp_path)
    config = variant_config("published-codes", run_config(0, EVALUATION))
    assert (run_tokenizer(given, config, store)[0].ids.code_ids == 0).all()
    other, _ = run_tokenizer(data, config, store)  # no codes in the bundle: RQ-k-means, as the row rq-kmeans
    same, _ = run_tokenizer(data, variant_config("rq-kmeans", run_config(0, EVALUATION)), store)
    assert np.array_equal(other.ids.code_ids, same.ids.code_ids)
