"""Laws of running a row of the tables: what it holds, that it repeats, and that it is not trained twice."""

import json
from dataclasses import asdict, replace

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from tiny import planted_data, run_config, same_tensors
from toys import toy_data

from bbqrec_core import EvaluationConfig, SemanticIds, metrics
from bbqrec_core.recommender import fit as recommender_fit
from bbqrec_core.recommender.fit import beam_ranks
from bbqrec_lab.code_keys import code_hash
from bbqrec_lab.experiments import runs, statistics
from bbqrec_lab.experiments.presets import RECIPES, make_config, with_recipe
from bbqrec_lab.experiments.runs import (
    Result,
    intervals,
    load_ranks,
    load_scorer,
    recommend,
    run_tokenizer,
    run_variant,
)
from bbqrec_lab.experiments.variants import (
    FIRST,
    ONCE,
    VARIANTS,
    holds,
    plan,
    recipe_source,
    trained_as,
    variant_config,
)
from bbqrec_lab.store import Store, finish, save_arrays

EVALUATION = EvaluationConfig(early_users=23, beam=20, exact_items=1000, batch=16)
COLUMNS = [
    "dataset",
    "data_hash",
    "variant",
    "seed",
    "preset",
    "split_seed",
    "seen_items",
    "segment",
    "targets",
    "metric",
]
COLUMNS += ["value", "config_hash"]
TRAINED = [name for name in VARIANTS if name not in ONCE]


def configure(seed=0, evaluation=EVALUATION, **changes):
    return run_config(seed, evaluation, **({"r_score_reweight": True, "r_score_steps": 5} | changes))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return planted_data(tmp_path_factory.mktemp("experiments"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def no_training(monkeypatch):
    """From here on, nothing may be trained."""

    def refuse(*arguments, **options):
        raise AssertionError("trained again")

    for name in ("make_tokenized", "fit_recommender"):
        monkeypatch.setattr(runs, name, refuse)
    for kind in runs.COUNTING.values():
        monkeypatch.setattr(kind, "fit", refuse)


def value(result, metric, seen_items="included", segment="all"):
    exact = pl.col("metric").str.replace(r" by beam \d+$", "") == metric
    rows = result.rows.filter(exact, seen_items=seen_items, segment=segment)
    assert rows.height == 1
    return rows["value"][0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_row_holds_every_metric_of_every_segment(data, store, variant):
    result = run_variant(data, variant, configure(), store)
    rows = result.rows
    assert rows.columns == COLUMNS
    assert rows.select("dataset", "data_hash", "variant", "seed", "preset", "split_seed").unique().rows() == [
        ("planted-tiny", data.data_hash, variant, 0, "smoke", 0)
    ]
    assert rows["config_hash"].unique().to_list() == [result.directory.name.removeprefix("run-")[:8]]
    assert rows.null_count().sum_horizontal().item() == 0
    assert rows.select("seen_items", "segment", "metric").is_duplicated().sum() == 0
    for mode in ("included", "filtered"):
        ranks = load_ranks(result.directory, mode)
        for segment, inside in statistics.segments(data, "test").items():
            if not inside.any():
                continue
            for metric, values in metrics.per_user(ranks).items():
                assert value(result, metric, mode, segment) == pytest.approx(values[inside].mean())
            part = rows.filter(seen_items=mode, segment=segment)
            assert part["targets"].unique().to_list() == [inside.sum()]
        for metric, number in statistics.list_metrics(ranks.top, data.train_counts()).items():
            assert value(result, metric, mode) == pytest.approx(number)
    measured = {"tokenizer_minutes", "training_minutes", "scoring_minutes", "peak_memory_gb", "device"}
    assert set(result.cost.columns) >= {"variant", "seed"} | measured
    assert result.cost.height == 1
    weights = load_file(result.directory / "model.safetensors") if variant not in ONCE else {}
    trained = [name for name, _ in load_scorer(result.directory).model.named_parameters()] if weights else []
    assert result.cost["parameters"].item() == sum(weights[name].numel() for name in trained)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_finished_row_is_read_and_not_trained_again(data, store, variant, no_training):
    again = run_variant(data, variant, configure(), Store(store.root))
    assert again.rows.equals(run_variant(data, variant, configure(), store).rows)
    assert not (again.directory / "checkpoints").exists()


@pytest.mark.parametrize("variant", ["bbqrec", "generation", "sasrec", "markov", "random-ids"])
def test_another_store_gives_the_same_table(data, store, variant, tmp_path):
    first, again = (run_variant(data, variant, configure(), where) for where in (store, Store(tmp_path)))
    assert again.rows.equals(first.rows)
    assert again.directory.name == first.directory.name
    for name in ("rows.csv", "items.parquet", "ranks_included.npz", "model.safetensors", "ids.npz"):
        if (first.directory / name).exists():
            assert (again.directory / name).read_bytes() == (first.directory / name).read_bytes(), name


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "code-granularity"])  # that by beam, below
def test_the_saved_scorer_scores_as_the_one_that_was_ranked(data, store, variant):
    result = run_variant(data, variant, configure(), store)
    scorer, everyone = load_scorer(result.directory), np.arange(data.n_users)
    found = metrics.rank_users(scorer.scores, data.history("test"), data.targets("test"), everyone, batch=16)
    for mode, ranks in found.items():
        stored = load_ranks(result.directory, mode)
        assert all(np.array_equal(a, b) for a, b in zip(ranks, stored, strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_recommendations_are_known_items_outside_the_history_best_first(data, store, variant):
    result = run_variant(data, variant, configure(), store)
    asked = [str(data.items["item_id"][row - 1]) for row in (3, 8, 3, 17, 20, 1, 2)]
    found = recommend(result.directory, asked, 10)
    assert found.columns == ["rank", "item_id", "title", "score", "code"]
    assert found["rank"].to_list() == list(range(1, 11))
    assert not set(found["item_id"]) & set(asked)
    assert found["item_id"].n_unique() == 10
    assert found["score"].is_sorted(descending=True)
    titles = dict(zip(data.items["item_id"].cast(pl.String), data.items["title"], strict=True))
    assert found["title"].to_list() == [titles[item] for item in found["item_id"]]
    with_codes = VARIANTS[variant].kind == "ids"
    assert all(bool(code) == with_codes for code in found["code"])
    assert recommend(result.directory, asked, 1000).height == data.n_items - 6
    assert recommend(result.directory, asked, 1000)[:10].equals(found)


def test_a_recommendation_is_the_ranking_of_a_user_with_that_history(data, store):
    result = run_variant(data, "bbqrec", configure(), store)
    history = data.history("test")
    rows = history.items[history.offsets[4] : history.offsets[5]]
    found = recommend(result.directory, data.items["item_id"][rows - 1].cast(pl.String).to_list(), 20)
    top = [row for row in load_ranks(result.directory, "filtered").top[4] if row]
    scores = load_scorer(result.directory).scores(history, np.array([4]))[0]
    assert scores[data.row_of(found["item_id"]).tolist()].tolist() == pytest.approx(found["score"].to_list())
    assert scores[top[: found.height]].tolist() == pytest.approx(found["score"].to_list()[: len(top)])
    ids, _ = run_tokenizer(data, configure(), store)
    first = ids.ids.code_ids[data.row_of(found["item_id"])[0]]
    assert found["code"][0] == "-".join(map(str, first))


@pytest.mark.parametrize(
    ("items", "k", "message"),
    [(["nosuch"], 3, "unknown or no items: .*nosuch"), ([], 3, "none given"), ("known", 0, "k=0")],
)
def test_a_recommendation_from_nothing_or_for_nothing_is_refused(data, store, items, k, message):
    asked = [str(data.items["item_id"][0])] if items == "known" else items
    with pytest.raises(ValueError, match=message):
        recommend(run_variant(data, "popularity", configure(), store).directory, asked, k)


def test_a_variant_is_its_settings_on_top_of_the_users():
    base = configure()
    for name, variant in VARIANTS.items():
        config = variant_config(name, base)
        settings = asdict(config)
        for field, wanted in variant.overrides.items():
            stage, _, bare = field.partition(".")
            assert settings[stage].pop(bare) == (tuple(wanted) if isinstance(wanted, list) else wanted)
        for stage, others in asdict(base).items():
            if isinstance(others, dict):
                assert settings[stage] == {bare: others[bare] for bare in settings[stage]}
    assert variant_config("generation", base) == base
    with pytest.raises(ValueError, match="no variant 'nosuch': choose one of bbqrec, generation"):
        variant_config("nosuch", base)


def test_a_row_has_the_recipe_of_the_row_whose_model_it_trains():
    wanted = {"bbqrec": "no-club sasrec-codes random-ids", "generation": "tiger letter random-generation"}
    for home, rows in wanted.items():
        assert {trained_as(row) for row in (home, *rows.split())} == {home}
    assert [trained_as(row) for row in ("sasrec", "hstu", "sasrec-strong")] == ["sasrec", "hstu", "sasrec-strong"]
    assert all(row == "" or trained_as(row) == row for recipes in RECIPES.values() for row in recipes)
    base = make_config("quick")
    for events in (5, 100):
        assert variant_config("tiger", base, events) == variant_config("tiger", with_recipe(base, "generation", events))


def test_every_variant_gives_scores_of_its_own(data, store):
    codes = np.random.default_rng(0).integers(0, 4, (data.n_items + 1, 2)).astype(np.int32)
    new = np.arange(data.n_items + 1) % 4 == 0
    data = replace(data, codes={"text": codes}, cold=new, content_hash="with new items")
    config = configure(uniqueness="nearest", w_use=0.0)  # as in the presets, so that each variant differs from them
    directories = {name: run_variant(data, name, config, store).directory for name in VARIANTS}
    assert len(set(directories.values())) == len(VARIANTS)
    scores = [load_scorer(path).scores(data.history("test"), np.array([0]))[0, 1:] for path in directories.values()]
    for i, first in enumerate(scores):
        assert not any(torch.equal(first, second) for second in scores[i + 1 :])


def test_variants_of_stage_two_share_one_tokenizer(data, store):
    run_variant(data, "bbqrec", configure(), store)
    before = set(store.root.glob("tokenizer-*[!k]"))
    run_variant(data, "no-reweighting", configure(), store)
    homes = {run_tokenizer(data, variant_config(name, configure()), store)[1] for name in ("bbqrec", "no-reweighting")}
    assert len(homes) == 1
    assert set(store.root.glob("tokenizer-*[!k]")) == before


def test_a_row_keeps_the_vectors_that_its_model_compared(data, store):
    done, _ = run_tokenizer(data, configure(), store)
    wanted = {"bbqrec": done.ids.signal_vectors, "similarity-signals": done.behaviour}
    for variant in (*wanted, "similarity-features"):
        directory = run_variant(data, variant, configure(), store).directory
        ids, compared = SemanticIds.load(directory / "ids.npz"), load_scorer(directory).model.reweighting
        unit = torch.nn.functional.normalize(torch.from_numpy(ids.signal_vectors), dim=-1)
        assert torch.equal(compared.vectors, unit)
        assert torch.equal(compared.present, torch.from_numpy(ids.present))
        assert np.array_equal(ids.code_ids, done.ids.code_ids)
        if variant in wanted:
            assert np.array_equal(ids.signal_vectors, wanted[variant])
        else:
            assert ids.signals == tuple(data.features)
            for index, array in enumerate(data.features.values()):
                assert np.array_equal(ids.signal_vectors[:, index, : array.shape[1]], array)


def test_an_item_that_training_never_saw_keeps_its_share_in_a_saved_run(data, store):
    held = replace(data, cold=np.arange(data.n_items + 1) % 4 == 0, content_hash="held")
    rows, history = np.flatnonzero(held.cold)[1:], held.history("test")
    scores = {}
    for variant in ("bbqrec", "no-backoff"):
        directory = run_variant(held, variant, configure(), store).directory
        scores[variant] = load_scorer(directory).scores(history, np.arange(held.n_users))
    assert not torch.allclose(scores["bbqrec"][:, rows], scores["no-backoff"][:, rows])
    trained = held.train_counts() > 0
    torch.testing.assert_close(scores["bbqrec"][:, trained], scores["no-backoff"][:, trained])


def test_a_killed_row_goes_on_where_it_stopped(data, store, tmp_path, monkeypatch):
    """The tokenizer is done and the recommender has trained two of three epochs when the process ends."""
    config, mine = configure(r_epochs=3), Store(tmp_path)
    inner, calls = recommender_fit.fit_recommender, []

    def die(*arguments):
        calls.append(1)
        short = replace(arguments[2], epochs=2) if len(calls) == 1 else arguments[2]
        done = inner(*arguments[:2], short, *arguments[3:])
        if len(calls) == 1:
            raise KeyboardInterrupt
        return done

    with monkeypatch.context() as patch:
        patch.setattr(runs, "fit_recommender", die)
        with pytest.raises(KeyboardInterrupt):
            run_variant(data, "no-reweighting", config, mine)
    assert [path.name for path in tmp_path.glob("run-*.partial")]
    monkeypatch.setattr(runs, "make_tokenized", None)  # must not be called again
    directory = run_variant(data, "no-reweighting", config, mine).directory
    assert [row["epoch"] for row in json.loads((directory / "run.json").read_text())["log"]] == [1, 2, 3]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"r_lr": 0.02},
        {"lr": 0.02},
        {"transport": True},
        {"evaluation": replace(EVALUATION, beam=3)},
        {"data": "other hash"},
        {"split": 1},
        {"code": "changed"},
    ],
    ids=str,
)
def test_whatever_shapes_a_result_is_part_of_its_name(data, store, change, monkeypatch):
    class Asked(Exception):
        """Ends the run when it turns out that it is not in the store."""

    def stop(*arguments):
        raise Asked

    config = configure(**{name: v for name, v in change.items() if name not in ("data", "split", "code")})
    if "split" in change:
        config = replace(config, data=replace(config.data, split_seed=1))
    dataset = replace(data, content_hash="ffffffff") if "data" in change else data
    run_variant(data, "bbqrec", configure(), store)
    monkeypatch.setattr(runs, "_make_run", stop)
    run_variant(data, "bbqrec", configure(), store)  # found
    if "code" in change:
        monkeypatch.setattr(runs, "run_code", lambda kind: "changed")
    with pytest.raises(Asked):
        run_variant(dataset, "bbqrec", config, store)


@pytest.mark.parametrize("variant", ["popularity", "generation"])
def test_an_interrupted_ranking_continues_with_the_next_slice(data, store, variant, tmp_path, monkeypatch):
    whole, ranks_of, asked = run_variant(data, variant, configure(), store), runs._ranks_of, []

    def interrupted(*given):
        asked.append(int(given[-1][0]))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return ranks_of(*given)

    monkeypatch.setattr(runs, "SLICE", 16)
    monkeypatch.setattr(runs, "_ranks_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_variant(data, variant, configure(), Store(tmp_path))
    again = run_variant(data, variant, configure(), Store(tmp_path))
    assert asked == [0, 16, *range(16, data.n_users, 16)]
    assert again.rows.equals(whole.rows)


def test_a_baseline_of_counts_does_not_depend_on_settings_of_models(data, store, no_training):
    for variant, config in (("popularity", configure(lr=0.5, r_lr=0.5)), ("sasrec", configure(lr=0.5))):
        directories = [run_variant(data, variant, asked, store).directory for asked in (configure(), config)]
        assert directories[0] == directories[1]


def test_each_kind_of_row_is_keyed_on_the_code_it_runs():
    codes = {kind: runs.run_code(kind) for kind in ("ids", "items", "knn")}
    assert len({*codes.values(), code_hash(*runs.TOKENIZER_CODE)}) == 4
    assert runs.run_code("markov") == runs.run_code("popularity") == codes["knn"]
    assert codes == {kind: runs.run_code(kind) for kind in codes}


def test_bf16_on_a_machine_without_it_is_refused_before_training(data, tmp_path, monkeypatch, no_training):
    monkeypatch.setattr(runs, "has_bf16", lambda: False)
    config = configure()
    config = replace(config, recommender=replace(config.recommender, precision="bf16"))
    with pytest.raises(ValueError, match=r"precision=bf16: this machine .* set precision=fp32"):
        run_variant(data, "sasrec", config, Store(tmp_path))


def test_above_a_stated_catalogue_size_ids_are_found_by_beam_and_the_rows_say_so(data, store, tmp_path):
    beam = configure(evaluation=replace(EVALUATION, exact_items=data.n_items - 1, beam=100))
    exact, found = (run_variant(data, "bbqrec", config, store) for config in (configure(), beam))
    assert found.rows["metric"].str.ends_with(" by beam 100").all()
    plain = found.rows.with_columns(pl.col("metric").str.replace(" by beam 100", "", literal=True))
    joined = plain.join(exact.rows, on=["seen_items", "segment", "metric"], validate="1:1")
    assert joined.height == exact.rows.height
    assert joined["value"].to_list() == pytest.approx(joined["value_right"].to_list())  # wide enough to miss nothing
    for other in ("sasrec", "popularity"):
        assert not run_variant(data, other, beam, store).rows["metric"].str.contains("beam").any()
    items = configure(evaluation=replace(EVALUATION, exact_items=1), r_output="items")
    assert not run_variant(data, "generation", items, store).rows["metric"].str.contains("beam").any()


def test_histories_read_code_by_code_are_ranked_by_beam_and_the_rows_say_so(data, store):
    result = run_variant(data, "generation", configure(r_granularity="code"), store)
    assert result.rows["metric"].str.ends_with(" by beam 20").all()
    scorer, everyone = load_scorer(result.directory), np.arange(data.n_users)
    for mode, masked in (("included", False), ("filtered", True)):
        found = beam_ranks(scorer, data, "test", everyone, EVALUATION, masked)
        assert all(np.array_equal(a, b) for a, b in zip(found, load_ranks(result.directory, mode), strict=True))
    asked = [str(data.items["item_id"][row]) for row in (3, 8)]
    assert recommend(result.directory, asked, 5)["score"].is_sorted(descending=True)


def test_a_bundle_without_any_modality_runs_every_variant(data, tmp_path):
    bare = replace(data, features={}, presence={}, content_hash="0badf00d")
    for variant in ("bbqrec", "tiger", "no-id-signal", "concat", "sasrec-features"):
        result = run_variant(bare, variant, configure(), Store(tmp_path))
        assert 0 <= value(result, "ndcg@10") <= 1


def test_test_events_are_looked_at_only_after_all_training(data, store, tmp_path):
    other = data.sequences.items.copy()
    last = data.sequences.offsets[1:] - 1
    other[last] = other[last] % data.n_items + 1
    changed = replace(data, sequences=data.sequences._replace(items=other), content_hash="0badf00d")
    for variant in ("bbqrec", "sasrec"):
        first, second = (run_variant(d, variant, configure(), store).directory for d in (data, changed))
        models = [load_scorer(path).model.state_dict() for path in (first, second)]
        assert same_tensors(*models)


@pytest.mark.parametrize("preset", ["smoke", "quick", "full"])
def test_the_plan_names_each_row_once(preset):
    rows = plan(preset, [0, 1, 2])
    assert len(rows) == len(set(rows))
    names = {name for name, _ in rows}
    assert {"bbqrec", "popularity", "markov", "sasrec", "tiger", "random-ids"} <= names <= set(VARIANTS)
    for name in names:
        seeds = [seed for other, seed in rows if other == name]
        once = name in ONCE or (name not in FIRST if preset == "full" else VARIANTS[name].group == "ablation")
        assert seeds == ([0] if once else [0, 1, 2])
    if preset == "full":
        assert names == set(VARIANTS)
        assert list(dict.fromkeys(name for name, _ in rows))[: len(FIRST)] == list(FIRST)


def test_each_row_says_what_it_holds_and_whose_recipe_it_has():
    assert holds("bbqrec") == ["semantic IDs", "item vectors", "features", "counts of pairs"]
    assert holds("generation") == ["semantic IDs", "counts of pairs"]
    assert holds("tiger") == ["semantic IDs"]
    assert (holds("hstu"), holds("content-knn")) == (["item vectors", "times of events"], ["features"])
    sources = {name: recipe_source(name) for name in ("random-ids", "tiger", "hstu", "ease", "popularity")}
    assert list(sources.values()) == [
        *("trials of bbqrec", "trials of generation", "trials of this row", "tuned on validation, in each run", "")
    ]


def made_up(tmp_path, variant, seed, greater):
    """A finished row whose ranks are given, the same kept and masked."""
    folder = tmp_path / f"{variant}-{seed}"
    folder.mkdir()
    users = len(greater)
    ranks = metrics.Ranks(np.array(greater, np.int32), np.ones(users, np.int32), np.ones((users, 20), np.int32))
    for mode in ("included", "filtered"):
        save_arrays(folder / f"ranks_{mode}.npz", **ranks._asdict())
    finish(folder, {})
    return Result(variant, seed, pl.DataFrame(), pl.DataFrame(), folder)


def test_intervals_compare_the_means_over_common_seeds(tmp_path):
    ours = [made_up(tmp_path, "bbqrec", 0, [0, 30, 1, 9]), made_up(tmp_path, "bbqrec", 1, [30, 30, 0, 3])]
    others = [made_up(tmp_path, "tiger", 1, [30, 30, 30, 2]), made_up(tmp_path, "popularity", 0, [30, 0, 30, 30])]
    apart = [made_up(tmp_path, name, 7, [0, 0, 0, 0]) for name in ("tiger", "sasrec")]
    table = intervals([*ours, *others, *apart])
    assert " ".join(table.columns) == "seen_items metric variant against seeds difference low high p p_holm"
    assert set(table["against"]) == {"tiger", "popularity"}  # sasrec has no seed in common
    assert table.height == 2 * 2 * 2
    recall = {
        row["against"]: row for row in table.filter(seen_items="included", metric="recall@10").iter_rows(named=True)
    }
    assert (recall["tiger"]["seeds"], recall["popularity"]["seeds"]) == (1, 2)
    assert recall["tiger"]["difference"] == pytest.approx(2 / 4 - 1 / 4)  # seed 1 alone
    assert recall["popularity"]["difference"] == pytest.approx((3 / 4 + 2 / 4) / 2 - 1 / 4)
    for row in table.iter_rows(named=True):
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["p"] <= row["p_holm"] <= 1
    assert table["p_holm"].to_list() == pytest.approx(statistics.holm(table["p"].to_numpy()))


def test_slices_compare_the_users_of_each_group_in_pairs(tmp_path):
    # Targets 1, 2, 2 and 3; item 2 has no picture. Item 1 alone is head.
    data = toy_data([[1, 1, 3, 1], [1, 1, 3, 2], [1, 1, 2, 3, 2], [1, 1, 2, 3]], 3)
    pictures = np.array([[0], [1], [0], [1]], np.float32)
    data = replace(data, features={"image": pictures}, presence={})
    ours = [made_up(tmp_path, "bbqrec", 0, [0, 0, 0, 30]), made_up(tmp_path, "bbqrec", 1, [0, 0, 30, 30])]
    others = [made_up(tmp_path, "tiger", 1, [0, 30, 30, 0]), made_up(tmp_path, "popularity", 0, [30, 30, 0, 30])]
    table = runs.slices([*ours, *others], data)
    assert set(table["slice"]) == {
        *("all", "tail items", "with image", "without image"),
        *("short histories",),
    }, "no slice of one user"
    found = {(row["slice"], row["against"]): row for row in table.iter_rows(named=True)}
    whole, without = found["all", "tiger"], found["without image", "popularity"]
    assert (whole["targets"], whole["seeds"], without["targets"], without["seeds"]) == (4, 1, 2, 2)
    assert (whole["ours"], whole["theirs"]) == (0.5, 0.5)
    assert (without["ours"], without["theirs"]) == (0.75, 0.5)
    assert found["with image", "tiger"]["difference"] == pytest.approx(1 / 2 - 1)
    for row in found.values():
        assert row["difference"] == pytest.approx(row["ours"] - row["theirs"])
        assert row["low"] <= row["difference"] <= row["high"]
    assert table["p_holm"].to_list() == pytest.approx(statistics.holm(table["p"].to_numpy()))
    assert runs.slices(ours, data).height == 0


def test_intervals_of_nothing_to_compare_are_an_empty_table(tmp_path):
    alone = [made_up(tmp_path, "bbqrec", 0, [0, 1])]
    assert intervals(alone).height == intervals([]).height == 0
    assert intervals(alone).columns[-1] == "p_holm"
