"""Laws of stage 1 as a whole: shapes, repeatability, what it may not see, and that every setting does something."""

from dataclasses import asdict, fields, replace
from functools import cache

import numpy as np
import pytest
import tokenizer_laws as laws
import torch
from tiny import planted_data, tokenizer_config
from tokenizer_laws import equal

from bbqrec_core import TokenizerConfig, fit_tokenizer, health
from bbqrec_core.tokenizer.fit import build_model

LEVELS, CODES = 2, 5


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return planted_data(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """run(seed, dataset, **settings) -> Tokenized, each distinct one trained once."""

    @cache
    def fit(seed=0, dataset=data, **changes):
        return fit_tokenizer(dataset, tokenizer_config(**changes), seed, tmp_path_factory.mktemp("t") / "c")

    return fit


def test_tables_have_the_stated_shapes(data, run):
    laws.tables_have_the_stated_shapes(run(), data, LEVELS)


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


def test_no_id_depends_on_what_training_may_not_see(data, run):
    laws.ids_depend_on_nothing_that_training_may_not_see(run, data)


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
    for changes in ({"uniqueness": "none"}, {"uniqueness": "nearest"}):
        done = run(**changes)
        assert done.health["before"] == health(done.ids.raw_codes, (CODES,) * LEVELS)
        assert done.health["after"] == health(done.ids.code_ids, done.ids.sizes)


def test_each_repair_does_what_it_says(run):
    none, nearest = (run(uniqueness=kind, codes=4).ids for kind in ("none", "nearest"))
    assert np.array_equal(none.code_ids, none.raw_codes)
    assert health(none.code_ids, none.sizes)["collision_rate"] > 0
    assert nearest.sizes == none.sizes
    rates = [health(ids.code_ids, ids.sizes)["collision_rate"] for ids in (nearest, none)]
    assert rates[0] < rates[1]
    assert np.array_equal(nearest.code_ids[:, :-1], none.code_ids[:, :-1])
    kept = {tuple(codes) for codes in none.code_ids[1:].tolist()}
    assert kept <= {tuple(codes) for codes in nearest.code_ids[1:].tolist()}  # one item of each group stays


def test_the_residual_given_to_the_repair_is_what_the_last_level_saw(data):
    torch.manual_seed(0)
    laws.residual_is_what_the_last_level_saw(build_model(data, tokenizer_config()), data)


def test_the_residual_that_is_handed_out_is_the_one_that_the_repair_chose_by(run):
    laws.residual_is_the_one_that_the_repair_chose_by(run)


@pytest.mark.parametrize("signals", [("sound",), ("text", "sound"), ("sound", "image")])
def test_a_modality_that_the_data_lack_is_refused_and_named_beside_those_there_are(data, tmp_path, signals):
    for dataset, there in ((data, "image, text"), (replace(data, features={}, presence={}), "none")):
        lacking = "sound" if dataset is data else signals[0]
        with pytest.raises(ValueError, match=f"signals name '{lacking}', the modalities of the data are: {there};"):
            fit_tokenizer(dataset, tokenizer_config(signals=signals), 0, tmp_path / "c")
    assert list(tmp_path.iterdir()) == []  # before any work


def test_signals_name_the_modalities_that_enter_in_their_order(data):
    for signals, entering in (((), ("image", "text")), (("text", "image"), ("text", "image")), (("text",), ("text",))):
        assert build_model(data, tokenizer_config(signals=signals)).modalities == entering


def test_data_without_any_modality_leave_the_id_signal(data, run):
    laws.only_the_id_signal_is_left(run(dataset=replace(data, features={}, presence={})))


def test_one_modality_alone_is_enough(data, run):
    one = replace(data, features={"text": data.features["text"]}, presence={"text": data.presence["text"]})
    assert run(dataset=one, id_signal=False).ids.signals == ("text",)
    assert run(dataset=one).ids.signals == ("text", "id")


def test_progress_is_recorded_every_epoch(run):
    laws.progress_is_recorded_every_epoch(run(), ())


CHANGES = {
    "signals": ("text",),
    "id_signal": False,
    "specific": False,
    "specific_width": 2,
    "normalise": False,
    "levels": 3,
    "codes": 6,
    "code_width": 8,
    "hidden": 9,
    "ema_decay": 0.5,
    "revive_every": 0,
    "commitment": 0.5,
    "specific_dropout": 0.1,
    "w_codes_only": 0.5,
    "w_mi": 0.5,
    "w_cross": 0.5,
    "w_seq": 0.3,
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


def test_items_held_out_of_training_get_ids_and_leave_no_trace_in_the_codebook(data, tmp_path):
    config = tokenizer_config(uniqueness="none", id_signal=False)
    laws.items_held_out_get_ids_and_leave_no_trace_in_the_codebook(
        lambda dataset, folder: fit_tokenizer(dataset, config, 0, folder), data, tmp_path
    )
