"""The laboratory around `bbqrec_core`: data, baselines, experiments, analysis, plots, widgets, the suite.

The laboratory imports the core, and each of its packages imports only lower ones (docs/design.md lists the order). A
notebook starts from `Workspace`, which loads or computes everything that its parameters name.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bbqrec_lab.notebook import Workspace

__all__ = ["Workspace"]


def __getattr__(name: str) -> object:
    """`Workspace`, imported on first use, so the command line starts at once."""
    if name == "Workspace":
        from bbqrec_lab.notebook import Workspace

        return Workspace
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
