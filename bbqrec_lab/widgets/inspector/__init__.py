"""The codebook inspector: a map of items, a code chosen on it, and everything known about that code.

`atlas` gathers what is shown, `views` draws it, `widget` connects it with controls. Nothing here trains.
"""

from .atlas import Atlas, State, asking, choices, colouring, near, rows_with
from .views import compare_view, static_page
from .widget import Inspector, survey_workspace

__all__ = [
    "Atlas",
    "Inspector",
    "State",
    "asking",
    "choices",
    "colouring",
    "compare_view",
    "near",
    "rows_with",
    "static_page",
    "survey_workspace",
]
