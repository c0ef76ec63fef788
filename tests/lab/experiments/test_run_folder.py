"""Two datasets whose folders have one name never share a folder of results."""

from pathlib import Path
from types import SimpleNamespace

from bbqrec_lab.experiments.runs import run_folder


def bundle(path: str, content_hash: str) -> SimpleNamespace:
    return SimpleNamespace(name=Path(path).name, path=path, content_hash=content_hash)


def test_the_first_dataset_keeps_the_name_and_others_add_their_hash(tmp_path: Path) -> None:
    beauty, toys = bundle("/beauty/processed", "aa"), bundle("/toys/processed", "bb")
    first, second = (run_folder(tmp_path, data.path, "smoke", data, claim=True) for data in (beauty, toys))
    assert first == tmp_path / "processed" / "smoke"
    assert second == tmp_path / "processed-bb" / "smoke"
    assert run_folder(tmp_path, beauty.path, "full", beauty) == tmp_path / "processed" / "full"
    assert run_folder(tmp_path, toys.path, "full", toys) == tmp_path / "processed-bb" / "full"


def test_a_dataset_that_moved_or_changed_keeps_its_folder(tmp_path: Path) -> None:
    run_folder(tmp_path, "/a/shop", "smoke", bundle("/a/shop", "aa"), claim=True)
    for data in (bundle("/b/shop", "aa"), bundle("/a/shop", "cc")):
        assert run_folder(tmp_path, data.path, "smoke", data, claim=True) == tmp_path / "shop" / "smoke"


def test_a_look_claims_nothing(tmp_path: Path) -> None:
    assert run_folder(tmp_path, "/a/shop", "smoke", bundle("/a/shop", "aa")) == tmp_path / "shop" / "smoke"
    assert list(tmp_path.iterdir()) == []
    assert run_folder(tmp_path, "/b/shop", "smoke", bundle("/b/shop", "bb"), claim=True).parent.name == "shop"
