"""Search: queries are held out from everything that is searched, and IDs that follow the words find them."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from tiny import PLANTED, planted_data, semantic_ids

from bbqrec_core import SemanticIds, build_tree, metrics
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.experiments.presets import make_config
from bbqrec_lab.store import Store
from bbqrec_lab.without_sequence import asking, finding

TEXT = "one two three four five six seven eight nine ten eleven twelve thirteen"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> NamedDataset:
    return planted_data(tmp_path_factory.mktemp("finding"), PLANTED)


def with_texts(data: NamedDataset, texts: list[str | None], titles: list[str | None] | None = None) -> NamedDataset:
    """The dataset with other texts; the rest of the items has none."""
    short = [*texts, *[None] * (data.n_items - len(texts))]
    named = [*(titles or [None] * len(texts)), *[None] * (data.n_items - len(texts))]
    columns = pl.Series("text", short, pl.String), pl.Series("title", named, pl.String)
    return replace(data, items=data.items.with_columns(*columns))


def test_words_of_queries_are_taken_out_of_the_item(data: NamedDataset) -> None:
    queries = finding.make_queries(with_texts(data, [TEXT, "short text"]), 0)
    left = queries.texts[0].split()
    assert set(queries.targets) == {1}, "an item with one window is not asked for"
    assert queries.texts[1] == "short text"
    for query in queries.words:
        assert not set(query.split()) & set(left)
        assert query in TEXT
    assert len(left) in (8, 9)
    assert all(set(words.split()) <= set(queries.texts[row - 1].split()) for words, row in
               zip(queries.practice, queries.practice_targets, strict=True))  # fmt: skip
    many = finding.make_queries(with_texts(data, [TEXT] * data.n_items), 0)
    assert many.new.sum() == round(finding.NEW * data.n_items)
    assert set(many.practice_targets) == set(np.flatnonzero(~many.new)[1:])
    assert many.new[many.targets].any()
    again, other = (finding.make_queries(with_texts(data, [TEXT] * 9), seed) for seed in (0, 1))
    assert again.words == finding.make_queries(with_texts(data, [TEXT] * 9), 0).words != other.words


def test_the_title_is_part_of_the_words_once(data: NamedDataset) -> None:
    assert finding._windows("Toy Story", "Toy Story (1995). Genres") == [["toy", "story", "1995", "genres"]]
    assert finding._windows("Toy Story", "A boy plays") == [["toy", "story", "a", "boy"]]  # one word is left over
    assert finding._windows("", "") == []


def test_items_without_words_are_refused(data: NamedDataset) -> None:
    assert "has 6 words" in asking.ask(finding.make_queries, with_texts(data, ["one two three four five"]), 0).reason
    assert len(finding.make_queries(with_texts(data, ["one two three four five six"]), 0).words) == 1


def test_what_is_searched_has_no_title_and_no_query(data: NamedDataset) -> None:
    given = with_texts(data, [TEXT, TEXT], ["a title", None])
    queries = finding.make_queries(given, 0)
    searched, encoder = finding.without_queries(given, queries, make_config("smoke"))
    assert searched.items["title"].null_count() == data.n_items
    assert searched.items["text"][:2].to_list() == queries.texts[:2]
    assert searched.content_hash != given.content_hash
    assert encoder.run(["two three", "zzz"]).shape[0] == 2
    assert finding.has_own_text(data), "its features come with the bundle, so that they know the queries"
    bare = {name: x for name, x in data.features.items() if name != "text"}
    assert not finding.has_own_text(replace(data, features=bare))


def test_texts_are_encoded_anew_from_the_words_that_are_left(
    data: NamedDataset, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = replace(with_texts(data, [TEXT, f"{TEXT} fourteen", "one two three four five"]), path=str(tmp_path))
    assert not finding.has_own_text(given)
    queries, seen = finding.make_queries(given, 0), []
    encoder = finding.features.Encoder(
        ("test",), lambda texts: seen.extend(texts) or np.eye(len(texts), 4, dtype=np.float32)
    )
    monkeypatch.setattr(finding.features, "choose_encoder", lambda *given: encoder)
    monkeypatch.setattr(finding, "cache_dir", lambda: tmp_path)
    searched, found = finding.without_queries(given, queries, make_config("smoke"))
    assert sorted(seen) == sorted(text for text in queries.texts if text)
    assert found.identity == ("test",)
    assert searched.features["text"].shape[1] == 4
    assert (searched.features["image"] == given.features["image"]).all()
    assert searched.content_hash != given.content_hash


def test_bm25_ranks_the_item_with_the_words_first() -> None:
    texts = ["red apple pie", "green apple", "", "blue sky today"]
    queries = finding.Queries(
        texts, ["red pie", "sky", "unknown"], np.array([1, 4, 2]), [], np.array([], int), np.zeros(5, bool)
    )
    scores_of = finding.bm25(queries)
    scores = scores_of(slice(None))
    assert scores.shape == (3, 5)
    assert scores[:2].argmax(1).tolist() == [1, 4]
    assert not scores[2].any()
    ranks = finding.rank(scores_of, queries, torch.tensor([False, True, True, False, True]))
    assert metrics.per_user(ranks)["recall@1"].tolist() == pytest.approx([1, 1, 1 / 3])  # a tie of three items


def test_queries_are_ranked_in_blocks_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, asked = np.random.default_rng(0), []
    scores, targets = torch.from_numpy(rng.normal(size=(7, 40))), rng.integers(1, 40, 7)
    queries = finding.Queries([], [""] * 7, targets, [], np.array([], int), np.zeros(40, bool))
    there = torch.arange(40) > 0
    whole = metrics.rank_scores(scores.masked_fill(~there, -torch.inf), targets)
    monkeypatch.setattr(finding, "BLOCK", 3)
    ranks = finding.rank(lambda block: asked.append(block) or scores[block], queries, there)
    assert len(asked) == 3
    assert all((one == other).all() for one, other in zip(ranks, whole, strict=True))


def test_ids_that_follow_the_words_are_generated_and_random_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    topics = np.arange(64) % 8
    codes = np.concatenate([[[0, 0]], np.stack([topics, np.arange(64) // 8], 1)])
    middles = rng.normal(size=(8, 16))

    def vectors(rows: np.ndarray) -> np.ndarray:
        return finding.unit(middles[topics[rows - 1]] + rng.normal(scale=0.3, size=(len(rows), 16)))

    rows = np.repeat(np.arange(1, 33), 8)
    asked = np.arange(33, 65)
    right = []
    for table in (codes, np.concatenate([codes[:1], rng.permutation(codes[1:])])):
        ids = SemanticIds(**{**vars(semantic_ids(64, (8, 8))), "code_ids": table})
        model = finding.fit_queries(ids, vectors(rows), rows, make_config("quick"))
        tree = build_tree(ids.code_ids, np.isin(np.arange(65), rows))
        scores = model.scores(torch.from_numpy(vectors(asked)), tree)
        top = scores.argmax(1).numpy()
        right.append((table[top, 0] == table[asked, 0]).mean())  # of items that no practice query asks for
    assert right[0] > 0.8
    assert right[1] < 0.5


def test_the_study_asks_everybody_and_is_loaded_a_second_time(
    data: NamedDataset, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [make_config("smoke", seed, {"tokenizer.epochs": 1}) for seed in (0, 1)]
    found = finding.study(data, configs, Store(tmp_path))
    assert {name: len(ranks) for name, ranks in found.ranks.items()} == {
        **{"BM25": 1, "dense": 1},
        **{"random": 2, "text-only": 2, "behaviour-bound": 2},
    }
    compared = finding.compare(found, "behaviour-bound", ["text-only", "BM25"])
    assert compared["against"].to_list() == ["text-only", "BM25"]
    assert found.seen, "the features of planted data come with their bundle"
    assert finding.table(found).columns[:3] == ["searcher", "seeds", "NDCG@10"]
    assert finding.examples(found, data)["query"].to_list() == found.queries.words[:5]
    monkeypatch.setattr(finding, "fit_queries", None)
    again = finding.study(data, configs, Store(tmp_path))
    assert (again.ranks["random"][1].greater == found.ranks["random"][1].greater).all()


def test_queries_of_one_item_count_together() -> None:
    new = np.array([False, True, False, False])
    queries = finding.Queries(["a"] * 3, ["a"] * 3, np.array([1, 1, 2]), [], np.array([], int), new)
    good = metrics.rank_scores(torch.tensor([[0.0, 3, 2, 1], [0, 3, 2, 1], [0, 1, 3, 2.0]]), queries.targets)
    bad = metrics.rank_scores(torch.tensor([[0.0, 2, 3, 1], [0, 2, 3, 1], [0, 1, 3, 2.0]]), queries.targets)
    found = finding.Finding({"good": [good], "bad": [bad]}, queries, False)
    line = finding.compare(found, "good", ["bad"]).row(0, named=True)
    assert line["difference"] == pytest.approx((1 - 1 / np.log2(3)) / 2)
    assert finding.compare(found, "good", ["bad"], new=True)["difference"].to_list() == [0.0]
    assert finding.seeds_of(found)["Recall@20, new items"]["bad"].tolist() == [1.0]
