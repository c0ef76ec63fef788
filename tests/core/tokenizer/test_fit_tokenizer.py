"""Laws of stage 1 as a whole: shapes, repeatability, what it may not see, and that every setting does something."""

import itertools
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
from tiny import planted_data, tokenizer_config

from bbqrec_core import Sequences, TokenizerConfig, fit_tokenizer, health
from bbqrec_core.tokenizer.fit import build_model, encode_items, initialise, resolve
from bbqrec_core.tokenizer.semantic_ids import append_extra, move_to_free

LEVELS, CODES, WIDTH = 2, 5, 6
EMBEDDINGS = np.random.default_rng(5).normal(size=(25, 4)).astype(np.float32)  # another model's, of 24 items
ARRAYS = ("code_ids", "raw_codes", "signal_codes", "signal_vectors", "present", "codebook")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return planted_data(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """fit(seed, **settings) -> Tokenized, each distinct one trained once."""
    made = {}

    def fit(seed=0, dataset=data, **changes):
        key = (seed, id(dataset), *sorted(changes.items()))
        if key not in made:
            config = tokenizer_config(**changes)
            done = fit_tokenizer(dataset, config, seed, tmp_path_factory.mktemp("t") / "c", EMBEDDINGS)
            made[key] = done, dataset  # held, or another dataset may come to have its id
        return made[key][0]

    return fit


def equal(first, second):
    """Whether two finished tokenizers agree bit for bit in all that they hold."""
    arrays = [(getattr(first.ids, name), getattr(second.ids, name)) for name in ARRAYS]
    arrays += [(getattr(first, name), getattr(second, name)) for name in ("behaviour", "specific", "residual")]
    return (
        first.log == second.log
        and first.health == second.health
        and (first.ids.signals, first.ids.sizes) == (second.ids.signals, second.ids.sizes)
        and all(a.shape == b.shape and np.array_equal(a, b) for a, b in arrays)
    )


def unlike(data, drop):
    """The same data with each user's last `drop` events replaced by others."""
    items = data.sequences.items.copy()
    for back in range(1, drop + 1):
        last = data.sequences.offsets[1:] - back
        items[last] = items[last] % data.n_items + 1
    return replace(data, sequences=Sequences(data.sequences.offsets, items))


@pytest.mark.parametrize(("combine", "learned"), [("fused", LEVELS), ("concat", 3 * LEVELS), ("chain", 3 * LEVELS)])
def test_tables_have_the_stated_shapes(data, run, combine, learned):
    done, rows = run(combine=combine), data.n_items + 1
    ids = done.ids
    assert ids.signals == ("image", "text", "id")
    assert (ids.learned, ids.sid_len, len(ids.sizes)) == (learned, learned + 1, learned + 1)
    assert ids.sizes[:-1] == (CODES,) * learned
    assert ids.raw_codes.shape == (rows, learned)
    assert ids.signal_codes.shape == (rows, 3, LEVELS)
    assert ids.signal_vectors.shape == done.behaviour.shape == (rows, 3, WIDTH)
    assert done.specific.shape == (rows, 2, 3)
    assert done.residual.shape == (rows, WIDTH)
    assert ids.codebook.shape == (learned, CODES, WIDTH)
    assert bool((ids.code_ids >= 0).all())
    assert bool((ids.code_ids[1:].max(0) < ids.sizes).all())
    assert np.array_equal(ids.present[:, 0], data.presence["image"])
    assert np.array_equal(ids.present[:, 2], data.train_counts() > 0)
    assert not ids.present[0].any()


def test_signal_vectors_are_the_codebook_entries_of_the_signal_codes(run):
    ids = run().ids
    for row, signal in ((1, 0), (7, 1), (24, 2)):
        codes = ids.signal_codes[row, signal]
        assert ids.signal_vectors[row, signal] == pytest.approx(sum(ids.codebook[lv, c] for lv, c in enumerate(codes)))


def test_signal_codes_are_nearest_to_the_behaviour_part(run):
    done = run()
    for row in range(1, 25):
        for signal in range(3):
            gaps = ((done.behaviour[row, signal] - done.ids.codebook[0]) ** 2).sum(-1)
            assert gaps[done.ids.signal_codes[row, signal, 0]] <= gaps.min() + 1e-5


def test_concatenated_ids_hold_the_signals_codes_in_order_and_the_mean_for_absent_ones(data, run):
    done = run(combine="concat")
    codes = done.ids.raw_codes.reshape(-1, 3, LEVELS)
    present = done.ids.present
    assert np.array_equal(codes[present], done.ids.signal_codes[present])
    for row in (np.flatnonzero(~present[1:].all(1)) + 1).tolist():
        mean = done.behaviour[row][present[row]].mean(0)
        for signal in np.flatnonzero(~present[row]):
            gaps = ((mean - done.ids.codebook[0]) ** 2).sum(-1)
            assert gaps[codes[row, signal, 0]] <= gaps.min() + 1e-5


def test_the_same_seed_gives_the_same_ids_and_another_seed_does_not(data, run, tmp_path):
    again = fit_tokenizer(data, tokenizer_config(), 0, tmp_path / "again")
    assert equal(again, run())
    assert not np.array_equal(run(seed=1).ids.raw_codes, run().ids.raw_codes)


def test_training_leaves_the_callers_random_stream_alone(data, tmp_path):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    fit_tokenizer(data, tokenizer_config(epochs=1), 0, tmp_path / "c")
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize("combine", ["fused", "concat"])
def test_no_id_depends_on_what_training_may_not_see(data, run, combine):
    """Other validation and test events, other published codes, times, titles and original ids: equal IDs."""
    other = unlike(data, 2)
    shuffled = data.items.with_columns(item_id=data.items["item_id"].reverse(), title=data.items["title"].reverse())
    other = replace(other, timestamps=data.timestamps[::-1].copy(), items=shuffled)
    assert not np.array_equal(other.targets("valid"), data.targets("valid"))
    assert equal(run(dataset=other, combine=combine), run(combine=combine))
    assert not equal(run(dataset=unlike(data, 3), combine=combine), run(combine=combine))


def test_features_of_items_that_lack_the_modality_change_no_id(data, run):
    features = {name: x.copy() for name, x in data.features.items()}
    for name, x in features.items():
        x[~data.presence[name]] = 3.0
    changed, plain = run(dataset=replace(data, features=features)), run()
    assert np.array_equal(changed.ids.code_ids, plain.ids.code_ids)
    assert changed.log == plain.log
    present = plain.ids.present
    assert np.array_equal(changed.ids.signal_codes[present], plain.ids.signal_codes[present])


def test_health_is_measured_before_and_after_the_repair(run):
    for changes in ({}, {"uniqueness": "none"}, {"uniqueness": "nearest"}):
        done = run(**changes)
        assert done.health["before"] == health(done.ids.raw_codes, (CODES,) * LEVELS)
        assert done.health["after"] == health(done.ids.code_ids, done.ids.sizes)


def test_each_repair_does_what_it_says(run):
    none, extra, nearest = (run(uniqueness=kind, codes=4).ids for kind in ("none", "extra", "nearest"))
    assert np.array_equal(none.code_ids, none.raw_codes)
    assert np.array_equal(extra.code_ids, append_extra(none.code_ids)[0])
    assert health(none.code_ids, none.sizes)["collision_rate"] > 0
    assert health(extra.code_ids, extra.sizes)["collision_rate"] == 0
    assert nearest.sizes == none.sizes
    rates = [health(ids.code_ids, ids.sizes)["collision_rate"] for ids in (nearest, none)]
    assert rates[0] < rates[1]
    assert np.array_equal(nearest.code_ids[:, :-1], none.code_ids[:, :-1])
    kept = {tuple(codes) for codes in none.code_ids[1:].tolist()}
    assert kept <= {tuple(codes) for codes in nearest.code_ids[1:].tolist()}  # one item of each group stays


def test_the_residual_given_to_the_repair_is_what_the_last_level_saw(data):
    for combine, shared in itertools.product(("fused", "concat", "chain"), (True, False)):
        torch.manual_seed(0)
        config = resolve(tokenizer_config(combine=combine, shared_codebook=shared), data)
        model = build_model(data, config)
        initialise(model, data.warm_rows(), 0)
        encoded = encode_items(model)
        gaps = ((encoded.residual[1:, None] - encoded.codebook[-1]) ** 2).sum(-1)
        chosen = np.take_along_axis(gaps, encoded.table[1:, -1:], axis=1)[:, 0]
        assert chosen == pytest.approx(gaps.min(1), abs=1e-5)


@pytest.mark.parametrize("combine", ["fused", "concat", "chain"])
def test_the_residual_that_is_handed_out_is_the_one_that_the_repair_chose_by(run, combine):
    done, fewer = (run(combine=combine, uniqueness=kind, codes=4) for kind in ("nearest", "none"))
    ids = done.ids
    assert np.array_equal(move_to_free(ids.raw_codes, done.residual, ids.codebook[-1]), ids.code_ids)
    assert np.array_equal(fewer.residual, done.residual)


def test_modalities_are_named_and_a_missing_one_gives_way_to_the_first(data):
    config = tokenizer_config(signals=())
    assert resolve(config, data).signals == ("image", "text")
    assert resolve(replace(config, signals=("text", "image")), data).signals == ("text", "image")
    assert resolve(replace(config, signals=("sound",)), data).signals == ("image",)
    assert resolve(replace(config, signals=("sound", "text")), data).signals == ("text",)


@pytest.mark.parametrize("changes", [{}, {"id_signal": False}, {"signals": ("text",), "id_signal": False}])
def test_data_without_any_modality_leave_the_id_signal(data, run, changes):
    bare = replace(data, features={}, presence={})
    done = run(dataset=bare, **changes)
    assert done.ids.signals == ("id",)
    assert done.specific.shape == (25, 0, 0)
    assert done.health["after"]["collision_rate"] == 0


def test_one_modality_alone_is_enough(data, run):
    one = replace(data, features={"text": data.features["text"]}, presence={"text": data.presence["text"]})
    assert run(dataset=one, id_signal=False).ids.signals == ("text",)
    assert run(dataset=one).ids.signals == ("text", "id")


def test_progress_is_recorded_every_epoch(run):
    log = run().log
    assert [row["epoch"] for row in log] == [1, 2]
    terms = {"loss", "quantization", "reconstruction", "mutual_information", "cross_modal", "sequence", "usage"}
    assert set(log[0]) == {"epoch", "used", "perplexity", "collision_rate"} | terms
    done = run()
    for name in ("used", "perplexity", "collision_rate"):  # measured on the items, before the repair
        assert log[-1][name] == done.health["before"][name]


CHANGES = {
    "signals": ("text",),
    "joined": True,
    "id_signal": False,
    "specific": False,
    "specific_width": 2,
    "normalise": False,
    "levels": 3,
    "codes": 6,
    "code_width": 8,
    "hidden": 9,
    "shared_codebook": False,
    "combine": "concat",
    "gradient": "rotation",
    "codebook_update": "gradient",
    "ema_decay": 0.5,
    "revive_every": 0,
    "commitment": 0.5,
    "specific_dropout": 0.1,
    "w_codes_only": 0.5,
    "w_mi": 0.5,
    "w_cross": 0.5,
    "w_seq": 0.3,
    "w_use": 0.5,
    "w_align": 0.5,
    "temperature": 0.5,
    "mi_steps": 5,
    "uniqueness": "none",
    "lr": 0.02,
    "epochs": 3,
    "batch_items": 8,
    "batch_users": 5,
    "epoch_steps": 1,
    "max_events": 3,
}


def test_every_setting_has_a_test_that_changes_it():
    assert list(CHANGES) == [spec.name for spec in fields(TokenizerConfig)]
    base = asdict(tokenizer_config())
    assert all(base[name] != value for name, value in CHANGES.items())


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_changes_a_result(run, name):
    base = {"codes": 60, "revive_every": 1} if name == "revive_every" else {}  # enough codes for some to die
    assert not equal(run(**(base | {name: CHANGES[name]})), run(**base))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("combine", ["fused", "concat", "chain"])
def test_the_codes_of_an_id_say_its_vectors_by_the_tables_of_their_positions(run, combine, shared):
    ids = run(combine=combine, shared_codebook=shared).ids
    assert len(ids.codebook) == ids.learned
    if combine == "fused":
        return
    vectors = ids.codebook[np.arange(ids.learned), ids.raw_codes].reshape(len(ids.raw_codes), 3, LEVELS, WIDTH).sum(2)
    vectors = vectors.cumsum(1) if combine == "chain" else vectors
    assert vectors[ids.present] == pytest.approx(ids.signal_vectors[ids.present], abs=1e-5)


def test_joined_features_are_one_signal_that_an_item_has_if_it_has_any(data, run):
    ids = run(joined=True).ids
    assert ids.signals == ("image+text", "id")
    assert np.array_equal(ids.present[:, 0], data.presence["image"] | data.presence["text"])


def test_items_held_out_of_training_get_ids_and_leave_no_trace_in_the_codebook(data, tmp_path):
    cold = np.arange(data.n_items + 1) % 6 == 0
    held = replace(data, cold=cold)
    rows = np.flatnonzero(cold)[1:]
    changed = replace(held, features={name: array.copy() for name, array in data.features.items()})
    for array in changed.features.values():
        array[rows] = array[rows][:, ::-1]
    config = tokenizer_config(uniqueness="none", id_signal=False)
    first, second = (fit_tokenizer(d, config, 0, tmp_path / str(id(d))) for d in (held, changed))
    assert np.array_equal(first.ids.codebook, second.ids.codebook)
    warm = data.n_items + 1 - len(rows) - 1
    others = np.setdiff1d(np.arange(1, data.n_items + 1), rows)
    assert len(others) == warm
    assert np.array_equal(first.ids.code_ids[others], second.ids.code_ids[others])
    assert not np.array_equal(first.ids.code_ids[rows], second.ids.code_ids[rows])
