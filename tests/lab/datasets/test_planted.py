"""Laws of the planted dataset: what it promises about behaviour, nuisance and the best possible ranking."""

import itertools
import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from PIL import Image

from bbqrec_lab.datasets.planted import (
    FATES,
    FOLLOW,
    JUMP,
    KEEP_MOOD,
    SIBLING,
    PlantedConfig,
    load_truth,
    oracle_scores,
    write_planted,
)
from bbqrec_lab.datasets.planted_rendering import GROUNDS, NUISANCE_WORDS, draw_picture
from bbqrec_lab.datasets.reading import read_bundle
from bbqrec_lab.settings import DataConfig

TINY = PlantedConfig(users=30, items=24, branching=(3, 2), moods=2, length=8, features="direct")
WALK = PlantedConfig(users=400, items=120, branching=(4, 3), moods=1, length=25, noise=0.0, missing=0.95)


def content(folder):
    """Every file of a bundle as bytes."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_planted(tmp_path_factory.mktemp("tiny") / "b", TINY)


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    return write_planted(tmp_path_factory.mktemp("walk") / "b", WALK)


def test_same_configuration_gives_the_same_bytes(tiny, tmp_path):
    assert content(write_planted(tmp_path / "b", TINY)) == content(tiny)


@pytest.mark.parametrize(
    ("field", "value", "file"),
    [
        ("users", 31, "interactions.parquet"),
        ("items", 25, "items.parquet"),
        ("branching", (3, 3), "items.parquet"),
        ("moods", 1, "interactions.parquet"),
        ("length", 9, "interactions.parquet"),
        ("noise", 0.5, "interactions.parquet"),
        ("nuisances", 3, "items.parquet"),
        ("text_signal", 3.0, "features/text.npy"),
        ("image_signal", 3.0, "features/image.npy"),
        ("missing", 0.5, "items.parquet"),
        ("features", "rendered", "features/text.npy"),
        ("drift", 0.5, "interactions.parquet"),
        ("seed", 1, "interactions.parquet"),
    ],
)
def test_every_knob_changes_the_data(tiny, tmp_path, field, value, file):
    changed = content(write_planted(tmp_path / "b", replace(TINY, **{field: value})))
    assert changed.get(file) != content(tiny)[file]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("users", 0),
        ("items", 11),
        ("branching", (9,)),
        ("branching", ()),
        ("moods", 3),
        ("length", 5),
        ("noise", 1.5),
        ("nuisances", 7),
        ("text_signal", 0.0),
        ("missing", 1.0),
        ("drift", 1.0),
        ("features", "none"),
    ],
)
def test_impossible_knobs_are_refused_by_name_and_value(field, value):
    with pytest.raises(ValueError, match=field) as error:
        replace(TINY, **{field: value})
    assert str(value) in str(error.value)


def test_existing_files_are_never_overwritten(tiny):
    with pytest.raises(ValueError, match="not empty"):
        write_planted(tiny, TINY)


def test_the_bundle_reads_without_a_single_drop_or_tie(tiny):
    data = read_bundle(tiny, DataConfig())
    assert (data.n_users, data.n_items, sorted(data.features)) == (30, 24, ["image", "text"])
    counted = {what: value for what, value in data.report.items() if isinstance(value, int) and what != "rows read"}
    assert not any(counted.values()), counted


def test_truth_follows_the_item_and_not_its_row(tiny):
    first, second = (read_bundle(tiny, DataConfig(split_seed=seed)) for seed in (0, 1))
    known = [
        {name: dict(zip(data.items["item_id"], values[1:], strict=True)) for name, values in truth.items()}
        for data, truth in ((first, load_truth(tiny, first)), (second, load_truth(tiny, second)))
    ]
    assert list(first.items["item_id"]) != list(second.items["item_id"])
    assert known[0] == known[1]
    assert set(known[0]) == {"level_1", "level_2", "leaf", "text_nuisance", "image_nuisance"}
    assert all(values[0] == -1 for values in load_truth(tiny, first).values())


def test_truth_of_another_bundle_is_refused(tiny, walk, tmp_path):
    with pytest.raises(ValueError, match="has no row for item"):
        load_truth(tiny, read_bundle(walk, DataConfig()))
    with pytest.raises(ValueError, match="does not exist"):
        load_truth(tmp_path, read_bundle(walk, DataConfig()))


def steps(folder):
    """Leaves of consecutive events, as two arrays."""
    events = pl.read_parquet(folder / "interactions.parquet").join(
        pl.read_parquet(folder / "truth.parquet"), on="item_id", maintain_order="left"
    )
    pairs = events.select(pl.col("leaf"), after=pl.col("leaf").shift(-1).over("user_id")).drop_nulls()
    return pairs["leaf"].to_numpy(), pairs["after"].to_numpy()


def test_the_walk_follows_its_stated_chances(walk):
    before, after = steps(walk)
    follow = np.array(json.loads((walk / "truth.json").read_text())["next_leaf"])[0][before]
    kin = (follow // 3 == after // 3) & (follow != after)
    # 10,000 steps: a standard error is 0.004 at most
    assert (follow == after).mean() == pytest.approx(FOLLOW + SIBLING / 3 + JUMP / 12, abs=0.02)
    assert kin.mean() == pytest.approx(SIBLING * 2 / 3 + JUMP * 2 / 12, abs=0.02)


def test_moods_turn_the_top_of_the_tree_by_different_steps(tiny):
    maps = np.array(json.loads((tiny / "truth.json").read_text())["next_leaf"])
    for mood, follow in enumerate(maps):
        assert sorted(follow) == list(range(6))
        assert ((follow // 2 - np.arange(6) // 2) % 3 == mood + 1).all()


def test_events_come_in_proportion_to_the_items_weight_where_all_is_noise(tmp_path):
    noisy = replace(WALK, users=3000, length=6, noise=1.0)
    folder = write_planted(tmp_path / "b", noisy)
    truth = pl.read_parquet(folder / "truth.parquet")
    firsts = pl.read_parquet(folder / "interactions.parquet").group_by("user_id", maintain_order=True).first()
    share = truth.join(firsts["item_id"].value_counts(), on="item_id", how="left")["count"].fill_null(0) / 3000
    assert share.to_numpy() == pytest.approx((truth["weight"] / truth["weight"].sum()).to_numpy(), abs=0.01)


def test_item_ids_tell_nothing_of_popularity_or_leaf(walk):
    truth = pl.read_parquet(walk / "truth.parquet").sort("item_id").with_row_index("number")
    for column in ("weight", "leaf", "text_nuisance"):
        assert abs(truth.select(pl.corr("number", column, method="spearman")).item()) < 0.25


def test_users_never_repeat_an_item(walk):
    events = pl.read_parquet(walk / "interactions.parquet")
    assert events.unique(["user_id", "item_id"]).height == events.height


def test_direct_features_hold_behaviour_and_nuisance_at_the_stated_ratio(tmp_path):
    config = PlantedConfig(
        users=5,
        items=600,
        branching=(4, 3),
        length=6,
        missing=0.0,
        features="direct",
        text_signal=4.0,
        image_signal=0.5,
    )
    folder = write_planted(tmp_path / "b", config)
    truth = pl.read_parquet(folder / "truth.parquet")

    def energy(modality, column):
        """Mean squared norm of what the means of the column's groups explain."""
        x = np.load(folder / "features" / f"{modality}.npy")
        x = x - x.mean(0)
        groups = np.eye(12)[truth[column].to_numpy()]
        sizes = groups.sum(0).clip(1)[:, None]
        return ((groups @ (groups.T @ x / sizes)) ** 2).sum(1).mean()

    # 600 items: chance coupling of the two factors moves a ratio by some per cent
    assert energy("text", "leaf") / energy("text", "text_nuisance") == pytest.approx(4, rel=0.15)
    assert energy("image", "leaf") / energy("image", "image_nuisance") == pytest.approx(0.5, rel=0.15)
    assert max(energy("text", "image_nuisance"), energy("image", "text_nuisance")) < 0.03


def test_missing_modalities_are_null_and_zero_together(tiny):
    items = pl.read_parquet(tiny / "items.parquet")
    for modality in ("text", "image"):
        gone = ~np.load(tiny / "features" / f"{modality}.npy").any(1)
        assert (gone == items[modality].is_null().to_numpy()).all()
    named = set(items["image"].drop_nulls())
    assert named == {f"images/{file.name}" for file in (tiny / "images").iterdir()}


def test_descriptions_draw_their_nuisance_share_from_the_nuisance_lexicon(tmp_path):
    folder = write_planted(tmp_path / "b", replace(TINY, text_signal=3.0, missing=0.0, features="rendered"))
    nuisance = pl.read_parquet(folder / "truth.parquet")["text_nuisance"]
    for text, style in zip(pl.read_parquet(folder / "items.parquet")["text"], nuisance, strict=True):
        words = text.split()
        assert len(words) == 12
        assert sum(word in NUISANCE_WORDS[style].split() for word in words) == 3


def test_titles_are_unique(walk):
    assert pl.read_parquet(walk / "items.parquet")["title"].drop_nulls().is_unique().all()


def test_pictures_show_the_shape_by_its_share_and_the_colours_of_the_nuisance(tiny):
    file = next((tiny / "images").iterdir())
    with Image.open(file) as picture:
        assert (picture.format, picture.size, picture.mode) == ("PNG", (64, 64), "RGB")

    def share(digits, nuisance, ratio):
        pixels = np.asarray(draw_picture(np.random.default_rng(0), np.array(digits), nuisance, ratio))
        return (pixels == GROUNDS[nuisance][2]).all(-1).mean()

    assert 0 < share([0, 0], 0, 0.2) < share([0, 0], 0, 1.0) < share([0, 0], 0, 5.0)
    # a disc that may fill the picture has pi / 4 of it, half of that at ratio 1
    assert share([0, 0], 3, 1.0) == pytest.approx(np.pi / 8, abs=0.03)
    drawn = [np.asarray(draw_picture(np.random.default_rng(0), np.array(d), 1, 1.0)) for d in ([0, 0], [1, 0], [0, 1])]
    assert not any((a == b).all() for a, b in itertools.combinations(drawn, 2))


@pytest.mark.parametrize(("moods", "pick"), [(2, np.argmin), (1, np.argmax)])
def test_oracle_agrees_with_the_sum_over_all_hidden_paths(tmp_path, moods, pick):
    config = PlantedConfig(users=20, items=7, branching=(3, 1), moods=moods, length=6, noise=0.2, missing=0.5)
    folder = write_planted(tmp_path / "b", config)
    data = read_bundle(folder, DataConfig())
    truth = pl.read_parquet(folder / "truth.parquet")
    leaf = dict(truth.select("item_id", "leaf").iter_rows())
    weight = dict(truth.select("item_id", "weight").iter_rows())
    maps = json.loads((folder / "truth.json").read_text())["next_leaf"]
    states = list(itertools.product(range(moods), range(3)))

    def move(a, b):  # with one child below each node, a leaf is its own and only sibling
        mood = KEEP_MOOD * (a[0] == b[0]) + (1 - KEEP_MOOD) / moods
        return ((FOLLOW + SIBLING) * (b[1] == maps[a[0]][a[1]]) + JUMP / 3) * mood

    def emit(item, state, seen):
        open_items = [i for i in leaf if i not in seen]
        anywhere = weight[item] / sum(weight[i] for i in open_items)
        mine = [i for i in open_items if leaf[i] == state[1]]
        here = weight[item] / sum(weight[i] for i in mine) if item in mine else 0.0
        return 0.2 * anywhere + 0.8 * (here if mine else anywhere)

    user = int(pick(np.diff(data.sequences.offsets)))  # the longest one has seen all items of two leaves
    history = data.history("test")
    rows = history.items[history.offsets[user] : history.offsets[user + 1]]
    ids = [data.items["item_id"][int(row) - 1] for row in rows]
    left = [i for i in leaf if i not in ids]
    chance = dict.fromkeys(left, 0.0)
    for path in itertools.product(states, repeat=len(ids) + 1):
        p = np.prod([move(a, b) for a, b in itertools.pairwise(path)])
        p *= np.prod([emit(item, path[t], ids[:t]) for t, item in enumerate(ids)])
        for item in left:
            chance[item] += p * emit(item, path[-1], ids)
    expected = np.zeros(8)
    expected[data.row_of(left)] = np.array(list(chance.values())) / sum(chance.values())
    assert oracle_scores(folder, data, "test")[user] == pytest.approx(expected, abs=1e-9)


def test_no_ranking_beats_the_oracle_and_one_step_of_history_is_not_enough(tmp_path):
    folder = write_planted(tmp_path / "b", PlantedConfig(users=400, items=120, branching=(4, 3), missing=0.95))
    data = read_bundle(folder, DataConfig())
    scores, history = oracle_scores(folder, data, "test"), data.history("test")
    assert scores.sum(1) == pytest.approx(np.ones(400))

    def recall(scores):
        scores = scores.copy()
        scores[np.repeat(np.arange(400), np.diff(history.offsets)), history.items] = -1
        target = np.take_along_axis(scores, data.targets("test")[:, None].astype(int), 1)
        return ((scores > target).sum(1) < 10).mean()

    before, after = data.train().items[:-1], data.train().items[1:]
    inside = np.ones(len(before), dtype=bool)
    inside[data.train().offsets[1:-1] - 1] = False
    leaf = load_truth(folder, data)["leaf"]
    once = np.zeros((12, 121))
    np.add.at(once, (leaf[before[inside]], after[inside]), 1)
    markov = recall(once[leaf[history.items[history.offsets[1:] - 1]]])
    popularity = recall(np.tile(data.train_counts().astype(float), (400, 1)))
    # measured: popularity 0.19, one step 0.42, oracle 0.63; the standard error is 0.025
    assert recall(scores) > markov + 0.1 > popularity + 0.2


DRIFT = replace(WALK, branching=(4, 3), drift=0.6, length=30)


@pytest.fixture(scope="module")
def drift(tmp_path_factory):
    """Events in order with the leaf and its fate before and after the moment, and the note of the truth."""
    folder = write_planted(tmp_path_factory.mktemp("drift") / "b", DRIFT)
    note = json.loads((folder / "truth.json").read_text())
    truth = pl.read_parquet(folder / "truth.parquet").select("item_id", "leaf", "fate")
    events = pl.read_parquet(folder / "interactions.parquet").join(truth, on="item_id", maintain_order="left")
    return folder, events.with_columns(after=pl.col("timestamp") >= note["moment"]), note


def test_leaves_appear_and_die_at_the_moment_of_the_drift(drift):
    _, events, note = drift
    assert note["moment"] == DRIFT.moment
    shares = {
        name: events.filter(pl.col("fate") == code).group_by("after").len().sort("after").to_dicts()
        for code, name in enumerate(FATES)
    }
    assert [row["after"] for row in shares["appears"]] == [True]
    assert [row["after"] for row in shares["dies"]] == [False]
    assert [row["after"] for row in shares["stays"]] == [row["after"] for row in shares["changes"]] == [False, True]
    assert events["timestamp"].is_between(DRIFT.moment - 60 * 86_400, DRIFT.moment + 40 * 86_400).all()


def test_users_change_their_mind_on_the_leaves_that_say_so(drift):
    _, events, note = drift
    steps = events.with_columns(
        then=pl.col("leaf").shift(-1).over("user_id"), late=pl.col("after").shift(-1).over("user_id")
    )
    steps = steps.drop_nulls("then").filter(pl.col("after") == pl.col("late"))
    maps = np.array([note["next_leaf"][0], note["next_leaf_after"][0]])
    leaf, then, late = (steps[name].to_numpy() for name in ("leaf", "then", "late"))
    follows = {
        (fate, when): (then == maps[1][leaf])[(steps["fate"].to_numpy() == code) & (late == when)].mean()
        for code, fate in enumerate(FATES)
        for when in (False, True)
        if fate in ("stays", "changes")
    }
    assert (maps[0] != maps[1]).sum() == 2
    assert follows["changes", True] > 0.4 > 0.2 > follows["changes", False]
    assert follows["stays", False] > 0.4
    assert follows["stays", True] > 0.4


def test_users_of_a_world_that_changes_are_there_all_the_time(drift):
    _, events, _ = drift
    spans = events.group_by("user_id").agg((pl.col("timestamp").max() - pl.col("timestamp").min()).alias("span"))
    assert spans["span"].median() > 60 * 86_400


def test_no_drift_gives_no_fate_and_a_drift_has_no_oracle(walk, drift):
    assert "fate" not in pl.read_parquet(walk / "truth.parquet").columns
    data = read_bundle(drift[0], DataConfig())
    assert set(load_truth(drift[0], data)) >= {"fate", "leaf"}
    with pytest.raises(ValueError, match="knows one world"):
        oracle_scores(drift[0], data, "test")
    with pytest.raises(ValueError, match="at least 4 leaves"):
        replace(DRIFT, branching=(3,), moods=1)
