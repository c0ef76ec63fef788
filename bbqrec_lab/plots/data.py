"""Figures of the data: items, histories, popularity, pitfalls, modalities and the split. Arrays in, `Figure` out."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from scipy.stats import rankdata

from bbqrec_lab.plots.style import (
    CATEGORIES,
    GREY,
    INK,
    ORDERED,
    RASTER,
    SIGNED,
    UNKNOWN_GENRE,
    Genre,
    card,
    legend_below,
    log_counts,
    look,
    panels,
    short,
)

SHOWN = 24  # number of events drawn for a long history
TILE = 8  # a feature vector is drawn as a square of TILE x TILE values


def item_cards(
    titles: Sequence[str],
    pictures: Sequence[str | None],
    features: dict[str, Float[np.ndarray, "Q _"]],
    present: dict[str, Bool[np.ndarray, "Q"]],
    genres: Sequence[Genre] | None = None,
) -> Figure:
    """Picture and title of each item, above its scaled features: the input of a person and the input of the model.

    Args: titles, pictures: of Q items. features, present: per modality, scaled features (unitless) of these items; the
        64 dimensions with the largest variance over these items are drawn, in their original order. genres: of the
        items, for those without a picture.
    """
    fig, axes = panels(len(titles), 1 + len(features), width=1.3, height=1.45)
    about = zip(titles, pictures, genres or [UNKNOWN_GENRE] * len(titles), strict=True)
    for column, (title, file, genre) in enumerate(about):
        card(axes[0, column], title, file, genre=genre)
    image = None
    for row, (name, vectors) in enumerate(features.items(), start=1):
        differ = np.sort(np.argsort(-vectors.var(0), kind="stable")[: TILE * TILE])
        for column, ax in enumerate(axes[row]):
            ax.set(xticks=[], yticks=[], aspect="equal")
            ax.spines[:].set(visible=True, color=GREY)
            if present[name][column]:
                tile = np.pad(vectors[column, differ], (0, -len(differ) % TILE), constant_values=np.nan)
                image = ax.imshow(tile.reshape(-1, TILE), cmap=SIGNED, vmin=-3, vmax=3)
            else:
                ax.set(xlim=(0, 1), ylim=(0, 1))
                ax.text(0.5, 0.5, "missing", ha="center", va="center", color="0.5", fontsize=8)
        axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center")
    if image is not None:
        fig.colorbar(image, ax=axes[1:], label="standard deviations", shrink=0.8, aspect=30)
    return fig


def lengths_and_popularity(lengths: Int[np.ndarray, "U"], counts: Int[np.ndarray, "N"]) -> Figure:
    """Histogram of history lengths, and events per item by rank (log axes).

    Args: lengths: events per user. counts: events per item.
    """
    fig, axes = panels(2, width=3.6)
    left, right = axes[0]
    edges = np.unique(np.geomspace(lengths.min(), lengths.max() + 1, 25).round())
    left.hist(lengths, bins=edges, color=CATEGORIES[0], edgecolor="white", linewidth=0.5)
    left.axvline(np.median(lengths), color=INK, linestyle="--")
    log_counts(left, "x")
    left.yaxis.get_major_locator().set_params(integer=True)
    left.set(xlabel="events per user", ylabel="users", title=f"median {np.median(lengths):g} events")
    ranked = np.sort(counts[counts > 0])[::-1]
    half = int(np.searchsorted(ranked.cumsum(), ranked.sum() / 2)) + 1
    right.plot(np.arange(1, len(ranked) + 1), ranked, color=CATEGORIES[0])
    right.axvline(half, color=INK, linestyle="--")
    log_counts(right)
    right.set(xlabel="rank of the item", ylabel="events of the item", title=f"half of all events: top {half}")
    return fig


def interaction_map(user: Int[np.ndarray, "E"], item: Int[np.ndarray, "E"], shape: tuple[int, int]) -> Figure:
    """Matrix of interactions: rows are users by activity, columns are items by popularity; white means no event.

    Args: user, item: rank of each event's user and item, 0 for the most events. shape: (users, items).
    """
    fig, axes = panels(1, width=5.2, height=3.2)
    bins = [min(size, most) for size, most in zip(shape, (80, 130), strict=True)]
    edges = [np.linspace(0, size, cells + 1) for size, cells in zip(shape, bins, strict=True)]
    events = np.histogram2d(user, item, bins=edges)[0]
    cells = np.outer(np.diff(np.ceil(edges[0])), np.diff(np.ceil(edges[1])))  # (user, item) pairs in each cell
    share = np.ma.masked_equal(events / np.maximum(cells, 1), 0)
    norm = LogNorm(max(share.min(), 1e-3), 1, clip=True)
    image = axes[0, 0].imshow(share, aspect="auto", cmap=ORDERED, norm=norm, extent=(0, shape[1], shape[0], 0))
    axes[0, 0].set(xlabel="items, most popular first", ylabel="users, most active first")
    percent = FuncFormatter(lambda value, _: f"{100 * value:g} %")
    ticks = [share for share in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1) if share >= norm.vmin]
    bar = fig.colorbar(image, label="share of pairs with an event", ticks=ticks, format=percent)
    bar.minorticks_off()
    return fig


def time_gaps(gaps: Int[np.ndarray, "E"], tied_users: float) -> Figure:
    """Times between consecutive events of a user; the order of events with equal times is arbitrary.

    Args: gaps: seconds between consecutive events of one user. tied_users: share whose last two events are tied.
    """
    names = ("none", "< 1 minute", "< 1 hour", "< 1 day", "longer")
    share = np.histogram(gaps, bins=[-0.5, 0.5, 60, 3600, 86_400, np.inf])[0] / max(len(gaps), 1)
    fig, axes = panels(1, width=5.2, height=2.4)
    ax = axes[0, 0]
    bars = ax.barh(names, 100 * share, color=[CATEGORIES[3], *[GREY] * 4])
    ax.bar_label(bars, [f"{100 * part:.1f} %" for part in share], padding=3, fontsize=9)
    ax.invert_yaxis()
    ax.margins(x=0.15)
    ax.set(xlabel="share of consecutive events (%)", ylabel="time between")
    ax.set_title(f"users whose last two events have equal times: {100 * tied_users:.1f} %")
    return fig


def numbering(numbers: dict[str, Int[np.ndarray, "N"]], counts: Int[np.ndarray, "N"], rho: dict[str, float]) -> Figure:
    """Popularity rank against item number, for several ways of numbering the items.

    Args: numbers: way -> number of each item. counts: training events of each item. rho: way -> rank correlation.
    """
    fig, axes = panels(len(numbers), width=2.6, height=2.8, sharey=True)
    order = rankdata(-counts)  # equal counts share a rank: breaking ties by number would add a false pattern
    for index, (ax, (name, number)) in enumerate(zip(axes[0], numbers.items(), strict=True)):
        colour = CATEGORIES[0] if index == len(numbers) - 1 else CATEGORIES[3]
        ax.scatter(number, order, s=3, color=colour, linewidths=0, rasterized=len(order) > RASTER)
        ax.set(xlabel="item number", title=f"{name}\nrank correlation {rho[name]:+.2f}")
        if index == 0:
            ax.invert_yaxis()
    axes[0, 0].set_ylabel("rank by popularity (1: most)")
    return fig


def presence_bars(combinations: dict[str, float], events: dict[str, float]) -> Figure:
    """Combinations of modalities that items have, as a share of items and of training events.

    Args: combinations, events: name of a combination -> share of items, share of events, in [0, 1].
    """
    fig, axes = panels(1, width=5.2, height=1.2 + 0.42 * len(combinations))
    ax = axes[0, 0]
    place = np.arange(len(combinations))
    for index, (label, shares) in enumerate((("items", combinations), ("training events", events))):
        values = 100 * np.array([shares[name] for name in combinations])
        bars = ax.barh(place + 0.38 * (index - 0.5), values, 0.36, label=label, color=CATEGORIES[2 * index])
        ax.bar_label(bars, [f"{value:.1f} %" for value in values], padding=3, fontsize=8)
    ax.set_yticks(place, list(combinations))
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.set(xlabel="share (%)")
    legend_below(fig, ax)
    return fig


def card_rows(
    names: Sequence[str],
    titles: Sequence[Sequence[str]],
    pictures: Sequence[Sequence[str | None]],
    first: str = "",
    genres: Sequence[Sequence[Genre]] | None = None,
) -> Figure:
    """Rows of cards, each with a name at its left; the first card of each row can be framed as the query item.

    Args: names: of the rows. titles, pictures: per row, per card. first: legend for the first card; empty marks none.
        genres: per row, per card, for items without a picture.
    """
    fig, axes = panels(max(map(len, titles)), len(names), width=1.25, height=1.55)
    for row, (axis_row, row_titles) in enumerate(zip(axes, titles, strict=True)):
        for column, ax in enumerate(axis_row):
            if column >= len(row_titles):
                ax.set_axis_off()
                continue
            frame = GREY if column or not first else CATEGORIES[3]
            genre = genres[row][column] if genres else UNKNOWN_GENRE
            card(ax, row_titles[column], pictures[row][column], frame=frame, genre=genre)
        axis_row[0].set_ylabel(short(names[row], 14, 3), rotation=0, ha="right", va="center", fontsize=8)
    if first:
        fig.supxlabel(f"framed: {first}", fontsize=8, color=CATEGORIES[3])
    return fig


def audience_by_space(spaces: dict[str, tuple[float, float]], base: float) -> Figure:
    """Shared users of items and their nearest items, for several spaces.

    Args: spaces: name -> (mean cosine of user sets with the nearest items, its standard error). base: the mean cosine
        of random pairs.
    """
    fig, axes = panels(1, width=5.2, height=1.1 + 0.4 * len(spaces))
    ax = axes[0, 0]
    for place, (mean, error) in enumerate(spaces.values()):
        ax.errorbar(mean, place, xerr=1.96 * error, capsize=3, markersize=6, **look(place % 8))
    ax.axvline(base, color=INK, linestyle="--", linewidth=1, label=f"random pairs: {base:.3g}")
    ax.set_yticks(range(len(spaces)), list(spaces))
    ax.invert_yaxis()
    ax.set(xlabel="shared users with the nearest items (cosine, 95 % interval)", ylim=(len(spaces) - 0.5, -0.5))
    ax.set_xlim(left=0)
    legend_below(fig, ax)
    return fig


def split(lengths: Sequence[int]) -> Figure:
    """The leave-one-out split of a few users: last event for test, second last for validation, others for training.

    Args: lengths: events of each user; for a long history the last `SHOWN` are drawn and the others are counted.
    """
    fig, axes = panels(1, width=5.2, height=1.2 + 0.3 * len(lengths))
    ax = axes[0, 0]
    for row, length in enumerate(lengths):
        drawn = min(length, SHOWN)
        parts = {"training": range(3, drawn + 1), "validation target": (2,), "test target": (1,)}
        for index, (name, places) in enumerate(parts.items()):
            style = look((0, 1, 3)[index], line=False)
            ax.scatter(list(places), [row] * len(places), s=26, label=None if row else name, **style)
        if length > drawn:
            ax.text(SHOWN + 1, row, f"{length - drawn} more", ha="right", va="center", fontsize=8, color=INK)
    ax.set_yticks(range(len(lengths)), [f"user {row + 1}" for row in range(len(lengths))])
    ax.set(
        xlabel="event, counted from the last", xlim=(min(SHOWN, max(lengths)) + 5, 0), ylim=(len(lengths) - 0.5, -0.5)
    )
    ax.xaxis.get_major_locator().set_params(integer=True)
    legend_below(fig, ax)
    return fig
