"""The dataset: order, split and numbering against loops over plain lists, and the laws they must keep."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bundles
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbqrec_lab.datasets import reading
from bbqrec_lab.datasets.bundle import BundleError
from bbqrec_lab.datasets.interactions import keep_core
from bbqrec_lab.datasets.planted import PlantedConfig, write_planted
from bbqrec_lab.datasets.reading import NamedDataset, read_bundle, statistics
from bbqrec_lab.settings import DataConfig


def named(data: NamedDataset) -> dict[object, list[object]]:
    """Each user's original item ids, oldest first."""
    ids = np.array([None, *data.items["item_id"]], dtype=object)
    offsets, rows, _ = data.sequences
    return {user: list(ids[rows[offsets[u] : offsets[u + 1]]]) for u, user in enumerate(data.users)}


def same(one: NamedDataset, other: NamedDataset) -> bool:
    """Whether two datasets hold the same users, items, sequences, times, features and hash."""
    pairs = [
        (one.users, other.users),
        *zip(one.sequences, other.sequences, strict=True),
        (one.timestamps, other.timestamps),
    ]
    for arrays in ("features", "presence", "codes"):
        assert list(getattr(one, arrays)) == list(getattr(other, arrays))
        pairs += [(getattr(one, arrays)[name], getattr(other, arrays)[name]) for name in getattr(one, arrays)]
    equal = all(np.array_equal(a, b) for a, b in pairs)
    return equal and one.items.equals(other.items) and one.content_hash == other.content_hash


def random_events(seed: int, rows: int = 300) -> pl.DataFrame:
    """Interactions with many ties, repeats, duplicates and short histories, in no order."""
    draw = np.random.default_rng(seed)
    columns = {"user_id": (0, 23), "item_id": (10, 15), "timestamp": (0, 19)}
    return pl.DataFrame({name: draw.integers(low, high, rows) for name, (low, high) in columns.items()})


@pytest.mark.parametrize("seed", [0, 1])
def test_file_order_agrees_with_a_loop_over_the_rows(tmp_path, seed):
    events = random_events(seed)
    histories = defaultdict(list)
    for user, item, time in dict.fromkeys(events.iter_rows()):
        histories[user].append((time, item))
    expected = {user: [item for _, item in sorted(rows, key=lambda row: row[0])] for user, rows in histories.items()}
    data = read_bundle(bundles.write(tmp_path, events), DataConfig(time_ties="file"))
    assert named(data) == {user: rows for user, rows in expected.items() if len(rows) >= 3}


@pytest.mark.parametrize("ids", [pl.Int32, pl.UInt64, pl.String, pl.Categorical])
def test_histories_do_not_depend_on_the_type_of_the_ids(tmp_path, ids):
    columns = pl.col("user_id", "item_id")
    events = bundles.interactions().with_columns(columns.cast(pl.String).cast(ids))
    table = bundles.items().with_columns(pl.col("item_id").cast(pl.String).cast(ids))
    data = read_bundle(bundles.write(tmp_path, events, table), DataConfig())
    kind = int if ids.is_integer() else str
    assert named(data) == {
        kind(1): [*map(kind, (10, 11, 12, 13))],
        kind(2): [*map(kind, (12, 11, 10))],
        kind(3): [*map(kind, (13, 10, 12))],
    }


def test_split_keeps_the_last_event_for_test_and_the_one_before_for_validation(tmp_path):
    data = read_bundle(bundles.write(tmp_path), DataConfig())
    ids = np.array([0, *data.items["item_id"]])
    assert ids[data.targets("test")].tolist() == [13, 10, 12]
    assert ids[data.targets("valid")].tolist() == [12, 11, 10]
    assert ids[data.train().items].tolist() == [10, 11, 12, 13]
    assert data.train().offsets.tolist() == [0, 2, 3, 4]
    assert ids[data.history("test").items].tolist() == [10, 11, 12, 12, 11, 13, 10]
    assert data.history("test").offsets.tolist() == [0, 3, 5, 7]
    assert all(np.array_equal(a, b) for a, b in zip(data.history("valid"), data.train(), strict=True))
    assert data.train_counts()[data.row_of([10, 11, 12, 13, 14])].tolist() == [1, 1, 1, 1, 0]
    assert data.train_counts()[0] == 0
    untroubled = {"rows read": 10, "time ties": "seeded shuffle, split_seed 0"}
    assert data.report == untroubled | {reading.TIED: 0, reading.REPEATED: 0}
    with pytest.raises(ValueError, match="'train'"):
        data.targets("train")


def test_item_arrays_follow_their_item_and_row_zero_is_empty(tmp_path):
    codes = np.arange(15, dtype=np.uint8).reshape(5, 3)
    halves = np.array([[0, 0], [1, 0], [0, 2], [0, 0], [3, 3]], np.uint8)
    features = bundles.FEATURES | {"half": halves, "half_codes": codes}
    data = read_bundle(bundles.write(tmp_path, features=features), DataConfig())
    rows = data.row_of(bundles.items()["item_id"])
    assert sorted(rows) == [1, 2, 3, 4, 5]
    assert data.items[rows - 1]["text"].to_list() == bundles.items()["text"].to_list()
    assert np.array_equal(data.features["graph"][rows], bundles.FEATURES["graph"])
    assert np.array_equal(data.features["half"][rows], halves)
    assert np.array_equal(data.codes["half"][rows], codes)
    assert data.presence["half"][rows].tolist() == [False, True, True, False, True]
    assert list(data.features) == ["graph", "half"]
    for array in (data.features["half"], data.codes["half"], data.presence["half"]):
        assert not array[0].any()
    picture = Path(data.items[int(rows[1]) - 1, "image"])
    assert picture.is_absolute()
    assert picture.is_file()


@pytest.mark.parametrize("ties", ["shuffle", "file"])
def test_order_of_item_rows_never_matters(tmp_path, ties):
    events, order = random_events(2), [3, 0, 4, 2, 1]
    first = read_bundle(bundles.write(tmp_path, events), DataConfig(time_ties=ties))
    features = {"graph": bundles.FEATURES["graph"][order]}
    again = read_bundle(bundles.write(tmp_path, events, bundles.items()[order], features), DataConfig(time_ties=ties))
    assert same(first, again)


@settings(max_examples=12, deadline=None)  # each reads two bundles from disk
@given(seed=st.integers(0, 2**32), k_core=st.sampled_from([0, 5]))
def test_order_of_interaction_rows_never_matters_when_ties_are_shuffled(tmp_path_factory, seed, k_core):
    events, root = random_events(3), tmp_path_factory.mktemp("bundle")
    options = DataConfig(k_core=k_core, split_seed=seed)
    one = read_bundle(bundles.write(root, events), options)
    assert same(one, read_bundle(bundles.write(root, events.sample(fraction=1, shuffle=True, seed=seed)), options))


def test_shuffled_ties_are_fair_and_stay_with_their_user_and_moment(tmp_path):
    users = 400
    times = [0, 1, 1, 2, 2, 3, 3, 4] * (users // 2)  # one user's last time is the next user's first
    events = pl.DataFrame(
        {"user_id": np.arange(users).repeat(4), "item_id": [13, 10, 11, 12] * users, "timestamp": times}
    )
    bundles.write(tmp_path, events)
    orders = [np.array(list(named(read_bundle(tmp_path, DataConfig(split_seed=seed))).values())) for seed in (0, 1)]
    for order in orders:
        assert (order[:, [0, 3]] == [13, 12]).all()
        assert (np.sort(order[:, 1:3]) == [10, 11]).all()
        assert abs((order[:, 1] == 10).mean() - 0.5) < 0.1  # four standard deviations of 400 coins
    assert not np.array_equal(*orders)


def test_item_rows_are_permuted_by_the_split_seed_alone(tmp_path):
    table = pl.DataFrame({"item_id": np.arange(300)})
    events = pl.DataFrame({"user_id": [0] * 3, "item_id": [0, 1, 2], "timestamp": [0, 0, 0]})
    root = bundles.write(tmp_path, events, table, {})
    order = {seed: read_bundle(root, DataConfig(split_seed=seed)).items["item_id"].to_numpy() for seed in (0, 1)}
    assert abs(np.corrcoef(order[0], np.arange(300))[0, 1]) < 0.2  # three standard deviations
    assert not np.array_equal(order[0], order[1])
    assert np.array_equal(order[0], read_bundle(root, DataConfig(time_ties="file")).items["item_id"].to_numpy())


def test_hash_tells_content_and_options_apart_and_nothing_else(tmp_path):
    def hash_of(options: dict | None = None, name: str = "x", **parts) -> str:
        return read_bundle(bundles.write(tmp_path / name, **parts), DataConfig(**(options or {}))).content_hash

    base = hash_of()
    assert base == hash_of({"split_seed": 7}, name="moved")
    assert hash_of(name="tied", events=random_events(4)) == hash_of({"split_seed": 7}, "tied", events=random_events(4))
    assert base[:8] == "45a1ec69", "every table made before carries another hash"
    assert len(base) == 40, "8 digits for tables, 128 bits to tell data apart"
    changed = [
        hash_of({"time_ties": "file"}),
        hash_of({"k_core": 1}),
        hash_of({"modalities": ("graph",)}),
        hash_of(events=bundles.interactions().with_columns(pl.col("timestamp") + 1)),
        hash_of(events=bundles.interactions().with_columns(pl.col("user_id") + 1)),
        hash_of(
            events=bundles.interactions()[:-1].vstack(
                bundles.interactions()[-1:].with_columns(item_id=pl.lit(11, pl.Int64))
            )
        ),
        hash_of(table=bundles.items().with_columns(title=pl.lit("oak"))),
        hash_of(features={"graph": bundles.FEATURES["graph"] + 1}),
        hash_of(features=bundles.FEATURES | {"graph_codes": np.ones((5, 1), int)}),
    ]
    (tmp_path / "x/features/graph_codes.npy").unlink()
    root = bundles.write(tmp_path / "x")
    (root / "images/11.png").write_bytes((root / "images/11.png").read_bytes() + b"\0")
    changed.append(read_bundle(root, DataConfig()).content_hash)
    assert len({base, *changed}) == len(changed) + 1


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), k=st.integers(1, 6))
def test_k_core_is_the_largest_subset_with_enough_events_of_all(seed, k):
    draw = np.random.default_rng(seed)
    pairs = draw.integers(0, [12, 9], (60, 2), dtype=np.int32)
    left = [tuple(pair) for pair in pairs.tolist()]
    while True:
        users, items = [user for user, _ in left], [item for _, item in left]
        fewer = [(user, item) for user, item in left if users.count(user) >= k + 1 and items.count(item) >= k]
        if fewer == left:
            break
        left = fewer
    table = pl.DataFrame({"user": pairs[:, 0], "item": pairs[:, 1]})
    assert keep_core(table, k + 1, k).rows() == left


def test_k_core_takes_rare_items_and_their_arrays_out_of_the_catalogue(tmp_path):
    data = read_bundle(bundles.write(tmp_path), DataConfig(k_core=2))
    assert sorted(data.items["item_id"]) == [10, 11, 12, 13]
    assert data.features["graph"].shape == (5, 2)
    assert np.array_equal(data.features["graph"][data.row_of([13, 10])], bundles.FEATURES["graph"][[3, 0]])
    assert read_bundle(tmp_path, DataConfig()).n_items == 5


@pytest.mark.parametrize(
    "times",
    [
        pl.Series([100.25, 100.75, 101.5, 102.0]),
        pl.Series([datetime(1970, 1, 1, 0, 1, 40, tzinfo=UTC) + timedelta(seconds=s) for s in (0.25, 0.75, 1.5, 2)]),
        pl.Series([100_250_000_001, 100_250_000_002, 101_500_000_000, 102_000_000_000]).cast(pl.Datetime("ns")),
    ],
)
def test_times_of_any_type_order_at_full_resolution_and_are_kept_in_seconds(tmp_path, times):
    events = pl.DataFrame({"user_id": [1] * 4, "item_id": [13, 10, 11, 12], "timestamp": times})
    data = read_bundle(bundles.write(tmp_path, events[::-1]), DataConfig(time_ties="file"))
    assert named(data) == {1: [13, 10, 11, 12]}
    assert data.timestamps.tolist() == [100, 100, 101, 102]
    assert data.sequences.times.tolist() == [100, 100, 101, 102]


def test_a_folder_may_have_any_name(tmp_path):
    data = read_bundle(bundles.write(tmp_path / "50 % [of] *?"), DataConfig())
    assert (data.name, data.n_users) == ("50 % [of] *?", 3)


def test_dates_count_in_seconds(tmp_path):
    events = bundles.interactions().with_columns(pl.col("timestamp").cast(pl.Int32).cast(pl.Date))
    assert read_bundle(bundles.write(tmp_path, events), DataConfig()).timestamps[0] == 5 * 86_400


def test_row_of_finds_ids_in_any_form_and_names_those_it_does_not_know(tmp_path):
    data = read_bundle(bundles.write(tmp_path), DataConfig())
    assert data.items["item_id"][int(data.row_of([12])[0]) - 1] == 12
    for ids in (["13", "10", "13"], np.array([13, 10, 13]), pl.Series([13, 10, 13])):
        assert data.row_of(ids).tolist() == data.row_of([13, 10, 13]).tolist()
    assert len(data.row_of([])) == 0
    with pytest.raises(ValueError, match=r"2 unknown item ids \('9', 'x'\)"):
        data.row_of(["9", "10", "x", "9"])


def test_a_history_too_short_to_split_is_refused(tmp_path):
    data = read_bundle(bundles.write(tmp_path), DataConfig())
    short = data.sequences._replace(offsets=np.array([0, 4, 8, 10]))
    with pytest.raises(ValueError, match="user row 2 has 2 events"):
        type(data)(**{**vars(data), "sequences": short})


def test_statistics_of_the_small_bundle_by_hand(tmp_path):
    events = pl.concat(
        [bundles.interactions(), pl.DataFrame({"user_id": [3, 3], "item_id": [10, 11], "timestamp": [9, 9]})]
    )
    table = dict(statistics(read_bundle(bundles.write(tmp_path, events), DataConfig())).rows())
    expected = {
        "users": "3",
        "items": "5",
        "items with at least one interaction": "4",
        "interactions": "12",
        "density": "0.800000",
        "sequence length mean / median": "4.000 / 4",
        "sequence length min / max": "3 / 5",
        "item popularity median / max": "3 / 4",
        "items with fewer than 5 interactions": "5",
        "items without a training event": "1",
        "repeated (user, item) pairs": "1",
        "rows that share their timestamp with another row of the user": "2 (16.7 %)",
        "first / last timestamp (no unit, order alone)": "1 / 9",
        "items with title": "4 (80.0 %)",
        "items with image": "1 (20.0 %)",
        "items with graph features": "5 (100.0 %)",
        "interactions whose item has an image": "3 (25.0 %)",
        "time ties": "seeded shuffle, split_seed 0",
    }
    assert {what: table.get(what) for what in expected} == expected


@pytest.mark.parametrize("name", ["ml-100k", "instruments"])
def test_statistics_equal_the_numbers_that_a_published_bundle_states(root, name):
    folder = root.parent / "shared/data" / name
    if not folder.is_dir():
        pytest.skip("the published bundles are not beside this checkout")
    text = (folder / "README.md").read_text(encoding="utf-8").split("## Numbers")[1].split("\n## ")[0]
    stated = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    found = dict(statistics(read_bundle(folder, DataConfig())).rows())
    assert {what: found.get(what) for what, _ in stated[1:]} == dict(stated[1:])


def test_an_unusable_bundle_is_a_value_error():
    assert issubclass(BundleError, ValueError)


def test_cold_items_leave_training_and_nothing_else(tmp_path):
    path = write_planted(tmp_path / "bundle", PlantedConfig(users=60, items=50, seed=1))
    plain = read_bundle(path, DataConfig())
    cold = read_bundle(path, DataConfig(cold_items=0.2))
    held = np.flatnonzero(cold.cold[1:]) + 1
    assert len(held) == 10
    assert cold.report["cold items, held out of training"] == 10
    assert plain.cold is None
    assert not np.isin(cold.train().items, held).any()
    assert np.isin(plain.train().items, held).any()
    for user in range(plain.n_users):
        whole, left = (data.train() for data in (plain, cold))
        events = whole.items[whole.offsets[user] : whole.offsets[user + 1]]
        kept = left.items[left.offsets[user] : left.offsets[user + 1]]
        assert kept.tolist() == [item for item in events.tolist() if item not in held]
    for part in ("valid", "test"):
        assert np.array_equal(cold.targets(part), plain.targets(part))
        assert np.array_equal(cold.history(part).items, plain.history(part).items)
    assert (cold.train_counts()[held] == 0).all()
    assert sorted([*cold.warm_rows(), *held]) == list(range(1, 51)) == plain.warm_rows().tolist()
    assert cold.content_hash != plain.content_hash
    other = read_bundle(path, DataConfig(cold_items=0.2, split_seed=1))
    assert set(other.items.filter(other.cold[1:])["item_id"]) != set(cold.items.filter(cold.cold[1:])["item_id"])
