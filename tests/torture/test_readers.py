"""Readers against many malformed files: 1,000 bundles and 1,500 pictures, in blocks."""

from pathlib import Path

import pytest
from malformed import decode_or_refuse, read_or_refuse

pytestmark = pytest.mark.torture


@pytest.mark.parametrize("block", range(10))
def test_malformed_bundles_are_refused_in_one_line_or_read(tmp_path: Path, block: int) -> None:
    found = [
        read_or_refuse(tmp_path / f"{number}" / "shop", number) for number in range(100 * block, 100 * block + 100)
    ]
    assert 50 < sum(map(bool, found)) < 100, "the damage is too harmless or too great to test readers"


@pytest.mark.filterwarnings("ignore")  # of Pillow, about the damage
@pytest.mark.parametrize("block", range(15))
def test_mutated_pictures_are_refused_or_read(tmp_path: Path, block: int) -> None:
    found = [decode_or_refuse(tmp_path / "x.png", number) for number in range(100 * block, 100 * block + 100)]
    assert 0 < sum(found) < 100
