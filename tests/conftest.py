"""Set-up that has to come before the first import of torch, matplotlib or the core."""

import os
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", MPLBACKEND="Agg")

import elsewhere
import pytest
from browser import chromium, lab, voila  # noqa: F401 - fixtures for tests marked `browser`
from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {"bbqrec_core.config", "bbqrec_lab.settings", "bbqrec_lab.experiments.presets"}  # they check themselves


def checked_modules() -> list[str]:
    """Every module of both packages but those of settings, which refuse wrong types in their own words."""
    files = [file for package in ("bbqrec_core", "bbqrec_lab") for file in (ROOT / package).rglob("*.py")]
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files if file.name != "__init__.py"}
    return sorted(names - SETTINGS)


# Every annotated public function checks its axes in tests, and only there.
install_import_hook(checked_modules(), "typecheck.checker")
elsewhere.second_device()  # torch asks once, at the first backward pass, which devices there are


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root."""
    return ROOT


@pytest.fixture(scope="session")
def cache() -> Path:
    """The user's own cache folder, so that encoders are downloaded once per machine and not once per test run."""
    from bbqrec_lab.datasets import download

    return download.cache_dir()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run whatever executes notebooks last: a broken unit then shows within seconds."""
    items.sort(key=lambda item: item.get_closest_marker("suite") is not None)
