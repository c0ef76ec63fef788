"""Where this process shows its progress: in a notebook that a person has open, in a terminal, or nowhere."""

import sys

from tqdm import tqdm


def kernel() -> object | None:
    """The Jupyter kernel of this process; None outside of notebooks."""
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None)


def has_frontend() -> bool:
    """Whether this code runs for a cell that a person has open in a frontend, and not for papermill or nbclient.

    Choice: frontends name the cell in their request to the kernel, papermill and nbclient do not.
    """
    found = kernel()
    return found is not None and "cellId" in found.get_parent("shell").get("metadata", {})


def counting_bar(total: int, what: str, unit: str) -> tqdm:
    """A bar that counts finished parts: of ipywidgets in an open notebook, of text in a terminal, else an unseen one.

    An executed notebook must not have the text of a bar among its outputs.
    """
    if has_frontend():
        from tqdm.notebook import tqdm as widget

        return widget(total=total, desc=what, unit=f" {unit}", leave=False)
    return tqdm(total=total, desc=what, unit=f" {unit}", disable=None)
