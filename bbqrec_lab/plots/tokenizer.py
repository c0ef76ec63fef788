"""Figures of stage 1: quantization in the plane, training, probes, and maps of items and codes."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bbqrec_lab.plots.style import (
    CATEGORIES,
    GREY,
    INK,
    RASTER,
    SMALLEST,
    highlight,
    legend_below,
    lines,
    log_counts,
    look,
    looks,
    panels,
    short,
)

COLUMNS = 3  # maximum number of panels per row
PALE = "0.88"  # points that are only the surroundings of others


def quantization_steps(
    residuals: Float[np.ndarray, "steps P 2"],
    codebook: Float[np.ndarray, "L K 2"],
    codes: Int[np.ndarray, "P L"],
    names: Sequence[str],
) -> Figure:
    """Residual quantization in the plane, one panel per level on a common scale: residuals, codes, final residuals.

    Args: residuals: (L+1, P, 2), the input of each level and the residual after the last. codes: chosen, 0..K-1.
    """
    fig, axes = panels(len(residuals), width=2.9, height=3.2, sharex=True, sharey=True)
    reach = 1.25 * np.abs(residuals).max()
    for level, ax in enumerate(axes[0]):
        arriving = residuals[level]
        length = np.linalg.norm(arriving, axis=1).mean()
        ax.axhline(0, color=GREY, linewidth=0.5, zorder=0)
        ax.axvline(0, color=GREY, linewidth=0.5, zorder=0)
        if level < len(codebook):
            _draw_codes(ax, arriving, codebook[level], codes[:, level])
            ax.set_title(f"level {level + 1}\nmean input length {length:.2f}")
        else:
            ax.scatter(*arriving.T, s=30, color=INK, zorder=3)
            ax.set_title(f"final residuals\nmean length {length:.2f}")
        for name, point in zip(names, arriving, strict=True):
            away = 9 * point / max(np.linalg.norm(point), 1e-9)
            ax.annotate(name, point, away, textcoords="offset points", fontsize=8, ha="center", va="center")
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="first coordinate")
    axes[0, 0].set_ylabel("second coordinate")
    legend_below(fig, axes[0, 0])
    return fig


def _draw_codes(
    ax: Axes, arriving: Float[np.ndarray, "P 2"], table: Float[np.ndarray, "K 2"], chosen: Int[np.ndarray, "P"]
) -> None:
    """Draw one level: points in the colour of their code, rings for codes, a line for each residual."""
    for point, code in zip(arriving, table[chosen], strict=True):
        ax.plot(*np.stack([code, point]).T, color=GREY, linewidth=1, zorder=1)
    for index, place in enumerate(table):
        mine = arriving[chosen == index]
        ax.scatter(*mine.T, s=30, zorder=3, label=f"code {index}", **look(index, line=False))
        ax.scatter(*place, s=150, zorder=2, facecolors="none", edgecolors=CATEGORIES[index], marker="o")


def training_curves(epochs: Sequence[int], losses: Mapping[str, Sequence[float]]) -> Figure:
    """Each part of the loss over training, one panel per part because their units differ."""
    columns = min(COLUMNS, len(losses))
    fig, axes = panels(columns, -(-len(losses) // columns), width=2.6, height=2.0, sharex=True)
    for ax in axes.flat[len(losses) :]:
        ax.set_axis_off()
    for ax, (name, values) in zip(axes.flat, losses.items(), strict=False):
        ax.plot(epochs, values, color=CATEGORIES[0], marker="o", markersize=2.5)
        ax.set_title(name.replace("_", " "))
        ax.xaxis.get_major_locator().set_params(integer=True, nbins=5)
    fig.supxlabel("epoch", fontsize=10)
    fig.supylabel("loss", fontsize=10)
    return fig


def code_use(
    epochs: Sequence[int], used: Int[np.ndarray, "epochs L"], perplexity: Float[np.ndarray, "epochs L"], codes: int
) -> Figure:
    """Used codes and their perplexity per level over training; the gap to the dashed line (K) is dead codes.

    Args: used: number of codes that at least one item has. perplexity: exp of the entropy of code usage, 1 .. K.
        codes: K.
    """
    fig, axes = panels(2, width=3.4, sharex=True, sharey=True)
    for ax, values, name in zip(axes[0], (used, perplexity), ("used codes", "perplexity (codes)"), strict=True):
        series = {f"level {level + 1}": values[:, level] for level in range(values.shape[1])}
        lines(ax, epochs, series, "epoch", name)
        ax.axhline(codes, color=INK, linestyle="--", linewidth=1)
        for axis in (ax.xaxis, ax.yaxis):
            axis.get_major_locator().set_params(integer=True, nbins=6)
        ax.yaxis.set_tick_params(labelleft=True)
    axes[0, 0].set_ylim(0, 1.08 * codes)
    legend_below(fig, axes[0, 0])
    return fig


def probe_dots(probes: pl.DataFrame) -> Figure:
    """Accuracy of linear probes of each factor from each part: mean and range over folds, and chance.

    Args: probes: from `probes.probe_table`; parts named `signal: kind` have the same colour and marker per kind.
    """
    factors = probes["factor"].unique(maintain_order=True).to_list()
    parts = probes["part"].unique(maintain_order=True).to_list()
    columns = min(COLUMNS, len(factors))
    width, height = 2.2 + 0.09 * max(map(len, parts)) / columns, 0.9 + 0.3 * len(parts)
    fig, axes = panels(columns, -(-len(factors) // columns), width=width, height=height, sharex=True, sharey=True)
    for ax in axes.flat[len(factors) :]:
        ax.set_axis_off()
    for ax, factor in zip(axes.flat, factors, strict=False):
        _factor_dots(ax, probes.filter(pl.col("factor") == factor), parts)
        ax.set_title(short(factor, 22, 2))
        ax.xaxis.set_tick_params(labelbottom=True)
        ax.set_xlabel("balanced accuracy")
        ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])  # more would run into those of the next panel
    axes[0, 0].set(xlim=(0, 1.04), ylim=(len(parts) - 0.5, -0.5))
    legend_below(fig, axes[0, 0])
    return fig


def _factor_dots(ax: Axes, rows: pl.DataFrame, parts: list[str]) -> None:
    """Draw one panel of `probe_dots`."""
    kinds = list(dict.fromkeys(part.split(": ")[-1] for part in parts))
    for row in rows.iter_rows(named=True):
        place, mean = parts.index(row["part"]), row["accuracy"]
        spread = [[mean - row["low"]], [row["high"] - mean]]
        style = look(kinds.index(row["part"].split(": ")[-1]))
        ax.errorbar(mean, place, xerr=spread, capsize=2, markersize=5, **style)
    ax.axvline(rows["chance"][0], color=INK, linestyle="--", linewidth=1, label="chance")
    ax.set_yticks(range(len(parts)), parts)


def against_chance(values: Mapping[str, tuple[float, float]], xlabel: str, chance: str) -> Figure:
    """Named values as dots, each with its value by chance as an open dot.

    Args: values: name -> (value, by chance), all in one unit. chance: legend of the open dots.
    """
    fig, axes = panels(1, width=5.2, height=1.2 + 0.3 * len(values))
    ax = axes[0, 0]
    for place, (value, by_chance) in enumerate(values.values()):
        ax.plot([by_chance, value], [place, place], color=GREY, linewidth=1, zorder=1)
        ax.scatter(value, place, s=36, color=CATEGORIES[0], zorder=2, label=None if place else "measured")
        hollow = {"facecolors": "white", "edgecolors": INK, "label": None if place else chance}
        ax.scatter(by_chance, place, s=30, zorder=2, **hollow)
    ax.set_yticks(range(len(values)), list(values))
    ax.set(xlabel=xlabel, ylim=(len(values) - 0.5, -0.5))
    ax.set_xlim(left=min(0, ax.get_xlim()[0]))
    legend_below(fig, ax)
    return fig


def phase(points: pl.DataFrame) -> Figure:
    """Probe gains of the planted factors against their energy ratio: mean over seeds as line, range as band.

    Args: points: from `sweeps.phase_diagram`, columns setting, ratio, seed, behaviour and nuisance (gains).
    """
    fig, axes = panels(2, width=3.5, height=3.2, sharey=True)
    styles = looks(points["setting"].to_list())
    for ax, factor in zip(axes[0], ("behaviour", "nuisance"), strict=True):
        for (name,), rows in points.group_by("setting", maintain_order=True):
            gain = pl.col(factor)
            by = rows.group_by("ratio").agg(
                gain.mean().alias("mean"), gain.min().alias("low"), gain.max().alias("high")
            )
            ratio, mean, low, high = by.sort("ratio").select("ratio", "mean", "low", "high").to_numpy().T
            ax.plot(ratio, mean, label=name, markersize=5, **styles[name])
            ax.fill_between(ratio, low, high, color=styles[name]["color"], alpha=0.2, linewidth=0)
        ax.axhline(0, color=INK, linestyle="--", linewidth=1)
        ax.set(title=f"{factor} factor", xlabel="energy of behaviour over nuisance")
        log_counts(ax, "x")
    axes[0, 0].set(ylabel="probe gain (0: chance, 1: perfect)", ylim=(-0.1, 1.05))
    legend_below(fig, axes[0, 0])
    return fig


def code_maps(
    items: Float[np.ndarray, "N 2"],
    codes: Int[np.ndarray, "N L"],
    vectors: Sequence[Float[np.ndarray, "_ 2"]],
    method: str,
) -> Figure:
    """A map of items and codebook vectors, one panel per level: the six most frequent codes of a level in colour.

    The second panel enlarges the most frequent first code: its items by their second code, all other items pale.

    Args: items: positions of N items. codes: of each item, first two levels used. vectors: positions of the codes of
        level 1, and of the sums of the most frequent first code and each second code. method: of the projection.
    """
    depth = min(2, codes.shape[1])
    fig, axes = panels(depth, width=3.8, height=3.9)
    inside = np.ones(len(items), dtype=bool)
    for level, ax in enumerate(axes[0]):
        size = np.bincount(codes[inside, level])
        largest = np.argsort(-size, kind="stable")[: min(6, int((size > 0).sum()))]
        groups = {f"code {code} ({size[code]} items)": inside & (codes[:, level] == code) for code in largest}
        crosses = vectors[level]
        if level:
            ax.scatter(*items[~inside].T, s=3, color=PALE, linewidths=0, zorder=0, rasterized=len(items) > RASTER)
            crosses = crosses[np.isin(np.unique(codes[inside, 1]), largest)]  # those of all codes would cover the items
            _look_into(ax, np.concatenate([items[inside], crosses]))
        highlight(ax, items[inside], {name: member[inside] for name, member in groups.items()})
        ax.scatter(*crosses.T, s=40, marker="+", color="black", linewidths=1.5, zorder=4, label="codebook vectors")
        ax.set_title("all items by first code" if not level else f"enlarged: items of code {first}, by second code")
        _legend(ax, -0.02, 8)
        first = largest[0]
        inside = codes[:, 0] == first
    fig.supxlabel(f"{method}: compare neighbourhoods, not distances", fontsize=8, color=INK)
    return fig


def _legend(ax: Axes, height: float, size: float, columns: int = 2) -> None:
    """Legend below a map, with markers of fixed size because the points can be small."""
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, height), "ncols": columns}
    box = ax.legend(**place, fontsize=size, handletextpad=0.2)
    for handle in box.legend_handles:
        handle.set_sizes([24])


def _look_into(ax: Axes, points: Float[np.ndarray, "P 2"]) -> None:
    """Set the limits of a map to the range of most points; a few outliers would make the others too small."""
    low, high = np.quantile(points, [0.02, 0.98], axis=0)
    pad = 0.25 * (high - low) + 1e-3
    ax.set(xlim=(low[0] - pad[0], high[0] + pad[0]), ylim=(low[1] - pad[1], high[1] + pad[1]))


def coloured_maps(
    items: Float[np.ndarray, "N 2"], colourings: Mapping[str, Mapping[str, Bool[np.ndarray, "N"]]], method: str
) -> Figure:
    """The same map of the items in several panels, each with different groups in colour.

    Args: items: positions of N items. colourings: title -> (group -> members), at most eight groups each.
    """
    most = max(map(len, colourings.values()))
    fig, axes = panels(len(colourings), width=2.9, height=2.6 + 0.17 * most)
    for ax, (title, groups) in zip(axes[0], colourings.items(), strict=True):
        highlight(ax, items, dict(groups))
        ax.set_title(title)
        _legend(ax, 0.02, SMALLEST, columns=1)
    fig.supxlabel(f"{method}: compare neighbourhoods, not distances", fontsize=8, color=INK)
    return fig
