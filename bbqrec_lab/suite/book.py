"""The executed notebooks as a web site for offline reading: Sphinx pages, with widgets in the state of the run."""

import importlib.metadata
import importlib.util
import io
import json
import re
import shutil
import tempfile
import tomllib
import warnings
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from bbqrec_lab.suite import book_solutions, report
from bbqrec_lab.suite.notebooks import notebook_folder
from bbqrec_lab.terminal import say

VIEW, STATE = "application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json"
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
PAGES = ("notebooks/README.md", "docs/data.md", "docs/datasets.md")
COLOUR = re.compile(r"\x1b\[[\d;]*m")
FIGURE = re.compile(r"\]\(\.\./figures/([\w-]+\.png)\)")
HEAD = re.compile(r"^\|.*\|$(?=\n\| --- )", re.MULTILINE)
ALSO = ("LICENSE", "CITATION.cff")  # linked from a page, so the site has a copy
FIRST_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>bbqrec</title><meta http-equiv="refresh" content="0; url={0}/index.html">
<p><a href="{0}/index.html">The notebooks</a></p><p><a href="{1}/index.html">The report of the run</a></p>
</html>
"""
SETTINGS = {  # Sphinx settings, used instead of a conf.py
    "project": "bbqrec",
    "author": "bbqrec authors",
    "extensions": ["myst_nb", "bbqrec_lab.suite.book_sphinx"],
    "master_doc": "index",
    "html_theme": "sphinx_book_theme",
    "html_theme_options": {
        "home_page_in_toc": True,
        "use_download_button": False,
        "show_navbar_depth": 1,
        "navbar_persistent": [],
    },
    "html_context": {
        "default_mode": "auto"
    },  # as the system of the reader; figures and widgets keep a white background
    "html_math_renderer": "mathml",
    "html_show_sphinx": False,
    "html_copy_source": False,
    "html_show_search_summary": False,  # summaries need fetch(), which browsers block for local files
    "nb_execution_mode": "off",
    "nb_ipywidgets_js": {},
    "nb_merge_streams": True,
    "nb_render_markdown_format": "gfm",  # for outputs: tables, but no roles and no formulas in item titles
    "myst_enable_extensions": ["dollarmath"],
    "myst_heading_anchors": 3,
}
LIVE = (
    "This widget shows the state that the run saved. Its controls need a running Python kernel: use <code>make "
    "lab</code> to open the notebook, and run this cell. The figures above show the same content."
)
MAP = " The map can be moved, zoomed and hovered over on this page too."
INSTALL = """On Colab, install the packages first, in a new cell: `!pip install -q git+https://github.com/{}`"""
UNDRAWN = "This browser could not draw the widget."


def run_of(dataset: str, preset: str, out: Path) -> Path:
    """Return the folder of a finished run, without building or downloading the dataset.

    Raises: ValueError if the dataset is neither a registered name nor a folder.
    """
    from bbqrec_lab.datasets import reading, sources
    from bbqrec_lab.experiments import runs

    dataset = sources.absolute_dataset(dataset)
    if dataset in sources.REGISTRY:
        return out / dataset / preset
    return runs.run_folder(out, dataset, preset, reading.read_bundle(dataset, reading.DataConfig()))


def build(dataset: str, preset: str, out: Path) -> Path:
    """Build the site of one run in `out/book/DATASET/PRESET`; it replaces an earlier site once it is complete.

    Returns: path of the first page.
    Raises: ValueError if the tools are not installed, no notebook was executed, or a page has an error.
    """
    if not all(importlib.util.find_spec(name) for name in ("sphinx", "myst_nb", "sphinx_book_theme", "voila")):
        raise ValueError("Sphinx is not installed: pip install -c constraints.txt -e '.[dev]', or run make book")
    out = Path(out).expanduser().resolve()
    run, root = run_of(dataset, preset, out), notebook_folder().parent
    executed = sorted((run / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    executed = [path for path in executed if not path.name.endswith(".unfinished.ipynb")]
    if not executed:
        asked = f'make reproduce ARGS="--dataset {dataset} --preset {preset}"'
        raise ValueError(f"no executed notebook in {run / 'notebooks'}: run {asked} first")
    lacking = sorted({path.name for path in notebook_folder().glob("[0-9]*.ipynb")} - {path.name for path in executed})
    if lacking:
        say(f"not executed in this run and therefore omitted: {', '.join(lacking)}")
    target = out / "book" / run.parent.name / preset
    book_solutions.execute(run, executed, notebook_folder())
    with tempfile.TemporaryDirectory() as folder:
        source, site = Path(folder) / "source", Path(folder) / "site"
        public = public_repository(root)
        gather(root, executed, source, public)
        say(f"{len(executed)} notebooks and {len(PAGES) + 1} other pages; this takes less than a minute")
        run_sphinx(source, site, f"bbqrec on {run.parent.name}, preset {preset}", public)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(site, target)
    report.write(run)  # its list of notebooks links to the pages now
    return target / "index.html"


def public_repository(root: Path) -> str:
    """`OWNER/NAME` of the repository on GitHub, from `tool.bbqrec.repository` in `pyproject.toml`; empty if not set.

    Raises: ValueError for another form.
    """
    path = root / "pyproject.toml"
    settings = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    name = settings.get("tool", {}).get("bbqrec", {}).get("repository", "")
    if name and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ValueError(f"repository of tool.bbqrec in {path} must be OWNER/NAME on GitHub or empty, got {name!r}")
    return name


def site(dataset: str, preset: str, out: Path, target: Path) -> Path:
    """Copy the book and the run, with its report and its executed notebooks, into an empty folder to publish.

    The folders are those of `out`, so that the links between both work; the report no longer links to stored models.

    Returns: path of the first page, which leads to the book.
    Raises: ValueError if there is no book of this run, or if the folder has content.
    """
    out, target = Path(out).expanduser().resolve(), Path(target).expanduser().resolve()
    run = run_of(dataset, preset, out)
    pages = out / "book" / run.parent.name / preset
    if not (pages / "index.html").exists():
        raise ValueError(f"no book in {pages}: run make book first")
    if target.exists() and any(target.iterdir()):
        raise ValueError(f"{target} has content: give an empty folder")
    for folder in (run, pages):
        shutil.copytree(folder, target / folder.relative_to(out), dirs_exist_ok=True)
    report.write(target / run.relative_to(out))
    places = [quote(folder.relative_to(out).as_posix()) for folder in (pages, run)]
    (target / "index.html").write_text(FIRST_PAGE.format(*places), encoding="utf-8")
    (target / ".nojekyll").touch()  # GitHub leaves out folders such as _static otherwise
    return target / "index.html"


def gather(root: Path, executed: Iterable[Path], source: Path, public: str = "") -> None:
    """Write the source folder for Sphinx. Its layout is that of the repository, so that links between pages work.

    Args: root: the repository. executed: notebooks with outputs; the figures of the run are in `../figures`. public:
        `OWNER/NAME` of the repository on GitHub, or empty.
    """
    import nbformat

    (source / "notebooks").mkdir(parents=True)
    tables = shutil.ignore_patterns("*.md", "rows")  # of committed runs: no page shows them
    shutil.copytree(root / "figures", source / "figures", ignore=tables)
    for name in ALSO:
        shutil.copyfile(root / name, source / name)
    there = {"README.md", *PAGES, *ALSO, *(f"notebooks/{path.name}" for path in executed)}
    for name in ("README.md", *PAGES):
        text = linked((root / name).read_text(encoding="utf-8"), name, there)
        target = source / name.replace("README", "index")
        target.parent.mkdir(exist_ok=True)
        target.write_text(text + (contents(executed) if name == "README.md" else ""), encoding="utf-8")
    for path in executed:
        notebook, state = as_page(nbformat.read(path, as_version=4), path.stem)
        solved = book_solutions.solution_of(path.parent.parent, path.name, root / "notebooks")
        if solved.exists():
            book_solutions.add(notebook, nbformat.read(solved, as_version=4))
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = own_figures(linked(cell.source, f"notebooks/{path.name}", there), path, source)
        if public:
            notebook.cells[0].source += f"\n\n{INSTALL.format(public)}"
        nbformat.write(notebook, source / "notebooks" / path.name)
        if state:
            widgets = source / "_static" / "widgets"
            widgets.mkdir(parents=True, exist_ok=True)
            (widgets / f"{path.stem}.js").write_text(f"window.bbWidgets = {json.dumps(state)};\n", encoding="utf-8")


def linked(text: str, page: str, there: set[str]) -> str:
    """Adapt the links of a page: links to files of the site stay, links to other repository files become plain text.

    Args: page: path of the text in the repository. there: repository files that the site contains.
    """

    def answer(found: re.Match) -> str:
        words, target, anchor = found[1], found[2], found[3] or ""
        if "://" in target or target.startswith("mailto:"):
            return found[0]
        parts: list[str] = []
        for part in [*Path(page).parent.parts, *target.split("/")]:
            parts = parts[:-1] if part == ".." else [*parts, part]
        if "/".join(parts) not in there:
            return words
        return f"[{words}]({target.replace('README.md', 'index.md')}{anchor})"

    return LINK.sub(answer, text)


def own_figures(text: str, executed: Path, source: Path) -> str:
    """Replace figures of the default run by the figures of this run, if it drew them too."""

    def answer(found: re.Match) -> str:
        drawn = executed.parent.parent / "figures" / found[1]
        if not drawn.is_file():
            return found[0]
        target = source / "figures" / "of_this_run" / found[1]
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(drawn, target)
        return f"](../figures/of_this_run/{found[1]})"

    return FIGURE.sub(answer, text)


def contents(executed: Iterable[Path]) -> str:
    """The table of contents, which Sphinx shows next to every page."""
    notebooks = "\n".join(f"notebooks/{path.stem}" for path in executed)
    others = "notebooks/index\n" + "\n".join(name.removesuffix(".md") for name in PAGES[1:])
    toctree = "\n```{{toctree}}\n:hidden:\n:caption: {}\n:maxdepth: 1\n\n{}\n```\n"
    return toctree.format("Notebooks", notebooks) + toctree.format("Reference", others)


def as_page(notebook: object, name: str) -> tuple[object, dict]:
    """Convert an executed notebook to a page; also return the state of its widgets, empty if it has none.

    Each widget becomes a placeholder with a note, which `book_widgets.js` fills. Folder names of the machine that ran
    the notebook are removed. The notebook is changed in place.
    """
    saved = notebook.metadata.pop("widgets", {}).get(STATE, {})
    shown = False
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags:
            cell.source = re.sub(r"(?m)^out_dir = .*\n?", "", cell.source).replace(
                "# Parameters", "# Parameters of this run"
            )
            cell.source = re.sub(r'(?m)^(dataset = ").*/(.*")$', r"\1\2", cell.source)
        if {"parameters", "injected-parameters"} & set(tags):
            cell.metadata["tags"] = [*tags, "hide-input"]
        kept = []
        for output in cell.outputs:
            view, table = output.get("data", {}).get(VIEW), output.get("data", {}).get("text/markdown", "")
            if table:  # allow a line break after an underscore in column names
                output["data"]["text/markdown"] = HEAD.sub(lambda line: line[0].replace("_", "_\u200b"), table)
            if view is None or not hidden(saved["state"], view["model_id"]):
                kept.append(output)
            if view is not None:
                output["data"] = {"text/html": place(view["model_id"], name, not shown, saved["state"])}
                shown = shown or output in kept
        cell.outputs = kept
    return notebook, frozen(saved) if shown else {}


def hidden(models: dict, one: str) -> bool:
    """Whether a widget is invisible at the end of the run, such as a progress bar."""
    layout = models[one]["state"].get("layout", "").removeprefix("IPY_MODEL_")
    return models.get(layout, {}).get("state", {}).get("display") == "none"


def place(one: str, name: str, first: bool, models: dict) -> str:
    """The placeholder of a widget: a note, and a box that the scripts fill."""
    scripts = [f"../_static/widgets/{file}.js" for file in (name, "book_widgets")] if first else []
    tags = "".join(f'<script defer src="{file}"></script>' for file in scripts)
    live = LIVE + (MAP if "mouse_mode" in _states_below(models, one) else "")
    return (
        f'<div class="bb-place"><p class="bb-live">{live}</p>'
        f'<div class="bb-widget" data-model="{one}"><p class="bb-undrawn">{UNDRAWN}</p></div></div>{tags}'
    )


def _states_below(models: dict, one: str) -> set[str]:
    """Names of all state fields of a widget and of the widgets inside it."""
    state = models[one]["state"]
    inside = [child.removeprefix("IPY_MODEL_") for child in state.get("children", ())]
    return set(state).union(*(_states_below(models, child) for child in inside))


def frozen(saved: dict) -> dict:
    """Change the state for a page without a kernel: controls are disabled, and the map only pans and zooms."""
    for model in saved["state"].values():
        state = model["state"]
        if "disabled" in state:
            state["disabled"] = True
        if "mouse_mode" in state:
            state["mouse_mode"] = "panZoom"
    return saved


def launch_options(public: str) -> dict[str, object]:
    """Options of the theme that link each notebook page to Binder, Colab and the repository; none without a name."""
    if not public:
        return {}
    buttons = {"binderhub_url": "https://mybinder.org", "colab_url": "https://colab.research.google.com"}
    buttons["notebook_interface"] = "jupyterlab"
    address = {"repository_url": f"https://github.com/{public}", "repository_branch": "main", "path_to_docs": ""}
    return address | {"use_repository_button": True, "launch_buttons": buttons}


def run_sphinx(source: Path, site: Path, title: str, public: str = "") -> None:
    """Build the HTML pages, without network access; with `public`, their links to other hosts are links only.

    Raises: ValueError with the warnings of Sphinx, such as a broken link.
    """
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    said = io.StringIO()
    given = {"html_title": title, "version": importlib.metadata.version("bbqrec")}
    given |= {"html_static_path": ["_static"] if (source / "_static").is_dir() else []}
    given["html_theme_options"] = SETTINGS["html_theme_options"] | launch_options(public)
    quiet = (DeprecationWarning, PendingDeprecationWarning)  # these concern Sphinx and its theme, not our pages
    with patch_docutils(), docutils_namespace(), warnings.catch_warnings():
        for kind in quiet:
            warnings.simplefilter("ignore", kind)
        folders = (source, None, site, site.parent / "doctrees")
        Sphinx(*folders, "html", SETTINGS | given, status=None, warning=said, freshenv=True).build()
    faults = COLOUR.sub("", said.getvalue()).replace(f"{source}/", "").strip()
    if faults:
        raise ValueError(f"the pages have errors: {faults}")
    for extra in (site / ".buildinfo", site / "objects.inv"):
        extra.unlink(missing_ok=True)
