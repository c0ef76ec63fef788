"""The codebook inspector: a map of all items, a selection of items, and details of their codes.

`atlas` collects the data, `views` draws them, `widget` adds controls. The code here trains no model.
"""

from .atlas import Atlas, State, asking, choices, colouring, near, rows_with
from .views import CAUTION, compare_view, sharing, static_page
from .widget import Inspector, survey_workspace

__all__ = [
    "CAUTION",
    "Atlas",
    "Inspector",
    "State",
    "asking",
    "choices",
    "colouring",
    "compare_view",
    "near",
    "rows_with",
    "sharing",
    "static_page",
    "survey_workspace",
]
