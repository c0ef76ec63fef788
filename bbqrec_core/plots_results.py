"""Pictures of results: codes shared with a history, recall by cut-off, shared hits, quality against cost."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from .plots import CATEGORIES, GREY, INK, ORDERED, legend_below, lines, log_counts, look, panels, short

HATCHES = ("", "//", "\\\\", "")  # beside the colours, so that print and every eye tells the parts apart


def recall_by_cutoff(
    values: Mapping[str, Mapping[str, Float[np.ndarray, "cutoffs"]]], cutoffs: Sequence[int]
) -> Figure:
    """Draw Recall@k over k on a logarithmic axis, one panel a way of ranking, a line a variant (8 at most).

    Args: values: title of the panel -> variant -> Recall at each of the cut-offs.
    """
    fig, axes = panels(len(values), width=3.6, height=3.2, sharey=True)
    for ax, (title, series) in zip(axes[0], values.items(), strict=True):
        lines(ax, cutoffs, series, "k, length of the list", "Recall@k, share of users")
        ax.set_title(title)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(FixedLocator(cutoffs))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xticklabels([str(k) for k in cutoffs])
        ax.label_outer()
    legend_below(fig, axes[0, 0])
    return fig


def hit_shares(shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw for each rival which share of all users both, one side alone or neither serves, as one bar of length 1.

    Args: shares: rival -> part -> share, the parts in one order for all and at most four, the last of them drawn grey.
    """
    fig, axes = panels(1, width=6.4, height=1.1 + 0.32 * len(shares))
    ax, places = axes[0, 0], np.arange(len(shares))
    begin = np.zeros(len(shares))
    parts = list(next(iter(shares.values())))
    for index, part in enumerate(parts):
        size = np.array([found[part] for found in shares.values()])
        colour = "0.92" if index == len(parts) - 1 else CATEGORIES[index]
        style = {"color": colour, "edgecolor": "w", "hatch": HATCHES[index], "linewidth": 0.5}
        ax.barh(places, 100 * size, left=100 * begin, height=0.7, label=part, **style)
        begin += size
    ax.set_yticks(places, list(shares))
    ax.set(ylim=(len(shares) - 0.4, -0.6), xlim=(0, 100), xlabel="users whose target is among the first ten (%)")
    legend_below(fig, ax)
    return fig


def quality_for_cost(minutes: Mapping[str, float], quality: Mapping[str, float], groups: Mapping[str, str]) -> Figure:
    """Draw quality against minutes (logarithmic), a named point a variant; the line joins what nothing cheaper beats.

    Args: minutes: variant -> minutes above 0. quality: variant -> NDCG@10. groups: variant -> group, told apart by
        colour and marker.
    """
    fig, axes = panels(1, width=6.0, height=3.6)
    ax = axes[0, 0]
    order = sorted(minutes, key=lambda name: (minutes[name], -quality[name]))
    front = [name for i, name in enumerate(order) if quality[name] > max((quality[o] for o in order[:i]), default=-1)]
    ax.plot([minutes[n] for n in front], [quality[n] for n in front], color=GREY, linewidth=1, zorder=0)
    for index, group in enumerate(dict.fromkeys(groups.values())):
        inside = [name for name in minutes if groups[name] == group]
        ax.scatter([minutes[n] for n in inside], [quality[n] for n in inside], label=group, **look(index, line=False))
    for index, name in enumerate(order):  # by turns above and below, since neighbours often have equal quality
        place, shift = (minutes[name], quality[name]), (5, 5 if index % 2 else -11)
        ax.annotate(name, place, xytext=shift, textcoords="offset points", fontsize=8, color=INK)
    ax.set(xlabel="minutes of training and scoring, one row", ylabel="NDCG@10")
    ax.margins(x=0.18, y=0.12)
    log_counts(ax, "x")
    legend_below(fig, ax)
    return fig


def shared_codes(
    shared: Int[np.ndarray, "R H"], lengths: Int[np.ndarray, "R"], history: Sequence[str], titles: Sequence[str]
) -> Figure:
    """Draw how many leading codes recommended items share with items of a history, and with the whole of it.

    Args: shared: a row a recommended item, a column an item of the history. lengths: the longest prefix shared with any
        item of the history, drawn as a last column apart. history, titles: names of columns and rows.
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
    ax.set(xlabel="history, latest at the right", ylabel="recommended")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    fig.colorbar(image, ax=ax, label="leading codes shared", ticks=MaxNLocator(integer=True), shrink=0.8)
    return fig


def shared_shares(shares: Mapping[str, Float[np.ndarray, "lengths"]]) -> Figure:
    """Draw the share of items by the number of codes they share with a history, bars of the lists side by side.

    Args: shares: name of the list -> share of items at 0, 1, 2, ... shared codes; each sums to 1.
    """
    fig, axes = panels(1, width=5.2, height=3.0)
    ax, width = axes[0, 0], 0.8 / len(shares)
    for index, (name, values) in enumerate(shares.items()):
        places = np.arange(len(values)) + width * (index - (len(shares) - 1) / 2)
        style = {"color": CATEGORIES[index], "hatch": HATCHES[index], "edgecolor": "w", "linewidth": 0.5}
        ax.bar(places, 100 * values, width, label=name, **style)
    ax.set(xlabel="leading codes shared with the closest item of the history", ylabel="share of items (%)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(fig, ax)
    return fig
