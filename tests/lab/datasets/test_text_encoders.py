"""Texts that the English encoder does not know are counted, and another encoder takes them."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import bundles
import numpy as np
import polars as pl
import pytest

from bbqrec_lab.datasets import features, sources, text_encoders
from bbqrec_lab.datasets.reading import read_bundle
from bbqrec_lab.settings import DataConfig

THAI, CHINESE = ["ชาเขียว", "กระทะเหล็ก", "ถุงเท้า"], ["绿茶", "铸铁平底锅"]


@pytest.fixture
def english(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An English encoder without weights, which knows every word piece, and the texts that it was given."""
    given: list[str] = []

    def encode(texts: list[str], wheel: Path) -> np.ndarray:
        given.extend(texts)
        return np.array([[len(text), 1] for text in texts], np.float32)

    monkeypatch.setattr(features, "fetch_wheel", lambda wheel, cache: cache)
    monkeypatch.setattr(features, "encode_texts", encode)
    monkeypatch.setattr(text_encoders, "unknown_pieces", lambda texts, wheel: np.zeros(len(texts), bool))
    return given


def shop(root: Path, texts: list[str | None]) -> Path:
    """A bundle of five items with these texts and nothing else to encode."""
    table = bundles.items().select("item_id").with_columns(text=pl.Series(texts, dtype=pl.String))
    return bundles.write(root, table=table, features={})


def encoded(root: Path, cache: Path, encoder: str = "auto") -> object:
    return features.encode(read_bundle(root, DataConfig()), cache, (), encoder)


def test_a_text_is_of_another_script_if_most_of_its_letters_are() -> None:
    texts = [*THAI, *CHINESE, "книга чая", "كتاب الشاي", "चाय", "Tee für zwei", "tea 茶", "🍵 7", ""]
    assert text_encoders.other_script(texts).tolist() == [True] * 8 + [False] * 4


def test_ngrams_tell_texts_of_any_script_apart_and_like_spellings_come_together() -> None:
    texts = [*THAI, *CHINESE, "绿茶包", "🍵", "tea"]
    vectors = text_encoders.encode_ngrams(texts)
    assert len(np.unique(vectors.round(5), axis=0)) == len(texts)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = unit @ unit.T
    assert near[3, 5] > 0.3 > near[3, 4]
    assert np.array_equal(text_encoders.encode_ngrams(texts), vectors)
    assert text_encoders.encode_ngrams(["tea"]).shape == (1, 1)


def test_a_shop_in_other_scripts_gets_ngrams_and_the_report_says_so(english: list[str], tmp_path: Path) -> None:
    data = encoded(shop(tmp_path / "b", [*THAI, *CHINESE]), tmp_path)
    assert english == []
    assert len(np.unique(data.features["text"][1:], axis=0)) == 5
    told = data.report["text encoder"]
    assert "character n-grams" in told
    assert "does not know 5 of 5 texts" in told


def test_a_few_unknown_texts_are_counted_and_stay_with_the_english_encoder(english: list[str], tmp_path: Path) -> None:
    texts = ["tea", "cup", "pot", "jam", THAI[0]]
    data = encoded(shop(tmp_path / "b", texts), tmp_path)
    assert english == sorted(texts)
    assert "does not know 1 of 5 texts" in data.report["text encoder"]


def test_signs_that_become_unknown_pieces_count_as_unknown(
    english: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_encoders, "unknown_pieces", lambda texts, wheel: np.array([t == "🍵" for t in texts]))
    data = encoded(shop(tmp_path / "b", ["tea", "cup", "pot", "jam", "🍵"]), tmp_path)
    assert "does not know 1 of 5 texts" in data.report["text encoder"]
    asked = encoded(shop(tmp_path / "c", ["tea", "cup", "🍵", None, None]), tmp_path, "english")
    assert "does not know 1 of 3 texts" in asked.report["text encoder"]
    assert "n-grams" in encoded(tmp_path / "c", tmp_path).report["text encoder"]


def test_titles_are_encoded_where_an_item_has_no_text(english: list[str], tmp_path: Path) -> None:
    table = bundles.items().with_columns(text=pl.Series(["an ash", None, "n/a", None, None]))
    data = encoded(bundles.write(tmp_path / "b", table=table.drop("image"), features={}), tmp_path)
    assert english == ["an ash", "beech. tree", "durian. fruit", "elm", "tree, wood"]
    assert data.presence["text"][1:].all()


def test_a_library_model_is_loaded_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> SimpleNamespace:
        assert name == "some/model"
        return SimpleNamespace(encode=lambda texts, show_progress_bar: [[float(len(text))] for text in texts])

    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=load))
    data = encoded(shop(tmp_path / "b", [*THAI, *CHINESE]), tmp_path, "some/model")
    assert data.features["text"][1:, 0].tolist() == [len(text) for text in data.items["text"]]
    assert data.report["text encoder"] == "some/model"


def test_a_library_model_that_cannot_be_had_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str) -> None:
        raise OSError("cannot reach the hub\nlong story")

    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=offline))
    root = shop(tmp_path / "b", THAI + CHINESE)
    with pytest.raises(ValueError, match=r"'some/model' cannot be loaded \(cannot reach the hub\): check the name"):
        encoded(root, tmp_path, "some/model")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ValueError, match=r"pip install 'bbqrec\[text\]', or set text_encoder=ngrams"):
        encoded(root, tmp_path, "some/model")


def test_another_encoder_or_a_changed_folder_has_another_key(tmp_path: Path) -> None:
    root = shop(tmp_path / "b", THAI + CHINESE)
    hashes = {name: read_bundle(root, DataConfig(text_encoder=name)).content_hash for name in ("auto", "ngrams", "x/y")}
    assert len(set(hashes.values())) == 3
    (tmp_path / "model").mkdir()
    before = text_encoders.library_identity(str(tmp_path / "model"))
    (tmp_path / "model" / "weights").write_bytes(b"0")
    assert text_encoders.library_identity(str(tmp_path / "model")) != before


def test_rows_without_features_need_no_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "encode", None)
    root = shop(tmp_path / "b", ["tea", "cup", "pot", "jam", "oil"])
    data = sources.load(root, cache=tmp_path, encoded=False)
    assert data.features == {}
    assert data.content_hash == replace(read_bundle(root, DataConfig())).content_hash
