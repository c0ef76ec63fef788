"""No code from the current folder: a file `pip.py` beside the user's data must not run in place of the package."""

import os
import sys
from pathlib import Path

VARIABLE = "PYTHONSAFEPATH"  # Python then leaves the current folder out of its path, also with -m and -c


def protect_children() -> None:
    """Make all processes that this one starts ignore modules in their current folder."""
    os.environ[VARIABLE] = "1"


def leave_current_folder() -> None:
    """Take the current folder from the path of this process, as `python -m` puts it there, unless it is the project's.

    Without this, modules that are imported later, and the workers of a pool, would still come from it.
    """
    try:
        current = Path.cwd()
    except OSError:  # it has been deleted
        return
    if current != Path(__file__).resolve().parent.parent:
        sys.path[:] = [entry for entry in sys.path if entry and Path(entry) != current]
