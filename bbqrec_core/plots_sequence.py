"""Figures of stage 2: attention maps, learned offsets, and comparisons of variants. Arrays in, `Figure` out."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bbqrec_core.plots import CATEGORIES, GREY, INK, ORDERED, SIGNED, legend_below, look, panels, short

SPECIAL = ("self", "missing")  # buckets behind the similarity buckets that are drawn; padding never counts
CHANNEL_COLUMNS = 3  # panels side by side
FLAT = 0.1  # logits: the least height of the offsets' axis, so that a table close to zero looks close to zero


def vectors_plane(vectors: Float[np.ndarray, "N 2"], names: Sequence[str]) -> Figure:
    """Draw item vectors as arrows on the unit circle, so that the angle between two is what their cosine measures.

    Args: vectors: (N, 2), any length above zero, drawn at length 1. names: one per vector.
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
        maps: title -> (rows, columns), all in one unit. rows: who attends. columns: what is attended.
        label: of the colour bar, with the unit. numbers: format such as ".2f" to write each value into its cell.
        signed: a scale centred on zero; else it starts at zero and ends at the largest value of all maps.
    Raises: ValueError if there is no finite value to draw.
    """
    finite = [values[np.isfinite(values)] for values in maps.values()]
    if not sum(map(len, finite)):
        raise ValueError(f"no finite value in {', '.join(maps) or 'no maps'}: give at least one")
    top = max(float(np.abs(values).max()) for values in finite if len(values)) or 1.0
    scale = {"cmap": SIGNED if signed else ORDERED, "vmin": -top if signed else 0, "vmax": top}
    fig, axes = _map_panels(len(maps), rows, columns, cell=0.42 if numbers else 0.26)
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
    fig.supxlabel("attended to (columns)", fontsize=9)
    fig.supylabel("attending (rows)", fontsize=9)
    fig.colorbar(image, ax=axes, label=label, shrink=0.9, aspect=25)
    return fig


def _map_panels(count: int, rows: Sequence[str], columns: Sequence[str], cell: float) -> tuple[Figure, list[Axes]]:
    """Panels for maps whose cells are squares of `cell` inches: up to three in a line, four as 2 x 2."""
    across = 2 if count == 4 else min(count, 3)
    down = -(-count // across)
    beside, below = 0.07 * max(map(len, rows)), 0.07 * max(map(len, columns))
    width = cell * len(columns) + 0.15 + (beside + 1.1) / across
    fig, axes = panels(across, down, width=width, height=cell * len(rows) + 0.35 + (below + 0.2) / down)
    for ax in axes.flat[count:]:
        ax.remove()
    return fig, list(axes.flat[:count])


def _write_numbers(ax: Axes, values: np.ndarray, form: str, top: float, signed: bool) -> None:
    """Write each finite value into its cell, in white on dark cells."""
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = abs(value) > 0.7 * top if signed else value < 0.55 * top
            ax.text(column, row, f"{value:{form}}", ha="center", va="center", fontsize=7, color="w" if dark else "k")


def training_scores(
    epochs: Sequence[int], series: Mapping[str, Float[np.ndarray, "steps"]], levels: Mapping[str, float], label: str
) -> Figure:
    """Draw a score over training for several models, with dashed levels that mean something named at the right.

    Args: epochs: common to all series. levels: name -> height, in the unit of the scores. label: of the vertical axis.
    """
    fig, axes = panels(1, width=5.6, height=3.2)
    ax = axes[0, 0]
    for index, (name, values) in enumerate(series.items()):
        ax.plot(epochs[: len(values)], values, label=name, markersize=4, **look(index))
    for name, height in levels.items():
        ax.axhline(height, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
        ax.annotate(name, (1.01, height), xycoords=("axes fraction", "data"), va="center", fontsize=8, color=INK)
    ax.set(xlabel="epoch", ylabel=label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(fig, ax)
    return fig


def bias_curves(
    table: Float[np.ndarray, "layers C buckets H"], edges: Float[np.ndarray, "C inner"], channels: Sequence[str]
) -> Figure:
    """Draw the learned offset of every layer, head and channel over the similarity buckets, one panel a channel.

    Args: table: logits, S similarity buckets then self, missing and (not drawn) padding. edges: S - 1 cosines.
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
    """Draw which share of the pairs of different items in real histories falls into each bucket, one panel a channel.

    Args: shares: (C, S), rows summing to 1. edges: S - 1 cosines.
    """
    fig, axes = _channel_panels(channels, "share of pairs (%)")
    buckets = shares.shape[1]
    for ax, values, cuts in zip(axes, shares, edges, strict=True):
        ax.bar(np.arange(buckets), 100 * values, color=CATEGORIES[0])
        ax.axhline(100 / buckets, color=INK, linewidth=0.8, linestyle=(0, (2, 2)), label="even shares")
        _bucket_axis(ax, cuts)
    legend_below(fig, axes[0])
    return fig


def _channel_panels(channels: Sequence[str], label: str) -> tuple[Figure, list[Axes]]:
    """One panel a channel, at most `CHANNEL_COLUMNS` side by side, on one vertical scale; unused ones removed."""
    columns = min(len(channels), CHANNEL_COLUMNS)
    rows = -(-len(channels) // columns)
    fig, grid = panels(columns, rows, width=max(2.7, 5 / columns), height=2.5, sharey=True)
    axes = list(grid.flat)
    for ax in axes[len(channels) :]:
        ax.remove()
    for ax, name in zip(axes, channels, strict=False):
        ax.set_title(name)
        ax.set_xlabel("cosine of the pair, by bucket", fontsize=8)
    for ax in grid[:, 0]:
        ax.set_ylabel(label)
    return fig, axes[: len(channels)]


def _special_places(buckets: int) -> Float[np.ndarray, "2"]:
    """Where the buckets `self` and `missing` stand: to the right, apart from the scale."""
    return buckets + np.array([1.0, 3.0]) * max(1.0, buckets / 10)


def _bucket_axis(ax: Axes, edges: np.ndarray, special: bool = False) -> None:
    """Label some boundaries between buckets with their cosine, and the two special buckets with their names."""
    inner = np.unique(np.linspace(0, len(edges) - 1, min(len(edges), 5)).round().astype(int))
    ticks, names = inner + 0.5, [f"{edges[place]:.2f}" for place in inner]
    if special:
        ticks, names = np.concatenate([ticks, _special_places(len(edges) + 1)]), names + list(SPECIAL)
    ax.set_xticks(ticks, names, rotation=90, fontsize=8)


def intervals(
    labels: Sequence[str],
    series: Mapping[str, Float[np.ndarray, "n 3"]],
    clear: Mapping[str, Bool[np.ndarray, "n"]],
    xlabel: str,
) -> Figure:
    """Draw differences with their intervals, one line a label from top to bottom, the series beside each other.

    Args: series: name -> (difference, low, high). clear: the same names -> which markers are filled; say in the
        caption what a filled one means. xlabel: the difference, with its unit and direction.
    """
    fig, axes = panels(1, width=6.4, height=1.1 + 0.3 * len(labels))
    ax = axes[0, 0]
    ax.axvline(0, color=INK, linewidth=0.8)
    for index, (name, values) in enumerate(series.items()):
        style = look(index, line=False)
        place = np.arange(len(labels)) + 0.3 * (index - (len(series) - 1) / 2)
        ax.hlines(place, values[:, 1], values[:, 2], color=style["color"], linewidth=1.4)
        ax.scatter(values[:, 0], place, facecolor="w", edgecolor=style["color"], marker=style["marker"], zorder=3)
        full = clear[name]
        ax.scatter(values[full, 0], place[full], color=style["color"], marker=style["marker"], zorder=4)
        ax.plot([], [], label=name, **style)
    ax.set_yticks(range(len(labels)), labels)
    ax.set(ylim=(len(labels) - 0.4, -0.6), xlabel=xlabel)
    ax.xaxis.set_major_locator(MaxNLocator(5))  # small differences have long labels
    legend_below(fig, ax)
    return fig


def seed_points(
    values: Mapping[str, Mapping[str, Float[np.ndarray, "seeds"]]], groups: Mapping[str, str], reference: str
) -> Figure:
    """Draw every seed of every variant as a point and their mean as a bar, one panel a quantity.

    Args:
        values: label of the quantity, with its unit -> variant -> one value per seed; a variant may be absent.
        groups: variant -> group, in the order of the lines from top to bottom; told apart by colour and marker.
        reference: the variant whose mean is carried through each panel as a dashed line.
    """
    width = max(5.2, 1.6 + 2 * len(values)) / len(values)
    fig, axes = panels(len(values), width=width, height=1.2 + 0.25 * len(groups), sharey=True)
    styles = {group: look(index, line=False) for index, group in enumerate(dict.fromkeys(groups.values()))}
    for ax, (label, found) in zip(axes[0], values.items(), strict=True):
        for line, (variant, group) in enumerate(groups.items()):
            seeds = found.get(variant, np.zeros(0))
            if len(seeds):
                ax.plot([seeds.mean()] * 2, [line - 0.3, line + 0.3], color=styles[group]["color"], linewidth=2)
            ax.scatter(seeds, np.full(len(seeds), line), s=22, alpha=0.7, label=group, **styles[group])
            ax.axhline(line, color=GREY, linewidth=0.4, zorder=0)
        if reference in found:
            ax.axvline(found[reference].mean(), color=INK, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        ax.set_xlabel(label)
        ax.margins(x=0.12)
    axes[0, 0].set_yticks(range(len(groups)), list(groups))
    axes[0, 0].set_ylim(len(groups) - 0.5, -0.5)
    handles, names = axes[0, 0].get_legend_handles_labels()
    one_each = dict(zip(names, handles, strict=True))
    fig.legend(one_each.values(), one_each.keys(), loc="outside lower center", ncols=len(one_each))
    return fig


def size_curves(points: pl.DataFrame, names: Mapping[str, str], metric: str, label: str) -> Figure:
    """A metric against each size of the method: every seed a point, a line through the means, the preset's own ringed.

    Args: points: of `curves.size_curves`. names: size -> what it is, for the axis. metric: column; label: of its axis.
    """
    symbols = points["size"].unique(maintain_order=True).to_list()
    columns = min(3, len(symbols))
    fig, axes = panels(columns, -(-len(symbols) // columns), width=2.5, height=2.3, sharey=True)
    for ax in axes.flat[len(symbols) :]:
        ax.set_visible(False)
    for ax, symbol in zip(axes.flat, symbols, strict=False):
        rows = points.filter(pl.col("size") == symbol)
        means = rows.group_by("value", "own").agg(pl.col(metric).mean()).sort("value")
        ax.plot(means["value"], means[metric], **look(0))
        ax.scatter(rows["value"], rows[metric], s=14, color=CATEGORIES[0], alpha=0.4)
        own = means.filter(pl.col("own"))
        ax.scatter(own["value"], own[metric], s=110, facecolors="none", edgecolors=INK, linewidths=1.2, zorder=3)
        ax.set_xscale("log", base=2)
        ax.set_xticks(means["value"].to_list(), [str(value) for value in means["value"]])
        ax.minorticks_off()
        ax.set(xlabel=names[symbol])
    for ax in axes[:, 0]:
        ax.set_ylabel(label)
    return fig
