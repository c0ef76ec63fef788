"""Everything a laboratory adds to `bbqrec_core`: data, baselines, experiments, analysis, plots, widgets, the suite.

Arrows run from here to the core, and inside from a room to those below it (docs/design.md lists the floors). A notebook
starts from `Workspace`, which finds or makes everything that its parameters name.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bbqrec_lab.notebook import Workspace

__all__ = ["Workspace"]


def __getattr__(name: str) -> object:
    """`Workspace`, imported when it is asked for, so that the command line starts at once."""
    if name == "Workspace":
        from bbqrec_lab.notebook import Workspace

        return Workspace
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
