"""A counting bar is drawn for readers only: text in a terminal, a widget in an open notebook, nothing in papermill."""

import io
import sys
from types import SimpleNamespace

import pytest
import tqdm.notebook

from bbqrec_lab import frontend


class Stream(io.StringIO):
    """Standard error, of a terminal or not."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize("terminal", [True, False])
def test_text_of_a_bar_is_written_to_a_terminal_only(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Stream(terminal))
    with frontend.counting_bar(3, "encoding texts", "texts") as bar:
        bar.update(3)
    assert ("encoding texts" in sys.stderr.getvalue()) == terminal


@pytest.mark.parametrize(("metadata", "is_open"), [({"cellId": "a"}, True), ({}, False)])
def test_an_open_notebook_is_told_by_the_name_of_its_cell(
    metadata: dict, is_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = SimpleNamespace(get_parent=lambda channel: {"metadata": metadata})
    monkeypatch.setattr(frontend, "kernel", lambda: kernel)
    with frontend.counting_bar(3, "encoding texts", "texts") as bar:
        assert frontend.has_frontend() == is_open
        assert isinstance(bar, tqdm.notebook.tqdm) == is_open
        assert bar.disable != is_open
