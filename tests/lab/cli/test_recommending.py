"""From a fitted run to recommendations: the run is found by name, histories come from options, files and pipes."""

import io
import json
from pathlib import Path

import polars as pl
import pytest
from tiny import PLANTED

from bbqrec_lab import cli
from bbqrec_lab.datasets import planted
from bbqrec_lab.experiments import run_labels, runs


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose item ids are integers, and one of which a comma is a part; popularity is fitted on both."""
    folder = tmp_path_factory.mktemp("shop")
    planted.write_planted(folder / "text-ids", PLANTED)
    events, items = (pl.read_parquet(folder / "text-ids" / name) for name in ("interactions.parquet", "items.parquet"))
    number = {item: 100 + place for place, item in enumerate(items["item_id"])}
    for name, ids in (("numbers", number), ("commas", {item: f"a,{place}" for item, place in number.items()})):
        (folder / name).mkdir()
        for table, file in ((events, "interactions.parquet"), (items.drop("image", "text"), "items.parquet")):
            table.with_columns(pl.col("item_id").replace_strict(ids)).write_parquet(folder / name / file)
        command = f"fit --dataset {folder / name} --variant popularity --preset smoke --out {folder / 'runs'}"
        assert cli.main(command.split()) == 0
    return folder


def said(capsys: pytest.CaptureFixture, shop: Path, *words: str, dataset: str = "numbers", code: int = 0) -> object:
    """What `recommend` printed as JSON."""
    capsys.readouterr()
    place = ["--dataset", str(shop / dataset), "--variant", "popularity", "--out", str(shop / "runs")]
    assert cli.main(["recommend", *place, "--json", *words]) == code
    printed = capsys.readouterr()
    return json.loads(printed.out) if code == 0 else printed.err


def test_all_ways_to_give_a_history_are_the_same(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = said(capsys, shop, "--items", "100, 105", "--k", "3")
    assert [list(row) for row in wanted] == [["rank", "item_id", "title", "score", "code"]] * 3
    assert all(isinstance(row["item_id"], int) and row["item_id"] not in (100, 105) for row in wanted)
    assert said(capsys, shop, "--item", "100", "--item=105", "--k", "3") == wanted
    (tmp_path / "ids.txt").write_bytes(b"\xef\xbb\xbf100\r\n\r\n105\r\n")
    assert said(capsys, shop, "--items-from", str(tmp_path / "ids.txt"), "--k", "3") == wanted
    pl.DataFrame({"item_id": [100, 105]}).write_parquet(tmp_path / "ids.parquet")
    assert said(capsys, shop, "--items-from", str(tmp_path / "ids.parquet"), "--k", "3") == wanted
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"100\n105\n")))
    assert said(capsys, shop, "--items-from", "-", "--k", "3") == wanted


def test_an_item_id_may_have_a_comma(shop: Path, capsys: pytest.CaptureFixture) -> None:
    found = said(capsys, shop, "--item", "a,100", "--item", "a,105", dataset="commas")
    assert {"a,100", "a,105"}.isdisjoint(row["item_id"] for row in found)


def test_a_user_gets_what_the_history_of_all_events_gives(shop: Path, capsys: pytest.CaptureFixture) -> None:
    events = pl.read_parquet(shop / "numbers" / "interactions.parquet").sort("user_id", "timestamp")
    user = events["user_id"][0]
    history = events.filter(pl.col("user_id") == user)["item_id"].cast(pl.String)
    of_user = said(capsys, shop, "--user", str(user), "--k", "5")
    assert [row.pop("user_id") for row in of_user] == [user] * len(of_user)
    assert of_user == said(capsys, shop, "--items", ",".join(history), "--k", "5")


def test_a_batch_of_users_is_a_parquet_file_and_unknown_ones_are_counted(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    users = pl.read_parquet(shop / "numbers" / "interactions.parquet")["user_id"].unique().sort()
    (tmp_path / "users.txt").write_text("\n".join([*map(str, users.reverse()), "nobody"]))
    target = tmp_path / "new" / "best.parquet"
    place = f"--dataset {shop / 'numbers'} --variant popularity --out {shop / 'runs'}"
    command = f"recommend {place} --users {tmp_path / 'users.txt'} --k 4 --to {target}"
    assert cli.main(command.split()) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{target}\n"
    assert "1 of 24 users are not in the data of this run and are left out: nobody" in printed.err
    table = pl.read_parquet(target)
    assert table.columns == ["user_id", "rank", "item_id", "title", "score", "code"]
    assert (table["user_id"].dtype, table["item_id"].dtype) == (users.dtype, pl.Int64)
    assert table["user_id"].unique(maintain_order=True).equals(users.reverse().rename("user_id"))
    alone = runs.recommend_users(run_labels.find_run(shop / "runs", shop / "numbers", "popularity"), [users[3]], 4)
    assert table.filter(pl.col("user_id") == users[3]).equals(alone)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--item", "7777"], "unknown or no items: ['7777']"),
        (["--user", "nobody"], "1 of 1 users are not in the data of this run ('nobody')"),
        (["--item", "100", "--user", "u"], "give exactly one of --item, --items, --items-from, --user, --users"),
        ([], "given: none"),
        (["--items-from", "/no/such"], "check that the file exists"),
        (["--item", "100", "--to", "x.csv"], "give a file ending in .parquet"),
        (["--item", "100", "--seed", "5"], "--dataset"),
    ],
)
def test_what_cannot_be_answered_is_one_line(
    shop: Path, capsys: pytest.CaptureFixture, words: list[str], message: str
) -> None:
    error = said(capsys, shop, *words, code=2).splitlines()
    assert message in error[-1]


def test_runs_are_listed_with_what_made_them(shop: Path, capsys: pytest.CaptureFixture) -> None:
    capsys.readouterr()
    assert cli.main(["runs", "--out", str(shop / "runs"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {(row["dataset"], row["variant"], row["seed"], row["preset"]) for row in rows} == {
        ("numbers", "popularity", 0, "smoke"),
        ("commas", "popularity", 0, "smoke"),
    }
    for row in rows:
        assert Path(row["folder"]).is_dir()
        assert 0 < row["ndcg@10"] < 1
        assert row["date"][:2] == "20"
    assert cli.main(["runs", "--out", str(shop / "runs")]) == 0
    page = capsys.readouterr().out
    assert all(word in page for word in ("popularity", "smoke", "ndcg@10", *(row["folder"] for row in rows)))
    assert cli.main(["runs", "--out", str(shop / "nowhere")]) == 2


DAMAGED = ("", "[", "{}", "[1]", '[{"dataset": 1}]', '[{"dataset": "a", "variant": "b", "seed": "x"}]', "\x00\xff")


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_of_labels_is_named_once_and_the_other_runs_are_listed(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    where = {"dataset": "toy", "bundle": "", "data_hash": "0", "variant": "sasrec", "overrides": "", "preset": "quick"}
    for name in ("run-1", "run-2"):
        (tmp_path / "artefacts" / name).mkdir(parents=True)
        (tmp_path / "artefacts" / name / "rows.csv").write_text(
            "seen_items,segment,metric,value\nincluded,all,ndcg@10,0.5\n"
        )
        run_labels.record(tmp_path / "artefacts" / name, where | {"seed": int(name[-1])})
    (tmp_path / "artefacts" / "run-1.labels.json").write_text(content, encoding="latin-1")
    assert cli.main(["runs", "--out", str(tmp_path), "--json"]) == 0
    said = capsys.readouterr()
    assert [row["seed"] for row in json.loads(said.out)] == [2]
    assert [line.partition(" is ")[0] for line in said.err.splitlines()] == [
        str(tmp_path / "artefacts" / "run-1.labels.json"),
        "1 more runs without labels, or unfinished",
    ]
    run_labels.record(tmp_path / "artefacts" / "run-1", where | {"seed": 1})
    assert set(run_labels.list_runs(tmp_path)["seed"]) == {1, 2}


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "seen_items,segment,metric,value\nincluded,all,ndcg@10,x\n"])
def test_a_run_with_damaged_results_is_named_and_passed_over(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    where = {"dataset": "toy", "bundle": "", "data_hash": "0", "variant": "sasrec", "overrides": "", "preset": "quick"}
    folder = tmp_path / "artefacts" / "run-1"
    folder.mkdir(parents=True)
    (folder / "rows.csv").write_text(content)
    run_labels.record(folder, where | {"seed": 0})
    assert run_labels.list_runs(tmp_path).is_empty()
    assert f"{folder / 'rows.csv'} is damaged" in capsys.readouterr().err


def test_a_smoke_run_is_found_only_if_there_is_no_other(tmp_path: Path) -> None:
    where = {"dataset": "toy", "bundle": "", "data_hash": "0", "variant": "sasrec", "seed": 0, "overrides": ""}
    made = {preset: tmp_path / "artefacts" / f"run-{preset}" for preset in ("quick", "smoke")}
    for folder in made.values():
        folder.mkdir(parents=True)
        (folder / "rows.csv").write_text("seen_items,segment,metric,value\n")
    run_labels.record(made["smoke"], where | {"preset": "smoke"})
    assert run_labels.find_run(tmp_path, "toy", "sasrec") == made["smoke"]
    run_labels.record(made["quick"], where | {"preset": "quick"})
    run_labels.record(made["smoke"], where | {"preset": "smoke", "seed": 1})  # newer, and later in the list
    assert run_labels.find_run(tmp_path, "toy", "sasrec") == made["quick"]
    assert run_labels.find_run(tmp_path, "toy", "sasrec", preset="smoke") == made["smoke"]


def test_exported_ids_keep_their_type(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    place = f"--dataset {shop / 'numbers'} --preset smoke --out {shop / 'runs'}"
    small = "--overrides tokenizer.epochs=1,recommender.epochs=1,score_reweight=false"
    assert cli.main(f"fit --variant random-ids {place} {small}".split()) == 0
    command = f"ids --variant random-ids --dataset {shop / 'numbers'} --out {shop / 'runs'} --to"
    assert cli.main([*command.split(), str(tmp_path / "ids.parquet")]) == 0
    written = pl.read_parquet(tmp_path / "ids.parquet")
    assert written["item_id"].dtype == pl.Int64
    assert written["item_id"].sort().to_list() == list(range(100, 124))
