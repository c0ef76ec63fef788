"""Set-up that has to come before the first import of torch, matplotlib or the core."""

import os
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", MPLBACKEND="Agg")

import elsewhere
import pytest
from browser import chromium, lab, voila  # noqa: F401 - fixtures for tests marked `browser`
from jaxtyping import install_import_hook

import bbqrec_core.config  # noqa: F401 - ahead of the hook: settings refuse wrong types themselves, in their own words

# Every annotated public function checks its axes in tests, and only there.
install_import_hook("bbqrec_core", "typecheck.checker")
elsewhere.second_device()  # torch asks once, at the first backward pass, which devices there are

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root."""
    return ROOT


@pytest.fixture(scope="session")
def cache() -> Path:
    """The user's own cache folder, so that encoders are downloaded once per machine and not once per test run."""
    from bbqrec_core import sources

    return sources.cache_dir()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run whatever executes notebooks last: a broken unit then shows within seconds."""
    items.sort(key=lambda item: item.get_closest_marker("suite") is not None)
