"""The settings that the laboratory adds to the core: reading of data, source of IDs, switches of the baselines."""

from dataclasses import dataclass
from typing import Literal

from bbqrec_core import RecommenderConfig, TokenizerConfig
from bbqrec_core.config import Checked, at_least


@dataclass(frozen=True)
class DataConfig(Checked):
    """How a dataset is read and split.

    Args: split_seed: seed of time ties, item permutation and evaluation samples, the same for all models and seeds.
        time_ties: order of events of one user at one time: `shuffle` (seeded) or `file`.
        k_core: repeatedly drop users and items with fewer events; 0 keeps all.
        modalities: names to use; empty uses all modalities of the bundle.
        cold_items: share of items, drawn by split_seed, that are held out of training: new items with content only.
        text_encoder: of items without ready text features: `english` (MiniLM), `ngrams` (hashed character n-grams, for
            any script), `auto` (English, or n-grams if it does not know a fifth of the texts), or the name or folder
            of a model of sentence-transformers.
        posters: for `ml-100k` and `ml-1m`: a folder of pictures, or `get` to download them; empty uses no pictures.
    """

    split_seed: int = at_least(0, 0)
    time_ties: Literal["shuffle", "file"] = "shuffle"
    k_core: int = at_least(0, 0)
    modalities: tuple[str, ...] = ()
    cold_items: float = at_least(0.0, 0.0, 1.0)
    text_encoder: str = "auto"
    posters: str = ""


@dataclass(frozen=True)
class IdsConfig(Checked):
    """The source of the semantic IDs of a variant.

    Args: source: `learned` by stage 1, or a control of the same shape: `random` codes, RQ-k-means of joined features
            (`kmeans`: unit length, first E principal axes) or of the item embeddings of a SASRec (`sasrec`), the
            `published` codes of a bundle, or IDs from a `file`.
        ids_file: for `file`: parquet or index.json, see `datasets.id_files`.
        transport: separate colliding items by entropic transport instead of by `tokenizer.uniqueness`.
    """

    source: Literal["learned", "random", "kmeans", "sasrec", "published", "file"] = "learned"
    ids_file: str = ""
    transport: bool = False


@dataclass(frozen=True)
class VariantTokenizerConfig(TokenizerConfig):
    """Stage 1 with the switches that only baselines and ablations use.

    Args: those of `TokenizerConfig` (here `signals` may name a modality that the data lack), and
        joined: concatenate the features of all modalities into one signal.
        shared_codebook: one codebook for all signals, or one per signal.
        combine: how the signals form one ID: `fused` quantizes their gated mean, `concat` concatenates their codes,
            `chain` concatenates them too, but each signal quantizes the residual of the signals before it.
        gradient: estimator through the quantizer. codebook_update: whether the codebook learns by moving averages
            (`ema`) or by `gradient`.
        uniqueness: as in `TokenizerConfig`, or TIGER's `extra` code.
        w_use: weight of the loss for even use of the codes.
        w_align: weight of LETTER's collaborative alignment with the item embeddings of a SASRec.
    """

    joined: bool = False
    shared_codebook: bool = True
    combine: Literal["fused", "concat", "chain"] = "fused"
    gradient: Literal["straight-through", "rotation"] = "straight-through"
    codebook_update: Literal["ema", "gradient"] = "ema"
    uniqueness: Literal["none", "extra", "nearest"] = "nearest"
    w_use: float = at_least(0.0, 0.0)
    w_align: float = at_least(0.0, 0.0)


@dataclass(frozen=True)
class VariantRecommenderConfig(RecommenderConfig):
    """Stage 2 with the switches that only baselines and ablations use.

    Args: those of `RecommenderConfig`, and
        loss: for `items`: full cross-entropy (`ce`), SASRec's binary cross-entropy with one negative (`bce`), gSASRec's
            with `negatives` of them and a calibrated target (`gbce`), or a softmax over the target and `negatives`
            uniform items that a batch shares (`sampled`).
        features: add a linear map of the scaled modality features to the item embeddings, on input and output side.
        granularity: for `codes`: one position per `item`, or one per `code` (the flattened sequence of TIGER); other
            outputs use one per item. Rankings of `code` come from beam search.
        similarity: vectors to compare: the `quantized` vectors, the behaviour `signals` before quantization, or the
            frozen `features`. similarity_form: one offset per bucket (`buckets`), or one `linear` in the cosine.
        bucket_edges: cut the similarities of sampled pairs into equal parts (`quantile`), or [-1, 1] (`uniform`).
        channels: `same` compares each signal with itself; `all` adds the pairs of different modalities.
        block: of the backbone: `plain`, `ligr` with gated branches and SwiGLU as in eSASRec, `bsarec` with a
            frequency filter beside the attention, or `hstu`, whose model also reads the times of events.
    Raises: as `RecommenderConfig`; ValueError for `features` without item embeddings, and for a `loss` other than `ce`
        if `output` is not `items` or with `seen_offset`.
    """

    loss: Literal["ce", "bce", "gbce", "sampled"] = "ce"
    negatives: int = at_least(256, 1)
    features: bool = False
    granularity: Literal["item", "code"] = "item"
    similarity: Literal["quantized", "signals", "features"] = "quantized"
    similarity_form: Literal["buckets", "linear"] = "buckets"
    bucket_edges: Literal["quantile", "uniform"] = "quantile"
    channels: Literal["same", "all"] = "all"
    block: Literal["plain", "ligr", "bsarec", "hstu"] = "plain"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.features and self.output == "codes":
            raise ValueError("features are added to item embeddings: set output to items or both, got output=codes")
        if self.loss != "ce" and self.output != "items":
            raise ValueError(f"loss must be ce unless output is items, got loss={self.loss}, output={self.output}")
        if self.loss != "ce" and self.seen_offset:
            raise ValueError(f"seen_offset needs the full softmax: set loss=ce or seen_offset=False, got {self.loss}")

    @property
    def by_code(self) -> bool:
        """Whether histories are read code by code; then beam search ranks only the best IDs."""
        return self.granularity == "code" and self.output == "codes"
