"""Figures of speed: latency of single requests, their steps, costs over four sizes, and growth of costs."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import polars as pl
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from bbqrec_lab.plots.style import CATEGORIES, GREY, INK, ORDERED, legend_below, log_counts, look, panels
from bbqrec_lab.speed import power_law

KINDS = {"single": "one request (ms)", "batch": "per user of a batch (ms)"}
PLAIN = FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:g}")


def _log_costs(ax: Axes) -> None:
    """A logarithmic cost axis with plain numbers, with more ticks if the range of costs is small."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    if high < 9 * low:
        subs = (1, 1.5, 2, 3, 5, 7)
    elif high < 60 * low:
        subs = (1, 2, 5)
    elif high < 500 * low:
        subs = (1, 3)
    else:
        subs = (1,)
    ax.yaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
    ax.yaxis.set_major_formatter(PLAIN)
    ax.yaxis.set_minor_formatter(NullFormatter())


def _log_sizes(ax: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis of sizes, with the measured sizes as ticks if their range is small."""
    if max(values) >= 100 * min(values):
        log_counts(ax, "x")
        if max(values) >= 100_000:  # long numbers need space
            ax.xaxis.set_major_locator(LogLocator(numticks=4))
        return
    ax.set_xscale("log")
    kept, space = [values[0]], 0.09 * np.log(max(values) / min(values))  # for the label of a tick
    for value in values[1:]:
        if np.log(value / kept[-1]) > space:
            kept.append(value)
    ax.xaxis.set_major_locator(FixedLocator(kept))
    ax.xaxis.set_major_formatter(PLAIN)
    ax.xaxis.set_minor_locator(NullLocator())


def carried(counts: Mapping[str, Sequence[int]], whole: Sequence[int]) -> Figure:
    """Draw the number of prefixes that a model reads at each level, one line per beam, and all prefixes as a grey area.

    Args: counts: name of the beam -> prefixes read per user, by level. whole: all prefixes of the tree, root first.
    """
    fig, axes = panels(1, width=5.4, height=3.4)
    ax, levels = axes[0, 0], np.arange(1, len(whole) + 1)
    ax.fill_between(levels, 0.8, whole, color=GREY, linewidth=0, label="every prefix (exact)")
    for index, (name, rows) in enumerate(counts.items()):
        ax.plot(levels, rows, label=name, markersize=4, **look(index))
    ax.set(xlabel="level of the next code", ylabel="prefixes read", xticks=levels, xlim=(0.9, levels[-1] + 0.1))
    log_counts(ax, "y")
    ax.set_ylim(0.8, max(whole) * 1.4)
    legend_below(fig, ax, 3)
    return fig


def latencies(milliseconds: Mapping[str, Float[np.ndarray, "_"]]) -> Figure:
    """Draw the cumulative share of requests over latency, one line per model (at most 8), with p50 and p99 marked."""
    fig, axes = panels(1, width=5.8, height=3.4)
    ax = axes[0, 0]
    for index, (name, spent) in enumerate(milliseconds.items()):
        style = look(index)
        style.pop("marker")
        ax.step(np.sort(spent), 100 * np.arange(1, len(spent) + 1) / len(spent), where="post", label=name, **style)
        ax.plot(np.percentile(spent, (50, 99)), (50, 99), linestyle="none", markersize=5, **look(index, line=False))
    for share in (50, 99):
        ax.axhline(share, color=GREY, linewidth=0.8, zorder=0)
        ax.annotate(f"p{share}", (1.01, share), xycoords=("axes fraction", "data"), va="center", color=INK, fontsize=9)
    ax.set(xlabel="milliseconds, one request at a time", ylabel="requests answered (%)", ylim=(0, 101))
    log_counts(ax, "x")
    legend_below(fig, ax)
    return fig


def steps(costs: pl.DataFrame) -> Figure:
    """Draw the milliseconds of each step of a request as parts of one bar per model; levels go from dark to light.

    Args: costs: columns model, step (`history`, `level l, model`, `level l, search`), ms.
    """
    names = costs["model"].unique(maintain_order=True).to_list()
    found = {(model, step): ms for model, step, ms in costs.select("model", "step", "ms").iter_rows()}
    order = sorted(costs["step"].unique(), key=lambda step: (step != "history", step))
    levels = max((int(step.split()[1].strip(",")) for step in order if step != "history"), default=1)
    fig, axes = panels(1, width=7.0, height=1.4 + 0.42 * len(names))
    ax, places, begin = axes[0, 0], np.arange(len(names)), np.zeros(len(names))
    for step in order:
        size = np.array([found.get((name, step), 0.0) for name in names])
        colour, hatch = CATEGORIES[1], ""
        if step != "history":
            colour = mpl.colormaps[ORDERED](0.15 + 0.8 * int(step.split()[1].strip(",")) / (levels + 1))
            hatch = "////" if step.endswith("search") else ""
        style = {"color": colour, "edgecolor": "w", "hatch": hatch, "linewidth": 0.5}
        ax.barh(places, size, left=begin, height=0.7, label=step, **style)
        begin += size
    ax.set_yticks(places, names)
    ax.set(ylim=(len(names) - 0.4, -0.6), xlabel="milliseconds per request, median of each step")
    legend_below(fig, ax, 3)
    return fig


def sizes(costs: pl.DataFrame, words: Mapping[str, str]) -> Figure:
    """Draw costs of single requests (top) and batches (bottom) against each size, one line per model; bands: quartiles.

    Args: costs: from `latency.axis_costs`. words: axis -> label, in the order of the panels.
    """
    fig, axes = panels(len(words), 2, width=2.8, height=2.5, sharey="row", sharex="col")
    models = costs["model"].unique(maintain_order=True).to_list()
    for row, kind in enumerate(KINDS):
        for ax, axis in zip(axes[row], words, strict=True):
            for index, name in enumerate(models):
                part = costs.filter(pl.col("axis") == axis, pl.col("kind") == kind, pl.col("model") == name)
                if len(part):
                    ax.plot(part["value"], part["ms"], markersize=4, **look(index))
                    ax.fill_between(part["value"], part["low"], part["high"], color=CATEGORIES[index], alpha=0.15)
            own = costs.filter(pl.col("axis") == axis, pl.col("own"))["value"]
            ax.axvline(own[0], color=GREY, linewidth=0.8, zorder=0)
            ax.set(xlabel=words[axis] if row else "", ylabel=KINDS[kind] if ax is axes[row, 0] else "")
            _log_sizes(ax, costs.filter(pl.col("axis") == axis)["value"].unique().sort().to_list())
            _log_costs(ax)
    for index, name in enumerate(models):
        axes[0, 0].plot([], [], label=name, markersize=4, **look(index))
    legend_below(fig, axes[0, 0], 5)
    return fig


def growth(curves: pl.DataFrame, words: Mapping[str, str]) -> Figure:
    """Draw milliseconds against size on logarithmic axes, one panel per axis, with the fitted line and its slope.

    Args: curves: from `growth.measure`. words: axis -> label, in the order of the panels.
    """
    seconds = curves.filter(pl.col("cost") == "seconds")
    stages = seconds["stage"].unique(maintain_order=True).to_list()
    columns = min(2, len(words))
    fig, axes = panels(columns, -(-len(words) // columns), width=3.5, height=2.9)
    for ax, (axis, word) in zip(axes.flat, words.items(), strict=False):
        part = seconds.filter(pl.col("axis") == axis)
        for index, stage in enumerate(stages):
            _curve(ax, part.filter(pl.col("stage") == stage), index)
        ax.set(xlabel=word, ylabel="milliseconds" if ax in axes[:, 0] else "")
        ax.margins(x=0.12)
        _log_sizes(ax, part["size"].unique().sort().to_list())
        _log_costs(ax)
    for ax in axes.flat[len(words) :]:
        ax.set_axis_off()
    for index, stage in enumerate(stages):
        axes[0, 0].plot([], [], label=stage, markersize=4, **look(index))
    legend_below(fig, axes[0, 0], 3)
    return fig


def _curve(ax: Axes, part: pl.DataFrame, index: int) -> None:
    """Draw one curve: medians with quartiles, the fitted power law, and its exponent."""
    if part["size"].n_unique() < power_law.LEAST:
        return
    size, value = part["size"].to_numpy(), 1000 * part["value"].to_numpy()
    style = look(index)
    spread = np.abs(1000 * part.select("low", "high").to_numpy().T - value)
    ax.errorbar(size, value, spread, linewidth=1, markersize=4, linestyle="none", **look(index, line=False))
    fit = power_law.fit_power(size, value)
    ends = float(size.min()), float(size.max())
    ax.plot(ends, [fit.at(end) for end in ends], linewidth=1, color=style["color"], linestyle=style["linestyle"])
    place, shift = (ends[1], fit.at(ends[1])), (6, 0)
    ax.annotate(f"{fit.exponent:.2f}", place, xytext=shift, textcoords="offset points", va="center", fontsize=8)


def unit_costs(curves: pl.DataFrame, axis: str, slack: float = power_law.SLACK) -> Figure:
    """Draw the cost per unit against size: time as a multiple of the minimum, and bytes.

    A stage is linear at sizes where its line is inside the grey band; at smaller sizes its fixed cost dominates.
    """
    fig, axes = panels(2, width=4.0, height=3.2)
    stages = curves.filter(pl.col("cost") == "seconds")["stage"].unique(maintain_order=True).to_list()
    for ax, cost in zip(axes[0], ("seconds", "bytes"), strict=True):
        for index, stage in enumerate(stages):
            part = curves.filter(pl.col("axis") == axis, pl.col("cost") == cost, pl.col("stage") == stage).sort("size")
            if len(part):
                each = part["value"].to_numpy() / part["size"].to_numpy()
                each = each / each.min() if cost == "seconds" else each
                ax.plot(part["size"], each, markersize=4, label=stage, **look(index))
        ax.set(xlabel=axis)
    axes[0, 0].axhspan(1, 1 + slack, color=GREY, linewidth=0, zorder=0)
    one = axis.removesuffix("s")
    axes[0, 0].set_ylabel(f"time per {one} / the cheapest")
    axes[0, 1].set_ylabel(f"bytes per {one}")
    for ax in axes[0]:
        log_counts(ax, "x")
        _log_costs(ax)
    legend_below(fig, axes[0, 0], 3)
    return fig
