"""The settings that the laboratory adds to the core's: what is read, where IDs come from, which rival is trained."""

from dataclasses import dataclass
from typing import Literal

from bbqrec_core import RecommenderConfig, TokenizerConfig
from bbqrec_core.config import Checked, at_least


@dataclass(frozen=True)
class DataConfig(Checked):
    """What is read and how it is split.

    Args: split_seed: fixes time ties, item permutation and evaluation samples, the same for all models and seeds.
        time_ties: `shuffle` (seeded) or `file` order among events of one user at one time.
        k_core: drop users and items with fewer events until none is left; 0 keeps all.
        modalities: names to use; empty uses every one that the bundle has.
        cold_items: share of items, drawn by split_seed, that no training sees: new items, known by content alone.
        posters: for `ml-100k` and `ml-1m`: a folder of pictures, or `get`; empty leaves pictures out.
    """

    split_seed: int = at_least(0, 0)
    time_ties: Literal["shuffle", "file"] = "shuffle"
    k_core: int = at_least(0, 0)
    modalities: tuple[str, ...] = ()
    cold_items: float = at_least(0.0, 0.0, 1.0)
    posters: str = ""


@dataclass(frozen=True)
class IdsConfig(Checked):
    """Where a row's IDs come from.

    Args: source: `learned` by stage 1; or, as controls of the same shape, `random` ones, RQ-k-means of the joined
            features (`kmeans`: at unit length, on E leading axes) or of a SASRec's item embeddings (`sasrec`), the
            codes that a bundle has `published`, or IDs from a `file`.
        ids_file: of `file`: parquet or index.json, see `datasets.id_files`.
        transport: part colliding items by entropic transport, whatever `tokenizer.uniqueness` says.
    """

    source: Literal["learned", "random", "kmeans", "sasrec", "published", "file"] = "learned"
    ids_file: str = ""
    transport: bool = False


@dataclass(frozen=True)
class RowTokenizerConfig(TokenizerConfig):
    """Stage 1 with the switches that only rivals and ablations use.

    Args: those of `TokenizerConfig`, of which `signals` may name a modality that the data lack, and
        joined: put the features of all modalities side by side, as one signal.
        shared_codebook: one codebook for all signals, or one for each.
        combine: how the signals become one ID: `fused` quantizes their gated mean, `concat` joins their codes, `chain`
            joins them too, and each signal quantizes what the signals before it left over.
        w_use: pull towards codes that are used evenly.
        w_align: pull of the items' vectors towards a SASRec's item embeddings (LETTER's collaborative alignment).
    """

    joined: bool = False
    shared_codebook: bool = True
    combine: Literal["fused", "concat", "chain"] = "fused"
    w_use: float = at_least(0.0, 0.0)
    w_align: float = at_least(0.0, 0.0)


@dataclass(frozen=True)
class RowConfig(RecommenderConfig):
    """Stage 2 with the switches that only rivals and ablations use.

    Args: those of `RecommenderConfig`, and
        loss: of `items`: full cross-entropy (`ce`), SASRec's binary one with one negative (`bce`), or a softmax over
            the target and `negatives` uniform ones shared by a batch (`sampled`).
        features: add a linear map of the scaled modality features to the item embeddings, in and out.
        granularity: of `codes`: one position an `item`, or one a `code`, the flattened sequence as in TIGER; other
            outputs have one an item. Rows of `code` are made by beam search.
        similarity: what is compared: the `quantized` vectors, the behaviour `signals` before quantization, or the
            frozen `features`. similarity_form: an offset for each of its `buckets`, or one `linear` in the cosine.
        block: of the backbone: `plain`, or `ligr` with gated branches and SwiGLU as in eSASRec.
    Raises: as `RecommenderConfig`; ValueError for `features` without item embeddings, and for a `loss` other than `ce`
        unless `items` alone is the output.
    """

    loss: Literal["ce", "bce", "sampled"] = "ce"
    negatives: int = at_least(256, 1)
    features: bool = False
    granularity: Literal["item", "code"] = "item"
    similarity: Literal["quantized", "signals", "features"] = "quantized"
    similarity_form: Literal["buckets", "linear"] = "buckets"
    block: Literal["plain", "ligr"] = "plain"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.features and self.output == "codes":
            raise ValueError("features are added to item embeddings: set output to items or both, got output=codes")
        if self.loss != "ce" and self.output != "items":
            raise ValueError(f"loss must be ce unless output is items, got loss={self.loss}, output={self.output}")

    @property
    def by_code(self) -> bool:
        """Whether histories are read code by code, so that only a beam of the best IDs is ranked."""
        return self.granularity == "code" and self.output == "codes"
