"""Text of files and data where it leaves: one function per target, so that it never becomes markup or a command.

Each function takes plain text and returns text of its target that shows it letter by letter. It is called once, where
the text is put into a page, a table, a figure or a terminal. All of them write controls as visible escapes.
Figures take `printable` text: `plots.use_house_style` turns the formulas of matplotlib off, and its SVG writer escapes.
"""

import html as _html
import json as _json
import re

_LATEX = {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "±": r"$\pm$"}
_LATEX |= {letter: f"\\{letter}" for letter in "&%_#${}"} | {letter: f"${letter}$" for letter in "<>|"}
_LATEX["["] = "{[}"  # after the end of a row it would begin an option
_MARKDOWN = {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {mark: f"\\{mark}" for mark in "\\|`*_[]$~"}
_ADDRESS = re.compile(r"(?<=[A-Za-z]):(?=//)|(?<=www)\.|(?<=\S)@(?=\S*\.\w)", re.IGNORECASE)  # a link by its form
_BLOCK = re.compile(r"^(?:[#=:%]|[-+](?=[\s-]|$)|\((?=.*\)=)|\d+(?=[.)](?:\s|$)))")  # heading, list, rule, directive
_MARK = re.compile(r"\\([!-/:-@\[-`{-~])")
# C0, C1, lone surrogates, separators of lines, marks that turn the direction of writing, and what XML cannot hold.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff]"
)
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?%?")


def printable(text: object) -> str:
    """Text for a terminal, a log or a figure: a control is written as an escape, such as `\\x1b`.

    Blanks, line breaks and tabs stay, and so do letters of every script with their joiners.
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def one_line(text: object) -> str:
    """`printable` text on one line."""
    return printable(" ".join(str(text).split()))


def html(text: object) -> str:
    """Text for HTML and for SVG inside it, between tags and in quoted attributes."""
    return _html.escape(printable(text))


def markdown(text: object) -> str:
    """Text on one line of Markdown, also in the cell of a table: no markup, no mathematics, no link by its form."""
    line = _ADDRESS.sub(r"\\\g<0>", "".join(_MARKDOWN.get(letter, letter) for letter in one_line(text)))
    return _BLOCK.sub(lambda found: f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}", line)


def from_markdown(text: str) -> str:
    """The text that `markdown` made Markdown of, on one line."""
    return _html.unescape(_MARK.sub(r"\1", text))


def latex(text: object) -> str:
    """Text for LaTeX: every letter stands for itself."""
    return "".join(_LATEX.get(letter, letter) for letter in one_line(text))


def csv_cell(text: str) -> str:
    """Text for a cell of a CSV file: what a spreadsheet would compute gets an apostrophe before it; numbers stay."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def json(content: object) -> str:
    """Content as JSON that can be printed: letters of every script stay, and controls are escapes of JSON."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", _json.dumps(content, ensure_ascii=False, indent=1))
