"""BBQRec: behaviour-bound semantic IDs for multi-modal sequential recommendation (arXiv 2504.06636)."""

from .config import EvaluationConfig, RecommenderConfig, TokenizerConfig
from .dataset import Dataset, Sequences
from .metrics import Ranks, per_user, rank_scores, rank_users
from .recommender.decoding import beam_search, exact_scores
from .recommender.fit import Recommender, build_recommender, fit_recommender
from .recommender.sequence_model import SequenceModel
from .recommender.similarity_bias import SimilarityBias
from .tokenizer.fit import Tokenized, fit_tokenizer
from .tokenizer.prefix_tree import PrefixTree, build_tree
from .tokenizer.quantizer import ResidualQuantizer
from .tokenizer.semantic_ids import SemanticIds, health

__all__ = [
    "Dataset",
    "EvaluationConfig",
    "PrefixTree",
    "Ranks",
    "Recommender",
    "RecommenderConfig",
    "ResidualQuantizer",
    "SemanticIds",
    "SequenceModel",
    "Sequences",
    "SimilarityBias",
    "Tokenized",
    "TokenizerConfig",
    "beam_search",
    "build_recommender",
    "build_tree",
    "exact_scores",
    "fit_recommender",
    "fit_tokenizer",
    "health",
    "per_user",
    "rank_scores",
    "rank_users",
]
