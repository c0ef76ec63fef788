"""Which sequence model a row trains: the core's, or one of its rivals, as its settings say."""

from torch import Tensor

from bbqrec_core import SemanticIds, SequenceModel
from bbqrec_core.transformer import Block
from bbqrec_lab.baselines.code_level_model import TokenModel
from bbqrec_lab.baselines.esasrec import GatedBlock, NegativesModel
from bbqrec_lab.baselines.linear_similarity import make_reweighting
from bbqrec_lab.settings import RowConfig


def make_model(n_items: int, ids: SemanticIds | None, config: RowConfig, features: Tensor | None) -> SequenceModel:
    """The sequence model of a row, called as `SequenceModel` is."""
    if config.by_code and ids is not None:
        return TokenModel(n_items, ids, config, reweighting=make_reweighting)
    kind = SequenceModel if config.loss == "ce" else NegativesModel
    block = GatedBlock if config.block == "ligr" else Block
    return kind(n_items, ids, config, features, block, make_reweighting)
