"""Figures of the tasks without a sequence: a metric by segment, and a metric against the size of an input."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from bbqrec_lab import plots
from bbqrec_lab.experiments.statistics import CLEAR
from bbqrec_lab.plots import INK, legend_below, log_counts, looks, panels


def by_segment(panels_of: Mapping[str, Mapping[str, Mapping[str, float]]], ylabel: str) -> Figure:
    """One panel per division of the events, one line per name over its segments.

    Args: panels_of: title -> segment -> name -> value, at most eight names; a value that is not known is left out.
    """
    fig, axes = panels(len(panels_of), width=3.5, height=3.2, sharey=True)
    names = list(dict.fromkeys(name for found in panels_of.values() for part in found.values() for name in part))
    styles = looks(names)
    for ax, (title, found) in zip(axes[0], panels_of.items(), strict=True):
        for name in names:
            values = [found[segment].get(name, np.nan) for segment in found]
            ax.plot(range(len(found)), values, label=name, markersize=5, **styles[name])
        ax.set_xticks(range(len(found)), [plots.short(segment, 9, 2) for segment in found])
        ax.set_xlim(-0.3, len(found) - 0.7)
        ax.set_title(title)
    axes[0, 0].set_ylabel(ylabel)
    legend_below(fig, axes[0, 0], 2)
    return fig


def compared(parts: Mapping[str, pl.DataFrame], xlabel: str) -> Figure:
    """Differences with their intervals, one line per rival; a filled marker is clear after Holm.

    Args: parts: name of the series -> columns against, difference, low, high, p_holm, with the same rivals.
    """
    rivals = next(iter(parts.values()))["against"].to_list()
    bounds = {name: part.select("difference", "low", "high").to_numpy() for name, part in parts.items()}
    clear = {name: part["p_holm"].to_numpy() < CLEAR for name, part in parts.items()}
    return plots.intervals(rivals, bounds, clear, xlabel)


def by_size(sizes: Mapping[str, int], values: Mapping[str, float], groups: Mapping[str, str], ylabel: str) -> Figure:
    """A value against bytes (logarithmic), one named point per input; groups have a colour and a marker."""
    fig, axes = panels(1, width=6.6, height=3.8)
    ax, styles = axes[0, 0], looks(groups.values(), line=False)
    for group, style in styles.items():
        own = [name for name in sizes if groups[name] == group]
        ax.scatter([sizes[name] / 1000 for name in own], [values[name] for name in own], s=36, label=group, **style)
        for name in own:
            text = name.removeprefix(f"{group} ")
            place = (sizes[name] / 1000, values[name])
            ax.annotate(text, place, (5, 3), textcoords="offset points", fontsize=8, color=INK)
    ax.set(xlabel="kilobytes of the table and of what is kept of all items", ylabel=ylabel)
    log_counts(ax, "x")
    legend_below(fig, ax, 5)
    return fig
