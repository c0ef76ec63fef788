"""A notebook as a web page: a copy with other parameters and without external images; wrong requests are rejected."""

import socket
from pathlib import Path

import nbformat
import pytest

from bbqrec_lab.suite import notebooks, web_page


def test_the_copy_has_the_parameters_and_no_outside_pictures(root: Path, tmp_path: Path) -> None:
    (source,) = notebooks.discover(root / "notebooks", ("07",))
    before = source.read_bytes()
    web_page.page_copy(source, tmp_path / "pages" / "07.ipynb", {"dataset": "planted", "out_dir": "elsewhere"})
    copy = nbformat.read(tmp_path / "pages" / "07.ipynb", as_version=4)
    (injected,) = [cell.source for cell in copy.cells if "injected-parameters" in cell.metadata.get("tags", ())]
    assert 'dataset = "planted"' in injected
    assert "](../figures" not in "".join(cell.source for cell in copy.cells)
    assert source.read_bytes() == before


def test_the_page_of_the_inspector_is_a_heading_and_the_instrument(root: Path, tmp_path: Path) -> None:
    (source,) = notebooks.discover(root / "notebooks", ("07",))
    web_page.page_copy(source, tmp_path / "07.ipynb", {"dataset": "planted"})
    copy = nbformat.read(tmp_path / "07.ipynb", as_version=4)
    prose = [cell.source for cell in copy.cells if cell.cell_type == "markdown"]
    assert prose == ["# 07 · What does a code mean?"]
    code = [cell.source for cell in copy.cells if cell.cell_type == "code"]
    assert code[-1].endswith("display(tool.box)")
    assert len(code) == 5, "parameters twice, imports, set-up, instrument"


def test_a_notebook_without_page_cells_is_shown_whole_without_outside_pictures(root: Path, tmp_path: Path) -> None:
    (source,) = notebooks.discover(root / "notebooks", ("04",))
    web_page.page_copy(source, tmp_path / "04.ipynb", {"dataset": "planted"})
    before, copy = (nbformat.read(path, as_version=4).cells for path in (source, tmp_path / "04.ipynb"))
    assert len(copy) == len(before) + 1, "the injected parameters"
    prose = "".join(cell.source for cell in copy if cell.cell_type == "markdown")
    assert "**Needs**" in prose
    assert "](../figures" not in prose


def test_unknown_parameters_and_data_are_refused(root: Path, tmp_path: Path) -> None:
    (source,) = notebooks.discover(root / "notebooks", ("07",))
    with pytest.raises(ValueError, match="does not declare colour"):
        web_page.page_copy(source, tmp_path / "07.ipynb", {"colour": "red"})
    assert not (tmp_path / "07.ipynb").exists()


def test_without_voila_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_page.importlib.util, "find_spec", lambda name, *of: None)
    with pytest.raises(ValueError, match=r"Voila is not installed: .*make inspector"):
        web_page.serve_page("07", "planted", "smoke", tmp_path, 1, {})


def test_a_port_in_use_is_refused_before_an_address_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    found = web_page.importlib.util.find_spec
    monkeypatch.setattr(web_page.importlib.util, "find_spec", lambda name, *of: name == "voila" or found(name, *of))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=rf"port {port} cannot be used \(.*\): give another with --port"):
            web_page.serve_page("07", "planted", "smoke", tmp_path, port, {})
    assert "serves the page" not in capsys.readouterr().err


def test_the_page_is_served_on_this_machine_only_and_asks_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, found = [], web_page.importlib.util.find_spec
    monkeypatch.setattr(web_page.importlib.util, "find_spec", lambda name, *of: name == "voila" or found(name, *of))

    def run(command: list[str], env: dict[str, str]) -> int:
        (page,) = (
            nbformat.read(word, as_version=4) for word in command if word.endswith("07_codebook_inspector.ipynb")
        )
        template = Path(env["JUPYTER_PATH"].split(":")[0]) / "voila" / "templates" / "bbqrec" / "index.html.j2"
        calls.append((command, env, page, template.read_text()))
        return 0

    monkeypatch.setattr(web_page, "until_interrupted", run)
    assert web_page.serve_page("07", "planted", "smoke", tmp_path, 8123, {"text_encoder": "ngrams"}, "dark") == 0
    ((command, env, page, template),) = calls
    assert "--VoilaConfiguration.theme=dark" in command
    assert any('overrides = {"text_encoder": "ngrams"}' in cell.source for cell in page.cells)
    assert "--Voila.ip=127.0.0.1" in command
    assert "--Voila.port=8123" in command
    assert "--VoilaConfiguration.preheat_kernel=True" in command, "a page opens with its content"
    assert web_page.CDN + "all.min.css', 'data:text/css,'" in template
    assert len(env["JUPYTER_TOKEN"]) >= 32
    assert env["JUPYTER_TOKEN"] not in " ".join(command), "other users of the machine see command lines"
