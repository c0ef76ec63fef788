"""The Sphinx extension of the book: formulas without scripts, the style sheet, and the scripts that draw widgets."""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

from bbqrec_lab import escaping

HERE = Path(__file__).resolve().parent


def formula(latex: str, display: str) -> str:
    """Convert LaTeX to MathML, which all current browsers draw without a script.

    Raises: ValueError for a command that the converter would print as its name or drop.
    """
    from latex2mathml.converter import convert

    shown = convert(latex, display=display)
    if "<mi>\\" in shown or "operatorname" in latex:
        raise ValueError(
            f"the book cannot show a command of the formula {latex}: rewrite it with commands that latex2mathml knows"
        )
    return shown


def widget_scripts() -> dict[str, Path]:
    """Files of the scripts that draw saved widgets, by name in the site; they come from the installed packages."""
    anywidget, controls, voila = (
        Path(importlib.util.find_spec(name).origin).parent for name in ("anywidget", "widgetsnbextension", "voila")
    )
    share = next(
        folder / "share" / "jupyter" / "voila" for folder in voila.parents if (folder / "share" / "jupyter").is_dir()
    )
    return {
        "require.js": share / "templates" / "base" / "static" / "require.min.js",
        "controls.js": controls / "static" / "extension.js",
        "extension.js.LICENSE.txt": controls / "static" / "extension.js.LICENSE.txt",  # the script refers to it
        "anywidget.js": anywidget / "nbextension" / "index.js",
    }


def _inline(writer: Any, node: Any) -> None:
    from docutils.nodes import SkipNode

    writer.body.append(formula(node.astext(), "inline"))
    raise SkipNode


def _block(writer: Any, node: Any) -> None:
    from docutils.nodes import SkipNode

    writer.body.append(f'<div class="bb-formula">{formula(node.astext(), "block")}</div>')
    raise SkipNode


def _escape_titles(app: Any, page: str, template: str, context: dict[str, object], tree: Any) -> None:
    """Escape the title of the site, which has the name of the dataset: templates of the theme insert it as it is."""
    from markupsafe import Markup

    for name in ("docstitle", "shorttitle"):
        context[name] = Markup(escaping.html(context[name]))


def _copy(app: Any, problem: Exception | None) -> None:
    """Copy the files that the pages load."""
    if problem is not None:
        return
    static = Path(app.outdir) / "_static"
    shutil.copyfile(HERE / "book.css", static / "book.css")
    if (static / "widgets").is_dir():  # at least one page has widgets
        shutil.copyfile(HERE / "book_widgets.js", static / "widgets" / "book_widgets.js")
        for name, file in widget_scripts().items():
            shutil.copyfile(file, static / "widgets" / name)


def setup(app: Any) -> dict[str, bool]:
    """Register the extension; Sphinx calls this function."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.add_css_file("book.css")
    app.connect("html-page-context", _escape_titles)
    app.connect("build-finished", _copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
