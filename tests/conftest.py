"""Set-up that must run before the first import of torch, matplotlib or the core."""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", MPLBACKEND="Agg")

import elsewhere
import pytest
from browser import chromium, lab, voila  # noqa: F401 - fixtures for tests marked `browser`
from elsewhere import device  # noqa: F401 - a fixture for tests of other devices than the CPU
from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {"bbqrec_core.config", "bbqrec_lab.settings", "bbqrec_lab.experiments.presets"}  # check their own types


def checked_modules() -> list[str]:
    """All modules of both packages except the settings, which reject wrong types with their own messages."""
    files = [file for package in ("bbqrec_core", "bbqrec_lab") for file in (ROOT / package).rglob("*.py")]
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files if file.name != "__init__.py"}
    return sorted(names - SETTINGS)


pytest.register_assert_rewrite(
    "block_laws", "identities", "peers", "recommender_laws", "settings_laws", "tokenizer_laws"
)
# Annotated functions check types and axes only in tests.
install_import_hook(checked_modules(), "typecheck.checker")
elsewhere.second_device()  # must come before the first backward pass, when torch lists the devices once


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root."""
    return ROOT


@pytest.fixture(scope="session")
def cache() -> Path:
    """The cache folder of the user, so that encoders are downloaded once per machine and not per test run."""
    from bbqrec_lab.datasets import download

    return download.cache_dir()


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Undo changes of the environment: commands fix threads and the path of modules for all that run after them."""
    os.environ.pop("PYTHONSAFEPATH", None)  # of a command that a fixture of the module ran
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests marked `suite` last, so that a failing unit test shows within seconds."""
    items.sort(key=lambda item: item.get_closest_marker("suite") is not None)
