"""From a few words to an item: IDs that a query generates, beside BM25 and dense text search.

The words of every item are cut into short windows. Some windows are held out: they are the queries, and neither the
search engines nor the tokenizers see them, unless the text features came with the bundle (`Finding.seen`). So every
query has one right item, and the metrics are those of ranking.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor, nn

from bbqrec_core import Ranks, SemanticIds, build_tree, metrics
from bbqrec_core.recommender.code_embeddings import CodeHead, CodeVectors
from bbqrec_core.recommender.decoding import Prompt
from bbqrec_core.tokenizer.semantic_ids import PrefixTree
from bbqrec_lab.code_keys import code_hash
from bbqrec_lab.datasets import features
from bbqrec_lab.datasets.bundle import array_files
from bbqrec_lab.datasets.derived import derived, drawn_items
from bbqrec_lab.datasets.download import cache_dir
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.datasets.text_encoders import NGRAMS
from bbqrec_lab.experiments import statistics
from bbqrec_lab.experiments.presets import Config
from bbqrec_lab.store import Store, load_arrays, save_arrays
from bbqrec_lab.threads import use_one_thread
from bbqrec_lab.without_sequence import code_tables
from bbqrec_lab.without_sequence.asking import UnanswerableError

WINDOW = 4  # words of a query
LEAST_WORDS = WINDOW + WINDOW // 2  # of an item that is asked for: a last window of half the length counts
BLOCK = 256  # queries that are ranked together: a table of all queries and items can take gigabytes
HELD = 0.3  # share of an item's windows that are held out, at least one
MOST_QUERIES = 2  # per item, of the held-out windows
PRACTICE = 8  # queries of every item to learn from, drawn from the words that are left
WIDTH, HEADS, DROPOUT, RATE, BATCH = 64, 2, 0.2, 2e-3, 256
EPOCHS = {"smoke": 10, "quick": 20, "full": 60}
LETTERS, COMPONENTS = 20_000, 128  # n-grams and components of `latent_encoder`
WORD = re.compile(r"\w+")
NEW = 0.1  # share of items that no practice query asks for
_WINDOWS, _PRACTICE, _NEW = 41, 42, 43  # random streams under one split seed


class Queries(NamedTuple):
    """What is searched, and what is asked.

    Args: texts: per item, the words that are left; empty if it has no text. words, targets: of each query, and its item
        row. practice, practice_targets: queries to learn from. new: (N+1,), items that no practice query asks for.
    """

    texts: list[str]
    words: list[str]
    targets: Int[np.ndarray, "Q"]
    practice: list[str]
    practice_targets: Int[np.ndarray, "P"]
    new: Bool[np.ndarray, "rows"]


class Finding(NamedTuple):
    """Results of all searchers.

    Args: ranks: of the right item by searcher, one per seed; `queries` gives their order. seen: whether the tokenizers
        read text features that came with the bundle, which know the words of the queries.
    """

    ranks: dict[str, list[Ranks]]
    queries: Queries
    seen: bool


def make_queries(data: NamedDataset, split_seed: int) -> Queries:
    """Hold out windows of the words of title and text of every item.

    Items with fewer than two windows are searched, but not asked for. A tenth of the items is new: no practice query
    asks for them, so that only their ID tells a generator where they are.

    Raises: UnanswerableError if no item has enough words.
    """
    rng, practice_rng = (np.random.default_rng([split_seed, stream]) for stream in (_WINDOWS, _PRACTICE))
    new = drawn_items(data.n_items, NEW, (split_seed, _NEW))
    left, words, targets, practice, practice_targets = [], [], [], [], []
    for row, (title, text) in enumerate(data.items.select("title", "text").iter_rows(), start=1):
        windows = _windows(title or "", text or "")
        held = np.zeros(len(windows), bool)
        if len(windows) > 1:
            count = min(max(round(HELD * len(windows)), 1), len(windows) - 1)
            held[rng.choice(len(windows), count, replace=False)] = True
        asked = [" ".join(windows[place]) for place in np.flatnonzero(held)]
        asked = [asked[place] for place in rng.permutation(len(asked))[:MOST_QUERIES]]
        words += asked
        targets += [row] * len(asked)
        known = [word for window, out in zip(windows, held, strict=True) if not out for word in window]
        left.append(" ".join(known))
        for _ in range(PRACTICE if known and not new[row] else 0):
            start = int(practice_rng.integers(max(len(known) - WINDOW, 0) + 1))
            practice.append(" ".join(known[start : start + WINDOW]))
            practice_targets.append(row)
    if not words:
        raise UnanswerableError(
            f"no item of {data.name} has {LEAST_WORDS} words of title and text, so nothing can be asked"
        )
    return Queries(left, words, np.array(targets), practice, np.array(practice_targets), new)


def _windows(title: str, text: str) -> list[list[str]]:
    """The words of an item, in windows; the title comes first, unless the text begins with it."""
    whole = text if text.lower().startswith(title.lower()) else f"{title} {text}"
    words = WORD.findall(whole.lower())
    windows = [words[start : start + WINDOW] for start in range(0, len(words), WINDOW)]
    return windows[:-1] if len(windows) > 1 and len(windows[-1]) < WINDOW // 2 else windows


class WordEncoder(NamedTuple):
    """Vectors of words: `run` turns texts into vectors, `identity` is part of the key of stored results."""

    identity: tuple[str, ...]
    run: Callable[[Sequence[str]], np.ndarray]


def has_own_text(data: NamedDataset) -> bool:
    """Whether the text features came with the bundle, so that nobody knows how to make them without some words."""
    return "text" in data.features and "text" in {file.stem for file in array_files(Path(data.path))}


def without_queries(data: NamedDataset, queries: Queries, config: Config) -> tuple[NamedDataset, WordEncoder]:
    """The dataset whose texts have only the words that are left, encoded anew, and the encoder of queries.

    Text features that come ready with the bundle stay as they are, see `has_own_text`.
    """
    texts = pl.Series("text", [text or None for text in queries.texts], pl.String)
    items = data.items.with_columns(texts, pl.lit(None, pl.String).alias("title"))
    label = f"words held out {hashlib.sha256(repr(queries.words).encode()).hexdigest()}"
    changed = derived(data, label, items=items)
    if has_own_text(data) or "text" not in data.features:
        return changed, latent_encoder(queries.texts)
    others = {name: x for name, x in data.features.items() if name != "text"}
    bare = derived(data, label, items=items, features=others, presence={name: data.presence[name] for name in others})
    encoder = features.choose_encoder(
        "text", features.contents(bare, ("text",))["text"], cache_dir(), config.data.text_encoder
    )
    encoded = features.encode(bare, cache_dir(), ("text",), config.data.text_encoder)
    scaled = features.scale(encoded.features["text"], encoded.presence["text"])
    searched = replace(encoded, features=encoded.features | {"text": scaled})
    if encoder.identity == NGRAMS:  # its vectors of two calls cannot be compared
        return searched, latent_encoder(queries.texts)
    return searched, WordEncoder(encoder.identity, encoder.run)


def latent_encoder(texts: Sequence[str]) -> WordEncoder:
    """Character n-grams of any script: tf-idf and their leading components, fitted on the given texts."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    counts = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=LETTERS)
    table = counts.fit_transform(texts)
    few = max(min(COMPONENTS, min(table.shape) - 1), 1)
    leading = TruncatedSVD(few, random_state=0).fit(table)
    identity = "character n-grams", hashlib.sha256(repr(list(texts)).encode()).hexdigest()
    return WordEncoder(identity, lambda asked: leading.transform(counts.transform(asked)).astype(np.float32))


class QueryModel(nn.Module):
    """Generate the ID of an item from the vector of a query, by the head over codes of the recommender.

        log p(ID | q) = sum_l log p(c_l | f(q), c_1 .. c_(l-1)),   f: two linear maps with a ReLU between

    Args: ids: of the items. width: of the query vectors.
    """

    def __init__(self, ids: SemanticIds, width: int) -> None:
        super().__init__()
        self.start = nn.Sequential(
            nn.Linear(width, 2 * WIDTH), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(2 * WIDTH, WIDTH)
        )
        self.head = CodeHead(CodeVectors(ids.code_ids, ids.sizes, WIDTH, True), 1, WIDTH, HEADS, DROPOUT)

    def loss(self, queries: Float[Tensor, "B d"], rows: Int[Tensor, "B"]) -> Float[Tensor, ""]:
        """Mean of -log p of the right IDs, in nats."""
        return -self.head(self.start(queries), self.head.vectors.node[rows]).mean()

    @torch.inference_mode()
    def scores(self, queries: Float[Tensor, "B d"], tree: PrefixTree) -> Float[Tensor, "B rows"]:
        """log p of the ID of every item row, in nats; items that share an ID share a score.

        Args: tree: of the IDs, with the items of practice queries as seen: the others get an even share below the
            deepest prefix of a seen one.
        """
        return Prompt(self.head, self.start(queries)).id_scores(tree)


def study(data: NamedDataset, configs: Sequence[Config], store: Store) -> Finding:
    """Ask all queries of all searchers, the learned ones for every seed of `configs`, or load the ranks.

    The IDs are those of the first seed.

    Raises: UnanswerableError if the items have too few words, see `make_queries`.
    """
    use_one_thread()
    queries = make_queries(data, configs[0].data.split_seed)
    searched, encoder = without_queries(data, queries, configs[0])
    key = {"data": searched.content_hash, "encoder": list(encoder.identity), "code": code_hash(__name__)}
    key["torch"] = torch.__version__

    def encode(directory: Path) -> None:
        parts = [queries.texts, queries.words, queries.practice]
        vectors = unit(encoder.run([text for part in parts for text in part]))
        ends = np.cumsum([len(part) for part in parts])
        names = ("texts", "words", "practice")
        save_arrays(directory / "vectors.npz", **dict(zip(names, np.split(vectors, ends[:-1]), strict=True)))

    vectors = load_arrays(store.get("query-vectors", key, encode) / "vectors.npz")
    there = torch.from_numpy(np.append(False, [bool(text) for text in queries.texts]))
    texts = np.concatenate([np.zeros_like(vectors["texts"][:1]), vectors["texts"]])
    ranks = {
        "BM25": [rank(bm25(queries), queries, there)],
        "dense": [rank(lambda block: torch.from_numpy(vectors["words"][block] @ texts.T), queries, there)],
    }
    for kind, ids in code_tables.make_ids(searched, configs[0], store).items():
        ranks[kind] = [_by_codes(ids, vectors, queries, there, config, key, store) for config in configs]
    return Finding(ranks, queries, has_own_text(data))


def unit(vectors: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    """Vectors of length 1; a zero vector stays."""
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def rank(scores_of: Callable[[slice], Tensor], queries: Queries, there: Tensor) -> Ranks:
    """The rank of the right item of every query among all items with text, `BLOCK` queries at a time.

    Args: scores_of: some of the queries -> scores (B, N+1). there: (N+1,), items with text.
    """
    blocks = [slice(start, start + BLOCK) for start in range(0, len(queries.words), BLOCK)]
    return metrics.concat_ranks(
        [
            metrics.rank_scores(scores_of(block).masked_fill(~there, -torch.inf), queries.targets[block])
            for block in blocks
        ]
    )


def bm25(queries: Queries) -> Callable[[slice], Float32[Tensor, "B rows"]]:
    """BM25 of some queries and every item row; column 0 is 0, and so is an item without a word of the query."""
    import bm25s  # of the extra `tasks`

    corpus = [text.split() for text in queries.texts]
    engine = bm25s.BM25()
    engine.index(corpus, show_progress=False)
    known = {word for words in corpus for word in words}

    def scores_of(block: slice) -> Tensor:
        asked = [[word for word in query.split() if word in known] for query in queries.words[block]]
        found = np.zeros((len(asked), len(corpus) + 1), np.float32)
        for line, words in enumerate(asked):
            if words:
                found[line, 1:] = engine.get_scores(words)
        return torch.from_numpy(found)

    return scores_of


def _by_codes(
    ids: SemanticIds,
    vectors: Mapping[str, np.ndarray],
    queries: Queries,
    there: Tensor,
    config: Config,
    key: Mapping[str, object],
    store: Store,
) -> Ranks:
    """Ranks by the IDs that a trained `QueryModel` generates."""
    codes = hashlib.sha256(ids.code_ids.astype(np.int64).tobytes()).hexdigest()

    def make(directory: Path) -> None:
        model = fit_queries(ids, vectors["practice"], queries.practice_targets, config)
        seen = np.isin(np.arange(len(ids.code_ids)), queries.practice_targets)
        tree, asked = build_tree(ids.code_ids, seen), torch.from_numpy(vectors["words"])
        found = rank(lambda block: model.scores(asked[block], tree), queries, there)
        save_arrays(directory / "ranks.npz", **found._asdict())

    settings = {"ids": codes, "seed": config.seed, "preset": config.preset}
    return Ranks(**load_arrays(store.get("finding", {**key, **settings}, make) / "ranks.npz"))


def fit_queries(
    ids: SemanticIds, vectors: Float32[np.ndarray, "P d"], rows: Int[np.ndarray, "P"], config: Config
) -> QueryModel:
    """Train a `QueryModel` on practice queries for a fixed number of epochs; nothing is chosen by the asked queries."""
    inputs, targets = torch.from_numpy(vectors), torch.from_numpy(rows)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = QueryModel(ids, vectors.shape[1])
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
        for _ in range(EPOCHS[config.preset]):
            for some in torch.randperm(len(rows)).split(BATCH):
                optimizer.zero_grad()
                model.loss(inputs[some], targets[some]).backward()
                optimizer.step()
    return model.eval()


def per_query(found: Finding, name: str, metric: str) -> Float[np.ndarray, "seeds Q"]:
    """One metric of every seed and query."""
    return np.stack([metrics.per_user(ranks)[metric] for ranks in found.ranks[name]])


def seeds_of(found: Finding) -> dict[str, dict[str, Float[np.ndarray, "seeds"]]]:
    """Quantity -> searcher -> one value per seed, as `plots.seed_points` takes them."""
    new = found.queries.new[found.queries.targets]
    quality = {"NDCG@10": {name: per_query(found, name, "ndcg@10").mean(1) for name in found.ranks}}
    if new.any():
        recall = {name: per_query(found, name, "recall@20")[:, new].mean(1) for name in found.ranks}
        quality["Recall@20, new items"] = recall
    return quality


def table(found: Finding) -> pl.DataFrame:
    """Quality of every searcher: means over seeds, and the standard deviation of NDCG@10."""
    quality = seeds_of(found)
    lines = []
    for name, ranks in found.ranks.items():
        means = [float(each[name].mean()) for each in quality.values()]
        lines.append((name, len(ranks), *means, float(quality["NDCG@10"][name].std())))
    return pl.DataFrame(lines, schema=["searcher", "seeds", *quality, "NDCG@10, std"], orient="row")


def examples(found: Finding, data: NamedDataset, most: int = 5) -> pl.DataFrame:
    """The first queries, with the title or the id of the item that they mean."""
    asked = found.queries
    rows = asked.targets[:most] - 1
    titles = data.items.select(pl.coalesce("title", pl.col("item_id").cast(pl.String)).alias("title"))["title"]
    return pl.DataFrame({"query": asked.words[:most], "item": titles[rows]})


def compare(found: Finding, ours: str, others: Sequence[str], new: bool = False) -> pl.DataFrame:
    """`ours` minus each other searcher, paired over items: the queries of one item count together.

    Args: new: False compares NDCG@10 of all queries, True Recall@20 of those that ask for new items.
    Returns: columns against, difference, low, high, p and p_holm, corrected for the lines of the table.
    """
    asked = found.queries.new[found.queries.targets] if new else np.ones(len(found.queries.targets), bool)
    _, item = np.unique(found.queries.targets[asked], return_inverse=True)
    size, metric = np.bincount(item), "recall@20" if new else "ndcg@10"

    def of(name: str) -> np.ndarray:
        return np.stack([np.bincount(item, values[asked]) / size for values in per_query(found, name, metric)])

    lines = [(other, *statistics.paired_bootstrap(of(ours), of(other))) for other in others]
    frame = pl.DataFrame(lines, orient="row", schema=["against", "difference", "low", "high", "p"])
    return statistics.with_holm(frame)
