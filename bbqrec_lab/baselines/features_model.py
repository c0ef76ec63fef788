"""A baseline that reads features: SASRec with a linear map of the modality features added to its item embeddings."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bbqrec_core import Dataset, SemanticIds, SequenceModel
from bbqrec_lab.datasets.features import joined_features
from bbqrec_lab.settings import VariantRecommenderConfig

COMPONENTS = 128  # columns of the features that a model maps


def item_features(data: Dataset) -> Float[Tensor, "N d"] | None:
    """Scaled features of all modalities side by side, 0 if one is missing; None if the data have no modality.

    Choice: of more than `COMPONENTS` columns only their principal components, because the model maps the features of
        all items at every step. The rows have a mean squared length of 1 for every d.
    """
    if not data.features:
        return None
    joined, known = joined_features(data, list(data.features))
    if joined.shape[1] > COMPONENTS < known.sum():
        from sklearn.decomposition import PCA  # here, because the import takes a second, and recommend needs no PCA

        solver = PCA(COMPONENTS, svd_solver="covariance_eigh").fit(joined[known])
        joined = np.where(known[:, None], solver.transform(joined), 0).astype(np.float32)
    return torch.from_numpy(joined / max(np.sqrt((joined[known] ** 2).sum(1).mean()), np.float32(1e-8)))


class FeaturesModel(SequenceModel):
    """The core's model with projected features added to the item embeddings, on the input and the output side.

    Args: those of `SequenceModel`, and features: (N+1, d), fixed; None adds nothing.
    """

    def __init__(
        self,
        n_items: int,
        ids: SemanticIds | None,
        config: VariantRecommenderConfig,
        features: Float[Tensor, "N d"] | None = None,
        **options: object,
    ) -> None:
        self._features_width = 0 if features is None else features.shape[1]
        super().__init__(n_items, ids, config, **options)
        if features is not None:
            self.register_buffer("features", features)  # saved with the weights: runs are loaded without data

    def tables(self) -> list[nn.Module]:
        """The core's tables, then the map of the features."""
        tables = super().tables()
        if self._features_width:
            self.project = nn.Linear(self._features_width, self.config.width, bias=False)
            tables.append(self.project)
        return tables

    def item_embeddings(self, item_ids: Int[Tensor, "*rows"] | None = None) -> Float[Tensor, "*rows D"]:
        """Item embeddings plus projected features of the given rows, or of all N+1 rows."""
        vectors = super().item_embeddings(item_ids)
        if not self._features_width:
            return vectors
        return vectors + self.project(self.features if item_ids is None else self.features[item_ids])
