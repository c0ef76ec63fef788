"""Figures of semantic IDs: collisions and repairs, code usage, the prefix tree, purity, stability and recovery."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bbqrec_lab.plots.style import CATEGORIES, GREY, INK, SMALLEST, legend_below, log_counts, looks, panels, short


def ledger(measures: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """One row per tokenizer, one panel per measure, one mark per case (for example a repair); axes start at 0.

    Args: measures: name with unit -> (tokenizer -> (case -> value)), the same tokenizers in each; NaN is not drawn.
        A case named "" has no legend entry. The cases of a row are below each other, so equal values stay visible.
    Choice: the axis of a panel is logarithmic above 1 if its largest value is more than eight times the median.
    """
    tokenizers = list(next(iter(measures.values())))
    named = dict.fromkeys(case for rows in measures.values() for row in rows.values() for case in row if case)
    styles = looks(named, line=False) | {"": {"color": INK, "marker": "o"}}
    shift = dict(zip(named, 0.6 * (np.arange(len(named)) / max(len(named) - 1, 1) - 0.5), strict=True)) | {"": 0.0}
    width, row_height = 2.0 + 0.08 * max(map(len, tokenizers)) / len(measures), 0.2 + 0.07 * max(len(named), 1)
    fig, axes = panels(len(measures), width=width, height=1.3 + row_height * len(tokenizers), sharey=True)
    for ax, (name, rows) in zip(axes[0], measures.items(), strict=True):
        for place, row in enumerate(rows.values()):
            ax.axhspan(place - 0.5, place + 0.5, color="0.96" if place % 2 else "w", linewidth=0, zorder=0)
            for case, value in row.items():
                ax.plot(value, place + shift[case], linestyle="", markersize=6, **styles[case])
        _from_zero(ax, [value for row in rows.values() for value in row.values() if np.isfinite(value)])
        ax.set_xlabel(short(name, 22 if len(measures) < 4 else 14, 4))
    axes[0, 0].set(ylim=(len(tokenizers) - 0.5, -0.5), yticks=range(len(tokenizers)), yticklabels=tokenizers)
    for case in named:
        axes[0, 0].plot([], [], linestyle="", label=case, markersize=6, **styles[case])
    legend_below(fig, axes[0, 0])
    return fig


def _from_zero(ax: Axes, values: Sequence[float]) -> None:
    """Start the x-axis of a panel at 0, with few ticks; logarithmic above 1 if the largest value dominates."""
    low, high = min([0, *values]), max([0, *values]) or 1
    if low == 0 and high > 8 * max(np.median(values or [0]), 1):
        ax.set_xscale("symlog", linthresh=1)
        ax.set_xlim(-0.3, 2 * high)
        powers = 10.0 ** np.arange(np.floor(np.log10(high)) + 1)  # a tick at the edge runs into the next panel
        ax.xaxis.set_major_locator(FixedLocator([0, *powers[:: -2 if len(powers) > 3 else -1]]))  # more would overlap
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        ax.xaxis.set_minor_locator(NullLocator())
        return
    ax.set_xlim(low - 0.08 * (high - low), high + 0.1 * (high - low))
    ax.xaxis.get_major_locator().set_params(nbins=4, integer=all(float(value).is_integer() for value in values))


def rank_curves(panels_of: Mapping[str, Mapping[str, Int[np.ndarray, "_"]]], xlabel: str, ylabel: str) -> Figure:
    """Counts by rank on log axes, one line per tokenizer, one panel per title; counts of zero are left out.

    Args: panels_of: title -> (tokenizer -> counts in any order).
    """
    columns = len(panels_of) if len(panels_of) <= 4 else 3
    styles = looks(name for counts in panels_of.values() for name in counts)
    width = {1: 5.2, 4: 2.4}.get(columns, 2.9)
    fig, axes = panels(columns, -(-len(panels_of) // columns), width=width, height=2.7, sharey=True)
    for ax in axes.flat[len(panels_of) :]:
        ax.set_axis_off()
    for ax, (title, counts) in zip(axes.flat, panels_of.items(), strict=False):
        for name, values in counts.items():
            ranked = np.sort(values[values > 0])[::-1]
            place = np.arange(1, len(ranked) + 1)
            ax.plot(place, ranked, label=name, markersize=3, markevery=(0.0, 0.12), **styles[name])
        ax.set(title=title, xlabel=xlabel)
        log_counts(ax)
    axes[0, 0].set_ylabel(ylabel)
    legend_below(fig, axes[0, 0])
    return fig


def purity(
    measures: Mapping[str, Mapping[str, tuple[Float[np.ndarray, "_"], Float[np.ndarray, "_"]]]],
) -> Figure:
    """Likeness of item pairs by the length of their shared prefix (0: any two items); one panel per measure.

    Args: measures: name with unit -> (tokenizer -> (mean by depth from 0, standard error)); NaN without pairs.
    """
    fig, axes = panels(len(measures), width=5.2 if len(measures) == 1 else 3.6, height=3.2)
    for ax, (name, curves) in zip(axes[0], measures.items(), strict=True):
        styles = looks(curves)
        for index, (tokenizer, (mean, error)) in enumerate(curves.items()):
            depth = np.arange(len(mean)) + 0.06 * (index - (len(curves) - 1) / 2)
            ax.errorbar(depth, mean, yerr=1.96 * error, capsize=3, markersize=5, label=tokenizer, **styles[tokenizer])
        any_two = [mean[0] for mean, _ in curves.values() if np.isfinite(mean[0])]
        if any_two:  # there are no pairs of a single item
            ax.axhline(float(np.mean(any_two)), color=INK, linestyle="--", linewidth=1, label="any two items")
        ax.set(xlabel="shared leading codes", ylabel=name)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set_ylim(bottom=0)
    legend_below(fig, axes[0, 0])
    return fig


def stability(
    seeds: Mapping[str, tuple[Float[np.ndarray, "_"], Float[np.ndarray, "_"], Float[np.ndarray, "_"]]],
) -> Figure:
    """Similarity of the IDs of several seeds by prefix length; chance is 0 (left) and the hollow marks (right).

    Args: seeds: tokenizer -> (agreement, together, by chance), from `recovery.seed_stability`.
    """
    fig, axes = panels(2, width=3.5, height=3.2)
    left, right = axes[0]
    styles = looks(seeds)
    for index, (name, (agreement, together, by_chance)) in enumerate(seeds.items()):
        length, style = np.arange(1, len(agreement) + 1), styles[name]
        beside = length + 0.12 * (index - (len(seeds) - 1) / 2)  # marks of chance beside each other
        left.plot(length, agreement, label=name, markersize=5, **style)
        right.plot(beside, together, markersize=5, **style)
        hollow = {"markersize": 9, "markerfacecolor": "white", "zorder": 1.5}  # equal values stay visible inside
        right.plot(beside, by_chance, **style | hollow | {"linestyle": ""})
    left.axhline(0, color=INK, linestyle="--", linewidth=1, label="by chance")
    left.plot([], [], "o", color=INK, markerfacecolor="white", label="by chance (right)")
    left.set(xlabel="leading codes", ylabel="adjusted mutual information", ylim=(-0.08, 1.03))
    right.set(xlabel="leading codes", ylabel="share of pairs kept together", ylim=(-0.03, 1.03))
    for ax in axes[0]:
        ax.xaxis.get_major_locator().set_params(integer=True)
    legend_below(fig, left, 3)
    return fig


def tree_agreement(found: Mapping[str, Float[np.ndarray, "_ depth"]]) -> Figure:
    """Agreement of learned prefixes with levels of the true tree, one panel per tokenizer, on one scale from 0 to 1.

    Args: found: tokenizer -> adjusted mutual information, from `recovery.tree_agreement`; NaN is drawn as `n/a`.
    """
    longest = max(len(values) for values in found.values())
    fig, axes = panels(len(found), width=2.2, height=1.5 + 0.5 * longest, sharey=True)
    for ax, (name, values) in zip(axes[0], found.items(), strict=True):
        image = ax.imshow(values, vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            told = f"{round(float(value), 2) + 0.0:.2f}" if np.isfinite(value) else "n/a"
            light = not np.isfinite(value) or value > 0.55
            ax.text(column, row, told, ha="center", va="center", fontsize=8, color="black" if light else "white")
        ax.set(title=name, xlabel="level of the true tree", ylim=(longest - 0.5, -0.5))
        ax.set_xticks(range(values.shape[1]), range(1, values.shape[1] + 1))
        ax.set_yticks(range(longest), range(1, longest + 1))
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
    axes[0, 0].set_ylabel("leading codes")
    fig.colorbar(image, ax=axes[0].tolist(), label="adjusted mutual information")
    return fig


def prefix_tree(codes: Int[np.ndarray, "R sid_len"], titles: Sequence[str], learned: int, most: int = 14) -> Figure:
    """A branch of the prefix tree with items at the leaves; positions after `learned` only separate colliding items.

    Args: codes: IDs of the items of the branch. titles: of the same items. learned: number of positions that come from
        the codebook. most: maximum number of items drawn; the title states how many exist.
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
    """Draw the prefixes of one length below their parents; returns their positions."""
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
            fontsize=SMALLEST,
            color="white",
            zorder=2,
            bbox={"boxstyle": "round,pad=0.25", "facecolor": colour, "edgecolor": "none"},
        )
        places[prefix] = place
    return places
