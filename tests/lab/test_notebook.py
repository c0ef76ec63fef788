"""What a notebook starts from: a workspace knows its data, where results go, and the truth of planted data."""

from pathlib import Path

import numpy as np
import pytest
from tiny import PLANTED

from bbqrec_lab import Workspace, notebook
from bbqrec_lab.datasets import planted
from bbqrec_lab.store import Store


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Over a planted bundle that is no registered dataset."""
    folder = tmp_path_factory.mktemp("workspace")
    planted.write_planted(folder / "mine", PLANTED)
    return Workspace(str(folder / "mine"), "smoke", 3, str(folder / "runs"), {"codes": 8})


def test_results_land_below_the_folder_asked_for(space: Workspace) -> None:
    out = Path(space.out_dir)
    assert space.folder == out / space.data.name / "smoke"
    assert isinstance(space.store, Store)
    assert space.store.root == out / "artefacts"
    assert (space.config.preset, space.config.seed, space.config.tokenizer.codes) == ("smoke", 3, 8)
    assert not (out / "artefacts").exists(), "nothing is made before it is asked for"


def test_a_planted_truth_and_its_oracle_are_those_of_the_bundle(space: Workspace) -> None:
    assert set(space.truth()) == set(planted.load_truth(space.dataset, space.data))
    for part in ("valid", "test"):
        assert np.array_equal(space.oracle(part), planted.oracle_scores(space.dataset, space.data, part))
    assert space.oracle("test").sum(1) == pytest.approx(np.ones(space.data.n_users))


def test_data_without_a_truth_have_none_and_no_oracle(space: Workspace, tmp_path: Path) -> None:
    source, bare = Path(space.dataset), tmp_path / "bare"
    bare.mkdir()
    for name in ("interactions.parquet", "items.parquet"):
        (bare / name).write_bytes((source / name).read_bytes())
    other = Workspace(str(bare), "smoke", 0, str(tmp_path / "runs"), {"modalities": []})
    assert other.truth() == {}
    with pytest.raises(ValueError, match="truth"):
        other.oracle("test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "no/such"}, "no dataset 'no/such'"),
        ({"preset": "tiny"}, "preset must be one of"),
        ({"seed": -1}, "seed must be"),
        ({"overrides": {"codess": 4}}, "codess"),
    ],
)
def test_a_wrong_workspace_is_refused_as_soon_as_it_is_built(space: Workspace, change: dict, message: str) -> None:
    fields = {name: getattr(space, name) for name in ("dataset", "preset", "seed", "out_dir", "overrides")}
    with pytest.raises(ValueError, match=message):
        Workspace(**fields | change)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a notebook displays."""
    shown: list[str] = []
    monkeypatch.setattr(notebook, "_say", shown.append)
    return shown


def test_a_rule_must_hold_on_planted_data_and_is_a_remark_on_others(
    space: Workspace, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    space.expect(True, "all is well")
    with pytest.raises(AssertionError, match="all is well"):
        space.expect(False, "all is well")
    assert said == []
    monkeypatch.setattr(Workspace, "truth", lambda self: {})
    space.expect(False, "all is well")
    assert len(said) == 1
    assert "all is well" in said[0]


def test_no_title_is_live_in_a_text(said: list[str]) -> None:
    notebook.notice("A point.", f"{notebook.short('*Tea* <b>no. 1</b>')} is [here](javascript:alert).")
    assert said[0].splitlines()[2:] == [
        "- A point.",
        "- \\*Tea\\* &lt;b&gt;no. 1&lt;/b&gt; is \\[here\\](javascript:alert).",
    ]
    notebook.answer("<b>")
    notebook.remark("~~x~~")
    assert said[1:] == ["**Answer.** &lt;b&gt;", "*\\~\\~x\\~\\~*"]
    assert len(notebook.short("x" * 3000)) == 80


def test_a_ratio_to_nothing_is_no_number() -> None:
    assert notebook.ratio(1, 4) == 0.25
    assert np.isnan(notebook.ratio(1, 0.0))


def test_a_command_is_shown_with_its_output_as_plain_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as Jupyter does
    (tmp_path / "my orders.csv").write_text("user,item,time\n" + "".join(f"u,i{n},{n}\n" for n in range(1, 5)))
    notebook.command("data", "import", "my orders.csv", "--to", "shop", folder=tmp_path)
    said = capsys.readouterr().out
    assert said.startswith("$ bbqrec data import 'my orders.csv' --to shop\nimported to shop\n")
    assert said.rstrip().endswith("next: bbqrec data check shop")
    assert "\x1b" not in said
    assert "%|" not in said
    assert (tmp_path / "shop" / "items.parquet").exists()
    with pytest.raises(RuntimeError, match="shop"):  # the folder is there already
        notebook.command("data", "import", "my orders.csv", "--to", "shop", folder=tmp_path)


def test_an_override_that_the_method_sets_itself_is_told(space: Workspace, said: list[str]) -> None:
    Workspace(space.dataset, "smoke", 0, space.out_dir, {"recommender.output": "both", "codes": 8})
    assert said == []
    Workspace(space.dataset, "smoke", 0, space.out_dir, {"recommender.output": "items", "features": False})
    assert said == [
        "*bbqrec always has recommender.output=both and recommender.features=True: an override of it changes other "
        "rows only.*"
    ]
