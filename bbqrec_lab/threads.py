"""One thread per process, for every way in: commands, notebooks, scripts, and the workers of a pool."""

import os
import sys
from functools import cache

COUNTS = (  # what OpenMP, MKL, OpenBLAS, numexpr and Apple's vecLib read when they are loaded
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
)
OTHERS = ("MKL_DOMAIN_NUM_THREADS", "OMP_THREAD_LIMIT", "GOTO_NUM_THREADS", "BLIS_NUM_THREADS")  # that overrule these


def use_one_thread() -> None:
    """Limit this process and its children to one thread each, whatever the environment says.

    More threads than free cores are many times slower, and with one thread, results do not depend on `jobs` or on the
    machine. Libraries that are not loaded yet read the environment; those that are loaded are told.
    """
    for name in OTHERS:
        os.environ.pop(name, None)
    os.environ.update(dict.fromkeys(COUNTS, "1"), OMP_WAIT_POLICY="PASSIVE", OMP_DYNAMIC="FALSE", MKL_DYNAMIC="FALSE")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if "numpy" in sys.modules:
        _limit_loaded()


@cache
def _limit_loaded() -> None:
    """Tell the libraries of linear algebra that are loaded; the search for them takes milliseconds, so only once."""
    from threadpoolctl import threadpool_limits  # of scikit-learn

    threadpool_limits(limits=1)
