"""Every fault of a bundle: the table in docs/data.md, the code and these tests say the same of each."""

import re
from collections.abc import Callable

import bundles
import numpy as np
import polars as pl
import pytest
from bundles import (
    EVENTS,
    ITEMS,
    append,
    array,
    cell,
    columns,
    cut,
    huge_png,
    nothing,
    picture,
    remove,
    scramble,
    table,
)

from bbqrec_lab.datasets import bundle
from bbqrec_lab.datasets.bundle import BundleError
from bbqrec_lab.datasets.reading import NamedDataset, read_bundle
from bbqrec_lab.settings import DataConfig

TOO_BIG = pl.Series([1] * 9 + [2**64 - 1], dtype=pl.UInt64)
NEGATIVE = np.int16([[1, 1]] * 4 + [[0, -3]])
WITH_TEXT_IDS = columns(ITEMS, item_id=pl.col("item_id").cast(str))
NO_TIMES = table(EVENTS, bundles.interactions().drop("timestamp"))
OUTSIDE = table(ITEMS, bundles.items()[::-1].with_columns(image=pl.lit("../x.png")))
BARE_ITEMS = table(ITEMS, bundles.items().select("item_id"))
ASKED, CORE = {"modalities": ("sound",)}, {"k_core": 4}

# fault as docs/data.md calls it, damage that makes it, what the line has to say, [options]
ERRORS = [
    ("folder or file not there", remove(ITEMS), "/items.parquet: no such file; "),
    ("empty file", cut(EVENTS, 0), "/interactions.parquet: the file is empty (0 bytes); "),
    ("table without rows", table(ITEMS, bundles.items().clear()), "/items.parquet: the table has no rows; "),
    ("truncated or corrupt parquet", cut(EVENTS, 300), "/interactions.parquet: cannot be read as a parquet table ("),
    ("truncated or corrupt parquet", scramble(ITEMS), "/items.parquet: cannot be read as a parquet table ("),
    (
        "missing column",
        NO_TIMES,
        "/interactions.parquet: column timestamp: missing column; add it (store integer or float",
    ),
    ("wrong type", columns(EVENTS, timestamp=pl.lit(None)), "column timestamp: wrong type Null; store integer"),
    (
        "wrong type",
        columns(EVENTS, user_id=pl.col("user_id") + 0.5),
        "column user_id: wrong type Float64; store integers",
    ),
    ("wrong type", columns(EVENTS, timestamp=pl.lit("noon")), "column timestamp: wrong type String; store integer or"),
    ("wrong type", columns(EVENTS, rating=pl.lit("good")), "column rating: wrong type String; store numbers"),
    ("wrong type", columns(ITEMS, title=pl.lit(7)), "/items.parquet: column title: wrong type Int32; store strings"),
    ("wrong type", columns(ITEMS, categories=pl.lit("a")), "column categories: wrong type String; store a list"),
    ("id types differ", WITH_TEXT_IDS, "column item_id: item ids are Int64 here and String in items.parquet; use one"),
    (
        "id or time beyond 64 bits",
        columns(EVENTS, user_id=TOO_BIG),
        "row 9, column user_id: id beyond 64 bits: 18446744",
    ),
    (
        "id or time beyond 64 bits",
        columns(EVENTS, timestamp=TOO_BIG),
        "row 9, column timestamp: time beyond 64 bits: 184",
    ),
    (
        "negative time",
        cell(EVENTS, "timestamp", 6, -9),
        "/interactions.parquet: row 6, column timestamp: negative time: -9",
    ),
    ("NaN or infinite time", cell(EVENTS, "timestamp", 4, np.nan), "row 4, column timestamp: not a time: nan; store"),
    ("NaN or infinite time", cell(EVENTS, "timestamp", 5, np.inf), "row 5, column timestamp: not a time: inf; store"),
    ("unknown item", cell(EVENTS, "item_id", 7, 99), "row 7, column item_id: item is not in items.parquet: 99; add it"),
    (
        "null item_id in items.parquet",
        cell(ITEMS, "item_id", 3, None),
        "/items.parquet: row 3, column item_id: null item id",
    ),
    (
        "item_id twice in items.parquet",
        cell(ITEMS, "item_id", 4, 11),
        "row 4, column item_id: duplicate item id: 11; ",
    ),
    ("truncated or corrupt npy", cut("features/graph.npy", 150), "/graph.npy: cannot be read as a numpy array ("),
    ("truncated or corrupt npy", cut("features/graph.npy", 0), "/graph.npy: cannot be read as a numpy array ("),
    ("array of the wrong type", array([["a"]] * 5), "/graph.npy: wrong type <U1; store numbers"),
    (
        "array of the wrong type",
        array(np.ones((5, 2)), "text_codes"),
        "/text_codes.npy: wrong type float64; store integers",
    ),
    (
        "array not two-dimensional",
        array(np.ones(5)),
        "/graph.npy: shape (5,) is not (items, dimensions); store one row",
    ),
    (
        "array rows differ from the items",
        array(np.ones((4, 2))),
        "/graph.npy: 4 rows for the 5 items of items.parquet; ",
    ),
    (
        "NaN or infinity in features",
        bundles.feature(3, 1, np.nan),
        "/graph.npy: row 3, column 1: not a finite float32: nan; ",
    ),
    (
        "NaN or infinity in features",
        bundles.feature(2, 0, 1e200),
        "row 2, column 0: not a finite float32: 1e+200; set",
    ),
    (
        "negative code, or beyond 32 bits",
        array(NEGATIVE, "text_codes"),
        "/text_codes.npy: row 4, column 1: not a 32-bit code of at least 0: -3; ",
    ),
    (
        "negative code, or beyond 32 bits",
        array([[2**40]] * 5, "text_codes"),
        "row 0, column 0: not a 32-bit code of at least 0: 10",
    ),
    (
        "features zero for every item",
        array(np.zeros((5, 2))),
        "/graph.npy: every row is zero, so the modality is missing",
    ),
    ("picture path outside the bundle", OUTSIDE, "/items.parquet: row 0, column image: picture path leaves"),
    (
        "picture path outside the bundle",
        cell(ITEMS, "image", 1, "../x.png"),
        "row 1, column image: picture path leaves",
    ),
    ("picture path outside the bundle", cell(ITEMS, "image", 1, "/x.png"), "row 1, column image: picture path leaves"),
    (
        "unreadable picture",
        picture(b"no picture"),
        "/11.png: column image: not a picture that can be read (10 bytes); rep",
    ),
    (
        "absurdly large picture",
        picture(huge_png(8_000)),
        "/11.png: column image: 8000 x 8000, more than 50000000 pixels; ",
    ),
    (
        "absurdly large picture",
        picture(huge_png(10_000)),
        "more than 50000000 pixels; replace it, or set image to null in row 1",
    ),
    (
        "absurdly large picture",
        picture(huge_png(50_000)),
        "more than 50000000 pixels; replace it, or set image to null in row 1",
    ),
    ("features named id", array(np.ones((5, 2)), "id"), "/id.npy: id is the name of the signal of training events; "),
    ("modality asked for but not there", nothing, "no modality 'sound'; choose from graph, image, text", ASKED),
    ("nobody left", table(EVENTS, bundles.interactions()[:2]), "no user with 3 events is left; give longer histories"),
    ("nobody left", nothing, "no user with 3 events is left in the 4-core; lower k_core", CORE),
]


def reported(**counts: int | str) -> Callable[[NamedDataset], bool]:
    """Holds where the report counts exactly so much, the words of each reason joined by underscores."""

    def holds(data: NamedDataset) -> bool:
        spelt = {re.sub(r"\W+", "_", reason): count for reason, count in data.report.items()}
        return counts.items() <= spelt.items()

    return holds


def lost(column: str, count: int) -> Callable[[NamedDataset], bool]:
    """Holds where so many items have no value in a column of the item table."""
    return lambda data: data.items[column].null_count() == count


SHORT = {"dropped_users_with_fewer_than_3_events_users": 2, "dropped_users_with_fewer_than_3_events_events": 3}
NO_MODALITY = bundles.both(BARE_ITEMS, remove("features/graph.npy"))
REVERSED = table(EVENTS, bundles.interactions()[::-1])

# fault, what docs/data.md promises, damage, what has to hold of the dataset, [options]
OTHERS = [
    ("null user_id, item_id or timestamp", "reported drop", append((None, 10, 1)), reported(dropped_null_user_id=1)),
    ("null user_id, item_id or timestamp", "reported drop", append((1, None, 1)), reported(dropped_null_item_id=1)),
    ("null user_id, item_id or timestamp", "reported drop", append((None, 10, None)), reported(dropped_null_user_id=1)),
    ("null user_id, item_id or timestamp", "reported drop", append((1, 10, None)), reported(dropped_null_timestamp=1)),
    ("exact duplicate row", "reported drop", append((1, 11, 6)), reported(dropped_exact_duplicate_rows_events=1)),
    ("user with fewer than 3 events", "reported drop", append((7, 10, 1), (7, 11, 2), (8, 11, 2)), reported(**SHORT)),
    ("outside the k-core", "reported drop", nothing, reported(dropped_2_core_items=1), {"k_core": 2}),
    ("picture file not there", "reported missing", remove("images/11.png"), lost("image", 5)),
    ("picture file not there", "reported missing", remove("images/11.png"), reported(missing_picture_files=1)),
    ("picture shared by many items", "reported missing", bundles.one_picture, lost("image", 5)),
    (
        "picture shared by many items",
        "reported missing",
        bundles.one_picture,
        reported(missing_pictures_that_5_or_more_items_share_items=5),
    ),
    ("placeholder text", "reported missing", cell(ITEMS, "text", 0, "No description."), lost("text", 1)),
    ("placeholder text", "reported missing", cell(ITEMS, "text", 1, "<p>&nbsp;</p>"), lost("text", 1)),
    (
        "other file in features",
        "reported",
        bundles.other_file,
        reported(passed_over_features_text_pt="not an .npy file"),
    ),
    ("blank text", "reported missing", cell(ITEMS, "title", 0, " "), lost("title", 2)),
    ("blank text", "reported missing", cell(ITEMS, "categories", 0, []), lost("categories", 2)),
    ("optional column not there", "reported missing", BARE_ITEMS, lost("categories", 5)),
    ("optional column not there", "reported missing", BARE_ITEMS, lost("title", 5)),
    (
        "all-zero feature row",
        "reported missing",
        bundles.feature(0, 1, 0),
        lambda data: data.presence["graph"].sum() == 4,
    ),
    ("rows out of time order", "sort", REVERSED, reported(rows_out_of_order_in_time_now_sorted=7)),
    ("repeated (user, item) pair", "kept", append((1, 11, 9)), reported(repeated_user_item_pairs=1)),
    ("item without an event", "kept", nothing, lambda data: data.n_items == 5),
    ("no modality", "kept", NO_MODALITY, lambda data: data.features == {} and "no modality" in data.report["notice"]),
]


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: case[0])
def test_each_error_is_one_line_with_place_cause_and_remedy(tmp_path, case):
    _, damage, says, *options = case
    root = bundles.write(tmp_path / "small")
    damage(root)
    with pytest.raises(BundleError) as caught:
        read_bundle(root, DataConfig(**dict(*options)))
    line = str(caught.value)
    assert says in line
    assert line.startswith(str(root))
    assert re.search(r"; \w+ \w+", line), "no remedy"
    assert "\n" not in line


@pytest.mark.parametrize("case", OTHERS, ids=lambda case: case[0])
def test_each_tolerated_fault_is_reported_and_touches_nothing_else(tmp_path, case):
    fault, _, damage, holds, *options = case
    config = DataConfig(**dict(*options))
    clean = read_bundle(bundles.write(tmp_path / "small"), config)
    damage(tmp_path / "small")
    data = read_bundle(tmp_path / "small", config)
    assert holds(data)
    assert fault in ("item without an event", "outside the k-core") or not holds(clean)
    assert fault == "repeated (user, item) pair" or np.array_equal(clean.sequences.items, data.sequences.items)


@pytest.mark.parametrize(("column", "value"), [("user_id", 2**63), ("item_id", 999), ("timestamp", -1)])
def test_a_fault_in_a_late_chunk_of_the_file_has_the_row_of_the_file(tmp_path, column, value):
    root = bundles.write(tmp_path / "small")
    types = {column: pl.UInt64 if value > 0 else pl.Int64}
    events = bundles.interactions().cast(types)
    events[8, column] = value
    events.write_parquet(root / EVENTS, row_group_size=3)
    with pytest.raises(BundleError, match=f"interactions.parquet: row 8, column {column}: .*: {value}; "):
        read_bundle(root, DataConfig())


def test_chunks_of_the_file_change_nothing(tmp_path):
    events = bundles.interactions()
    events[1, "item_id"] = events[7, "user_id"] = None
    whole = read_bundle(bundles.write(tmp_path / "small", events), DataConfig())
    events.write_parquet(tmp_path / "small" / EVENTS, row_group_size=3)
    chunks = read_bundle(tmp_path / "small", DataConfig())
    assert chunks.content_hash == whole.content_hash
    assert np.array_equal(chunks.sequences.items, whole.sequences.items)
    assert np.array_equal(chunks.timestamps, whole.timestamps)


def test_the_table_in_the_docs_lists_exactly_the_faults_tested_here(root):
    text = (root / "docs/data.md").read_text(encoding="utf-8").split("## Faults")[1].split("\n## ")[0]
    listed = dict(
        re.findall(
            r"^\| ([^|]+?) +\| (error|reported drop|reported missing|reported|sort|kept) +\|", text, re.MULTILINE
        )
    )
    assert listed == {fault: "error" for fault, *_ in ERRORS} | {fault: promise for fault, promise, *_ in OTHERS}


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BundleError, match="nowhere: no such folder; give the folder"):
        read_bundle(tmp_path / "nowhere", DataConfig())


def test_a_picture_file_too_large_to_read_is_refused(tmp_path, monkeypatch):
    root = bundles.write(tmp_path / "small")
    monkeypatch.setattr(bundle, "MAX_IMAGE_BYTES", 20)
    with pytest.raises(BundleError, match=r"11.png: column image: \d+ bytes, more than 20; replace it"):
        read_bundle(root, DataConfig())


def test_all_broken_pictures_are_named_in_one_error(tmp_path):
    root = bundles.write(tmp_path / "small")
    for name in ("10", "12"):
        (root / f"images/{name}.png").write_bytes(b"no picture")
    names = ["images/10.png", "images/11.png", "images/12.png", None, None]
    columns(ITEMS, image=pl.Series(names, dtype=pl.String))(root)
    says = r"items.parquet: column image: 2 broken pictures: 10.png \(row 0: .*12.png \(row 2: .*; replace them"
    with pytest.raises(BundleError, match=says):
        read_bundle(root, DataConfig())


def test_modalities_that_are_not_asked_for_are_neither_read_nor_checked(tmp_path):
    root = bundles.write(tmp_path / "small")
    np.save(root / "features/broken.npy", np.full((5, 2), np.nan))
    assert set(read_bundle(root, DataConfig(modalities=("graph",))).features) == {"graph"}


def test_the_limits_on_pictures_in_the_docs_are_those_of_the_code(root):
    text = (root / "docs/data.md").read_text(encoding="utf-8")
    assert f"{bundle.MAX_IMAGE_PIXELS // 10**6} million pixels" in text
    assert f"{bundle.MAX_IMAGE_BYTES // 2**20} MiB" in text
