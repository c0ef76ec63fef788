"""Figures of a replay: metrics over time, what policies cost, and how much of the future a split knows."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import Float
from matplotlib.figure import Figure

from bbqrec_lab.plots.style import GREY, INK, legend_below, log_counts, look, panels


def period_curves(
    curves: pl.DataFrame, metrics: Mapping[str, str], by: str, order: Sequence[str], moment: float | None = None
) -> Figure:
    """A metric in each period, one line for each of at most 8 names; bars are 95 % intervals over users.

    Args: curves: columns day, metric, value, low, high, and `by`. metrics: metric -> label of the axis, one panel each.
        by: the column that names the lines. order: the names. moment: of a drift, in days since the start.
    """
    fig, axes = panels(len(metrics), width=3.55, height=3.1)
    for ax, (metric, label) in zip(axes.flat, metrics.items(), strict=True):
        if moment is not None:
            ax.axvline(moment, color=INK, linewidth=1, linestyle=":")
            place = {"xycoords": ("data", "axes fraction"), "xytext": (4, 0), "textcoords": "offset points"}
            ax.annotate("drift", (moment, 1), va="top", fontsize=8, color=INK, **place)
        rows = curves.filter(pl.col("metric") == metric)
        width = np.ptp(rows["day"].to_numpy()) or 1.0
        for index, name in enumerate(order):
            line = rows.filter(pl.col(by) == name).sort("day")
            value, day = line["value"].to_numpy(), line["day"].to_numpy() + (index - len(order) / 2) * width / 150
            bounds = np.abs(line.select("low", "high").to_numpy().T - value)
            ax.errorbar(day, value, bounds, label=name, markersize=4, elinewidth=0.8, **look(index))
        ax.set(xlabel="days since the start of the replay", ylabel=label)
        ax.set_ylim(bottom=0)
    legend_below(fig, axes.flat[0])
    return fig


def cost_and_quality(costs: pl.DataFrame, learners: Sequence[str]) -> Figure:
    """NDCG@10 against the seconds of learning after the first training; one point per policy, one mark per learner.

    Args: costs: from `replay.curves.costs`. learners: at most 8. Points without learning stand at the left edge,
            where only the best policy of each learner is named.
    """
    fig, axes = panels(1, width=6.0, height=3.6)
    ax, least = axes[0, 0], 0.1
    for index, learner in enumerate(learners):
        rows = costs.filter(pl.col("learner") == learner)
        seconds, value = rows["learning"].to_numpy().clip(least), rows["ndcg@10"].to_numpy()
        bounds = np.abs(rows.select("low", "high").to_numpy().T - value)
        style = look(index, line=False)
        ax.errorbar(seconds, value, bounds, linestyle="", elinewidth=0.6, label=learner, markersize=5, **style)
        for x, y, policy in zip(seconds, value, rows["policy"], strict=True):
            if x > least or y == value[seconds == least].max():
                ax.annotate(policy, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8, color=INK)
    ax.set_xscale("log")
    ax.set_xlim(right=ax.get_xlim()[1] * 3)
    log_counts(ax, "x")
    ax.set(xlabel="seconds of learning after the first training", ylabel="NDCG@10 of all lists")
    legend_below(fig, ax)
    return fig


def future_shares(shares: Mapping[str, Float[np.ndarray, "U"]]) -> Figure:
    """For each share of training events that are later than a target, the share of users with at least as much.

    Args: shares: label -> one value per user in [0, 1], NaN is left out.
    """
    fig, axes = panels(1, width=5.0, height=3.1)
    ax = axes[0, 0]
    for index, (label, values) in enumerate(shares.items()):
        known = np.sort(values[np.isfinite(values)])
        left = 1 - np.arange(len(known)) / max(len(known), 1)
        style = {key: value for key, value in look(index).items() if key != "marker"}
        ax.plot(100 * known, 100 * left, label=label, drawstyle="steps-post", **style)
    ax.axvline(0, color=GREY, linewidth=1)
    ax.set(xlabel="training events later than the target, %", ylabel="users with at least as many, %", ylim=(0, 102))
    legend_below(fig, ax, columns=1)
    return fig


def paired_splits(values: Mapping[str, Sequence[tuple[float, float, float]]], splits: Sequence[str]) -> Figure:
    """NDCG@10 of variants with bounds under each split: one panel per split, variants in the order of the first.

    Args: values: variant -> (value, low, high) for each split.
    """
    order = sorted(values, key=lambda name: values[name][0][0])
    fig, axes = panels(len(splits), width=3.5, height=0.5 + 0.42 * len(order), sharey=True)
    fig.get_layout_engine().set(wspace=0.08)  # the last number of an axis must not touch the first of the next
    for place, (ax, split) in enumerate(zip(axes.flat, splits, strict=True)):
        found = np.array([values[name][place] for name in order])
        bounds = np.abs(found[:, 1:].T - found[:, 0])
        style = look(place, line=False)
        ax.errorbar(found[:, 0], np.arange(len(order)), xerr=bounds, linestyle="", markersize=5, **style)
        ax.set(title=split, xlabel="NDCG@10", xlim=(0, None))
    axes[0, 0].set_yticks(np.arange(len(order)), order)
    return fig
