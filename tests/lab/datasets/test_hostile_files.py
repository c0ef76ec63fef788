"""Files that no honest tool writes: each is refused in one line before any work; nothing hangs or leaves the bundle."""

import json
import os
import shutil
from io import BytesIO
from pathlib import Path

import bundles
import numpy as np
import polars as pl
import pytest
from malformed import within
from PIL import Image
from tiny import planted_data, run_config

from bbqrec_core import EvaluationConfig
from bbqrec_lab.datasets import pictures
from bbqrec_lab.datasets.bundle import BundleError
from bbqrec_lab.datasets.id_files import read_ids
from bbqrec_lab.datasets.importing import import_data
from bbqrec_lab.datasets.reading import read_bundle
from bbqrec_lab.experiments.runs import run_variant
from bbqrec_lab.settings import DataConfig
from bbqrec_lab.store import Store

GRAPH = Path("features/graph.npy")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return bundles.write(tmp_path / "shop")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return planted_data(tmp_path_factory.mktemp("hostile"))


def refusal(root: Path, **options: object) -> str:
    with within(20), pytest.raises(BundleError) as caught:
        read_bundle(root, DataConfig(**options))
    line = str(caught.value)
    assert line.isprintable()
    return line


@pytest.mark.parametrize("name", [bundles.EVENTS, bundles.ITEMS, str(GRAPH)])
def test_a_pipe_in_place_of_a_file_is_refused_and_does_not_hang(root, name):
    (root / name).unlink()
    os.mkfifo(root / name)
    assert f"{name}: " in refusal(root)


def archive(file: Path) -> None:
    with file.open("wb") as opened:
        np.savez(opened, a=np.ones((5, 2)))


def longer(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0" * 8)


def as_text(file: Path) -> None:
    np.save(file, np.full((5, 2), np.frombuffer(b"\n\0\0\0", "f4")))
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))


def broken_header(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"'shape': (5, 2)", b"'shape': ((5, 2"))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (archive, "graph.npy: an archive of arrays (.npz); store one array with numpy.save"),
        (longer, "graph.npy: 176 bytes, but its header says 168; write it again"),
        (as_text, "graph.npy: "),
        (broken_header, "graph.npy: cannot be read as a numpy array ("),
    ],
)
def test_an_array_is_exactly_what_its_header_says(root, damage, says):
    damage(root / GRAPH)
    assert says in refusal(root)


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "\udcff", "id", "id_codes"])
def test_a_modality_has_a_name_that_can_be_shown(root, name):
    np.save(root / "features" / f"{name}.npy", np.ones((5, 2), int))
    assert "give the file another name" in refusal(root)


def test_hidden_files_of_other_systems_are_no_modalities(root):
    (root / "features/._graph.npy").write_bytes(b"of a Mac")
    assert set(read_bundle(root, DataConfig()).features) == {"graph"}


@pytest.mark.parametrize("path", ["images/1\0.png", "a" * 5000, "images/loop.png"])
def test_a_path_that_cannot_be_opened_is_refused_with_its_row(root, path):
    (root / "images/loop.png").symlink_to("loop.png")
    bundles.cell(bundles.ITEMS, "image", 1, path)(root)
    if path == "images/loop.png" and os.sys.version_info >= (3, 13):
        assert read_bundle(root, DataConfig()).items["image"].count() == 0
    else:
        assert "items.parquet: row 1, column image: " in refusal(root)


def outside_file(root: Path, secret: Path) -> None:
    (root / "images/11.png").unlink()
    (root / "images/11.png").symlink_to(secret / "11.png")


def outside_folder(root: Path, secret: Path) -> None:
    shutil.rmtree(root / "images")
    (root / "images").symlink_to(secret)


@pytest.mark.parametrize("link", [outside_file, outside_folder])
def test_no_link_leads_out_of_the_bundle(root, tmp_path, link):
    secret = tmp_path / "secret"
    shutil.copytree(root / "images", secret)
    link(root, secret)
    line = refusal(root)
    assert "images/11.png: row 1, column image: a link leads out of the bundle; copy the picture into it" in line


def test_a_link_inside_the_bundle_is_followed(root):
    (root / "images/11.png").rename(root / "images/other.png")
    (root / "images/11.png").symlink_to("other.png")
    assert read_bundle(root, DataConfig()).items["image"].count() == 1


def test_an_import_copies_nothing_from_outside_its_folder_of_pictures(tmp_path):
    folder, secret = tmp_path / "pictures", tmp_path / "secret"
    for place in (folder, secret):
        place.mkdir()
        Image.new("RGB", (4, 3)).save(place / f"{10 if place == folder else 11}.png")
    (folder / "11.png").symlink_to(secret / "11.png")
    bundles.interactions().write_parquet(tmp_path / "events.parquet")
    import_data(tmp_path / "events.parquet", tmp_path / "shop", images=folder)
    assert [path.name for path in (tmp_path / "shop/images").iterdir()] == ["10.png"]


@pytest.mark.parametrize("place", ["source", "items", "in the folder"])
def test_an_import_of_a_pipe_does_not_hang(tmp_path, place):
    (tmp_path / "in").mkdir()
    os.mkfifo(tmp_path / "in" / "pipe.csv")
    bundles.interactions().write_parquet(tmp_path / "in" / "events.parquet")
    with within(20):
        if place == "source":
            with pytest.raises(BundleError, match=r"pipe\.csv: not a file; give a file"):
                import_data(tmp_path / "in" / "pipe.csv", tmp_path / "shop")
        elif place == "items":
            with pytest.raises(BundleError, match=r"pipe\.csv: not a file; give a file"):
                import_data(tmp_path / "in" / "events.parquet", tmp_path / "shop", tmp_path / "in" / "pipe.csv")
        else:
            import_data(tmp_path / "in", tmp_path / "shop")


def saved(kind: str) -> bytes:
    file = BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", [*pictures.FORMATS])
def test_the_named_formats_are_opened(root, kind):
    (root / "images/11.png").write_bytes(saved(kind))
    assert read_bundle(root, DataConfig()).items["image"].count() == 1
    assert pictures.read_picture(root / "images/11.png").size == (8, 8)


@pytest.mark.parametrize("kind", ["EPS", "PPM", "ICO", "TGA", "PDF", "SGI"])
def test_no_other_format_is_opened_and_no_program_is_started(root, kind, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)
    monkeypatch.setattr("subprocess.check_call", None)
    (root / "images/11.png").write_bytes(saved(kind))
    assert "not a picture that can be read" in refusal(root)
    with pytest.raises(pictures.UNREADABLE):
        pictures.read_picture(root / "images/11.png")


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    (tmp_path / "x.png").write_bytes(bundles.huge_png(8_000))
    with pytest.raises(pictures.TooLargeError, match="8000 x 8000, more than 50000000 pixels"):
        pictures.read_picture(tmp_path / "x.png")


def ids_file(data, path: Path, entry: object, ending: str) -> Path:
    """IDs in which the first item has a strange entry."""
    items = data.items["item_id"].to_list()
    entries = {item: [1, 2] for item in items} | {items[0]: entry}
    file = path / f"ids.{ending}"
    file.write_text(json.dumps(entries))
    return file


@pytest.mark.parametrize(
    "entry",
    [
        *(None, [1, None], [[1, 2], [3]], {"a": 1}, [2**70, 1], [2**40, 1], [float("inf"), 1], [float("nan"), 1]),
        *([1] * 100, ["<a_99999999999999999999>", "<b_1>"], "x" * 10**6, [], "", [True, False], [-1, 2]),
    ],
    ids=lambda entry: repr(entry)[:20],
)
def test_strange_ids_are_refused_with_their_item(data, tmp_path, entry):
    file = ids_file(data, tmp_path, entry, "json")
    with within(20), pytest.raises(ValueError, match=r"ids\.json: item ") as caught:
        read_ids(file, data)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["[" * 10**5, '{"a": ' + "1" * 5000 + "}", "[1]", "\0", '{"a": [1], "a": [2]}', "nan", '"' + "a" * 10**6]
)
def test_strange_json_is_refused_with_its_file(data, tmp_path, content):
    (tmp_path / "ids.json").write_text(content)
    with within(20), pytest.raises(ValueError, match=r"ids\.json: ") as caught:
        read_ids(tmp_path / "ids.json", data)
    assert str(caught.value).isprintable()


def test_a_pipe_of_ids_does_not_hang(data, tmp_path):
    os.mkfifo(tmp_path / "ids.json")
    config = run_config(0, EvaluationConfig(early_users=9), source="file", ids_file=str(tmp_path / "ids.json"))
    with within(20), pytest.raises(ValueError, match=r"ids\.json: not a file"):
        run_variant(data, "bbqrec", config, Store(tmp_path))


def test_null_items_of_a_table_of_ids_are_refused(data, tmp_path):
    items = [None, *data.items["item_id"].to_list()]
    pl.DataFrame({"item_id": items, "codes": [[1, 2]] * len(items)}).write_parquet(tmp_path / "ids.parquet")
    with pytest.raises(ValueError, match=r"ids\.parquet: item_id must be one number or text in every row"):
        read_ids(tmp_path / "ids.parquet", data)


def test_cold_items_that_leave_nothing_to_learn_are_refused_before_work(root, tmp_path):
    data = read_bundle(root, DataConfig(cold_items=0.9))
    with pytest.raises(ValueError, match=r"no user has two training events.*lower cold_items"):
        run_variant(data, "sasrec", run_config(0, EvaluationConfig(early_users=3)), Store(tmp_path))
    assert list(tmp_path.glob("run-*")) == []
