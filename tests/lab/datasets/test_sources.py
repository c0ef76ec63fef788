"""Where datasets come from: readers agree, downloads are checked, errors say what to do, nothing is left half made."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from zipfile import ZipFile

import bundles
import numpy as np
import polars as pl
import pytest
from PIL import Image

from bbqrec_lab.datasets import download, movielens, sources
from bbqrec_lab.datasets.download import Archive, FetchError, Wheel
from bbqrec_lab.datasets.reading import read_bundle
from bbqrec_lab.settings import DataConfig

REFUSED = "http://127.0.0.1:9/nothing.zip"  # nobody listens on the discard port


@pytest.fixture(scope="session")
def wheel(cache):
    """The wheel with MovieLens-100K in it."""
    try:
        return download.fetch_wheel(movielens.RECBOLE, cache)
    except FetchError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def ml_100k(cache, wheel):
    return sources.get("ml-100k", cache=cache)


def pack(file, members):
    """A zip with these members, text in Latin-1."""
    with ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.encode("latin-1"))
    return file


def small_ml_1m(file):
    ratings = ["1::2::5::978300760", "1::10::3::978302109", "1::7::3::978301968", "9::7::4::978300275"]
    movies = [
        "2::Jumanji (1995)::Adventure|Children's|Fantasy",
        "7::Misérables, Les (1995)::Drama|Musical",
        "8::Never Rated (1999)::Drama",
        "10::GoldenEye (1995)::Action",
    ]
    return pack(file, {"ml-1m/ratings.dat": "\n".join(ratings), "ml-1m/movies.dat": "\n".join(movies) + "\n"})


@pytest.fixture
def own_ml_1m(tmp_path, monkeypatch):
    """A cache that holds a small ML-1M archive, and nothing else."""
    (tmp_path / "downloads").mkdir()
    file = small_ml_1m(tmp_path / "downloads" / "ml-1m.zip")
    monkeypatch.setattr(movielens, "ML_1M", Archive("ml-1m.zip", REFUSED, hashlib.md5(file.read_bytes()).hexdigest()))
    return tmp_path


# --- readers ---------------------------------------------------------------------------------------------------------


def test_both_layouts_of_movielens_100k_give_the_same_tables(wheel, tmp_path):
    with ZipFile(wheel) as files:
        inter, item = (
            files.read(f"recbole/dataset_example/ml-100k/ml-100k.{kind}").decode().splitlines()[1:]
            for kind in ("inter", "item")
        )
    films = []
    for line in item:
        number, title, year, genres = line.split("\t")
        name = "unknown" if title == "unkonwn" else f"{title} ({year})"
        flags = ["1" if genre in genres.split(" ") else "0" for genre in movielens._GENRES.split(",")]
        films.append("|".join([number, name + " " * (int(number) % 2), "01-Jan-1995", "", "http://x", *flags]))
    archive = pack(tmp_path / "z", {"ml-100k/u.data": "\n".join(inter), "ml-100k/u.item": "\n".join(films)})
    ours, theirs = movielens.read_archive_100k(archive), movielens.read_recbole_100k(wheel)
    assert ours.interactions.equals(theirs.interactions)
    assert ours.items.equals(theirs.items)
    assert (ours.interactions.height, ours.items.height) == (100_000, 1_682)


def test_movielens_1m_is_read_from_the_publishers_layout(tmp_path):
    tables = movielens.read_archive_1m(small_ml_1m(tmp_path / "z"))
    assert tables.interactions.rows() == [
        (1, 2, 5.0, 978300760),
        (1, 10, 3.0, 978302109),
        (1, 7, 3.0, 978301968),
        (9, 7, 4.0, 978300275),
    ]
    assert tables.items.rows() == [
        (2, "Jumanji (1995)", ["Adventure", "Children's", "Fantasy"]),
        (7, "Misérables, Les (1995)", ["Drama", "Musical"]),
        (10, "GoldenEye (1995)", ["Action"]),
    ]


def test_titles_lose_the_publishers_slips_only():
    read = movielens._items([(1, "Land (1995) (V)", ["Drama"]), (2, "unknown", ["unknown"]), (3, "V (1983) ", ["War"])])
    assert read.rows() == [(1, "Land (1995)", ["Drama"]), (2, None, None), (3, "V (1983)", ["War"])]


def test_a_latin_1_letter_that_looks_like_a_line_break_breaks_no_line():
    assert movielens._rows("a\x85b::c\r\nd::e\n".encode("latin-1"), "latin-1", "::") == [["a\x85b", "c"], ["d", "e"]]


@pytest.mark.parametrize(
    ("title", "genres", "text"),
    [
        ("Postino, Il (1994)", ["Drama", "Romance"], "Il Postino (1994). Genres: Drama, Romance."),
        ("Enfer, L' (1994)", ["Drama"], "L'Enfer (1994). Genres: Drama."),
        ("Convent, The (Convento, O) (1995)", None, "The Convent (Convento, O) (1995)"),
        ("Bye Bye, Love (1995)", ["Comedy"], "Bye Bye, Love (1995). Genres: Comedy."),
        (None, None, None),
    ],
)
def test_texts_name_title_year_and_genres_with_the_article_in_front(title, genres, text):
    schema = {"title": pl.String, "categories": pl.List(pl.String)}
    assert movielens.with_text(pl.DataFrame([(title, genres)], schema, orient="row"))["text"].to_list() == [text]


def test_movielens_100k_has_its_published_counts(ml_100k):
    data = read_bundle(ml_100k, DataConfig())
    assert (data.n_users, data.n_items, len(data.sequences.items)) == (943, 1682, 100_000)
    assert data.items["title"].null_count() == 1
    assert data.presence["graph"].sum() == 1498
    assert data.report["repeated (user, item) pairs"] == 0


def prepared(root):
    """The bundle of MovieLens-100K that was prepared beside the repository; its ids are the publisher's less one."""
    folder = root.parent / "shared" / "data" / "ml-100k"
    if not folder.is_dir():
        pytest.skip("no prepared bundle beside the repository")
    return folder


def test_sequences_agree_with_the_prepared_bundle(ml_100k, root):
    options = DataConfig(time_ties="file", modalities=("text",))  # sequences alone are compared
    ours, theirs = read_bundle(ml_100k, options), read_bundle(prepared(root), options)
    assert (ours.sequences.offsets == theirs.sequences.offsets).all()
    number = [np.append(0, data.items["item_id"].to_numpy() + shift) for data, shift in ((ours, 0), (theirs, 1))]
    assert (number[0][ours.sequences.items] == number[1][theirs.sequences.items]).all()


def test_films_are_matched_to_movielens_1m_on_exact_title_and_year(root):
    matched = pl.read_csv(prepared(root) / "ml1m_map.csv").filter(pl.col("match_rule") == "exact")
    assert movielens.ml_1m_ids() == dict(matched.select("ml100k_id", "ml1m_id").iter_rows())


def test_graph_rows_belong_to_their_films(ml_100k):
    items = pl.read_parquet(ml_100k / "items.parquet")
    graph = np.load(ml_100k / "features" / "graph.npy")
    lengths = np.linalg.norm(graph, axis=1, keepdims=True)
    assert lengths.max() <= 1 + 1e-5
    # films alike in the graph are alike in the publisher's genres; rows of other films would give 0.00
    names, kinds = movielens._GENRES.split(","), items["categories"].to_list()
    genres = np.array([[name in (kind or []) for name in names] for kind in kinds], float)
    known = (lengths[:, 0] > 0) & (genres.sum(1) > 0)
    a, b = ((x := rows[known]) / np.linalg.norm(x, axis=1, keepdims=True) for rows in (graph, genres))
    pairs = np.triu_indices(known.sum(), 1)
    assert np.corrcoef((a @ a.T)[pairs], (b @ b.T)[pairs])[0, 1] > 0.2
    near = (graph @ graph[11]) / np.maximum(lengths * lengths[11], 1e-9)[:, 0]  # The Usual Suspects
    assert near[55] > np.quantile(near, 0.99)  # Pulp Fiction


# --- downloads -------------------------------------------------------------------------------------------------------


def test_an_archive_that_is_there_needs_no_network(own_ml_1m):
    assert download.fetch_archive(movielens.ML_1M, own_ml_1m).parent.name == "downloads"


def test_an_unreachable_archive_is_one_line_with_cause_and_remedy(tmp_path):
    with pytest.raises(
        FetchError, match=r"cannot be reached \(.*refused.*\); check the network, or put the file at"
    ) as e:
        download.fetch_archive(Archive("some.zip", REFUSED, "0" * 32), tmp_path)
    assert str(tmp_path / "downloads" / "some.zip") in str(e.value)
    assert "\n" not in str(e.value)


def test_an_archive_with_another_sum_is_not_taken(tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "some.zip").write_bytes(b"half of it")
    with pytest.raises(FetchError, match="cannot be reached"):
        download.fetch_archive(Archive("some.zip", REFUSED, "0" * 32), tmp_path)


def test_a_wheel_that_pip_cannot_find_is_one_line_with_cause_and_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        FetchError, match=r"pip cannot download recbole==0\.0\.0 \(.+\); check .*, or put the wheel at"
    ) as e:
        download.fetch_wheel(Wheel("recbole", "0.0.0", "", 2), tmp_path)
    assert "\n" not in str(e.value)
    assert not list((tmp_path / "downloads").glob("*.whl"))


def test_a_wheel_with_another_sum_is_refused(tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / movielens.RECBOLE.file).write_bytes(b"something else")
    with pytest.raises(FetchError, match=r"has SHA-256 .* expected 9c99.*; delete it and try again"):
        download.fetch_wheel(movielens.RECBOLE, tmp_path)


def test_the_wheel_is_never_imported(ml_100k):
    assert "recbole" not in sys.modules


def test_the_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("BBQREC_CACHE", str(tmp_path))
    assert download.cache_dir() == tmp_path
    monkeypatch.delenv("BBQREC_CACHE")
    assert download.cache_dir().name == "bbqrec"


# --- get and load ----------------------------------------------------------------------------------------------------


def test_movielens_1m_from_the_archive_to_a_dataset(own_ml_1m):
    path = sources.get("ml-1m", cache=own_ml_1m)
    assert pl.read_parquet(path / "items.parquet")["text"][1] == "Les Misérables (1995). Genres: Drama, Musical."
    data = read_bundle(path, DataConfig())
    assert (data.name, data.n_users, data.n_items) == ("ml-1m", 1, 3)


def test_movielens_1m_out_of_reach_says_where_to_put_the_archive(tmp_path, monkeypatch):
    monkeypatch.setattr(movielens, "ML_1M", replace(movielens.ML_1M, url=REFUSED))
    with pytest.raises(FetchError, match=r"ml-1m\.zip"):
        sources.get("ml-1m", cache=tmp_path)
    assert not (tmp_path / "data" / "ml-1m").exists()


def test_movielens_100k_out_of_reach_falls_back_with_one_line(wheel, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(movielens, "ML_100K", replace(movielens.ML_100K, url=REFUSED))
    monkeypatch.setattr(movielens, "recbole_graph", lambda wheel, ids, films: np.ones((len(ids), 2), np.float32))
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / wheel.name).symlink_to(wheel)
    path = sources.get("ml-100k", cache=tmp_path)
    said = [line for line in capsys.readouterr().err.splitlines() if "using the copy in recbole-1.2.1" in line]
    assert len(said) == 1
    assert pl.read_parquet(path / "interactions.parquet").height == 100_000


def test_a_second_get_touches_nothing_and_other_code_makes_it_anew(tmp_path, monkeypatch):
    path = sources.get("planted-smoke", cache=tmp_path)
    before = (path / "items.parquet").stat()
    assert sources.get("planted-smoke", cache=tmp_path) == path
    assert (path / "items.parquet").stat() == before
    monkeypatch.setattr(sources, "_code_hash", lambda: "newer")
    sources.get("planted-smoke", cache=tmp_path)
    assert (path / "items.parquet").stat().st_ino != before.st_ino
    assert json.loads((path / "source.json").read_text())["code"] == "newer"


def test_an_interrupted_get_leaves_the_old_bundle_and_no_rubbish(tmp_path, monkeypatch):
    path = sources.get("planted-smoke", cache=tmp_path)

    def interrupted(bundle, cache, posters):
        (bundle / "items.parquet").write_bytes(b"half")
        raise KeyboardInterrupt

    broken = replace(sources.REGISTRY["planted-smoke"], make=interrupted)
    monkeypatch.setitem(sources.REGISTRY, "planted-smoke", broken)
    monkeypatch.setattr(sources, "_code_hash", lambda: "newer")
    with pytest.raises(KeyboardInterrupt):
        sources.get("planted-smoke", cache=tmp_path)
    assert read_bundle(path, DataConfig()).n_items == 120
    assert [file.name for file in path.parent.iterdir() if not file.name.endswith(".lock")] == ["planted-smoke"]


def test_a_loaded_dataset_is_scaled_and_ready(tmp_path):
    data = sources.load("planted-smoke", cache=tmp_path)
    assert data.name == "planted-smoke"
    for name, x in data.features.items():
        assert x[data.presence[name]].std(0) == pytest.approx(np.ones(x.shape[1]), abs=1e-5)
        assert not x[~data.presence[name]].any()
    by_path = sources.load(sources.get("planted-smoke", cache=tmp_path), DataConfig(), tmp_path)
    assert by_path.content_hash == data.content_hash


def test_load_reads_only_the_modalities_that_are_asked_for(tmp_path):
    data = sources.load(str(bundles.write(tmp_path / "b")), DataConfig(modalities=("graph",)), tmp_path)
    assert list(data.features) == ["graph"]


def test_a_bundle_without_any_modality_is_accepted(tmp_path):
    table = bundles.items().select("item_id")
    data = sources.load(bundles.write(tmp_path / "b", table=table, features={}), DataConfig(), tmp_path)
    assert data.features == {}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda tmp: sources.get("ml-20m", cache=tmp), "'ml-20m'; did you mean 'ml-1m'"),
        (lambda tmp: sources.load("nowhere", cache=tmp), "no dataset 'nowhere': give one of ml-100k"),
        (lambda tmp: sources.get("planted", "get", tmp), "posters='get' does not apply to planted"),
        (lambda tmp: sources.load(tmp, DataConfig(posters="get"), tmp), "posters='get' applies to ml-100k and ml-1m"),
        (lambda tmp: sources.get("ml-100k", "no/such", tmp), "posters: 'no/such' is not a folder"),
    ],
)
def test_what_cannot_be_had_is_named_with_the_remedy(tmp_path, call, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        call(tmp_path)


def test_every_source_states_what_it_is_and_its_terms():
    for source in sources.REGISTRY.values():
        assert source.note in str(source)
        assert source.terms in str(source)


# --- posters ---------------------------------------------------------------------------------------------------------


def picture(file, colour):
    file.parent.mkdir(exist_ok=True)
    Image.new("RGB", (6, 9), colour).save(file)


def test_posters_of_movielens_1m_join_by_id_and_stand_beside_the_plain_bundle(own_ml_1m):
    folder = own_ml_1m / "posters"
    picture(folder / "2.jpg", "red")
    picture(folder / "10.PNG", "blue")
    plain, path = sources.get("ml-1m", cache=own_ml_1m), sources.get("ml-1m", str(folder), own_ml_1m)
    assert (plain.name, path.name) == ("ml-1m", "ml-1m-posters")
    assert pl.read_parquet(path / "items.parquet")["image"].to_list() == ["images/2.jpg", None, "images/10.png"]
    assert (path / "images" / "2.jpg").read_bytes() == (folder / "2.jpg").read_bytes()
    assert read_bundle(path, DataConfig()).items["image"].count() == 2
    picture(folder / "7.jpg", "green")
    sources.get("ml-1m", str(folder), own_ml_1m)
    assert pl.read_parquet(path / "items.parquet")["image"].null_count() == 0


def test_posters_of_movielens_100k_join_through_the_ids_of_movielens_1m(tmp_path):
    (tmp_path / "b").mkdir()
    picture(tmp_path / "posters" / "50.jpg", "red")  # The Usual Suspects in MovieLens-1M, item 12 of MovieLens-100K
    items = pl.DataFrame({"item_id": [12, 50, 267]})
    joined = movielens.copy_posters(items, movielens.ml_1m_ids(), tmp_path / "posters", tmp_path / "b")
    assert joined["image"].to_list() == ["images/12.jpg", None, None]


def test_a_folder_whose_pictures_fit_no_film_is_an_error(own_ml_1m):
    picture(own_ml_1m / "posters" / "toy-story.jpg", "red")
    with pytest.raises(ValueError, match=r"no picture in .* belongs to a film; name them ID\.jpg"):
        sources.get("ml-1m", str(own_ml_1m / "posters"), own_ml_1m)


def test_the_public_posters_are_taken_only_if_they_are_the_pinned_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(movielens, "POSTERS", Archive("posters.zip", REFUSED))
    with pytest.raises(FetchError, match=r"cannot be reached .* or put the file at"):
        movielens.poster_folder("get", tmp_path)
    archive = pack(tmp_path / "downloads" / "posters.zip", {"x-1/images/2.jpg": "two", "x-1/README.md": "no picture"})
    with pytest.raises(FetchError, match=r"does not hold the pictures of commit 1d450572; delete it"):
        movielens.poster_folder("get", tmp_path)
    monkeypatch.setattr(movielens, "POSTER_TREE", movielens._git_tree({"2.jpg": b"two"}))
    folder = movielens.poster_folder("get", tmp_path)
    assert (folder / "2.jpg").read_bytes() == b"two"
    assert archive.exists()


def test_the_tree_hash_is_gits(tmp_path):
    files = {"10.jpg": b"ten", "1.jpg": b"one", "a b.jpg": b""}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    git = ["git", "-C", str(tmp_path), "-c", "core.autocrlf=false"]
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run([*git, *command], check=True)
    tree = subprocess.run([*git, "write-tree"], check=True, capture_output=True, text=True).stdout.strip()
    assert movielens._git_tree(files) == tree


# --- what is kept is checked when it is read --------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut", "lost", "turned"])
def test_a_damaged_cached_bundle_is_named_and_built_again(tmp_path, capsys, damage):
    bundle = sources.get("planted-smoke", cache=tmp_path)
    file = bundle / "interactions.parquet"
    content = file.read_bytes()
    if damage == "lost":
        file.unlink()
    else:
        file.write_bytes(content[:-50] if damage == "cut" else content[:60] + bytes([content[60] ^ 1]) + content[61:])
    capsys.readouterr()
    assert sources.get("planted-smoke", cache=tmp_path) == bundle
    assert file.read_bytes() == content
    assert capsys.readouterr().err == f"{file} is damaged or missing: the dataset is built again\n"
    sources.get("planted-smoke", cache=tmp_path)
    assert capsys.readouterr().err == ""


def test_what_killed_builders_left_is_swept(tmp_path):
    (tmp_path / "data" / ".planted-smoke-x1y2z3a4" / "new").mkdir(parents=True)
    os.utime(tmp_path / "data" / ".planted-smoke-x1y2z3a4", (0, 0))
    sources.get("planted-smoke", cache=tmp_path)
    assert [path.name for path in (tmp_path / "data").iterdir() if path.is_dir()] == ["planted-smoke"]


def test_a_damaged_archive_of_posters_is_named(tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / movielens.POSTERS.file).write_bytes(b"half")
    with pytest.raises(FetchError, match=r"\.zip is damaged .*; delete it and try again"):
        movielens.poster_folder("get", tmp_path)
