"""Settings as people write them: text, YAML and numbers are understood, and what has no effect is refused by name."""

import pytest

from bbqrec_lab import Workspace
from bbqrec_lab.code_keys import ROOT
from bbqrec_lab.experiments.presets import PARTS, make_config, parse_overrides, parse_seeds, setting_types
from bbqrec_lab.experiments.setting_list import MEANINGS, as_table, setting_list
from bbqrec_lab.experiments.variants import NEEDS, READS, VARIANTS, fit_config


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ("", {}),
        ("codes=64", {"codes": 64}),
        (
            "tokenizer.lr=1e-3, id_signal=false,normalise=True,combine=concat",
            {"tokenizer.lr": 1e-3, "id_signal": False, "normalise": True, "combine": "concat"},
        ),
        ('{"modalities": ["text", "image"], "levels": 2}', {"modalities": ["text", "image"], "levels": 2}),
        (
            {"tokenizer.lr": "1e-3", "codes": "16", "id_signal": "False"},
            {"tokenizer.lr": 1e-3, "codes": 16, "id_signal": False},
        ),
        (
            {"ids_file": 2024, "codes": 16.0, "signals": "text, image"},
            {"ids_file": "2024", "codes": 16, "signals": ("text", "image")},
        ),
    ],
)
def test_overrides_get_the_types_of_their_settings(given: object, fields: dict) -> None:
    found = parse_overrides(given)
    assert found == fields
    assert [type(value) for value in found.values()] == [type(value) for value in fields.values()]


@pytest.mark.parametrize("given", ["codes", "{codes:1}", "=3", "a=1,b"])
def test_overrides_that_are_neither_pairs_nor_json_say_what_to_write(given: str) -> None:
    with pytest.raises(ValueError, match="write k=v,k=v or a JSON object"):
        parse_overrides(given)


@pytest.mark.parametrize("given", ["0,1", "[0, 1]", " (0,1) ", [0, 1], (0, 1), ["0", "1"]])
def test_seeds_come_as_text_or_as_a_list(given: object) -> None:
    assert parse_seeds(given) == (0, 1)
    assert parse_seeds(7) == parse_seeds("7") == (7,)


@pytest.mark.parametrize("given", ["0,a", "", None, [None]])
def test_other_seeds_are_refused(given: object) -> None:
    with pytest.raises(ValueError, match="seeds must be integers such as 0,1,2"):
        parse_seeds(given)


def test_a_workspace_takes_what_papermill_hands_over(tmp_path, monkeypatch) -> None:
    (tmp_path / "2024").mkdir()
    monkeypatch.chdir(tmp_path)
    space = Workspace(2024, "smoke", 0, "../runs", "codes=8,tokenizer.lr=1e-2")
    assert space.dataset == str(tmp_path / "2024")
    assert (space.config.tokenizer.codes, space.config.tokenizer.lr) == (8, 0.01)
    assert space.out_dir == str(ROOT / "runs"), "the default is a folder of the repository, not of the working folder"
    assert Workspace(2024, "smoke", 0, str(tmp_path / "mine")).out_dir == str(tmp_path / "mine")


@pytest.mark.parametrize(
    ("variant", "overrides", "field"),
    [
        ("sasrec", {"loss": "bce"}, ("loss", "bce")),
        ("sasrec", {"loss": "sampled", "negatives": 8}, ("negatives", 8)),
        ("tiger", {"reweight": False}, ("reweight", False)),
        ("generation", {"output": "both", "features": True}, ("output", "both")),
    ],
)
def test_overrides_are_checked_together_with_the_variant(variant: str, overrides: dict, field: tuple) -> None:
    assert getattr(fit_config(variant, "smoke", 0, overrides).recommender, field[0]) == field[1]


@pytest.mark.parametrize(
    ("variant", "overrides", "message"),
    [
        ("tiger", {"reweight": True}, "variant 'tiger' sets recommender.reweight=False, so it cannot be True"),
        ("tiger", {"signals": ["image"]}, "variant 'tiger' sets tokenizer.signals="),
        ("popularity", {"codes": 8}, "variant 'popularity' does not read tokenizer.codes"),
        ("sasrec", {"source": "random"}, "variant 'sasrec' does not read ids.source"),
        ("sasrec", {"negatives": 8}, "recommender.negatives has no effect with recommender.loss=ce"),
        ("bbqrec", {"ids_file": "a.json"}, "ids.ids_file has no effect with ids.source=learned"),
        ("bbqrec", {"reweight": False, "buckets": 8}, "recommender.buckets has no effect"),
        ("bbqrec", {"loss": "bce"}, "loss must be ce unless output is items"),
    ],
)
def test_an_override_without_effect_is_refused_in_words(variant: str, overrides: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_config(variant, "smoke", 0, overrides)


def test_every_variant_refuses_every_setting_that_it_changes() -> None:
    for name, variant in VARIANTS.items():
        fit_config(name, "smoke", 0, {})
        for setting, value in variant.overrides.items():
            if isinstance(value, bool):
                with pytest.raises(ValueError, match=f"sets {setting}="):
                    fit_config(name, "smoke", 0, {setting: not value})
        for part in set(PARTS) - set(READS[variant.kind]):
            with pytest.raises(ValueError, match="does not read"):
                fit_config(name, "smoke", 0, {setting: 1 for setting in setting_types() if setting.startswith(part)})
    assert {*NEEDS, *(switch for switch, _ in NEEDS.values())} <= set(setting_types())


def test_the_list_has_every_setting_with_its_meaning_and_origin() -> None:
    assert set(MEANINGS) == set(setting_types())
    lines = {line["setting"]: line for line in setting_list("quick", "tiger", {"levels": 2})}
    assert list(lines) == list(setting_types())
    wanted = {
        "data.k_core": (0, "default"),
        "tokenizer.epoch_steps": (100, "preset"),
        "recommender.dropout": ({"long": 0.2, "short": 0.5}, "recipe"),
        "recommender.reweight": (False, "variant"),
        "tokenizer.levels": (2, "given"),
    }
    assert {name: (lines[name]["value"], lines[name]["source"]) for name in wanted} == wanted
    assert lines["recommender.reweight"]["default"] is True
    long = {line["setting"]: line["value"] for line in setting_list("quick", "tiger", {}, events=100)}
    assert long["recommender.dropout"] == 0.2
    assert as_table(list(lines.values())).filter(setting="recommender.dropout")["value"][0] == "long 0.2, short 0.5"


@pytest.mark.parametrize("variant", ["bbqrec", "tiger", "sasrec", "published-codes"])
def test_the_list_agrees_with_the_settings_of_the_row(variant: str) -> None:
    config = fit_config(variant, "smoke", 0, {})
    for line in setting_list("smoke", variant):
        part, _, name = line["setting"].partition(".")
        if (variant, name) != ("published-codes", "uniqueness"):  # decided when the data are known
            assert line["value"] == getattr(getattr(config, part), name)
    assert make_config("smoke").given == ()
