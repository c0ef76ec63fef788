"""The book: the results of a run become linked pages that need no network."""

import re
from pathlib import Path
from urllib.parse import unquote, urlparse

import ipywidgets
import matplotlib.image
import nbformat
import pytest
import yaml
from ipywidgets.embed import embed_data

from bbqrec_lab.datasets import sources
from bbqrec_lab.experiments.presets import PRESETS
from bbqrec_lab.suite import book, book_sphinx

PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TABLE = "What it cost.\n\n| item_name | price |\n| --- | --- |\n| From $5 to $6 {sic} | 5 |\n"
ASKED = re.compile(r"""(?:<(?:script|img|iframe|source)\b[^>]*?\bsrc|<link\b[^>]*?\bhref)=["']([^"']+)["']""")
LOADED = re.compile(r"""url\(["']?(?!data:|#)([^)"']+)["']?\)|@import\s+["']([^"']+)["']""")


def executed_notebook() -> nbformat.NotebookNode:
    """A notebook like those of the suite: prose with a formula, parameters, an image, a table and two widgets."""
    slider = ipywidgets.IntSlider(value=3, description="levels")
    box = ipywidgets.VBox([slider, ipywidgets.HTML("<p>told by the kernel </p>")])
    done = ipywidgets.HBox([ipywidgets.Label("done")], layout={"display": "none"})
    saved = embed_data(views=[box, done], drop_defaults=False)["manager_state"]
    cells = [
        nbformat.v4.new_markdown_cell("# 00 · A question\n\n![A map](../figures/00_map.png)\n\n$$r_l = r_{l-1} - c$$"),
        nbformat.v4.new_code_cell('out_dir: str = "../runs"  # where', metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(
            '# Parameters\ndataset = "/some/folder/toys"\nseed = 1\nout_dir = "/some/folder"\n',
            metadata={"tags": ["injected-parameters"]},
        ),
        nbformat.v4.new_code_cell("draw()", outputs=[nbformat.v4.new_output("display_data", {"image/png": PICTURE})]),
        nbformat.v4.new_code_cell("show()", outputs=[nbformat.v4.new_output("display_data", {"text/markdown": TABLE})]),
        nbformat.v4.new_markdown_cell("See [the words](README.md#glossary) and [answers](solutions/00_a.ipynb)."),
        nbformat.v4.new_markdown_cell("**1 (by hand).** How many?"),
        nbformat.v4.new_code_cell("answer_1 = None\ncheck(answer_1)"),
        nbformat.v4.new_markdown_cell("**2 (compute).** How much?"),
        nbformat.v4.new_code_cell("answer_2 = None\ncheck(answer_2)"),
    ]
    for one in (done, box):
        view = {book.VIEW: {"model_id": one.model_id, "version_major": 2, "version_minor": 0}, "text/plain": "Box()"}
        cells.append(nbformat.v4.new_code_cell("box", outputs=[nbformat.v4.new_output("display_data", view)]))
    python = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata={**python, "widgets": {book.STATE: saved}})


def solutions() -> nbformat.NotebookNode:
    """Solutions of the exercises of the notebook; the setup before them is no solution."""
    cells = [
        nbformat.v4.new_markdown_cell("# Solutions\n\nThe setup."),
        nbformat.v4.new_code_cell("import torch"),
        nbformat.v4.new_markdown_cell("**1 (by hand).** Count, as in [the notebook](../00_first.ipynb)."),
        nbformat.v4.new_code_cell('answer_1 = len("<b>bold</b>")\nsolve(answer_1)'),
        nbformat.v4.new_markdown_cell("**2 (compute).** Divide."),
        nbformat.v4.new_code_cell("half = 3 / 2"),
        nbformat.v4.new_markdown_cell("Then round."),
        nbformat.v4.new_code_cell("answer_2 = round(half)"),
    ]
    return nbformat.v4.new_notebook(cells=cells)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parts of a repository that the book reads, and the results of a run in `runs`."""
    root = tmp_path_factory.mktemp("repository")
    pages = {
        "README.md": "# The project\n\n[First](notebooks/00_first.ipynb), [data](docs/data.md), [licence](LICENSE), "
        "[code](bbqrec_lab/suite/book.py), [the paper](https://arxiv.org/abs/2504.06636)\n\n## More\n\nWords.\n",
        "notebooks/README.md": "# Words\n\nBack to the [start](../README.md).\n\n## Glossary\n\nNone.\n",
        "docs/data.md": "# Data\n\nSee [the sets](datasets.md).\n",
        "docs/datasets.md": "# Datasets\n\nNone.\n",
        "LICENSE": "MIT\n",
        "CITATION.cff": "title: x\n",
    }
    for name, text in pages.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    run = root / "runs" / "planted-smoke" / "smoke"
    for folder in (root / "figures", run / "figures", run / "notebooks"):
        folder.mkdir(parents=True)
    for folder in (root / "figures", run / "figures"):
        matplotlib.image.imsave(folder / "00_map.png", [[0.0, float("runs" in str(folder))], [1.0, 0.5]])
    committed = root / "figures" / "ml-100k" / "full" / "main_results.md"  # not a page of the contents
    committed.parent.mkdir(parents=True)
    committed.write_text("| variant |\n| --- |\n")
    nbformat.write(executed_notebook(), run / "notebooks" / "00_first.ipynb")
    (run / "notebooks" / "00_first.done.json").write_text('{"seconds": 1.0}')
    (root / "notebooks" / "00_first.ipynb").touch()
    (root / "notebooks" / "solutions").mkdir()
    nbformat.write(solutions(), root / "notebooks" / "solutions" / "00_first.ipynb")
    (root / "notebooks" / "01_second.ipynb").touch()
    return root


@pytest.fixture(scope="module")
def site(repository: Path) -> Path:
    """Folder of the finished site."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(book, "notebook_folder", lambda: repository / "notebooks")
        first = book.build("planted-smoke", "smoke", repository / "runs")
    assert first == repository / "runs" / "book" / "planted-smoke" / "smoke" / "index.html"
    return first.parent


def pages_of(site: Path) -> dict[Path, str]:
    """Text per file, without _static, which contains a template of the theme."""
    files = [path for path in site.rglob("*.html") if "_static" not in path.parts]
    return {path: path.read_text(encoding="utf-8") for path in files}


def test_there_is_a_page_for_every_notebook_and_document(site: Path) -> None:
    wanted = {"index", "notebooks/index", "notebooks/00_first", "docs/data", "docs/datasets"}
    found = {path.relative_to(site).with_suffix("").as_posix() for path in pages_of(site)}
    assert wanted <= found


def test_scripts_styles_fonts_and_pictures_lie_beside_the_pages(site: Path) -> None:
    asked = [(path, name) for path, text in pages_of(site).items() for name in ASKED.findall(text)]
    styles = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.css")}
    asked += [(path, "".join(one)) for path, text in styles.items() for one in LOADED.findall(text)]
    assert len(asked) > 20
    assert [name for path, name in asked if urlparse(name).scheme not in ("", "data") or name.startswith("//")] == []
    local = [(path.parent / unquote(urlparse(name).path)) for path, name in asked if not name.startswith("data:")]
    assert [str(path) for path in local if not path.exists()] == []


def test_links_between_pages_lead_somewhere(site: Path) -> None:
    lost = []
    for path, text in pages_of(site).items():
        for link in re.findall(r'<a\b[^>]*?\bhref="([^"]+)"', text):
            parts = urlparse(link)
            target = path.parent / unquote(parts.path) if parts.path else path
            anchored = not parts.fragment or f'id="{parts.fragment}"' in target.read_text(encoding="utf-8")
            lost += [] if parts.scheme or (target.exists() and anchored) else [f"{path.name}: {link}"]
    assert lost == []


def test_links_to_files_that_the_site_lacks_are_plain_words(site: Path) -> None:
    page, start = (site / "notebooks" / "00_first.html").read_text(), (site / "index.html").read_text()
    assert re.search(r">the words</span></a> and answers\.", page)
    assert ", code, " in start
    assert 'href="https://arxiv.org/abs/2504.06636"' in start


def test_tables_of_outputs_are_tables_and_titles_are_no_formulas(site: Path) -> None:
    page = (site / "notebooks" / "00_first.html").read_text()
    assert re.search(r"<td><p>From \$5 to \$6 \{sic\}</p></td>", page)
    assert "| --- |" not in page
    assert "item_\u200bname" in page


def test_each_solution_is_folded_after_its_answer_with_all_its_parts(site: Path) -> None:
    page = (site / "notebooks" / "00_first.html").read_text()
    folded = re.findall(r'<details class="bb-solution">.*?</details>', page, re.DOTALL)
    first, second = (re.sub("<[^>]*>", "", one) for one in folded)
    assert "Solution of exercise 1" in first
    assert 'answer_1 = len("&lt;b&gt;bold&lt;/b&gt;")' in first.replace("&quot;", '"')
    assert all(part in second for part in ("Divide.", "half = 3 / 2", "Then round.", "answer_2 = round(half)"))
    assert "import torch" not in page, "the setup of the solutions is no solution"
    places = [
        page.index(text) for text in ("How many?", "Solution of exercise 1", "How much?", "Solution of exercise 2")
    ]
    assert places == sorted(places)


def test_formulas_need_no_script(site: Path) -> None:
    page = (site / "notebooks" / "00_first.html").read_text()
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in page
    assert "<msub><mi>r</mi>" in page
    assert [name for name in ASKED.findall(page) if "mathjax" in name.lower()] == []
    with pytest.raises(ValueError, match=r"cannot show .*operatorname"):
        book_sphinx.formula(r"\operatorname*{argmin}_k x", "block")


def test_a_widget_is_a_place_with_words_and_its_state(site: Path) -> None:
    page = (site / "notebooks" / "00_first.html").read_text()
    assert page.count('class="bb-widget"') == 1, "hidden widgets are omitted"
    assert page.count("make lab") == 1
    state = (site / "_static" / "widgets" / "00_first.js").read_text()
    assert "told by the kernel" in state
    assert '"disabled": true' in state
    assert '"disabled": false' not in state
    assert {path.name for path in (site / "_static" / "widgets").iterdir()} == {
        *("00_first.js", "book_widgets.js"),
        *book_sphinx.widget_scripts(),
    }


def test_no_folder_of_the_machine_is_told_and_the_run_is_named(site: Path, repository: Path) -> None:
    texts = "".join(pages_of(site).values()) + (site / "searchindex.js").read_text()
    assert "/some/folder" not in texts
    assert str(repository) not in texts
    assert "toys" in texts
    assert "bbqrec on planted-smoke, preset smoke" in texts


def test_a_title_shows_the_figure_of_the_run_in_place_of_the_default(site: Path, repository: Path) -> None:
    drawn = (repository / "runs" / "planted-smoke" / "smoke" / "figures" / "00_map.png").read_bytes()
    kept = (repository / "figures" / "00_map.png").read_bytes()
    shown = [path.read_bytes() for path in (site / "_images").iterdir()]
    assert drawn != kept
    assert drawn in shown
    assert kept not in shown


def test_without_a_run_the_remedy_is_named_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'no executed notebook in .*: run make reproduce ARGS="--dataset planted '):
        book.build("planted", "smoke", tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="no dataset 'nowhere'"):
        book.build("nowhere", "smoke", tmp_path)


def test_a_fault_of_a_page_is_an_error_and_the_site_before_stays(repository: Path, site: Path) -> None:
    broken = (repository / "docs" / "data.md").read_text()
    before = sorted(site.rglob("*"))
    try:
        (repository / "docs" / "data.md").write_text(broken + "\n[a section](#that-is-nowhere)\n")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(book, "notebook_folder", lambda: repository / "notebooks")
            with pytest.raises(ValueError, match=r"the pages have errors: .*that-is-nowhere"):
                book.build("planted-smoke", "smoke", repository / "runs")
    finally:
        (repository / "docs" / "data.md").write_text(broken)
    assert sorted(site.rglob("*")) == before


def test_the_command_prints_the_first_page(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    from bbqrec_lab import cli

    monkeypatch.setattr(book, "build", lambda *given: Path("first", *map(str, given)))
    assert cli.main(["book", "--dataset", "planted", "--preset", "smoke", "--out", "x"]) == 0
    assert capsys.readouterr().out == "first/planted/smoke/x\n"


LAUNCH = re.compile(r'href="(https://(?:mybinder|colab|github)[^"]*)"')


def test_without_a_public_name_no_page_links_to_a_host_of_notebooks(site: Path) -> None:
    assert LAUNCH.findall("".join(pages_of(site).values())) == []


def test_the_public_name_of_the_repository_gives_links_to_colab_and_binder(repository: Path, tmp_path: Path) -> None:
    executed = [repository / "runs" / "planted-smoke" / "smoke" / "notebooks" / "00_first.ipynb"]
    book.gather(repository, executed, tmp_path / "source", "owner/a.name")
    book.run_sphinx(tmp_path / "source", tmp_path / "site", "a title", "owner/a.name")
    page = (tmp_path / "site" / "notebooks" / "00_first.html").read_text()
    assert {
        "https://mybinder.org/v2/gh/owner/a.name/main?urlpath=lab/tree/notebooks/00_first.ipynb",
        "https://colab.research.google.com/github/owner/a.name/blob/main/notebooks/00_first.ipynb",
        "https://github.com/owner/a.name",
    } <= set(LAUNCH.findall(page))
    assert "pip install -q git+https://github.com/owner/a.name" in re.sub("<[^>]*>", "", page)
    assert [name for name in ASKED.findall(page) if urlparse(name).scheme not in ("", "data")] == [], "links only"


@pytest.mark.parametrize(
    ("text", "name"), [("", ""), ('repository = ""', ""), ('repository = "a-b/c.d"', "a-b/c.d"), (None, "")]
)
def test_the_public_name_is_one_setting(tmp_path: Path, text: str | None, name: str) -> None:
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(f"[tool.bbqrec]\n{text}\n")
    assert book.public_repository(tmp_path) == name


def test_a_public_name_of_another_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.bbqrec]\nrepository = "https://github.com/a/b"\n')
    with pytest.raises(ValueError, match=r"OWNER/NAME on GitHub or empty, got 'https"):
        book.public_repository(tmp_path)


def test_a_folder_to_publish_has_the_book_and_the_report_with_all_links_between_them(
    repository: Path, site: Path, tmp_path: Path
) -> None:
    assert site.is_dir()
    first = book.site("planted-smoke", "smoke", repository / "runs", tmp_path / "site")
    found = re.findall('href="([^"]+)"', first.read_text())
    assert found == ["book/planted-smoke/smoke/index.html", "planted-smoke/smoke/index.html"]
    assert all((tmp_path / "site" / link).is_file() for link in found)
    report = tmp_path / "site" / found[1]
    links = [link for link in re.findall('href="([^"]+)"', report.read_text()) if link[0] != "#" and link != "data:,"]
    assert "../../book/planted-smoke/smoke/notebooks/00_first.html" in links
    assert [link for link in links if not (report.parent / link).exists()] == []
    assert (tmp_path / "site" / ".nojekyll").exists()
    with pytest.raises(ValueError, match="has content"):
        book.site("planted-smoke", "smoke", repository / "runs", tmp_path / "site")
    with pytest.raises(ValueError, match=r"no book in .*: run make book first"):
        book.site("planted", "smoke", repository / "runs", tmp_path / "other")


def test_the_workflow_offers_what_is_registered_and_runs_a_target_that_exists() -> None:
    root = Path(__file__).resolve().parents[3]
    workflow = yaml.safe_load((root / ".github" / "workflows" / "pages.yml").read_text())
    inputs = workflow[True]["workflow_dispatch"]["inputs"]  # YAML reads the key `on` as true
    assert set(inputs["dataset"]["options"]) == set(sources.REGISTRY)
    assert inputs["preset"]["options"] == list(PRESETS)
    steps = workflow["jobs"]["build"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ['make site DATASET="$DATASET" PRESET="$PRESET"']
    assert re.search(r"(?m)^site:", (root / "Makefile").read_text())
    assert steps[-1]["with"]["path"] == "runs/site"


def test_without_sphinx_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(book.importlib.util, "find_spec", lambda name, *of: None)
    with pytest.raises(ValueError, match=r"Sphinx is not installed: .*make book"):
        book.build("planted", "smoke", tmp_path)
