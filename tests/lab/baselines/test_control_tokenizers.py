"""Laws of IDs that stage 1 does not learn: what each source reads, and that it has the shape of what it stands for."""

from dataclasses import asdict, fields, replace
from functools import cache

import numpy as np
import pytest
import tokenizer_laws as laws
from sklearn.decomposition import PCA
from tiny import ids_config, lab_tokenizer_config, planted_data
from tokenizer_laws import equal

from bbqrec_core import fit_tokenizer, health
from bbqrec_lab.baselines.tokenizers import make_tokenized, resolve_signals, resolve_source
from bbqrec_lab.baselines.variant_tokenizer import tokenizer_maker
from bbqrec_lab.datasets.id_files import write_ids
from bbqrec_lab.experiments.runs import load_tokenized, save_tokenized
from bbqrec_lab.settings import IdsConfig

LEVELS, CODES, WIDTH = 2, 5, 6
EMBEDDINGS = np.random.default_rng(5).normal(size=(25, 4)).astype(np.float32)  # another model's, of 24 items
WHERE = tuple(spec.name for spec in fields(IdsConfig))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return planted_data(tmp_path_factory.mktemp("control-tokenizers"))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """run(seed, dataset, **settings) -> Tokenized, each distinct one made once; settings of both configurations."""

    @cache
    def make(seed=0, dataset=data, **changes):
        where = ids_config(**{name: value for name, value in changes.items() if name in WHERE})
        config = lab_tokenizer_config(**{name: value for name, value in changes.items() if name not in WHERE})
        return make_tokenized(dataset, where, config, seed, tmp_path_factory.mktemp("t") / "c", EMBEDDINGS)

    return make


def source_for(data, source, **changes):
    """The source that the data allow, with settings of stage 1."""
    return resolve_source(
        ids_config(source=source), resolve_signals(lab_tokenizer_config(**changes), data), data
    ).source


@pytest.mark.parametrize("changes", [{}, {"combine": "concat", "uniqueness": "nearest"}, {"w_align": 0.5}])
def test_learned_ids_are_those_of_the_core(data, run, tmp_path, changes):
    wanted = fit_tokenizer(data, lab_tokenizer_config(**changes), 0, tmp_path / "c", tokenizer_maker(EMBEDDINGS))
    assert equal(run(**changes), wanted)


def test_modalities_are_named_and_a_missing_one_gives_way_to_the_first(data):
    config = lab_tokenizer_config(signals=())
    assert resolve_signals(config, data).signals == ("image", "text")
    assert resolve_signals(replace(config, signals=("text", "image")), data).signals == ("text", "image")
    assert resolve_signals(replace(config, signals=("sound",)), data).signals == ("image",)
    assert resolve_signals(replace(config, signals=("sound", "text")), data).signals == ("text",)


@pytest.mark.parametrize("changes", [{}, {"id_signal": False}, {"signals": ("text",), "id_signal": False}])
def test_data_without_any_modality_leave_the_id_signal(data, run, changes):
    laws.only_the_id_signal_is_left(run(dataset=replace(data, features={}, presence={}), **changes))


CHANGES = {"source": "random", "ids_file": "other.parquet", "transport": True}  # the file: in the last test here
NEEDS = {"transport": {"uniqueness": "none", "codes": 4}}


def test_every_setting_has_a_test_that_changes_it():
    assert list(CHANGES) == [spec.name for spec in fields(IdsConfig)]
    base = asdict(ids_config())
    assert base == asdict(IdsConfig())
    assert all(base[name] != value for name, value in CHANGES.items())


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "ids_file"])
def test_every_setting_changes_a_result(run, name):
    base = NEEDS.get(name, {})
    assert not equal(run(**base, **{name: CHANGES[name]}), run(**base))


@pytest.mark.parametrize("source", ["learned", "random", "kmeans", "sasrec"])
def test_the_same_seed_gives_the_same_ids_and_another_seed_does_not(data, run, tmp_path, source):
    again = make_tokenized(data, ids_config(source=source), lab_tokenizer_config(), 0, tmp_path / "again", EMBEDDINGS)
    assert equal(again, run(source=source))
    assert not np.array_equal(run(seed=1, source=source).ids.raw_codes, run(source=source).ids.raw_codes)


def test_progress_is_told_where_something_is_learned_alone(data, tmp_path):
    for source, steps in (("learned", True), ("random", False), ("kmeans", False)):
        told = []
        make_tokenized(
            data, ids_config(source=source), lab_tokenizer_config(), 0, tmp_path / source, EMBEDDINGS, told.append
        )
        assert bool(told) == steps
        assert {at.name for at in told} <= {"tokenizer"}


def test_random_ids_are_a_control_without_signals(data, run):
    done, other = run(source="random"), run(seed=1, source="random")
    assert done.ids.signals == ()
    assert done.ids.code_ids.shape == run().ids.code_ids.shape
    assert done.ids.sizes == run().ids.sizes
    assert done.health["after"]["collision_rate"] < done.health["before"]["collision_rate"]
    assert set(np.unique(done.ids.raw_codes[1:])) == set(range(CODES))
    assert not np.array_equal(done.ids.raw_codes, other.ids.raw_codes)
    assert done.log == []
    strange = replace(data, features={"text": np.ones((25, 3), np.float32)}, presence={"text": data.presence["text"]})
    assert np.array_equal(run(dataset=strange, source="random").ids.code_ids, done.ids.code_ids)


@pytest.mark.parametrize("uniqueness", ["none", "extra", "nearest"])
def test_random_ids_have_the_shape_of_the_ids_they_stand_for(run, uniqueness):
    drawn, learned = run(source="random", uniqueness=uniqueness).ids, run(uniqueness=uniqueness).ids
    assert drawn.sid_len == learned.sid_len
    assert drawn.learned == learned.learned


def test_a_finished_tokenizer_comes_back_from_disk_as_it_was(run, tmp_path):
    for number, changes in enumerate(({}, {"source": "random"}, {"specific": False})):
        done = run(**changes)
        folder = tmp_path / str(number)
        folder.mkdir()
        save_tokenized(done, lab_tokenizer_config(**{n: v for n, v in changes.items() if n not in WHERE}), folder)
        assert equal(load_tokenized(folder), done)


def test_random_ids_are_as_long_as_the_joined_ids_they_stand_for(run):
    drawn, learned = run(source="random", combine="concat").ids, run(combine="concat").ids
    assert drawn.sid_len == learned.sid_len
    assert drawn.learned == learned.learned > run().ids.learned


def test_rq_kmeans_codes_are_nearest_centres_and_centres_are_means(data, run):
    done = run(source="kmeans", uniqueness="none", signals=("text",))
    ids, there, points = done.ids, data.presence["text"], done.behaviour[:, 0]
    wide = data.features["text"][there] / np.linalg.norm(data.features["text"][there], axis=1, keepdims=True)
    peer = PCA(WIDTH, svd_solver="full").fit_transform(wide)
    assert np.abs(points[there]) == pytest.approx(np.abs(peer), abs=1e-4)  # axes are known up to their sign
    for row in np.flatnonzero(there):
        gaps = ((points[row] - ids.codebook[0]) ** 2).sum(-1)
        assert gaps[ids.code_ids[row, 0]] <= gaps.min() + 1e-4
    error = ((points - ids.signal_vectors[:, 0])[there] ** 2).sum()
    drawn = np.random.default_rng(0).permutation(ids.code_ids)
    shuffled = ids.codebook[np.arange(LEVELS), drawn].sum(1)
    assert error < 0.7 * ((points - shuffled)[there] ** 2).sum()
    assert run(source="kmeans").log == []


def test_rq_of_another_models_embeddings_reads_them_and_no_feature(data, run):
    ids = run(source="sasrec").ids
    assert ids.signals == ("sasrec",)
    assert np.array_equal(ids.present[:, 0], data.train_counts() > 0)
    strange = replace(data, features={name: x + 1 for name, x in data.features.items()})
    assert np.array_equal(run(source="sasrec", dataset=strange).ids.code_ids, ids.code_ids)


def test_published_codes_are_taken_as_they_are_and_kmeans_stands_in_where_there_are_none(data, run):
    codes = np.random.default_rng(3).integers(0, 9, (25, 4)).astype(np.int32)
    ids = run(source="published", uniqueness="none", dataset=replace(data, codes={"text": codes})).ids
    assert np.array_equal(ids.code_ids, codes)
    assert ids.sizes == tuple(codes.max(0) + 1)
    assert ids.signals == ()
    assert source_for(replace(data, codes={"text": codes}), "published") == "published"
    assert source_for(data, "published") == source_for(data, "kmeans") == "kmeans"
    bare = replace(data, features={}, presence={})
    assert source_for(bare, "published") == source_for(bare, "kmeans") == "random"
    assert source_for(bare, "learned") == "learned"
    for source in ("published", "kmeans"):
        assert equal(run(source=source, dataset=bare), run(source="random", dataset=bare))
    assert equal(run(source="published"), run(source="kmeans"))


def test_health_is_measured_before_and_after_the_repair(run):
    done = run(source="random")
    assert done.health["before"] == health(done.ids.raw_codes, (CODES,) * LEVELS)
    assert done.health["after"] == health(done.ids.code_ids, done.ids.sizes)


@pytest.mark.parametrize("source", ["learned", "kmeans"])
def test_items_held_out_of_training_get_ids_and_leave_no_trace_in_the_codebook(data, source, tmp_path):
    config, where = lab_tokenizer_config(uniqueness="none", id_signal=False), ids_config(source=source)
    laws.items_held_out_get_ids_and_leave_no_trace_in_the_codebook(
        lambda dataset, folder: make_tokenized(dataset, where, config, 0, folder), data, tmp_path
    )


def test_ids_are_those_of_the_file_that_is_named(data, run, tmp_path):
    tables = np.random.default_rng(4).integers(0, 50, (2, data.n_items + 1, 2))
    for name, table in zip("ab", tables, strict=True):
        write_ids(tmp_path / f"{name}.json", data.items["item_id"], table)
        ids = run(source="file", ids_file=str(tmp_path / f"{name}.json"), uniqueness="none").ids
        assert np.array_equal(ids.code_ids[1:], table[1:])
