"""The report of a run: one offline page in its folder, with tables, figures, cost, and links to notebooks and logs."""

import base64
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import polars as pl

from bbqrec_lab.escaping import from_markdown, printable
from bbqrec_lab.experiments.durations import duration
from bbqrec_lab.store import write_atomic

HERE = Path(__file__).resolve().parent
ROWS = "rows.json"  # in the folder of a run: the stored folder of each row, and what failed
OPEN = ("05", "06")  # notebooks with results; the figures of the others are folded
HEADS = {"ndcg": "NDCG", "recall": "Recall", "p_holm": "p (Holm)", "peak_memory_gb": "peak memory (GB)"}
HEADS |= {"against": "compared with", "valid_ndcg@10": "NDCG@10 on validation"}
COST = ("epochs", "settings_tried", "parameters", "valid_ndcg@10")  # columns of cost.csv, after the times
MODES = {"filtered": "Seen items filtered", "included": "Seen items included"}


class Table(NamedTuple):
    """A table for the page: its column heads and its cells, all text."""

    heads: list[str]
    lines: list


def record(run: Path, folders: Mapping[tuple[str, int], Path], failures: Mapping[str, str]) -> None:
    """Write `rows.json`: for each row its folder in the store, relative to the run, and the causes of failures.

    The training log of each row is copied to the other logs, so that the folder of the run can be moved or published
    alone. Rows that were not part of this call keep what they have, because their results are still in the tables.
    """
    for (variant, seed), folder in folders.items():
        if (folder / "run.json").exists():
            write_atomic(run / "logs" / f"{variant}-{seed}.json", (folder / "run.json").read_bytes())
    found = {f"{variant} {seed}": _link(run, folder) for (variant, seed), folder in folders.items()}
    content = {"rows": _read(run)["rows"] | found, "failures": dict(failures)}
    write_atomic(run / ROWS, json.dumps(content, indent=1))


def write(run: Path) -> Path:
    """Write `index.html` in the folder of a run, from the files in that folder; returns its path.

    The page has its style and its figures inside. Links are relative, and only to what exists, so that the folder of
    results can be moved.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    parts = {
        "title": printable(f"bbqrec on {run.parent.name}, preset {run.name}"),
        "style": Markup((HERE / "report.css").read_text(encoding="utf-8")),
        "caption": _caption(run / "tables" / "main_results.md"),
        "failures": _read(run)["failures"],
        "main": _main(run / "tables" / "main_results.csv"),
        "differences": _differences(run / "tables" / "intervals.csv"),
        "figures": list(_figures(run)),
        "rows": _rows(run),
        "notebooks": list(_notebooks(run)),
        "book": _book(run).exists(),
        "files": [(path.name, f"tables/{path.name}") for path in sorted((run / "tables").glob("[a-z]*.*"))],
    }
    names = {"main": "Main table", "differences": "Differences", "figures": "Figures", "rows": "Cost and logs"}
    names |= {"notebooks": "Notebooks", "files": "Files"}
    parts["sections"] = [(name, "cost" if part == "rows" else part) for part, name in names.items() if parts[part]]
    write_atomic(run / "index.html", environment.get_template("report.html.j2").render(parts))
    return run / "index.html"


def _read(run: Path) -> dict[str, dict]:
    """The content of `rows.json`; empty if there is none."""
    path = run / ROWS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": {}, "failures": {}}


def _link(run: Path, target: Path) -> str:
    """The relative link from the folder of a run to a file or folder."""
    return Path(os.path.relpath(target, run)).as_posix()


def _caption(path: Path) -> str:
    """The sentence above the main table: data, preset, split and seeds."""
    if not path.exists():
        return "No row was trained in this run."
    return from_markdown(path.read_text(encoding="utf-8").partition("\n")[0])


def _head(column: str) -> str:
    """A column name in words."""
    if column in HEADS:
        return HEADS[column]
    for name, shown in HEADS.items():
        column = column.replace(f"{name}@", f"{shown}@")
    return column.replace("_", " ")


def _text(value: object) -> str:
    """A cell: floats with four digits behind the point, whole numbers with a comma between thousands."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _table(frame: pl.DataFrame) -> Table:
    return Table(
        [_head(name) for name in frame.columns], [[_text(value) for value in line] for line in frame.iter_rows()]
    )


def _by_mode(frame: pl.DataFrame) -> list[tuple[str, Table]]:
    """One table per `seen_items` mode."""
    found = {mode: frame.filter(pl.col("seen_items") == mode).drop("seen_items") for mode in MODES}
    return [(MODES[mode], _table(part)) for mode, part in found.items() if part.height]


def _main(path: Path) -> list[tuple[str, Table]]:
    """The readable main table, with the metric that the text quotes first, so that a phone shows it."""
    from bbqrec_lab.experiments import tables

    if not path.exists():
        return []
    found = tables.summary(pl.read_csv(path, glob=False))
    metrics = [name for name in reversed(tables.SHOWN) if name in found.columns]
    return _by_mode(found.select("variant", "seen_items", *metrics, "seeds"))


def _differences(path: Path) -> list[tuple[str, Table]]:
    """Each pair of variants with its difference in NDCG@10 and the interval."""
    if not path.exists():
        return []
    found = pl.read_csv(path, glob=False).filter(pl.col("metric").str.starts_with("ndcg@10"))
    lines = [
        (f"{line['difference']:+.4f}", f"{line['low']:+.4f} to {line['high']:+.4f}", f"{line['p_holm']:.3f}")
        for line in found.iter_rows(named=True)
    ]
    shown = pl.DataFrame(lines, schema=["difference", "95 % interval", "p_holm"], orient="row")
    return _by_mode(
        pl.concat([found.select("seen_items", "variant", "against"), shown, found.select("seeds")], how="horizontal")
    )


def _figures(run: Path) -> Iterator[tuple[str, bool, list[dict[str, object]]]]:
    """Per notebook: its name, whether its figures are unfolded, and the figures; notebooks with results come first."""
    files = sorted((run / "figures").glob("*.png"), key=lambda path: (path.name[:2] not in OPEN, path.name))
    for number, group in groupby(files, key=lambda path: path.name[:2]):
        found = sorted((run / "notebooks").glob(f"{number}_*.ipynb"))
        yield found[0].stem.replace("_", " ") if found else number, number in OPEN, [_figure(path) for path in group]


def _figure(path: Path) -> dict[str, object]:
    """A figure with its bytes inside, and the caption that was saved with it."""
    from PIL import Image

    with Image.open(path) as image:
        size, caption = image.size, image.info.get("Description", path.stem)
    picture = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    shown = {"width": size[0] // 2, "height": size[1] // 2}  # figures have 200 dots per inch, pages 96
    return shown | {"link": f"figures/{path.name}", "picture": picture, "caption": caption}


def _rows(run: Path) -> Table | None:
    """The cost of every row, and links to its logs; None if no row was trained."""
    from bbqrec_lab.experiments import tables

    path = run / "tables" / "cost.csv"
    if not path.exists():
        return None
    cost = pl.read_csv(path, glob=False)
    if {"epochs", "parameters"} <= set(cost.columns):
        cost = tables.effort(cost)
    times = [
        pl.col(name).map_elements(_time, pl.String).alias(name.removesuffix("_minutes"))
        for name in cost.columns
        if name.endswith("_minutes")
    ]
    memory = [pl.col(name).round(1).cast(pl.String) for name in ("peak_memory_gb",) if name in cost.columns]
    given = [name for name in COST if name in cost.columns]
    shown = _table(cost.select("variant", "seed", *times, *given, *memory))
    folders, links = _read(run)["rows"], []
    for variant, seed in cost.select("variant", "seed").iter_rows():
        stored = folders.get(f"{variant} {seed}", "")
        log = f"logs/{variant}-{seed}"
        targets = [("training log", f"{log}.json"), ("messages", f"{log}.log")]
        links.append(list(_with_content(run, targets)))
        if stored and (run / stored).is_dir():
            links[-1].append(("stored run", stored))
    return Table(shown.heads, list(zip(shown.lines, links, strict=True)))


def _time(minutes: float) -> str:
    """A duration; below a second, only that."""
    return duration(60 * minutes) if minutes * 60 >= 1 else "< 1 s"


def _with_content(run: Path, targets: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Those of the named links whose file exists and has more than white space; most rows print no message."""
    for name, target in targets:
        file = run / target
        if file.is_file() and file.read_text(encoding="utf-8", errors="replace").strip():
            yield name, target


def _book(run: Path) -> Path:
    """The folder of the book of a run."""
    return run.parent.parent / "book" / run.parent.name / run.name


def _notebooks(run: Path) -> Iterator[dict[str, object]]:
    """The executed notebooks: title, time, and links to the file, its page in the book, and its log."""
    for path in sorted((run / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        done = path.with_name(f"{path.stem}.done.json")
        if not done.exists():  # unfinished
            continue
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        lines = "".join(
            "".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "markdown"
        ).splitlines()
        title = next((line[2:].strip() for line in lines if line.startswith("# ")), path.stem)
        page = _book(run) / "notebooks" / f"{path.stem}.html"
        link, more = f"notebooks/{path.name}", []
        if page.exists():
            link, more = quote(_link(run, page)), [("notebook file", link)]
        more += _with_content(run, [("messages", f"logs/{path.stem}.log")])
        seconds = json.loads(done.read_text(encoding="utf-8"))["seconds"]
        yield {"link": link, "title": title, "time": duration(seconds), "more": more}
