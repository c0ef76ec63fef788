"""What a model will be able to use of a bundle: per modality, the items covered, distinct vectors, what is lacking."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float32
from tqdm import tqdm

from bbqrec_core.dataset import MIN_EVENTS
from bbqrec_lab.datasets import encoders, features, text_encoders
from bbqrec_lab.datasets.pictures import UNREADABLE, read_picture
from bbqrec_lab.datasets.reading import NamedDataset

QUICK = {"text": 500, "image": 150}  # texts and pictures that encode within about ten seconds on one core
WHEELS = {"text": encoders.MINILM, "image": encoders.MOBILENET}


class Line(NamedTuple):
    """One modality: where it comes from, how many items have it, distinct vectors (null: not known), and remarks."""

    modality: str
    comes_from: str
    items: int
    distinct: int | None
    remarks: list[str]


def usable(data: NamedDataset, cache: Path, text_encoder: str = "auto") -> pl.DataFrame:
    """One row per modality: its source, the items that have it, its distinct vectors, and what was ignored and why.

    Texts and pictures are encoded only if their vectors are cached, or if that takes seconds and no download; the
    remarks say so if not.

    Args: data: as read, not encoded. text_encoder: as in `DataConfig`.
    Raises: ValueError naming all pictures that cannot be decoded, and if no user has enough events to learn from.
    """
    if not (np.diff(data.train().offsets) > 1).any():
        raise ValueError(
            f"{data.name}: no user has {MIN_EVENTS + 1} events, and a sequence model learns from two training events, "
            "beside the one for validation and the one for test: give longer histories"
        )
    lines = [_of_array(data, name) for name in data.features]
    lines += [_of_content(data, name, found, cache, text_encoder) for name, found in features.contents(data).items()]
    met = int((data.train_counts()[1:] > 0).sum())
    lines.append(
        Line("id", "training events", met, met, _counted(data.n_items - met, "items without a training event"))
    )
    columns = {
        "modality": [line.modality for line in lines],
        "comes from": [line.comes_from for line in lines],
        "items": [f"{line.items} of {data.n_items}" for line in lines],
        "distinct vectors": ["not encoded" if line.distinct is None else str(line.distinct) for line in lines],
        "ignored, and remarks": ["; ".join(line.remarks) for line in lines],
    }
    return pl.DataFrame(columns)


def _of_array(data: NamedDataset, name: str) -> Line:
    """A modality with ready features."""
    has = data.presence[name]
    vectors = data.features[name][has]
    remarks = _counted(data.n_items - len(vectors), "items with only zeros have none")
    still = int((vectors == vectors[0]).all(0).sum())
    if 0 < still < vectors.shape[1]:
        remarks.append(f"{still} of {vectors.shape[1]} columns are constant")
    beside = data.items[name].count() if name in ("text", "image") else 0
    remarks += _counted(beside, f"values of the column {name} are not encoded, because features/{name}.npy is there")
    return Line(name, "features", len(vectors), *_distinct(vectors, remarks))


def _of_content(data: NamedDataset, name: str, content: features.Content, cache: Path, text_encoder: str) -> Line:
    """A modality that an encoder makes."""
    remarks, covered = _ignored(data, name, content), content.column.count()
    source = f"column {name}" if data.items[name].count() else "titles and categories"
    if _lacks_encoder(name, content, cache, text_encoder):
        remarks.append(f"{len(content.keys)} distinct, not encoded: the encoder is not here, see bbqrec data encoders")
        return Line(name, source, covered, None, remarks)
    encoder = features.choose_encoder(name, content, cache, text_encoder)
    remarks += [f"encoder: {encoder.told}"] if encoder.told else []
    there = features.cache_file(name, encoder, content, cache).exists()
    if name == "image" and not there:
        _decode_all(content.values)
    if there or len(content.keys) <= QUICK[name]:
        return Line(name, source, covered, *_distinct(features.vectors_of(name, encoder, content, cache), remarks))
    remarks.append(f"{len(content.keys)} distinct, not encoded here, because that takes longer than a check")
    return Line(name, source, covered, None, remarks)


def _ignored(data: NamedDataset, name: str, content: features.Content) -> list[str]:
    """What of a column is not used, or stands for something else."""
    remarks = _counted(data.n_items - content.column.count(), f"items without {name}")
    if name == "text":
        titled = int((content.column.is_not_null() & data.items["text"].is_null()).sum())
        remarks += _counted(titled, "items have no column text: title and categories are read instead")
    word = {"text": "texts", "image": "pictures"}[name]
    return remarks + [f"{reason}: {count}" for reason, count in data.report.items() if f"missing: {word}" in reason]


def _lacks_encoder(name: str, content: features.Content, cache: Path, text_encoder: str) -> bool:
    """Whether the encoder would have to be downloaded first."""
    if name == "text":
        foreign = text_encoders.other_script(content.values).mean() > text_encoders.MOST_UNKNOWN
        if text_encoder not in ("auto", "english") or (text_encoder == "auto" and foreign):
            return False
    return not (cache / "downloads" / WHEELS[name].file).exists()


def _decode_all(files: list[str]) -> None:
    """Decode every picture. Raises: ValueError naming all that cannot be."""
    broken = {}
    for file in tqdm(files, desc="reading pictures", unit=" pictures", leave=False, disable=None):
        try:
            read_picture(file)
        except UNREADABLE as error:
            broken[file] = str(error)
    features.refuse_broken(broken)


def _distinct(vectors: Float32[np.ndarray, "rows d"], remarks: list[str]) -> tuple[int, list[str]]:
    """The number of distinct vectors, and the remarks with one on vectors that are all equal."""
    count = len({row.tobytes() for row in vectors})
    alike = count == 1 and len(vectors) > 1
    return count, remarks + (["all vectors are equal: they say nothing about an item"] if alike else [])


def _counted(count: int, what: str) -> list[str]:
    return [f"{count} {what}"] if count else []
