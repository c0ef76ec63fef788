"""On planted data the two parts of a feature come apart: behaviour goes into the codes, nuisance stays beside them."""

from pathlib import Path

import pytest

from bbqrec_core import fit_tokenizer
from bbqrec_lab.analysis import probes
from bbqrec_lab.analysis.sweeps import SEPARATING
from bbqrec_lab.datasets import planted, sources
from bbqrec_lab.experiments.presets import make_config

MARGIN = 0.3  # of the way from chance to certainty


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 items with a behaviour factor of 12 values and, for text and image, a nuisance of 6 values each."""
    knobs = planted.PlantedConfig(users=200, items=120, branching=(4, 3), features="direct")
    return planted.write_planted(tmp_path_factory.mktemp("planted") / "bundle", knobs)


def gains(bundle: Path, scratch: Path, **changes: object) -> dict[str, dict[str, float]]:
    """Factor -> part -> gain of a linear probe (0 chance, 1 certainty), mean over text and image."""
    data = sources.load(bundle)
    truth = planted.load_truth(bundle, data)
    config = make_config("smoke", 0, SEPARATING | changes).tokenizer
    done = fit_tokenizer(data, config, 0, scratch)
    factors = {"behaviour factor": truth["leaf"]} | {name: truth[name] for name in truth if "nuisance" in name}
    return probes.mean_gains(probes.probe_signals(data, done, factors))


@pytest.fixture(scope="module")
def separated(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """Gains with both terms on."""
    return gains(bundle, tmp_path_factory.mktemp("both"))


def test_features_show_both_factors(separated: dict) -> None:
    assert separated["behaviour factor"]["raw"] > 0.9
    assert separated["own nuisance"]["raw"] > 0.9


def test_codes_know_behaviour_and_not_nuisance(separated: dict) -> None:
    behaviour, nuisance = separated["behaviour factor"]["quantized"], separated["own nuisance"]["quantized"]
    assert behaviour > 0.7
    assert behaviour > nuisance + MARGIN


def test_the_behaviour_part_knows_behaviour_better_than_nuisance(separated: dict) -> None:
    assert separated["behaviour factor"]["behaviour"] > separated["own nuisance"]["behaviour"] + 0.1


def test_the_specific_part_knows_nuisance_and_not_behaviour(separated: dict) -> None:
    behaviour, nuisance = separated["behaviour factor"]["specific"], separated["own nuisance"]["specific"]
    assert nuisance > 0.6
    assert nuisance > behaviour + MARGIN


def test_without_the_pull_across_modalities_codes_lose_the_behaviour_factor(
    bundle: Path, separated: dict, tmp_path: Path
) -> None:
    alone = gains(bundle, tmp_path, w_cross=0.0)
    assert alone["behaviour factor"]["quantized"] < separated["behaviour factor"]["quantized"] - MARGIN
    assert alone["own nuisance"]["quantized"] > separated["own nuisance"]["quantized"] + 0.1
