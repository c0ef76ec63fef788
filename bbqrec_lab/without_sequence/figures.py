"""Figures of the tasks without a sequence: a metric by segment, and a metric against the size of an input."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from jaxtyping import Float
from matplotlib.figure import Figure

from bbqrec_lab import plots
from bbqrec_lab.experiments.statistics import CLEAR
from bbqrec_lab.plots import GREY, legend_below, log_counts, looks, panels


def by_segment(
    panels_of: Mapping[str, Mapping[str, Mapping[str, float]]], sizes: Mapping[str, int], ylabel: str
) -> Figure:
    """One panel per division of the events, one line per name over its segments.

    Args: panels_of: title -> segment -> name -> value, at most eight names; a value that is not known is left out.
        sizes: segment -> number of events, written below it.
    """
    fig, axes = panels(len(panels_of), width=3.5, height=3.2, sharey=True)
    names = list(dict.fromkeys(name for found in panels_of.values() for part in found.values() for name in part))
    styles = looks(names)
    for ax, (title, found) in zip(axes[0], panels_of.items(), strict=True):
        for name in names:
            values = [found[segment].get(name, np.nan) for segment in found]
            ax.plot(range(len(found)), values, label=name, markersize=5, **styles[name])
        ax.set_xticks(range(len(found)), [f"{segment}\n({sizes[segment]:,})" for segment in found])
        ax.set_xlim(-0.4, len(found) - 0.6)
        ax.set_title(title)
    axes[0, 0].set_ylabel(ylabel)
    legend_below(fig, axes[0, 0], 3)
    return fig


def compared(parts: Mapping[str, pl.DataFrame], xlabel: str) -> Figure:
    """Differences with their intervals, one line per rival; a filled marker is clear after Holm.

    Args: parts: name of the series -> columns against, difference, low, high, p_holm, with the same rivals.
    """
    rivals = next(iter(parts.values()))["against"].to_list()
    bounds = {name: part.select("difference", "low", "high").to_numpy() for name, part in parts.items()}
    clear = {name: part["p_holm"].to_numpy() < CLEAR for name, part in parts.items()}
    return plots.intervals(rivals, bounds, clear, xlabel)


def by_size(
    sizes: Mapping[str, int], values: Mapping[str, Float[np.ndarray, "seeds"]], groups: Mapping[str, str], xlabel: str
) -> Figure:
    """Bytes (logarithmic) beside a value, one line per input; groups have a colour and a marker.

    Args: sizes: input -> bytes. values: input -> one value per seed; the bar is the mean.
    """
    fig, axes = panels(2, width=3.5, height=1.2 + 0.25 * len(sizes), sharey=True)
    left, right = axes[0]
    styles = looks(groups.values(), line=False)
    for line, name in enumerate(sizes):
        style = styles[groups[name]]
        left.scatter([sizes[name] / 1000], [line], s=30, label=groups[name], **style)
        right.scatter(values[name], np.full(len(values[name]), line), s=22, alpha=0.7, **style)
        right.plot([values[name].mean()] * 2, [line - 0.3, line + 0.3], color=style["color"], linewidth=2)
        for ax in axes[0]:
            ax.axhline(line, color=GREY, linewidth=0.4, zorder=0)
    left.set_yticks(range(len(sizes)), list(sizes))
    left.set_ylim(len(sizes) - 0.5, -0.5)
    left.set_xlabel("size (kB)")
    right.set_xlabel(xlabel)
    log_counts(left, "x")
    handles, names = left.get_legend_handles_labels()
    one_each = dict(zip(names, handles, strict=True))
    fig.legend(one_each.values(), one_each.keys(), loc="outside lower center", ncols=len(one_each))
    return fig
