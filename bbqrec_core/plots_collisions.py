"""Figures of semantic IDs: collisions and repairs, the prefix tree, and whether its neighbourhoods mean anything."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .plots import CATEGORIES, GREY, INK, legend_below, log_counts, look, panels, short


def repairs(figures: Mapping[str, Mapping[str, tuple[float, float]]]) -> Figure:
    """Tokenizers before (hollow) and after (filled) the repair, one panel per figure of health.

    Args: figures: name with unit -> (tokenizer -> (before, after)).
    """
    tokenizers = list(next(iter(figures.values())))
    fig, axes = panels(len(figures), width=2.6, height=1.3 + 0.35 * len(tokenizers), sharey=True)
    for ax, (name, values) in zip(axes[0], figures.items(), strict=True):
        for place, (before, after) in enumerate(values.values()):
            style = look(place, line=False)
            ax.plot([before, after], [place, place], color=GREY, linewidth=1, zorder=1)
            ax.plot(before, place, markerfacecolor="white", markersize=7, **style)
            ax.plot(after, place, markersize=5, **style)
        ax.set(xlabel=name, ylim=(len(tokenizers) - 0.5, -0.5))
        ax.margins(x=0.12)
        ax.set_xlim(left=min(0, ax.get_xlim()[0]))
    axes[0, 0].set_yticks(range(len(tokenizers)), tokenizers)
    axes[0, 0].plot([], [], "o", color=INK, markerfacecolor="white", label="before the repair")
    axes[0, 0].plot([], [], "o", color=INK, label="after the repair")
    legend_below(fig, axes[0, 0])
    return fig


def rank_curves(panels_of: Mapping[str, Mapping[str, Int[np.ndarray, "_"]]], xlabel: str, ylabel: str) -> Figure:
    """Counts by rank on log axes, one line per tokenizer, one panel per title; counts of zero are left out.

    Args: panels_of: title -> (tokenizer -> counts in any order).
    """
    columns = len(panels_of) if len(panels_of) <= 4 else 3
    names = list(dict.fromkeys(name for counts in panels_of.values() for name in counts))
    width = {1: 5.2, 4: 2.4}.get(columns, 2.9)
    fig, axes = panels(columns, -(-len(panels_of) // columns), width=width, height=2.7, sharey=True)
    for ax in axes.flat[len(panels_of) :]:
        ax.set_axis_off()
    for ax, (title, counts) in zip(axes.flat, panels_of.items(), strict=False):
        for name, values in counts.items():
            ranked = np.sort(values[values > 0])[::-1]
            style = look(names.index(name))
            ax.plot(np.arange(1, len(ranked) + 1), ranked, label=name, markersize=3, markevery=(0.0, 0.12), **style)
        ax.set(title=title, xlabel=xlabel)
        log_counts(ax)
    axes[0, 0].set_ylabel(ylabel)
    legend_below(fig, axes[0, 0])
    return fig


def fan_out(nodes: Mapping[str, Sequence[int]], items: int) -> Figure:
    """How the prefix tree opens: distinct prefixes of each length, and children per prefix.

    Args: nodes: tokenizer -> number of distinct prefixes of length 1, 2, ... items: N, drawn as a dashed line.
    """
    fig, axes = panels(2, width=3.4)
    left, right = axes[0]
    for index, (name, counts) in enumerate(nodes.items()):
        depth = np.arange(1, len(counts) + 1)
        left.plot(depth, counts, label=name, markersize=5, **look(index))
        right.plot(depth, np.array(counts) / np.array([1, *counts[:-1]]), markersize=5, **look(index))
    left.axhline(items, color=INK, linestyle="--", linewidth=1, label=f"{items:,} items")
    left.set(xlabel="codes read", ylabel="distinct prefixes")
    right.set(xlabel="codes read", ylabel="mean children of a prefix")
    for ax in axes[0]:
        log_counts(ax, "y")
        ax.xaxis.get_major_locator().set_params(integer=True)
    legend_below(fig, left)
    return fig


def purity(
    measures: Mapping[str, Mapping[str, tuple[Float[np.ndarray, "_"], Float[np.ndarray, "_"]]]],
) -> Figure:
    """Likeness of pairs of items by the length of the prefix they share, 0 being any two items; one panel per measure.

    Args: measures: name with unit -> (tokenizer -> (mean by depth from 0, standard error)); NaN where there is no pair.
    """
    fig, axes = panels(len(measures), width=5.2 if len(measures) == 1 else 3.6, height=3.2)
    for ax, (name, curves) in zip(axes[0], measures.items(), strict=True):
        for index, (tokenizer, (mean, error)) in enumerate(curves.items()):
            depth = np.arange(len(mean)) + 0.06 * (index - (len(curves) - 1) / 2)
            ax.errorbar(depth, mean, yerr=1.96 * error, capsize=3, markersize=5, label=tokenizer, **look(index))
        base = float(np.nanmean([mean[0] for mean, _ in curves.values()]))
        ax.axhline(base, color=INK, linestyle="--", linewidth=1, label="any two items")
        ax.set(xlabel="leading codes that both share", ylabel=name)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set_ylim(bottom=0)
    legend_below(fig, axes[0, 0])
    return fig


def prefix_tree(codes: Int[np.ndarray, "R sid_len"], titles: Sequence[str], learned: int, most: int = 14) -> Figure:
    """A branch of the prefix tree with its items at the leaves; positions behind `learned` only tell twins apart.

    Args: codes: IDs of the items of the branch. titles: theirs. learned: positions that come from the codebook.
        most: items drawn; a title says how many there are.
    """
    order = np.lexsort(codes.T[::-1])[:most]
    shown, names = codes[order], [short(titles[i], 34) for i in order]
    depth = shown.shape[1]
    fig, axes = panels(1, width=6.4, height=0.8 + 0.24 * len(shown))
    ax = axes[0, 0]
    above = {(): (0.0, (len(shown) - 1) / 2)}
    for length in range(1, depth + 1):
        above = _draw_level(ax, shown, length, above, colour=CATEGORIES[0] if length <= learned else CATEGORIES[3])
    for row, (name, prefix) in enumerate(zip(names, map(tuple, shown.tolist()), strict=True)):
        ax.plot([depth, depth + 0.15], [above[prefix][1], row], color=GREY, linewidth=1, zorder=1)
        ax.annotate(name, (depth + 0.15, row), (3, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set(xlim=(-0.1, depth + 1.6), ylim=(len(shown) - 0.5, -0.5))
    ax.set_xticks(range(1, depth + 1), [f"code {i}" if i <= learned else "extra" for i in range(1, depth + 1)])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_title(f"{len(shown)} of {len(codes)} items" if len(codes) > len(shown) else f"{len(codes)} items")
    return fig


def _draw_level(
    ax: Axes, codes: Int[np.ndarray, "R sid_len"], length: int, above: dict[tuple, tuple[float, float]], colour: str
) -> dict[tuple, tuple[float, float]]:
    """Draw the prefixes of one length below their parents; returns their places."""
    prefixes, where = np.unique(codes[:, :length], axis=0, return_inverse=True)
    places = {}
    for index, prefix in enumerate(map(tuple, prefixes.tolist())):
        place = (float(length), float(np.flatnonzero(where.reshape(-1) == index).mean()))
        ax.plot(*zip(above[prefix[:-1]], place, strict=True), color=GREY, linewidth=1, zorder=1)
        ax.text(
            *place,
            str(prefix[-1]),
            ha="center",
            va="center",
            fontsize=7,
            color="white",
            zorder=2,
            bbox={"boxstyle": "round,pad=0.25", "facecolor": colour, "edgecolor": "none"},
        )
        places[prefix] = place
    return places
