"""The full reproduction with mocks for training and notebook execution."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from bbqrec_lab.datasets import sources
from bbqrec_lab.experiments import estimates, runs, variants
from bbqrec_lab.suite import notebooks, process_pool, reproduce


@dataclass(frozen=True)
class Result:
    """The parts of a result that the reproduction reads."""

    rows: pl.DataFrame
    cost: pl.DataFrame
    variant: str = ""
    seed: int = 0
    directory: Path = Path("store")


def _result(variant: str, seed: int) -> Result:
    line = {"dataset": "toy", "data_hash": "00aa11bb", "variant": variant, "seed": seed, "preset": "smoke"}
    line |= {
        "split_seed": 0,
        "seen_items": "included",
        "segment": "all",
        "targets": 7,
        "metric": "ndcg@10",
        "value": 0.5,
    }
    return Result(
        pl.DataFrame([line | {"config_hash": "c"}]),
        pl.DataFrame([{"variant": variant, "seed": seed, "minutes": 0.1}]),
        variant,
        seed,
    )


def _pair(seeds: int) -> dict[str, object]:
    """A line of the intervals."""
    names = {"seen_items": "included", "metric": "ndcg@10", "variant": "b", "against": "a", "seeds": seeds}
    return names | {"difference": 0.1, "low": 0.0, "high": 0.2, "p": 0.01, "p_holm": 0.02}


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Mocks of sources, experiments, the pool and notebook execution; `failing` holds the names that fail."""
    state = SimpleNamespace(failing=set(), rows=[], notebooks=[], expected={}, clusters=[], told=[])
    data = SimpleNamespace(name="toy", data_hash="00aa11bb", content_hash="00aa11bb" * 5)
    monkeypatch.setattr(sources, "REGISTRY", {"toy": "a toy"})
    monkeypatch.setattr(sources, "load", lambda name, options, encoded: data)
    plan = lambda preset, seeds: [(variant, seed) for variant in ("b", "a") for seed in seeds]  # noqa: E731
    monkeypatch.setattr(variants, "plan", plan)
    kinds = {"a": SimpleNamespace(kind="ids"), "b": SimpleNamespace(kind="markov")}
    monkeypatch.setattr(variants, "VARIANTS", kinds)
    monkeypatch.setattr(runs, "intervals", lambda results: pl.DataFrame([_pair(len(results))]))

    def run_all(
        work: object,
        rows: list,
        jobs: int,
        logs: Path,
        unit: str = "row",
        expected: dict | None = None,
        cluster: str = "",
    ) -> dict:
        state.expected[unit] = expected
        state.clusters.append(cluster)
        if unit == "notebook":
            return {row: work(*row) for row in rows}
        state.rows += rows
        return {row: process_pool.Failure("ValueError: no") if row in state.failing else _result(*row) for row in rows}

    def execute(path: Path, target: Path, parameters: dict) -> str:
        state.notebooks.append((path.name, parameters))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text('{"cells": []}')
        return "ValueError: no" if path.name in state.failing else ""

    def tell_rows(data: object, rows: list, configure: object, store: object, jobs: int) -> None:
        state.told.append((rows, configure(4).seed, jobs, store.root, list(state.rows)))

    monkeypatch.setattr(estimates, "tell_rows", tell_rows)
    monkeypatch.setattr(process_pool, "run_all", run_all)
    monkeypatch.setattr(notebooks, "run_all", run_all)
    monkeypatch.setattr(notebooks, "execute", execute)
    monkeypatch.setattr(notebooks, "notebook_folder", lambda: tmp_path / "notebooks")
    for name in ("01_a.ipynb", "05_b.ipynb"):
        more = 'seeds: str = "0"  # of the rows\n' if name == "05_b.ipynb" else ""
        _write_notebook(tmp_path / "notebooks" / name, more)
    reproduce._load.cache_clear()
    yield state
    reproduce._load.cache_clear()


def _write_notebook(path: Path, more: str = "") -> None:
    text = "".join(f"{name} = 0  # a value\n" for name in notebooks.REQUIRED) + more
    cell = {"cell_type": "code", "source": text, "metadata": {"tags": ["parameters"]}, "outputs": [], "id": "a"}
    kernel = {"kernelspec": {"name": "python3", "language": "python"}}
    content = {"cells": [cell | {"execution_count": None}], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _request(tmp_path: Path, **changes: object) -> reproduce.Request:
    options = {"dataset": "toy", "preset": "smoke", "seeds": (2, 1), "out": tmp_path / "runs"}
    return reproduce.Request(**options | changes)


def test_settings_of_the_data_reach_rows_and_notebooks(
    tmp_path: Path, job: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    data = SimpleNamespace(name="toy", data_hash="00aa11bb", content_hash="00aa11bb" * 5)
    monkeypatch.setattr(sources, "load", lambda name, options, encoded: read.append(options.text_encoder) or data)
    monkeypatch.setattr(variants, "reads_features", lambda variant, config: True)
    monkeypatch.setattr(runs, "find_row", lambda data, variant, config, store: config.data.text_encoder)
    asked = _request(tmp_path, overrides={"text_encoder": "ngrams"})
    assert reproduce.reproduce(asked) == 0
    assert {given["overrides"]["text_encoder"] for _, given in job.notebooks} == {"ngrams"}
    row = reproduce.run_row(asked.dataset, asked.preset, asked.overrides, tmp_path, "a", 1)
    assert (row, set(read)) == ("ngrams", {"ngrams"})


def test_rows_and_notebooks_go_to_the_cluster(tmp_path: Path, job: SimpleNamespace) -> None:
    pytest.importorskip("distributed")
    assert reproduce.reproduce(_request(tmp_path, cluster="dask://127.0.0.1:1")) == 0
    assert job.clusters == ["dask://127.0.0.1:1"] * 2


def test_the_job_writes_its_tables_in_the_order_of_the_plan(
    tmp_path: Path, job: SimpleNamespace, capsys: pytest.CaptureFixture
) -> None:
    assert reproduce.reproduce(_request(tmp_path)) == 0
    tables = tmp_path / "runs" / "toy" / "smoke" / "tables"
    assert sorted(path.name for path in tables.iterdir()) == [
        "cost.csv",
        "intervals.csv",
        "main_results.csv",
        "main_results.md",
        "main_results.tex",
    ]
    rows = pl.read_csv(tables / "main_results.csv")
    assert rows["variant"].to_list() == ["b", "b", "a", "a"]
    assert rows["seed"].to_list() == [2, 1, 2, 1]
    assert job.rows == [("a", 2), ("a", 1), ("b", 2), ("b", 1)]  # execution order: long rows first
    planned = [("b", 2), ("b", 1), ("a", 2), ("a", 1)]
    assert job.told == [(planned, 4, 1, tmp_path / "runs" / "artefacts", [])], "the estimate comes before the work"
    assert pl.read_csv(tables / "intervals.csv")["seeds"].to_list() == [4]
    assert pl.read_csv(tables / "cost.csv").height == 4
    assert "7 targets, split seed 0, seeds 1, 2" in (tables / "main_results.md").read_text()
    printed = capsys.readouterr()
    assert "0.5000 ± 0.0000" in printed.out
    assert "notebook" not in printed.out
    assert "under 4 minutes" in printed.err


def test_notebooks_get_absolute_paths_and_their_own_seed(tmp_path: Path, job: SimpleNamespace) -> None:
    reproduce.reproduce(_request(tmp_path))
    given = dict(job.notebooks)
    assert list(given) == ["01_a.ipynb", "05_b.ipynb"]
    expected = {"dataset": "toy", "preset": "smoke", "seed": 2, "out_dir": str(tmp_path / "runs"), "overrides": {}}
    assert given == {"01_a.ipynb": expected, "05_b.ipynb": expected | {"seeds": "2,1"}}


def test_failures_of_rows_and_notebooks_are_named_at_the_end_and_the_rest_is_there(
    tmp_path: Path, job: SimpleNamespace, capsys: pytest.CaptureFixture
) -> None:
    job.failing = {("b", 1), "01_a.ipynb"}
    assert reproduce.reproduce(_request(tmp_path)) == 1
    *_, row, notebook, _, last = capsys.readouterr().err.splitlines()
    assert (row, notebook) == ("failed: b seed 1: ValueError: no", "failed: 01_a: ValueError: no")
    page = tmp_path / "runs" / "toy" / "smoke" / "index.html"
    assert last == f"the report of the run: {page}"
    assert "<b>b seed 1</b>: ValueError: no" in page.read_text()
    rows = pl.read_csv(tmp_path / "runs" / "toy" / "smoke" / "tables" / "main_results.csv")
    assert rows.select("variant", "seed").rows() == [("b", 2), ("a", 2), ("a", 1)]
    assert len(job.notebooks) == 2


def test_rows_are_made_only_for_notebooks_that_show_them(tmp_path: Path, job: SimpleNamespace) -> None:
    reproduce.reproduce(_request(tmp_path, only=("01",)))
    assert job.rows == []
    reproduce.reproduce(_request(tmp_path, only=("05",)))
    assert len(job.rows) == 4


def test_a_second_run_expects_what_the_first_one_took(tmp_path: Path, job: SimpleNamespace) -> None:
    reproduce.reproduce(_request(tmp_path))
    assert job.expected == {"row": {}, "notebook": {}}
    record = tmp_path / "runs" / "toy" / "smoke" / "notebooks" / "05_b.done.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"seconds": 7.5}))
    (record.parent / "01_a.done.json").write_text("cut o")
    reproduce.reproduce(_request(tmp_path))
    assert job.expected == {
        "row": {("b", 2): 6.0, ("b", 1): 6.0, ("a", 2): 6.0, ("a", 1): 6.0},
        "notebook": {("05_b",): 7.5},
    }


def test_a_wrong_notebook_is_refused_before_any_row(tmp_path: Path, job: SimpleNamespace) -> None:
    path = tmp_path / "notebooks" / "05_b.ipynb"
    path.write_text(path.read_text().replace("preset =", "presets ="))
    with pytest.raises(ValueError, match=r"05_b\.ipynb does not declare preset"):
        reproduce.reproduce(_request(tmp_path))
    assert job.rows == job.notebooks == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": "tiny"}, "smoke, quick, full, got 'tiny'"),
        ({"seeds": ()}, "seeds must be"),
        ({"seeds": (1, 1)}, r"got \(1, 1\)"),
        ({"seeds": (-1,)}, r"got \(-1,\)"),
        ({"jobs": 0}, "at least 1, got 0"),
        ({"dataset": "no/such"}, "no dataset 'no/such': give one of toy, or"),
    ],
)
def test_wrong_requests_are_refused_with_the_value(
    tmp_path: Path, job: SimpleNamespace, change: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _request(tmp_path, **change)


def test_only_a_bundle_that_borrows_a_registered_name_is_told_apart_by_its_hash(
    tmp_path: Path, job: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    borrowed, own = (SimpleNamespace(name=name, content_hash="00aa11bb" * 5) for name in ("toy", "mine"))
    assert runs.run_folder("runs", "toy", "quick", borrowed) == Path("runs/toy/quick")
    assert runs.run_folder("runs", "/some/toy", "quick", borrowed) == Path(f"runs/toy-{borrowed.content_hash}/quick")
    assert runs.run_folder("runs", "/some/mine", "quick", own) == Path("runs/mine/quick")
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert sources.absolute_dataset("./mine") == str(tmp_path / "mine")
    assert sources.absolute_dataset("toy") == "toy"


def _page(root: Path, text: str) -> None:
    (root / "notebooks").mkdir(exist_ok=True)
    (root / "README.md").write_text(text)


def test_promotion_copies_what_the_pages_show_and_nothing_else(tmp_path: Path) -> None:
    default = tmp_path / "runs" / "ml-100k" / "quick"
    full = tmp_path / "runs" / "ml-1m" / "full"
    for path in (default / "figures/02_a.png", default / "figures/unshown.png", full / "tables/main_results.md"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    _page(tmp_path, "![](figures/02_a.png) and figures/ml-1m/full/main_results.md")
    reproduce.promote(tmp_path / "runs", tmp_path)
    copied = {str(path.relative_to(tmp_path / "figures")) for path in (tmp_path / "figures").rglob("*.*")}
    assert copied == {"02_a.png", "ml-1m/full/main_results.md"}


def test_promotion_names_what_no_run_made_and_keeps_long_runs_that_are_committed(tmp_path: Path) -> None:
    kept = tmp_path / "figures" / "ml-1m" / "full" / "main_results.md"
    stale = tmp_path / "figures" / "02_a.png"
    for path in (kept, stale):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("old")
    _page(tmp_path, "![](figures/02_a.png) and figures/ml-1m/full/main_results.md and figures/ml-1m/full/cost.csv")
    with pytest.raises(ValueError, match=r"not found in any run: 02_a.png, ml-1m/full/cost.csv: "):
        reproduce.promote(tmp_path / "runs", tmp_path)
    assert kept.read_text() == "old"


def test_costs_of_rows_with_and_without_a_score_stand_in_one_table(tmp_path: Path, job: SimpleNamespace) -> None:
    results = [
        Result(_result(variant, 0).rows, pl.DataFrame({"variant": [variant], "score": [score]}))
        for variant, score in (("a", None), ("b", 0.5))
    ]
    reproduce.write_results(results, tmp_path)
    assert pl.read_csv(tmp_path / "cost.csv")["score"].to_list() == [None, 0.5]
