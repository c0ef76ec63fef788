"""The laboratory around `bbqrec_core`: data, baselines, experiments, analysis, plots, widgets, the suite.

The laboratory imports the core, and each of its packages imports only lower ones (docs/design.md lists the order). A
notebook starts from `Workspace`, which loads or computes everything that its parameters name. A script starts from
`load`, `fit`, `recommend`, `recommend_users`, `list_runs` and `find_run`, which do what the commands do.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bbqrec_lab.datasets.sources import load
    from bbqrec_lab.experiments.fitting import fit
    from bbqrec_lab.experiments.run_labels import find_run, list_runs
    from bbqrec_lab.experiments.runs import recommend, recommend_users
    from bbqrec_lab.notebook import Workspace

_HOMES = {  # imported on first use, so the command line starts at once
    "Workspace": "notebook",
    "load": "datasets.sources",
    "fit": "experiments.fitting",
    "recommend": "experiments.runs",
    "recommend_users": "experiments.runs",
    "list_runs": "experiments.run_labels",
    "find_run": "experiments.run_labels",
}
__all__ = ["Workspace", "find_run", "fit", "list_runs", "load", "recommend", "recommend_users"]


def __getattr__(name: str) -> object:
    """The public names, each from its module."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
