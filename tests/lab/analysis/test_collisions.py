"""Repairs side by side, what codebooks cost, and runs that are looked up and never made."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import lab_recommender_config, lab_tokenizer_config, planted_data

from bbqrec_core import EvaluationConfig, SemanticIds, Tokenized, fit_recommender
from bbqrec_core.tokenizer import fit as tokenizer_fit
from bbqrec_core.tokenizer import semantic_ids
from bbqrec_lab.analysis import collisions
from bbqrec_lab.baselines import tokenizers, variant_tokenizer
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.experiments import variants
from bbqrec_lab.experiments.presets import Config
from bbqrec_lab.experiments.runs import run_variant
from bbqrec_lab.settings import DataConfig, IdsConfig
from bbqrec_lab.store import Store

RNG = np.random.default_rng(0)


def config(**changes: object) -> Config:
    stages = lab_tokenizer_config(**changes), lab_recommender_config()
    return Config("smoke", 0, DataConfig(), IdsConfig(), *stages, EvaluationConfig())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> NamedDataset:
    return planted_data(tmp_path_factory.mktemp("data"))


def crowded(codes: int = 4, levels: int = 2) -> Tokenized:
    """41 rows whose first codes are so few that a prefix has more items than last codes, with three signals."""
    raw = np.stack([RNG.integers(0, 3, 41)] * (levels - 1) + [RNG.integers(0, codes, 41)], 1)
    behaviour, book = RNG.normal(size=(41, 3, 5)).astype(np.float32), RNG.normal(size=(levels, codes, 5))
    ids = SemanticIds(
        raw,
        (codes,) * levels,
        levels,
        ("text", "image", "id"),
        RNG.integers(0, codes, (41, 3, levels)),
        behaviour,
        np.ones((41, 3), bool),
        book.astype(np.float32),
        raw,
    )
    figures = semantic_ids.health(raw, ids.sizes)
    residual = RNG.normal(size=(41, 5)).astype(np.float32)
    return Tokenized(ids, [], {"before": figures, "after": figures}, behaviour, behaviour[:, :2], residual)


@pytest.mark.parametrize("codes", [4, 9, 40])
def test_a_repair_without_a_longer_id_fills_every_prefix_as_far_as_it_goes(codes: int) -> None:
    done = crowded(codes)
    different = sum(min(count, codes) for count in np.bincount(done.ids.raw_codes[1:, 0]))
    rows = {row["repair"]: row for row in collisions.repair_table({"a": done}).to_dicts()}
    assert rows["nearest"]["collision_rate"] == pytest.approx(1 - different / 40)
    assert rows["sinkhorn"]["collision_rate"] == pytest.approx(1 - different / 40)
    assert rows["extra"]["collision_rate"] == 0
    assert rows["none"]["collision_rate"] == 1 - len(np.unique(done.ids.raw_codes[1:], axis=0)) / 40


def test_the_repair_table_counts_what_moves_and_what_grows() -> None:
    done = crowded(40)
    rows = {row["repair"]: row for row in collisions.repair_table({"a": done}).to_dicts()}
    twins = 40 - len(np.unique(done.ids.raw_codes[1:], axis=0))
    assert [rows[name]["moved"] for name in ("none", "nearest", "extra")] == [0, twins, twins]
    assert rows["sinkhorn"]["moved"] >= twins
    assert [rows[name]["sid_len"] for name in collisions.REPAIRS] == [2, 2, 2, 3]
    assert rows["none"]["largest_group"] > rows["nearest"]["largest_group"] == 1


@pytest.mark.parametrize(("combine", "codes"), [("fused", 5), ("concat", 2), ("chain", 2)])
def test_a_tokenizers_own_repair_is_repeated_exactly(
    data: NamedDataset, tmp_path: Path, combine: str, codes: int
) -> None:
    for repair in collisions.REPAIRS:
        ids = IdsConfig(transport=repair == "sinkhorn")
        settings = lab_tokenizer_config(combine=combine, codes=codes, uniqueness="none" if ids.transport else repair)
        done = tokenizers.make_tokenized(data, ids, settings, 0, tmp_path / repair)
        assert done.health["before"]["colliding_items"] > 0
        assert (repair == "none") == np.array_equal(done.ids.code_ids, done.ids.raw_codes)
        assert len(done.ids.signals) > 1  # the residual is of their gated mean, which only training knows
        table, sizes = collisions.repair_with(repair, done)
        assert np.array_equal(table, done.ids.code_ids)
        assert sizes == done.ids.sizes
        rows = {row["repair"]: row for row in collisions.repair_table({"a": done}).to_dicts()}
        assert rows[repair]["collision_rate"] == pytest.approx(done.health["after"]["collision_rate"])
        assert rows[repair]["sid_len"] == done.ids.sid_len
        assert rows["none"]["collision_rate"] == pytest.approx(done.health["before"]["collision_rate"])


@pytest.mark.parametrize("repair", ["nearest", "sinkhorn"])
def test_repairs_of_published_codes_use_codes_that_their_position_has(
    data: NamedDataset, tmp_path: Path, repair: str
) -> None:
    codes = np.stack([np.arange(25) // 3, np.arange(25) % 2], 1).astype(np.int32)  # 9 first codes, 2 last ones
    ids, held = IdsConfig(source="published", transport=repair == "sinkhorn"), replace(data, codes={"text": codes})
    done = tokenizers.make_tokenized(held, ids, lab_tokenizer_config(uniqueness="nearest"), 0, tmp_path)
    assert done.health["before"]["colliding_items"] > 0
    assert done.ids.sizes == (9, 2)
    assert (done.ids.code_ids < done.ids.sizes).all()
    table, sizes = collisions.repair_with(repair, done)
    assert np.array_equal(table, done.ids.code_ids)
    assert sizes == done.ids.sizes
    fit_recommender(held, done.ids, lab_recommender_config(epochs=1), EvaluationConfig(), 0, tmp_path / "recommender")


def test_a_repair_looks_at_the_residual_that_training_kept() -> None:
    raw = np.array([[0, 0], [1, 0], [1, 0]])
    book = np.zeros((2, 2, 4), np.float32)
    book[0, 1], book[1, 0], book[1, 1] = [2, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]
    signal = np.array([[[0.0, 0, 0, 0]], [[1.6, 1.2, 0, 0]], [[2, 0, 0, 0]]], np.float32)  # lengths of sqrt(4)
    residual = signal[:, 0] - book[0, raw[:, 0]]
    ids = SemanticIds(raw, (2, 2), 2, ("text",), raw[:, None], signal, np.array([[0], [1], [1]], bool), book, raw)
    repaired, _ = collisions.repair_with("nearest", Tokenized(ids, [], {}, signal, signal, residual))
    assert repaired[1:].tolist() == [[1, 1], [1, 0]]  # nothing is left of item 2: code 0 serves it exactly


def test_an_unknown_repair_is_refused() -> None:
    with pytest.raises(ValueError, match="none, nearest, sinkhorn, extra, got 'luck'"):
        collisions.repair_with("luck", crowded())


def test_codebook_memory_grows_with_sets_and_not_with_signals_that_share_one() -> None:
    ids = crowded(codes=5).ids
    shared, fragmented = lab_tokenizer_config(), lab_tokenizer_config(shared_codebook=False)
    assert collisions.stored_vectors(ids, shared, "learned") == 2 * 5
    assert collisions.stored_vectors(ids, fragmented, "learned") == 4 * 2 * 5  # three signals and their fused mean
    assert collisions.stored_vectors(ids, replace(fragmented, combine="concat"), "learned") == 3 * 2 * 5
    assert collisions.stored_vectors(ids, fragmented, "kmeans") == 2 * 5
    assert collisions.stored_vectors(replace(ids, signals=()), shared, "learned") == 0


def test_codebook_memory_is_what_the_model_holds(data: NamedDataset, tmp_path: Path) -> None:
    for name, changes in {"one": {}, "own": {"shared_codebook": False}, "joined": {"combine": "concat"}}.items():
        settings, kind = lab_tokenizer_config(**changes), variant_tokenizer.VariantTokenizer
        held = [book.codebook for book in tokenizer_fit.build_model(data, settings, kind).quantizer.books]
        ids = tokenizer_fit.fit_tokenizer(data, settings, 0, tmp_path / name, kind).ids
        assert collisions.stored_vectors(ids, settings, "learned") == sum(
            book.shape[0] * book.shape[1] for book in held
        )


def test_the_shape_table_says_what_health_and_purity_say() -> None:
    done = crowded()
    first = done.ids.raw_codes[:, 0]
    table = collisions.shape_table(
        {"a": done},
        {"a": lab_tokenizer_config()},
        {"a": "learned"},
        lambda a, b: (first[a] == first[b]).astype(float),
        np.arange(1, 41),
    )
    (row,) = table.to_dicts()
    figures = done.health["before"]
    assert row["collision_rate"] == figures["collision_rate"]
    assert row["even_use"] == pytest.approx(figures["perplexity"][0] / 4)
    assert row["first_fan_out"] == pytest.approx(figures["fan_out"][1])
    share = np.bincount(first[1:]) / 40
    assert row["purity"] == pytest.approx(1 / (share**2).sum(), rel=0.15)  # all alike below a code, by chance above
    assert (row["codes"], row["codebook_vectors"], row["codebook_width"]) == (2, 2 * 4, 5)


def test_a_ledger_is_read_by_tokenizer_and_case() -> None:
    frame = collisions.repair_table({"a": crowded(), "b": crowded(9)})
    found = collisions.nested(frame, "sid_len")
    assert found == {name: {"none": 2.0, "nearest": 2.0, "sinkhorn": 2.0, "extra": 3.0} for name in ("a", "b")}
    assert collisions.nested(frame.filter(frame["repair"] == "none").drop("repair"), "sid_len")["a"] == {"": 2.0}


def test_variants_with_the_same_ids_before_the_repair_appear_once(data: NamedDataset) -> None:
    names = ["popularity", "no-repair", "bbqrec", "no-reweighting", "sasrec", "tiger", "random-ids", "extra-code"]
    assert collisions.distinct_tokenizers(data, config(), names) == ["no-repair", "tiger", "random-ids"]
    everything = collisions.distinct_tokenizers(data, config(), list(variants.VARIANTS))
    asked = {
        str((collisions.tokenizer_config(data, name, config()), collisions.ids_source(data, name, config())))
        for name in everything
    }
    assert len(everything) == len(asked)


def test_a_score_is_looked_up_and_never_made(data: NamedDataset, tmp_path: Path) -> None:
    store = Store(tmp_path)
    names = ["random-ids", "popularity", "bbqrec"]
    assert all(np.isnan(value) for value in collisions.reached(data, names, config(), store).values())
    assert list(tmp_path.iterdir()) == []
    rows = run_variant(data, "popularity", config(), store).rows.to_dicts()
    (right,) = (
        r["value"] for r in rows if (r["segment"], r["seen_items"], r["metric"]) == ("all", "included", "recall@5")
    )
    found = collisions.reached(data, names, config(), store, "recall@5", "included")
    assert found["popularity"] == right
    assert np.isnan(found["bbqrec"])


def test_seeds_have_tables_of_their_own(data: NamedDataset, tmp_path: Path) -> None:
    one, two, again = collisions.ids_of_seeds(data, "random-ids", config(), (0, 1, 0), Store(tmp_path))
    assert np.array_equal(one, again)
    assert (one != two).any()


def test_the_largest_groups_are_listed_first_with_what_their_items_lack() -> None:
    raw = np.array([[0, 0], [1, 2], [1, 2], [0, 1], [1, 2], [0, 1]])
    present = np.ones((6, 2), bool)
    present[3] = False
    frame = collisions.largest_groups(
        raw, present, np.array([0, 1, 2, 3, 6, 5]), ["", "a", "b", "c", "x" * 40, "e"], most=2
    )
    assert frame["ID before repair"].to_list() == ["1-2", "0-1"]
    assert frame["items"].to_list() == [3, 2]
    assert frame["signals present (%)"].to_list() == [100.0, 50.0]
    assert frame["mean training events"].to_list() == [3.0, 4.0]
    assert frame["some of them"][1] == "c; e"


def test_a_branch_has_about_the_wanted_number_of_items() -> None:
    codes = np.array([[9, 9], *([[0, i] for i in range(7)] + [[2, i] for i in range(3)] + [[3, 0]])])
    assert collisions.branch(codes, items=4).tolist() == [8, 9, 10]
    assert collisions.branch(codes, items=1).tolist() == [8, 9, 10], "a branch of one item shows nothing"
    assert collisions.branch(np.array([[0, 0], [4, 1]])).tolist() == [1]
