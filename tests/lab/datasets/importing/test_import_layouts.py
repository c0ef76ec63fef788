"""Every layout, written exactly as it is published, odd rows included, becomes a bundle that can be read."""

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import zstandard

from bbqrec_lab.datasets.importing import Columns, ImportReport, import_data
from bbqrec_lab.datasets.reading import read_bundle
from bbqrec_lab.settings import DataConfig

FOUR = (("u1", "a"), ("u1", "b"), ("u1", "c"), ("u2", "b"), ("u2", "c"), ("u2", "a"))  # six events of two users


def imported(tmp_path: Path, source: Path, **given: object) -> tuple[pl.DataFrame, pl.DataFrame, ImportReport]:
    """Interactions, items and report of an import; the bundle must pass the reader."""
    to = tmp_path / "bundle"
    report = import_data(source, to, **given)
    read_bundle(to, DataConfig())
    return pl.read_parquet(to / "interactions.parquet"), pl.read_parquet(to / "items.parquet"), report


def seconds(events: pl.DataFrame) -> list[int]:
    """Times as whole Unix seconds."""
    return [int(time.replace(tzinfo=UTC).timestamp()) for time in events["timestamp"]]


def sources(report: ImportReport) -> dict[str, str]:
    """Column by field."""
    return {field: column for field, column, _ in report.understood}


def lines(file: Path, rows: list[object]) -> Path:
    """Write JSON lines, or the lines themselves."""
    texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return file


SHOP = [
    ("c-1", "007", "2021-03-01 10:00:00", 3),
    ("c-1", "0012", "2021-03-02 10:00:00", 4),
    ("c-1", "12", "2021-03-03 10:00:00", 5),
    ("c-2", "12", "2021-03-04 10:00:00", 1),
    ("c-2", "007", "2021-03-05 10:00:00", 2),
    ("c-2", "0012", "2021-03-06 10:00:00", 2),
]
HEADER = ("customer", "article", "bought_at", "stars")


def _delimited(separator: str, header: bool = True) -> str:
    rows = [HEADER, *SHOP] if header else SHOP
    return "\n".join(separator.join(map(str, row)) for row in rows) + "\n"


def _plain(file: Path, text: str) -> None:
    file.write_text(text)


def _gz(file: Path, text: str) -> None:
    with gzip.open(file, "wt") as stream:
        stream.write(text)


def _zst(file: Path, text: str) -> None:
    file.write_bytes(zstandard.compress(text.encode()))


def _utf16(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-16")


def _bom_and_windows(file: Path, text: str) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())


@pytest.mark.parametrize(
    ("name", "separator", "write"),
    [
        ("shop.csv", ",", _plain),
        ("shop.tsv", "\t", _plain),
        ("shop.csv", ";", _plain),
        ("shop.txt", "|", _plain),
        ("shop.csv.gz", ",", _gz),
        ("shop.tsv.zst", "\t", _zst),
        ("SHOP.CSV", ",", _bom_and_windows),
        ("shop.csv", "\t", _utf16),
    ],
)
def test_delimited_text_keeps_ids_with_leading_zeros(
    tmp_path: Path, name: str, separator: str, write: Callable[[Path, str], None]
) -> None:
    write(tmp_path / name, _delimited(separator))
    events, items, report = imported(tmp_path, tmp_path / name)
    assert events["item_id"].to_list() == [row[1] for row in SHOP]
    assert events["user_id"].to_list() == [row[0] for row in SHOP]
    assert events["timestamp"][0] == datetime(2021, 3, 1, 10)
    assert events["rating"].to_list() == [row[3] for row in SHOP]
    assert items["item_id"].to_list() == ["0012", "007", "12"]
    assert sources(report) | {"interactions": ""} == {
        "interactions": "", "user_id": "customer", "item_id": "article", "timestamp": "bought_at", "rating": "stars"
    }  # fmt: skip
    assert "timestamp <- bought_at, ISO text, no zone: taken as UTC" in str(report)


def test_whole_numbers_in_text_become_integers(tmp_path: Path) -> None:
    text = "user,item,time\n" + "\n".join(f"{u},{i},{100 + i}" for u in (1, 2) for i in (10, 20, 30))
    (tmp_path / "a.csv").write_text(text)
    events, _, report = imported(tmp_path, tmp_path / "a.csv")
    assert events.schema["user_id"] == events.schema["item_id"] == pl.Int64
    assert "user_id <- user, integers" in str(report)
    assert "order alone" in str(report)


def test_one_id_with_a_leading_zero_far_below_makes_all_ids_text(tmp_path: Path) -> None:
    rows = [f"{n % 50},{n % 70},{1_600_000_000 + n}" for n in range(60_000)]
    rows[-1] = "7,0033,1600059999"
    (tmp_path / "a.csv").write_text("user,item,time\n" + "\n".join(rows))
    events, _, _ = imported(tmp_path, tmp_path / "a.csv")
    assert events.schema["user_id"] == pl.Int64
    assert events["item_id"][-1] == "0033"
    assert events["item_id"][0] == "0"
    assert events.height == 60_000


def test_json_lines_keep_the_type_of_ids(tmp_path: Path) -> None:
    rows = [{"visitor": n % 2, "sku": str(n % 3), "ts": 1_600_000_000_000 + n, "cart": {"x": [1]}} for n in range(9)]
    events, _, report = imported(tmp_path, lines(tmp_path / "a.jsonl", [*rows[:4], "", *rows[4:]]))
    assert events["user_id"].to_list() == [n % 2 for n in range(9)]
    assert events["item_id"].to_list() == [str(n % 3) for n in range(9)]
    assert seconds(events)[0] == 1_600_000_000
    assert "timestamp <- ts, milliseconds" in str(report)


def test_parquet_keeps_types_and_the_zone_of_datetimes(tmp_path: Path) -> None:
    table = pl.DataFrame(SHOP, schema=HEADER, orient="row").with_columns(
        pl.col("bought_at").str.to_datetime().dt.replace_time_zone("Europe/Berlin"), pl.col("stars").cast(pl.Int16)
    )
    table.write_parquet(tmp_path / "a.parquet")
    events, _, report = imported(tmp_path, tmp_path / "a.parquet")
    assert events["timestamp"][0] == datetime(2021, 3, 1, 9)
    assert "timestamp <- bought_at, datetimes (us), Europe/Berlin" in str(report)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_folder_of_part_files_is_one_table(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "orders"
    folder.mkdir()
    table = pl.DataFrame(SHOP, schema=HEADER, orient="row")
    for part in range(3):
        piece = table.slice(2 * part, 2)
        name = f"part-{part:05d}-3b1c-c000.{'snappy.' * (suffix == 'parquet')}{suffix}"
        piece.write_parquet(folder / name) if suffix == "parquet" else piece.write_csv(folder / name)
        (folder / f".{name}.crc").write_bytes(b"crc\0")
    (folder / "_SUCCESS").touch()
    (folder / f"part-00009.{suffix}").touch()
    events, _, report = imported(tmp_path, folder)
    assert events["item_id"].to_list() == [row[1] for row in SHOP]
    assert "3 part files" in str(report)


def test_recbole_atomic_files(tmp_path: Path) -> None:
    folder = tmp_path / "ml"
    folder.mkdir()
    rows = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    rows += [
        f"{u}\t{i}\t{r}\t{881_250_949 + n}.0"
        for n, (u, i, r) in enumerate(
            [(196, 242, 3), (196, 302, 3), (196, 1, 1), (22, 1, 2), (22, 242, 5), (22, 302, 4)]
        )
    ]
    lines(folder / "ml.inter", rows)
    films = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"]
    films += [
        '1\tToy "Story"\t1995\tAnimation Children\'s Comedy',
        "242\tKolya\t1996\tComedy",
        "302\tL.A. Confidential\t1997\t",
    ]
    lines(folder / "ml.item", films)
    events, items, _ = imported(tmp_path, folder)
    assert events.schema["item_id"] == pl.Int64
    assert seconds(events)[0] == 881_250_949
    assert items.row(0, named=True) == {
        "item_id": 1, "title": 'Toy "Story"', "categories": ["Animation", "Children's", "Comedy"]
    }  # fmt: skip
    assert items["categories"][2] is None


def test_recbole_times_scaled_to_one_count_as_an_order(tmp_path: Path) -> None:
    rows = ["user_id:token\titem_id:token\ttimestamp:float"]
    rows += [f"{u}\t{i}\t{n / 5}" for n, (u, i) in enumerate(FOUR)]
    events, _, report = imported(tmp_path, lines(tmp_path / "a.inter", rows))
    assert events["timestamp"].to_list() == [n / 5 for n in range(6)]
    assert "numbers between 0 and 1, order alone" in str(report)


def test_movielens_files_with_double_colons_in_latin_1(tmp_path: Path) -> None:
    folder = tmp_path / "ml-1m"
    folder.mkdir()
    rows = [
        f"{u}::{i}::{n % 5 + 1}::{978_300_760 + n}"
        for n, (u, i) in enumerate([(1, 1193), (1, 661), (1, 73), (2, 73), (2, 661), (2, 1193)])
    ]
    lines(folder / "ratings.dat", rows)
    films = "73::Misérables, Les (1995)::Drama|Musical\n661::James: the Giant Peach (1996)::Animation\n"
    films += "1193::One Flew Over the Cuckoo's Nest (1975)::Drama\n9::Sudden Death (1995)::Action\n"
    (folder / "movies.dat").write_bytes(films.encode("latin-1"))
    (folder / "users.dat").write_text("1::F::1::10::48067\n")
    events, items, report = imported(tmp_path, folder)
    assert events.row(0) == (1, 1193, 978_300_760, 1.0)
    assert items.row(0) == (73, "Misérables, Les (1995)", ["Drama", "Musical"])
    assert items["title"][1] == "James: the Giant Peach (1996)"
    assert items.height == 4
    assert any("users.dat" in name for name, _ in report.passed_over)
    assert "kept: they can be recommended" in str(report)


def test_movielens_csv_files_and_the_tab_file(tmp_path: Path) -> None:
    folder = tmp_path / "ml-latest"
    folder.mkdir()
    lines(
        folder / "ratings.csv",
        ["userId,movieId,rating,timestamp", *(f"{u},{i},4.0,{964_982_703 + u + i}" for u in (1, 2) for i in (1, 3, 6))],
    )
    lines(
        folder / "movies.csv",
        [
            "movieId,title,genres",
            '1,"American President, The (1995)",Comedy|Drama',
            "3,Grumpier,(no genres listed)",
            "6,Heat (1995),Action",
        ],
    )
    _, items, _ = imported(tmp_path, folder)
    assert items["title"][0] == "American President, The (1995)"
    assert items["categories"].to_list() == [["Comedy", "Drama"], None, ["Action"]]
    tabs = lines(tmp_path / "u.data", [f"{u}\t{i}\t3\t{881_250_949 + i}" for u in (196, 22) for i in (242, 302, 377)])
    report = import_data(tabs, tmp_path / "other")
    assert sources(report)["user_id"] == "column_1"
    assert pl.read_parquet(tmp_path / "other" / "interactions.parquet").row(0) == (196, 242, 881_251_191, 3.0)


def test_amazon_2014_reviews_and_python_literal_metadata(tmp_path: Path) -> None:
    pairs = [(u, i) for u, order in (("u", (0, 1, 2)), ("v", (2, 1, 0))) for i in order]
    asins = ("0000013714", "B000A", "B000B")
    rows = [
        {"reviewerID": f"A2SUAM1J3GNN{u}", "asin": asins[i], "reviewerName": 'J. "Mac"', "helpful": [0, 1],
         "reviewText": f"Fine {n}", "overall": 5.0, "summary": f"Good {n}",
         "unixReviewTime": 1_252_800_000 + 86_400 * n, "reviewTime": "09 13, 2009"}
        for n, (u, i) in enumerate(pairs)
    ]  # fmt: skip
    meta = [
        "{'asin': '0000013714', 'title': \"Girls' Ballet Tutu\", 'price': 3.17, "
        "'imUrl': 'http://ecx.images-amazon.com/images/I/51fAmVkTbyL._SY300_.jpg', "
        "'related': {'also_bought': ['B00JHONN1S']}, 'salesRank': {'Toys & Games': 211836}, 'brand': 'Coxlures', "
        "'categories': [['Sports', 'Dance'], ['Sports', 'Skirts']]}",
        "{'asin': 'B000A', 'description': 'It\\'s \"new\"', 'categories': [[]]}",
        "{'asin': 'B000B', 'title': u'Caf\\xe9', 'categories': [['Food']]}",
    ]
    reviews = tmp_path / "reviews_Toys.json.gz"
    _gz(reviews, "\n".join(map(json.dumps, rows)))
    items_file = tmp_path / "meta_Toys.json"
    events, items, report = imported(tmp_path, reviews, items=lines(items_file, meta))
    assert sources(report)["user_id"] == "reviewerID"
    assert sources(report)["timestamp"] == "unixReviewTime"
    assert events["item_id"][0] == "0000013714"
    assert items["title"].to_list() == ["Girls' Ballet Tutu", None, "Café"]
    assert items["text"].to_list() == [None, 'It\'s "new"', None]
    assert items["categories"].to_list() == [["Sports", "Dance", "Skirts"], None, ["Food"]]
    assert any("imUrl" in name and "web addresses" in reason for name, reason in report.passed_over)


def test_amazon_ratings_without_header_in_both_column_orders(tmp_path: Path) -> None:
    pairs = [(f"A39HTATAQ9V7Y{u}", f"02056164{i}") for u in "FGH" for i in (61, 62, 63)]
    old = lines(tmp_path / "ratings_Beauty.csv", [f"{u},{i},5.0,{1_369_699_200 + n}" for n, (u, i) in enumerate(pairs)])
    new = lines(tmp_path / "All_Beauty.csv", [f"{i},{u},1.0,{1_424_304_000 + n}" for n, (u, i) in enumerate(pairs)])
    for number, file in enumerate((old, new)):
        import_data(file, tmp_path / str(number))
        events = pl.read_parquet(tmp_path / str(number) / "interactions.parquet")
        assert list(zip(events["user_id"], events["item_id"], strict=True)) == pairs


def test_amazon_2018_reviews_and_metadata(tmp_path: Path) -> None:
    rows = [
        {"overall": 1.0, "vote": "5", "verified": True, "reviewTime": "02 19, 2015", "reviewerID": u, "asin": i,
         "style": {"Color:": " Red"}, "reviewerName": "x", "reviewText": f"t{n}", "summary": "s",
         "unixReviewTime": 1_424_304_000 + n, "image": ["https://x/1.jpg"]}
        for n, (u, i) in enumerate(FOUR)
    ]  # fmt: skip
    meta = [
        {
            "category": ["Beauty", "Hair"],
            "description": ["Soft", "Shiny"],
            "title": "Loud 'N Clear",
            "also_buy": [],
            "rank": [">#1"],
            "asin": "a",
            "imageURL": [],
            "imageURLHighRes": ["https://x/a.jpg"],
            "details": {},
        },
        {"category": [], "description": [], "title": "var aPageStart = (new Date()).getTime();", "asin": "b"},
        {"category": ["Skin"], "description": "", "title": "Cream", "asin": "c"},
        {"category": ["Skin"], "description": "", "title": "Cream again", "asin": "c"},
    ]
    _, items, report = imported(
        tmp_path, lines(tmp_path / "Beauty.json", rows), items=lines(tmp_path / "meta_Beauty.json", meta)
    )
    assert items["title"].to_list() == ["Loud 'N Clear", None, "Cream"]
    assert items["text"].to_list() == ["Soft Shiny", None, None]
    assert items["categories"].to_list() == [["Beauty", "Hair"], None, ["Skin"]]
    assert "code of a page, left out 1" in str(report)
    assert "items dropped: id seen before 1" in str(report)


def test_amazon_2023_reviews_and_metadata(tmp_path: Path) -> None:
    rows = [
        {"rating": 5.0, "title": f"Such a scent {n}", "text": f"Nice {n}", "images": [{"small_image_url": "https://x"}],
         "asin": f"v{n}", "parent_asin": i, "user_id": u, "timestamp": 1_588_687_728_923 + n, "helpful_vote": 0,
         "verified_purchase": True}
        for n, (u, i) in enumerate(FOUR)
    ]  # fmt: skip
    meta = [
        {"main_category": "All Beauty", "title": f"Howard {i}", "average_rating": 4.8, "rating_number": 10,
         "features": [], "description": ["Ideal"], "price": None,
         "images": [{"thumb": "https://x/t.jpg", "large": "https://x/l.jpg", "variant": "MAIN", "hi_res": None}],
         "videos": [], "store": "H", "categories": [], "details": {"Size": "1"}, "parent_asin": i,
         "bought_together": None}
        for i in "abc"
    ]  # fmt: skip
    events, items, report = imported(
        tmp_path, lines(tmp_path / "All_Beauty.jsonl", rows), items=lines(tmp_path / "meta_All_Beauty.jsonl", meta)
    )
    assert events["item_id"].to_list() == [i for _, i in FOUR]
    assert seconds(events)[0] == 1_588_687_728
    assert items.select("item_id", "title", "text").row(0) == ("a", "Howard a", "Ideal")
    assert sources(report)["item_id"] == "parent_asin"
    alone = import_data(tmp_path / "All_Beauty.jsonl", tmp_path / "alone")
    assert "title" not in sources(alone)  # that of the review


def test_yelp_reviews_and_businesses(tmp_path: Path) -> None:
    folder = tmp_path / "yelp"
    folder.mkdir()
    lines(
        folder / "yelp_academic_dataset_review.json",
        [
            {
                "review_id": f"KU_O5{n}",
                "user_id": u,
                "business_id": i,
                "stars": 3.0,
                "useful": 0,
                "funny": 0,
                "cool": 0,
                "text": f"Long wait {n}",
                "date": f"2018-07-07 22:09:{10 + n}",
            }
            for n, (u, i) in enumerate(FOUR)
        ],
    )
    lines(
        folder / "yelp_academic_dataset_business.json",
        [
            {
                "business_id": "a",
                "name": "Abby Rappoport, LAC",
                "address": "1616 Chapala St",
                "city": "Santa Barbara",
                "state": "CA",
                "postal_code": "93101",
                "latitude": 34.4,
                "longitude": -119.7,
                "stars": 5.0,
                "review_count": 7,
                "is_open": 0,
                "attributes": {"ByAppointmentOnly": "True"},
                "categories": "Doctors, Traditional Chinese Medicine",
                "hours": None,
            },
            {
                "business_id": "b",
                "name": "The UPS Store",
                "stars": 3.0,
                "attributes": None,
                "categories": None,
                "hours": None,
            },
            {
                "business_id": "c",
                "name": "Target",
                "stars": 3.5,
                "attributes": None,
                "categories": "Shopping",
                "hours": None,
            },
        ],
    )
    lines(
        folder / "yelp_academic_dataset_tip.json",
        [{"user_id": "u1", "business_id": "a", "text": "!", "date": "2018-07-07 22:09:11"}],
    )
    events, items, report = imported(tmp_path, folder)
    assert events["timestamp"][0] == datetime(2018, 7, 7, 22, 9, 10)
    assert items.row(0) == ("a", "Abby Rappoport, LAC", ["Doctors", "Traditional Chinese Medicine"])
    assert any("tip" in name for name, _ in report.passed_over)


def test_titles_in_the_table_of_events_describe_items_only_if_they_are_equal(tmp_path: Path) -> None:
    rows = ["client_id;sku;product_name;comment;visited"]
    rows += [f"{u};{i};Tea {i};wow {n};{n + 1:02d}.03.2021 10:0{n}" for n, (u, i) in enumerate(FOUR)]
    _, items, report = imported(tmp_path, lines(tmp_path / "a.csv", rows), columns=Columns(text="product_name"))
    assert items["text"].to_list() == ["Tea a", "Tea b", "Tea c"]
    other = import_data(tmp_path / "a.csv", tmp_path / "second", columns=Columns(time="visited", title="comment"))
    assert sources(other)["title"] == "comment"
    third = import_data(tmp_path / "a.csv", tmp_path / "third")
    assert sources(third)["title"] == "product_name"
    assert "day and month are ambiguous" in str(report)
