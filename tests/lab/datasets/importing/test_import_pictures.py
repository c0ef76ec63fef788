"""Pictures are found by item id or by the names in a column; broken and unused ones are named and counted."""

from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from bbqrec_lab.datasets.bundle import BundleError
from bbqrec_lab.datasets.importing import ImportReport, import_data
from bbqrec_lab.datasets.reading import read_bundle
from bbqrec_lab.settings import DataConfig

IDS = ("007", "8", "9", "10")


def shop(folder: Path, images: list[str | None] | None = None) -> dict[str, Path]:
    """A log, an item table and an empty folder of pictures."""
    log = ["user,item,time", *(f"{user},{item},{1_600_000_000 + n}" for user in "uv" for n, item in enumerate(IDS))]
    (folder / "log.csv").write_text("\n".join(log))
    table = pl.DataFrame({"item": IDS, **({"image": images} if images else {})})
    table.write_csv(folder / "items.csv")
    (folder / "pictures").mkdir()
    return {"source": folder / "log.csv", "items": folder / "items.csv", "images": folder / "pictures"}


def paths(report: ImportReport) -> list[str | None]:
    """Picture paths in the order of IDS; every one exists, and the reader accepts the bundle."""
    found = pl.read_parquet(report.folder / "items.parquet")["image"].to_list()
    assert all((report.folder / path).is_file() for path in found if path)
    read_bundle(report.folder, DataConfig())
    return found


def draw(file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    Image.effect_noise((80, 80), 50).convert("RGB").save(file)


def test_pictures_named_by_id_are_copied_and_broken_ones_are_named(tmp_path: Path) -> None:
    given = shop(tmp_path)
    for name in ("007.jpg", "8.PNG", "unused.webp"):
        draw(given["images"] / name)
    draw(given["images"] / "9.jpg")
    content = (given["images"] / "9.jpg").read_bytes()
    (given["images"] / "9.jpg").write_bytes(content[: len(content) // 2])
    (given["images"] / "10.png").write_bytes(b"no picture")
    (given["images"] / "notes.txt").write_text("x")
    report = import_data(**given, to=tmp_path / "to")
    assert paths(report) == ["images/007.jpg", "images/8.PNG", None, None]
    broken = [name for name, why in report.passed_over if "broken picture" in why]
    assert [Path(name).name for name in broken] == ["9.jpg", "10.png"]
    assert report.counts["broken pictures, counted as missing"] == 2
    assert report.counts["pictures that belong to no item"] == 1
    assert "image <- pictures/ID, 2 of 4 items" in str(report)


def test_a_column_names_files_by_path_name_or_address(tmp_path: Path) -> None:
    given = shop(tmp_path, ["red/one.png", "two.png", "https://shop.example/i/three.png?w=300", None])
    for name in ("red/one.png", "blue/two.png", "three.png", "10.png"):
        draw(given["images"] / name)
    report = import_data(**given, to=tmp_path / "to")
    assert paths(report) == ["images/red/one.png", "images/blue/two.png", "images/three.png", "images/10.png"]


def test_addresses_without_a_folder_are_passed_over_with_the_remedy(tmp_path: Path) -> None:
    given = shop(tmp_path, ["https://x/1.png"] * 4)
    del given["images"]
    report = import_data(**given, to=tmp_path / "to")
    assert ("image", "4 web addresses: give the folder of the pictures with --images") in report.passed_over
    assert "image" not in pl.read_parquet(report.folder / "items.parquet").columns


def test_a_folder_of_other_pictures_is_refused(tmp_path: Path) -> None:
    given = shop(tmp_path)
    draw(given["images"] / "cat.png")
    with pytest.raises(BundleError, match=r"no picture belongs to an item; files: cat\.png; ids: 007, 8, 9"):
        import_data(**given, to=tmp_path / "to")
