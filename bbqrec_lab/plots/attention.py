"""Figures of stage 2: item vectors, attention maps, learned offsets, use of buckets. Arrays in, `Figure` out."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bbqrec_lab.plots.style import (
    CATEGORIES,
    GREY,
    INK,
    ORDERED,
    SIGNED,
    WIDEST,
    legend_below,
    log_counts,
    look,
    panels,
    short,
)

SPECIAL = ("self", "missing")  # the buckets drawn after the similarity buckets; the padding bucket has no effect
CHANNEL_COLUMNS = 3  # maximum number of panels per row
FLAT = 0.1  # logits: minimum limit of the offset axis, so a table close to zero looks close to zero


def vectors_plane(vectors: Float[np.ndarray, "N 2"], names: Sequence[str]) -> Figure:
    """Draw item vectors as arrows on the unit circle; the angle between two arrows shows their cosine.

    Args: vectors: (N, 2), any length above zero, drawn with length 1. names: one per vector.
    """
    fig, axes = panels(1, width=4.6, height=3.3)
    ax = axes[0, 0]
    turn = np.linspace(0, 2 * np.pi, 200)
    ax.plot(np.cos(turn), np.sin(turn), color=GREY, linewidth=0.8)
    for index, (vector, name) in enumerate(zip(vectors, names, strict=True)):
        x, y = vector / np.linalg.norm(vector)
        arrow = {"arrowstyle": "-|>", "color": CATEGORIES[index % len(CATEGORIES)], "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", (x, y), (0, 0), arrowprops=arrow)
        ax.annotate(short(name), (1.12 * x, 1.12 * y), ha="left" if x >= 0 else "right", va="center")
    ax.set(xlim=(-1.8, 1.9), ylim=(-1.2, 1.2), aspect="equal", xlabel="first dimension", ylabel="second dimension")
    return fig


def heat_maps(
    maps: Mapping[str, Num[np.ndarray, "rows columns"]],
    rows: Sequence[str],
    columns: Sequence[str],
    label: str,
    *,
    signed: bool = False,
    numbers: str = "",
) -> Figure:
    """Draw matrices side by side on one scale with one colour bar; NaN cells stay blank.

    Args:
        maps: title -> (rows, columns), all in one unit. rows: names of the queries. columns: names of the keys.
        label: of the colour bar, with the unit. numbers: a format (".2f") writes each value into its cell.
        signed: use a scale centred on zero; otherwise from zero to the largest value of all maps.
    Raises: ValueError if there is no finite value to draw.
    """
    finite = [values[np.isfinite(values)] for values in maps.values()]
    if not sum(map(len, finite)):
        raise ValueError(f"no finite value in {', '.join(maps) or 'an empty set of maps'}: pass at least one")
    top = max(float(np.abs(values).max()) for values in finite if len(values)) or 1.0
    scale = {"cmap": SIGNED if signed else ORDERED, "vmin": -top if signed else 0, "vmax": top}
    fig, axes = _map_panels(len(maps), rows, columns, cell=0.42 if numbers else 0.26)
    fig.set_layout_engine("compressed", rect=(0, 0, 0.97, 1))  # the plain engine lets long names of square cells reach
    # the label below; this one gives the label of the colour bar a little less room than it needs
    for ax, (title, values) in zip(axes, maps.items(), strict=False):
        image = ax.imshow(values, aspect="equal", **scale)
        ax.set_title(title)
        ax.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8)
        ax.set_yticks(range(len(rows)), rows, fontsize=8)
        ax.label_outer()
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
        if numbers:
            _write_numbers(ax, values, numbers, top, signed)
    fig.supxlabel("key (columns)", fontsize=9)
    fig.supylabel("query (rows)", fontsize=9)
    fig.colorbar(image, ax=axes, label=label, shrink=0.9, aspect=25)
    return fig


def _map_panels(count: int, rows: Sequence[str], columns: Sequence[str], cell: float) -> tuple[Figure, list[Axes]]:
    """Panels for maps with square cells of `cell` inches: at most three per row, four maps as 2 x 2."""
    across = 2 if count == 4 else min(count, 3)
    down = -(-count // across)
    beside, below = 0.07 * max(map(len, rows)), 0.07 * max(map(len, columns))
    around = 0.15 + (beside + 1.1) / across
    cell = min(cell, (WIDEST / across - around) / len(columns))  # as the widest figure will draw it
    width = cell * len(columns) + around
    fig, axes = panels(across, down, width=width, height=cell * len(rows) + 0.35 + (below + 0.2) / down)
    for ax in axes.flat[count:]:
        ax.remove()
    return fig, list(axes.flat[:count])


def _write_numbers(ax: Axes, values: np.ndarray, form: str, top: float, signed: bool) -> None:
    """Write each finite value into its cell, in white on dark cells."""
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = abs(value) > 0.7 * top if signed else value < 0.55 * top
            ax.text(column, row, f"{value:{form}}", ha="center", va="center", fontsize=8, color="w" if dark else "k")


def bias_curves(
    table: Float[np.ndarray, "layers C buckets H"], edges: Float[np.ndarray, "C inner"], channels: Sequence[str]
) -> Figure:
    """Draw the learned offset of each layer, head and channel over the similarity buckets, one panel per channel.

    Args: table: logits; S similarity buckets, then self, missing and padding (not drawn). edges: S - 1 cosines.
    """
    fig, axes = _channel_panels(channels, "offset w (logits)")
    buckets = edges.shape[1] + 1
    place, top = np.arange(buckets), 1.1 * max(FLAT, float(np.abs(table[:, :, :-1]).max()))
    for channel, ax in enumerate(axes):
        ax.set_ylim(-top, top)
        ax.axhline(0, color=INK, linewidth=0.8)
        for layer, head in np.ndindex(table.shape[0], table.shape[3]):
            values = table[layer, channel, :, head]
            style = look(layer) | {"linestyle": look(head)["linestyle"], "markersize": 3}
            ax.plot(place, values[:buckets], label=f"layer {layer + 1}, head {head + 1}", **style)
            ax.plot(_special_places(buckets), values[buckets : buckets + 2], **style | {"linestyle": ""})
        _bucket_axis(ax, edges[channel], special=True)
    legend_below(fig, axes[0])
    return fig


def bucket_shares(
    shares: Float[np.ndarray, "C buckets"], edges: Float[np.ndarray, "C inner"], channels: Sequence[str]
) -> Figure:
    """Draw the share of pairs of different items in real histories per bucket, one panel per channel.

    Args: shares: (C, S), each row sums to 1. edges: S - 1 cosines.
    """
    fig, axes = _channel_panels(channels, "share of pairs (%)")
    buckets = shares.shape[1]
    for ax, values, cuts in zip(axes, shares, edges, strict=True):
        ax.bar(np.arange(buckets), 100 * values, color=CATEGORIES[0])
        ax.axhline(100 / buckets, color=INK, linewidth=0.8, linestyle=(0, (2, 2)), label="even shares")
        _bucket_axis(ax, cuts)
    legend_below(fig, axes[0])
    return fig


def score_curves(
    masses: Float[np.ndarray, "C points"], offsets: Float[np.ndarray, "C points"], channels: Sequence[str]
) -> Figure:
    """Draw the learned offset of a score over the mass of the item, one panel per channel of score reweighting.

    Args: masses: ascending, above zero, on a log axis. offsets: nats; a jump is the edge of a bucket.
    """
    fig, axes = _channel_panels(channels, "offset of the score (nats)", "mass of the item (log scale)")
    limits = _around_zero(offsets)
    for index, (ax, mass, values) in enumerate(zip(axes, masses, offsets, strict=True)):
        ax.axhline(0, color=INK, linewidth=0.8)
        ax.plot(mass, values, **look(index) | {"marker": "", "linestyle": "-"})
        ax.set_ylim(*limits)
        log_counts(ax, "x")
        ax.tick_params(axis="x", labelsize=8)
    return fig


def _around_zero(values: np.ndarray) -> tuple[float, float]:
    """Limits of an axis of offsets: all values and zero, and at least `FLAT` to both sides."""
    return 1.1 * min(-FLAT, float(values.min())), 1.1 * max(FLAT, float(values.max()))


def _channel_panels(
    channels: Sequence[str], label: str, below: str = "cosine of the pair (bucket edges)"
) -> tuple[Figure, list[Axes]]:
    """One panel per channel, at most `CHANNEL_COLUMNS` per row, on one vertical scale; unused panels are removed."""
    columns = min(len(channels), CHANNEL_COLUMNS)
    rows = -(-len(channels) // columns)
    fig, grid = panels(columns, rows, width=max(2.7, 5 / columns), height=2.5, sharey=True)
    axes = list(grid.flat)
    for ax in axes[len(channels) :]:
        ax.remove()
    for ax, name in zip(axes, channels, strict=False):
        ax.set_title(name)
        ax.set_xlabel(below, fontsize=8)
    for ax in grid[:, 0]:
        ax.set_ylabel(label)
    return fig, axes[: len(channels)]


def _special_places(buckets: int) -> Float[np.ndarray, "2"]:
    """Positions of the buckets `self` and `missing`: to the right, separate from the similarity buckets."""
    return buckets + np.array([1.0, 3.0]) * max(1.0, buckets / 10)


def _bucket_axis(ax: Axes, edges: np.ndarray, special: bool = False) -> None:
    """Label some bucket edges with their cosine, and the two special buckets with their names."""
    inner = np.unique(np.linspace(0, len(edges) - 1, min(len(edges), 5)).round().astype(int))
    ticks, names = inner + 0.5, [f"{edges[place]:.2f}" for place in inner]
    if special:
        ticks, names = np.concatenate([ticks, _special_places(len(edges) + 1)]), names + list(SPECIAL)
    ax.set_xticks(ticks, names, rotation=90, fontsize=8)
