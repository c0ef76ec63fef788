"""One thread per process."""

import os


def use_one_thread() -> None:
    """Limit this process and its children to one thread each; call it before torch is imported.

    More threads than free cores are many times slower, and with one thread, results do not depend on `jobs`.
    """
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
