"""The commands and the Python line that the README and docs/data.md show work on the files of a small shop."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bbqrec_lab import cli
from bbqrec_lab.datasets.importing import import_data


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with orders, products, pictures and vectors of a shop."""
    monkeypatch.chdir(tmp_path)
    orders = ["customer;product;bought_at"]
    orders += [f"c{n % 9};{n % 7:03d};2021-03-{n % 28 + 1:02d} 10:{n % 60:02d}" for n in range(90)]
    (tmp_path / "orders.csv").write_text("\n".join(orders))
    products = ["product;name;category;price", *(f"{n:03d};Thing {n};toys|tea;3" for n in range(7))]
    (tmp_path / "products.csv").write_text("\n".join(products))
    (tmp_path / "pictures").mkdir()
    for n in range(7):
        Image.new("RGB", (8, 8), (30 * n, 0, 0)).save(tmp_path / "pictures" / f"{n:03d}.jpg")
    np.savez(tmp_path / "vectors.npz", ids=[f"{n:03d}" for n in range(7)], vectors=np.eye(7))
    return tmp_path


def shown(root: Path, page: str) -> list[list[str]]:
    """The import and check commands of a page, as arguments."""
    text = (root / page).read_text(encoding="utf-8")
    found = re.findall(r"^ *(?:.venv/bin/)?bbqrec (data (?:import|check) (?![A-Z.]).*)", text, re.MULTILINE)
    return [line.split() for line in found]


@pytest.mark.parametrize("page", ["README.md", "docs/data.md"])
def test_the_commands_of_a_page_make_a_bundle_that_is_valid(
    root: Path, shop: Path, page: str, capsys: pytest.CaptureFixture
) -> None:
    commands = shown(root, page)
    assert commands[0][:2] == ["data", "import"]
    for command in [*commands, ["data", "check", "shop"]]:
        assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "bought_at" in printed
    assert "ISO text, no zone: taken as UTC" in printed
    assert "columns that the bundle has no use for" in printed
    assert "9 users, 7 items" in printed
    assert (shop / "shop" / "images" / "003.jpg").exists()


def test_the_python_line_of_the_docs_prints_what_was_understood(root: Path, shop: Path) -> None:
    assert 'print(import_data("orders.csv", "shop"))' in (root / "docs/data.md").read_text(encoding="utf-8")
    assert "item_id <- product, text" in str(import_data("orders.csv", "shop"))


def test_columns_that_are_named_are_taken(shop: Path, capsys: pytest.CaptureFixture) -> None:
    given = "data import orders.csv --items products.csv --title category --zone Europe/Berlin --time bought_at --to x"
    assert cli.main(given.split()) == 0
    assert "ISO text, Europe/Berlin" in capsys.readouterr().out
    assert cli.main(["data", "import", "orders.csv", "--user", "who", "--to", "y"]) == 2
    assert "no column 'who' for --user; choose from customer, product, bought_at" in capsys.readouterr().err
