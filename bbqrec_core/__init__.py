"""BBQRec: semantic IDs tied to what users do, and recommendation by generating them (arXiv 2504.06636).

Stage 1, `fit_tokenizer`, turns what is known of an item into its semantic ID:

1. Encoders split the features of each modality into a behaviour signal, which helps to predict the next item, and a
   modality-specific rest. A learned vector per item, the ID signal, is one more signal.
2. One residual codebook quantizes all signals: level by level, it takes the nearest vector and continues with the
   residual. The codes of the gated mean of an item's signals are its semantic ID.
3. Contrastive losses bind the codes to behaviour: the signals of one item attract each other, and the quantized history
   of a user must identify the next item within the batch.
4. Colliding items get the nearest free last code, so each ID belongs to one item.

Stage 2, `fit_recommender`, generates the ID of the next item:

5. A transformer reads the history; the input vector of an item is the sum of the vectors of its codes and prefixes.
6. Its attention is reweighted: the attention logit between two events gets a learned offset per layer, head
   and bucket of the similarity of their quantized signals.
7. A depth transformer generates the codes one by one. `beam_search` follows only prefixes of existing IDs;
   `exact_scores` sums the same log-probabilities for every item. `rank_users` and `per_user` turn scores into metrics.

    >>> import numpy as np, pathlib, tempfile
    >>> rng, folder = np.random.default_rng(0), pathlib.Path(tempfile.mkdtemp())
    >>> events = rng.integers(1, 51, 100 * 8).astype(np.int32)  # 100 users with 8 events, among 50 items
    >>> text = np.vstack([np.zeros(16), rng.normal(size=(50, 16))]).astype(np.float32)  # row 0 is padding
    >>> data = Dataset(n_items=50, sequences=Sequences(np.arange(101) * 8, events), features={"text": text})
    >>> ids = fit_tokenizer(data, TokenizerConfig(levels=2, codes=8, epochs=1), 0, folder / "tokenizer").ids
    >>> config = RecommenderConfig(epochs=1, min_steps=0)
    >>> model, log = fit_recommender(data, ids, config, EvaluationConfig(), 0, folder / "recommender")
    >>> ranks = rank_users(model.scores, data.history("test"), data.targets("test"), np.arange(100))
    >>> bool(0 <= per_user(ranks["filtered"])["ndcg@10"].mean() <= 1)
    True
"""

from .config import EvaluationConfig, RecommenderConfig, TokenizerConfig
from .dataset import Dataset, Sequences, history_batches
from .metrics import Ranks, per_user, rank_scores, rank_users
from .recommender.decoding import beam_search, exact_scores
from .recommender.fit import Recommender, build_recommender, fit_recommender
from .recommender.sequence_model import SequenceModel
from .recommender.similarity_bias import Channel, SimilarityBias
from .tokenizer.fit import Tokenized, fit_tokenizer
from .tokenizer.quantizer import ResidualQuantizer
from .tokenizer.semantic_ids import PrefixTree, SemanticIds, build_tree, health
