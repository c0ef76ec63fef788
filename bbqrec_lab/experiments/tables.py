"""Result tables: summaries over seeds, and frames written as CSV, Markdown and LaTeX files."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import polars as pl

from bbqrec_lab import escaping
from bbqrec_lab.store import write_atomic

SHOWN = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
BEAM = r"( by beam \d+)$"  # the end of a metric name if the ranks come from beam search


def summary(rows: pl.DataFrame, segment: str = "all") -> pl.DataFrame:
    """One line per variant and `seen_items` mode: each shown metric as mean ± standard deviation over seeds.

        cell = mean_s(value) ± std_s(value), the deviation only if there is more than one seed

    If ranks come from beam search, the variant's name says so instead of each metric's name.

    Args: rows: `main_results` in long form. segment: which targets (`all`, `head items`, ...).
    Returns: text columns variant, seen_items, seeds, then one per metric of `SHOWN` in the rows; order of `rows`.
    Raises: ValueError if no row has that segment.
    """
    beam = pl.col("metric").str.extract(BEAM)
    named = rows.with_columns(
        pl.concat_str(pl.col("variant"), pl.format(" ({})", beam.str.strip_chars()).fill_null("")).alias("variant"),
        pl.col("metric").str.replace(BEAM, ""),
    )
    chosen = named.filter((pl.col("segment") == segment) & pl.col("metric").is_in(SHOWN))
    if chosen.is_empty():
        raise ValueError(f"no rows for segment {segment!r}: there are {sorted(rows['segment'].unique())}")
    groups = chosen.group_by("variant", "seen_items", "metric", maintain_order=True)
    means = groups.agg(
        pl.col("seed").n_unique().alias("seeds"),
        pl.col("value").mean().alias("mean"),
        pl.col("value").std().alias("spread"),
    )
    cells = [_cell(*line) for line in means.select("mean", "spread", "seeds").iter_rows()]
    wide = means.with_columns(pl.Series("cell", cells)).pivot(
        on="metric", index=["variant", "seen_items", "seeds"], values="cell", maintain_order=True
    )
    metrics = [name for name in SHOWN if name in wide.columns]
    return wide.select("variant", "seen_items", pl.col("seeds").cast(pl.String), *metrics).fill_null("")


def told_of_empty_lists(rows: pl.DataFrame) -> str:
    """A sentence for the caption if some mode has only empty lists, whose metrics are 0 for that reason; else empty."""
    empty = rows.filter(pl.col("metric").str.starts_with("coverage@"), pl.col("value") == 0)
    told = ". Seen items {}: every user has had every item, so all lists are empty and all metrics 0"
    return "" if empty.is_empty() else told.format(", ".join(empty["seen_items"].unique().sort()))


def _cell(mean: float, spread: float | None, seeds: int) -> str:
    return f"{mean:.4f} ± {spread:.4f}" if seeds > 1 else f"{mean:.4f}"


def listed(names: Sequence[str], nothing: str = "none") -> str:
    """Names in a sentence: `a`, `a and b`, `a, b and c`."""
    *first, last = names or [nothing]
    return f"{', '.join(first)} and {last}" if first else last


HEADS = {  # column of a frame -> head of a printed table; other names lose their underscores
    "seen_items": "seen items",
    "against": "compared with",
    "low": "95 % from",
    "high": "95 % to",
    "p_holm": "p after Holm",
    "ndcg": "NDCG@10",
    "ndcg@5": "NDCG@5",
    "ndcg@10": "NDCG@10",
    "recall@5": "Recall@5",
    "recall@10": "Recall@10",
    "peak_memory_gb": "peak memory (GB)",
    "used": "codes used",
    "even_use": "even use of the first code",
    "fan_out": "children per prefix",
    "first_fan_out": "children of a first code",
    "purity": "shared users (times any two)",
    **{name: name for name in ("n_ij", "u_i", "u_j", "s_ij")},  # symbols of formulas
    **{f"p{share} ms": f"p{share} (ms)" for share in (50, 90, 99)},
    "valid_ndcg@10": "NDCG@10 on validation",
}
P_VALUES = {"p", "p_holm"}
DECIMALS = {"peak_memory_gb": 1}  # of columns whose values do not tell how many a reader needs
NAMED_BY_NUMBER = {"code", "id", "item", "row", "seed", "seeds", "user", "year"}  # columns whose numbers are names


def head(name: str) -> str:
    """The words of a printed table for a column."""
    return HEADS.get(name, name.replace("_", " "))


def effort(cost: pl.DataFrame) -> pl.DataFrame:
    """The cost of rows with epochs only where a model was trained, and `settings_tried` for counting baselines.

    Args: cost: columns epochs and parameters; a counting baseline has no parameters, and its epochs count the settings
        that were tried on validation.
    """
    trained = pl.col("parameters") > 0
    tried = pl.when(~trained).then("epochs").alias("settings_tried")
    place = cost.columns.index("epochs") + 1
    return cost.with_columns(pl.when(trained).then("epochs").alias("epochs")).insert_column(
        place, cost.select(tried).to_series()
    )


def markdown(frame: pl.DataFrame, caption: str) -> str:
    """`frame` as a Markdown table below its caption; heads in words, thousands separated, dates as dates."""
    heads = [escaping.markdown(head(name)) for name in frame.columns]
    marks = ["--:" if frame[name].dtype.is_numeric() else "---" for name in frame.columns]
    lines = [heads, marks, *(list(map(escaping.markdown, line)) for line in _printed(frame))]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{escaping.markdown(caption)}\n\n{table}\n"


def latex(frame: pl.DataFrame, caption: str) -> str:
    """`frame` as a LaTeX table (booktabs) with its caption; cells as in `markdown`."""
    lines = [[head(name) for name in frame.columns], *_printed(frame)]
    header, *body = [" & ".join(map(escaping.latex, line)) + r" \\" for line in lines]
    inside = [r"\toprule", header, r"\midrule", *body, r"\bottomrule"]
    sides = "".join("r" if kind.is_numeric() else "l" for kind in frame.dtypes)
    tabular = [f"\\begin{{tabular}}{{{sides}}}", *inside, r"\end{tabular}"]
    return "\n".join([r"\begin{table}", f"\\caption{{{escaping.latex(caption)}}}", *tabular, r"\end{table}", ""])


def _printed(frame: pl.DataFrame) -> list[list[str]]:
    """The cells of a table for readers, row by row; decimals are the same within a column."""
    columns = [_column(column) for column in frame]
    return [list(line) for line in zip(*columns, strict=True)]


def _column(column: pl.Series) -> list[str]:
    if column.dtype.is_float():
        if column.name in P_VALUES:
            return ["< 0.001" if value is not None and value < 0.0005 else _number(value, ".3f") for value in column]
        decimals = _decimals(column)
        return [_number(value, f",.{decimals}f") for value in column]
    if column.dtype.is_integer() and column.name.lower() not in NAMED_BY_NUMBER:
        return [_number(value, ",") for value in column]
    return [_text(value) for value in column]


def _decimals(column: pl.Series) -> int:
    """Digits behind the point: by the largest value, and none that is 0 in the whole column."""
    known = column.drop_nulls().drop_nans()
    largest = known.abs().max() if len(known) else 0
    most = 1 if "%" in column.name else 4 if largest <= 1 else 2 if largest < 100 else 1 if largest < 10_000 else 0
    digits = [f"{value:.{DECIMALS.get(column.name, most)}f}".partition(".")[2].rstrip("0") for value in known]
    return max(map(len, digits), default=0)


def _number(value: float | None, form: str) -> str:
    if value is None:
        return ""
    return "n/a" if value != value else f"{value:{form}}"


def _texts(frame: pl.DataFrame) -> list[list[str]]:
    """The cells for a terminal, where another program may read them: numbers without separators."""
    return [[_text(f"{cell:.4f}" if isinstance(cell, float) else cell) for cell in line] for line in frame.iter_rows()]


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}" if (value.hour, value.minute) != (0, 0) else f"{value:%Y-%m-%d}"
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else str(value)


def save_table(
    frame: pl.DataFrame, name: str, folder: str | Path, caption: str, shown: pl.DataFrame | None = None
) -> None:
    """Write `folder/name.csv`, `.md` and `.tex`, each atomically.

    Args: frame: content of the CSV, at full precision. caption: content, data and seeds, one line.
        shown: content of the Markdown and LaTeX files if `frame` is too long to read; default `frame`.
    """
    readable = frame if shown is None else shown
    contents = {"csv": csv(frame), "md": markdown(readable, caption), "tex": latex(readable, caption)}
    for suffix, content in contents.items():
        write_atomic(Path(folder) / f"{name}.{suffix}", content)


def csv(frame: pl.DataFrame) -> str:
    """`frame` as CSV for spreadsheets; texts and heads that these would compute are marked as text."""
    texts = frame.with_columns(pl.col(pl.String).map_elements(escaping.csv_cell, pl.String))
    return texts.rename(escaping.csv_cell).write_csv()


def show_json(frame: pl.DataFrame) -> None:
    """Print a frame on standard output as a JSON list with one object per row."""
    print(escaping.json(frame.to_dicts()))


def show(frame: pl.DataFrame, caption: str) -> None:
    """Print a frame on standard output: a table that fits a terminal, or whole lines if the output is piped."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name in frame.columns:
        table.add_column(
            escaping.printable(name), overflow="fold", justify="right" if frame[name].dtype.is_numeric() else "left"
        )
    for line in _texts(frame):
        table.add_row(*map(escaping.printable, line))
    # A pipe has no width: the default of 80 would break lines that another program reads, and 160 would break paths.
    piped = 1000 if "folder" in frame.columns else 160
    console = Console(width=None if Console().is_terminal else piped, markup=False, highlight=False)
    console.print(escaping.printable(caption), soft_wrap=True)
    console.print(table)
