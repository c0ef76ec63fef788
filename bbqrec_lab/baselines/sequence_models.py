"""The sequence model of a variant: the core's model or one of the baselines, chosen by the settings."""

from torch import Tensor

from bbqrec_core import SemanticIds, SequenceModel
from bbqrec_core.transformer import Block
from bbqrec_lab.baselines.bsarec import FrequencyBlock
from bbqrec_lab.baselines.code_level_model import TokenModel
from bbqrec_lab.baselines.esasrec import GatedBlock, NegativesModel
from bbqrec_lab.baselines.features_model import FeaturesModel
from bbqrec_lab.baselines.hstu import HstuBlock, HstuModel
from bbqrec_lab.baselines.linear_similarity import make_reweighting
from bbqrec_lab.settings import VariantRecommenderConfig

BLOCKS = {"plain": Block, "ligr": GatedBlock, "bsarec": FrequencyBlock, "hstu": HstuBlock}  # by the setting `block`


def make_model(
    n_items: int, ids: SemanticIds | None, config: VariantRecommenderConfig, features: Tensor | None = None
) -> SequenceModel:
    """The sequence model of a variant, called like `SequenceModel`.

    Args: features: for `FeaturesModel`, if the settings ask for them.
    """
    if config.by_code and ids is not None:
        return TokenModel(n_items, ids, config, reweighting=make_reweighting)
    options = {"block": BLOCKS[config.block], "reweighting": make_reweighting}
    if config.block == "hstu":
        return HstuModel(n_items, ids, config, features, **options)
    if config.loss != "ce":
        return NegativesModel(n_items, ids, config, features, **options)
    if features is not None:
        return FeaturesModel(n_items, ids, config, features, **options)
    return SequenceModel(n_items, ids, config, **options)
