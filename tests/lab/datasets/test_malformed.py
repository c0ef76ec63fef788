"""A slice of the torture of readers: whatever is in the files, one line says what is wrong, and nothing hangs."""

from pathlib import Path

import pytest
from malformed import decode_or_refuse, read_or_refuse

BUNDLES, PICTURES = range(40), range(20)


@pytest.mark.parametrize("number", BUNDLES)
def test_a_malformed_bundle_is_refused_in_one_line_or_read(tmp_path: Path, number: int) -> None:
    read_or_refuse(tmp_path / "shop", number)


@pytest.mark.filterwarnings("ignore")  # of Pillow, about the damage
@pytest.mark.parametrize("number", PICTURES)
def test_a_mutated_picture_is_refused_or_read(tmp_path: Path, number: int) -> None:
    decode_or_refuse(tmp_path / "x.png", number)
