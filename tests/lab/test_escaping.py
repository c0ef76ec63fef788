"""Escaping: whatever a text holds, its target shows it letter by letter and does nothing else."""

import csv
import io
import json
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import hostile
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from nbconvert.filters.markdown_mistune import markdown2html_mistune

from bbqrec_lab import escaping, plots
from bbqrec_lab.experiments import tables
from bbqrec_lab.terminal import say, tell

MARKS = st.sampled_from(
    [
        *"<>&\"'`*_~[]()!#|\\$^{}=+-@:/.%;\n\t\r\x1b\x9b\x00\u202e\u2066\u2028 ax1",
        "://",
        "www.",
        "```",
        "$$",
        "---",
        "<script ",
        "<!--",
    ]
)
WILD = st.one_of(
    st.sampled_from([*hostile.TEXTS, "<script src=//a ", "\u2066x\u2069"]), st.text(), st.lists(MARKS).map("".join)
)


class Seen(HTMLParser):
    """What a browser would see: the text, and all tags, comments and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text, self.live, self.attributes = "", [], []
        self.feed(page)
        self.close()

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.live.append(tag)
        self.attributes += attrs

    def handle_comment(self, data: str) -> None:
        self.live.append(data)

    def handle_decl(self, decl: str) -> None:
        self.live.append(decl)


def controls(text: str) -> list[str]:
    """Letters of a text that can command a terminal or turn the text around them."""
    kinds = {"Cc": "\n\t", "Zl": "", "Zp": "", "Cs": ""}
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return [
        one
        for one in text
        if one not in kinds.get(unicodedata.category(one), one) or unicodedata.bidirectional(one) in turning
    ]


@given(WILD)
def test_nothing_printable_commands_a_terminal(text: str) -> None:
    assert controls(escaping.printable(text)) == []
    assert escaping.printable(escaping.printable(text)) == escaping.printable(text)
    assert len(escaping.one_line(text).splitlines()) <= 1


@pytest.mark.parametrize("text", ["a\n\tb", "نیم‌فاصله", "👩‍👩‍👧", "ราคา", "naïve – “x”", "\\x1b"])
def test_letters_of_every_script_stay(text: str) -> None:
    assert escaping.printable(text) == text


def test_a_command_of_a_terminal_becomes_its_name(capsys: pytest.CaptureFixture) -> None:
    assert escaping.printable("\x1b]0;x\x07\x9b2J\r\u202e\udc80") == r"\x1b]0;x\x07\x9b2J\r\u202e\udc80"
    say("\x1b[31m", end="")
    tell("\x1b[32m")
    assert capsys.readouterr() == ("\\x1b[32m\n", "\\x1b[31m")


@given(WILD)
def test_html_shows_the_text_and_has_no_tag(text: str) -> None:
    seen = Seen(f"<p title='{escaping.html(text)}' lang=\"{escaping.html(text)}\">{escaping.html(text)}</p>")
    shown = escaping.printable(text)
    assert seen.live == ["p"]
    assert seen.text == shown
    assert seen.attributes == [("title", shown), ("lang", shown)]


@given(WILD)
def test_html_is_also_xml_for_pictures(text: str) -> None:
    drawn = ElementTree.fromstring(f'<svg><text x="{escaping.html(text)}">{escaping.html(text)}</text></svg>')
    assert (drawn[0].text or "") == escaping.printable(text)


RENDERERS = {
    "book": MarkdownIt("commonmark").enable(["table", "strikethrough"]).render,
    "with links": MarkdownIt("gfm-like", {"linkify": False}).render,
    "nbconvert": markdown2html_mistune,
}


@pytest.mark.parametrize("name", RENDERERS)
@given(text=WILD)
def test_markdown_shows_the_text_and_has_no_markup(name: str, text: str) -> None:
    for template, tags in (("{}", {"p"}), ("- {}", {"ul", "li", "p"}), ("*{}*", {"p", "em"}), ("{} x", {"p"})):
        seen = Seen(RENDERERS[name](template.format(escaping.markdown(f"a{text}b"))))
        assert set(seen.live) <= tags, template
        assert " ".join(seen.text.split()).strip() == (template.replace("*", "").replace("- ", "")).format(
            " ".join(escaping.one_line(f"a{text}b").split())
        )


@pytest.mark.parametrize("name", RENDERERS)
@given(text=WILD)
def test_no_text_begins_a_block_of_markdown(name: str, text: str) -> None:
    seen = Seen(RENDERERS[name](escaping.markdown(text)) + "<i>")  # a tag that is left open would swallow it
    assert set(seen.live) in ({"p", "i"}, {"i"})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("www.a.example", r"www\.a.example"),
        ("https://a.example", r"https\://a.example"),
        ("me@a.example", r"me\@a.example"),
        ("NDCG@10 at 12:30", "NDCG@10 at 12:30"),
        ("- a", r"\- a"),
        ("1. a", r"1\. a"),
        ("-0.5", "-0.5"),
        ("(a)=", r"\(a)="),
        ("Toy Story (1995)", "Toy Story (1995)"),
    ],
)
def test_only_what_a_renderer_would_act_on_has_a_mark(text: str, shown: str) -> None:
    """Addresses become links in JupyterLab, without any mark around them."""
    assert escaping.markdown(text) == shown


@given(st.lists(WILD, min_size=1, max_size=3))
def test_a_table_of_markdown_keeps_its_cells(texts: list[str]) -> None:
    page = tables.markdown(pl.DataFrame({"name": texts}), "caption")
    for render in RENDERERS.values():
        seen = Seen(render(page))
        assert seen.live.count("td") == len(texts)
        assert set(seen.live) <= {"p", "table", "thead", "tbody", "tr", "th", "td"}


@given(WILD)
def test_markdown_is_read_back(text: str) -> None:
    assert escaping.from_markdown(escaping.markdown(text)) == escaping.one_line(text)


COMMANDS = r"\\textbackslash\{\}|\\textasciicircum\{\}|\\textasciitilde\{\}|\\[&%_#${}]|\$[<>|]\$|\$\\pm\$|\{\[\}"


@given(WILD)
def test_latex_has_only_our_commands(text: str) -> None:
    left = re.sub(COMMANDS, "", escaping.latex(text))
    assert not set(left) & set("\\{}$&%#_^~[<>|")
    assert escaping.latex("a_b ± 50 %") == r"a\_b $\pm$ 50 \%"


@given(st.lists(WILD, min_size=1, max_size=4))
def test_no_cell_of_a_csv_file_is_computed(texts: list[str]) -> None:
    written = tables.csv(pl.DataFrame({"=head": texts, "value": [-1.5] * len(texts)}))
    head, *lines = csv.reader(io.StringIO(written, newline=""))
    assert head == ["'=head", "value"]
    assert [line[1] for line in lines] == ["-1.5"] * len(texts)
    assert [
        line[0] for line in lines if line[0].startswith(tuple("=+-@\t\r\n＝＋－＠")) and not _is_number(line[0])
    ] == []


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "").removesuffix("%"))
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("text", ["-5", "+3", "-1.5e-3", "1,000", "2 - 1", "a=b", "", "-50%"])
def test_numbers_and_plain_texts_of_a_csv_file_stay(text: str) -> None:
    assert escaping.csv_cell(text) == text


@pytest.mark.parametrize("text", ["=1", "-1+2", "+1 (555) 1", "@x", "\t=1", "＝1", "-"])
def test_formulas_of_a_csv_file_are_text(text: str) -> None:
    assert escaping.csv_cell(text) == f"'{text}"


@given(st.dictionaries(WILD, WILD))
def test_json_is_the_same_content_and_can_be_printed(content: dict[str, str]) -> None:
    said = escaping.json(content)
    assert json.loads(said) == content
    assert controls(said) == []


def test_a_figure_draws_every_text_as_letters(tmp_path: Path) -> None:
    plots.use_house_style()
    for number, text in enumerate(hostile.TEXTS):
        fig, axes = plots.style.panels(1)
        axes[0, 0].plot([0, 1], label=text[:20])
        axes[0, 0].legend()
        axes[0, 0].set_xlabel(text[:20])
        axes[0, 0].set_yticks([0, 1], [plots.style.short(text), "b"])
        plots.style._write(fig, f"f{number}", tmp_path, text)
        drawn = ElementTree.fromstring((tmp_path / f"f{number}.svg").read_text(encoding="utf-8"))
        kinds = {element.tag.rpartition("}")[2] for element in drawn.iter()}
        assert not kinds & {"script", "image", "foreignObject", "a"}
        titles = [element.text for element in drawn.iter() if element.tag.rpartition("}")[2] == "title"]
        assert set(titles) == {escaping.one_line(text)}
