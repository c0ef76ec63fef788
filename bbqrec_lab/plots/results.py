"""Figures of results: recall by cut-off, shared hits, quality against cost, intervals, seeds, codes shared."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from bbqrec_lab.plots.style import (
    CATEGORIES,
    GREY,
    INK,
    ORDERED,
    categories,
    legend_below,
    lines,
    log_counts,
    look,
    looks,
    panels,
    short,
)

HATCHES = ("", "//", "\\\\", "")  # in addition to colour, for print and for colour-blind readers


def recall_by_cutoff(
    values: Mapping[str, Mapping[str, Float[np.ndarray, "cutoffs"]]], cutoffs: Sequence[int]
) -> Figure:
    """Draw Recall@k over k on a logarithmic axis, one panel per ranking mode, one line per variant (at most 8).

    Args: values: title of the panel -> variant -> Recall at each cut-off.
    """
    fig, axes = panels(len(values), width=3.6, height=3.2, sharey=True)
    for ax, (title, series) in zip(axes[0], values.items(), strict=True):
        lines(ax, cutoffs, series, "list length k", "Recall@k, share of users")
        ax.set_title(title)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(FixedLocator(cutoffs))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xticklabels([str(k) for k in cutoffs])
        ax.label_outer()
    legend_below(fig, axes[0, 0])
    return fig


def hit_shares(shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw one stacked bar of length 1 per baseline: shares of users whose target both, one side or neither finds.

    Args: shares: baseline -> part -> share; at most four parts, in the same order everywhere; the last one is grey.
    """
    fig, axes = panels(1, width=6.4, height=1.1 + 0.32 * len(shares))
    ax, places = axes[0, 0], np.arange(len(shares))
    begin = np.zeros(len(shares))
    parts = list(next(iter(shares.values())))
    styles = looks(parts, line=False)
    for index, part in enumerate(parts):
        size = np.array([found[part] for found in shares.values()])
        colour = "0.92" if index == len(parts) - 1 else styles[part]["color"]
        style = {"color": colour, "edgecolor": "w", "hatch": HATCHES[index], "linewidth": 0.5}
        ax.barh(places, 100 * size, left=100 * begin, height=0.7, label=part, **style)
        begin += size
    ax.set_yticks(places, list(shares))
    ax.set(ylim=(len(shares) - 0.4, -0.6), xlim=(0, 100), xlabel="users whose target is among the first ten (%)")
    legend_below(fig, ax)
    return fig


def quality_for_cost(minutes: Mapping[str, float], quality: Mapping[str, float], groups: Mapping[str, str]) -> Figure:
    """Draw quality against minutes (logarithmic), one named point per variant; the line is the Pareto front.

    Args: minutes: variant -> minutes above 0. quality: variant -> NDCG@10. groups: variant -> group, shown by colour
        and marker.
    """
    fig, axes = panels(1, width=6.0, height=3.6)
    ax = axes[0, 0]
    order = sorted(minutes, key=lambda name: (minutes[name], -quality[name]))
    front = [name for i, name in enumerate(order) if quality[name] > max((quality[o] for o in order[:i]), default=-1)]
    ax.plot([minutes[n] for n in front], [quality[n] for n in front], color=GREY, linewidth=1, zorder=0)
    for group, style in looks(groups.values(), line=False).items():
        inside = [name for name in minutes if groups[name] == group]
        ax.scatter([minutes[n] for n in inside], [quality[n] for n in inside], label=group, **style)
    ax.set(xlabel="minutes of training and scoring per variant", ylabel="NDCG@10")
    ax.margins(x=0.18, y=0.12)
    log_counts(ax, "x")
    legend_below(fig, ax)
    _name_points(ax, {name: (minutes[name], quality[name]) for name in order})
    return fig


SPOTS = ((6, 4), (6, -10), (-6, 4), (-6, -10), (6, 14), (6, -20), (-6, 14), (-6, -20))  # offsets of a label, in points


def _name_points(ax: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Write names beside points, each at the first of `SPOTS` where it covers no point and no other name."""
    ax.figure.draw_without_rendering()
    seen = [ax.transData.transform(place) for place in points.values()]
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in seen]
    for name, place in points.items():
        tried = []
        for shift in SPOTS:
            side = "left" if shift[0] > 0 else "right"
            label = ax.annotate(
                name,
                place,
                xytext=shift,
                textcoords="offset points",
                fontsize=8,
                color=INK,
                ha=side,
                annotation_clip=False,
            )
            box = label.get_window_extent()
            tried.append((box.count_overlaps(taken), len(tried), label, box))
            if not tried[-1][0]:
                break
        *_, best, box = min(tried)
        for _, _, label, _ in tried:
            if label is not best:
                label.remove()
        taken.append(box)


def shared_codes(
    shared: Int[np.ndarray, "R H"], lengths: Int[np.ndarray, "R"], history: Sequence[str], titles: Sequence[str]
) -> Figure:
    """Draw how many leading codes recommended items share with each item of a history, and at most with any item.

    Args: shared: one row per recommended item, one column per item of the history. lengths: the longest prefix shared
        with any item of the history, drawn as a separate last column. history, titles: names of columns and rows.
    """
    fig, axes = panels(1, width=2.4 + 0.42 * (shared.shape[1] + 2), height=1.9 + 0.34 * len(titles))
    ax, top = axes[0, 0], max(int(lengths.max()), 1)
    grid = np.column_stack([shared, np.full(len(shared), np.nan), lengths])
    image = ax.imshow(grid, cmap=ORDERED, vmin=0, vmax=top, aspect="equal")
    for (row, column), value in np.ndenumerate(grid):
        if np.isfinite(value):
            colour = "w" if value < 0.55 * top else "k"
            ax.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=colour)
    names = [short(name, 20) for name in history]
    ax.set_xticks([*range(len(names)), len(names) + 1], [*names, "whole history"], rotation=90, fontsize=8)
    ax.set_yticks(range(len(titles)), [short(name, 26) for name in titles], fontsize=8)
    ax.set(xlabel="history, latest on the right", ylabel="recommended")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    fig.colorbar(image, ax=ax, label="shared leading codes", ticks=MaxNLocator(integer=True), shrink=0.8)
    return fig


def shared_shares(shares: Mapping[str, Float[np.ndarray, "lengths"]]) -> Figure:
    """Draw the share of items by the number of codes they share with a history, one group of bars per number.

    Args: shares: name of the list -> share of items at 0, 1, 2, ... shared codes; each sums to 1.
    """
    fig, axes = panels(1, width=5.2, height=3.0)
    ax, width = axes[0, 0], 0.8 / len(shares)
    colours = categories(shares)
    for index, (name, values) in enumerate(shares.items()):
        places = np.arange(len(values)) + width * (index - (len(shares) - 1) / 2)
        style = {"color": CATEGORIES[colours[name]], "hatch": HATCHES[index], "edgecolor": "w", "linewidth": 0.5}
        ax.bar(places, 100 * values, width, label=name, **style)
    ax.set(xlabel="leading codes shared with the closest history item", ylabel="share of items (%)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(fig, ax)
    return fig


def training_scores(
    epochs: Sequence[int], series: Mapping[str, Float[np.ndarray, "steps"]], levels: Mapping[str, float], label: str
) -> Figure:
    """Draw a score over training for several models, with named reference levels as dashed lines.

    Args: epochs: common to all series. levels: name -> value, in the unit of the scores. label: of the vertical axis.
    """
    fig, axes = panels(1, width=5.6, height=3.2)
    ax = axes[0, 0]
    styles = looks(series)
    for name, values in series.items():
        ax.plot(epochs[: len(values)], values, label=name, markersize=4, **styles[name])
    for name, height in levels.items():
        ax.axhline(height, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
        ax.annotate(name, (1.01, height), xycoords=("axes fraction", "data"), va="center", fontsize=8, color=INK)
    ax.set(xlabel="epoch", ylabel=label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(fig, ax)
    return fig


def intervals(
    labels: Sequence[str],
    series: Mapping[str, Float[np.ndarray, "n 3"]],
    clear: Mapping[str, Bool[np.ndarray, "n"]],
    xlabel: str,
) -> Figure:
    """Draw differences with their intervals, one line per label from top to bottom, series next to each other.

    Args: series: name -> (difference, low, high). clear: the same names -> which markers are filled; the caption must
        explain filled markers. xlabel: the difference, with its unit and direction.
    """
    fig, axes = panels(1, width=6.4, height=1.1 + 0.3 * len(labels))
    ax = axes[0, 0]
    ax.axvline(0, color=INK, linewidth=0.8)
    styles = looks(series, line=False)
    for index, (name, values) in enumerate(series.items()):
        style = styles[name]
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
    """Draw each seed of each variant as a point and their mean as a bar, one panel per quantity.

    Args:
        values: label of the quantity, with its unit -> variant -> one value per seed; a variant may be absent.
        groups: variant -> group, in the order of the lines from top to bottom; shown by colour and marker.
        reference: the variant whose mean is drawn as a dashed line through each panel.
    """
    width = max(5.2, 1.6 + 2 * len(values)) / len(values)
    fig, axes = panels(len(values), width=width, height=1.2 + 0.25 * len(groups), sharey=True)
    styles = looks(groups.values(), line=False)
    for ax, (label, found) in zip(axes[0], values.items(), strict=True):
        for line, (variant, group) in enumerate(groups.items()):
            seeds = found.get(variant, np.zeros(0))
            if len(seeds):
                ax.plot([seeds.mean()] * 2, [line - 0.3, line + 0.3], color=styles[group]["color"], linewidth=2)
            ax.scatter(seeds, np.full(len(seeds), line), s=22, alpha=0.7, label=group, **styles[group])
            ax.axhline(line, color=GREY, linewidth=0.4, zorder=0)
        if reference in found:
            ax.axvline(found[reference].mean(), color=INK, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        ax.set_xlabel(short(label, 15 if len(values) > 2 else 26, 3))
        ax.margins(x=0.12)
        ax.xaxis.set_major_locator(MaxNLocator(4 if len(values) < 3 else 2, steps=(1, 2, 5, 10)))  # more labels touch
    axes[0, 0].set_yticks(range(len(groups)), list(groups))
    axes[0, 0].set_ylim(len(groups) - 0.5, -0.5)
    handles, names = axes[0, 0].get_legend_handles_labels()
    one_each = dict(zip(names, handles, strict=True))
    fig.legend(one_each.values(), one_each.keys(), loc="outside lower center", ncols=min(len(one_each), 4))
    return fig


def size_curves(points: pl.DataFrame, names: Mapping[str, str], metric: str, label: str) -> Figure:
    """A metric against each size: one point per seed, a line through the means, a ring around the preset's value.

    Args: points: from `sweeps.size_curves`. names: size -> axis label. metric: column. label: of the metric's axis.
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
        ax.set_xticks(means["value"].to_list(), [f"{value:,}" for value in means["value"]])
        ax.minorticks_off()
        ax.set(xlabel=names[symbol])
    for ax in axes[:, 0]:
        ax.set_ylabel(label)
    return fig
